"""The capture of a CUDA graph gives the operators of kernels that its replays hide."""

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.hardware import Hardware
from roofline.profile.result import Profile
from roofline.profile.traces.contents import Contents, Launch, read_contents
from roofline.profile.traces.steps import Annotated
from roofline.units import show_time

_FOR = re.compile(r"capture_(\d+)(_|$)")


def join_capture(contents: Contents, found: list[Annotated], path: Path, hardware: Hardware | None) -> Profile:
    """Return the operators of the first step that replays a captured graph: its kernels are launched in the order of the capture.

    Parameters
    ----------
    contents : Contents
        The trace of the replays [-].
    found : list of Annotated
        Its steps [-].
    path : Path
        The trace of the capture [-].
    hardware : Hardware, optional
        The machine whose roofs operators are put beside [-].

    Returns
    -------
    Profile
        Of one step; kernels outside of the graph are in it by their own names [-].

    Raises
    ------
    InvalidValueError
        If no step replays what was captured.
    """
    captured = read_contents(path)
    captures = _captures(captured)
    for number, step in enumerate(found, 1):
        graph = _graph(contents, step)
        names = [contents.names[contents.name[index]] for index in graph]
        alike = [capture for capture in captures if graph and _same(capture.launches, names)]
        if not alike:
            continue
        launches = _fitting(alike, step, path).launches
        reader = captured.reader
        reader.hardware = hardware
        operator = dict(zip(graph, (launch.operator for launch in launches), strict=True))
        for index in map(int, step.kernels):
            reader.add(contents.event(index, operator=operator.get(index, -1)))
        profile = reader.profile(str(contents.path), contents.device_name or "a device without a name")
        span = float(contents.end_s[step.kernels].max() - contents.start_s[step.kernels].min())
        note = f"of step {number} of {len(found)} alone, {show_time(span)}; operators and shapes are those of the capture {path.name}"
        return replace(profile, wall_s=span, notes=(note,))
    raise InvalidValueError(
        f"{path} is not the capture of what {contents.path.name} replays: no step launches the same kernels in the same order."
    )


def _graph(contents: Contents, step: Annotated) -> list[int]:
    """Return the kernels of a step that were launched together, as a graph: those with the most frequent correlation."""
    numbers = contents.correlation[step.kernels]
    known, counts = np.unique(numbers[numbers >= 0], return_counts=True)
    return [int(i) for i in step.kernels[numbers == known[counts.argmax()]]] if known.size else []


class _Capture(NamedTuple):
    """The launches of a graph in the order of its capture, and the tokens that it was captured for; None where they are not known."""

    launches: list[Launch]
    tokens: int | None


def _captures(captured: Contents) -> list[_Capture]:
    """Return the graphs that were captured, in the order of time; vLLM names what each is for: ``capture_32_FULL``."""
    ranges = [(span, int(found[1])) for span in captured.ranges if (found := _FOR.match(span.name))]
    captures: list[_Capture] = []
    capturing = False
    for launch in sorted(captured.launches, key=lambda launch: launch.at_s):
        if launch.name.endswith("BeginCapture"):
            tokens = [size for span, size in ranges if span.start_s <= launch.at_s <= span.end_s]
            captures.append(_Capture([], tokens[-1] if tokens else None))
            capturing = True
        elif launch.name.endswith("EndCapture"):
            capturing = False
        elif capturing:
            captures[-1].launches.append(launch)
    return captures


def _fitting(alike: list[_Capture], step: Annotated, path: Path) -> _Capture:
    """Return the capture that a step replays, among those that launch the same kernels: the smallest that holds its tokens."""
    tokens = step.batch.tokens or 0
    holding = [capture for capture in alike if capture.tokens is not None and capture.tokens >= tokens]
    if holding:
        return min(holding, key=lambda capture: capture.tokens or 0)
    if len(alike) > 1 or alike[0].tokens is not None:
        sizes = ", ".join(str(capture.tokens) for capture in alike if capture.tokens is not None) or "sizes that it does not say"
        raise InvalidValueError(
            f"{path} has captures for {sizes}, none of which is known to be for the {tokens} tokens of {quoted(step.name)}."
        )
    return alike[0]


def _same(launches: list[Launch], names: list[str]) -> bool:
    """Say whether a capture launches these kernels; CUDA's traces of it do not name them, and only their number can be compared."""
    return len(launches) == len(names) and all(launch.kernel in ("", name) for launch, name in zip(launches, names, strict=True))
