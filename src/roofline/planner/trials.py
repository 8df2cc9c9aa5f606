"""The second pass: candidates by simulation, with as many replicas as it takes and not one more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, nan
from typing import Any

import numpy as np

from roofline.deployment import Deployment
from roofline.engines import Engine, load_engine
from roofline.errors import RooflineError
from roofline.planner.candidates import Candidate
from roofline.planner.demand import Demand, typical
from roofline.requests import SLO, Workload
from roofline.serving import Fleet, Member, ServingEstimate, Simulation, rules_of, serving_estimate
from roofline.serving.simulation.routing import Choose
from roofline.serving.simulation.runs import link_rate
from roofline.serving.steps.seconds import compiled
from roofline.serving.steps.timing import host_request_s, timing_of

_MOST_TIMES = 4  # the replicas that closed forms find for prompts
_STRETCH = 4_000  # requests of a stretch of a workload
_FEWEST = 1_000  # requests from which a percentile is taken, where the workload has as many


@dataclass(frozen=True)
class Traffic:
    """What candidates are tried with; the same for all of them, and small enough to send to another process."""

    workload: Workload
    slo: SLO
    timing: Mapping[str, Any]
    rules: Mapping[str, Any]
    router: str | Choose
    link_bandwidth: float | str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What a simulation said of a candidate.

    Parameters
    ----------
    candidate : Candidate
        With the fewest replicas that keep the promises, or the most that were tried [-].
    kept : bool
        Whether these keep them [-].
    reached : mapping of str to float
        By promise, the time that the promised share of requests did not exceed [s].
    share : float
        Requests that kept all promises together, of all [-].
    ttft_s, tpot_s : float
        Mean times to the first token, and per token after it [s].
    output_tokens_per_s : float
        Tokens of answers per second, all replicas together [token/s].
    busy : float
        Share of the time in which the busiest replica runs a step [-].
    held_up : str
        What a request that waits lacks most often: ``tokens`` of a step, ``sequences``, ``blocks`` of the cache, or nothing [-].
    breaks : str
        What one replica less would not keep: a promise, or ``load`` if requests come faster than they are served; nothing where one replica is enough [-].
    reason : str
        Why promises are not kept; empty where they are [-].
    settled : bool
        Whether requests came for long enough to tell that the service keeps up; if not, closed forms have to find the promises kept too [-].
    """

    candidate: Candidate
    kept: bool
    reached: Mapping[str, float]
    share: float
    ttft_s: float
    tpot_s: float
    output_tokens_per_s: float
    busy: float
    held_up: str
    breaks: str = ""
    reason: str = ""
    settled: bool = True

    def worst(self, slo: SLO) -> str:
        """Return the promise that is nearest to being broken, or the most broken; nothing if the candidate could not be tried.

        Parameters
        ----------
        slo : SLO
            The promises [-].

        Returns
        -------
        str
            Its name [-].
        """
        return max(self.reached, key=lambda name: self.reached[name] / slo.promises[name], default="")


@lru_cache(maxsize=256)
def member_of(
    deployment: Deployment, engine: str | Engine, rules: tuple[tuple[str, Any], ...], timing: tuple[tuple[str, Any], ...]
) -> Member:
    """Return a replica whose tables of steps are compiled; the last ones are remembered."""
    found = rules_of(deployment, engine=engine, **dict(rules))
    time = timing_of(deployment, dict(timing), load_engine(engine))
    return Member(deployment, found, compiled(time, found))


def fleet_of(candidate: Candidate, traffic: Traffic, *, replicas: int | None = None) -> Fleet:
    """Return a candidate's fleet, or a part of its replicas."""
    rules, timing = tuple(sorted({**traffic.rules, **candidate.limits}.items())), tuple(sorted(traffic.timing.items()))
    own = member_of(candidate.deployment, candidate.engine, rules, timing)
    decode = (own,) * (candidate.replicas if replicas is None else replicas)
    host_s = host_request_s(traffic.timing, load_engine(candidate.engine))
    if candidate.prefill is None:
        return Fleet(decode, traffic.router, host_s=host_s)
    prompts = (member_of(candidate.prefill, candidate.engine, rules, timing),) * candidate.prefill_replicas
    return Fleet(decode, traffic.router, prompts, host_s=host_s, link_bandwidth=link_rate(traffic.link_bandwidth, decode, prompts))


