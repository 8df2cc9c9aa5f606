"""A pretended device and pretended kernels: a calibration without either."""

from dataclasses import replace

from roofline import Hardware
from roofline.calibration.devices import Device
from roofline.calibration.measure import Measurement
from roofline.calibration.plan import Point
from roofline.calibration.session import CalibrationSession
from roofline.fitting import classes
from roofline.kernels import FAMILIES
from roofline.records.samples import list_samples
from roofline.telemetry.reading import SilentTelemeter

PEAK, BANDWIDTH = 4e11, 2e10
MADE = {"compute_share": 0.8, "bandwidth_share": 0.7, "fixed_s": 5e-6}
DEVICE = Device(
    "cpu", "Pretended CPU", 0, {"torch": "2.9.0", "python": "3.12", "threads": 2, "cores": 2}, ("fp32",), ("fp32",), 2**20, 2**33
)
SHAPES = [(m, n, k) for n, k in ((256, 512), (1024, 1024), (4096, 2048)) for m in (1, 16, 256, 2048)]
POINTS = tuple(Point("matmul", "fp32", "fp32", {"m": m, "n": n, "k": k}) for m, n, k in SHAPES)
OTHERS = (
    Point("launch", "fp32", "fp32", {"elements": 1}),
    Point("read", "fp32", "fp32", {"bytes": 2**26}),
    Point("read", "fp32", "fp32", {"bytes": 2**18}),
)
FULL = POINTS + OTHERS


def made(point):
    """Seconds by the very form that is fitted, with constants of our own."""
    if point.family == "launch":
        return 3e-6
    if point.family == "read":
        return point.sizes["bytes"] / (BANDWIDTH if point.sizes["bytes"] > 2**20 else 50 * BANDWIDTH)
    family = FAMILIES["matmul"]
    x = family.features(classes.kernel_op(point.family, point.stored, point.operand, point.sizes))
    constants = {c.name: c.start for c in family.constants} | MADE
    return float(family.seconds(x, constants, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH))


class Measure:
    """Stands in for measuring: knows what each point takes, and what goes wrong."""

    def __init__(self, wrong=None):
        self.done, self.budgets, self.wrong = [], [], wrong or {}

    def __call__(self, point, device, *, budget_s):
        self.budgets.append(budget_s)
        what = self.wrong.get(len(self.done), 0)
        self.done.append(point.key)
        if isinstance(what, BaseException):
            raise what
        seconds = made(point)
        moved = float(point.sizes.get("bytes", 0))
        fine = Measurement(seconds, seconds * 0.95, seconds * 1.1, 5, moved, 1.0, 0.0)
        return replace(fine, **what) if what else fine


def start(output, points=POINTS, *, measure=None, telemeter=None, **options):
    options = {"plan": "quick", "device": DEVICE, **options}
    device = options.pop("device")
    return CalibrationSession(device, points, telemeter or SilentTelemeter("pretended"), output, measure=measure or Measure(), **options)


def bare(bandwidth=BANDWIDTH, peak=PEAK, name="bare"):
    return Hardware.from_rates(memory_bandwidth=bandwidth, peak_flops_per_s=peak, name=name)


def best_rate():
    """FLOP/s of the fastest product, by hand."""
    return max(2 * p.sizes["m"] * p.sizes["n"] * p.sizes["k"] / made(p) for p in POINTS)


class Sums:
    """Stands in for the processes: sums in 20 µs and at 1 GB/s, one after the other, until something goes wrong."""

    def __init__(self, wrong=None):
        self.asked, self.wrong = [], wrong or {}

    def __call__(self, device, *, ranks, sizes, timeout_s, size_s, report):
        self.asked.append((ranks, tuple(sizes), timeout_s, size_s))
        for i, size in enumerate(sizes):
            if i in self.wrong:
                raise self.wrong[i]
            seconds = 2e-5 + size / 1e9
            found = Measurement(seconds, seconds, seconds, 5, float(size), 0.0, 0.0)
            report(Point("all_reduce", "fp32", "fp32", {"ranks": ranks, "bytes": size}), found)


def reduced(record):
    return [s for s in list_samples(record.classes) if s.family == "all_reduce"]
