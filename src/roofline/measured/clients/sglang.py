"""SGLang's benchmarks: ``bench_serving``, ``bench_one_batch`` and ``bench_one_batch_server``."""

from typing import Any

from roofline.measured.clients.content import Content, flat_latency
from roofline.measured.clients.degrees import cache_format, degrees, quantization_note
from roofline.measured.clients.load import completed_with, totals
from roofline.measured.measurement import Latency, ServingMeasurement

_NATIVE = ("sglang", "sglang-native")


def is_serving(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of ``bench_serving``."""
    return "backend" in keys and any(key.endswith("_e2e_latency_ms") for key in keys)


def read_serving(content: Content) -> ServingMeasurement:
    """Return what a result of ``bench_serving`` says."""
    server, backend = content.inner("server_info"), content.text("backend")
    version = server.text("version")
    ranks, most = server.count("dp_size") or 1, server.count("max_running_requests")
    shared = server.data.get("enable_dp_attention") is True  # else ranks are independent replicas
    found: dict[str, Any] = {
        "source": f"sglang bench_serving{f' {version}' if version else ''}",
        "model": server.text("model_path", "served_model_name"),
        "engine": f"sglang {version or ''}".rstrip() if (backend or "").startswith("sglang") else backend,
        "options": {
            **degrees(
                server.count("tp_size"),
                server.count("pp_size"),
                server.count("ep_size"),
                ranks if shared else None,
            ),
            **cache_format(server, "kv_cache_dtype"),
        },
        "replicas": ranks if ranks > 1 and not shared else None,
        "sequences": most // ranks if most and most >= ranks else None,  # the server's flag is of all ranks
        **totals(content),
        "concurrency": content.positive("concurrency"),
        "ttft": flat_latency(content, "ttft", "first token", "request"),
        "tpot": flat_latency(content, "tpot", "per token after the first", "request"),
        "itl": _gaps(content, backend),
        "e2e": flat_latency(content, "e2e_latency", "end to end", "request"),
        "cached_context": _context(content),
        "accepted": content.positive("accept_length"),
        "drafts": server.count("speculative_num_draft_tokens") or None,
        "notes": quantization_note(server.text("quantization")),
        "raw": content.data,
    }
    if found["tpot"] is None:
        found["tpot"] = _derived(found)
    return completed_with(found, content)


def _gaps(content: Content, backend: str | None) -> Latency | None:
    """Return the gaps, by what they were divided with.

    The native client divides by the tokens of a chunk since the versions that write ``p95_itl_ms`` and ``concurrency`` (0.4.5 does, 0.4.1 does not); those
    of OpenAI's API do since 0.5.5, which writes ``server_info``, and only where the server speculates.
    """
    divided = "concurrency" in content.data and backend in _NATIVE
    divided = divided or ("server_info" in content.data and (backend or "").startswith("sglang-oai") and "accept_length" in content)
    return flat_latency(content, "itl", "gap per token", "token") if divided else flat_latency(content, "itl", "gap of chunks", "chunk")


def _derived(found: dict[str, Any]) -> Latency | None:
    """Return the time per token that follows from those end to end, which old versions have alone."""
    e2e, first, output = found["e2e"], found["ttft"], found["output"]
    if e2e is None or first is None or e2e.mean_s is None or first.typical_s is None or not output or output <= 1:
        return None
    key = f"(mean_e2e_latency_ms − {first.quantile}_ttft_ms) / (n − 1)"
    return Latency("per token after the first", "token", max(e2e.mean_s - first.typical_s, 0.0) / (output - 1), key=key)


def _context(content: Content) -> float | None:
    r"""Return the mean context of decode steps of random lengths: long answers have more steps, :math:`p + E[o^2] / 2 E[o]`.

    Answers are uniform from ``random_range_ratio`` times ``random_output_len`` up to it, whatever their prompts are; so ``random_input_len`` is no mean.
    """
    most, ratio = content.positive("random_output_len"), content.number("random_range_ratio")
    prompts, completed = content.positive("total_input_tokens"), content.count("completed")
    if content.text("dataset_name") not in ("random", "random-ids") or not most or ratio is None or not prompts or not completed:
        return None
    least = max(ratio * most, 1.0)
    return prompts / completed + (least**2 + least * most + most**2) / (3 * (least + most))


def is_one_batch(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of ``bench_one_batch`` or ``bench_one_batch_server``."""
    return {"batch_size", "input_len", "output_len"} <= keys and bool(keys & {"prefill_latency", "last_ttft"})


def read_one_batch(content: Content) -> ServingMeasurement:
    """Return what a result of ``bench_one_batch`` or of ``bench_one_batch_server`` says: one static batch."""
    batch, output = content.number("batch_size"), content.number("output_len")
    static: dict[str, Any] = {
        "batch": batch,
        "concurrency": batch,
        "prompt": content.number("input_len"),
        "output": output,
        "engine": "sglang",
        "raw": content.data,
    }
    if "prefill_latency" in content:
        median = content.positive("median_decode_latency")
        return ServingMeasurement(
            "sglang bench_one_batch",
            prefill_s=content.positive("prefill_latency"),
            step=None if median is None else Latency("step", "step", median_s=median, key="median_decode_latency"),
            e2e=_whole(content, "total_latency"),
            **static,
        )
    first, whole, accepted = content.positive("last_ttft"), content.positive("latency"), content.positive("acc_length")
    accepted = accepted if accepted and accepted > 1 else None
    step: Latency | None = None
    if first and whole and output and output > 1 and whole > first:
        mean = (whole - first) / (output - 1) * (accepted or 1)
        step = Latency("step", "step", mean, key=f"(latency − last_ttft) / (output_len − 1){' × acc_length' if accepted else ''}")
    return ServingMeasurement(
        "sglang bench_one_batch_server", prefill_s=first, step=step, e2e=_whole(content, "latency"), accepted=accepted, **static
    )


def _whole(content: Content, key: str) -> Latency | None:
    time = content.positive(key)
    return None if time is None else Latency("end to end", "request", time, key=key)
