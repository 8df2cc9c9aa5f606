"""`plan`: which machines, how many, and how they are used, for a workload and promises."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from roofline.deployment import Deployment
from roofline.deployment.options import ALL
from roofline.deployment.spelling import checks_keywords, options_meant, refused_option
from roofline.engines import Engine, load_engine
from roofline.errors import InvalidValueError, UnknownOptionError, UnsupportedModelError, quoted
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.names import unknown_name
from roofline.planner.asked import Asked
from roofline.planner.candidates import DEGREES, Candidate, choices, degrees_of, deployments_of, machines_of, usual_degrees
from roofline.planner.choice import Choice, cost_of, not_dominated, with_spare
from roofline.planner.demand import Demand, busiest, check_workload, raised
from roofline.planner.fewest import Task, grown
from roofline.planner.result import Plan
from roofline.planner.search import Case, Table, capacities
from roofline.planner.trials import Trial, tried
from roofline.records import CalibrationRecord
from roofline.requests import SLO, Workload
from roofline.serving.inputs import question_of
from roofline.serving.rules import Reserve
from roofline.serving.rules.of_engine import checked_interval, checked_option, notes_on_limits
from roofline.serving.rules.rules import one_of
from roofline.serving.simulation.routing import Choose, check_router
from roofline.serving.simulation.runs import checked_link
from roofline.serving.steps.service_fit import ServiceFit
from roofline.serving.steps.timing import timing_of
from roofline.tasks import check_executor
from roofline.units import check_rate, whole_number

_POOLS = ("one", "two")
_DEAREST = 10.0  # times the cheapest, beyond which no speed is worth it
_MOST_REPLICAS = 8  # times those of closed forms, beyond which more do not help


@checks_keywords
def plan(
    model: Any,
    workload: Workload,
    slo: SLO | Mapping[str, float],
    *,
    machines: Any,
    degrees: Any = None,
    formats: Any = None,
    step_tokens: int | Sequence[int | None] | None = None,
    sequences: int | Sequence[int | None] | None = None,
    pools: Literal["one", "two"] | Sequence[str] = "one",
    engine: str | Engine = "vllm",
    prefix_caching: bool | None = None,
    kv_blocks: int | None = None,
    admission: Reserve | None = None,
    max_model_len: int | None = None,
    receive_interval: int | None = None,
    graph_tokens: int | None = None,
    rank_wait_steps: int | None = None,
    link_bandwidth: float | str | None = None,
    router: str | Choose = "round robin",
    prices: float | Mapping[str, float] | None = None,
    head_room: float = 0.0,
    spare: int = 0,
    basis: Literal["estimate", "roofline", "floor"] = "estimate",
    calibration: CalibrationRecord | str | Path | None = None,
    quantile: float | None = None,
    fit: ServiceFit | None = None,
    simulated: int = 24,
    within: float = 0.25,
    requests: int = 20_000,
    seed: int = 0,
    executor: Executor | None = None,
    **options: Any,
) -> Plan:
    """Return which machines serve a workload and keep promises, how many of them, and how they are used.

    First closed forms (:func:`roofline.max_rate`) say of every candidate how many replicas it takes. Then the promising ones are simulated
    (:func:`roofline.serving.simulate`), with fewer or more replicas until the promises are kept and with one replica less they are not.
    What closed forms find ten times as dear as the cheapest is not promising, however fast it is.

    Parameters
    ----------
    model : str, Path, mapping or Model
        What :meth:`Model.load` takes [-].
    workload : Workload
        The requests. Where too few come to tell whether a service keeps up, closed forms have to find the promises kept too [-].
    slo : SLO or mapping
        What is promised, and for which share of requests [-].
    machines : str, Path, Hardware or sequence of these
        The machines to choose from [-].
    degrees : int, mapping or sequence of these, optional
        How a replica may be split: options of a deployment such as ``{"tensor_parallel": 8}``, or tensor-parallel degrees; if not given, 1, 2, 4 and
        8 devices, of mixtures of experts also with whole experts on each [-].
    formats : str, mapping or sequence of these, optional
        Number formats to choose from: options such as ``{"weights": "fp8", "kv": "fp8"}``, or formats of the weights; the model's own if not given [-].
    step_tokens, sequences : int or sequence of int, optional
        Most tokens of a step, and most sequences that run at a time, to choose from; the engine's default where None [token], [-].
    pools : {"one", "two"} or both, optional
        Whether prompts are computed by the replicas that decode, or by a pool of their own: of the same machine, with any degrees and numbers of replicas [-].
    engine : str or Engine, optional
        Whose rules are followed [-].
    prefix_caching : bool, optional
        Whether prefixes are found again; what the engine does if not given [-].
    kv_blocks : int, optional
        Blocks of the cache of a replica, as its engine's log counts them, where there is one deployment to choose; derived from the memory if not given [-].
    admission : {"prompt", "chunk", "ratio", "whole", "batch"}, optional
        What must be free of the cache when a request begins, as of :func:`roofline.rules_of`; what the engine does if not given [-].
    max_model_len : int, optional
        Most tokens of a request, prompt and answer together; what the model's configuration says if not given [token].
    receive_interval, graph_tokens : int, optional
        SGLang: every how many steps without prompts requests are received; and most tokens of a step with prompts that runs as a graph, as of
        :func:`roofline.rules_of`; what the engine does if not given [-], [token].
    rank_wait_steps : int, optional
        TensorRT-LLM: for how many steps data-parallel ranks wait for each other's prompts, as of :func:`roofline.rules_of`; 0 if not given [-].
    link_bandwidth : float or str, optional
        Rate of each device at which caches go from pool to pool; that of the machine's network if not given [B/s].
    router : str or callable, optional
        What chooses a replica, as in :func:`roofline.serving.simulate` [-].
    prices : float or mapping of str to float, optional
        What a device of each machine costs for an hour; without, plans are compared by their devices [currency].
    head_room : float, optional
        By what share more may come than the workload says [-].
    spare : int, optional
        Replicas of each pool that may fail, beyond those that keep the promises [-].
    basis, calibration, quantile : optional
        Which times steps have, as of :func:`roofline.serving.simulate` [-].
    fit : ServiceFit, optional
        Constants of a measured run in place of these, as of :func:`roofline.serving.simulate`; they are taken to be the same on every candidate [-].
    simulated : int, optional
        Candidates that are simulated at most; 0 for none, so that closed forms decide [-].
    within : float, optional
        By what share a candidate may be dearer than the cheapest one to be simulated to the end [-].
    requests : int, optional
        Requests of the workload that are simulated at most: of a longer one, the stretch in which they come fastest [-].
    seed : int, optional
        Of routers that choose by chance [-].
    executor : concurrent.futures.Executor, optional
        Where to simulate: a pool of processes, a client of dask; the answer is the same, and what it loses is simulated here [-].
    **options : optional
        Options of every deployment, such as ``utilization`` [-].

    Returns
    -------
    Plan
        The cheapest candidate, the next ones, and of every other one why it is not chosen [-].

    Raises
    ------
    RooflineError
        One sentence if something cannot be. Promises that no candidate keeps are an answer, not an error: see :attr:`Plan.forbidden`.

    Examples
    --------
    >>> chat = Workload.generated(2000, prompt=1000, output=200, arrivals=12.0, seed=1)
    >>> found = plan("llama-3.1-8b", chat, {"ttft_s": 0.5, "tpot_s": 0.02}, machines=["h100-sxm", "l40s"], degrees=1)
    >>> found.cheapest.candidate.deployment.machine.id
    'h100-sxm'
    """
    given = dict(locals())
    check_workload("workload", workload)
    if not isinstance(slo, (SLO, Mapping)):
        raise InvalidValueError(f"slo is {quoted(slo)}; SLO(ttft_s=…, tpot_s=…) says what is promised.")
    _check_options(options, degrees, formats)
    loaded, named = Model.load(model), machines_of(machines)
    if loaded.encodes:
        raise UnsupportedModelError(
            f"{loaded.name} encodes a source, images or sound for every new sequence first, and the simulations of a plan have no place for that; "
            "serving_estimate has closed forms."
        )
    profile = load_engine(engine)
    room = check_rate("head_room", head_room, "-", least=0, most=100, positive=False)
    own = any(name in options for name in DEGREES)
    asked_degrees = degrees_of(degrees) if own or degrees is not None else usual_degrees(loaded)
    deployments, excluded = deployments_of(loaded, named, asked_degrees, choices("formats", "weights", formats), options)
    _check_drafts(deployments)
    if link_bandwidth is not None:
        link_bandwidth = checked_link(link_bandwidth)
    timing: dict[str, Any] = {"basis": basis, "calibration": calibration, "quantile": quantile, "fit": fit}
    timing["basis"] = timing_of(
        deployments[0], timing | {"graph_tokens": graph_tokens}, profile
    ).basis  # what is wrong with these is wrong for all
    served = raised(busiest(workload, whole_number("requests", requests, minimum=100)), 1 + room)
    notes = (
        [] if len(served) == len(workload) else [f"of {len(workload):,} requests, the {len(served):,} that come fastest are planned for"]
    )
    notes += [] if fit is None else fit.notes_on(*deployments)
    limits = _limits(
        deployments,
        kv_blocks=kv_blocks,
        admission=admission,
        max_model_len=max_model_len,
        receive_interval=checked_interval(receive_interval, profile),
        graph_tokens=graph_tokens,
        rank_wait_steps=checked_option("rank_wait_steps", rank_wait_steps, profile),
    )
    notes += notes_on_limits(deployments[0], profile, kv_blocks=limits.get("kv_blocks"), max_model_len=limits.get("max_model_len"))
    case = Case(
        tuple(deployments),
        engine,
        _several("step_tokens", step_tokens),
        _several("sequences", sequences),
        prefix_caching,
        link_bandwidth,
        timing,
        limits,
    )
    return answer(
        Asked(
            case,
            tuple(excluded),
            served,
            slo if isinstance(slo, SLO) else SLO(**slo),
            _pools(pools),
            _prices(prices, named),
            whole_number("spare", spare),
            check_router(router),
            whole_number("simulated", simulated),
            check_rate("within", within, "-", least=0, most=100, positive=False),
            whole_number("seed", seed),
            check_executor(executor),
            tuple(notes),
            question_of(plan, given | given.pop("options"), unsaid=("executor",)),
            1.0 if len(served) == len(workload) else workload.rate * (1 + room) / served.rate,
        )
    )


def _check_options(options: Mapping[str, Any], degrees: Any, formats: Any) -> None:
    """Raise for options that no deployment has, or that are choices already."""
    for name in options:
        if name not in ALL:
            if options_meant(name, ("hardware",)):
                raise UnknownOptionError(f"plan has no {name[:60]}: it is called machines here.")
            raise refused_option("plan", name, ALL)
    for given, several in (("degrees", degrees), ("formats", formats)):
        each = several if isinstance(several, Iterable) and not isinstance(several, (str, Mapping)) else [several]
        key = "tensor_parallel" if given == "degrees" else "weights"
        chosen = {name for one in each if one is not None for name in (one if isinstance(one, Mapping) else (key,))}
        for name in options:
            if name in chosen:
                raise InvalidValueError(f"{name} is given alone and in {given}; give it in one of them.")


def _check_drafts(deployments: Sequence[Deployment]) -> None:
    """Raise where a step would verify drafts: nothing here says how many of them are accepted."""
    drafts = max((deployment.options.get("mtp", 0) for deployment in deployments), default=0)
    if drafts:
        raise InvalidValueError(
            f"mtp is {drafts}, and plan is not told how many drafts are accepted: leave it out, or ask an estimate or a simulation of a service, which take acceptance=."
        )


def _several(name: str, given: Any) -> tuple[int | None, ...]:
    several = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if not several:
        raise InvalidValueError(f"{name} is empty; give at least one number, or None for the engine's default.")
    return tuple(None if one is None else whole_number(name, one, minimum=1) for one in several)


def _limits(deployments: Sequence[Deployment], **given: Any) -> dict[str, Any]:
    """Return limits of an engine that hold for all candidates, where they are given."""
    limits = {name: value for name, value in given.items() if value is not None}
    if "kv_blocks" in limits and len(deployments) > 1:
        raise InvalidValueError(
            f"kv_blocks is of the log of one deployment, and there are {len(deployments)} to choose from: give one machine, its degrees and formats."
        )
    if limits.get("rank_wait_steps") and all(deployment.parallel.data == 1 for deployment in deployments):
        raise InvalidValueError(
            f"rank_wait_steps is {limits['rank_wait_steps']}, but no candidate has data-parallel ranks; degrees says which have."
        )
    least = {"kv_blocks": 1, "max_model_len": 1, "graph_tokens": 0, "rank_wait_steps": 0}
    limits |= {name: whole_number(name, limits[name], minimum=fewest) for name, fewest in least.items() if name in limits}
    return limits | ({"admission": one_of("admission", limits["admission"], Reserve)} if "admission" in limits else {})


def _pools(given: Any) -> tuple[str, ...]:
    several = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else ()
    for one in several or (given,):
        if one not in _POOLS:
            raise unknown_name("pools", str(one), _POOLS)
    return tuple(dict.fromkeys(several))


def _prices(given: Any, machines: Sequence[Hardware]) -> Mapping[str, float] | None:
    """Return the price of each machine by its id, or raise where one is not given."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        given = dict.fromkeys((machine.id for machine in machines), given)
    found = {
        Hardware.load(name).id if isinstance(name, str) else name.id: check_rate(
            "prices", price, "currency", least=0, most=1e9, positive=False
        )
        for name, price in given.items()
    }
    missing = [machine.id for machine in machines if machine.id not in found]
    if missing:
        raise InvalidValueError(f"prices has none of {', '.join(missing)}: give what a device of each machine costs for an hour.")
    return found


