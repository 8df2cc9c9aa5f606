"""Utilization of a machine in a measured time: model FLOP utilization (MFU) and model bandwidth utilization (MBU).

Both divide the required work by what the machine could have done in the measured time. Work that an implementation adds
(recomputation, padding, activation traffic) therefore lowers them. Neither alone says what binds: a perfect decode step has an MBU near 1
and an MFU near 0.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.arithmetic import Number
from roofline.bounds import Roofs, floor_roofs
from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError, quoted
from roofline.floors import Floor, KernelFloor
from roofline.forward import Work
from roofline.hardware import Hardware
from roofline.results import Question, Result, show_span
from roofline.units import check_broadcast, check_unmasked, show_time

__all__ = ["Utilization", "mbu", "mfu", "utilization"]

_ROUNDING = 1e-9
_LAUNCH = 1e-4  # kernels shorter than this may take a thousand times their floor: launching one takes microseconds [s]
"""How far a measured time may lie below the floor and still count as rounding [-]."""


@checks_keywords
def mfu(floor: Floor | KernelFloor | Work, time_s: Any, *, hardware: Hardware | str | None = None) -> Number:
    r"""Return the model FLOP utilization of a measured time: :math:`\mathrm{FLOP} / (t \cdot P)`.

    P is the data sheet's dense peak of the format that each product runs in; with several formats :math:`\sum_d (F_d / P_d) / t`.

    Parameters
    ----------
    floor : Floor, KernelFloor or Work
        The step or kernel that was measured; on several devices, the share of one [-].
    time_s : float or array_like
        Measured time, any shape that broadcasts with the floor's [s].
    hardware : Hardware or str, optional
        The machine: required for a `Work`; a floor has its own [-].

    Returns
    -------
    float or numpy.ndarray
        MFU. It exceeds 1 where the device runs above the clock of that peak, or sums in fp16 and the peak is for fp32 sums [-].

    Raises
    ------
    InvalidValueError
        If a time is not positive, or is below the floor (an error in the measurement, a unit or the spec; it is never clipped), or the machine's
        peak is not known.

    Warns
    -----
    UserWarning
        If a time is below the floor of a machine whose peak is no proven bound, and only its arithmetic would have to be faster.

    Notes
    -----
    Papers divide by the bf16 peak whatever the format; here an fp8 product is divided by the fp8 peak. A floor divides by more: the
    rate that no product exceeds (:meth:`roofline.hardware.Datasheet.ceiling`).

    References
    ----------
    Chowdhery et al., "PaLM", arXiv 2204.02311, appendix B.

    Examples
    --------
    >>> from roofline import prefill_floor
    >>> floor = prefill_floor("70B", prompt=1000, memory_bandwidth=3e12, peak_flops_per_s=1e15)
    >>> mfu(floor, 0.28)
    0.5
    """
    case = _case(floor, hardware)
    if np.any(np.asarray(case.at_peak_s) == 0):
        raise InvalidValueError("MFU needs a matrix product and the machine's compute peak for its format; this step or machine has none.")
    return _share(case.at_peak_s, _checked(case, time_s))


@checks_keywords
def mbu(floor: Floor | KernelFloor | Work, time_s: Any, *, hardware: Hardware | str | None = None) -> Number:
    r"""Return the model bandwidth utilization of a measured time: :math:`\mathrm{bytes} / (t \cdot W)`, compulsory bytes only.

    Parameters
    ----------
    floor : Floor, KernelFloor or Work
        The step or kernel that was measured; on several devices, the share of one [-].
    time_s : float or array_like
        Measured time, any shape that broadcasts with the floor's [s].
    hardware : Hardware or str, optional
        The machine: required for a `Work`; a floor has its own [-].

    Returns
    -------
    float or numpy.ndarray
        MBU; above 1 only where some bytes did not come from memory, but were still in the last-level cache, as the floor allows [-].

    Raises
    ------
    InvalidValueError
        If a time is not positive, or is below the floor (an error in the measurement, a unit or the spec; it is never clipped).

    Warns
    -----
    UserWarning
        If MBU is above 1. The floor of a kernel with ``cache="cold"`` does not allow it: it raises instead.

    Examples
    --------
    >>> from roofline import decode_floor
    >>> round(mbu(decode_floor("70B", memory_bandwidth=3e12), 0.0625), 3)
    0.747
    """
    case = _case(floor, hardware)
    return _mbu(case, _checked(case, time_s))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Utilization(Result):
    """A measured time beside its floor: the share of the floor, MBU and MFU.

    Parameters
    ----------
    floor : Floor or KernelFloor
        The floor of what was measured [-].
    measured_s : float or numpy.ndarray
        The measured time [s].
    of_floor : float or numpy.ndarray
        The floor over the measured time [-].
    mbu : float, numpy.ndarray or None
        Model bandwidth utilization; None where no bytes of memory are moved [-].
    mfu : float, numpy.ndarray or None
        Model FLOP utilization; None where there is no matrix product, or no compute peak is known [-].
    """

    floor: Floor | KernelFloor
    measured_s: Number
    of_floor: Number
    mbu: Number | None
    mfu: Number | None

    @property
    def shares(self) -> dict[str, Any]:
        """The measured time and what it says, without the floor's own numbers [SI]."""
        return {name: getattr(self, name) for name in ("measured_s", "of_floor", "mbu", "mfu")}

    def question(self) -> Question | None:
        """Return the question that this answers; its ``floor`` is the one that gave the floor [-]."""
        asked = self.floor.question()
        return asked and Question("utilization", {"floor": asked.name, **asked.inputs, "measured_s": self.measured_s})

    def values(self) -> dict[str, Any]:
        """Return every number of the floor by name, and the shares [SI]."""
        return self.floor.values() | self.shares

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        return self.floor.context() | {"kind": "utilization"}

    def line(self) -> str:
        """Return the shares in one line [-]."""
        over = {"mbu": " (some bytes were still in the cache)", "mfu": " (the device runs faster than the peak of its data sheet)"}
        shares = {name: share for name in over if (share := getattr(self, name)) is not None}
        used = [f"{n.upper()} {show_span(v, '{:.1%}'.format)}{over[n] if np.any(np.greater(v, 1)) else ''}" for n, v in shares.items()]
        share = show_span(self.of_floor, "{:.1%}".format)
        return ", ".join([f"{show_span(self.measured_s, show_time)} measured: the floor is {share} of it", *used])

    def summary(self) -> list[str]:
        """Return the short text: the floor, then the shares [-]."""
        return [self.floor.summary()[0], f"  {self.line()}"]

    def __repr__(self) -> str:
        return f"<{self.line()}>"


