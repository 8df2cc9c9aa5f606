"""Measured times of tokens, steps and requests, each beside the floor and the estimates of what it is a time of."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roofline.deployment import Deployment
from roofline.efficiency import utilization
from roofline.errors import RooflineError
from roofline.estimate import Estimate, step_estimate
from roofline.floors import Floor, step_floor
from roofline.measured.gaps import Part, kernel_parts, of_a_token, prompts_part, remainder
from roofline.measured.labels import Label, find_labels
from roofline.measured.measurement import Latency, ServingMeasurement
from roofline.measured.point import Point
from roofline.records import CalibrationRecord
from roofline.serving import ServingEstimate
from roofline.step import Step

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class ComparedTime:
    """One measured time beside its floor and its estimates.

    Parameters
    ----------
    name : str
        ``"ttft"``, ``"prefill"``, ``"tpot"``, ``"itl"``, ``"step"`` or ``"e2e"`` [-].
    what : str
        What was timed, and which statistic of it this is [-].
    measured_s : float
        As measured [s].
    floor_s : float
        What no implementation passes [s].
    estimate_s, low_s, high_s : float, optional
        The time to expect of the step alone, with its interval; None where there is no estimate [s].
    served_s : float, optional
        The time to expect at this load, with waiting and the prompts of others; None where the load is not known [s].
    mbu, mfu : float, optional
        Of a step, or of the prompt's computation; None below the floor and where there is none [-].
    parts : tuple of Part
        What lies between the floor and the measured time [s].
    labels : tuple of Label
        Below the floor: what would explain it, that which does first [-].
    """

    name: str
    what: str
    measured_s: float
    floor_s: float
    estimate_s: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    served_s: float | None = None
    mbu: float | None = None
    mfu: float | None = None
    parts: tuple[Part, ...] = ()
    labels: tuple[Label, ...] = ()

    @property
    def over_floor(self) -> float:
        """Measured over floor [-]."""
        return self.measured_s / self.floor_s

    @property
    def over_estimate(self) -> float | None:
        """Measured over the estimate of the step alone [-]."""
        return None if self.estimate_s is None else self.measured_s / self.estimate_s

    @property
    def over_served(self) -> float | None:
        """Measured over the estimate at this load [-]."""
        return None if self.served_s is None else self.measured_s / self.served_s

    @property
    def below_floor(self) -> bool:
        """Whether it is shorter than what is possible, so that something is not as it was said."""
        return self.measured_s < self.floor_s * (1 - _ROUNDING)


@dataclass(frozen=True, slots=True)
class Beside:
    """What measured times are held against."""

    deployment: Deployment
    point: Point
    record: CalibrationRecord | None  # None where there are no estimates
    cuda_graph: bool
    served: ServingEstimate | None
    interval: float

    def decode(self, deployment: Deployment, change: Mapping[str, Any]) -> Floor:
        """Return the floor of a decode step, or of one that verifies drafts."""
        batch, context = (change.get(name, getattr(self.point, name)) for name in ("batch", "context"))
        return step_floor(deployment, step=Step.verify(self.point.drafts, batch=batch, context=context))

    def prompt(self, deployment: Deployment, change: Mapping[str, Any]) -> Floor:
        """Return the floor of a prompt, or of a static batch of them."""
        prompt = max(round(self.point.prompt or 1), 1)
        batch = change.get("batch", self.point.batch if self.point.exact else 1)
        cached = min(round(change.get("cached", self.point.cached)), prompt - 1)
        return step_floor(deployment, step=Step.prefill(prompt, batch=batch or 1, cached=cached))

    def estimated(self, floor: Floor) -> Estimate | None:
        """Return the estimate of a floor's step."""
        if self.record is None:
            return None
        return step_estimate(
            self.deployment, step=floor.work.step, calibration=self.record, cuda_graph=self.cuda_graph, interval=self.interval
        )


def compared_times(measurement: ServingMeasurement, beside: Beside) -> tuple[list[ComparedTime], list[str]]:
    """Return all times of a measurement that something can be held against, and sentences on those that it cannot."""
    rows: list[ComparedTime] = []
    notes: list[str] = []
    point = beside.point
    if point.prompt is None:
        if measurement.ttft or measurement.prefill_s:
            notes.append("the length of prompts is not known, so the time to the first token has no floor: give prompt=")
    else:
        rows += _first(measurement, beside)
    if point.batch is None or point.context is None:
        missing = [name for name in ("batch", "context") if getattr(point, name) is None]
        if measurement.tpot or measurement.itl or measurement.step:
            notes.append(f"a decode step has no floor: give {' and '.join(f'{name}=' for name in missing)}")
    else:
        rows += _tokens(measurement, beside, notes)
        rows += _whole(measurement, beside, rows)
    return rows, notes


