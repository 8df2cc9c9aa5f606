"""A decode step against its batch, with the regimes shaded."""

from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from roofline.arithmetic import quotient
from roofline.deployment.deployment import deploy
from roofline.deployment.machine import Machine
from roofline.deployment.options import STEP, StepOptions, asks
from roofline.errors import InvalidValueError
from roofline.estimate import decode_estimate
from roofline.floors import Floor, decode_floor
from roofline.hardware import Hardware
from roofline.names import unknown_name
from roofline.plotting.style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    describe_devices,
    describe_formats,
    new_axes,
    scale_axis,
    several,
    write,
)
from roofline.records import CalibrationRecord
from roofline.units import check_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REGIMES = {"memory": SKY, "compute": ORANGE, "network": GREEN, "capacity": GREY}


@asks(STEP)
def plot_batch(
    model: Any,
    hardware: Machine | Iterable[Machine] = None,
    *,
    context: int,
    batches: Any = None,
    ax: "Axes | None" = None,
    quantity: Literal["time", "intensity", "tokens_per_s"] = "time",
    estimate: bool | CalibrationRecord | str | Path = False,
    measured: tuple[Any, Any] | None = None,
    **options: Unpack[StepOptions],
) -> "Axes":
    r"""Draw a decode step against its batch, with the regimes shaded: memory, compute, network, capacity.

    Parameters
    ----------
    {model}
    context : int
        Tokens of every sequence in the cache [token].
    batches : array_like, optional
        Batch sizes, ascending; default: every one from 1 to 1024 [-].
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if not given [-].
    quantity : {"time", "intensity", "tokens_per_s"}, optional
        The floor with its roofs [s], FLOP per byte with the ridge [FLOP/B], or the throughput at the floor, which ends where
        the batch no longer fits [token/s].
    estimate : bool, CalibrationRecord, str or Path, optional
        Whether to draw the time to expect too, or its throughput, with the interval; or the calibration that it rests on, as in
        :func:`roofline.decode_estimate` [-].
    measured : tuple of array_like, optional
        Batches and the times that were measured at them, drawn as points [-], [s].
    {options}

    Returns
    -------
    matplotlib.axes.Axes
        The Axes [-].

    Raises
    ------
    InvalidValueError
        If a batch is not a whole number, or the batches do not ascend.
    UnknownNameError
        If there is no such quantity.
    MissingDependencyError
        If matplotlib is not installed.

    Notes
    -----
    The borders are exact: between batches further apart than one, the change of regime is found by bisection. Of several machines, given
    as an iterable, only the main curves are drawn, one colour for each, without regimes.
    """
    if quantity not in _QUANTITIES:
        raise unknown_name("quantity", quantity, _QUANTITIES)
    if quantity == "intensity" and (estimate is not False or measured is not None):
        raise InvalidValueError("an intensity is counted, neither estimated nor measured: leave out estimate and measured.")
    batches = np.atleast_1d(np.asarray(check_count("batches", np.arange(1, 1025) if batches is None else batches, minimum=1), float))
    if batches.ndim != 1 or np.any(np.diff(batches) <= 0):
        raise InvalidValueError("batches must be whole numbers in strictly ascending order.")
    points = None if measured is None else _measured(*_pair(measured))
    machines = [hardware] if hardware is None else several(hardware, (Hardware, str, Path))
    deployments = [deploy("plot_batch", STEP, model, machine, options) for machine in machines]
    if not deployments:
        raise InvalidValueError("hardware is empty: name at least one machine.")
    floors = [decode_floor(deployment, batch=batches, context=context) for deployment in deployments]
    ax = new_axes(ax)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    lines = _floor_lines(ax, batches, floors, quantity)
    if estimate is not False:
        lines += _estimate_lines(ax, batches, floors, quantity, None if estimate is True else estimate)
    edge = batches[-1] * (1 if len(batches) > 1 else 2)
    ax.set_xlim(batches[0], edge)
    typical = _typical(lines[0]) if lines else 1.0
    if points is not None:
        at, values = points[0], points[1] if quantity == "time" else points[0] / points[1]
        ax.plot(at, values, label="measured", marker="*", ms=8, ls="none", color=INK, zorder=5)
        lines.append(np.asarray(values, float))
    drawn = np.concatenate([line[np.isfinite(line) & (line > 0)] for line in lines] or [np.ones(1)])
    low, high = float(drawn.min()), float(drawn.max())
    ax.set_ylim(low / 1.5, high * (high / low) ** 0.22 * 1.6)  # room for the names of the regimes
    name, unit = _AXES[quantity]
    scale_axis(ax.yaxis, name, unit, typical)
    _doublings(ax.xaxis, "batch [sequences]", edge / batches[0])
    if len(floors) == 1:
        starts = _regimes(batches, np.asarray(floors[0].bound), lambda b: decode_floor(deployments[0], batch=b, context=context).bound)
        _shade(ax, starts, batches[0], edge)
    names = ", ".join(floor.hardware.name for floor in floors)
    ax.set_title(
        f"{floors[0].model.name} on {names}{describe_devices(floors[0])}\ndecode, context {context:,}, {describe_formats(floors[0])}",
        fontsize=10,
    )
    ax.legend(loc="lower right", fontsize=SMALL)
    return ax


