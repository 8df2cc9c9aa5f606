"""A kind of measured kernels: the sizes and words that its rows have, and the operator that they become."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from roofline.errors import InvalidValueError
from roofline.ops import Op


@dataclass(frozen=True, slots=True)
class Column:
    """A column of sizes.

    Parameters
    ----------
    name : str
        Its name, which is the argument that it becomes [-].
    aliases : tuple of str, optional
        Other names that tables give it [-].
    default : int or str, optional
        What it is where a table has no such column: a number, or the column that it equals; a column without must be there [-].
    least : int, optional
        The least that it may hold [-].
    fixed : bool, optional
        Whether it is one number for a whole group of rows, rather than a column of each [-].
    """

    name: str
    aliases: tuple[str, ...] = ()
    default: int | str | None = None
    least: int = 1
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of kernel that tables are about.

    Parameters
    ----------
    name : str
        Its name [-].
    columns : tuple of Column
        Sizes that its rows have [-].
    words : mapping of str to str
        Its arguments that are words rather than numbers, and what they are if a table says nothing; empty where it must [-].
    shape : str
        How the sizes of one row read, in the manner of :meth:`str.format` [-].
    op : callable
        Arguments by name → what the kernels cost; numbers that vary are arrays [-].
    """

    name: str
    columns: tuple[Column, ...]
    words: Mapping[str, str]
    shape: str
    op: Callable[..., Op]

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of what all rows of a group share [-]."""
        return (*(c.name for c in self.columns if c.fixed), *self.words)

    @property
    def varying(self) -> tuple[str, ...]:
        """Names of what each row has of its own [-]."""
        return tuple(c.name for c in self.columns if not c.fixed)

    def filled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments with the defaults of those that are not given."""
        found = dict(given)
        for column in self.columns:
            if column.name in found:
                continue
            if column.default is None:
                needed = ", ".join(c.name for c in self.columns if c.default is None)
                raise InvalidValueError(f"{self.name} kernels need {needed}; {column.name} is missing.")
            found[column.name] = found[column.default] if isinstance(column.default, str) else column.default
        return {**self.words, **found}


SEQUENCES = (
    Column("batch", ("batch_size", "bs", "sequences", "num_seqs")),
    Column("context", ("cached", "past", "context_len", "kv_len", "past_len"), 0, least=0),
    Column("new", ("query_len", "new_tokens", "q_len"), 1),
)
"""Columns of kernels that treat every sequence by itself."""
