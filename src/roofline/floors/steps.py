"""Floors of steps: decode, prefill, and any mixture of them."""

from typing import Any, Literal, Unpack

import numpy as np

from roofline.bounds import floor_roofs
from roofline.deployment.deployment import Deployment, deploy
from roofline.deployment.machine import Machine
from roofline.deployment.options import STEP, StepOptions, asks
from roofline.errors import InvalidValueError, quoted
from roofline.floors.result import Floor
from roofline.forward import Work
from roofline.step import Step
from roofline.step.step import decode_step

_set = object.__setattr__


def floor_of(kind: str, deployment: Deployment, step: Step) -> Floor:
    """Return the floor of a step of a deployment; both are checked, so that it is made without the checks of a call from outside."""
    work = Work(deployment.program, step)
    floor = object.__new__(Floor)
    _set(floor, "kind", kind)
    _set(floor, "deployment", deployment)
    _set(floor, "work", work)
    _set(floor, "roofs", floor_roofs(work, deployment.machine))
    return floor


def prompt_floor(deployment: Deployment, step: Step) -> Floor:
    """Return the floor of a prefill, or raise if what is encoded makes more rows than the prompts that start with it have tokens."""
    model = deployment.model
    rows = 0 if model.source_positions else sum(tower.rows * tower.times for tower in model.towers)  # of a source, no token stands for them
    if rows and any(np.any((np.asarray(group.cached) == 0) & (np.asarray(group.new) < rows)) for group in step.groups):
        raise InvalidValueError(
            f"what {model.name} encodes makes {rows:,} rows of a prompt, but a prompt has fewer tokens: prompt counts them with those of the text."
        )
    return floor_of("prefill", deployment, step)


@asks(STEP)
def step_floor(model: Any, hardware: Machine | Step = None, step: Step | None = None, **options: Unpack[StepOptions]) -> Floor:
    r"""Return the floor of any step: :math:`\max(\sum_d F_d/P_d, \max(0, B - C)/W)`.

    Parameters
    ----------
    {model}
    step : Step
        What the forward pass is asked to do [-].
    {options}

    Returns
    -------
    Floor
        Numbers of the step's shape: scalars in, scalars out; arrays in, arrays out [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> step = Step.decode(batch=8) + Step.prefill(512)
    >>> step_floor("70B", None, step, memory_bandwidth=3e12, peak_flops_per_s=1e15).bound
    'compute'
    """
    if isinstance(hardware, Step):  # after a deployment
        hardware, step = None, hardware
    if not isinstance(step, Step):
        raise InvalidValueError(f"a step is built with Step.decode, Step.prefill, Step.chunk or Step.verify; {quoted(step)} is none.")
    return floor_of("step", deploy("step_floor", STEP, model, hardware, options), step)


@asks(STEP)
def decode_floor(model: Any, hardware: Machine = None, *, batch: Any = 1, context: Any = 0, **options: Unpack[StepOptions]) -> Floor:
    """Return the floor of one decode step: one new token for each of `batch` sequences with `context` tokens cached.

    Parameters
    ----------
    {model}
    batch : int or array_like, optional
        Sequences [-].
    context : int or array_like, optional
        Tokens of each already in the cache [token].
    {options}

    Returns
    -------
    Floor
        Numbers of the shape that `batch` and `context` broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> round(decode_floor("70B", memory_bandwidth=3e12).time_s * 1e3, 2)
    46.67
    """
    deployment = deploy("decode_floor", STEP, model, hardware, options)
    return floor_of("decode", deployment, decode_step(batch, context))


@asks(STEP)
def prefill_floor(
    model: Any,
    hardware: Machine = None,
    *,
    prompt: Any = None,
    batch: Any = 1,
    cached: Any = 0,
    logits: Literal["last", "all", "none"] = "last",
    **options: Unpack[StepOptions],
) -> Floor:
    """Return the floor of one prefill: whole prompts, of which `cached` tokens may come from a prefix cache.

    Parameters
    ----------
    {model}
    prompt : int or array_like
        Tokens of each prompt, the cached ones included [token].
    batch : int or array_like, optional
        Sequences [-].
    cached : int or array_like, optional
        Tokens of each prompt found in the prefix cache [token].
    logits : {"last", "all", "none"}, optional
        Which rows reach the LM head [-].
    {options}

    Returns
    -------
    Floor
        Numbers of the shape that the arguments broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> prefill_floor("70B", prompt=2048, memory_bandwidth=3e12, peak_flops_per_s=1e15).bound
    'compute'
    """
    deployment = deploy("prefill_floor", STEP, model, hardware, options)
    return prompt_floor(deployment, Step.prefill(prompt, batch=batch, cached=cached, logits=logits))
