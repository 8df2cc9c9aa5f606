"""Two traces of the same work, before and after a change: what kernels do took how much less, and how long steps of a kind took."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.profile.rows import short, show_change
from roofline.profile.traces.trace import Trace, read_trace
from roofline.results import Result, show_notes
from roofline.units import show_time

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class TraceChange:
    """The same part of two traces.

    Parameters
    ----------
    part : str
        ``"step"``, ``"class"`` or ``"kernel"`` [-].
    name : str
        Of steps, their kind and size; of kernels, what they do, or their name [-].
    before, after : int
        How many steps or kernels [-].
    before_s, after_s : float
        Of steps the median of one; of kernels the time of all for each step, or of all together in traces without steps [s].
    """

    part: str
    name: str
    before: int
    after: int
    before_s: float
    after_s: float

    @property
    def saved_s(self) -> float:
        """What the change saved; negative where it cost time [s]."""
        return self.before_s - self.after_s


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class TraceComparison(Result):
    """Two traces, before and after a change.

    Parameters
    ----------
    before, after : Trace
        The traces [-].
    changes : tuple of TraceChange
        Steps, then classes, then names of kernels; of each the largest difference first [-].
    notes : tuple of str
        What a reader must know [-].
    """

    before: Trace
    after: Trace
    changes: tuple[TraceChange, ...]
    notes: tuple[str, ...]

    _numbers = ("before_s", "after_s")

    @property
    def before_s(self) -> float:
        """Kernels of the first, for each step if it has steps [s]."""
        return self.before.kernels_s / _steps(self.before)

    @property
    def after_s(self) -> float:
        """Kernels of the second, for each step if it has steps [s]."""
        return self.after.kernels_s / _steps(self.after)

    def of(self, part: str) -> tuple[TraceChange, ...]:
        """Return the changes of one part.

        Parameters
        ----------
        part : {"step", "class", "kernel"}
            Which [-].

        Returns
        -------
        tuple of TraceChange
            The largest difference first [-].
        """
        return tuple(change for change in self.changes if change.part == part)

    def table(self) -> list[Mapping[str, Any]]:
        """Return a row for every change [-]."""
        return [{name: getattr(change, name) for name in (*change.__slots__, "saved_s")} for change in self.changes]

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        return {"traces": [self.before.path, self.after.path], "notes": self.notes}

    def summary(self) -> list[str]:
        """Return the text: kernels of both, then what changed most [-]."""
        each = " a step" if self.before.steps else ""
        lines = [f"kernels{each}: {show_time(self.before_s)} before, {show_time(self.after_s)} after"]
        for part in ("step", "class", "kernel"):
            shown = self.of(part)[:_SHOWN]
            lines += [f"  {short(change.name)}: {show_change(change.before_s, change.after_s)}" for change in shown]
        return [*lines, *show_notes(self.notes)]


def _steps(trace: Trace) -> int:
    return len(trace.steps) or 1


@checks_call
def compare_traces(before: Trace | str | Path, after: Trace | str | Path) -> TraceComparison:
    """Compare two traces of the same work, before and after a change.

    Parameters
    ----------
    before, after : Trace, str or Path
        The traces, or what :func:`read_trace` returned of them [-].

    Returns
    -------
    TraceComparison
        Median times of steps of the same kind and size; kernels by what they do and by name, for each step [-].

    Raises
    ------
    InvalidValueError
        If one of them is no trace or has no kernels, or only one of them has steps.
    """
    before, after = (read_trace(trace) if isinstance(trace, (str, Path)) else trace for trace in (before, after))
    for trace in (before, after):
        if not isinstance(trace, Trace):
            raise InvalidValueError(f"{quoted(trace)} is no trace; compare_traces takes two traces, or what read_trace returned of them.")
        if not trace.kernels:
            raise InvalidValueError(f"{trace.path} has no kernels; compare_profiles compares operators.")
    if bool(before.steps) != bool(after.steps):
        without = after if before.steps else before
        raise InvalidValueError(f"{without.path} has no steps that an engine annotated, and the other trace has; they cannot be compared.")
    sides = [_parts(trace) for trace in (before, after)]
    changes = []
    for key in dict.fromkeys((*sides[0], *sides[1])):
        (n, s), (m, t) = (side.get(key, (0, 0.0)) for side in sides)
        changes.append(TraceChange(*key, n, m, s, t))
    order = {"step": 0, "class": 1, "kernel": 2}
    changes.sort(key=lambda change: (order[change.part], -abs(change.saved_s)))
    notes = []
    if any(0 in (change.before, change.after) for change in changes if change.part == "step"):
        notes.append("not all steps have counterparts of the same kind and size, so kernels for each step are of different work")
    return TraceComparison(before, after, tuple(changes), tuple(notes))


def _parts(trace: Trace) -> dict[tuple[str, str], tuple[int, float]]:
    """Return the parts of a trace: how many each is of, and its time."""
    parts: dict[tuple[str, str], tuple[int, float]] = {}
    times: dict[str, list[float]] = {}
    for step in trace.steps:
        times.setdefault(step.what, []).append(step.measured_s)
    for name, seconds in times.items():
        parts["step", name] = len(seconds), median(seconds)
    for kernel in trace.kernels:
        for key in (("class", kernel.kind), ("kernel", kernel.name)):
            count, spent = parts.get(key, (0, 0.0))
            parts[key] = count + kernel.count, spent + kernel.time_s / _steps(trace)
    return parts
