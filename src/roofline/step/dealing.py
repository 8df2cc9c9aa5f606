"""How the sequences of a step are dealt out to data-parallel ranks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from roofline.arithmetic import Number

_TOKEN = 4096  # query-key pairs that are about as much work as a token in the linear layers


def weight_of(g: Any) -> Number:
    """Return about how much work a sequence is; it only chooses between bounds that all hold."""
    return g.new * (_TOKEN + g.cached + g.new / 2)


def busiest_counts(counts: Sequence[Number], weights: Sequence[Number], ranks: int) -> list[Number]:
    """Return how many sequences of each group the fullest rank has at least.

    Some rank has a group's part, rounded up, and some rank has an even share of everything; no deal gives both less. Which sequences meet
    on a rank is the scheduler's choice, so parts of different groups must not be added up.
    """
    whole = [-(-count // ranks) for count in counts]
    if len(whole) == 1:
        return whole
    even = [count / ranks for count in counts]
    single = [part * weight for part, weight in zip(whole, weights, strict=True)]
    together = sum(part * weight for part, weight in zip(even, weights, strict=True))
    if not any(isinstance(value, np.ndarray) for value in (*single, together)):
        most = max(range(len(single)), key=single.__getitem__)
        return [whole[i] if i == most else 0 for i in range(len(whole))] if single[most] >= together else even
    stacked = np.stack(np.broadcast_arrays(*single))
    most, alone = np.argmax(stacked, axis=0), stacked.max(axis=0) >= together
    return [np.where(alone, np.where(most == i, part, 0), mean) for i, (part, mean) in enumerate(zip(whole, even, strict=True))]