def simulated(candidate: Candidate, traffic: Traffic, *, whole: bool = False) -> Simulation:
    """Return the simulation of a candidate.

    Replicas that take turns do not know of each other, so some of them with the requests that come to them are served exactly as among all:
    where a workload is long, only as many are simulated as are worth it. Of fleets whose replicas do know of each other a stretch of a long
    workload is simulated that has its rate. The whole is simulated if it is asked for.
    """
    workload, some = traffic.workload, None
    arrive, alone = workload.clients is None and workload.after is None, candidate.prefill is None and traffic.router == "round robin"
    if arrive and alone and candidate.replicas > len(workload):  # the others serve nobody
        some = len(workload)
    elif arrive and alone and not whole and len(workload) > _FEWEST:
        some = min(candidate.replicas, ceil(_FEWEST * candidate.replicas / len(workload)))
        workload = workload.take(np.arange(len(workload)) % candidate.replicas < some)
    elif arrive and not whole and len(workload) > _FEWEST:
        workload = typical(workload, _STRETCH)
    fleet = fleet_of(candidate, traffic, replicas=some)
    run = fleet.serve(workload, traffic.seed, token_times="itl_s" in traffic.slo.promises)
    return Simulation(fleet, (run,), 0.9)


def tried(candidate: Candidate, traffic: Traffic, *, whole: bool = False) -> Trial:
    """Return what the simulation of a candidate says, with the replicas that it has."""
    try:
        found = simulated(candidate, traffic, whole=whole)
    except RooflineError as error:
        if not whole:  # so that a request is named by its number among all
            return tried(candidate, traffic, whole=True)
        return Trial(candidate, False, {}, 0.0, nan, nan, nan, nan, "", "", str(error))
    times = found.steady[0]
    goodput = times.goodput(traffic.slo)
    overloaded = found.saturation.label == "overloaded"
    tpot = times.tpot_s[~np.isnan(times.tpot_s)]
    held = found.held_up
    longest = max(held, key=lambda name: held[name])
    scale = (
        min(candidate.replicas, len(traffic.workload)) / len(found.fleet.decode) if len(found.fleet.decode) < candidate.replicas else 1.0
    )
    settled = found.saturation.label != "unclear" or traffic.workload.after is not None  # users wait for answers
    reason = "requests come faster than they are served" if overloaded else ""
    if not reason and not goodput.met:
        reason = "; ".join(
            f"{name} is {reached:.4g} s" for name, reached in goodput.reached.items() if reached > traffic.slo.promises[name]
        )
    if not reason and not settled:
        reason = _closed_forms_against(candidate, traffic)
    return Trial(
        candidate,
        not reason,
        dict(goodput.reached),
        goodput.share,
        float(times.ttft_s.mean()),
        float(tpot.mean()) if tpot.size else nan,
        found.times.output_tokens_per_s * scale,
        max(one.busy for one in found.replicas),
        longest if held[longest] > 0 else "",
        "",
        reason,
        settled,
    )


def _closed_forms_against(candidate: Candidate, traffic: Traffic) -> str:
    """Return what closed forms say that a service in balance does not keep, where a run is too short to reach it."""
    found = at_load(candidate, traffic)
    short = "requests come for too short a time to tell whether the service keeps up, and closed forms find "
    if not found.load < 1:
        return f"{short}that it does not"
    reached = found.percentile(traffic.slo.percentile)
    late = [f"{name} of {float(reached[name]):.4g} s" for name, seconds in traffic.slo.promises.items() if reached[name] > seconds]
    return short + " and ".join(late) if late else ""


def at_load(candidate: Candidate, traffic: Traffic) -> ServingEstimate:
    """Return a candidate under the load of a workload, by closed forms."""
    demand = Demand.of(traffic.workload)
    pools: dict[str, Any] = {} if candidate.prefill is None else {"prefill_replicas": candidate.prefill_replicas}
    load: dict[str, Any] = {"concurrency" if demand.closed else "rate": demand.load}
    return serving_estimate(candidate.deployment, **operating(candidate, traffic, demand), **pools, **load, replicas=candidate.replicas)


