"""Checks of what workloads, promises and times are given."""

from math import inf
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.units import check_count


def positive(name: str, value: Any, unit: str, *, or_zero: bool = False) -> float:
    """Return a positive finite number, or raise."""
    kind = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not kind or not (0 < value < inf or (or_zero and value == 0)):
        allowed = "a finite number of at least 0" if or_zero else "a positive finite number"
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be {allowed}{f' in {unit}' if unit else ''}.")
    return float(value)


def share(name: str, value: Any) -> float:
    """Return a share between 0 and 1, neither included, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < 1:
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be a share between 0 and 1, as 0.99.")
    return float(value)


def column(name: str, value: Any, count: int | None = None, *, unknown: bool = False) -> np.ndarray:
    """Return a new array of one float for each request, or raise; what is not a number is refused unless it may be unknown."""
    try:
        given = np.array(value, dtype=float)
    except (TypeError, ValueError):
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be an array of numbers, one for each request.") from None
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
