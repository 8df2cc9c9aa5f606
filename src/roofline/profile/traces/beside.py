"""Steps of a trace beside the estimate and the floor of the same steps, as a whole and by what kernels do."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from roofline.deployment import Deployment
from roofline.deployment.deployment import deploy
from roofline.deployment.machine import Machine
from roofline.deployment.options import STEP, StepOptions, asks
from roofline.engines import load_engine
from roofline.errors import InvalidValueError, quoted
from roofline.estimate import Estimate, step_estimate
from roofline.floors import step_floor
from roofline.measured.labels import Label, find_labels
from roofline.measured.subject import other_machine
from roofline.measured.times import is_below
from roofline.profile.traces.kernels_by_name import FAMILIES
from roofline.profile.traces.steps import TraceStep
from roofline.profile.traces.trace import Trace
from roofline.records import CalibrationRecord
from roofline.results import Result, show_notes
from roofline.serving.steps.engine_times import engine_times
from roofline.step import Step
from roofline.units import show_time


@dataclass(frozen=True, slots=True)
class StepBesideEstimate:
    """A step of a trace beside what the same step takes at least, and what it is expected to take.

    Parameters
    ----------
    step : TraceStep
        The step [-].
    floor_s : float
        Its floor [s].
    estimate_s : float or None
        Its estimate; None for a model that is a number of parameters [s].
    """

    step: TraceStep
    floor_s: float
    estimate_s: float | None

    @property
    def measured_s(self) -> float:
        """What the device took [s]."""
        return self.step.measured_s

    @property
    def over_floor(self) -> float:
        """Measured over floor [-]."""
        return self.measured_s / self.floor_s

    @property
    def over_estimate(self) -> float | None:
        """Measured over estimate [-]."""
        return self.measured_s / self.estimate_s if self.estimate_s else None


@dataclass(frozen=True, slots=True)
class ClassBesideEstimate:
    """Kernels that do the same beside what the estimate expects of them, all steps together.

    Parameters
    ----------
    kinds : str
        What they do, by their names in the trace [-].
    families : str
        The families of the estimate's kernels that do it; empty where it has none [-].
    measured_s : float
        Their time in the trace [s].
    estimate_s : float
        Time of these families in the estimates [s].
    """

    kinds: str
    families: str
    measured_s: float
    estimate_s: float

    @property
    def over_estimate(self) -> float | None:
        """Measured over estimate; None where the estimate has nothing like it [-]."""
        return self.measured_s / self.estimate_s if self.estimate_s else None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class TraceBesideEstimate(Result):
    """The steps of a trace beside estimates and floors.

    Parameters
    ----------
    trace : Trace
        What was measured [-].
    deployment : Deployment
        What it is taken to have run [-].
    rows : tuple of StepBesideEstimate
        Steps of which enough is known [-].
    classes : tuple of ClassBesideEstimate
        Their kernels by what they do, the longest first [-].
    calibration : str or None
        Record that the estimates rest on; None without estimates [-].
    labels : tuple of Label
        What would explain the step that is furthest below its floor; none where no step is [-].
    notes : tuple of str
        What a reader must know [-].
    """

    trace: Trace
    deployment: Deployment
    rows: tuple[StepBesideEstimate, ...]
    classes: tuple[ClassBesideEstimate, ...]
    calibration: str | None
    labels: tuple[Label, ...]
    notes: tuple[str, ...]

    _numbers = ("measured_s", "floor_s", "estimate_s", "over_floor", "over_estimate", "idle_s", "between_s")

    @property
    def measured_s(self) -> float:
        """All these steps together, from the first to the last kernel of each [s]."""
        return sum(row.measured_s for row in self.rows)

    @property
    def floor_s(self) -> float:
        """Their floors together [s]."""
        return sum(row.floor_s for row in self.rows)

    @property
    def estimate_s(self) -> float | None:
        """Their estimates together; None without them [s]."""
        return None if self.calibration is None else sum(row.estimate_s or 0.0 for row in self.rows)

    @property
    def over_floor(self) -> float:
        """Measured over floor [-]."""
        return self.measured_s / self.floor_s

    @property
    def over_estimate(self) -> float | None:
        """Measured over estimate [-]."""
        return self.measured_s / self.estimate_s if self.estimate_s else None

    @property
    def idle_s(self) -> float:
        """Time within these steps in which no kernel runs [s]."""
        return sum(row.step.measured_s - row.step.busy_s for row in self.rows)

    @property
    def between_s(self) -> float:
        """How long the device waited for these steps to begin [s]."""
        return sum(row.step.before_s or 0.0 for row in self.rows)

    def table(self) -> list[Mapping[str, Any]]:
        """Return a row for every step [-]."""
        own = ("measured_s", "floor_s", "estimate_s", "over_floor", "over_estimate")
        told = ("name", "mode", "sequences", "tokens", "busy_s", "before_s")
        return [
            {name: getattr(row.step, name) for name in told}
            | {"step": str(row.step.step).splitlines()[0]}
            | {name: getattr(row, name) for name in own}
            for row in self.rows
        ]

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        names = ("kinds", "families", "measured_s", "estimate_s", "over_estimate")
        return {
            "trace": self.trace.path,
            "model": self.deployment.model.name,
            "hardware": self.deployment.machine.id,
            "options": {name: str(value) for name, value in self.deployment.options.items()},
            "calibration": self.calibration,
            "classes": [{name: getattr(row, name) for name in names} for row in self.classes],
            "labels": [label.to_dict() for label in self.labels],
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Return the text: measured, floor and estimate by kind of step, then kernels by what they do [-]."""
        count = len(self.rows)
        lines = [
            f"{count} step{'s' * (count > 1)} of {self.deployment.model.name} on {self.deployment.machine.name}: "
            f"{_ratios(self.measured_s, self.floor_s, self.estimate_s)}"
        ]
        modes = dict.fromkeys(row.step.mode for row in self.rows)
        for mode in modes if len(modes) > 1 else ():
            of = [row for row in self.rows if row.step.mode == mode]
            sums = [sum(getattr(row, name) or 0.0 for row in of) for name in ("measured_s", "floor_s", "estimate_s")]
            lines.append(f"  {mode}, {len(of)} steps: {_ratios(sums[0], sums[1], sums[2] or None)}")
        for row in self.classes:
            beside = (
                f", {row.over_estimate:.3g} × the estimate's {show_time(row.estimate_s)}" if row.over_estimate else ", not in the estimate"
            )
            lines.append(f"  {row.kinds}: {show_time(row.measured_s)}{beside if self.calibration else ''}")
        lines.append(f"  no kernel runs: {show_time(self.idle_s)} within steps, {show_time(self.between_s)} before them")
        if self.labels:
            lifts = ", ".join(label.name for label in self.labels if label.lifts)
            below = sum(is_below(row.measured_s, row.floor_s) for row in self.rows)
            lines.append(
                f"  BELOW THE FLOOR: {below} of {count}; explained by: {lifts or 'no single label: check machine, model and formats'}"
            )
        return [*lines, *show_notes(self.notes)]


