"""Tables of measured kernels, in groups that differ in size alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError
from roofline.floors import KernelFloor, counted_floor
from roofline.hardware import Hardware
from roofline.kernel_tables.columns import Columns, rows_by_value, select
from roofline.kernels import KINDS, count_op
from roofline.kernels.kind import Size
from roofline.names import nearest_names, normalize_name
from roofline.ops import Op


@dataclass(frozen=True, eq=False)
class KernelGroup:
    """Measured kernels that differ in size alone."""

    kind: str  # a key of ``KINDS``
    fixed: Mapping[str, Any]  # sizes and options that all of them share, by argument name
    sizes: Columns  # sizes of each, by argument name
    seconds: np.ndarray  # measured times [s]
    rows: np.ndarray  # places of the rows in their table, counted from 0
    origin: Mapping[str, str] = field(default_factory=dict)  # where they were measured: table, engine, version, and the labels of the table
    unsaid: tuple[str, ...] = ()  # shared sizes that the table does not give, which have their defaults

    @cached_property
    def op(self) -> Op:
        """What the kernels cost; its amounts are arrays."""
        return count_op(self.kind, **self.fixed, **self.sizes)

    @property
    def family(self) -> str:
        """The family, a key of :data:`roofline.kernels.FAMILIES`, or the kind of kernels without one."""
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
        """The kernels' formats, as the table names them."""
        formats = [str(self.fixed[o]) for o in KINDS[self.kind].options if o not in ("visible", "routing") and self.fixed[o]]
        return self.origin.get("label") or "/".join(dict.fromkeys(formats))

    def __len__(self) -> int:
        return len(self.seconds)

    def floor(self, hardware: Hardware) -> KernelFloor:
        """Return the floor of every row on a machine."""
        return counted_floor(self.op, hardware)

    def read_as(self, **fixed: Any) -> "KernelGroup":
        """Return the same measurements with other formats, options or shared sizes."""
        if wrong := [name for name in fixed if name not in KINDS[self.kind].fixed]:
            raise InvalidValueError(f"{self.kind} kernels have no argument {wrong[0]!r}; they share: {', '.join(KINDS[self.kind].fixed)}.")
        return replace(self, fixed={**self.fixed, **fixed})

    @property
    def assumed(self) -> tuple[Size, ...]:
        """The sizes that the table does not give, and of which there may be less than is assumed."""
        return tuple(s for s in KINDS[self.kind].sizes if s.name in self.unsaid and self.fixed[s.name] != s.least)

    def cheapest(self) -> "KernelGroup":
        """Return the same measurements with the least of every size that the table does not give; itself if it has that already."""
        return self.read_as(**{size.name: size.least for size in self.assumed}) if self.assumed else self

    def take(self, places: np.ndarray) -> "KernelGroup":
        """Return a part of the rows."""
        return replace(self, sizes=select(self.sizes, places), seconds=self.seconds[places], rows=self.rows[places])

    def shapes(self) -> Iterator[str]:
        """Yield the sizes of each row as text [-]."""
        shape, batch = KINDS[self.kind].shape, self.fixed.get("batch", 1)
        several = f"{batch} of " if batch > 1 else ""
        for i in range(len(self)):
            yield several + shape.format(**self.fixed, **{name: column[i] for name, column in self.sizes.items()})


@dataclass(frozen=True, slots=True)
class TableReading:
    """How the columns of a table were read.

    Parameters
    ----------
    read : mapping of str to str
        Column → what it was read as [-].
    unit : str
        Unit of the times [-].
    ignored : tuple of str, optional
        Columns that were not read [-].
    assumed : tuple of str, optional
        What was taken for granted, as no column says it [-].
    as_steps : str, optional
        The column of lengths that were taken for those of caches and may be those of prompts [-].
    """

    read: Mapping[str, str]
    unit: str
    ignored: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    as_steps: str = ""

    def lines(self) -> list[str]:
        """Return what was read, assumed and ignored, as lines of text [-]."""
        found = (name if normalize_name(name) == normalize_name(what) else f"{name} as {what}" for name, what in self.read.items())
        parts = (("read", list(found)), ("assumed", list(self.assumed)), ("ignored", list(self.ignored)))
        return [f"{what}: {_join(names)}" for what, names in parts if names]


