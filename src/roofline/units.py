"""SI units: prefixes, the display of quantities, and the checks that catch a wrong unit.

Inside and out everything is seconds, bytes, FLOP, FLOP/s and bytes/s. Only the ``show_*`` functions
ever use a prefix, and GiB only stands where it is written GiB.
"""

import math
import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.frozen import freeze

MEGA, GIGA, TERA = 1e6, 1e9, 1e12

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SCALED = ("B", "B/s", "FLOP/s")  # units that a text may have a prefix before
_MOST = 2**53  # whole numbers up to here are exact in float64
_UNIT = re.compile(r"(?P<number>[0-9.]+(e[+-]?[0-9]+)?)\s*(?P<prefix>[kmgtpe]?)(?P<binary>i?)(?P<unit>b(/s)?|flops?(/s)?)?", re.IGNORECASE)
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def _scaled(value: float, unit: str) -> str:
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {unit}"
    factor, prefix = next((p for p in _PREFIXES if abs(value) >= p[0] * 0.9995), _PREFIXES[-1])
    return f"{value / factor:.4g} {prefix}{unit}"


def show_bytes(value: float) -> str:
    """Write a byte count with a decimal prefix.

    Examples
    --------
    >>> show_bytes(327680)
    '327.7 kB'
    """
    return _scaled(value, "B")


def show_flops(value: float) -> str:
    """Write a FLOP count with a decimal prefix.

    Examples
    --------
    >>> show_flops(1.4e11)
    '140 GFLOP'
    """
    return _scaled(value, "FLOP")


def show_rate(value: float, unit: str) -> str:
    """Write a rate with a decimal prefix.

    Examples
    --------
    >>> show_rate(3.35e12, "B/s")
    '3.35 TB/s'
    """
    return _scaled(value, unit)


def show_time(value: float) -> str:
    """Write a time in s, ms, µs or ns.

    Examples
    --------
    >>> show_time(70e9 * 2 / 3e12)
    '46.67 ms'
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g} s"
    factor, unit = next((t for t in _TIMES if abs(value) >= t[0] * 0.9995), _TIMES[-1])
    return f"{value / factor:.4g} {unit}"


def is_masked(value: Any) -> bool:
    """Return whether a value is an array of numpy.ma, which is not loaded for asking.

    Examples
    --------
    >>> is_masked(np.ones(2)), is_masked(np.ma.masked_less([1, 2], 2))
    (False, True)
    """
    return isinstance(value, np.ndarray) and type(value) is not np.ndarray and hasattr(value, "mask")


def check_unmasked(name: str, value: Any) -> None:
    """Raise InvalidValueError for an array with masked elements, whose masks formulas would drop."""
    if is_masked(value) and (masked := int(np.sum(value.mask))):
        raise InvalidValueError(
            f"{name} is a masked array, {masked} of {value.size} elements masked; give the others alone, as in {name}.compressed()."
        )


def check_count(name: str, value: Any, *, minimum: int = 0) -> Any:
    """Return a count (or array of counts) if it can be one, else raise.

    A count is a whole number, Python or numpy, at least `minimum`. Arrays come back as float64 so that
    no product of counts can overflow an integer type: whole numbers stay exact up to 2^53.

    Examples
    --------
    >>> check_count("batch", 8, minimum=1)
    8
    """
    if type(value) is int and minimum <= value <= _MOST:
        return value
    allowed = f"a whole number of at least {minimum} (at most 2^53)"
    if type(value) is int:
        raise InvalidValueError(
            f"{name} is {value if abs(value) < 10**18 else f'{len(str(abs(value)))} digits long'}; it must be {allowed}."
        )
    if isinstance(value, (bool, np.bool_, str, bytes)) or value is None:
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be {allowed}.")
    check_unmasked(name, value)
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be {allowed}, or an array of such.")
    array = array.astype(np.float64)
    if array.size == 0:
        raise InvalidValueError(f"{name} is an empty array; give at least one number: {allowed}.")
    bad = ~((array >= minimum) & (array <= _MOST) & (array == np.floor(array)))
    if bad.any():
        shown = array if array.ndim == 0 else array[bad].flat[0]
        raise InvalidValueError(f"{name} {'is' if array.ndim == 0 else 'contains'} {shown:g}; it must be {allowed}.")
    return int(array) if array.ndim == 0 else freeze(array)


def whole_number(name: str, value: Any, *, minimum: int = 0) -> int:
    """Return a single whole number, or raise.

    Examples
    --------
    >>> whole_number("page", 16)
    16
    """
    try:
        number = check_count(name, value, minimum=minimum)
    except InvalidValueError:
        number = None
    if isinstance(number, int):
        return number
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes)) and np.ndim(np.asarray(value, dtype=object)) > 0
    each = ": call once for each" if several else ""
    raise InvalidValueError(f"{name} is {quoted(value)}; it must be a single whole number of at least {minimum}{each}.")


def check_flag(name: str, value: Any) -> bool:
    """Return what is True or False as a bool, or raise.

    Examples
    --------
    >>> check_flag("gated", True)
    True
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise InvalidValueError(f"{name} is {quoted(value)}; it must be True or False.")


