"""Machines and calibration records: whether a record applies to a machine, and the spec of a machine made of a record."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from roofline.engines import ENGINES
from roofline.engines.load import find_engine
from roofline.errors import CalibrationError, UnknownNameError
from roofline.formats import OPERANDS
from roofline.hardware.datasheet import Datasheet
from roofline.hardware.load import SCHEMA_VERSION, spec_files
from roofline.hardware.rates import datasheet_rates
from roofline.records import CalibrationRecord, Condition, KernelClass, list_records, load_record
from roofline.records.store import shipped_records
from roofline.units import show_rate

_LEAST = 1e9  # FLOP/s or B/s: least rate that a spec accepts
_SAME = 0.01  # rates that differ by less are the same figure, rounded


def record_for(machine: str, source: Any = None) -> CalibrationRecord:
    """Return the record that a path, id, engine or None names for a machine."""
    engine = find_engine(source)
    if source is not None and engine is None:
        try:
            return load_record(source)
        except UnknownNameError as error:
            raise UnknownNameError(f"{str(error).removesuffix('.')}; of an engine, by its name: {', '.join(ENGINES)}.") from None
    for record in shipped_records(machine, engine or ""):
        return load_record(record)
    of = f"{ENGINES[engine]} on {machine}" if engine else machine
    machines = {load_record(i).hardware for i in list_records() if not engine or f"-{engine}-" in i} - {""}
    raise CalibrationError(
        f"no calibration record of {of} is shipped; there are those of {', '.join(sorted(machines)) or 'no machine'}. Name one by its path, "
        "or measure one with 'roofline calibrate'."
    )


Load = Callable[[str], Datasheet]


def sister_record(machine: Datasheet, source: Any, load: Load) -> CalibrationRecord:
    """Return a record for a machine: its own, or a sister's with shares of this machine's rates, which the record then says."""
    record = _own_or_sisters(machine, source, load)
    if record.rates.origin == "fraction" or record.hardware == machine.id or not _are_sisters(record, machine, load):
        return record
    theirs = load(record.hardware)
    check_machine(record, theirs, load)
    said = (
        f"measured on {theirs.id}, a sister chip ({machine.architecture}): its shares are taken of the peaks and bandwidths of {machine.id}"
    )
    cut = _cut(machine, theirs)
    if cut > 1:
        said += f", whose units do 1/{cut:.3g} of its arithmetic per clock, so shares of peaks are as many times as large, at most 1"
    return record.model_copy(
        update={
            "hardware": machine.id,
            "classes": tuple(_of_cut_units(one, cut) for one in record.classes) if cut > 1 else record.classes,
            "rates": datasheet_rates(machine, OPERANDS),
            "conditions": (*record.conditions, Condition(code="sister", text=said)),
        }
    )


_SOLD_FASTER = 1.5
"""How many times the arithmetic of a unit in a clock differs at least between chips of which one is sold with slower matrix units [-]."""


def _cut(machine: Datasheet, sister: Datasheet) -> float:
    """Return how many times as much a unit of the sister computes in a clock, 1 where the units are alike or not known.

    Kernels reach a number of FLOP per unit and clock. Where the same chip is sold at half the rate, as GeForce is, they come nearer to it.
    """
    rates = []
    for one in (sister, machine):
        units = one.units
        if units is None or not units.count or not units.boost_clock_hz:
            return 1.0
        rates.append(one.peak("bf16").value / (units.count * units.boost_clock_hz))
    return rates[0] / rates[1] if rates[0] > _SOLD_FASTER * rates[1] else 1.0


def _of_cut_units(one: KernelClass, cut: float) -> KernelClass:
    """Return a class whose shares of the peak, its own and those of single shapes, are so many times as large, at most 1."""
    share, shapes = one.constants.get("compute_share"), one.shapes
    if share is None:
        return one
    ends = {name: min(1.0, cut * getattr(share, name)) for name in ("value", "low", "high")}
    changed: dict[str, Any] = {"constants": {**one.constants, "compute_share": share.model_copy(update=ends)}}
    if shapes is not None:
        column = tuple(min(1.0, cut * value) for value in shapes.constants["compute_share"])
        changed["shapes"] = shapes.model_copy(update={"constants": {**shapes.constants, "compute_share": column}})
    return one.model_copy(update=changed)


def _own_or_sisters(machine: Datasheet, source: Any, load: Load) -> CalibrationRecord:
    engine = find_engine(source)
    if (source is None or engine is not None) and not shipped_records(machine.id, engine or ""):
        return record_for(next(sisters(machine, load, engine or ""), machine.id), source)
    return record_for(machine.id, source)


def sisters(machine: Datasheet, load: Load, engine: str = "") -> Iterator[str]:
    """Yield the sister chips of a machine that records are shipped of, the one with the most similar ratio of peak to bandwidth first."""
    records = list_records()
    known = [load(i) for i in spec_files() if i != machine.id and any(r.startswith(f"{i}-{engine}") for r in records)]
    ridge = {other: math.log(other.peak("bf16").value / other.memory_bandwidth) for other in (machine, *known)}
    alike = (other for other in known if machine.architecture and other.architecture == machine.architecture)
    for other in sorted(alike, key=lambda other: abs(ridge[other] - ridge[machine])):
        if shipped_records(other.id, engine):
            yield other.id


def _are_sisters(record: CalibrationRecord, machine: Datasheet, load: Load) -> bool:
    return record.hardware in spec_files() and bool(machine.architecture) and load(record.hardware).architecture == machine.architecture


def _peaks(machine: Datasheet) -> dict[str, float]:
    return {f"{operand} peak": machine.peak(operand).value for operand in OPERANDS}


def check_machine(record: CalibrationRecord, owner: Datasheet, load: Load) -> None:
    """Raise CalibrationError unless a record applies to a machine.

    It does if it was measured on the machine and the machine's rates have not changed since, or if its shares are generic
    (``origin`` ``"fraction"``).
    """
    machine, rates = owner.id, {**_peaks(owner), "memory bandwidth": owner.memory_bandwidth}
    if record.rates.origin == "fraction" or machine == record.id:  # the latter: made of this very record
        return
    if record.hardware != machine:
        device = record.environment.device
        of = (
            f"{record.hardware} ({device})"
            if record.hardware
            else f"{device}, which has no spec: Hardware.from_record(...), or 'roofline estimate' with no machine named, makes a machine of it"
        )
        hint = ", a sister chip: calibrated(…, sister=True) takes its shares" if _are_sisters(record, owner, load) else ""
        raise CalibrationError(f"calibration record {record.id} cannot be used for {machine}; it was measured on {of}{hint}.")
    if record.rates.origin == "datasheet":
        stated = {f"{operand} peak": peak for operand, peak in record.rates.peak_flops_per_s.items()}
        for name, rate in {**stated, "memory bandwidth": record.rates.memory_bandwidth}.items():
            if rate is not None and not math.isclose(rate, rates[name], rel_tol=_SAME):
                unit = "B/s" if name == "memory bandwidth" else "FLOP/s"
                raise CalibrationError(
                    f"calibration record {record.id} has shares of {show_rate(rate, unit)} {name}, but this {machine} has "
                    f"{show_rate(rates[name], unit)}; fit it again with this spec."
                )


def describe_machine(record: CalibrationRecord) -> dict[str, Any]:
    """Return the spec of a machine made of the measured rates of a record."""
    rates, properties = record.rates, record.environment.properties
    if rates.origin != "measured":
        instead = f"use Hardware.load({record.hardware!r}).calibrated(...)" if record.hardware else "load a machine and use calibrated(...)"
        raise CalibrationError(f"the rates of calibration record {record.id} are not measured (origin {rates.origin!r}); {instead}.")
    if rates.memory_bandwidth is None and not record.complete:
        done = next((c.text for c in record.conditions if c.code == "unfinished"), "its rates are not known yet")
        raise CalibrationError(
            f"calibration record {record.id} is unfinished: {done}; run 'roofline calibrate' with this file again to finish it."
        )
    if rates.memory_bandwidth is None:
        raise CalibrationError(f"calibration record {record.id} has no memory bandwidth, so no machine can be made of it.")
    origin = {"source": f"calibration record {record.id}, {record.date}: {record.source}", "evidence": "M"}
    memory = {**origin, "bandwidth_bytes_per_s": rates.memory_bandwidth}
    if properties.get("memory_bytes") is not None:
        memory["capacity_bytes"] = properties["memory_bytes"]
    # no peak for a format slower than any spec may state: its products are converted to a faster one
    peaks = {operand: peak for operand, peak in rates.peak_flops_per_s.items() if peak >= _LEAST}
    spec: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "id": record.id,
        "name": record.environment.device or record.id,
        "notes": tuple(map(str, record.conditions)),
        "compute": {**origin, "matrix_flops_per_s": peaks},
        "memory": memory,
    }
    if properties.get("cache_bytes"):
        spec["cache"] = {**origin, "last_level_bytes": properties["cache_bytes"]}
    if rates.link_bandwidth is not None and rates.link_bandwidth >= _LEAST:
        spec["scale_up"] = {**origin, "link": "link as measured", "bandwidth_bytes_per_s": rates.link_bandwidth}
    return spec
