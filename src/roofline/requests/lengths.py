"""`Lengths`: how long prompts and answers are."""

from dataclasses import dataclass
from math import exp, log, log1p, sqrt
from statistics import NormalDist
from typing import Any, Self

import numpy as np

from roofline.calls import checks_methods
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import freeze, sealed
from roofline.requests.checking import positive
from roofline.units import check_count, whole_number


@sealed
@checks_methods
@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """A distribution of lengths: one of the four kinds that its constructors make.

    Parameters
    ----------
    kind : {"fixed", "uniform", "log-normal", "empirical"}
        Which [-].
    least, most : int
        No length is shorter or longer [token].
    median : float, optional
        Median of a log-normal distribution before it is rounded and limited [token].
    sigma : float, optional
        Standard deviation of the logarithm [-].
    values : numpy.ndarray, optional
        Lengths of an empirical distribution [token].
    """

    kind: str
    least: int
    most: int
    median: float = 0.0
    sigma: float = 0.0
    values: np.ndarray | None = None

    @classmethod
    def fixed(cls, length: int) -> Self:
        """Return lengths that are all the same.

        Parameters
        ----------
        length : int
            The length [token].

        Returns
        -------
        Lengths
            The distribution [-].

        Raises
        ------
        InvalidValueError
            If it is no whole number of at least 1.
        """
        length = whole_number("length", length, minimum=1)
        return cls("fixed", length, length)

    @classmethod
    def uniform(cls, least: int, most: int) -> Self:
        """Return lengths that are equally frequent between two, both included.

        Parameters
        ----------
        least, most : int
            The shortest and the longest [token].

        Returns
        -------
        Lengths
            The distribution [-].

        Raises
        ------
        InvalidValueError
            If they are no whole numbers of at least 1, or the shortest is the longer one.

        Notes
        -----
        The random data sets of benchmark clients: SGLang's with a range ratio of r are ``uniform(r * length, length)``, vLLM's are
        ``uniform((1 - r) * length, (1 + r) * length)``.
        """
        least, most = whole_number("least", least, minimum=1), whole_number("most", most, minimum=1)
        if least > most:
            raise InvalidValueError(f"least is {least} and most is {most}; the shortest length comes first.")
        return cls("uniform", least, most)

    @classmethod
    def lognormal(
        cls,
        *,
        mean: float | None = None,
        cv: float | None = None,
        median: float | None = None,
        p95: float | None = None,
        most: int = 1_048_576,
    ) -> Self:
        """Return log-normal lengths, from mean and coefficient of variation or from median and 95th percentile.

        σ² = ln(1 + cv²) and median = mean · exp(−σ²/2), or σ = ln(p95 / median) / 1.645. Lengths are rounded, to 1 at least, and those beyond
        `most` become `most`.

        Parameters
        ----------
        mean : float, optional
            Mean before lengths are limited [token].
        cv : float, optional
            Standard deviation divided by the mean [-].
        median, p95 : float, optional
            Median and 95th percentile, in place of these two [token].
        most : int, optional
            No length is longer [token].

        Returns
        -------
        Lengths
            The distribution [-].

        Raises
        ------
        InvalidValueError
            If not one of the two pairs is given, or no distribution has it.
        """
        given = {name: value for name, value in (("mean", mean), ("cv", cv), ("median", median), ("p95", p95)) if value is not None}
        if set(given) not in ({"mean", "cv"}, {"median", "p95"}):
            raise InvalidValueError("log-normal lengths need mean and cv, or median and p95: one of the two pairs.")
        first, second = (positive(name, value, "") for name, value in given.items())
        if "mean" in given:
            sigma = sqrt(log1p(second**2))
            middle = first * exp(-(sigma**2) / 2)
        elif second <= first:
            raise InvalidValueError(f"p95 is {second:g} and median is {first:g}; the 95th percentile is the longer one.")
        else:
            sigma = log(second / first) / NormalDist().inv_cdf(0.95)
            middle = first
        return cls("log-normal", 1, whole_number("most", most, minimum=1), middle, sigma)

    @classmethod
    def empirical(cls, values: Any) -> Self:
        """Return lengths that are drawn from those given, each as often as it is there.

        Parameters
        ----------
        values : array_like of int
            Lengths that occurred [token].

        Returns
        -------
        Lengths
            The distribution [-].

        Raises
        ------
        InvalidValueError
            If one is no whole number of at least 1.
        """
        known = freeze(np.atleast_1d(check_count("values", values, minimum=1)).ravel().astype(np.int64))
        return cls("empirical", int(known.min()), int(known.max()), values=known)

    @property
    def mean(self) -> float:
        """Mean length, of a log-normal distribution before it is rounded and limited [token]."""
        if self.values is not None:
            return float(self.values.mean())
        return self.median * exp(self.sigma**2 / 2) if self.kind == "log-normal" else (self.least + self.most) / 2

    def draw(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return so many lengths.

        Parameters
        ----------
        generator : numpy.random.Generator
            Where chance comes from [-].
        count : int
            How many [-].

        Returns
        -------
        numpy.ndarray of int
            The lengths [token].
        """
        if self.values is not None:
            return self.values[generator.integers(self.values.size, size=count)]
        if self.kind == "log-normal":
            drawn = self.median * np.exp(self.sigma * generator.standard_normal(count))
            return np.clip(np.rint(drawn), self.least, self.most).astype(np.int64)
        return generator.integers(self.least, self.most, size=count, endpoint=True)


def as_lengths(name: str, value: Any) -> Lengths:
    """Return a distribution of lengths from what stands for one: a number, or a distribution."""
    if isinstance(value, Lengths):
        return value
    try:
        return Lengths.fixed(value)
    except InvalidValueError:
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be a whole number of at least 1, or Lengths.") from None
