"""Engines that run: pages of their metrics, what they did between two of them, their own counters, and the logs of their start."""

from roofline.measured.engines.devices import read_device_metrics
from roofline.measured.engines.log import EngineLog, LoggedCache, read_engine_log
from roofline.measured.engines.own_counters import OwnCounters, own_counters
from roofline.measured.engines.page import EnginePage, read_metrics
from roofline.measured.engines.watching import engine_window, watch_engine
from roofline.measured.engines.window import EngineWindow

__all__ = [
    "EngineLog",
    "EnginePage",
    "EngineWindow",
    "LoggedCache",
    "OwnCounters",
    "engine_window",
    "own_counters",
    "read_device_metrics",
    "read_engine_log",
    "read_metrics",
    "watch_engine",
]
