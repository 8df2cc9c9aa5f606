"""The result of an estimate: the time to expect, its interval, where it goes, and what it was measured from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.arithmetic import Number, maximum, minimum
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.options import STEP
from roofline.estimate.constants import dated, describe_record, generic_mark, record_input, record_notes, whose_constants
from roofline.estimate.overheads import Overheads
from roofline.estimate.timing import Timed
from roofline.floors import UNKNOWN_LINKS, Floor
from roofline.records import CalibrationRecord
from roofline.results import Question, Result, show_notes, show_span
from roofline.units import show_time

_HEAVY = 0.1  # of a step's time: kernels that take more are named before all else if their constants are another class's


@dataclass(frozen=True, slots=True)
class KernelTime:
    """What the kernels of one operator are expected to take.

    Parameters
    ----------
    name : str
        The operator, by the name that the rows of a floor have too; of operators that one kernel runs, their names joined by ``+``, or the
        part of the name that they share [-].
    family : str
        What kind of kernel it is timed as [-].
    count : int
        How many kernels [-].
    time_s, low_s, high_s : float or numpy.ndarray
        Their time together, and the ends of its interval [s].
    """

    name: str
    family: str
    count: int
    time_s: Number
    low_s: Number
    high_s: Number


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Estimate(Result):
    """The time to expect of one step, or of an array of steps, with an interval.

    Parameters
    ----------
    floor : Floor
        The floor of the same step, which no estimate passes [-].
    record : CalibrationRecord
        What was measured [-].
    timed : Timed
        Its kernels by family, with their constants and times, and its overheads [-].
    interval : float
        Probability with which `low_s` … `high_s` holds the time of kernels like those that were measured, run as they were. What else
        happens in a server is not in it [-].
    """

    floor: Floor
    record: CalibrationRecord
    timed: Timed
    interval: float

    def __post_init__(self) -> None:
        """Freeze nothing: what it holds is frozen."""

    def _shaped(self, flat: Number) -> Number:
        """Give sums the step's shape; those of a single step are numbers already."""
        if not isinstance(flat, np.ndarray):
            return flat
        shape = self.floor.work.shape
        return flat.reshape(shape) if shape else flat[0].item()

    @property
    def overheads(self) -> Overheads:
        """What the step takes outside kernels."""
        return self.timed.overheads

    @property
    def kernels_s(self) -> Number:
        """The device's time: all kernels, one after another [s]."""
        return self._shaped(self.timed.kernels_s)

    @property
    def kernels(self) -> Number:
        """How many kernels a step launches: those that have rows [-]."""
        return self._shaped(self.timed.launches)

    @property
    def overhead_s(self) -> Number:
        """What comes on top of the kernels: the step's own time, and the host's where it launches more slowly than kernels run [s]."""
        return self._shaped(self.timed.overhead_s)

    @property
    def time_s(self) -> Number:
        """The time to expect, never below the floor [s]."""
        return maximum(self.kernels_s + self.overhead_s, self.floor.time_s)

    @property
    def low_s(self) -> Number:
        """The lower end of the interval, never below the floor [s]."""
        return maximum(self.time_s + minimum(self._shaped(self.timed.deviation(0.5 - self.interval / 2)), 0.0), self.floor.time_s)

    @property
    def high_s(self) -> Number:
        """The upper end of the interval [s]."""
        return self.time_s + maximum(self._shaped(self.timed.deviation(0.5 + self.interval / 2)), 0.0)

    @property
    def tokens_per_s(self) -> Number:
        """Token rows per second, all devices together and a step in flight in every pipeline stage [token/s].

        Not a number where the step does not fit.
        """
        return self.floor.tokens_per_s * (self.floor.time_s / self.time_s)

    @property
    def fits(self) -> Number | None:
        """Whether weights and cache fit into memory; None where the capacity is not known."""
        return self.floor.fits

    @property
    def bound(self) -> Number:
        """What binds the floor of the same step."""
        return self.floor.bound

    @property
    def notes(self) -> tuple[str, ...]:
        """What the names are read as, what a batch is in a pipeline, a sequence that is too long for the model, warnings about the calibration, and which constants were borrowed from another class or record."""
        borrowed = self.timed.timing.borrowed(self.record)
        return (
            *self.floor.deployment.notes,
            *self.floor.beyond_positions,
            *record_notes(self.record, self.floor.hardware),
            *borrowed,
            *self.timed.timing.fused,
            *self._host_bound,
            *self._unknown_links,
        )

    @property
    def constants(self) -> str:
        """Whose the constants are: ``"own"``, ``"generic"``, or ``"borrowed: ..."`` with what from where."""
        return whose_constants(self.record, self.timed.timing.borrowed(self.record))

    @property
    def not_modelled(self) -> tuple[str, ...]:
        """What the estimate leaves out."""
        return (*self.floor.model.not_modelled, "scheduling under load, and clocks that fall with it", *self._unknown_links)

    @property
    def _host_bound(self) -> tuple[str, ...]:
        engine, seconds = self.overheads.engine, self.overheads.layers_s
        if engine is None or not np.any(self.timed.behind_s > 0):
            return ()
        text = (
            f"the host of {engine.name} launches the layers of a step with prompts in {show_time(seconds)}, longer than their kernels run"
        )
        return (f"{text}; fitted to versions {engine.host.versions}, and their spread is not in the interval",)

    @property
    def _unknown_links(self) -> tuple[str, ...]:
        return tuple(note for note in self.floor.not_modelled if note == UNKNOWN_LINKS)

    def by_op(self) -> tuple[KernelTime, ...]:
        """Return the time of every operator's kernels, by family in the order of execution.

        Returns
        -------
        tuple of KernelTime
            Their times add up to `kernels_s` [s].
        """
        low, high = 0.5 - self.interval / 2, 0.5 + self.interval / 2
        rows = []
        for (stack, _, seconds), residuals in zip(self.timed.parts, self.timed.residuals, strict=True):
            for op, time, a, b in zip(stack.ops, seconds, residuals.at(low), residuals.at(high), strict=True):
                ends = (time * np.exp(np.minimum(a, 0.0)), time * np.exp(np.maximum(b, 0.0)))
                times = (self._shaped(time), *map(self._shaped, ends))
                rows.append(KernelTime(op.name, stack.family.name, op.count, *times))
        return tuple(rows)

    def table(self) -> list[Mapping[str, Any]]:
        """Return :meth:`by_op` as plain rows.

        Returns
        -------
        list of mapping
            One row per operator, SI units [-].
        """
        return [{f: getattr(row, f) for f in ("name", "family", "count", "time_s", "low_s", "high_s")} for row in self.by_op()]

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        own = {"calibration": record_input(self.record), "cuda_graph": self.overheads.cuda_graph, "interval": self.interval}
        return Question(f"{self.floor.kind}_estimate", deployment_inputs(self.floor.deployment, STEP, **self.floor.asked, **own))

    def basis(self) -> dict[str, Any]:
        """Return the id of the calibration record, and whose its constants are [-]."""
        return {"calibration": self.record.id, "constants": self.constants}

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        names = "time_s low_s high_s kernels_s overhead_s bound tokens_per_s fits"
        return {name: getattr(self, name) for name in names.split()} | {"floor_s": self.floor.time_s}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: model, machine, record, overheads, notes [-]."""
        floor = self.floor.context()
        return {
            "kind": f"{self.floor.kind} estimate",
            "model": floor["model"],
            "model_source": floor["model_source"],
            "hardware": floor["hardware"],
            "calibration": describe_record(self.record) | {"constants": self.constants},
            "interval": self.interval,
            "kernels": self.kernels,
            "overheads": {
                "step_s": self.overheads.step.value,
                "launch_s": self.overheads.launch.value,
                "cuda_graph": self.overheads.cuda_graph,
                "engine": None if self.overheads.engine is None else self.overheads.engine.id,
                "sequence_s": self.overheads.sequence_s,
                "layers_s": self.overheads.layers_s,
            },
            "notes": self.notes,
            "assumptions": self.floor.premises,
            "not_modelled": self.not_modelled,
        }

    def summary(self) -> list[str]:
        """Return the short text: the time and its interval in the first line, then the floor, the parts and the record [-]."""
        floor, share = self.floor, f"{self.interval:.0%}"
        ends = [show_span(end, show_time) for end in (self.low_s, self.high_s)]
        span = f"{share}: {' – '.join(ends)}" if not floor.work.shape else f"{share}: from {ends[0]} to {ends[1]}"
        over = np.divide(self.time_s, floor.time_s)
        generic = generic_mark(self.record)
        heavy = self._stand_ins()
        return [
            f"{floor.kind} estimate of {floor.model.name} on {floor.hardware.name}: {show_span(self.time_s, show_time)} ({span}{generic})",
            f"  calibration: {self.record.id} ({dated(self.record)})"
            + ("" if generic else f"; the interval is that of {share} of sums of such kernels"),
            *(f"  stand-in for {part} of the time: {text}" for text, part in heavy.items()),
            f"  floor: {show_span(floor.time_s, show_time)}; the estimate is {show_span(over, '{:.3g}'.format)} times that",
            f"  kernels: {show_span(self.kernels_s, show_time)} in {show_span(self.kernels, '{:g}'.format)} launches; overhead: {show_span(self.overhead_s, show_time)}",
            *floor.fit_lines(),
            *show_notes(tuple(note for note in self.notes if note not in heavy)),
        ]

    def _stand_ins(self) -> dict[str, str]:
        """Return which constants stand in for those of kernels that take more than a tenth of a step, and what part of it."""
        seconds: dict[str, Any] = {}
        for _, chosen, times in self.timed.parts:
            for text, own in zip(chosen.stand_ins, times, strict=True):
                seconds[text] = seconds.get(text, 0.0) + own
        parts = {text: own / np.ravel(self.time_s) for text, own in seconds.items() if text}
        return {text: show_span(part, "{:.0%}".format) for text, part in parts.items() if np.any(part > _HEAVY)}

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"
