"""`Comparison`: what was measured, beside the estimate and the floor of the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roofline.deployment import Deployment
from roofline.errors import InvalidValueError
from roofline.estimate.constants import describe_record
from roofline.measured.gaps import as_rows, largest
from roofline.measured.measurement import ServingMeasurement
from roofline.measured.point import Point
from roofline.measured.subject import Subject
from roofline.measured.times import ComparedTime
from roofline.names import unknown_name
from roofline.records import CalibrationRecord
from roofline.results import Result, show_notes
from roofline.serving import ServingEstimate
from roofline.units import show_time

_NUMBERS = ("measured_s", "floor_s", "estimate_s", "served_s", "over_floor", "over_estimate", "over_served", "mbu", "mfu")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Comparison(Result):
    """A measurement beside the estimate and the floor of what was measured.

    Parameters
    ----------
    measurement : ServingMeasurement
        What was measured [-].
    subject : Subject
        What it is taken to be of, and what of that was assumed [-].
    point : Point
        Lengths, context and batch, and how each is known [-].
    times : tuple of ComparedTime
        Each measured time beside its floor and estimates [s].
    served : ServingEstimate, optional
        The service at this load; None where the load is not known [-].
    record : CalibrationRecord, optional
        What the estimates rest on; None where there are none [-].
    notes : tuple of str
        What a reader must know [-].
    """

    measurement: ServingMeasurement
    subject: Subject
    point: Point
    times: tuple[ComparedTime, ...]
    served: ServingEstimate | None
    record: CalibrationRecord | None
    notes: tuple[str, ...]

    @property
    def deployment(self) -> Deployment:
        """The model on its machine [-]."""
        return self.subject.deployment

    def __getitem__(self, name: str) -> ComparedTime:
        """Return one time: ``"ttft"``, ``"prefill"``, ``"tpot"``, ``"itl"``, ``"step"`` or ``"e2e"`` [-]."""
        for time in self.times:
            if time.name == name:
                return time
        raise unknown_name("measured time", str(name), [time.name for time in self.times])

    def __contains__(self, name: object) -> bool:
        return any(time.name == name for time in self.times)

    @property
    def decode(self) -> ComparedTime | None:
        """The time that is nearest to one of a step: of steps, else the gap between tokens, else the time per token [-]."""
        return next((self[name] for name in ("step", "itl", "tpot") if name in self), None)

    @property
    def below_floor(self) -> tuple[ComparedTime, ...]:
        """Times that are shorter than possible: something is not as it was said [-]."""
        return tuple(time for time in self.times if time.below_floor)

    def values(self) -> dict[str, Any]:
        """Return every number by the name of its time: ``tpot_measured_s``, ``tpot_over_floor`` … [SI]."""
        point = {name: getattr(self.point, name) for name in ("batch", "context", "prompt", "output", "accepted", "drafts")}
        return point | {f"{time.name}_{name}": getattr(time, name) for time in self.times for name in _NUMBERS}

    def table(self) -> list[Mapping[str, Any]]:
        """Return a row for each part of each gap [SI]."""
        return [row for time in self.times for row in as_rows(time.parts, time=time.name)]

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: the measurement, what ran, what was assumed, how the load is known, labels [-]."""
        record = {} if self.record is None else {"calibration": describe_record(self.record)}
        labels = {time.name: [label.to_dict() for label in time.labels] for time in self.below_floor}
        return {
            "kind": "comparison",
            **self.measurement.context(),
            "model": self.deployment.model.name,
            "hardware": self.deployment.machine.id,
            "engine": self.subject.engine,
            "deployment": repr(self.deployment),
            "stated": dict(self.subject.stated),
            "assumed": self.subject.assumed,
            "known": dict(self.point.known),
            "what": {time.name: time.what for time in self.times},
            "labels": labels,
            **record,
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Return the short text: what ran, each time, what the largest gap is made of, and what was assumed [-]."""
        deployment, point = self.deployment, self.point
        at = [f"batch {point.batch}" if point.batch else "", f"context {point.context}" if point.context is not None else ""]
        where = ", ".join([*filter(None, at), *([f"{point.accepted:.3g} tokens a step"] if point.accepted > 1 else [])])
        machine = f"{deployment.devices} × {deployment.machine.name}"
        lines = [f"{self.measurement.source}: {deployment.model.name} on {machine}{f', {where}' if where else ''}"]
        lines += [f"  {_line(time)}" for time in self.times]
        shown = next((self[name] for name in ("tpot", "step", "itl", "ttft", "prefill") if name in self and self[name].parts), None)
        if shown is not None:
            parts = ", ".join(
                f"{part.name} {show_time(part.expected_s)} ({_range(part.low_s, part.high_s)})" for part in largest(shown.parts, 4)
            )
            lines.append(f"  {shown.name} above its floor: {parts or 'nothing'}")
        lines += [f"  {line}" for time in self.below_floor for line in _explained(time)]
        lines += [f"  assumed: {text}" for text in self.subject.assumed]
        return [*lines, *show_notes(self.notes)]


def _range(low: float, high: float) -> str:
    return f"at most {show_time(high)}" if low <= 0 else f"{show_time(low)} – {show_time(high)}"


def _line(time: ComparedTime) -> str:
    """Return a measured time in one line."""
    text = f"{time.name}: {show_time(time.measured_s)} measured, {time.over_floor:.3g} × the floor of {show_time(time.floor_s)}"
    if time.estimate_s is not None:
        text += f", {time.over_estimate:.3g} × the estimate of {show_time(time.estimate_s)}"
    if time.served_s is not None:
        text += f", {time.over_served:.3g} × that at this load, {show_time(time.served_s)}"
    used = [f"{name.upper()} {share:.0%}" for name in ("mbu", "mfu") if (share := getattr(time, name)) is not None]
    return f"{text}; {', '.join(used)}" if used else text


def _explained(time: ComparedTime) -> list[str]:
    """Return what would explain a time below its floor."""
    lifts = [label for label in time.labels if label.lifts]
    head = f"BELOW THE FLOOR: {time.name} is {time.over_floor:.3g} × what is possible, so something is not as it was said"
    if not lifts:
        return [f"{head}; no single label explains it: check machine, model, batch and unit"]
    return [
        f"{head}. It would be explained by:",
        *(f"  {label.name}: {label.over_floor:.3g} × the floor of {show_time(label.floor_s)}" for label in lifts),
    ]


def check_any(times: tuple[ComparedTime, ...], measurement: ServingMeasurement, notes: tuple[str, ...]) -> None:
    """Raise if there is nothing to compare."""
    if not times:
        why = "; ".join(notes) if notes else "it has no time of a token, a step or a request"
        failed = " (no request was completed)" if measurement.completed == 0 else ""
        raise InvalidValueError(f"{measurement.source} has nothing to compare{failed}: {why}.")
