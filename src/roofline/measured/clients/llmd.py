"""llm-d's benchmark reports, versions 0.1 and 0.2, in JSON or YAML."""

import math
from typing import Any

from roofline.errors import InvalidValueError
from roofline.measured.clients.content import Content, latency
from roofline.measured.clients.degrees import degrees
from roofline.measured.clients.load import with_concurrency
from roofline.measured.measurement import Definition, Latency, ServingMeasurement, Weight

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_PERCENTS = {"p1": 1.0, "p5": 5.0, "p10": 10.0, "p25": 25.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99p9": 99.9}


def is_report(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of a report."""
    return {"version", "scenario"} <= keys and bool(keys & {"metrics", "results"})


def read_report(content: Content) -> ServingMeasurement:
    """Return what a report says."""
    version, scenario = str(content.data.get("version")), content.inner("scenario")
    old = "metrics" in content
    if not version.startswith(("0.1", "0.2")):
        raise InvalidValueError(f"{content.name}: version {version[:20]} of llm-d's benchmark reports is not known; 0.1 and 0.2 are.")
    measured = content.inner("metrics") if old else content.inner("results").inner("request_performance").inner("aggregate")
    requests, times, rates = measured.inner("requests"), measured.inner("latency"), measured.inner("throughput")
    tool, deployed = (_old if old else _new)(scenario)
    failed, sent = requests.count("failures"), requests.count("total")
    completed = None if sent is None else max(sent - (failed or 0), 0)
    served = rates.positive("requests_per_sec") if old else rates.inner("request_rate").positive("mean")
    found: dict[str, Any] = {
        "source": f"llm-d report {version}{f' of {tool}' if tool else ''}",
        **deployed,
        "duration_s": completed / served if completed and served else None,
        "completed": completed,
        "failed": failed,
        "prompt": requests.inner("input_length").positive("mean"),
        "output": requests.inner("output_length").positive("mean"),
        "requests_per_s": served,
        "prompt_tokens_per_s": None if old else rates.inner("input_token_rate").positive("mean"),
        "output_tokens_per_s": rates.positive("output_tokens_per_sec") if old else rates.inner("output_token_rate").positive("mean"),
        "ttft": _latency(times, "time_to_first_token", "first token", "request"),
        **_tokens(times, tool or ""),
        "e2e": _latency(times, "request_latency", "end to end", "request"),
        "raw": {**scenario.inner("load").inner("standardized").data, "version": version, "tool": tool},
    }
    known, notes = with_concurrency({name: value for name, value in found.items() if value is not None})
    return ServingMeasurement(**known, notes=tuple(notes))


def _tokens(times: Content, tool: str) -> dict[str, Latency | None]:
    """Return times of tokens by what the tool that measured them means: guidellm's gap is a mean without the first token."""
    if tool == "guidellm":
        return {"tpot": _latency(times, "inter_token_latency", "per token after the first", "token")}
    return {
        "tpot": _latency(times, "time_per_output_token", "per token after the first", "request"),
        "itl": _latency(times, "inter_token_latency", "gap of chunks", "chunk"),
    }


def _latency(times: Content, name: str, definition: Definition, weight: Weight) -> Latency | None:
    told = times.inner(name)
    if not told.data:
        return None
    unit = (told.text("units") or "").removesuffix("/token")
    if unit not in _SECONDS:
        raise InvalidValueError(f"{told.name}: units are {told.text('units')!r}; they must be s, ms or us, or these per token.")
    return latency(
        told,
        definition,
        weight,
        {"mean": "mean", "median": "p50", "std": "stddev"},
        percentiles=[(percent, key) for key, percent in _PERCENTS.items()],
        factor=_SECONDS[unit],
        key=name,
    )


def _old(scenario: Content) -> tuple[str | None, dict[str, Any]]:
    """Return the tool and the deployment of a report of version 0.1: lists with an entry for each replica."""
    load, host = scenario.inner("load"), scenario.inner("host")
    kinds = [kind for kind in host.data.get("type") or () if isinstance(kind, str)]
    hosts = host.objects("accelerator")
    places = [place for place, kind in enumerate(kinds) if kind != "prefill"] or list(range(len(hosts)))
    first = hosts[places[0]] if places and places[0] < len(hosts) else Content({}, host.name)
    split = first.inner("parallelism")
    asked = load.inner("args")
    return load.text("name"), {
        "model": scenario.inner("model").text("name"),
        "machine": first.text("model"),
        "options": degrees(split.count("tp"), split.count("pp"), split.count("ep")),
        "replicas": len(places) if len(places) > 1 else None,
        "request_rate": asked.number("request_rate") if asked.text("request_rate") != "trace" else None,
        "max_concurrency": asked.count("max_concurrency") or None,
    }


def _new(scenario: Content) -> tuple[str | None, dict[str, Any]]:
    """Return the tool and the deployment of a report of version 0.2: components, of which engines that decode count."""
    load = scenario.inner("load").inner("standardized")
    parts = [part.inner("standardized") for part in scenario.objects("stack")]
    engines = [part for part in parts if part.text("kind") == "inference_engine"]
    decoders = [part for part in engines if part.text("role") != "prefill"] or engines
    rate, most = load.number("rate_qps"), load.number("concurrency")
    known: dict[str, Any] = {
        "request_rate": rate,
        "max_concurrency": int(most) if most and math.isfinite(most) else None,
    }
    if decoders:
        first = decoders[0]
        split = first.inner("accelerator").inner("parallelism")
        replicas = sum(part.count("replicas") or 1 for part in decoders)
        known |= {
            "model": first.inner("model").text("name"),
            "machine": first.inner("accelerator").text("model"),
            "options": degrees(split.count("tp"), split.count("pp"), split.count("ep")),
            "replicas": replicas if replicas > 1 else None,
        }
    return load.text("tool"), known
