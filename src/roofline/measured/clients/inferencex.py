"""InferenceX (formerly InferenceMAX): its ``agg_*.json``, and its files of single experiments, both in seconds without a suffix."""

import math
from typing import Any

from roofline.measured.clients.content import Content, flat_latency
from roofline.measured.clients.degrees import degrees, quantization_note
from roofline.measured.clients.load import completed_with, totals
from roofline.measured.measurement import ServingMeasurement

_NOMINAL = "prompt and output are those asked for (isl, osl): the lengths that were sent may be shorter"
_CONCURRENCY = "requests in flight: those that the client keeps there (conc), as it sends the next when one ends"


def _times(content: Content) -> dict[str, Any]:
    return {
        "ttft": flat_latency(content, "ttft", "first token", "request", ending=""),
        "tpot": flat_latency(content, "tpot", "per token after the first", "request", ending=""),
        "itl": flat_latency(content, "itl", "gap of chunks", "chunk", ending=""),
        "e2e": flat_latency(content, "e2el", "end to end", "request", ending=""),
    }


def is_experiment(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of a single experiment."""
    return {"total_output_tokens", "output_throughput"} <= keys and bool(keys & {"median_ttft", "median_tpot", "mean_ttft", "mean_tpot"})


def read_experiment(content: Content) -> ServingMeasurement:
    """Return what a file of a single experiment says: the totals of vLLM's client, times in seconds."""
    found = {
        "source": "InferenceX experiment",
        "model": content.text("model_id"),
        **totals(content),
        **_times(content),
        "raw": content.data,
    }
    return completed_with(found, content)


def is_aggregate(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of an ``agg_*.json``."""
    return {"hw", "conc", "tput_per_gpu"} <= keys


def read_aggregate(content: Content) -> ServingMeasurement:
    """Return what an ``agg_*.json`` says; its ``*_intvty`` are inverse times, of which p99 is the worst, and are not read."""
    parts = content.count("num_prefill_gpu"), content.count("num_decode_gpu")
    apart = bool(parts[0] and parts[1])
    side = "decode_" if apart else ""
    tensor = content.count(f"{side}tp")
    shared = str(content.data.get(f"{side}dp_attention")).lower() == "true"
    devices = sum(filter(None, parts)) if apart else tensor
    whole, out = content.positive("tput_per_gpu"), content.positive("output_tput_per_gpu")
    output_rate = out * (parts[1] or 0 if apart else tensor or 0) if out else None
    total_rate = whole * devices if whole and devices else None
    clients, speculation = content.count("conc"), content.text("spec_decoding", "mtp")
    notes = [_NOMINAL] if "isl" in content else []
    notes += [_CONCURRENCY] if clients else []
    notes += quantization_note(content.text("precision"))
    if apart:
        notes.append(f"prompts on {parts[0]} devices, decode on {parts[1]}: degrees are those of decode")
    if speculation and speculation.lower() not in ("off", "false"):
        notes.append(
            f"the engine speculates ({speculation}), and the file does not say how many tokens a step yields: but(accepted=…) does"
        )
    return ServingMeasurement(
        "InferenceX",
        model=content.text("model"),
        machine=content.text("hw"),
        engine=content.text("framework"),
        options=degrees(tensor, None, content.count(f"{side}ep"), tensor if shared else None),
        replicas=workers if apart and (workers := content.count("decode_num_workers") or 1) > 1 else None,
        prompt=content.positive("isl"),
        output=content.positive("osl"),
        request_rate=math.inf,
        max_concurrency=clients,
        concurrency=clients,
        output_tokens_per_s=output_rate or None,
        prompt_tokens_per_s=total_rate - output_rate if total_rate and output_rate and total_rate > output_rate else None,
        **_times(content),
        notes=tuple(notes),
        raw=content.data,
    )
