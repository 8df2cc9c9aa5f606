"""Popularity of experts under a power law, and the load of the busiest device."""

from functools import lru_cache

import numpy as np

from roofline.arithmetic import Number
from roofline.errors import InvalidValueError


def visited(popularity: tuple[float, ...], count: int, top_k: float) -> list[float]:
    """Return the probability that a token visits each expert."""
    q = np.asarray(popularity, dtype=float)
    if q.shape != (count,):
        raise InvalidValueError(f"routing has {q.size} popularities; this model's layers have {count} experts.")
    total = float(q.sum())
    if not np.isfinite(q).all() or (q < 0).any() or min(abs(total - 1), abs(total - top_k)) > 1e-3 * max(1.0, top_k):
        raise InvalidValueError(
            f"routing must hold {count} popularities of at least 0 that add up to 1, or to {top_k} visits; they add up to {total:g}."
        )
    q = q * (top_k / total)
    while (q > 1).any():  # a token visits no expert twice: what is over goes to the others
        full = q >= 1
        rest = q[~full].sum()
        if rest == 0:
            return [float(x) for x in np.minimum(q, 1)]
        q = np.where(full, 1.0, q * ((top_k - full.sum()) / rest))
    return [float(x) for x in q]


def _log_quantiles(chance: np.ndarray, exponent: float, span: float) -> np.ndarray:
    """Return log x where the cumulative distribution of a density x^-α on 1 ≤ x ≤ exp(span) is `chance`: the one power law."""
    power = 1 - exponent
    logs: np.ndarray = chance * span if not power else np.log1p(chance * np.expm1(power * span)) / power
    return logs


_SPREAD = 200.0  # most over least popular: the collector of the tables draws between 0.01 and 2 where tokens are few
_PLACEMENTS = 512  # over which the busiest device is averaged: its visits are then known to half a percent


def busiest_popularity(exponent: float, *, count: int, visits: float, ranks: int = 1) -> tuple[float, ...]:
    r"""Return how often a token visits each expert of the busiest device, where popularity follows a power law.

    Popularities are the :math:`(i - 1/2)/E` quantiles of a density :math:`x^{-\alpha}` on 1 ≤ x ≤ 200, scaled to add up to the visits
    of a token and none above 1. Experts are placed on devices at random; the busiest device is the one that gets most visits.

    Parameters
    ----------
    exponent : float
        α; 0 stands for equal popularities, as it does in tables of measured kernels [-].
    count : int
        E, experts on all devices [-].
    visits : int or float
        k, experts that a token visits on all devices [-].
    ranks : int, optional
        Devices that share the experts, whole ones each [-].

    Returns
    -------
    tuple of float
        The popularity of each expert on the busiest device, rising; each the mean over 512 placements with a fixed seed [-].

    Notes
    -----
    The density is that of ``busiest_rank``, which reproduces the routing that NVIDIA's tables are measured under. There the range
    of x depends on the tokens: it is 200 where they are few, drops, and grows into thousands, so that a further token can take visits off
    the busiest device. Here popularity belongs to the model and not to the batch: visits are proportional to the tokens, and a time
    never falls when a token is added.

    Skew is greatest near α = 2. For large α nearly all x are 1 and popularities equal again; for small positive α they are spread
    evenly between 1 and 200, which is not the equality that 0 stands for.

    Examples
    --------
    >>> sum(busiest_popularity(0, count=256, visits=8, ranks=8))
    1.0
    >>> round(sum(busiest_popularity(1.2, count=256, visits=8, ranks=8)), 1)
    1.4
    """
    return _busiest(float(exponent), count, visits, ranks)


@lru_cache(maxsize=256)
def _busiest(exponent: float, count: int, visits: float, ranks: int) -> tuple[float, ...]:
    if not exponent:
        return (visits / count,) * -(-count // ranks)
    logs = _log_quantiles((np.arange(count) + 0.5) / count, exponent, np.log(_SPREAD))
    drawn = np.exp(logs)
    popularity = np.array(visited(tuple(drawn / drawn.sum()), count, visits))
    if ranks == 1:
        return tuple(popularity.tolist())
    local = -(-count // ranks)  # the last device has what is left
    placed = np.zeros((_PLACEMENTS, ranks * local))
    placed[:, :count] = np.random.default_rng(0).permuted(np.tile(popularity, (_PLACEMENTS, 1)), axis=1)
    held = placed.reshape(_PLACEMENTS, ranks, local)
    busiest = held[np.arange(_PLACEMENTS), held.sum(axis=2).argmax(axis=1)]
    return tuple(np.sort(busiest, axis=1).mean(axis=0).tolist())


def shared_experts(tokens: Number, popularity: tuple[float, ...], *, least: float = 0) -> Number:
    r"""Return how many distinct experts are touched where each gets its share of the visits: :math:`\sum_i \min(1, T q_i)`.

    Parameters
    ----------
    tokens : int or numpy.ndarray
        T, tokens routed [token].
    popularity : tuple of float
        q, experts in rising order of the probability that a token visits them [-].
    least : int or float, optional
        How many any token touches [-].

    Returns
    -------
    float or numpy.ndarray
        Distinct experts, of the shape of `tokens` [-].

    Examples
    --------
    >>> shared_experts(4, (0.125, 0.25, 0.75))
    2.5
    """
    t = np.asarray(tokens, dtype=float)
    below = np.concatenate([[0.0], np.cumsum(popularity)])
    with np.errstate(divide="ignore"):
        few = np.searchsorted(popularity, 1 / t)  # experts with less than one visit
    touched = np.maximum(t * below[few] + (len(popularity) - few), least)
    return touched if t.ndim else float(touched)


_DRAWS = 32  # popularities drawn and averaged over; a table's own figure is the mean of five


def busiest_rank(tokens: Number, *, count: int, top_k: int, ranks: int = 1, exponent: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the visits that the busiest of several devices gets under a synthetic routing, and the experts they touch there.

    The routings are those that NVIDIA's kernel tables are measured under: T tokens each visit k (`top_k`) of E (`count`) experts.
    *Balanced*: token t visits experts :math:`t + i \lceil E/k \rceil` (mod E), i < k. *Power law* of an `exponent` α above 0: each
    expert's share of the visits is in proportion to a draw from a density :math:`x^{-\alpha}` between 1 and 0.8 T, or between 0.01
    and 2 where there are no more visits than experts; shares become whole visits, at most one by each token, and what rounding leaves
    over or lacks is spread over the devices in turn, to the least visited experts or from the most visited. For α near 1 that is a
    log-uniform popularity, of which a batch touches fewer experts than under uniform routing, and one device gets a multiple of its
    share.

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
    draws = np.exp(_log_quantiles(drawn, exponent, np.log(most / least)))
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
