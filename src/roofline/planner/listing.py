"""A plan in rows and words: every candidate with its reason, as CSV, and the short text."""

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from roofline.planner.asked import Asked
from roofline.planner.choice import Choice, cost_of
from roofline.requests import SLO
from roofline.results import show_notes
from roofline.units import show_time

if TYPE_CHECKING:
    from roofline.planner.result import Plan

_SHOWN = 3  # of the next cheapest, in the short text


def rows_of(plan: "Plan") -> list[dict[str, Any]]:
    """Return a row for every candidate: those simulated, all others, and what cannot be."""
    asked, best = plan.asked, plan.choices[0] if plan.choices and plan.choices[0].trial.kept else None
    rows = [_simulated(asked, choice, best) for choice in plan.choices]
    tried = {choice.name for choice in plan.choices}
    rows += [_not_simulated(plan, at, best) for at in range(len(plan.candidates)) if plan.candidates.candidate(at).name not in tried]
    rows += [{"name": one.name, "status": "impossible", "reason": one.reason} for one in asked.excluded]
    return [{**row, "cost_unit": plan.cost_unit} if row.get("cost") is not None else row for row in rows]


def _simulated(asked: Asked, choice: Choice, best: Choice | None) -> dict[str, Any]:
    if choice is best:
        status, reason = "cheapest", "it is the cheapest plan"
    elif choice.trial.kept and best is not None:
        status, reason = "kept", f"it keeps the promises with {_priced(asked, choice.cost)} against {best.cost:.4g}"
    else:
        status, reason = "not kept", f"with {choice.candidate.replicas} replicas {choice.trial.reason or 'promises are not kept'}"
    return {**choice.values(), "status": status, "reason": reason}


def _not_simulated(plan: "Plan", at: int, best: Choice | None) -> dict[str, Any]:
    table, candidate = plan.candidates, plan.candidates.candidate(at)
    cost, devices = float(table.cost[at]), float(table.devices[at])
    known = np.isfinite(cost)
    if not known:
        reason = table.reason(at)
    elif best is not None and best.candidate.deployment == candidate.deployment and best.candidate.prefill == candidate.prefill:
        reason = f"not simulated: closed forms find no less than {_priced(plan.asked, cost)} with these limits"
    else:
        reason = f"not simulated: closed forms find {_priced(plan.asked, cost)}" + ("" if best is None else f" against {best.cost:.4g}")
    return {
        "name": candidate.name,
        "status": "not simulated" if known else "not kept",
        "replicas": candidate.replicas if known else None,
        "prefill_replicas": candidate.prefill_replicas if known else None,
        "devices": int(devices) if known else None,
        "cost": cost if known else None,
        "tpot_s": float(table.tpot_s[at]),
        "binds": table.binds(at),
        "reason": reason,
    }


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows by column, None where a row has nothing."""
    names = list(dict.fromkeys(["name", "status", "reason", *(name for row in rows for name in row)]))
    return {name: [row.get(name) for row in rows] for name in names}


def csv_of(columns: Mapping[str, Sequence[Any]]) -> str:
    """Return columns as the text of a CSV file."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def summary_of(plan: "Plan") -> list[str]:
    """Return the short text: the cheapest plan, what binds in it, the next ones, how many candidates there were."""
    demand, asked = plan.candidates.demand, plan.asked
    what = f"{demand.load:.4g} {demand.unit} of {demand.prompt:.4g} + {demand.output:.4g} tokens, {_promised(asked.slo)}"
    all_of = len(plan.candidates)
    counted = f"{all_of:,} candidate{'s' * (all_of != 1)}, {len(plan.choices)} simulated, {len(asked.excluded)} impossible"
    if not plan.kept:
        return [f"no plan for {what}: {plan.forbidden}", f"  {counted}", *show_notes(plan.notes)]
    kept = f" with {asked.spare} spare" if asked.spare else ""
    if not plan.choices:
        found = plan.estimated()
        cost = _priced(asked, cost_of(found, asked.prices))
        return [f"plan for {what}: {found}{kept}, {cost} (closed forms)", f"  {counted}", *show_notes(plan.notes)]
    best = plan.cheapest
    lines = [f"plan for {what}: {best.candidate}{kept}, {_priced(asked, best.cost)}"]
    reached = ", ".join(f"{name} {show_time(value)}" for name, value in best.reached.items())
    lines.append(f"  reached at {asked.slo.percentile:.4g}: {reached}; {best.trial.share:.2%} of the requests keep all promises")
    user = f", {best.tokens_per_s_per_user:.4g} per user" if best.trial.tpot_s > 0 else ""
    lines.append(f"  throughput: {best.tokens_per_s_per_device:.4g} tokens/s per device{user}")
    lines.append(f"  binds: {plan.binds}")
    lines += [f"  next: {other.candidate}, {_priced(asked, other.cost)}" for other in plan.alternatives[:_SHOWN]]
    return [*lines, f"  {counted}", *show_notes(plan.notes)]


def _priced(asked: Asked, cost: float) -> str:
    return f"{cost:.4g} device{'s' * (cost != 1)}" if asked.prices is None else f"a cost of {cost:.4g} per hour"


def _promised(slo: SLO) -> str:
    return ", ".join(f"{name} ≤ {show_time(value)}" for name, value in slo.promises.items()) + f" for {slo.percentile:.4g}"
