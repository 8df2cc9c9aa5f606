"""Tables of measured kernels: reading them, what a row means, and holding every row against its floor."""

from roofline.kernel_tables.check import Finding, TableCheck, check_table
from roofline.kernel_tables.read import read_table
from roofline.kernel_tables.table import KernelTable

__all__ = ["Finding", "KernelTable", "TableCheck", "check_table", "read_table"]
