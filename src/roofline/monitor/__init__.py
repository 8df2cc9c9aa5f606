"""What a device does while it works: its counters, read without disturbing it, and what binds it.

Shares are numbers from 0 to 1. Nothing of a device is ever set, and no program on it is touched.
"""

from roofline.monitor.advice import Recommendation
from roofline.monitor.bottleneck import Thresholds, Verdict, classify_bottleneck
from roofline.monitor.exporter import MetricsServer, serve_metrics
from roofline.monitor.recording import DeviceSummary, Recording, read_recording
from roofline.monitor.watching import BottleneckMonitor
from roofline.telemetry.samples import DeviceSample

__all__ = [
    "BottleneckMonitor",
    "DeviceSample",
    "DeviceSummary",
    "MetricsServer",
    "Recommendation",
    "Recording",
    "Thresholds",
    "Verdict",
    "classify_bottleneck",
    "read_recording",
    "serve_metrics",
]
