"""The numbers of a step that the coefficients of a compiled model multiply."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from roofline.arithmetic import Number
from roofline.step.step import Step


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A number that a step has, as a symbol: what the coefficients of a compiled model refer to.

    Parameters
    ----------
    name : str
        For display [-].
    function : callable
        Takes a group of sequences and `arguments` and returns the number of one of its sequences [-].
    arguments : tuple, optional
        Further hashable arguments, such as a visibility [-].
    divided : bool, optional
        Whether devices that share the cache of every sequence divide it among them [-].
    whole : bool, optional
        Whether it is no sum over sequences, so that `function` takes the step [-].
    """

    name: str
    function: Callable[..., Number]
    arguments: tuple[Any, ...] = ()
    divided: bool = False
    whole: bool = False

    def of(self, step: Step) -> Number:
        """Return this number for a step.

        Parameters
        ----------
        step : Step
            The step [-].

        Returns
        -------
        int or numpy.ndarray
            The number [-].
        """
        return self.function(step, *self.arguments) if self.whole else step.total(self.function, *self.arguments)

    def __repr__(self) -> str:
        return self.name
