"""A session of measurements that can be interrupted at any moment and goes on where it stopped."""

import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from roofline.calibration.classes import Sample, fit_classes, group_samples, list_samples, measured_rates, overheads
from roofline.calibration.collectives import measure_all_reduce
from roofline.calibration.devices import Device, load_torch, open_device
from roofline.calibration.measure import Measurement, OutOfMemory, measure
from roofline.calibration.plan import Point, quick_plan, thorough_plan
from roofline.calibration.reading import Reading, Telemeter
from roofline.calibration.telemetry import open_telemeter
from roofline.errors import CalibrationError, MissingDependencyError, SpecError, UnknownNameError
from roofline.formats import OPERANDS
from roofline.hardware import Hardware
from roofline.names import unknown_name
from roofline.records import CalibrationRecord, Environment, KernelClass, Rates, load_record, save_record

__all__ = ["PLANS", "CalibrationSession", "Plan", "calibrate"]

Progress = Callable[[int, int, Point | None], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, by the name of how long it takes.

    Parameters
    ----------
    points : callable
        Device → what to measure on it, in order [-].
    limit_s : float
        Time that all of it may take [s].
    """

    points: Callable[[Device], tuple[Point, ...]]
    limit_s: float


PLANS: dict[str, Plan] = {"quick": Plan(quick_plan, 45.0), "thorough": Plan(thorough_plan, 510.0)}
"""Plans by name; the limits leave a part of the minute and of the ten minutes for the start and the fit."""

_PROBE_BYTES = 2**18  # larger than the record of a quick plan
_MOST_NAMED = 3
_LEAST_BUDGET_S, _MOST_BUDGET_S = 0.1, 0.6
# conditions that are found anew whenever a record is written; others, such as a busy device, stay as they were seen
_RENEWED = ("unfinished plan", "skipped", "flagged", "no working set", "most samples", "poor fit")
_POOR = 0.5  # mean error beyond which a fit is no better than a guess


def calibrate(
    device: str = "cuda:0",
    output: "str | os.PathLike[str]" = "calibration.json",
    *,
    plan: str = "quick",
    hardware: Hardware | str | Path | None = None,
    resume: bool = True,
    ranks: int | None = None,
    progress: Progress | None = None,
) -> CalibrationRecord:
    """Measure a device, fit what was measured, and keep it in a file.

    The record is written after every sample, so that a run that is interrupted in any way goes on where it stopped when it is
    started again with the same file.

    Parameters
    ----------
    device : str, optional
        ``"cpu"``, ``"cuda:0"``, … [-].
    output : str or path, optional
        The record's file [-].
    plan : {"quick", "thorough"}, optional
        What is measured within a minute, or within ten, with several times the points [-].
    hardware : Hardware, str or Path, optional
        The machine whose datasheet shares refer to; by default the one of the device's own name, and if there is none the best
        rates that are measured stand in [-].
    resume : bool, optional
        Whether to go on with a record that is there; otherwise it is replaced [-].
    ranks : int, optional
        Processes to add arrays up over, each with a GPU of its own, or all on the CPU; all GPUs that there are if not given, and
        none on a CPU. A script that asks for it needs the usual ``if __name__ == "__main__":`` [-].
    progress : callable, optional
        Called as ``progress(done, points, point)`` before each point, and with None before the fit [-].

    Returns
    -------
    CalibrationRecord
        The finished record [-].

    Raises
    ------
    CalibrationError
        If there is no such device, the file cannot be written, it holds a record of another device, plan or software, or nothing
        could be measured.
    MissingDependencyError
        If torch or scipy is not installed.
    InvalidValueError, UnknownNameError
        If there is no such plan or machine.

    Notes
    -----
    Points that fail, for want of memory or else, are left out and named in the record's conditions, as are throttled clocks and
    other processes on the device. No setting of the device is ever changed.
    """
    if plan not in PLANS:
        raise unknown_name("plan", str(plan), PLANS)
    machine = None if hardware is None else Hardware.load(hardware)
    path = _check_output(output)
    if find_spec("scipy") is None:
        raise MissingDependencyError("fitting needs scipy: pip install 'roofline[calibrate]'.")
    found = open_device(device)
    telemeter = open_telemeter(found.kind, found.index, uuid=_uuid(found))
    try:
        session = CalibrationSession(
            found,
            PLANS[plan].points(found),
            telemeter,
            path,
            plan=plan,
            hardware=machine or _recognized(found.name),
            resume=resume,
            ranks=_count_ranks(found) if ranks is None else ranks,
        )
        return session.run(progress, limit_s=PLANS[plan].limit_s)
    finally:
        telemeter.close()


def _check_output(output: "str | os.PathLike[str]") -> Path:
    """Return the path of a record's file, after writing something beside it: better now than after the first sample."""
    try:
        path = Path(output).expanduser()
        target = path.resolve()
        taken = target.exists() and not target.is_file()
        folder, allowed = target.parent.is_dir(), not target.exists() or os.access(target, os.W_OK)
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise CalibrationError(f"{output!r} is no path for a record: {getattr(error, 'strerror', None) or error}.") from None
    if taken:
        raise CalibrationError(f"{path}: cannot be written: it is {'a folder' if target.is_dir() else 'no plain file'}.")
    if not folder:
        raise CalibrationError(f"{path}: cannot be written: there is no folder {target.parent}.")
    if not allowed:
        raise CalibrationError(f"{path}: cannot be written: it is read-only.")
    try:
        with TemporaryFile(dir=target.parent) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be written: {error.strerror or error}.") from None
    return path


def _count_ranks(device: Device) -> int:
    """Return how many GPUs can add arrays up together."""
    return int(load_torch().cuda.device_count()) if device.kind == "cuda" else 1


def _uuid(device: Device) -> str | None:
    """Return the UUID by which NVML finds the same device as torch, whichever devices each of them sees."""
    if device.kind != "cuda":
        return None
    uuid = getattr(load_torch().cuda.get_device_properties(device.index), "uuid", None)
    return None if uuid is None else str(uuid)


def _recognized(name: str) -> Hardware | None:
    try:
        return Hardware.load(name)
    except (UnknownNameError, SpecError):  # SpecError: a name that looks like a path
        return None


class CalibrationSession:
    """One run of a plan on one device, kept in one file.

    Parameters
    ----------
    device : Device
        What is measured [-].
    points : sequence of Point
        The plan [-].
    telemeter : Telemeter
        What watches the device meanwhile [-].
    output : Path
        The record's file [-].
    plan : str
        The plan's name [-].
    hardware : Hardware, optional
        The machine whose datasheet shares refer to; the best measured rates stand in for it [-].
    resume : bool, optional
        Whether to go on with a record that is there [-].
    ranks : int, optional
        Processes to add arrays up over after the plan; none if 1 [-].
    measure : callable, optional
        ``measure(point, device, budget_s=…)`` → ``Measurement`` [-].

    Raises
    ------
    CalibrationError
        If the file holds what is no record, or one of another device, plan or software.
    """

    def __init__(
        self,
        device: Device,
        points: Sequence[Point],
        telemeter: Telemeter,
        output: Path,
        *,
        plan: str,
        hardware: Hardware | None = None,
        resume: bool = True,
        ranks: int = 1,
        measure: Callable[..., Measurement] = measure,
    ) -> None:
        self._device, self._points, self._telemeter, self._output = device, tuple(points), telemeter, output
        self._hardware, self._measure, self._ranks = hardware, measure, ranks
        self._skipped: dict[str, list[str]] = {}
        self._record = _empty_record(device, telemeter, plan, hardware)
        self._conditions = telemeter.conditions
        self.samples: list[Sample] = []
        if resume and output.exists():
            previous = load_record(output)
            _check_same(previous, self._record, output)
            self.samples = list_samples(previous.classes)
            kept = tuple(c for c in previous.conditions if not c.startswith(_RENEWED))
            # what holds today says nothing of samples that were taken another day
            told = (*kept, *(telemeter.conditions if self.remaining else ()))
            self._conditions = tuple({condition.partition(":")[0]: condition for condition in told}.values())
            self._record = self._record.model_copy(update={"id": previous.id, "date": previous.date})

    @property
    def remaining(self) -> tuple[Point, ...]:
        """Points that have no sample yet [-]."""
        known = {sample.key for sample in self.samples}
        return tuple(point for point in self._points if _key(point) not in known)

    def run(self, progress: Progress | None = None, *, limit_s: float = math.inf) -> CalibrationRecord:
        """Measure what has no sample yet, fit, and return the finished record.

        Parameters
        ----------
        progress : callable, optional
            Called as ``progress(done, points, point)`` before each point, and with None before the fit [-].
        limit_s : float, optional
            Time that the whole plan may take; points share what is left of it [s].

        Returns
        -------
        CalibrationRecord
            The record, as it stands in the file [-].

        Raises
        ------
        CalibrationError
            If the file cannot be written, or nothing at all could be measured; what was written before is in the file.
        KeyboardInterrupt
            If the user stops it; what was measured is in the file.
        """
        report = progress or (lambda done, points, point: None)
        remaining, total = self.remaining, len(self._points)
        ends = time.monotonic() + limit_s * len(remaining) / max(total, 1)
        try:
            for place, point in enumerate(remaining):
                report(total - len(remaining) + place, total, point)
                left = (ends - time.monotonic()) / (len(remaining) - place)
                sample = self._sample(point, budget_s=min(max(left, _LEAST_BUDGET_S), _MOST_BUDGET_S))
                if sample is not None:
                    self.samples.append(sample)
                    self._save(self._unfinished())
            if self._ranks > 1 and not any(sample.family == "all_reduce" for sample in self.samples):
                self._add_collectives()
        except KeyboardInterrupt:
            if self.samples:  # the last one may not be written yet
                self._save(self._unfinished())
            raise
        if not self.samples:
            raise CalibrationError(f"no point of the plan could be measured: {'; '.join(self._skips()) or 'it has none'}.")
        report(total, total, None)
        self._save(self._finished())
        return load_record(self._output)

    def _sample(self, point: Point, budget_s: float) -> Sample | None:
        """Measure one point, or note why it cannot be."""
        try:
            measured, reading = self._telemeter.beside(lambda: self._measure(point, self._device, budget_s=budget_s))
            if math.isfinite(measured.seconds) and measured.seconds > 0:
                return _as_sample(point, measured, reading)
            reason = f"its time was {measured.seconds}, no positive number"
        except OutOfMemory:
            reason = "out of memory"
        except MissingDependencyError:
            raise
        except Exception as error:  # one broken kernel of a device must not cost the others
            lines = str(error).removeprefix(point.key).strip().splitlines()
            reason = lines[0][:120].rstrip(".") if lines else type(error).__name__
        self._skipped.setdefault(reason, []).append(point.key)
        return None

    def _add_collectives(self) -> None:
        """Measure sums over several processes, all sizes in one go, or note why they cannot be."""
        try:
            found = measure_all_reduce(self._device, ranks=self._ranks)
        except CalibrationError as error:
            self._skipped.setdefault(str(error).rstrip("."), []).append("all_reduce")
            return
        self.samples += [_as_sample(point, measured, Reading(None, ())) for point, measured in found]
        self._save(self._unfinished())

    def _skips(self) -> list[str]:
        return [f"skipped, {reason}: {_named(points)}" for reason, points in self._skipped.items()]

    def _unfinished(self) -> CalibrationRecord:
        left = f"unfinished plan: {len(self.samples)} of {len(self._points)} points measured, nothing fitted"
        return self._filled(group_samples(self.samples), complete=False, conditions=(left,))

    def _finished(self) -> CalibrationRecord:
        rates, notes = self._rates()
        fitted = fit_classes(group_samples(self.samples), rates)
        record = self._filled(fitted, complete=True, conditions=(*_doubts(self.samples), *notes, *_poor(fitted)))
        return record.model_copy(update={"rates": rates, "overheads": overheads(self.samples)})

    def _filled(self, classes: tuple[Any, ...], *, complete: bool, conditions: tuple[str, ...]) -> CalibrationRecord:
        told = (*conditions, *self._conditions, *self._skips(), *_flagged(self.samples))
        return self._record.model_copy(update={"classes": classes, "complete": complete, "conditions": tuple(dict.fromkeys(told))})

    def _rates(self) -> tuple[Rates, tuple[str, ...]]:
        if self._hardware is None:
            return measured_rates(self.samples, cache_bytes=self._device.cache_bytes)
        return self._record.rates, ()

    def _save(self, record: CalibrationRecord) -> None:
        try:
            save_record(record, self._output)
        except (OSError, CalibrationError) as error:
            reason = str(error) if isinstance(error, CalibrationError) else f"{self._output}: cannot be written: {error.strerror or error}."
            raise CalibrationError(f"{reason} The sample just measured is lost; run again to go on from those before it.") from None


def _as_sample(point: Point, measured: Measurement, reading: Reading) -> Sample:
    # quantiles that are no numbers, or beside the median, say no more than the median does
    low, high = (q if math.isfinite(q) and q > 0 else measured.seconds for q in (measured.low_s, measured.high_s))
    return Sample(
        point.family,
        point.stored,
        point.operand,
        {name: float(size) for name, size in point.sizes.items()},
        dict(point.fixed),
        measured.seconds,
        min(low, measured.seconds),
        max(high, measured.seconds),
        float(measured.moved_bytes) if math.isfinite(measured.moved_bytes) else 0.0,
        tuple(flag.replace(";", ",") for flag in (*measured.flags, *reading.flags)),
        reading.telemetry,
    )


def _key(point: Point) -> tuple[Any, ...]:
    return Sample(point.family, point.stored, point.operand, point.sizes, point.fixed, 1.0, 1.0, 1.0, 0.0).key


def _named(points: Sequence[str]) -> str:
    more = f" and {len(points) - _MOST_NAMED} more" if len(points) > _MOST_NAMED else ""
    return ", ".join(points[:_MOST_NAMED]) + more


def _doubts(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Say so if most samples are doubtful: a record of a busy machine is one of how busy it was."""
    count = sum(bool(sample.flags) for sample in samples)
    return (f"most samples are doubtful, {count} of {len(samples)}: measure again on a quiet machine",) if 2 * count > len(samples) else ()


def _poor(classes: Sequence[KernelClass]) -> tuple[str, ...]:
    """Name the fits that say little."""
    errors = {f"{c.family} {c.operand}": c.error for c in classes if c.constants and c.error is not None and c.error > _POOR}
    return tuple(f"poor fit: {name}, mean error {error:.0%} on samples held out" for name, error in errors.items())


def _flagged(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Say for every kind of flag how many samples carry it; kinds differ in what stands before the colon."""
    kinds = Counter(flag.partition(":")[0] for sample in samples for flag in dict.fromkeys(sample.flags))
    whys: dict[str, list[str]] = {}
    for flag in (flag for sample in samples for flag in sample.flags):
        whys.setdefault(flag.partition(":")[0], []).append(flag.partition(":")[2].strip())
    return tuple(
        f"flagged: {count} of {len(samples)} samples {kind}" + (f" ({why})" if (why := Counter(whys[kind]).most_common(1)[0][0]) else "")
        for kind, count in kinds.items()
    )


def _empty_record(device: Device, telemeter: Telemeter, plan: str, hardware: Hardware | None) -> CalibrationRecord:
    now = datetime.now(UTC).replace(microsecond=0)
    release = version("roofline")
    described = {**telemeter.properties, **device.properties}
    software = {name: str(described.pop(name)) for name in ("torch", "cuda", "python", "system") if name in described}
    name = hardware.id if hardware else re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-") or device.kind
    return CalibrationRecord(
        id=f"{name}-torch-{now:%Y%m%d-%H%M}",
        hardware=hardware.id if hardware else "",
        date=now.isoformat(),
        source=f"roofline {release} calibrate, micro-benchmarks with torch",
        environment=Environment(device=device.name, software={"roofline": release, **software, **telemeter.software}, properties=described),
        rates=_datasheet(hardware) if hardware else Rates(origin="measured"),
        complete=False,
        plan=plan,
    )


def _datasheet(hardware: Hardware) -> Rates:
    peaks = {operand: hardware.peak(operand).value for operand in OPERANDS}
    return Rates(
        peak_flops_per_s={operand: peak for operand, peak in peaks.items() if math.isfinite(peak)},
        memory_bandwidth=hardware.memory_bandwidth,
        link_bandwidth=hardware.link_ceiling.value if hardware.link_ceiling else None,
        origin="datasheet",
    )


def _check_same(previous: CalibrationRecord, now: CalibrationRecord, path: Path) -> None:
    """Refuse to mix samples of two devices, plans or versions of the software in one record."""

    def identity(record: CalibrationRecord) -> Mapping[str, Any]:
        software, told = record.environment.software, record.environment.properties
        of_software = {name: software.get(name) for name in ("roofline", "torch", "cuda", "driver")}
        of_device = {name: told.get(name) for name in ("uuid_hash", "threads")}
        return {"device": record.environment.device, "plan": record.plan, "hardware": record.hardware or None, **of_software, **of_device}

    before, after = identity(previous), identity(now)
    differing = [f"{n} {before[n]} there, {after[n]} now" for n in before if before[n] != after[n] and None not in (before[n], after[n])]
    if differing:
        raise CalibrationError(
            f"{path} holds a record that this run cannot go on with: {', '.join(differing)}. "
            "Name another file, or start anew with resume=False (--fresh)."
        )
