"""One device's share of a model: what is split, what is copied, what has to travel, and what no degree may change."""

from collections import Counter

import numpy as np
import pytest

from catalogue import every_model
from roofline import Hardware, InvalidValueError, Model, Step, decode_floor, prefill_floor, step_floor
from roofline.bounds import network_time
from roofline.forward import forward
from roofline.kernels import FAMILIES
from roofline.ops import all_reduce, exchange
from roofline.parallel import SINGLE, Parallel, shard_model
from roofline.parallel.sharding import stages

H100 = "h100-sxm"
LLAMA = "llama-3-70b"


@pytest.mark.parametrize(("degree", "per_device"), [(1, 327_680), (2, 163_840), (4, 81_920), (8, 40_960), (16, 40_960), (32, 40_960)])
def test_cache_is_split_by_heads_until_there_is_one_for_each_device(degree, per_device):
    # Llama-3-70B: 2 · 80 layers · 8 key-value heads · 128 · 2 B = 327,680 B; beyond 8 devices heads are copied
    assert shard_model(Model.load(LLAMA), Parallel(tensor=degree)).kv_bytes_per_token("bf16") == per_device


def test_the_latent_cache_is_on_every_device():
    model = Model.load("deepseek-v3")
    assert shard_model(model, Parallel(tensor=8)).kv_bytes_per_token("bf16") == model.kv_bytes_per_token("bf16") == 70_272


@pytest.mark.parametrize("name", ["llama-3-70b", "mixtral-8x7b", "deepseek-v3.2", "qwen3-next-80b-a3b", "gpt-neox-20b", "nemotron-h-56b"])
@pytest.mark.parametrize("step", [Step.decode(batch=16, context=1000), Step.prefill(512)], ids=["decode", "prefill"])
def test_share_on_one_device_is_the_model(name, step):
    model = Model.load(name)
    alone, same = forward(model, step), forward(model, step, parallel=Parallel(), domain=8)
    assert same.ops == alone.ops
    assert same.resident_bytes == alone.resident_bytes
    assert shard_model(model, SINGLE) is model


@pytest.mark.parametrize("degree", [2, 4, 8])
@pytest.mark.parametrize("name", ["llama-3-70b", "gpt-neox-20b", "mixtral-8x7b", "gemma-3-27b", "falcon-mamba-7b"])
def test_shares_add_up_to_the_model(name, degree):
    """FLOP are conserved; so are weights, but for what every device keeps: norms, routers, biases of outputs, padding."""
    model = Model.load(name)
    share = shard_model(model, Parallel(tensor=degree))
    whole = forward(model, Step.decode(batch=4, context=512), routing="best")
    part = forward(share, Step.decode(batch=4, context=512), routing="best")
    copied = {"mlp.gate"}
    totals = [Counter(), Counter(), Counter(), Counter()]
    for work, flops, weights in ((whole, *totals[:2]), (part, *totals[2:])):
        for op in work.ops:
            if op.kind == "contraction":
                flops[op.name] += op.flops
                weights[op.name] += op.weight_bytes
    flops, weights, our_flops, our_weights = totals
    for name in set(flops) - copied:
        if name == "lm_head":  # the vocabulary is padded
            assert 0 <= degree * our_flops[name] - flops[name] <= 2 * 4 * model.hidden_size * degree
        elif not name.endswith(".x_proj"):  # Mamba's rows for time step, input and output vectors are made on every device
            assert degree * our_flops[name] == flops[name], name
            bias = 2 * model.hidden_size * model.num_layers * degree
            assert 0 <= degree * our_weights[name] - weights[name] <= bias, name


def test_share_reads_at_least_an_even_part_and_sends_all_reduces():
    floor = decode_floor(LLAMA, H100, tensor_parallel=8)
    h = Hardware.load(H100)
    weights = decode_floor(LLAMA, H100).weight_bytes
    # 50 MiB of the bytes may be in the cache of each device
    assert floor.time_s >= (weights / 8 - h.last_level_cache) / h.memory_bandwidth
    # 80 layers, two sums each, of 8192 elements of 2 B for the one token
    assert floor.link_bytes == 80 * 2 * 8192 * 2
    assert floor.network_s == pytest.approx(floor.link_bytes / 450e9)
    assert any(row.op.name == "mixer.all_reduce" and row.bound == "network" for row in floor.by_op())
    assert floor.roofline_s > floor.time_s


def test_a_long_prefill_over_slow_links_is_bound_by_them():
    floor = prefill_floor("llama-3-8b", "l40s", prompt=4096, tensor_parallel=4)
    assert floor.roof == "network"
    # 32 layers · 2 sums · 4096 tokens · 4096 · 2 B over PCIe 4.0 x16, 31.5 GB/s one direction
    assert floor.network_s == pytest.approx(32 * 2 * 4096 * 4096 * 2 / 31.5e9, rel=2e-3)


