"""Formulas held to values from outside, where a small fault in the formula passed every other test (see benchmarks/mutants.py)."""

import numpy as np
import pytest

from roofline import (
    Format,
    Hardware,
    InvalidValueError,
    Model,
    Step,
    context_without_compute,
    critical_batch,
    decode_estimate,
    decode_floor,
    fewest_devices,
    kernel_estimate,
    levers,
    list_records,
    load_record,
    matmul_floor,
    max_batch,
    max_context,
    prefill_floor,
    resident,
    ridge_point,
    step_floor,
)
from roofline.engines import load_engine
from roofline.estimate.constants import STEPS, choose, residual_quantile
from roofline.kernels import FAMILIES
from roofline.ops import Op, attention, compressed_attention, convolution, unfused_attention
from roofline.ops.block_sparse_attention import block_pairs
from roofline.ops.compressed_attention import entries_read, pooling
from roofline.ops.popularity import visited
from roofline.ops.recurrent import state_flops
from roofline.ops.routing import parse_routing
from roofline.parallel import Parallel, shard_model
from roofline.records.schema import PERCENTILES
from roofline.units import show_bytes, show_time

BF16 = Format.load("bf16")


# ---------------------------------------------------------------------------------------------------- formats and units


@pytest.mark.parametrize("size", [(0, 128), (128, 0), (-1, 128), (128, -1), (-128, -128)])
def test_a_block_of_scales_without_elements_is_refused(size):
    with pytest.raises(InvalidValueError, match=r"(rows|columns) is -?\d+; .* at least 1\.$"):
        Format.blocks(*size)


@pytest.mark.parametrize(("bits", "operand"), [(2, "int4"), (3, "int4"), (4, "int4"), (5, "int8"), (6, "int8"), (8, "int8")])
def test_integers_multiply_in_the_narrowest_unit_that_holds_them(bits, operand):
    """PTX ISA, mma: integer operands have 4 or 8 bits."""
    assert Format.load(f"int{bits}_g32").operand == operand


def test_prefixes_change_where_four_digits_round_up():
    """SI prefixes: powers of 1000; four significant digits."""
    assert [show_bytes(v) for v in (0, 0.5, 999, 1000, 1.5e6, -2e9)] == ["0 B", "0.5 B", "999 B", "1 kB", "1.5 MB", "-2 GB"]
    assert [show_time(v) for v in (0, 2e-10, 1e-9, 1e-6, 1e-3, 1, 7200)] == ["0 s", "0.2 ns", "1 ns", "1 µs", "1 ms", "1 s", "7200 s"]


# ------------------------------------------------------------------------------------------------------------ operators


@pytest.mark.parametrize(("channels", "kernel", "tokens"), [(3, 4, 5), (8, 2, 1)])
def test_a_short_convolution_multiplies_and_adds_every_tap(channels, kernel, tokens):
    """Counted one by one: every output is a sum of `kernel` products."""
    counted = sum(2 for _ in range(channels) for _ in range(tokens) for _ in range(kernel))
    op = convolution("conv", tokens, read=kernel - 1, written=1, channels=channels, kernel=kernel, stream=BF16)
    assert op.vector_flops == counted


def test_a_state_is_read_by_every_token_in_the_cheaper_way():
    """Counted token by token: the i-th of a fresh sequence looks at i tokens pair by pair, 2 p each, or at the state, 2 |S|."""
    for tokens, elements, width in ((1, 64, 8), (8, 64, 8), (9, 64, 8), (40, 64, 8), (5, 1000, 3)):
        read = sum(min(2 * width * i, 2 * elements) for i in range(1, tokens + 1))
        retrieved = sum(min(2 * width * i, 2 * elements) for i in range(1, tokens))
        sizes = {"elements": elements, "pair_width": width}
        assert state_flops(tokens, 0, **sizes) == 2 * elements * tokens + read
        assert state_flops(tokens, 0, **sizes, retrieves=True) == 2 * elements * tokens + read + retrieved
        assert state_flops(tokens, 7, **sizes) == 2 * 2 * elements * tokens
        assert state_flops(tokens, 7, **sizes, retrieves=True) == 3 * 2 * elements * tokens


