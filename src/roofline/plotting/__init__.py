"""Plots of machines, steps and batches: Axes in, Axes out.

Matplotlib is imported only when a plot is drawn: ``pip install '.[plot]'`` in a checkout. The data in ``ax.lines`` are in SI base units and can be
compared with any other number of this library. Only tick labels use a prefix, which the axis label names.
"""

from roofline.plotting.batch import plot_batch
from roofline.plotting.breakdown import plot_breakdown
from roofline.plotting.roofline import plot_roofline

__all__ = ["plot_batch", "plot_breakdown", "plot_roofline"]
