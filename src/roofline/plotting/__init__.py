"""Pictures of machines, steps and batches: Axes in, Axes out.

Matplotlib is needed only when a picture is drawn: ``pip install 'roofline[plot]'``. Curves carry SI base units, so that what
stands in ``ax.lines`` can be compared with any other number of this library; only the tick labels use a prefix, and the axis
says which.
"""

from roofline.plotting.batch import plot_batch
from roofline.plotting.breakdown import plot_breakdown
from roofline.plotting.roofline import plot_roofline

__all__ = ["plot_batch", "plot_breakdown", "plot_roofline"]
