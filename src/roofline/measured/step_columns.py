"""The columns of a table of steps: what each is, by its name, and its values row by row."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roofline.deployment.options import ALL, OPTIONS
from roofline.deployment.spelling import options_meant
from roofline.errors import InvalidValueError, quoted
from roofline.kernel_tables.columns import Columns, as_numbers, find_holes, number_values, read_columns, show_names, show_rows, text_values
from roofline.kernel_tables.times import UNITS, time_unit
from roofline.measured.step_notes import beside_rate, meanings, need_batch
from roofline.names import local_path, nearest_names, normalize_name

_LENGTHS = ("batch", "context", "prompt", "output", "cached")
_KNOWN = ("model", "hardware", *_LENGTHS, *ALL)
_PHASES = {"phase", "stage", "kind", "mode"}
_DECODE, _PREFILL = ("decode", "tpot", "itl", "generation", "tg"), ("prefill", "ttft", "prompt", "pp")
_STEP_WORDS = frozenset({*_DECODE, *_PREFILL, "step", "token", "output", "inter", "first", "to"})
_UNITLESS = {"step", "tpot", "itl", "ttft"}
_RATE = "tokens per second"
_RATES = {"tokenspers", "tokenspersec", "tokenspersecond", "toks", "tokspers", "ts", "tps"}
_WORD = re.compile(r"[^\W_]+")
_PARQUET = (".parquet", ".pq")
_TABLES = (".csv", ".tsv", *_PARQUET)
_BATCH = {"b", "nseq", "nseqs", "seqs"}  # what no option of an engine is called
_OTHERS = {normalize_name(name) for name in ("arrival_s", "sent_s", "first_token_s", "finish_s", "e2e_s", "n_prompt", "n_gen", "n_depth")}
_LONGEST_HEAD = 10_000


def is_table(source: Any) -> bool:
    """Return whether something is a table of steps: columns, rows, or a file of them that no benchmark wrote."""
    if isinstance(source, (str, os.PathLike)):
        path = local_path(source)
        return path.suffix.lower() in _TABLES and path.is_file() and (path.suffix.lower() in _PARQUET or _heads_steps(path))
    rows = isinstance(source, Sequence) and len(source) > 0 and all(isinstance(row, Mapping) for row in source)
    return rows or isinstance(source, Mapping) or hasattr(source, "columns") or hasattr(source, "column_names")


def _heads_steps(path: Path) -> bool:
    """Return whether the first line of a file names a time and what a step held, and not what single requests or llama-bench have."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        names = [name.strip().strip('"') for name in re.split(r"[,;|\t]", file.readline(_LONGEST_HEAD))]
    if {normalize_name(name) for name in names} & _OTHERS:
        return False
    meant = {normalize_name(known) for name in names for known in (name, *options_meant(name, _LENGTHS))}
    return bool(meant & set(_LENGTHS)) and any(
        time_unit(_plain(name)) is not None or _is_rate(name) or normalize_name(name) in _UNITLESS for name in names
    )


@dataclass(frozen=True, slots=True)
class StepRows:
    """What a table of steps says, row by row.

    Parameters
    ----------
    measured_s : numpy.ndarray
        Times [s].
    places : numpy.ndarray of int
        Where each row stands in the table, from 0; rows without a time are left out [-].
    decode : numpy.ndarray
        Whether each is a decode step; else a prefill [-].
    batch, context, prompt, cached : numpy.ndarray
        What each step holds; 0 where it has none [-].
    options : mapping of str to numpy.ndarray
        Model, machine and options of the deployment, as far as there are columns; None where a cell is empty [-].
    read : mapping of str to str
        What each column was read as [-].
    ignored : tuple of str
        Columns that are not understood [-].
    timeless : int
        Rows without a time [-].
    assumed : tuple of str
        What the table does not say, and what is taken instead [-].
    notes : tuple of str
        Columns that contradict each other, or may mean something else [-].
    """

    measured_s: np.ndarray
    places: np.ndarray
    decode: np.ndarray
    batch: np.ndarray
    context: np.ndarray
    prompt: np.ndarray
    cached: np.ndarray
    options: Mapping[str, np.ndarray]
    read: Mapping[str, str]
    ignored: tuple[str, ...]
    timeless: int
    assumed: tuple[str, ...]
    notes: tuple[str, ...]