def test_parallel_attention_and_feed_forward_need_one_all_reduce():
    one, two = decode_floor("falcon-7b", H100, tensor_parallel=71), decode_floor("llama-2-7b", H100, tensor_parallel=8)
    assert [op.name for op in one.work.ops if op.kind == "collective"] == ["mlp.all_reduce"]
    assert [op.name for op in two.work.ops if op.kind == "collective"] == ["mixer.all_reduce", "mlp.all_reduce"]


def test_all_reduce_beyond_the_domain_uses_the_nic():
    inside, outside = decode_floor(LLAMA, H100, batch=64, tensor_parallel=8), decode_floor(LLAMA, H100, batch=64, tensor_parallel=16)
    assert inside.work.total("nic_bytes") == 0
    assert outside.work.total("nic_bytes") == outside.work.total("link_bytes") / 8  # eight devices of a server share it
    h = Hardware.load(H100)
    assert outside.network_s == pytest.approx(max(outside.link_bytes / 450e9, outside.link_bytes / 8 / 50e9))
    assert network_time(450e9, 0, h) == pytest.approx(1.0)


def test_expert_parallel_places_whole_experts():
    model = Model.load("deepseek-v3")
    share = shard_model(model, Parallel(data=32, expert=32))
    experts = share.layers[-1].feed_forward
    assert (experts.local, experts.expert_matrices(7168)[0].copies, experts.router(7168).outputs) == (8, 8, 256)
    best = forward(model, Step.decode(batch=32), parallel=Parallel(data=32, expert=32), routing="best")
    busiest = next(op for op in best.ops if op.name == "mlp.experts.down_proj")
    # one token per device, all 32 gathered: 32 · 8 / 32 visits on the average device, at least one expert read
    assert busiest.flops == 58 * 2 * 2048 * 7168 * 8
    assert busiest.weight_bytes == pytest.approx(58 * 2048 * 7168 * 1, rel=1e-3)  # fp8 blocks


def test_expert_parallel_exchanges_tokens_only_between_groups():
    model, step = Model.load("deepseek-v3"), Step.decode(batch=64)
    tensor = forward(model, step, parallel=Parallel(tensor=8, expert=8))
    spread = forward(model, step, parallel=Parallel(data=8, expert=8))
    names = {op.name for op in spread.ops if op.link_bytes}
    assert names == {"mlp.experts.dispatch", "mlp.experts.combine"}
    assert {op.name for op in tensor.ops if op.link_bytes} == {"mixer.all_reduce", "mlp.all_reduce"}
    # 8 tokens of 7168 elements per device, dispatched in fp8 and combined in bf16 (arXiv 2412.19437, section 3.3); of 8 uniform choices
    # among 8 devices 7 · (1 − (7/8)^8) others are reached
    for name, size in (("dispatch", 1), ("combine", 2)):
        (sent,) = (op for op in spread.ops if op.name == f"mlp.experts.{name}" and op.link_bytes)
        assert sent.link_bytes == pytest.approx(58 * 8 * 7168 * size * 7 * (1 - (7 / 8) ** 8))


@pytest.mark.parametrize(("parallel", "visits"), [(Parallel(tensor=8, expert=8), 64 * 8), (Parallel(data=8, expert=8), 64 * 8 / 8)])
def test_experts_sort_the_visits_that_reach_their_device(parallel, visits):
    """Tensor-parallel devices have all 64 tokens; data-parallel ones get those dispatched to them, an eighth of the visits each."""
    work = forward(Model.load("deepseek-v3"), Step.decode(batch=64), parallel=parallel)
    first = next(op for op in work.ops if op.family == "experts")
    assert FAMILIES["experts"].features(first)["elements"] == pytest.approx(58 * visits * (2 * 7168 + 3 * 2048))


def test_pipeline_stages_never_divide_a_token_s_latency():
    alone, piped = decode_floor(LLAMA, H100, batch=8, context=1024), decode_floor(LLAMA, H100, batch=8, context=1024, pipeline_parallel=4)
    assert piped.total_bytes == alone.total_bytes
    assert piped.time_s > 0.99 * alone.time_s  # each stage's cache may hold some of its weights
    assert piped.fits
    assert not alone.fits
    assert piped.tokens_per_s == pytest.approx(4 * 8 / piped.time_s)
    # a step in flight in every stage: each device keeps a quarter of the layers and the cache of four steps for them
    assert piped.work.held_bytes == 4 * 8 * 1025 * 20 * 4096


