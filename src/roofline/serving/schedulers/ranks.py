"""`Ranks`: data-parallel ranks of one engine, which step together."""

from collections.abc import Callable, Sequence
from itertools import count

from roofline.errors import InvalidValueError
from roofline.serving.schedulers.base import Scheduler
from roofline.serving.steps.load import Load

ChooseRank = Callable[[Sequence[Scheduler]], int]
"""Returns the index of the rank that the next request goes to."""

NOTHING = Load(0, 0)


class Ranks:
    """The ranks of one engine: each has queues and a cache of its own, but a step begins on all of them at once and takes as long as all.

    It stands where a `Scheduler` does: a `Replica` of it takes a function of the loads of all ranks, in order. Those that have nothing
    to do run along, with a load of nothing.

    Parameters
    ----------
    ranks : sequence of Scheduler
        A scheduler for each rank [-].
    choose : callable, optional
        What chooses the rank of a request, by the state of all; as vLLM 0.33.0 does if not given: see `by_load` [-].
    """

    def __init__(self, ranks: Sequence[Scheduler], choose: ChooseRank | None = None) -> None:
        if not ranks:
            raise InvalidValueError("there are no ranks; an engine has at least one.")
        self.ranks = ranks
        self.rules, self.ledger = ranks[0].rules, ranks[0].ledger
        self.ends: list[float] = []
        self._choose = choose or by_load()
        # the step that is scheduled: ranks that had something to decide, and those that go on as they were
        self._decided: list[Scheduler] = []
        self._going: list[Scheduler] = []

    @property
    def steps(self) -> int:
        """Steps that have ended [-]."""
        return len(self.ends)

    @property
    def waiting(self) -> int:
        """Requests that wait, at any rank [-]."""
        return sum(rank.waiting for rank in self.ranks)

    @property
    def running(self) -> int:
        """Requests that run, at any rank [-]."""
        return sum(rank.running for rank in self.ranks)

    @property
    def reach(self) -> None:
        """Nothing: the rank of a request may depend on the share of blocks in use."""
        return None

    @property
    def used_blocks(self) -> int:
        """Blocks that they hold, of all ranks [-]."""
        return sum(rank.used_blocks for rank in self.ranks)

    @property
    def held_up(self) -> dict[str, float]:
        """Steps in which a request waited at a rank, by what it lacked, as the mean of all ranks [-]."""
        return {lacking: sum(rank.held_up[lacking] for rank in self.ranks) / len(self.ranks) for lacking in self.ranks[0].held_up}

    def add(self, request: int, held: int = 0, tokens: int | None = None) -> None:
        """Let a request join those that wait at a rank; see `Scheduler.add`."""
        self.ranks[self._choose(self.ranks)].add(request, held, tokens)

    def schedule(self, now_s: float) -> tuple[Load, ...] | None:
        """Decide what each rank's part of the step that begins now holds; None if there is nothing to do on any."""
        self._decided, self._going = [], []
        loads, busy = [], False
        for rank in self.ranks:
            load = rank.ahead()
            if load is not None:
                self._going.append(rank)
            elif load := rank.schedule(now_s):
                self._decided.append(rank)
            loads.append(load or NOTHING)
            busy = busy or loads[-1] is not NOTHING
        return tuple(loads) if busy else None

    def complete(self, end_s: float) -> list[int]:
        """Give the tokens of the step on all ranks, and return the requests that have ended."""
        self.ends.append(end_s)
        for rank in self._going:
            rank.go(end_s)
        return [request for rank in self._decided for request in rank.complete(end_s)]

    def run(self, begin_s: float, until_s: float, seconds: Callable[[Sequence[Load]], float]) -> float:
        """Return when the next step begins: with several ranks, hardly a step needs no decision on any; see `Scheduler.run`."""
        return begin_s


def by_load() -> ChooseRank:
    """Return what chooses the rank with the fewest requests, those that wait counting up to four times where its cache is full.

    A rank's score is waiting + running + 6·waiting·max(0, share of its blocks in use − 0.5). Of equal ones the first is taken, counted
    from a rank that moves on by one with every request (vLLM 0.33.0, ``v1/engine/core_client.py``; versions before took 4·waiting +
    running).
    """
    turns = count()

    def choose(ranks: Sequence[Scheduler]) -> int:
        first = next(turns)
        order = [(first + ahead) % len(ranks) for ahead in range(len(ranks))]
        return min(order, key=lambda index: _score(ranks[index]))

    return choose


def _score(rank: Scheduler) -> float:
    waiting = rank.waiting
    return waiting + rank.running + 6 * waiting * max(0.0, rank.used_blocks / rank.rules.kv_blocks - 0.5)
