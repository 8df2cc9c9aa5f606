"""A saved result, asked again from what it says of its own question."""

import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from roofline.batching import context_without_compute, critical_batch, free_rows, journey
from roofline.calls import checks_call
from roofline.capacity import fewest_devices, max_batch, max_context, memory_limits, resident
from roofline.deployment import Deployment
from roofline.deployment.inputs import OWN_DESCRIPTION
from roofline.efficiency import utilization
from roofline.engines import Engine
from roofline.errors import InvalidValueError, quoted
from roofline.estimate import decode_estimate, kernel_estimate, prefill_estimate, step_estimate
from roofline.floors import decode_floor, prefill_floor, step_floor
from roofline.floors.kernel_result import QUESTIONS as KERNELS
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.names import unknown_name
from roofline.optimizations import levers
from roofline.planner import plan
from roofline.requests import Workload
from roofline.results import SCHEMA_VERSION
from roofline.serving import Rules, load_service_fit, max_rate, serving_estimate, simulate
from roofline.step import Step
from roofline.step_time import StepTime
from roofline.sweeps import sweep

__all__ = ["ask_again"]


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        *(decode_floor, prefill_floor, step_floor, decode_estimate, prefill_estimate, step_estimate),
        *(critical_batch, free_rows, journey, levers, memory_limits, resident, sweep),
        *(context_without_compute, fewest_devices, max_batch, max_context, max_rate, serving_estimate, simulate, plan),
    )
} | KERNELS

_OF_A_FLOOR: dict[str, tuple[Callable[..., Any], str, tuple[str, ...]]] = {
    # questions about an answer: the function, what names the question that it is about, and the inputs of its own
    "kernel_estimate": (kernel_estimate, "kernel", ("calibration", "interval")),
    "utilization": (utilization, "floor", ("measured_s",)),
}


_KEPT_ELSEWHERE = {"service fit": "fit_service", "request times": "RequestTimes.from_records"}
"""Results whose requests are not saved with them, by what makes them again [-]."""
_OF_FUNCTIONS = {"simulation": "simulate", "plan": "plan"}
"""Results that no data says the question of where a function was given, or something was changed since, by what was asked [-]."""


@checks_call
def ask_again(saved: Mapping[str, Any] | str) -> Any:
    """Ask the question of a saved result again.

    Parameters
    ----------
    saved : mapping or str
        What :meth:`~roofline.results.Result.to_dict` or :meth:`~roofline.results.Result.to_json` gave, or one record of
        :meth:`~roofline.results.Result.to_records`, which is asked for its point alone; of a plain number like :func:`roofline.capacity.max_batch`, a mapping
        of the ``question`` and its ``inputs`` [-].

    Returns
    -------
    Result, int, float or numpy.ndarray
        What the same function answers with the same inputs, as this version computes it [-].

    Raises
    ------
    InvalidValueError
        If it is no saved result, or a record whose model or machine only :meth:`~roofline.results.Result.to_dict` describes.
    RooflineError
        If this version answers the question with an error.

    Examples
    --------
    >>> floor = decode_floor("llama-3-8b", "h100-sxm", batch=[1, 8], context=1024, weights="fp8")
    >>> floor.to_dict()["question"], floor.to_dict()["inputs"]
    ('decode_floor', {'model': 'llama-3-8b', 'hardware': 'h100-sxm', 'batch': [1, 8], 'context': 1024, 'weights': 'fp8'})
    >>> ask_again(floor.to_json()) == floor
    True
    >>> bool(ask_again(floor.to_records()[1]).time_s == floor.time_s[1])
    True
    """
    if isinstance(saved, str):
        try:
            saved = json.loads(saved)
        except ValueError:
            saved = {}
    kind = saved.get("kind") if isinstance(saved, Mapping) and "question" not in saved else None
    if kind in _KEPT_ELSEWHERE:
        raise InvalidValueError(
            f"a saved {kind} does not hold its requests, so it cannot be asked again: call {_KEPT_ELSEWHERE[kind]} with them."
        )
    if kind in _OF_FUNCTIONS:
        raise InvalidValueError(
            f"this saved {kind} does not hold its question, which had a function in it or was changed since: call {_OF_FUNCTIONS[kind]} again."
        )
    if not isinstance(saved, Mapping) or not isinstance(name := saved.get("question"), str):
        raise InvalidValueError("a saved result is the dict, the JSON text or one of the records of a result, and names its question.")
    version = saved.get("schema_version", SCHEMA_VERSION)  # a record has none
    if type(version) is not int or version != SCHEMA_VERSION:
        raise InvalidValueError(
            f"schema_version is {quoted(version)}; this version reads saved results of schema_version {SCHEMA_VERSION}."
        )
    inputs = saved["inputs"] if isinstance(saved.get("inputs"), Mapping) else _columns(name, saved)
    for key, value in inputs.items():
        if isinstance(value, str) and value.endswith(OWN_DESCRIPTION):
            raise InvalidValueError(f"{key} is {value!r}: a record holds its name alone; save to_dict() or to_json() to ask again.")
    return _ask(name, {key: _object(key, value) for key, value in inputs.items()})


