"""`ServiceFit`: constants of an engine, found in a measured run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np

from roofline.calls import checks_call
from roofline.deployment import Deployment
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.options import ALL
from roofline.engines import Engine, load_engine
from roofline.errors import CalibrationError, InvalidValueError, quoted
from roofline.estimate.constants import find_record, record_input
from roofline.records import CalibrationRecord, FittedConstant
from roofline.requests import RequestTimes
from roofline.results import Result, Told, show_notes
from roofline.serving.rules import Rules
from roofline.serving.steps.beyond import CONSTANTS
from roofline.serving.steps.engine_times import engine_times
from roofline.serving.steps.load import RankSeconds, StepSeconds
from roofline.serving.steps.seconds import compiled
from roofline.step.beyond import STEP
from roofline.step_time import StepTime
from roofline.units import show_time

MEASURES = {"ttft_s": "time to first token", "tpot_s": "time per output token", "e2e_s": "end to end"}

Basis = Literal["estimate", "roofline", "floor"]
_LIMITS = ("kv_blocks", "step_tokens", "sequences")
_NAMES = {"floor": "the floor", "roofline": "the roofline time", "estimate": "the estimate"}


class FitError(NamedTuple):
    """How far simulated times are from measured ones.

    Parameters
    ----------
    requests : {"fitted", "others", "all"}
        Of which requests [-].
    measure : {"ttft_s", "tpot_s", "e2e_s"}
        Of which time [-].
    size : int
        Requests [-].
    mean, p99 : float
        Simulated / measured − 1, of the means and of the 99th percentiles [-].
    """

    requests: str
    measure: str
    size: int
    mean: float
    p99: float


def errors_of(simulated: RequestTimes, measured: RequestTimes, fitted: np.ndarray) -> tuple[FitError, ...]:
    """Return how far simulated times are from measured ones, of the requests that were fitted, of the others and of all that ended."""
    inside = np.isin(np.arange(len(measured)), fitted)
    groups = {"fitted": inside, "others": ~inside, "all": np.ones(len(measured), bool)}
    return tuple(
        _error(name, measure, getattr(simulated, measure)[which & measured.ended], getattr(measured, measure)[which & measured.ended])
        for name, which in groups.items()
        for measure in MEASURES
        if (which & measured.ended).any() and (name != "all" or not inside.all())
    )


def _error(requests: str, measure: str, simulated: np.ndarray, measured: np.ndarray) -> FitError:
    known = ~np.isnan(measured)
    if not known.any():
        return FitError(requests, measure, 0, float("nan"), float("nan"))
    ours, theirs = simulated[known], measured[known]
    mean, p99 = ours.mean() / theirs.mean(), np.percentile(ours, 99) / np.percentile(theirs, 99)
    return FitError(requests, measure, theirs.size, float(mean - 1), float(p99 - 1))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ServiceFit(Result):
    """Constants of an engine on a deployment, found in a measured run: what steps take beyond a floor, a roofline time or an estimate.

    Parameters
    ----------
    deployment : Deployment
        What ran [-].
    rules : Rules
        How it scheduled [-].
    beyond : {"floor", "roofline", "estimate"}
        Beyond which time of a step the constants count [-].
    calibration : CalibrationRecord or None
        What that estimate rests on [-].
    constants : mapping of str to FittedConstant
        Each with its interval of 80 % [-].
    fitted, requests : int
        Requests whose times were fitted, and all of the run [-].
    errors : tuple of FitError
        How far the simulation of the run is from it with these constants [-].
    notes : tuple of str
        What a reader must know [-].
    """

    deployment: Deployment
    rules: Rules
    beyond: Basis
    calibration: CalibrationRecord | None
    constants: Mapping[str, FittedConstant]
    fitted: int
    requests: int
    errors: tuple[FitError, ...]
    notes: tuple[str, ...] = ()

    def time(
        self,
        deployment: Deployment | None = None,
        *,
        quantile: float | None = None,
        cuda_graph: bool = True,
        graph_tokens: int | None = None,
    ) -> StepTime:
        """Return the times of steps with these constants.

        Parameters
        ----------
        deployment : Deployment, optional
            Another one of the same model, whose steps are taken to need as much beyond their own bound [-].
        quantile : float, optional
            Of constants beyond an estimate, its level of probability [-].
        cuda_graph : bool, optional
            Whether an estimate's decode steps are launched as one graph [-].
        graph_tokens : int, optional
            Most tokens of an estimate's step with prompts that runs from a graph; as in the run if not given [token].

        Returns
        -------
        StepTime
            Times of steps; an estimate of another machine rests on the engine's record of that [-].

        Raises
        ------
        CalibrationError
            If it is a deployment of another model.
        RooflineError
            If steps of the deployment cannot be timed.
        """
        where = self.deployment if deployment is None else deployment
        if not isinstance(where, Deployment):
            raise InvalidValueError(f"deployment is {quoted(where)}; it is a Deployment(model, hardware, ...).")
        if where.model.name != self.deployment.model.name:
            raise CalibrationError(
                f"the fit is of {self.deployment.model.name}, not of {where.model.name}: what a token or a sequence takes is each model's own."
            )
        record = self.calibration if where.machine == self.deployment.machine else None
        asked = {"basis": self.beyond, "calibration": record, "quantile": quantile, "cuda_graph": cuda_graph}
        asked["graph_tokens"] = self.rules.graph_tokens if graph_tokens is None else graph_tokens
        beyond = {name: value for name, value in self._values.items() if name in STEP}
        return engine_times(where, asked, load_engine(self.rules.engine), beyond)

    def step_s(self, deployment: Deployment | None = None, rules: Rules | None = None) -> StepSeconds | RankSeconds:
        """Return how long steps take with these constants, as :func:`simulate` takes it for ``step_s``.

        Parameters
        ----------
        deployment : Deployment, optional
            Another one, as for :meth:`time` [-].
        rules : Rules, optional
            Other rules than those of the run [-].

        Returns
        -------
        callable
            Seconds of a step by its :class:`Load`; by the loads of all ranks, where attention is data-parallel [s].

        Raises
        ------
        RooflineError
            If it is a deployment of another model, or its steps cannot be timed.
        """
        return compiled(self.time(deployment), self.rules if rules is None else rules)

    @property
    def request_s(self) -> float:
        """From the sending of a request until the engine knows it, as :func:`simulate` takes it [s]."""
        return self._values.get("request_s", 0.0)

    @property
    def _values(self) -> dict[str, float]:
        return {name: constant.value for name, constant in self.constants.items()}

    def notes_on(self, *deployments: Deployment, rules: Rules | None = None) -> tuple[str, ...]:
        """Return what a reader must know of times that rest on this fit.

        Parameters
        ----------
        *deployments : Deployment
            Those whose steps are timed [-].
        rules : Rules, optional
            How they schedule, if that of the run is to be compared [-].

        Returns
        -------
        tuple of str
            What was fitted, and what differs from the run [-].
        """
        others = [one for one in dict.fromkeys(deployments) if one != self.deployment]
        named = ("hardware", *sorted({name for one in (self.deployment, *others) for name in one.options}))
        differing = [name for name in named if any(_asked(one, name) != _asked(self.deployment, name) for one in others)]
        limits = [] if rules is None or others else [name for name in _LIMITS if getattr(rules, name) != getattr(self.rules, name)]
        shown = "; ".join(f"{name} {getattr(self.rules, name):,}, here {getattr(rules, name):,}" for name in limits)
        return (
            f"times of steps are fitted: {self._headline()}",
            *(
                [f"the fit is of a run with other {' and '.join(differing)}; its constants are taken to be the same here"]
                if differing
                else []
            ),
            *([f"limits are not those of the run that was fitted: {shown}"] if shown else []),
            *(note for note in self.notes if note not in self.rules.notes),
        )

    # as a result

    def values(self) -> dict[str, Any]:
        """Return the constants by name [SI]."""
        return self._values

    def context(self) -> dict[str, Any]:
        """Return intervals, errors, and what the numbers rest on [-]."""
        record = None if self.calibration is None else record_input(self.calibration)
        return {
            "kind": "service fit",
            "deployment": {
                name: value.data if isinstance(value, Told) else value for name, value in deployment_inputs(self.deployment, ALL).items()
            },
            "rules": {name: value for name, value in asdict(self.rules).items() if name != "notes"},
            "beyond": self.beyond,
            "calibration": record.data if isinstance(record, Told) else record,
            "constants": {name: constant.model_dump() for name, constant in self.constants.items()},
            "fitted": self.fitted,
            "requests": self.requests,
            "errors": [error._asdict() for error in self.errors],
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Return the short text: the constants with their intervals, then how well they fit [-]."""
        lines = [self._headline()]
        for name, constant in self.constants.items():
            each = constant.unit.removeprefix("s")
            span = f"{show_time(constant.low)} … {show_time(constant.high)}"
            lines.append(f"  {name}: {show_time(constant.value)}{each} ({span})")
        for group in dict.fromkeys(error.requests for error in self.errors):
            rows = [error for error in self.errors if error.requests == group and error.size]
            shown = ", ".join(f"{MEASURES[row.measure]} {row.mean:+.1%} (p99 {row.p99:+.1%})" for row in rows)
            lines.append(f"  simulated against measured, {rows[0].size} {'requests' if group == 'all' else group}: {shown}")
        return lines + show_notes(self.notes)

    def _headline(self) -> str:
        where = f"{self.deployment.model.name} on {self.deployment.machine.id}"
        count = f"{len(self.constants)} constant{'s' * (len(self.constants) != 1)}"
        return f"{where}, {self.rules.engine}: {count} beyond {_NAMES[self.beyond]}, from {self.fitted} of {self.requests} requests"

    def __repr__(self) -> str:
        return f"<{self._headline()}>"


