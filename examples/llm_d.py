"""Latencies for llm-d-inference-sim (github.com/llm-d/llm-d-inference-sim), a server that answers like vLLM without a model."""

from roofline import Deployment, StepTime

NANOSECONDS = 1e9


def duration(seconds):
    """Return a time as Go reads it."""
    return f"{round(seconds * NANOSECONDS)}ns"


def latency_profile(deployment, sequences=256, context=2048, link_bandwidth=None):
    """Return the parameters of its calculator "per-token" for requests of about this context.

    The simulator's time per token grows linearly from one request in flight to `max-num-seqs`, and its prefill is linear in the prompt: a
    line through the times of prompts of half and of all the context.
    """
    time = StepTime(deployment)
    alone, together = time.decode([1, sequences], [context, sequences * context])
    half, whole = time([[1], [1]], [[context // 2], [context]], 0)
    per_token = (whole - half) / (context - context // 2)
    profile = {
        "engine": "vllm",
        "model": deployment.model.name,
        "max-num-seqs": sequences,
        "latency-calculator": "per-token",
        "inter-token-latency": duration(alone),
        "prefill-overhead": duration(max(whole - per_token * context, 0)),
        "prefill-time-per-token": duration(per_token),
        "time-factor-under-load": round(max(float(together / alone), 1), 3),
    }
    if link_bandwidth is not None:
        kept = deployment.model.kv_bytes_per_token(deployment.options.get("kv", "bf16"))
        profile["kv-cache-transfer-time-per-token"] = duration(kept / link_bandwidth)
    return profile


def write_profile(path, profile):
    """Write a configuration file for ``--config``."""
    with open(path, "w") as file:
        file.writelines(f"{name}: {value}\n" for name, value in profile.items())


if __name__ == "__main__":
    write_profile("llm-d.yaml", latency_profile(Deployment("llama-3.1-8b", "h100-sxm")))
