"""The second pass: candidates by simulation, with as many replicas as it takes and not one more."""

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
from roofline.requests import SLO, Workload
from roofline.serving import Fleet, Member, Simulation, compile_ranks, compile_steps, rules_of
from roofline.serving.fleet import check_members
from roofline.serving.routing import Choose
from roofline.serving.runs import link_rate
from roofline.serving.service import timing_of
from roofline.serving.warm_up import warm_up_end_s

_FEWEST = 2_000  # requests from which a percentile is taken, where the workload has as many


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


@lru_cache(maxsize=256)
def member_of(
    deployment: Deployment, engine: str | Engine, rules: tuple[tuple[str, Any], ...], timing: tuple[tuple[str, Any], ...]
) -> Member:
    """Return a replica whose tables of steps are compiled; the last ones are remembered."""
    found = rules_of(deployment, engine=engine, **dict(rules))
    time = timing_of(deployment, dict(timing), load_engine(engine))
    member = Member(deployment, found, (compile_steps if deployment.parallel.data == 1 else compile_ranks)(time, found))
    check_members([member])
    return member


def fleet_of(candidate: Candidate, traffic: Traffic, *, replicas: int | None = None) -> Fleet:
    """Return a candidate's fleet, or a part of its replicas."""
    limits = {name: value for name in ("step_tokens", "sequences") if (value := getattr(candidate, name)) is not None}
    rules, timing = tuple(sorted({**traffic.rules, **limits}.items())), tuple(sorted(traffic.timing.items()))
    own = member_of(candidate.deployment, candidate.engine, rules, timing)
    decode = (own,) * (candidate.replicas if replicas is None else replicas)
    host_s = load_engine(candidate.engine).host.request_s or 0.0
    if candidate.prefill is None:
        return Fleet(decode, traffic.router, host_s=host_s)
    prompts = (member_of(candidate.prefill, candidate.engine, rules, timing),) * candidate.prefill_replicas
    return Fleet(decode, traffic.router, prompts, host_s=host_s, link_bandwidth=link_rate(traffic.link_bandwidth, decode, prompts))


def simulated(candidate: Candidate, traffic: Traffic, *, whole: bool = False) -> Simulation:
    """Return the simulation of a candidate.

    Replicas that take turns do not know of each other, so some of them with the requests that come to them are served exactly as among all:
    where a workload is long, only as many are simulated as are worth it, unless the whole is asked for.
    """
    workload, some = traffic.workload, None
    apart = candidate.prefill is None and workload.clients is None and workload.after is None and traffic.router == "round robin"
    if apart and not whole and len(workload) > _FEWEST:
        some = min(candidate.replicas, ceil(_FEWEST * candidate.replicas / len(workload)))
        workload = workload.take(np.arange(len(workload)) % candidate.replicas < some)
    fleet = fleet_of(candidate, traffic, replicas=some)
    run = fleet.serve(workload, traffic.seed, token_times="itl_s" in traffic.slo.promises)
    return Simulation(fleet, (run,), (warm_up_end_s(run.times),), 0.9)


def tried(candidate: Candidate, traffic: Traffic, *, whole: bool = False) -> Trial:
    """Return what the simulation of a candidate says, with the replicas that it has."""
    try:
        found = simulated(candidate, traffic, whole=whole)
    except RooflineError as error:
        return Trial(candidate, False, {}, 0.0, nan, nan, nan, nan, "", "", str(error))
    times = found.steady[0]
    goodput = times.goodput(traffic.slo)
    overloaded = found.saturation.label == "overloaded"
    tpot = times.tpot_s[~np.isnan(times.tpot_s)]
    held = found.held_up
    longest = max(held, key=lambda name: held[name])
    scale = candidate.replicas / len(found.fleet.decode)
    reason = "requests come faster than they are served" if overloaded else ""
    if not reason and not goodput.met:
        reason = "; ".join(
            f"{name} is {reached:.4g} s" for name, reached in goodput.reached.items() if reached > traffic.slo.promises[name]
        )
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
    )


def broken(trial: Trial, slo: SLO) -> str:
    """Return what a trial does not keep: a promise by name, or ``load``."""
    over = {name: reached / slo.promises[name] for name, reached in trial.reached.items()}
    worst = max(over, key=lambda name: over[name], default="")
    return "" if trial.kept else worst if worst and over[worst] > 1 and "faster" not in trial.reason else "load"


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

    Of two pools, first the one that decodes is changed, with the other as it is; then the other.
    """
    if candidate.prefill is None:
        return _fewest(candidate, traffic, "replicas", most)
    ample = replace(candidate, prefill_replicas=candidate.prefill_replicas + 1)
    found = _fewest(ample, traffic, "replicas", most)
    if not found.kept:
        return found
    less = _fewest(found.candidate, traffic, "prefill_replicas", found.candidate.prefill_replicas)
    return replace(less, breaks=", ".join(filter(None, dict.fromkeys([found.breaks, less.breaks]))))


def _fewest(candidate: Candidate, traffic: Traffic, pool: str, most: int) -> Trial:
    known: dict[int, Trial] = {}

    def at(count: int) -> Trial:
        if count not in known:
            known[count] = tried(replace(candidate, **{pool: count}), traffic)
        return known[count]

    count = min(max(getattr(candidate, pool), 1), most)
    first = at(count)
    if first.kept:
        good, step = count, 1
        while good > 1 and at(max(good - step, 1)).kept:
            good, step = max(good - step, 1), 2 * step
        bad = max(good - step, 0)
    else:
        bad, step = count, 1
        while bad < most and not at(min(bad + step, most)).kept:
            bad, step = min(bad + step, most), 2 * step
        if bad >= most:
            return known[max(known)]
        good = min(bad + step, most)
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if at(middle).kept else (good, middle)
    return replace(at(good), breaks=broken(known[bad], traffic.slo) if bad in known else "")
