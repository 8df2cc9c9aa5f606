"""The roofline itself: what a machine's rates make of an amount of work.

Two times are computed here. The *floor* lets everything overlap and keeps every activation on chip: no implementation is faster.
The *roofline time* runs one operator after another, each at its own roof, with its activation traffic: the time of a perfect
engine of separate kernels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from roofline.arithmetic import Number, maximum, minimum, quotient
from roofline.calls import checks_call
from roofline.errors import InvalidValueError
from roofline.forward import Work
from roofline.frozen import freeze
from roofline.hardware import Hardware
from roofline.ops import Op
from roofline.units import check_amount, show_time

__all__ = [
    "OpTime",
    "Roofs",
    "attainable",
    "compute_time",
    "floor_roofs",
    "memory_time",
    "network_time",
    "operator_time",
    "ridge_point",
    "roofline_times",
    "saved_bytes",
    "surviving_bytes",
]


@checks_call
def ridge_point(*, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the intensity at which arithmetic and bandwidth take equally long: :math:`I^* = P / W`.

    Parameters
    ----------
    peak_flops_per_s : float or numpy.ndarray
        P, dense peak [FLOP/s].
    bandwidth : float or numpy.ndarray
        W, memory bandwidth [B/s].

    Returns
    -------
    float or numpy.ndarray
        Intensity at the ridge [FLOP/B].

    References
    ----------
    Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009, doi:10.1145/1498765.1498785.

    Examples
    --------
    >>> round(ridge_point(peak_flops_per_s=989.4e12, bandwidth=3.35e12))
    295
    """
    peak_flops_per_s, bandwidth = check_amount("peak_flops_per_s", peak_flops_per_s, "FLOP/s"), check_amount("bandwidth", bandwidth, "B/s")
    if np.any(bandwidth == 0):
        raise InvalidValueError("bandwidth is 0; it must be positive.")
    return peak_flops_per_s / bandwidth


@checks_call
def attainable(intensity: Number, *, peak_flops_per_s: float, bandwidth: float) -> Number:
    r"""Return the attainable rate at an intensity: :math:`\min(P, I \cdot W)`.

    Parameters
    ----------
    intensity : float or numpy.ndarray
        I [FLOP/B].
    peak_flops_per_s : float
        P, dense peak [FLOP/s].
    bandwidth : float
        W, memory bandwidth [B/s].

    Returns
    -------
    float or numpy.ndarray
        Rate, of the shape of `intensity` [FLOP/s].

    Examples
    --------
    >>> attainable(1.0, peak_flops_per_s=989.4e12, bandwidth=3.35e12)
    3350000000000.0
    """
    intensity, bandwidth = check_amount("intensity", intensity, "FLOP/B"), check_amount("bandwidth", bandwidth, "B/s")
    return minimum(intensity * bandwidth, check_amount("peak_flops_per_s", peak_flops_per_s, "FLOP/s"))


def memory_time(moved_bytes: Number, *, bandwidth: float, cache: Number = 0) -> Number:
    r"""Return the least time to move bytes, of which `cache` may still be on chip: :math:`\max(0, B - C) / W`.

    Parameters
    ----------
    moved_bytes : int, float or numpy.ndarray
        B, bytes that are read or written [B].
    bandwidth : float
        W, memory bandwidth [B/s].
    cache : float or numpy.ndarray, optional
        C, bytes that may still be in the last-level cache [B].

    Returns
    -------
    float or numpy.ndarray
        Time [s].

    Examples
    --------
    >>> memory_time(140e9, bandwidth=3e12)
    0.04666666666666667
    """
    if not isinstance(cache, np.ndarray) and not cache:
        return moved_bytes / bandwidth
    return maximum(moved_bytes - cache, 0) / bandwidth


class Roofs(NamedTuple):
    """The time under each roof; the longest is the floor.

    Parameters
    ----------
    compute_s, memory_s, network_s : float or numpy.ndarray
        Time under each roof [s].
    """

    compute_s: Number
    memory_s: Number
    network_s: Number

    @property
    def time_s(self) -> Number:
        """The longest of the three [s]."""
        return _longest(self)

    @property
    def binding(self) -> Number:
        """Which is longest: ``"compute"``, ``"memory"`` or ``"network"``; an array of names for arrays."""
        times = (self.memory_s, self.compute_s, self.network_s)
        names = ("memory", "compute", "network")
        if not any(isinstance(t, np.ndarray) for t in times):
            return names[max(range(3), key=lambda i: times[i])]
        return np.asarray(names)[np.argmax(np.stack(np.broadcast_arrays(*times)), axis=0)]


