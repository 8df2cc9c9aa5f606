"""`Arrivals`: when requests are sent, where nothing but time decides."""

from dataclasses import dataclass
from math import exp, inf, lgamma
from typing import Any, Self

import numpy as np

from roofline.calls import checks_methods
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import sealed
from roofline.requests.checking import positive


@sealed
@checks_methods
@dataclass(frozen=True, slots=True)
class Arrivals:
    """A process of arrivals: one of the kinds that its constructors make.

    Parameters
    ----------
    kind : {"at once", "even", "gamma", "weibull", "on/off", "varying"}
        Which; Poisson arrivals are gamma ones whose shape is 1 [-].
    rate : float
        Requests per second on average [request/s].
    shape : float, optional
        Shape of the gamma or Weibull distribution of gaps [-].
    on_s, off_s : float, optional
        Mean length of a burst, and of the silence after it [s].
    rates : tuple of float, optional
        Rates of periods that follow each other [request/s].
    period_s : float, optional
        Length of such a period [s].
    """

    kind: str
    rate: float
    shape: float = 1.0
    on_s: float = 0.0
    off_s: float = 0.0
    rates: tuple[float, ...] = ()
    period_s: float = 0.0

    @classmethod
    def at_once(cls) -> Self:
        """Return arrivals that are all at time 0, as benchmark clients send them at an unlimited rate.

        Returns
        -------
        Arrivals
            The process [-].
        """
        return cls("at once", inf)

    @classmethod
    def even(cls, rate: float) -> Self:
        """Return arrivals with equal gaps.

        Parameters
        ----------
        rate : float
            Requests per second [request/s].

        Returns
        -------
        Arrivals
            The process [-].

        Raises
        ------
        InvalidValueError
            If the rate is not positive and finite.
        """
        return cls("even", positive("rate", rate, "requests/s"))

    @classmethod
    def poisson(cls, rate: float) -> Self:
        """Return Poisson arrivals: of many users who do not know of each other.

        Parameters
        ----------
        rate : float
            Requests per second on average [request/s].

        Returns
        -------
        Arrivals
            The process [-].

        Raises
        ------
        InvalidValueError
            If the rate is not positive and finite.
        """
        return cls("gamma", positive("rate", rate, "requests/s"))

    @classmethod
    def gamma(cls, rate: float, *, cv: float) -> Self:
        """Return arrivals whose gaps are gamma distributed, burstier than Poisson's where cv > 1.

        Parameters
        ----------
        rate : float
            Requests per second on average [request/s].
        cv : float
            Standard deviation of the gaps divided by their mean; the burstiness of vLLM's benchmark client is 1 / cv² [-].

        Returns
        -------
        Arrivals
            The process [-].

        Raises
        ------
        InvalidValueError
            If a value is not positive and finite.
        """
        return cls("gamma", positive("rate", rate, "requests/s"), 1 / positive("cv", cv, "") ** 2)

    @classmethod
    def weibull(cls, rate: float, *, cv: float) -> Self:
        """Return arrivals whose gaps have a Weibull distribution, burstier than Poisson's where cv > 1.

        Of the shape k: 1 + cv² = Γ(1 + 2/k) / Γ(1 + 1/k)².

        Parameters
        ----------
        rate : float
            Requests per second on average [request/s].
        cv : float
            Standard deviation of the gaps divided by their mean, 0.01 … 100 [-].

        Returns
        -------
        Arrivals
            The process [-].

        Raises
        ------
        InvalidValueError
            If a value is not positive and finite, or cv outside its range.
        """
        if not 0.01 <= positive("cv", cv, "") <= 100:
            raise InvalidValueError(f"cv is {quoted(cv)}; of Weibull gaps it must be 0.01 … 100.")
        few, many = 0.05, 200.0  # cv falls where the shape grows
        while many / few > 1 + 1e-12:
            middle = (few * many) ** 0.5
            few, many = (middle, many) if exp(lgamma(1 + 2 / middle) - 2 * lgamma(1 + 1 / middle)) > 1 + cv**2 else (few, middle)
        return cls("weibull", positive("rate", rate, "requests/s"), few)

    @classmethod
    def on_off(cls, rate: float, *, on_s: float, off_s: float) -> Self:
        """Return Poisson arrivals in bursts with silence between them, both exponentially distributed in length.

        Parameters
        ----------
        rate : float
            Requests per second on average; within a burst it is rate · (on_s + off_s) / on_s [request/s].
        on_s, off_s : float
            Mean length of a burst, and of the silence after it [s].

        Returns
        -------
        Arrivals
            The process [-].

        Raises
        ------
        InvalidValueError
            If a value is not positive and finite.
        """
        return cls("on/off", positive("rate", rate, "requests/s"), on_s=positive("on_s", on_s, "s"), off_s=positive("off_s", off_s, "s"))

    @classmethod
    def varying(cls, rates: Any, *, period_s: float = 3600.0) -> Self:
        """Return Poisson arrivals whose rate changes from period to period, as from hour to hour, and begins again after the last.

        Parameters
        ----------
        rates : array_like
            Requests per second of each period, at least one of them positive [request/s].
        period_s : float, optional
            Length of a period [s].

        Returns
        -------
        Arrivals
            The process [-].

        Raises
        ------
        InvalidValueError
            If a rate is negative or not finite, or none is positive.
        """
        try:
            given = np.asarray(rates, dtype=float).ravel()
        except (TypeError, ValueError, OverflowError):
            given = np.zeros(0)
        if not given.size or not (np.isfinite(given) & (given >= 0)).all() or not given.any():
            raise InvalidValueError(f"rates are {quoted(rates)}; they must be numbers of at least 0 in requests/s, one of them positive.")
        return cls("varying", float(given.mean()), rates=tuple(given.tolist()), period_s=positive("period_s", period_s, "s"))

    def draw(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return when so many requests arrive, in ascending order; the first after the first gap.

        Parameters
        ----------
        generator : numpy.random.Generator
            Where chance comes from [-].
        count : int
            How many [-].

        Returns
        -------
        numpy.ndarray
            Times after the beginning [s].
        """
        if self.kind == "at once":
            return np.zeros(count)
        if self.kind == "even":
            return np.arange(1, count + 1) / self.rate
        if self.kind == "weibull":
            return np.cumsum(generator.weibull(self.shape, count)) / (self.rate * exp(lgamma(1 + 1 / self.shape)))
        if self.kind == "gamma":
            return np.cumsum(generator.gamma(self.shape, size=count)) / (self.rate * self.shape)
        passed = np.cumsum(generator.exponential(size=count))  # requests that are expected until each
        return self._bursts(generator, passed) if self.kind == "on/off" else self._periods(passed)

    def _bursts(self, generator: np.random.Generator, passed: np.ndarray) -> np.ndarray:
        """Return the times by which so many requests are expected: that of all bursts before, and of the silences between them."""
        within = passed * self.on_s / (self.rate * (self.on_s + self.off_s))
        ends = np.zeros(1)
        while ends[-1] < within[-1]:
            some = int((within[-1] - ends[-1]) / self.on_s * 1.1) + 10
            ends = np.concatenate((ends, ends[-1] + np.cumsum(generator.exponential(self.on_s, some))))
        silence = np.concatenate(([0.0], np.cumsum(generator.exponential(self.off_s, ends.size))))
        return within + silence[np.searchsorted(ends[1:], within)]

    def _periods(self, passed: np.ndarray) -> np.ndarray:
        """Return the times by which so many requests are expected."""
        due = np.concatenate(([0.0], np.cumsum(self.rates))) * self.period_s
        rounds, rest = np.divmod(passed, due[-1])
        return (rounds * len(self.rates) + np.interp(rest, due, np.arange(due.size))) * self.period_s


def as_arrivals(value: Any) -> Arrivals:
    """Return a process from what stands for one: None for all at once, a rate for Poisson arrivals, or a process."""
    if isinstance(value, Arrivals):
        return value
    if value is None:
        return Arrivals.at_once()
    try:
        return Arrivals.poisson(value)
    except InvalidValueError:
        raise InvalidValueError(
            f"arrivals is {quoted(value)}; it must be a positive rate in requests/s, Arrivals, or None for all at once."
        ) from None
