"""The second pass: candidates by simulation, with as many replicas as it takes and not one more."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from roofline.planner.candidates import Candidate
from roofline.planner.trials import Traffic, Trial, members_of, tried
from roofline.planner.watch import Watch
from roofline.requests import SLO
from roofline.serving.schedulers.reach import Reach

_MOST_TIMES = 4  # the replicas that closed forms find for prompts
_TOGETHER = 32  # candidates of one task


@dataclass(frozen=True)
class Task:
    """A candidate to be tried: with fewer or more replicas until one less would not do, unless it would need more than are worth it."""

    candidate: Candidate
    traffic: Traffic
    most: int  # replicas of the pool that decodes, beyond which it is too dear

    def like(self, other: "Task") -> bool:
        """Return whether another task is of the same replicas but for their limits."""
        same = ("deployment", "prefill", "engine")
        return self.traffic is other.traffic and all(getattr(self.candidate, name) == getattr(other.candidate, name) for name in same)


def together(tasks: Sequence[Task]) -> list[tuple[Task, ...]]:
    """Return tasks in groups: those in a row that are alike, which know of each other's runs."""
    groups: list[list[Task]] = []
    for task in tasks:
        if groups and len(groups[-1]) < _TOGETHER and groups[-1][0].like(task):
            groups[-1].append(task)
        else:
            groups.append([task])
    return [tuple(group) for group in groups]


def run_together(tasks: Sequence[Task]) -> list[Trial]:
    """Run tasks of a group, as executors want it: a function of one argument."""
    known = _Known(tasks[0].traffic)
    return [fewest(task.candidate, task.most, known) for task in tasks]


class _Ran(NamedTuple):
    """A run: what it said, how near the replicas of each pool came to their limits, and whether it was ended early."""

    trial: Trial
    reaches: tuple[tuple[Reach | None, ...], ...]
    ended: bool


class _Known:
    """Trials of candidates that differ in limits alone, each ended as soon as it breaks a promise; one that other limits would not have changed is theirs too."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self._ran: dict[tuple[int, int], list[_Ran]] = {}

    def __call__(self, candidate: Candidate) -> Trial:
        """Return whether a candidate keeps the promises, and which it breaks."""
        return self._run(candidate).trial

    def whole(self, candidate: Candidate) -> Trial:
        """Return the trial of a candidate, run to its end."""
        ran = self._run(candidate)
        return tried(candidate, self.traffic) if ran.ended else ran.trial

    def _run(self, candidate: Candidate) -> _Ran:
        ran = self._ran.setdefault((candidate.replicas, candidate.prefill_replicas), [])
        for one in ran:
            if self._same(one, candidate):
                return one._replace(trial=replace(one.trial, candidate=candidate))
        watch = Watch(self.traffic.slo)
        trial = tried(candidate, self.traffic, watch=watch)
        ran.append(_Ran(trial, watch.reaches(), watch.broken))
        return ran[-1]

    def _same(self, ran: _Ran, candidate: Candidate) -> bool:
        """Return whether a run would have gone the same way with a candidate's limits."""
        if ran.trial.candidate == candidate:
            return True
        if not ran.trial.reached or not ran.trial.settled:  # errors, and what closed forms say, are of the limits
            return False
        theirs, ours = members_of(ran.trial.candidate, self.traffic), members_of(candidate, self.traffic)
        pools = zip(ran.reaches, theirs, ours, strict=True)
        return all(one is not None and one.same_under(our.rules, their.rules) for pool, their, our in pools for one in pool)


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


def fewest(candidate: Candidate, most: int, known: _Known) -> Trial:
    """Return the trial with the fewest replicas that keep the promises, at most so many; else of the most that were tried.

    Of two pools, the one whose promises are broken becomes larger until all are kept; then each becomes as small as it can.
    """
    slo = known.traffic.slo
    if candidate.prefill is None:
        return _fewest(candidate, known, "replicas", most)
    now = replace(candidate, replicas=max(1, min(candidate.replicas, most)))
    while not known(now).kept:
        larger = grown(known(now), slo, 0.25)
        if larger.replicas > most or larger.prefill_replicas > _MOST_TIMES * candidate.prefill_replicas or not known(now).reached:
            return known.whole(now)
        now = larger
    found = _fewest(now, known, "replicas", now.replicas)
    less = _fewest(found.candidate, known, "prefill_replicas", now.prefill_replicas)
    return replace(less, breaks=", ".join(filter(None, dict.fromkeys([found.breaks, less.breaks]))))


def _fewest(candidate: Candidate, known: _Known, pool: str, most: int) -> Trial:
    """Return the trial with the fewest replicas in one pool, found by ever larger steps and then by halves."""

    def kept(count: int) -> bool:
        return known(_resized(candidate, pool, count)).kept

    good = bad = min(max(getattr(candidate, pool), 1), most)
    step = 1
    if kept(good):
        bad = good - 1
        while bad > 0 and kept(bad):
            good, bad, step = bad, max(bad - 2 * step, 0), 2 * step
    else:
        good = min(bad + 1, most)
        while not kept(good):
            if good >= most or not known(candidate).reached:  # an error, which more replicas do not mend
                return known.whole(_resized(candidate, pool, good))
            bad, good, step = good, min(good + 2 * step, most), 2 * step
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if kept(middle) else (good, middle)
    breaks = broken(known(_resized(candidate, pool, bad)), known.traffic.slo) if bad else ""
    return replace(known(_resized(candidate, pool, good)), breaks=breaks)
