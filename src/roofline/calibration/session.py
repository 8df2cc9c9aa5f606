"""A calibration run that can be interrupted at any moment and resumed."""

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from roofline.calibration.collectives import SIZES, measure_all_reduce
from roofline.calibration.devices import Device
from roofline.calibration.lock import only_run, stamp
from roofline.calibration.measure import DeviceLost, Measurement, measure
from roofline.calibration.operators import OutOfMemory
from roofline.calibration.plan import PLANS, Point, check_ranks
from roofline.calibration.provenance import (
    as_path,
    check_device_name,
    check_same,
    continued_record,
    empty_record,
    resumed_record,
    same_rates,
)
from roofline.errors import CalibrationError, InvalidValueError, MissingDependencyError, quoted
from roofline.fitting.classes import fit_classes, measured_rates, overheads
from roofline.fitting.conditions import check_fits, check_rates, count_flags
from roofline.hardware import Hardware
from roofline.records import CalibrationRecord, Condition, KernelClass, Rates, load_record, save_record
from roofline.records.samples import Sample, group_samples, list_samples
from roofline.telemetry.reading import Reading, Telemeter

Progress = Callable[[int, int, Point | None], None]
"""Called as ``progress(done, points, point)`` before each point, and with None before the fit."""

_MOST_NAMED = 3
_LEAST_BUDGET_S, _MOST_BUDGET_S = 0.1, 0.6
_START_S = 15.0  # reserved for the start of the all-reduce processes
_WAIT_S = 60.0  # after which they are ended, however much time is left


def check_progress(progress: Progress | None) -> Progress | None:
    """Return the progress callback, if it can be called."""
    if progress is not None and not callable(progress):
        raise InvalidValueError(f"progress is {quoted(progress)}; it must be called as progress(done, points, point), or None.")
    return progress


