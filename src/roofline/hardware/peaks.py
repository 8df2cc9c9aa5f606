"""Which compute peak a product in a given operand format runs at, on a machine that may lack that format."""

import math
from dataclasses import replace

from roofline.formats import OPERANDS, convertible
from roofline.hardware.sections import Compute
from roofline.provenance import Ceiling


def find_peaks(compute: Compute) -> dict[str, Ceiling]:
    """Return the peak of matrix products for every operand format [FLOP/s].

    A format the machine has no mode for is converted, in the fastest of the formats of
    ``roofline.formats.convertible``. A format with no conversion either (fp32 on a chip whose page prints bf16 only) is
    bounded by the nearest narrower floating-point format, which is no slower.

    Notes
    -----
    A native mode that is slower than a conversion is replaced by it, and the note says so: int8 on B300 has 153.5 TOP/s of its
    own, but is exact in bf16, and a bound takes the faster way.
    """
    return {operand: _find_peak(compute, operand) for operand in OPERANDS}


def find_vector_peak(compute: Compute) -> Ceiling:
    """Return the fp32 peak of the general units [FLOP/s]."""
    if compute.vector_flops_per_s is not None:
        return compute.ceiling("fp32 vector peak", compute.vector_flops_per_s, "FLOP/s")
    if compute.matrix_flops_per_s.any is not None:
        return compute.ceiling("peak", compute.matrix_flops_per_s.any, "FLOP/s", "one peak given for everything")
    return compute.ceiling("fp32 vector peak", math.inf, "FLOP/s", "no vector peak given")


def _find_peak(compute: Compute, operand: str) -> Ceiling:
    own = _native(compute, operand)
    conversions = [(o, c) for o in convertible(operand) if (c := _native(compute, o)) is not None]
    other, converted = max(conversions, key=lambda pair: pair[1].value, default=("", None))
    if own is not None:
        if converted is not None and converted.value > own.value:
            return replace(converted, note=f"computed in {other}, which is faster here than the {own.name} {own.value:.4g} {own.unit}")
        return own
    if converted is not None:
        return replace(converted, note=f"no {operand} mode: computed in {other}")
    for narrower in sorted(_FLOATS, key=lambda o: -OPERANDS[o]):
        bound = _native(compute, narrower)
        if bound is not None and OPERANDS[narrower] < OPERANDS[operand]:
            return replace(bound, note=f"{operand} peak not known: bounded by {narrower}, which is no slower")
    return compute.ceiling(f"{operand} matrix peak", math.inf, "FLOP/s", "no compute peak given")


_FLOATS = [operand for operand in OPERANDS if not operand.startswith("int")]


def _native(compute: Compute, operand: str) -> Ceiling | None:
    """Peak of an operand format that the machine computes in, on the faster of its matrix and general units."""
    vector = {"fp32": compute.vector_flops_per_s, "fp64": compute.fp64_vector_flops_per_s}.get(operand)
    matrix: float | None = getattr(compute.matrix_flops_per_s, operand)
    if vector is not None and (matrix is None or vector >= matrix):
        return compute.ceiling(f"{operand} vector peak", vector, "FLOP/s")
    if matrix is not None:
        return compute.ceiling(f"{operand} matrix peak", matrix, "FLOP/s")
    if compute.matrix_flops_per_s.any is not None:
        return compute.ceiling(f"{operand} peak", compute.matrix_flops_per_s.any, "FLOP/s", "one peak given for every format")
    return None