def _asked(deployment: Deployment, name: str) -> Any:
    return deployment.machine if name == "hardware" else deployment.options.get(name)


def check_fit(fit: Any, asked: Mapping[str, Any], engine: Engine) -> ServiceFit:
    """Return a fit whose constants take the place of what else says how long steps take, or raise."""
    if not isinstance(fit, ServiceFit):
        raise InvalidValueError(f"fit is {quoted(fit)}; it is what fit_service(...) or load_service_fit(...) returned.")
    if engine.id != fit.rules.engine:
        raise CalibrationError(f"the fit is of {fit.rules.engine}, and {engine.name} serves: one engine's constants are not another's.")
    if asked.get("calibration") is not None:
        raise InvalidValueError("calibration and fit cannot be given together: a fit has what its times rest on.")
    if asked.get("basis", "estimate") not in ("estimate", fit.beyond):
        raise InvalidValueError(
            f"basis is {quoted(asked['basis'])}, but the constants of the fit count beyond {_NAMES[fit.beyond]}: leave basis out."
        )
    return fit


@checks_call
def load_service_fit(saved: Mapping[str, Any] | str, deployment: Deployment) -> ServiceFit:
    """Return a fit that was saved.

    Parameters
    ----------
    saved : mapping or str
        What `to_dict` or `to_json` of a :class:`ServiceFit` gave [-].
    deployment : Deployment
        What ran, of the same model, machine and options [-].

    Returns
    -------
    ServiceFit
        The same constants, errors and rules [-].

    Raises
    ------
    CalibrationError
        If it is no saved fit, or one of another deployment.
    InvalidValueError
        If `deployment` is none.
    """
    if not isinstance(deployment, Deployment):
        raise InvalidValueError(f"deployment is {quoted(deployment)}; it is a Deployment(model, hardware, ...).")
    try:
        data = json.loads(saved) if isinstance(saved, str) else dict(saved)
        known = {field.name for field in fields(Rules)}
        rules = Rules(**{name: value for name, value in data["rules"].items() if name in known})
        constants = {name: FittedConstant(**data["constants"][name]) for name in CONSTANTS if name in data["constants"]}
        if data["kind"] != "service fit" or len(constants) != len(data["constants"]):
            raise KeyError("constants")
        calibration = None if data["calibration"] is None else find_record(_record(data["calibration"]), deployment.machine)
        errors = tuple(FitError(**{"mean": np.nan, "p99": np.nan, **row}) for row in data["errors"])
        found = ServiceFit(
            deployment, rules, data["beyond"], calibration, constants, data["fitted"], data["requests"], errors, tuple(data["notes"])
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(f"{quoted(saved)} is no saved service fit: {quoted(error)}; give what fit.to_json() wrote.") from None
    if (asked := json.loads(found.to_json())["deployment"]) != data["deployment"]:
        differing = [name for name in {**asked, **data["deployment"]} if asked.get(name) != data["deployment"].get(name)]
        raise CalibrationError(f"the fit is of another deployment: {', '.join(differing)} differ; load it with the one that ran.")
    return found


def _record(saved: Any) -> Any:
    return CalibrationRecord.model_validate(saved) if isinstance(saved, Mapping) else saved
