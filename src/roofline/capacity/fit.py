"""What fits into memory, and what would make it fit."""

import math

import numpy as np

from roofline.arithmetic import Number
from roofline.deployment.deployment import Deployment
from roofline.forward import Work, compile_model
from roofline.units import show_bytes

_NARROWER = ("fp8", "int4")


def fits(work: Work, deployment: Deployment) -> Number | None:
    """Say whether a step's weights and cache, and the reserve, fit into what may be used of one device."""
    usable = deployment.usable_bytes
    return None if usable is None else work.resident_bytes + deployment.reserve <= usable


def fit_advice(work: Work, deployment: Deployment) -> str:
    """Say in words what would make a step fit that does not: fewest devices, and narrower formats that suffice."""
    usable, needed = deployment.usable_bytes, float(np.max(work.resident_bytes)) + deployment.reserve
    if usable is None or needed <= usable:
        return ""
    precision, parallel = work.program.precision, work.program.parallel
    room = usable - deployment.reserve
    ways = [f"at least {math.ceil((needed - deployment.reserve) * parallel.devices / room)} such devices"] if room > 0 else []
    for weights in _NARROWER:
        for kv in (None, "fp8"):
            formats = {"*": weights, **{name: chosen.name for name, chosen in precision.components}}
            program = compile_model(
                deployment.model,
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