def table_of(asked: Asked) -> Table:
    """Return every candidate by closed forms."""
    case, demand = asked.case, Demand.of(asked.workload)
    price = np.array([cost_of(Candidate(one), asked.prices) for one in case.deployments])
    one, two = ("one" in asked.pools), ("two" in asked.pools)
    roles = {
        role: capacities(case, role, demand, asked.slo, asked.longest)
        for role, wanted in (("all", one), ("decode", two), ("prefill", two))
        if wanted
    }
    return Table(case, demand, price, asked.spare, asked.slo, asked.longest, roles.get("all"), roles.get("decode"), roles.get("prefill"))


def answer(asked: Asked) -> Plan:
    """Return the plan for what is asked."""
    table = table_of(asked)
    trials = _tried(asked, table) if asked.simulated else []
    found = [Choice(with_spare(trial.candidate, asked.spare), _cost(trial.candidate, asked), trial) for trial in trials]
    found.sort(key=_rank)
    return Plan(asked, table, tuple(confirmed(found, asked)), changed)


def changed(asked: Asked) -> Plan:
    """Return the plan for what is asked with something changed, of which no data says the question."""
    return answer(replace(asked, question=None))


def _cost(candidate: Candidate, asked: Asked) -> float:
    return cost_of(with_spare(candidate, asked.spare), asked.prices)


