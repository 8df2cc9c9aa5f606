"""What binds a device, by how much of its arithmetic and of its bandwidth is in use."""

from dataclasses import dataclass
from typing import Literal, get_args

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.monitor.reachable import Reachable
from roofline.names import unknown_name
from roofline.telemetry.samples import LARGEST_SHARE, DeviceSample, is_number

Bottleneck = Literal["compute_bound", "memory_bound", "balanced", "underutilized", "unknown"]
CLASSES: tuple[Bottleneck, ...] = get_args(Bottleneck)
_BINDING = CLASSES[:3]

GPU_UTIL = "GPU-Util is the share of the time in which any kernel ran, not an efficiency"
"""What to say wherever that counter is shown."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where one class ends and the next begins, as shares of use.

    Parameters
    ----------
    high : float, optional
        Above it one side binds, if the other is below `low` [-].
    low : float, optional
        Below it a side is idle enough to not bind [-].
    both : float, optional
        Above it on both sides the two are balanced [-].
    hysteresis : float, optional
        How far a share may fall back over its threshold before the class changes; 0 for none [-].

    Raises
    ------
    InvalidValueError
        If a threshold is no share, `low` is above `both` or `both` above `high`, or the hysteresis would let two classes overlap.
    """

    high: float = 0.8
    low: float = 0.5
    both: float = 0.7
    hysteresis: float = 0.05

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            share_of(name, getattr(self, name))
        if not self.low <= self.both <= self.high:
            raise InvalidValueError(
                f"low is {self.low:g}, both {self.both:g} and high {self.high:g}; low must not be above both, nor both above high."
            )
        if self.hysteresis > (self.both - self.low) / 2 + _ROUNDING:
            most = (self.both - self.low) / 2
            raise InvalidValueError(
                f"hysteresis is {self.hysteresis:g}; with these thresholds it can be {most:g} at most, or classes overlap."
            )


def check_thresholds(thresholds: Thresholds | None) -> Thresholds:
    """Return thresholds, the usual ones if there are none, or raise."""
    if thresholds is not None and not isinstance(thresholds, Thresholds):
        raise InvalidValueError(f"thresholds is {quoted(thresholds)}; it must be Thresholds(high=..., low=..., both=..., hysteresis=...).")
    return thresholds or Thresholds()


def share_of(name: str, value: float) -> float:
    """Return a share of use, or raise if it is none: per cent, negative, not a number."""
    if not is_number(value) or not 0 <= value <= LARGEST_SHARE:
        hint = f", such as {value / 100:g}" if is_number(value) and LARGEST_SHARE < value <= 100 * LARGEST_SHARE else ""
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be a share from 0 to 1{hint}.")
    return float(value)


@checks_call
def classify_bottleneck(compute: float, memory: float, thresholds: Thresholds | None = None, *, previous: str | None = None) -> Bottleneck:
    """Return what binds a device of which these shares are in use.

    Parameters
    ----------
    compute : float
        Share of the arithmetic in use: tensor cores active [-].
    memory : float
        Share of the bandwidth in use [-].
    thresholds : Thresholds, optional
        Where classes begin; 0.8, 0.5 and 0.7 if not given [-].
    previous : str, optional
        The class before: it stays until a share has passed its threshold by the hysteresis [-].

    Returns
    -------
    {"compute_bound", "memory_bound", "balanced", "underutilized"}
        The class: one side above `high` and the other below `low`; both above `both`; or neither, where something else than the device
        sets the time: the host, gaps between kernels, a batch that is too small [-].

    Raises
    ------
    InvalidValueError
        If a share is none, such as one in per cent.
    UnknownNameError
        If there is no such class as `previous`.

    Examples
    --------
    >>> classify_bottleneck(0.9, 0.3), classify_bottleneck(0.1, 0.88), classify_bottleneck(0.75, 0.75), classify_bottleneck(0.3, 0.4)
    ('compute_bound', 'memory_bound', 'balanced', 'underutilized')
    >>> classify_bottleneck(0.78, 0.3), classify_bottleneck(0.78, 0.3, previous="compute_bound")
    ('underutilized', 'compute_bound')
    """
    compute, memory, at = share_of("compute", compute), share_of("memory", memory), check_thresholds(thresholds)
    if previous not in (None, *CLASSES):
        raise unknown_name("class", str(previous), CLASSES)
    if previous is not None and _holds(previous, compute, memory, at, at.hysteresis):
        return previous
    return next((name for name in _BINDING if _holds(name, compute, memory, at, 0.0)), "underutilized")


def _holds(name: str, compute: float, memory: float, at: Thresholds, margin: float) -> bool:
    if name == "compute_bound":
        return compute > at.high - margin and memory < at.low + margin
    if name == "memory_bound":
        return memory > at.high - margin and compute < at.low + margin
    return name == "balanced" and min(compute, memory) > at.both - margin


@dataclass(frozen=True, slots=True)
class Verdict:
    """What binds a device at one moment, and what says so.

    Parameters
    ----------
    bottleneck : str
        ``"compute_bound"``, ``"memory_bound"``, ``"balanced"``, ``"underutilized"``, or ``"unknown"`` where the counters cannot tell [-].
    reason : str
        The counters it rests on, in a sentence [-].
    compute : float, optional
        Share of the arithmetic in use; None where no counter tells [-].
    memory : float, optional
        Share of the bandwidth in use, of what is reachable where that is known; None where no counter tells [-].
    """

    bottleneck: Bottleneck
    reason: str
    compute: float | None = None
    memory: float | None = None


def judge(sample: DeviceSample, thresholds: Thresholds, reachable: Reachable | None, previous: Verdict | None = None) -> Verdict:
    """Return what binds the device of a sample, by the best counters that it has."""
    if sample.tensor_active is not None and sample.dram_active is not None:
        memory = min(sample.dram_active / reachable.share, 1.0) if reachable else sample.dram_active
        before = None if previous is None else previous.bottleneck
        found = classify_bottleneck(sample.tensor_active, memory, thresholds, previous=before)
        of = f" of the {reachable.share:.0%} that {reachable.source} reaches" if reachable else " of the theoretical maximum"
        said = f"tensor cores active {sample.tensor_active:.0%}, memory bandwidth {sample.dram_active:.0%}{of}"
        return Verdict(found, said, sample.tensor_active, memory)
    if sample.silent:
        return Verdict("unknown", f"it does not answer: {next(iter(sample.missing.values()), 'no reason told')}")
    if sample.busy is None:
        return Verdict("unknown", f"no counter of its use: {sample.missing.get('busy', 'not told')}")
    return _coarse(sample, sample.busy, thresholds, previous)


_ANYTHING = {"nvidia": "kernels ran", "amd": "the graphics engine was active", "cpu": "cores were busy"}


def _coarse(sample: DeviceSample, busy: float, at: Thresholds, previous: Verdict | None) -> Verdict:
    """Judge by what says only whether anything ran: that the device was idle is certain, what bound it meanwhile is not told."""
    was_idle = previous is not None and previous.bottleneck == "underutilized"
    said = f"{_ANYTHING[sample.kind]} in {busy:.0%} of the time"
    if sample.kind == "cpu":
        said = f"{busy:.0%} of the cores' time was in use"
    if busy < at.both + (at.hysteresis if was_idle else 0.0):
        return Verdict("underutilized", f"{said}: for the rest the device waited")
    warned = f"; {GPU_UTIL}" if sample.kind == "nvidia" else ""
    return Verdict("unknown", f"{said}, which does not tell arithmetic from memory{warned}")
