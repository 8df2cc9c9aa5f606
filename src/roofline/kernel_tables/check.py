"""Holding a table of measured kernels against the floor: no row can be faster, so one that is has something wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roofline.floors import KernelFloor
from roofline.hardware import Ceiling, Hardware
from roofline.kernel_tables.read import read_table
from roofline.kernel_tables.reasons import LAUNCH_S, explain_rows, unit_shift
from roofline.kernel_tables.table import KernelGroup
from roofline.results import Result, show_ceilings
from roofline.units import show_time

_SLACK = 1e-9  # a row that was computed from its floor holds
_UNLIKELY = 100  # no kernel is so much faster than its roofline for any other reason than its unit
_WORST = 10
_SHIFTS = {
    -3: "1,000 times too short, as if ms were given as us, or s as ms",
    -6: "1,000,000 times too short, as if s were given as us",
    3: "1,000 times too long, as if us were given as ms, or ms as s",
    6: "1,000,000 times too long, as if us were given as s",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What is likely wrong with some rows of a table.

    Parameters
    ----------
    reason : str
        One of ``REASONS`` [-].
    kernels : str
        Which: table and label [-].
    rows : int
        How many rows it is about [-].
    worst : float
        The largest floor over measured time among them; above 1 they are faster than physics allows [-].
    evidence : str
        What speaks for the reason [-].
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
        What was checked [-].
    hardware : Hardware
        The machine [-].
    rows : int
        Rows checked [-].
    cache_resident : int
        Rows that beat bytes over bandwidth but not the floor, which allows for what the cache may hold: no error [-].
    tightest : float
        The largest floor over measured time of all rows [-].
    findings : tuple of Finding
        What is likely wrong, most rows first [-].
    below : mapping of str to numpy.ndarray
        The rows that are faster than their floor, fastest first, column by column: ``row`` counted from 1 [-], ``kernels``
        [-], ``shape`` [-], ``time_s`` and ``floor_s`` [s], their quotient ``ratio`` [-], ``bound`` [-], ``reason`` [-].
    skipped : tuple of str, optional
        What was not checked, and why [-].
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
        """Whether every row holds."""
        return not len(self.below["row"])

    def values(self) -> dict[str, Any]:
        """Return the rows that are faster than their floor, column by column [SI]."""
        return dict(self.below)

    def context(self) -> dict[str, Any]:
        """Return what was checked and what is likely wrong [-]."""
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
        """The memory and cache that rows are held against, each with where it comes from."""
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
    """A group with its floors, and what was found."""

    group: KernelGroup
    floor_s: np.ndarray
    roofline_s: np.ndarray
    bound: np.ndarray
    below: np.ndarray
    floor: KernelFloor


def check_table(
    source: Any, hardware: Hardware | str | Path, *, unit: str | None = None, kind: str | None = None, time: str | None = None
) -> TableCheck:
    """Hold every row of a table of measured kernels against its floor.

    Parameters
    ----------
    source : path, data frame or KernelTable
        The table, see :func:`~roofline.kernel_tables.read_table` [-].
    hardware : Hardware, str or Path
        The machine that the kernels ran on, its name, or its spec file [-].
    unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times, whatever the column's name says [-].
    kind : str, optional
        What was measured, where the columns do not tell [-].
    time : str, optional
        The column of times, where several could be meant [-].

    Returns
    -------
    TableCheck
        Rows that are faster than physics allows, with the likely reason: a wrong unit or format label, a cache of one byte
        per element, a sparse peak, or the machine itself. A table whose times are far too long is named as well [-].

    Raises
    ------
    RooflineError
        One clear error for whatever cannot be read, or is not known.

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
    plain = np.maximum(np.maximum(floor.compute_s, floor.roofs.network_s), floor.total_bytes / hardware.memory_bandwidth)
    bound = np.broadcast_to(np.asarray(floor.bound), (rows,))
    return _Held(group, floor_s, np.broadcast_to(plain, (rows,)), bound, beats_floor(group, floor), floor)


