"""Requests as files hold them: traces, results of benchmark clients, rows of measurements; read into columns of one spelling."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import inf, isinf
from typing import Any, NamedTuple

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.names import local_path, nearest_names, normalize_name
from roofline.validation import read_text

# our name of a column: how files spell it. Of several that a file has, the first here is read.
_SPELLINGS = {
    "prompt": "prompt prompt_tokens ContextTokens input_length input_toks input_tokens input_len prompt_len num_prefill_tokens num_prompt_tokens "
    "request_tokens isl",
    "output": "output output_tokens GeneratedTokens output_length output_toks output_len num_decode_tokens num_output_tokens generated_tokens "
    "completion_tokens response_tokens osl",
    "arrival_s": "arrival_s arrived_at arrival_time timestamp start_time",
    "sent_s": "sent_s queued_ts",
    "start_s": "start_s scheduled_ts",
    "first_token_s": "first_token_s first_token_ts",
    "finish_s": "finish_s last_token_ts",
    "ttft_s": "ttft_s ttft",
    "e2e_s": "e2e_s latency",
    "gaps_s": "gaps_s itl",
    "cached": "cached cached_tokens num_cached_tokens",
    "preemptions": "preemptions num_preemptions",
    "replica": "replica",
    "priority": "priority",
    "blocks": "blocks hash_ids",
    "error": "error",
}
_OURS = {normalize_name(spelling): (ours, rank) for ours, text in _SPELLINGS.items() for rank, spelling in enumerate(text.split())}
# lists that the results of benchmark clients hold, one element for each request
_LISTS = {
    "input_lens": "prompt", "output_lens": "output", "start_times": "sent_s", "ttfts": "ttft_s", "itls": "gaps_s",
    "latencies": "e2e_s", "cached_tokens": "cached", "errors": "error",
}  # fmt: skip
_MOONCAKE = {"timestamp", "input_length", "output_length"}
_EPOCH = datetime(2020, 1, 1)  # near enough that a float has tenths of a microsecond


class Table(NamedTuple):
    """Columns by our names, and what to call where they come from."""

    columns: dict[str, list[Any]]
    source: str
    failed: int = 0  # requests without an answer, which are left out
    milliseconds: frozenset[str] = frozenset()  # columns that are in milliseconds
    duration_s: float | None = None  # of a run, as a benchmark client states it
    clients: int | None = None  # most requests under way at a time in that run


def read_table(source: Any, columns: Mapping[str, str] | None = None) -> Table:
    """Return the requests of a file, of rows, or of the result of a benchmark client."""
    if isinstance(source, (str, os.PathLike)):
        name = local_path(source).name
        content = _parse(read_text(source), name)
    else:
        name, content = "rows", source
    if isinstance(content, Mapping) and {"prompt", "output"} <= _spelled(list(content), columns or {}, name).keys():
        content = [content]  # JSON Lines of one request
    if isinstance(content, Mapping):
        run = {ours: content.get(theirs) for ours, theirs in (("duration_s", "duration"), ("clients", "max_concurrency"))}
        known: dict[str, Any] = {ours: value for ours, value in run.items() if isinstance(value, (int, float))}
        return _without_failed(_from_result(content, name), name)._replace(**known)
    rows = list(content) if isinstance(content, Iterable) else []
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise InvalidValueError(f"{name} holds no requests; give a CSV or JSON Lines file, or rows as mappings, one for each request.")
    spelled = _spelled(list(rows[0]), columns or {}, name)
    milliseconds = {ours for ours, theirs in spelled.items() if str(theirs).lower().endswith("_ms")}
    if set(rows[0]) >= _MOONCAKE:
        milliseconds.add("arrival_s")
    found = {ours: [row.get(theirs) for row in rows] for ours, theirs in spelled.items()}
    return _without_failed(found, name)._replace(milliseconds=frozenset(milliseconds))


def _parse(text: str, name: str) -> Any:
    """Return what a file holds: rows, or one object."""
    if text.lstrip()[:1] not in ("{", "["):
        return table_rows(text, name)
    try:
        return json.loads(text)
    except ValueError:
        pass
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise InvalidValueError(f"{name}: line {number} is no JSON.") from None
    if rows and isinstance(rows[0], Mapping) and _LISTS.keys() & rows[0].keys():
        raise InvalidValueError(f"{name} holds the results of {len(rows)} runs; give one of them, as json.loads returns its line.")
    return rows


def table_rows(text: str, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table of comma-separated values, by the names in its first line."""
    try:
        return list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise InvalidValueError(f"{name} is no table of comma-separated values: {str(error).partition(' - ')[0]}.") from None


