"""What is wrong with the kernel tables, by name and with the evidence."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from measured_tables import Lane, Table


@dataclass(frozen=True, slots=True)
class Defect:
    """Rows whose label cannot be true, and what they look like instead."""

    family: str
    framework: str
    version: str
    gpus: tuple[str, ...]
    where: dict[str, Any]
    """Columns and the values that they have in the rows."""
    meant: dict[str, Any]
    """Arguments of the floor that the rows are consistent with."""
    beaten: tuple[str, ...]
    """Those of `gpus` where rows are faster than the floor of what the label says."""
    evidence: str

    def rows(self, lane: Lane, table: Table) -> np.ndarray:
        """Mark the rows it covers."""
        if (lane.family, lane.framework, lane.version) != (self.family, self.framework, self.version) or lane.gpu not in self.gpus:
            return np.zeros(len(table["window_size"]), bool)
        return np.logical_and.reduce([table[column] == value for column, value in self.where.items()])


def defective(lane: Lane, table: Table) -> np.ndarray:
    """Mark the rows that some named defect covers."""
    return np.logical_or.reduce([defect.rows(lane, table) for defect in DEFECTS.values()])


GROUPED = ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300", "rtx_pro_6000_server", "l40s")
BALANCED_DEEPSEEK = {
    "distribution": "balanced",
    "hidden_size": 7168,
    "inter_size": 2048,
    "topk": 8,
    "num_experts": 256,
    "moe_ep_size": 1,
}

DEFECTS = {
    "a100-trtllm-kv": Defect(
        family="generation_attention",
        framework="trtllm",
        version="1.0.0",
        gpus=("a100_sxm",),
        where={"kv_cache_dtype": "bfloat16"},
        meant={"kv": "fp8"},
        beaten=("a100_sxm",),
        evidence=(
            "The label says a bf16 cache. Grouped-query shapes then read it at up to 1.69 times the HBM peak, with up to 4.3 GB per call, "
            "a hundred times the L2. With one byte per entry that is 0.85 of the peak, where decode kernels end on every GPU. vLLM takes "
            "1.8 times as long for the same shapes (median above 1 GB). Multi-head shapes at long context stay at 0.86 of the peak, so the "
            "label may be true of some rows; which ones cannot be told."
        ),
    ),
    "sglang-head-192": Defect(
        family="generation_attention",
        framework="sglang",
        version="0.5.14",
        gpus=("h100_sxm", "h200_sxm", "l40s", "rtx_pro_6000_server"),
        where={"head_dim": 192},
        meant={"v_head_dim": 128},
        beaten=("h100_sxm",),
        evidence=(
            "If values are as wide as keys, rows on H100 read up to 1.07 times the HBM peak, and on the other GPUs this lane alone gets to "
            "0.95–0.98 of the floor, all others to 0.84–0.93. The model of this shape (MiMo-V2-Flash: head_dim 192, window 128) has "
            "v_head_dim 128, which brings the lane into line. SGLang takes 0.82–0.97 of vLLM's time here (medians above 0.5 GB, bf16) and "
            "0.96–1.06 at the other head widths."
        ),
    ),
    "sglang-chunk-8192": Defect(
        family="context_attention",
        framework="sglang",
        version="0.5.14",
        gpus=("h100_sxm", "h200_sxm"),
        where={"window_size": 8192},
        meant={"visible": "chunk", "span": 8192},
        beaten=(),
        evidence=(
            "As a sliding window, prompts of 12288 tokens reach 982 TFLOP/s, 92 % of what bf16 products reach at the highest clock, where no "
            "other prefill attention on these GPUs exceeds 74 %. The shapes (heads 40/8 × 128 and their shards) are Llama 4's, whose attention is local to chunks of "
            "8192 tokens: 0.62 times the pairs at that length."
        ),
    ),
    "sglang-int8-weight-only": Defect(
        family="gemm",
        framework="sglang",
        version="0.5.6.post2",
        gpus=("h100_sxm",),
        where={"gemm_dtype": "int8_wo"},
        meant={"format": "int8", "weights": "int8"},
        beaten=("h100_sxm",),
        evidence=(
            "The label says weight-only, which multiplies in bf16, at most 1070 TFLOP/s at the highest clock. Rows reach 1176 TFLOP/s, so the "
            "products run in int8 or fp8."
        ),
    ),
    "sglang-grouped-experts": Defect(
        family="balanced_moe",
        framework="sglang",
        version="0.5.14",
        gpus=GROUPED[:-1],
        where=BALANCED_DEEPSEEK,
        meant={"count": 128, "top_k": 4},
        beaten=GROUPED[:-1],
        evidence=(
            "The label says balanced, so that 32 tokens visit each of 256 experts once: 11.3 GB of fp8 weights, 3.35 ms on H100. Rows of "
            "32–192 tokens take 1.90–1.98 ms, hardly more than half of it, while the skewed rows of the same table take 2.4–3.0 ms above "
            "32 tokens, SGLang 0.5.10 takes 3.78 ms and TensorRT-LLM 3.70 ms at 32. On H100 no balanced row of any other shape is below. "
            "This one is DeepSeek-V3's, whose router keeps 4 of 8 groups of experts: balanced logits favour one expert in every group, so "
            "4 of the 8 choices fall away, and the places of those go to whichever experts win a tie, the same for every token."
        ),
    ),
    "vllm-grouped-experts": Defect(
        family="balanced_moe",
        framework="vllm",
        version="0.24.0",
        gpus=GROUPED,
        where=BALANCED_DEEPSEEK,
        meant={"count": 128, "top_k": 4},
        beaten=GROUPED,
        evidence=(
            "As in SGLang 0.5.14: rows of 32–192 tokens take 1.96–2.05 ms on H100 where reading every expert takes 3.35 ms, and the skewed "
            "rows 2.4–3.1 ms above 32 tokens. The older tables of vLLM 0.19.0 (H200, B200) and 0.22.0 (B200) have no such row."
        ),
    ),
    "trtllm-min-latency": Defect(
        family="balanced_moe",
        framework="trtllm",
        version="1.3.0rc20",
        gpus=("b200_sxm", "gb200"),
        where={"distribution": "balanced", "kernel_source": "moe_torch_flow_min_latency"},
        meant={"routing": "best"},
        beaten=("b200_sxm", "gb200"),
        evidence=(
            "1, 2 and 4 tokens through 8 experts (6144 × 16384, 2 each, nvfp4) take the same 47 µs on B200, though balanced routing gives "
            "them 2, 4 and 8 experts, whose weights take 42, 85 and 170 µs. So the tokens agree on their experts more than the label says; "
            "how far cannot be told from the table. If all agree, no row is below."
        ),
    ),
}
"""What is wrong with a table, by name. A lane is listed where its label is refuted; on other GPUs of the same lane it is
left out too, since a tight ratio there would be no evidence for the floor."""
