"""Phases of a service that was measured: prompts and tokens apart, from a comparison with estimate and floor."""

from dataclasses import replace
from typing import Any

from roofline.diagnose.causes import causes_of_prompts, causes_of_tokens, is_front_end, refuted
from roofline.diagnose.phase import Cause, Phase, impossible, is_slow, verdict
from roofline.diagnose.remedies import remedies
from roofline.diagnose.seen import Seen
from roofline.floors import Floor, step_floor
from roofline.measured import ComparedTime, Comparison, EngineWindow, Part
from roofline.measured.gaps import GROUPS, largest, of_a_token, remainder
from roofline.measured.times import unfit_note, used
from roofline.step import Step

_KERNELS = frozenset(GROUPS.values())


def phases_of(comparison: Comparison, seen: Seen, window: EngineWindow | None = None) -> tuple[Phase, ...]:
    """Return prefill and decode of a service, as far as it was measured; the whole request where nothing tells them apart."""
    known = {time.name: time for time in comparison.times}
    found = []
    first = known.get("ttft", known.get("prefill"))
    if first is not None:
        found.append(_prefill(comparison, first, seen))
    tokens = next((known[name] for name in ("tpot", "step", "itl") if name in known), None)
    if tokens is not None:
        found.append(_decode(comparison, tokens, seen, window))
    if not found:
        whole = known.get("e2e", known.get("run"))
        found += [] if whole is None else [_whole(whole)]
    return tuple(found)


def decode_step(comparison: Comparison) -> Step:
    """Return the decode step that was measured, with the drafts that it verifies."""
    point = comparison.point
    return Step.verify(point.drafts, batch=point.batch, context=point.context)


def _prefill(comparison: Comparison, row: ComparedTime, seen: Seen) -> Phase:
    point = comparison.point
    prompt = max(round(point.prompt or 1), 1)
    batch = point.batch or 1 if row.name == "prefill" else 1
    cached = min(round(point.cached), prompt - 1)
    step = Step.prefill(prompt, batch=batch, cached=cached)
    floor = step_floor(comparison.deployment, step=step)
    causes = causes_of_prompts(comparison, row, seen, step) if _slow(row) else ()
    asked = {"step": "prefill", "batch": batch, "prompt": prompt, "cached": cached}
    return _phase("prefill", comparison, row, floor, causes, asked, row.measured_s, seen)


def _decode(comparison: Comparison, row: ComparedTime, seen: Seen, window: EngineWindow | None) -> Phase:
    point, step = comparison.point, decode_step(comparison)
    floor = step_floor(comparison.deployment, step=step)
    causes = causes_of_tokens(comparison, row, seen, step) if _slow(row) else ()
    if window is not None and window.preemptions:
        full = f"{window.preemptions:,} sequences were put back because the cache was full"
        causes = (Cause("capacity", True, full if window.kv_use is None else f"{full}; {window.kv_use:.0%} of it are in use"), *causes)
    asked: dict[str, Any] = {"step": step} if point.drafts else {"step": "decode", "batch": point.batch, "context": point.context}
    tokens = float(floor.time_s) / row.floor_s
    return _phase("decode", comparison, row, floor, causes, asked, row.measured_s * tokens, seen)


def _slow(row: ComparedTime) -> bool:
    return is_slow(row.measured_s, row.estimate_s, row.floor_s)


def _phase(
    name: str,
    comparison: Comparison,
    row: ComparedTime,
    floor: Floor,
    causes: tuple[Cause, ...],
    asked: dict[str, Any],
    step_s: float,
    seen: Seen,
) -> Phase:
    """Return a phase; ``step_s`` is the measured time of the step that the floor is of."""
    parts = _named(row, causes, seen)
    binds, why = verdict(str(floor.bound), row.measured_s, row.estimate_s, row.floor_s, causes)
    unfit = unfit_note(floor)
    if row.below_floor:
        binds, why = impossible(row.over_floor, row.labels)
    elif unfit:
        binds, why = "capacity", unfit[0]
    known = [part for part in parts if part.how.startswith("measured")] if refuted(row) else parts
    in_step = of_a_token(known, row.measured_s / step_s)
    return Phase(
        name,
        f"{row.name}: {row.what}",
        row.measured_s,
        row.floor_s,
        row.estimate_s,
        row.served_s,
        **roof_of(floor),
        mbu=row.mbu,
        mfu=row.mfu,
        binds=binds,
        why=why,
        causes=causes,
        losses=tuple(largest(parts)),
        remedies=() if row.below_floor or unfit else remedies(comparison.deployment, asked, step_s, in_step, binds),
        labels=row.labels,
    )


def _named(row: ComparedTime, causes: tuple[Cause, ...], seen: Seen) -> list[Part]:
    """Return the parts of a gap, the front end apart from the host; where devices were seen to wait for the host, their idle time in place of estimates."""
    idle = any(cause.name == "host" and cause.found for cause in causes) and seen.busy is not None
    if not idle or any(part.name == "host" and not is_front_end(part) for part in row.parts):
        return [replace(part, name="front end") if is_front_end(part) else part for part in row.parts]
    waited = (1 - (seen.busy or 0.0)) * row.measured_s
    kernels = [part for part in row.parts if part.name in _KERNELS]
    return remainder(row.measured_s - row.floor_s, [*kernels, Part("host", waited, waited, waited, "measured: no kernel ran")])


def roof_of(floor: Floor) -> dict[str, Any]:
    """Return the fields of a phase that its floor tells: the roof, and the numbers behind it."""
    ridge = float(floor.ridge)
    known = ridge > 0 and float(floor.compute_s) > 0
    return {
        "roof": str(floor.bound),
        "intensity": float(floor.intensity) if known else None,
        "ridge": ridge if known else None,
        "best_mfu": used(floor, float(floor.time_s))["mfu"] if known else None,
    }


def _whole(row: ComparedTime) -> Phase:
    """Return a request, or a run, as one: nothing tells its phases apart, so nothing is said of a roof."""
    together = ("", "the input has one time for prompts and tokens together")
    binds, why = impossible(row.over_floor, row.labels) if row.below_floor else together
    return Phase(
        "request" if row.name == "e2e" else "run",
        f"{row.name}: {row.what}",
        row.measured_s,
        row.floor_s,
        row.estimate_s,
        row.served_s,
        binds=binds,
        why=why,
        labels=row.labels,
    )
