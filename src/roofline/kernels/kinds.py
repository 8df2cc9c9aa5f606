"""The kinds of kernels by name."""

from typing import Any

from roofline.frozen import FrozenDict
from roofline.kernels.counting import (
    count_attention,
    count_collective,
    count_convolution,
    count_experts_of_rank,
    count_latent_attention,
    count_matmul,
    count_rowwise,
    count_state,
)
from roofline.kernels.kind import Kind, Size
from roofline.ops import Op

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
"""Collectives that are counted. Their size is the total as nccl-tests has it: all that a rank ends up with (all-gather) or
starts from (the other three)."""


def _attention(*, window: int, visible: str, span: int, **sizes: Any) -> Op:
    """Count attention as tables describe it, where a sliding window is a size rather than a visibility."""
    seen: dict[str, Any] = {"visible": "window", "span": window} if window and visible == "causal" else {"visible": visible, "span": span}
    return count_attention(**sizes, **seen)


_SEQUENCES = (
    Size("batch", ("batch_size", "bs", "sequences", "num_seqs")),
    Size("context", ("cached", "past", "context_len", "kv_len", "past_len"), 0, least=0),
    Size("new", ("query_len", "new_tokens", "q_len"), 1),
)
_QUERIES = (*_SEQUENCES, Size("heads", ("num_heads", "q_heads", "num_attention_heads", "num_q_heads"), fixed=True))
_FORMATS = {"format": "", "weights": ""}
_TOKENS = "batch {batch:.0f}, {new:.0f} after {context:.0f} tokens"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("matmul", (Size("m"), Size("n"), Size("k")), _FORMATS, "{m:.0f} × {n:.0f} × {k:.0f}", count_matmul),
        Kind(
            "latent_attention",
            (
                *_QUERIES,
                Size("rank", ("kv_lora_rank", "latent_dim"), 512, fixed=True),
                Size("nope_dim", ("qk_nope_head_dim",), 128, fixed=True),
                Size("rope_dim", ("qk_rope_head_dim",), 64, fixed=True),
                Size("v_head_dim", (), 128, fixed=True),
            ),
            {"kv": "", "activations": ""},
            f"{_TOKENS}, {{heads}} heads",
            count_latent_attention,
        ),
        Kind(
            "attention",
            (
                *_QUERIES,
                Size("kv_heads", ("num_kv_heads", "num_key_value_heads"), "heads", fixed=True),
                Size("head_dim", ("head_size", "d_head"), fixed=True),
                Size("v_head_dim", (), "head_dim", fixed=True),
                Size("window", ("window_size", "sliding_window"), 0, least=0, fixed=True),
                Size("span", (), 0, least=0, fixed=True),
            ),
            {"kv": "", "activations": "", "visible": "causal"},
            f"{_TOKENS}, heads {{heads}}/{{kv_heads}} × {{head_dim}}",
            _attention,
        ),
        Kind(
            "experts",
            (
                Size("tokens", ("num_tokens",)),
                Size("hidden", ("hidden_size",), fixed=True),
                Size("intermediate", ("intermediate_size", "inter_size", "moe_intermediate_size"), fixed=True),
                Size("count", ("experts", "num_experts"), fixed=True),
                Size("top_k", ("topk", "experts_per_token", "num_experts_per_tok"), fixed=True),
                Size("tp", ("moe_tp_size", "tp_size"), 1, fixed=True),
                Size("ep", ("moe_ep_size", "ep_size"), 1, fixed=True),
                Size("gated", (), 1, least=0, fixed=True),
                Size("exponent", (), 0, least=0, fixed=True),
            ),
            {**_FORMATS, "routing": "best"},
            "{tokens:.0f} tokens, {top_k} of {count} experts {hidden} × {intermediate}, tp {tp} ep {ep}",
            count_experts_of_rank,
        ),
        Kind(
            "collective",
            (Size("size", ("bytes", "size_bytes", "message_bytes")), Size("ranks", ("num_gpus", "world_size", "gpus"), fixed=True)),
            {"op": ""},
            "{op} of {size:,.0f} bytes over {ranks} ranks",
            count_collective,
        ),
        Kind(
            "state",
            (
                *_SEQUENCES,
                Size("heads", ("value_heads", "num_v_heads", "num_heads"), fixed=True),
                Size("key_heads", ("num_k_heads",), "heads", fixed=True),
                Size("key_dim", ("head_k_dim", "key_head_dim", "d_state"), fixed=True),
                Size("value_dim", ("head_v_dim", "value_head_dim"), "key_dim", fixed=True),
                Size("retrieves", ("delta_rule",), 1, least=0, fixed=True),
            ),
            {"state": "fp32", "activations": "bf16"},
            f"{_TOKENS}, state {{heads}} × {{key_dim}} × {{value_dim}}",
            count_state,
        ),
        Kind(
            "convolution",
            (*_SEQUENCES, Size("channels", ("conv_channels",), fixed=True), Size("taps", ("d_conv", "conv_kernel"), 4, fixed=True)),
            {"stream": ""},
            f"{_TOKENS}, {{taps}} taps on {{channels}} channels",
            count_convolution,
        ),
        Kind(
            "rowwise",
            (Size("rows", ("num_rows",)), Size("width", ("row_width",)), Size("inputs", ("num_inputs",), 1, fixed=True)),
            {"activations": "", "output": ""},
            "{rows:.0f} rows of {width:.0f}",
            count_rowwise,
        ),
    )
}
"""Kinds of kernels by name. Sizes mean what they mean to :func:`~roofline.floors.matmul_floor`,
:func:`~roofline.floors.attention_floor`, :func:`~roofline.floors.latent_attention_floor` and :func:`~roofline.floors.experts_floor`.
The heads of a state are those of values; `retrieves` is 1 for the delta rule, which first takes out what the key retrieves, and 0 for Mamba-2
and plain linear attention; a state that was not there before a step is written only. `inputs` of a row-wise kernel counts the rows in for one
row out: 2 for a gate or a residual; `output` is the format of that row, that of `activations` if empty."""
KINDS = FrozenDict(KINDS)


def count_op(kind: str, **arguments: Any) -> Op:
    """Return what kernels of one kind cost.

    Parameters
    ----------
    kind : str
        A key of ``KINDS`` [-].
    **arguments : int, str or numpy.ndarray
        Its sizes and options; those with a default may be left out [-].

    Returns
    -------
    Op
        The cost of one kernel, or of each kernel where sizes are arrays [-].

    Raises
    ------
    InvalidValueError
        If a size is missing or impossible.

    Examples
    --------
    >>> count_op("matmul", m=16, n=4096, k=4096, format="bf16", weights="bf16").flops
    536870912
    """
    return KINDS[kind].count(**KINDS[kind].with_defaults(arguments))
