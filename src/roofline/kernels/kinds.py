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
from roofline.kernels.kind import Kind, Size, words
from roofline.ops import Op

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
"""Collectives that are counted. Their size is the total as nccl-tests has it: all that a rank ends up with (all-gather) or
starts from (the other three)."""


def _attention(*, window: int, visible: str, span: int, **sizes: Any) -> Op:
    """Count attention as tables describe it, where a sliding window is a size rather than a visibility."""
    seen: dict[str, Any] = {"visible": "window", "span": window} if window and visible == "causal" else {"visible": visible, "span": span}
    return count_attention(**sizes, **seen)


_SEQUENCES = (
    Size("batch", words("batch_size bs bsz b batches sequences num_sequences num_seqs n_seqs num_requests num_reqs")),
    Size(
        "context",
        words(
            "context_len context_length context_tokens ctx ctx_len ctx_length cached cached_len cached_tokens num_cached_tokens cache_len "
            "cache_seqlen cache_seqlens kv_cache_len past past_len past_kv_len past_key_values_length prefix prefix_len history history_len "
            "num_computed_tokens"
        ),
        0,
        least=0,
    ),
    Size(
        "new",
        words(
            "new_tokens num_new_tokens query query_len query_length query_tokens q_len q_length q_tokens q_seq_len q_seqlen qo_len s_q s_qo "
            "seqlen_q seq_len_q max_seqlen_q len_q t_q l_q"
        ),
        1,
    ),
)
_QUERIES = (
    *_SEQUENCES,
    Size(
        "heads",
        words(
            "num_heads n_heads n_head nhead nheads num_attention_heads num_head head_num q_heads num_q_heads n_q_heads query_heads "
            "num_query_heads qo_heads num_qo_heads heads_q num_heads_q nheads_q nhead_q h h_q"
        ),
        fixed=True,
    ),
)
_FORMATS = {"format": "", "weights": ""}
_TOKENS = "batch {batch:.0f}, {new:.0f} after {context:.0f} tokens"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "matmul",
            (
                Size("m", words("tokens num_tokens")),
                Size("n", words("out_features output_size")),
                Size("k", words("in_features input_size")),
                Size("batch", words("b batch_size batch_count bs l"), 1, fixed=True),
            ),
            {**_FORMATS, "output": ""},
            "{m:.0f} × {n:.0f} × {k:.0f}",
            count_matmul,
        ),
        Kind(
            "latent_attention",
            (
                *_QUERIES,
                Size("rank", words("kv_lora_rank latent_dim head_dim_ckv ckv_dim"), 512, fixed=True),
                Size("nope_dim", words("qk_nope_head_dim nope_head_dim"), 128, fixed=True),
                Size("rope_dim", words("qk_rope_head_dim rope_head_dim head_dim_kpe kpe_dim"), 64, fixed=True),
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
                Size(
                    "kv_heads",
                    words(
                        "num_kv_heads n_kv_heads n_kv_head kv_head kv_num_heads kv_head_num num_key_value_heads key_value_heads heads_kv "
                        "num_heads_kv nheads_kv nhead_kv n_head_kv h_kv heads_k num_heads_k nheads_k nhead_k num_k_heads h_k"
                    ),
                    "heads",
                    fixed=True,
                ),
                Size(
                    "head_dim",
                    words("head_size d_head d dh headdim hdim dim_head head_dim_qk hdim_q hdim_k d_qk size_per_head"),
                    fixed=True,
                ),
                Size(
                    "v_head_dim",
                    words("head_dim_v head_dim_vo headdim_v hdim_v hdim_vo v_dim d_v d_vo v_head_size"),
                    "head_dim",
                    fixed=True,
                ),
                Size("window", words("window_size sliding_window sliding_window_size window_left"), 0, least=0, fixed=True),
                Size("span", (), 0, least=0, fixed=True),
            ),
            {"kv": "", "activations": "", "visible": "causal"},
            f"{_TOKENS}, heads {{heads}}/{{kv_heads}} × {{head_dim}}",
            _attention,
        ),
        Kind(
            "experts",
            (
                Size("tokens", words("num_tokens n_tokens m batch_size bs")),
                Size("hidden", words("hidden_size hidden_dim d_model"), fixed=True),
                Size("intermediate", words("intermediate_size inter_size inter_dim moe_intermediate_size ffn_dim"), fixed=True),
                Size("count", words("experts num_experts n_experts e"), fixed=True),
                Size("top_k", words("topk num_topk experts_per_token num_experts_per_tok"), fixed=True),
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
            (
                Size("size", words("bytes nbytes size_bytes message_bytes msg_bytes size_b")),
                Size("ranks", words("num_gpus world_size gpus nranks n_ranks num_ranks tp tp_size devices num_devices"), fixed=True),
            ),
            {"op": ""},
            "{op} of {size:,.0f} bytes over {ranks} ranks",
            count_collective,
        ),
        Kind(
            "state",
            (
                *_SEQUENCES,
                Size("heads", words("value_heads num_v_heads num_heads n_heads nheads h"), fixed=True),
                Size("key_heads", words("num_k_heads ngroups n_groups"), "heads", fixed=True),
                Size("key_dim", words("head_k_dim key_head_dim d_state state_dim state_size"), fixed=True),
                Size("value_dim", words("head_v_dim value_head_dim head_dim headdim dim"), "key_dim", fixed=True),
                Size("retrieves", ("delta_rule",), 1, least=0, fixed=True),
            ),
            {"state": "fp32", "activations": "bf16"},
            f"{_TOKENS}, state {{heads}} × {{key_dim}} × {{value_dim}}",
            count_state,
        ),
        Kind(
            "convolution",
            (
                *_SEQUENCES,
                Size("channels", words("conv_channels conv_dim"), fixed=True),
                Size("taps", words("d_conv conv_kernel kernel_size"), 4, fixed=True),
            ),
            {"stream": ""},
            f"{_TOKENS}, {{taps}} taps on {{channels}} channels",
            count_convolution,
        ),
        Kind(
            "rowwise",
            (
                Size("rows", words("num_rows tokens num_tokens")),
                Size("width", words("row_width hidden hidden_size hidden_dim")),
                Size("inputs", words("num_inputs"), 1, fixed=True),
            ),
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
