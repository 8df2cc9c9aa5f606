"""The roofline of machines, with the operators of steps and single kernels on it, at their roof, as estimated, or as measured."""

from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roofline.bounds import attainable, ridge_point
from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError
from roofline.estimate import Estimate, KernelEstimate
from roofline.floors import Floor, KernelFloor
from roofline.hardware import Hardware
from roofline.plotting.labels import label_points
from roofline.plotting.points import Cloud, cloud_of, measured_cloud
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
    new_axes,
    scale_axis,
    several,
    write,
)
from roofline.units import show_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Drawable = Floor | KernelFloor | Estimate | KernelEstimate
_COLORS = (BLUE, VERMILION, GREEN, PURPLE, SKY)
_DASHES = ("-", "--", "-.", ":")
_Roof = tuple[float, float, list[str]]  # a peak [FLOP/s], its ridge [FLOP/B], and the operand formats that share it


@checks_keywords
def plot_roofline(
    hardware: Hardware | str | Path | Iterable[Hardware | str | Path],
    *,
    formats: str | Sequence[str] = ("bf16", "fp8"),
    floors: Drawable | Iterable[Drawable] = (),
    measured: Iterable[tuple[Floor | KernelFloor, Any]] = (),
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Draw the roofline of a machine, or of several, and steps and kernels on it.

    The slanted roof is the memory bandwidth, the flat ones are the dense peaks: rate :math:`\min(P, I \cdot W)` at intensity I.
    Every ridge is marked; of several machines the legend says the rates. Each operator of a step is a bubble at its intensity (activation traffic included) and at the rate of its own
    roof, or of an estimate at the rate to expect; the area of the bubble is the operator's share of the step's time.

    Parameters
    ----------
    hardware : Hardware, str or Path, or iterable of these
        The machine, or several to compare [-].
    formats : str or sequence of str, optional
        Operand formats to draw roofs for; those of the operators are added. A format that the machine converts shares the roof of the format
        it is computed in [-].
    floors : Floor, KernelFloor, Estimate, KernelEstimate or iterable of these, optional
        What is drawn on it, one colour for each: floors at their roof, estimates below it. Circles are decode, squares prefill, triangles
        other steps, diamonds single kernels, which may be arrays [-].
    measured : iterable of (Floor or KernelFloor, float or array_like), optional
        What was measured, each with its time: a star at the intensity of the whole step or kernel [s].
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if not given [-].

    Returns
    -------
    matplotlib.axes.Axes
        The Axes, in units of FLOP/B and FLOP/s [-].

    Raises
    ------
    InvalidValueError
        If a floor is for another machine, a step is an array of steps, or a measured time is not positive.
    MissingDependencyError
        If matplotlib is not installed.

    Notes
    -----
    Operators without arithmetic (embedding look-up, collectives) are not drawn. Contractions are drawn with their matrix FLOP, other
    operators with their vector FLOP.
    """
    machines = [Hardware.load(machine) for machine in several(hardware, (Hardware, str, Path))]
    clouds = [cloud_of(drawn) for drawn in several(floors, (Floor, KernelFloor, Estimate, KernelEstimate))]
    clouds += [measured_cloud(floor, time_s) for floor, time_s in measured]
    for cloud in clouds:
        if cloud.hardware not in machines:
            raise InvalidValueError(
                f"a floor is for {cloud.hardware.name}, but the roofline is for {', '.join(machine.name for machine in machines)}."
            )
    used = dict.fromkeys([*several(formats, str), *(operand for cloud in clouds for operand in cloud.operands)])
    roofs = [_roofs(machine, used) for machine in machines]
    at = [point.x for cloud in clouds for point in cloud.points]
    ridges = [ridge for own in roofs for _, ridge, _ in own]
    x = np.geomspace(min([0.5, *at]) / 2, max([800.0, *(8 * ridge for ridge in ridges), *(25 * point for point in at)]), 400)
    slowest = min(machine.memory_bandwidth for machine in machines)
    bottom = min([x[0] * slowest, *(point.y for cloud in clouds for point in cloud.points)]) / 2
    ax = new_axes(ax)
    _draw_roofs(ax, machines, roofs, x, bottom)
    labels = _draw_clouds(ax, clouds, name_machines=len(machines) > 1)
    about = dict.fromkeys(cloud.about for cloud in clouds if cloud.about)
    ax.set_title("\n".join([f"Roofline of {', '.join(machine.name for machine in machines)}", *about]), fontsize=10)
    if clouds or len(machines) > 1:
        shares = any(cloud.shares for cloud in clouds)
        title = {"title": "area: share of the time", "title_fontsize": SMALL} if shares else {}
        ax.legend(loc="upper left", fontsize=SMALL, alignment="left", **title)
    ax.figure.figure.draw_without_rendering()  # settles where the Axes ends up, and so the slope
    places = np.geomspace(x[0] * 4, min(ridges, default=float(x[-1])) / 4, 15)
    weighty = [point.x for cloud in clouds for point in cloud.points if point.share > 0.05]
    away = [np.abs(np.log(place / np.asarray(weighty or [1e-30]))).min() for place in places]
    if len(machines) == 1:
        _name_slope(ax, machines[0].memory_bandwidth, float(places[np.argmax(away)]))
    label_points(ax, labels)
    return ax


def _roofs(machine: Hardware, operands: Iterable[str]) -> list[_Roof]:
    """Return every flat roof of a machine, lowest first."""
    roofs: dict[float, list[str]] = {}
    for operand in dict.fromkeys(operands):
        peak = machine.ceiling(operand).value
        if np.isfinite(peak):
            roofs.setdefault(peak, []).append(operand)
    bandwidth = machine.memory_bandwidth
    return [(peak, float(ridge_point(peak_flops_per_s=peak, bandwidth=bandwidth)), roofs[peak]) for peak in sorted(roofs)]


def _draw_roofs(ax: "Axes", machines: list[Hardware], roofs: list[list[_Roof]], x: np.ndarray, bottom: float) -> None:
    """Draw the roofs over some intensities, each with its ridge and its name, and scale the axes to them."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    alone = len(machines) == 1
    for machine, own, dashes in zip(machines, roofs, cycle(_DASHES), strict=False):
        style: dict[str, Any] = {"color": INK, "lw": 1.6, "ls": dashes, "zorder": 2}
        if not alone:
            peaks = "".join(f", {', '.join(names)} {show_rate(peak, 'FLOP/s')}" for peak, _, names in own)
            ax.plot([], [], label=f"{machine.name}: {show_rate(machine.memory_bandwidth, 'B/s')}{peaks}", **style)
        for peak, ridge, names in own:
            knee = np.sort(np.append(x, ridge))
            (line,) = ax.plot(knee, attainable(knee, peak_flops_per_s=peak, bandwidth=machine.memory_bandwidth), **style)
            line.set_gid(f"roof {names[0]}" if alone else f"roof {machine.id} {names[0]}")
            ax.plot([ridge], [peak], marker="D", ms=4, color=INK, ls="none", zorder=3)
        if not own:
            ax.plot(x, x * machine.memory_bandwidth, **style)
    top = max([peak for own in roofs for peak, _, _ in own], default=float(x[-1]) * max(m.memory_bandwidth for m in machines))
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(bottom, top * 3)
    scale_axis(ax.xaxis, "intensity", "FLOP/B", 1)
    scale_axis(ax.yaxis, "rate", "FLOP/s", min(top / 100, 1e12))
    if alone:
        for peak, ridge, names in roofs[0]:
            write(ax, float(x[-1]) / 1.15, peak * 1.1, f"{', '.join(names)}: {show_rate(peak, 'FLOP/s')}", ha="right", va="bottom")
            ax.plot([ridge, ridge], [bottom, peak], color=GREY, lw=0.8, ls=":", zorder=1)
            write(ax, ridge, bottom * 1.3, f"ridge {ridge:.4g} FLOP/B", rotation=90, ha="center", va="bottom")


def _draw_clouds(ax: "Axes", clouds: list[Cloud], *, name_machines: bool) -> list[tuple[float, float, str, float, str]]:
    """Draw all points as bubbles, and return the labels of those that weigh: place, text, share of the time, colour."""
    labels = []
    for number, cloud in enumerate(clouds):
        color = _COLORS[number % len(_COLORS)]
        style: dict[str, Any] = {"marker": cloud.marker, "color": color, "alpha": 0.65, "edgecolor": "white", "linewidth": 0.5}
        sizes = [bubble_size(point.share) for point in cloud.points]
        ax.scatter([point.x for point in cloud.points], [point.y for point in cloud.points], s=sizes, zorder=4, **style)
        ax.scatter([], [], s=40, label=f"{cloud.label}, {cloud.hardware.name}" if name_machines else cloud.label, **style)
        labels += [(point.x, point.y, point.name, point.share, color) for point in cloud.points if point.name and point.share >= 0.01]
    return labels


def _name_slope(ax: "Axes", bandwidth: float, intensity: float) -> None:
    """Write the bandwidth along the memory roof, at an intensity."""
    (left, low), (right, high) = ax.transData.transform([(intensity, intensity * bandwidth), (2 * intensity, 2 * intensity * bandwidth)])
    angle = float(np.degrees(np.arctan2(high - low, right - left)))
    away = (-4 * np.sin(np.radians(angle)), 4 * np.cos(np.radians(angle)))
    style: dict[str, Any] = {"textcoords": "offset points", "rotation": angle, "rotation_mode": "anchor", "fontsize": SMALL, "color": INK}
    ax.annotate(f"memory: {show_rate(bandwidth, 'B/s')}", (intensity, intensity * bandwidth), away, ha="center", va="bottom", **style)
