"""Columns of measured times, whose unit is in the name."""

import re
from collections.abc import Iterable

from roofline.errors import InvalidValueError, quoted
from roofline.kernel_tables.columns import show_names
from roofline.kernels.kind import words
from roofline.names import nearest_names

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Units of time that a table may be in, and how many of each are a second [-]."""

_UNIT_NAMES = {
    name: unit
    for unit, names in {
        "s": "s sec secs second seconds",
        "ms": "ms msec msecs millis millisecond milliseconds",
        "us": "us µs μs usec usecs micros microsecond microseconds",
        "ns": "ns nsec nsecs nanos nanosecond nanoseconds",
    }.items()
    for name in names.split()
}
_TIMES = {"time", "latency", "duration", "elapsed", "runtime", "t"}
_QUALIFIERS = frozenset(
    words("median mean avg average min p50 measured kernel gpu cuda cpu device wall in fwd forward exec execution total per call")
)
_WORD = re.compile(r"[^\W_]+")


def time_unit(name: str) -> str | None:
    """Return the unit in the name of a column of times, ``""`` if it names none, None if it is no column of times.

    Examples
    --------
    >>> time_unit("Latency (ms)"), time_unit("duration"), time_unit("p99_us"), time_unit("S")
    ('ms', '', None, None)
    """
    words = _WORD.findall(name.lower())
    if not words or name == "S":  # as sizes are written: B, H, S, D
        return None
    unit = _UNIT_NAMES.get(words[-1])
    rest = words[:-1] if unit else words
    if any(word not in _TIMES | _QUALIFIERS for word in rest):
        return None
    if unit:
        return unit
    return "" if _TIMES & set(rest) or words in (["median"], ["mean"]) else None


def ends_in_unit(name: str) -> bool:
    """Return whether a column is some other time, such as a deviation: its name ends in a unit.

    Examples
    --------
    >>> ends_in_unit("std_us"), ends_in_unit("heads")
    (True, False)
    """
    words = _WORD.findall(name.lower())
    return len(words) > 1 and words[-1] in _UNIT_NAMES


def is_total(name: str) -> bool:
    """Return whether a column of times is, by its name, the total of several calls.

    Examples
    --------
    >>> is_total("Total Time (ns)"), is_total("total_ms_per_call"), is_total("mean_us")
    (True, False, False)
    """
    words = _WORD.findall(name.lower())
    return "total" in words and "per" not in words


def find_times(names: Iterable[str], *, unit: str | None = None, time: str | None = None) -> tuple[str, str]:
    """Return the column of times, and its unit.

    Examples
    --------
    >>> find_times(["m", "latency_ms"])
    ('latency_ms', 'ms')
    """
    if unit is not None and unit not in (*UNITS, "µs", "μs"):
        raise InvalidValueError(f"unit is {quoted(unit)}; it must be one of {', '.join(UNITS)}.")
    name, named = _find_column(list(names), time)
    found = _UNIT_NAMES[unit] if unit else named
    if not found:
        example = name if len(name) < 30 else "time"
        raise InvalidValueError(f"column {quoted(name)} has no unit: call it {example}_ms or give unit='ms'; units are {', '.join(UNITS)}.")
    return name, found


def _find_column(names: list[str], time: str | None) -> tuple[str, str]:
    """Return the column of times and the unit in its name, empty if it has none."""
    if time is not None:
        if time not in names:
            near = nearest_names(time, names, most=2)
            raise InvalidValueError(
                f"the table has no column {quoted(time)}; {'nearest' if near else 'it has'}: {show_names(near or names)}."
            )
        return time, time_unit(time) or ""
    units = {name: unit for name in names if (unit := time_unit(name)) is not None}
    named = {name: unit for name, unit in units.items() if unit} or units
    if not named:
        raise InvalidValueError(f"the table has no column of times, such as seconds, latency_ms or time_us; it has: {show_names(names)}.")
    if len(named) > 1:
        raise InvalidValueError(
            f"columns {show_names(list(named))} could all be the measured time; choose one with time={quoted(next(iter(named)))}."
        )
    return next(iter(named.items()))
