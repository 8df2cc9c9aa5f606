"""What forbids promises that no candidate keeps, and the smallest changes that would allow them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np

from roofline.deployment import Deployment
from roofline.errors import RooflineError
from roofline.hardware import Hardware
from roofline.planner.asked import Asked
from roofline.planner.candidates import describe
from roofline.planner.choice import Choice
from roofline.planner.demand import Demand
from roofline.planner.search import Aims, idle
from roofline.serving.closed_forms.operation import Loads
from roofline.serving.closed_forms.service import Service
from roofline.units import show_time

_DEGREES = (2, 4, 8)
_WEIGHTS = ("fp8", "int4")
_MACHINES = ("h200-sxm", "b200-sxm", "gb300")
_NAMES = {"ttft_s": "time to the first token", "tpot_s": "time per token", "itl_s": "gap between tokens", "e2e_s": "time to the last token"}


def forbidden_by(asked: Asked, tried: Sequence[Choice]) -> str:
    """Return what forbids promises, in one sentence."""
    times = {one: alone(asked, one) for one in asked.case.deployments}
    known = {one: found for one, found in times.items() if found}
    if not known:
        return f"no candidate serves a single request: {_why_nothing(asked)}"
    nearest = min(known, key=lambda one: _over(known[one], asked))
    over = _over(known[nearest], asked)
    if over <= 1 and tried and not tried[0].trial.reached:
        return f"{tried[0].candidate} cannot serve the workload: {tried[0].trial.reason.rstrip('.')}"
    if over <= 1:
        reasons = [f"{choice.candidate}: {choice.trial.reason}" for choice in tried[:1]]
        return "a single request keeps the promises, but not under this load: " + "; ".join(
            reasons or ["closed forms find no load that does"]
        )
    floors = alone(asked, nearest, basis="floor")
    promise = max(asked.slo.promises, key=lambda name: known[nearest].get(name, 0.0) / asked.slo.promises[name])
    wanted, here, floor = asked.slo.promises[promise], known[nearest][promise], floors.get(promise, 0.0)
    said = f"{_NAMES[promise]} of {show_time(wanted)}: that of a single request is {show_time(here)} at best ({describe(nearest)})"
    law = f"its floor of {show_time(floor)} forbids it" if floor > wanted else f"its floor of {show_time(floor)} does not forbid it"
    ways = _changes(asked, nearest)
    changed = (
        f"smallest changes that would allow it: {', '.join(ways)}, or"
        if ways
        else "no more devices, narrower weights or newer machine allow it, only"
    )
    return f"{said}, and {law}; {changed} a promise of {show_time(here)}"


def alone(asked: Asked, deployment: Deployment, **timing: Any) -> Mapping[str, float]:
    """Return the times that the promised share of requests does not exceed where hardly any come; none where nothing can be served."""
    case, of_estimates = asked.case, ("calibration", "quantile", "fit", "graph_tokens")
    if timing:
        kept = {name: value for name, value in case.limits.items() if name not in of_estimates}
        case = replace(case, timing={**case.timing, **dict.fromkeys(of_estimates), **timing}, limits=kept)
    try:
        service = Service.of(deployment, {"engine": case.engine, **case.limits, **case.timing})
        aims = Aims.of("all", Demand.of(asked.workload), asked.slo, asked.longest)
        lengths = case.lengths(aims.demand, 1)
        loads = Loads(service, lengths)
        if not loads.fits.all():
            return {}
        found = idle(loads).percentiles(asked.slo.percentile)._asdict()
        found["ttft_s"] = idle(Loads(service, aims.long(lengths))).percentiles(asked.slo.percentile).ttft_s
    except RooflineError:
        return {}
    return {name: float(found[name][0]) for name in asked.slo.promises}


def _over(times: Mapping[str, float], asked: Asked) -> float:
    """Return by what factor the promise is missed that is missed most."""
    return float(np.nanmax([times[name] / seconds for name, seconds in asked.slo.promises.items()]))


def _changes(asked: Asked, nearest: Deployment) -> list[str]:
    """Return changes of a deployment that would allow the promises: of each kind the smallest; of several kinds together where no single one does."""
    kinds: list[list[tuple[str, dict[str, Any]]]] = [
        [(f"tensor_parallel={n}", {"tensor_parallel": n}) for n in _DEGREES if n > nearest.parallel.tensor],
        [(f"weights={name}", {"weights": name}) for name in _WEIGHTS],
        [(Hardware.load(name).id, {"hardware": name}) for name in _MACHINES if name != nearest.machine.id],
    ]
    for size in range(1, len(kinds) + 1):
        found = [words for some in combinations(kinds, size) if (words := _smallest(asked, nearest, some))]
        if found:
            return found
    return []


def _smallest(asked: Asked, nearest: Deployment, kinds: Sequence[list[tuple[str, dict[str, Any]]]]) -> str:
    """Return the first combination of changes that allows the promises, "" if none does."""
    for changes in product(*kinds):
        try:
            times = alone(asked, nearest.but(**{name: value for _, change in changes for name, value in change.items()}))
        except RooflineError:
            continue
        if times and _over(times, asked) <= 1:
            return " with ".join(words for words, _ in changes)
    return ""


def _why_nothing(asked: Asked) -> str:
    for deployment in asked.case.deployments:
        try:
            service = Service.of(deployment, {"engine": asked.case.engine, **asked.case.limits, **asked.case.timing})
            loads = Loads(service, asked.case.lengths(Demand.of(asked.workload), 1))
        except RooflineError as error:
            return str(error).rstrip(".")
        if not loads.fits.all():
            return service.never(f" of {describe(deployment)}")
    return "closed forms find none"
