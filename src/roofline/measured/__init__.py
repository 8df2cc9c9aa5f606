"""What happened: measurements of services and steps, from files, pages and logs, beside estimate and floor."""

from roofline.measured.measurement import Latency, ServingMeasurement

__all__ = ["Latency", "ServingMeasurement"]
