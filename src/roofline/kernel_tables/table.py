"""Measured kernels in groups of one operator each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError
from roofline.floors import KernelFloor, counted_floor
from roofline.hardware import Hardware
from roofline.kernel_tables.columns import Columns, kinds, select
from roofline.kernel_tables.operators import KINDS, count_op
from roofline.names import nearest_names
from roofline.ops import Op


@dataclass(frozen=True, eq=False)
class KernelGroup:
    """Measured kernels that differ in size alone.

    Parameters
    ----------
    kind : str
        A key of ``KINDS`` [-].
    fixed : mapping of str to (int or str)
        Sizes and formats that all of them share, by argument name [-].
    sizes : mapping of str to numpy.ndarray
        Sizes of each [-].
    seconds : numpy.ndarray
        Measured times [s].
    rows : numpy.ndarray
        Places of the rows in their table, from 0 [-].
    lane : mapping of str to str, optional
        Where they come from: table, engine, version, kernel, labels as the table has them [-].
    """

    kind: str
    fixed: Mapping[str, Any]
    sizes: Columns
    seconds: np.ndarray
    rows: np.ndarray
    lane: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def op(self) -> Op:
        """What the kernels cost, as the functions of :mod:`roofline.floors` count it; its amounts are arrays."""
        return count_op(self.kind, **self.fixed, **self.sizes)

    @property
    def family(self) -> str:
        """Family of kernels, a key of :data:`roofline.kernels.FAMILIES` if its form is known."""
        return self.op.family or self.kind

    @property
    def stored(self) -> str:
        """Format of the weights or the cache."""
        return self.op.stored

    @property
    def operand(self) -> str:
        """Operand format of the products."""
        return self.op.operand

    @property
    def label(self) -> str:
        """What the table calls the kernels' formats."""
        words = [str(self.fixed[w]) for w in KINDS[self.kind].words if w not in ("visible", "routing") and self.fixed[w]]
        return self.lane.get("label") or "/".join(dict.fromkeys(words))

    def __len__(self) -> int:
        return len(self.seconds)

    def floor(self, hardware: Hardware) -> KernelFloor:
        """Return the floor of every row on a machine.

        Parameters
        ----------
        hardware : Hardware
            The machine [-].

        Returns
        -------
        KernelFloor
            Arrays, one element per row [-].
        """
        return counted_floor(self.op, hardware)

    def but(self, **fixed: Any) -> "KernelGroup":
        """Return the same rows read in another way.

        Parameters
        ----------
        **fixed : int or str
            What to read otherwise: formats, sizes that the rows share [-].

        Returns
        -------
        KernelGroup
            The same times of other operators [-].

        Raises
        ------
        InvalidValueError
            If this kind of kernel has no such argument.
        """
        if wrong := [name for name in fixed if name not in KINDS[self.kind].fixed]:
            raise InvalidValueError(f"{self.kind} kernels have no argument {wrong[0]!r}; they share: {', '.join(KINDS[self.kind].fixed)}.")
        return replace(self, fixed={**self.fixed, **fixed})

    def take(self, places: np.ndarray) -> "KernelGroup":
        """Return some of its rows.

        Parameters
        ----------
        places : numpy.ndarray
            Places within the group, or a mark for every row [-].

        Returns
        -------
        KernelGroup
            These rows alone [-].
        """
        return replace(self, sizes=select(self.sizes, places), seconds=self.seconds[places], rows=self.rows[places])

    def shapes(self) -> Iterator[str]:
        """Yield how the sizes of each row read [-]."""
        shape = KINDS[self.kind].shape
        for i in range(len(self)):
            yield shape.format(**self.fixed, **{name: column[i] for name, column in self.sizes.items()})


@dataclass(frozen=True, eq=False)
class KernelTable:
    """A table of measured kernels, or several.

    Parameters
    ----------
    source : str
        What was read [-].
    groups : tuple of KernelGroup
        Its rows by operator [-].
    skipped : tuple of str, optional
        What was left out, and why [-].
    """

    source: str
    groups: tuple[KernelGroup, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    def __iter__(self) -> Iterator[KernelGroup]:
        return iter(self.groups)

    def where(self, **wanted: Any) -> "KernelTable":
        """Return the groups that have certain properties.

        Parameters
        ----------
        **wanted : str, int or sequence
            A value, or the values allowed, of something in a group's `lane` or `fixed`, or of its ``kind``, ``family``,
            ``stored`` or ``operand`` [-].

        Returns
        -------
        KernelTable
            Those groups; possibly none [-].

        Raises
        ------
        InvalidValueError
            If no group has such a property; the message lists the nearest.

        Examples
        --------
        >>> from roofline.kernel_tables import read_table
        >>> table = read_table({"m": [1, 1], "n": [8, 8], "k": [8, 8], "format": ["fp8", "bf16"], "seconds": [3e-6, 4e-6]})
        >>> len(table), len(table.where(format="fp8"))
        (2, 1)
        """
        known = {name for group in self.groups for name in (*group.lane, *group.fixed)} | {"kind", "family", "stored", "operand"}
        for name in wanted:
            if self.groups and name not in known:
                raise InvalidValueError(
                    f"no kernel of {self.source} has {name!r}; nearest: {', '.join(nearest_names(name, known) or known)}."
                )

        def fits(group: KernelGroup) -> bool:
            has = {"kind": group.kind} | dict(group.lane) | dict(group.fixed)
            for name, value in wanted.items():
                allowed = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
                found = has[name] if name in has else getattr(group, name, None) if name in ("family", "stored", "operand") else None
                if found not in allowed:
                    return False
            return True

        return replace(self, groups=tuple(group for group in self.groups if fits(group)))

    def keep(self, mark: Callable[[KernelGroup], Any]) -> "KernelTable":
        """Return the rows that a function marks.

        Parameters
        ----------
        mark : callable
            A group → a mark for each of its rows, or one for all [-].

        Returns
        -------
        KernelTable
            The rows marked, without the groups that have none left [-].
        """
        marked = ((group, np.broadcast_to(np.asarray(mark(group), dtype=bool), (len(group),))) for group in self.groups)
        return replace(self, groups=tuple(group if rows.all() else group.take(rows) for group, rows in marked if rows.any()))


def group_rows(
    kind: str, columns: Columns, seconds: np.ndarray, *, labels: Columns | None = None, lane: Mapping[str, str] | None = None
) -> Iterator[KernelGroup]:
    """Yield the rows of a table by operator; sizes that it does not give have their defaults."""
    shape, labels = KINDS[kind], labels or {}
    given = {name: _column(value, len(seconds)) for name, value in shape.filled(columns).items()}
    for fixed, rows in kinds({**given, **labels}, [*shape.fixed, *labels]):
        if any(fixed[word] is None for word in shape.words):
            continue
        arguments = {name: fixed[name] for name in shape.words} | {c.name: int(fixed[c.name]) for c in shape.columns if c.fixed}
        label = {name: str(fixed[name]) for name in labels}
        sizes = {name: np.asarray(given[name])[rows] for name in shape.varying}
        yield KernelGroup(kind, arguments, sizes, np.asarray(seconds)[rows], rows, {**(lane or {}), **label})


def _column(value: Any, rows: int) -> np.ndarray:
    """Return a default as a column; words are objects, as those of a table are."""
    return value if isinstance(value, np.ndarray) else np.full(rows, value, dtype=object if isinstance(value, str) else None)
