"""`roofline hardware`: the machines that are known, and one of them with every figure and its source."""

from collections.abc import Iterator
from math import isfinite
from typing import Annotated, Any

from roofline.cli import options as given
from roofline.cli.machines import find_machine
from roofline.cli.printing import Column, show, show_csv, show_json, show_table
from roofline.cli.reading import Given
from roofline.formats import OPERANDS
from roofline.hardware import Hardware
from roofline.hardware.measured import sisters
from roofline.provenance import EVIDENCE
from roofline.records.store import shipped_records
from roofline.units import show_bytes, show_rate, show_time

_COLUMNS = (
    Column("id", right=False),
    Column("name", right=False, rank=5),
    Column("bf16 FLOP/s", rank=1),
    Column("memory", rank=3),
    Column("bandwidth", rank=2),
    Column("FLOP/B", rank=4),
)
_UNITS = {
    "_flops_per_s": "FLOP/s",
    "_bytes_per_s": "B/s",
    "_bytes": "B",
    "_hz": "Hz",
    "_w": "W",
    "_s": "s",
}


def hardware(
    name: Annotated[str | None, Given("Show this machine in full: a name, a spec file, or a calibration record.", positional=True)] = None,
    json: given.Json = False,
    csv: given.Csv = False,
) -> None:
    """List the machines that are known, or show one with the source of every figure."""
    machines = [Hardware.load(known) for known in Hardware.list()] if name is None else [find_machine(name)]
    if json:
        data = [_stated(machine.to_dict()) for machine in machines]
        show_json(data if name is None else data[0])
    elif csv:
        show_csv([dict(_flat(_stated(machine.to_dict()))) for machine in machines])
    elif name is None:
        show_table(_COLUMNS, map(_row, machines))
    else:
        show("\n".join(_lines(machines[0])))


def _row(machine: Hardware) -> tuple[str, ...]:
    peak = machine.peak("bf16").value
    size = "" if machine.memory_capacity is None else show_bytes(machine.memory_capacity)
    rate, ridge = (show_rate(peak, "FLOP/s"), f"{machine.ridge('bf16'):.0f}") if peak != float("inf") else ("", "")
    return machine.id, machine.name, rate, size, show_rate(machine.memory_bandwidth, "B/s"), ridge


def _lines(machine: Hardware) -> Iterator[str]:
    """Write a machine section by section."""
    yield str(machine)
    plain = _stated(machine.to_dict())
    for name in ("vendor", "architecture", "year", "unit", "aliases", "nodes"):
        if plain.get(name):
            yield f"  {name}: {_written(name, plain[name])}"
    for section, figures in plain.items():
        if isinstance(figures, dict):
            yield f"  {section.replace('_', ' ')}:"
            yield from (f"    {_label(n)}: {_written(n, v)}" for n, v in figures.items() if n not in ("source", "evidence", "note") and v)
            yield f"    source: {figures.get('source')} ({EVIDENCE[figures['evidence']]})"
            yield from ([f"    note: {figures['note']}"] if figures.get("note") else [])
    limits = {operand: machine.ceiling(operand) for operand in OPERANDS}
    known = [
        f"{operand} {show_rate(c.value, c.unit)}{'' if c.proven else ' (unproven)'}" for operand, c in limits.items() if isfinite(c.value)
    ]
    yield f"  floors divide by: {', '.join(known) or 'no compute peak is known'}"
    yield from (f"  note: {note}" for note in [*machine.notes, *([machine.alias_note] if machine.alias_note else [])])
    records = [machine.calibration.id] if machine.calibration else shipped_records(machine.id)
    sister = next(sisters(machine, Hardware.load), None) if not records else None
    instead = f"none is shipped; estimates use {f'those of {sister}, a sister chip' if sister else 'generic constants'}"
    yield f"  calibration: {', '.join(records) or instead}"


def _label(name: str) -> str:
    for suffix in _UNITS:
        name = name.removesuffix(suffix)
    return name.replace("_flops_per_s_", " ").replace("_", " ")


def _written(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_written(name, v)}" for key, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix) or f"{suffix}_" in name), "")
    if not unit or isinstance(value, str):
        return str(value)
    return show_time(value) if unit == "s" else show_rate(value, unit)


def _flat(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested figures under dotted names, as a spec file has them."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{before}{name}.")
        else:
            yield before + name, "; ".join(map(str, inner)) if isinstance(inner, (list, tuple)) else inner


def _stated(value: Any) -> Any:
    """Leave out what a spec does not state."""
    return {name: _stated(v) for name, v in value.items() if v is not None} if isinstance(value, dict) else value
