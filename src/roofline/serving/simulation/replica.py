"""`Replica`: a scheduler and its clock."""

from collections.abc import Callable
from math import inf
from typing import Any

from roofline.serving.schedulers import Ranks, Scheduler


class Replica:
    """One engine: its scheduler decides the steps, and its clock adds up how long they take.

    Parameters
    ----------
    scheduler : Scheduler or Ranks
        What decides [-].
    seconds : callable
        How long a step takes, from its `Load`, or those of all ranks [s].
    number : int, optional
        What the books call this replica [-].
    log : list, optional
        Gets begin, end and load, or loads, of every step [-].

    Attributes
    ----------
    now_s : float
        When the last step that has ended did so [s].
    next_s : float
        When the next thing happens here: the step under way ends, or one begins; infinite if there is nothing to do [s].
    busy_s : float
        How long steps have run, all together [s].
    """

    def __init__(
        self,
        scheduler: Scheduler | Ranks,
        seconds: Callable[[Any], float],
        number: int = 0,
        log: list[tuple[float, float, Any]] | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.seconds = seconds
        self.number = number
        self.log = log
        self.now_s = 0.0
        self.next_s = inf
        self.busy_s = 0.0
        self._under_way = False

    def add(self, request: int, at_s: float, held: int = 0, tokens: int | None = None) -> None:
        """Let a request join at a time up to which the replica has been advanced; see `Scheduler.add`."""
        self.scheduler.add(request, held, tokens)
        self.scheduler.ledger.send(request, self.number, at_s)
        if self.next_s == inf:
            self.next_s = max(self.now_s, at_s)

    def advance(self, until_s: float, stop_at_end: bool = False) -> list[int]:
        """Complete the steps that end by a time, begin those that begin before it, and return the requests that have ended.

        With `stop_at_end` it returns as soon as any request has ended, at ``now_s``, before the next step begins.
        """
        ended: list[int] = []
        scheduler, seconds, log = self.scheduler, self.seconds, self.log
        while True:
            if self._under_way:
                if (end_s := self.next_s) > until_s:
                    return ended
                self.now_s = end_s
                self._under_way = False
                found = scheduler.complete(end_s)
                if found:
                    ended += found
                    if not (scheduler.running or scheduler.waiting):
                        self.next_s = inf
                    if stop_at_end:
                        return ended
            begin_s = self.next_s
            if begin_s >= until_s:
                return ended
            if log is None:  # the steps that need no decision
                end_s = scheduler.run(begin_s, until_s, seconds)
                if end_s > begin_s:
                    self.busy_s += end_s - begin_s
                    self.now_s = self.next_s = begin_s = end_s
                    if begin_s >= until_s:
                        return ended
            load = scheduler.schedule(begin_s)
            if load is None:
                self.next_s = inf
                continue
            self.next_s = end_s = begin_s + seconds(load)
            self.busy_s += end_s - begin_s
            self._under_way = True
            if log is not None:
                log.append((begin_s, end_s, load))
