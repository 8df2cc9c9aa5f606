"""Floors of steps: decode, prefill, and any mixture of them."""

from pathlib import Path
from typing import Any, Literal

from roofline.bounds import floor_roofs
from roofline.floors.machine import machine
from roofline.floors.result import Floor
from roofline.formats import Format
from roofline.forward import Fusion, WeightFormats, forward
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.parallel import SINGLE, Parallel
from roofline.step import Step

_ONE = (1, 1, 1, 1, 1)
_UNLIMITED = 2**40  # without links of its own, devices meet over the host's, however many there are


def _degrees(*degrees: int) -> tuple[int, ...]:
    """Return the one object that stands for a single device if all degrees are 1; whatever is no number is refused later."""
    try:
        return _ONE if degrees == _ONE and bool not in map(type, degrees) else degrees
    except ValueError:  # an array has no single truth
        return degrees


def _floor(
    kind: str,
    model: Any,
    hardware: Hardware,
    step: Step,
    weights: WeightFormats,
    activations: str | Format | None,
    kv: str | Format | None,
    fusion: Fusion,
    routing: Any,
    mtp: int,
    degrees: tuple[int, ...],
) -> Floor:
    loaded = model if type(model) is Model else Model.load(model)
    parallel = SINGLE if degrees is _ONE else Parallel(*degrees)
    work = forward(
        loaded,
        step,
        weights=weights,
        activations=activations,
        kv=kv,
        fusion=fusion,
        routing=routing,
        mtp=mtp,
        parallel=parallel,
        domain=_UNLIMITED if parallel is SINGLE or hardware.scale_up is None else hardware.scale_up.domain_size or _UNLIMITED,
    )
    return Floor(kind, loaded, hardware, work, floor_roofs(work, hardware))


def step_floor(
    model: Any,
    hardware: Hardware | str | Path | None,
    step: Step,
    *,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
    routing: Any = "uniform",
    mtp: int = 0,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    expert_parallel: int = 1,
    data_parallel: int = 1,
    context_parallel: int = 1,
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> Floor:
    r"""Return the floor of any step: :math:`\max(\sum_d F_d/P_d, \max(0, B - C)/W)`.

    Parameters
    ----------
    model : str, Path, mapping, object, int, float or Model
        What :meth:`Model.load` takes: a name, a config.json, a number of parameters [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    step : Step
        What the forward pass is asked to do [-].
    weights, activations, kv : str, optional
        Number formats; by default what the model stores [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators, for the roofline time only [-].
    routing : str or array_like, optional
        How tokens spread over experts: ``"uniform"`` (a bound on average), ``"best"`` (a bound whatever happens),
        ``"power_law_1.2"`` (the busiest device's load if popularity follows a power law; any exponent of at least 0), or the
        popularity of each expert [-].
    mtp : int, optional
        Multi-token-prediction modules that run in the step, each with the LM head once more [-].
    tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, context_parallel : int, optional
        Devices that share every layer; the layers; the routed experts; the sequences; the cache of each sequence. All amounts
        are then the busiest device's [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

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
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    degrees = _degrees(tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, context_parallel)
    return _floor("step", model, target, step, weights, activations, kv, fusion, routing, mtp, degrees)


def decode_floor(
    model: Any,
    hardware: Hardware | str | Path | None = None,
    *,
    batch: Any = 1,
    context: Any = 0,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
    routing: Any = "uniform",
    mtp: int = 0,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    expert_parallel: int = 1,
    data_parallel: int = 1,
    context_parallel: int = 1,
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> Floor:
    """Return the floor of one decode step: one new token for each of `batch` sequences with `context` tokens cached.

    Parameters
    ----------
    model : str, Path, mapping, object, int, float or Model
        What :meth:`Model.load` takes: a name, a config.json, a number of parameters [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    batch : int or array_like, optional
        Sequences [-].
    context : int or array_like, optional
        Tokens of each already in the cache [token].
    weights, activations, kv : str, optional
        Number formats; by default what the model stores [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators, for the roofline time only [-].
    routing : str or array_like, optional
        How tokens spread over experts: ``"uniform"`` (a bound on average), ``"best"`` (a bound whatever happens),
        ``"power_law_1.2"`` (the busiest device's load if popularity follows a power law; any exponent of at least 0), or the
        popularity of each expert [-].
    mtp : int, optional
        Multi-token-prediction modules that run in the step, each with the LM head once more [-].
    tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, context_parallel : int, optional
        Devices that share every layer; the layers; the routed experts; the sequences; the cache of each sequence. All amounts
        are then the busiest device's [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

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
    target = (
        hardware
        if type(hardware) is Hardware and memory_bandwidth is peak_flops_per_s is memory_capacity is None
        else machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    )
    degrees = _degrees(tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, context_parallel)
    return _floor(
        "decode", model, target, Step.decode(batch=batch, context=context), weights, activations, kv, fusion, routing, mtp, degrees
    )


def prefill_floor(
    model: Any,
    hardware: Hardware | str | Path | None = None,
    *,
    prompt: Any,
    batch: Any = 1,
    cached: Any = 0,
    logits: Literal["last", "all", "none"] = "last",
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
    routing: Any = "uniform",
    mtp: int = 0,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    expert_parallel: int = 1,
    data_parallel: int = 1,
    context_parallel: int = 1,
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> Floor:
    """Return the floor of one prefill: whole prompts, of which `cached` tokens may come from a prefix cache.

    Parameters
    ----------
    model : str, Path, mapping, object, int, float or Model
        What :meth:`Model.load` takes: a name, a config.json, a number of parameters [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    prompt : int or array_like
        Tokens of each prompt, the cached ones included [token].
    batch : int or array_like, optional
        Sequences [-].
    cached : int or array_like, optional
        Tokens of each prompt found in the prefix cache [token].
    logits : {"last", "all", "none"}, optional
        Which rows reach the LM head [-].
    weights, activations, kv : str, optional
        Number formats; by default what the model stores [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators, for the roofline time only [-].
    routing : str or array_like, optional
        How tokens spread over experts: ``"uniform"`` (a bound on average), ``"best"`` (a bound whatever happens),
        ``"power_law_1.2"`` (the busiest device's load if popularity follows a power law; any exponent of at least 0), or the
        popularity of each expert [-].
    mtp : int, optional
        Multi-token-prediction modules that run in the step, each with the LM head once more [-].
    tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, context_parallel : int, optional
        Devices that share every layer; the layers; the routed experts; the sequences; the cache of each sequence. All amounts
        are then the busiest device's [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

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
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    step = Step.prefill(prompt, batch=batch, cached=cached, logits=logits)
    degrees = _degrees(tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, context_parallel)
    return _floor("prefill", model, target, step, weights, activations, kv, fusion, routing, mtp, degrees)
