"""The estimate of a single kernel: the time to expect of a GEMM or attention kernel, beside its floor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roofline.arithmetic import Number, maximum, minimum
from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError
from roofline.estimate.constants import (
    Chosen,
    check_interval,
    choose_each,
    describe_record,
    find_record,
    generic_mark,
    record_input,
    record_notes,
    steps_of,
    whose_constants,
)
from roofline.floors import KernelFloor
from roofline.kernels import FAMILIES, Family
from roofline.ops import Op
from roofline.records import CalibrationRecord
from roofline.results import Question, Result, show_span
from roofline.units import show_time


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class KernelEstimate(Result):
    """The time to expect of one kernel, with an interval.

    Parameters
    ----------
    floor : KernelFloor
        The floor of the same kernel; the estimate is never below it [-].
    record : CalibrationRecord
        The calibration record [-].
    chosen : Chosen
        The constants used; where kernels differ in the sizes by which a record has constants, those of each [-].
    time_s : float or numpy.ndarray
        The time to expect [s].
    interval : float
        Probability that such a kernel, run as in the measurements, takes between `low_s` and `high_s` [-].
    """

    floor: KernelFloor
    record: CalibrationRecord
    chosen: Chosen
    time_s: Number
    interval: float

    def _end(self, level: float) -> Number:
        op, shape = self.floor.op, np.shape(self.time_s)
        family = FAMILIES[op.family]
        rest = np.exp(self.chosen.residuals(family, _columns(family, op, shape, self.chosen)).at(level))
        return self.time_s * (np.reshape(rest, shape) if rest.size > 1 else float(rest.item()))

    @property
    def low_s(self) -> Number:
        """The lower end of the interval, never above the estimate nor below the floor [s]."""
        return maximum(minimum(self._end(0.5 - self.interval / 2), self.time_s), self.floor.time_s)

    @property
    def high_s(self) -> Number:
        """The upper end of the interval, never below the estimate [s]."""
        return maximum(self._end(0.5 + self.interval / 2), self.time_s)

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the calibration, whether constants are those of another class of kernels, and what the floor assumes of its kernel."""
        return (*record_notes(self.record, self.floor.hardware), *self.chosen.notes, *self.floor.notes)

    @property
    def constants(self) -> str:
        """Whose the constants are: ``"own"``, ``"generic"``, or ``"borrowed: ..."`` with what from where."""
        return whose_constants(self.record, self.chosen.notes)

    def question(self) -> Question | None:
        """Return the question that this answers; its ``kernel`` is the one that gave the floor [-]."""
        asked = self.floor.question()
        if asked is None:
            return None
        own = {"calibration": record_input(self.record), "interval": self.interval}
        return Question("kernel_estimate", {"kernel": asked.name, **asked.inputs, **own})

    def basis(self) -> dict[str, Any]:
        """Return the id of the calibration record, and whose its constants are [-]."""
        return {"calibration": self.record.id, "constants": self.constants}

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        return {"time_s": self.time_s, "low_s": self.low_s, "high_s": self.high_s, "floor_s": self.floor.time_s, "bound": self.floor.bound}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        return {
            "kind": f"{self.floor.op.name} estimate",
            "hardware": self.floor.hardware.id,
            "calibration": describe_record(self.record) | {"constants": self.constants},
            "interval": self.interval,
            "constants": {name: _one_or_all(column) for name, column in self.chosen.constants.items()},
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Return the short text [-]."""
        low, high = (show_span(end, show_time) for end in (self.low_s, self.high_s))
        ends = f"from {low} to {high}" if np.ndim(self.time_s) else f"{low} – {high}"
        constants = ", ".join(f"{name} {show_span(_one_or_all(column), '{:.3g}'.format)}" for name, column in self.chosen.constants.items())
        return [
            f"{self.floor.op.name} estimate on {self.floor.hardware.name}: {show_span(self.time_s, show_time)} ({self.interval:.0%}: {ends}{generic_mark(self.record)})",
            f"  floor: {show_span(self.floor.time_s, show_time)}",
            f"  calibration: {self.record.id}: {constants}",
            *(f"  note: {note}" for note in self.notes),
        ]

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


@checks_keywords
def kernel_estimate(
    floor: KernelFloor, *, calibration: CalibrationRecord | str | Path | None = None, interval: float = 0.8
) -> KernelEstimate:
    """Return the time to expect of a kernel, given its floor.

    Parameters
    ----------
    floor : KernelFloor
        From :func:`roofline.matmul_floor`, :func:`roofline.attention_floor`, :func:`roofline.experts_floor`,
        :func:`roofline.latent_attention_floor`, :func:`roofline.collective_floor`, :func:`roofline.rowwise_floor` or
        :func:`roofline.floors.counted_floor` [-].
    calibration : CalibrationRecord, str or Path, optional
        As in :func:`roofline.step_estimate` [-].
    interval : float, optional
        Probability of the interval, up to 0.98 [-].

    Returns
    -------
    KernelEstimate
        Numbers of the floor's shape, never below it [-].

    Raises
    ------
    RooflineError
        If the floor launches no kernel, the record is unknown, or it has no constants for the kernel.

    Examples
    --------
    >>> from roofline import matmul_floor
    >>> estimate = kernel_estimate(matmul_floor(4096, 4096, 4096, "h100-sxm", format="bf16"))
    >>> bool(estimate.floor.time_s < estimate.low_s < estimate.time_s < estimate.high_s)
    True
    """
    if not isinstance(floor, KernelFloor):
        raise InvalidValueError(f"kernel_estimate takes the floor of a kernel, such as matmul_floor(...), not {type(floor).__name__}.")
    check_interval(interval)
    op, hardware = floor.op, floor.hardware
    if not op.family:
        raise InvalidValueError(f"{op.name} launches no kernel, so it has no estimate; its floor is {show_span(floor.time_s, show_time)}.")
    record, family = find_record(calibration, hardware), FAMILIES[op.family]
    shape = np.shape(floor.time_s)
    chosen = choose_each(family, op, shape, record, hardware, steps=steps_of(op))
    rates = {"peak_flops_per_s": chosen.peak_flops_per_s, "bandwidth": chosen.bandwidth}
    seconds = family.seconds(_columns(family, op, shape, chosen), chosen.constants, **rates)
    time = np.maximum(np.reshape(seconds, shape), floor.time_s)
    return KernelEstimate(floor, record, chosen, time if shape else float(time), float(interval))


def _columns(family: Family, op: Op, shape: tuple[int, ...], chosen: Chosen) -> dict[str, np.ndarray]:
    """Return what the time of kernels depends on as rows for each of the constants: all kernels in one, or one in each."""
    each = (len(chosen.generic), -1)
    return {name: np.broadcast_to(np.asarray(value, dtype=float), shape).reshape(each) for name, value in family.features(op).items()}


def _one_or_all(column: np.ndarray) -> Number:
    """Return a constant, or that of every kernel where they differ."""
    return float(column[0, 0]) if np.ptp(column) == 0 else column[:, 0]
