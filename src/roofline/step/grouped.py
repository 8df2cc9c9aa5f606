"""Many steps at once whose groups of sequences lie along an axis."""

from collections.abc import Callable
from typing import Any

import numpy as np

from roofline.arithmetic import Number
from roofline.step.dealing import busiest_counts, weight_of
from roofline.step.sequences import Sequences
from roofline.step.step import Step


class GroupedSteps(Step):
    """Many steps whose groups lie along the last axis of arrays: sums over a step are sums over that axis.

    Parameters
    ----------
    groups : tuple of Sequences
        One, whose fields have equal shapes, … × groups [-].
    whole : GroupedSteps, optional
        The steps of all data-parallel ranks together, where these are the parts of single ranks [-].

    Notes
    -----
    Counts may be 0, so that steps of different numbers of groups go into one array. Nothing is checked.

    Examples
    --------
    Two steps: 8 decodes at a context of 100 with a prefill of 512 tokens, and a decode alone.

    >>> steps = GroupedSteps.rows([[8, 1], [1, 0]], [[1, 512], [1, 1]], [[100, 0], [100, 0]])
    >>> steps.tokens, steps.read()
    (array([520.,   1.]), array([800., 100.]))
    """

    __slots__ = ()

    @classmethod
    def rows(cls, count: Any, new: Any, cached: Any, sampled: Any = 1) -> "GroupedSteps":
        """Build steps from arrays of any equal shapes, … × groups."""
        fields = np.broadcast_arrays(*(np.asarray(field, dtype=float) for field in (count, new, cached, sampled)))
        return cls((Sequences(*fields),))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the steps, without the axis of the groups [-]."""
        shape: tuple[int, ...] = self.groups[0].count.shape[:-1]
        return shape

    def total(self, per_sequence: Callable[..., Number], *arguments: Any) -> Number:
        """Return a sum over all sequences of what one sequence of each group contributes."""
        (groups,) = self.groups
        return (groups.count * per_sequence(groups, *arguments)).sum(axis=-1)

    def share(self, groups: int) -> "GroupedSteps":
        """Return the parts of the steps that the fullest of several groups of devices gets.

        Parameters
        ----------
        groups : int
            Groups that share the sequences [-].

        Returns
        -------
        GroupedSteps
            As :meth:`Step.share` deals them out [-].
        """
        (every,) = self.groups
        counts, fields = np.moveaxis(every.count, -1, 0), [np.moveaxis(f, -1, 0) for f in (every.new, every.cached, every.sampled)]
        weights = [weight_of(Sequences(c, *(f[i] for f in fields))) for i, c in enumerate(counts)]
        part = np.stack(busiest_counts(list(counts), weights, groups), axis=-1)
        return GroupedSteps((every._replace(count=part),), self)

    def block(self, where: tuple[slice, ...], axes: int) -> "GroupedSteps":
        """Return some of the steps."""
        (groups,) = self.groups
        return GroupedSteps((Sequences(*(field[where] for field in groups)),))

    @property
    def longest(self) -> Number:
        """Tokens of the longest sequence after each step [token]."""
        (groups,) = self.groups
        return ((groups.cached + groups.new) * (groups.count > 0)).max(axis=-1)
