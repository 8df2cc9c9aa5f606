"""What a service is asked, as plain data, so that a saved answer can be asked again."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from roofline.deployment import Deployment
from roofline.deployment.inputs import OWN_DESCRIPTION, deployment_inputs, machine_input, model_input, option_input
from roofline.deployment.options import ALL
from roofline.engines import Engine
from roofline.engines.load import is_shipped
from roofline.estimate.constants import record_input
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.records import CalibrationRecord
from roofline.results import Input, Question, Told, several
from roofline.serving.steps.service_fit import ServiceFit


def service_input(value: Any) -> Any:
    """Return something that a service is asked with as plain data, by name where it has one."""
    if isinstance(value, Deployment):
        return Told(f"{value.model.name} {OWN_DESCRIPTION}", Question("", deployment_inputs(value, ALL)).data())
    if isinstance(value, ServiceFit):
        return Told(f"{value!r} {OWN_DESCRIPTION}", value.to_dict())
    if isinstance(value, Input):  # a workload, promises, rules
        return Told(str(value), value.to_dict())
    if isinstance(value, (list, tuple)):
        return several([service_input(each) for each in value])
    if isinstance(value, CalibrationRecord):
        return record_input(value)
    if isinstance(value, Hardware):
        return machine_input(value)
    if isinstance(value, Model):
        return model_input(value)
    if isinstance(value, Engine):
        return value.id if is_shipped(value) else Told(f"{value.name} {OWN_DESCRIPTION}", value.to_dict())
    return str(value) if isinstance(value, Path) else option_input(value)


def question_of(function: Callable[..., Any], given: Mapping[str, Any], *, unsaid: tuple[str, ...] = ()) -> Question | None:
    """Return the question that a function was asked, from what it was given beside its defaults; None where a function was given, which is no data.

    Options are among what is given. What is `unsaid` changes no answer.
    """
    parameters = inspect.signature(function).parameters
    inputs: dict[str, Any] = {}
    for name, value in given.items():
        default = parameters[name].default if name in parameters else None
        if name in unsaid or value is default or (isinstance(value, type(default)) and value == default):
            continue
        if callable(value):
            return None
        inputs[name] = service_input(value)
    return Question(function.__name__, inputs)
