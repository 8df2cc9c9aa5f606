"""Mixtures of experts: which weights a step touches."""

import numpy as np

from roofline.arithmetic import Number, minimum
from roofline.errors import InvalidValueError

__all__ = ["Routing", "distinct_experts"]

Routing = str | tuple[float, ...]
"""How tokens spread over experts: ``"uniform"``, ``"best"``, or the probability that a token visits each expert."""


def distinct_experts(tokens: Number, *, count: int, top_k: float, routing: Routing = "uniform") -> Number:
    r"""Return how many distinct experts `tokens` touch in one layer: expected, or at least.

    Uniform and independent routing touches :math:`E (1 - (1 - k/E)^T)` on average; a popularity :math:`q_i`, the probability
    that a token visits expert i, :math:`\sum_i 1 - (1 - q_i)^T`. In the best case all tokens agree on k.

    Parameters
    ----------
    tokens : int or numpy.ndarray
        T, tokens routed [token].
    count : int
        E, routed experts [-].
    top_k : int or float
        k, experts that a token visits [-].
    routing : str or tuple of float, optional
        ``"uniform"``, ``"best"``, or E popularities that add up to k or to 1 [-].

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
    if routing == "best":
        return minimum(top_k, count)
    if routing == "uniform":
        return count * (1 - (1 - min(top_k / count, 1)) ** tokens)
    if isinstance(routing, str):
        raise InvalidValueError(f"routing is {routing!r}; it must be 'uniform', 'best', or an array with the popularity of each expert.")
    visits = _visits(routing, count, top_k)
    return sum((1 - (1 - q) ** tokens for q in visits), start=0.0 * tokens)


def _visits(popularity: tuple[float, ...], count: int, top_k: float) -> list[float]:
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
