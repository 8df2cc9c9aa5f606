"""The gap between two tokens of an answer that a share of all gaps does not exceed, where prompts of others share steps with it."""

import math
from statistics import NormalDist

import numpy as np

from roofline.arithmetic import Number
from roofline.serving.closed_forms.forms import SETTLED, each_shared
from roofline.serving.closed_forms.phases import Phases

_TOGETHER = 15  # prompts that come during one step, at most
_PER_PROMPT = 2  # cells of a grid of tokens, for a mean prompt
_CELLS = 32  # of that grid
_BLOCK = 64  # points at a time, for their arrays are cells × cells


def usual_gap(found: Phases, rate: np.ndarray, often: np.ndarray, share: float, cv: Number = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the gap that a share of all gaps between tokens does not exceed, if prompts of others are in some of the steps, at a batch that rests.

    The other array is the share that it does not exceed of the gaps with as many prompts in them, by which it is longer or shorter where the
    batch varies.

    Where a step takes all prompts that came during the one before, their number is a Markov chain: at random (Poisson), with the mean that the
    length of the step before has. Its steady state is found by steps from no prompt. Where prompts run first, all that came during R decode steps,
    and those that come meanwhile, are in one of R gaps. Where lengths of prompts vary by `cv`, it is their tokens that are such a chain: see :func:`drawn_gap`.
    """
    if np.any(found.ranks > 1):
        found, rate = of_all_ranks(found, rate)
    met = np.minimum(often, 1.0)
    single = np.where(met > 1 - share, found.stall, found.decode)
    within = np.where(met > 1 - share, 1 - (1 - share) / np.maximum(met, 1 - share), share / np.maximum(1 - met, share))
    if not found.bulk.any():
        return single, within
    count = np.arange(_TOGETHER + 1.0)
    room = np.where(found.first, np.inf, np.floor(found.whole))
    most = np.minimum(room, _TOGETHER)[:, None]
    each = np.maximum(each_shared(found), 0.0)[:, None]
    gaps = found.decode[:, None] + np.where(count > 0, found.added[:, None] + (np.minimum(count, most) - 1) * each, 0.0)
    every = (found.period / np.maximum(1 - rate * each[:, 0], 1e-3))[:, None]
    mean = np.maximum(rate[:, None] * np.where(found.first[:, None], every, gaps), 1e-300)[..., None]
    factorials = np.cumsum(np.log(np.maximum(count, 1.0)))
    chance = np.exp(count * np.log(mean) - mean - factorials)  # of so many prompts, after each number of them
    chance[..., -1] = 1 - chance[..., :-1].sum(axis=-1)
    state = (count == 0) * np.ones_like(gaps)
    for _ in range(SETTLED):
        state = np.einsum("ri,rij->rj", state, chance)
    row, fewer = np.arange(len(gaps)), np.cumsum(state, axis=1) - state
    level = 1 - (1 - share) * found.interval  # of the gaps with a look
    reached = np.argmax(fewer + state >= level[:, None] - 1e-12, axis=1)
    none = 1 - (1 - state[:, 0]) / found.interval  # of all gaps
    inside = np.where(reached > 0, (level - fewer[row, reached]) / state[row, reached], share / none)
    usual, within = np.where(found.bulk, gaps[row, reached], single), np.where(found.bulk, inside, within)
    drawn = np.flatnonzero(found.bulk & (np.broadcast_to(cv, found.bulk.shape) > 0))
    for rows in np.array_split(drawn, -(-drawn.size // _BLOCK)) if drawn.size else ():
        part = Phases(*(each[rows] for each in found))
        usual[rows], within[rows] = drawn_gap(part, rate[rows], np.broadcast_to(cv, usual.shape)[rows], share)
    return usual, within


def of_all_ranks(found: Phases, rate: np.ndarray) -> tuple[Phases, np.ndarray]:
    """Return phases and rate of ranks that step together as if all prompts came to one, of whose steps they each take a part.

    A first prompt adds what it does on one rank, a further one the R-th part of what one on every rank does, as another rank has it.
    """
    several, ranks, each = found.ranks > 1, found.ranks, each_shared(found)
    each = np.where(found.bulk, each, found.added / found.parts) / ranks
    added = found.added_by_one - found.first * found.decode
    room = np.maximum(np.maximum(found.whole, 1.0) * ranks, 2.0)
    every = {
        "added": np.maximum(added, each),
        "packed": (each * (room - 1) + np.maximum(added, each)) / room,
        "whole": room,
        "bulk": several,
        "first": found.first & ~several,
        "parts": np.ones_like(room),
    }
    named = {name: np.where(several, value, getattr(found, name)) for name, value in every.items()}
    return found._replace(**named), np.where(several, rate * ranks * found.parts, rate)


def drawn_gap(found: Phases, rate: np.ndarray, cv: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the gap between tokens that a share of all gaps does not exceed where prompts are log-normal; see :func:`usual_gap`.

    A step with W mean prompts that wait takes :math:`\min(W, room)` of them, and :math:`a + c \min(W, room)` more than D. To the next one the rest is left, and what came: at random
    (compound Poisson, by its Fourier transform), with the mean that the length of the step has. On a grid of parts of a mean prompt, the steady state is found by steps from
    none. Within a cell gaps are spread evenly.
    """
    tokens = np.arange(_CELLS + 1.0) / _PER_PROMPT
    size, each = tokens.size, np.maximum(each_shared(found), 0.0)
    room = np.where(found.first, np.inf, np.maximum(found.whole, 1.0))[:, None]
    taken = np.minimum(tokens, room)
    gaps = found.decode[:, None] + np.where(tokens > 0, (found.added - each)[:, None] + each[:, None] * taken, 0.0)
    every = found.period / np.maximum(1 - rate * each, 1e-3)
    mean = rate[:, None] * np.where(found.first[:, None], every[:, None], gaps)
    different, which = np.unique(cv, return_inverse=True)
    length = np.fft.rfft([_lengths(float(one)) for one in different], 2 * size)[which]
    came = np.fft.irfft(np.exp(mean[..., None] * (length[:, None] - 1)), 2 * size)[..., :size]
    place = np.arange(size) - np.rint((tokens - taken) * _PER_PROMPT).astype(int)[..., None]
    chance = np.where(place >= 0, np.take_along_axis(came, np.maximum(place, 0), axis=-1), 0.0)
    chance[..., -1] = 1 - chance[..., :-1].sum(axis=-1)
    state = (tokens == 0) * np.ones_like(gaps)
    for _ in range(2 * SETTLED):
        state = np.matmul(state[:, None], chance)[:, 0]
    below, level = np.cumsum(state, axis=1), 1 - (1 - share) * found.interval  # of the gaps with a look
    at, row = np.argmax(below >= level[:, None] - 1e-12, axis=1), np.arange(rate.size)
    inside = (level - below[row, at]) / np.maximum(state[row, at], 1e-12) + 0.5
    gap = gaps[row, at] + np.where((at > 0) & (tokens[at] < room[:, 0]), inside * each / _PER_PROMPT, 0.0)
    none = 1 - (1 - state[:, 0]) / found.interval  # of all gaps
    return gap, np.where(at > 0, 0.5, share / none)


def _lengths(cv: float) -> np.ndarray:
    """Return the chances of the cells of a log-normal length over its mean; what is beyond the last cell is in it, and nothing in the first."""
    spread = math.sqrt(math.log1p(cv**2))
    ends = (np.arange(_CELLS) + 0.5) / _PER_PROMPT
    below = np.array([NormalDist().cdf((math.log(end) + spread**2 / 2) / spread) for end in ends])
    chance = np.diff(below, prepend=0.0, append=1.0)
    chance[1] += chance[0]
    chance[0] = 0.0
    return chance
