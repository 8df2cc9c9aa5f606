"""Every amount of operators, counted by hand: of layers of published configurations, and of single kernels of every kind."""

import numpy as np
import pytest

from roofline import Format, InvalidValueError, attention_floor, decode_floor, ops
from roofline.kernels import FAMILIES, KINDS, count_op

# FLOP for each element of rows, see roofline.ops
NORM, ROTARY, GATED, SOFTMAX = 7, 3, 2, 5


def _product(rows, inputs, outputs, reads=1.0):
    """A product of rows with a matrix in 16 bit, or with as many of several as are read."""
    matrix = inputs * outputs
    return {
        "flops": 2 * rows * matrix,
        "weight_bytes": 2 * reads * matrix,
        "input_bytes": 2 * rows * inputs,
        "output_bytes": 2 * rows * outputs,
    }


def _rows(rows, width, flops, *, inputs=None, scales=0):
    """A row-wise operator in 16 bit."""
    read = width if inputs is None else inputs
    return {
        "vector_flops": flops * rows * width,
        "weight_bytes": 2 * scales,
        "input_bytes": 2 * rows * read,
        "output_bytes": 2 * rows * width,
    }


def _experts(rows, hidden, intermediate, count, top_k):
    """Gated experts that a uniform routing picks, and one that every token passes."""
    touched, visits = count * (1 - (1 - top_k / count) ** rows), rows * top_k
    return {
        "mlp.gate": _product(rows, hidden, count),
        "mlp.experts.gate_up_proj": _product(visits, hidden, 2 * intermediate, touched),
        "mlp.experts.activation": _rows(visits, intermediate, GATED, inputs=2 * intermediate),
        "mlp.experts.down_proj": _product(visits, intermediate, hidden, touched),
        "mlp.experts.combine": _rows(rows, hidden, 1, inputs=top_k * hidden),
        "mlp.shared_experts.gate_up_proj": _product(rows, hidden, 2 * intermediate),
        "mlp.shared_experts.activation": _rows(rows, intermediate, GATED, inputs=2 * intermediate),
        "mlp.shared_experts.down_proj": _product(rows, intermediate, hidden),
    }


def _block(rows, hidden, mixer="self_attn"):
    """Norms before and residuals after both halves of a layer."""
    residuals = {f"{half}.residual": _rows(rows, hidden, 1, inputs=2 * hidden) for half in (mixer, "mlp")}
    return residuals | {f"{where}_layernorm": _rows(rows, hidden, NORM, scales=hidden) for where in ("input", "post_attention")}


def _deepseek_v3(n):
    """arXiv 2412.19437, section 4.2; attention absorbed (arXiv 2405.04434), 4095 cached positions and one more for every sequence."""
    d, heads, latent = 7168, 128, 512 + 64
    attention = {
        "flops": n * 4096 * 2 * heads * (latent + 512),
        "vector_flops": n * 4096 * SOFTMAX * heads,
        "kv_read_bytes": n * 4095 * latent * 2,
        "kv_write_bytes": n * latent * 2,
        "input_bytes": 2 * n * (heads * (128 + 64) + latent),
        "output_bytes": 2 * n * heads * 128,
    }
    return {
        **_block(n, d),
        **_experts(n, d, 2048, 256, 8),
        "self_attn.fused_qkv_a_proj": _product(n, d, 1536 + latent),
        "self_attn.a_layernorms": _rows(n, 1536 + 512, NORM, scales=1536 + 512),
        "self_attn.q_b_proj": _product(n, 1536, heads * (128 + 64)),
        "self_attn.kv_b_proj": _product(n, 512, heads * (128 + 128)),
        "self_attn.rotary": _rows(n, (heads + 1) * 64, ROTARY),
        "self_attn.attention": attention,
        "self_attn.o_proj": _product(n, heads * 128, d),
    }


