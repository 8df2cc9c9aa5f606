"""Waiting in queues: formulas of arrivals at random (Poisson), for one server and for several."""

from typing import Any

import numpy as np

from roofline.arithmetic import Number
from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.units import check_amount, check_broadcast, check_count

_FEW = 32  # servers for which Erlang's formula is quicker than it is long


def _checked(utilization: Any, service_s: Any, **others: Any) -> tuple[np.ndarray, ...]:
    """Return the arguments of a queue as arrays, or raise."""
    check_broadcast(utilization=utilization, service_s=service_s, **others)
    amounts = {"utilization": (utilization, "Erlang per server"), "service_s": (service_s, "s")} | {n: (v, "-") for n, v in others.items()}
    return tuple(np.asarray(check_amount(name, value, unit), dtype=float) for name, (value, unit) in amounts.items())


def _below_one(utilization: np.ndarray, wait: Any) -> Number:
    """Return a wait; infinite where more arrives than is served."""
    found = np.where(utilization < 1, wait, np.inf)
    return found if found.ndim else float(found)


@checks_call
def mg1_wait(utilization: Any, service_s: Any, *, service_cv: Any = 0.0) -> Number:
    r"""Return the mean wait before one server (M/G/1): :math:`W = \frac{\rho}{1 - \rho}\, \frac{1 + c_s^2}{2}\, s`, after Pollaczek and Khinchine.

    Parameters
    ----------
    utilization : float or array_like
        ρ, rate of arrivals times mean time of service [-].
    service_s : float or array_like
        s, mean time of service [s].
    service_cv : float or array_like, optional
        c, standard deviation of the time of service over its mean: 0 is M/D/1, 1 is M/M/1 [-].

    Returns
    -------
    float or numpy.ndarray
        Mean time from arrival to service; infinite from ρ = 1 on [s].

    Raises
    ------
    InvalidValueError
        If a number is negative or not a number.

    References
    ----------
    Kleinrock, Queueing Systems, volume 1 (1975), section 5.6.

    Examples
    --------
    >>> mg1_wait(0.5, 1.0), mg1_wait(0.5, 1.0, service_cv=1), mg1_wait(1.2, 1.0)
    (0.5, 1.0, inf)
    """
    rho, service, cv = _checked(utilization, service_s, service_cv=service_cv)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _below_one(rho, rho / (1 - rho) * (1 + cv**2) / 2 * service)


@checks_call
def erlang_c(servers: Any, utilization: Any) -> Number:
    r"""Return the probability that an arrival finds all servers busy (M/M/c), by the recursion of Erlang's B.

    :math:`1/B_n = 1 + \frac{n}{a}\, 1/B_{n-1}` with :math:`a = c\rho`, and :math:`C = B_c / (1 - \rho (1 - B_c))`.

    Parameters
    ----------
    servers : int or array_like
        c [-].
    utilization : float or array_like
        ρ of each server [-].

    Returns
    -------
    float or numpy.ndarray
        C; 1 from ρ = 1 on [-].

    Raises
    ------
    InvalidValueError
        If there is no server, or a number is negative or not a number.

    References
    ----------
    Kleinrock, Queueing Systems, volume 1 (1975), section 3.5.

    Examples
    --------
    >>> round(erlang_c(4, 0.7), 6)
    0.428654
    """
    count = np.asarray(check_count("servers", servers, minimum=1), dtype=float)
    check_broadcast(servers=count, utilization=utilization)
    rho = np.asarray(check_amount("utilization", utilization, "Erlang per server"), dtype=float)
    count, rho = np.broadcast_arrays(count, rho)
    offered = np.maximum(count * rho, np.finfo(float).tiny)
    inverse = np.ones(count.shape)
    with np.errstate(over="ignore"):
        for n in range(1, int(count.max()) + 1):
            inverse = np.where(n <= count, 1 + n / offered * inverse, inverse)
    blocked = 1 / inverse
    waits = np.where(rho < 1, blocked / (1 - np.minimum(rho, 1) * (1 - blocked)), 1.0)
    return waits if waits.ndim else float(waits)


