"""How many rows of something a sequence keeps in memory, as a function of its length."""

from dataclasses import dataclass
from typing import Literal

from roofline.arithmetic import Number, minimum
from roofline.errors import InvalidValueError, quoted
from roofline.visibility import Visibility

_KINDS = ("all", "window", "open", "entries", "overlap", "source", "state")


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows a sequence of n tokens keeps.

    =========  ==========================================================  =================  ======================
    kind       what is kept                                                rows               most on the way to n
    =========  ==========================================================  =================  ======================
    all        one row per position                                        n                  n
    window     the last span − 1 positions                                 min(n, span − 1)   min(n, span − 1)
    open       positions since the last multiple of `span`                 n mod span         min(n, span − 1)
    entries    one row for every `span` positions                          n // span          n // span
    overlap    one row as soon as there is an entry                        min(n // span, 1)  min(n // span, 1)
    source     one row per position of an encoder's output                 span               span
    state      one row                                                     1                  1
    =========  ==========================================================  =================  ======================

    Parameters
    ----------
    kind : {"all", "window", "open", "entries", "overlap", "source", "state"}
        See the table [-].
    span : int, optional
        Window, chunk, positions of an entry, or those of an encoder's output [token].
    cached : bool, optional
        Whether the rows are in the key-value cache, in pages, which context parallelism divides; else they are state, which
        every device keeps whole [-].

    Examples
    --------
    >>> window = Rows("window", 128)
    >>> window.after(5), window.after(5000)
    (5, 127)
    >>> Rows("open", 4, cached=False).after(4), Rows("open", 4, cached=False).most(4)
    (0, 3)
    """

    kind: Literal["all", "window", "open", "entries", "overlap", "source", "state"]
    span: int = 0
    cached: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in _KINDS:
            raise InvalidValueError(f"rows of kind {quoted(self.kind)}: must be one of {', '.join(_KINDS)}.")
        if (self.kind in ("window", "open", "entries", "overlap", "source")) != (self.span > 0):
            raise InvalidValueError(f"rows of kind {quoted(self.kind)} with a span of {self.span}.")

    @classmethod
    def seen(cls, visibility: Visibility) -> "Rows":
        """Return the cache rows of a layer: one for every position that a later token may attend to.

        Parameters
        ----------
        visibility : Visibility
            Which positions a token attends to; an encoder, which keeps nothing, has no rows [-].

        Returns
        -------
        Rows
            The rows [-].
        """
        if visibility.looks_ahead:
            raise InvalidValueError("an encoder (bidirectional attention) keeps nothing.")
        if visibility.kind in ("window", "chunk"):
            return cls("window" if visibility.kind == "window" else "open", visibility.span)
        return cls("all")

    @property
    def grows(self) -> bool:
        """Whether their number grows without bound."""
        return self.kind in ("all", "entries")

    def after(self, length: Number) -> Number:
        """Return the rows of a sequence once it has `length` tokens.

        Parameters
        ----------
        length : int or numpy.ndarray
            n, tokens processed so far [token].

        Returns
        -------
        int or numpy.ndarray
            Rows, exact for Python ints [-].
        """
        if self.kind == "all":
            return length
        if self.kind == "window":
            return minimum(length, self.span - 1)
        if self.kind == "open":
            return length % self.span
        if self.kind == "state":
            return 1
        if self.kind == "source":
            return self.span
        entries = length // self.span
        return entries if self.kind == "entries" else minimum(entries, 1)

    def most(self, length: Number) -> Number:
        """Return the most rows that a sequence has on its way to `length` tokens: a chunk is full before it is dropped.

        Parameters
        ----------
        length : int or numpy.ndarray
            n, tokens of the sequence [token].

        Returns
        -------
        int or numpy.ndarray
            Rows, exact for Python ints [-].
        """
        return minimum(length, self.span - 1) if self.kind == "open" else self.after(length)

    def booked(self, length: Number, in_flight: int) -> Number:
        r"""Return the rows that an engine sets aside for a sequence: what windows and chunks keep, and what steps under way add to it.

        Of a window :math:`\min(n, w - 1 + t)`, of a chunk :math:`\min(n, c + t)`; whatever else is kept does not depend on t.

        Parameters
        ----------
        length : int or numpy.ndarray
            n, tokens of the sequence [token].
        in_flight : int
            t, tokens that steps under way may add; 0 for what is kept alone [token].

        Returns
        -------
        int or numpy.ndarray
            Rows, exact for Python ints [-].

        References
        ----------
        vLLM 0.33, v1/kv_cache_interface.py, ``max_admission_blocks_per_request`` of ``SlidingWindowSpec`` and ``ChunkedLocalAttentionSpec``.

        Examples
        --------
        >>> Rows("window", 128).booked(16384, 2048), Rows("window", 128).booked(16384, 0)
        (2175, 127)
        """
        if not in_flight or self.kind not in ("window", "open"):
            return self.most(length)
        return minimum(length, (self.span - 1 if self.kind == "window" else self.span) + in_flight)
