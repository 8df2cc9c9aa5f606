"""What every result can do: print itself, become plain data, become JSON."""

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from roofline.calls import checks_methods
from roofline.provenance import Ceiling
from roofline.units import show_rate

__all__ = ["SCHEMA_VERSION", "Result"]

SCHEMA_VERSION = 1
"""Version of the JSON that results write [-]."""


def _plain(value: Any) -> Any:
    """Turn numpy into Python and what JSON cannot hold (infinite, not a number) into null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()]
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def show_span(value: Any, show: Callable[[float], str]) -> str:
    """Write a number, or the range of an array, ignoring what is not a number."""
    known = np.asarray(value, dtype=float)
    known = known[~np.isnan(known)]
    if known.size == 0:
        return "nothing"
    low, high = float(known.min()), float(known.max())
    return show(low) if low == high else f"{show(low)} … {show(high)}"


def show_ceilings(ceilings: Iterable[Ceiling]) -> str:
    """Write ceilings with the evidence class of each; their full sources stand in the result's `ceilings`."""
    shown = [f"{c.name} {show_rate(c.value, c.unit)} [{c.evidence}]" for c in ceilings if math.isfinite(c.value)]
    return ", ".join(shown) + "  (sources: .ceilings)"


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

    @abstractmethod
    def summary(self) -> list[str]:
        """Return the lines of the short text: the value first, then what explains it [-]."""

    def values(self) -> dict[str, Any]:
        """Return the numbers by name, scalars or arrays [SI]."""
        return {name: getattr(self, name) for name in self._numbers}

    @abstractmethod
    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: names, ceilings with their sources, assumptions, omissions [-]."""

    def table(self) -> Sequence[Mapping[str, Any]]:
        """Return the rows of the breakdown, if the result has one [-]."""
        return ()

    def __str__(self) -> str:
        return "\n".join(self.summary())

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python: numbers in SI units, arrays as lists, unknown as None.

        Returns
        -------
        dict
            ``schema_version``, the values, the context and the breakdown under ``ops`` [-].
        """
        ops = {"ops": list(self.table())} if self.table() else {}
        return {"schema_version": SCHEMA_VERSION, **_plain(self.values()), **_plain(self.context()), **_plain(ops)}

    def to_records(self) -> list[dict[str, Any]]:
        """Return one flat record for every point, ready for any DataFrame library.

        Returns
        -------
        list of dict
            Values in SI units; one record for a scalar result, else one for every element in C order [-].
        """
        values = self.values()
        names = list(values)
        columns = np.broadcast_arrays(*[np.asarray(values[n], dtype=object if values[n] is None else None) for n in names])
        rows: Iterable[tuple[Any, ...]] = zip(*(c.ravel().tolist() for c in columns), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

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
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def _repr_html_(self) -> str:
        import html

        first, *rest = self.summary()
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label.strip())}</th><td style='text-align:left'>{html.escape(text.strip())}</td></tr>"
            for label, _, text in (line.partition(":") for line in rest)
        )
        return f"<table><caption>{html.escape(first)}</caption>{rows}</table>"
