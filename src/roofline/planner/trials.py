"""`Trial`: what a simulation says of a candidate with so many replicas."""

from collections.abc import Mapping
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
from roofline.planner.watch import Broken, Watch
from roofline.requests import SLO, Workload
from roofline.serving import Fleet, Member, Rules, ServingEstimate, Simulation, rules_of, serving_estimate
from roofline.serving.simulation.members import Asked
from roofline.serving.simulation.routing import Choose
from roofline.serving.simulation.runs import link_rate
from roofline.serving.steps.load import RankSeconds, StepSeconds
from roofline.serving.steps.seconds import compiled
from roofline.serving.steps.timing import host_request_s, timing_of
from roofline.step_time import StepTime

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
    beside = replace(found, step_tokens=1, sequences=1, kv_blocks=1)
    asked = Asked(deployment, found, dict(timing), load_engine(engine)) if deployment.parallel.pipeline > 1 else None
    return Member(deployment, found, _tables_of(deployment, engine, beside, timing).up_to(found), asked=asked)


class _Tables:
    """Seconds of a deployment's steps, compiled as far as any of the limits that were asked for."""

    def __init__(self, time: StepTime) -> None:
        self._time = time
        self._widest: Rules | None = None

    def up_to(self, rules: Rules) -> StepSeconds | RankSeconds:
        """Return what looks them up, which says the same whatever the limits."""
        known = self._widest
        if known is None or rules.step_tokens > known.step_tokens or rules.sequences > known.sequences:
            most = {} if known is None else {name: max(getattr(rules, name), getattr(known, name)) for name in ("step_tokens", "sequences")}
            widest = replace(rules, **most)
            self._seconds, self._widest = compiled(self._time, widest), widest
        return self._seconds


@lru_cache(maxsize=64)
def _tables_of(deployment: Deployment, engine: str | Engine, rules: Rules, timing: tuple[tuple[str, Any], ...]) -> _Tables:
    """Return the tables of steps under rules that differ in limits alone."""
    return _Tables(timing_of(deployment, dict(timing), load_engine(engine)))


def members_of(candidate: Candidate, traffic: Traffic) -> list[Member]:
    """Return a candidate's replica, and that of its pool for prompts if it has one."""
    rules, timing = tuple(sorted({**traffic.rules, **candidate.limits}.items())), tuple(sorted(traffic.timing.items()))
    pools = filter(None, (candidate.deployment, candidate.prefill))
    return [member_of(deployment, candidate.engine, rules, timing) for deployment in pools]


def fleet_of(candidate: Candidate, traffic: Traffic, *, replicas: int | None = None) -> Fleet:
    """Return a candidate's fleet, or a part of its replicas."""
    own, *others = members_of(candidate, traffic)
    decode = (own,) * (candidate.replicas if replicas is None else replicas)
    host_s = host_request_s(traffic.timing, load_engine(candidate.engine), candidate.deployment.model)
    if not others:
        return Fleet(decode, traffic.router, host_s=host_s)
    prompts = (*others,) * candidate.prefill_replicas
    return Fleet(decode, traffic.router, prompts, host_s=host_s, link_bandwidth=link_rate(traffic.link_bandwidth, decode, prompts))


def simulated(candidate: Candidate, traffic: Traffic, *, whole: bool = False, watch: Watch | None = None) -> Simulation:
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
    run = fleet.serve(workload, traffic.seed, token_times="itl_s" in traffic.slo.promises, watch=watch)
    return Simulation(fleet, (run,), 0.9)


def tried(candidate: Candidate, traffic: Traffic, *, whole: bool = False, watch: Watch | None = None) -> Trial:
    """Return what the simulation of a candidate says, with the replicas that it has; of one that is watched only which promise it breaks, if it does."""
    try:
        found = simulated(candidate, traffic, whole=whole, watch=watch)
    except Broken as broken:
        return Trial(candidate, False, broken.reached, nan, nan, nan, nan, nan, "")
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
