"""What fits into memory, and what would make it fit."""

import math

import numpy as np

from roofline.arithmetic import Number
from roofline.deployment.deployment import Deployment
from roofline.forward import Work, compile_model
from roofline.units import show_bytes

_ENGINES = 0.9  # share of the memory that engines use unless told otherwise
_NARROWER = ("fp8", "int4")


def fits(work: Work, deployment: Deployment) -> Number | None:
    """Say whether a step's weights and cache, and the reserve, fit into what may be used of one device."""
    usable = deployment.usable_bytes
    return None if usable is None else work.resident_bytes + deployment.reserve <= usable


def tight_note(resident_bytes: Number, deployment: Deployment) -> str:
    """Say that no engine runs what fits only into all of the memory; empty where engines have room, or nothing fits.

    References
    ----------
    vLLM, ``--gpu-memory-utilization``: 0.9 by default; SGLang, ``--mem-fraction-static``: about 0.88; TensorRT-LLM,
    ``free_gpu_memory_fraction``: 0.9 of what the weights leave. The rest is for the framework, activations and graphs.
    """
    usable, capacity = deployment.usable_bytes, deployment.memory_capacity
    if usable is None or capacity is None or usable <= _ENGINES * capacity:
        return ""
    needed = np.asarray(resident_bytes) + deployment.reserve
    tight = (needed <= usable) & (needed > _ENGINES * capacity)
    if not tight.any():
        return ""
    most = float(needed[tight].max()) if needed.ndim else float(needed)
    which = "" if tight.all() else f"{int(tight.sum())} of {tight.size} steps fit only just: the largest "
    return (
        f"{which}needs {show_bytes(most)} of {show_bytes(capacity)}, {most / capacity:.0%}: engines leave a tenth of the memory free by default, "
        f"so none runs it as it is; utilization={_ENGINES:g} counts as they do"
    )


def fit_advice(work: Work, deployment: Deployment) -> str:
    """Say in words what would make a step fit that does not: fewest devices, and narrower formats that suffice."""
    usable, needed = deployment.usable_bytes, float(np.max(work.resident_bytes)) + deployment.reserve
    if usable is None or needed <= usable:
        return ""
    precision, parallel = work.program.precision, work.program.parallel
    room, model = usable - deployment.reserve, deployment.model
    if model.dtype is None:  # the user said it by weights=
        model = model.but(dtype=precision.base.name)
    ways = [f"at least {math.ceil((needed - deployment.reserve) * parallel.devices / room)} such devices"] if room > 0 else []
    for weights in _NARROWER:
        for kv in (None, "fp8"):
            formats = {"*": weights, **{name: chosen.name for name, chosen in precision.components}}
            program = compile_model(
                model,
                weights=formats,
                activations=precision.activations or precision.stream,
                kv=kv or precision.kv,
                parallel=parallel,
            )
            size = float(np.max(Work(program, work.step).resident_bytes)) + deployment.reserve
            if size <= usable:
                ways.append(f"weights={weights!r}" + (f" with kv={kv!r}" if kv else "") + f" ({show_bytes(size)})")
                break
    kept = f", {show_bytes(deployment.reserve)} of it the reserve" if deployment.reserve else ""
    remedy = f"what would make it fit: {', or '.join(ways)}" if ways else "nothing makes it fit: the reserve alone takes what may be used"
    most = "the largest needs" if work.shape else "needs"
    return f"{most} {show_bytes(needed)} of {show_bytes(usable)}{kept}; {remedy}"
