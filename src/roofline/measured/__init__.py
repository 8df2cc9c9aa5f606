"""What happened: measurements of services and steps, from files, pages and logs, beside estimate and floor."""

from roofline.measured.measurement import Latency, ServingMeasurement
from roofline.measured.reading import read_measurement, read_measurements

__all__ = ["Latency", "ServingMeasurement", "read_measurement", "read_measurements"]
