"""What happened: measurements of services and steps, from files, pages and logs, beside estimate and floor."""

from roofline.measured.measurement import Latency, ServingMeasurement
from roofline.measured.reading import read_measurement, read_measurements
from roofline.measured.two_runs import step_of_two_runs

__all__ = ["Latency", "ServingMeasurement", "read_measurement", "read_measurements", "step_of_two_runs"]
