"""Tables of measured kernels: reading them, what a row means, and holding every row against its floor."""

from roofline.kernel_tables.check import TableCheck, check_table
from roofline.kernel_tables.findings import Finding
from roofline.kernel_tables.read import read_table
from roofline.kernel_tables.table import KernelTable, TableReading

__all__ = ["Finding", "KernelTable", "TableCheck", "TableReading", "check_table", "read_table"]
