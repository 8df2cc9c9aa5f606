"""What the sweeps' scripts tell the engines of served systems, and their engines' defaults otherwise.

From github.com/SemiAnalysisAI/InferenceX, ``benchmarks/`` (Apache-2.0, versions of 2025-10 to 2026-04): limits of tokens,
``--scheduler-recv-interval``, ``batch_wait_timeout_iters``, which steps with prompts run from graphs.
"""

import re
from functools import cache
from typing import Any

from roofline.engines import Engine, load_engine
from served_rows import BLACKWELL, Served

Kind = tuple[str, str, str]  # engine, machine, and the versions whose host times are taken

MANY = 10**6


NIGHTLY = ("0.5.9", "20260323", "0.5.10")
"""What SGLang's nightly builds, and images without a version, are taken for: the first, and from that day on, or version, the last.

That day pull request 21019 (github.com/sgl-project/sglang) was merged, with which layers with a recurrent state launch fewer kernels.
"""


def profile_of(row: Served) -> Engine:
    """Return the profile of a row's engine, with the host times of its version."""
    return _profile(row.engine, row.version)


@cache
def _profile(engine: str, version: str) -> Engine:
    profile = load_engine(engine)
    if not profile.earlier:
        return profile
    before, day, then = NIGHTLY
    nightly = re.search(r"-(20\d{6})", version)
    if not version[:1].isdigit():
        version = then if nightly and nightly[1] >= day else before
    return profile.at(version)


def kind_of(row: Served) -> Kind:
    """Return what rows share that have constants of their own."""
    return row.engine, row.machine, profile_of(row).host.versions


def engine_of(row: Served) -> Engine:
    """Return the profile of a row's engine, with what is the row's own among its host times: its clients' sampling (`Served.sampling_s`)."""
    engine = profile_of(row)
    if not row.sampling_s:
        return engine
    return engine.but(host=engine.host.but(sequence_s=(engine.host.sequence_s or 0.0) + row.sampling_s))


def told(row: Served) -> dict[str, Any]:
    """Return what the scripts of the sweeps tell the engine of a row, or its defaults at the time."""
    sequences = max(1, -int(-row.concurrency // row.data))
    found: dict[str, Any] = {"prefix_caching": False, "drafts": 0, "sequences": sequences, "chunked": True}
    tokens = prompt_tokens_of(row)
    if row.engine == "trtllm" and row.family == "DeepSeek":
        rows = sequences * (1 + row.drafts)
        tokens = (rows + round(row.isl / 0.9) + 127) // 64 * 64
        tokens = tokens if row.drafts else max(tokens, 8192)
    found |= waits_of(row)
    if row.engine == "sglang":
        found["admission"] = "whole"  # the clients ignore the end of an answer
        found["receive_interval"] = receive_interval_of(row)
    return {**found, "step_tokens": max(tokens, sequences)}


def waits_of(row: Served) -> dict[str, Any]:
    """Return for what TensorRT-LLM's prompts wait, as the scripts say: for others of a batch, or of the other data-parallel ranks."""
    if row.engine != "trtllm":
        return {}
    short = row.isl == row.osl == 0.9 * 1024
    if row.data > 1:
        if row.family == "DeepSeek":
            return {"rank_wait_steps": 60}
        return {"rank_wait_steps": 50, "rank_gather_steps": 10} if row.family == "gpt-oss-120b" and row.machine in BLACKWELL else {}
    if row.family.startswith("Llama") and short and row.tensor < 8:
        return {"batch_wait_steps": 20, "batch_wait_ratio": 0.9}
    if row.borrowed and short and not row.drafts and 64 <= row.concurrency < 256:
        return {"batch_wait_steps": 40, "batch_wait_ratio": 0.8}
    return {}


def prompt_tokens_of(row: Served) -> int:
    """Return the tokens of a step, whatever the clients, as the scripts say; SGLang's of chunked-prefill-size or max-prefill-tokens, the less [token]."""
    if row.engine == "trtllm":
        return 16384 if row.family.startswith("Llama") else 20000 if row.family == "gpt-oss-120b" else 8192
    if row.engine == "vllm" or not row.drawn:
        return 8192
    if row.family == "DeepSeek":
        less = row.precision == "fp4" or row.drafts > 0
        return 16384 if less else 8192 if row.machine in BLACKWELL and row.tensor == 4 else 32768
    if row.family == "Qwen3.5-397B":
        less = row.machine == "h200-sxm" or (row.machine == "b300-sxm" and row.precision == "fp8")
        return 16384 if less else 32768
    return 32768 if row.family == "GLM-5" and row.machine in BLACKWELL else 8192


def receive_interval_of(row: Served) -> int:
    """Return every how many decode steps SGLang looks for requests, as its scripts for Blackwell say [-]."""
    if row.engine != "sglang" or row.machine not in BLACKWELL or row.family not in ("DeepSeek", "Qwen3.5-397B"):
        return 1
    always = {("b200-sxm", "fp4"): 30, ("b300-sxm", "fp8"): 10} if row.family == "Qwen3.5-397B" else {}
    return always.get((row.machine, row.precision), 30 if row.concurrency >= 16 else 10)


def graph_tokens_of(row: Served) -> int:
    """Return how many tokens a step with prompts has at most that runs from a graph, as the scripts say, or the engine by itself [token]."""
    if row.family == "gpt-oss-120b" and row.engine == "vllm":
        return 2048
    if row.family == "DeepSeek" and row.engine == "trtllm" and row.borrowed:
        answers = {(1024, 1024): (5, 64), (1024, 8192): (9, 128), (8192, 1024): (17, 64)}
        few, many = answers.get((round(row.isl / 0.9), round(row.osl / 0.9)), (MANY, MANY))
        if row.concurrency >= (few if row.drafts else many):
            return MANY
    return profile_of(row).graphs.prefill_tokens or 0
