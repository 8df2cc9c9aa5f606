"""What would change a plan: other promises, loads, lengths, times of steps, limits, and what others bring."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from roofline.errors import InvalidValueError, RooflineError, quoted
from roofline.estimate.constants import generic_mark
from roofline.names import unknown_name
from roofline.planner.asked import Asked
from roofline.planner.candidates import Candidate
from roofline.planner.choice import cost_of, with_spare
from roofline.planner.demand import lengthened, raised
from roofline.planner.fewest import Task
from roofline.planner.trials import Traffic, Trial, at_load, fleet_of, operating, simulated, tried
from roofline.requests import Workload
from roofline.serving import Fleet, max_rate
from roofline.units import check_rate, whole_number

if TYPE_CHECKING:
    from roofline.planner.result import Plan

NAMES = {
    "ttft_s": "time to the first token",
    "tpot_s": "time per token",
    "itl_s": "gap between tokens",
    "e2e_s": "time to the last token",
    "load": "load",
}
_LACKS = {"tokens": "tokens of a step", "sequences": "sequences", "blocks": "blocks of the cache"}
_HALVINGS = 5  # of the load of one replica, to a few per cent
_MOST = 8  # times the replicas of the plan


class Price(NamedTuple):
    """What a promise costs.

    Parameters
    ----------
    promise : str
        Which, and with what share of requests [-].
    relaxed_s, promised_s, tightened_s : float
        The promise, and what it is changed to [s].
    relaxed, promised, tightened : float
        Cost of the cheapest plan; infinite where there is none [currency].
    """

    promise: str
    relaxed_s: float
    promised_s: float
    tightened_s: float
    relaxed: float
    promised: float
    tightened: float


class Bar(NamedTuple):
    """What a plan costs if something is less or more than assumed.

    Parameters
    ----------
    what : str
        What changes [-].
    less, more : float
        Cost with less and with more of it; infinite where promises are not kept at all [currency].
    less_replicas, more_replicas : int
        Replicas, spare ones not included; 0 where promises are not kept at all [-].
    """

    what: str
    less: float
    more: float
    less_replicas: int
    more_replicas: int


class Point(NamedTuple):
    """A plan at one value of something.

    Parameters
    ----------
    value : float or None
        The value; None for the engine's default [-].
    name : str
        The candidate; empty where promises are not kept [-].
    replicas, devices : int
        What it takes, spare ones included [-].
    cost : float
        What it costs for an hour, or its devices without prices [currency].
    reason : str
        Why promises are not kept; empty where they are [-].
    """

    value: float | None
    name: str
    replicas: int
    devices: int
    cost: float
    reason: str


class Gain(NamedTuple):
    """What a change would bring, by closed forms.

    Parameters
    ----------
    lever : str
        The change [-].
    load : float
        Largest load of a replica with it: requests a second, or 0 where the promises are not kept [-].
    gain : float
        That load over the one without [-].
    reason : str
        Why it cannot be, if it cannot [-].
    """

    lever: str
    load: float
    gain: float
    reason: str


class Thresholds(NamedTuple):
    """When a replica has as much as it can have under the promises, by simulation.

    Parameters
    ----------
    planned_rate, most_rate : float
        Requests a second of a replica in the plan, and the most that keep the promises [request/s].
    rate_share : float
        The former over the latter: the signal to scale on [-].
    running, waiting : float
        Requests of a replica that run and wait at the most [-].
    cache_share : float
        Share of the cache that is held there by closed forms, which says little where something else binds [-].
    binds : str
        What breaks first [-].
    """

    planned_rate: float
    most_rate: float
    rate_share: float
    running: float
    waiting: float
    cache_share: float
    binds: str


def traffic_of(asked: Asked, workload: Workload | None = None, **changes: Any) -> Traffic:
    """Return what candidates are tried with, with other requests, promises or times."""
    if workload is not None:
        changes["workload"] = workload
    return replace(asked.traffic(), **changes)


def what_binds(plan: "Plan") -> str:
    """Return what keeps the cheapest plan from being cheaper."""
    best = plan.cheapest
    trial, candidate = best.trial, best.candidate
    nearest = trial.worst(plan.asked.slo)
    if trial.breaks:
        broken = " and ".join(NAMES[name] for name in trial.breaks.split(", "))
        said = f"{broken}, which one replica less does not keep"
    else:
        said = f"the least replica that there is; nearest to its promise is the {NAMES[nearest]}, at {trial.reached[nearest] / plan.asked.slo.promises[nearest]:.0%}"
    waits = f"; requests that wait lack {_LACKS[trial.held_up]} most often" if trial.held_up else ""
    return f"{said}{waits}; decode steps are bound by {at_load(candidate, plan.asked.traffic()).binds}"


def notes_of(plan: "Plan") -> tuple[str, ...]:
    """Return what the times and limits of the cheapest candidate rest on."""
    found = at_load(plan.cheapest.candidate, plan.asked.traffic())
    record, machine = found.service.server.time.calibration, found.service.deployment.machine
    if record is None or not generic_mark(record):
        return found.notes
    return (
        f"steps on {machine.id} are timed with constants of no machine in particular; expect the whole interval of an estimate",
        *found.notes,
    )


def promises(plan: "Plan", step: float) -> tuple[Price, ...]:
    """Return what each promise costs."""
    slo, share = plan.asked.slo, check_rate("step", step, "-", least=0.001, most=0.999)
    rows = []
    for name, seconds in slo.promises.items():
        eased, harder = seconds / (1 - share), seconds * (1 - share)
        costs = [_cost(plan.again(replace(plan.asked, slo=replace(slo, **{name: changed})))) for changed in (eased, harder)]
        rows.append(Price(f"{name} for {slo.percentile:g}", eased, seconds, harder, costs[0], _cost(plan), costs[1]))
    return tuple(rows)


def _cost(plan: "Plan") -> float:
    return plan.cheapest.cost if plan.kept else float("inf")


def sensitivity(plan: "Plan", step: float, interval: float) -> tuple[Bar, ...]:
    """Return what the cheapest candidate costs if something is other than assumed."""
    asked, best = plan.asked, plan.cheapest.trial.candidate
    share = check_rate("step", step, "-", least=0.001, most=0.999)
    inside = check_rate("interval", interval, "-", least=0.001, most=0.999)
    changes: dict[str, list[Traffic]] = {}
    if asked.workload.after is None:
        changes[f"load ±{share:.0%}"] = [traffic_of(asked, raised(asked.workload, factor)) for factor in (1 - share, 1 + share)]
    for name, words in (("prompt", "prompts"), ("output", "answers")):
        changes[f"{words} ±{share:.0%}"] = [
            traffic_of(asked, lengthened(asked.workload, **{name: factor})) for factor in (1 - share, 1 + share)
        ]
    if asked.case.timing["basis"] == "estimate" and asked.case.timing["quantile"] is None:
        levels = (0.5 - inside / 2, 0.5 + inside / 2)
        changes[f"times of steps, {inside:.0%} interval"] = [
            traffic_of(asked, timing={**asked.case.timing, "quantile": level}) for level in levels
        ]
    tasks = [Task(best, traffic, _MOST * best.replicas) for pair in changes.values() for traffic in pair]
    trials = asked.run(tasks)
    bars = []
    for what, less, more in zip(changes, trials[::2], trials[1::2], strict=True):
        costs = [cost_of(with_spare(trial.candidate, asked.spare), asked.prices) if trial.kept else float("inf") for trial in (less, more)]
        counts = [trial.candidate.replicas if trial.kept else 0 for trial in (less, more)]
        bars.append(Bar(what, costs[0], costs[1], counts[0], counts[1]))
    return tuple(sorted(bars, key=lambda bar: -abs(bar.more - bar.less)))


def sweep(plan: "Plan", what: str, values: Sequence[int | None]) -> tuple[Point, ...]:
    """Return what the cheapest deployment costs at several limits."""
    if what not in ("sequences", "step_tokens"):
        raise unknown_name("limit", str(what), ("sequences", "step_tokens"))
    best = plan.cheapest.trial.candidate
    limits = [None if value is None else whole_number(what, value, minimum=1) for value in values]
    changes: list[dict[str, Any]] = [{what: limit} for limit in limits]
    traffic = plan.asked.traffic()
    tasks = [Task(replace(best, **change), traffic, _MOST * best.replicas) for change in changes]
    return tuple(_point(limit, trial, plan.asked) for limit, trial in zip(limits, plan.asked.run(tasks), strict=True))


def _point(value: float | None, trial: Trial, asked: Asked) -> Point:
    candidate = with_spare(trial.candidate, asked.spare)
    if not trial.kept:
        return Point(value, "", 0, 0, float("inf"), trial.reason)
    return Point(value, candidate.name, candidate.replicas, candidate.devices, cost_of(candidate, asked.prices), "")


def growth(plan: "Plan", factors: Sequence[float]) -> tuple[Point, ...]:
    """Return the cheapest plans if the load grows."""
    points = []
    for factor in factors:
        known = check_rate("factors", factor, "-", least=1e-3, most=1e6)
        grown = plan if known == 1 else plan.again(replace(plan.asked, workload=raised(plan.asked.workload, known)))
        if grown.kept:
            points.append(_point(known, grown.cheapest.trial, plan.asked))
        else:
            points.append(Point(known, "", 0, 0, float("inf"), grown.forbidden))
    return tuple(points)


def levers(plan: "Plan", drafts: int, acceptance: float, hit: float) -> tuple[Gain, ...]:
    """Return what changes would bring at the promises of a plan."""
    best, asked = plan.cheapest.trial.candidate, plan.asked
    if plan.candidates.demand.closed or best.prefill is not None:
        raise InvalidValueError("levers are of one pool and of requests that arrive, not of clients or two pools.")
    drafts = whole_number("drafts", drafts, minimum=1)
    acceptance = check_rate("acceptance", acceptance, "-", least=0, most=1)
    hit = check_rate("hit", hit, "-", least=0, most=0.999)
    service = {**operating(best, asked.traffic(), plan.candidates.demand), "slo": asked.slo}
    changes: dict[str, Callable[[], tuple[Any, Mapping[str, Any]]]] = {
        f"{drafts} drafts, accepted with {acceptance:g}": lambda: (best.deployment, {"drafts": drafts, "acceptance": acceptance}),
        f"prefix cache that finds {hit:.0%}": lambda: (best.deployment, {"cached": service["prompt"] * hit}),
        "weights fp8": lambda: (best.deployment.but(weights="fp8"), {}),
        "KV cache fp8": lambda: (best.deployment.but(kv="fp8"), {}),
        "twice the tokens of a step": lambda: (
            best.deployment,
            {"step_tokens": 2 * fleet_of(best, asked.traffic()).decode[0].rules.step_tokens},
        ),
        "half the tokens of a step": lambda: (
            best.deployment,
            {"step_tokens": fleet_of(best, asked.traffic()).decode[0].rules.step_tokens // 2},
        ),
    }
    before = float(max_rate(best.deployment, **service).rate)
    gains = []
    for lever, change in changes.items():
        try:
            deployment, changed = change()
            if deployment == best.deployment and not changed:
                gains.append(Gain(lever, before, 1.0, "it is so already"))
                continue
            load = float(max_rate(deployment, **{**service, **changed}).rate)
            gains.append(Gain(lever, load, load / before if before else float("nan"), ""))
        except RooflineError as error:
            gains.append(Gain(lever, 0.0, 0.0, str(error)))
    return tuple(sorted(gains, key=lambda one: -one.gain))


def replica_rate(plan: "Plan") -> float:
    """Return the largest rate at which one replica of the cheapest candidate keeps the promises, by simulation: at least that of the plan."""
    one, workload = replace(plan.cheapest.trial.candidate, replicas=1), plan.asked.workload
    low = plan.candidates.demand.load / plan.cheapest.trial.candidate.replicas

    def kept(rate: float) -> bool:
        return tried(one, traffic_of(plan.asked, workload.scaled(rate=rate))).kept

    high = 2 * low
    while kept(high):
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low


def thresholds(plan: "Plan") -> Thresholds:
    """Return at what load of a replica the promises break."""
    best = plan.cheapest.trial.candidate
    if plan.candidates.demand.closed or best.prefill is not None:
        raise InvalidValueError("thresholds are of one pool and of requests that arrive, not of clients or two pools.")
    edge = replica_rate(plan)
    one = replace(best, replicas=1)
    traffic = traffic_of(plan.asked, plan.asked.workload.scaled(rate=edge))
    times = simulated(one, traffic).steady[0]
    estimate = at_load(one, traffic)
    planned, each = plan.candidates.demand.load / best.replicas, times.requests_per_s
    running, waiting = (each * float(span.mean()) for span in (times.finish_s - times.start_s, times.queue_s))
    return Thresholds(
        planned, edge, planned / edge, running, waiting, float(estimate.cache_share), tried(one, traffic).worst(plan.asked.slo)
    )


def mixed(plan: "Plan", other: Candidate, owned: int, router: str) -> Candidate | None:
    """Return how many replicas of the cheapest candidate it takes beside those that one has."""
    best, have = plan.cheapest.trial.candidate, whole_number("owned", owned, minimum=1)
    if not isinstance(other, Candidate):
        raise InvalidValueError(f"other is {quoted(other)}; Candidate(Deployment(…)) says what one has.")
    if best.prefill is not None or other.prefill is not None:
        raise InvalidValueError("mixed pools are of replicas that serve whole requests.")
    traffic = replace(plan.asked.traffic(), router=router)
    beside = fleet_of(replace(other, replicas=have), traffic)

    def keeps(count: int) -> bool:
        own = fleet_of(replace(best, replicas=count), traffic).decode if count else ()
        fleet = Fleet((*beside.decode, *own), router, host_s=beside.host_s)
        times = fleet.serve(traffic.workload, traffic.seed, token_times="itl_s" in traffic.slo.promises).times
        return traffic.slo.met(times)

    low, high = -1, best.replicas
    if not keeps(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return replace(best, replicas=high)
