"""What every result can do: print itself, become plain data, become JSON."""

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from roofline.calls import checks_methods
from roofline.errors import MissingDependencyError
from roofline.frozen import freeze, sealed
from roofline.provenance import Ceiling
from roofline.units import show_rate, whole_number

__all__ = ["SCHEMA_VERSION", "Question", "Result"]

SCHEMA_VERSION = 1
"""Version of the JSON that results write [-]."""


@dataclass(frozen=True, slots=True)
class Told:
    """An input that is an object, or several: what stands for it in a table, and what it can be made of again."""

    cell: Any  # a name, or an array of one for each point; None where another column says it for each point
    data: Any  # plain data


def several(inputs: Sequence[Any]) -> Told:
    """Return several inputs as one."""
    apart = [value if isinstance(value, Told) else Told(value, value) for value in inputs]
    return Told([value.cell for value in apart], [value.data for value in apart])


@dataclass(frozen=True, slots=True)
class Question:
    """What a result answers.

    Parameters
    ----------
    name : str
        The function that was asked, by its public name [-].
    inputs : mapping
        Its keyword arguments, in the order of its signature; options of a deployment only where they were given [-].
    """

    name: str
    inputs: Mapping[str, Any]

    def data(self) -> dict[str, Any]:
        """Return the inputs as plain data [-]."""
        return {name: plain(whole(value.data if isinstance(value, Told) else value)) for name, value in self.inputs.items()}

    def cells(self) -> dict[str, Any]:
        """Return the inputs as columns of a table: numbers, names, or arrays of them [-]."""
        cells = {name: value.cell if isinstance(value, Told) else value for name, value in self.inputs.items()}
        return {name: whole(cell) for name, cell in cells.items() if cell is not None}


def whole(value: Any) -> Any:
    """Return counts, which are floats in arrays, as whole numbers."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and np.all(value == np.floor(value)) and np.all(np.abs(value) <= 2**53):
        return value.astype(np.int64)
    return value


def _cells(value: Any) -> np.ndarray:
    """Return a column, or the one cell that all its rows share."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (list, tuple, Mapping)) or value is None:
        cell = np.empty((), dtype=object)
        cell[()] = plain(value)
        return cell
    return np.asarray(value)


def plain(value: Any) -> Any:
    """Turn numpy into Python and what JSON cannot hold (infinite, not a number) into null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value.tolist()]
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Input:
    """Base of dataclasses that functions are given: each becomes plain data, and is made of it again."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python, which the class takes as keyword arguments; those that are None are left out.

        Returns
        -------
        dict
            Fields by name, arrays as lists [SI].
        """
        found = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type] # of the dataclasses below
        return {name: plain(value) for name, value in found.items() if value is not None}

    def to_json(self) -> str:
        """Return the same as JSON text.

        Returns
        -------
        str
            One line [-].
        """
        return json.dumps(self.to_dict(), allow_nan=False)


def show_span(value: Any, show: Callable[[float], str]) -> str:
    """Write a number, or the range of an array, ignoring what is not a number."""
    known = np.asarray(value, dtype=float)
    known = known[~np.isnan(known)]
    if known.size == 0:
        return "nothing"
    low, high = float(known.min()), float(known.max())
    return show(low) if low == high else f"{show(low)} … {show(high)}"


def show_points(which: np.ndarray, inputs: Mapping[str, Any]) -> str:
    """Write how many points of an array are meant, and which: the first three by those inputs that vary.

    Examples
    --------
    >>> show_points(np.array([False, True, True]), {"batch": np.array([1, 8, 64]), "context": 1024})
    '2 of 3 points (batch 8; batch 64): '
    """
    found = np.argwhere(which)
    if len(found) == which.size:
        return f"all {which.size} points: "
    axes = {name: np.broadcast_to(value, which.shape) for name, value in inputs.items() if np.ndim(value)}
    shown = [", ".join(f"{name} {axis[tuple(at)]:g}" for name, axis in axes.items()) or f"index {tuple(map(int, at))}" for at in found[:3]]
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{len(found)} of {which.size} points ({'; '.join(shown)}{more}): "


def show_ceilings(ceilings: Iterable[Ceiling]) -> str:
    """Write ceilings with the evidence class of each; their full sources stand in the result's `ceilings`."""
    shown = [f"{c.name} {show_rate(c.value, c.unit)} [{c.evidence}]" for c in ceilings if math.isfinite(c.value)]
    return ", ".join(shown) + "  (sources: .ceilings)"