def test_stages_hold_every_layer_once():
    model = Model.load("gemma-2-9b")
    cut = stages(model, 5)
    assert [s.num_layers for s in cut] == [9, 9, 8, 8, 8]
    assert sum(s.parameters for s in cut) == model.parameters + model.embedding_parameters  # the last keeps a copy of the tied table
    assert cut[0].embedding is not None
    assert cut[0].head is None
    assert cut[-1].embedding is None
    with pytest.raises(InvalidValueError, match="pipeline_parallel is 43"):
        stages(model, 43)


def test_data_parallel_groups_share_the_sequences():
    assert (
        decode_floor(LLAMA, H100, batch=10, context=4096, data_parallel=4).kv_read_bytes
        == decode_floor(LLAMA, H100, batch=3, context=4096).kv_read_bytes
    )


def test_context_parallel_shares_cache_and_attention():
    model = Model.load(LLAMA)
    alone, shared = (
        forward(model, Step.decode(batch=2, context=8192)),
        forward(model, Step.decode(batch=2, context=8192), parallel=Parallel(context=4)),
    )
    assert shared.total("kv_read_bytes") == alone.total("kv_read_bytes") / 4
    assert shared.total("weight_bytes") == alone.total("weight_bytes")
    assert shared.total("link_bytes") == 80 * 2 * 8192 * 2


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ({"tensor_parallel": 3}, "64 attention heads cannot be split 3 ways"),
        ({"tensor_parallel": 0}, "tensor_parallel is 0"),
        ({"tensor_parallel": 2.5}, "tensor_parallel is 2.5"),
        ({"tensor_parallel": np.array([1, 2])}, "tensor_parallel is"),
        ({"expert_parallel": 2, "tensor_parallel": 2}, "no experts"),
        ({"expert_parallel": 3, "tensor_parallel": 2}, "must divide"),
        ({"pipeline_parallel": 81}, "80 layers"),
    ],
)
def test_invalid_parallel_degrees_raise(degrees, message):
    with pytest.raises(InvalidValueError, match=message):
        decode_floor(LLAMA, H100, **degrees)


UNEVEN = {"falcon-7b", "gpt2-xl", "smollm2-135m", "smollm2-360m", "smolvlm2-256m", "smolvlm2-500m"}  # 71, 25, 9 or 15 attention heads


@pytest.mark.parametrize("name", every_model())
def test_every_model_of_the_catalogue_can_be_split_in_two_or_says_why_not(name):
    model = Model.load(name)
    rates = {"memory_bandwidth": 3e12, "peak_flops_per_s": 1e15, "weights": "bf16"}
    encoder = any(getattr(group.mixer, "visible", "") == "bidirectional" for group in model.layers)
    step = Step.prefill(64) if encoder else Step.decode(batch=4, context=100)
    if name in UNEVEN:
        with pytest.raises(InvalidValueError, match="cannot be split 2 ways"):
            step_floor(model, None, step, **rates, tensor_parallel=2)
        return
    two = step_floor(model, None, step, **rates, tensor_parallel=2)
    one = step_floor(model, None, step, **rates)
    assert one.memory_s / 2 <= two.memory_s <= one.memory_s
    assert one.flops / 2 <= two.flops <= one.flops
    assert two.resident_bytes <= one.resident_bytes


def test_one_device_has_no_collectives():
    assert all_reduce("x", 10, ranks=1, domain=8).link_bytes == 0
    assert exchange("x", 10, ranks=1, visits=8, domain=8).link_bytes == 0
    assert exchange("x", 10, ranks=8, visits=0, domain=8).link_bytes == 0


def test_every_stage_of_a_pipeline_has_a_cache_of_its_own():
    alone, piped = decode_floor(LLAMA, H100), decode_floor(LLAMA, H100, pipeline_parallel=4)
    h = Hardware.load(H100)
    assert piped.surviving_bytes == 4 * alone.surviving_bytes == 4 * 50 * 2**20
    assert piped.memory_s == pytest.approx((piped.total_bytes - 4 * h.last_level_cache) / h.memory_bandwidth)


def test_latency_counts_where_the_machine_s_spec_states_it():
    h = Hardware.load(H100)
    assert h.scale_up.latency_s is None  # no source states it, so it is absent
    slow = h.but(scale_up=h.scale_up.but(latency_s=2e-6))
    floor = decode_floor(LLAMA, slow, tensor_parallel=8)
    assert floor.network_s == pytest.approx(160 * 2e-6)  # 80 layers, two sums each, one after another
    assert decode_floor(LLAMA, h, tensor_parallel=8).network_s < floor.network_s
