"""Arithmetic that serves Python numbers, numpy arrays and linear forms alike.

A formula is written once. Called with Python ints it is exact, called with arrays it broadcasts, and called
with :class:`LinearForm` symbols it yields its own coefficients, which is how a model is compiled once and then
evaluated for a million steps in a handful of array operations.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

Number = Any
"""A Python number, a numpy array, or (where a formula is linear in it) a :class:`LinearForm`."""


def minimum(a: Number, b: Number) -> Number:
    """Return the smaller of two numbers, element by element for arrays.

    Examples
    --------
    >>> minimum(3, 2**70)
    3
    """
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.minimum(a, b)
    return a if a <= b else b


def maximum(a: Number, b: Number) -> Number:
    """Return the larger of two numbers, element by element for arrays.

    Examples
    --------
    >>> maximum(3, 2**70) == 2**70
    True
    """
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.maximum(a, b)
    return a if a >= b else b


def quotient(a: Number, b: Number) -> Number:
    """Return a / b as floats, element by element for arrays; by zero it is infinite or not a number, without a warning.

    Examples
    --------
    >>> print(quotient(10**30, 10**27), quotient(10**30, 0))
    1000.0 inf
    """
    # numpy divides integers beyond 64 bits as Python does, and NumPy 1.26 floats beside them too: both become floats first
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(np.asarray(a, dtype=float), np.asarray(b, dtype=float))[()]


class LinearForm:
    """A sum of hashable symbols with numeric coefficients, plus a constant (the symbol ``1``).

    It supports just what a cost formula does: adding, and multiplying or dividing by a number.

    Parameters
    ----------
    terms : mapping
        Coefficient of each symbol; the constant stands under the key ``1`` [-].

    Examples
    --------
    >>> tokens = LinearForm.of("tokens")
    >>> (2 * tokens * 3 + 5).terms
    {'tokens': 6, 1: 5}
    """

    __slots__ = ("_terms",)
    __array_ufunc__ = None  # a numpy scalar on the left defers to __rmul__ instead of making an object array

    def __init__(self, terms: Mapping[Hashable, Any]) -> None:
        self._terms: dict[Hashable, Any] = {k: v for k, v in terms.items() if v != 0}

    @property
    def terms(self) -> dict[Hashable, Any]:
        """Coefficient of each symbol, a copy; the constant stands under the key ``1`` [-]."""
        return dict(self._terms)

    @classmethod
    def of(cls, symbol: Hashable) -> "LinearForm":
        """Return the form that is one symbol."""
        return cls({symbol: 1})

    @classmethod
    def coerce(cls, value: Number) -> "LinearForm":
        """Return `value` itself if it is a form, else the constant form."""
        return value if isinstance(value, LinearForm) else cls({1: value})

    def __add__(self, other: Number) -> "LinearForm":
        terms = dict(self._terms)
        for symbol, coefficient in LinearForm.coerce(other)._terms.items():
            terms[symbol] = terms.get(symbol, 0) + coefficient
        return LinearForm(terms)

    __radd__ = __add__

    def __mul__(self, factor: float) -> "LinearForm":
        if isinstance(factor, LinearForm):
            raise TypeError("the product of two linear forms is not linear; give it a symbol of its own")
        return LinearForm({symbol: coefficient * factor for symbol, coefficient in self._terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "LinearForm":
        return LinearForm({symbol: coefficient / divisor for symbol, coefficient in self._terms.items()})

    def __sub__(self, other: Number) -> "LinearForm":
        return self + LinearForm.coerce(other) * -1

    def __rsub__(self, other: Number) -> "LinearForm":
        return LinearForm.coerce(other) - self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinearForm) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(frozenset(self._terms.items()))

    def __repr__(self) -> str:
        return f"LinearForm({self._terms!r})"
