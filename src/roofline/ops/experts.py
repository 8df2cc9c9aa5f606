"""Mixtures of experts: which weights a step touches, and what one fused kernel over them costs."""

from functools import lru_cache
from typing import Any

import numpy as np

from roofline.arithmetic import Number, minimum
from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.ops.linear import linear
from roofline.ops.op import Op
from roofline.ops.routing import PowerLaw, busiest_popularity, parse_routing, shared_experts, visited


def distinct_experts(tokens: Number, *, count: int, top_k: float, routing: Any = "uniform") -> Number:
    r"""Return how many distinct experts `tokens` touch in one layer: expected, or at least.

    Uniform and independent routing touches :math:`E (1 - (1 - k/E)^T)` on average; a popularity :math:`q_i`, the probability
    that a token visits expert i, :math:`\sum_i 1 - (1 - q_i)^T`; a power law, where every expert gets its share of the visits,
    :math:`\sum_i \min(1, T q_i)` (``ops.routing.busiest_popularity``). In the best case all tokens agree on k.

    Parameters
    ----------
    tokens : int or numpy.ndarray
        T, tokens routed [token].
    count : int
        E, routed experts [-].
    top_k : int or float
        k, experts that a token visits [-].
    routing : str, PowerLaw or array_like, optional
        ``"uniform"``, ``"best"``, ``"power_law_1.2"`` or the like, or E popularities that add up to k or to 1 [-].

    Returns
    -------
    int, float or numpy.ndarray
        Distinct experts, of the shape of `tokens` [-].

    Raises
    ------
    InvalidValueError
        If `routing` is something else, or the popularities are not E numbers of 0 … 1 that add up to k or 1.

    Examples
    --------
    >>> distinct_experts(1, count=8, top_k=2), round(distinct_experts(8, count=8, top_k=2), 2)
    (2.0, 7.2)
    >>> distinct_experts(64, count=128, top_k=8, routing="best")
    8
    """
    routing = parse_routing(routing)
    if routing == "best":
        return minimum(top_k, count)
    if routing == "uniform":
        return count * (1 - (1 - min(top_k / count, 1)) ** tokens)
    if isinstance(routing, PowerLaw):
        return shared_experts(tokens, busiest_popularity(routing.exponent, count=count, visits=top_k))
    visits = visited(routing, count, top_k)
    return sum((1 - (1 - q) ** tokens for q in visits), start=0.0 * tokens)


_DRAWS = 32  # popularities drawn and averaged over; a table's own figure is the mean of five