@pytest.mark.parametrize(("new", "cached"), [(1, 0), (1, 7), (1, 8), (1, 50), (23, 0), (40, 13)])
@pytest.mark.parametrize(("block", "top_k"), [(4, 2), (8, 1), (3, 5)])
def test_pairs_with_selected_blocks_are_counted_one_by_one(new, cached, block, top_k):
    """A token sees its own block up to itself, and top_k − 1 whole blocks of those before, or all if there are no more."""
    counted = sum(p % block + 1 + block * min(p // block, top_k - 1) for p in range(cached, cached + new))
    assert block_pairs(new, cached, block=block, top_k=top_k) == counted


def test_pooling_is_a_softmax_and_a_weighted_sum_for_every_element():
    """5 FLOP of a softmax, and a product and a sum, for each of 4 · 2 · 512 scores."""
    assert pooling("pool", tokens=4, entries=1, width=512, series=2, stream=BF16).vector_flops == (5 + 2) * 4 * 2 * 512


def test_an_entry_that_the_token_completes_is_not_read():
    """Of 512 selected entries of 4 positions it may be one: the token at a position of 3 modulo 4 completes it."""
    assert [entries_read(1, cached, ratio=4, top_k=512) for cached in range(4092, 4100)] == [512, 512, 512, 511] * 2


AMOUNTS = {"pairs": 640, "tokens": 2, "read": 638, "written": 2}


@pytest.mark.parametrize("kv", ["bf16", "fp8"])
def test_attention_in_parts_is_the_attention_in_one(kv):
    """Scores and values add up to the fused kernel: FLOP, compulsory bytes, and bytes of a position in the cache."""
    sizes = {"heads": 8, "kv_heads": 2, "qk_dim": 192, "v_dim": 128, "kv": Format.load(kv), "stream": BF16}
    whole, parts = attention("a", **AMOUNTS, **sizes), unfused_attention("a", **AMOUNTS, **sizes)
    for amount in ("flops", "vector_flops", "kv_read_bytes", "kv_write_bytes"):
        assert sum(getattr(part, amount) for part in parts) == getattr(whole, amount)
    positions = [part.sizes["position_bytes"] for part in parts if part.sizes]
    assert positions == [2 * 192 * sizes["kv"].bits / 8, 2 * 128 * sizes["kv"].bits / 8]
    assert sum(positions) == whole.sizes["position_bytes"]


def test_compressed_attention_has_one_softmax_per_head_and_pair():
    """Scale, subtract the maximum, exponentiate, add up, divide: 5 FLOP for each of 64 · 640 scores."""
    op = compressed_attention("a", **AMOUNTS, heads=64, head_dim=512, kv=BF16, stream=BF16)
    assert op.vector_flops == 5 * 64 * 640
    assert (op.input_bytes, op.output_bytes) == (2 * 65 * 512 * 2, 2 * 64 * 512 * 2)  # queries and one row in, results out


def test_experts_that_nobody_visits_stay_unvisited():
    """Four visits and two popular experts: each is visited by every token, and no more than once."""
    assert visited((0.5, 0.5, 0.0, 0.0), 4, 4) == [1, 1, 0, 0]
    assert visited((0.7, 0.1, 0.1, 0.1), 4, 2) == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("routing", ["power_law_1e999", [np.inf, 1.0], [np.nan, 1.0], [[0.5], [0.5]], [], [-0.5, 1.5]])
def test_a_routing_that_is_no_distribution_is_refused(routing):
    with pytest.raises(InvalidValueError, match="routing is"):
        parse_routing(routing)


@pytest.mark.parametrize(
    ("model", "name", "layers", "inputs", "outputs"),
    [
        # published configurations: 64 query and 4 key-value heads of 128, 4 index heads and one index key of 128
        ("minimax-m3", "self_attn.rotary", 57, (64 + 4) * 128 + (4 + 1) * 128, (64 + 4) * 128 + (4 + 1) * 128),
        # 64 query heads and one row, and the result rotated back, 64 rotated channels of each; the 21 layers that compress by 4
        ("deepseek-v4-flash", "self_attn.rotary", 21, (2 * 64 + 1) * 64, (2 * 64 + 1) * 64),
        # queries, keys and values of 64 heads of 128, without a convolution
        ("minimax-text-01", "linear_attn.state_update", 70, 3 * 64 * 128, 64 * 128),
        # queries and keys of 16 heads of 128, values of 32, through a convolution
        ("qwen3-next-80b-a3b", "linear_attn.state_update", 36, 2 * 16 * 128 + 32 * 128, 32 * 128),
    ],
)
def test_rows_of_a_part_are_as_wide_as_its_configuration_says(model, name, layers, inputs, outputs):
    rows = [row.op for row in decode_floor(model, "h200-sxm", weights="bf16", activations="bf16").by_op()]
    (op,) = [op for op in rows if op.name.endswith(name.partition(".")[2]) and op.count == layers]
    assert (op.input_bytes, op.output_bytes) == (2 * layers * inputs, 2 * layers * outputs)


# --------------------------------------------------------------------------------------------------------------- shares


def test_each_tensor_parallel_device_sends_its_share_of_the_rows_to_the_next_stage():
    """Narayanan et al., "Efficient Large-Scale Language Model Training", SC 2021, section 4.1: scatter/gather sends 1/t of a row."""
    llama = "llama-3-8b"  # 4096 channels
    for tensor in (1, 2, 4):
        floor = decode_floor(llama, "h100-sxm", batch=3, tensor_parallel=tensor, pipeline_parallel=2)
        (sent,) = [row.op for row in floor.by_op() if row.op.name == "pipeline.send"]
        assert sent.link_bytes + sent.nic_bytes == 3 * 4096 * 2 / tensor


@pytest.mark.parametrize(("data", "outside"), [(4, False), (8, False), (16, True)])
def test_tokens_leave_the_node_when_there_are_more_devices_than_in_it(data, outside):
    """HGX H100: eight GPUs in one NVLink domain."""
    floor = decode_floor("mixtral-8x7b", "h100-sxm", batch=64, data_parallel=data)
    sent = [row.op for row in floor.by_op() if row.op.name == "mlp.experts.dispatch"]
    assert sent
    assert all(bool(op.nic_bytes) is outside for op in sent)


MIXTURES = {  # published configurations: layers with experts, hidden and intermediate channels, experts, experts per token
    "mixtral-8x7b": (32, 4096, 14336, 8, 2),
    "deepseek-v3": (58, 7168, 2048, 256, 8),
    "deepseek-v4-flash": (21, 4096, 2048, 256, 6),
}


def _mixture(model, **degrees):
    """The operators of a mixture on one device by name, one layer each, weights and activations in 16 bit."""
    layers = MIXTURES[model][0]
    floor = decode_floor(model, "h100-sxm", weights="bf16", activations="bf16", **degrees)
    return {row.op.name.removeprefix("mlp.experts."): row.op for row in floor.by_op() if row.op.count == layers}


@pytest.mark.parametrize("what", ["dispatch", "combine"])
@pytest.mark.parametrize(("tensor", "data"), [(1, 2), (1, 4), (2, 4), (4, 4)])
def test_tokens_are_gathered_where_the_widths_of_experts_are_split(what, tensor, data):
    """Every rank has 16 of the tokens and receives those of all others; tensor-parallel devices bring one share of a row each."""
    op = _mixture("mixtral-8x7b", batch=16 * data, tensor_parallel=tensor, data_parallel=data)[what]
    assert op.link_bytes == pytest.approx(32 * 16 * (data - 1) * 4096 * 2 / tensor)
    assert op.nic_bytes == (op.link_bytes if tensor * data > 8 else 0)  # HGX H100: eight GPUs in one NVLink domain


@pytest.mark.parametrize("what", ["dispatch", "combine"])
@pytest.mark.parametrize(
    ("model", "tensor", "data", "expert"),
    [
        ("mixtral-8x7b", 1, 4, 4),
        ("mixtral-8x7b", 2, 4, 8),
        ("mixtral-8x7b", 2, 2, 4),
        ("deepseek-v3", 1, 16, 16),
        ("deepseek-v3", 2, 16, 32),
    ],
)
def test_tokens_go_once_to_each_device_that_has_one_of_their_experts(model, tensor, data, expert, what):
    """A device with 1/e of the experts has none of k that are picked uniformly with probability (1 − 1/e)^k."""
    layers, hidden, _, _, top_k = MIXTURES[model]
    op = _mixture(model, batch=16 * data, tensor_parallel=tensor, data_parallel=data, expert_parallel=expert)[what]
    reached = 1 - (1 - 1 / expert) ** top_k
    assert op.link_bytes == pytest.approx(layers * 16 * hidden * 2 / tensor * (expert - 1) * reached)
    assert op.nic_bytes == pytest.approx(layers * 16 * hidden * 2 / tensor * max(expert - 8, 0) * reached)


@pytest.mark.parametrize("routing", ["uniform", "best"])
@pytest.mark.parametrize("batch", [1, 2, 3, 16, 64])
@pytest.mark.parametrize(
    ("model", "data", "expert"),
    [
        ("mixtral-8x7b", 1, 1),
        ("mixtral-8x7b", 4, 4),
        ("deepseek-v3", 1, 1),
        ("deepseek-v3", 8, 8),
        ("deepseek-v3", 16, 16),
        ("deepseek-v4-flash", 4, 4),
    ],
)
def test_the_busiest_device_reads_whole_experts_for_a_single_token(model, data, expert, batch, routing):
    """k visits over e devices are ⌈k/e⌉ experts on one of them at least; on average n (1 − (1 − k/(e n))^T) of its n are visited."""
    _, hidden, intermediate, count, top_k = MIXTURES[model]
    here, least = count // expert, -(-top_k // expert)
    read = max(here * (1 - (1 - top_k / count) ** batch), least) if routing == "uniform" else least
    op = _mixture(model, batch=batch, data_parallel=data, expert_parallel=expert, routing=routing)["down_proj"]
    assert op.weight_bytes / op.count == pytest.approx(read * hidden * intermediate * 2)


def test_a_norm_over_all_heads_is_split_with_them():
    """OLMoE (arXiv 2409.02060): RMSNorm over all 16 heads of 128, 2048 scales; half of them with half the heads."""
    model = Model.load("olmoe-1b-7b")
    share = shard_model(model, Parallel(tensor=2))
    whole, half = (m.layers[0].mixer.query_norm for m in (model, share))
    assert (whole.width, whole.parameters) == (2048, 2048)
    assert (half.width, half.parameters) == (1024, 1024)


# --------------------------------------------------------------------------------------------------------------- memory


def test_activations_of_the_largest_step_are_in_memory_if_asked_for():
    """Llama-3-8B: 2 · 14336 channels into the activation function, 14336 out of it, and a residual of 4096, for every row in 16 bit."""
    assert resident("llama-3-8b", activation_tokens=8192).activation_bytes == 8192 * (3 * 14336 + 4096) * 2
    assert resident("gpt-oss-20b", activation_tokens=1024).activation_bytes > 1024 * 2880 * 2  # more than the residual, 2880 channels
    assert resident("llama-3-8b").activation_bytes == resident("70B", activation_tokens=8192).activation_bytes == 0


def test_what_no_sequence_needs_is_not_in_memory():
    """Llama-3-8B: 2 · 32 layers · 8 heads · 128 · 2 B = 131,072 B for every position; the prefix of no sequence is none."""
    kept = {batch: resident("llama-3-8b", batch=batch, context=1600, shared_prefix=800).kv_bytes for batch in (0, 1, 3)}
    assert kept == {0: 0, 1: 1600 * 131_072, 3: (800 + 3 * 800) * 131_072}


def test_the_fullest_stage_is_the_one_that_holds_most():
    """Llama-3-8B on two stages of 16 layers: the last holds the head (128,256 · 4096), the norm, and the same cache."""
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    found = resident("llama-3-8b", pipeline_parallel=2, batch=1, context=16)
    assert found.weight_bytes == 2 * (16 * layer + 128_256 * 4096 + 4096)
    assert found.kv_bytes == 2 * 16 * 131_072 // 2  # two steps in flight, half the layers


def test_memory_that_is_just_enough_is_enough():
    needed = resident("llama-3-8b", batch=4, context=1024).total_bytes
    for lacking in (0, 1):
        found = resident("llama-3-8b", batch=4, context=1024, memory_capacity=int(needed) - lacking)
        assert found.fits == (not lacking)
        assert max_batch("llama-3-8b", memory_capacity=int(needed) - lacking, context=1024) == 4 - lacking
        assert max_context("llama-3-8b", memory_capacity=int(needed) - lacking, batch=4) == 1024 - 16 * lacking


def test_degrees_that_divide_the_heads_are_tried():
    """Phi-4: 40 query and 10 key-value heads, 14.66e9 parameters of 2 B: 5.9 GB on each of five devices, 14.7 GB on two."""
    assert fewest_devices("phi-4", memory_capacity=6.2e9) == 5
    assert fewest_devices("phi-4", memory_capacity=15e9) == 2
    assert fewest_devices("phi-4", memory_capacity=30e9) == fewest_devices("phi-4", memory_capacity=30e9, at_most=1) == 1
    assert fewest_devices("phi-4", memory_capacity=15e9, at_most=1) == np.inf


# config.json of DeepSeek-V3: width 7168, 128 heads of 128 + 64 and 128, ranks 1536 and 512, 256 experts of 2048, 8 and a shared one of them,
# 129280 tokens; its one module joins two rows of the width into one, then a layer, then the model's head (arXiv 2412.19437, section 2.2)
_LATENT = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
_MODULE = 2 * 7168 * 7168 + _LATENT + 9 * 3 * 7168 * 2048 + 7168 * 256
_HEAD = 7168 * 129280


def test_one_module_drafts_three_tokens_by_hand():
    """It runs on the four rows of the verification, then twice more on one row, after 1001 tokens at least; each time with the head."""
    verify = Step.verify(3, context=1000)
    plain, one, three = (step_floor("deepseek-v3", "h200-sxm", verify, weights="bf16", mtp=mtp) for mtp in (0, 1, 3))
    attention = 2 * 128 * (576 + 512)  # FLOP of a pair of query and key in the latent form
    assert one.flops - plain.flops == 2 * (4 * _MODULE + _HEAD) + attention * (1001 + 1002 + 1003 + 1004)
    assert three.flops - one.flops == 2 * (2 * (_MODULE + _HEAD) + attention * 1002)
    again = three.work.total("weight_bytes") - one.work.total("weight_bytes")
    assert again == pytest.approx(2 * 2 * (_MODULE + _HEAD), rel=1e-3)  # without norms and biases
    assert three.work.total("reread_bytes") == pytest.approx(again + 2 * _HEAD, rel=1e-12)
    assert three.work.total("kv_write_bytes") - one.work.total("kv_write_bytes") == 2 * 2 * 576


def test_a_cache_keeps_no_more_of_the_weights_from_one_draft_to_the_next_than_it_holds():
    """H200: 50 MB of last-level cache (H100 architecture white paper, the same die), once from the step before and once for each draft."""
    floor = step_floor("deepseek-v3", "h200-sxm", Step.verify(3), mtp=3)
    cache = floor.hardware.last_level_cache
    assert cache >= 50e6
    moved = floor.work.compulsory_bytes
    assert floor.memory_s == pytest.approx((moved - 4 * cache) / floor.hardware.memory_bandwidth, rel=1e-12)


def test_where_no_row_is_sampled_nothing_is_drafted_again():
    chunk = {mtp: step_floor("deepseek-v3", "h200-sxm", Step.chunk(512), mtp=mtp) for mtp in (1, 3)}
    assert chunk[1].flops == chunk[3].flops
    assert chunk[1].work.compulsory_bytes == chunk[3].work.compulsory_bytes


def test_a_model_without_a_module_cannot_draft():
    with pytest.raises(InvalidValueError, match=r"mtp is 2, but .* has no multi-token-prediction module"):
        decode_floor("llama-3-8b", "h200-sxm", mtp=2)


@pytest.mark.parametrize("context", [1024, np.array([16, 1024])])
def test_nothing_fits_beside_weights_that_do_not(context):
    assert np.all(max_batch("llama-3-8b", memory_capacity=1e9, context=context) == 0)
    assert np.all(max_batch("llama-3-8b", memory_capacity=16.0e9, context=context) == 0)  # 16.06 GB of weights
    assert np.all(max_batch("llama-3-8b", memory_capacity=16.1e9, context=8 * context) == (0 if np.ndim(context) == 0 else [2, 0]))


@pytest.mark.parametrize("kv", ["bf16", "nvfp4"])
def test_a_batch_that_fits_is_a_whole_python_number(kv):
    found = max_batch("llama-3-8b", memory_capacity=80e9, context=1000, kv=kv)
    assert type(found) is int
    sizes = [resident("llama-3-8b", batch=found + more, context=1000, kv=kv).total_bytes for more in (0, 1)]
    assert sizes[0] <= 80e9 < sizes[1]


def test_sequences_that_need_no_memory_fit_without_end_once_the_weights_do():
    """70e9 parameters of 2 B, and no cache."""
    assert max_batch("70B", memory_capacity=140e9, context=0) == np.inf
    assert max_batch("70B", memory_capacity=140e9 - 1, context=0) == 0
    assert max_batch("70B", memory_capacity=140e9, context=np.array([0, 8])).tolist() == [np.inf, np.inf]


def test_pages_that_fit_are_whole():
    """A page of 16 positions of Llama-3-8B is 2 MiB."""
    weights, page = resident("llama-3-8b").weight_bytes, 2**21
    for spare, pages in ((-1, 0), (0, 0), (page - 1, 0), (page, 1), (3 * page + 5, 3)):
        found = resident("llama-3-8b", batch=0, memory_capacity=weights + spare)
        assert (found.page_bytes, found.free_pages) == (page, pages)


# ---------------------------------------------------------------------------------------------------------------- forms


def _together(power, *parts):
    return sum(part**power for part in parts) ** (1 / power)


def _matmul(x, c, P, W):
    rows = x["m"] + c["spare_rows"] * (x["m"] > 1)
    k, K = x["k"] + c["extra_depth"], c["split_depth"]
    full = rows * x["n"] * k * (1 + x["n"] * x["k"] / 2e8) ** c["large"]
    work = _together(c["filling"], full, c["least_area"] * k * K / (k + K))
    product = _together(c["sharpness"], 2 * work / (c["compute_share"] * P), x["bytes"] / (c["bandwidth_share"] * W))
    return c["fixed_s"] + c["depth_s"] * x["k"] * K / (x["k"] + K) + c["row_bytes"] * x["m"] * x["k"] / W + product


def _experts(x, c, P, W):
    tiles = 1 / (1 / x["flops"] + 1 / (c["tile_rows"] * x["spare_flops"])) if c["tile_rows"] else 0.0
    flops = (x["flops"] + c["pad_rows"] * x["spare_flops"] + tiles) * (1 + c["pad_columns"] / x["intermediate"])
    moved = x["weight_bytes"] + c["element_bytes"] * x["elements"]
    return c["fixed_s"] + _together(c["sharpness"], flops / (c["compute_share"] * P), moved / (c["bandwidth_share"] * W))


def _attention(x, c, P, W):
    flops = x["flops"] + c["pad_rows"] * (1 + x["width"] / c["double_width"]) * x["row_flops"]
    compute = flops * (1 + c["softmax_width"] / x["width"]) / (c["compute_share"] * P) + c["head_row_s"] * x["head_rows"]
    heads = c["head_sequence_s"] * (x["head_sequences"] + c["ungrouped"] * x["ungrouped_sequences"])
    kernel = _together(2, compute + (c["ramp_s"] * compute) ** 0.5, x["cache_bytes"] / (c["bandwidth_share"] * W), heads)
    return c["fixed_s"] + kernel + c["passes"] * x["activation_bytes"] / W


def _latent_attention(x, c, P, W):
    s = c["absorbed_share"]
    compute = ((1 - s) * x["flops"] + s * x["absorbed_flops"]) / (c["compute_share"] * P) + c["head_row_s"] * x["head_rows"]
    memory = x["cache_bytes"] / (c["bandwidth_share"] * W)
    kernel = _together(2, compute + (c["ramp_s"] * compute) ** 0.5, memory, c["sequence_s"] * x["sequences"])
    return c["fixed_s"] + kernel + c["passes"] * x["activation_bytes"] / W


def _state(x, c, P, W):
    z = x["excess"] / (x["excess"] + 1)
    moved = (1 + z * c["chunk_states"]) * x["state_bytes"] + x["row_bytes"]
    parts = c["fixed_s"] + z * c["chunk_s"], x["flops"] / (c["compute_share"] * P), moved / (c["bandwidth_share"] * W)
    return _together(c["sharpness"], *parts)


def _rowwise(x, c, P, W):
    return _together(c["sharpness"], c["fixed_s"], x["bytes"] / (c["bandwidth_share"] * W))


def _all_reduce(x, c, P, W):
    n = x["ranks"]
    moving = (2 * (n - 1) / n) ** c["ring"] * x["bytes"] / (c["bandwidth_share"] * W) + c["root"] * np.log2(n) * x["bytes"] ** 0.5
    staged = np.clip(1 + np.log2(n * x["bytes"] / c["stage_bytes"]), 0, 1)
    return _together(c["sharpness"], c["fixed_s"] + c["rank_s"] * (n - 1) + c["stage_s"] * staged, moving)


def _exchange(x, c, P, W):
    return c["fixed_s"] + c["rank_s"] * (x["ranks"] - 1) + x["bytes"] / (c["bandwidth_share"] * W) + c["root"] * x["bytes"] ** 0.5


def _send(x, c, P, W):
    return c["fixed_s"] + x["bytes"] / (c["bandwidth_share"] * W)


FORMS = {
    form.__name__[1:]: form for form in (_matmul, _experts, _attention, _latent_attention, _state, _rowwise, _all_reduce, _exchange, _send)
}


def _amounts(size):
    """Every feature of every family, no two alike."""
    x = {"ranks": 6.0, "m": 3.0 * size, "n": 700.0 * size, "k": 900.0, "width": 192.0, "intermediate": 1400.0, "excess": 2.5 * size}
    x |= {n: 1e7 * 1.3**i * size for i, n in enumerate(("flops", "row_flops", "spare_flops", "absorbed_flops"))}
    moved = ("bytes", "weight_bytes", "cache_bytes", "activation_bytes", "state_bytes", "row_bytes")
    x |= {n: 1e5 * 1.7**i * size for i, n in enumerate(moved)}
    counts = {"head_rows": 40, "head_sequences": 7, "ungrouped_sequences": 11, "sequences": 13, "elements": 1e5}
    return x | {n: count * size for n, count in counts.items()}


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("size", [1, 1e2, 1e4])
def test_a_kernel_takes_what_its_published_formula_says(name, size):
    """The formulas in the docstrings of roofline.kernels.forms, written anew: every constant where a fit starts, every amount another."""
    x = _amounts(size)
    c = {constant.name: constant.start for constant in FAMILIES[name].constants}
    found = FAMILIES[name].seconds(x, c, peak_flops_per_s=1e15, bandwidth=3e12)
    assert found == pytest.approx(FORMS[name](x, c, 1e15, 3e12), rel=1e-9)


NO_EFFECT = {  # where the term of a constant is gone, or is what physics asks for: one pass, no padding
    "all_reduce": {"stage_s": 0, "stage_bytes": 1e300},
    "attention": {"double_width": np.inf, "passes": 1, "ungrouped": 1}
    | dict.fromkeys(("head_sequence_s", "ramp_s", "pad_rows", "head_row_s", "softmax_width"), 0),
    "latent_attention": {"passes": 1} | dict.fromkeys(("sequence_s", "ramp_s", "head_row_s"), 0),
    "experts": dict.fromkeys(("pad_rows", "pad_columns", "tile_rows", "element_bytes"), 0),
    "matmul": dict.fromkeys(("spare_rows", "least_area", "extra_depth", "row_bytes", "depth_s", "large"), 0),
}


@pytest.mark.parametrize("size", [1, 1e2, 1e4])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_constant_that_a_record_leaves_out_has_no_effect(name, size):
    x = _amounts(size)
    usual = {constant.name: constant.start for constant in FAMILIES[name].constants} | {"fixed_s": 1e-7}
    neutral = {constant.name: constant.neutral for constant in FAMILIES[name].constants if constant.neutral is not None}
    assert set(neutral) == set(NO_EFFECT.get(name, ()))
    for constant, value in neutral.items():
        found = FAMILIES[name].seconds(x, usual | {constant: value}, peak_flops_per_s=1e15, bandwidth=3e12)
        without = FORMS[name](x, usual | {constant: NO_EFFECT[name][constant]}, 1e15, 3e12)
        assert found == pytest.approx(without, rel=0.02), constant


# ------------------------------------------------------------------------------------------------------------ estimates


@pytest.mark.parametrize("interval", [0.5, 0.8, 0.9])
def test_the_interval_of_a_kernel_is_between_quantiles_of_its_residuals(interval):
    """numpy's own interpolation between the percentiles of the record."""
    estimate = kernel_estimate(matmul_floor(4096, 4096, 4096, "h100-sxm", format="bf16"), interval=interval)
    levels = np.array(PERCENTILES) / 100
    low, high = (np.exp(np.interp(0.5 + side * interval / 2, levels, estimate.chosen.quantiles[0])) for side in (-1, 1))
    assert estimate.low_s == pytest.approx(max(min(low, 1) * estimate.time_s, estimate.floor.time_s), rel=1e-12)
    assert estimate.high_s == pytest.approx(max(high, 1) * estimate.time_s, rel=1e-12)


def test_a_kernel_of_a_calibrated_class_is_not_said_to_borrow_constants():
    calibrated = kernel_estimate(matmul_floor(64, 4096, 4096, "h100-sxm", format="bf16"))
    assert ("bf16", "bf16") in {(c.stored, c.operand) for c in calibrated.record.classes if c.family == "matmul"}
    assert not [note for note in calibrated.notes if "constants of" in note]
    assert calibrated.record.rates.origin != "fraction"
    assert not calibrated.chosen.generic.any()


@pytest.mark.parametrize("level", [0.0, 0.01, 0.013, 0.1, 0.37, 0.5, 0.77, 0.99, 1.0])
def test_quantiles_between_percentiles_are_interpolated(level):
    random = np.random.default_rng(7)
    quantiles = np.sort(random.normal(size=(3, len(PERCENTILES))), axis=1)
    expected = [np.interp(level, np.array(PERCENTILES) / 100, row) for row in quantiles]
    assert residual_quantile(quantiles, level) == pytest.approx(expected)


# --------------------------------------------------------------------------------------------------------------- levers


def test_half_the_prompt_is_the_prefill_of_half_the_tokens():
    lever = levers("llama-3-8b", "h100-sxm", step="prefill", prompt=4096, cached=1024)["half the prompt"]
    assert lever.time_s == prefill_floor("llama-3-8b", "h100-sxm", prompt=2048, cached=512).time_s


def test_half_the_context_of_a_mixed_step_is_half_of_every_group():
    asked = Step.decode(batch=8, context=4097) + Step.chunk(512, cached=2048)
    lever = levers("llama-3-8b", "h100-sxm", step=asked)["half the context"]
    half = Step.decode(batch=8, context=2048) + Step.chunk(512, cached=1024)
    assert lever.time_s == step_floor("llama-3-8b", "h100-sxm", half).time_s < step_floor("llama-3-8b", "h100-sxm", asked).time_s


def test_a_prompt_of_one_token_cannot_be_halved():
    rows = levers("llama-3-8b", "h100-sxm", step="prefill", prompt=1)
    assert not rows["half the prompt"].applicable
    assert not rows["sliding window"].applicable
    assert levers("llama-3-8b", "h100-sxm", step="prefill", prompt=2)["half the prompt"].applicable


@pytest.mark.parametrize("hit", [True, "0.5", None, -0.1, 1.1])
def test_a_hit_rate_is_a_share(hit):
    with pytest.raises(InvalidValueError, match="hit is"):
        levers("llama-3-8b", "h100-sxm", step="prefill", prompt=64, hit=hit)


# ------------------------------------------------------------------------------------------------------- critical batch


@pytest.mark.parametrize("model", ["llama-3-8b", "mixtral-8x7b", "olmoe-1b-7b"])
@pytest.mark.parametrize("context", [0, 10])
def test_the_critical_batch_is_where_every_smaller_batch_waits_for_memory(model, context):
    """Every batch tried, one by one."""
    found = critical_batch(model, "h100-sxm", context=context, weights="bf16")
    batches = np.arange(1, 3 * found.first_batch)
    floor = decode_floor(model, "h100-sxm", batch=batches, context=context, weights="bf16")
    gap = floor.compute_s - floor.memory_s
    last_waiting = batches[gap < 0].max()
    assert found.first_batch == last_waiting + 1
    # the time of each roof is a line between two whole batches
    before, after = gap[last_waiting - 1], gap[last_waiting]
    assert found.batch == pytest.approx(last_waiting + before / (before - after), rel=1e-6)
    assert found.limit == "memory"


def test_two_sequences_may_be_the_critical_batch():
    """Between one token and two a mixture reads nearly twice the weights, so that intensity hardly rises."""
    rates = {"memory_bandwidth": 1e12, "peak_flops_per_s": 1.08e12}
    found = critical_batch("mixtral-8x7b", **rates, weights="bf16")
    floor = decode_floor("mixtral-8x7b", **rates, weights="bf16", batch=np.array([1, 2]))
    before, after = floor.compute_s - floor.memory_s
    assert before < 0 < after
    assert found.first_batch == 2
    assert found.batch == pytest.approx(1 - before / (after - before))


def test_chunks_are_compute_bound_again_where_one_begins():
    """Llama-4-Scout: three of four layers see a chunk of 8192. Every context tried, with batches whose weights no longer matter.

    At this peak the last contexts that are compute-bound are the first few of the fourth chunk.
    """
    rates = {"memory_bandwidth": 3.35e12, "peak_flops_per_s": 106.1e12}
    contexts = np.arange(2**15)
    floors = [decode_floor("llama-4-scout-17b-16e", **rates, batch=batch, context=contexts) for batch in (2**30, 2**31)]
    compute, memory = (getattr(floors[1], name) - getattr(floors[0], name) for name in ("compute_s", "memory_s"))
    reached = np.flatnonzero(compute > memory)
    assert np.diff(reached).max() > 1000  # contexts between, at which no batch is compute-bound
    assert context_without_compute("llama-4-scout-17b-16e", **rates) == reached[-1] + 1


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_one_popularity_that_is_no_number_is_refused(wrong):
    """The others add up to 1, as they must."""
    with pytest.raises(InvalidValueError, match="popularity of each expert"):
        decode_floor("mixtral-8x7b", "h200", routing=[wrong, *[1 / 7] * 7])


def test_one_bandwidth_of_zero_among_others_is_refused():
    with pytest.raises(InvalidValueError, match="bandwidth is 0"):
        ridge_point(peak_flops_per_s=1e15, bandwidth=np.array([3e12, 0.0]))


def test_a_batch_that_fills_the_memory_to_the_last_byte_fits():
    """Llama-2-7B keeps 524,288 B per token (32 layers × 2 × 32 heads × 128 × 2 B): 4 sequences of 16 tokens beside its 13,476,831,232 B."""
    weights, cache = 13_476_831_232, 524_288
    exact = weights + 4 * 16 * cache
    for contexts in (16, np.array([16, 16])):
        assert np.all(max_batch("llama-2-7b", memory_capacity=exact, context=contexts) == 4)
        assert np.all(max_batch("llama-2-7b", memory_capacity=exact - 1, context=contexts) == 3)


@pytest.mark.parametrize("kv", ["bf16", "nvfp4"])
@pytest.mark.parametrize("batch", [0, 1, 2, 3])
def test_a_byte_less_than_a_sequence_needs_is_too_little(batch, kv):
    """Llama-2-7B: 13,476,831,232 B of weights; 4.5 bits of nvfp4, a scale of 8 bits for every 16, are 147,456 B per token."""
    page = 16 * {"bf16": 524_288, "nvfp4": 147_456}[kv]
    for spare, most in ((0, batch), (page - 1, batch), (-1, batch - 1)):
        memory = 13_476_831_232 + batch * page + spare
        assert max_batch("llama-2-7b", memory_capacity=memory, context=16, kv=kv) == max(most, 0)
        assert max_batch("llama-2-7b", memory_capacity=memory, context=np.array([16, 1]), kv=kv).tolist() == [max(most, 0)] * 2
        if most >= 0:
            found = resident("llama-2-7b", memory_capacity=memory, batch=0, kv=kv)
            assert found.free_pages == most


def test_without_a_cache_pages_are_free_without_end_or_there_are_none():
    """70e9 parameters of 2 B."""
    free = [resident("70B", memory_capacity=140e9 + spare).free_pages for spare in (-1, 0, 1)]
    assert free == [0, np.inf, np.inf]


def test_a_mix_keeps_what_any_of_its_sequences_shares():
    """gpt-oss-20b: every second of 24 layers has a window of 128, of which 127 stay; a position of a layer is 2 · 8 · 64 · 2 B.

    Of sequences of 128 and of 1024 positions, the first have the window within the prefix of 128, in whole pages of 16.
    """
    kept = resident("gpt-oss-20b", batch=2, context={128: 3, 1024: 5}, shared_prefix=128).kv_bytes
    layer = 12 * 2 * 8 * 64 * 2
    full = 128 + 2 * 5 * (1024 - 128)
    window = 128 + 2 * 5 * 128
    assert kept == layer * (full + window)


def test_engines_run_what_needs_nine_tenths_of_the_memory():
    """vLLM: --gpu-memory-utilization is 0.9 by default. 70e9 parameters of 2 B are 90 % of 155.56 GB."""
    assert resident("63B", memory_capacity=140_000_000_000).notes == ()
    assert resident("63B", memory_capacity=139_999_999_000).notes != ()
    # a reserve counts once
    assert resident("62B", memory_capacity=140_000_000_000, reserve=2e9).notes == ()
    assert resident("62B", memory_capacity=140_000_000_000, reserve=3e9).notes != ()


@pytest.mark.parametrize("count", [0, -1, 0.5])
def test_devices_are_counted_for_at_least_one_sequence(count):
    with pytest.raises(InvalidValueError, match="batch is"):
        fewest_devices("llama-3-8b", memory_capacity=80e9, batch=count)
    with pytest.raises(InvalidValueError, match="batch is"):
        max_context("llama-3-8b", memory_capacity=80e9, batch=count)


@pytest.mark.parametrize("popularity", [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (-0.5, 1.5), (1.5, -0.5)])
def test_popularities_are_numbers_of_at_least_zero(popularity):
    with pytest.raises(InvalidValueError, match="2 popularities of at least 0"):
        visited(popularity, 2, 1)


@pytest.mark.parametrize(("total", "right"), [(1, True), (1.0005, True), (1.01, False), (2, True), (2.0015, True), (2.01, False)])
def test_popularities_add_up_to_one_or_to_the_visits_of_a_token(total, right):
    """As exactly as three digits say."""
    routing = [total / 8] * 8
    if right:
        assert decode_floor("mixtral-8x7b", "h200", batch=4, routing=routing).time_s == decode_floor("mixtral-8x7b", "h200", batch=4).time_s
    else:
        with pytest.raises(InvalidValueError, match=f"they add up to {total:g}"):
            decode_floor("mixtral-8x7b", "h200", routing=routing)


@pytest.mark.parametrize("name", list_records())
def test_a_kernel_that_was_measured_has_its_own_constants(name):
    """Whatever else a record has of the same family: other formats of the same width, or other kernels."""
    record = load_record(name)
    for found in record.classes:
        if found.constants and not (found.shapes and FAMILIES[found.family].alike):  # test_shapes has those
            over_host = found.fixed_sizes.get("links") == "host"  # devices that no other links join
            machine = Hardware.load("rtx-4090" if over_host else record.hardware or "h100-sxm")
            kind = "collective" if over_host else "normalization" if found.fixed_sizes.get("kernel") == "norm" else "element-wise"
            op = Op("kernel", kind, found.operand, family=found.family, stored=found.stored or found.operand)
            chosen = choose(FAMILIES[found.family], [op], record, machine, steps=found.steps or STEPS, static=found.static_scales)
            grow = {c.name for c in FAMILIES[found.family].constants if c.grows and record.rates.origin == "fraction"}
            growth = machine.peak(found.operand).value / 1e15 if grow else 1.0
            expected = {n: c.value * (growth if n in grow else 1.0) for n, c in found.constants.items()}
            assert {n: chosen.constants[n].item() for n in found.constants} == pytest.approx(expected, rel=1e-12)
            assert chosen.quantiles.tolist() == [list(found.residual_quantiles)]


@pytest.mark.parametrize("interval", [0.5, 0.8, 0.96])
def test_deviations_of_different_kernels_add_up_in_squares_and_those_of_the_same_one_as_they_are(interval):
    """The same kernel is what takes the same time in its family; half of a 96 % interval is 2.054 normal deviations."""
    estimate = decode_estimate("llama-3-8b", "h100-sxm", batch=8, context=1024, interval=interval)
    assert not any("not in" in note for note in estimate.notes)
    deviations = {0.5: 0.67449, 0.8: 1.28155, 0.96: 2.05375}  # of a normal distribution, Abramowitz and Stegun, table 26.1
    step, share = estimate.overheads.step, deviations[interval] / deviations[0.8]
    rows = estimate.by_op()
    same = {(row.family, f"{row.time_s / row.count:.9g}"): [] for row in rows}
    for row in rows:
        same[row.family, f"{row.time_s / row.count:.9g}"].append(row)
    assert len(same) < len(rows)
    high = sum(sum(row.high_s - row.time_s for row in alike) ** 2 for alike in same.values()) + ((step.high - step.value) * share) ** 2
    low = sum(sum(row.time_s - row.low_s for row in alike) ** 2 for alike in same.values()) + ((step.value - step.low) * share) ** 2
    assert estimate.high_s == pytest.approx(estimate.time_s + high**0.5, rel=1e-5)
    assert estimate.low_s == pytest.approx(max(estimate.time_s - low**0.5, estimate.floor.time_s), rel=1e-5)
    each = 8 * load_engine("vllm").host.sequence_s
    assert estimate.time_s == pytest.approx(sum(row.time_s for row in estimate.by_op()) + step.value + each)


@pytest.mark.parametrize("batch", [1, 8])
def test_an_estimate_yields_a_token_of_every_sequence_in_its_time(batch):
    estimate = decode_estimate("llama-3-8b", "h100-sxm", batch=batch, context=1024)
    assert estimate.tokens_per_s == pytest.approx(batch / estimate.time_s)


def test_deviations_of_generic_constants_have_a_part_in_common_in_each_family():
    """Different kernels of one family correlate by 0.4, as on machines left out of the fit; families and the step's own time do not."""
    estimate = decode_estimate("llama-3-8b", "h100-sxm", batch=8, context=1024, calibration="generic")
    rows, step = estimate.by_op(), estimate.overheads.step
    high, low = (step.high - step.value) ** 2, (step.value - step.low) ** 2
    for family in {row.family for row in rows}:
        own = [row for row in rows if row.family == family]
        for ends, total in (([row.high_s - row.time_s for row in own], "high"), ([row.time_s - row.low_s for row in own], "low")):
            kernels = {}
            for row, end in zip(own, ends, strict=True):  # the same kernel in several operators has the same error
                key = f"{row.time_s / row.count:.9g}"
                kernels[key] = kernels.get(key, 0) + end
            squares = 0.6 * sum(end**2 for end in kernels.values()) + 0.4 * sum(kernels.values()) ** 2
            high, low = (high + squares, low) if total == "high" else (high, low + squares)
    assert estimate.high_s == pytest.approx(estimate.time_s + high**0.5)
    assert estimate.low_s == pytest.approx(max(estimate.time_s - low**0.5, estimate.floor.time_s))


@pytest.mark.parametrize(("tensor", "line"), [(1, []), (2, ["  devices: 2, of which this is the fullest"])])
def test_memory_of_several_devices_says_so(tensor, line):
    lines = resident("llama-3-8b", tensor_parallel=tensor).summary()
    assert [text for text in lines if "devices" in text] == line


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"hardware": "h100-sxm"}, "H100"),
        ({"memory_capacity": 80e9}, "on 80 GB:"),
        ({}, "on a device of unknown memory:"),
    ],
)
def test_memory_is_that_of_a_device_by_its_name_or_size(options, name):
    """16 GB of weights."""
    said = resident("llama-3-8b", **options).summary()[0]
    assert name in said
    assert "FIT" not in said
    assert resident("llama-3-8b", memory_capacity=10e9).summary()[0].endswith("on 10 GB: 16.06 GB of 10 GB that may be used: DOES NOT FIT")


