"""Measuring what this device reaches, with torch.

:func:`calibrate` runs a plan of micro-benchmarks on a device and keeps samples, fit and environment in a record;
:class:`CalibrationSession` is one such run. The fit itself is :mod:`roofline.fitting`.
"""

from roofline.calibration.plan import PLANS
from roofline.calibration.session import CalibrationSession
from roofline.calibration.starting import calibrate

__all__ = ["PLANS", "CalibrationSession", "calibrate"]