def _ratios(measured_s: float, floor_s: float, estimate_s: float | None) -> str:
    over = f", {measured_s / estimate_s:.3g} × the estimate of {show_time(estimate_s)}" if estimate_s else ""
    return f"{show_time(measured_s)}, {measured_s / floor_s:.3g} × the floor of {show_time(floor_s)}{over}"


@asks(STEP)
def beside_estimate(
    trace: Trace,
    model: Any,
    hardware: Machine = None,
    *,
    calibration: CalibrationRecord | str | Path | None = None,
    cuda_graph: bool = True,
    **options: Unpack[StepOptions],
) -> TraceBesideEstimate:
    """Put the steps of a trace beside the estimate and the floor of the same steps.

    Parameters
    ----------
    trace : Trace
        What :func:`read_trace` returned; of several ranks, that of one [-].
    {model}
    calibration : CalibrationRecord, str or Path, optional
        What estimates rest on; the record of the machine by the engine that wrote the trace if there is one, else the machine's default, if not given [-].
    cuda_graph : bool, optional
        Whether an estimate's kernels are launched as one graph [-].
    {options}

    Returns
    -------
    TraceBesideEstimate
        Measured, floor and estimate of each step, and kernels by what they do beside the estimate's [-].

    Raises
    ------
    RooflineError
        If no step is known well enough; one clear error for whatever is unknown, malformed or impossible.

    Notes
    -----
    The machine is the one that the trace names, unless another is given. A measured time is that of the device from the first kernel of a step to its
    last: what the host does between steps is not in it, but in ``between_s``.
    """
    if not isinstance(trace, Trace):
        raise InvalidValueError(f"trace is {quoted(trace)}; it must be what read_trace returned.")
    known = [step for step in trace.steps if step.step is not None]
    if not known:
        why = (
            f"{trace.path} has {len(trace.steps)} annotated steps" if trace.steps else f"{trace.path} has no steps that an engine annotated"
        )
        raise InvalidValueError("; ".join([why, *trace.notes]) + ".")
    named = hardware is None and not isinstance(model, Deployment) and options.get("memory_bandwidth") is None
    deployment = deploy("beside_estimate", STEP, model, trace.machine if named else hardware, dict(options))
    if not deployment.model.is_anonymous:
        asked = {"calibration": calibration, "cuda_graph": cuda_graph}
        calibration = engine_times(deployment, asked, load_engine(_engine(trace))).calibration
    times: dict[Any, tuple[float, float | None, Mapping[str, float]]] = {}
    rows, families = [], defaultdict[str, float](float)
    for step in known:
        key = tuple(map(tuple, step.step.groups)) if step.step is not None else ()  # steps themselves all have one hash
        if key not in times:
            times[key] = _times(deployment, step.step, calibration, cuda_graph)
        floor_s, estimate_s, parts = times[key]
        rows.append(StepBesideEstimate(step, floor_s, estimate_s))
        for family, seconds in parts.items():
            families[family] += seconds
    lowest = min(rows, key=lambda row: row.over_floor)
    estimate = (
        None
        if deployment.model.is_anonymous
        else step_estimate(deployment, step=known[0].step, calibration=calibration, cuda_graph=cuda_graph)
    )
    return TraceBesideEstimate(
        trace,
        deployment,
        tuple(rows),
        _classes(known, families),
        None if estimate is None else estimate.record.id,
        _labels(deployment, lowest) if is_below(lowest.measured_s, lowest.floor_s) else (),
        tuple(_notes(trace, deployment, named=named, estimate=estimate)),
    )


