"""Labels beside points, without overlap."""

from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np

from roofline.plotting.style import SMALL, bubble_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def label_points(ax: "Axes", points: list[tuple[float, float, str, float, str]]) -> None:
    """Label the points, those with the longest time first, where there is space; points close together share a label."""
    from matplotlib.transforms import Bbox

    figure = ax.figure.figure
    figure.draw_without_rendering()  # settles where the Axes ends up
    points = sorted(points, key=lambda point: -point[3])
    radii = [bubble_size(point[3]) ** 0.5 / 2 for point in points]  # [pt]
    seats = ax.transData.transform([point[:2] for point in points] or np.empty((0, 2)))
    groups: list[list[int]] = []
    for i, seat in enumerate(seats):
        near = [g for g in groups if np.hypot(*(seat - seats[g[0]])) < 7 and points[i][4] == points[g[0]][4]]
        if near:
            near[0].append(i)
        else:
            groups.append([i])
    inside, dot = ax.get_window_extent(), figure.dpi / 72
    legend = ax.get_legend()
    upright = [text for text in ax.texts if text.get_rotation() % 90 == 0]
    aslant = [text.get_window_extent().get_points() for text in ax.texts if text not in upright]  # runs along a diagonal
    bubbles = [Bbox.from_extents(*(seat - r * dot), *(seat + r * dot)) for seat, r in zip(seats, radii, strict=True)]
    taken = bubbles + [artist.get_window_extent() for artist in (*upright, *((legend,) if legend else ()))]
    curves = np.concatenate(
        [
            seats,
            *map(_dense, aslant),
            *(_dense(line.get_transform().transform(line.get_xydata())) for line in ax.lines if line.get_linestyle() == "-"),
        ]
    )
    angles = np.deg2rad((-30, 0, -60, -120, -150, 150, 120, 180, -90, 30, 60))
    written: list[Bbox] = []
    for group in groups:
        x, y, _, _, color = points[group[0]]
        names = list(dict.fromkeys(points[i][2] for i in group))
        text = ", ".join(names[:2]) + (f" +{len(names) - 2}" if len(names) > 2 else "")
        style: dict[str, Any] = {"fontsize": SMALL, "color": color, "va": "center", "zorder": 6}
        probe = ax.text(x, y, text, **style)
        width, height = probe.get_window_extent().padded(1.5 * dot).size
        probe.remove()
        for reach, angle in product((8, 14, 22, 32, 46, 60, 76, 94), angles):
            dx, dy = (radii[group[0]] + reach) * np.array([np.cos(angle), np.sin(angle)])
            side = {True: "left", False: "right"}[dx > 0] if abs(dx) > 1 else "center"
            left, bottom = seats[group[0]] + np.array([dx, dy]) * dot - (width * {"left": 0, "right": 1, "center": 0.5}[side], height / 2)
            box = Bbox.from_bounds(left, bottom, width, height)
            within = box.x0 > inside.x0 and box.x1 < inside.x1 and box.y0 > inside.y0 and box.y1 < inside.y1
            leader = seats[group[0]] + np.linspace(0, 1, 25)[:, None] * np.array([dx, dy]) * dot
            if any(other.count_contains(leader) for other in written):
                continue
            if within and not box.count_overlaps(taken) and not box.count_contains(curves):
                arrow: dict[str, Any] = {"arrowstyle": "-", "color": color, "lw": 0.6, "shrinkA": 0, "shrinkB": 2}
                ground: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
                ax.annotate(text, (x, y), (dx, dy), textcoords="offset points", ha=side, bbox=ground, arrowprops=arrow, **style)
                taken.append(box)
                written.append(box)
                break


def _dense(path: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return points along a curve, closer together than the size of a letter."""
    steps = np.linspace(0, 1, 100)[:, None]
    return np.concatenate([path, *(a + (b - a) * steps for a, b in pairwise(path) if np.hypot(*(b - a)) > 3)])
