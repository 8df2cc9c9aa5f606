"""`PipelinedVllm`: the rules of vLLM's scheduler where a model is cut into the stages of a pipeline.

With p stages p + 1 steps are scheduled before the first of them is awaited: asynchronous scheduling, the default; p without it. A request that decodes takes part in every p-th
decision, also in those that find nothing to do; a prompt goes on in every one. So requests that decode are in p lanes, each of which keeps those whose
prompts were finished by its steps. What a decision sees of a step under way is that its tokens are computed; their requests end, and give their blocks
back, when it has ended. A request that is stopped while a step of it is under way still gets that step's token, and does not begin again before.

Read in the wheel vllm 0.33.0: v1/engine/core.py (step_with_batch_queue), v1/core/sched/scheduler.py and async_scheduler.py, config/vllm.py
(max_concurrent_batches), v1/worker/gpu/pp_utils.py.
"""

from collections import deque
from heapq import heapify, heappush
from math import nan
from typing import NamedTuple

from roofline.serving.rules import Rules
from roofline.serving.schedulers.decoding import Decoding, Served, decoding_of
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.vllm import VllmScheduler
from roofline.serving.steps.load import Load


class _Lane:
    """Requests that decode in the same steps, the series of these steps, and the number of the last one."""

    def __init__(self, decoding: Decoding, series: int, ends: list[float]) -> None:
        self.decoding, self.series, self.ends = decoding, series, ends
        self.last = -1


class _Flight(NamedTuple):
    """A step under way: its number, where it is in its lane's series, who gets a first token, who ends, and who has filled pages with answers."""

    number: int
    lane: _Lane
    place: int
    first: list[Served]
    ended: list[Served]
    filled: list[tuple[Served, int]]


