"""Measuring what this device reaches, with torch.

:func:`calibrate` runs a plan of micro-benchmarks on a device and keeps samples, fit and environment in a record;
``session`` is one such run, ``plan`` its points. The fit itself is :mod:`roofline.fitting`.
"""

from roofline.calibration.starting import calibrate

__all__ = ["calibrate"]
