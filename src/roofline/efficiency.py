"""Utilization of a machine in a measured time: model FLOP utilization (MFU) and model bandwidth utilization (MBU).

Both divide the required work by what the machine could have done in the measured time. Work that an implementation adds
(recomputation, padding, activation traffic) therefore lowers them. Neither alone says what binds: a perfect decode step has an MBU near 1
and an MFU near 0.
"""

from typing import Any

import numpy as np

from roofline.arithmetic import Number
from roofline.bounds import floor_roofs
from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError, quoted
from roofline.floors import Floor, KernelFloor
from roofline.forward import Work
from roofline.hardware import Hardware
from roofline.units import check_broadcast, show_time

__all__ = ["mbu", "mfu"]

_ROUNDING = 1e-9
_LAUNCH = 1e-4  # kernels shorter than this may take a thousand times their floor: launching one takes microseconds [s]
"""How far a measured time may lie below the floor and still count as rounding [-]."""


@checks_keywords
def mfu(floor: Floor | KernelFloor | Work, time_s: Any, *, hardware: Hardware | str | None = None) -> Number:
    r"""Return the model FLOP utilization of a measured time: :math:`\mathrm{FLOP} / (t \cdot P)`.

    P is the dense peak of the format that each product runs in; with several formats :math:`\sum_d (F_d / P_d) / t`.

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
        MFU, 0 … 1 [-].

    Raises
    ------
    InvalidValueError
        If a time is not positive, or is below the floor (an error in the measurement, a unit or the spec; it is never clipped), or the machine's
        peak is not known.

    Notes
    -----
    Papers divide by the bf16 peak whatever the format; here an fp8 product is divided by the fp8 peak.

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
    floor_s, compute_s, _, _ = _parts(floor, hardware)
    if np.any(np.asarray(compute_s) == 0):
        raise InvalidValueError("MFU needs a matrix product and the machine's compute peak for its format; this step or machine has none.")
    return _share(compute_s, floor_s, time_s)


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
        MBU; above 1 only where the floor assumes that some bytes were still in the last-level cache [-].

    Raises
    ------
    InvalidValueError
        If a time is not positive, or is below the floor (an error in the measurement, a unit or the spec; it is never clipped).

    Examples
    --------
    >>> from roofline import decode_floor
    >>> round(mbu(decode_floor("70B", memory_bandwidth=3e12), 0.0625), 3)
    0.747
    """
    floor_s, _, total_bytes, bandwidth = _parts(floor, hardware)
    return _share(total_bytes / bandwidth, floor_s, time_s)


def _parts(floor: Any, hardware: Hardware | str | None) -> tuple[Number, Number, Number, float]:
    """Floor, time of the products at peak, compulsory bytes, bandwidth [s, s, B, B/s]."""
    if isinstance(floor, Work):
        if hardware is None:
            raise InvalidValueError("a Work has no machine: pass hardware=, or pass the floor of the step.")
        machine = Hardware.load(hardware)
        roofs = floor_roofs(floor, machine)
        return roofs.time_s, roofs.compute_s, floor.compulsory_bytes, machine.memory_bandwidth
    if not isinstance(floor, (Floor, KernelFloor)):
        raise InvalidValueError(f"floor is {quoted(floor)}; it must be a floor (of decode_floor, step_floor, matmul_floor …) or a Work.")
    if hardware is not None:
        raise InvalidValueError(f"the floor is for {floor.hardware.id}; hardware= can be passed only with a Work.")
    return floor.time_s, floor.compute_s, floor.total_bytes, floor.hardware.memory_bandwidth


def _share(ideal_s: Number, floor_s: Number, time_s: Any) -> Number:
    measured = _measured(time_s)
    check_broadcast(floor=floor_s, time_s=measured)
    under = np.asarray(measured < np.asarray(floor_s) * (1 - _ROUNDING))
    if under.any():
        raise InvalidValueError(_impossible(np.broadcast_to(measured, under.shape), np.broadcast_to(floor_s, under.shape), under))
    slow = np.asarray((measured >= 1000 * np.asarray(floor_s)) & (np.asarray(floor_s) >= _LAUNCH))
    if slow.all():
        time, floor = float(np.max(measured)), float(np.max(floor_s))
        raise InvalidValueError(
            f"time_s is {show_time(time)}, {time / floor:,.0f} times the floor of {show_time(floor)}: are these milliseconds or microseconds? "
            f"It must be in seconds, such as {time * 1e-3:.4g}."
        )
    share: Number = np.divide(ideal_s, measured)[()]
    return float(share) if np.ndim(share) == 0 else share


def _measured(time_s: Any) -> Any:
    try:
        times = np.asarray(time_s, dtype=float)
    except (TypeError, ValueError, OverflowError):
        times = np.asarray(np.nan)
    if np.asarray(time_s).dtype.kind not in "iuf" or times.size == 0 or not np.all(np.isfinite(times) & (times > 0)):
        raise InvalidValueError(f"time_s is {quoted(time_s)}; it must be a positive number of seconds, or an array of them.")
    return times


def _impossible(measured: Any, floor_s: Any, under: Any) -> str:
    time, floor = float(measured[under].flat[0]), float(floor_s[under].flat[0])
    many = "" if under.size == 1 else f"{int(under.sum())} of {under.size} measured times are below their floors. The first: "
    return (
        f"{many}{show_time(time)} was measured, but the floor is {show_time(floor)}, {floor / time:.3g} × as long. Likely mistakes: "
        "a time that is not in seconds, or is of one token or layer; a clock stopped without synchronizing with the device; another batch, "
        "context, number format or number of devices; a wrong machine spec."
    )
