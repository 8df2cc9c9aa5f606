"""A group of alike sequences: what a step is made of."""

from typing import Any, NamedTuple

import numpy as np

from roofline.errors import InvalidValueError


class Sequences(NamedTuple):
    """A group of alike sequences in a step.

    Parameters
    ----------
    count : int or numpy.ndarray
        How many sequences [-].
    new : int or numpy.ndarray
        Tokens of each to process in this step [token].
    cached : int or numpy.ndarray
        Tokens of each already in the cache [token].
    sampled : int or numpy.ndarray
        Rows of each that reach the LM head, at most `new` [token].
    """

    count: Any
    new: Any
    cached: Any
    sampled: Any

    def refuse_cache(self) -> None:
        """Raise if something is cached: an encoder cannot go on from it."""
        if np.any(self.cached):
            raise InvalidValueError(
                "an encoder (bidirectional attention) has no cache: use a prefill with cached=0, not a decode or a prefix hit."
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequences) and all(map(np.array_equal, self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(map(np.shape, self)))