def operating(candidate: Candidate, traffic: Traffic, demand: Demand) -> dict[str, Any]:
    """Return a candidate's service and the lengths of a demand, as closed forms ask for them."""
    pools = {} if candidate.prefill is None else {"prefill": candidate.prefill, "link_bandwidth": traffic.link_bandwidth}
    finds = traffic.rules.get("prefix_caching", load_engine(candidate.engine).cache.prefix_caching)
    cached = min(demand.repeated if finds else 0.0, demand.prompt - 1)
    lengths = {"prompt": demand.prompt, "cached": cached, "output": demand.output}
    spreads = {"prompt_cv": demand.prompt_cv, "output_cv": demand.output_cv}
    return {"engine": candidate.engine, **traffic.timing, **candidate.limits, **pools, **lengths, **spreads}


def broken(trial: Trial, slo: SLO) -> str:
    """Return what a trial does not keep: a promise by name, or ``load``."""
    worst = trial.worst(slo)
    return "" if trial.kept else worst if worst and trial.reached[worst] > slo.promises[worst] else "load"


def grown(trial: Trial, slo: SLO, share: float = 0.0) -> Candidate:
    """Return a candidate with more replicas in the pool whose promise is broken: one more, or a share of them."""
    pool = "prefill_replicas" if trial.candidate.prefill is not None and trial.worst(slo) == "ttft_s" else "replicas"
    now = getattr(trial.candidate, pool)
    return _resized(trial.candidate, pool, now + max(1, int(share * now)))


def _resized(candidate: Candidate, pool: str, count: int) -> Candidate:
    """Return a candidate with so many replicas in a pool."""
    return replace(candidate, prefill_replicas=count) if pool == "prefill_replicas" else replace(candidate, replicas=count)


@dataclass(frozen=True)
class Task:
    """A candidate to be tried: with fewer or more replicas until one less would not do, unless it would need more than are worth it."""

    candidate: Candidate
    traffic: Traffic
    most: int  # replicas of the pool that decodes, beyond which it is too dear

    def __call__(self) -> Trial:
        """Return the trial; that of an executor is the same."""
        return fewest(self.candidate, self.traffic, self.most)


def run_task(task: Task) -> Trial:
    """Run a task, as executors want it: a function of one argument."""
    return task()


def fewest(candidate: Candidate, traffic: Traffic, most: int) -> Trial:
    """Return the trial with the fewest replicas that keep the promises, at most so many; else of the most that were tried.

    Of two pools, the one whose promises are broken becomes larger until all are kept; then each becomes as small as it can.
    """
    known: dict[tuple[int, int], Trial] = {}

    def at(some: Candidate) -> Trial:
        counts = (some.replicas, some.prefill_replicas)
        if counts not in known:
            known[counts] = tried(some, traffic)
        return known[counts]

    if candidate.prefill is None:
        return _fewest(candidate, at, "replicas", most, traffic.slo)
    now = replace(candidate, replicas=max(1, min(candidate.replicas, most)))
    while not at(now).kept:
        larger = grown(at(now), traffic.slo, 0.25)
        if larger.replicas > most or larger.prefill_replicas > _MOST_TIMES * candidate.prefill_replicas or not at(now).reached:
            return at(now)
        now = larger
    found = _fewest(now, at, "replicas", now.replicas, traffic.slo)
    less = _fewest(found.candidate, at, "prefill_replicas", now.prefill_replicas, traffic.slo)
    return replace(less, breaks=", ".join(filter(None, dict.fromkeys([found.breaks, less.breaks]))))


def _fewest(candidate: Candidate, at: Callable[[Candidate], Trial], pool: str, most: int, slo: SLO) -> Trial:
    """Return the trial with the fewest replicas in one pool, found by ever larger steps and then by halves."""

    def kept(count: int) -> bool:
        return at(_resized(candidate, pool, count)).kept

    good = bad = min(max(getattr(candidate, pool), 1), most)
    step = 1
    if kept(good):
        bad = good - 1
        while bad > 0 and kept(bad):
            good, bad, step = bad, max(bad - 2 * step, 0), 2 * step
    else:
        good = min(bad + 1, most)
        while not kept(good):
            if good >= most or not at(candidate).reached:  # an error, which more replicas do not mend
                return at(_resized(candidate, pool, good))
            bad, good, step = good, min(good + 2 * step, most), 2 * step
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if kept(middle) else (good, middle)
    return replace(at(_resized(candidate, pool, good)), breaks=broken(at(_resized(candidate, pool, bad)), slo) if bad else "")
