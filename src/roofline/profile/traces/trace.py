"""`read_trace`: a saved trace of torch's profiler as steps of an engine, kernels by what they do, and operators where it has shapes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, UnknownNameError
from roofline.hardware import Hardware
from roofline.hardware.load import find_spec
from roofline.names import local_path
from roofline.profile.result import Profile
from roofline.profile.traces.capture import join_capture
from roofline.profile.traces.contents import Contents, read_contents
from roofline.profile.traces.kernels_by_name import class_of, sum_by_class
from roofline.profile.traces.steps import Annotated, TraceStep, busy_s, find_steps, time_steps, window_of
from roofline.results import Result, show_notes
from roofline.units import show_bytes, show_time, whole_number

_JOINED = 0.5  # of the kernels' time: with less of it at operators, a profile would be a list of kernels
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class TraceKernel:
    """The kernels of one name.

    Parameters
    ----------
    name : str
        As the trace has it [-].
    kind : str
        What they do, by their name: ``"matrices"``, ``"attention"``, ``"experts"`` … [-].
    count : int
        How many ran [-].
    time_s : float
        All together [s].
    """

    name: str
    kind: str
    count: int
    time_s: float


@dataclass(frozen=True, slots=True)
class TraceCollective:
    """A kernel that exchanges data with other ranks.

    Parameters
    ----------
    name : str
        Of the exchange where the trace says it, such as ``"allreduce"``, else of the kernel [-].
    group : str
        The ranks that take part, as the trace calls them; empty where it does not [-].
    start_s, time_s : float
        From the first event of the trace; how long it ran, waiting for others included [s].
    """

    name: str
    group: str
    start_s: float
    time_s: float


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Trace(Result):
    """What a saved trace says.

    Parameters
    ----------
    path : str
        Where it was read [-].
    device : str
        What the kernels ran on, as the trace calls it; empty where it does not [-].
    machine : str, optional
        The machine of that name, an id of ``Hardware.list()``; None where none has it [-].
    rank, world_size : int, optional
        Of the process among those of its job, where the trace says it [-].
    steps : tuple of TraceStep
        The steps of an engine, as its annotations name them [-].
    kernels : tuple of TraceKernel
        Kernels of the steps by name, of all that was profiled where there are no steps; the longest first [-].
    collectives : tuple of TraceCollective
        Those among them that exchange data with other ranks, in the order of time [-].
    window_s : float
        From the first of these kernels to the end of the last [s].
    busy_s : float
        The part of it in which kernels run [s].
    profile : Profile, optional
        Operators with FLOP and bytes, where the trace, or that of the capture of its graph, has their shapes [-].
    notes : tuple of str
        What a reader must know [-].
    """

    path: str
    device: str
    machine: str | None
    rank: int | None
    world_size: int | None
    steps: tuple[TraceStep, ...]
    kernels: tuple[TraceKernel, ...]
    collectives: tuple[TraceCollective, ...]
    window_s: float
    busy_s: float
    profile: Profile | None
    notes: tuple[str, ...] = ()

    _numbers = ("window_s", "busy_s", "kernels_s", "idle")

    @property
    def kernels_s(self) -> float:
        """Time of all kernels together [s]."""
        return sum(kernel.time_s for kernel in self.kernels)

    @property
    def idle(self) -> float:
        """Share of the window in which no kernel runs [-]."""
        return 1 - self.busy_s / self.window_s if self.window_s else 0.0

    def by_class(self) -> dict[str, float]:
        """Return the time of kernels by what they do.

        Returns
        -------
        dict of str to float
            The longest first [s].
        """
        return sum_by_class((kernel.kind, kernel.time_s) for kernel in self.kernels)

    def table(self) -> list[Mapping[str, Any]]:
        """Return a row for every step, for every name of kernels where there are no steps [-]."""
        if self.steps:
            names = ("name", "mode", "sequences", "tokens", "start_s", "measured_s", "busy_s", "before_s", "kernels")
            return [{name: getattr(step, name) for name in names} for step in self.steps]
        return [{name: getattr(kernel, name) for name in ("name", "kind", "count", "time_s")} for kernel in self.kernels]

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        names = ("path", "device", "machine", "rank", "world_size", "notes")
        return {name: getattr(self, name) for name in names} | {"by_class": self.by_class()}

    def summary(self) -> list[str]:
        """Return the text: the device's time, its steps, and what its kernels do [-]."""
        device = self.device or "a device without a name"
        run = f"kernels run in {show_time(self.busy_s)} of {show_time(self.window_s)}" if self.kernels else "no kernels"
        lines = [f"trace of {device}: {run}"]
        lines += [f"  {s.what}: {show_time(s.measured_s)}, {show_time(s.busy_s)} of it busy" for s in self.steps[:_SHOWN]]
        if len(self.steps) > _SHOWN:
            lines.append(f"  {len(self.steps) - _SHOWN} more steps")
        shares = [f"{kind} {seconds / self.kernels_s:.1%}" for kind, seconds in self.by_class().items()] if self.kernels_s else []
        return [*lines, f"  kernels by name: {', '.join(shares) or 'none'}", *show_notes(self.notes)]


