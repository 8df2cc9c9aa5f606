"""The constants that a kernel is timed with: those of its own class, or of the nearest one, with a note."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from roofline.arithmetic import LinearForm
from roofline.deployment.inputs import OWN_DESCRIPTION
from roofline.errors import CalibrationError, InvalidValueError, quoted
from roofline.formats import OPERANDS, Format
from roofline.frozen import freeze
from roofline.hardware import Hardware
from roofline.hardware.rates import reference_rates
from roofline.kernels import Family
from roofline.ops import Op
from roofline.records import CalibrationRecord, KernelClass, list_records, load_record
from roofline.records.schema import PERCENTILES
from roofline.records.store import shipped_records
from roofline.results import Told

GENERIC = "generic"
"""Id of the record whose shares hold for any machine, with an interval as wide as machines differ [-]."""

_ROUNDED = 1e-6  # by how much a constant may pass its bounds: written and read again


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The constants of n kernels of one family on one machine, as columns."""

    constants: Mapping[str, np.ndarray]  # every constant of the form, n × 1 [unit].
    peak_flops_per_s: np.ndarray  # what shares refer to, n × 1 [FLOP/s], [B/s].
    bandwidth: np.ndarray  # what shares refer to, n × 1 [FLOP/s], [B/s].
    quantiles: np.ndarray  # log(measured / fitted) at ``roofline.records.PERCENTILES``, n × 13
    generic: np.ndarray  # whether the constants are those of no machine in particular, n
    notes: tuple[str, ...]  # substitutions made where the record has no constants for this class


def find_record(calibration: Any, hardware: Hardware) -> CalibrationRecord:
    """Return the record that an estimate rests on."""
    machine = hardware if calibration is None else hardware.calibrated(calibration)
    return machine.calibration or _default(machine)


@cache
def generic_record() -> CalibrationRecord:
    """Return the record whose shares hold for any machine."""
    return load_record(GENERIC)


@lru_cache(maxsize=256)
def _default(machine: Hardware) -> CalibrationRecord:
    """Return the preferred record of a machine; the generic one too where a spec of one's own has its name and other rates."""
    shipped = shipped_records(machine.id)
    if not shipped:
        return generic_record()
    try:
        machine.calibrated(shipped[0])
    except CalibrationError:
        return generic_record()
    return load_record(shipped[0])


def record_notes(record: CalibrationRecord, hardware: Hardware) -> tuple[str, ...]:
    """Return what every result must say of the record it rests on."""
    conditions = tuple(map(str, record.conditions))
    if record.rates.origin != "fraction" or hardware.vendor == "NVIDIA":
        return conditions
    return (
        *conditions,
        f"generic constants were fitted to NVIDIA's GPUs; on {hardware.id} they are an extrapolation nobody checked",
    )


def describe_record(record: CalibrationRecord) -> dict[str, Any]:
    """Return which record a result rests on, as plain data."""
    return {"id": record.id, "date": record.date, "source": record.source, "generic": record.rates.origin == "fraction"}


def record_input(record: CalibrationRecord) -> str | Told:
    """Return what :func:`roofline.records.load_record` takes to give this record again: the id of a shipped one, else its content."""
    if record.id in list_records() and load_record(record.id) == record:
        return record.id
    return Told(f"{record.id} {OWN_DESCRIPTION}", record.model_dump(mode="json"))


def whose_constants(record: CalibrationRecord, hardware: Hardware, borrowed: Sequence[str]) -> str:
    """Return in a few words whether constants are the machine's own, generic, or borrowed, and from what."""
    if record.rates.origin == "fraction":
        return "generic"
    sister = [f"all of {record.hardware}"] if record.hardware not in ("", hardware.id) else []
    return f"borrowed: {'; '.join([*sister, *borrowed])}" if sister or borrowed else "own"


def generic_mark(record: CalibrationRecord) -> str:
    """Return what the first line of a result says of constants that are no machine's in particular; empty for others."""
    return ", generic constants" if record.rates.origin == "fraction" else ""


def choose(family: Family, ops: Sequence[Op], record: CalibrationRecord, hardware: Hardware) -> Chosen:
    """Return the constants of kernels of one family.

    Those of the record's class with the same family, stored format and operand format; else of the class of the family with the operand
    format, and then the stored format, of nearest width; else the generic ones, chosen in the same way.
    """
    notes = []
    columns: dict[str, list[float]] = {c.name: [] for c in family.constants}
    peaks, bandwidths, quantiles, generic = [], [], [], []
    for op in ops:
        found, origin = _nearest(record, op), record
        if found is None:
            origin = generic_record()
            found = _nearest(origin, op)
        if found is None:
            raise CalibrationError(f"neither {record.id} nor the generic record has kernels of the family {family.name}.")
        wanted, got = _label(op.stored, op.operand), _label(found.stored, found.operand)
        if origin is not record:
            notes.append(f"{family.name} {wanted}: not in {record.id}, generic constants")
        if found.operand != op.operand or found.stored not in ("", op.stored):
            notes.append(f"{family.name} {wanted}: constants of {got}")
        for name, value in _values(family, found, origin).items():
            columns[name].append(value)
        peak, bandwidth = reference_rates(op.operand, family.roof, machine=hardware, rates=origin.rates, outside=_outside(op))
        peaks.append(peak)
        bandwidths.append(bandwidth)
        quantiles.append(found.residual_quantiles)
        generic.append(origin.rates.origin == "fraction")
    return Chosen(
        freeze({name: np.array(column)[:, None] for name, column in columns.items()}),
        freeze(np.array(peaks)[:, None]),
        freeze(np.array(bandwidths)[:, None]),
        freeze(np.array(quantiles)),
        freeze(np.array(generic)),
        tuple(dict.fromkeys(notes)),
    )


