"""The roofline of a machine, with the operators of steps on it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from roofline.bounds import OpTime, attainable, ridge_point
from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError
from roofline.floors import Floor
from roofline.hardware import Hardware
from roofline.plotting.labels import label_points
from roofline.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    bubble_size,
    describe_devices,
    describe_formats,
    describe_step,
    new_axes,
    one_step,
    scale_axis,
    short_name,
    write,
)
from roofline.units import show_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = (BLUE, VERMILION, GREEN, PURPLE, SKY)
_Point = tuple[OpTime, float, float]  # an operator, its intensity [FLOP/B], and the rate at its own roof [FLOP/s]
_MARKERS = {"decode": "o", "prefill": "s"}  # and triangles for other steps


@checks_keywords
def plot_roofline(
    hardware: Hardware | str,
    *,
    formats: Sequence[str] = ("bf16", "fp8"),
    floors: Floor | Iterable[Floor] = (),
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Draw the roofline of a machine, and the operators of steps on it.

    The slanted roof is the memory bandwidth, the flat ones are the dense peaks: rate :math:`\min(P, I \cdot W)` at intensity I.
    Every ridge is marked. Each operator is a bubble at its intensity (activation traffic included) and at the rate of its own roof;
    the area of the bubble is the operator's share of the step's roofline time.

    Parameters
    ----------
    hardware : Hardware or str
        The machine, or its name [-].
    formats : sequence of str, optional
        Operand formats to draw roofs for; those of the operators are added. A format that the machine converts shares the roof of the format
        it is computed in [-].
    floors : Floor or iterable of Floor, optional
        Steps on that machine whose operators are drawn, one colour per step; circles are decode, squares prefill, triangles other
        steps [-].
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if not given [-].

    Returns
    -------
    matplotlib.axes.Axes
        The Axes, in units of FLOP/B and FLOP/s [-].

    Raises
    ------
    InvalidValueError
        If a floor is for another machine, or an array of steps.
    MissingDependencyError
        If matplotlib is not installed.

    Notes
    -----
    Operators without arithmetic (embedding look-up, collectives) are not drawn. Contractions are drawn with their matrix FLOP, other
    operators with their vector FLOP.
    """
    machine = Hardware.load(hardware)
    floors = [one_step(floor) for floor in ([floors] if isinstance(floors, Floor) else floors)]
    for floor in floors:
        if floor.hardware != machine:
            raise InvalidValueError(f"a floor is for {floor.hardware.name}, but the roofline is for {machine.name}.")
    points = [_points(floor) for floor in floors]
    at = [x for rows in points for _, x, _ in rows]
    roofs = _roofs(machine, (*formats, *(row.op.operand for rows in points for row, _, _ in rows if row.op.flops)))
    ridges = [ridge for _, ridge, _ in roofs]
    x = np.geomspace(min([0.5, *at]) / 2, max([800.0, *(8 * ridge for ridge in ridges), *(25 * point for point in at)]), 400)
    bottom = min([x[0] * machine.memory_bandwidth, *(y for rows in points for _, _, y in rows)]) / 2
    ax = new_axes(ax)
    _draw_roofs(ax, machine.memory_bandwidth, roofs, x, bottom)
    labels = _draw_steps(ax, floors, points)
    models = dict.fromkeys(f"{floor.model.name} ({describe_formats(floor)}{describe_devices(floor)})" for floor in floors)
    ax.set_title("\n".join([f"Roofline of {machine.name}", *models]), fontsize=10)
    if floors:
        ax.legend(loc="upper left", fontsize=SMALL, title="area: share of roofline time", title_fontsize=SMALL, alignment="left")
    ax.figure.figure.draw_without_rendering()  # settles where the Axes ends up, and so the slope
    places = np.geomspace(x[0] * 4, min(ridges, default=float(x[-1])) / 4, 15)
    weighty = [x for rows, floor in zip(points, floors, strict=True) for row, x, _ in rows if row.time_s > 0.05 * floor.roofline_s]
    away = [np.abs(np.log(place / np.asarray(weighty or [1e-30]))).min() for place in places]
    _name_slope(ax, machine.memory_bandwidth, float(places[np.argmax(away)]))
    label_points(ax, labels)
    return ax


