"""What the reader of a table of steps must know: columns that may mean something else, rates beside times, what was taken for what is not said."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from roofline.deployment import Deployment
from roofline.errors import InvalidValueError, quoted
from roofline.hardware import Hardware
from roofline.kernel_tables.columns import Columns, as_numbers, show_names
from roofline.model import Model
from roofline.names import normalize_name
from roofline.units import show_time

_ALIKE = 0.1  # by how much a rate and a time of one step may differ: rounding, and what a client does in between
_OF_REQUESTS = {"latency", "duration", "elapsed"}
_SHOWN = 5


def need_batch(table: Columns, unread: Sequence[str]) -> None:
    """Raise if a table of decode steps has no column of the batch, and columns of numbers that may be it."""
    numbers = [name for name in unread if np.isfinite(as_numbers(table[name])).any()]
    if numbers:
        raise InvalidValueError(
            f"no column is read as batch, and {show_names(numbers)} {'is' if len(numbers) == 1 else 'are'} not understood: "
            f"columns={{{quoted(numbers[0])}: 'batch'}} says which it is, ignore= leaves columns out, and then batch is 1."
        )


def meanings(timed: str, batch: str | None, *, rate: bool, several: bool) -> list[str]:
    """Return sentences on columns that often are something else than they are read as."""
    notes = []
    if batch is not None and "concurren" in normalize_name(batch):
        notes.append(f"column {quoted(batch)} is read as sequences of a step; requests in flight that wait are in no step")
    if rate and several:
        notes.append(f"column {quoted(timed)} is read as tokens a second of all sequences together, not of one")
    words = set(re.findall(r"[a-z0-9]+", timed.lower()))
    if words & _OF_REQUESTS and not words & {"step", "token", "decode", "tpot", "itl", "prefill", "ttft"}:
        notes.append(f"column {quoted(timed)} is read as the time of a step, not of a request")
    return notes


def beside_rate(
    names: tuple[str, str], rate: np.ndarray, seconds: np.ndarray, tokens: np.ndarray, batch: np.ndarray, places: np.ndarray
) -> str:
    """Return a sentence if a column of tokens a second contradicts that of times, which is used; empty otherwise."""
    told, timed = names
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = rate * seconds / tokens
        off = np.isfinite(ratio) & (np.abs(ratio - 1) > _ALIKE)
        each = np.abs(ratio * batch - 1) <= _ALIKE
    if not off.any():
        return ""
    if each[off].all():
        return f"column {quoted(told)} is of one sequence: times the batch it agrees with {quoted(timed)}"
    i = int(np.flatnonzero(off)[0])
    return (
        f"columns {quoted(told)} and {quoted(timed)} contradict each other in {rows_named(places[off])}: {tokens[i]:,.0f} "
        f"token{'s' * int(tokens[i] != 1)} in {show_time(float(seconds[i]))} are {tokens[i] / seconds[i]:,.4g} a second, not {rate[i]:,.4g}; the time is used"
    )


def rows_named(places: np.ndarray) -> str:
    """Return rows by their numbers in a table, the first few of many."""
    shown = ", ".join(str(place + 1) for place in places[:_SHOWN])
    return f"row {shown}" if places.size == 1 else f"rows {shown}{f' and {places.size - _SHOWN} more' * (places.size > _SHOWN)}"


def overridden(
    own: Mapping[str, Any], read: Mapping[str, str], named: tuple[Any, Any], options: Mapping[str, Any], deployment: Deployment
) -> list[str]:
    """Return sentences on cells that say something else than the keyword of the same; cells are used."""
    model, machine = named
    if isinstance(model, Deployment):
        machine, options, model = machine or model.machine, {**model.options, **options}, model.model
    notes = []
    for name, value in own.items():
        given = {"model": model, "hardware": machine}.get(name, options.get(name))
        if value is None or given is None:
            continue
        if name == "hardware":
            same = (given if isinstance(given, Hardware) else Hardware.load(given)).id == deployment.machine.id
        elif name == "model":
            same = (given if isinstance(given, Model) else Model.load(given)).parameters == deployment.model.parameters
        else:
            same = normalize_name(str(given)) == normalize_name(str(value))
        if not same:
            column = next(column for column, what in read.items() if what == name)
            said = quoted(given if isinstance(given, (str, int, float)) else given.name)
            notes.append(f"contradiction: column {quoted(column)} says {quoted(value)}, and {name}= says {said}; the column is used")
    return notes