def _tried(asked: Asked, table: Table) -> list[Trial]:
    """Return the trials of promising candidates, in waves of which each knows what came of those before, so that an executor changes nothing.

    First one after another until one keeps the promises; then the best limits of every deployment that may be as cheap, or is faster than all
    that are cheaper; then the other limits of those deployments that turn out well.
    """
    cost, traffic = table.cost, asked.traffic()
    good = np.flatnonzero(np.isfinite(cost))
    order = good[np.lexsort((table.tpot_s[good], cost[good]))].tolist()
    best: dict[tuple[int, ...], int] = {}
    for at in order:
        best.setdefault(table.kind(at), at)
    leaders, done = list(best.values()), {}
    for at in leaders[: asked.simulated]:
        first = table.candidate(at)
        (done[at],) = asked.run([Task(first, traffic, _MOST_REPLICAS * first.replicas)])
        if done[at].kept:
            break

    def wave(some: list[int]) -> None:
        """Try some candidates, with as many replicas as are worth it."""
        some = [at for at in some if at not in done][: asked.simulated - len(done)]
        some.sort(key=table.kind)  # those that differ in limits alone one after another, the cheapest first
        worth = (1 + asked.within) * _bar(done.values(), asked)
        several = [(table.candidate(at), _first_tried(at, table, done)) for at in some]
        tasks = [Task(first, traffic, _affordable(one, worth, asked)) for one, first in several]
        done.update(zip(some, asked.run(tasks), strict=True))

    if any(trial.kept for trial in done.values()):
        fast = not_dominated(np.stack([cost[leaders], table.tpot_s[leaders]], axis=1))
        most = (1 + 2 * asked.within) * _bar(done.values(), asked)
        dearest = _DEAREST * _bar(done.values(), asked)
        wave([at for at, quick in zip(leaders, fast, strict=True) if cost[at] <= (dearest if quick else most)])
        most = (1 + asked.within) * _bar(done.values(), asked)
        well = {table.kind(at) for at, trial in done.items() if trial.kept and _cost(trial.candidate, asked) <= most}
        wave([at for at in order if table.kind(at) in well])
    return list(done.values())


