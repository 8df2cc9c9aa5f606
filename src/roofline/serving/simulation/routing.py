"""Routers: which replica a request goes to, by what a router can see of the replicas."""

from collections.abc import Callable, Sequence
from itertools import cycle
from random import Random
from typing import Any, NamedTuple

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


class Router(NamedTuple):
    """A router at its beginning.

    Parameters
    ----------
    choose : callable
        What chooses [-].
    looks : bool
        Whether it reads the state of the replicas [-].
    """

    choose: Choose
    looks: bool


def round_robin(workload: Workload, replicas: int, random: Random) -> Choose:
    """Return a router that takes one replica after another."""
    turns = cycle(range(replicas))
    return lambda request, seen: next(turns)


def any_one(workload: Workload, replicas: int, random: Random) -> Choose:
    """Return a router that takes any replica with the same probability."""
    return lambda request, seen: random.randrange(replicas)


def least_loaded(workload: Workload, replicas: int, random: Random) -> Choose:
    """Return a router that takes the replica with the fewest requests, waiting and running; of equal ones the next after the last taken."""
    last = -1

    def choose(request: int, seen: Sequence[Seen]) -> int:
        nonlocal last
        loads = [one.waiting + one.running for one in seen]
        fewest = min(loads)
        last = next(at for ahead in range(1, replicas + 1) if loads[at := (last + ahead) % replicas] == fewest)
        return last

    return choose


def power_of_two(workload: Workload, replicas: int, random: Random) -> Choose:
    """Return a router that takes the less loaded of two replicas that chance picks.

    References
    ----------
    Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12(10), 2001.
    """

    def choose(request: int, seen: Sequence[Seen]) -> int:
        first, second = random.sample(range(replicas), 2)
        fewer = seen[first].waiting + seen[first].running <= seen[second].waiting + seen[second].running
        return first if fewer else second

    return choose


def as_vllm(workload: Workload, replicas: int, random: Random) -> Choose:
    """Return a router that takes the smallest 4 · waiting + running, as vLLM's client chose among data-parallel ranks before 0.33.

    It counts what it has sent since the last reading as waiting; of equal ones it takes the first.

    References
    ----------
    vLLM, ``v1/engine/core_client.py``, ``DPLBAsyncMPClient.get_core_engine_for_request``; the state is read every 0.1 s.
    """

    def choose(request: int, seen: Sequence[Seen]) -> int:
        scores = [4 * (one.waiting + one.sent) + one.running for one in seen]
        return scores.index(min(scores))

    return choose


_LEAST_SHARE, _MOST_APART, _MOST_TIMES = 0.3, 64, 1.5


def by_prefix(workload: Workload, replicas: int, random: Random) -> Choose:
    """Return a router that takes the replica that was sent most of the prompt's first blocks; the least loaded if loads are far apart.

    It takes the least loaded one too if the blocks are no more than 0.3 of the prompt. What a replica was sent is taken to be in its cache:
    the router does not see what it has dropped since.

    References
    ----------
    sglang-router 0.3.2, policy ``cache_aware``: loads are far apart when the largest exceeds the smallest by more than 64, and is more than
    1.5 times it.
    """
    other = least_loaded(workload, replicas, random)
    known: list[set[int]] = [set() for _ in range(replicas)]
    prompts = workload.prompt.tolist()

    def choose(request: int, seen: Sequence[Seen]) -> int:
        blocks = workload.blocks[request] if workload.blocks else ()
        loads = [one.waiting + one.running + one.sent for one in seen]
        low, high = min(loads), max(loads)
        found = [_first_known(blocks, ids) for ids in known]
        enough = max(found) * workload.block_tokens > _LEAST_SHARE * prompts[request]
        if enough and not (high - low > _MOST_APART and high > _MOST_TIMES * low):
            _, _, chosen = min((-count, load, at) for at, (count, load) in enumerate(zip(found, loads, strict=True)))
        else:
            chosen = other(request, seen)
        known[chosen].update(blocks)
        return chosen

    return choose


def _first_known(blocks: Sequence[int], known: set[int]) -> int:
    return next((at for at, block in enumerate(blocks) if block not in known), len(blocks))


ROUTERS: dict[str, tuple[Callable[[Workload, int, Random], Choose], bool]] = {
    "round robin": (round_robin, False),
    "random": (any_one, False),
    "least loaded": (least_loaded, True),
    "power of two": (power_of_two, True),
    "prefix": (by_prefix, True),
    "vllm": (as_vllm, True),
}
"""By name, what makes a router, and whether it reads the state of the replicas."""


def check_router(router: Any) -> str | Choose:
    """Return the name of a router, or a function that is one, or raise."""
    if callable(router):
        return router  # type: ignore[no-any-return]
    if not isinstance(router, str):
        raise InvalidValueError(f"router is {quoted(router)}; it is one of {', '.join(ROUTERS)}, or a function.")
    name = {normalize_name(name): name for name in ROUTERS}.get(normalize_name(router))
    if name is None:
        raise unknown_name("router", router, ROUTERS)
    return name


def make_router(router: str | Choose, workload: Workload, replicas: int, seed: int) -> Router:
    """Return a router at its beginning; of a single replica it has nothing to look at."""
    if replicas == 1:
        return Router(lambda request, seen: 0, False)
    if isinstance(router, str):
        make, looks = ROUTERS[router]
        return Router(make(workload, replicas, Random(seed)), looks)

    def choose(request: int, seen: Sequence[Seen]) -> int:
        chosen = router(request, seen)
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < replicas:
            raise InvalidValueError(f"the router returned {quoted(chosen)}; it must return an index in 0 … {replicas - 1}.")
        return chosen

    return Router(choose, True)
