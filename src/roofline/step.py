"""What one forward pass is asked to do: a bag of sequences, and the few sums that all counting depends on.

A step knows no phase. Decode, prefill, chunked prefill, speculative verification, prefix-cache hits and mixtures of them
are all groups of sequences with `new` tokens to process and `cached` tokens already in the cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from roofline.arithmetic import Number, maximum, minimum
from roofline.errors import InvalidValueError
from roofline.units import check_count

__all__ = [
    "BIDIRECTIONAL",
    "CAUSAL",
    "Aggregate",
    "Sequences",
    "Step",
    "Visibility",
    "cached_positions",
    "visible_pairs",
    "written_positions",
]


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which positions a token attends to.

    Parameters
    ----------
    kind : {"causal", "window", "chunk", "bidirectional"}
        Everything before, the last `span` positions, the token's own block of `span`, or everything new [-].
    span : int, optional
        Window or chunk length, the token itself included [token].
    """

    kind: Literal["causal", "window", "chunk", "bidirectional"]
    span: int = 0

    def __post_init__(self) -> None:
        if self.kind in ("window", "chunk"):
            check_count(f"{self.kind} length", self.span, minimum=1)


CAUSAL = Visibility("causal")
BIDIRECTIONAL = Visibility("bidirectional")


def _triangle(n: Number) -> Number:
    return n * (n + 1) // 2


def _pairs_before(position: Number, visibility: Visibility) -> Number:
    """Sum of visible(p) over p < position [-]."""
    span = visibility.span
    if visibility.kind == "causal":
        return _triangle(position)
    if visibility.kind == "window":
        ramp = minimum(position, span)
        return _triangle(ramp) + (position - ramp) * span
    chunks = position // span
    return chunks * _triangle(span) + _triangle(position - chunks * span)


def visible_pairs(new: Number, cached: Number, visibility: Visibility = CAUSAL) -> Number:
    r"""Count the query-key pairs of `new` tokens after `cached` ones: :math:`\sum_{i<n} visible(c+i)`.

    Parameters
    ----------
    new : int or numpy.ndarray
        Tokens processed this step [token].
    cached : int or numpy.ndarray
        Tokens before them [token].
    visibility : Visibility, optional
        Which positions a token sees: p+1 (causal), min(p+1, window), (p mod chunk)+1, or all new ones [-].

    Returns
    -------
    int or numpy.ndarray
        Pairs, exact for Python ints; shapes broadcast [-].

    Examples
    --------
    >>> visible_pairs(4, 0), visible_pairs(1, 1024), visible_pairs(4, 0, Visibility("window", 2))
    (10, 1025, 7)
    """
    if visibility.kind == "bidirectional":
        return new * new
    if visibility.kind == "causal":
        return new * cached + _triangle(new)
    return _pairs_before(cached + new, visibility) - _pairs_before(cached, visibility)


def cached_positions(new: Number, cached: Number, visibility: Visibility = CAUSAL) -> Number:
    """Count the distinct cached positions that any new token sees, and so must be read.

    The first new token sees the most: all (causal), the last window−1, or what its chunk holds so far.

    Parameters
    ----------
    new : int or numpy.ndarray
        Tokens processed this step [token].
    cached : int or numpy.ndarray
        Tokens in the cache [token].
    visibility : Visibility, optional
        Which positions a token sees [-].

    Returns
    -------
    int or numpy.ndarray
        Positions read per sequence [token].

    Examples
    --------
    >>> cached_positions(1, 5000), cached_positions(1, 5000, Visibility("window", 4096))
    (5000, 4095)
    """
    if visibility.kind == "window":
        return minimum(cached, visibility.span - 1)
    if visibility.kind == "chunk":
        return cached % visibility.span
    if visibility.kind == "bidirectional":
        return 0 * new
    return cached