@checks_keywords
def utilization(floor: Floor | KernelFloor, measured_s: Any) -> Utilization:
    """Return what a measured time says, as one result that can be saved: the share of the floor, and MBU and MFU where there are any.

    Parameters
    ----------
    floor : Floor or KernelFloor
        The step or kernel that was measured; on several devices, the share of one [-].
    measured_s : float or array_like
        Measured time, any shape that broadcasts with the floor's [s].

    Returns
    -------
    Utilization
        Floor over measured time, :func:`mbu` and :func:`mfu` [-].

    Raises
    ------
    InvalidValueError
        If a time is not positive, or is below the floor.

    Warns
    -----
    UserWarning
        As :func:`mbu` and :func:`mfu` do.

    Examples
    --------
    >>> from roofline import decode_floor
    >>> utilization(decode_floor("70B", memory_bandwidth=3e12), 0.0625)
    <62.5 ms measured: the floor is 74.7% of it, MBU 74.7%>
    """
    case = _case(floor, None)
    measured = _checked(case, measured_s)
    used = _mbu(case, measured) if np.any(case.total_bytes) else None
    computed = _share(case.at_peak_s, measured) if np.all(case.at_peak_s) else None
    return Utilization(floor, measured[()] if measured.ndim else float(measured), _share(case.roofs.time_s, measured), used, computed)