def _ask(name: str, inputs: Mapping[str, Any]) -> Any:
    if name in _OF_A_FLOOR:
        function, key, names = _OF_A_FLOOR[name]
        own = {key: inputs[key] for key in names if key in inputs}
        floor = {name: value for name, value in inputs.items() if name not in own and name != key}
        return function(_ask(str(inputs.get(key)), floor), **own)
    if name == "StepTime.table":
        own = {key: inputs[key] for key in _STEP_TIME if key in inputs}
        deployment = {key: value for key, value in inputs.items() if key not in own and key not in _AXES}
        return StepTime(Deployment(**deployment), **own).table(**{key: inputs[key] for key in _AXES})
    if name not in _FUNCTIONS:
        raise unknown_name("question", name, (*_FUNCTIONS, *_OF_A_FLOOR, "StepTime.table"))
    return _FUNCTIONS[name](**inputs)


_AXES = ("batch", "context")
_STEP_TIME = ("basis", "quantile", "calibration", "cuda_graph", "replace", "graph_tokens", "engine", "beyond")


def _columns(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a record that are inputs of its question."""
    if name == "journey":
        record = {("batches" if key == "batch" else key): value for key, value in record.items()}
    if name == "StepTime.table":
        known = {*_STEP_TIME, *_AXES, *inspect.signature(Deployment).parameters}
    elif name in _OF_A_FLOOR:
        function, key, names = _OF_A_FLOOR[name]
        known = {key, *names, *inspect.signature(_FUNCTIONS.get(str(record.get(key)), function)).parameters}
    else:
        known = set(inspect.signature(_FUNCTIONS[name]).parameters) if name in _FUNCTIONS else set()
    # a cell that is not a number is one that a table of several results left empty
    return {key: value for key, value in record.items() if key in known and not (isinstance(value, float) and math.isnan(value))}


def _object(key: str, value: Any) -> Any:
    """Return what plain data describes where a function takes no plain data."""
    if key in ("model", "draft") and isinstance(value, Mapping):
        return Model.from_dict(value)
    if key == "hardware" and isinstance(value, Mapping):
        return Hardware.from_dict(value)
    if key in ("hardware", "machines") and isinstance(value, list):
        return [_object("hardware", machine) for machine in value]
    if key in ("deployment", "prefill") and isinstance(value, Mapping):
        return Deployment(**{name: _object(name, inner) for name, inner in value.items()})
    if key in ("deployment", "prefill") and isinstance(value, list):
        return [_object(key, one) for one in value]
    if key == "workload" and isinstance(value, Mapping):
        return Workload(**value)
    if key == "engine" and isinstance(value, Mapping):
        return Engine.from_dict(value)
    if key in ("rules", "prefill_rules") and isinstance(value, Mapping):
        return Rules(**value)
    if key == "fit" and isinstance(value, Mapping):
        return load_service_fit(value, _object("prefill", value["deployment"]))
    if key == "step" and isinstance(value, list):
        first, *others = [Step.of(**group) for group in value]
        return sum(others, start=first)
    if key == "context" and isinstance(value, Mapping):  # a mix of lengths, which JSON keeps as text
        return {int(length): count for length, count in value.items()}
    return value
