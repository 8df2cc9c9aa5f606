"""Calibration records: what was measured on a machine, in files.

:class:`CalibrationRecord` is the layout, :func:`save_record` and :func:`load_record` write and read it, and
:func:`list_records` tells which records are shipped (``hardware_specs/measured/*.json``). :func:`with_classes` puts two together.
"""

from roofline.records.composite import with_classes
from roofline.records.conditions import Condition, Flag
from roofline.records.schema import SCHEMA_VERSION, CalibrationRecord, Environment, FittedConstant, KernelClass, Rates, Samples, Telemetry
from roofline.records.shapes import Shapes, SizeQuantiles
from roofline.records.store import list_records, load_record
from roofline.records.writing import save_record

__all__ = [
    "SCHEMA_VERSION",
    "CalibrationRecord",
    "Condition",
    "Environment",
    "FittedConstant",
    "Flag",
    "KernelClass",
    "Rates",
    "Samples",
    "Shapes",
    "SizeQuantiles",
    "Telemetry",
    "list_records",
    "load_record",
    "save_record",
    "with_classes",
]