class PipelinedVllm(VllmScheduler):
    """vLLM's scheduler of a pipeline; see `VllmScheduler`.

    Parameters
    ----------
    rules : Rules
        What the scheduler is told; without drafts [-].
    ledger : Ledger
        The books of the simulation, which hold the requests [-].
    stages : int
        Stages of the pipeline [-].
    """

    def __init__(self, rules: Rules, ledger: Ledger, stages: int) -> None:
        super().__init__(rules, ledger)
        self.in_flight = stages + rules.async_scheduling
        self._lanes = [_Lane(self._decoding, self.series, self.ends)]
        for series, ends in (ledger.series() for _ in range(stages - 1)):
            self._lanes.append(_Lane(decoding_of(rules, ledger, (series, ends), (), 0), series, ends))
        self._lane = self._lanes[0]
        self._calls = 0
        self._flights: deque[_Flight] = deque()
        self._settled = -1  # the last step that has ended
        self._stale: set[Served] = set()  # stopped ones of which a step is under way
        self._leaving: set[Served] = set()  # of these, those whose last token is
        self._aside = 0  # stopped ones that others go past just now
        self._under_way = 0  # tokens under way of the request that is being stopped, which nobody can find
        self._filled: list[tuple[Served, int]] = []  # who fills pages with answers in this step, and up to which token

    @property
    def steps(self) -> int:
        """Steps that were scheduled [-]."""
        return sum(len(lane.ends) for lane in self._lanes)

    @property
    def waiting(self) -> int:  # type: ignore[override]
        """Requests that wait [-]."""
        return super().waiting + len(self._leaving) + self._aside

    @property
    def reach(self) -> None:
        """Nothing: which lane a request is in depends on every limit."""
        return None

    # a step

    def schedule(self, now_s: float) -> Load | None:
        """Decide what the next step holds; None if there is nothing to do in it."""
        self._lane = lane = self._lanes[self._calls % len(self._lanes)]
        self._calls += 1
        self._decoding, self.series, self.ends = lane.decoding, lane.series, lane.ends
        held_up, self._filled = dict(self.held_up), []
        load = super().schedule(now_s)
        if load is None:
            self.held_up = held_up
        else:
            self._depart(lane)
        return load

    def _depart(self, lane: _Lane) -> None:
        """Let the step that was scheduled be under way: from now on its tokens count as computed."""
        lane.last = number = self._calls
        index, first = len(lane.ends), []
        lane.ends.append(nan)  # until it is known
        ended = self._decoding.advance(self._advancing, self._granted)
        for served, new in self._parts:
            served.computed += new
            served.flight = number
            if served.computed < served.tokens:
                continue
            if served in self._partial:
                self._partial.remove(served)
            first.append(served)
            served.generated += 1
            if served.generated < served.goal:
                self._enter(served, lane)
            else:
                self.ledger.segment(served.request, lane.series, index, 1)
                ended.append(served)
        self._flights.append(_Flight(number, lane, index, first, ended, self._filled))

    def _enter(self, served: Served, lane: _Lane) -> None:
        served.lane = lane
        lane.decoding.enter(served)

    def complete(self, end_s: float) -> list[int]:
        """Give the tokens of the first step under way, and return the requests that have ended here."""
        flight = self._flights.popleft()
        flight.lane.ends[flight.place] = end_s
        self._settled = flight.number
        if self._stale:
            self._stale = {served for served in self._stale if served.flight > flight.number}
        ledger = self.ledger
        for served, upto in flight.filled:
            if served.request in self._running:
                super()._keep(served, upto)
                if served.decodes:
                    served.lane.decoding.fill_next(served)
        for served in flight.first:
            if ledger.first_token_s[served.request] != ledger.first_token_s[served.request]:
                ledger.first_token_s[served.request] = end_s
        for served in sorted(flight.ended, key=lambda served: served.place):
            ledger.finish_s[served.request] = end_s
            if served in self._leaving:
                self._leaving.remove(served)
            else:
                del self._running[served.request]
                self._release(served, served.computed)
        return [served.request for served in flight.ended]

    def _keep(self, served: Served, upto: int) -> None:
        """Let others find the pages that a request fills: where steps are scheduled ahead, those with its answer when their step has ended.

        Only then it is known what their last token is.
        """
        if served.decodes and self.rules.async_scheduling:
            self._filled.append((served, upto))
        else:
            super()._keep(served, upto)

    def _release(self, served: Served, upto: int, under_way: int = 0) -> None:
        """Give back the blocks of a request's first so many tokens; see `VllmScheduler`."""
        super()._release(served, upto, under_way or self._under_way)

    # who takes part

    def _serve(self) -> tuple[int, bool]:
        """Serve those that run one by one; see `VllmScheduler`."""
        self._resting = {served for served in self._running.values() if not self._takes_part(served)}
        return super()._serve()

    def _takes_part(self, served: Served) -> bool:
        """Return whether a running request may have tokens in this step."""
        return served.lane is self._lane if served.decodes else served in self._partial

    def _preempt(self, served: Served, given: int) -> None:
        """Stop a running request; see `VllmScheduler`."""
        here = self._decoding
        if served.decodes:
            last = served.lane.last
            unknown = self.rules.async_scheduling and self._settled < last != served.flight  # not of its prompt, whose tokens are known
            self._under_way = int(unknown)
            served.flight = last
            self._decoding = served.lane.decoding
        elif served not in self._partial:  # its last token is under way
            del self._running[served.request]
            self._release(served, served.computed, int(served.goal > 1 and self.rules.async_scheduling))
            self.ledger.preemptions[served.request] += 1
            self._leaving.add(served)
            return
        super()._preempt(served, given)
        self._decoding, self._under_way = here, 0
        if served.flight > self._settled:
            self._stale.add(served)

    def _admit(self, left: int, now_s: float) -> None:
        """Let waiting requests begin, past those of which a step is under way; see `VllmScheduler`."""
        if not self._stale:
            super()._admit(left, now_s)
            return
        stale = [served for served in self._queue if served in self._stale]
        entries = [entry for entry in self._heap if entry[1] in self._stale]
        self._queue = deque(served for served in self._queue if served not in self._stale)
        self._heap = [entry for entry in self._heap if entry[1] not in self._stale]
        heapify(self._heap)
        self._aside = len(stale) + len(entries)
        super()._admit(left, now_s)
        self._aside = 0
        self._queue.extendleft(reversed(stale))
        for entry in entries:
            heappush(self._heap, entry)