def _join(names: Sequence[str], most: int = 16) -> str:
    """Write some names, none at length."""
    short = [name if len(name) <= 120 else f"{name[:119]}…" for name in names[:most]]
    return ", ".join(short) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True, eq=False)
class KernelTable:
    """One or several tables of measured kernels.

    Parameters
    ----------
    source : str
        The name of what was read [-].
    groups : tuple of KernelGroup
        Its rows [-].
    skipped : tuple of str, optional
        The rows and tables that were left out, and why [-].
    reading : TableReading, optional
        How its columns were read; None for tables in the layout of ``aiconfigurator-core``, whose columns are known [-].
    """

    source: str
    groups: tuple[KernelGroup, ...]
    skipped: tuple[str, ...] = ()
    reading: TableReading | None = None

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    def __iter__(self) -> Iterator[KernelGroup]:
        return iter(self.groups)

    def where(self, **wanted: Any) -> "KernelTable":
        """Return the groups with certain properties.

        Parameters
        ----------
        **wanted : str, int or sequence
            The value, or the allowed values, of a name in a group's `origin` or `fixed`, or of its ``kind``, ``family``,
            ``stored`` or ``operand`` [-].

        Returns
        -------
        KernelTable
            These groups, perhaps none [-].

        Raises
        ------
        InvalidValueError
            If no group has such a property.

        Examples
        --------
        >>> from roofline.kernel_tables import read_table
        >>> table = read_table({"m": [1, 1], "n": [8, 8], "k": [8, 8], "format": ["fp8", "bf16"], "seconds": [3e-6, 4e-6]})
        >>> len(table), len(table.where(format="fp8"))
        (2, 1)
        """
        known = {name for group in self.groups for name in (*group.origin, *group.fixed)} | {"kind", "family", "stored", "operand"}
        for name in wanted:
            if self.groups and name not in known:
                raise InvalidValueError(
                    f"no kernel of {self.source} has {name!r}; nearest: {', '.join(nearest_names(name, known) or known)}."
                )

        def fits(group: KernelGroup) -> bool:
            has = {"kind": group.kind} | dict(group.origin) | dict(group.fixed)
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
            A group → a boolean for each of its rows, or one for all [-].

        Returns
        -------
        KernelTable
            The marked rows, without groups that are empty then [-].
        """
        marked = ((group, np.broadcast_to(np.asarray(mark(group), dtype=bool), (len(group),))) for group in self.groups)
        return replace(self, groups=tuple(group if rows.all() else group.take(rows) for group, rows in marked if rows.any()))


def group_rows(
    kind: str, columns: Columns, seconds: np.ndarray, *, labels: Columns | None = None, origin: Mapping[str, str] | None = None
) -> Iterator[KernelGroup]:
    """Yield the rows of a table in groups; missing sizes have their defaults, and rows with an unknown option are left out."""
    described, labels = KINDS[kind], labels or {}
    given = {name: _column(value, len(seconds)) for name, value in described.with_defaults(columns).items()}
    for fixed, rows in rows_by_value({**given, **labels}, [*described.fixed, *labels]):
        if any(fixed[option] is None for option in described.options):
            continue
        arguments = {name: fixed[name] for name in described.options} | {s.name: int(fixed[s.name]) for s in described.sizes if s.fixed}
        label = {name: str(fixed[name]) for name in labels}
        sizes = {name: np.asarray(given[name])[rows] for name in described.varying}
        yield KernelGroup(kind, arguments, sizes, np.asarray(seconds)[rows], rows, {**(origin or {}), **label})


def _column(value: Any, rows: int) -> np.ndarray:
    """Return a default as a column; text is of type object, as in a table."""
    return value if isinstance(value, np.ndarray) else np.full(rows, value, dtype=object if isinstance(value, str) else None)
