"""Measured times of tokens, steps and requests, each beside the floor and the estimates of what it is a time of."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.deployment import Deployment
from roofline.efficiency import utilization
from roofline.errors import RooflineError
from roofline.estimate import Estimate, step_estimate
from roofline.floors import Floor, step_floor
from roofline.measured.gaps import Part
from roofline.measured.labels import Label
from roofline.measured.measurement import Latency
from roofline.measured.point import Point
from roofline.records import CalibrationRecord
from roofline.serving import ServingEstimate
from roofline.step import Step
from roofline.units import show_bytes

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class ComparedTime:
    """One measured time beside its floor and its estimates.

    Parameters
    ----------
    name : str
        ``"ttft"``, ``"prefill"``, ``"tpot"``, ``"itl"``, ``"step"``, ``"e2e"`` or ``"run"`` (the time of the service for each request) [-].
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
        return bool(is_below(self.measured_s, self.floor_s))


@dataclass(frozen=True, slots=True)
class Beside:
    """What measured times are held against."""

    deployment: Deployment
    point: Point
    record: CalibrationRecord | None  # None where there are no estimates
    cuda_graph: bool
    served: ServingEstimate | None
    interval: float
    replicas: int
    busy: float | None  # share of the time in which a kernel ran, where it was measured

    def decode(self, deployment: Deployment, change: Mapping[str, Any]) -> Floor:
        """Return the floor of a decode step, or of one that verifies drafts."""
        batch, context = (change.get(name, getattr(self.point, name)) for name in ("batch", "context"))
        return step_floor(deployment, step=Step.verify(self.point.drafts, batch=batch, context=context))

    def prompt(self, deployment: Deployment, change: Mapping[str, Any], *, batch: int = 1) -> Floor:
        """Return the floor of a prompt, or of a static batch of them."""
        prompt = max(round(self.point.prompt or 1), 1)
        cached = min(round(change.get("cached", self.point.cached)), prompt - 1)
        return step_floor(deployment, step=Step.prefill(prompt, batch=change.get("batch", batch), cached=cached))

    def estimated(self, floor: Floor) -> Estimate | None:
        """Return the estimate of a floor's step."""
        if self.record is None:
            return None
        return step_estimate(
            self.deployment, step=floor.work.step, calibration=self.record, cuda_graph=self.cuda_graph, interval=self.interval
        )


def unfit_note(floor: Floor, name: Callable[[np.ndarray], str] | None = None) -> tuple[str, ...]:
    """Return a sentence if a measured step needs more memory than there is; `name` names those of several by whether each fits."""
    fits = floor.fits
    if fits is None or np.all(fits):
        return ()
    usable, most = floor.deployment.usable_bytes, float(np.max(floor.resident_bytes)) + floor.deployment.reserve
    which = "such a step needs" if name is None else f"in {name(np.asarray(fits, dtype=bool))} a step needs up to"
    return (
        f"does not fit: {which} {show_bytes(most)} on each device, of which {show_bytes(usable or 0.0)} can be used, so it did not run like this: "
        "batch, context, formats or number of devices are not as they were said",
    )


def is_below(measured_s: Any, floor_s: Any) -> Any:
    """Return whether a time is below a floor by more than rounding, of numbers or arrays."""
    return measured_s < floor_s * (1 - _ROUNDING)


def used(floor: Floor, measured_s: float) -> dict[str, Any]:
    """Return MBU and MFU of a measured time that is not below its floor."""
    if is_below(measured_s, float(floor.time_s)):
        return {"mbu": None, "mfu": None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an MBU above 1 is what the floor allows where a cache keeps bytes
            shares = utilization(floor, measured_s)
    except RooflineError:  # a thousand times the floor
        return {"mbu": None, "mfu": None}
    return {name: None if share is None else float(share) for name, share in (("mbu", shares.mbu), ("mfu", shares.mfu))}


def interval_of(estimate: Estimate | None, tokens: float) -> dict[str, Any]:
    """Return an estimate and its interval as fields, for one of the tokens that the step yields."""
    if estimate is None:
        return {"estimate_s": None, "low_s": None, "high_s": None}
    return {f"{name}_s".replace("time", "estimate"): float(getattr(estimate, f"{name}_s")) / tokens for name in ("time", "low", "high")}


def finite(value: Any) -> float | None:
    """Return a number that is one; None for what is infinite or not a number."""
    return float(value) if value == value and abs(value) != float("inf") else None


def is_per_step(latency: Latency) -> bool:
    """Return whether a time is one of a step, in which a sequence gets all tokens that were accepted."""
    return latency.definition in ("gap of chunks", "step")


def typical(name: str, latency: Latency) -> tuple[float, str] | None:
    """Return what is held against a step, if it is above 0: of gaps the median, in which there is mostly no prompt of others, else the mean."""
    if name == "itl" and latency.median_s:
        return latency.median_s, "median"
    return (latency.typical_s, latency.quantile) if latency.typical_s else None
