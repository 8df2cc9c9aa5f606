"""Measuring what this machine really reaches, and fitting it.

:func:`calibrate` runs a plan of micro-benchmarks on a device and keeps samples, fit and environment in a record;
:class:`CalibrationSession` is one such run, :func:`fit_classes` and :func:`fit_family` are its fit, and
:func:`record_from_tables` makes a record of kernels that others have measured.
"""

from roofline.calibration.classes import fit_classes
from roofline.calibration.fit import Fit, fit_family
from roofline.calibration.ingest import record_from_tables
from roofline.calibration.plan import PLANS
from roofline.calibration.session import CalibrationSession
from roofline.calibration.starting import calibrate

__all__ = ["PLANS", "CalibrationSession", "Fit", "calibrate", "fit_classes", "fit_family", "record_from_tables"]
