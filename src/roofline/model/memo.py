"""What is computed once for a model and remembered, so that asking twice compiles nothing twice."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

_MOST = 256  # programs, shares and timings of one model


class Memo:
    """The answers that were asked for last, by key; the one that was not asked for longest is forgotten first.

    Examples
    --------
    >>> memo = Memo(most=2)
    >>> for key in "aba":
    ...     memo.keep(key, key.upper())
    'A'
    'B'
    'A'
    >>> memo.keep("c", "C"), memo.find("b"), memo.find("a")
    ('C', None, 'A')
    """

    __slots__ = ("_held", "_most")

    def __init__(self, most: int = _MOST) -> None:
        self._held: OrderedDict[Hashable, Any] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._held)

    def find(self, key: Hashable) -> Any:
        """Return what is remembered under a key; None if nothing is."""
        found = self._held.get(key)
        if found is not None:
            try:
                self._held.move_to_end(key)
            except KeyError:  # another thread had it forgotten meanwhile
                self._held[key] = found
        return found

    def keep(self, key: Hashable, value: Any) -> Any:
        """Remember a value under a key, and return it."""
        self._held[key] = value
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return value
