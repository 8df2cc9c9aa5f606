"""Engines that run: pages of their metrics, what they did between two of them, and the logs of their start."""

from roofline.measured.engines.page import EnginePage, read_metrics
from roofline.measured.engines.watching import engine_window, watch_engine
from roofline.measured.engines.window import EngineWindow

__all__ = ["EnginePage", "EngineWindow", "engine_window", "read_metrics", "watch_engine"]
