"""trtllm-bench's report (``--report_json``)."""

import math
from typing import Any

from roofline.measured.clients.content import Content, latency
from roofline.measured.clients.degrees import cache_format, degrees, quantization_note
from roofline.measured.measurement import Definition, Latency, ServingMeasurement

_AT_ONCE = 1e6  # requests per second, from which on the rate is only how fast the client can queue them
_PERCENTS = (50, 90, 95, 99)


def is_report(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of a report."""
    return {"engine", "world_info", "performance"} <= keys


def read_report(content: Content) -> ServingMeasurement:
    """Return what a report says."""
    engine, world, requests = (content.inner(name) for name in ("engine", "world_info", "request_info"))
    performance, streamed = content.inner("performance"), content.inner("streaming_metrics")
    decoding, version = content.inner("decoding_stats"), engine.text("version")
    rate, whole = world.positive("issue_rate"), performance.positive("total_latency_ms")
    found: dict[str, Any] = {
        "source": f"trtllm-bench{f' {version}' if version else ''}",
        "model": engine.text("model"),
        "machine": content.inner("machine").text("name"),
        "engine": "tensorrt-llm",
        "options": {
            **degrees(world.count("tp_size"), world.count("pp_size"), world.count("ep_size")),
            **cache_format(engine, "kv_cache_dtype"),
        },
        "duration_s": whole and whole * 1e-3,
        "completed": requests.count("num_requests"),
        "prompt": requests.positive("avg_input_length"),
        "output": requests.positive("avg_output_length"),
        "request_rate": math.inf if rate and rate > _AT_ONCE else rate,
        "concurrency": requests.positive("avg_num_concurrent_requests"),
        "sequences": world.count("max_batch_size"),
        "requests_per_s": performance.positive("request_throughput_req_s"),
        "output_tokens_per_s": performance.positive("system_output_throughput_tok_s"),
        "ttft": _latency(streamed, "avg_ttft_ms", "ttft_percentiles", "first token"),
        "tpot": _latency(streamed, "avg_tpot_ms", "tpot_percentiles", "per token after the first"),
        "e2e": _latency(performance, "avg_request_latency_ms", "request_latency_percentiles_ms", "end to end"),
        "accepted": decoding.positive("acceptance_length") or decoding.inner("acceptance_length_percentiles").positive("average"),
        "raw": content.data,
    }
    if (total := performance.positive("system_total_throughput_tok_s")) and (out := found["output_tokens_per_s"]) and total > out:
        found["prompt_tokens_per_s"] = total - out
    notes = quantization_note(engine.text("quantization"))
    if found["tpot"] is None:
        notes.append("without --streaming there are no times of tokens")
        found |= _full_batch(found)
    if decoding.data and found["accepted"] is None:
        notes.append("the engine speculates, and the file does not say how many tokens a step yields: but(accepted=…) does")
    return ServingMeasurement(**found, notes=tuple(notes))


def _full_batch(found: dict[str, Any]) -> dict[str, Any]:
    """Return the time per token of a batch that waiting requests keep full: its size over the rate of tokens, prompts of others included."""
    most, rate, waiting = found["sequences"], found["output_tokens_per_s"], found["concurrency"]
    if not most or not rate or not waiting or waiting < most:
        return {}
    key = "max_batch_size / system_output_throughput_tok_s"
    return {"batch": float(most), "tpot": Latency("per token after the first", "token", most / rate, key=key)}


def _latency(content: Content, average: str, percentiles: str, definition: Definition) -> Latency | None:
    shares = content.inner(percentiles)
    flat = Content({**{f"p{each}": shares.data.get(f"p{each}") for each in _PERCENTS}, "mean": content.data.get(average)}, content.name)
    return latency(
        flat,
        definition,
        "request",
        {"mean": "mean", "median": "p50"},
        percentiles=[(float(each), f"p{each}") for each in _PERCENTS[1:]],
        factor=1e-3,
        key=average,
    )
