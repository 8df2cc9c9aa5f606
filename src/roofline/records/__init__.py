"""The record room: what was measured on a machine, as files that can be read again.

:class:`CalibrationRecord` is the layout, :func:`save_record` and :func:`load_record` write and read it, and
:func:`list_records` tells which records are shipped (``hardware_specs/measured/*.json``).
"""

from roofline.records.schema import (
    PERCENTILES,
    SCHEMA_VERSION,
    SLOWEST,
    CalibrationRecord,
    Environment,
    FittedConstant,
    KernelClass,
    Rates,
    Samples,
    Telemetry,
)
from roofline.records.store import ENGINES, list_records, load_record, shipped_records
from roofline.records.writing import save_record

__all__ = [
    "ENGINES",
    "PERCENTILES",
    "SCHEMA_VERSION",
    "SLOWEST",
    "CalibrationRecord",
    "Environment",
    "FittedConstant",
    "KernelClass",
    "Rates",
    "Samples",
    "Telemetry",
    "list_records",
    "load_record",
    "save_record",
    "shipped_records",
]
