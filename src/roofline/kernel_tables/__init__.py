"""Tables of measured kernels: reading them, what a row means, and holding every row against its floor."""

from roofline.kernel_tables.check import Finding, TableCheck, check_table
from roofline.kernel_tables.read import read_layout, read_table
from roofline.kernel_tables.table import KernelGroup, KernelTable

__all__ = ["Finding", "KernelGroup", "KernelTable", "TableCheck", "check_table", "read_layout", "read_table"]
