"""`diagnose`: one report from a benchmark, a running engine, a trace, counters of devices, a log, or a table of steps."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from roofline.deployment import Deployment
from roofline.deployment.machine import Machine
from roofline.deployment.options import ALL, STEP, DeploymentOptions, asks
from roofline.diagnose.counters import diagnose_counters, diagnose_recording
from roofline.diagnose.misdiagnoses import of_phases, of_service, of_trace_modes
from roofline.diagnose.of_comparison import phases_of
from roofline.diagnose.of_steps import phases_of_table
from roofline.diagnose.of_trace import phases_of_profile, phases_of_steps, phases_of_trace
from roofline.diagnose.result import Diagnosis
from roofline.diagnose.seen import Seen, of_recording
from roofline.diagnose.sources import Kind, kind_of
from roofline.diagnose.start import diagnose_log
from roofline.errors import InvalidValueError, quoted
from roofline.measured import (
    Comparison,
    EnginePage,
    EngineWindow,
    StepComparison,
    compare,
    engine_window,
    read_device_metrics,
    read_metrics,
    watch_engine,
)
from roofline.monitor import Recording, read_recording
from roofline.names import local_path
from roofline.profile import Profile, Trace, TraceBesideEstimate, beside_estimate, read_trace
from roofline.records import CalibrationRecord
from roofline.requests.checking import share
from roofline.units import show_time, whole_number

_OF_SERVICES = ("prompt", "output", "accepted", "drafts", "replicas", "sequences", "step_tokens", "kv_blocks", "batch", "run")
_OF_STEPS = ("engine", "calibration", "cuda_graph")
_OF_TRACES = ("context", "cached", "calibration", "cuda_graph")
_UNSET: Mapping[str, Any] = {"cuda_graph": True, "interval": 0.8}


@asks(ALL)
def diagnose(
    source: Any,
    model: Any = None,
    hardware: Machine = None,
    *,
    monitor: Any = None,
    busy: float | None = None,
    serving_batch: int | None = None,
    seconds: float | None = None,
    capture: str | Path | None = None,
    run: int | None = None,
    batch: float | None = None,
    context: float | None = None,
    prompt: float | None = None,
    output: float | None = None,
    cached: float | None = None,
    accepted: float | None = None,
    drafts: int | None = None,
    replicas: int | None = None,
    sequences: int | None = None,
    step_tokens: int | None = None,
    kv_blocks: int | None = None,
    engine: str | None = None,
    calibration: CalibrationRecord | str | Path | None = None,
    cuda_graph: bool = True,
    interval: float = 0.8,
    **options: Unpack[DeploymentOptions],
) -> Diagnosis:
    """Say what a run was bound by, phase by phase, what it lost, what would help, and which conclusions would be wrong.

    Parameters
    ----------
    source : path, str, ServingMeasurement, EngineWindow, Trace, Profile, Recording, EngineLog, or table
        What happened: a file, whose kind its content tells (a benchmark client's result, a trace of torch.profiler, a recording of a monitor, the log of an
        engine's start, a table of steps, a page of dcgm-exporter); the URL of a running engine; two pages of an engine's metrics, read or as files, in a list;
        or what roofline.measured, roofline.profile and roofline.monitor read of any of these [-].
    model : str, Path, mapping, object, int, float, Model or Deployment, optional
        What :meth:`Model.load` takes, or a deployment; what the source names if not given [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; what the source names if not given [-].
    monitor : path or Recording, optional
        Counters of the devices while it ran, beside a benchmark or an engine [-].
    busy : float, optional
        Share of the time in which a kernel ran, such as the GPU utilization of nvidia-smi over 100 [-].
    serving_batch : int, optional
        Sequences of a decode step in the service that the benchmark stands for [-].
    seconds : float, optional
        How long to watch a running engine, 10 if not given; between two pages that are files [s].
    capture : str or Path, optional
        The trace of the capture of the CUDA graph that a trace's steps replay [-].
    run : int, optional
        Which run of a file that holds several, the first is 0 [-].
    batch : float, optional
        Sequences of a decode step of one replica, if it is not to be derived [-].
    context, prompt, output : float, optional
        Tokens in the cache of a sequence that decodes, of a prompt and of an answer, if they are not those of the source [token].
    cached : float, optional
        Tokens of each prompt that a prefix cache had [token].
    accepted : float, optional
        Tokens that a step yields for a sequence under speculation [token].
    drafts : int, optional
        Drafted tokens that a step verifies for a sequence [token].
    replicas : int, optional
        Replicas of the deployment, which share the requests evenly [-].
    sequences : int, optional
        Most sequences that run at a time [-].
    step_tokens : int, optional
        Most tokens of a step [token].
    kv_blocks : int, optional
        Blocks of the cache [-].
    engine : str, optional
        Whose rules and kernels; what the source says, else vLLM's, if not given [-].
    calibration : CalibrationRecord, str or Path, optional
        What estimates rest on, as in :func:`roofline.measured.compare` [-].
    cuda_graph : bool, optional
        Whether an estimate's decode steps are launched as one graph [-].
    interval : float, optional
        Probability of the interval of an estimate [-].
    {options}

    Returns
    -------
    Diagnosis
        Phases with what binds each, losses, remedies, misdiagnoses, and what cannot be told [-].

    Raises
    ------
    RooflineError
        If the source cannot be read, it is not known what ran, or an option does not go with this kind of source.

    Notes
    -----
    Above 1.5 times the estimate a cause is looked for in this order: requests that wait, prompts of others between the tokens, the host, labels that are
    other than said. The phases of a run are never averaged.

    Examples
    --------
    >>> from roofline.measured import Latency, ServingMeasurement
    >>> run = ServingMeasurement("my client", batch=1, cached_context=338, tpot=Latency("per token after the first", "request", mean_s=18e-3))
    >>> found = diagnose(run, "gpt-oss-20b", "a100-80gb-sxm", busy=0.35)
    >>> found["decode"].binds, found["decode"].roof
    ('host', 'memory')
    """
    kind = kind_of(source)
    own = {
        "run": run, "batch": batch, "context": context, "prompt": prompt, "output": output, "cached": cached, "accepted": accepted, "drafts": drafts,
        "replicas": replicas, "sequences": sequences, "step_tokens": step_tokens, "kv_blocks": kv_blocks, "engine": engine, "calibration": calibration,
        "cuda_graph": cuda_graph, "interval": interval,
    }  # fmt: skip
    given = {name: value for name, value in own.items() if value is not None and value != _UNSET.get(name)}
    beside = {"monitor": monitor, "busy": busy, "serving_batch": serving_batch, "seconds": seconds, "capture": capture}
    _refuse_strays(kind, {**given, **{name: value for name, value in beside.items() if value is not None}}, source)
    if busy is not None:
        share("busy", busy)
    if serving_batch is not None:
        whole_number("serving_batch", serving_batch, minimum=1)
    if kind in ("benchmark", "engine"):
        counters = _counters(monitor, busy)
        window = _window(source, seconds) if kind == "engine" else None
        return _service(kind, window or source, (model, hardware), {**given, **options}, window, counters, serving_batch)
    if kind == "steps":
        return _table(source, (model, hardware), {**given, **options})
    if kind in ("trace", "profile"):
        return _trace(source, model, hardware, capture, {**given, **options})
    if kind == "recording":
        recording = source if isinstance(source, Recording) else read_recording(source, hardware=_machine(model, hardware))
        return diagnose_recording(recording, _deployment(model, hardware, options), given)
    if kind == "devices":
        return diagnose_counters(read_device_metrics(source) if isinstance(source, (str, os.PathLike)) else source)
    return diagnose_log(source, model, hardware, options)


_TAKES: Mapping[Kind, tuple[str, ...]] = {
    "benchmark": (*_OF_SERVICES, "context", "cached", "engine", "calibration", "cuda_graph", "interval", "monitor", "busy", "serving_batch"),
    "engine": (
        *(name for name in _OF_SERVICES if name != "run"),
        *("context", "cached", "engine", "calibration", "cuda_graph", "interval", "monitor", "busy", "serving_batch", "seconds"),
    ),
    "steps": _OF_STEPS,
    "trace": (*_OF_TRACES, "capture"),
    "profile": (),
    "recording": ("batch", "context", "prompt"),
    "devices": (),
    "log": (),
}
_NAMES: Mapping[Kind, str] = {
    "benchmark": "the result of a benchmark",
    "engine": "a running engine",
    "steps": "a table of steps",
    "trace": "a trace",
    "profile": "a profile",
    "recording": "a recording",
    "devices": "a page of dcgm-exporter",
    "log": "the log of an engine's start",
}


def _refuse_strays(kind: Kind, given: Mapping[str, Any], source: Any) -> None:
    stray = next((name for name in given if name not in _TAKES[kind]), None)
    if stray is not None:
        named = f"{local_path(source).name} is {_NAMES[kind]}" if isinstance(source, (str, os.PathLike)) and kind != "engine" else f"this is {_NAMES[kind]}"
        raise InvalidValueError(f"{stray}= does not go with it: {named}; what does: {', '.join(f'{name}=' for name in _TAKES[kind]) or 'nothing'}.")


def _counters(monitor: Any, busy: float | None) -> Seen:
    """Return what counters say beside the source."""
    seen = Seen()
    if monitor is not None:
        seen = of_recording(monitor if isinstance(monitor, Recording) else read_recording(monitor))
    return seen if busy is None else replace(seen, busy=busy, source="as given")


def _window(source: Any, seconds: float | None) -> EngineWindow:
    """Return what an engine did, from its URL or two pages."""
    if isinstance(source, EngineWindow):
        return source
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return watch_engine(source, 10.0 if seconds is None else seconds)
    if isinstance(source, Sequence) and not isinstance(source, str):
        return engine_window(*(one if isinstance(one, EnginePage) else read_metrics(one) for one in source), seconds=seconds)
    raise InvalidValueError(
        f"{local_path(source).name} is one page of metrics, whose counters run since the engine started: a diagnosis needs two, with the seconds between "
        "them (seconds=), or the URL of the engine."
    )


def _service(
    kind: Kind, source: Any, named: tuple[Any, Any], asked: Mapping[str, Any], window: EngineWindow | None, seen: Seen, serving_batch: int | None
) -> Diagnosis:
    """Diagnose a service that was measured from outside or by its engine."""
    if isinstance(source, Comparison):
        if asked or named != (None, None):
            raise InvalidValueError("a comparison already says what ran: leave out model, hardware and options.")
        comparison = source
    else:
        extra = {} if seen.busy is None else {"busy": min(seen.busy, 1.0)}
        found = compare(source, *named, **asked, **extra)
        assert isinstance(found, Comparison)  # a table has a kind of its own
        comparison = found
    measured = comparison.measurement
    if seen.busy is None and measured.busy is not None:
        seen = replace(seen, busy=measured.busy, source=measured.source)
    if seen.busy is None and window is not None and window.busy is not None:
        seen = replace(seen, busy=min(window.busy, 1.0), source=f"steps of {window.engine}")
    phases = phases_of(comparison, seen, window)
    return Diagnosis(
        kind,
        comparison.summary()[0],
        phases,
        of_service(comparison, phases, seen, serving_batch),
        tuple(_findings(comparison, window, seen)),
        tuple(_untold(comparison, seen)),
        comparison,
        comparison.subject.assumed,
        comparison.notes,
    )


def _findings(comparison: Comparison, window: EngineWindow | None, seen: Seen) -> list[str]:
    said = []
    if window is not None and window.kv_use is not None:
        said.append(f"{window.kv_use:.0%} of the KV cache are in use")
    if window is not None and window.waiting:
        said.append(f"{window.waiting:.1f} requests wait on average")
    if window is not None and window.prefix_hits:
        said.append(f"{window.prefix_hits:.0%} of the prompts' tokens were in the prefix cache")
    shares = {"a kernel ran": seen.busy, "tensor cores were active": seen.tensor_active, "the memory was in use": seen.dram_active}
    known = [f"{what} in {share:.0%}" for what, share in shares.items() if share is not None]
    return [*said, *([f"counters of {seen.source}: {', '.join(known)} of the time"] if known else [])]


def _untold(comparison: Comparison, seen: Seen) -> list[str]:
    """Return what a measurement of a service cannot say."""
    found, names = [], {time.name for time in comparison.times}
    if not names & {"ttft", "prefill"}:
        found.append("how long prompts take: there is no time to the first token, or no length of prompts")
    if not names & {"tpot", "itl", "step"}:
        found.append("how long tokens take: there is no time per token, or it is not known what a step held")
    if seen.busy is None:
        found.append("whether devices wait for the host: there are no counters (busy=, monitor=)")
    if comparison.record is None:
        found.append("what is to be expected beyond the floor: the model has no estimates")
    return found


def _table(source: Any, named: tuple[Any, Any], asked: Mapping[str, Any]) -> Diagnosis:
    """Diagnose a table of steps."""
    found = source if isinstance(source, StepComparison) else compare(source, *named, **asked)
    assert isinstance(found, StepComparison)  # by its kind
    phases = phases_of_table(found)
    said = [line.strip() for line in found.summary()[:1]]
    return Diagnosis(
        "steps",
        said[0],
        phases,
        of_phases(phases, Seen()),
        (),
        ("whether devices wait for the host: a table has no counters", "what the gap is made of: a time of a step is one number"),
        found,
        notes=found.notes,
    )


def _trace(source: Any, model: Any, hardware: Any, capture: Any, asked: Mapping[str, Any]) -> Diagnosis:
    """Diagnose a trace, or a profile."""
    if isinstance(source, Profile):
        return _profile(source, "profile", Seen(), ())
    reading = {name: asked[name] for name in ("context", "cached") if name in asked}
    rest = {name: value for name, value in asked.items() if name not in reading}
    if isinstance(source, TraceBesideEstimate):
        beside, trace = source, source.trace
    else:
        trace = source if isinstance(source, Trace) else read_trace(source, capture=capture, hardware=_machine(model, hardware), **reading)
        known = any(step.step is not None for step in trace.steps)
        if not known or model is None:
            return _without_floor(trace, model, known=known)
        stray = next((name for name in rest if name in ALL and name not in STEP and name not in _OF_TRACES), None)
        if stray is not None:
            raise InvalidValueError(f"{stray}= is of memory, which a trace has nothing of: leave it out.")
        beside = beside_estimate(trace, model, hardware, **rest)
    phases = phases_of_steps(beside)
    seen = _seen_in(trace)
    return Diagnosis(
        "trace",
        beside.summary()[0],
        phases,
        (*of_phases(phases, seen), *of_trace_modes(phases)),
        (_idle(trace),),
        ("how long requests wait: a trace shows what devices do",),
        beside,
        notes=tuple(dict.fromkeys((*trace.notes, *beside.notes))),
    )


def _seen_in(trace: Trace) -> Seen:
    return Seen(None if not trace.window_s else min(1 - trace.idle, 1.0), source="kernels of the trace")


def _idle(trace: Trace) -> str:
    return f"no kernel runs in {trace.idle:.0%} of {show_time(trace.window_s)}"


def _without_floor(trace: Trace, model: Any, *, known: bool) -> Diagnosis:
    """Diagnose a trace of which no step has a floor: by its operators where it has some, else by its kernels."""
    why = []
    if trace.steps and not known:
        why.append("the floor of its steps: the annotations do not say the lengths in the cache (context=, cached=)")
    elif trace.steps and model is None:
        why.append("the floor of its steps: a trace names no model (model=)")
    elif model is not None:
        why.append("the floor of the model: no engine has written into the trace what its steps held")
    if trace.profile is not None and not trace.steps:
        return _profile(trace.profile, "trace", _seen_in(trace), tuple(why), trace)
    phases = phases_of_trace(trace)
    shares = [f"{kind} {seconds / trace.kernels_s:.0%}" for kind, seconds in trace.by_class().items()] if trace.kernels_s else []
    kinds = (f"kernels by name: {', '.join(shares)}",) if shares else ()
    subject = trace.summary()[0]
    return Diagnosis("trace", subject, phases, (), (_idle(trace), *kinds) if trace.window_s else (), tuple(why), trace, notes=trace.notes)


def _profile(profile: Profile, kind: Kind, seen: Seen, why: tuple[str, ...], trace: Trace | None = None) -> Diagnosis:
    phases = phases_of_profile(profile)
    untold = list(why)
    if profile.hardware is None:
        untold.append("what binds operators: no machine is known (hardware=)")
    if profile.unknown_s:
        untold.append(f"FLOP and bytes of operators with {profile.unknown_s / (profile.time_s or 1):.0%} of the time")
    if phases and phases[0].name == "all operators":
        untold.append("prefill and decode apart: the run was not divided into phases")
    return Diagnosis(
        kind,
        profile.summary()[0],
        phases,
        (*of_phases(phases, seen), *of_trace_modes(phases)),
        () if trace is None or not trace.window_s else (_idle(trace),),
        tuple(untold),
        profile if trace is None else trace,
        notes=profile.notes if trace is None else tuple(dict.fromkeys((*trace.notes, *profile.notes))),
    )


def _machine(model: Any, hardware: Any) -> Any:
    return model.machine if hardware is None and isinstance(model, Deployment) else hardware


def _deployment(model: Any, hardware: Any, options: Mapping[str, Any]) -> Deployment | None:
    """Return what ran, for a source that does not name it; None where nobody says it."""
    if model is None:
        if options:
            raise InvalidValueError(f"{quoted(next(iter(options)))} is of a deployment, which needs model= and hardware=.")
        return None
    if isinstance(model, Deployment):
        return model
    return Deployment(model, hardware, **options)