def check_amount(name: str, value: Any, unit: str) -> Any:
    """Return a number, or an array of numbers, that are not negative and not NaN, or raise [unit].

    Examples
    --------
    >>> check_amount("intensity", 2.5, "FLOP/B")
    2.5
    """
    check_unmasked(name, value)
    try:
        array = np.asarray(value)
        known = array.dtype.kind in "iuf" and array.size > 0 and bool((array >= 0).all())
    except (TypeError, ValueError):
        known = False
    if not known:
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be a number of at least 0 in {unit}, or an array of such.")
    return array if array.ndim and not isinstance(value, np.ndarray) else value


def read_quantity(text: str, unit: str) -> float | None:
    """Return the number that a text with a unit says, such as "2GB", "1.5 GiB" or "3.35 TB/s"; None if it says none [unit].

    Upper and lower case do not matter, but for "Gb", which means bits.

    Examples
    --------
    >>> read_quantity("1.5 GiB", "B"), read_quantity("3.35 TB/s", "B/s"), read_quantity("2", "B")
    (1610612736.0, 3350000000000.0, None)
    """
    found = _UNIT.fullmatch(text.strip())
    if found is None:
        return None
    prefix, binary = found["prefix"].upper(), bool(found["binary"])
    given = (found["unit"] or "").upper().removesuffix("S" if unit == "FLOP/s" else "").rstrip("/")
    bits = (found["unit"] or "").startswith("b") and found["prefix"].isupper() and not binary
    if bits or (binary and not prefix) or not (given or prefix) or given not in ("", unit.upper().removesuffix("/S"), unit.upper()):
        return None
    power = " KMGTPE".index(prefix or " ")
    try:
        return float(found["number"]) * float((1024 if binary else 1000) ** power)
    except ValueError:  # two points
        return None


def check_broadcast(**arrays: Any) -> None:
    """Raise if named numbers and arrays have shapes that do not go together."""
    shapes = [array.shape if type(array) is np.ndarray else np.shape(array) for array in arrays.values()]
    longest = max(shapes, key=len, default=())
    try:
        shape = longest if all(s == longest or not s for s in shapes) else np.broadcast_shapes(*shapes)
    except ValueError:
        named = ", ".join(f"{name} {shape}" for name, shape in zip(arrays, shapes, strict=True))
        raise InvalidValueError(f"these shapes do not broadcast together: {named}.") from None
    if shape:
        check_points(shape, " × ".join(name for name, array in arrays.items() if np.ndim(array)))


@cache
def _memory() -> float:
    """Return the memory of the machine that this runs on; infinite where the system does not say [B]."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def check_points(shape: tuple[int, ...], of: str) -> None:
    """Raise if the numbers of so many points cannot be held: a result has several for each, so one may take an eighth of the memory."""
    needed = 8 * math.prod(shape)
    if needed > _memory() / 8:
        raise InvalidValueError(
            f"{of} is a grid of {' × '.join(f'{size:,}' for size in shape)} points: one number for each takes {show_bytes(needed)}, and this "
            f"computer has {show_bytes(_memory())} in all; ask for parts of the grid."
        )


def check_rate(name: str, value: Any, unit: str, *, least: float, most: float, positive: bool = True) -> float:
    """Return a rate or capacity as a float if it is plausible in SI units, else raise; a text has its unit in it [unit].

    Examples
    --------
    >>> check_rate("memory_bandwidth", 3.35e12, "B/s", least=1e9, most=1e17)
    3350000000000.0
    """
    try:
        said = read_quantity(value, unit) if isinstance(value, str) else value
        number = float(said) if said is not None and not isinstance(said, (bool, bytes, np.ndarray)) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        allowed = f"a {'positive finite number' if positive else 'finite number of at least 0'}" + f" in {unit}" * (unit != "-")
        text = f', or text with its unit, like "2 G{unit}"' if unit in _SCALED else ""
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be {allowed}{text}.")
    if positive and not least <= number <= most:
        guess = next(
            (f"{number:g} {p}{unit} = {number * f:g} {unit}" for f, p in reversed(_PREFIXES) if least * 5 <= number * f <= most), ""
        )
        if unit == "-":
            raise InvalidValueError(f"{name} is {number:g}; it must lie in {least:g} … {most:g}.")
        raise InvalidValueError(
            f"{name} is {number:g} {unit}, outside {least:g} … {most:g} {unit}: "
            + (f"did you mean {guess}?" if number < least and guess else "is the unit right?")
        )
    return number