def _spelled(theirs: Sequence[Any], given: Mapping[str, str], name: str) -> dict[str, str]:
    """Return which column of a file is which of ours."""
    for ours, spelling in given.items():
        if ours not in _SPELLINGS:
            raise InvalidValueError(
                f"columns has no {quoted(ours)}; it names {', '.join(nearest_names(str(ours), _SPELLINGS) or _SPELLINGS)}."
            )
        if spelling not in theirs:
            near = nearest_names(str(spelling), map(str, theirs)) or [str(each) for each in theirs]
            raise InvalidValueError(f"{name} has no column {quoted(spelling)}; it has {', '.join(near[:8])}.")
    ranked: dict[str, tuple[int, str]] = {}
    for spelling in theirs:
        ours, rank = _OURS.get(normalize_name(str(spelling).removesuffix("_ms")), ("", 0))
        if ours and ours not in given:
            ranked[ours] = min(ranked.get(ours, (rank, spelling)), (rank, spelling))
    return {ours: spelling for ours, (_, spelling) in ranked.items()} | dict(given)


def _from_result(content: Mapping[str, Any], name: str) -> dict[str, list[Any]]:
    found = {ours: list(content[theirs]) for theirs, ours in _LISTS.items() if isinstance(content.get(theirs), Sequence)}
    if "prompt" not in found or "output" not in found:
        raise InvalidValueError(
            f"{name} holds no lengths of single requests; run vllm bench serve with --save-detailed, or SGLang's benchmark with --output-details."
        )
    if len({len(values) for values in found.values()}) > 1:
        counts = ", ".join(f"{theirs} {len(found[ours])}" for theirs, ours in _LISTS.items() if ours in found)
        raise InvalidValueError(f"{name}: the lists of single requests have different lengths: {counts}.")
    return found


def _without_failed(found: dict[str, list[Any]], name: str) -> Table:
    """Leave out requests with an error, whose lengths and times say nothing."""
    errors = found.pop("error", None)
    if not errors or not any(errors):
        return Table(found, name)
    kept = [i for i, error in enumerate(errors) if not error]
    if not kept:
        raise InvalidValueError(f"{name}: all {len(errors)} requests failed.")
    return Table({ours: [values[i] for i in kept] for ours, values in found.items()}, name, len(errors) - len(kept))