@checks_call
def read_trace(
    path: str | Path,
    *,
    hardware: Any = None,
    context: int | None = None,
    cached: int | None = None,
    capture: str | Path | None = None,
) -> Trace:
    """Read a trace that torch's profiler saved, of CUDA or ROCm, plain or gzipped, of any size.

    Parameters
    ----------
    path : str or Path
        The trace [-].
    hardware : Hardware, str or Path, optional
        The machine whose roofs operators are put beside; by default the one that the trace names [-].
    context : int, optional
        Tokens in the cache of each sequence that decodes, where the engine's annotations do not say it: vLLM's do with
        ``detailed_trace_annotation`` [token].
    cached : int, optional
        Tokens in the cache of each request whose prompt is processed, where the annotations do not say it: 0 without a prefix cache and
        chunked prefill [token].
    capture : str or Path, optional
        The trace of the capture of the CUDA graph that the steps replay: it has the operators that the graph hides [-].

    Returns
    -------
    Trace
        Steps, kernels, and a profile where there are shapes [-].

    Raises
    ------
    InvalidValueError
        If a file cannot be read or is no trace, or a number of tokens is none.
    UnknownNameError
        If there is no such machine.

    Notes
    -----
    Memory stays far below the size of the file; a file that ends in the middle, as of a job that was killed, is read as far as it goes, and a note
    says so. What kernels do is read from their names, by a table of patterns: a top-k may be a router's or the sampler's.
    """
    context = None if context is None else whole_number("context", context)
    cached = None if cached is None else whole_number("cached", cached)
    contents = read_contents(local_path(path))
    machine = _machine(contents.device_name)
    named = machine if hardware is None else hardware
    roofs = None if named is None else Hardware.load(named)
    found = find_steps(contents)
    steps = time_steps(contents, found, context=context, cached=cached)
    which, window = _counted(contents, found)
    joined = join_capture(contents, found, local_path(capture), roofs) if capture is not None else None
    profile = joined if joined is not None else _profile(contents, which, window, roofs)
    return Trace(
        str(path),
        contents.device_name,
        machine,
        contents.rank,
        contents.world_size,
        steps,
        _kernels(contents, which),
        _collectives(contents, which),
        window,
        busy_s(contents.start_s[which], contents.end_s[which]) if which.size else 0.0,
        profile,
        tuple(_notes(contents, found, steps, which, profile)),
    )


def _machine(name: str) -> str | None:
    """Return the machine that a device's name means, None where it is none of those that are shipped."""
    try:
        return find_spec(name) if name else None
    except UnknownNameError:
        return None


def _counted(contents: Contents, found: list[Annotated]) -> tuple[Any, float]:
    """Return which kernels count, in the order of time, and the time from the first to the end of the last [s]."""
    if found:
        which = np.sort(np.concatenate([step.kernels for step in found]))
    else:
        which = np.arange(contents.start_s.size)
        if window := window_of(contents):
            inside = (contents.start_s >= window[0] - 1e-9) & (contents.start_s <= window[1])
            which = which[inside]
    span = float(contents.end_s[which].max() - contents.start_s[which].min()) if which.size else 0.0
    return which, span


