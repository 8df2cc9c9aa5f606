"""`PipelinedReplica`: a scheduler whose steps go through the stages of a pipeline, several at a time."""

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Any

from roofline.serving.schedulers import PipelinedSglang, PipelinedTrtllm, PipelinedVllm
from roofline.serving.steps.stages import StageSeconds

Pipelined = PipelinedVllm | PipelinedSglang | PipelinedTrtllm


class Stages:
    """When steps run in the stages of a pipeline: one after another in each, and none begins before the one as many steps before as there are stages has ended.

    Parameters
    ----------
    count : int
        Stages [-].

    Examples
    --------
    Three steps of 1 s and 2 s in two stages, known at 0 s; the third begins when the first has ended:

    >>> stages = Stages(2)
    >>> [(stages.begin_s(0.0), stages.run(0.0, (1.0, 2.0))) for _ in range(3)]
    [(0.0, 3.0), (1.0, 5.0), (3.0, 7.0)]
    """

    def __init__(self, count: int) -> None:
        self._free_s = [0.0] * count
        self._ends_s = deque([0.0] * count, count)

    @property
    def end_s(self) -> float:
        """When the last step ends [s]."""
        return self._ends_s[-1]

    def begin_s(self, at_s: float) -> float:
        """Return when a step begins that is known at a time."""
        return max(at_s, self._free_s[0], self._ends_s[0])

    def run(self, at_s: float, seconds: Sequence[float]) -> float:
        """Let a step run that is known at a time and takes so long in each stage, and return when it ends."""
        at_s = self.begin_s(at_s)
        for stage, taken in enumerate(seconds):
            at_s = max(at_s, self._free_s[stage]) + taken
            self._free_s[stage] = at_s
        self._ends_s.append(at_s)
        return at_s

    def skip(self) -> None:
        """Let a step pass that holds nothing."""
        self._ends_s.append(self._ends_s[-1])


class PipelinedReplica:
    """One engine whose model is cut into stages; it stands where a `Replica` does.

    A step is scheduled as soon as fewer than `in_flight` are under way, those that hold nothing among them; otherwise the first one is awaited.

    Parameters
    ----------
    scheduler : Pipelined
        What decides [-].
    seconds : callable
        How long a step takes in each stage, from its `Load` [s].
    stages : int
        Stages [-].
    number : int, optional
        What the books call this replica [-].
    log : list, optional
        Gets begin, end and load of every step [-].

    Attributes
    ----------
    now_s : float
        When the last step that has ended did so [s].
    next_s : float
        When the next thing happens here; infinite if there is nothing to do [s].
    busy_s : float
        How long any stage has had a step [s].
    """

    def __init__(
        self,
        scheduler: Pipelined,
        seconds: StageSeconds,
        stages: int,
        number: int = 0,
        log: list[tuple[float, float, Any]] | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.number = number
        self.now_s = 0.0
        self.next_s = inf
        self.busy_s = 0.0
        self._seconds = seconds
        self._log = log
        self._count = stages
        self._stages = Stages(stages)
        self._queue: deque[float | None] = deque()  # when each step under way ends; None where it holds nothing
        self._waits = False  # for the first of these
        self._empty = 0  # decisions in a row that found nothing to do

    def add(self, request: int, at_s: float, held: int = 0, tokens: int | None = None) -> None:
        """Let a request join at a time up to which the replica has been advanced; see `Scheduler.add`."""
        self.scheduler.add(request, held, tokens)
        self.scheduler.ledger.send(request, self.number, at_s)
        if self.next_s == inf:
            self._empty = 0
            self.next_s = max(self.now_s, at_s)

    def advance(self, until_s: float, stop_at_end: bool = False) -> list[int]:
        """Complete the steps that end by a time, schedule those that may be before it, and return the requests that have ended.

        With `stop_at_end` it returns as soon as any request has ended, at ``now_s``, before the next step is scheduled.
        """
        ended: list[int] = []
        while True:
            if self._waits:
                if self.next_s > until_s:
                    return ended
                self._waits = False
                if self._queue.popleft() is not None:
                    self.now_s = self.next_s
                    self._empty = 0
                    found = self.scheduler.complete(self.now_s)
                    if not (self.scheduler.running or self.scheduler.waiting):
                        self._rest()
                    ended += found
                    if found and stop_at_end:
                        return ended
            if self.next_s >= until_s:
                return ended
            self._decide(self.next_s)

    def _decide(self, now_s: float) -> None:
        """Schedule a step, and see whether the next one can be, too, before the first is awaited."""
        begin_s = self._stages.begin_s(now_s)
        load = self.scheduler.schedule(begin_s)
        if load is None:
            self._stages.skip()
            self._queue.append(None)
            self._empty += 1
            if self._empty >= self._count and not any(end_s is not None for end_s in self._queue):
                self._rest()
                return
        else:
            before_s = self._stages.end_s
            end_s = self._stages.run(now_s, self._seconds(load))
            self.busy_s += end_s - max(begin_s, before_s)
            self._queue.append(end_s)
            self._empty = 0
            if self._log is not None:
                self._log.append((begin_s, end_s, load))
        if len(self._queue) >= self.scheduler.in_flight:
            self._waits = True
            first = self._queue[0]
            self.next_s = now_s if first is None else max(now_s, first)

    def _rest(self) -> None:
        """Do nothing until a request comes."""
        self._queue.clear()
        self.next_s = inf
