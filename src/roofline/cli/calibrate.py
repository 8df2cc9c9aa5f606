"""`roofline calibrate`: measure this machine, or fit a record to tables that somebody measured."""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from roofline.calibration import calibrate as measure_device
from roofline.cli.app import INTERRUPTED
from roofline.cli.machines import find_machine
from roofline.cli.printing import complain, show, write_over
from roofline.cli.reading import Given
from roofline.cli.records import summarize
from roofline.errors import InvalidValueError
from roofline.fitting.classes import measured_rates
from roofline.records import CalibrationRecord, Rates
from roofline.records.samples import list_samples, stream_rates
from roofline.units import show_rate, show_time


def calibrate(
    output: Annotated[str, Given("File of the record; an unfinished record in it is resumed.")],
    device: Annotated[str, Given("Device to measure: cpu, cuda:0, …")] = "cuda:0",
    plan: Annotated[str, Given("quick: within a minute; thorough: within ten minutes, with several times as many points.")] = "quick",
    hardware: Annotated[str | None, Given("Machine whose datasheet to compare with. Default: recognized by the device's name.")] = None,
    ranks: Annotated[
        int | None, Given("Processes in the all-reduce benchmark. Default: one per GPU; on a CPU the benchmark is skipped.")
    ] = None,
    fresh: Annotated[bool, Given("Replace the record in the file instead of resuming it.")] = False,
    tables: Annotated[
        tuple[str, ...] | None,
        Given("Measure nothing: fit the record to these tables of measured kernels, joined by commas.", several=True),
    ] = None,
    id: Annotated[str | None, Given("With --tables: what results call the record. Default: the name of the file.")] = None,
    source: Annotated[str | None, Given("With --tables: who measured them, and where they are published.")] = None,
    unit: Annotated[str | None, Given("With --tables: unit of the times, whatever their column is called.")] = None,
) -> int:
    """Measure what this machine really reaches, and write it to a calibration record that estimates can rest on.

    No setting of the device is changed. An interrupted run is resumed by running the same command again.
    """
    if tables is not None:
        show(summarize(_fit(output, tables, hardware, id=id, source=source, unit=unit), output))
        return 0
    stray = [f"--{name}" for name, value in (("id", id), ("source", source), ("unit", unit)) if value is not None]
    if stray:
        raise InvalidValueError(f"{stray[0]} goes with --tables; what is measured here says it itself.")
    before, progress = _stamp(output), _Progress()
    try:
        record = measure_device(device, output, plan=plan, hardware=hardware, resume=not fresh, ranks=ranks, progress=progress)
    except KeyboardInterrupt:
        progress.clear()
        if _stamp(output) != before:  # every sample is written at once
            kept = f"the samples so far are in {output}: run the same command again{' without --fresh' if fresh else ''} to resume"
        else:
            kept = "nothing was measured yet" + (f", and {output} is unchanged" if before else "")
        complain(f"interrupted; {kept}.")
        return INTERRUPTED
    finally:
        progress.clear()
    show(summarize(record, output, _best(record)))
    if not progress.measured:
        show("Nothing was left to measure; --fresh measures again.")
    elif any(condition.code == "skipped" for condition in record.conditions):
        show("Run the same command again to retry the skipped points.")
    return 0


def _fit(
    output: str, tables: Sequence[str], hardware: str | None, *, id: str | None, source: str | None, unit: str | None
) -> CalibrationRecord:
    """Fit a record to tables and save it."""
    from roofline.fitting import record_from_tables
    from roofline.records.writing import save_record

    if hardware is None:
        raise InvalidValueError("--tables needs --hardware, the machine that the kernels ran on.")
    name = Path(output).name.removesuffix(".json")
    origin = source or f"tables {', '.join(tables)}"
    record = record_from_tables(list(tables), find_machine(hardware), id=id or name, source=origin, unit=unit)
    save_record(record, output)
    return record


def _best(record: CalibrationRecord) -> list[str]:
    """Write the best rates that were measured: of products in every format, of reading and of copying."""
    samples, rates = list_samples(record.classes), record.rates
    peaks = measured_rates([s for s in samples if s.family == "matmul"], cache_bytes=math.inf)[0].peak_flops_per_s
    lines = [
        f"  {operand} products: {_against(best, rates.peak_flops_per_s.get(operand), 'FLOP/s', rates)}" for operand, best in peaks.items()
    ]
    return lines + [f"  memory, {name}: {_against(best, rates.memory_bandwidth, 'B/s', rates)}" for name, best in stream_rates(samples)]


def _against(best: float, rate: float | None, unit: str, rates: Rates) -> str:
    share = f", {best / rate:.0%} of the datasheet's {show_rate(rate, unit)}" if rate and rates.origin == "datasheet" else ""
    return show_rate(best, unit) + share


class _Progress:
    """One line of standard error at a terminal: what is measured, how far it is, how long it took and may take."""

    def __init__(self) -> None:
        self.measured = False
        self._begun = time.monotonic()
        self._at_terminal = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, done: int, points: int, point: Any) -> None:
        self.measured |= point is not None
        if self._at_terminal:
            taken = time.monotonic() - self._begun
            left = f", about {show_time(round(taken / done * (points - done)))} left" if 0 < done < points else ""
            what = "fitting" if point is None else f"{point.family} {point.operand}".strip()
            write_over(f"{done}/{points} {what}, {taken:.0f} s{left}", sys.stderr)

    def clear(self) -> None:
        """Remove the line."""
        if self._at_terminal:
            write_over("", sys.stderr)


def _stamp(output: str) -> tuple[int, int] | None:
    """Return what changes when a file is replaced; None if there is none."""
    try:
        found = Path(output).expanduser().stat()
    except (OSError, ValueError, RuntimeError):
        return None
    return found.st_mtime_ns, found.st_ino
