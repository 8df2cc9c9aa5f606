"""A table of measured kernels against the floor: a row that is faster is wrong, or the machine is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from roofline.deployment.spelling import checks_keywords
from roofline.floors import KernelFloor
from roofline.hardware import Ceiling, Hardware
from roofline.kernel_tables.read import read_table
from roofline.kernel_tables.reasons import LAUNCH_S, explain_rows, unit_shift
from roofline.kernel_tables.table import KernelGroup
from roofline.results import Result, show_ceilings
from roofline.units import show_time

_SLACK = 1e-9  # rounding: a time computed from its floor is not below it
_UNLIKELY = 100  # times as fast as the roofline: only a wrong unit explains more
_WORST = 10
_SHIFTS = {
    -3: "1,000 times too short, as if ms were given as us, or s as ms",
    -6: "1,000,000 times too short, as if s were given as us",
    3: "1,000 times too long, as if us were given as ms, or ms as s",
    6: "1,000,000 times too long, as if us were given as s",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A likely reason why some rows of a table are faster than their floor.

    Parameters
    ----------
    reason : str
        ``"wrong units"``, ``"narrower values"``, ``"one-byte cache"``, ``"wrong format label"``, ``"sparse peak"``, ``"cache-resident"`` or
        ``"no likely reason"`` [-].
    kernels : str
        Table and label of the rows [-].
    rows : int
        Number of rows [-].
    worst : float
        The largest ratio of floor to measured time among them; above 1 it is faster than physics allows [-].
    evidence : str
        The evidence for the reason [-].
    """

    reason: str
    kernels: str
    rows: int
    worst: float
    evidence: str


