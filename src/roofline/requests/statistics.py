"""Means and percentiles with intervals, of values that came one after the other and depend on each other."""

from collections.abc import Sequence
from math import inf, nan
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.requests.checking import share

_FEWEST, _MOST = 5, 10  # batches: few long ones, as neighbours among short ones would be alike
_BEYOND, _LEAST_BEYOND = 200, 20  # values of a batch beyond the percentile: those wanted, and those without which there is no interval
_MEAN_TAIL = 0.1  # a mean takes batches as long as a 90th percentile


class Interval(NamedTuple):
    """A figure of a sample, and where that of the whole population lies at the confidence asked.

    Parameters
    ----------
    value : float
        The figure of the sample [unit].
    low, high : float
        The interval; not a number where the sample is too short for one [unit].
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval, relative to the figure [-]."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else nan


def mean_interval(values: Any, *, confidence: float = 0.9, correlated: bool = True) -> Interval:
    """Return the mean of values with its interval, by batch means or, for independent values, by Student's t.

    Of b batches of equal length with the means y_j, and the mean y of all: y ± t(b − 1) · √(Σ (y_j − y)² / (b (b − 1))). Independent values are
    batches of one. The means of replications, runs with seeds of their own, are independent.

    Parameters
    ----------
    values : array_like
        Values in the order in which they came; at least one [unit].
    confidence : float, optional
        How often the interval shall hold the mean of the population [-].
    correlated : bool, optional
        Whether neighbours depend on each other, as requests of one run do [-].

    Returns
    -------
    Interval
        The mean, and an interval if there are at least 1,000 values, or 2 independent ones [unit].

    Raises
    ------
    InvalidValueError
        If there is no value, one is not finite, or confidence is not between 0 and 1.

    References
    ----------
    A. M. Law, Simulation Modeling and Analysis, 5th ed., McGraw-Hill 2015, sections 9.5.2 and 9.5.3.
    """
    given = _checked(values, confidence)
    batches = _batches(given.size, _MEAN_TAIL) if correlated else given.size
    return _interval(float(given.mean()), _split(given, batches).mean(axis=1) if batches > 1 else None, confidence)


def percentile_interval(values: Any, q: float, *, confidence: float = 0.9, correlated: bool = True) -> Interval:
    """Return a percentile of values with its interval, by sectioning or, for independent values, by order statistics.

    Of b batches of equal length with the percentiles y_j, and y of all values: y ± t(b − 1) · √(Σ (y_j − y)² / (b (b − 1))). Of n independent
    values in ascending order: from the l-th to the u-th, with P(l ≤ Binomial(n, q) < u) ≥ confidence.

    Parameters
    ----------
    values : array_like
        Values in the order in which they came; at least one [unit].
    q : float
        Which percentile, as a share: 0.99 for the 99th [-].
    confidence : float, optional
        How often the interval shall hold the percentile of the population [-].
    correlated : bool, optional
        Whether neighbours depend on each other, as requests of one run do [-].

    Returns
    -------
    Interval
        The percentile, between neighbours by a straight line as in ``numpy.percentile``. There is an interval if at least 100 values lie beyond
        the percentile; of independent values, an end that the sample does not bound is infinite [unit].

    Raises
    ------
    InvalidValueError
        If there is no value, one is not finite, or q or confidence is not between 0 and 1.

    Notes
    -----
    In a queue (M/M/1) at 70 % load 90 % intervals of 20,000 waiting times hold the true percentile in 85 to 95 % of runs. At higher loads waiting times
    are alike for longer, in proportion to 1 / (1 − load)², and the run has to be longer too: at 90 % load and 100,000 of them in 85 to 91 %.

    References
    ----------
    S. Asmussen and P. W. Glynn, Stochastic Simulation, Springer 2007, section III.5a (sectioning). H. Dong and M. K. Nakayama, A Tutorial on
    Quantile Estimation via Monte Carlo, in Monte Carlo and Quasi-Monte Carlo Methods 2018, Springer 2020. H. A. David and
    H. N. Nagaraja, Order Statistics, 3rd ed., Wiley 2003, section 7.1.
    """
    given = _checked(values, confidence)
    q = share("q", q)
    return percentile_intervals(given, (q,), confidence)[0] if correlated else _of_order(np.sort(given), q, confidence)


def percentile_intervals(values: np.ndarray, qs: Sequence[float], confidence: float) -> list[Interval]:
    """Return several percentiles of correlated values, checked before, with their intervals."""
    whole = np.quantile(values, qs)
    found, by_batches = [], {}
    for q, value in zip(qs, whole.tolist(), strict=True):
        batches = _batches(values.size, min(q, 1 - q))
        if batches and batches not in by_batches:  # once for all percentiles of as many batches
            by_batches[batches] = np.quantile(_split(values, batches), qs, axis=1)
        found.append(_interval(value, by_batches[batches][qs.index(q)] if batches else None, confidence))
    return found


def _checked(values: Any, confidence: float) -> np.ndarray:
    try:
        given = np.asarray(values, dtype=float).ravel()
    except (TypeError, ValueError, OverflowError):
        given = np.array([nan])
    if not given.size or not np.isfinite(given).all():
        raise InvalidValueError(f"values are {quoted(values)}; they must be finite numbers, at least one.")
    share("confidence", confidence)
    return given


def _batches(count: int, tail: float) -> int:
    """Return in how many batches to split; 0 if they would be too short."""
    beyond = count * tail * (1 + 1e-12)
    return int(min(max(beyond // _BEYOND, _FEWEST), _MOST)) if beyond >= _FEWEST * _LEAST_BEYOND else 0


def _split(values: np.ndarray, batches: int) -> np.ndarray:
    """Return equal batches as rows; of what does not divide, the first values are left out."""
    length = values.size // batches
    return values[values.size - batches * length :].reshape(batches, length)


def _interval(value: float, parts: np.ndarray | None, confidence: float) -> Interval:
    if parts is None:
        return Interval(value, nan, nan)
    half = student_t(parts.size - 1, 0.5 + confidence / 2) * float(np.sqrt(np.sum((parts - value) ** 2) / (parts.size * (parts.size - 1))))
    return Interval(value, value - half, value + half)


def student_t(freedom: int, p: float) -> float:
    """Return the quantile of Student's distribution for p ≥ 1/2, whose density in θ = atan(t / √ν) is proportional to cos(θ)^(ν − 1).

    Examples
    --------
    >>> round(student_t(19, 0.95), 3)
    1.729
    """
    if freedom > 10_000:
        return NormalDist().inv_cdf(p)
    angle = np.linspace(0, np.pi / 2, 20_001)
    density = np.cos(angle) ** (freedom - 1)
    mass = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2)))
    return float(np.sqrt(freedom) * np.tan(np.interp(2 * p - 1, mass / mass[-1], angle)))


def _of_order(ascending: np.ndarray, q: float, confidence: float) -> Interval:
    """Return a percentile of independent values, with the order statistics that its binomial distribution gives."""
    n = ascending.size
    k = np.arange(1, n + 1)
    log_mass = np.concatenate(([0.0], np.cumsum(np.log((n - k + 1) / k) + np.log(q / (1 - q)))))
    mass = np.exp(log_mass - log_mass.max())
    below = np.cumsum(mass) / mass.sum()  # P(at most k values lie below the percentile)
    lower = int(np.searchsorted(below, (1 - confidence) / 2, side="right"))  # P(fewer than `lower` below) ≤ (1 − confidence) / 2
    upper = int(np.searchsorted(below, (1 + confidence) / 2)) + 1
    low = float(ascending[lower - 1]) if lower else -inf
    high = float(ascending[upper - 1]) if upper <= n else inf
    return Interval(float(np.quantile(ascending, q)), low, high)
