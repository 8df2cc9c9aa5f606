"""The inputs of a result: what was asked, by names where there are any, else by plain data."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from roofline.catalog import list_models
from roofline.deployment.deployment import Deployment
from roofline.errors import RooflineError
from roofline.formats import Format
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.ops.routing import PowerLaw
from roofline.results import Told
from roofline.step import Step

OWN_DESCRIPTION = "(own description)"
"""Marks what no name stands for, such as a changed copy of a model that has one [-]."""


def model_input(model: Model) -> str | Told:
    """Return what :meth:`Model.load` takes to give this model again: a name, a path or a number of parameters; else its description.

    Examples
    --------
    >>> model_input(Model.anonymous("70B"))
    '70B'
    """
    if model.alias_note:  # the name that the caller used is another one
        model = model.but(alias_note=Model._field_defaults["alias_note"])
    text = model.name.removesuffix(" parameters")
    if model.is_anonymous and _gives(text, model):
        return text
    if model.name in list_models() and _gives(model.name, model):
        return model.name
    if os.path.isfile(model.source) and _gives(model.source, model):
        return model.source
    return Told(f"{model.name} {OWN_DESCRIPTION}", model.to_dict())


def _gives(source: str, model: Model) -> bool:
    try:
        return Model.load(source) == model
    except RooflineError:  # a name of the caller's own, or a file that is another one by now
        return False


def machine_input(machine: Hardware) -> str | Told:
    """Return what :meth:`Hardware.load` takes to give this machine again: an id; else its description.

    Examples
    --------
    >>> machine_input(Hardware.load("H100 SXM"))
    'h100-sxm'
    """
    figures = machine.to_dict()
    if machine.id in Hardware.list() and figures == Hardware.load(machine.id).to_dict():
        return machine.id
    return Told(f"{machine.id} {OWN_DESCRIPTION}", figures)


def option_input(value: Any) -> Any:
    """Return an option as plain data: formats and routings by their names.

    Examples
    --------
    >>> option_input({"*": Format.load("fp8")})
    {'*': 'fp8'}
    """
    if isinstance(value, Mapping):
        return {str(name): option_input(inner) for name, inner in value.items()}
    if isinstance(value, Format):
        return value.name if _is_named(value) else f"{value.name} {OWN_DESCRIPTION}"
    if isinstance(value, PowerLaw):
        return str(value)
    if isinstance(value, (str, int, float, list, tuple, np.ndarray, np.generic)) or value is None:
        return value
    return value.__name__ if isinstance(value, type) else str(value)  # dtypes


def _is_named(value: Format) -> bool:
    try:
        return Format.load(value.name) == value
    except RooflineError:
        return False


def step_input(step: Step) -> Told:
    """Return a step as the groups that it is made of, each of them a mapping of numbers or arrays; one step for each point in a table."""
    groups = [{name: getattr(g, name) for name in ("count", "new", "cached", "sampled")} for g in step.groups]
    if not step.shape:
        return Told(groups, groups)
    cells = np.empty(step.shape, dtype=object)
    for at in np.ndindex(step.shape):
        cells[at] = [{name: int(np.broadcast_to(value, step.shape)[at]) for name, value in group.items()} for group in groups]
    return Told(
        cells, [{name: value if np.ndim(value) == 0 else np.asarray(value, dtype=int) for name, value in g.items()} for g in groups]
    )


def deployment_inputs(deployment: Deployment, takes: tuple[str, ...], **own: Any) -> dict[str, Any]:
    """Return the inputs of a question about a deployment: model and machine, what is the question's own, and the options given that it takes."""
    asked: dict[str, Any] = {"model": model_input(deployment.asked_model)}
    if deployment.hardware is not None and "memory_bandwidth" not in deployment.options:
        asked["hardware"] = machine_input(deployment.hardware)
    given = {name: option_input(deployment.options[name]) for name in takes if name in deployment.options}
    return asked | own | given
