"""`SLO`: what is promised to those who send requests, and whether it was kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING, Any

import numpy as np

from roofline.calls import checks_methods
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import sealed
from roofline.requests.checking import kind, positive, share
from roofline.results import Input
from roofline.units import show_time

if TYPE_CHECKING:
    from roofline.requests.times import RequestTimes

_PROMISES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "end to end"}


@sealed
@checks_methods
@dataclass(frozen=True, slots=True)
class SLO(Input):
    """Promised latencies, each kept for a share of requests.

    Parameters
    ----------
    ttft_s : float, optional
        Longest time to the first token [s].
    tpot_s : float, optional
        Longest time per output token after the first, mean of one answer [s].
    itl_s : float, optional
        Longest gap between two tokens [s].
    e2e_s : float, optional
        Longest time to the last token [s].
    percentile : float, optional
        Share of requests, and of gaps, for which each promise is kept [-].

    Raises
    ------
    InvalidValueError
        If nothing is promised, a time is not positive, or percentile is not between 0 and 1.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    itl_s: float | None = None
    e2e_s: float | None = None
    percentile: float = 0.99

    def __post_init__(self) -> None:
        """Check what is promised."""
        for name, limit in self.promises.items():
            object.__setattr__(self, name, positive(name, limit, "s"))
        if not self.promises:
            raise InvalidValueError("an SLO promises something: give ttft_s, tpot_s, itl_s or e2e_s.")
        object.__setattr__(self, "percentile", share("percentile", self.percentile))

    def __str__(self) -> str:
        promises = [f"{_PROMISES[name]} ≤ {show_time(limit)}" for name, limit in self.promises.items()]
        return f"{', '.join(promises)} for {self.percentile * 100:.4g} %"

    @property
    def promises(self) -> dict[str, float]:
        """What is promised, by name [s]."""
        return {name: limit for name in _PROMISES if (limit := getattr(self, name)) is not None}

    def reached(self, times: "RequestTimes") -> dict[str, float]:
        """Return what each promise would have to be to be kept: the least time that the share `percentile` of requests did not exceed.

        A request that did not end is longer than any promise. Answers of one token have no time per token. Gaps are those of all answers together.

        Parameters
        ----------
        times : RequestTimes
            What happened [-].

        Returns
        -------
        dict
            The time by name of the promise; infinite if too many requests did not end [s].

        Raises
        ------
        InvalidValueError
            If gaps are promised, and the times hold no time of every token.
        """
        _check(times)
        return {name: _quantile(_lasted(times, name), self.percentile) for name in self.promises}

    def met(self, times: "RequestTimes") -> bool:
        """Return whether every promise is kept, each for its share of requests.

        Parameters
        ----------
        times : RequestTimes
            What happened [-].

        Returns
        -------
        bool
            Whether all are [-].

        Raises
        ------
        InvalidValueError
            If gaps are promised, and the times hold no time of every token.
        """
        return all(self.promises[name] >= reached for name, reached in self.reached(times).items())

    def kept(self, times: "RequestTimes") -> np.ndarray:
        """Return which requests ended and kept all promises together; of its own gaps, a request keeps the share `percentile`.

        Parameters
        ----------
        times : RequestTimes
            What happened [-].

        Returns
        -------
        numpy.ndarray of bool
            One for each request [-].

        Raises
        ------
        InvalidValueError
            If gaps are promised, and the times hold no time of every token.
        """
        _check(times)
        kept = times.ended.copy()
        for name, limit in self.promises.items():
            if name == "itl_s":
                kept &= np.array([_quantile(gaps, self.percentile) <= limit for gaps in times.gaps()], dtype=bool)
            else:
                kept &= ~(getattr(times, name) > limit)  # answers of one token, whose time per token is not a number, keep it
        return kept


def as_slo(value: Any) -> SLO:
    """Return promises, given as such or as a mapping of what SLO takes."""
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return SLO(**value)
    if not isinstance(value, SLO):
        raise InvalidValueError(f"slo is {quoted(value)}; it must be an SLO, such as SLO(ttft_s=1, tpot_s=0.05).")
    return value


def _check(times: Any) -> None:
    from roofline.requests.times import RequestTimes  # which knows promises

    kind("times", times, RequestTimes)


def _lasted(times: "RequestTimes", name: str) -> np.ndarray:
    """Return the times that a promise is about, infinite for requests that did not come so far."""
    if name == "itl_s":
        return times.itl_s
    lasted: np.ndarray = getattr(times, name)
    if name == "tpot_s":
        return np.asarray(np.where(times.ended, lasted, inf)[(times.workload.output > 1) | ~times.ended])
    return np.asarray(np.where(np.isnan(lasted), inf, lasted))


def _quantile(values: np.ndarray, q: float) -> float:
    """Return the least value that the share q of all do not exceed; of none, 0."""
    if not values.size:
        return 0.0
    place = values.size - 1 - longer_allowed(values.size, q)
    return float(np.partition(values, place)[place])


def longer_allowed(count: int, q: float) -> int:
    """Return how many of so many times may be longer than what the share q does not exceed; never fewer of more times."""
    return count - min(max(ceil(count * q - 1e-9), 1), count)
