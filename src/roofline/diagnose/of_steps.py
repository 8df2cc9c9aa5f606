"""Diagnoses of a table of steps: decode and prefill of each deployment apart."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from roofline.diagnose.misdiagnoses import of_phases
from roofline.diagnose.of_comparison import roof_of
from roofline.diagnose.phase import Cause, Phase, impossible, is_slow, verdict
from roofline.diagnose.remedies import remedies
from roofline.diagnose.result import Diagnosis
from roofline.diagnose.seen import Seen
from roofline.floors import step_floor
from roofline.measured import StepComparison, compare_steps
from roofline.measured.times import unfit_note, used
from roofline.step import Step


def diagnose_table(source: Any, named: tuple[Any, Any], asked: Mapping[str, Any]) -> Diagnosis:
    """Diagnose a table of steps."""
    found = source if isinstance(source, StepComparison) else compare_steps(source, *named, **asked)
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


def phases_of_table(found: StepComparison) -> tuple[Phase, ...]:
    """Return a phase for the decode steps and one for the prefills of every deployment, each at its row that is furthest above what is expected."""
    phases = []
    for index, deployment in enumerate(found.deployments):
        for decode in (False, True):
            rows = np.flatnonzero((found.group == index) & (found.rows.decode == decode))
            if rows.size:
                named = (
                    f" of {deployment.model.name} on {deployment.devices} × {deployment.machine.name}" if len(found.deployments) > 1 else ""
                )
                phases.append(_phase(found, index, rows, decode=decode, named=named))
    return tuple(phases)


def _phase(found: StepComparison, index: int, rows: np.ndarray, *, decode: bool, named: str) -> Phase:
    ratio = np.where(np.isnan(found.estimate_s), found.over_floor, found.over_estimate)[rows]
    below = found.below_floor[rows]
    at = int(rows[np.argmin(found.over_floor[rows]) if below.any() else np.argmax(ratio)])
    held = {name: int(getattr(found.rows, name)[at]) for name in ("batch", "context", "prompt", "cached")}
    if decode:
        step, asked = (
            Step.decode(batch=held["batch"], context=held["context"]),
            {"step": "decode", "batch": held["batch"], "context": held["context"]},
        )
    else:
        step = Step.prefill(held["prompt"], batch=held["batch"], cached=held["cached"])
        asked = {"step": "prefill", "batch": held["batch"], "prompt": held["prompt"], "cached": held["cached"]}
    deployment = found.deployments[index]
    floor = step_floor(deployment, step=step)
    measured, floor_s = float(found.measured_s[at]), float(found.floor_s[at])
    estimate = None if np.isnan(found.estimate_s[at]) else float(found.estimate_s[at])
    causes: tuple[Cause, ...] = ()
    if is_slow(measured, estimate, floor_s):
        causes = (
            Cause("host", None, "a table of steps has no counters of devices"),
            Cause("labels", None, "formats, degrees and lengths are as the table and the call say"),
        )
    binds, why = verdict(str(floor.bound), measured, estimate, floor_s, causes)
    labels = found.labels.get(at, ())
    unfit = unfit_note(floor)
    if below.any():
        binds, why = impossible(measured / floor_s, labels)
    elif unfit:
        binds, why = "capacity", unfit[0]
    which = "furthest below its floor" if below.any() else "furthest above what is expected"
    place = f"row {found.rows.places[at] + 1}, of {rows.size} the one {which}" if rows.size > 1 else f"row {found.rows.places[at] + 1}"
    return Phase(
        f"{'decode' if decode else 'prefill'}{named}",
        f"{place}: batch {held['batch']}, {'context ' + str(held['context']) if decode else 'prompt ' + str(held['prompt'])}",
        measured,
        floor_s,
        estimate,
        **roof_of(floor),
        **used(floor, measured),
        binds=binds,
        why=why,
        causes=causes,
        remedies=() if below.any() or unfit else remedies(deployment, asked, measured, (), binds),
        labels=labels,
    )