# ---------------------------------------------------------------------------------------------------------------- roofs

H100 = {"bandwidth": 3.352e12, "link": 450e9, "nic": 50e9}  # HBM3 of H100 SXM, NVLink 4 and one 400 Gbit/s NIC, one direction


@pytest.mark.parametrize(
    ("model", "degrees"),
    [
        ("qwen3-next-80b-a3b", {"tensor_parallel": 2}),
        ("qwen3-next-80b-a3b", {"pipeline_parallel": 4}),
        ("deepseek-v3", {"data_parallel": 16, "expert_parallel": 16}),
        ("llama-3-70b", {"tensor_parallel": 8, "pipeline_parallel": 2}),
    ],
)
def test_the_roofs_of_a_step_are_sums_over_its_operators(model, degrees):
    """Every stage has a cache of 50 MB, which saves a byte of weights one transfer and one of a state two."""
    machine = Hardware.load("h100-sxm")
    floor = decode_floor(model, machine, batch=64, context=1000, **degrees)
    ops = [row.op for row in floor.by_op()]

    def total(name):
        return sum(getattr(op, name) for op in ops)

    moved = sum(total(f"{what}_bytes") for what in ("weight", "kv_read", "kv_write", "state"))
    cache = machine.last_level_cache * degrees.get("pipeline_parallel", 1)
    saved = cache + min(cache, total("state_bytes") / 2)
    assert floor.memory_s == pytest.approx(max(moved - saved, 0) / H100["bandwidth"])
    assert floor.compute_s == pytest.approx(sum(op.flops / machine.ceilings[op.operand].value for op in ops if op.flops))
    links = total("link_bytes") / H100["link"], total("nic_bytes") / H100["nic"], total("hops") * (machine.scale_up.latency_s or 0)
    assert floor.network_s == pytest.approx(max(links))
    for row in floor.by_op():
        traffic = row.op.compulsory_bytes + row.op.input_bytes + row.op.output_bytes
        general = row.op.vector_flops / machine.vector_ceiling.value
        assert row.memory_s == pytest.approx(traffic / H100["bandwidth"])
        assert row.compute_s == pytest.approx(max(row.op.flops / machine.ceilings[row.op.operand].value if row.op.flops else 0, general))