def written_positions(new: Number, cached: Number, visibility: Visibility = CAUSAL) -> Number:
    """Count the positions whose keys and values must be in the cache after the step and were not before.

    Of a windowed layer only the last window−1 positions can ever be read again, so no more need be written; of a chunked
    one only the current chunk. An encoder keeps nothing.

    Parameters
    ----------
    new : int or numpy.ndarray
        Tokens processed this step [token].
    cached : int or numpy.ndarray
        Tokens in the cache before [token].
    visibility : Visibility, optional
        Which positions a token sees [-].

    Returns
    -------
    int or numpy.ndarray
        Positions written per sequence [token].

    Examples
    --------
    >>> written_positions(8192, 0), written_positions(8192, 0, Visibility("window", 4096))
    (8192, 4095)
    """
    if visibility.kind == "window":
        return minimum(new, visibility.span - 1)
    if visibility.kind == "chunk":
        return minimum(new, (cached + new) % visibility.span)
    if visibility.kind == "bidirectional":
        return 0 * new
    return new


@dataclass(frozen=True, slots=True)
class Sequences:
    """A group of alike sequences in a step.

    Parameters
    ----------
    count : int or numpy.ndarray
        How many sequences [-].
    new : int or numpy.ndarray
        Tokens of each to process in this step [token].
    cached : int or numpy.ndarray
        Tokens of each already in the cache [token].
    sampled : int or numpy.ndarray
        Rows of each that reach the LM head, at most `new` [token].
    """

    count: Any
    new: Any
    cached: Any
    sampled: Any


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass over groups of sequences. Every field may be an array; everything broadcasts.

    Parameters
    ----------
    groups : tuple of Sequences
        What the scheduler put into the step [-].

    Examples
    --------
    >>> step = Step.decode(batch=8, context=1024) + Step.prefill(512)
    >>> step.tokens, step.sampled
    (520, 9)
    """

    groups: tuple[Sequences, ...]

    @classmethod
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
        return cls._group(
            check_count("count", count, minimum=1), check_count("new", new, minimum=1), cached, check_count("sampled", sampled)
        )

    @classmethod
    def _group(cls, count: Any, new: Any, cached: Any, sampled: Any) -> "Step":
        cached = check_count("cached", cached)
        if (
            isinstance(count, np.ndarray)
            or isinstance(new, np.ndarray)
            or isinstance(cached, np.ndarray)
            or isinstance(sampled, np.ndarray)
        ):
            try:
                np.broadcast_shapes(*(np.shape(x) for x in (count, new, cached, sampled)))
            except ValueError:
                shapes = ", ".join(
                    f"{n} {np.shape(x)}" for n, x in zip(("count", "new", "cached", "sampled"), (count, new, cached, sampled), strict=True)
                )
                raise InvalidValueError(f"these shapes do not broadcast together: {shapes}.") from None
            if np.any(np.asarray(sampled) > np.asarray(new)):
                raise InvalidValueError("sampled exceeds new: a sequence cannot sample more rows than it processes.")
        elif sampled > new:
            raise InvalidValueError(f"sampled is {sampled} but new is {new}: a sequence cannot sample more rows than it processes.")
        return cls((Sequences(count, new, cached, sampled),))

    @classmethod
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
        return cls._group(check_count("batch", batch, minimum=1), 1, check_count("context", context), 1)

    @classmethod
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
        if np.any(np.asarray(cached) >= np.asarray(prompt)):
            raise InvalidValueError(
                f"cached is {cached} but prompt is {prompt}: at least one token of the prompt is computed, so cached is at most prompt - 1."
            )
        rows = {"last": 1, "all": prompt - cached, "none": 0}
        if logits not in rows:
            raise InvalidValueError(f'logits is {logits!r}; it must be "last", "all" or "none".')
        return cls._group(check_count("batch", batch, minimum=1), prompt - cached, cached, rows[logits])

    @classmethod
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
        return cls.of(count=batch, new=new, cached=cached, sampled=1 if last else 0)

    @classmethod
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
        rows = check_count("drafts", drafts) + 1
        return cls._group(check_count("batch", batch, minimum=1), rows, check_count("context", context), rows)

    def __add__(self, other: "Step") -> "Step":
        """Put two steps into one forward pass."""
        return Step(self.groups + other.groups)

    def _total(self, per_sequence: Callable[[Sequences], Number]) -> Number:
        groups = self.groups
        total = groups[0].count * per_sequence(groups[0])
        for group in groups[1:]:
            total = total + group.count * per_sequence(group)
        return total

    @property
    def sequences(self) -> Number:
        """Sequences in the step [-]."""
        return self._total(lambda g: 1)

    @property
    def tokens(self) -> Number:
        """T, the token rows that every layer processes [token]."""
        return self._total(lambda g: g.new)

    @property
    def sampled(self) -> Number:
        """R, the rows that reach the LM head [token]."""
        return self._total(lambda g: g.sampled)

    @property
    def any_sampled(self) -> Number:
        """1 where at least one row reaches the LM head, else 0 [-]."""
        return minimum(self.sampled, 1)

    @property
    def longest(self) -> Number:
        """Tokens of the longest sequence after the step [token]."""
        longest = self.groups[0].cached + self.groups[0].new
        for group in self.groups[1:]:
            longest = maximum(longest, group.cached + group.new)
        return longest

    def pairs(self, visibility: Visibility = CAUSAL) -> Number:
        """Count the query-key pairs over all sequences, by :func:`visible_pairs`.

        Parameters
        ----------
        visibility : Visibility, optional
            Which positions a token sees [-].

        Returns
        -------
        int or numpy.ndarray
            The sum over all sequences [-].
        """
        self._refuse_cached_encoder(visibility)
        return self._total(lambda g: visible_pairs(g.new, g.cached, visibility))

    def read(self, visibility: Visibility = CAUSAL) -> Number:
        """Count the cached positions read over all sequences, by :func:`cached_positions`.

        Parameters
        ----------
        visibility : Visibility, optional
            Which positions a token sees [-].

        Returns
        -------
        int or numpy.ndarray
            The sum over all sequences [token].
        """
        return self._total(lambda g: cached_positions(g.new, g.cached, visibility))

    def written(self, visibility: Visibility = CAUSAL) -> Number:
        """Count the positions written over all sequences, by :func:`written_positions`.

        Parameters
        ----------
        visibility : Visibility, optional
            Which positions a token sees [-].

        Returns
        -------
        int or numpy.ndarray
            The sum over all sequences [token].
        """
        return self._total(lambda g: written_positions(g.new, g.cached, visibility))

    def held(self, visibility: Visibility = CAUSAL) -> Number:
        """Count the positions whose cache must stay resident after the step.

        Parameters
        ----------
        visibility : Visibility, optional
            Which positions a token sees [-].

        Returns
        -------
        int or numpy.ndarray
            The sum over all sequences [token].
        """
        return self._total(lambda g: cached_positions(1, g.cached + g.new, visibility))

    def _refuse_cached_encoder(self, visibility: Visibility) -> None:
        if visibility.kind == "bidirectional" and any(np.any(g.cached) for g in self.groups):
            raise InvalidValueError(
                "an encoder (bidirectional attention) has no cache: use a prefill with cached=0, not a decode or a prefix hit."
            )


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A number that a step has, as a symbol: what the coefficients of a compiled model refer to.

    Parameters
    ----------
    name : str
        For display [-].
    function : callable
        Takes a step and `arguments` and returns the number [-].
    arguments : tuple, optional
        Further hashable arguments, such as a visibility [-].
    """

    name: str
    function: Callable[..., Number]
    arguments: tuple[Any, ...] = ()

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
        return self.function(step, *self.arguments)

    def __repr__(self) -> str:
        return self.name
