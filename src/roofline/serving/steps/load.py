"""`Load`: what one step holds, as far as its time depends on it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple


class Load(NamedTuple):
    """A step of one scheduler.

    Parameters
    ----------
    decodes : int
        Sequences that continue their answers [-].
    context : int
        Tokens that these have in the cache, all together [token].
    prompts : int
        Sequences of whose prompts the step computes a part [-].
    tokens : int
        Tokens of these parts [token].
    pairs : int
        Pairs of a token of these parts and a position that it sees: of n new tokens after k in the cache, n·k + n(n+1)/2 [-].
    ended : int
        How many of these parts end their prompts, so that a first token is sampled [-].
    """

    decodes: int
    context: int
    prompts: int = 0
    tokens: int = 0
    pairs: int = 0
    ended: int = 0


load_of: Callable[[tuple[int, int, int, int, int, int]], Load] = partial(tuple.__new__, Load)
"""Makes a load of its six numbers, in a third of the time that ``Load(...)`` takes [-]."""

StepSeconds = Callable[[Load], float]
"""Returns how long a step takes [s]."""


class SecondsByNumber:
    """Returns how long a step takes, and of steps that only decode it has what is left to look up once their number is known.

    Parameters
    ----------
    seconds : callable
        How long a step takes [s].
    decoding : callable
        Takes how many sequences decode, and returns a function of the sum of their contexts, which says the same [s].
    """

    def __init__(self, seconds: StepSeconds, decoding: Callable[[int], Callable[[int], float]]) -> None:
        self._seconds = seconds
        self.decoding = decoding

    def __call__(self, load: Load) -> float:
        """Return how long a step takes."""
        return self._seconds(load)


RankSeconds = Callable[[Sequence[Load]], float]
"""Returns how long a step takes of data-parallel ranks that each have a load of their own [s]."""