class _NotWrittenError(CalibrationError):
    """The file cannot be written, which ends a run."""


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
    output : str or path
        The record's file [-].
    plan : str
        The plan's name [-].
    hardware : Hardware, optional
        The machine whose datasheet shares refer to; by default the one of the resumed record, or else the best measured rates [-].
    resume : bool, optional
        Whether to resume the record in the file; otherwise it is replaced [-].
    ranks : int, optional
        Number of ranks of the all-reduces, the last points of the plan; 1 disables them [-].
    measure : callable, optional
        ``measure(point, device, budget_s=…)`` → ``Measurement`` [-].

    Raises
    ------
    CalibrationError
        If the file holds no valid record, or one of another device, plan or software, or `output` is not a path.
    InvalidValueError
        If `plan` is not a name, or `ranks` not a count.
    """

    def __init__(
        self,
        device: Device,
        points: Sequence[Point],
        telemeter: Telemeter,
        output: "str | os.PathLike[str]",
        *,
        plan: str,
        hardware: Hardware | None = None,
        resume: bool = True,
        ranks: int = 1,
        measure: Callable[..., Measurement] = measure,
    ) -> None:
        ranks = check_ranks(ranks)
        if not isinstance(plan, str):
            raise InvalidValueError(f"plan is {quoted(plan)}; it must be a plan's name, such as {' or '.join(PLANS)}.")
        reduces = (Point("all_reduce", "fp32", "fp32", {"ranks": ranks, "bytes": size}) for size in SIZES if ranks > 1)
        self._device, self._points, self._telemeter, self._output = device, (*points, *reduces), telemeter, as_path(output)
        self._hardware, self._measure, self._ranks = hardware, measure, ranks
        self._skipped: dict[str, list[str]] = {}
        self._crashes: dict[str, Condition] = {}
        self._record = empty_record(device, telemeter, plan, hardware)
        self._observed = telemeter.conditions
        self._name_warning = check_device_name(device.name, hardware)
        self._previous: CalibrationRecord | None = None
        self.samples: list[Sample] = []
        self._written = stamp(self._output)
        if resume and self._output.exists():
            self._resume(resumed_record(self._output), len(points))

    def _resume(self, previous: CalibrationRecord, alone: int) -> None:
        """Take over the samples and conditions of a record; the first `alone` points are those of the device alone."""
        check_same(previous, self._record, self._output)
        self._previous, self.samples = previous, list_samples(previous.classes)
        planned = {point.key for point in self._points}
        self._crashes = {c.point: c for c in previous.conditions if c.code == "device lost" and c.point in planned}
        # points that crashed the device are retried last
        self._points = (*sorted(self._points[:alone], key=lambda p: p.key in self._crashes), *self._points[alone:])
        kept = (c for c in previous.conditions if not c.recomputed)
        # without new samples the state of the device today does not matter
        observed = (*kept, *(self._telemeter.conditions if self.remaining else ()))
        self._observed = tuple({(c.code, c.text if c.code == "note" else ""): c for c in observed}.values())
        if self._hardware is None:
            self._name_warning = tuple(c for c in previous.conditions if c.code == "not recognized")
        self._record = continued_record(previous, self._record)

    @property
    def remaining(self) -> tuple[Point, ...]:
        """Points that have no sample yet [-]."""
        known = {sample.key for sample in self.samples}
        return tuple(point for point in self._points if _key(point) not in known)

    def run(self, progress: Progress | None = None, *, limit_s: float = math.inf) -> CalibrationRecord:
        """Measure the points without a sample, fit, and return the finished record."""
        with only_run(self._output):
            if stamp(self._output) not in (None, self._written):
                raise CalibrationError(f"{self._output}: another run has written this record meanwhile; start again to resume it.")
            return self._run(progress, limit_s)

    def _run(self, progress: Progress | None, limit_s: float) -> CalibrationRecord:
        report = check_progress(progress) or (lambda done, points, point: None)
        remaining, total, known = self.remaining, len(self._points), len(self.samples)
        previous = self._previous
        if previous is not None and previous.complete and not remaining and same_rates(previous, self._record):
            return previous
        alone = tuple(point for point in remaining if point.family != "all_reduce")
        together, done = remaining[len(alone) :], total - len(remaining)
        start_s = _START_S if together else 0.0
        ends = time.monotonic() + limit_s
        paced = time.monotonic() + min(limit_s * len(remaining) / max(total, 1), limit_s - start_s)
        try:
            for place, point in enumerate(alone):
                if time.monotonic() >= ends - start_s:
                    self._skip("the plan's time was over", alone[place:])
                    break
                report(done + place, total, point)
                try:
                    sample = self._sample(point, budget_s=_budget((paced - time.monotonic()) / (len(remaining) - place)))
                except DeviceLost as error:
                    text = f"device lost: {point.key}: {_reason(error, point)}"
                    self._crashes[point.key] = Condition(code="device lost", text=text, point=point.key)
                    self._skip("the device was lost", (*alone[place + 1 :], *together))
                    together = ()
                    break
                self._crashes.pop(point.key, None)
                if sample is not None:
                    self._keep(sample)
            if together:
                self._measure_all_reduces(together, ends, lambda place: report(done + len(alone) + place, total, together[place]))
        except KeyboardInterrupt:
            if len(self.samples) > known:  # the last sample may not be written yet; without a new one the file stays as it is
                self._save(self._unfinished())
            raise
        if not self.samples:
            reasons = "; ".join(map(str, self._skips())) or "it has none"
            raise CalibrationError(f"no point of the plan could be measured: {reasons}.")
        report(total, total, None)
        self._save(self._finished())
        return load_record(self._output)

    def _sample(self, point: Point, budget_s: float) -> Sample | None:
        """Measure one point, or note why that fails."""
        try:
            measured, reading = self._telemeter.watch(lambda: self._measure(point, self._device, budget_s=budget_s))
            if math.isfinite(measured.seconds) and measured.seconds > 0:
                return _as_sample(point, measured, reading)
            reason = f"its time was {measured.seconds}, not a positive number"
        except OutOfMemory:
            reason = "out of memory"
        except (MissingDependencyError, DeviceLost):
            raise
        except Exception as error:  # one broken kernel must not stop the others
            reason = _reason(error, point)
        self._skip(reason, (point,))
        return None

    def _measure_all_reduces(self, points: Sequence[Point], ends: float, begin: Callable[[int], None]) -> None:
        """Measure the all-reduces, whose processes are started once for all of them, or note why some fail."""

        def keep(point: Point, measured: Measurement) -> None:
            self._keep(_as_sample(point, measured, Reading()))
            place = points.index(point) + 1
            if place < len(points):
                begin(place)

        left = ends - time.monotonic()
        begin(0)
        try:
            measure_all_reduce(
                self._device,
                ranks=self._ranks,
                sizes=[point.sizes["bytes"] for point in points],
                timeout_s=min(max(left, 1.0), _WAIT_S),
                size_s=_budget((left - _START_S) / len(points)),
                report=keep,
            )
        except _NotWrittenError:
            raise
        except CalibrationError as error:
            self._skip(str(error).rstrip("."), [point for point in self.remaining if point in points])

    def _keep(self, sample: Sample) -> None:
        self.samples.append(sample)
        self._save(self._unfinished())

    def _skip(self, reason: str, points: Sequence[Point]) -> None:
        self._skipped.setdefault(reason, []).extend(point.key for point in points)

    def _skips(self) -> list[Condition]:
        return [Condition(code="skipped", text=f"skipped, {reason}: {_named(points)}") for reason, points in self._skipped.items()]

    def _unfinished(self) -> CalibrationRecord:
        text = f"only {len(self.samples)} of {len(self._points)} points of the plan are measured, nothing is fitted"
        return self._filled(group_samples(self.samples), complete=False, found=(Condition(code="unfinished", text=text),))

    def _finished(self) -> CalibrationRecord:
        rates, doubts = self._rates()
        fitted = fit_classes(group_samples(self.samples), rates, hardware=self._hardware)
        cache = max(self._device.cache_bytes, self._hardware.last_level_cache if self._hardware else 0.0)
        limits = rates
        if self._hardware is not None:  # a part may run above the clock of its data sheet's peak
            most = {operand: self._hardware.ceiling(operand).value for operand in rates.peak_flops_per_s}
            limits = rates.model_copy(update={"peak_flops_per_s": most})
        too_fast = check_rates(self.samples, limits, cache_bytes=cache, machine=self._record.hardware)
        record = self._filled(fitted, complete=True, found=(*too_fast, *check_fits(self.samples, fitted), *doubts))
        return record.model_copy(update={"rates": rates, "overheads": overheads(self.samples)})

    def _filled(self, classes: tuple[KernelClass, ...], *, complete: bool, found: tuple[Condition, ...]) -> CalibrationRecord:
        """Return the record with classes and all conditions, those `found` in the samples among them."""
        crashes, flags = self._crashes.values(), count_flags(self.samples)
        conditions = dict.fromkeys((*self._name_warning, *found, *self._observed, *crashes, *self._skips(), *flags))
        return self._record.model_copy(update={"classes": classes, "complete": complete, "conditions": tuple(conditions)})

    def _rates(self) -> tuple[Rates, tuple[Condition, ...]]:
        if self._record.rates.origin == "measured":
            return measured_rates(self.samples, cache_bytes=self._device.cache_bytes)
        return self._record.rates, ()

    def _save(self, record: CalibrationRecord) -> None:
        if stamp(self._output) not in (None, self._written):
            raise _NotWrittenError(f"{self._output}: another run has written this record meanwhile; it is left as it is.")
        try:
            save_record(record, self._output)
            self._written = stamp(self._output)
        except (OSError, CalibrationError) as error:
            reason = str(error) if isinstance(error, CalibrationError) else f"{self._output}: cannot be written: {error.strerror or error}."
            raise _NotWrittenError(f"{reason} The last sample is lost; run again to resume after the one before it.") from None


def _reason(error: Exception, point: Point) -> str:
    """Return the first line of an error, without the key of the point."""
    lines = str(error).removeprefix(point.key).strip().splitlines()
    return lines[0][:120].rstrip(".") if lines else type(error).__name__


def _budget(left_s: float) -> float:
    return min(max(left_s, _LEAST_BUDGET_S), _MOST_BUDGET_S)


def _as_sample(point: Point, measured: Measurement, reading: Reading) -> Sample:
    # quantiles that are not finite, or on the wrong side of the median, are replaced by the median
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
        (*measured.flags, *reading.flags),
        reading.telemetry,
    )


def _key(point: Point) -> tuple[Any, ...]:
    return Sample(point.family, point.stored, point.operand, point.sizes, point.fixed, 1.0, 1.0, 1.0, 0.0).key


def _named(points: Sequence[str]) -> str:
    more = f" and {len(points) - _MOST_NAMED} more" if len(points) > _MOST_NAMED else ""
    return ", ".join(points[:_MOST_NAMED]) + more