def _longest(roofs: "Roofs | OpTime") -> Number:
    a, b, c = roofs.compute_s, roofs.memory_s, roofs.network_s
    return max(a, b, c) if type(a) is type(b) is type(c) is float else maximum(maximum(a, b), c)


def compute_time(flops_by_operand: Iterable[tuple[str, Number]], hardware: Hardware) -> Number:
    r"""Return the least time for matrix products in several formats: :math:`\sum_d F_d / P_d`, one after another.

    P is the rate that no product exceeds (:meth:`roofline.hardware.Datasheet.ceiling`), not the data sheet's peak.

    Parameters
    ----------
    flops_by_operand : iterable of (str, number)
        FLOP by operand format [FLOP].
    hardware : Hardware
        The machine [-].

    Returns
    -------
    float or numpy.ndarray
        Time; 0 where the machine's peak is not known [s].
    """
    total: Number = 0.0
    ceilings = hardware.ceilings
    for operand, flops in flops_by_operand:
        total = total + flops / ceilings[operand].value
    return total


def network_time(link_bytes: Number, nic_bytes: Number, hardware: Hardware, *, hops: Number = 0) -> Number:
    r"""Return the least time on the links of one device: :math:`\max(B_{link}/L, B_{nic}/N, n \lambda)`.

    Parameters
    ----------
    link_bytes : int, float or numpy.ndarray
        Bytes that leave the device, one direction [B].
    nic_bytes : int, float or numpy.ndarray
        Those among them that leave its scale-up domain [B].
    hardware : Hardware
        The machine [-].
    hops : int, optional
        n, messages that wait for each other; each takes the links' latency :math:`\lambda`, if it is known [-].

    Returns
    -------
    float or numpy.ndarray
        Time; links whose rate is not known take none [s].
    """
    link, outside = hardware.link_rates
    latency = hardware.scale_up.latency_s if hardware.scale_up is not None else None
    moving = maximum(link_bytes / link, nic_bytes / outside)
    return maximum(moving, hops * latency) if latency else moving


def network_assumption(hardware: Hardware) -> str:
    """Return what :func:`network_time` assumes of collectives, for every result that has some."""
    latency = hardware.scale_up.latency_s if hardware.scale_up is not None else None
    waiting = f", and each waits at least once for the link latency of {show_time(latency)}" if latency else ", without latency"
    return f"collectives move the fewest bytes that any algorithm needs{waiting}"


def saved_bytes(cache: float, *, state_bytes: Number) -> Number:
    r"""Return the transfers that a cache saves: :math:`C + \min(C, S/2)`.

    Recurrent state is rewritten in place: a byte of it that stays in the cache saves one read and one write.

    Parameters
    ----------
    cache : float
        C, bytes that stay in the cache from one run to the next [B].
    state_bytes : int, float or numpy.ndarray
        S, recurrent state read and written [B].

    Returns
    -------
    float or numpy.ndarray
        Bytes that need not cross the memory bus [B].

    Examples
    --------
    >>> saved_bytes(50, state_bytes=60)
    80.0
    """
    if not isinstance(state_bytes, np.ndarray) and not state_bytes:
        return cache
    return cache + minimum(cache, state_bytes / 2)


def surviving_bytes(work: Work, hardware: Hardware) -> Number:
    """Return the bytes of a step that need not cross the memory bus because last-level caches hold them from the step before.

    Every pipeline stage has a cache of its own. A byte of weights or keys in it saves one transfer, a byte of recurrent state two. Each draft
    waits for the one before, so that of weights that it reads again no more is there than the cache holds.

    Parameters
    ----------
    work : Work
        The work of one step [-].
    hardware : Hardware
        The machine [-].

    Returns
    -------
    float or numpy.ndarray
        Bytes, 0 where no cache is known [B].
    """
    saved = saved_bytes(hardware.last_level_cache * work.program.parallel.pipeline, state_bytes=work.total("state_bytes"))
    mtp = work.program.mtp
    return saved + minimum(work.total("reread_bytes"), mtp * hardware.last_level_cache) if mtp else saved


