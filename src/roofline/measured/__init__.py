"""What happened: measurements of services and steps, from files, pages and logs, beside estimate and floor."""

from roofline.measured.compare import compare
from roofline.measured.comparison import Comparison
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
    "Label",
    "Latency",
    "Part",
    "ServingMeasurement",
    "StepComparison",
    "compare",
    "compare_steps",
    "read_measurement",
    "read_measurements",
    "step_of_two_runs",
]