@checks_call
def mmc_wait(servers: Any, utilization: Any, service_s: Any, *, percentile: float | None = None) -> Number:
    r"""Return the wait before several servers with one queue (M/M/c): :math:`W = C\, s / (c\,(1 - \rho))`, with Erlang's C.

    The wait that a share p of arrivals does not exceed is :math:`W_p = \ln(C/(1 - p))\, s / (c\,(1 - \rho))`, or 0.

    Parameters
    ----------
    servers : int or array_like
        c [-].
    utilization : float or array_like
        ρ of each server [-].
    service_s : float or array_like
        s, mean time of service [s].
    percentile : float, optional
        p, such as 0.99; the mean if not given [-].

    Returns
    -------
    float or numpy.ndarray
        Time from arrival to service; infinite from ρ = 1 on [s].

    Raises
    ------
    InvalidValueError
        If there is no server, a number is negative or not a number, or the percentile is not within 0 … 1.

    References
    ----------
    Kleinrock, Queueing Systems, volume 1 (1975), section 3.5.

    Examples
    --------
    >>> round(mmc_wait(4, 0.7, 1.0), 6), round(mmc_wait(4, 0.7, 1.0, percentile=0.99), 3)
    (0.357212, 3.132)
    """
    (rho, service), waits = _checked(utilization, service_s), np.asarray(erlang_c(servers, utilization))
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = service / (np.asarray(servers, dtype=float) * (1 - rho))
        factor = waits if percentile is None else np.maximum(np.log(waits / (1 - check_percentile(percentile))), 0.0)
        return _below_one(rho, factor * apart)


@checks_call
def mgc_wait(servers: Any, utilization: Any, service_s: Any, *, service_cv: Any = 1.0, arrival_cv: Any = 1.0) -> Number:
    r"""Return the mean wait before several servers, approximately (G/G/c), after Allen and Cunneen.

    .. math:: W \approx \frac{c_a^2 + c_s^2}{2}\, \frac{C\, s}{c\,(1 - \rho)}

    with Erlang's C, and for more than 32 servers with Halfin and Whitt's
    :math:`C \approx (1 + \beta\, \Phi(\beta)/\varphi(\beta))^{-1}`, :math:`\beta = (1 - \rho) \sqrt{c}`.

    Parameters
    ----------
    servers : float or array_like
        c; fractions are allowed [-].
    utilization : float or array_like
        ρ of each server [-].
    service_s : float or array_like
        s, mean time of service [s].
    service_cv, arrival_cv : float or array_like, optional
        Standard deviations of the times of service and between arrivals, over their means [-].

    Returns
    -------
    float or numpy.ndarray
        Mean time from arrival to service; infinite from ρ = 1 on [s].

    Raises
    ------
    InvalidValueError
        If there is less than one server, or a number is negative or not a number.

    References
    ----------
    Allen, Probability, Statistics, and Queueing Theory, 2nd edition (1990), section 5.3. Halfin and Whitt, Operations Research 29 (1981)
    567–588.

    Examples
    --------
    >>> round(mgc_wait(64, 0.95, 1.0), 3), round(mmc_wait(64, 0.95, 1.0), 3)
    (0.183, 0.184)
    """
    rho, service, count, own, between = _checked(utilization, service_s, servers=servers, service_cv=service_cv, arrival_cv=arrival_cv)
    if np.any(count < 1):
        raise InvalidValueError(f"servers is {quoted(servers)}; there is at least one.")
    beta = np.maximum(1 - rho, 0.0) * np.sqrt(count)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        waits = np.asarray(1 / (1 + beta * _below(beta) / _density(beta)))
        waits, few = np.broadcast_arrays(waits, count <= _FEW)
        if few.any():
            counts, loads = np.broadcast_arrays(np.floor(count), rho)
            waits = waits.copy()
            waits[few] = erlang_c(counts[few], loads[few])
        return _below_one(rho, (own**2 + between**2) / 2 * waits / (count * (1 - rho)) * service)


def _density(value: np.ndarray) -> np.ndarray:
    """Return the density of the standard normal."""
    return np.asarray(np.exp(-(value**2) / 2) / np.sqrt(2 * np.pi))


def _below(value: np.ndarray) -> np.ndarray:
    """Return how much of the standard normal is below values of at least 0, to 7.5e-8 (Abramowitz and Stegun, 26.2.17)."""
    t = 1 / (1 + 0.2316419 * value)
    tail = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    return np.asarray(1 - _density(value) * tail)


def check_percentile(value: Any, name: str = "percentile") -> float:
    """Return a share of requests as a float, or raise."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and 0 < value < 1:
        return float(value)
    hint = f": did you mean {value / 100:g}?" if isinstance(value, (int, float)) and 1 <= value < 100 else ""
    raise InvalidValueError(f"{name} is {quoted(value)}; it is a share of the requests between 0 and 1, such as 0.99{hint or '.'}")
