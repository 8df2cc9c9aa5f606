"""Numbers and units as profilers write them: separators of the locale, prefixes of units, n/a."""

import re
from collections.abc import Iterable

from roofline.errors import InvalidValueError, quoted

_NUMBER = re.compile(r"[+-]?(\d[\d.,'\u00a0\u202f ]*)(e[+-]?\d+)?", re.IGNORECASE)
_SPACES = re.compile(r"['\u00a0\u202f ]")
_UNIT = re.compile(r"([KMGTP]?)(byte|hz|inst|flop)s?$", re.IGNORECASE)
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_TIMES |= {f"{name}second": factor for name, factor in (("", 1.0), ("m", 1e-3), ("u", 1e-6), ("n", 1e-9))}


def factor_of(unit: str) -> float:
    """Return what a number in a unit is multiplied with to be in SI units; 1 for a unit that counts something.

    Examples
    --------
    >>> factor_of("Gbyte/s"), factor_of("usecond"), factor_of("%"), factor_of("register/thread")
    (1000000000.0, 1e-06, 0.01, 1.0)
    """
    above, _, below = unit.strip().partition("/")
    if above == "%":
        return 0.01
    factor = _TIMES.get(above.lower())
    if factor is None:
        found = _UNIT.fullmatch(above)
        factor = _PREFIXES[found[1].lower()] if found else 1.0
    return factor / _TIMES.get(below.lower(), 1.0) if below else factor


def decimal_sign(texts: Iterable[str]) -> str:
    """Return the sign before decimals, ``"."`` or ``","``, that all numbers of a report agree with.

    Raises
    ------
    InvalidValueError
        If they contradict each other, or every number that has a sign could be read either way.
    """
    votes: set[str] = set()
    doubtful = ""
    for text in texts:
        if not (found := _NUMBER.fullmatch(text.strip())):
            continue
        digits = _SPACES.sub("", found[1])
        signs = [sign for sign in digits if sign in ".,"]
        if len(set(signs)) == 2:
            votes.add(signs[-1])
        elif len(signs) > 1:
            votes.add("," if signs[0] == "." else ".")
        elif signs:
            whole, _, rest = digits.partition(signs[0])
            if len(rest) != 3 or len(whole) > 3 or whole in ("", "0"):
                votes.add(signs[0])
            else:
                doubtful = doubtful or text
    if len(votes) > 1:
        raise InvalidValueError("some of its numbers have decimals after a point and some after a comma.")
    if not votes and doubtful:
        raise InvalidValueError(
            f"{quoted(doubtful)} may have three decimals or be in thousands, and no other number tells: write the report again with LC_ALL=C."
        )
    return votes.pop() if votes else "."


def number(text: str, decimal: str) -> float | None:
    """Return a number with its separators of thousands, None where the text is none, such as ``"n/a"``.

    Examples
    --------
    >>> number("23,989,882,752.00", "."), number("27.595.520", ","), number("n/a", ".")
    (23989882752.0, 27595520.0, None)
    """
    if not (found := _NUMBER.fullmatch(text.strip())):
        return None
    digits = _SPACES.sub("", found[0]).replace("," if decimal == "." else ".", "").replace(decimal, ".")
    try:
        return float(digits)
    except ValueError:
        return None
