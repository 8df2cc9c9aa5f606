"""Diagnoses of a trace or a profile: by its steps where a model is known, else by its operators or kernels."""

from collections.abc import Mapping
from typing import Any

from roofline.deployment import Deployment
from roofline.deployment.options import ALL, STEP
from roofline.diagnose.misdiagnoses import of_phases, of_trace_modes
from roofline.diagnose.of_trace import phases_of_profile, phases_of_steps, phases_of_trace
from roofline.diagnose.result import Diagnosis
from roofline.diagnose.seen import Seen
from roofline.diagnose.sources import Kind
from roofline.errors import InvalidValueError
from roofline.profile import Profile, Trace, TraceBesideEstimate, beside_estimate, read_trace
from roofline.units import show_time

OF_TRACES = ("context", "cached", "calibration", "cuda_graph")
"""What a trace takes of the options of a comparison."""


def diagnose_trace(source: Any, model: Any, hardware: Any, capture: Any, asked: Mapping[str, Any]) -> Diagnosis:
    """Diagnose a trace, or a profile."""
    if isinstance(source, Profile):
        return _profile(source, "profile", Seen(), ())
    reading = {name: asked[name] for name in ("context", "cached") if name in asked}
    rest = {name: value for name, value in asked.items() if name not in reading}
    if isinstance(source, TraceBesideEstimate):
        beside, trace = source, source.trace
    else:
        trace = (
            source if isinstance(source, Trace) else read_trace(source, capture=capture, hardware=machine_of(model, hardware), **reading)
        )
        known = any(step.step is not None for step in trace.steps)
        if not known or model is None:
            return _without_floor(trace, model, known=known)
        stray = next((name for name in rest if name in ALL and name not in STEP and name not in OF_TRACES), None)
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


def machine_of(model: Any, hardware: Any) -> Any:
    """Return the machine that is named, or that of a deployment."""
    return model.machine if hardware is None and isinstance(model, Deployment) else hardware