def show_notes(notes: Iterable[str]) -> list[str]:
    """Write what a reader must know of an answer, a line each."""
    return [f"  note: {note}" for note in notes]


@checks_methods
class Result:
    """Base of all results: three readable views and three of plain data.

    A subclass names the attributes that are its numbers in `_numbers`, or has a `values` of its own.
    """

    __slots__ = ()

    _numbers: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        checks_methods(cls)
        if "__setattr__" in vars(cls):  # the second class, see `sealed`
            sealed(cls)

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:  # type: ignore[attr-defined]
            value = getattr(self, name)
            if isinstance(value, (np.ndarray, dict, list)):
                object.__setattr__(self, name, freeze(value))

    @abstractmethod
    def summary(self) -> list[str]:
        """Return the lines of the short text: the value first, then what explains it [-]."""

    def values(self) -> dict[str, Any]:
        """Return the numbers by name, scalars or arrays [SI]."""
        return {name: getattr(self, name) for name in self._numbers}

    @abstractmethod
    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: names, ceilings with their sources, assumptions, omissions [-]."""

    def question(self) -> Question | None:
        """Return the question that this answers, so that it can be asked again; None where it has none [-]."""
        return None

    def basis(self) -> dict[str, Any]:
        """Return what a table must say beside the numbers: the calibration of an estimate, and whose its constants are [-]."""
        return {}

    def table(self) -> Sequence[Mapping[str, Any]]:
        """Return the rows of the breakdown, if the result has one [-]."""
        return ()

    def _compared(self) -> Any:
        """Return what equal results have in common: the question with its answer, but no note on the words that it was asked in."""
        asked = self.question()
        return self.to_dict() if asked is None else (asked.data(), plain(self.to_records()))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return self._compared() == other._compared() if isinstance(other, Result) and type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(repr(self))

    def __str__(self) -> str:
        return "\n".join(self.summary())

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python: numbers in SI units, arrays as lists, unknown as None.

        Returns
        -------
        dict
            ``schema_version``; the ``question`` with its ``inputs``, which :func:`roofline.ask_again` takes; the values; what they rest
            on; and the breakdown under ``ops`` [-].
        """
        asked = self.question()
        question = {} if asked is None else {"question": asked.name, "inputs": asked.data()}
        ops = {"ops": list(self.table())} if self.table() else {}
        return {"schema_version": SCHEMA_VERSION, **question, **plain({**self.values(), **self.context(), **ops})}

    def _columns(self) -> dict[str, list[Any]]:
        asked = self.question()
        question = {} if asked is None else {"question": asked.name, **asked.cells()}
        basis = {name: question.pop(name, value) for name, value in self.basis().items()}
        columns = {name: _cells(value) for name, value in {**question, **self.values(), **basis}.items()}
        whole = np.broadcast_arrays(*columns.values())
        return {name: column.ravel().tolist() for name, column in zip(columns, whole, strict=True)}

    def to_records(self) -> list[dict[str, Any]]:
        """Return one flat record for every point, ready for any DataFrame library.

        Returns
        -------
        list of dict
            The ``question`` and its inputs first, then the values in SI units, then ``calibration`` and ``constants`` of an estimate; one
            record for a scalar result, else one for every point in C order [-].
        """
        columns = self._columns()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def to_frame(self) -> Any:
        """Return the records as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            One row for every record [-].

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError(
                f"a DataFrame needs the package {error.name!r}: pip install pandas; to_records() needs none."
            ) from None
        return pandas.DataFrame(self._columns())

    def to_json(self, *, indent: int | None = None) -> str:
        """Return :meth:`to_dict` as JSON, with a schema version; numbers that do not exist are null.

        Parameters
        ----------
        indent : int, optional
            Spaces per level; everything on one line if not given [-].

        Returns
        -------
        str
            JSON text [-].
        """
        indent = None if indent is None else whole_number("indent", indent)
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def _repr_html_(self) -> str:
        import html

        first, *rest = self.summary()
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label.strip())}</th><td style='text-align:left'>{html.escape(text.strip())}</td></tr>"
            for label, _, text in (line.partition(":") for line in rest)
        )
        return f"<table><caption>{html.escape(first)}</caption>{rows}</table>"