def _label(stored: str, operand: str) -> str:
    return f"{stored} in {operand}" if stored and stored != operand else operand


def _nearest(record: CalibrationRecord, op: Op) -> KernelClass | None:
    kernel = "norm" if op.kind == "normalization" else "residual"  # calibrated machines have these two apart

    def distance(found: KernelClass) -> tuple[float, float, bool, str]:
        own = found.stored or found.operand  # the generic classes hold for every stored format
        return _apart(found.operand, op.operand), _apart(own, op.stored), found.fixed_sizes.get("kernel", kernel) != kernel, own

    return min((c for c in record.classes if c.family == op.family and c.constants), key=distance, default=None)


@cache
def _apart(one: str, other: str) -> float:
    """Return by how many powers of two the widths of two formats differ; a little where only the names do."""
    if one == other:
        return 0.0
    if not one or not other:  # nothing is stored, or nothing multiplied
        return np.inf
    widths = [OPERANDS[name] if name in OPERANDS else float(Format.load(name).bits) for name in (one, other)]
    return 0.01 + abs(float(np.log2(widths[0] / widths[1])))


def _values(family: Family, found: KernelClass, record: CalibrationRecord) -> dict[str, float]:
    """Return the constants of a class, after checking them against the form."""
    where = f"calibration record {record.id}, {family.name} {_label(found.stored, found.operand)}"
    known = {c.name: c for c in family.constants}
    for name, constant in found.constants.items():
        if name not in known:
            raise CalibrationError(f"{where}: unknown constant {name!r}; this form has {', '.join(known)}. Fit it again with this version.")
        form = known[name]
        if constant.unit != form.unit:
            raise CalibrationError(f"{where}: {name} is in {constant.unit!r}; it must be in {form.unit!r}.")
        if not form.least * (1 - _ROUNDED) <= constant.value <= form.most * (1 + _ROUNDED):
            raise CalibrationError(f"{where}: {name} is {constant.value:g}; it must lie in {form.least:g} … {form.most:g} {form.unit}.")
    if len(found.residual_quantiles) != len(PERCENTILES):
        raise CalibrationError(f"{where}: has constants but no residual_quantiles, so its interval is not known.")
    missing = [c.name for c in family.constants if c.name not in found.constants and c.neutral is None]
    if missing:
        raise CalibrationError(f"{where}: has no {', '.join(missing)}. Fit it again with this version.")
    return {c.name: found.constants[c.name].value if c.name in found.constants else float(c.neutral or 0.0) for c in family.constants}


def _outside(op: Op) -> float:
    """Return which part of a collective's bytes leaves the scale-up domain; both amounts are in proportion."""
    amounts = (op.link_bytes, op.nic_bytes)
    link, nic = (sum(a.terms.values()) if isinstance(a, LinearForm) else np.sum(a) for a in amounts)
    return float(nic / link) if link else 0.0


_WIDEST = (PERCENTILES[-1] - PERCENTILES[0]) / 100


def check_interval(interval: float) -> None:
    """Raise InvalidValueError unless the residuals of records cover the interval."""
    if not isinstance(interval, (float, np.floating)) or not 0 < interval <= _WIDEST:
        raise InvalidValueError(
            f"interval is {quoted(interval)}; it must be in (0, {_WIDEST:g}], e.g. 0.8: records store residuals only from the {PERCENTILES[0]}st "
            f"to the {PERCENTILES[-1]}th percentile."
        )


def residual_quantile(quantiles: np.ndarray, level: float) -> np.ndarray:
    """Return log(measured / fitted) at one level of probability, interpolated between the record's percentiles.

    Examples
    --------
    >>> residual_quantile(np.array([np.linspace(-1, 1, 13)]), 0.5)
    array([0.])
    """
    above = min(max(int(np.searchsorted(_LEVELS, level)), 1), len(_LEVELS) - 1)
    low, high = _LEVELS[above - 1], _LEVELS[above]
    share = min(max((level - low) / (high - low), 0.0), 1.0)  # beyond the outermost percentiles nothing is known
    between: np.ndarray = quantiles[:, above - 1] * (1 - share) + quantiles[:, above] * share
    return between


_LEVELS = np.array(PERCENTILES) / 100
