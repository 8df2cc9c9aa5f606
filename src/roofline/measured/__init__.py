"""What happened: measurements of services and steps, from files, pages and logs, beside estimate and floor."""

from roofline.measured.engines import (
    DeviceCounters,
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
from roofline.measured.measurement import Latency, ServingMeasurement
from roofline.measured.reading import read_measurement, read_measurements
from roofline.measured.two_runs import step_of_two_runs

__all__ = [
    "DeviceCounters",
    "EngineLog",
    "EnginePage",
    "EngineWindow",
    "Latency",
    "LoggedCache",
    "OwnCounters",
    "ServingMeasurement",
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
