"""`PipelinedSglang`, `PipelinedTrtllm`: the rules of these engines' schedulers where a model is cut into the stages of a pipeline.

Both go round a ring of as many places as there are stages. Before a step is decided for a place, the last one of that place has ended; a place may stay empty. Requests that
decode stay where their prompts were finished, and a prompt that is cut goes on in the next place, before its last part has ended.

SGLang: each place has running requests of its own, at most a p-th of `sequences`; what is reserved for answers is of these alone. TensorRT-LLM: each step
takes all requests of which none is under way, at most `sequences`.

Read in SGLang's srt/managers/scheduler_pp_mixin.py (event_loop_pp; pp_async_batch_depth 0, the default) and scheduler.py
(pp_max_micro_batch_size), and in TensorRT-LLM's tensorrt_llm/_torch/pyexecutor/py_executor.py (_executor_loop_pp).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from roofline.serving.rules import Rules
from roofline.serving.schedulers.decoding import decoding_of
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.sglang import SglangScheduler
from roofline.serving.schedulers.trtllm import TrtllmScheduler
from roofline.serving.schedulers.trtllm_requests import TrtllmRequest
from roofline.serving.steps.load import Load


class _Places:
    """What a scheduler has of its own in each place of the ring: attributes that are put aside while another place is served.

    Parameters
    ----------
    scheduler : object
        Whose attributes [-].
    others : list of mapping
        Those of the places after the first one, which has what the scheduler has now [-].
    """

    def __init__(self, scheduler: Any, others: list[dict[str, Any]]) -> None:
        self._scheduler = scheduler
        self._names = tuple(others[0])
        self._now = 0
        self._aside = [{}, *others]
        self._calls = 0

    def next(self) -> int:
        """Go on to the next place, and return it."""
        place = self._calls % len(self._aside)
        self._calls += 1
        self.go(place)
        return place

    def go(self, place: int) -> None:
        """Serve a place."""
        if place != self._now:
            has = self._scheduler.__dict__
            self._aside[self._now] = {name: has[name] for name in self._names}
            has.update(self._aside[place])
            self._now = place

    def sum(self, of: Callable[[Any], int], name: str) -> int:
        """Return the sum of something of an attribute over all places."""
        mine = getattr(self._scheduler, name)
        return sum(of(mine if place == self._now else aside[name]) for place, aside in enumerate(self._aside))


class PipelinedSglang(SglangScheduler):
    """SGLang's scheduler of a pipeline; see `SglangScheduler`.

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
        super().__init__(replace(rules, sequences=max(1, rules.sequences // stages)), ledger)
        self.in_flight = stages
        self._steps = 0
        self._flights: deque[tuple[int, bool]] = deque()  # the place of each step under way, and whether it holds a part of the cut prompt
        self._ring = _Places(self, [self._place_of(ledger) for _ in range(stages - 1)])

    def _place_of(self, ledger: Ledger) -> dict[str, Any]:
        series, ends = ledger.series()
        own = {"_running": {}, "_long": {}, "_beyond": 0, "_batch": [], "_decodes": False, "_full": False, "series": series, "ends": ends}
        return {"_decoding": decoding_of(self.rules, ledger, ledger.series(), (), 0, self._ahead), **own}

    @property
    def steps(self) -> int:
        """Steps that have ended [-]."""
        return self._steps

    @property
    def running(self) -> int:  # type: ignore[override]
        """Requests that have begun and hold blocks, in any place [-]."""
        return self._ring.sum(len, "_running") + self._ring.sum(len, "_batch") + int(self._partial is not None)

    def schedule(self, now_s: float) -> Load | None:
        """Decide what the next step holds; None if there is nothing to do in it."""
        place, held_up = self._ring.next(), dict(self.held_up)
        load = super().schedule(now_s)
        if load is None:
            self.held_up = held_up
            return None
        cut = [(served, new) for served, new in self._batch if served is self._partial]
        for served, new in cut:  # it goes on in the next place
            served.computed += new
            self._keep(served)
            self._batch.remove((served, new))
        self._flights.append((place, bool(cut)))
        return load

    def complete(self, end_s: float) -> list[int]:
        """Give the tokens of the first step under way, and return the requests that have ended here."""
        place, cut = self._flights.popleft()
        self._ring.go(place)
        self._steps += 1
        since = self._since
        ended = super().complete(end_s)
        if cut:
            self._since = max(self._since, since + self.rules.receive_interval)
        return ended


class PipelinedTrtllm(TrtllmScheduler):
    """TensorRT-LLM's schedulers of a pipeline; see `TrtllmScheduler` and `PipelinedSglang`."""

    def __init__(self, rules: Rules, ledger: Ledger, stages: int) -> None:
        super().__init__(rules, ledger)
        self.in_flight = stages
        self._flights: deque[tuple[int, list[TrtllmRequest]]] = (
            deque()
        )  # the place of each step under way, and the prompts that end with it
        self._ring = _Places(self, [self._place_of(ledger) for _ in range(stages - 1)])

    def _place_of(self, ledger: Ledger) -> dict[str, Any]:
        series, ends = ledger.series()
        decoding = decoding_of(self.rules, ledger, (series, ends), (), 0, self._ahead)
        return {"_decoding": decoding, "_answers": {}, "series": series, "ends": ends}

    @property
    def steps(self) -> int:
        """Steps that have ended [-]."""
        return self._ring.sum(len, "ends")

    @property
    def running(self) -> int:  # type: ignore[override]
        """Requests that have begun and hold blocks, in any place [-]."""
        return self._ring.sum(len, "_answers") + self._begun + sum(len(ending) for _, ending in self._flights)

    def schedule(self, now_s: float) -> Load | None:
        """Decide what the next step holds; None if there is nothing to do in it."""
        place, held_up = self._ring.next(), dict(self.held_up)
        load = super().schedule(now_s)
        if load is None:
            self.held_up = held_up
            return None
        ending = []
        for served, new in self._parts:
            served.computed += new
            if served.computed == served.tokens:
                self._prompts.remove(served)
                self._begun -= 1
                ending.append(served)
        self._parts = []
        self._flights.append((place, ending))
        return load

    def complete(self, end_s: float) -> list[int]:
        """Give the tokens of the first step under way, and return the requests that have ended here."""
        place, ending = self._flights.popleft()
        self._ring.go(place)
        self._prompts += ending
        self._begun += len(ending)
        self._parts = [(served, 0) for served in ending]
        return super().complete(end_s)
