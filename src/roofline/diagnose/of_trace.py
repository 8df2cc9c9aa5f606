"""Phases of a trace or of a profile: steps of one kind together, operators of one phase together, never the whole averaged."""

from collections import defaultdict
from typing import Any

from roofline.diagnose.causes import IDLE_BELOW
from roofline.diagnose.of_comparison import roof_of
from roofline.diagnose.phase import Cause, Phase, impossible, is_slow, verdict
from roofline.diagnose.remedies import remedies
from roofline.floors import Floor, step_floor
from roofline.measured import Part
from roofline.measured.gaps import largest
from roofline.measured.times import is_below, unfit_note, used
from roofline.profile import Profile, Trace, TraceBesideEstimate
from roofline.profile.traces.kernels_by_name import FAMILIES
from roofline.units import show_time

_NAMES = {"matrices": "matrices", "experts": "experts", "attention": "cache", "state": "cache", "collective": "collectives"}
"""Kinds of kernels, by the names that losses have; all others are small kernels."""
_NO_WAIT = 0.02  # share of a step


def phases_of_steps(beside: TraceBesideEstimate) -> tuple[Phase, ...]:
    """Return a phase for each kind of step of a trace; times are means of a step."""
    return tuple(_of_mode(beside, mode) for mode in dict.fromkeys(row.step.mode for row in beside.rows))


def _of_mode(beside: TraceBesideEstimate, mode: str) -> Phase:
    rows = [row for row in beside.rows if row.step.mode == mode]
    count = len(rows)
    measured, floor_s = (sum(getattr(row, name) for row in rows) / count for name in ("measured_s", "floor_s"))
    estimates = [row.estimate_s for row in rows if row.estimate_s is not None]
    estimate = sum(estimates) / count if estimates else None
    longest = max(rows, key=lambda row: row.floor_s).step.step
    floor = step_floor(beside.deployment, step=longest)
    idle, between = (
        sum(row.step.measured_s - row.step.busy_s for row in rows) / count,
        sum(row.step.before_s or 0.0 for row in rows) / count,
    )
    parts = _parts(rows, floor, idle, floor_s)
    causes = _causes(beside, measured, idle, parts) if is_slow(measured, estimate, floor_s) else ()
    binds, why = verdict(str(floor.bound), measured, estimate, floor_s, causes)
    below, unfit = is_below(measured, floor_s), unfit_note(floor)
    if below:
        binds, why = impossible(measured / floor_s, beside.labels)
    elif unfit:
        binds, why = "capacity", unfit[0]
    if between > measured * _NO_WAIT:
        why = f"{why}; the device also waited {show_time(between)} before each step"
    return Phase(
        mode,
        f"mean of {count} step{'s' * (count > 1)}, from first kernel to last",
        measured,
        floor_s,
        estimate,
        **roof_of(floor),
        **used(floor, measured),
        binds=binds,
        why=why,
        causes=causes,
        losses=tuple(largest(parts)),
        remedies=() if below or unfit else remedies(beside.deployment, {"step": longest}, measured, parts, binds),
        labels=beside.labels if below else (),
    )


def _parts(rows: Any, floor: Floor, idle: float, floor_s: float) -> list[Part]:
    """Return by how much the kernels of each kind exceed the same operators at their roofs, and the time in which none runs."""
    took: dict[str, float] = defaultdict(float)
    for row in rows:
        for kind, seconds in row.step.by_class.items():
            took[_NAMES.get(kind, "small kernels")] += seconds / len(rows)
    owed: dict[str, float] = defaultdict(float)
    for op in floor.by_op():
        owed[_NAMES.get(FAMILIES.get(op.op.family, ""), "small kernels")] += float(op.time_s)
    scale = floor_s / float(floor.time_s)  # steps of one kind differ in their lengths
    parts = [
        Part(group, beyond, beyond, beyond, f"measured: {show_time(seconds)} of kernels, {show_time(owed[group] * scale)} at their roofs")
        for group, seconds in took.items()
        if (beyond := seconds - owed[group] * scale)
    ]
    return [*parts, Part("host", idle, idle, idle, "measured: no kernel runs within the step")]