def numbers(table: Table, ours: str) -> np.ndarray:
    """Return a column as numbers, times in seconds; what is absent is not a number."""
    values = table.columns[ours]
    try:
        found = np.array(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        found = np.array(inf)
    if found.ndim != 1 or np.isinf(found).any():
        bad = next(i for i, value in enumerate(values) if value is not None and not _is_number(value))
        raise InvalidValueError(f"{table.source}: {ours} of row {bad + 1} is {quoted(values[bad])}; it must be a finite number.")
    return found * (1e-3 if ours in table.milliseconds else 1.0)


def _is_number(value: Any) -> bool:
    try:
        return not isinf(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def moments(table: Table, ours: str) -> np.ndarray:
    """Return a column of moments, numbers or dates, in seconds."""
    values = table.columns[ours]
    if not isinstance(values[0], str) or not values[0].count("-") > 1:  # as no number has
        return numbers(table, ours)
    try:
        dates = [datetime.fromisoformat(value) for value in values]
        first = _EPOCH if dates[0].tzinfo is None else _EPOCH.replace(tzinfo=UTC)
        return np.array([(date - first).total_seconds() for date in dates])
    except (TypeError, ValueError):
        raise InvalidValueError(f"{table.source}: {ours} holds neither numbers nor dates throughout, as {quoted(values[0])}.") from None


def complete(table: Table, ours: str, found: np.ndarray) -> np.ndarray:
    """Return what was read of a column that every row must have, or raise."""
    if (absent := np.flatnonzero(np.isnan(found))).size:
        raise InvalidValueError(f"{table.source}: row {int(absent[0]) + 1} has no {ours}; every row must have it.")
    return found


def known_moments(table: Table, ours: str) -> np.ndarray:
    """Return a column of moments that every row must have."""
    return complete(table, ours, moments(table, ours))


def lengths(table: Table, ours: str) -> np.ndarray:
    """Return a column of lengths, of which every row must have one."""
    found = complete(table, ours, numbers(table, ours))
    if (bad := np.flatnonzero((found < 1) | (found != np.floor(found)))).size:
        row = int(bad[0])
        raise InvalidValueError(f"{table.source}: {ours} of row {row + 1} is {found[row]:g}; it must be a whole number of at least 1.")
    return found


def read_requests(source: Any, columns: Mapping[str, str] | None, clients: int | None, block_tokens: int) -> dict[str, Any]:
    """Return the fields of a workload, of a trace or of the result of a benchmark client."""
    table = read_table(source, columns)
    missing = [name for name in ("prompt", "output") if name not in table.columns]
    if missing:
        known = ", ".join(f"{name}=" for name in missing)
        raise InvalidValueError(f"{table.source} has no column of {' or '.join(missing)} lengths; name it: columns=dict({known}…).")
    given = {name: lengths(table, name) for name in ("prompt", "output")}
    prompt = given["prompt"].astype(np.int64)
    when = next((name for name in ("arrival_s", "sent_s") if name in table.columns), None)
    arrival = known_moments(table, when) if when else np.zeros(prompt.size)
    order = np.argsort(arrival, kind="stable") if when == "sent_s" else np.arange(prompt.size)  # clients list requests in another order
    if "priority" in table.columns:
        given["priority"] = numbers(table, "priority")
    found: dict[str, Any] = {name: column[order] for name, column in given.items()}
    found["arrival_s"] = arrival[order] - arrival.min()
    found["clients"] = table.clients if clients is None and when is None else clients
    if "blocks" in table.columns:
        blocks = _full_blocks(table, prompt, block_tokens)
        found |= {"blocks": tuple(blocks[i] for i in order.tolist()), "block_tokens": block_tokens}
    said = f" ({table.failed} failed left out)" if table.failed else ""
    return found | {"source": f"{table.source}{said}{'' if when else ', times not stated'}"}


def _full_blocks(table: Table, prompt: np.ndarray, size: int) -> tuple[tuple[int, ...], ...]:
    """Return the ids of the full blocks of each prompt; traces number an incomplete last one too."""
    blocks = []
    for row, (ids, length) in enumerate(zip(table.columns["blocks"], prompt.tolist(), strict=True), 1):
        if not isinstance(ids, (list, tuple)) or not all(type(each) is int for each in ids):
            raise InvalidValueError(f"{table.source}: blocks of row {row} are {quoted(ids)}; they must be a list of whole numbers.")
        full = length // size
        if len(ids) not in (full, -(-length // size)):
            raise InvalidValueError(
                f"{table.source}: row {row} has {len(ids)} block{'s' * (len(ids) != 1)}, and a prompt of {length} tokens has {full} full ones of {size}; block_tokens= says how long they are."
            )
        blocks.append(tuple(ids[:full]))
    return tuple(blocks)