def _times(
    hardware: Hardware,
    flops_by_operand: Iterable[tuple[str, Number]],
    moved_bytes: Number,
    cache: Number,
    links: tuple[Number, Number, Number] | None,
    vector_flops: Number = 0,
) -> tuple[Number, Number, Number]:
    """Return compute, memory and network time; `links` are link bytes, NIC bytes and hops, None for work without collectives [s].

    Floors of steps, floors of kernels and roofline times all come from here.
    """
    compute = compute_time(flops_by_operand, hardware)
    if isinstance(vector_flops, np.ndarray) or vector_flops:
        compute = maximum(compute, vector_flops / hardware.vector_ceiling.value)
    memory = memory_time(moved_bytes, bandwidth=hardware.memory_bandwidth, cache=cache)
    return compute, memory, 0.0 if links is None else network_time(links[0], links[1], hardware, hops=links[2])


def _links(op: Op) -> tuple[Number, Number, Number] | None:
    return (op.link_bytes, op.nic_bytes, op.hops) if op.kind == "collective" else None


def floor_roofs(work: Work, hardware: Hardware) -> Roofs:
    r"""Return the roofs of a step's floor: :math:`\max(\sum_d F_d/P_d, \max(0, B - C)/W, B_{link}/L)` with compulsory bytes only.

    Parameters
    ----------
    work : Work
        The work of one step [-].
    hardware : Hardware
        The machine [-].

    Returns
    -------
    Roofs
        Time under each roof [s].
    """
    times = work.by_blocks(_step_times, hardware)
    return Roofs(*map(freeze, times)) if work.shape else Roofs(*times)


def _step_times(work: Work, hardware: Hardware) -> tuple[Number, Number, Number]:
    links = (work.total("link_bytes"), work.total("nic_bytes"), work.total("hops")) if work.program.parallel.devices > 1 else None
    cache = surviving_bytes(work, hardware)
    return _times(hardware, work.flops_by_operand.items(), work.compulsory_bytes, cache, links)


def kernel_roofs(op: Op, hardware: Hardware, *, cache: str = "warm") -> Roofs:
    """Return the roofs of one kernel's floor: as those of a step, but inputs and outputs count as well.

    In a cold cache nothing survives from before, so that every byte crosses the memory bus.
    """
    hardware.ceiling(op.operand)  # an operator of the caller's own may name a format that is none
    saved = saved_bytes(hardware.last_level_cache, state_bytes=op.state_bytes) if cache == "warm" else 0
    moved = op.compulsory_bytes + op.activation_bytes
    return Roofs(*map(freeze, _times(hardware, ((op.operand, op.flops),), moved, saved, _links(op))))


@dataclass(frozen=True, slots=True)
class OpTime:
    """One operator at its own roof.

    Parameters
    ----------
    op : Op
        What it costs [-].
    compute_s : float or numpy.ndarray
        Its arithmetic at peak: matrix products or general units, whichever takes longer [s].
    memory_s : float or numpy.ndarray
        Its compulsory bytes and activations at full bandwidth [s].
    network_s : float or numpy.ndarray, optional
        Its bytes between devices at full link bandwidth [s].
    """

    op: Op
    compute_s: Number
    memory_s: Number
    network_s: Number = 0.0

    @property
    def name(self) -> str:
        """The operator, by the name that the rows of an estimate have too [-]."""
        return self.op.name

    @property
    def count(self) -> int:
        """How many of them run in a step [-]."""
        return self.op.count

    @property
    def time_s(self) -> Number:
        """Its roofline time [s]."""
        return _longest(self)

    @property
    def bound(self) -> Number:
        """Which roof it is under; an array of names for arrays."""
        return Roofs(self.compute_s, self.memory_s, self.network_s).binding

    @property
    def intensity(self) -> Number:
        """FLOP of all kinds per byte moved [FLOP/B]."""
        moved = self.op.compulsory_bytes + self.op.activation_bytes
        return quotient(self.op.flops + self.op.vector_flops, moved)


def roofline_times(work: Work, hardware: Hardware) -> tuple[OpTime, ...]:
    """Return every operator of a step at its own roof; their sum is the roofline time.

    Parameters
    ----------
    work : Work
        The work of one step [-].
    hardware : Hardware
        The machine [-].

    Returns
    -------
    tuple of OpTime
        In the order of execution, identical layers summed [-].
    """
    return tuple(operator_time(op, hardware) for op in work.ops)


def operator_time(op: Op, hardware: Hardware) -> OpTime:
    """Return one operator at its own roof, with its activation traffic and nothing left in a cache from before.

    Parameters
    ----------
    op : Op
        What it costs [-].
    hardware : Hardware
        The machine [-].

    Returns
    -------
    OpTime
        Its time under each roof [s].
    """
    moved = op.compulsory_bytes + op.activation_bytes
    return OpTime(op, *_times(hardware, ((op.operand, op.flops),), moved, 0.0, _links(op), op.vector_flops))
