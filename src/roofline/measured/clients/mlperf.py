"""MLPerf inference: a run's summary and detail log of LoadGen, and the table of published results."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from roofline.errors import InvalidValueError
from roofline.measured.clients.content import Content, latency
from roofline.measured.measurement import Definition, Latency, ServingMeasurement

_SUMMARY, _DETAIL, _TABLE = "MLPerf Results Summary", ":::MLLOG", "Public ID\tOrganization"
_LINE = re.compile(r"^\s*([^:\n]+?(?:\(ns\))?)\s*:\s*(.+?)\s*$")
# in a summary: mean, and a percentile; in a detail log: the same
_TIMES: Mapping[str, tuple[Definition, str, str, str, str]] = {
    "e2e": ("end to end", "Mean latency (ns)", " percentile latency (ns)", "result_mean_latency_ns", "result_{}_percentile_latency_ns"),
    "ttft": (
        "first token",
        "Mean First Token latency (ns)",
        " percentile first token latency (ns)",
        "result_first_token_mean_latency_ns",
        "result_first_token_{}_percentile_latency_ns",
    ),
    "tpot": (
        "per token after the first",
        "Mean Time per Output Token (ns)",
        " percentile time to output token (ns)",
        "result_time_to_output_token_mean",
        "result_time_per_output_token_{}_percentile_ns",
    ),
}
_PERCENTS = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
_SAMPLES = "Samples per second", "Completed samples per second", "result_samples_per_second", "result_completed_samples_per_sec"
_TOKENS = "Tokens per second", "Completed tokens per second", "result_tokens_per_second", "result_completed_tokens_per_second"
_INFERRED = (
    "Tokens per second (inferred)",
    "Completed tokens per second (inferred)",
    "result_inferred_tokens_per_second",
    "result_inferred_completed_tokens_per_second",
)


def is_log(text: str) -> bool:
    """Return whether a text is a summary or a detail log of LoadGen."""
    return _SUMMARY in text or text.lstrip().startswith(_DETAIL)


def read_log(text: str, name: str) -> ServingMeasurement:
    """Return what a summary or a detail log says."""
    content = Content(_detailed(text, name) if text.lstrip().startswith(_DETAIL) else _summed_up(text), name)
    mode = content.text("Mode", "effective_test_mode", "requested_test_mode")
    if mode is not None and not mode.lower().startswith("performance"):
        raise InvalidValueError(f"{name} is of a run in mode {mode[:40]}, which measures no times; give that of a performance run.")
    scenario = content.text("Scenario", "effective_scenario", "requested_scenario")
    if scenario is None:
        raise InvalidValueError(f"{name} names no scenario: it is cut short, or not a log of LoadGen.")
    inferred = content.positive(*_INFERRED)
    notes = [] if inferred is None else ["tokens per second are inferred by LoadGen from samples of one assumed length"]
    if (content.text("Result is", "result_validity") or "VALID") != "VALID":
        notes.append("LoadGen calls the result INVALID: the run broke one of its rules")
    if scenario == "Offline":
        notes.append("all requests are sent at once, so that times end to end are mostly of waiting")
    times: dict[str, Any] = {field: _time(content, *told) for field, told in _TIMES.items()}
    return ServingMeasurement(
        f"MLPerf LoadGen, {scenario}",
        requests_per_s=content.positive(*_SAMPLES),
        output_tokens_per_s=content.positive(*_TOKENS) or inferred,
        request_rate=math.inf if scenario == "Offline" else None,
        concurrency=1.0 if scenario == "SingleStream" else None,
        **times,
        notes=tuple(notes),
        raw=content.data,
    )


def _time(content: Content, definition: Definition, mean: str, percentile: str, mean_key: str, percentile_key: str) -> Latency | None:
    told = {"mean": content.number(mean, mean_key)}
    shares = {each: content.number(f"{each}{percentile}", percentile_key.format(each)) for each in _PERCENTS}
    found = Content({name: value for name, value in {**told, **shares}.items() if value is not None}, content.name)
    return latency(
        found,
        definition,
        "request",
        {"mean": "mean", "median": "50.00"},
        percentiles=[(float(each), each) for each in _PERCENTS[1:]],
        factor=1e-9,
        key=mean if mean in content else mean_key,
    )


def _summed_up(text: str) -> dict[str, str]:
    """Return the lines of a summary that name a value."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if told := _LINE.match(line):
            found.setdefault(told[1], told[2])
    return found


def _detailed(text: str, name: str) -> dict[str, Any]:
    """Return the events of a detail log, by key."""
    found: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(_DETAIL):
            try:
                event = json.loads(line.removeprefix(_DETAIL))
                found[event["key"]] = event["value"]
            except (ValueError, KeyError, TypeError):
                raise InvalidValueError(f"{name}: line {number} is no event of LoadGen, cut short or corrupted.") from None
    return found


def is_table(text: str) -> bool:
    """Return whether a text is the table of published results."""
    return text.lstrip("\ufeff").startswith(_TABLE)


def read_table(text: str, name: str) -> list[ServingMeasurement]:
    """Return what the table of published results says, a measurement for each row."""
    try:
        header, *rows = csv.reader(io.StringIO(text.lstrip("\ufeff")), delimiter="\t")
    except csv.Error:
        raise InvalidValueError(f"{name} is no table of MLPerf's results that can be read, cut short or corrupted.") from None
    place = {title.strip().lower(): at for at, title in reversed(list(enumerate(header)))}
    needed = ("public id", "model mlc", "scenario", "units", "avg. result at system name")
    if missing := [title for title in needed if title not in place]:
        raise InvalidValueError(f"{name} has no column {missing[0]!r}, which the table of MLPerf's results has.")
    found = []
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InvalidValueError(f"{name}: line {number} has {len(row)} cells and its head {len(header)}; it is cut short.")
        found.append(_published(Content({title: row[at] for title, at in place.items()}, f"{name}, line {number}")))
    return found


def _published(row: Content) -> ServingMeasurement:
    unit, value = row.text("units") or "", row.positive("avg. result at system name")
    scenario, devices = row.text("scenario"), row.text("total accelerators")
    rates = {"tokens/s": "output_tokens_per_s", "samples/s": "requests_per_s", "queries/s": "requests_per_s"}
    known: dict[str, Any] = {rates[unit.lower()]: value} if unit.lower() in rates else {}
    if unit.lower() in ("latency (s)", "latency (ms)") and value:
        factor = 1e-3 if "ms" in unit else 1.0
        known["e2e"] = Latency("end to end", "request", percentiles={90.0: value * factor}, key=unit)
    machine = row.text("accelerator (click + for details)")
    return ServingMeasurement(
        f"MLPerf results {row.text('public id')}, {scenario}",
        model=row.text("model mlc"),
        machine=machine,
        request_rate=math.inf if scenario == "Offline" else None,
        **known,
        notes=(f"of {devices or 'an unknown number of'} accelerators together; the table says neither lengths nor degrees nor formats",),
        raw=row.data,
    )
