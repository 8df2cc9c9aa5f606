"""Time or bytes of a step by operator."""

from typing import TYPE_CHECKING, Any, Literal

from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError
from roofline.estimate import Estimate
from roofline.floors import Floor
from roofline.names import unknown_name
from roofline.plotting.style import (
    CYCLE,
    GREY,
    INK,
    SMALL,
    VERMILION,
    describe_devices,
    describe_formats,
    describe_step,
    new_axes,
    one_step,
    scale_axis,
    short_name,
)
from roofline.units import show_bytes, show_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAFFIC = {
    "weights": ("weight_bytes",),
    "KV cache": ("kv_read_bytes", "kv_write_bytes"),
    "state": ("state_bytes",),
    "activations": ("input_bytes", "output_bytes"),
}


@checks_keywords
def plot_breakdown(floor: Floor | Estimate, *, ax: "Axes | None" = None, quantity: Literal["time", "bytes"] = "time") -> "Axes":
    """Draw the time or the bytes of a step as bars stacked by operator.

    Parameters
    ----------
    floor : Floor or Estimate
        The floor, or the estimate, of one step [-].
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if not given [-].
    quantity : {"time", "bytes"}, optional
        Time: the operators one after another, each at its own roof, above the roofs of the floor, the longest of which is the floor.
        Of an estimate: its kernels and its overhead one after another, above the same roofs. Bytes: weights, cache, recurrent state and
        activations, each by operator [-].

    Returns
    -------
    matplotlib.axes.Axes
        The Axes, in s or B; operators below 1.5 % of the total are summed as "others" [-].

    Raises
    ------
    InvalidValueError
        If the floor is an array of steps, or of a kernel.
    UnknownNameError
        If there is no such quantity.
    MissingDependencyError
        If matplotlib is not installed.
    """
    if quantity not in ("time", "bytes"):
        raise unknown_name("quantity", quantity, ("time", "bytes"))
    estimate = floor if isinstance(floor, Estimate) else None
    floor = floor.floor if isinstance(floor, Estimate) else floor
    if not isinstance(floor, Floor):
        raise InvalidValueError(f"a breakdown is of the floor or the estimate of a step, not of {type(floor).__name__}.")
    one_step(floor)
    ax = new_axes(ax)
    rows, show = floor.by_op(), show_time if quantity == "time" else show_bytes
    operators = [row.name for row in rows]
    roofs = {"memory roof": floor.memory_s, "compute roof": floor.compute_s, "network roof": floor.network_s}
    if quantity == "time":
        if estimate is None:
            bars = {"operators one\nafter another": [float(row.time_s) for row in rows]}
        else:
            operators = [*(row.name for row in estimate.by_op()), "overhead"]
            bars = {"estimate": [*(float(row.time_s) for row in estimate.by_op()), float(estimate.overhead_s)]}
        roofs = {label: float(value) for label, value in roofs.items() if value or label != "network roof"}
    else:
        bars = {label: [float(sum(getattr(row.op, name) for name in names)) for row in rows] for label, names in _TRAFFIC.items()}
        bars, roofs = {label: values for label, values in bars.items() if sum(values)}, {}
    whole = max(sum(values) for values in bars.values())
    most = [max(values) for values in zip(*bars.values(), strict=True)]
    largest = sorted(range(len(operators)), key=lambda i: -most[i])[: len(CYCLE) - 1]
    main = sorted(i for i in largest if most[i] >= 0.015 * whole)
    names = [short_name(operators[i]) for i in main] + [f"{len(operators) - len(main)} others"]
    for label, values in bars.items():
        parts = [values[i] for i in main]
        parts.append(max(0.0, sum(values) - sum(parts)))
        left = 0.0
        for name, value, color in zip(names, parts, (*CYCLE[: len(main)], GREY), strict=True):
            legend = name if label == next(iter(bars)) else None
            ax.barh(label, value, left=left, color=color, edgecolor="white", linewidth=0.6, height=0.6, label=legend)
            left += value
        _total(ax, label, left, show(left))
    for label, value in roofs.items():
        style: dict[str, Any] = {"color": INK} if value == floor.time_s else {"color": "#DDDDDD", "edgecolor": INK, "hatch": "//"}
        ax.barh(label, value, linewidth=0.6, height=0.6, **style)
        _total(ax, label, value, show(value))
    ax.invert_yaxis()
    ax.set_xlim(0, 1.16 * whole)  # space for the totals; no roof is longer than the operators one after another
    scale_axis(ax.xaxis, *(("time", "s") if quantity == "time" else ("main-memory traffic", "B")), whole)
    if roofs:
        misfit = ", does not fit into memory" if floor.fits is not None and not floor.fits else ""
        ax.axvline(float(floor.time_s), color=VERMILION, lw=1.2, ls="--", label=f"floor: {show_time(float(floor.time_s))}{misfit}")
    ax.set_title(
        f"{floor.model.name} on {floor.hardware.name}{describe_devices(floor)}\n{describe_step(floor)}, {describe_formats(floor)}",
        fontsize=10,
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, fontsize=SMALL, frameon=False)
    ax.tick_params(labelsize=8.5)
    return ax


def _total(ax: "Axes", label: str, value: float, text: str) -> None:
    """Write the total of a bar beside its end."""
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    ax.annotate(text, (value, label), (5, 0), textcoords="offset points", va="center", fontsize=SMALL, bbox=ground)
