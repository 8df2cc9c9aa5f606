"""The result of an estimate: the time to expect, its interval, where it goes, and what it was measured from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from roofline.arithmetic import Number, maximum, minimum
from roofline.estimate.constants import Chosen, describe_record, residual_quantile, rests_on
from roofline.estimate.stacks import Stack
from roofline.floors import UNKNOWN_LINKS, Floor
from roofline.records import CalibrationRecord, FittedConstant
from roofline.results import Result, show_span
from roofline.units import show_time


@dataclass(frozen=True, slots=True)
class KernelTime:
    """What the kernels of one operator are expected to take.

    Parameters
    ----------
    name : str
        The operator [-].
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


@dataclass(frozen=True, slots=True)
class Overheads:
    """What a step takes outside kernels.

    Parameters
    ----------
    step : FittedConstant
        Sampling, synchronization and the host's turn between two steps [s].
    launch : FittedConstant
        What the host needs to launch one kernel [s].
    cuda_graph : bool
        Whether the host launches a step as a whole, so that `launch` does not count [-].
    borrowed : mapping of str to str, optional
        Which of the two are another record's, and whose [-].
    """

    step: FittedConstant
    launch: FittedConstant
    cuda_graph: bool
    borrowed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Estimate(Result):
    """The time to expect of one step, or of an array of steps, with an interval.

    Parameters
    ----------
    floor : Floor
        The floor of the same step, which no estimate passes [-].
    record : CalibrationRecord
        What was measured [-].
    parts : tuple of (Stack, Chosen, numpy.ndarray)
        Kernels by family, their constants, and the time of each, n × steps [s].
    overheads : Overheads
        What the step takes besides [-].
    interval : float
        Probability with which `low_s` … `high_s` holds the time of kernels like those that were measured, run as they were. What else
        happens in a server is not in it [-].
    """

    floor: Floor
    record: CalibrationRecord
    parts: tuple[tuple[Stack, Chosen, np.ndarray], ...]
    overheads: Overheads
    interval: float

    def _shaped(self, flat: np.ndarray) -> Number:
        shape = self.floor.work.step.shape
        return flat.reshape(shape) if shape else flat[0].item()

    @property
    def kernels_s(self) -> Number:
        """The device's time: all kernels, one after another [s]."""
        return self._shaped(np.add.reduce([seconds.sum(axis=0) for _, _, seconds in self.parts]))

    @property
    def kernels(self) -> Number:
        """How many kernels a step launches: those that have rows [-]."""
        launched = np.add.reduce([(stack.counts * (seconds > 0)).sum(axis=0) for stack, _, seconds in self.parts]).astype(int)
        return self._shaped(launched)

    @property
    def overhead_s(self) -> Number:
        """What comes on top of the kernels: the step's own time, and the host's where it launches more slowly than kernels run [s]."""
        behind = 0.0 if self.overheads.cuda_graph else maximum(self.kernels * self.overheads.launch.value - self.kernels_s, 0.0)
        return self.overheads.step.value + behind

    @property
    def time_s(self) -> Number:
        """The time to expect, never below the floor [s]."""
        return maximum(self.kernels_s + self.overhead_s, self.floor.time_s)

    def _deviation(self, level: float) -> Number:
        """How far the time may lie from the expected one, at one level of probability.

        The kernels of one operator are all too slow or all too fast together. Those of different operators are independent where
        the machine was measured; where constants of no machine in particular stand in, they are all wrong in the same direction.
        """
        apart = [seconds * np.expm1(residual_quantile(chosen.quantiles, level))[:, None] for _, chosen, seconds in self.parts]
        every, generic = np.concatenate(apart), np.concatenate([chosen.generic for _, chosen, _ in self.parts])
        own, step = every[~generic], _spread(self.overheads.step, level)
        sign = 1.0 if level > 0.5 else -1.0
        return self._shaped(every[generic].sum(axis=0) + sign * np.sqrt((own**2).sum(axis=0) + step**2))

    @property
    def low_s(self) -> Number:
        """The lower end of the interval, never below the floor [s]."""
        return maximum(self.time_s + minimum(self._deviation(0.5 - self.interval / 2), 0.0), self.floor.time_s)

    @property
    def high_s(self) -> Number:
        """The upper end of the interval [s]."""
        return self.time_s + maximum(self._deviation(0.5 + self.interval / 2), 0.0)

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
        """What was the matter with the measurement, and where other constants stand in for a kernel's own or the step's."""
        stand_in = tuple(dict.fromkeys(note for _, chosen, _ in self.parts for note in chosen.notes))
        times = {"step": self.overheads.step.value} | ({} if self.overheads.cuda_graph else {"launch": self.overheads.launch.value})
        borrowed = [
            f"{show_time(seconds)} of overhead per {name} is the {self.overheads.borrowed[name]} record's"
            for name, seconds in times.items()
            if self.overheads.borrowed.get(name, self.record.id) != self.record.id
        ]
        return (*rests_on(self.record, self.floor.hardware), *stand_in, *borrowed, *self._unknown_links)

    @property
    def not_modelled(self) -> tuple[str, ...]:
        """What the estimate leaves out."""
        return (*self.floor.model.not_modelled, "scheduling under load, and clocks that fall with it", *self._unknown_links)

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
        for stack, chosen, seconds in self.parts:
            ends = zip(residual_quantile(chosen.quantiles, low), residual_quantile(chosen.quantiles, high), strict=True)
            for op, time, (a, b) in zip(stack.ops, seconds, ends, strict=True):
                times = (self._shaped(time), self._shaped(time * np.exp(min(a, 0.0))), self._shaped(time * np.exp(max(b, 0.0))))
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
            "calibration": describe_record(self.record),
            "interval": self.interval,
            "kernels": self.kernels,
            "overheads": {
                "step_s": self.overheads.step.value,
                "launch_s": self.overheads.launch.value,
                "cuda_graph": self.overheads.cuda_graph,
            },
            "notes": self.notes,
            "assumptions": self.floor.premises,
            "not_modelled": self.not_modelled,
        }

    def summary(self) -> list[str]:
        """Return the short text: the time and its interval in the first line, then the floor, the parts and the record [-]."""
        floor, share = self.floor, f"{self.interval:.0%}"
        ends = [show_span(end, show_time) for end in (self.low_s, self.high_s)]
        span = f"{share}: {' – '.join(ends)}" if not floor.work.step.shape else f"{share}: from {ends[0]} to {ends[1]}"
        over = np.divide(self.time_s, floor.time_s)
        generic = self.record.rates.origin == "fraction"
        lines = [
            f"{floor.kind} estimate of {floor.model.name} on {floor.hardware.name}: {show_span(self.time_s, show_time)} ({span})",
            f"  floor: {show_span(floor.time_s, show_time)}; the estimate is {show_span(over, '{:.3g}'.format)} times that",
            f"  kernels: {show_span(self.kernels_s, show_time)} in {show_span(self.kernels, '{:g}'.format)} launches; overhead: {show_span(self.overhead_s, show_time)}",
        ]
        lines += floor.fit_lines()
        what = "constants of no machine in particular: expect the whole interval" if generic else f"dated {self.record.date[:10]}"
        lines.append(f"  calibration: {self.record.id} ({what})")
        lines += [f"  note: {note}" for note in self.notes]
        return lines

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


def _spread(constant: FittedConstant, level: float) -> float:
    """Return how far a constant may lie from its value at one level of probability, as far as its 80 % interval tells [unit]."""
    end = constant.high if level > 0.5 else constant.low
    return (end - constant.value) * abs(NormalDist().inv_cdf(level)) / NormalDist().inv_cdf(0.9)
