"""A decode step against its batch, with the regimes shaded."""

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from roofline.arithmetic import quotient
from roofline.deployment.deployment import deploy
from roofline.deployment.machine import Machine
from roofline.deployment.options import STEP, StepOptions, asks
from roofline.errors import InvalidValueError
from roofline.floors import Floor, decode_floor
from roofline.names import unknown_name
from roofline.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SKY,
    SMALL,
    VERMILION,
    describe_devices,
    describe_formats,
    new_axes,
    scale_axis,
    write,
)
from roofline.units import check_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REGIMES = {"memory": SKY, "compute": ORANGE, "network": GREEN, "capacity": GREY}


@asks(STEP)
def plot_batch(
    model: Any,
    hardware: Machine = None,
    *,
    context: int,
    batches: Any = None,
    ax: "Axes | None" = None,
    quantity: Literal["time", "intensity", "tokens_per_s"] = "time",
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
    The borders are exact: between batches further apart than one, the change of regime is found by bisection.
    """
    if quantity not in _QUANTITIES:
        raise unknown_name("quantity", quantity, _QUANTITIES)
    batches = np.atleast_1d(np.asarray(check_count("batches", np.arange(1, 1025) if batches is None else batches, minimum=1), float))
    if batches.ndim != 1 or np.any(np.diff(batches) <= 0):
        raise InvalidValueError("batches must be whole numbers in strictly ascending order.")
    deployment = deploy("plot_batch", STEP, model, hardware, options)
    floor = decode_floor(deployment, batch=batches, context=context)
    ax = new_axes(ax)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    lines = []
    for label, values, style in _QUANTITIES[quantity](floor):
        if np.any(np.isfinite(values) & (values > 0)):
            lines.append(np.asarray(values, float))
            ax.plot(batches, values, label=label, **style)
    name, unit = _AXES[quantity]
    edge = batches[-1] * (1 if len(batches) > 1 else 2)
    ax.set_xlim(batches[0], edge)
    drawn = np.concatenate([line[np.isfinite(line) & (line > 0)] for line in lines] or [np.ones(1)])
    low, high = float(drawn.min()), float(drawn.max())
    ax.set_ylim(low / 1.5, high * (high / low) ** 0.22 * 1.6)  # room for the names of the regimes
    scale_axis(ax.yaxis, name, unit, _typical(lines[0]) if lines else 1.0)
    _doublings(ax.xaxis, "batch [sequences]", edge / batches[0])
    starts = _regimes(batches, np.asarray(floor.bound), lambda b: decode_floor(deployment, batch=b, context=context).bound)
    narrow = 0
    for i, (start, regime) in enumerate(starts):
        stop = starts[i + 1][0] if i + 1 < len(starts) else edge
        ax.axvspan(start, stop, color=_REGIMES[regime], alpha=0.22, lw=0, zorder=0, hatch="//" if regime == "capacity" else None)
        title = {"capacity": "does not fit"}.get(regime, f"{regime}-bound")
        text = title + (f"\nfrom {start:,.0f}" if i else "")
        if np.log(stop / start) > 0.2 * np.log(edge / batches[0]):
            place: dict[str, Any] = {"x": float(np.sqrt(start * stop)), "y": 0.97, "ha": "center"}
        else:  # too narrow for its name: write it to the left, each at a height of its own
            place = {"x": start * (edge / batches[0]) ** -0.012, "y": 0.97 - 0.11 * narrow, "ha": "right"}
            text += " →"
            narrow += 1
        write(ax, text=text, transform=ax.get_xaxis_transform(), va="top", **place)
        if i:
            ax.axvline(start, color=INK, lw=0.8, ls="--", zorder=1)
    ax.set_title(
        f"{floor.model.name} on {floor.hardware.name}{describe_devices(floor)}\ndecode, context {context:,}, {describe_formats(floor)}",
        fontsize=10,
    )
    ax.legend(loc="lower right", fontsize=SMALL)
    return ax


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
