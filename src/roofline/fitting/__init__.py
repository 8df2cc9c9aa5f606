"""Fitting the constants of kernel forms to samples; needs scipy, but no torch.

:func:`record_from_tables` makes a record of kernels that others have measured; ``solve`` fits one form, ``classes`` the classes of a record.
"""

from roofline.fitting.tables import record_from_tables

__all__ = ["record_from_tables"]
