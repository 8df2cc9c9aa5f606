"""Calibration records: what was measured on a machine, in files.

:class:`CalibrationRecord` is the layout, :func:`save_record` and :func:`load_record` write and read it, and
:func:`list_records` tells which records are shipped (``hardware_specs/measured/*.json``).
"""

from roofline.records.conditions import WRONG, Condition, Flag
from roofline.records.samples import Sample, group_samples, list_samples
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
    "WRONG",
    "CalibrationRecord",
    "Condition",
    "Environment",
    "FittedConstant",
    "Flag",
    "KernelClass",
    "Rates",
    "Sample",
    "Samples",
    "Telemetry",
    "group_samples",
    "list_records",
    "list_samples",
    "load_record",
    "save_record",
    "shipped_records",
]
