"""Which compute peak a product in a given operand format runs at, on a machine that may lack that format, and what none exceeds."""

import math
from dataclasses import replace

from roofline.formats import OPERANDS, convertible
from roofline.hardware.sections import Clock, Compute, FormatRates, Units
from roofline.provenance import Ceiling, weakest
from roofline.units import show_rate

_ROUNDED = 0.02
"""By how much a printed peak may lie below what its own units and clock give, for no other reason than rounding [-]."""

_GIVEN = {"U", "M"}
"""Evidence of rates that stand as they are: given by the user, or measured [-]."""

_WIDE = {"bf16", "tf32", "fp32", "fp64"}
"""Operand formats that no engine sums in fp16, which has too small a range for them."""


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


def find_ceilings(compute: Compute, units: Units, clock: Clock | None) -> dict[str, Ceiling]:
    """Return what no product in an operand format exceeds: its peak with the faster sums, at the highest clock [FLOP/s].

    The rules are those of :func:`find_peaks`, after two changes. Rates with 16-bit sums take the place of slower ones, since an
    engine may sum so, except for operands whose range exceeds that of fp16 (bf16 and wider). And every rate is multiplied by the
    highest clock of the part over the clock that the data sheet's peak belongs to.

    Notes
    -----
    Where one of the two clocks is not known the data sheet's rate stands, and the ceiling says that it is no proven bound. Rates
    that the user gives or a calibration measured stand as they are.
    """
    faster = _at_highest_clock(compute, units, clock)
    fastest = _at_highest_clock(_with_fp16_sums(compute), units, clock)
    rates = {operand: faster if operand in _WIDE else fastest for operand in OPERANDS}
    return {operand: _describe(_find_peak(rates[operand], operand), compute, units, clock) for operand in OPERANDS}


def find_vector_ceiling(compute: Compute, units: Units, clock: Clock | None) -> Ceiling:
    """Return what the general units do not exceed in fp32 [FLOP/s]."""
    found = find_vector_peak(_at_highest_clock(compute, units, clock))
    return _describe(found, compute, units, clock)


def _with_fp16_sums(compute: Compute) -> Compute:
    quick = compute.matrix_flops_per_s_fp16_accumulate
    if quick is None:
        return compute
    known = {operand: rate for operand, rate in quick.to_dict().items() if rate is not None}
    return compute.but(matrix_flops_per_s=compute.matrix_flops_per_s.but(**known))


def _headroom(stated_hz: float | None, clock: Clock | None) -> float:
    """Return by how much the highest clock exceeds that of a stated peak; 1 where either is not known [-]."""
    return 1.0 if stated_hz is None or clock is None else max(1.0, clock.highest_hz / stated_hz)


def _at_highest_clock(compute: Compute, units: Units, clock: Clock | None) -> Compute:
    """Return the rates at the highest clock: those of the data sheet in proportion, or what the units give, which rounding may hide."""
    matrix, vector = _headroom(units.matrix_clock_hz, clock), _headroom(units.boost_clock_hz, clock)
    per_fma = 0.0  # FLOP/s of one multiply-add per clock in every unit
    if clock is not None and units.count is not None:
        per_fma = 2 * units.count * clock.highest_hz

    def raised(rate: float | None, factor: float, fma: int | None) -> float | None:
        return None if rate is None else max(rate * factor, per_fma * (fma or 0))

    fma, stated = units.matrix_fma_per_clock_per_unit, compute.matrix_flops_per_s
    if fma.bf16 is None and stated.bf16 == stated.fp16:
        fma = fma.but(bf16=fma.fp16)
    clocks = {"fp64": vector}  # NVIDIA prints the fp64 peak of matrix units at the boost clock, like those of the general units
    rates = {o: raised(rate, clocks.get(o, matrix), getattr(fma, o, None)) for o, rate in stated.to_dict().items()}
    return compute.but(
        matrix_flops_per_s=FormatRates(**rates),
        vector_flops_per_s=raised(compute.vector_flops_per_s, vector, units.vector_fma_per_clock_per_unit),
        fp64_vector_flops_per_s=raised(compute.fp64_vector_flops_per_s, vector, None),
    )


def _describe(found: Ceiling, compute: Compute, units: Units, clock: Clock | None) -> Ceiling:
    """Return a ceiling with the reasons why it differs from the data sheet's peak, or why it is not proven."""
    if not math.isfinite(found.value) or compute.evidence in _GIVEN:
        return found
    used = found.name.split()[0]
    general = "vector" in found.name or used == "fp64"
    stated_hz = units.boost_clock_hz if general else units.matrix_clock_hz
    if stated_hz is None or clock is None:
        unproven = f"no source gives the {'clock of this peak' if clock else 'highest clock'}, so the {found.name} is no proven bound"
        return replace(found, note="; ".join(filter(None, (found.note, unproven))), proven=False)
    stated = _native(compute, used)
    if stated is None or found.value <= stated.value:
        return found
    if found.value <= stated.value * (1 + _ROUNDED):
        rounded = f"{used}: its units and clock give more than the {show_rate(stated.value, 'FLOP/s')} of the data sheet, which rounds"
        return replace(found, note="; ".join(filter(None, (found.note, rounded))) if found.value > stated.value * 1.001 else found.note)
    quick = compute.matrix_flops_per_s_fp16_accumulate
    summed = quick is not None and used not in _WIDE and getattr(quick, used) is not None
    sums = ("summed in fp16", " with fp32 sums") if summed else ("", "")
    reached = " ".join(filter(None, (sums[0], f"at up to {show_rate(max(clock.highest_hz, stated_hz), 'Hz')}")))
    why = f"{used} {reached}: the data sheet's {show_rate(stated.value, 'FLOP/s')} is for {show_rate(stated_hz, 'Hz')}{sums[1]}"
    return replace(
        found,
        source=f"{found.source}; clock: {clock.source}",
        evidence=weakest(found.evidence, clock.evidence),
        note="; ".join(filter(None, (found.note, why))),
    )


def _find_peak(compute: Compute, operand: str) -> Ceiling:
    own = _native(compute, operand)
    conversions = [(o, c) for o in convertible(operand) if (c := _native(compute, o)) is not None]
    other, converted = max(conversions, key=lambda pair: pair[1].value, default=("", None))
    if own is not None:
        if converted is not None and converted.value > own.value * (1 + _ROUNDED):
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
