"""AIPerf's and GenAI-Perf's summaries (``profile_export_aiperf.json``, ``profile_export_genai_perf.json``), and AIPerf's single requests."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from roofline.errors import InvalidValueError
from roofline.measured.clients.content import Content, latency
from roofline.measured.clients.load import with_concurrency, without_answers
from roofline.measured.measurement import Definition, Latency, ServingMeasurement, Weight

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0, "milliseconds": 1e-3, "nanoseconds": 1e-9}
_PERCENTS = (1, 5, 10, 25, 75, 90, 95, 99)
_IDLE = 1.0  # percent of time with a kernel, up to which a device had no part in the run
_ALWAYS = 100.0


def is_summary(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of a summary."""
    return {"request_latency", "request_throughput"} <= keys


def read_summary(content: Content) -> ServingMeasurement:
    """Return what a summary says."""
    asked = content.inner("input_config")
    version = content.text("aiperf_version")
    aiperf = version is not None or bool(content.data.keys() & {"telemetry_data", "was_cancelled", "benchmark_duration"})
    failed = _average(content, "error_request_count")
    tokens = content.inner("inter_token_latency")
    machine, busy = _devices(content)
    found: dict[str, Any] = {
        "source": f"aiperf{f' {version}' if version else ''}" if aiperf else "genai-perf",
        "model": _model(asked),
        "machine": machine,
        "busy": busy,
        "duration_s": _time(content, "benchmark_duration"),
        "completed": _count(content, "request_count"),
        "failed": None if failed is None else round(failed),
        "prompt": _average(content, "input_sequence_length"),
        "output": _average(content, "output_sequence_length"),
        "request_rate": next((float(rate) for rate in _found(asked.data, "request_rate") if _number(rate)), None),
        "max_concurrency": next((int(most) for most in _found(asked.data, "concurrency") if _number(most)), None),
        "requests_per_s": _average(content, "request_throughput"),
        "output_tokens_per_s": _average(content, "output_token_throughput"),
        "ttft": _latency(content, "time_to_first_token", "first token", "request"),
        "tpot": _latency(content, "inter_token_latency", "per token after the first", "request"),
        "itl": _latency(content, "inter_chunk_latency", "gap of chunks", "chunk"),
        "e2e": _latency(content, "request_latency", "end to end", "request"),
        "accepted": _average(content, "spec_decode_token_weighted_acceptance_length") or _average(content, "spec_decode_acceptance_length"),
        "raw": content.data,
    }
    notes = []
    if found["completed"] and not found["duration_s"] and found["requests_per_s"]:
        found["duration_s"] = found["completed"] / found["requests_per_s"]
    if (prompt := found["prompt"]) and found["requests_per_s"]:
        found["prompt_tokens_per_s"] = prompt * found["requests_per_s"]
    if content.data.get("was_cancelled") or content.data.get("is_complete") is False:
        notes.append(
            f"the run did not end{': ' + reason if (reason := content.text('incomplete_reason')) else ''}: the figures are of a part of it"
        )
    if found["completed"] == 0:
        found, said = without_answers(found)
        notes.append(said)
    if "avg" in tokens and tokens.number("avg") == 0:
        notes.append("inter_token_latency is 0: the answers were not streamed, or have one token each")
    known, more = with_concurrency({name: value for name, value in found.items() if value is not None})
    return ServingMeasurement(**known, notes=(*notes, *more))


def is_record(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of a single request (``profile_export.jsonl``)."""
    return {"metadata", "metrics"} <= keys


def request_of(content: Content) -> dict[str, Any]:
    """Return a single request by our names, times in seconds."""
    told, metrics = content.inner("metadata"), content.inner("metrics")
    sent = told.number("request_start_ns")
    found = {
        "prompt": metrics.inner("input_sequence_length").number("value"),
        "output": metrics.inner("output_sequence_length").number("value"),
        "sent_s": None if sent is None else sent * 1e-9,
        "error": "error" in content,
    }
    for ours, tag in (("ttft_s", "time_to_first_token"), ("e2e_s", "request_latency")):
        value = metrics.inner(tag).number("value")
        found[ours] = None if value is None else value * _factor(metrics.inner(tag), tag)
    return found


def _tag(content: Content, tag: str) -> Content:
    return content.inner(tag) if isinstance(content.data.get(tag), Mapping) else Content({}, content.name)


def _average(content: Content, tag: str) -> float | None:
    value = content.data.get(tag)
    return _tag(content, tag).positive("avg") if isinstance(value, Mapping) else None


def _count(content: Content, tag: str) -> int | None:
    number = _tag(content, tag).number("avg")
    return None if number is None or math.isinf(number) else round(number)


def _factor(told: Content, tag: str) -> float:
    unit = told.text("unit") or ""
    if unit.lower() not in _SECONDS:
        raise InvalidValueError(f"{told.name}: the unit of {tag} is {unit!r}; it must be one of {', '.join(_SECONDS)}.")
    return _SECONDS[unit.lower()]


def _time(content: Content, tag: str) -> float | None:
    told = _tag(content, tag)
    average = told.positive("avg")
    return None if average is None else average * _factor(told, tag)


def _latency(content: Content, tag: str, definition: Definition, weight: Weight) -> Latency | None:
    told = _tag(content, tag)
    if not told.data:
        return None
    return latency(
        told,
        definition,
        weight,
        {"mean": "avg", "median": "p50", "std": "std"},
        percentiles=[(float(percent), f"p{percent}") for percent in _PERCENTS],
        factor=_factor(told, tag),
        key=tag,
    )


def _model(asked: Content) -> str | None:
    """Return the model that was asked for: ``model_names`` of old configurations, ``models`` of new ones."""
    for key in ("model_names", "models", "model"):
        for value in _found(asked.data, key):
            for each in value if isinstance(value, list) else [value]:
                name = each.get("name") if isinstance(each, Mapping) else each
                if isinstance(name, str) and name:
                    return name
    return None


def _devices(content: Content) -> tuple[str | None, float | None]:
    """Return the devices that worked: their name, where all that were not idle have the same, and the mean share of the time in which a kernel ran."""
    names: dict[str, None] = {}
    used: list[float] = []
    for gpus in _found(content.inner("telemetry_data").data, "gpus"):
        for gpu in gpus.values() if isinstance(gpus, Mapping) else ():
            told = Content(gpu, content.name) if isinstance(gpu, Mapping) else Content({}, content.name)
            use = _tag(told.inner("metrics"), "gpu_utilization").number("avg")
            if (name := told.text("gpu_name")) and (use is None or use > _IDLE):
                names[name] = None
            if use is not None and _IDLE < use <= _ALWAYS:
                used.append(use / _ALWAYS)
    return next(iter(names)) if len(names) == 1 else None, sum(used) / len(used) if used else None


def _found(data: Any, key: str) -> Iterator[Any]:
    """Yield what stands under a key at any depth, nearest first."""
    levels = [data]
    while levels:
        for level in levels:
            if isinstance(level, Mapping) and level.get(key) is not None:
                yield level[key]
        levels = [
            inner
            for level in levels
            for inner in (level.values() if isinstance(level, Mapping) else level)
            if isinstance(inner, (Mapping, list))
        ]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