def _first_tried(at: int, table: Table, done: Mapping[int, Trial]) -> Candidate:
    """Return a candidate with as many replicas as are tried first.

    As many as it took with other limits of the same deployments; else as many as closed forms find, as far off as these were of all that were
    tried, at the median: what they miss is much the same for all candidates of a plan.
    """
    candidate = table.candidate(at)
    kept = {one: trial.candidate.replicas for one, trial in done.items() if trial.kept}
    same = [count for one, count in kept.items() if table.kind(one) == table.kind(at)]
    others = [candidate.replicas * count / table.candidate(one).replicas for one, count in kept.items()]
    return replace(candidate, replicas=max(1, round(float(np.median(same or others)))))


def _bar(trials: Iterable[Trial], asked: Asked) -> float:
    """Return what the cheapest costs that keeps the promises."""
    return min(_cost(trial.candidate, asked) for trial in trials if trial.kept)


def _affordable(candidate: Candidate, worth: float, asked: Asked) -> int:
    """Return how many replicas a candidate may have that decode: those that closed forms find at least, and what is worth it."""
    single = cost_of(replace(candidate, replicas=1, prefill_replicas=0), asked.prices)
    rest = _cost(candidate, asked) - candidate.replicas * single
    return max(int((worth - rest) / single + 1e-9), candidate.replicas)


def confirmed(found: list[Choice], asked: Asked) -> list[Choice]:
    """Return choices in order of cost, of which the first one has been simulated with all its replicas and all requests."""
    traffic, more = asked.traffic(), {choice.name: 0 for choice in found}
    sure: set[str] = set()
    while found and found[0].trial.kept and found[0].name not in sure:
        first = found[0]
        trial = replace(tried(first.trial.candidate, traffic, whole=True), breaks=first.trial.breaks)
        more[first.name] += 1
        if trial.kept:
            sure.add(first.name)
        elif trial.reached and more[first.name] < _MOST_REPLICAS:  # one more, to be tried if it is still the cheapest
            trial = replace(trial, candidate=grown(trial, asked.slo), kept=True)
        found[0] = Choice(with_spare(trial.candidate, asked.spare), _cost(trial.candidate, asked), trial)
        found.sort(key=_rank)
    return found


def _rank(choice: Choice) -> tuple[bool, float, float]:
    return not choice.trial.kept, choice.cost, choice.trial.tpot_s