def _used(floor: Floor, measured_s: float) -> dict[str, Any]:
    """Return MBU and MFU of a measured time that is not below its floor."""
    if measured_s < float(floor.time_s):
        return {"mbu": None, "mfu": None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an MBU above 1 is what the floor allows where a cache keeps bytes
            used = utilization(floor, measured_s)
    except RooflineError:  # a thousand times the floor
        return {"mbu": None, "mfu": None}
    return {name: None if share is None else float(share) for name, share in (("mbu", used.mbu), ("mfu", used.mfu))}


def _interval(estimate: Estimate | None, tokens: float) -> dict[str, Any]:
    if estimate is None:
        return {"estimate_s": None, "low_s": None, "high_s": None}
    return {f"{name}_s".replace("time", "estimate"): float(getattr(estimate, f"{name}_s")) / tokens for name in ("time", "low", "high")}


def _first(measurement: ServingMeasurement, beside: Beside) -> list[ComparedTime]:
    """Return the time to the first token, or that of a static batch's prefill."""
    rows = []
    ttft = measurement.latencies().get("ttft")
    found = {
        "ttft": None if ttft is None else _typical("ttft", ttft),
        "prefill": None if not measurement.prefill_s else (measurement.prefill_s, "time"),
    }
    for name, time in found.items():
        if time is None:
            continue
        measured, statistic = time
        floor = beside.prompt(beside.deployment, {})
        estimate, served = beside.estimated(floor), beside.served if name == "ttft" else None
        point = beside.point
        below = measured < float(floor.time_s) * (1 - _ROUNDING)
        given = {"prompt": round(point.prompt or 1), "batch": point.batch if point.exact else 1}
        rows.append(
            ComparedTime(
                name=name,
                what=f"{statistic} of first token − sent" if name == "ttft" else "a prefill of the whole batch",
                measured_s=measured,
                floor_s=float(floor.time_s),
                **_interval(estimate, 1.0),
                served_s=None if served is None else _finite(served.ttft_s),
                **_used(floor, measured),
                parts=() if below else tuple(_first_parts(floor, estimate, served, measured)),
                labels=find_labels(floor, beside.prompt, measured, tokens=1.0, per_token=False, given=given) if below else (),
            )
        )
    return rows


def _first_parts(floor: Floor, estimate: Estimate | None, served: ServingEstimate | None, measured: float) -> list[Part]:
    """Return what a time to the first token consists of beside its floor."""
    parts = [] if estimate is None else kernel_parts(estimate)
    if served is not None and estimate is not None:
        step, host, queue = float(served.step_s), float(served.host_s), _finite(served.queue_s) or 0.0
        beside = max((_finite(served.prompt_s) or 0.0) - float(estimate.time_s), 0.0)
        parts = [part for part in parts if part.name != "host"] + [
            Part(
                "host",
                host + float(estimate.overhead_s),
                0.0,
                host + float(estimate.overhead_s),
                "estimated: of the request and of its step",
            ),
            Part("queue", queue, 0.0, max(queue, step), "estimated: waiting for the step that runs, and for requests before it"),
            Part("prompts of others", beside, 0.0, beside, "estimated: who else is in the steps of the prompt"),
        ]
    return remainder(measured - float(floor.time_s), parts)


def _finite(value: Any) -> float | None:
    return float(value) if value == value and abs(value) != float("inf") else None


def _per_step(latency: Latency) -> bool:
    """Return whether a time is one of a step, in which a sequence gets all tokens that were accepted."""
    return latency.definition in ("gap of chunks", "step")


def _typical(name: str, latency: Latency) -> tuple[float, str] | None:
    """Return what is held against a step, if it is above 0: of gaps the median, in which there is mostly no prompt of others, else the mean."""
    if name == "itl" and latency.median_s:
        return latency.median_s, "median"
    return (latency.typical_s, latency.quantile) if latency.typical_s else None


def _decodes(measurement: ServingMeasurement, point: Point, notes: list[str]) -> list[tuple[str, float, str, bool]]:
    """Return the times of tokens and steps: name, time, what it is, whether of a step."""
    found = []
    for name in ("tpot", "itl", "step"):
        latency: Latency | None = getattr(measurement, name)
        typical = None if latency is None else _typical(name, latency)
        if latency is None or typical is None:
            continue
        time, statistic = typical
        what = f"{statistic} of {latency.definition}, by {latency.weight}"
        if latency.definition == "per token with the first":
            first = _first_token(measurement)
            if first is None or point.output is None or point.output <= 1:
                notes.append(f"{latency.key or name} holds the first token, and without its time it is no time of a step")
                continue
            time, what = (point.output * time - first) / (point.output - 1), f"{what}, less the first token"
        found.append((name, time, what, _per_step(latency)))
    if not any(name == "tpot" for name, *_ in found) and (derived := _derived(measurement, point)) is not None:
        found.insert(0, ("tpot", derived, "derived: (mean end to end − time to first token) / (mean output − 1)", False))
    return found


def _first_token(measurement: ServingMeasurement) -> float | None:
    return None if measurement.ttft is None else measurement.ttft.typical_s


def _derived(measurement: ServingMeasurement, point: Point) -> float | None:
    """Return the time per token of a file that only has times of whole requests."""
    e2e, first = measurement.e2e, _first_token(measurement)
    if e2e is None or not e2e.mean_s or first is None or point.output is None or point.output <= 1 or e2e.mean_s <= first:
        return None
    return (e2e.mean_s - first) / (point.output - 1)


def _tokens(measurement: ServingMeasurement, beside: Beside, notes: list[str]) -> list[ComparedTime]:
    """Return times of tokens and of steps beside the step that they are of."""
    point = beside.point
    floor = beside.decode(beside.deployment, {})
    estimate = beside.estimated(floor)
    found = _decodes(measurement, point, notes)
    times = {name: time if per_step else time * point.accepted for name, time, _, per_step in found}  # of a step each
    between = times["tpot"] - times["itl"] if {"tpot", "itl"} <= times.keys() else None
    rows = []
    for name, time, what, per_step in found:
        tokens = 1.0 if per_step else point.accepted
        least, served = float(floor.time_s) / tokens, _served(name, beside.served, per_step, point.accepted)
        below = time < least * (1 - _ROUNDING)
        parts: list[Part] = []
        if not below and estimate is not None:
            parts = kernel_parts(estimate)
            if name == "tpot":
                others = prompts_part(None if between is None else max(between, 0.0), _met(beside.served, tokens))
                parts += [] if others is None else [others]
            parts = remainder(times[name] - float(floor.time_s), parts)
        given = {"batch": point.batch, "context": point.context}
        rows.append(
            ComparedTime(
                name=name,
                what=what,
                measured_s=time,
                floor_s=least,
                **_interval(estimate, tokens),
                served_s=served,
                **_used(floor, times[name]),
                parts=of_a_token(parts, tokens),
                labels=find_labels(floor, beside.decode, time, tokens=point.accepted, per_token=not per_step, given=given) if below else (),
            )
        )
    return rows


def _served(name: str, served: ServingEstimate | None, per_step: bool, accepted: float) -> float | None:
    """Return what the estimate of the service says of the same time."""
    if served is None or name == "step":
        return None
    if name == "tpot":
        return _finite(served.tpot_s)
    return None if (step := _finite(served.step_s)) is None else step / (1.0 if per_step else accepted)


def _met(served: ServingEstimate | None, tokens: float) -> float | None:
    """Return what prompts of others add to each step, by the estimate of the service [s]."""
    tpot, step = (None, None) if served is None else (_finite(served.tpot_s), _finite(served.step_s))
    return None if tpot is None or step is None else max(tpot * tokens - step, 0.0)


def _whole(measurement: ServingMeasurement, beside: Beside, rows: list[ComparedTime]) -> list[ComparedTime]:
    """Return the time of a whole request: that of its first token, and of all others."""
    point, e2e = beside.point, measurement.e2e
    typical = None if e2e is None else _typical("e2e", e2e)
    if typical is None or point.prompt is None or point.output is None:
        return []
    first, step = beside.prompt(beside.deployment, {}), beside.decode(beside.deployment, {})
    rest = max(point.output - 1, 0.0) / point.accepted
    estimates = beside.estimated(first), beside.estimated(step)
    sums: dict[str, Any] = {"estimate_s": None, "low_s": None, "high_s": None}
    if estimates[0] is not None and estimates[1] is not None:
        ends = _interval(estimates[0], 1.0), _interval(estimates[1], 1.0)
        sums = {name: ends[0][name] + rest * ends[1][name] for name in sums}
    return [
        ComparedTime(
            name="e2e",
            what=f"{typical[1]} of last token − sent",
            measured_s=typical[0],
            floor_s=float(first.time_s) + rest * float(step.time_s),
            **sums,
            served_s=None if beside.served is None else _finite(beside.served.e2e_s),
        )
    ]