def _roofs(machine: Hardware, operands: Iterable[str]) -> list[tuple[float, float, list[str]]]:
    """Return every flat roof, lowest first: its peak, its ridge, and the operand formats that share it [FLOP/s], [FLOP/B], [-]."""
    roofs: dict[float, list[str]] = {}
    for operand in dict.fromkeys(operands):
        peak = machine.ceiling(operand).value
        if np.isfinite(peak):
            roofs.setdefault(peak, []).append(operand)
    bandwidth = machine.memory_bandwidth
    return [(peak, float(ridge_point(peak_flops_per_s=peak, bandwidth=bandwidth)), roofs[peak]) for peak in sorted(roofs)]


def _draw_roofs(ax: "Axes", bandwidth: float, roofs: list[tuple[float, float, list[str]]], x: np.ndarray, bottom: float) -> None:
    """Draw the roofs over some intensities, each with its ridge and its name, and scale the axes to them."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    for peak, ridge, names in roofs:
        knee = np.sort(np.append(x, ridge))
        (line,) = ax.plot(knee, attainable(knee, peak_flops_per_s=peak, bandwidth=bandwidth), color=INK, lw=1.6, zorder=2)
        line.set_gid(f"roof {names[0]}")
        ax.plot([ridge], [peak], marker="D", ms=4, color=INK, ls="none", zorder=3)
    if not roofs:
        ax.plot(x, x * bandwidth, color=INK, lw=1.6, zorder=2)
    top = roofs[-1][0] if roofs else float(x[-1]) * bandwidth
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(bottom, top * 3)
    scale_axis(ax.xaxis, "intensity", "FLOP/B", 1)
    scale_axis(ax.yaxis, "rate", "FLOP/s", min(top / 100, 1e12))
    for peak, ridge, names in roofs:
        write(ax, float(x[-1]) / 1.15, peak * 1.1, f"{', '.join(names)}: {show_rate(peak, 'FLOP/s')}", ha="right", va="bottom")
        ax.plot([ridge, ridge], [bottom, peak], color=GREY, lw=0.8, ls=":", zorder=1)
        write(ax, ridge, bottom * 1.3, f"ridge {ridge:.4g} FLOP/B", rotation=90, ha="center", va="bottom")


def _draw_steps(ax: "Axes", floors: list[Floor], points: list[list[_Point]]) -> list[tuple[float, float, str, float, str]]:
    """Draw the operators of every step as bubbles, and return the labels of those that weigh: place, text, share of the time, colour."""
    labels = []
    for floor, rows, color in zip(floors, points, _COLORS * (1 + len(points) // len(_COLORS)), strict=False):
        shares = [float(row.time_s) / float(floor.roofline_s) for row, _, _ in rows]
        marker = _MARKERS.get(floor.kind, "^")
        style: dict[str, Any] = {"marker": marker, "color": color, "alpha": 0.65, "edgecolor": "white", "linewidth": 0.5}
        ax.scatter([x for _, x, _ in rows], [y for _, _, y in rows], s=[bubble_size(share) for share in shares], zorder=4, **style)
        ax.scatter([], [], s=40, label=describe_step(floor), **style)
        labels += [(x, y, short_name(row.op.name), share, color) for (row, x, y), share in zip(rows, shares, strict=True) if share >= 0.01]
    return labels


def _name_slope(ax: "Axes", bandwidth: float, intensity: float) -> None:
    """Write the bandwidth along the memory roof, at an intensity."""
    (left, low), (right, high) = ax.transData.transform([(intensity, intensity * bandwidth), (2 * intensity, 2 * intensity * bandwidth)])
    angle = float(np.degrees(np.arctan2(high - low, right - left)))
    away = (-4 * np.sin(np.radians(angle)), 4 * np.cos(np.radians(angle)))
    style: dict[str, Any] = {"textcoords": "offset points", "rotation": angle, "rotation_mode": "anchor", "fontsize": SMALL, "color": INK}
    ax.annotate(f"memory: {show_rate(bandwidth, 'B/s')}", (intensity, intensity * bandwidth), away, ha="center", va="bottom", **style)


def _points(floor: Floor) -> list[_Point]:
    """Return every operator with arithmetic, its intensity and the rate at its own roof."""
    points = []
    for row in floor.by_op():
        work = row.op.flops or row.op.vector_flops
        moved = row.op.compulsory_bytes + row.op.activation_bytes
        if work and moved:
            points.append((row, float(work / moved), float(work / row.time_s)))
    return points
