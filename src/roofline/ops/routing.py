"""How tokens spread over experts: what a routing may be, and how popular it makes the experts of the busiest device."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from roofline.arithmetic import Number
from roofline.errors import InvalidValueError
from roofline.names import nearest_names


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """Experts of unequal popularity, see :func:`busiest_popularity`.

    Parameters
    ----------
    exponent : float
        α of the density :math:`x^{-α}` of popularities; 0 for equal ones [-].
    """

    exponent: float

    def __str__(self) -> str:
        return f"power_law_{self.exponent:.12g}"


Routing = Literal["uniform", "best"] | PowerLaw | tuple[float, ...]
"""How tokens spread over experts: ``"uniform"``, ``"best"``, a power law, or the probability that a token visits each expert."""

_NAMED: dict[str, Literal["uniform", "best"]] = {"uniform": "uniform", "best": "best"}
_LAW = re.compile(r"power_law_((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", re.ASCII)


def parse_routing(routing: Any) -> Routing:
    """Return what a routing means, the one place that knows what may be said.

    Parameters
    ----------
    routing : str, array_like or PowerLaw
        ``"uniform"``, ``"best"``, ``"power_law_1.2"`` with any exponent of at least 0, or the popularity of each expert [-].

    Returns
    -------
    str, PowerLaw or tuple of float
        The routing; popularities are not checked here, because how many there must be is the layer's to say [-].

    Raises
    ------
    InvalidValueError
        If it is anything else.

    Examples
    --------
    >>> parse_routing("power_law_1.2")
    PowerLaw(exponent=1.2)
    """
    near: list[str] = []
    if isinstance(routing, PowerLaw):
        return routing
    if isinstance(routing, str):
        if routing in _NAMED:
            return _NAMED[routing]
        law = _LAW.fullmatch(routing)
        if law is not None and np.isfinite(float(law[1])):
            return PowerLaw(float(law[1]))
        near = nearest_names(routing, (*_NAMED, "power_law_1.2"), most=1)
    elif routing is not None:
        try:
            return tuple(np.asarray(routing, dtype=float).ravel().tolist())
        except (TypeError, ValueError, OverflowError):
            pass
    raise InvalidValueError(
        f"routing is {routing!r}; it must be 'uniform', 'best', 'power_law_' and an exponent of at least 0 (power_law_1.2), "
        f"or an array with the popularity of each expert{f'; nearest: {near[0]}' if near else ''}."
    )


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
    while (q > 1).any():  # nobody is visited twice by one token: what is over goes to the others
        full = q >= 1
        rest = q[~full].sum()
        if rest == 0:
            return [float(x) for x in np.minimum(q, 1)]
        q = np.where(full, 1.0, q * ((top_k - full.sum()) / rest))
    return [float(x) for x in q]


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
    This is the routing that NVIDIA's tables are measured under, as ``busiest_rank`` counts it, but for one thing. There the range of
    x depends on the tokens: it is 200 where they are few, drops, and grows into thousands, so that a further token can take visits off
    the busiest device. Here popularity is the model's and not the batch's: visits are proportional to the tokens, and nothing falls.

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
    power, span, chance = 1 - exponent, np.log(_SPREAD), (np.arange(count) + 0.5) / count
    # the inverse of the cumulative distribution; at an exponent of 1 its limit
    logs = chance * span if not power else np.log1p(chance * np.expm1(power * span)) / power
    drawn = np.exp(logs - logs.max())
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
