"""What all plots share: colours, axes with units, and titles."""

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from roofline.errors import InvalidValueError, MissingDependencyError, install, quoted
from roofline.floors import Floor
from roofline.results import show_span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito, "Color Universal Design", 2008: told apart with any kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
GREY, INK = "#999999", "#333333"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, "#F0E442", "#000000")
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
SMALL = 7.5  # [pt]


def new_axes(ax: "Axes | None") -> "Axes":
    """Return the Axes given, or a new one; the only place that reports a missing matplotlib."""
    if ax is not None:
        if not hasattr(ax, "get_figure"):
            raise InvalidValueError(f"ax is {quoted(ax)}; it must be matplotlib Axes, or None for new ones.")
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependencyError(f"plotting needs the package {error.name!r}: {install('plot')}.") from None
    return plt.subplots(figsize=(6.0, 4.0), layout="constrained")[1]


def bubble_size(share: float) -> float:
    """Return the area of the marker of an operator with a share of the time [pt²]."""
    return 14 + 420 * share


def short_name(name: str) -> str:
    """Return the name of an operator without the prefix of its block [-]."""
    return name.removeprefix("self_attn.").removeprefix("mlp.")


def scale_axis(axis: Any, name: str, unit: str, largest: float) -> None:
    """Label an axis of SI numbers with the prefix that makes `largest` readable; the data keep their base unit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    factor, prefix = next(((f, p) for f, p in _PREFIXES if largest >= f * 0.9995), _PREFIXES[-1])
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / factor:,.10g}"))
    axis.set_label_text(f"{name} [{prefix}{unit}]")
    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        axis.set_minor_formatter(NullFormatter())
        if high / low < 300:  # too few powers of ten to read by
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_minor_locator(NullLocator())


def write(ax: "Axes", x: float, y: float, text: str, **style: Any) -> Any:
    """Write text on a white background, so that no line crosses the letters."""
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    named: dict[str, Any] = {"fontsize": SMALL, "color": INK, "bbox": ground, "zorder": 6} | style
    return ax.text(x, y, text, **named)


def describe_step(floor: Floor) -> str:
    """Return the kind of a step, and its numbers if it has one group."""
    step = floor.work.step
    if len(step.groups) > 1:
        return f"{floor.kind} of {show_span(step.tokens, '{:,.0f}'.format)} tokens"
    group = step.groups[0]
    batch, new, cached = (show_span(v, "{:,.0f}".format) for v in (group.count, group.new, group.cached))
    if floor.kind == "decode":
        return f"decode, batch {batch}, context {cached}"
    context = f", cached {cached}" if np.any(group.cached) else ""
    return f"{floor.kind}, batch {batch} × {new} tokens{context}"


def describe_formats(floor: Floor) -> str:
    """Return the number formats of a floor for a title."""
    precision = floor.work.program.precision
    weights = "as stored" if precision.weights is None else precision.weights.name
    if precision.weights is None and not precision.model.formats and not any(group.formats for group in precision.model.layers):
        weights = precision.base.name
    return f"weights {weights}, KV {precision.kv.name}"


def _devices(options: dict[str, Any]) -> str:
    """Return the parallel degrees above one for a title."""
    shown = [f"{name.removesuffix('_parallel')} parallel {n}" for name, n in options.items() if name.endswith("_parallel") and n > 1]
    return "".join(f", {text}" for text in shown)


def describe_devices(floor: Floor) -> str:
    """Return the parallel degrees of a floor for a title; empty on one device."""
    parallel = floor.work.program.parallel
    return "".join(f", {f.name} parallel {n}" for f in fields(parallel) if (n := getattr(parallel, f.name)) > 1)


def several(given: Any, one: Any) -> list[Any]:
    """Return what was given as a list: a single thing of some type, or an iterable of such."""
    if isinstance(given, one):
        return [given]
    if not isinstance(given, Iterable):
        raise InvalidValueError(f"{type(given).__name__} is neither what can be drawn nor several of it.")
    return list(given)


def one_step(floor: Floor) -> Floor:
    """Return the floor if it is for one step, else raise."""
    if floor.work.step.shape:
        raise InvalidValueError(
            f"the floor given is an array of shape {floor.work.step.shape}; this plot takes one step: pass a floor of scalars."
        )
    return floor
