"""A table of measured kernels against the floor: a row that is faster is wrong, or the machine is."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from roofline.calls import checks_methods
from roofline.deployment.spelling import checks_keywords
from roofline.errors import CalibrationError, InvalidValueError
from roofline.estimate import kernel_estimate
from roofline.estimate.constants import find_record
from roofline.hardware import Ceiling, Hardware
from roofline.kernel_tables.aiconfigurator.layout import run_as
from roofline.kernel_tables.findings import EXCUSED, Finding, Held, find_reasons, hold, name_kernels, show_below
from roofline.kernel_tables.read import read_table
from roofline.kernel_tables.surroundings import check_machine
from roofline.kernel_tables.table import KernelTable
from roofline.kernels import KINDS
from roofline.records import CalibrationRecord
from roofline.results import Result, show_ceilings
from roofline.units import show_time

_WORST = 10


@checks_methods
@dataclass(frozen=True, eq=False, repr=False)
class TableCheck(Result):
    """Every row of a table against its floor.

    Parameters
    ----------
    kernels : KernelTable
        The table, and how it was read [-].
    hardware : Hardware
        The machine [-].
    findings : tuple of Finding
        What is odd, and the likely reasons, those of most rows first [-].
    record : CalibrationRecord
        The record that estimates rest on [-].
    held : sequence of Held
        The groups of the table with their floors [-].
    reasons : sequence of numpy.ndarray
        For each group the reason of every row, empty if nothing is odd about it [-].
    """

    kernels: KernelTable
    hardware: Hardware
    findings: tuple[Finding, ...]
    record: CalibrationRecord = field(repr=False)
    held: Sequence[Held] = field(repr=False)
    reasons: Sequence[np.ndarray] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing is odd: no row is faster than its floor, and none is slower than any kernel."""
        return not self.findings

    @property
    def source(self) -> str:
        """The name of the table."""
        return self.kernels.source

    @property
    def skipped(self) -> tuple[str, ...]:
        """Rows and tables that were not checked, and why."""
        return self.kernels.skipped

    @property
    def checked(self) -> int:
        """How many rows were checked [-]."""
        return len(self.kernels)

    @property
    def tightest(self) -> float:
        """The largest ratio of floor to measured time of all rows [-]."""
        return max((float(h.share.max()) for h in self.held), default=0.0)

    @property
    def cache_resident(self) -> int:
        """Rows that are faster than bytes / bandwidth but not than the floor, which allows for the cache: no error [-]."""
        faster = ((h.roofline_s > h.group.seconds * (1 + 1e-9)) & ~h.below for h in self.held if h.group.kind != "collective")
        return sum(int(rows.sum()) for rows in faster)

    @cached_property
    def rows(self) -> Mapping[str, np.ndarray]:
        """Every row, column by column, the nearest to the roof first.

        ``row`` counted from 1 [-], ``kernels`` and ``shape`` as text [-], the sizes and formats that were read [-]; ``time_s``, ``floor_s``,
        the floor of a cold cache ``cold_s``, and ``estimate_s`` [s]; whose ``constants`` the estimate has [-]; ``share`` of the floor's
        rate, floor over measured time [-]; ``bound`` [-]; ``reason`` [-].
        """
        return self._gathered([np.ones(len(h.group), bool) for h in self.held], estimates=True)

    @cached_property
    def below(self) -> Mapping[str, np.ndarray]:
        """The rows that are faster than their floor, fastest first; the columns of :attr:`rows` without the estimate."""
        return self._gathered([h.below for h in self.held], estimates=False)

    def _gathered(self, marked: Sequence[np.ndarray], *, estimates: bool) -> dict[str, np.ndarray]:
        parts = [self._part(h, r, rows, estimates) for h, r, rows in zip(self.held, self.reasons, marked, strict=True) if rows.any()]
        if not parts:
            return {name: np.array([]) for name in ("row", "kernels", "shape", "time_s", "floor_s", "share", "bound", "reason")}
        sizes = dict.fromkeys(name for part in parts for name in part[1])
        columns = {name: np.concatenate([part[0][name] for part in parts]) for name in ("row", "kernels", "shape")}
        for name in sizes:
            columns[name] = np.concatenate([part[1].get(name, np.full(len(part[0]["row"]), None)) for part in parts])
        columns |= {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0] if name not in columns}
        order = np.argsort(-columns["share"], kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
        for column in columns.values():
            column.flags.writeable = False
        return columns

    def _part(
        self, held: Held, reasons: np.ndarray, rows: np.ndarray, estimates: bool
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return some rows of a group, and their sizes and formats."""
        group = held.group.take(rows)
        every = {
            "row": group.rows + 1,
            "kernels": np.full(len(group), name_kernels(group), dtype=object),
            "shape": np.array(list(group.shapes()), dtype=object),
            "time_s": group.seconds,
            "floor_s": held.floor_s[rows],
            "cold_s": held.roofline_s[rows],
            **(self._expected(held, rows) if estimates else {}),
            "share": held.share[rows],
            "bound": held.bound[rows].astype(object),
            "reason": reasons[rows],
        }
        named = KINDS[group.kind]
        sizes = {size.name: group.sizes.get(size.name) for size in named.sizes}
        read = {n: np.full(len(group), group.fixed[n]) if column is None else column.astype(np.int64) for n, column in sizes.items()}
        words = {name: np.full(len(group), group.fixed[name] or None, dtype=object) for name in named.options}
        return every, {name: column.astype(object) for name, column in {**read, **words}.items()}

    def _expected(self, held: Held, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the time to expect of kernels of a group, NaN where there are no constants for it, and whose constants these are [s]."""
        try:
            estimate = kernel_estimate(run_as(held.group).floor(self.hardware), calibration=self.record)
            expected, constants = np.broadcast_to(np.asarray(estimate.time_s, dtype=float), (len(held.group),)), estimate.constants
        except (InvalidValueError, CalibrationError):
            expected, constants = np.full(len(held.group), np.nan), ""
        return {"estimate_s": expected[rows], "constants": np.full(int(rows.sum()), constants, dtype=object)}

    def basis(self) -> dict[str, Any]:
        """Return the id of the record that estimates rest on [-]."""
        return {"calibration": self.record.id}

    def values(self) -> dict[str, Any]:
        """Return every row, column by column [SI]."""
        return dict(self.rows)

    def context(self) -> dict[str, Any]:
        """Return what was checked, how it was read, and the findings [-]."""
        reading = self.kernels.reading
        return {
            "kind": "table check",
            "source": self.source,
            "hardware": self.hardware.id,
            "calibration": self.record.id,
            "ok": self.ok,
            "rows_checked": self.checked,
            "rows_below_floor": sum(int(h.below.sum()) for h in self.held),
            "rows_cache_resident": self.cache_resident,
            "tightest": self.tightest,
            "findings": [{name: getattr(f, name) for name in ("reason", "kernels", "rows", "worst", "evidence")} for f in self.findings],
            "skipped": self.skipped,
            **({} if reading is None else {n: getattr(reading, n) for n in ("read", "unit", "assumed", "ignored")}),
        }

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """The rates and sizes of memory and cache used, each with its source."""
        return (self.hardware.memory_ceiling, *((self.hardware.cache_ceiling,) if self.hardware.last_level_cache else ()))

    def to_csv(self) -> str:
        """Return every row as CSV text, the nearest to the roof first.

        Returns
        -------
        str
            A line of names and a line for each row, in SI units; what is not known is empty [-].
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        records = self.to_records()
        writer.writerow(records[0])
        writer.writerows(["" if cell is None or cell != cell else cell for cell in row.values()] for row in records)
        return text.getvalue()

    def summary(self) -> list[str]:
        """Return the short text [-]."""
        faster, total = self._impossible, f"{self.checked:,}"
        verdict = f"{faster:,} of {total} rows {'is' if faster == 1 else 'are'} faster than physics allows"
        if not faster:
            odd = sum(f.rows for f in self.findings)
            verdict = (
                f"no row is faster than physics allows, but {odd:,} of {total} {'is' if odd == 1 else 'are'} odd"
                if odd
                else f"all {total} rows hold"
                if self.checked > 1
                else "its row holds"
            )
        reading = self.kernels.reading
        lines = [f"{self.source} on {self.hardware.name}: {verdict}"]
        lines += (
            [f"  {line}" for line in reading.lines()]
            if reading
            else ["  read: latency in ms, and the other columns of aiconfigurator-core"]
        )
        lines += [f"  skipped: {note}" for note in self.skipped[:_WORST]]
        lines += [f"  skipped: {len(self.skipped) - _WORST} more"] if len(self.skipped) > _WORST else []
        shares = np.concatenate([h.share for h in self.held])
        lines.append(f"  share of the floor's rate: {float(shares.max()):.3f} nearest to the roof, {float(np.median(shares)):.3f} median")
        if resident := self.cache_resident:
            lines.append(
                f"  cache-resident: {resident:,} rows beat bytes / bandwidth but not the floor, which allows for the cache: no error"
            )
        lines += [f"  {f.reason}: {f.rows:,} row{'' if f.rows == 1 else 's'}, {f.kernels}: {f.evidence}" for f in self.findings]
        lines += self._worst()
        return [*lines, f"  ceilings: {show_ceilings(self.ceilings)}"]

    @property
    def _impossible(self) -> int:
        """How many rows are faster than their floor, and neither an assumption nor a measuring error explains it [-]."""
        return sum(int((h.below & ~np.isin(r.astype(str), EXCUSED)).sum()) for h, r in zip(self.held, self.reasons, strict=True))

    def _worst(self) -> list[str]:
        """Return a line for each of the fastest rows."""
        count = len(self.below["row"])
        below = [{name: column[i] for name, column in self.below.items()} for i in range(min(count, _WORST))]
        lines = [
            f"  row {r['row']}: {r['kernels']}, {r['shape']}: {show_time(float(r['time_s']))} where the floor is "
            f"{show_time(float(r['floor_s']))} ({_how_far(float(r['share']), r['reason'])}{r['bound']}-bound; {r['reason']})"
            for r in below
        ]
        return lines + ([f"  rows not shown: {count - _WORST:,} more are faster than their floor"] if count > _WORST else [])

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


def _how_far(share: float, reason: str) -> str:
    """Write how far a row is below its floor, where that is not due to an assumption."""
    known = {"assumption": "", "at the floor": f"{show_below(share)}, "}
    return known.get(reason, f"{share:.2f} times as fast, ")


@checks_keywords
def check_table(
    source: Any,
    hardware: Hardware | str | Path,
    *,
    unit: str | None = None,
    kind: str | None = None,
    time: str | None = None,
    ignore: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    calibration: CalibrationRecord | str | Path | None = None,
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
    ignore : str or sequence of str, optional
        Columns that hold no size, or patterns of their names such as ``"tile_*"`` [-].
    columns : mapping of str to str, optional
        Column → what it is, such as ``{"N_CTX": "new"}``, where its name does not tell [-].
    calibration : CalibrationRecord, str or Path, optional
        What the estimates rest on, as in :func:`roofline.step_estimate` [-].

    Returns
    -------
    TableCheck
        Every row with its floor and estimate, and what is odd: rows that are faster than physics allows, each with the likely reason (a
        wrong unit or format label, a one-byte cache, a sparse peak, or the machine itself), rows that are below the floor of a size that was
        assumed or by no more than a measuring error, and rows that are far too slow [-].

    Raises
    ------
    RooflineError
        If the table cannot be read, a name is unknown, or the table names another machine.

    Examples
    --------
    >>> table = {"m": [8192], "n": [8192], "k": [8192], "dtype": ["bf16"], "latency_ms": [1.4]}
    >>> check_table(table, "h100-sxm").ok
    True
    >>> check_table(table, "h100-sxm").to_records()[0]["share"].__round__(2)
    0.73
    >>> check_table(table, "h100-sxm", unit="us").findings[0].reason
    'wrong units'
    """
    machine = Hardware.load(hardware)
    record = find_record(calibration, machine)
    table = check_machine(read_table(source, unit=unit, kind=kind, time=time, ignore=ignore, columns=columns), machine)
    held = [hold(group, machine) for group in table]
    findings, reasons = find_reasons(held, table)
    return TableCheck(table, machine, findings, record, held, reasons)
