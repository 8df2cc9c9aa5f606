"""Steps of an engine in a trace: the kernels that each annotation launched, and the time that the device took for them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from roofline.errors import InvalidValueError
from roofline.profile.events import WINDOW
from roofline.profile.traces.annotations import Batch, read_batch
from roofline.profile.traces.contents import Contents, Range
from roofline.profile.traces.kernels_by_name import class_of, sum_by_class
from roofline.step import Step


@dataclass(frozen=True, slots=True)
class TraceStep:
    """A step of an engine, as a trace has it.

    Parameters
    ----------
    name : str
        The annotation [-].
    mode : str
        ``"decode"``, ``"prefill"``, ``"mixed"``, or what the engine calls another forward pass [-].
    sequences : int
        Requests in it [-].
    tokens : int or None
        Token rows that it processes; None where the annotation does not say it [token].
    step : Step or None
        What was run; None where too little is known of it [-].
    start_s : float
        When its first kernel starts, from the first event of the trace [s].
    measured_s : float
        From there to the end of its last kernel [s].
    busy_s : float
        The part of it in which kernels run [s].
    before_s : float or None
        How long the device had nothing to do before it; None for the first step [s].
    kernels : int
        Kernels and copies [-].
    by_class : mapping of str to float
        Time of its kernels by what they do, the longest first [s].
    """

    name: str
    mode: str
    sequences: int
    tokens: int | None
    step: Step | None
    start_s: float
    measured_s: float
    busy_s: float
    before_s: float | None
    kernels: int
    by_class: Mapping[str, float]

    @property
    def what(self) -> str:
        """Its kind and size in words."""
        tokens = "" if self.tokens is None else f", {self.tokens:,} token{'s' * (self.tokens != 1)}"
        return f"{self.mode} of {self.sequences:,} sequence{'s' * (self.sequences != 1)}{tokens}"


class Annotated(NamedTuple):
    """An annotated step and its kernels.

    Parameters
    ----------
    batch : Batch
        What the annotation says [-].
    range : Range
        Where it is, on the host or on the device [-].
    name : str
        The annotation that says most [-].
    kernels : numpy.ndarray
        Which kernels of the trace [-].
    """

    batch: Batch
    range: Range
    name: str
    kernels: Any


def find_steps(contents: Contents) -> list[Annotated]:
    """Return the annotated steps of a trace in the order of time, those without kernels left out.

    A kernel is in the step in whose annotation it was launched, whenever it ran: the host is ahead of the device. Where a trace has no launches, the
    device's own annotations say it.
    """
    of_host = _outer([(span, batch) for span in contents.ranges if not span.gpu and (batch := read_batch(span.name))])
    launched = np.array([contents.launched_s.get(int(number), np.nan) for number in contents.correlation])
    steps = _split(of_host, launched)
    if not steps:
        of_device = _outer([(span, batch) for span in contents.ranges if span.gpu and (batch := read_batch(span.name))])
        steps = _split(of_device, contents.start_s)
    return sorted(steps, key=lambda step: float(contents.start_s[step.kernels].min()))


def _outer(spans: list[tuple[Range, Batch]]) -> list[tuple[Range, Batch, str]]:
    """Return one range for annotations within each other: the innermost, which is the forward pass itself, with the batch that says most."""
    found: list[tuple[Range, Batch, str]] = []
    outer_end = -np.inf
    for span, batch in spans:
        if span.start_s < outer_end and span.end_s <= outer_end:
            _, known, name = found[-1]
            found[-1] = (span, known, name) if known.told or not batch.told else (span, batch, span.name)
        else:
            found.append((span, batch, span.name))
            outer_end = span.end_s
    return found


def _split(spans: list[tuple[Range, Batch, str]], at_s: Any) -> list[Annotated]:
    """Return ranges with the kernels whose times lie in them; they do not overlap."""
    starts = np.array([span.start_s for span, _, _ in spans])
    place = np.searchsorted(starts, at_s, side="right") - 1
    inside = (place >= 0) & ~np.isnan(at_s)
    inside[inside] = at_s[inside] <= np.array([span.end_s for span, _, _ in spans])[place[inside]] if spans else False
    kernels: dict[int, list[int]] = defaultdict(list)
    for index in np.flatnonzero(inside):
        kernels[int(place[index])].append(int(index))
    return [Annotated(spans[i][1], spans[i][0], spans[i][2], np.array(of)) for i, of in sorted(kernels.items())]


def time_steps(contents: Contents, found: list[Annotated], *, context: int | None, cached: int | None) -> tuple[TraceStep, ...]:
    """Return the rows of annotated steps: what each was, and how long the device took.

    A step begins with its first kernel, or with the end of the step before if that is later: copies of the next step may run beside it.
    """
    drafts = any(step.batch.mode == "target_verify" for step in found)  # then decode steps may be the draft model's
    rows = []
    before: float | None = None
    for annotated in found:
        start, end = contents.start_s[annotated.kernels], contents.end_s[annotated.kernels]
        begin, finish = float(start.min()), float(end.max())
        idle = None if before is None else max(0.0, begin - before)
        begin = begin if before is None else min(max(begin, before), finish)
        batch, before = annotated.batch, finish if before is None else max(before, finish)
        rows.append(
            TraceStep(
                annotated.name,
                batch.mode,
                batch.requests,
                batch.tokens,
                None if drafts and batch.mode == "decode" else _step(batch, context, cached),
                begin,
                finish - begin,
                busy_s(np.maximum(start, begin), end),
                idle,
                len(annotated.kernels),
                by_class(contents, annotated.kernels),
            )
        )
    return tuple(rows)


def _step(batch: Batch, context: int | None, cached: int | None) -> Step | None:
    try:
        return batch.step(context=context, cached=cached)
    except InvalidValueError:  # sums that no batch has
        return None


def busy_s(start_s: Any, end_s: Any) -> float:
    """Return the time in which at least one of several kernels runs, sorted by their start [s]."""
    latest = np.maximum.accumulate(end_s)
    until = np.concatenate(([-np.inf], latest[:-1]))
    return float(np.maximum(end_s - np.maximum(start_s, until), 0.0).sum())


def by_class(contents: Contents, kernels: Any) -> dict[str, float]:
    """Return the time of kernels by what they do, the longest first [s]."""
    names, times = contents.name[kernels], contents.time_s[kernels]
    return sum_by_class((class_of(contents.names[index]), float(times[names == index].sum())) for index in np.unique(names))


def window_of(contents: Contents) -> tuple[float, float] | None:
    """Return from when to when the device worked on the profiler's own steps; kernels before are of warm-up, and have no operators [s]."""
    spans = [span for span in contents.ranges if span.gpu and span.name.startswith(("ProfilerStep#", WINDOW))]
    return (min(span.start_s for span in spans), max(span.end_s for span in spans)) if spans else None