def _pair(measured: Any) -> tuple[Any, Any]:
    if not isinstance(measured, (tuple, list)) or len(measured) != 2:
        raise InvalidValueError("measured is a pair: the batches, and the seconds measured at them.")
    return measured[0], measured[1]


def _measured(batches: Any, time_s: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return measured points, checked [-], [s]."""
    try:
        times = np.atleast_1d(np.asarray(time_s, dtype=float))
    except (TypeError, ValueError):
        times = np.full(1, np.nan)
    at = np.atleast_1d(np.asarray(check_count("measured batches", batches, minimum=1), float))
    if times.shape != at.shape or not np.all(np.isfinite(times) & (times > 0)):
        raise InvalidValueError(f"measured times are {times.size} numbers for {at.size} batches; there is one positive time [s] for each.")
    return at, times


def _floor_lines(ax: "Axes", batches: Any, floors: list[Floor], quantity: str) -> list[np.ndarray]:
    """Draw the curves of one machine, or the main curve of each of several, and return their values."""
    if len(floors) == 1:
        curves = _QUANTITIES[quantity](floors[0])
    else:
        firsts = [_QUANTITIES[quantity](floor)[0] for floor in floors]
        styles = [{"color": color, "lw": 2.2} for color in islice(cycle(CYCLE), len(floors))]
        curves = [
            (f"{label}, {floor.hardware.name}", values, style)
            for (label, values, _), floor, style in zip(firsts, floors, styles, strict=True)
        ]
    lines = []
    for label, values, style in curves:
        if np.any(np.isfinite(values) & (values > 0)):
            lines.append(np.asarray(values, float))
            ax.plot(batches, values, label=label, **style)
    return lines


def _estimate_lines(ax: "Axes", batches: Any, floors: list[Floor], quantity: str, calibration: Any) -> list[np.ndarray]:
    """Draw the estimates of the same steps with their intervals, and return their values."""
    lines = []
    for floor, color in zip(floors, cycle((PURPLE,) if len(floors) == 1 else CYCLE), strict=False):
        asked = floor.asked
        found = decode_estimate(floor.deployment, batch=asked["batch"], context=asked["context"], calibration=calibration)
        over = [np.asarray(end) for end in (found.time_s, found.low_s, found.high_s)]
        middle, low, high = over if quantity == "time" else [np.asarray(found.tokens_per_s * found.time_s / end) for end in over]
        if not np.isfinite(middle).any():
            continue
        of = "" if len(floors) == 1 else f", {floor.hardware.name}"
        ax.plot(batches, middle, label=f"estimate{of} ({found.record.id})", color=color, lw=1.6, ls="--" if of else "-")
        ax.fill_between(batches, low, high, color=color, alpha=0.2, lw=0, label=f"{found.interval:.0%} interval" if not of else None)
        lines += [middle, low, high]
    return lines


def _shade(ax: "Axes", starts: list[tuple[float, str]], first: float, edge: float) -> None:
    """Shade the regimes, and write what each is."""
    narrow = 0
    for i, (start, regime) in enumerate(starts):
        stop = starts[i + 1][0] if i + 1 < len(starts) else edge
        ax.axvspan(start, stop, color=_REGIMES[regime], alpha=0.22, lw=0, zorder=0, hatch="//" if regime == "capacity" else None)
        title = {"capacity": "does not fit"}.get(regime, f"{regime}-bound")
        text = title + (f"\nfrom {start:,.0f}" if i else "")
        if np.log(stop / start) > 0.2 * np.log(edge / first):
            place: dict[str, Any] = {"x": float(np.sqrt(start * stop)), "y": 0.97, "ha": "center"}
        else:  # too narrow for its name: write it to the left, each at a height of its own
            place = {"x": start * (edge / first) ** -0.012, "y": 0.97 - 0.11 * narrow, "ha": "right"}
            text += " →"
            narrow += 1
        write(ax, text=text, transform=ax.get_xaxis_transform(), va="top", **place)
        if i:
            ax.axvline(start, color=INK, lw=0.8, ls="--", zorder=1)


def _typical(values: Any) -> float:
    """Return the smallest finite value, which decides the prefix of the axis [unit of the axis]."""
    return float(values[np.isfinite(values)].min())


def _time_lines(floor: Floor) -> list[tuple[str, Any, dict[str, Any]]]:
    return [
        ("floor", floor.time_s, {"color": GREY, "lw": 5.0, "zorder": 1.9}),
        ("memory roof", floor.memory_s, {"color": BLUE, "lw": 1.2, "ls": "--"}),
        ("compute roof", floor.compute_s, {"color": VERMILION, "lw": 1.2, "ls": "-."}),
        ("network roof", floor.network_s, {"color": GREEN, "lw": 1.2, "ls": ":"}),
    ]


def _intensity_lines(floor: Floor) -> list[tuple[str, Any, dict[str, Any]]]:
    return [
        ("intensity", floor.intensity, {"color": INK, "lw": 2.2}),
        ("ridge of the machine", floor.ridge, {"color": VERMILION, "lw": 1.2, "ls": "-."}),
    ]


def _throughput_lines(floor: Floor) -> list[tuple[str, Any, dict[str, Any]]]:
    ceiling = quotient(floor.work.step.tokens * floor.work.program.parallel.pipeline, floor.compute_s)
    return [
        ("throughput at the floor", floor.tokens_per_s, {"color": INK, "lw": 2.2}),
        ("compute roof", ceiling, {"color": VERMILION, "lw": 1.2, "ls": "-."}),
    ]


_AXES = {"time": ("time of a decode step", "s"), "intensity": ("intensity", "FLOP/B"), "tokens_per_s": ("throughput", "token/s")}
_QUANTITIES = {"time": _time_lines, "intensity": _intensity_lines, "tokens_per_s": _throughput_lines}


def _doublings(axis: Any, label: str, span: float) -> None:
    """Put at most twelve ticks on an axis, at powers of two."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(base=2.0 ** max(1, int(np.ceil(np.log2(max(span, 2)) / 11))), numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_label_text(label)


def _regimes(batches: Any, bounds: Any, bound_at: Any) -> list[tuple[float, str]]:
    """Return the first batch of every regime; between two given batches it is found by bisection."""
    starts = [(float(batches[0]), str(bounds[0]))]
    for i in np.flatnonzero(bounds[1:] != bounds[:-1]):
        low, high = int(batches[i]), int(batches[i + 1])
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if bound_at(middle) == bounds[i] else (low, middle)
        starts.append((float(high), str(bounds[i + 1])))
    return starts
