"""vLLM's benchmarks: ``bench serve``, ``bench latency`` and ``bench throughput``, from 0.7 on, and what descends from their client."""

from collections.abc import Mapping
from typing import Any

from roofline.errors import InvalidValueError
from roofline.measured.clients.content import Content, flat_latency, listed_latency
from roofline.measured.clients.load import completed_with, totals
from roofline.measured.measurement import Latency, ServingMeasurement

_OPENAI = ("openai", "openai-chat", "openai-audio", "openai-embeddings", "openai-comp")  # an API, which any engine may serve
_DEGREES = {  # options of a deployment: how people write them after --metadata
    "tensor_parallel": ("tensor_parallel_size", "tensor_parallel", "tp_size", "tp"),
    "pipeline_parallel": ("pipeline_parallel_size", "pipeline_parallel", "pp_size", "pp"),
    "data_parallel": ("data_parallel_size", "data_parallel", "dp_size", "dp"),
}
_MACHINE = ("gpu", "gpu_type", "gpu_name", "hardware", "machine", "accelerator", "device_name")
_BUCKETS = "max_concurrent_requests ({:g}) counts requests alive at any time within a second; it is not a batch and is not used as one"


def is_serve(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of ``bench serve``."""
    return bool(keys & {"request_throughput", "request_goodput", "request_goodput:"}) and any(
        key.endswith(("_ttft_ms", "_tpot_ms", "_itl_ms", "_e2el_ms")) for key in keys
    )


def read_serve(content: Content) -> ServingMeasurement:
    """Return what a result of ``bench serve`` says."""
    backend, most = content.text("backend"), content.number("max_concurrent_requests")
    found = {
        "source": "vllm bench serve",
        "model": content.text("model_id"),
        "machine": content.text(*_MACHINE),
        "engine": backend if backend not in _OPENAI else None,
        "options": {ours: count for ours, theirs in _DEGREES.items() if (count := content.count(*theirs))},
        "sequences": content.count("max_num_seqs"),
        **totals(content),
        "ttft": flat_latency(content, "ttft", "first token", "request"),
        "tpot": flat_latency(content, "tpot", "per token after the first", "request"),
        "itl": flat_latency(content, "itl", "gap of chunks", "chunk"),
        "e2e": flat_latency(content, "e2el", "end to end", "request") or listed_latency(content, "latencies", "end to end", "request"),
        **_speculation(content),
        "raw": content.data,
        "notes": [_BUCKETS.format(most)] if most and most > (content.number("max_concurrency") or most) else [],
    }
    if "total_input_sequences" in content:
        found["notes"].append("a pooling model: it generates nothing, so there are only times from end to end")
    return completed_with(found, content)


def _speculation(content: Content) -> dict[str, Any]:
    length = content.positive("spec_decode_acceptance_length")
    drafts, drafted = content.positive("spec_decode_num_drafts"), content.positive("spec_decode_draft_tokens")
    return {"accepted": length, "drafts": round(drafted / drafts) if drafts and drafted else None}


def is_latency(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of ``bench latency``."""
    return {"avg_latency", "latencies", "percentiles"} <= keys


def read_latency(content: Content) -> ServingMeasurement:
    """Return what a result of ``bench latency`` says: whole runs of one static batch, prefill and all decode steps together."""
    shares = content.inner("percentiles")
    percents: Mapping[float, float] = {}
    try:
        percents = {float(percent): time for percent in shares if (time := shares.number(percent)) is not None}
    except ValueError:
        raise content.wrong("percentiles", "times by percent") from None
    listed = listed_latency(content, "latencies", "end to end", "request")
    return ServingMeasurement(
        "vllm bench latency",
        model=content.text("model_id"),
        engine="vllm",
        e2e=Latency(
            "end to end",
            "request",
            content.positive("avg_latency"),
            percents.get(50.0, listed.median_s if listed else None),
            listed.std_s if listed else None,
            percents,
            "avg_latency",
        )
        if content.positive("avg_latency")
        else None,
        notes=(
            "each time is of a whole static batch, its prefill and all its steps; the file does not say batch, prompt or output: but(batch=…, prompt=…, output=…) does, and step_of_two_runs of two outputs gives the time of a step",
        ),
        raw=content.data,
    )


def is_throughput(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of ``bench throughput``."""
    return {"elapsed_time", "num_requests", "total_num_tokens"} <= keys


def read_throughput(content: Content) -> ServingMeasurement:
    """Return what a result of ``bench throughput`` says."""
    requests, tokens, rate = content.count("num_requests"), content.positive("total_num_tokens"), content.positive("tokens_per_second")
    each = f", {tokens / requests:.4g} for each request" if tokens and requests else ""
    both = f"tokens_per_second ({rate:.5g})" if rate else "total_num_tokens"
    return ServingMeasurement(
        "vllm bench throughput",
        model=content.text("model_id"),
        engine="vllm",
        duration_s=content.positive("elapsed_time"),
        completed=requests,
        request_rate=float("inf"),
        requests_per_s=content.positive("requests_per_second"),
        notes=(
            f"{both} counts prompts and answers together{each}, and the file does not say how many are which: but(prompt=…, output=…, output_tokens_per_s=…) does",
        ),
        raw=content.data,
    )


def is_pytorch(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of a record for PyTorch's benchmark database."""
    return {"benchmark", "model", "metric"} <= keys


def refuse_pytorch(content: Content) -> ServingMeasurement:
    """Refuse a record for PyTorch's benchmark database."""
    raise InvalidValueError(
        f"{content.name}: records for PyTorch's benchmark database (…pytorch.json), one number each; give the result file beside it, without .pytorch in its name."
    )
