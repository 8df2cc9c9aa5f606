"""The columns of a table by what they are called, whatever the case and punctuation of their names."""

from collections.abc import Iterable, Iterator

from roofline.errors import InvalidValueError, quoted
from roofline.kernel_tables.columns import show_names
from roofline.names import normalize_name


class Names:
    """Names of columns, found by any of the spellings of what they hold.

    Parameters
    ----------
    names : iterable of str
        The columns [-].

    Examples
    --------
    >>> Names(["Num-KV heads", "m"]).find(["kv_heads", "num_kv_heads"])
    ['Num-KV heads']
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_key: dict[str, list[str]] = {}
        for name in names:
            self._by_key.setdefault(normalize_name(name), []).append(name)

    def __iter__(self) -> Iterator[str]:
        return (name for names in self._by_key.values() for name in names)

    def find(self, wanted: Iterable[str]) -> list[str]:
        """Return the columns that go by one of the wanted names [-]."""
        return [name for key in dict.fromkeys(map(normalize_name, wanted)) for name in self._by_key.get(key, ())]

    def find_one(self, what: str, wanted: Iterable[str]) -> str | None:
        """Return the one column that goes by one of the wanted names, None if there is none [-]."""
        found = self.find(wanted)
        if len(found) > 1:
            raise InvalidValueError(
                f"columns {show_names(found)} could all be {what!r}; keep one of them, and ignore=[{quoted(found[-1])}]."
            )
        return found[0] if found else None
