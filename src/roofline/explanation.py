"""A floor in words: what binds a step and why, and what would change it. Every figure is computed from the step."""

import math

from roofline.arithmetic import Number
from roofline.bounds import Roofs, memory_time
from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.floors import Floor
from roofline.model import Experts
from roofline.units import show_bytes, show_flops, show_time

__all__ = ["explain"]

NOTICEABLE = 0.005
"""A gain within this of 1 counts as no gain [-]."""

ROOFS = {"compute_s": "compute", "memory_s": "memory", "network_s": "network"}


def ratio(before: Number, after: Number) -> float:
    """Return how many times shorter a time became; 1 where both are zero."""
    if before == after:
        return 1.0
    return float(before / after) if after else math.inf


def _kinds(floor: Floor) -> dict[str, float]:
    """Compulsory bytes by kind, without the kinds that are zero [B]."""
    kinds = {
        "weights": floor.weight_bytes,
        "KV cache read": floor.kv_read_bytes,
        "KV cache written": floor.kv_write_bytes,
        "recurrent state": floor.state_bytes,
    }
    return {name: float(size) for name, size in kinds.items() if size}


def _without(floor: Floor, kind_bytes: float) -> float:
    """Gain from halving some of the bytes [-]."""
    h = floor.hardware
    memory_s = memory_time(floor.total_bytes - kind_bytes / 2, bandwidth=h.memory_bandwidth, cache=floor.surviving_bytes)
    return ratio(floor.time_s, Roofs(floor.compute_s, memory_s, floor.network_s).time_s)


def _rates(floor: Floor) -> dict[str, float]:
    """Gain of a machine with twice each rate [-]."""
    c, m, n = floor.compute_s, floor.memory_s, floor.network_s
    faster = {"FLOP/s": Roofs(c / 2, m, n), "memory bandwidth": Roofs(c, m / 2, n)}
    if n:
        faster["link bandwidth"] = Roofs(c, m, n / 2)
    return {name: ratio(floor.time_s, roofs.time_s) for name, roofs in faster.items()}


def _crossing(floor: Floor) -> str:
    """Say at how many times the rows compute and memory take equally long; empty where there is no closed form."""
    if floor.model.is_anonymous or any(isinstance(g.feed_forward, Experts) for g in floor.model.layers) or not floor.compute_s:
        return ""
    bandwidth = floor.hardware.memory_bandwidth
    # x rows in place of one: x · compute = (weights + x · rest) / W
    rest = (floor.total_bytes - floor.weight_bytes) / bandwidth
    if floor.compute_s <= rest:
        return "No batch makes it compute-bound: the bytes of each further sequence take at least as long as its arithmetic."
    times = float(floor.weight_bytes / bandwidth / (floor.compute_s - rest))
    if floor.roof == "memory":
        return f"With about {_figure(times)} × the sequences it would be compute-bound."
    return f"With fewer than about {times:.2g} × the sequences (or tokens) it would be memory-bound." if times < 1 else ""


@checks_call
def explain(floor: Floor) -> str:
    """Explain in a few sentences what binds a step and why, what helps, what does not, and what would change the bound.

    Parameters
    ----------
    floor : Floor
        The floor of one step [-].

    Returns
    -------
    str
        A few sentences; every number is computed from this step [-].

    Raises
    ------
    InvalidValueError
        If it is a whole array of steps.

    Examples
    --------
    >>> from roofline import decode_floor
    >>> print(explain(decode_floor("70B", memory_bandwidth=3e12, peak_flops_per_s=1e15)).splitlines()[0])
    This decode step of 70B parameters on custom takes at least 46.67 ms and is memory-bound.
    """
    if not isinstance(floor, Floor):
        raise InvalidValueError(f"explain takes the floor of a step, not {quoted(floor)}.")
    if floor.work.step.shape:
        raise InvalidValueError(f"explain takes one step, not {floor.work.step.shape} of them: call it for one point of the sweep.")
    step = f"This {floor.kind} step" if floor.kind == "decode" else "This prefill" if floor.kind == "prefill" else "This step"
    binds = str(floor.roof)
    lines = [f"{step} of {floor.model.name} on {floor.hardware.name} takes at least {show_time(floor.time_s)} and is {binds}-bound."]
    if floor.fits is False:
        usable = floor.deployment.usable_bytes or 0
        where = (
            f"{show_bytes(usable)} may be used" if "utilization" in floor.deployment.options else f"the machine has {show_bytes(usable)}"
        )
        lines.append(
            f"It does not fit: {show_bytes(floor.resident_bytes + floor.deployment.reserve)} must be resident and {where}, "
            "so the time above gives no throughput."
        )
    lines.append(_why(floor))
    lines += _helps(floor)
    lines.append(_changes(floor))
    lines += [f"Note: {note}." for note in floor.deployment.notes]
    return "\n".join(line for line in lines if line)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float) -> str:
    return "under 1%" if share < 0.005 else f"{share:.0%}"


def _why(floor: Floor) -> str:
    total = float(floor.total_bytes)
    parts = ", ".join(f"{_percent(size / total)} {name}" for name, size in _kinds(floor).items())
    text = f"It moves {show_bytes(total)} ({parts or 'nothing'}) for {show_flops(floor.flops)}"
    ridge = float(floor.ridge)
    if math.isfinite(ridge) and total:
        intensity = float(floor.intensity)
        side = "below" if intensity < ridge else "above"
        text += f": {_figure(intensity)} FLOP per byte, {side} the ridge of this machine at {_figure(ridge)}"
    times = [f"{name} {show_time(getattr(floor, field))}" for field, name in ROOFS.items() if getattr(floor, field)]
    return f"{text}. Each roof alone: {', '.join(times)}."


def _helps(floor: Floor) -> list[str]:
    gains = {f"twice the {name}": gain for name, gain in _rates(floor).items()}
    kinds = {"weights": floor.weight_bytes, "KV cache": floor.kv_read_bytes + floor.kv_write_bytes, "recurrent state": floor.state_bytes}
    gains |= {f"half the bytes of {name}": _without(floor, size) for name, size in kinds.items() if size}
    helps = [f"{name} {gain:.2f}×" for name, gain in sorted(gains.items(), key=lambda item: -item[1]) if gain >= 1 + NOTICEABLE]
    idle = [f"{name} {gain:.2f}×" for name, gain in gains.items() if gain < 1 + NOTICEABLE]
    return [f"What helps: {'; '.join(helps)}." if helps else "", f"What does not: {'; '.join(idle)}." if idle else ""]


def _changes(floor: Floor) -> str:
    times = {name: float(getattr(floor, field)) for field, name in ROOFS.items()}
    binds = str(floor.roof)
    second, time = max(((n, t) for n, t in times.items() if n != binds), key=lambda item: item[1])
    if not time:
        return "No other roof of this step is known."
    factor = times[binds] / time
    crossing = _crossing(floor) if {binds, second} == {"compute", "memory"} else ""
    return f"The bound changes to {second} once {binds} is {_figure(factor)}× faster. {crossing}".rstrip()
