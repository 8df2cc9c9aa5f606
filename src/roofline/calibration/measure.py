"""Measuring one point: its time, and whether its result is correct."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any

from roofline.calibration.devices import Device, load_torch, responds
from roofline.calibration.operators import Kernel, OutOfMemory, poison, prepare
from roofline.calibration.plan import Point
from roofline.calibration.products import precision
from roofline.calibration.timing import Times, device_times, host_times, quantile
from roofline.errors import CalibrationError, RooflineError
from roofline.records import Flag
from roofline.records.conditions import WRONG

_NO_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


class DeviceLost(CalibrationError):
    """The device no longer computes in this process."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The time of one kernel."""

    seconds: float  # median [s]
    low_s: float  # 10 % and 90 % quantiles of the runs [s]
    high_s: float
    runs: int  # blocks of calls that were timed
    moved_bytes: float  # bytes that one call moves [B]
    flops: float  # operations of one call [FLOP]
    error: float  # deviation of the result from a reference of higher precision, on a sampled part, relative to its root mean square
    flags: tuple[Flag, ...] = ()  # what is doubtful
    kernel: str = ""  # the kernel; the fastest one of several


def measure(point: Point, device: Device, *, budget_s: float = 0.6) -> Measurement:
    """Return the time that one kernel takes on a device.

    Examples
    --------
    >>> from roofline.calibration.devices import open_device
    >>> found = measure(Point("matmul", "fp32", "fp32", {"m": 8, "n": 64, "k": 64}), open_device("cpu"), budget_s=0.05)
    >>> found.flops, found.low_s <= found.seconds <= found.high_s
    (65536.0, True)
    """
    torch = load_torch()
    with _explained(torch, point, device):
        try:
            with torch.no_grad(), device.current(), precision(torch, point.operand):
                return _measured(point, device, budget_s)
        finally:
            if device.kind == "cuda":
                with suppress(RuntimeError):  # torch raises after a failed capture, which does not affect the sample
                    torch.cuda.empty_cache()  # otherwise the memory of CUDA graphs is not reused


def _measured(point: Point, device: Device, budget_s: float) -> Measurement:
    """Return the time of the fastest kernel with a correct result, or of the fastest one if none is correct."""
    found = []
    for kernel in _by_speed(prepare(point, device), device, budget_s):
        found.append(_timed(kernel, device, budget_s))
        if WRONG not in found[-1].flags:
            return found[-1]
    return found[0]


def _timed(kernel: Kernel, device: Device, budget_s: float) -> Measurement:
    times = _times(kernel, device, budget_s)
    error = kernel.check(times.last, times.result)
    return Measurement(
        seconds=quantile(times.samples, 0.5),
        low_s=quantile(times.samples, 0.1),
        high_s=quantile(times.samples, 0.9),
        runs=len(times.samples),
        moved_bytes=kernel.moved_bytes,
        flops=kernel.flops,
        error=error,
        flags=times.flags if error <= kernel.tolerance else (WRONG, *times.flags),
        kernel=kernel.name,
    )


def _times(kernel: Kernel, device: Device, budget_s: float) -> Times:
    clock = device_times if device.kind == "cuda" and kernel.clock == "device" else host_times
    return clock(kernel.calls, device, budget_s=budget_s, poison=poison if kernel.poisoned else _keep)


def _keep(_: Any) -> None:
    """Leave a result as it is."""


def _by_speed(kernels: tuple[Kernel, ...], device: Device, budget_s: float) -> tuple[Kernel, ...]:
    """Return the kernels that run on the device, the fastest first."""
    if len(kernels) == 1:
        return kernels
    seconds: dict[int, float] = {}
    refusals: list[RuntimeError] = []
    for place, kernel in enumerate(kernels):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of every reason why a kernel does not accept the arguments
                seconds[place] = quantile(_times(kernel, device, budget_s / 10).samples, 0.5)
        except RuntimeError as error:
            refusals.append(error.with_traceback(None))  # its frames keep tensors alive
    if not seconds:
        raise refusals[0]
    return tuple(kernels[place] for place in sorted(seconds, key=seconds.__getitem__))


@contextmanager
def _explained(torch: Any, point: Point, device: Device) -> Iterator[None]:
    """Turn errors of torch into errors of ours that name the point."""
    try:
        yield
    except RooflineError:
        raise
    except (MemoryError, RuntimeError, TypeError) as error:
        clear_frames(error.__traceback__)  # their variables keep tensors alive, whose memory the next point needs
        full = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or any(words in str(error).lower() for words in _NO_MEMORY)
        if full:
            raise OutOfMemory(f"{point.key} does not fit into the memory of {device.label}.") from error
        text = str(error).strip().splitlines()
        kind = CalibrationError if responds(device) else DeviceLost
        raise kind(f"{point.key} does not run on {device.label}: {text[0] if text else type(error).__name__}.") from error
