"""A kernel that is ready to run, and the arrays it works on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from roofline.calibration.devices import Device, load_torch
from roofline.errors import CalibrationError
from roofline.units import show_bytes

ROTATION = 3
"""Weights and caches rotate through this many times the last-level cache, so that each use comes from main memory [-]."""

_SHARE = 0.8
_PERIOD = 4_194_301  # a prime, so that no two matrices of the usual sizes start with the same numbers
_SEED = 20260


class OutOfMemory(CalibrationError):
    """The device has too little memory for a point."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and its arguments."""

    name: str  # what is called
    # called in turn, each on arrays of its own that must come from main memory; each returns its result
    calls: tuple[Callable[[], Any], ...]
    moved_bytes: float  # bytes that one call is counted to move [B]
    flops: float  # operations that one call is counted to do [FLOP]
    # ``check(i, result)`` → deviation of the result of call i from a reference of higher precision, on a sampled part
    check: Callable[[int, Any], float]
    tolerance: float  # largest deviation of a correct result
    # whether it is timed by CUDA events in a graph, or by the host's clock with launches and synchronization
    clock: Literal["device", "host"] = "device"
    poisoned: bool = True  # whether results may be overwritten between runs


def rotation(streamed_bytes: int, device: Device) -> int:
    """Return how many copies of an array to rotate through so that each use comes from main memory.

    Examples
    --------
    >>> from roofline.calibration.devices import open_device
    >>> cpu = open_device("cpu")
    >>> rotation(cpu.cache_bytes, cpu), rotation(100 * cpu.cache_bytes, cpu)
    (3, 1)
    """
    return max(1, math.ceil(ROTATION * device.cache_bytes / streamed_bytes))


def check_room(needed_bytes: int, device: Device) -> None:
    """Raise OutOfMemory before the allocation, because the system may kill a process that allocates too much."""
    free = device.free_bytes
    if needed_bytes > _SHARE * free:
        raise OutOfMemory(
            f"{show_bytes(needed_bytes)} are needed on {device.label}, of which {show_bytes(free)} are free; at most {_SHARE:.0%} of that is taken."
        )


def random_array(shape: tuple[int, ...], dtype: str, device: Device, *, seed: int = 0) -> Any:
    """Return an array of normally distributed numbers, the same in every run; integers are uniformly distributed.

    Zeros would be multiplied faster because they switch fewer transistors. A long array repeats with a prime period, because generating
    random numbers takes longer than most kernels.
    """
    torch = load_torch()
    kind, numel = getattr(torch, dtype), math.prod(shape)
    generator = torch.Generator(device=device.label).manual_seed(_SEED + seed)
    out = torch.empty(numel, dtype=kind, device=device.label)
    length = min(numel, _PERIOD)
    if kind == torch.int8:
        base = torch.randint(-127, 128, (length,), generator=generator, device=device.label, dtype=kind)
    else:
        base = torch.randn(length, generator=generator, device=device.label).to(kind)
    whole = numel // length
    out[: whole * length].view(whole, length).copy_(base.expand(whole, length))
    out[whole * length :].copy_(base[: numel - whole * length])
    return out.view(shape)


def poison(result: Any) -> None:
    """Overwrite a result with NaN or the least integer, so that a kernel that does not run is detected."""
    torch = load_torch()
    if isinstance(result, torch.Tensor):
        result.fill_(math.nan if result.is_floating_point() else torch.iinfo(result.dtype).min)


def deviation(found: Any, reference: Any) -> float:
    """Return the largest difference of two arrays, relative to the root mean square of the second."""
    found, reference = found.detach().cpu().double(), reference.detach().cpu().double()
    scale = float(reference.pow(2).mean().sqrt())
    error = float((found - reference).abs().max()) / (scale or 1.0)
    return error if math.isfinite(error) else math.inf