def beats_floor(group: KernelGroup, floor: KernelFloor) -> np.ndarray:
    """Return which kernels of a group are faster than their floor."""
    return np.broadcast_to(np.asarray(floor.time_s, dtype=float) > group.seconds * (1 + _SLACK), (len(group),))


def _origin(group: KernelGroup) -> str:
    """Return which table a group is from."""
    return " ".join(group.lane[name] for name in ("framework", "version", "table") if name in group.lane)


def _kernels(group: KernelGroup) -> str:
    """Return which table and label a group has, for people."""
    return f"{_origin(group)} {group.kind.replace('_', ' ')} {group.label}".strip()


def _explain(held: list[_Held]) -> tuple[tuple[Finding, ...], list[np.ndarray]]:
    """Find a likely reason for every row below its floor, and the tables whose unit is wrong."""
    shifts: dict[str, int] = {}
    for origin in {_origin(h.group) for h in held}:
        table = [h for h in held if _origin(h.group) == origin]
        shifts[origin] = unit_shift(np.concatenate([h.group.seconds for h in table]), np.concatenate([h.roofline_s for h in table]))
    found: dict[tuple[str, str], Finding] = {}
    reasons = []

    def note(reason: str, kernels: str, rows: int, worst: float, evidence: str) -> None:
        before = found.get((reason, kernels))
        if before is not None:
            evidence = evidence if worst > before.worst else before.evidence
            rows, worst = rows + before.rows, max(worst, before.worst)
        found[reason, kernels] = Finding(reason, kernels, rows, worst, evidence)

    for h in held:
        ratio, shift = h.floor_s / h.group.seconds, shifts[_origin(h.group)]
        mine = np.full(len(h.group), "", dtype=object)
        if shift:
            mine[:] = "wrong units"
            note("wrong units", _origin(h.group), len(h.group), float(ratio.max()), f"the times are about {_SHIFTS[shift]}")
        else:
            odd = h.below & (h.roofline_s + LAUNCH_S > _UNLIKELY * h.group.seconds)
            if odd.any():
                text = f"up to {float(ratio[odd].max()):,.0f} times as fast as the floor, unlike the rest of the table: another unit, or other sizes"
                mine[odd] = "wrong units"
                note("wrong units", _kernels(h.group), int(odd.sum()), float(ratio[odd].max()), text)
            rest = h.below & ~odd
            if rest.any():
                mine[rest], evidence = explain_rows(h.group, h.floor, rest)
                for reason, text in evidence.items():
                    these = mine == reason
                    note(reason, _kernels(h.group), int(these.sum()), float(ratio[these].max()), text)
        reasons.append(mine)
    return tuple(sorted(found.values(), key=lambda f: -f.rows)), reasons


def _rows_below(held: list[_Held], reasons: list[np.ndarray]) -> dict[str, np.ndarray]:
    columns: dict[str, list[Any]] = {n: [] for n in ("row", "kernels", "shape", "time_s", "floor_s", "ratio", "bound", "reason")}
    for h, reason in zip(held, reasons, strict=True):
        if not h.below.any():
            continue
        some = h.group.take(h.below)
        columns["row"] += (some.rows + 1).tolist()
        columns["kernels"] += [_kernels(h.group)] * len(some)
        columns["shape"] += list(some.shapes())
        columns["time_s"] += some.seconds.tolist()
        columns["floor_s"] += h.floor_s[h.below].tolist()
        columns["ratio"] += (h.floor_s[h.below] / some.seconds).tolist()
        columns["bound"] += h.bound[h.below].tolist()
        columns["reason"] += reason[h.below].tolist()
    order = np.argsort(-np.array(columns["ratio"], dtype=float), kind="stable")
    return {name: np.array(column)[order] for name, column in columns.items()}
