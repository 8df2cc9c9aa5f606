"""Every operator's formula against an independent count: torch's FLOP counter, or bytes added up tensor by tensor."""

from math import prod

import pytest

from roofline import ops
from roofline.formats import Format
from roofline.visibility import visible_pairs

torch = pytest.importorskip("torch")
flop_counter = pytest.importorskip("torch.utils.flop_counter")

BF16, FP8, INT4 = Format.load("bf16"), Format.load("fp8"), Format.load("int4")


def counted(function, *shapes):
    """FLOP of a torch function on tensors without storage, a multiply-accumulate being two."""
    tensors = [torch.empty(shape, device="meta", dtype=torch.bfloat16) for shape in shapes]
    with flop_counter.FlopCounterMode(display=False) as counter:
        function(*tensors)
    return counter.get_total_flops()


def size(*shapes, each=2):
    return sum(prod(shape) for shape in shapes) * each


# ------------------------------------------------------------------------------------------------------------------ linear


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 8192, 28672), (4096, 1024, 4096), (77, 4544, 71), (3, 1, 5)])
def test_linear_flops_are_torchs(rows, inputs, outputs):
    op = ops.linear("up", rows, inputs=inputs, outputs=outputs, weights=BF16, activations=BF16, stream=BF16)
    assert op.flops == counted(torch.nn.functional.linear, (rows, inputs), (outputs, inputs))
    assert op.kind == "contraction"
    assert op.weight_bytes == size((outputs, inputs))
    assert (op.input_bytes, op.output_bytes) == (size((rows, inputs)), size((rows, outputs)))
    assert op.compulsory_bytes == op.weight_bytes
    assert op.activation_bytes == op.input_bytes + op.output_bytes


def test_a_bias_is_read_and_added_by_general_units():
    without = ops.linear("up", 4, inputs=8, outputs=16, weights=BF16, activations=BF16, stream=BF16)
    bias = ops.linear("up", 4, inputs=8, outputs=16, weights=BF16, activations=BF16, stream=BF16, bias=16)
    assert bias.flops == without.flops
    assert bias.vector_flops - without.vector_flops == 4 * 16
    assert bias.weight_bytes - without.weight_bytes == 16 * 2


def test_a_matrix_that_no_row_meets_is_not_read():
    assert ops.linear("head", 0, inputs=8, outputs=16, weights=BF16, activations=BF16, stream=BF16, bias=16, reads=0).compulsory_bytes == 0


@pytest.mark.parametrize(
    ("weights", "activations", "operand", "bits"),
    [
        # bits per weight with scales: int4 group-128 with fp16 scale and zero 4 + 32/128; MX and NVFP4: OCP MX v1.0, NVIDIA NVFP4
        ("bf16", "bf16", "bf16", 16),
        ("int4", "bf16", "bf16", 4.25),
        ("mxfp4", "bf16", "bf16", 4.25),
        ("fp8", "bf16", "bf16", 8),
        ("fp8", "fp8", "fp8", 8),
        ("int8", "int8", "int8", 8),
        ("nvfp4", "nvfp4", "fp4", 4.5),
        ("mxfp4", "fp8", "fp8", 4.25),
        ("fp8_block128", "fp8", "fp8", 8 + 32 / 16384),
        ("fp32", "bf16", "fp32", 32),
    ],
)
def test_formats_set_bytes_and_the_mode_of_the_product(weights, activations, operand, bits):
    op = ops.linear("up", 4, inputs=1024, outputs=2048, weights=Format.load(weights), activations=Format.load(activations), stream=BF16)
    assert op.operand == operand
    assert op.weight_bytes == 1024 * 2048 * bits / 8
    assert op.flops == 2 * 4 * 1024 * 2048  # whatever the format
    assert op.input_bytes == size((4, 1024))  # rows lie in memory in the stream format


# --------------------------------------------------------------------------------------------------------------- attention

SHAPES = [
    # batch, new, cached, heads, kv_heads, qk_dim, v_dim
    (1, 128, 0, 12, 12, 64, 64),
    (2, 512, 0, 64, 8, 128, 128),
    (4, 1, 4096, 32, 8, 128, 128),
    (1, 7, 100, 16, 1, 192, 128),
]


def cost(shape, pairs, **other):
    batch, new, cached, heads, kv_heads, qk_dim, v_dim = shape
    return {
        "pairs": pairs,
        "tokens": batch * new,
        "read": batch * cached,
        "written": batch * new,
        "heads": heads,
        "kv_heads": kv_heads,
        "qk_dim": qk_dim,
        "v_dim": v_dim,
        "kv": BF16,
        "stream": BF16,
    } | other


