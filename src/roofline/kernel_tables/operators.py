"""What a row of a table of measured kernels asks for: the operator, by the arguments of the function that counts it."""

from dataclasses import replace
from typing import Any

import numpy as np

from roofline.arithmetic import Number
from roofline.floors import attention_floor, experts_floor, latent_attention_floor, matmul_floor
from roofline.formats import Format
from roofline.kernel_tables.kind import SEQUENCES, Column, Kind
from roofline.kernel_tables.layers import LAYER_KINDS
from roofline.ops import Op, all_reduce, busiest_rank, exchange, fused_experts

_ANY: dict[str, Any] = {"memory_bandwidth": 1e12}  # what an operator costs is the same on every machine

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
"""Collectives that have a floor. The size is the total as nccl-tests has it: all that a rank ends up with (all-gather) or
starts from (the other three)."""


POWER_LAW = "power_law"
"""Routing of a mixture that was measured under a synthetic popularity, see :func:`roofline.ops.busiest_rank`: balanced if its
exponent is 0."""


def _matmul(*, m: Number, n: Number, k: Number, format: str, weights: str, output: str | None = None) -> Op:
    return matmul_floor(m, n, k, **_ANY, format=format, weights=weights, output=output).op


def _attention(*, window: int, visible: str, span: int, **sizes: Any) -> Op:
    seen: dict[str, Any] = {"visible": "window", "span": window} if window and visible == "causal" else {"visible": visible, "span": span}
    return attention_floor(**_ANY, **sizes, **seen).op


def _latent_attention(**sizes: Any) -> Op:
    return latent_attention_floor(**_ANY, **sizes).op


def _experts(
    *,
    tokens: Number,
    hidden: int,
    intermediate: int,
    count: int,
    top_k: int,
    tp: int,
    ep: int,
    gated: int,
    routing: str,
    exponent: float,
    **rest: Any,
) -> Op:
    """Count a mixture of experts on the rank that was measured.

    Tensor parallelism leaves a rank 1/tp of each expert's width. Expert parallelism leaves it 1/ep of the experts and, being
    the busiest, at least T · k/ep visits. All T tokens may share them, which touches the fewest experts; or as few tokens as
    can make so many visits. So the weights are counted for T tokens with k/ep visits each, and tokens in and out for the fewest.
    Routing by a power law is no bound but what was run: the visits of the busiest rank.
    """
    shape: dict[str, Any] = {"hidden": hidden, "intermediate": intermediate // tp, "count": count // ep, "gated": bool(gated)}
    if routing == POWER_LAW:
        visits, touched = busiest_rank(np.asarray(tokens).astype(int), count=count, top_k=top_k, ranks=ep, exponent=exponent)
        rows, stored = Format.load(rest["format"]), Format.load(rest["weights"])
        formats: dict[str, Any] = {"weights": stored, "activations": rows, "stream": rows if rows.bits >= 16 else Format.load("bf16")}
        return fused_experts("experts", visits=visits, touched=touched, **shape, **formats, ranks=ep, routed=tokens * top_k)
    given: dict[str, Any] = _ANY | rest | shape | {"routing": routing}
    op = experts_floor(tokens, **given, top_k=top_k / ep).op
    least = min(top_k, shape["count"])
    if least == top_k / ep:
        return op
    few = experts_floor(np.ceil(tokens * (top_k / ep) / least).astype(int), **given, top_k=least).op
    return replace(op, input_bytes=few.input_bytes, output_bytes=few.output_bytes)


def _collective(*, size: Number, ranks: int, op: str) -> Op:
    """Count a collective over scale-up links.

    What a rank has stays with it in part: all-gather, reduce-scatter and all-to-all leave 1/t of the bytes where they are,
    which is what tokens that visit one device of t do. An all-gather that the switch multiplies sends less; it receives as much.
    """
    if op == "all_reduce":
        return all_reduce(op, size, ranks=ranks, domain=ranks)
    return exchange(op, size, ranks=ranks, visits=1, domain=ranks)


_STEP = (
    *SEQUENCES,
    Column("heads", ("num_heads", "q_heads", "num_attention_heads", "num_q_heads"), fixed=True),
)
_WEIGHTED = {"format": "", "weights": ""}

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("matmul", (Column("m"), Column("n"), Column("k")), _WEIGHTED, "{m:.0f} × {n:.0f} × {k:.0f}", _matmul),
        Kind(
            "attention",
            (
                *_STEP,
                Column("kv_heads", ("num_kv_heads", "num_key_value_heads"), "heads", fixed=True),
                Column("head_dim", ("head_size", "d_head"), fixed=True),
                Column("v_head_dim", (), "head_dim", fixed=True),
                Column("window", ("window_size", "sliding_window"), 0, least=0, fixed=True),
                Column("span", (), 0, least=0, fixed=True),
            ),
            {"kv": "", "activations": "", "visible": "causal"},
            "batch {batch:.0f}, {new:.0f} after {context:.0f} tokens, heads {heads}/{kv_heads} × {head_dim}",
            _attention,
        ),
        Kind(
            "latent_attention",
            (
                *_STEP,
                Column("rank", ("kv_lora_rank", "latent_dim"), 512, fixed=True),
                Column("nope_dim", ("qk_nope_head_dim",), 128, fixed=True),
                Column("rope_dim", ("qk_rope_head_dim",), 64, fixed=True),
                Column("v_head_dim", (), 128, fixed=True),
            ),
            {"kv": "", "activations": ""},
            "batch {batch:.0f}, {new:.0f} after {context:.0f} tokens, {heads} heads",
            _latent_attention,
        ),
        Kind(
            "experts",
            (
                Column("tokens", ("num_tokens",)),
                Column("hidden", ("hidden_size",), fixed=True),
                Column("intermediate", ("intermediate_size", "inter_size", "moe_intermediate_size"), fixed=True),
                Column("count", ("experts", "num_experts"), fixed=True),
                Column("top_k", ("topk", "experts_per_token", "num_experts_per_tok"), fixed=True),
                Column("tp", ("moe_tp_size", "tp_size"), 1, fixed=True),
                Column("ep", ("moe_ep_size", "ep_size"), 1, fixed=True),
                Column("gated", (), 1, least=0, fixed=True),
                Column("exponent", (), 0, least=0, fixed=True),
            ),
            {**_WEIGHTED, "routing": "best"},
            "{tokens:.0f} tokens, {top_k} of {count} experts {hidden} × {intermediate}, tp {tp} ep {ep}",
            _experts,
        ),
        Kind(
            "collective",
            (Column("size", ("bytes", "size_bytes", "message_bytes")), Column("ranks", ("num_gpus", "world_size", "gpus"), fixed=True)),
            {"op": ""},
            "{op} of {size:,.0f} bytes over {ranks} ranks",
            _collective,
        ),
        *LAYER_KINDS,
    )
}
"""Kinds of kernels by name. Rows of one group share what their kind calls fixed; sizes mean what they mean to
:func:`~roofline.floors.matmul_floor`, :func:`~roofline.floors.attention_floor`, :func:`~roofline.floors.latent_attention_floor`,
:func:`~roofline.floors.experts_floor`, :func:`~roofline.ops.all_reduce` and :func:`~roofline.ops.exchange`; those of the other
kernels of a layer are said in :mod:`roofline.kernel_tables.layers`."""


def count_op(kind: str, **arguments: Any) -> Op:
    """Return what kernels of one kind cost.

    Examples
    --------
    >>> count_op("matmul", m=16, n=4096, k=4096, format="bf16", weights="bf16").flops
    536870912
    """
    return KINDS[kind].op(**KINDS[kind].filled(arguments))
