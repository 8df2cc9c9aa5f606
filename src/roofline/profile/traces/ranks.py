"""Traces of all ranks of a job: how much of the time of collectives is waiting for the last rank, and how much is moving data."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.profile.rows import short
from roofline.profile.traces.trace import Trace, read_trace
from roofline.results import Result, show_notes
from roofline.units import show_time


@dataclass(frozen=True, slots=True)
class RankTime:
    """What one rank spends on collectives.

    Parameters
    ----------
    rank : int
        Which [-].
    collectives : int
        How many it takes part in [-].
    collective_s : float
        Their time [s].
    waiting_s : float
        The part of it that it waits for ranks which come later [s].
    moving_s : float
        The rest, in which data moves [s].
    last : int
        How often it is the one that all others wait for [-].
    others_s : float
        Time of its other kernels [s].
    """

    rank: int
    collectives: int
    collective_s: float
    waiting_s: float
    moving_s: float
    last: int
    others_s: float


@dataclass(frozen=True, slots=True)
class CollectiveSum:
    """Collectives of one name, of all ranks together.

    Parameters
    ----------
    name : str
        Of the exchange, or of its kernel [-].
    count : int
        How many [-].
    time_s : float
        Mean over ranks of their time [s].
    moving_s : float
        What moving the data takes [s].
    """

    name: str
    count: int
    time_s: float
    moving_s: float

    @property
    def waiting_s(self) -> float:
        """Mean over ranks of the time that they wait [s]."""
        return self.time_s - self.moving_s


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class RankComparison(Result):
    """The ranks of one job beside each other.

    Parameters
    ----------
    ranks : tuple of RankTime
        Each rank [-].
    names : tuple of CollectiveSum
        Collectives by name, the longest first [-].
    notes : tuple of str
        What a reader must know [-].
    """

    ranks: tuple[RankTime, ...]
    names: tuple[CollectiveSum, ...]
    notes: tuple[str, ...]

    _numbers = ("collective_s", "waiting_s", "moving_s", "skew_s")

    def _mean(self, name: str) -> float:
        return float(sum(getattr(rank, name) for rank in self.ranks)) / len(self.ranks)

    @property
    def collective_s(self) -> float:
        """Mean over ranks of the time in collectives [s]."""
        return self._mean("collective_s")

    @property
    def waiting_s(self) -> float:
        """Mean over ranks of the time that they wait for others [s]."""
        return self._mean("waiting_s")

    @property
    def moving_s(self) -> float:
        """Time in which data moves [s]."""
        return self._mean("moving_s")

    @property
    def skew_s(self) -> float:
        """How much longer the rank that waits most waits than the one that waits least: the latter is the slow one [s]."""
        waits = [rank.waiting_s for rank in self.ranks]
        return max(waits) - min(waits)

    @property
    def slowest(self) -> int:
        """The rank that waits least, because others wait for it [-]."""
        return min(self.ranks, key=lambda rank: rank.waiting_s).rank

    def table(self) -> list[Mapping[str, Any]]:
        """Return a row for every rank [-]."""
        return [{name: getattr(rank, name) for name in rank.__slots__} for rank in self.ranks]

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        names = ("name", "count", "time_s", "moving_s", "waiting_s")
        return {"names": [{name: getattr(row, name) for name in names} for row in self.names], "slowest": self.slowest, "notes": self.notes}

    def summary(self) -> list[str]:
        """Return the text: collectives as waiting and moving, then each rank [-]."""
        share = self.waiting_s / self.collective_s if self.collective_s else 0.0
        lines = [
            f"{len(self.ranks)} ranks: {show_time(self.collective_s)} in collectives, {show_time(self.waiting_s)} of it waiting ({share:.0%}), "
            f"{show_time(self.moving_s)} moving"
        ]
        lines += [
            f"  rank {rank.rank}: waits {show_time(rank.waiting_s)}, is waited for in {rank.last} of {rank.collectives}, "
            f"other kernels {show_time(rank.others_s)}"
            for rank in self.ranks
        ]
        lines += [
            f"  {short(row.name)}, {row.count}: {show_time(row.waiting_s)} waiting, {show_time(row.moving_s)} moving" for row in self.names
        ]
        return [*lines, *show_notes(self.notes)]


@checks_call
def compare_ranks(traces: Sequence[Trace | str | Path]) -> RankComparison:
    """Compare the traces of all ranks of one job: how long collectives wait for the last rank, and how long data moves.

    Parameters
    ----------
    traces : sequence of Trace, str or Path
        One of each rank [-].

    Returns
    -------
    RankComparison
        Each rank, and each collective [-].

    Raises
    ------
    InvalidValueError
        If there are fewer than two, two of the same rank, or ranks that did not run the same collectives.

    Notes
    -----
    The kernel of a collective ends for all ranks when the data has moved, and begins when its rank arrives. So in each collective the shortest of the ranks'
    times is what moving takes, and what another rank takes longer is waiting. No clock is compared, so traces of several hosts can be. Where data goes on
    moving after the last rank has come, but faster for some, the difference counts as waiting.
    """
    read = [
        trace if isinstance(trace, Trace) else read_trace(trace)
        for trace in ([traces] if isinstance(traces, (str, Path, Trace)) else traces)
    ]
    if len(read) < 2:
        raise InvalidValueError(f"{'one trace was' if read else 'no traces were'} given; ranks are compared from two on.")
    numbers = [trace.rank if trace.rank is not None else index for index, trace in enumerate(read)]
    if len(set(numbers)) < len(numbers):
        raise InvalidValueError(f"two traces are of the same rank: {', '.join(map(str, numbers))}.")
    shared = _shared(read)
    if not shared:
        raise InvalidValueError("no collective is in two of the traces: they have to be of ranks that work together.")
    ranks = (_rank(number, index, trace, shared) for index, (number, trace) in enumerate(zip(numbers, read, strict=True)))
    return RankComparison(
        tuple(sorted(ranks, key=lambda rank: rank.rank)),
        _names(shared),
        tuple(_notes(read, shared)),
    )


class _Shared(NamedTuple):
    """The collectives of one name and group of ranks."""

    name: str
    members: list[int]  # which traces have them
    times: Any  # members × collectives [s]

    @property
    def moving_s(self) -> float:
        """What moving the data of all of them takes [s]."""
        return float(self.times.min(axis=0).sum())


def _shared(traces: Sequence[Trace]) -> list[_Shared]:
    """Return the collectives that several traces have, matched by name, group and order."""
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for index, trace in enumerate(traces):
        for collective in trace.collectives:
            found[collective.name, collective.group][index].append(collective.time_s)
    for (name, _), members in found.items():
        counts = {index: len(times) for index, times in members.items()}
        if len(set(counts.values())) > 1:
            few, many = min(counts, key=lambda i: counts[i]), max(counts, key=lambda i: counts[i])
            raise InvalidValueError(
                f"{traces[few].path} has {counts[few]} times {quoted(name)}, and {traces[many].path} {counts[many]} times: "
                "the traces have to be of the same steps."
            )
    return [_Shared(key[0], list(members), np.array(list(members.values()))) for key, members in found.items() if len(members) > 1]


def _rank(number: int, index: int, trace: Trace, shared: Sequence[_Shared]) -> RankTime:
    own = [(of, of.members.index(index)) for of in shared if index in of.members]
    spent = sum(float(of.times[row].sum()) for of, row in own)
    moving = sum(of.moving_s for of, _ in own)
    last = sum(int((of.times.argmin(axis=0) == row).sum()) for of, row in own)
    count = sum(of.times.shape[1] for of, _ in own)
    others = trace.kernels_s - sum(collective.time_s for collective in trace.collectives)
    return RankTime(number, count, spent, spent - moving, moving, last, others)


def _names(shared: Sequence[_Shared]) -> tuple[CollectiveSum, ...]:
    sums: dict[str, tuple[int, float, float]] = {}
    for of in shared:
        count, spent, moving = sums.get(of.name, (0, 0.0, 0.0))
        sums[of.name] = count + of.times.shape[1], spent + float(of.times.mean(axis=0).sum()), moving + of.moving_s
    return tuple(sorted((CollectiveSum(name, *row) for name, row in sums.items()), key=lambda row: -row.time_s))


def _notes(traces: Sequence[Trace], shared: Sequence[_Shared]) -> Iterator[str]:
    """Yield what a reader must know."""
    alone = sum(len(trace.collectives) for trace in traces) - sum(of.times.size for of in shared)
    if alone:
        yield f"{alone} collectives are with ranks whose traces were not given; they are left out"
    sizes = {trace.world_size for trace in traces} - {None}
    if sizes and max(filter(None, sizes)) > len(traces):
        yield f"the job has {max(filter(None, sizes))} ranks, and {len(traces)} traces were given: others may be waited for"
    yield from dict.fromkeys(f"{trace.path}: {note}" for trace in traces for note in trace.notes if "ends in the middle" in note)