@dataclass(frozen=True, slots=True, eq=False)
class TableCheck(Result):
    """Every row of a table against its floor.

    Parameters
    ----------
    source : str
        The name of the table [-].
    hardware : Hardware
        The machine [-].
    rows : int
        Rows checked [-].
    cache_resident : int
        Rows that are faster than bytes / bandwidth but not than the floor, which allows for the cache: no error [-].
    tightest : float
        The largest ratio of floor to measured time of all rows [-].
    findings : tuple of Finding
        The likely reasons, those of most rows first [-].
    below : mapping of str to numpy.ndarray
        The rows that are faster than their floor, fastest first, column by column: ``row`` counted from 1 [-], ``kernels``
        [-], ``shape`` [-], ``time_s`` and ``floor_s`` [s], their quotient ``ratio`` [-], ``bound`` [-], ``reason`` [-].
    skipped : tuple of str, optional
        Rows and tables that were not checked, and why [-].
    """

    source: str
    hardware: Hardware
    rows: int
    cache_resident: int
    tightest: float
    findings: tuple[Finding, ...]
    below: Mapping[str, np.ndarray]
    skipped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no row is faster than its floor."""
        return not len(self.below["row"])

    def values(self) -> dict[str, Any]:
        """Return the rows that are faster than their floor, column by column [SI]."""
        return dict(self.below)

    def context(self) -> dict[str, Any]:
        """Return what was checked, and the findings [-]."""
        return {
            "kind": "table check",
            "source": self.source,
            "hardware": self.hardware.id,
            "ok": self.ok,
            "rows": self.rows,
            "rows_below_floor": len(self.below["row"]),
            "rows_cache_resident": self.cache_resident,
            "tightest": self.tightest,
            "findings": [{name: getattr(f, name) for name in ("reason", "kernels", "rows", "worst", "evidence")} for f in self.findings],
            "skipped": self.skipped,
        }

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """The rates and sizes of memory and cache used, each with its source."""
        return (self.hardware.memory_ceiling, *((self.hardware.cache_ceiling,) if self.hardware.last_level_cache else ()))

    def summary(self) -> list[str]:
        """Return the short text [-]."""
        faster, total = len(self.below["row"]), f"{self.rows:,}"
        verdict = (
            f"all {total} rows hold"
            if self.ok
            else f"{faster:,} of {total} rows {'is' if faster == 1 else 'are'} faster than physics allows"
        )
        lines = [
            f"{self.source} on {self.hardware.name}: {verdict}",
            f"  tightest: {self.tightest:.3f} of the floor's rate",
        ]
        if self.cache_resident:
            lines.append(
                f"  cache-resident: {self.cache_resident:,} rows beat bytes / bandwidth but not the floor, which allows for the cache: no error"
            )
        lines += [f"  {f.reason}: {f.rows:,} row{'' if f.rows == 1 else 's'}, {f.kernels}: {f.evidence}" for f in self.findings]
        shown = [{name: column[i] for name, column in self.below.items()} for i in range(min(faster, _WORST))]
        lines += [
            f"  row {r['row']}: {r['kernels']}, {r['shape']}: {show_time(float(r['time_s']))} where the floor is "
            f"{show_time(float(r['floor_s']))} ({r['ratio']:.2f} times as fast, {r['bound']}-bound; {r['reason']})"
            for r in shown
        ]
        lines += [f"  rows not shown: {faster - _WORST:,} more are faster than their floor"] if faster > _WORST else []
        lines += [f"  not checked: {note}" for note in self.skipped[:_WORST]]
        lines += [f"  not checked: {len(self.skipped) - _WORST} more"] if len(self.skipped) > _WORST else []
        return [*lines, f"  ceilings: {show_ceilings(self.ceilings)}"]

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


@dataclass(slots=True)
class _Held:
    """A group with its floors."""

    group: KernelGroup
    floor_s: np.ndarray
    roofline_s: np.ndarray
    bound: np.ndarray
    below: np.ndarray
    floor: KernelFloor


@checks_keywords
def check_table(
    source: Any, hardware: Hardware | str | Path, *, unit: str | None = None, kind: str | None = None, time: str | None = None
) -> TableCheck:
    """Compare every row of a table of measured kernels with its floor.

    Parameters
    ----------
    source : path, data frame or KernelTable
        The table, see :func:`~roofline.kernel_tables.read_table` [-].
    hardware : Hardware, str or Path
        The machine that the kernels ran on, its name, or its spec file [-].
    unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times, if not the one in the column's name [-].
    kind : str, optional
        The kind of kernels, if the columns do not tell [-].
    time : str, optional
        The column of times, if there are several [-].

    Returns
    -------
    TableCheck
        Rows that are faster than physics allows, each with the likely reason: a wrong unit or format label, a one-byte cache, a sparse
        peak, or the machine itself. A table whose times are far too long is reported as well [-].

    Raises
    ------
    RooflineError
        If the table cannot be read, or a name is unknown.

    Examples
    --------
    >>> table = {"m": [8192], "n": [8192], "k": [8192], "dtype": ["bf16"], "latency_ms": [1.4]}
    >>> check_table(table, "h100-sxm").ok
    True
    >>> check_table(table, "h100-sxm", unit="us").findings[0].reason
    'wrong units'
    """
    machine, table = Hardware.load(hardware), read_table(source, unit=unit, kind=kind, time=time)
    held = [_hold(group, machine) for group in table]
    findings, reasons = _explain(held)
    resident = sum(int(((h.roofline_s > h.group.seconds * (1 + _SLACK)) & ~h.below).sum()) for h in held if h.group.kind != "collective")
    tightest = max((float((h.floor_s / h.group.seconds).max()) for h in held), default=0.0)
    return TableCheck(table.source, machine, len(table), resident, tightest, findings, _rows_below(held, reasons), table.skipped)


def _hold(group: KernelGroup, hardware: Hardware) -> _Held:
    floor, rows = group.floor(hardware), len(group)
    floor_s = np.broadcast_to(np.asarray(floor.time_s, dtype=float), (rows,))
    roofline = np.maximum(np.maximum(floor.compute_s, floor.network_s), floor.total_bytes / hardware.memory_bandwidth)
    bound = np.broadcast_to(np.asarray(floor.bound), (rows,))
    return _Held(group, floor_s, np.broadcast_to(roofline, (rows,)), bound, beats_floor(group, floor), floor)


def beats_floor(group: KernelGroup, floor: KernelFloor) -> np.ndarray:
    """Mark the kernels of a group that are faster than their floor."""
    return np.broadcast_to(np.asarray(floor.time_s, dtype=float) > group.seconds * (1 + _SLACK), (len(group),))


def _table(group: KernelGroup) -> str:
    """Return the table of a group, with engine and version if known."""
    return " ".join(group.origin[name] for name in ("framework", "version", "table") if name in group.origin)


def _kernels(group: KernelGroup) -> str:
    """Return the table, kind and label of a group as text."""
    return f"{_table(group)} {group.kind.replace('_', ' ')} {group.label}".strip()


def _explain(held: list[_Held]) -> tuple[tuple[Finding, ...], list[np.ndarray]]:
    """Return the findings, and a reason for every row of every group, empty if the row holds."""
    shifts: dict[str, int] = {}
    for table in {_table(h.group) for h in held}:
        alike = [h for h in held if _table(h.group) == table]
        shifts[table] = unit_shift(np.concatenate([h.group.seconds for h in alike]), np.concatenate([h.roofline_s for h in alike]))
    found: dict[tuple[str, str], Finding] = {}
    reasons = []
    for h in held:
        of_rows = np.full(len(h.group), "", dtype=object)
        ratio = h.floor_s / h.group.seconds
        for reason, rows, kernels, evidence in _findings(h, ratio, shifts[_table(h.group)]):
            of_rows[rows] = reason
            new = Finding(reason, kernels, int(rows.sum()), float(ratio[rows].max()), evidence)
            found[reason, kernels] = _merge(found.get((reason, kernels)), new)
        reasons.append(of_rows)
    return tuple(sorted(found.values(), key=lambda f: -f.rows)), reasons


def _findings(held: _Held, ratio: np.ndarray, shift: int) -> Iterator[tuple[str, np.ndarray, str, str]]:
    """Yield each likely reason with the rows of a group that it is about, what they are, and the evidence."""
    if shift:
        yield "wrong units", np.ones(len(held.group), bool), _table(held.group), f"the times are about {_SHIFTS[shift]}"
        return
    odd = held.below & (held.roofline_s + LAUNCH_S > _UNLIKELY * held.group.seconds)
    if odd.any():
        most = f"up to {float(ratio[odd].max()):,.0f} times as fast as the floor"
        yield "wrong units", odd, _kernels(held.group), f"{most}, unlike the rest of the table: another unit, or other sizes"
    rest = held.below & ~odd
    if rest.any():
        of_rest, evidence = explain_rows(held.group, held.floor, rest)
        places = np.flatnonzero(rest)
        for reason, text in evidence.items():
            rows = np.zeros(len(held.group), bool)
            rows[places[of_rest == reason]] = True
            yield reason, rows, _kernels(held.group), text


def _merge(old: Finding | None, new: Finding) -> Finding:
    """Return one finding for two groups with the same text: the evidence is that of the worse."""
    if old is None:
        return new
    return replace(new if new.worst > old.worst else old, rows=old.rows + new.rows)


def _rows_below(held: list[_Held], reasons: list[np.ndarray]) -> dict[str, np.ndarray]:
    columns: dict[str, list[Any]] = {n: [] for n in ("row", "kernels", "shape", "time_s", "floor_s", "ratio", "bound", "reason")}
    for h, reason in zip(held, reasons, strict=True):
        if not h.below.any():
            continue
        below = h.group.take(h.below)
        columns["row"] += (below.rows + 1).tolist()
        columns["kernels"] += [_kernels(h.group)] * len(below)
        columns["shape"] += list(below.shapes())
        columns["time_s"] += below.seconds.tolist()
        columns["floor_s"] += h.floor_s[h.below].tolist()
        columns["ratio"] += (h.floor_s[h.below] / below.seconds).tolist()
        columns["bound"] += h.bound[h.below].tolist()
        columns["reason"] += reason[h.below].tolist()
    order = np.argsort(-np.array(columns["ratio"], dtype=float), kind="stable")
    return {name: np.array(column)[order] for name, column in columns.items()}