def busiest_rank(tokens: Number, *, count: int, top_k: int, ranks: int = 1, exponent: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the visits that the busiest of several devices gets under a synthetic routing, and the experts they touch there.

    The routings are those that NVIDIA's kernel tables are measured under. *Balanced*: token t visits experts
    :math:`t + i \lceil E/k \rceil` (mod E), i < k. *Power law*: each expert's share of the visits is in proportion to a draw from
    a density :math:`x^{-\alpha}` between 1 and 0.8 T, or between 0.01 and 2 where there are no more visits than experts; shares
    become whole visits, at most one by each token, and what rounding leaves over or lacks is spread over the devices in turn, to the
    least visited experts or from the most visited. For α near 1 that is a log-uniform popularity, of which a batch
    touches fewer experts than under uniform routing, and one device gets a multiple of its share.

    Parameters
    ----------
    tokens : int or array_like
        T, tokens routed on all devices [token].
    count, top_k : int
        E routed experts, and the k of them that a token visits [-].
    ranks : int, optional
        Devices that share the experts, E / ranks each [-].
    exponent : float, optional
        α of the power law; 0 for balanced routing [-].

    Returns
    -------
    visits, touched : numpy.ndarray
        Visits of the busiest device, the first one if routing is balanced, and distinct experts that it reads; of a power law the
        mean over 32 draws with a fixed seed [-].

    Raises
    ------
    InvalidValueError
        If the experts do not divide over the devices, or a token visits more experts than there are.

    References
    ----------
    ``balanced_logits`` and ``power_law_logits_v3`` in collector/helper.py of https://github.com/ai-dynamo/aiconfigurator.

    Examples
    --------
    >>> visits, touched = busiest_rank(4096, count=256, top_k=8, ranks=8)
    >>> int(visits), int(touched)
    (4096, 32)
    >>> visits, touched = busiest_rank(4096, count=256, top_k=8, ranks=8, exponent=1.2)
    >>> 1.5 < float(visits) / 4096 < 1.8
    True
    """
    if ranks < 1 or count % ranks or not 1 <= top_k <= count:
        raise InvalidValueError(
            f"{count} experts, {top_k} per token, on {ranks} devices: devices hold equally many, and a token visits 1 to {count}."
        )
    t = np.asarray(tokens)
    load = np.array([_load(int(n), count, int(top_k), ranks, float(exponent)) for n in t.ravel()]).reshape(*t.shape, 2)
    return load[..., 0], load[..., 1]


@lru_cache(maxsize=2**16)
def _load(tokens: int, count: int, top_k: int, ranks: int, exponent: float) -> tuple[float, float]:
    if not exponent:
        return _balanced_load(tokens, count, top_k, count // ranks)
    least, most = (1.0, 0.8 * tokens) if tokens * top_k > count else (0.01, 2.0)
    drawn = np.random.default_rng(0).random((_DRAWS, count))
    power = 1 - exponent  # the inverse of the cumulative distribution; at an exponent of 1 its limit
    draws = least * (most / least) ** drawn if not power else ((most**power - least**power) * drawn + least**power) ** (1 / power)
    visits = np.minimum(np.round(draws / draws.sum(axis=1, keepdims=True) * tokens * top_k), tokens)
    lacking = tokens * top_k - visits.sum(axis=1, keepdims=True)
    held = visits.reshape(_DRAWS, ranks, count // ranks)
    # one by one over the devices in turn: so many to or from each
    turns = np.sign(lacking) * (abs(lacking) // ranks + (np.arange(ranks) < abs(lacking) % ranks))
    total = held.sum(axis=2) + turns
    # what is added goes to experts without visits first; what is taken comes from the most visited, which keep some if they can
    touched = np.minimum(np.minimum((held > 0).sum(axis=2) + np.maximum(turns, 0), total), count // ranks)
    busiest = np.arange(_DRAWS), total.argmax(axis=1)
    return float(total[busiest].mean()), float(touched[busiest].mean())


def _balanced_load(tokens: int, count: int, top_k: int, here: int) -> tuple[float, float]:
    stride = -(-count // top_k)
    token, choice = np.arange(tokens)[:, None], np.arange(top_k) * stride
    first = token if tokens >= stride else token * stride // tokens
    visits = np.bincount(((first + choice) % count).ravel(), minlength=count)[:here]
    return float(visits.sum()), float((visits > 0).sum())


def expert_sizes(*, hidden: int, intermediate: int, matrices: int, expert_bytes: Number, count: int, ranks: int = 1) -> dict[str, Number]:
    """Return the sizes that the time of a fused kernel over experts depends on: what ``Op.sizes`` holds.

    Parameters
    ----------
    hidden, intermediate : int
        Width of the rows, and inside one expert on this device [-].
    matrices : int
        Matrices of an expert: 3 if it is gated, else 2 [-].
    expert_bytes : int or float
        One expert as stored on this device [B].
    count : int
        Experts on this device [-].
    ranks : int, optional
        Devices that share the experts, whole ones each [-].

    Returns
    -------
    dict
        The sizes by name [-].
    """
    return {
        "hidden": hidden,
        "intermediate": intermediate,
        "matrices": matrices,
        "expert_bytes": expert_bytes,
        "count": count,
        "ranks": ranks,
    }


def fused_experts(
    name: str,
    *,
    visits: Number,
    touched: Number,
    hidden: int,
    intermediate: int,
    count: int,
    weights: Format,
    activations: Format,
    stream: Format,
    gated: bool = True,
    ranks: int = 1,
    routed: Number | None = None,
) -> Op:
    """Return the cost of one fused kernel over the routed experts of a device, every visit's row read and written once.

    Parameters
    ----------
    name : str
        What to call it [-].
    visits : int, float or numpy.ndarray
        Visits that experts of this device get [-].
    touched : int, float or numpy.ndarray
        Distinct experts that they touch, whose weights are read [-].
    hidden, intermediate : int
        Width of the rows, and inside one expert on this device [-].
    count : int
        Experts on this device [-].
    weights, activations, stream : Format
        As in :func:`roofline.ops.linear` [-].
    gated : bool, optional
        Three matrices per expert instead of two [-].
    ranks : int, optional
        Devices that share the experts, whole ones each [-].
    routed : int, float or numpy.ndarray, optional
        Visits on all of them together, a multiple of `visits` if not given [-].

    Returns
    -------
    Op
        A contraction of the family ``"experts"``; its `rows` are an average device's share of `routed` [-].

    Examples
    --------
    >>> bf16 = Format.load("bf16")
    >>> sizes = {"hidden": 4096, "intermediate": 14336, "count": 8}
    >>> op = fused_experts("experts", visits=2, touched=2, **sizes, weights=bf16, activations=bf16, stream=bf16)
    >>> op.flops == op.weight_bytes == 2 * 2 * 3 * 4096 * 14336
    True
    """
    wide, down = (
        linear(label, visits, inputs=k, outputs=n, weights=weights, activations=activations, stream=stream, reads=touched)
        for label, k, n in (("up", hidden, intermediate * (1 + gated)), ("down", intermediate, hidden))
    )
    one = (2 + gated) * hidden * intermediate * weights.bytes_per_element
    return Op(
        name,
        "contraction",
        wide.operand,
        flops=wide.flops + down.flops,
        weight_bytes=wide.weight_bytes + down.weight_bytes,
        input_bytes=wide.input_bytes,
        output_bytes=down.output_bytes,
        rows=visits if routed is None else routed / ranks,
        family="experts",
        stored=weights.name,
        sizes=expert_sizes(hidden=hidden, intermediate=intermediate, matrices=2 + gated, expert_bytes=one, count=count, ranks=ranks),
    )
