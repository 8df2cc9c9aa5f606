"""What fits into memory, and what would make it fit."""

import math

import numpy as np

from roofline.arithmetic import Number
from roofline.forward import Work, compile_model
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.units import show_bytes

_NARROWER = ("fp8", "int4")


def fits(work: Work, hardware: Hardware) -> Number | None:
    """Say whether a step's weights and cache fit into one device.

    Parameters
    ----------
    work : Work
        The work of one step [-].
    hardware : Hardware
        The machine [-].

    Returns
    -------
    bool, numpy.ndarray of bool, or None
        None where the machine's capacity is not known [-].
    """
    if hardware.memory_capacity is None:
        return None
    return work.resident_bytes <= hardware.memory_capacity


def fit_advice(model: Model, work: Work, hardware: Hardware) -> str:
    """Say in words what would make a step fit that does not: fewest devices, and narrower formats that suffice.

    Parameters
    ----------
    model : Model
        The model [-].
    work : Work
        Its work in one step; of an array the largest case is meant [-].
    hardware : Hardware
        The machine [-].

    Returns
    -------
    str
        A sentence, empty where everything fits or the capacity is not known [-].
    """
    capacity = hardware.memory_capacity
    needed = float(np.max(work.resident_bytes))
    if capacity is None or needed <= capacity:
        return ""
    precision = work.program.precision
    parallel = work.program.parallel
    ways = [f"at least {math.ceil(needed * parallel.devices / capacity)} such devices"]
    for weights in _NARROWER:
        for kv in (None, "fp8"):
            formats = {"*": weights, **{name: chosen.name for name, chosen in precision.components}}
            program = compile_model(
                model, weights=formats, activations=precision.activations or precision.stream, kv=kv or precision.kv, parallel=parallel
            )
            size = float(np.max(Work(program, work.step, program.values(work.step)).resident_bytes))
            if size <= capacity:
                ways.append(f"weights={weights!r}" + (f" with kv={kv!r}" if kv else "") + f" ({show_bytes(size)})")
                break
    return f"needs {show_bytes(needed)} of {show_bytes(capacity)}; what would make it fit: {', or '.join(ways)}"