def _kernels(contents: Contents, which: Any) -> tuple[TraceKernel, ...]:
    counts = np.bincount(contents.name[which], minlength=len(contents.names))
    seconds = np.bincount(contents.name[which], weights=contents.time_s[which], minlength=len(contents.names))
    order = [int(i) for i in np.argsort(-seconds, kind="stable") if counts[i]]
    return tuple(TraceKernel(contents.names[i], class_of(contents.names[i]), int(counts[i]), float(seconds[i])) for i in order)


def _collectives(contents: Contents, which: Any) -> tuple[TraceCollective, ...]:
    collective = np.array([class_of(name) == "collective" for name in contents.names], dtype=bool)
    rows = []
    for index in which[collective[contents.name[which]]] if which.size else ():
        name, group = contents.collectives.get(int(index), (contents.names[contents.name[index]], ""))
        rows.append(TraceCollective(name, group, float(contents.start_s[index]), float(contents.time_s[index])))
    return tuple(rows)


def _profile(contents: Contents, which: Any, window_s: float, hardware: Hardware | None) -> Profile | None:
    """Return operators with their costs, None where the trace has no shapes, or most of the kernels no operator."""
    if not contents.shapes or _lacks_kernels(contents):
        return None
    launched = contents.operator[which] >= 0
    if which.size and contents.time_s[which][launched].sum() < _JOINED * contents.time_s[which].sum():
        return None
    reader = contents.reader
    reader.hardware = hardware
    for index in which:
        reader.add(contents.event(int(index)))
    try:
        profile = reader.profile(str(contents.path), contents.device_name or ("a device without a name" if which.size else "the host"))
    except TypeError:  # of a file that somebody wrote by hand
        raise InvalidValueError(f"{contents.path} has an operator whose Input Dims are no lists of sizes.") from None
    return replace(profile, wall_s=window_s) if which.size else profile


def _lacks_kernels(contents: Contents) -> bool:
    """Return whether there is a GPU whose kernels are not in the trace: operators' times on the host may be those of launches."""
    return not contents.start_s.size and bool(contents.launches or (contents.cut and contents.devices))


def _notes(contents: Contents, found: list[Annotated], steps: tuple[TraceStep, ...], which: Any, profile: Profile | None) -> Iterator[str]:
    """Yield what a reader must know."""
    if contents.devices and not contents.device_name and which.size:
        memory, units = (contents.devices[0].get(key) for key in ("totalGlobalMem", "numSms"))
        size = f", of {show_bytes(memory)} and {units} multiprocessors" if isinstance(memory, int) and isinstance(units, int) else ""
        yield f"the trace does not name its device{size}"
    if contents.cut:
        yield "the file ends in the middle: it was read as far as it goes, and any step may lack kernels"
    if found:
        unknown = sum(step.step is None and step.sequences > 0 for step in steps)
        if unknown:
            untold = "the annotations do not say the lengths in the cache: give context= of sequences that decode, cached= of prompts"
            drafts = "a draft model's steps are called decode too, so those are not told apart from the model's own"
            yield f"{unknown} of {len(steps)} steps have no floor: {drafts if any(s.mode == 'target_verify' for s in steps) else untold}"
    elif contents.start_s.size and which.size < contents.start_s.size:
        outside, total = contents.start_s.size - which.size, contents.start_s.size
        yield f"{outside} of {total} kernels lie outside of the profiler's steps, as those of warm-up do; they are left out"
    if _lacks_kernels(contents):
        why = "the file ends before those of its GPU" if contents.cut else "it has launches on a GPU alone"
        yield f"no kernels: {why}, so nothing is known of the device's time, nor whether operators ran there"
    elif profile is not None and not which.size:
        yield "no kernels: operators ran on the host, and the profile has their times"
    if profile is None and which.size:
        share = float((contents.operator[which] >= 0).mean())
        said = (
            f"{share:.0%} of the kernels name the operator that launched them"
            if contents.shapes
            else "shapes were not recorded (record_shapes=True)"
        )
        yield f"no operators: {said}; kernels are told apart by their names"
    if contents.device.size and np.unique(contents.device[which]).size > 1:
        yield f"kernels ran on {np.unique(contents.device[which]).size} devices, whose times are taken together"
    if contents.world_size and contents.world_size > 1:
        yield f"rank {contents.rank} of {contents.world_size}: the trace does not say how ranks share the model"
