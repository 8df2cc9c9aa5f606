"""Tables of step times: what arrays of steps are timed once, so that a simulation only looks up."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from roofline.serving.rules import Rules
from roofline.serving.steps.parts import Part, StepParts
from roofline.step.grouped import GroupedSteps
from roofline.step_time import StepTime

_CONTEXTS = np.array([0, *(64 * 2 ** (i / 2) for i in range(29))])  # of decodes, on average [token]
_POSITIONS = np.array([1.0, *(2.0**i for i in range(1, 21))])  # that a token of a prompt sees, on average [token]
_PROMPTS = 6  # times the fewest: where it is found what another prompt adds
_PHASES = 4  # places within a chunk of chunked attention


@dataclass(frozen=True, slots=True)
class Roof:
    """The tables of one roof of a floor, or of an estimate's or roofline's only one; Python lists throughout [s].

    Parameters
    ----------
    tokens : list of float
        By the step's tokens [s].
    sampled : list of float
        By the rows that reach the LM head [s].
    all_ranks : list of float
        By the tokens of all data-parallel ranks; empty where there is one rank [s].
    decodes : list of list of float
        Everything by the number of decodes, in steps without prompts, and the mean context; without what is of all ranks [s].
    mixed : list of float
        What depends on contexts, flat: decodes × mean context × tokens of prompts × positions that each sees, in the fewest prompts
        that have so many tokens and positions [s].
    further : list of float
        What each prompt adds beyond these, which reads more of the cache; empty where at most one prompt of a step has something there,
        because it was cut [s].
    """

    tokens: list[float]
    sampled: list[float]
    all_ranks: list[float]
    decodes: list[list[float]]
    mixed: list[float]
    further: list[float]


@dataclass(frozen=True, slots=True)
class StepTables:
    """Times of a deployment's steps under an engine's limits.

    Parameters
    ----------
    roofs : tuple of Roof
        One for each roof, of which the longest counts [-].
    contexts : list of float
        Nodes of the mean context of decodes [token].
    axes : tuple of list of float
        Nodes of the four axes of `Roof.mixed` [-].
    rows : int
        Tokens that a decode has in a step: 1, and drafts [token].
    ranks : int
        Data-parallel ranks [-].
    step_s, sequence_s : float
        What the host takes for each step, and for each sequence of one [s].
    launch_s : float
        Least time of a step whose layers the host launches one by one [s].
    graph_tokens, graph_decodes : int
        Most tokens of a step with prompts, and most decodes of one without, that the host launches as graphs [-].
    """

    roofs: tuple[Roof, ...]
    contexts: list[float]
    axes: tuple[list[float], ...]
    rows: int
    ranks: int
    step_s: float
    sequence_s: float
    launch_s: float
    graph_tokens: float
    graph_decodes: float


def tables_of(time: StepTime, rules: Rules, spread: float = 0.0) -> StepTables:
    """Return the tables for steps that some rules allow."""
    parts, rows, most = StepParts(time), 1 + rules.drafts, rules.sequences
    longest = rules.max_model_len or _CONTEXTS[-1]
    contexts = np.union1d(_upto(longest, _CONTEXTS), parts.spans)
    axes = (
        np.array([0, *_nodes(most, 2.0)]),
        np.union1d(_upto(longest, np.append(0, _CONTEXTS[1::2])), parts.spans),
        _nodes(max(rules.step_tokens, 2), 2.0),
        np.union1d(_upto(longest, _POSITIONS), parts.spans + 1),
    )
    host = _host(time, rules)
    roofs = _roofs(parts, rules, spread, contexts, axes)
    if time.timing is not None and (time.timing.hooks or (time.quantile or 1) < 0.5):  # what may lie below the floor
        floor = StepParts(StepTime(time.deployment, "floor"))
        roofs += _roofs(floor, rules, spread, contexts, axes, less_s=host[0], less_each_s=host[1])
    return StepTables(tuple(roofs), contexts.tolist(), tuple(axis.tolist() for axis in axes), rows, parts.ranks, *host)


def _roofs(
    parts: StepParts,
    rules: Rules,
    spread: float,
    contexts: np.ndarray,
    axes: Sequence[np.ndarray],
    *,
    less_s: float = 0.0,
    less_each_s: float = 0.0,
) -> list[Roof]:
    """Return the tables of every roof, `less_s` subtracted from all times, and from those of decodes `less_each_s` for each of them."""
    rows, most = 1 + rules.drafts, rules.sequences
    tokens = max(rules.step_tokens, most * rows) + most * rows
    by_tokens = _curve(parts, "tokens", tokens, sampled=0) - less_s
    by_sampled = _curve(parts, "sampled", 2 * most * rows, sampled=1)
    by_all = _curve(parts, "all ranks", tokens * parts.ranks, sampled=0) if parts.ranks > 1 else None
    batch, context = _nodes(most, 1.1), _Contexts(parts, rows, spread)
    alone, (mixed, further) = context.alone(batch, contexts), context.mixed(axes, further=rules.prefix_caching)
    roofs = []
    for roof in range(by_tokens.shape[0]):
        decodes = np.stack([np.interp(np.arange(most + 1), [0, *batch], [0, *column]) for column in alone[roof].T], axis=1)
        here = slice(rows, most * rows + 1, rows)
        decodes[1:] += (by_tokens[roof][here] + by_sampled[roof][here] - less_each_s * np.arange(1, most + 1))[:, None]
        all_ranks = [] if by_all is None else by_all[roof].tolist()
        flat = (table[roof].ravel().tolist() for table in (mixed, further))
        roofs.append(Roof(by_tokens[roof].tolist(), by_sampled[roof].tolist(), all_ranks, decodes.tolist(), *flat))
    return roofs


def _upto(longest: float, nodes: np.ndarray) -> np.ndarray:
    """Return the nodes up to the first that is no less than the longest length, at least three."""
    return nodes[: max(3, int(np.searchsorted(nodes, longest)) + 1)]


def _nodes(most: int, ratio: float) -> np.ndarray:
    """Return whole numbers from 1 on, up to the first that is no less than `most`: each one, as long as they are nearer than a ratio, then at that ratio.

    They are the same up to any `most`, so that what a step takes does not depend on limits that it is far from.
    """
    found = [1.0]
    while found[-1] < most:
        found.append(max(found[-1] + 1, float(np.ceil(found[-1] * ratio))))
    return np.array(found)


def _curve(parts: StepParts, part: Part, most: int, *, sampled: int) -> np.ndarray:
    """Return what a part takes for 0, 1, … `most` tokens, roofs × tokens, from nodes every 2 % [s]."""
    nodes = _nodes(most, 1.02)
    of_rank = nodes / parts.ranks if part == "all ranks" else nodes
    seconds = parts.seconds(part, GroupedSteps.rows(of_rank[:, None], 1, 0, sampled))
    return np.stack([np.interp(np.arange(most + 1), [0, *nodes], [0, *row]) for row in seconds])


@dataclass(frozen=True, slots=True)
class _Contexts:
    """What depends on contexts, with the deviation of a quantile."""

    parts: StepParts
    rows: int  # tokens of a decode
    spread: float  # of the contexts of decodes, relative to their mean

    def alone(self, batch: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        """Return the time of decodes alone, roofs × batches × contexts [s]."""
        return self._seconds([self._decodes(*np.broadcast_arrays(batch[:, None], contexts))])

    def mixed(self, axes: Sequence[np.ndarray], *, further: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the time of steps with prompts, and what another prompt adds if that is asked for, each roofs × the four axes [s]."""
        decodes, contexts, tokens, positions = np.meshgrid(*axes, indexing="ij", copy=False)
        fewest = np.maximum(1, tokens / (2 * positions - 1))  # with nothing in the cache, unless it is one
        many = np.minimum(_PROMPTS * fewest, tokens)
        beside = self._decodes(decodes, contexts)
        least = self._seconds([beside, self._prompts(fewest, tokens, positions)])
        if not further:
            return least, least[:, :0]
        most = self._seconds([beside, self._prompts(many, tokens, positions)])
        return least, (most - least) / np.maximum(many - fewest, 1)

    def _decodes(self, count: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return groups of decodes with such a mean context, in arrays … × groups."""
        cached = self._phases(context)
        if self.spread and self.parts.spans.size:
            cached = (cached[..., None] * _lengths(self.spread)).reshape(*context.shape, -1)
        share = count[..., None] / cached.shape[-1]
        return np.broadcast_to(share, cached.shape), np.full_like(cached, self.rows), cached, np.full_like(cached, self.rows)

    def _prompts(self, count: np.ndarray, tokens: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return so many prompts with tokens that see so many positions each, in arrays … × groups."""
        new = tokens / count
        cached = self._phases(np.maximum(0, positions - (new + 1) / 2))
        share = count[..., None] / cached.shape[-1]
        return np.broadcast_to(share, cached.shape), np.broadcast_to(new[..., None], cached.shape), cached, np.ones_like(cached)

    def _phases(self, length: np.ndarray) -> np.ndarray:
        """Return lengths at all places within a chunk, where attention is in chunks; their mean stays, in arrays … × phases."""
        places = (np.arange(_PHASES) + 0.5) / _PHASES - 0.5 if self.parts.chunk else np.zeros(1)
        return np.asarray(length[..., None] + np.minimum(length, self.parts.chunk)[..., None] * places)

    def _seconds(self, groups: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        steps = GroupedSteps.rows(*(np.concatenate(fields, axis=-1) for fields in zip(*groups, strict=True)))
        return np.asarray(self.parts.seconds("contexts", steps) + self.parts.deviation(steps))


def _lengths(spread: float) -> np.ndarray:
    """Return the lengths of eight equal parts of a log-normal distribution with such a spread, relative to its mean."""
    sigma = float(np.sqrt(np.log1p(spread**2)))
    found = np.exp([sigma * NormalDist().inv_cdf((i + 0.5) / 8) for i in range(8)])
    return np.asarray(found / found.mean())


def _host(time: StepTime, rules: Rules) -> tuple[float, float, float, float, float]:
    """Return the host's times and what it launches as graphs: step, sequence, launching [s], tokens, decodes [-]."""
    if time.timing is None:
        return 0.0, 0.0, 0.0, np.inf, np.inf
    own = time.timing.overheads
    if not own.cuda_graph:
        launches = sum(int(stack.counts.sum()) for stack, _ in time.timing.kernels)
        return own.step.value, own.sequence_s, max(launches * own.launch.value, own.layers_s), -1, -1
    graph = rules.graph_sequences / (1 + rules.drafts if rules.engine == "vllm" else 1) or np.inf  # vLLM counts rows
    tokens = own.graph_tokens if rules.graph_tokens is None else rules.graph_tokens
    return own.step.value, own.sequence_s, own.layers_s, tokens, graph
