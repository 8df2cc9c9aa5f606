"""The constants that a kernel is timed with: those of its own class, or of the nearest one, with a note."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from roofline.arithmetic import LinearForm
from roofline.deployment.inputs import OWN_DESCRIPTION
from roofline.errors import CalibrationError, InvalidValueError, quoted
from roofline.estimate.shapes import ROUNDED, ShapeTable, each_shape, has_shape, shape_table, shape_values, takes_near
from roofline.formats import OPERANDS, Format
from roofline.frozen import freeze
from roofline.hardware import Hardware
from roofline.hardware.load import spec_files
from roofline.hardware.measured import sister_record, sisters
from roofline.hardware.rates import reference_rates
from roofline.kernels import Family
from roofline.ops import Op
from roofline.records import CalibrationRecord, KernelClass, Shapes, list_records, load_record
from roofline.records.schema import PERCENTILES
from roofline.records.store import shipped_records
from roofline.results import Told

GENERIC = "generic"
"""Id of the record whose shares hold for any machine, with an interval as wide as machines differ [-]."""

HOST = "host"
"""What ``links`` of a class says if it is of collectives over host links [-]."""
STEPS = frozenset({"decode", "prefill"})
"""Kinds of step, of which a step may have both."""

_UNPACKING = ("matmul", "experts")  # families that unpack weights where they read them
_BLEND = 4.0  # from the border down and up by this factor, small kernels become large ones, so that no interval jumps


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """log(measured / fitted) of n kernels in some steps, as quantiles."""

    small: np.ndarray  # of kernels below their border, n × 13
    large: np.ndarray  # of those beyond, n × 13
    share: np.ndarray  # from 0 for a small kernel to 1 for a large one, n × steps, or n × 1 in all steps

    def at(self, level: float) -> np.ndarray:
        """Return the residual at one level of probability, of every kernel in every step, or n × 1 if it is the same in all."""
        small, large = (residual_quantile(quantiles, level)[:, None] for quantiles in (self.small, self.large))
        between: np.ndarray = small + self.share * (large - small)
        return between

    def take(self, some: np.ndarray) -> "Residuals":
        """Return those of some of the kernels."""
        return Residuals(self.small[some], self.large[some], self.share[some])


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The constants of n kernels of one family on one machine, as columns."""

    constants: Mapping[str, np.ndarray]  # every constant of the form, n × 1 [unit].
    peak_flops_per_s: np.ndarray  # what shares refer to, n × 1 [FLOP/s], [B/s].
    bandwidth: np.ndarray  # what shares refer to, n × 1 [FLOP/s], [B/s].
    quantiles: np.ndarray  # log(measured / fitted) at ``roofline.records.PERCENTILES``, n × 13
    large: np.ndarray  # the same of kernels whose size is beyond the border, n × 13
    border: np.ndarray  # the border, infinite where large kernels have no quantiles of their own, n × 1 [unit]
    generic: np.ndarray  # whether the constants are those of no machine in particular, n
    stand_ins: tuple[str, ...]  # of each, what stands in where the record has no constants of its own for this class; empty if it has, n

    def residuals(self, family: Family, features: Mapping[str, Any]) -> Residuals:
        """Return the residuals of the kernels, given their features, n × steps."""
        if family.size is None or not np.isfinite(self.border).any():
            return Residuals(self.quantiles, self.large, np.zeros_like(self.border))
        over = (np.log(np.maximum(family.size.of(features), 1e-300)) - np.log(self.border)) / np.log(_BLEND)
        return Residuals(self.quantiles, self.large, np.clip((1 + over) / 2, 0, 1))

    def take(self, some: np.ndarray) -> "Chosen":
        """Return those of some of the kernels, by their places."""
        return Chosen(
            freeze({name: column[some] for name, column in self.constants.items()}),
            peak_flops_per_s=freeze(self.peak_flops_per_s[some]),
            bandwidth=freeze(self.bandwidth[some]),
            quantiles=freeze(self.quantiles[some]),
            large=freeze(self.large[some]),
            border=freeze(self.border[some]),
            generic=freeze(self.generic[some]),
            stand_ins=tuple(self.stand_ins[i] for i in some.tolist()),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Every substitution once."""
        return tuple(dict.fromkeys(text for text in self.stand_ins if text))


def find_record(calibration: Any, hardware: Hardware) -> CalibrationRecord:
    """Return the record that an estimate rests on."""
    machine = hardware if calibration is None else hardware.calibrated(calibration, sister=True)
    return machine.calibration or _default(machine)


@cache
def generic_record() -> CalibrationRecord:
    """Return the record whose shares hold for any machine."""
    return load_record(GENERIC)


@lru_cache(maxsize=256)
def _default(machine: Hardware) -> CalibrationRecord:
    """Return the preferred record of a machine, else of a sister chip, else the generic one.

    The generic one too where a spec of one's own has the name of a machine with a record and other rates.
    """
    shipped = shipped_records(machine.id)
    if not shipped:
        sister = next(sisters(machine, Hardware.load), None)
        return sister_record(machine, shipped_records(sister)[0], Hardware.load) if sister else generic_record()
    try:
        machine.calibrated(shipped[0])
    except CalibrationError:
        return generic_record()
    return load_record(shipped[0])


@lru_cache(maxsize=256)
def record_of_engine(machine: Hardware, engine: str) -> CalibrationRecord | None:
    """Return an engine's record of a machine or a sister chip; None where there is none, so that another engine's or the generic one counts, which results name."""
    try:
        return machine.calibrated(engine, sister=True).calibration
    except CalibrationError:
        return None


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
    shipped = load_record(record.id) if record.id in list_records() else None
    if shipped is not None and (shipped == record or _sisters_own(record, shipped)):
        return record.id
    return Told(f"{record.id} {OWN_DESCRIPTION}", record.model_dump(mode="json"))


def _is_sisters(record: CalibrationRecord) -> bool:
    """Return whether a record was measured on a sister chip of the machine that its shares are now of."""
    return any(condition.code == "sister" for condition in record.conditions)


def _sisters_own(record: CalibrationRecord, shipped: CalibrationRecord) -> bool:
    """Return whether a record is that of a sister chip as it is shipped, with shares of its machine's rates."""
    if not _is_sisters(record) or record.hardware not in spec_files():
        return False
    return sister_record(Hardware.load(record.hardware), shipped.id, Hardware.load).classes == record.classes


def whose_constants(record: CalibrationRecord, borrowed: Sequence[str]) -> str:
    """Return in a few words whether constants are the machine's own, generic, or borrowed, and from what."""
    if record.rates.origin == "fraction":
        return "generic"
    sister = [f"all of {record.environment.device}"] if _is_sisters(record) else []
    return f"borrowed: {'; '.join([*sister, *borrowed])}" if sister or borrowed else "own"


def generic_mark(record: CalibrationRecord) -> str:
    """Return what the first line of a result says of constants that are no machine's in particular; empty for others."""
    return ", generic constants" if record.rates.origin == "fraction" else ""


def dated(record: CalibrationRecord) -> str:
    """Return in a few words of when and of what a record is."""
    if record.rates.origin == "fraction":
        return "constants of no machine in particular: expect the whole interval"
    return f"dated {record.date[:10]}{', of a sister chip' if _is_sisters(record) else ''}"


def choose(
    family: Family,
    ops: Sequence[Op],
    record: CalibrationRecord,
    hardware: Hardware,
    *,
    steps: frozenset[str] = STEPS,
    static: bool = False,
) -> Chosen:
    """Return the constants of kernels of one family in some kinds of step, of a model that stores the scales of its rows or not.

    Those of the record's class with the same family, stored format and operand format; else of the class of the family with the operand
    format, and then the stored format, of nearest width; else the generic ones, chosen in the same way. A class without samples of one of
    the kinds of step is passed over. Where the class has constants of single shapes, they are those of the operator's own shape, else means
    over all, in which near ones weigh most. The interval of another format's constants is at least the generic one's.
    """
    columns: dict[str, list[float]] = {c.name: [] for c in family.constants}
    peaks, bandwidths, quantiles, large, borders, generic, stand_ins = [], [], [], [], [], [], []
    tables: dict[int, ShapeTable] = {}
    of_any_machine = record.rates.origin == "fraction"
    for op in ops:
        links = _links(op, hardware)
        found, origin = None if of_any_machine else _nearest(record, op, steps, static=static, links=links), record
        if found is None:
            op, origin = _as_computed(op, hardware), record if of_any_machine else generic_record()
            found = _nearest(origin, op, steps, links=links)
        if found is None:
            raise CalibrationError(f"neither {record.id} nor the generic record has kernels of the family {family.name}.")
        told = _stand_in(op, found, record, own=origin is record), _peers(op, links, hardware)
        stand_ins.append("; ".join(filter(None, told)))
        values, fit = _values(family, found, origin, op, tables)
        peak, bandwidth = reference_rates(op.operand, family.roof, machine=hardware, rates=origin.rates, outside=_outside(op))
        if "compute_share" in values and not np.isfinite(peak):
            raise CalibrationError(
                f"no peak of {hardware.id} in {op.operand} is known, and an estimate counts arithmetic, too; give it, such as peak_flops_per_s=."
            )
        if origin.rates.origin == "fraction":
            values = family.scale(values, peak)
        share = _unpacking_share(op, origin, hardware)
        for name, value in values.items():
            columns[name].append(min(value, share) if name == "bandwidth_share" else value)
        peaks.append(peak)
        bandwidths.append(bandwidth)
        small, over, border = _by_size(family, found, fit, origin, steps)
        general = _nearest(generic_record(), op, steps, links=links) if _differs(op, found) else None
        if general is not None:  # constants that stand in for another format's
            least, most, apart = _by_size(family, general, general, generic_record(), steps)
            small, over, border = wider_residuals(small, least), wider_residuals(over, most), min(border, apart)
        quantiles.append(small)
        large.append(over)
        borders.append(border)
        generic.append(origin.rates.origin == "fraction")
    return Chosen(
        freeze({name: np.array(column)[:, None] for name, column in columns.items()}),
        freeze(np.array(peaks)[:, None]),
        freeze(np.array(bandwidths)[:, None]),
        freeze(np.array(quantiles)),
        freeze(np.array(large)),
        freeze(np.array(borders)[:, None]),
        freeze(np.array(generic)),
        tuple(stand_ins),
    )


def choose_each(
    family: Family, op: Op, shape: tuple[int, ...], record: CalibrationRecord, hardware: Hardware, *, steps: frozenset[str] = STEPS
) -> Chosen:
    """Return the constants of kernels that are counted together as arrays of some shape: one row for all, or, where they differ in what a record may have constants by, one for each."""
    ops, place = each_shape(family, op, shape)
    return choose(family, ops, record, hardware, steps=steps).take(place)


def _unpacking_share(op: Op, record: CalibrationRecord, machine: Hardware) -> float:
    """Return the share of the bandwidth at which a machine unpacks weights whose scales are packed; infinite where nothing limits it.

    Machines without matrix units unpack them on those that multiply.
    """
    if record.unpacking_flops is None or not op.stored or op.family not in _UNPACKING or machine.compute.has_matrix_units:
        return np.inf
    stored = Format.load(op.stored)
    if not stored.has_packed_scales:
        return np.inf
    weights_per_s = machine.peak(op.operand).value / record.unpacking_flops.value
    return weights_per_s * float(stored.bits) / 8 / machine.memory_bandwidth


def _as_computed(op: Op, machine: Hardware) -> Op:
    """Return an operator as a machine computes it: fp8 in bf16 where it has no matrix units for fp8, at the share of that peak."""
    return replace(op, operand="bf16") if op.operand == "fp8" and machine.compute.matrix_flops_per_s.fp8 is None else op


def _label(stored: str, operand: str) -> str:
    return f"{stored} in {operand}" if stored and stored != operand else operand


def _stand_in(op: Op, found: KernelClass, record: CalibrationRecord, *, own: bool) -> str:
    """Return whose constants an operator is timed with, if not those of the record's own class of such kernels; else nothing."""
    got = _label(found.stored, found.operand)
    of = f" of {got}" if _differs(op, found) else ""
    of += f" of {found.taken_from}" if found.taken_from else ""
    kinds = sorted(frozenset().union(*(c.steps for c in record.classes if c.family == op.family and _label(c.stored, c.operand) == got)))
    missing = f"in {record.id} for {kinds[0]} steps alone" if len(kinds) == 1 and not own else f"not in {record.id}"
    text = f"constants{of}" if own and of else "" if own else f"{missing}, generic constants{of}"
    return f"{op.family} {_label(op.stored, op.operand)}: {text}" if text else ""


def wider_residuals(own: tuple[float, ...], general: tuple[float, ...]) -> tuple[float, ...]:
    """Return the residuals of a class, at least as wide as those of a more general one; the median stays its own."""
    pairs = zip(PERCENTILES, own, general, strict=True)
    return tuple(mine if percent == 50 else (min if percent < 50 else max)(mine, other) for percent, mine, other in pairs)


def _differs(op: Op, found: KernelClass) -> bool:
    """Return whether a class is of another format than an operator's."""
    return found.operand != op.operand or found.stored not in ("", op.stored)


def _links(op: Op, machine: Hardware) -> str:
    """Return ``"host"`` for a collective whose devices reach each other over host links; else nothing."""
    if op.kind != "collective":
        return ""
    link, beyond = machine.exit_ceilings
    over_host = machine.scale_up is None if not _outside(op) else beyond is not None and beyond is machine.host_ceiling
    return HOST if over_host and link is not None else ""


def _peers(op: Op, links: str, machine: Hardware) -> str:
    """Return a warning of collectives over host links between devices without peer access: no class is of such."""
    if not links or machine.host_link is None or machine.host_link.peer_access is not False:
        return ""
    return f"{op.family} over {machine.host_link.link or 'host links'}: constants of devices with peer access; these have none, and may take longer"


def _nearest(record: CalibrationRecord, op: Op, steps: frozenset[str], *, static: bool = False, links: str = "") -> KernelClass | None:
    kernel = "norm" if op.kind == "normalization" else "residual"  # calibrated machines have these two apart

    def distance(found: KernelClass) -> tuple[float, float, bool, bool, str]:
        own = found.stored or found.operand  # the generic classes hold for every stored format
        other = found.fixed_sizes.get("kernel", kernel) != kernel or found.fixed_sizes.get("links", "") != links
        return _apart(found.operand, op.operand), _apart(own, op.stored), other, found.static_scales != static, own

    fitted = (c for c in record.classes if c.family == op.family and c.constants and (steps <= c.steps or not c.steps))
    return min(fitted, key=distance, default=None)


def steps_of(op: Op) -> frozenset[str]:
    """Return of which kinds of step counted kernels are: those with one new token of each sequence are of decode steps.

    Kernels that do not know sequences, such as products, may be of either.
    """
    if not np.any(op.sequences):
        return STEPS
    decode = np.equal(op.rows, op.sequences)
    return frozenset(kind for kind, some in (("decode", decode.any()), ("prefill", not decode.all())) if some)


@cache
def _apart(one: str, other: str) -> float:
    """Return by how many powers of two the widths of two formats differ; a little where only the names do, less where only scales do."""
    if one == other:
        return 0.0
    if not one or not other:  # nothing is stored, or nothing multiplied
        return np.inf
    widths = [OPERANDS[name] if name in OPERANDS else float(Format.load(name).bits) for name in (one, other)]
    apart = abs(float(np.log2(widths[0] / widths[1])))
    return 0.005 * (1 + apart) if one.partition("_")[0] == other.partition("_")[0] else 0.01 + apart


def _values(
    family: Family, found: KernelClass, record: CalibrationRecord, op: Op, tables: dict[int, ShapeTable]
) -> tuple[dict[str, float], KernelClass | Shapes]:
    """Return the constants of an operator and the fit whose residuals they have, after checking them against the form.

    What of shapes is an array is kept in `tables`, by the class.
    """
    where = f"calibration record {record.id}, {family.name} {_label(found.stored, found.operand)}"
    if len(found.residual_quantiles) != len(PERCENTILES):
        raise CalibrationError(f"{where}: has constants but no residual_quantiles, so its interval is not known.")
    if found.shapes is not None and (takes_near(family, found.shapes) or has_shape(family, op, found.shapes)):
        if id(found) not in tables:
            tables[id(found)] = shape_table(family, found.shapes, where)
        return shape_values(family, found, found.shapes, op, tables[id(found)])
    known = {c.name: c for c in family.constants}
    for name, constant in found.constants.items():
        if name not in known:
            raise CalibrationError(f"{where}: unknown constant {name!r}; this form has {', '.join(known)}. Fit it again with this version.")
        form = known[name]
        if constant.unit != form.unit:
            raise CalibrationError(f"{where}: {name} is in {constant.unit!r}; it must be in {form.unit!r}.")
        if not form.least * (1 - ROUNDED) <= constant.value <= form.most * (1 + ROUNDED):
            raise CalibrationError(f"{where}: {name} is {constant.value:g}; it must lie in {form.least:g} … {form.most:g} {form.unit}.")
    missing = [c.name for c in family.constants if c.name not in found.constants and c.neutral is None]
    if missing:
        raise CalibrationError(f"{where}: has no {', '.join(missing)}. Fit it again with this version.")
    values = {c.name: found.constants[c.name].value if c.name in found.constants else float(c.neutral or 0.0) for c in family.constants}
    return values, found


def _by_size(
    family: Family, found: KernelClass, fit: KernelClass | Shapes, record: CalibrationRecord, steps: frozenset[str]
) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Return the quantiles of residuals of small and of large kernels and the border between, in some kinds of step.

    Of one kind alone, if it has its own; and the same twice, with no border, where it has none by size.
    """
    kind = next(iter(steps)) if len(steps) == 1 else ""
    every, by_size = fit.step_quantiles.get(kind, fit.residual_quantiles), fit.size_quantiles
    if by_size is None or kind not in by_size.small:
        return every, every, np.inf
    known = family.size.name if family.size else "none"
    if by_size.size != known:
        where = f"calibration record {record.id}, {family.name} {_label(found.stored, found.operand)}"
        raise CalibrationError(
            f"{where}: size_quantiles are by {by_size.size}, and this form's by {known}. Fit it again with this version."
        )
    return by_size.small[kind], by_size.large[kind], by_size.border


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