def read_steps(source: Any, *, time: str | None, unit: str | None, columns: Mapping[str, str] | None, ignore: Sequence[str]) -> StepRows:
    """Return the rows of a table of steps."""
    table = read_columns(_as_columns(source), named="the table of steps")
    ignored = [ignore] if isinstance(ignore, str) else list(ignore)
    for name in (*ignored, *(columns or {})):
        if name not in table:
            raise InvalidValueError(f"the table has no column {quoted(name)}; it has: {show_names(list(table))}.")
    table = {name: column for name, column in table.items() if name not in ignored}
    timed, unit = _time_column(table, time, unit)
    found = _meanings([name for name in table if name != timed], columns or {})
    phase = next((name for name in table if normalize_name(name) in _PHASES and name not in found.values()), None)
    lengths = {what: _lengths(found[what], table[found[what]], least=what == "batch") for what in _LENGTHS if what in found}
    options = {what: _cells(what, name, table[name]) for what, name in found.items() if what not in _LENGTHS}
    timeless = find_holes(table[timed])
    if timeless.all():
        raise InvalidValueError(f"column {quoted(timed)} has no time in any row.")
    there = np.flatnonzero(~timeless)
    numbers = number_values(timed, table[timed], rows=~timeless)
    decode, context = _phases(timed, None if phase is None else (phase, table[phase]), lengths, found, there)
    read = {name: what for what, name in found.items()} | {timed: unit if unit == _RATE else f"time in {unit}"}
    read |= {} if phase is None else {phase: "phase"}
    zeros = np.zeros(timeless.size)
    batch, prompt, cached = (
        np.nan_to_num(lengths.get(n, zeros + d), nan=d)[there] for n, d in (("batch", 1.0), ("prompt", 0.0), ("cached", 0.0))
    )
    tokens = np.where(decode, batch, batch * (prompt - cached))
    measured_s = tokens / numbers if unit == _RATE else numbers / UNITS[unit]
    notes = meanings(timed, found.get("batch"), rate=unit == _RATE, several=bool((batch > 1).any()))
    for name in [name for name in table if name not in read and _is_rate(name)]:
        read[name] = f"{_RATE}, beside the time"
        notes.append(beside_rate((name, timed), as_numbers(table[name])[there], measured_s, tokens, batch, there))
    ignored = [name for name in table if name not in read]
    if "batch" not in found and decode.any():
        need_batch(table, ignored)
    return StepRows(
        measured_s=measured_s,
        places=there,
        decode=decode,
        batch=batch,
        context=context,
        prompt=prompt,
        cached=cached,
        options={what: cells[there] for what, cells in options.items()},
        read=read,
        ignored=tuple(ignored),
        timeless=int(timeless.sum()),
        assumed=() if "batch" in found else ("batch 1, since there is no column of it",),
        notes=tuple(filter(None, notes)),
    )


def _as_columns(source: Any) -> Any:
    """Return rows as columns, whatever keys each row has."""
    if not isinstance(source, Sequence) or isinstance(source, str):
        return source
    if (stray := next((row for row in source if not isinstance(row, Mapping)), None)) is not None:
        raise InvalidValueError(f"a table given as rows has a mapping of names to values in each, and {quoted(stray)} is none.")
    names = dict.fromkeys(name for row in source for name in row)
    return {str(name): np.array([row.get(name) for row in source], dtype=object) for name in names}


def _plain(name: str) -> str:
    """Return the name of a column of times without the words that say which step it is."""
    words = _WORD.findall(name.lower())
    rest = [word for word in words if word not in _STEP_WORDS]
    timed = len(rest) < len(words) and (rest or {"tpot", "itl", "ttft"} & set(words))
    return "_".join(["time", *rest]) if timed else name


def _is_rate(name: str) -> bool:
    """Return whether a column is of tokens a second, of all sequences together."""
    return "".join(word for word in _WORD.findall(name.lower()) if word not in _STEP_WORDS - {"token"}) in _RATES


def _time_column(table: Columns, time: str | None, unit: str | None) -> tuple[str, str]:
    """Return the column of times and its unit."""
    if time is not None and time not in table:
        near = nearest_names(time, table, most=2)
        raise InvalidValueError(
            f"the table has no column {quoted(time)}; {'nearest' if near else 'it has'}: {show_names(near or list(table))}."
        )
    units = {name: found for name in table if (found := time_unit(_plain(name))) is not None}
    named = {name: found for name, found in units.items() if found} or units
    rates = [name for name in table if _is_rate(name)]
    if time in rates or (time is None and not named and len(rates) == 1):
        return rates[0] if time is None else time, _RATE
    if time is None and len(named) != 1:
        if not named:
            if bare := next((name for name in table if normalize_name(name) in _UNITLESS), None):
                raise InvalidValueError(
                    f"column {quoted(bare)} has no unit: call it {bare[:30]}_ms, or give time={quoted(bare)} and unit='ms'."
                )
            raise InvalidValueError(
                f"the table has no column of times, such as ms, step_us or seconds, nor one of tokens_per_s; it has: {show_names(list(table))}."
            )
        raise InvalidValueError(
            f"columns {show_names(list(named))} could all be the measured time; choose one with time={quoted(next(iter(named)))}."
        )
    chosen = next(iter(named)) if time is None else time
    found = unit or units.get(chosen)
    if not found:
        raise InvalidValueError(
            f"column {quoted(chosen)} has no unit: call it {chosen[:30]}_ms or give unit='ms'; units are {', '.join(UNITS)}."
        )
    if found not in UNITS:
        raise InvalidValueError(f"unit is {quoted(found)}; it must be one of {', '.join(UNITS)}.")
    return chosen, found


