"""Which positions a token attends to, and the closed forms that follow: pairs, positions read, positions written."""

from dataclasses import dataclass
from typing import Literal

from roofline.arithmetic import Number, minimum
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import sealed
from roofline.units import check_count

_KINDS = ("causal", "window", "chunk", "selected", "bidirectional", "block")


@sealed
@dataclass(frozen=True, slots=True)
class Visibility:
    """Which positions a token attends to.

    Parameters
    ----------
    kind : {"causal", "window", "chunk", "selected", "bidirectional", "block"}
        Everything before, the last `span` positions, what is before it in the token's own chunk of `span`, any `span` positions that an
        indexer selects, everything new, or everything new in the token's own block of `span` [-].
    span : int, optional
        Window or chunk length, or number of positions selected, the token itself included; of ``"bidirectional"`` the positions seen on
        either side, 0 for all [token].
    """

    kind: Literal["causal", "window", "chunk", "selected", "bidirectional", "block"]
    span: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in _KINDS:
            raise InvalidValueError(f"visibility is {quoted(self.kind)}; it must be one of {', '.join(_KINDS)}.")
        if self.kind in ("window", "chunk", "selected", "block"):
            check_count(f"{self.kind} length", self.span, minimum=1)

    @property
    def looks_ahead(self) -> bool:
        """Whether a token sees those after it, so that nothing can be cached [-]."""
        return self.kind in ("bidirectional", "block")


CAUSAL = Visibility("causal")
BIDIRECTIONAL = Visibility("bidirectional")


def _triangle(n: Number) -> Number:
    return n * (n + 1) // 2


def _pairs_before(position: Number, visibility: Visibility) -> Number:
    """Sum of visible(p) over p < position [-]."""
    span = visibility.span
    if visibility.kind == "causal":
        return _triangle(position)
    if visibility.kind in ("window", "selected"):
        ramp = minimum(position, span)
        return _triangle(ramp) + (position - ramp) * span
    chunks = position // span
    return chunks * _triangle(span) + _triangle(position - chunks * span)


def visible_pairs(new: Number, cached: Number, visibility: Visibility = CAUSAL) -> Number:
    r"""Count the query-key pairs of `new` tokens after `cached` ones: :math:`\sum_{i<n} visible(c+i)`.

    Examples
    --------
    >>> visible_pairs(4, 0), visible_pairs(1, 1024), visible_pairs(4, 0, Visibility("window", 2))
    (10, 1025, 7)
    >>> visible_pairs(4, 0, BIDIRECTIONAL), visible_pairs(4, 0, Visibility("bidirectional", 1))
    (16, 10)
    >>> visible_pairs(10, 0, Visibility("block", 4))
    36
    """
    if visibility.kind == "causal":
        return new * cached + _triangle(new)
    if visibility.kind == "bidirectional":
        if not visibility.span:
            return new * new
        beside = minimum(new, visibility.span + 1)  # rows that see all before them, themselves included
        return new + 2 * (_triangle(beside - 1) + (new - beside) * visibility.span)
    if visibility.kind == "block":
        return new // visibility.span * visibility.span**2 + (new % visibility.span) ** 2
    return _pairs_before(cached + new, visibility) - _pairs_before(cached, visibility)


def cached_positions(new: Number, cached: Number, visibility: Visibility = CAUSAL) -> Number:
    """Count the distinct cached positions that any new token sees, and so must be read [token].

    The first new token sees the most: all (causal), the last window−1, or what its chunk holds so far. Of selected positions
    the fewest are counted: those that one token selects, as if all new tokens agreed.

    Examples
    --------
    >>> cached_positions(1, 5000), cached_positions(1, 5000, Visibility("window", 4096))
    (5000, 4095)
    """
    if visibility.kind == "causal":
        return cached
    if visibility.kind in ("window", "selected"):
        return minimum(cached, visibility.span - 1)
    return cached % visibility.span if visibility.kind == "chunk" else 0 * new


def written_positions(new: Number, cached: Number, visibility: Visibility = CAUSAL) -> Number:
    """Count the positions whose keys and values must be in the cache after the step and were not before [token].

    Of a windowed layer only the last window−1 positions can ever be read again, so no more need be written; of a chunked
    one only the current chunk. An encoder keeps nothing.

    Examples
    --------
    >>> written_positions(8192, 0), written_positions(8192, 0, Visibility("window", 4096))
    (8192, 4095)
    """
    if visibility.kind in ("causal", "selected"):
        return new
    if visibility.kind == "window":
        return minimum(new, visibility.span - 1)
    return minimum(new, (cached + new) % visibility.span) if visibility.kind == "chunk" else 0 * new
