"""guidellm's reports: schema 1 (to 0.3, without metadata) and schema 2."""

from collections.abc import Mapping, Sequence
from typing import Any

from roofline.errors import InvalidValueError
from roofline.measured.clients.content import Content, latency
from roofline.measured.clients.load import with_concurrency, without_answers
from roofline.measured.measurement import Definition, Latency, ServingMeasurement, Weight, fields_of_times
from roofline.requests import RequestTimes

_PERCENTS = {"p01": 1.0, "p05": 5.0, "p10": 10.0, "p25": 25.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
_COLUMNS = (  # of single requests: our names, and those of each schema
    {
        "prompt": "prompt_tokens",
        "output": "output_tokens",
        "sent_s": "start_time",
        "first_token_s": "first_token_time",
        "finish_s": "last_token_time",
    },
    {
        "prompt": "prompt_tokens",
        "output": "output_tokens",
        "sent_s": "request_start_time",
        "ttft_ms": "time_to_first_token_ms",
        "e2e_s": "request_latency",
    },
)


def is_report(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of a report."""
    return "benchmarks" in keys


def read_report(content: Content) -> list[ServingMeasurement]:
    """Return what a report says of each of its benchmarks."""
    metadata = content.inner("metadata")
    schema = metadata.count("version") or 1
    if schema > 2:
        raise InvalidValueError(f"{content.name}: schema {schema} of guidellm's reports is not known; 1 and 2 are.")
    version = metadata.text("guidellm_version")
    runs = content.objects("benchmarks")
    if not runs or "metrics" not in runs[0]:
        raise InvalidValueError(f"{content.name} has benchmarks, but none of them has the metrics of guidellm.")
    return [_benchmark(run, schema, f"guidellm{f' {version}' if version else ''} (schema {schema})") for run in runs]


def _benchmark(run: Content, schema: int, source: str) -> ServingMeasurement:
    metrics = run.inner("metrics")
    asked = run.inner("config") if schema == 2 else run.inner("args")
    strategy, backend = asked.inner("strategy"), asked.inner("backend") if schema == 2 else run.inner("worker")
    counts = (metrics if "request_totals" in metrics else run).inner("request_totals")
    completed = counts.count("successful")
    weight: Weight = "token" if schema == 2 else "request"
    found: dict[str, Any] = {
        "source": source,
        "model": backend.text("model", "backend_model"),
        "duration_s": run.positive("duration"),
        "completed": completed,
        "failed": counts.count("errored"),
        "prompt": _mean(metrics, "prompt_token_count"),
        "output": _mean(metrics, "output_token_count"),
        "request_rate": strategy.positive("rate"),
        "max_concurrency": _limit(strategy),
        "concurrency": _mean(metrics, "request_concurrency"),
        "requests_per_s": _mean(metrics, "requests_per_second"),
        "output_tokens_per_s": _mean(metrics, "output_tokens_per_second"),
        "ttft": _latency(metrics, "time_to_first_token_ms", "first token", "request"),
        "tpot": _latency(metrics, "inter_token_latency_ms", "per token after the first", weight),
        "e2e": _latency(metrics, "request_latency", "end to end", "request", factor=1.0),
        "accepted": _accepted(metrics),
        "raw": {**run.data, "metrics": {name: _successful(metrics, name).data for name in metrics}, "requests": None},
    }
    notes = []
    if prompts := found["prompt"]:
        found["prompt_tokens_per_s"] = prompts * found["requests_per_s"] if found["requests_per_s"] else None
    if counts.count("incomplete"):
        notes.append(
            f"{counts.count('incomplete')} requests were cut off by the end of the run; times and lengths are of the {completed} that ended"
        )
    if completed == 0:
        found, said = without_answers(found)
        notes.append(said)
    single, left_out = _requests(run)
    found |= {name: single[name] for name in ("times", "batch", "cached_context") if name in single}
    known, more = with_concurrency({name: value for name, value in found.items() if value is not None})
    return ServingMeasurement(**known, notes=(*notes, *left_out, *more))


def _limit(strategy: Content) -> int | None:
    """Return how many requests the client lets be in flight, where that is what it was asked for."""
    if strategy.text("type_", "kind") not in ("concurrent", "synchronous", "throughput"):
        return None  # of constant and Poisson rates it is the size of a pool
    return strategy.count("streams", "max_concurrency") or (1 if strategy.text("type_", "kind") == "synchronous" else None)


def _successful(metrics: Content, name: str) -> Content:
    return metrics.inner(name).inner("successful") if isinstance(metrics.inner(name).data.get("successful"), Mapping) else Content({}, name)


def _mean(metrics: Content, name: str) -> float | None:
    return _successful(metrics, name).positive("mean")


def _latency(metrics: Content, name: str, definition: Definition, weight: Weight, factor: float = 1e-3) -> Latency | None:
    told = _successful(metrics, name)
    shares = told.inner("percentiles")
    flat = Content({**{key: shares.data.get(key) for key in _PERCENTS}, **told.data}, told.name)
    return latency(
        flat,
        definition,
        weight,
        {"mean": "mean", "median": "median", "std": "std_dev"},
        percentiles=[(percent, key) for key, percent in _PERCENTS.items()],
        factor=factor,
        key=name,
    )


def _accepted(metrics: Content) -> float | None:
    """Return the tokens of a chunk, which are more than one where the server speculates or sends several at once."""
    tokens = _mean(metrics, "iter_tokens_per_iteration")
    return tokens if tokens and tokens > 1 else None


def _requests(run: Content) -> tuple[dict[str, Any], list[str]]:
    """Return the fields that single requests make, where the report has them."""
    ended = run.inner("requests").data.get("successful")
    if not isinstance(ended, Sequence) or not ended or not all(isinstance(row, Mapping) for row in ended):
        return {}, []
    columns = next((each for each in _COLUMNS if set(each.values()) <= ended[0].keys()), None)
    if columns is None:
        return {}, []
    rows = [{ours: row.get(theirs) for ours, theirs in columns.items()} for row in ended]
    try:
        return fields_of_times(RequestTimes.from_records(rows)), []
    except InvalidValueError as error:
        return {}, [f"single requests are left out: {error}"]
