"""`roofline calibrate`: measure this machine."""

import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from roofline.calibration import calibrate as measure_device
from roofline.cli.app import INTERRUPTED, Given, make_console
from roofline.fitting.classes import measured_rates, name_class
from roofline.records import CalibrationRecord, Rates
from roofline.records.samples import Sample, list_samples
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
) -> int:
    """Measure what this machine really reaches, and write it to a calibration record that estimates can rest on.

    No setting of the device is changed. An interrupted run is resumed by running the same command again.
    """
    console = make_console(stderr=True)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    begun: list[Any] = []
    before = _stamp(output)
    try:
        bar = Progress(*columns, console=console, transient=True)
        with bar if console.is_terminal else nullcontext():
            task = bar.add_task("starting", total=None)

            def advance(done: int, points: int, point: Any) -> None:
                begun.append(point)
                description = "fitting" if point is None else f"{point.family} {point.operand}".ljust(20)
                bar.update(task, completed=done, total=points, description=description)

            record = measure_device(device, output, plan=plan, hardware=hardware, resume=not fresh, ranks=ranks, progress=advance)
    except KeyboardInterrupt:
        if _stamp(output) != before:  # every sample is written at once
            kept = f"the samples so far are in {output}: run the same command again{' without --fresh' if fresh else ''} to resume"
        else:
            kept = "nothing was measured yet" + (f", and {output} is unchanged" if before else "")
        print(f"roofline: interrupted; {kept}.", file=sys.stderr)
        return INTERRUPTED
    print(_summary(record, output))
    if not any(begun):
        print("Nothing was left to measure; --fresh measures again.")
    elif any(condition.code == "skipped" for condition in record.conditions):
        print("Run the same command again to retry the skipped points.")
    return 0


def _stamp(output: str) -> tuple[int, int] | None:
    """Return what changes when a file is replaced; None if there is none."""
    try:
        found = Path(output).expanduser().stat()
    except (OSError, ValueError, RuntimeError):
        return None
    return found.st_mtime_ns, found.st_ino


def _summary(record: CalibrationRecord, output: str) -> str:
    """Summarize a record: rates, overheads, errors of the fit, and conditions."""
    count = sum(len(c.samples.seconds) for c in record.classes)
    of = f" ({record.hardware})" if record.hardware else ""
    lines = [f"{record.environment.device}{of}: {count} points measured, record {record.id} in {output}"]
    samples, rates = list_samples(record.classes), record.rates
    lines += [
        f"  {operand} products: {_against(best, rates.peak_flops_per_s.get(operand), 'FLOP/s', rates)}" for operand, best in _peaks(samples)
    ]
    lines += [f"  memory, {name}: {_against(best, rates.memory_bandwidth, 'B/s', rates)}" for name, best in _streams(samples)]
    lines += [f"  {name.removesuffix('_s').replace('_', ' ')}: {show_time(constant.value)}" for name, constant in record.overheads.items()]
    fitted = dict.fromkeys((name_class(c), c.error) for c in record.classes if c.constants)
    lines += [f"  fit of {name}: {error:.0%} mean error on samples held out" for name, error in fitted if error is not None]
    return "\n".join([*lines, *(f"  ! {condition}" for condition in record.conditions)])


def _against(best: float, rate: float | None, unit: str, rates: Rates) -> str:
    share = f", {best / rate:.0%} of the datasheet's {show_rate(rate, unit)}" if rate and rates.origin == "datasheet" else ""
    return show_rate(best, unit) + share


def _peaks(samples: Sequence[Sample]) -> list[tuple[str, float]]:
    """Return the best rate of products in every operand format [FLOP/s]."""
    rates, _ = measured_rates([s for s in samples if s.family == "matmul"], cache_bytes=math.inf)
    return list(rates.peak_flops_per_s.items())


def _streams(samples: Sequence[Sample]) -> list[tuple[str, float]]:
    """Return the best rate of reading and of copying, of arrays at least half as long as the longest [B/s]."""
    ways = {name: [s for s in samples if s.family == name and s.usable] for name in ("read", "copy")}
    return [
        (name, max(s.moved_bytes / s.seconds for s in found if s.moved_bytes >= max(f.moved_bytes for f in found) / 2))
        for name, found in ways.items()
        if found
    ]
