"""What users say: conversations turn by turn, and the blocks that a prefix cache finds again."""

from typing import NamedTuple

import numpy as np

BLOCK_TOKENS = 16
"""Tokens of a block of generated requests [token]."""


class Conversations(NamedTuple):
    """Requests of many conversations, those of one behind each other."""

    prompt: np.ndarray
    output: np.ndarray
    after: np.ndarray
    blocks: tuple[tuple[int, ...], ...]


def shared_blocks(kind: int, system: int) -> tuple[int, ...]:
    """Return the ids of the full blocks of a system prompt."""
    each = system // BLOCK_TOKENS
    return tuple(range(kind * each, (kind + 1) * each))


def conversations(rounds: np.ndarray, *, new: np.ndarray, output: np.ndarray, system: int, which: np.ndarray, kinds: int) -> Conversations:
    """Return the requests of conversations with so many turns each, of which every turn repeats what was said before."""
    first = np.cumsum(rounds) - rounds
    said = np.cumsum(new + output)  # by the end of each turn, counted through all conversations
    before = said - new - output
    context = before - np.repeat(before[first], rounds)  # what was said earlier in its own conversation
    prompt = system + context + new
    after = np.arange(new.size) - 1
    after[first] = -1
    free = kinds * (system // BLOCK_TOKENS)  # first id that no system prompt has
    blocks: list[tuple[int, ...]] = []
    full = ((prompt + output) // BLOCK_TOKENS).tolist()
    for begin, turns, kind in zip(first.tolist(), rounds.tolist(), which.tolist(), strict=True):
        ids = shared_blocks(kind, system)
        longest = full[begin + turns - 1] - len(ids)
        ids += tuple(range(free, free + longest))
        free += longest
        blocks.extend(ids[: full[turn]] for turn in range(begin, begin + turns))
    return Conversations(prompt, output, after, tuple(blocks))
