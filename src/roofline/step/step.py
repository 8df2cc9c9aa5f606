"""One forward pass over groups of sequences, and the few sums that all counting depends on.

A step has no phase. Decode, prefill, chunked prefill, speculative verification, prefix-cache hits and mixtures of them
are all groups of sequences with `new` tokens to process and `cached` tokens already in the cache.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from roofline.arithmetic import Number, maximum, minimum
from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import freeze, sealed
from roofline.results import show_span
from roofline.step.dealing import busiest_counts, weight_of
from roofline.step.sequences import Sequences
from roofline.units import check_broadcast, check_count, check_flag, whole_number
from roofline.visibility import CAUSAL, Visibility, cached_positions, visible_pairs, written_positions

_set = object.__setattr__
_SAMPLED = attrgetter("sampled")


def _seen(visibility: Visibility) -> Visibility:
    if not isinstance(visibility, Visibility):
        raise InvalidValueError(f"visibility is {quoted(visibility)}; it must be a Visibility, such as roofline.step.CAUSAL.")
    return visibility


@sealed
@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass over groups of sequences. Every field may be an array; everything broadcasts.

    Parameters
    ----------
    groups : tuple of Sequences
        The groups that the scheduler put into the step [-].
    whole : Step, optional
        The step of all data-parallel ranks together, where this is the part of one rank; None for a whole step [-].

    Examples
    --------
    >>> step = Step.decode(batch=8, context=1024) + Step.prefill(512)
    >>> step.tokens, step.sampled
    (520, 9)
    """

    groups: tuple[Sequences, ...]
    whole: "Step | None" = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if type(self.groups) is not tuple or {*map(type, self.groups)} != {Sequences}:
            raise InvalidValueError(
                "a step has at least one group of sequences; build it with Step.decode, Step.prefill, Step.chunk or Step.verify."
            )

    def __str__(self) -> str:
        tokens, sampled = (show_span(amount, "{:,.0f}".format) for amount in (self.tokens, self.sampled))
        many = f" (an array of {' × '.join(map(str, self.shape))} steps)" if self.shape else ""
        lines = [f"step of {tokens} token rows, {sampled} of them to the LM head{many}"]
        for group in self.groups:
            count, new, cached, rows = (show_span(amount, "{:,.0f}".format) for amount in group)
            lines.append(f"  {count} sequence{'' if count == '1' else 's'}: new {new}, cached {cached}, to the LM head {rows}")
        return "\n".join(lines)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that all its fields broadcast to; () for scalars [-]."""
        array = np.ndarray
        for g in self.groups:
            if isinstance(g.cached, array) or isinstance(g.count, array) or isinstance(g.new, array) or isinstance(g.sampled, array):
                return np.broadcast_shapes(*(np.shape(value) for g in self.groups for value in g))
        return ()

    @classmethod
    @checks_call
    def of(cls, *, count: Any = 1, new: Any, cached: Any = 0, sampled: Any = 1) -> "Step":
        """Build a step of one group, checking every number.

        Parameters
        ----------
        count : int or array_like, optional
            How many sequences, at least 1 [-].
        new : int or array_like
            Tokens of each to process, at least 1 [token].
        cached : int or array_like, optional
            Tokens of each already in the cache [token].
        sampled : int or array_like, optional
            Rows of each that reach the LM head, 0 … `new` [token].

        Returns
        -------
        Step
            The step [-].

        Raises
        ------
        InvalidValueError
            If a number is negative, fractional, NaN or not a number, shapes do not broadcast, or `sampled` exceeds `new`.
        """
        count, new = check_count("count", count, minimum=1), check_count("new", new, minimum=1)
        cached, sampled = check_count("cached", cached), check_count("sampled", sampled)
        check_broadcast(count=count, new=new, cached=cached, sampled=sampled)
        return cls._group(count, new, cached, sampled)

    @classmethod
    def _group(cls, count: Any, new: Any, cached: Any, sampled: Any) -> "Step":
        if isinstance(sampled, int) and isinstance(new, int):
            too_many = sampled > new
        else:
            new, sampled = freeze(new), freeze(sampled)
            check_broadcast(new=new, sampled=sampled)
            too_many = bool(np.any(np.asarray(sampled) > np.asarray(new)))
        if too_many:
            raise InvalidValueError(f"sampled is {sampled} but new is {new}: a sequence cannot sample more rows than it processes.")
        return lone_step(Sequences(count, new, cached, sampled))

    @classmethod
    @checks_call
    def decode(cls, *, batch: Any = 1, context: Any = 0) -> "Step":
        """Return a decode step: one new token for each of `batch` sequences with `context` tokens cached.

        Parameters
        ----------
        batch : int or array_like, optional
            Sequences, at least 1 [-].
        context : int or array_like, optional
            Tokens of each already in the cache [token].

        Returns
        -------
        Step
            new = 1, every row sampled [-].

        Examples
        --------
        >>> Step.decode(batch=2, context=10).pairs(CAUSAL)
        22
        """
        return decode_step(batch, context)

    @classmethod
    @checks_call
    def prefill(cls, prompt: Any, *, batch: Any = 1, cached: Any = 0, logits: Literal["last", "all", "none"] = "last") -> "Step":
        """Return a prefill of whole prompts, of which `cached` tokens may come from a prefix cache.

        Parameters
        ----------
        prompt : int or array_like
            Tokens of each prompt, the cached ones included [token].
        batch : int or array_like, optional
            Sequences, at least 1 [-].
        cached : int or array_like, optional
            Tokens of each prompt found in the prefix cache; fewer than `prompt` [token].
        logits : {"last", "all", "none"}, optional
            Which rows reach the LM head [-].

        Returns
        -------
        Step
            new = prompt − cached [-].

        Raises
        ------
        InvalidValueError
            If `cached` is not smaller than `prompt`.

        Examples
        --------
        >>> Step.prefill(2048, cached=1024).tokens
        1024
        """
        prompt, cached = check_count("prompt", prompt, minimum=1), check_count("cached", cached)
        batch = check_count("batch", batch, minimum=1)
        check_broadcast(prompt=prompt, batch=batch, cached=cached)
        if np.any(np.asarray(cached) >= np.asarray(prompt)):
            raise InvalidValueError(
                f"cached is {cached} but prompt is {prompt}: at least one token of the prompt is computed, so cached is at most prompt - 1."
            )
        if not isinstance(logits, str) or logits not in ("last", "all", "none"):
            raise InvalidValueError(f'logits is {quoted(logits)}; it must be "last", "all" or "none".')
        new = prompt - cached
        return cls._group(batch, new, cached, {"last": 1, "all": new, "none": 0}[logits])

    @classmethod
    @checks_call
    def chunk(cls, new: Any, *, cached: Any = 0, batch: Any = 1, last: bool = False) -> "Step":
        """Return one chunk of a chunked prefill; only the last chunk of a prompt is sampled.

        Parameters
        ----------
        new : int or array_like
            Tokens of the chunk [token].
        cached : int or array_like, optional
            Tokens of the prompt done before [token].
        batch : int or array_like, optional
            Sequences, at least 1 [-].
        last : bool, optional
            Whether the chunk ends the prompt [-].

        Returns
        -------
        Step
            The chunk [-].

        Examples
        --------
        >>> Step.chunk(512, cached=512).sampled
        0
        """
        return cls.of(count=batch, new=new, cached=cached, sampled=1 if check_flag("last", last) else 0)

    @classmethod
    @checks_call
    def verify(cls, drafts: Any, *, batch: Any = 1, context: Any = 0) -> "Step":
        """Return a speculative verification: `drafts` + 1 rows of each sequence, all of them sampled.

        Parameters
        ----------
        drafts : int or array_like
            Draft tokens per sequence [token].
        batch : int or array_like, optional
            Sequences, at least 1 [-].
        context : int or array_like, optional
            Tokens of each already in the cache [token].

        Returns
        -------
        Step
            new = drafts + 1 [-].

        Examples
        --------
        >>> Step.verify(3, batch=2).sampled
        8
        """
        drafts, batch, context = check_count("drafts", drafts), check_count("batch", batch, minimum=1), check_count("context", context)
        check_broadcast(drafts=drafts, batch=batch, context=context)
        return cls._group(batch, drafts + 1, context, drafts + 1)

    def __add__(self, other: "Step") -> "Step":
        """Put two steps into one forward pass."""
        if not isinstance(other, Step):
            return NotImplemented
        shapes = {f"group {i}": np.broadcast(*g) for i, g in enumerate(self.groups + other.groups)}
        check_broadcast(**shapes)
        return Step(self.groups + other.groups)

    @checks_call
    def share(self, groups: int) -> "Step":
        """Return the part of the step that the fullest of several groups of devices gets.

        Parameters
        ----------
        groups : int
            Groups that share the sequences [-].

        Returns
        -------
        Step
            Of one group of sequences its part, rounded up. Of several, whichever bounds the fullest rank more: the part of one of them
            alone, or an even share of all, perhaps fractions of sequences. It remembers the whole step [-].

        Examples
        --------
        >>> Step.decode(batch=10).share(4).sequences
        3
        """
        groups = whole_number("groups", groups, minimum=1)
        counts = busiest_counts([g.count for g in self.groups], [weight_of(g) for g in self.groups], groups)
        part = tuple(g._replace(count=c) for c, g in zip(counts, self.groups, strict=True))
        return type(self)(part, self)

    def block(self, where: tuple[slice, ...], axes: int) -> "Step":
        """Return some of the steps of an array.

        Parameters
        ----------
        where : tuple of slice
            Which, along the leading of `axes` axes [-].
        axes : int
            Axes of the step's shape, to which every field broadcasts [-].

        Returns
        -------
        Step
            The step of these [-].
        """

        def cut(field: Any) -> Any:
            if not isinstance(field, np.ndarray):
                return field
            own = where[axes - field.ndim :]
            return field[tuple(s if length > 1 else slice(None) for s, length in zip(own, field.shape, strict=False))]

        return Step(tuple(Sequences(*map(cut, g)) for g in self.groups))

    def total(self, per_sequence: Callable[..., Number], *arguments: Any) -> Number:
        """Return a sum over all sequences of what one sequence of each group contributes.

        Parameters
        ----------
        per_sequence : callable
            Takes a group and `arguments`, and returns the amount of one of its sequences [-].
        *arguments : optional
            What else it takes [-].

        Returns
        -------
        int or numpy.ndarray
            The sum [-].
        """
        first = self.groups[0]
        total = first.count * per_sequence(first, *arguments)
        if len(self.groups) > 1:
            for group in self.groups[1:]:
                total = total + group.count * per_sequence(group, *arguments)
        return total

    @property
    def sequences(self) -> Number:
        """Sequences in the step [-]."""
        return self.total(lambda g: 1)

    @property
    def tokens(self) -> Number:
        """T, the token rows that every layer processes [token]."""
        return self.total(lambda g: g.new)

    @property
    def sampled(self) -> Number:
        """R, the rows that reach the LM head [token]."""
        return self.total(_SAMPLED)

    @property
    def continued(self) -> Number:
        """Sequences with something cached, whose recurrent state is not just zeros [-]."""
        return self.total(lambda g: minimum(g.cached, 1))

    @property
    def drafted(self) -> "Step":
        """The pass that drafts one more token: a row of each sequence that samples, after the first row that it samples [-].

        A floor may assume no more: a verification that rejects every draft goes on from there.
        """
        groups = tuple(Sequences(g.count * minimum(g.sampled, 1), 1, g.cached + g.new - g.sampled + 1, 1) for g in self.groups)
        return type(self)(groups, None if self.whole is None else self.whole.drafted)

    @property
    def any_sampled(self) -> Number:
        """1 where at least one row reaches the LM head, else 0 [-]."""
        return minimum(self.total(_SAMPLED), 1)

    @property
    def longest(self) -> Number:
        """Tokens of the longest sequence after the step [token]."""
        longest = self.groups[0].cached + self.groups[0].new
        for group in self.groups[1:]:
            longest = maximum(longest, group.cached + group.new)
        return longest

    @checks_call
    def pairs(self, visibility: Visibility = CAUSAL) -> Number:
        """Count the query-key pairs over all sequences, by ``visible_pairs``.

        Parameters
        ----------
        visibility : Visibility, optional
            Which positions a token sees [-].

        Returns
        -------
        int or numpy.ndarray
            The sum over all sequences [-].
        """
        if _seen(visibility).looks_ahead:
            for group in self.groups:
                group.refuse_cache()
        return self.total(lambda g: visible_pairs(g.new, g.cached, visibility))

    @checks_call
    def read(self, visibility: Visibility = CAUSAL) -> Number:
        """Count the cached positions read over all sequences, by ``cached_positions``.

        Parameters
        ----------
        visibility : Visibility, optional
            Which positions a token sees [-].

        Returns
        -------
        int or numpy.ndarray
            The sum over all sequences [token].
        """
        return self.total(lambda g: cached_positions(g.new, g.cached, _seen(visibility)))

    @checks_call
    def written(self, visibility: Visibility = CAUSAL) -> Number:
        """Count the positions written over all sequences, by ``written_positions``.

        Parameters
        ----------
        visibility : Visibility, optional
            Which positions a token sees [-].

        Returns
        -------
        int or numpy.ndarray
            The sum over all sequences [token].
        """
        return self.total(lambda g: written_positions(g.new, g.cached, _seen(visibility)))


Step.__init__ = checks_call(Step.__init__)  # type: ignore[method-assign]


def lone_step(group: Sequences) -> Step:
    """Return a step of one group, which is nothing to check: every floor by name makes one."""
    step = object.__new__(Step)
    _set(step, "groups", (group,))
    _set(step, "whole", None)
    return step


def decode_step(batch: Any, context: Any) -> Step:
    """Return :meth:`Step.decode` for the library's own calls, whose arguments fit: only the numbers are checked."""
    batch, context = check_count("batch", batch, minimum=1), check_count("context", context)
    if isinstance(batch, np.ndarray) and isinstance(context, np.ndarray):
        check_broadcast(batch=batch, context=context)
    return lone_step(Sequences(batch, 1, context, 1))