def test_matrices_in_sixteen_bits_are_multiplied_in_them_beside_narrower_ones():
    """Llama-3-8B: the head of 128,256 tokens stays in bf16; a token alone attends to itself, in 32 layers of 32 heads of 128."""
    floor = decode_floor("llama-3-8b", "h100-sxm", weights="fp8", activations="fp8")
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    assert dict(floor.work.flops_by_operand) == {"fp8": 32 * 2 * layer, "bf16": 2 * 4096 * 128_256 + 32 * 2 * 2 * 32 * 128}


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_step_that_needs_all_of_the_memory_fits(lacking):
    machine = {"memory_bandwidth": 3e12, "peak_flops_per_s": 1e15}
    needed = int(decode_floor("llama-3-8b", **machine, batch=4, context=1024).resident_bytes)
    floor = decode_floor("llama-3-8b", **machine, batch=4, context=1024, memory_capacity=needed - lacking)
    assert floor.fits == (not lacking)
    assert ("DOES NOT FIT" in str(floor)) == bool(lacking)


def test_shapes_of_sequences_go_together():
    with pytest.raises(InvalidValueError, match=r"do not broadcast together: batch \(2,\).*context \(3,\)"):
        resident("llama-3-8b", batch=[1, 2], context=[16, 32, 48])
