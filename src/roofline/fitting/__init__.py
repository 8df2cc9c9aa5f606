"""Fitting the constants of kernel forms to samples; needs scipy, but no torch.

:func:`fit_family` fits one form, :func:`fit_classes` the classes of a record, and :func:`record_from_tables` makes a record of
kernels that others have measured.
"""

from roofline.fitting.classes import fit_classes
from roofline.fitting.solve import Fit, fit_family
from roofline.fitting.tables import record_from_tables

__all__ = ["Fit", "fit_classes", "fit_family", "record_from_tables"]
