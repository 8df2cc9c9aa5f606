"""Floors and estimates side by side, as records and as cells of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from roofline.cli.printing import Column
from roofline.units import show_time

_RENAMED = {"time_s": "estimate_s", "tokens_per_s": "estimate_tokens_per_s"}

TIMES = (Column("floor"), Column("estimate"), Column("from", rank=4), Column("to", rank=4), Column("bound", right=False, rank=1))
"""Columns of the cells of :func:`times`."""


def beside(floors: Sequence[Mapping[str, Any]], estimates: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Return one record for every floor, with what its estimate says beside it: ``floor_s`` and ``estimate_s``."""
    rows = []
    for i, floor in enumerate(floors):
        row = {("floor_s" if name == "time_s" else name): value for name, value in floor.items() if name != "question"}
        for name, value in (estimates[i] if estimates is not None else {}).items():
            if name not in ("question", "floor_s"):
                row.setdefault(_RENAMED.get(name, name), value)
        rows.append(row)
    return rows


def times(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Write floor, estimate, its interval, and what binds."""
    shown = [show_time(row[name]) if row.get(name) is not None else "" for name in ("floor_s", "estimate_s", "low_s", "high_s")]
    return (*shown, str(row["bound"]))
