"""Step times for BLIS, the simulator of github.com/inference-sim/inference-sim: an entry of hardware_config.json, and a table of latencies.

The entry serves ``--latency-model roofline`` of BLIS. The table is a kernel_profile.yaml for the latency model "kernel-lookup", which is in
branches of BLIS and not in its main branch; JSON is YAML, so it is written as JSON.
"""

import json

import numpy as np

from roofline import Deployment, StepTime, decode_estimate, decode_floor, mfu, prefill_estimate, prefill_floor
from roofline.engines import load_engine

MICROSECONDS = 1e6
SEQUENCE_S = load_engine("vllm").host.sequence_s or 0.0  # what the host of vLLM takes for each sequence of a step
# --beta-coeffs: the table's times as they are, and the host's for each request
GAMMA = (1, 1, 1, 0, 0, 0, 0, SEQUENCE_S * MICROSECONDS, 0, 0)


def hardware_entry(deployment, prompt=8192, context=2048):
    """Return the entry of a machine: rates of its datasheet, and the shares of them that estimates of this deployment reach."""
    machine = deployment.machine
    floor, estimate = decode_floor(deployment, context=context), decode_estimate(deployment, context=context)
    reached = mfu(prefill_floor(deployment, prompt=prompt), prefill_estimate(deployment, prompt=prompt).time_s)
    return {
        "TFlopsPeak": machine.peak("bf16").value / 1e12,
        "BwPeakTBs": machine.memory_bandwidth / 1e12 * floor.time_s / estimate.time_s,  # BLIS has no share of the bandwidth
        "mfuPrefill": reached,
        "mfuDecode": reached,
        "MemoryGiB": machine.memory_capacity / 2**30,
    }


def kernel_profile(deployment, sequences=256, step_tokens=8192, longest=32768):
    """Return the table: microseconds of one layer by tokens, by prompts × length, and by decodes × context.

    All that does not depend on contexts, collectives and the host's time of a step included, is in `gemm`; what the host takes for each sequence is in `GAMMA`.
    """
    time, layers = StepTime(deployment), deployment.model.num_layers
    tokens = np.unique(np.geomspace(1, step_tokens, 27).round())
    decodes = np.unique(np.geomspace(1, sequences, 9).round())
    prompts, lengths = np.array([1.0, 2, 4, 8]), np.geomspace(16, longest, 12).round()
    contexts = np.concatenate([[0.0], np.geomspace(64, longest, 10).round()])

    def without_context(count):  # up to the most sequences decodes, and beyond short prompts
        short = np.where(count > sequences, 16, 1)
        return time((count / short)[..., None], short[..., None], 0) - count / short * SEQUENCE_S

    def per_layer(seconds):
        return (np.maximum(seconds, 0) / layers * MICROSECONDS).tolist()

    # a prompt longer than a step is computed in several, which BLIS charges its attention each: the table holds a step's share
    steps = np.ceil(prompts * lengths[:, None] / step_tokens)
    whole = time(np.broadcast_to(prompts, steps.shape)[..., None], lengths[:, None, None], 0) - prompts * SEQUENCE_S
    context = decodes * contexts[:, None]
    return {
        "gpu": deployment.machine.id,
        "backend": "roofline",
        "version": "1",
        "model": deployment.model.name,
        "tp": deployment.parallel.tensor,
        "num_layers": layers,
        "num_moe_layers": 0,
        "num_dense_layers": layers,
        "hidden_dim": deployment.model.hidden_size,
        "gemm": {"tokens": tokens.tolist(), "latency_us": per_layer(without_context(tokens))},
        "context_attention": {
            "batch_size": prompts.tolist(),
            "isl": lengths.tolist(),
            "latency_us": per_layer(whole / steps - without_context(np.broadcast_to(prompts * lengths[:, None] / steps, steps.shape))),
        },
        "generation_attention": {
            "tokens": decodes.tolist(),
            "context": contexts.tolist(),
            "latency_us": per_layer(time.decode(decodes, context) - decodes * SEQUENCE_S - without_context(decodes)),
        },
        "allreduce": {"tokens": [1.0], "latency_us": [0.0]},
    }


if __name__ == "__main__":
    served = Deployment("llama-3.1-8b", "h100-sxm")
    print(json.dumps({"H100-SXM": hardware_entry(served)}, indent=2))
    print(json.dumps(kernel_profile(served)))