def _deepseek_v32(n):
    """DeepSeek-V3 with an indexer of 64 heads of 128 that selects 2048 positions (its report, section 2.1); its key's norm is a LayerNorm."""
    layer, heads, latent = _deepseek_v3(n), 64, 512 + 64
    selected = {
        "flops": 2048 * 2 * n * 128 * (latent + 512),
        "vector_flops": 2048 * n * SOFTMAX * 128,
        "kv_read_bytes": n * 2047 * latent * 2,
    }
    return {
        **{name: op for name, op in layer.items() if name != "self_attn.attention"},
        "self_attn.attention[selected 2048]": layer["self_attn.attention"] | selected,
        "self_attn.indexer.wq_b": _product(n, 1536, heads * 128),
        "self_attn.indexer.wk_weights_proj": _product(n, 7168, 128 + heads),
        "self_attn.indexer.k_norm": _rows(n, 128, NORM, scales=2 * 128),
        "self_attn.indexer.rotary": _rows(n, (heads + 1) * 64, ROTARY),
        "self_attn.indexer": {
            "flops": n * 4096 * 2 * heads * (128 + 1),
            "vector_flops": n * 4096 * heads,
            "kv_read_bytes": n * 4095 * 128 * 2,
            "kv_write_bytes": n * 128 * 2,
            "input_bytes": 2 * n * (heads * (128 + 1) + 128),
        },
    }


def _minimax_m3(n):
    """Its config.json: 16 of 32 blocks of 128 positions are seen, the last one whole; a block is selected by 4 heads and a key of 128."""
    d, heads, kv_heads, width = 6144, 64, 4, 128
    attention = {
        "flops": n * 16 * 128 * 2 * heads * 2 * width,
        "vector_flops": n * 16 * 128 * SOFTMAX * heads,
        "kv_read_bytes": n * (16 * 128 - 1) * 2 * kv_heads * width * 2,
        "kv_write_bytes": n * 2 * kv_heads * width * 2,
        "input_bytes": 2 * n * (heads + 2 * kv_heads) * width,
        "output_bytes": 2 * n * heads * width,
    }
    indexer = {
        "flops": n * 4096 * 2 * 4 * width,
        "vector_flops": n * 4096 * 4,
        "kv_read_bytes": n * 4095 * width * 2,
        "kv_write_bytes": n * width * 2,
        "input_bytes": 2 * n * (4 + 1) * width,
    }
    norms = {"q_norm": heads, "k_norm": kv_heads, "indexer.q_norm": 4, "indexer.k_norm": 1}
    return {
        **_block(n, d),
        **_experts(n, d, 3072, 128, 4),
        **{f"self_attn.{name}": _rows(n, width * several, NORM, scales=width) for name, several in norms.items()},
        "self_attn.qkv_proj": _product(n, d, (heads + 2 * kv_heads + 4 + 1) * width),
        "self_attn.rotary": _rows(n, (heads + kv_heads + 4 + 1) * width, ROTARY),
        "self_attn.indexer": indexer,
        "self_attn.attention[16 blocks of 128]": attention,
        "self_attn.o_proj": _product(n, heads * width, d),
    }


