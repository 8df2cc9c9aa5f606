"""Reading and copying arrays, on the device and between host and device."""

import math
from typing import Any

from roofline.calibration.devices import Device, load_torch
from roofline.calibration.operators.kernel import Kernel, check_room, deviation, random_array
from roofline.calibration.plan import Point
from roofline.errors import CalibrationError

_ROW = 4096  # elements; row sums are parallel over the rows
_CHECKED = 4096  # rows
_TOLERANCE = 1e-2  # of sums of millions of numbers in fp32, relative to the standard deviation of such a sum


def prepare_read(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return kernels that read an array once; there is no rotation, so small arrays stay in the cache."""
    torch = load_torch()
    size = point.sizes["bytes"]
    check_room(size, device)
    x = random_array((_whole(size) // 4,), "float32", device, seed=7)
    rows = x.view(-1, math.gcd(_ROW, x.numel()))
    total, sums, most = (
        torch.empty((), device=device.label),
        torch.empty(len(rows), device=device.label),
        torch.empty(len(rows), device=device.label),
    )

    def exact() -> Any:  # in parts, because torch copies to fp64 what it sums in fp64
        return torch.cat([part.sum(1, dtype=torch.float64) for part in rows.split(_CHECKED)])

    def whole(_: int, result: Any) -> float:
        return _number(abs(float(result) - float(exact().sum())) / math.sqrt(x.numel()))

    def by_rows(_: int, result: Any) -> float:
        return deviation(result, exact())

    return (
        Kernel("sum", (lambda: torch.sum(x, 0, out=total),), float(size), 0.0, whole, _TOLERANCE),
        Kernel("sum of rows", (lambda: torch.sum(rows, 1, out=sums),), float(size), 0.0, by_rows, _TOLERANCE),
        Kernel(
            "largest of rows",
            (lambda: torch.amax(rows, 1, out=most),),
            float(size),
            0.0,
            lambda _, r: deviation(r, rows.max(1).values),
            0.0,
        ),
    )


def prepare_copy(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return kernels that copy an array, with bytes read plus written; small arrays stay in the cache."""
    torch = load_torch()
    size = point.sizes["bytes"]
    check_room(size, device)
    x = random_array((_whole(size) // 8,), "float32", device, seed=8)
    y = torch.empty_like(x)
    return (
        Kernel("copy_", (lambda: y.copy_(x),), float(size), 0.0, lambda _, r: _differs(r, x), 0.0),
        Kernel("neg", (lambda: torch.neg(x, out=y),), float(size), 0.0, lambda _, r: _differs(r, -x), 0.0),
    )


def prepare_transfer(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return a copy between pinned host memory and the device, synchronization included."""
    torch = load_torch()
    if device.kind == "cpu":
        raise CalibrationError(f"{point.family} copies are measured on a GPU; {device.label} is the host.")
    size = point.sizes["bytes"]
    check_room(size, device)
    there = random_array((_whole(size) // 4,), "float32", device, seed=9)
    here = torch.empty(there.shape, dtype=there.dtype, pin_memory=True).copy_(there)
    source, target = (here, torch.empty_like(there)) if point.family == "host_to_device" else (there, here)

    def run() -> Any:
        target.copy_(source, non_blocking=True)
        device.synchronize()
        return target

    reference = there.clone()
    return (Kernel("copy_", (run,), float(size), 0.0, lambda _, r: _differs(r.cpu(), reference.cpu()), 0.0, clock="host"),)


def _whole(size: int) -> int:
    if size % 1024:
        raise CalibrationError(f"arrays are measured in multiples of 1024 bytes, not of {size} bytes.")
    return size


def _number(error: float) -> float:
    return error if math.isfinite(error) else math.inf


def _differs(found: Any, reference: Any) -> float:
    """Return 0 for equal arrays, else infinity."""
    return 0.0 if bool((found == reference).all()) else math.inf