def _times(
    deployment: Deployment, step: Step | None, calibration: Any, cuda_graph: bool
) -> tuple[float, float | None, Mapping[str, float]]:
    """Return floor and estimate of a step, and the parts of the estimate by family of kernels [s]."""
    if deployment.model.is_anonymous:
        return float(step_floor(deployment, step=step).time_s), None, {}
    estimate = step_estimate(deployment, step=step, calibration=calibration, cuda_graph=cuda_graph)
    parts: dict[str, float] = defaultdict(float)
    for stack, _, seconds in estimate.timed.parts:
        parts[stack.family.name] += float(seconds.sum())
    return float(estimate.floor.time_s), float(estimate.time_s), parts


def _engine(trace: Trace) -> str:
    """Return the engine that wrote a trace: SGLang names steps its own way, and many of its kernels after itself."""
    own = any(step.name.startswith("step[") for step in trace.steps) or any("sgl_" in kernel.name for kernel in trace.kernels)
    return "sglang" if own else "vllm"


def _classes(steps: list[TraceStep], families: Mapping[str, float]) -> tuple[ClassBesideEstimate, ...]:
    """Return kernels by what they do, those of the trace and those of the estimates."""
    together = {kind: kinds for kinds in FAMILIES.values() for kind in kinds.split(", ")}
    measured: dict[str, float] = defaultdict(float)
    for step in steps:
        for kind, seconds in step.by_class.items():
            measured[together.get(kind, kind)] += seconds
    expected: dict[str, dict[str, float]] = defaultdict(dict)
    for family, seconds in families.items():
        expected[FAMILIES.get(family, family)][family] = seconds
    rows = [
        ClassBesideEstimate(kinds, ", ".join(expected[kinds]), measured.get(kinds, 0.0), sum(expected[kinds].values()))
        for kinds in dict.fromkeys([*measured, *list(expected)])
    ]
    return tuple(sorted(rows, key=lambda row: -max(row.measured_s, row.estimate_s)))


def _labels(deployment: Deployment, row: StepBesideEstimate) -> tuple[Label, ...]:
    """Return what would explain a step below its floor; its batch and context are written in the trace."""
    step = row.step.step
    floor = step_floor(deployment, step=step)

    def least(deployment: Deployment, change: Mapping[str, Any]) -> float:
        return float(step_floor(deployment, step=step).time_s)

    return find_labels(floor, least, row.measured_s, drafts=False, given={})


def _notes(trace: Trace, deployment: Deployment, *, named: bool, estimate: Estimate | None) -> Iterator[str]:
    """Yield what a reader must know."""
    yield from deployment.notes
    if named and trace.machine:
        yield f"the machine is the one that the trace names: {trace.device}"
    elif not named:
        yield from other_machine("the trace", trace.machine or trace.device, deployment)
    yield from (note for note in trace.notes if "have no floor" in note or "ends in the middle" in note)
    if trace.world_size and trace.world_size > 1 and deployment.devices == 1:
        yield f"the job has {trace.world_size} ranks, and the model is taken to be on one device: give tensor_parallel= and other degrees"
    if estimate is not None:
        yield from estimate.notes
