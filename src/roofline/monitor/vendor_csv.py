"""CSV of the vendors' own tools: ``nvidia-smi --query-gpu=… --format=csv`` and ``amd-smi metric --csv``."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from roofline.errors import InvalidValueError, quoted
from roofline.telemetry.nvml_queries import throttle_reasons
from roofline.telemetry.samples import DeviceSample, Kind, is_quantity

_UNITS = {"%": 1.0, "MiB": 2**20, "MB": 2**20, "W": 1.0, "MHz": 1e6, "C": 1.0}  # the MB of amd-smi are MiB
_VALUE = re.compile(r"(-?[\d.]+)\s*(%|MiB|MB|W|MHz|C)?")

# What a column is, and its unit where neither header nor cell says one.
_NVIDIA = {
    "utilization.gpu": ("busy", "%"),
    "utilization.memory": ("memory_busy", "%"),
    "memory.used": ("memory_used_bytes", "MiB"),
    "memory.total": ("memory_total_bytes", "MiB"),
    "power.draw": ("power_w", "W"),
    "power.draw.instant": ("power_w", "W"),
    "power.draw.average": ("power_w", "W"),
    "temperature.gpu": ("temperature_c", "C"),
    "clocks.sm": ("clock_hz", "MHz"),
    "clocks.current.sm": ("clock_hz", "MHz"),
    "clocks.mem": ("memory_clock_hz", "MHz"),
    "clocks.current.memory": ("memory_clock_hz", "MHz"),
}
_AMD = {
    "gfx_activity": ("busy", "%"),
    "umc_activity": ("memory_busy", "%"),
    "used_vram": ("memory_used_bytes", "MB"),
    "total_vram": ("memory_total_bytes", "MB"),
    "socket_power": ("power_w", "W"),
    "hotspot": ("temperature_c", "C"),
    "edge": ("temperature_c", "C"),  # where the hotspot is N/A
    "gfx_clk": ("clock_hz", "MHz"),
    "gfx_0_clk": ("clock_hz", "MHz"),
    "mem_clk": ("memory_clock_hz", "MHz"),
    "mem_0_clk": ("memory_clock_hz", "MHz"),
}
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")


@dataclass(frozen=True, slots=True)
class _Tool:
    """A tool that writes CSV: what its columns are."""

    name: str
    kind: Kind
    columns: Mapping[str, tuple[str, str]]
    index: str  # the column that numbers the devices
    time: Callable[[str], float]
    telling: tuple[str, str]  # columns by which it is known


def _local_time(text: str) -> float:
    stamp = text if "." in text else f"{text}.0"
    return datetime.strptime(stamp, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()


_TOOLS = (
    _Tool("nvidia-smi", "nvidia", _NVIDIA, "index", _local_time, ("utilization.gpu", "power.draw")),
    _Tool("amd-smi", "amd", _AMD, "gpu", float, ("gfx_activity", "socket_power")),
)
_NO_ZONE = "nvidia-smi writes local times without their zone; here they are taken as UTC, so only their differences count"


def read_csv(text: str, path: Any) -> tuple[str, list[DeviceSample], list[str]]:
    """Return the tool that wrote a text, its samples, and notes."""
    lines = text.splitlines()
    at, tool, header = _find_header(lines, path)
    names = [_plain(cell) for cell in header]
    units = dict(zip(names, map(_unit, header), strict=True))
    samples: list[DeviceSample] = []
    odd: list[tuple[int, str]] = []
    for number, line in enumerate(lines[at + 1 :], at + 2):
        cells = _cells(line)
        if not line.strip() or cells == header:  # a tool that is started again into the same file repeats it
            continue
        if len(cells) != len(header):
            odd.append((number, line))
            continue
        samples.append(_sample(tool, dict(zip(names, cells, strict=True)), units, f"{path}, line {number}"))
    if not samples:
        raise InvalidValueError(f"{path}: no sample follows the header of {tool.name}.")
    notes = [_NO_ZONE] if tool.kind == "nvidia" and "timestamp" in names else []
    notes += ["it has no timestamp column, so nothing is known of times and energy"] if "timestamp" not in names else []
    notes += [f"it has no column {tool.index}: all rows are taken for one GPU"] if tool.index not in names else []
    if odd:
        number, line = odd[0]
        notes.append(f"{len(odd)} lines are no rows of the table and are left out; the first, line {number}, is {quoted(line.strip())}")
    return tool.name, samples, notes


def _find_header(lines: Sequence[str], path: Any) -> tuple[int, _Tool, list[str]]:
    for at, line in enumerate(lines[:20]):  # messages may stand before it
        header = _cells(line)
        names = [_plain(cell) for cell in header]
        for tool in _TOOLS:
            if len(set(names) & set(tool.columns)) and set(names) & set(tool.telling):
                doubled = next((name for name in names if names.count(name) > 1), None)
                if doubled:
                    raise InvalidValueError(f"{path}: column {quoted(doubled)} is there twice.")
                return at, tool, header
    raise InvalidValueError(
        f"{path}: no recording that can be read: neither JSON lines of 'roofline monitor', nor CSV with the header of "
        f"'nvidia-smi --query-gpu=… --format=csv' (not noheader) or 'amd-smi metric --csv'; it begins {quoted(lines[0].strip())}."
    )


def _cells(line: str) -> list[str]:
    return [cell.strip() for row in csv.reader([line], skipinitialspace=True) for cell in row]


def _plain(heading: str) -> str:
    return re.sub(r"\s*\[.*\]$", "", heading).strip().lower()


def _unit(heading: str) -> str:
    found = re.search(r"\[(.*)\]$", heading)
    return found[1] if found else ""


def _sample(tool: _Tool, row: Mapping[str, str], units: Mapping[str, str], where: str) -> DeviceSample:
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for column, (quantity, usual) in tool.columns.items():
        if column not in row or quantity in found:
            continue
        value = _number(row[column], units[column] or usual, f"{where}: {column}")
        if value is not None and not is_quantity(quantity, value):
            raise InvalidValueError(f"{where}: {column} is {quoted(row[column])}, which it cannot be.")
        if value is None:
            missing.setdefault(quantity, row[column].strip("[]") or "empty")
        else:
            found[quantity] = value
            missing.pop(quantity, None)
    reasons = next((row[name] for name in _REASONS if name in row), "")
    return DeviceSample(
        device=f"gpu{row.get(tool.index, '0')}",
        kind=tool.kind,
        name=row.get("name") or None,
        time_s=_time(tool, row, where),
        throttle_reasons=throttle_reasons(int(reasons, 16)) if re.fullmatch(r"0x[0-9a-fA-F]+", reasons) else None,
        missing=missing,
        **found,
    )


def _time(tool: _Tool, row: Mapping[str, str], where: str) -> float | None:
    if "timestamp" not in row:
        return None
    try:
        return tool.time(row["timestamp"])
    except ValueError:
        raise InvalidValueError(f"{where}: timestamp is {quoted(row['timestamp'])}, which {tool.name} does not write.") from None


def _number(cell: str, unit: str, where: str) -> float | None:
    """Return a cell in SI units; None for [N/A], N/A, [Not Supported], [GPU is lost] and the like."""
    found = _VALUE.fullmatch(cell)
    if found is None:
        if not re.fullmatch(r"\[.*\]|N/A|", cell):
            raise InvalidValueError(f"{where} is {quoted(cell)}; it must be a number with its unit, or [N/A].")
        return None
    unit = found[2] or unit
    if unit not in _UNITS:
        raise InvalidValueError(f"{where} is in {quoted(unit)}, which is no unit that nvidia-smi or amd-smi writes.")
    try:
        value = float(found[1]) * _UNITS[unit]
    except ValueError:
        raise InvalidValueError(f"{where} is {quoted(cell)}; it must be a number with its unit, or [N/A].") from None
    return value / 100 if unit == "%" else value