@dataclass(frozen=True, slots=True)
class _Case:
    """What was measured: its machine, its roofs [s], products by operand format [FLOP], compulsory bytes [B], whether in a cold cache."""

    machine: Hardware
    roofs: Roofs
    products: Iterable[tuple[str, Number]]
    total_bytes: Number
    cold: bool = False

    @property
    def at_peak_s(self) -> Number:
        """Time of the products at the peaks of the data sheet; 0 without products, or where no peak is known [s]."""
        at_peak: Number = 0.0
        for operand, flops in self.products:
            at_peak = at_peak + flops / self.machine.peak(operand).value
        return at_peak

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the machine may be faster than its rates: what was measured is no bound, and some peaks are none."""
        unproven = (c.note for operand, _ in self.products if not (c := self.machine.ceiling(operand)).proven)
        return self.machine.measured_notes or tuple(dict.fromkeys(unproven))

    @property
    def least_s(self) -> Number:
        """What no doubt lets a measured time be below: the floor, its bytes where a peak is no bound, nothing where no rate is one [s]."""
        if self.machine.measured_notes:
            return 0.0
        return np.maximum(self.roofs.memory_s, self.roofs.network_s) if self.doubts else self.roofs.time_s


def _case(floor: Any, hardware: Hardware | str | None) -> _Case:
    if isinstance(floor, Work):
        if hardware is None:
            raise InvalidValueError("a Work has no machine: pass hardware=, or pass the floor of the step.")
        machine = Hardware.load(hardware)
        return _Case(machine, floor_roofs(floor, machine), floor.flops_by_operand.items(), floor.compulsory_bytes)
    if not isinstance(floor, (Floor, KernelFloor)):
        raise InvalidValueError(f"floor is {quoted(floor)}; it must be a floor (of decode_floor, step_floor, matmul_floor …) or a Work.")
    if hardware is not None:
        raise InvalidValueError(f"the floor is for {floor.hardware.id}; hardware= can be passed only with a Work.")
    products = floor.work.flops_by_operand.items() if isinstance(floor, Floor) else ((floor.op.operand, floor.flops),)
    cold = isinstance(floor, KernelFloor) and floor.cache == "cold"
    return _Case(floor.hardware, Roofs(floor.compute_s, floor.memory_s, floor.network_s), products, floor.total_bytes, cold)


def _share(ideal_s: Number, measured: np.ndarray) -> Number:
    share: Number = np.divide(ideal_s, measured)[()]
    return float(share) if np.ndim(share) == 0 else share


def _mbu(case: _Case, measured: np.ndarray) -> Number:
    share = _share(case.total_bytes / case.machine.memory_bandwidth, measured)
    if np.any(np.greater(share, 1 + _ROUNDING)):
        warnings.warn(
            f"MBU is {np.max(share):.3g}, above 1: not all bytes came from memory in the measured time. The operands may have been in the "
            "last-level cache, where an earlier run left them.",
            stacklevel=4,
        )
    return share


def _checked(case: _Case, time_s: Any) -> np.ndarray:
    """Return measured times, or raise or warn if they are below the floor, or so long that they are in another unit [s]."""
    measured = _measured(time_s)
    floor_s = case.roofs.time_s
    check_broadcast(floor=floor_s, time_s=measured)
    under = np.asarray(measured < np.asarray(floor_s) * (1 - _ROUNDING))
    impossible = under & (measured < np.asarray(case.least_s) * (1 - _ROUNDING))
    if impossible.any():
        cached = _CACHED if case.cold else ""
        raise InvalidValueError(_below("Likely mistakes", measured, floor_s, impossible) + cached + _MISTAKES)
    if under.any():
        than = "it was when its rates were measured" if case.machine.measured_notes else "its data sheet"
        said = _below(f"The machine may be faster than {than}", measured, floor_s, under) + "; ".join(case.doubts)
        warnings.warn(f"{said}.", stacklevel=4)
    slow = np.asarray((measured >= 1000 * np.asarray(floor_s)) & (np.asarray(floor_s) >= _LAUNCH))
    if slow.all():
        time, floor = float(np.max(measured)), float(np.max(floor_s))
        raise InvalidValueError(
            f"time_s is {show_time(time)}, {time / floor:,.0f} times the floor of {show_time(floor)}: are these milliseconds or microseconds? "
            f"It must be in seconds, such as {time * 1e-3:.4g}."
        )
    return measured


def _measured(time_s: Any) -> np.ndarray:
    check_unmasked("time_s", time_s)
    try:
        times = np.asarray(time_s, dtype=float)
    except (TypeError, ValueError, OverflowError):
        times = np.asarray(np.nan)
    if np.asarray(time_s).dtype.kind not in "iuf" or times.size == 0 or not np.all(np.isfinite(times) & (times > 0)):
        raise InvalidValueError(f"time_s is {quoted(time_s)}; it must be a positive number of seconds, or an array of them.")
    return times


_CACHED = "operands that were still in the last-level cache, where the floor is for a cold one; "
_MISTAKES = (
    "a time that is not in seconds, or of one token or layer; a clock stopped without synchronizing; another batch, context, format or "
    "number of devices; a wrong spec."
)


def _below(reason: str, measured: Any, floor_s: Any, under: Any) -> str:
    time, floor = (float(np.broadcast_to(values, under.shape)[under].flat[0]) for values in (measured, floor_s))
    many = "" if under.size == 1 else f"{int(under.sum())} of {under.size} measured times are below their floors. The first: "
    return f"{many}{show_time(time)} was measured, but the floor is {show_time(floor)}, {floor / time:.3g} × as long. {reason}: "
