"""The tables of exchanges of tokens between the devices of their experts: DeepEP's kernels, and TensorRT-LLM's over NVLink.

Tokens are those of one rank. DeepEP's low-latency table proves it, and the formats: bandwidth times time is 2 B · hidden · topk · tokens for
the combination, and (1 + 4/128) B · hidden + 16 B for a dispatched row, in fp8 with a scale of 128 elements. So both times are in µs. Its
normal kernels dispatch in 0.52–0.57 of the time that they combine, in fp8 as well. TensorRT-LLM's take 16 k tokens of bf16 to 7.1 of 63 devices
at 490 GB/s, and fp8 and nvfp4 in 0.53 and 0.36 of the time.
"""

import numpy as np

from roofline.kernel_tables.columns import Columns
from roofline.kernel_tables.times import UNITS

NVLINK_PHASES = ("alltoall_dispatch", "alltoall_combine")

_PREPARE = "alltoall_prepare"  # tells devices what they get, before the dispatch of the same tokens
_ROW_BYTES = {"bfloat16": 2.0, "fp8": 1 + 4 / 128, "nvfp4": 0.5 + 1 / 16}
"""Label of dispatched rows → size of an element, scales included [B]. Results are combined in bf16."""

_NODES = {"NVIDIA GB200": 4, "NVIDIA GB300": 4}
"""Device → GPUs of a node; eight of all others."""

_COLUMNS = {"ll": "{}_avg_t_us", "normal": "{}_transmit_us"}
_UNITS_USED = 20
"""DeepEP's default number of SMs; other rows of the table of normal kernels are left out."""


def exchanged_bytes(tokens: np.ndarray, row: np.ndarray, *, ranks: np.ndarray, top_k: np.ndarray, copies: bool) -> np.ndarray:
    """Return what a rank starts from: each token once for every device with an expert of it, or in low latency once for every expert [B].

    Examples
    --------
    >>> exchanged_bytes(np.array([1024]), np.array([14336]), ranks=np.array([8]), top_k=np.array([8]), copies=True).tolist()
    [117440512.0]
    """
    reached = top_k if copies else ranks * (1 - (1 - 1 / ranks) ** top_k)
    size: np.ndarray = np.rint(tokens * row * reached)
    return size


def _all_to_all(used: np.ndarray) -> np.ndarray:
    """Return the collective of marked rows, and None, which leaves a row out, for all others."""
    op = np.full(used.shape, None, dtype=object)
    op[used] = "all_to_all"
    return op


def read_deepep(table: Columns, *, mode: str, phase: str) -> dict[str, np.ndarray]:
    """Read one direction of DeepEP's kernels."""
    ranks = table["node_num"] * np.array([_NODES.get(name, 8) for name in table["device"].tolist()])
    row = table["hidden_size"] * _ROW_BYTES["fp8" if phase == "dispatch" else "bfloat16"]
    size = exchanged_bytes(table["num_token"], row, ranks=ranks, top_k=table["num_topk"], copies=mode == "ll")
    used = table["op_name"] == mode
    if mode == "normal":
        used &= table[f"{phase}_sms"] == _UNITS_USED
    return {"size": size, "ranks": ranks, "op": _all_to_all(used)}


def deepep_seconds(table: Columns, *, mode: str, phase: str) -> np.ndarray:
    """Return the times of one direction [s]."""
    return table[_COLUMNS[mode].format(phase)] / UNITS["us"]


def read_nvlink(table: Columns) -> dict[str, np.ndarray]:
    """Read TensorRT-LLM's kernels; the combination in low precision is left out, which is slower up to a thousand tokens."""
    there = table["op_name"] == NVLINK_PHASES[0]
    row = table["hidden_size"] * np.where(
        there, [_ROW_BYTES.get(label, np.nan) for label in table["moe_dtype"].tolist()], _ROW_BYTES["bfloat16"]
    )
    size = exchanged_bytes(table["num_tokens"], row, ranks=table["moe_ep_size"], top_k=table["topk"], copies=False)
    used = np.isin(table["op_name"].astype(str), NVLINK_PHASES) & np.isfinite(size)
    return {"size": np.where(used, size, 1), "ranks": table["moe_ep_size"], "op": _all_to_all(used)}


def nvlink_seconds(table: Columns) -> np.ndarray:
    """Return the times of the rows; of a dispatch with what prepares it [s]."""
    names = ("kernel_source", "moe_dtype", "num_tokens", "hidden_size", "topk", "num_experts", "moe_ep_size")
    places = list(zip(*(table[name].tolist() for name in names), strict=True))
    spent = dict(zip(zip(table["op_name"].tolist(), places, strict=True), table["latency"].tolist(), strict=True))
    before = [
        spent.get((_PREPARE, place), 0.0) if op == NVLINK_PHASES[0] else 0.0 for op, place in zip(table["op_name"], places, strict=True)
    ]
    seconds: np.ndarray = (table["latency"] + np.array(before)) / UNITS["ms"]
    return seconds