def _meanings(names: Sequence[str], told: Mapping[str, str]) -> dict[str, str]:
    """Return the column that holds each thing, by what it is."""
    found: dict[str, str] = {}
    ours = {normalize_name(known): known for known in _KNOWN}
    for name in names:
        key = normalize_name(name)
        what = told.get(name) or ours.get(key) or next(iter(options_meant(name, _KNOWN)), "batch" if key in _BATCH else None)
        if what is not None and what not in _KNOWN:
            near = nearest_names(what, _KNOWN, most=3)
            raise InvalidValueError(
                f"columns reads {quoted(name)} as {quoted(what)}, which no step has; nearest: {', '.join(near) or ', '.join(_KNOWN[:7])}."
            )
        if what is None:
            continue
        if key.startswith("max") and name not in told:
            raise InvalidValueError(
                f"column {quoted(name)} is a limit, not what a step held: say ignore=[{quoted(name)}], or columns={{{quoted(name)}: {what!r}}} if it is."
            )
        if what in found:
            raise InvalidValueError(
                f"columns {quoted(found[what])} and {quoted(name)} are both read as {what}: ignore=[{quoted(name)}] leaves one out."
            )
        found[what] = name
    return found


def _lengths(name: str, column: np.ndarray, *, least: bool) -> np.ndarray:
    """Return whole numbers, not a number where a cell is empty."""
    holes = find_holes(column)
    values = np.full(column.shape, np.nan)
    if not holes.all():
        values[~holes] = number_values(name, column, least=int(least), rows=~holes)
    return values


def _cells(what: str, name: str, column: np.ndarray) -> np.ndarray:
    """Return names and options: text, or numbers where the option is one; None where a cell is empty."""
    holes, cells = find_holes(column), np.full(column.shape, None, dtype=object)
    kind = str if what in ("model", "hardware") else OPTIONS[what].value
    if kind is str:
        for i, text in enumerate(text_values(column)):
            cells[i] = text or None
        return cells
    numbers = as_numbers(column)
    bad = ~holes & ~(np.isfinite(numbers) & ((kind is float) | (numbers == np.floor(numbers))))
    if bad.any():
        raise InvalidValueError(
            f"column {quoted(name)} is read as {what}, a {'whole ' * (kind is int)}number; not so in {show_rows(bad, column)}."
        )
    for i in np.flatnonzero(~holes).tolist():
        cells[i] = kind(numbers[i])
    return cells


def _phases(
    timed: str, phase: tuple[str, np.ndarray] | None, lengths: Mapping[str, np.ndarray], found: Mapping[str, str], there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the rows with a time are decode steps, and the context of each."""
    empty = np.full(there.size, np.nan)
    context, prompt, output = (lengths[name][there] if name in lengths else empty for name in ("context", "prompt", "output"))
    has_context, has_prompt = ~np.isnan(context), ~np.isnan(prompt)
    words = set(_WORD.findall(timed.lower()))
    said = np.full(there.size, True if words & set(_DECODE) else False if words & set(_PREFILL) else None, dtype=object)
    if phase is not None:
        for i, text in enumerate(text_values(phase[1][there])):
            said[i] = _phase(phase[0], text, int(there[i]) + 1) if text else said[i]
    unsaid = np.array([value is None for value in said])
    both = unsaid & has_context & has_prompt
    if both.any():
        raise InvalidValueError(
            f"row {there[both][0] + 1} has a context ({quoted(found['context'])}) and a prompt ({quoted(found['prompt'])}): a column phase must say "
            "whether it is a decode or a prefill, or one of them be empty."
        )
    decode = np.where(unsaid, has_context | ~np.isnan(output), said).astype(bool)
    context = np.where(decode & ~has_context, prompt + output / 2, context)
    lacking = np.where(decode, np.isnan(context), ~has_prompt)
    if lacking.any():
        needs = "a decode step and has no context, or prompt and output" if decode[lacking][0] else "a prefill and has no prompt"
        if unsaid[lacking][0] and not decode[lacking][0]:
            needs = "no decode step, since it has no context, and no prefill, since it has no prompt"
        raise InvalidValueError(f"row {there[lacking][0] + 1} is {needs}; columns read: {', '.join(found) or 'none'}.")
    return decode, np.nan_to_num(np.where(decode, np.rint(context), 0.0))


def _phase(column: str, text: str, row: int) -> bool:
    """Return whether a cell says decode; else it must say prefill."""
    for decode, names in ((True, _DECODE), (False, _PREFILL)):
        if any(normalize_name(text).startswith(name) for name in names):
            return decode
    raise InvalidValueError(f"column {quoted(column)} says {quoted(text)} in row {row}; a step is decode or prefill.")