def rectangle(shape):
    batch, new, cached, heads, _, qk_dim, v_dim = shape
    keys = cached + new
    shapes = (batch, heads, new, qk_dim), (batch, heads, keys, qk_dim), (batch, heads, keys, v_dim)
    return counted(lambda q, k, v: torch.matmul(torch.matmul(q, k.transpose(-1, -2)), v), *shapes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_over_the_full_rectangle_is_torchs_count(shape):
    batch, new, cached, *_ = shape
    assert ops.attention("a", **cost(shape, batch * new * (cached + new))).flops == rectangle(shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_causal_attention_is_the_unmasked_share_of_torchs_count(shape):
    batch, new, cached, *_ = shape
    keys = cached + new
    mask = torch.ones(new, keys, dtype=torch.bool).tril(diagonal=cached)
    op = ops.attention("a", **cost(shape, batch * visible_pairs(new, cached)))
    assert op.flops * new * keys == rectangle(shape) * int(mask.sum())


def test_the_full_square_is_what_torchs_fused_operator_counts():
    shapes = (2, 8, 256, 64), (2, 8, 256, 64), (2, 8, 256, 64)
    fused = counted(lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True), *shapes)
    shape = (2, 256, 0, 8, 8, 64, 64)
    assert ops.attention("a", **cost(shape, 2 * 256 * 256)).flops == fused  # torch does not halve it, masked or not
    assert ops.attention("a", **cost(shape, 2 * visible_pairs(256, 0))).flops < fused


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_bytes_tensor_by_tensor(shape):
    batch, new, cached, heads, kv_heads, qk_dim, v_dim = shape
    op = ops.attention("a", **cost(shape, batch * visible_pairs(new, cached)))
    assert op.kv_read_bytes == size((batch, kv_heads, cached, qk_dim), (batch, kv_heads, cached, v_dim))
    assert op.kv_write_bytes == size((batch, kv_heads, new, qk_dim), (batch, kv_heads, new, v_dim))
    assert op.output_bytes == size((batch, new, heads, v_dim))
    assert op.input_bytes == size((batch, new, heads, qk_dim), (batch, new, kv_heads, qk_dim), (batch, new, kv_heads, v_dim))
    assert op.weight_bytes == 0
    assert op.compulsory_bytes == op.kv_read_bytes + op.kv_write_bytes


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_unfused_attention_is_the_same_work_with_the_scores_in_memory(shape):
    batch, new, cached, heads, *_ = shape
    amounts = cost(shape, batch * visible_pairs(new, cached))
    fused, (scores, softmax, values) = ops.attention("a", **amounts), ops.unfused_attention("a", **amounts)
    for amount in ("flops", "vector_flops", "kv_read_bytes", "kv_write_bytes", "weight_bytes", "compulsory_bytes"):
        assert sum(getattr(op, amount) for op in (scores, softmax, values)) == getattr(fused, amount), amount
    matrix = heads * batch * visible_pairs(new, cached) * 2
    assert sum(op.activation_bytes for op in (scores, softmax, values)) == fused.activation_bytes + 4 * matrix
    assert [op.kind for op in (scores, softmax, values)] == ["contraction", "normalization", "contraction"]


def test_a_narrow_cache_narrows_the_cache_only():
    shape = SHAPES[2]
    wide, narrow = (ops.attention("a", **cost(shape, 4 * 4097, kv=kv)) for kv in (BF16, FP8))
    assert 2 * narrow.kv_read_bytes == wide.kv_read_bytes
    assert 2 * narrow.kv_write_bytes == wide.kv_write_bytes
    assert narrow.activation_bytes == wide.activation_bytes
    assert (wide.operand, narrow.operand) == ("bf16", "fp8")


def test_an_encoder_writes_no_cache():
    for op in (
        ops.attention("a", **cost(SHAPES[0], 128 * 128, cached=False)),
        *ops.unfused_attention("a", **cost(SHAPES[0], 1, cached=False)),
    ):
        assert op.compulsory_bytes == 0


# ------------------------------------------------------------------------------------------------------- rows and elements


def test_an_embedding_reads_rows_not_the_table():
    op = ops.embedding("embed", 64, width=8192, stored=BF16, stream=BF16)
    assert (op.flops, op.weight_bytes, op.output_bytes, op.kind) == (0, 64 * 8192 * 2, 64 * 8192 * 2, "gather")
    three = ops.embedding("embed", 64, width=8192, stored=BF16, stream=BF16, tables=3)  # BERT: tokens, positions, types
    assert (three.weight_bytes, three.output_bytes) == (3 * op.weight_bytes, op.output_bytes)
    assert three.vector_flops == 2 * 64 * 8192


def test_a_norm_reads_and_writes_every_element_and_its_parameters_once():
    op = ops.norm("norm", 4096, width=1024, parameters=2048, stored=BF16, stream=BF16)
    assert (op.input_bytes, op.output_bytes, op.weight_bytes) == (4096 * 1024 * 2, 4096 * 1024 * 2, 2048 * 2)
    assert (op.flops, op.kind) == (0, "normalization")
    # by hand, for each element: add to the mean, subtract it, square, add up, scale by 1/sigma, multiply and add the parameters
    assert op.vector_flops == (1 + 1 + 1 + 1 + 1 + 1 + 1) * 4096 * 1024


def test_elementwise_operators_move_each_operand_once():
    residual = ops.elementwise("residual", 4096, width=1024, inputs=2, flops=1, stream=BF16)
    assert (residual.input_bytes, residual.output_bytes, residual.vector_flops) == (2 * 4096 * 1024 * 2, 4096 * 1024 * 2, 4096 * 1024)
    assert (residual.flops, residual.compulsory_bytes, residual.kind) == (0, 0, "element-wise")


def test_cost_is_proportional_to_layer_count():
    one = ops.attention("a", **cost(SHAPES[1], 1000))
    eighty = one.times(80)
    assert eighty.count == 80
    assert eighty.times(2).count == 160
    for name, amount in one.amounts().items():
        assert eighty.amounts()[name] == 80 * amount, name
    assert (eighty.name, eighty.operand, eighty.kind) == (one.name, one.operand, one.kind)
