"""Checks of what workloads, promises and times are given."""

from math import inf, nan
from typing import Any, TypeVar

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.units import check_count, whole_number

Kind = TypeVar("Kind")

_MOST = 100_000_000  # requests


def positive(name: str, value: Any, unit: str, *, or_zero: bool = False) -> float:
    """Return a positive finite number, or raise."""
    number = _number(value)
    if not (0 < number < inf or (or_zero and number == 0)):
        allowed = "a finite number of at least 0" if or_zero else "a positive finite number"
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be {allowed}{f' in {unit}' if unit else ''}.")
    return number


def share(name: str, value: Any) -> float:
    """Return a share between 0 and 1, neither included, or raise."""
    if not 0 < (number := _number(value)) < 1:
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be a share between 0 and 1, as 0.99.")
    return number


def span(start_s: Any, end_s: Any) -> tuple[float, float]:
    """Return the ends of an interval of time, which may be infinite, or raise."""
    start, end = _number(start_s), _number(end_s)
    if not start < end:
        raise InvalidValueError(
            f"start_s is {quoted(start_s)} and end_s is {quoted(end_s)}; they must be numbers in s, the beginning first."
        )
    return start, end


def kind(name: str, value: Any, wanted: type[Kind]) -> Kind:
    """Return an object of a class, or raise."""
    if not isinstance(value, wanted):
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be of type {wanted.__name__}.")
    return value


def _number(value: Any) -> float:
    """Return a number as a float; what is none is not a number."""
    try:
        return float(value) if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) else nan
    except (OverflowError, TypeError):
        return nan


def request_count(name: str, value: Any) -> int:
    """Return a number of requests, or raise."""
    if (count := whole_number(name, value, minimum=1)) > _MOST:
        raise InvalidValueError(f"{name} is {count:,}; a workload has {_MOST:,} requests at most.")
    return count


def column(name: str, value: Any, count: int | None = None, *, unknown: bool = False) -> np.ndarray:
    """Return a new array of one float for each request, or raise; what is not a number is refused unless it may be unknown."""
    try:
        given = np.asarray(value)
    except ValueError:  # ragged
        given = np.asarray(None)
    if given.dtype.kind not in "iuf":
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be an array of numbers, one for each request.")
    given = given.astype(float)
    if given.ndim != 1 or (count is not None and given.size != count):
        shape = f"of {given.size}" if given.ndim == 1 else f"with {given.ndim} axes"
        raise InvalidValueError(
            f"{name} is an array {shape}; it must hold one number for each{'' if count is None else f' of {count}'} requests."
        )
    if not (np.isfinite(given) | (unknown & np.isnan(given))).all():
        first = int(np.flatnonzero(~np.isfinite(given))[0])
        raise InvalidValueError(f"{name} contains {given[first]:g}, of request {first}; all must be finite.")
    return given


def tokens(name: str, value: Any, count: int) -> np.ndarray:
    """Return lengths of prompts or answers, one for each request, or raise."""
    if not np.size(value):
        raise InvalidValueError(f"{name} is empty; a workload has at least one request.")
    given = np.asarray(check_count(name, value, minimum=1))
    if given.ndim > 1 or given.size not in (1, count):
        shape = f"of {given.size}" if given.ndim == 1 else f"with {given.ndim} axes"
        raise InvalidValueError(f"{name} is an array {shape}; it must hold one length for each of {count} requests.")
    return np.broadcast_to(given, (count,)).astype(np.int64)


def check_order(arrival_s: np.ndarray) -> None:
    """Raise if a request arrives before time 0, or before the one in front of it."""
    if (arrival_s < 0).any():
        raise InvalidValueError(f"arrival_s contains {arrival_s.min():g}; it must be at least 0 s.")
    if (early := np.flatnonzero(np.diff(arrival_s) < 0)).size:
        i = int(early[0]) + 1
        raise InvalidValueError(
            f"requests are not in the order of their arrivals: request {i} arrives at {arrival_s[i]:g} s, request {i - 1} at {arrival_s[i - 1]:g} s; sort them by time."
        )


def predecessors(value: Any, count: int) -> np.ndarray:
    """Return which request each comes after, or raise; only an earlier one can be."""
    after = column("after", value, count)
    wrong = np.flatnonzero((after != np.floor(after)) | (after < -1) | (after >= np.arange(count)))
    if wrong.size:
        i = int(wrong[0])
        raise InvalidValueError(f"after of request {i} is {after[i]:g}; it must be the index of an earlier request, 0 … {i - 1}, or -1." if i else
                                f"after of request 0 is {after[0]:g}; it must be -1: no request is earlier.")  # fmt: skip
    return after.astype(np.int64)


def check_blocks(value: Any, lengths: np.ndarray, size: int) -> tuple[tuple[int, ...], ...]:
    """Return the ids of the full blocks of each request, or raise."""
    try:
        blocks = tuple(map(tuple, value))
    except TypeError:
        blocks = ()
    if len(blocks) != lengths.size:
        raise InvalidValueError(f"blocks are {quoted(value)}; they must be a sequence of ids for each of {lengths.size} requests.")
    long = np.flatnonzero(np.fromiter(map(len, blocks), int, len(blocks)) * size > lengths)
    if long.size:
        i = int(long[0])
        raise InvalidValueError(
            f"blocks of request {i} are {len(blocks[i])} of {size} tokens, and prompt and answer have {lengths[i]} tokens; full blocks alone have ids."
        )
    return blocks
