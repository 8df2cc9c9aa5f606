"""What a file of a client holds, key by key: numbers that are numbers, texts that say something, zeros that stand for nothing."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.measured.measurement import Definition, Latency, Weight, latency_of

_MOST = 1e30  # far over every time, rate and count
_NOTHING = ("", "none", "null", "n/a", "nan")


class Content:
    """One object of a file."""

    def __init__(self, data: Mapping[str, Any], name: str) -> None:
        self.data = data
        self.name = name  # what to call it in messages

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def wrong(self, key: str, allowed: str) -> InvalidValueError:
        """Return the error for a value that cannot be."""
        return InvalidValueError(f"{self.name}: {key} is {quoted(self.data.get(key))}; it must be {allowed}.")

    def number(self, *keys: str) -> float | None:
        """Return the number under the first of some keys that has one; metadata are texts, and a text may be a number."""
        for key in keys:
            value = self.data.get(key)
            if value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING):
                continue
            try:
                number = float("x" if isinstance(value, bool) else value)
            except (TypeError, ValueError, OverflowError):
                raise self.wrong(key, "a number") from None
            if number < 0 or _MOST < number < math.inf:
                raise self.wrong(key, f"a number of at least 0{f' and at most {_MOST:g}' * (number > 0)}")
            if not math.isnan(number):
                return number
        return None

    def positive(self, *keys: str) -> float | None:
        """Return the same where it is finite and more than 0: what 0 and infinity stand for is nothing."""
        found = (number for key in keys if (number := self.number(key)) and math.isfinite(number))
        return next(found, None)

    def count(self, *keys: str) -> int | None:
        """Return a whole number."""
        number = self.number(*keys)
        if number is None or math.isinf(number):
            return None
        if number != math.floor(number):
            raise self.wrong(next(key for key in keys if key in self), "a whole number")
        return int(number)

    def text(self, *keys: str) -> str | None:
        """Return the text under the first of some keys that has one."""
        texts = (value for key in keys if isinstance(value := self.data.get(key), str) and value.strip().lower() not in _NOTHING)
        return next(texts, None)

    def inner(self, key: str) -> "Content":
        """Return the object under a key, empty where there is none."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(key, "an object")
        return Content(value or {}, f"{self.name}: {key}")

    def objects(self, key: str) -> list["Content"]:
        """Return the objects of the list under a key."""
        values = self.data.get(key) or []
        if (
            isinstance(values, (str, Mapping))
            or not isinstance(values, Sequence)
            or not all(isinstance(value, Mapping) for value in values)
        ):
            raise self.wrong(key, "a list of objects")
        return [Content(value, f"{self.name}: {key}[{place}]") for place, value in enumerate(values)]

    def times(self, key: str) -> np.ndarray:
        """Return the positive numbers of the list under a key, none where there is no list [s]."""
        values = self.data.get(key)
        if not isinstance(values, Sequence) or isinstance(values, str):
            return np.zeros(0)
        try:
            numbers = np.array(values, dtype=float).ravel()
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(key, "a list of numbers") from None
        return np.asarray(numbers[np.isfinite(numbers) & (numbers > 0)])


def latency(
    content: Content,
    definition: Definition,
    weight: Weight,
    keys: Mapping[str, str],
    *,
    percentiles: Iterable[tuple[float, str]] = (),
    factor: float = 1.0,
    key: str = "",
) -> Latency | None:
    """Return a time of which statistics stand under some keys, None if they are absent or all 0.

    Parameters
    ----------
    content : Content
        The object that has them [-].
    definition, weight : str
        As for a `Latency` [-].
    keys : mapping of str to str
        Under which key the ``mean``, ``median`` and ``std`` stand [-].
    percentiles : iterable of (float, str)
        Percents, and their keys [-].
    factor : float
        What the file's numbers are multiplied with [-].
    key : str
        What the file calls it [-].
    """
    read = {name: content.number(theirs) for name, theirs in keys.items()}
    shares = {percent: value for percent, theirs in percentiles if (value := content.number(theirs)) is not None and math.isfinite(value)}
    if not any((read.get("mean"), read.get("median"), *shares.values())):
        return None
    scaled = {f"{name}_s": value * factor for name, value in read.items() if value is not None and math.isfinite(value)}
    return Latency(definition, weight, **scaled, percentiles={percent: value * factor for percent, value in shares.items()}, key=key)


def flat_latency(content: Content, name: str, definition: Definition, weight: Weight, *, ending: str = "_ms") -> Latency | None:
    """Return a time of a flat file: ``mean_ttft_ms``, ``median_ttft_ms``, ``std_ttft_ms``, ``p99_ttft_ms``, or the same in seconds."""
    whole = f"{name}{ending}"
    pattern = re.compile(rf"p(\d+(?:\.\d+)?)_{re.escape(whole)}")
    percents = [(float(found[1]), found[0]) for each in content if (found := pattern.fullmatch(each))]
    return latency(
        content,
        definition,
        weight,
        {each: f"{each}_{whole}" for each in ("mean", "median", "std")},
        percentiles=percents,
        factor=1e-3 if ending == "_ms" else 1.0,
        key=f"mean_{whole}" if f"mean_{whole}" in content else f"median_{whole}",
    )


def listed_latency(content: Content, key: str, definition: Definition, weight: Weight) -> Latency | None:
    """Return a time of which each value stands in a list, zeros of failed requests left out."""
    return latency_of(definition, weight, content.times(key), key)
