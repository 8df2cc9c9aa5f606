"""What happened: measurements of services and steps, from files, pages and logs, beside estimate and floor."""

from roofline.measured.comparing import compare
from roofline.measured.comparison import Comparison
from roofline.measured.engines import (
    EngineLog,
    EnginePage,
    EngineWindow,
    LoggedCache,
    OwnCounters,
    engine_window,
    own_counters,
    read_device_metrics,
    read_engine_log,
    read_metrics,
    watch_engine,
)
from roofline.measured.gaps import Part
from roofline.measured.labels import Label
from roofline.measured.measurement import Latency, ServingMeasurement
from roofline.measured.reading import read_measurement, read_measurements
from roofline.measured.steps import StepComparison, compare_steps
from roofline.measured.times import ComparedTime
from roofline.measured.two_runs import step_of_two_runs

__all__ = [
    "ComparedTime",
    "Comparison",
    "EngineLog",
    "EnginePage",
    "EngineWindow",
    "Label",
    "Latency",
    "LoggedCache",
    "OwnCounters",
    "Part",
    "ServingMeasurement",
    "StepComparison",
    "compare",
    "compare_steps",
    "engine_window",
    "own_counters",
    "read_device_metrics",
    "read_engine_log",
    "read_measurement",
    "read_measurements",
    "read_metrics",
    "step_of_two_runs",
    "watch_engine",
]
