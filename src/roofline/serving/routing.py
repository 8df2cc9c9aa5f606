"""Routers: which replica a request goes to, by what a router can see of the replicas."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, ClassVar

from roofline.errors import InvalidValueError, quoted
from roofline.names import normalize_name, unknown_name
from roofline.requests import Workload


class Seen:
    """What a router knows of a replica.

    Parameters
    ----------
    waiting : int
        Requests in its queue, when its state was last read [-].
    running : int
        Requests that it served then [-].
    sent : int
        Requests that the router has sent to it since [-].
    """

    __slots__ = ("running", "sent", "waiting")

    def __init__(self, waiting: int = 0, running: int = 0, sent: int = 0) -> None:
        self.waiting, self.running, self.sent = waiting, running, sent


Choose = Callable[[int, Sequence[Seen]], int]
"""Returns the index of the replica that a request, by its index, goes to."""


class Router:
    """A router that knows nothing of the replicas' state."""

    looks: ClassVar[bool] = False
    """Whether it reads the state of the replicas."""

    def __init__(self, workload: Workload, replicas: int, seed: int) -> None:
        self._workload, self._replicas, self._random = workload, replicas, Random(seed)

    def choose(self, request: int, seen: Sequence[Seen]) -> int:
        """Return the index of a replica."""
        raise NotImplementedError


class RoundRobin(Router):
    """One replica after another."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._next = 0

    def choose(self, request: int, seen: Sequence[Seen]) -> int:
        chosen = self._next
        self._next = (chosen + 1) % self._replicas
        return chosen


class AnyOne(Router):
    """Any replica with the same probability."""

    def choose(self, request: int, seen: Sequence[Seen]) -> int:
        return self._random.randrange(self._replicas)


class LeastLoaded(Router):
    """The replica with the fewest requests, waiting and running; of equal ones the next after the last that was chosen."""

    looks = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._last = -1

    def choose(self, request: int, seen: Sequence[Seen]) -> int:
        best, fewest = 0, -1
        for ahead in range(1, self._replicas + 1):
            at = (self._last + ahead) % self._replicas
            load = seen[at].waiting + seen[at].running
            if fewest < 0 or load < fewest:
                best, fewest = at, load
        self._last = best
        return best


class PowerOfTwo(Router):
    """The less loaded of two replicas that chance picks.

    References
    ----------
    Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12(10), 2001.
    """

    looks = True

    def choose(self, request: int, seen: Sequence[Seen]) -> int:
        if self._replicas == 1:
            return 0
        first, second = self._random.sample(range(self._replicas), 2)
        loads = seen[first].waiting + seen[first].running, seen[second].waiting + seen[second].running
        return first if loads[0] <= loads[1] else second


class VllmRouter(Router):
    """The replica with the smallest 4 · waiting + running, as vLLM's client chooses among data-parallel ranks.

    It counts what it has sent since the last reading as waiting; of equal ones it takes the first.

    References
    ----------
    vLLM, ``v1/engine/core_client.py``, ``DPLBAsyncMPClient.get_core_engine_for_request``; the state is read every 0.1 s.
    """

    looks = True

    def choose(self, request: int, seen: Sequence[Seen]) -> int:
        scores = [4 * (one.waiting + one.sent) + one.running for one in seen]
        return scores.index(min(scores))


class PrefixAware(LeastLoaded):
    """The replica that was sent most of the prompt's first blocks; the least loaded one if that is little, or the loads are far apart.

    What a replica was sent is taken to be in its cache: the router does not see what the replica has dropped since.

    References
    ----------
    sglang-router 0.3.2, policy ``cache_aware``: a share of the prompt above 0.3; loads are far apart when the largest exceeds the smallest
    by more than 64, and is more than 1.5 times it.
    """

    least_share: ClassVar[float] = 0.3
    most_apart: ClassVar[int] = 64
    most_times: ClassVar[float] = 1.5

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._sent: list[set[int]] = [set() for _ in range(self._replicas)]

    def choose(self, request: int, seen: Sequence[Seen]) -> int:
        blocks = self._workload.blocks[request] if self._workload.blocks else ()
        loads = [one.waiting + one.running + one.sent for one in seen]
        low, high = min(loads), max(loads)
        chosen = None
        if blocks and not (high - low > self.most_apart and high > self.most_times * low):
            chosen = self._longest(blocks, loads, self.least_share * int(self._workload.prompt[request]))
        if chosen is None:
            chosen = super().choose(request, seen)
        self._sent[chosen].update(blocks)
        return chosen

    def _longest(self, blocks: Sequence[int], loads: Sequence[int], tokens: float) -> int | None:
        """Return the replica with most of the first blocks, of equal ones the least loaded; None where they are no more than some tokens."""
        found = []
        for sent in self._sent:
            count = 0
            while count < len(blocks) and blocks[count] in sent:
                count += 1
            found.append(count)
        most = max(found)
        if most * self._workload.block_tokens <= tokens:
            return None
        return min((load, at) for at, (count, load) in enumerate(zip(found, loads, strict=True)) if count == most)[1]


class Own(Router):
    """A function of the caller's."""

    looks = True

    def __init__(self, function: Choose, replicas: int) -> None:
        self._function, self._replicas = function, replicas

    def choose(self, request: int, seen: Sequence[Seen]) -> int:
        chosen = self._function(request, seen)
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < self._replicas:
            raise InvalidValueError(f"the router returned {quoted(chosen)}; it must return an index in 0 … {self._replicas - 1}.")
        return chosen


ROUTERS: dict[str, type[Router]] = {
    "round robin": RoundRobin,
    "random": AnyOne,
    "least loaded": LeastLoaded,
    "power of two": PowerOfTwo,
    "prefix": PrefixAware,
    "vllm": VllmRouter,
}
"""Routers by name."""


def check_router(router: Any) -> str | Choose:
    """Return the name of a router, or a function that is one, or raise."""
    if callable(router):
        return router
    if not isinstance(router, str):
        raise InvalidValueError(f"router is {quoted(router)}; it is one of {', '.join(ROUTERS)}, or a function.")
    known = {normalize_name(name): name for name in ROUTERS}
    name = known.get(normalize_name(router))
    if name is None:
        raise unknown_name("router", router, ROUTERS)
    return name


def make_router(router: str | Choose, workload: Workload, replicas: int, seed: int) -> Router:
    """Return a router at its beginning."""
    return ROUTERS[router](workload, replicas, seed) if isinstance(router, str) else Own(router, replicas)