def _deepseek_v4_flash(n):
    """Its config.json: a window of 128, and 512 of the 1024 entries of 4 positions, the last of which is complete with this token."""
    d, heads, width, entry, streams = 4096, 64, 512, 512 + 128, 4
    attention = {
        "flops": n * (128 + 512) * 2 * heads * 2 * width,
        "vector_flops": n * (128 + 512) * SOFTMAX * heads,
        "kv_read_bytes": n * (127 + 511) * width * 2,  # the new row and the new entry, which may be selected, need not be read
        "kv_write_bytes": n * (1 + 1) * width * 2,
        "input_bytes": 2 * n * (heads + 1) * width,
        "output_bytes": 2 * n * heads * width,
    }
    indexer = {  # scores, and their weighted sum over 64 heads
        "flops": n * 1024 * (2 * 64 * 128 + 2 * 64),
        "vector_flops": n * 1024 * 64,
        "kv_read_bytes": n * 1023 * 128 * 2,
        "kv_write_bytes": n * 128 * 2,
        "input_bytes": 2 * n * (64 * 128 + 64 + 128),
    }
    mixed = streams * (streams + 2)  # weights of mixing streams, of collapsing and of expanding them; biases, and three scales
    connection = _product(n, streams * d, mixed) | {"vector_flops": n * (mixed + 3), "weight_bytes": 2 * (streams * d * mixed + mixed + 3)}
    connections = {
        f"{half}_hc{part}": amounts
        for half in ("attn", "ffn")
        for part, amounts in (
            ("", connection),
            (".norm", _rows(n, streams * d, NORM)),
            (".mix", _rows(n, streams * d, 2 * (streams + 2))),
        )
    }
    pool = {"vector_flops": n * (SOFTMAX + 2) * 2 * entry, "input_bytes": 2 * n * 2 * 2 * entry, "output_bytes": 2 * n * entry}
    return {
        **_block(n, d),
        **_experts(n, d, 2048, 256, 6),
        **connections,
        "self_attn.fused_qkv_a_proj": _product(n, d, 1024 + width),
        "self_attn.a_norms": _rows(n, 1024 + width, NORM, scales=1024 + width),
        "self_attn.q_b_proj": _product(n, 1024, heads * width),
        "self_attn.q_b_norm": _rows(n, heads * width, NORM),
        "self_attn.rotary": _rows(n, (2 * heads + 1) * 64, ROTARY),
        "self_attn.compressor.kv_gate_proj": _product(n, d, 2 * 2 * entry + 64),
        "self_attn.compressor.pool": pool,
        "self_attn.compressor.vectors": {"weight_bytes": 2 * (4 * 2 * entry + entry)},
        "self_attn.compressor.indexer.q_b_proj": _product(n, 1024, 64 * 128),
        "self_attn.compressor.indexer": indexer,
        "self_attn.attention[window 128, 512 entries of 4]": attention,
        "self_attn.sinks": {"weight_bytes": 2 * heads},
        "self_attn.o_a_proj": _product(n * 8, heads * width // 8, 1024, 8),
        "self_attn.o_b_proj": _product(n, 8 * 1024, d),
    }


def _qwen3_next(n, mixer):
    """Its config.json, what both kinds of its layers have."""
    return _block(n, 2048, mixer) | _experts(n, 2048, 512, 512, 10) | {"mlp.shared_expert_gate": _product(n, 2048, 1)}


def _qwen3_next_linear(n):
    """A gated delta rule: 16 heads of keys and 32 of values, 128 wide, behind a convolution of 4 taps; the state is kept in fp32."""
    d, keys, values, taps = 2048, 16 * 128, 32 * 128, 4
    channels, state = 2 * keys + values, 32 * 128 * 128
    rows = {"input_bytes": 2 * n * channels, "output_bytes": 2 * n * values}
    return {
        **_qwen3_next(n, "linear_attn"),
        "linear_attn.in_proj_qkvz": _product(n, d, channels + values),
        "linear_attn.in_proj_ba": _product(n, d, 2 * 32),
        "linear_attn.conv1d": _rows(n, channels, 2 * taps) | {"state_bytes": 2 * n * channels * (taps - 1 + 1)},  # three read, one written
        "linear_attn.scales": {"weight_bytes": 2 * (channels * taps + 32 + 32 + 128)},  # taps, A, the bias of steps, a norm
        "linear_attn.state_update": {"flops": n * 3 * 2 * state, "state_bytes": n * 2 * state * 4, **rows},
        "linear_attn.gate": _rows(n, values, GATED, inputs=2 * values),
        "linear_attn.out_proj": _product(n, values, d),
    }


def _qwen3_next_full(n):
    """Gated attention of 16 heads of 256 and 2 of keys and values; the rotary embedding passes over whole heads."""
    d, heads, kv_heads, width = 2048, 16, 2, 256
    attention = {
        "flops": n * 4096 * 2 * heads * 2 * width,
        "vector_flops": n * 4096 * SOFTMAX * heads,
        "kv_read_bytes": n * 4095 * 2 * kv_heads * width * 2,
        "kv_write_bytes": n * 2 * kv_heads * width * 2,
        "input_bytes": 2 * n * (heads + 2 * kv_heads) * width,
        "output_bytes": 2 * n * heads * width,
    }
    return {
        **_qwen3_next(n, "self_attn"),
        **{
            f"self_attn.{name}": _rows(n, width * several, NORM, scales=width)
            for name, several in (("q_norm", heads), ("k_norm", kv_heads))
        },
        "self_attn.qkv_proj": _product(n, d, (2 * heads + 2 * kv_heads) * width),
        "self_attn.rotary": _rows(n, (heads + kv_heads) * width, ROTARY),
        "self_attn.attention": attention,
        "self_attn.gate": _rows(n, heads * width, GATED, inputs=2 * heads * width),
        "self_attn.o_proj": _product(n, heads * width, d),
    }


AMOUNTS = ("flops", "vector_flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes", "state_bytes", "input_bytes", "output_bytes")


@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize(
    ("model", "layers", "counted"),
    [
        ("deepseek-v3", 58, _deepseek_v3),
        ("deepseek-v3.2", 58, _deepseek_v32),
        ("minimax-m3", 57, _minimax_m3),
        ("deepseek-v4-flash", 21, _deepseek_v4_flash),
        ("qwen3-next-80b-a3b", 36, _qwen3_next_linear),
        ("qwen3-next-80b-a3b", 12, _qwen3_next_full),
    ],
)
def test_every_amount_of_every_operator_of_a_layer(model, layers, counted, sequences):
    """All operators of the layers that a model has most of, for one token each of sequences with 4095 cached positions."""
    formats = dict.fromkeys(("weights", "activations", "kv"), "bf16")
    floor = decode_floor(model, "h200-sxm", batch=sequences, context=4095, **formats)
    found = {row.op.name: {a: getattr(row.op, a) / layers for a in AMOUNTS} for row in floor.by_op() if row.op.count == layers}
    expected = {name: dict.fromkeys(AMOUNTS, 0) | op for name, op in counted(sequences).items()}
    assert set(found) == set(expected)
    for name, op in expected.items():
        assert found[name] == pytest.approx(op), name


def _balanced(tokens):
    """Visits and experts of the first of four devices: token t visits experts t, t + 4, t + 8 and t + 12 of 16; two tokens are set apart."""
    visited = [(t * (1 if tokens >= 4 else 4 // tokens) + 4 * i) % 16 for t in range(tokens) for i in range(4)]
    return sum(e < 4 for e in visited), len({e for e in visited if e < 4})


ATTENTION = {
    "batch": 2,
    "context": 10,
    "new": 3,
    "heads": 8,
    "kv_heads": 2,
    "head_dim": 64,
    "v_head_dim": 32,
    "kv": "fp8",
    "activations": "bf16",
}
LATENT = {"batch": 2, "context": 1000, "new": 1, "heads": 16, "kv": "fp8", "activations": "bf16"}
EXPERTS = {"tokens": 7, "hidden": 64, "intermediate": 32, "count": 16, "top_k": 4, "tp": 2, "ep": 4, "format": "bf16", "weights": "fp8"}
STATE = {"batch": 3, "new": 1, "heads": 8, "key_heads": 4, "key_dim": 16, "value_dim": 32}
ELEMENTS = 8 * 16 * 32  # of that state
STATE_ROWS = {"input_bytes": 3 * 2 * (2 * 4 * 16 + 8 * 32), "output_bytes": 3 * 2 * 8 * 32}
KERNELS = [
    (
        "matmul",
        {"batch": 3, "m": 5, "n": 7, "k": 11, "format": "bf16", "weights": "fp8", "output": "fp32"},
        {"flops": 3 * 2 * 5 * 7 * 11, "weight_bytes": 3 * 7 * 11, "input_bytes": 3 * 5 * 11 * 2, "output_bytes": 3 * 5 * 7 * 4},
    ),
    (  # three tokens after ten see 11, 12 and 13; what is appended is read once more, where it is narrower
        "attention",
        ATTENTION,
        {
            "flops": 2 * 36 * 8 * 2 * (64 + 32),
            "vector_flops": 2 * 36 * 8 * SOFTMAX,
            "kv_read_bytes": 2 * 10 * 2 * (64 + 32),
            "input_bytes": 2 * 3 * (8 * 64 * 2 + 2 * (64 + 32)),
            "output_bytes": 2 * 3 * 8 * 32 * 2,
        },
    ),
    (  # each sees itself and three before: of what is cached, the first sees three
        "attention",
        ATTENTION | {"window": 4},
        {
            "flops": 2 * 12 * 8 * 2 * (64 + 32),
            "vector_flops": 2 * 12 * 8 * SOFTMAX,
            "kv_read_bytes": 2 * 3 * 2 * (64 + 32),
            "input_bytes": 2 * 3 * (8 * 64 * 2 + 2 * (64 + 32)),
            "output_bytes": 2 * 3 * 8 * 32 * 2,
        },
    ),
    (  # absorbed (arXiv 2405.04434): scores over latent and rope, values from the latent
        "latent_attention",
        LATENT,
        {
            "flops": 2 * 1001 * 16 * 2 * (512 + 64 + 512),
            "vector_flops": 2 * 1001 * 16 * SOFTMAX,
            "kv_read_bytes": 2 * 1000 * (512 + 64),
            "input_bytes": 2 * (16 * (128 + 64) * 2 + 512 + 64),
            "output_bytes": 2 * 16 * 128 * 2,
        },
    ),
    (  # a latent narrower than heads: queries enter and results leave in its width
        "latent_attention",
        LATENT | {"rank": 32, "nope_dim": 96, "rope_dim": 8, "v_head_dim": 48},
        {
            "flops": 2 * 1001 * 16 * 2 * (32 + 8 + 32),
            "vector_flops": 2 * 1001 * 16 * SOFTMAX,
            "kv_read_bytes": 2 * 1000 * (32 + 8),
            "input_bytes": 2 * (16 * (32 + 8) * 2 + 32 + 8),
            "output_bytes": 2 * 16 * 32 * 2,
        },
    ),
    (  # 28 visits over four devices are 7 for each, by one expert at best and by two tokens at least
        "experts",
        EXPERTS,
        {"flops": 7 * 2 * 3 * 64 * 16, "weight_bytes": 3 * 64 * 16, "input_bytes": 2 * 64 * 2, "output_bytes": 2 * 64 * 2},
    ),
    (
        "experts",
        EXPERTS | {"gated": 0, "routing": "uniform"},
        {
            "flops": 7 * 2 * 2 * 64 * 16,
            "weight_bytes": 4 * (1 - (3 / 4) ** 7) * 2 * 64 * 16,
            "input_bytes": 2 * 64 * 2,
            "output_bytes": 2 * 64 * 2,
        },
    ),
    (
        "experts",
        EXPERTS | {"ep": 1},
        {"flops": 28 * 2 * 3 * 64 * 16, "weight_bytes": 4 * 3 * 64 * 16, "input_bytes": 7 * 64 * 2, "output_bytes": 7 * 64 * 2},
    ),
    *(
        (
            "experts",
            EXPERTS | {"tokens": tokens, "routing": "power_law"},
            {
                "flops": visits * 2 * 3 * 64 * 16,
                "weight_bytes": touched * 3 * 64 * 16,
                "input_bytes": visits * 64 * 2,
                "output_bytes": visits * 64 * 2,
            },
        )
        for tokens in (2, 7)
        for visits, touched in [_balanced(tokens)]
    ),
    ("collective", {"op": "all_reduce", "size": 4096, "ranks": 4}, {"link_bytes": 4096}),
    ("collective", {"op": "all_gather", "size": 4096, "ranks": 4}, {"link_bytes": 4096 * 3 / 4}),
    ("collective", {"op": "all_to_all", "size": 4096, "ranks": 4}, {"link_bytes": 4096 * 3 / 4}),
    *(("collective", {"op": op, "size": 4096, "ranks": 2}, {"link_bytes": 4096 / 2}) for op in ("all_gather", "all_to_all")),
    (  # taken out, added to, read; kept in fp32
        "state",
        STATE | {"context": 50},
        {"flops": 3 * 3 * 2 * ELEMENTS, "state_bytes": 3 * 2 * ELEMENTS * 4, **STATE_ROWS},
    ),
    ("state", STATE | {"context": 50, "retrieves": 0}, {"flops": 3 * 2 * 2 * ELEMENTS, "state_bytes": 3 * 2 * ELEMENTS * 4, **STATE_ROWS}),
    (  # the first token of all finds nothing, and reads what it wrote: its key's product with its query, times its value
        "state",
        STATE | {"context": 0},
        {"flops": 3 * 2 * (ELEMENTS + 4 * 16 + 8 * 32), "state_bytes": 3 * ELEMENTS * 4, **STATE_ROWS},
    ),
    (
        "convolution",
        {"batch": 2, "new": 5, "context": 3, "channels": 6, "taps": 4, "stream": "bf16"},
        {
            "vector_flops": 2 * 5 * 6 * 4 * 2,
            "state_bytes": 2 * (3 + 3) * 6 * 2,
            "input_bytes": 2 * 5 * 6 * 2,
            "output_bytes": 2 * 5 * 6 * 2,
        },
    ),
    (
        "rowwise",
        {"rows": 5, "width": 8, "inputs": 2, "activations": "bf16", "output": "fp32"},
        {"vector_flops": 5 * 8, "input_bytes": 5 * 2 * 8 * 2, "output_bytes": 5 * 8 * 4},
    ),
]


def test_a_kernel_of_every_kind_is_counted():
    assert {kind for kind, *_ in KERNELS} == set(KINDS)


@pytest.mark.parametrize(("kind", "sizes", "expected"), KERNELS)
def test_every_amount_of_a_kernel(kind, sizes, expected):
    op = count_op(kind, **sizes)
    amounts = (*AMOUNTS, "link_bytes", "nic_bytes")
    assert {a: float(getattr(op, a)) for a in amounts} == pytest.approx(dict.fromkeys(amounts, 0) | expected)


ROW_BYTES = 2 * 3 * (8 * 64 * 2 + 2 * (64 + 32)) + 2 * 3 * 8 * 32 * 2  # of attention: queries, new keys and values, results
FEATURES = [
    ("matmul", KERNELS[0][1], {"m": 15, "n": 7, "k": 11, "bytes": 3 * 7 * 11 + 15 * 11 * 2 + 15 * 7 * 4}),
    (  # padding multiplies a row of each key-value head with 2 · 10 cached and 6 new positions
        "attention",
        ATTENTION,
        {
            "flops": 2 * 36 * 8 * 2 * (64 + 32),
            "row_flops": 26 * 2 * 2 * (64 + 32),
            "width": (64 + 32) / 2,
            "head_rows": 6 * 8,
            "head_sequences": 2 * 2,
            "ungrouped_sequences": 0,
            "cache_bytes": 2 * 10 * 2 * (64 + 32),
            "activation_bytes": ROW_BYTES,
        },
    ),
    (
        "attention",
        ATTENTION | {"kv_heads": 8},
        {
            "flops": 2 * 36 * 8 * 2 * (64 + 32),
            "row_flops": 26 * 2 * 8 * (64 + 32),
            "width": (64 + 32) / 2,
            "head_rows": 6 * 8,
            "head_sequences": 0,
            "ungrouped_sequences": 2 * 8,
            "cache_bytes": 2 * 10 * 8 * (64 + 32),
            "activation_bytes": ROW_BYTES + 2 * 3 * 6 * (64 + 32),
        },
    ),
    (  # a prompt is cheaper with keys and values expanded; absorbed, 7 · 8 / 2 pairs cost what they do in decode
        "latent_attention",
        LATENT | {"context": 0, "new": 7},
        {
            "flops": 2 * 28 * 16 * 2 * (128 + 64 + 128),
            "absorbed_flops": 2 * 28 * 16 * 2 * (512 + 64 + 512),
            "head_rows": 2 * 7 * 16,
            "sequences": 2,
            "cache_bytes": 0,
            "activation_bytes": 2 * 7 * (16 * (128 + 64) * 2 + 512 + 64) + 2 * 7 * 16 * 128 * 2,
        },
    ),
    (  # one padded row for the one expert; every visit has two rows of 64, and three of 16 inside
        "experts",
        EXPERTS,
        {
            "flops": 7 * 2 * 3 * 64 * 16,
            "spare_flops": 2 * 3 * 64 * 16,
            "weight_bytes": 3 * 64 * 16,
            "elements": 7 * (2 * 64 + 3 * 16),
            "intermediate": 16,
        },
    ),
    (  # of the visits on all devices
        "experts",
        EXPERTS | {"routing": "power_law"},
        {
            "flops": _balanced(7)[0] * 2 * 3 * 64 * 16,
            "spare_flops": _balanced(7)[1] * 2 * 3 * 64 * 16,
            "weight_bytes": _balanced(7)[1] * 3 * 64 * 16,
            "elements": 28 * (2 * 64 + 3 * 16),
            "intermediate": 16,
        },
    ),
    ("collective", {"op": "all_gather", "size": 4096, "ranks": 4}, {"bytes": 4096 * 3 / 4, "ranks": 4}),
    (
        "state",
        STATE | {"context": 50, "new": 5},
        {
            "flops": 5 * 3 * 3 * 2 * ELEMENTS,
            "state_bytes": 3 * 2 * ELEMENTS * 4,
            "row_bytes": 5 * sum(STATE_ROWS.values()),
            "excess": 3 * 5 - 3,
        },
    ),
    ("rowwise", KERNELS[-1][1], {"bytes": 5 * 2 * 8 * 2 + 5 * 8 * 4}),
]


@pytest.mark.parametrize(("kind", "sizes", "expected"), FEATURES)
def test_every_feature_of_a_kernel(kind, sizes, expected):
    op = count_op(kind, **sizes)
    assert {n: float(x) for n, x in FAMILIES[op.family].features(op).items()} == pytest.approx(expected)


@pytest.mark.parametrize(("heads", "kv_heads"), [([8, 16], 8), (8, (1, 2)), (np.array([8]), 8)])
def test_a_kernel_of_attention_has_one_number_of_heads(heads, kv_heads):
    with pytest.raises(InvalidValueError, match="single whole number: call once"):
        attention_floor(hardware="h100-sxm", heads=heads, kv_heads=kv_heads, head_dim=64)
    assert attention_floor(hardware="h100-sxm", heads=np.int64(8), head_dim=64).flops == 8 * 2 * 2 * 64


@pytest.mark.parametrize(("ranks", "domain"), [(2, 8), (8, 8), (9, 8), (16, 8), (64, 8), (64, 72)])
def test_what_leaves_a_domain_crosses_once_over_all_its_nics(ranks, domain):
    """With 8192 B to add up or to gather, and 8192 B of tokens that visit 4 devices at random."""
    size, outside = 8192, max(ranks - domain, 0)
    reached = 1 - (1 - 1 / ranks) ** 4
    reduced, gathered = (f("c", size, ranks=ranks, domain=domain) for f in (ops.all_reduce, ops.all_gather))
    exchanged = ops.exchange("c", size, ranks=ranks, visits=4, domain=domain)
    assert [op.link_bytes for op in (reduced, gathered, exchanged)] == pytest.approx(
        [size, size * (ranks - 1) / ranks, size * (ranks - 1) * reached]
    )
    assert [op.nic_bytes for op in (reduced, gathered, exchanged)] == pytest.approx(
        [size / domain if outside else 0, size * outside / ranks / domain, size * outside * reached]
    )
    assert [op.hops for op in (reduced, gathered, exchanged)] == [1, 1, 1]


def test_an_indexer_is_timed_as_attention_without_values():
    """64 heads of 128, a weight for each score, and one key: 3 sequences with 7 cached positions each."""
    bf16 = Format.load("bf16")
    op = ops.indexer("i", pairs=24, tokens=3, read=21, written=3, heads=64, head_dim=128, kv=bf16, stream=bf16, sequences=3)
    assert FAMILIES["attention"].features(op) == {
        "flops": 24 * 64 * 2 * 129,
        "row_flops": (21 + 3) * 2 * 129,
        "width": 129 / 2,
        "head_rows": 3 * 64,
        "head_sequences": 3,
        "ungrouped_sequences": 0,
        "cache_bytes": 24 * 128 * 2,
        "activation_bytes": 3 * (64 * 129 + 128) * 2,
    }
