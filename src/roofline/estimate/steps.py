"""Estimates of steps: decode, prefill, and any mixture of them."""

from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from roofline.deployment.deployment import deploy
from roofline.deployment.machine import Machine
from roofline.deployment.options import STEP, StepOptions, asks
from roofline.errors import InvalidValueError
from roofline.estimate.constants import STEPS, check_interval, find_record
from roofline.estimate.result import Estimate
from roofline.estimate.timing import Timed, timing_of
from roofline.floors import Floor, step_floor
from roofline.floors.steps import floor_of, prompt_floor
from roofline.records import CalibrationRecord
from roofline.step import Step
from roofline.step.step import decode_step
from roofline.units import check_flag


@asks(STEP)
def step_estimate(
    model: Any,
    hardware: Machine | Step = None,
    step: Step | None = None,
    *,
    calibration: CalibrationRecord | str | Path | None = None,
    cuda_graph: bool = True,
    interval: float = 0.8,
    **options: Unpack[StepOptions],
) -> Estimate:
    r"""Return the time to expect of any step, :math:`\max(t_{floor}, \sum_i n_i\, t_i + t_{step} + t_{behind})`, with an interval.

    Every kernel's time :math:`t_i` comes from the form of its family, with constants fitted to measured kernels. Without a CUDA graph
    the step is behind by what launching its kernels takes longer than running them; so is a step with prompts that the engine of the record
    launches layer by layer (:mod:`roofline.engines`).

    Parameters
    ----------
    {model}
    step : Step
        What the forward pass is asked to do [-].
    calibration : CalibrationRecord, str or Path, optional
        What was measured: a record, its file, the id of a shipped one, the engine of one that is shipped for this machine
        (``"vllm"``, ``"trtllm"``, ``"sglang"``), or ``"generic"``; by default the machine's own, else the first that is shipped
        for it, else a sister chip's, else the generic one [-].
    cuda_graph : bool, optional
        Whether a step's kernels are launched as one graph; otherwise the host launches each [-].
    interval : float, optional
        Probability of the interval, up to 0.98; it is one of kernels, see :class:`Estimate` [-].
    {options}

    Returns
    -------
    Estimate
        Numbers of the step's shape, never below the floor [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> from roofline import Step
    >>> estimate = step_estimate("llama-3-8b", "h100-sxm", Step.decode(batch=8, context=1024) + Step.prefill(512))
    >>> estimate.floor.time_s < estimate.low_s < estimate.time_s < estimate.high_s
    True
    """
    if isinstance(hardware, Step):  # after a deployment
        hardware, step = None, hardware
    deployment = deploy("step_estimate", STEP, model, hardware, options)
    return _estimate(step_floor(deployment, step=step), calibration, cuda_graph, interval)


@asks(STEP)
def decode_estimate(
    model: Any,
    hardware: Machine = None,
    *,
    batch: Any = 1,
    context: Any = 0,
    calibration: CalibrationRecord | str | Path | None = None,
    cuda_graph: bool = True,
    interval: float = 0.8,
    **options: Unpack[StepOptions],
) -> Estimate:
    """Return the time to expect of one decode step: one new token for each of `batch` sequences with `context` tokens cached.

    Parameters
    ----------
    {model}
    batch : int or array_like, optional
        Sequences [-].
    context : int or array_like, optional
        Tokens of each already in the cache [token].
    calibration : CalibrationRecord, str or Path, optional
        As in :func:`step_estimate` [-].
    cuda_graph : bool, optional
        Whether a step's kernels are launched as one graph [-].
    interval : float, optional
        Probability of the interval, up to 0.98; it is one of kernels, see :class:`Estimate` [-].
    {options}

    Returns
    -------
    Estimate
        Numbers of the shape that `batch` and `context` broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> estimate = decode_estimate("llama-3-8b", "h100-sxm", batch=8, context=1024)
    >>> 1 < estimate.time_s / estimate.floor.time_s < 2
    True
    """
    deployment = deploy("decode_estimate", STEP, model, hardware, options)
    return _estimate(floor_of("decode", deployment, decode_step(batch, context)), calibration, cuda_graph, interval)


@asks(STEP)
def prefill_estimate(
    model: Any,
    hardware: Machine = None,
    *,
    prompt: Any = None,
    batch: Any = 1,
    cached: Any = 0,
    logits: Literal["last", "all", "none"] = "last",
    calibration: CalibrationRecord | str | Path | None = None,
    cuda_graph: bool = True,
    interval: float = 0.8,
    **options: Unpack[StepOptions],
) -> Estimate:
    """Return the time to expect of one prefill: whole prompts, of which `cached` tokens may come from a prefix cache.

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
    calibration : CalibrationRecord, str or Path, optional
        As in :func:`step_estimate` [-].
    cuda_graph : bool, optional
        Whether a step's kernels are launched as one graph [-].
    interval : float, optional
        Probability of the interval, up to 0.98; it is one of kernels, see :class:`Estimate` [-].
    {options}

    Returns
    -------
    Estimate
        Numbers of the shape that the arguments broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> prefill_estimate("llama-3-8b", "h100-sxm", prompt=2048).bound
    'compute'
    """
    deployment = deploy("prefill_estimate", STEP, model, hardware, options)
    floor = prompt_floor(deployment, Step.prefill(prompt, batch=batch, cached=cached, logits=logits))
    return _estimate(floor, calibration, cuda_graph, interval)


def _estimate(floor: Floor, calibration: Any, cuda_graph: bool, interval: float) -> Estimate:
    check_interval(interval)
    cuda_graph = check_flag("cuda_graph", cuda_graph)
    if floor.model.is_anonymous:
        raise InvalidValueError(
            f"{floor.model.name}: a number of parameters says how much there is to read and to compute, not by which kernels. "
            "Name a model, or a config.json, for an estimate; the floor needs no more than this."
        )
    record = find_record(calibration, floor.hardware)
    steps = frozenset({floor.kind}) & STEPS or _kinds(floor.work.step)
    timing = timing_of(floor.model, floor.work.program, record, floor.hardware, cuda_graph=cuda_graph, steps=steps)
    return Estimate(floor, record, Timed(timing, floor.work.values, floor.work.shape), float(interval))


def _kinds(step: Step) -> frozenset[str]:
    """Return of which kinds a step is: decode or prompts alone, else both."""
    if all(np.all(group.new == 1) for group in step.groups):
        return frozenset({"decode"})
    prompts = all(np.all((np.asarray(group.new) > 1) & (np.asarray(group.sampled) <= 1)) for group in step.groups)
    return frozenset({"prefill"}) if prompts else STEPS