def _causes(beside: TraceBesideEstimate, measured: float, idle: float, parts: list[Part]) -> tuple[Cause, ...]:
    """Return what makes a step of a trace slow: requests do not wait in one, so the host, kernels, and labels are left."""
    share = 1 - idle / measured
    host = Cause("host", share < IDLE_BELOW, f"kernels run in {share:.0%} of the step")
    kernels = [part for part in largest(parts, 1) if part.name != "host" and part.expected_s > measured / 4]
    slow = [
        Cause(part.name, True, f"{show_time(part.expected_s)} of {show_time(measured)} beyond the roof: {part.how}") for part in kernels
    ]
    said = ", ".join(f"{name}={value}" for name, value in beside.deployment.options.items())
    return (host, *slow, Cause("labels", None, f"formats and degrees are as given ({said or 'one device, as the checkpoint stores it'})"))


def phases_of_trace(trace: Trace) -> tuple[Phase, ...]:
    """Return a phase for each kind of step where no model is known: measured times, and no floor."""
    found = []
    for mode in dict.fromkeys(step.mode for step in trace.steps):
        steps = [step for step in trace.steps if step.mode == mode]
        measured, busy = (sum(getattr(step, name) for step in steps) / len(steps) for name in ("measured_s", "busy_s"))
        took: dict[str, float] = defaultdict(float)
        for step in steps:
            for kind, seconds in step.by_class.items():
                took[_NAMES.get(kind, "small kernels")] += seconds / len(steps)
        parts = [Part(kind, seconds, 0.0, seconds, "measured: all kernels of this kind") for kind, seconds in took.items()]
        parts.append(Part("host", measured - busy, measured - busy, measured - busy, "measured: no kernel runs within the step"))
        binds, why = (
            ("host", f"kernels run in {busy / measured:.0%} of it")
            if busy < IDLE_BELOW * measured
            else verdict("", measured, None, None, ())
        )
        what = f"mean of {len(steps)} step{'s' * (len(steps) > 1)}, from first kernel to last"
        found.append(Phase(mode, what, measured, binds=binds, why=why, losses=tuple(largest(parts))))
    return tuple(found)


def phases_of_profile(profile: Profile) -> tuple[Phase, ...]:
    """Return the phases of a profile: operators beside their own roofs."""
    return tuple(_of_operators(profile.of_phase(name) if len(profile.phases) > 1 else profile, name) for name in profile.phases)


def _of_operators(profile: Profile, name: str | None) -> Phase:
    total, rows = profile.total, profile.by_operator()
    parts = [
        Part(
            row.name,
            row.time_s - (row.roof_s or 0.0),
            0.0,
            row.time_s,
            "measured beyond its roof"
            if row.roof_s
            else f"measured, all of it: its {'roof is' if row.known else 'FLOP and bytes are'} not known",
        )
        for row in rows
    ]
    idle = max(profile.wall_s - profile.time_s, 0.0)
    parts.append(Part("host", idle, idle, idle, "measured: no operator runs"))
    roofs: dict[str, float] = defaultdict(float)
    for row in profile.rows:
        if row.bound and row.roof_s:
            roofs[row.bound] += row.roof_s
    roof = max(roofs, key=lambda bound: roofs[bound]) if roofs else ""
    covered = min(profile.covered, 1.0)
    if covered < IDLE_BELOW:
        binds, why = "host", f"operators run in {covered:.0%} of the time, and nothing that was profiled in the rest"
    elif roof:
        binds, why = roof, f"operators under this roof have {roofs[roof] / sum(roofs.values()):.0%} of the least time of all"
    else:
        binds, why = "", "without a machine operators have no roofs (hardware=)"
    ridge = total.memory_s and total.compute_s and total.intensity and total.intensity * total.memory_s / total.compute_s
    return Phase(
        name or "all operators",
        f"{total.calls:,} calls of {len(rows)} operators, from start to end",
        profile.wall_s,
        profile.roof_s if profile.roof_s else None,
        roof=roof,
        intensity=total.intensity if ridge else None,
        ridge=ridge or None,
        binds=binds,
        why=why,
        losses=tuple(largest(parts)),
    )
