"""Levers against hand arithmetic and against direct calls of the floors: every gain is a second evaluation of the model."""

import json
import math

import numpy as np
import pytest

from roofline import (
    Hardware,
    InvalidValueError,
    Levers,
    Model,
    Step,
    UnknownNameError,
    decode_floor,
    expected_tokens,
    explain,
    levers,
    prefill_floor,
    step_floor,
)
from roofline.optimizations.changes import half_kv_heads, latent_cache, scaled, windowed

LLAMA = "llama-3-70b"
# Llama-3-70B, arXiv 2407.21783 table 3: 80 layers, width 8192, 64 heads of 128, 8 KV heads, feed-forward 28672, vocabulary 128256
LAYER = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672  # q and o, k and v, gate, up and down
HEAD = 8192 * 128256
NORMS = (2 * 80 + 1) * 8192
ROW = 8192  # of the embedding table, one per token
KV = 2 * 80 * 8 * 128  # elements per token
BARE = {"memory_bandwidth": 4.8e12, "peak_flops_per_s": 989.4e12}


def weight_bytes(per_layer_element, tokens=1):
    return 80 * LAYER * per_layer_element + 2 * (HEAD + NORMS + ROW * tokens)


def decode_bytes(weights=2, kv=2, batch=1, context=0):
    return weight_bytes(weights, batch) + KV * kv * batch * (context + 1)


# ------------------------------------------------------------------------------------------------------------ what is known


def test_decode_at_batch_one_wants_fewer_bytes():
    found = levers(LLAMA, "h200", context=1024)
    assert found.base.bound == "memory"
    for name in ("weights fp8_a16", "weights and activations fp8"):
        assert 1.9 < found[name].gain < 2.0
    assert found["weights int4"].gain > 3
    assert found["twice the memory bandwidth"].gain == pytest.approx(2, rel=1e-12)
    for name in ("twice the FLOP/s", "operator fusion", "activations fp8", "twice the memory capacity"):
        assert found[name].gain == 1
    assert "compute is not what binds" in found["twice the FLOP/s"].reason
    assert found["operator fusion"].roofline_gain >= 1
    assert 1.9 < found["twice the batch"].gain < 2  # per token
    assert found["twice the batch"].time_s > found.base.time_s


def test_long_prefill_wants_flops():
    found = levers(LLAMA, "h200", "prefill", prompt=2048)
    assert found.base.bound == "compute"
    assert found["twice the FLOP/s"].gain == pytest.approx(2, rel=1e-12)
    for name in ("twice the memory bandwidth", "weights int4", "weights fp8_a16"):
        assert found[name].gain == 1
        assert "memory is not what binds" in found[name].reason
    for name in ("weights and activations fp8", "weights and activations int8"):
        assert 1.9 < found[name].gain < 2
    assert found["twice the batch"].gain == pytest.approx(1, abs=1e-3)
    assert found["operator fusion"].gain == 1
    assert found["operator fusion"].roofline_gain > 1
    assert "no fp4 mode" in found["weights and activations nvfp4"].reason  # Hopper multiplies fp8 at best


def test_gains_of_formats_by_hand():
    """Bytes before / bytes after, at bare rates: nothing of a cache, nothing of arithmetic."""
    found = levers(LLAMA, batch=4, context=1000, **BARE)
    before = decode_bytes(batch=4, context=1000)
    for name, after in {
        "weights fp8_a16": decode_bytes(1, batch=4, context=1000),
        "weights int4": decode_bytes(4.25 / 8, batch=4, context=1000),  # 128 elements share 32 bits of scale and zero point
        "weights and activations nvfp4": decode_bytes(4.5 / 8, batch=4, context=1000),  # 16 elements share 8 bits of scale
        "KV cache fp8": decode_bytes(kv=1, batch=4, context=1000),
        "half the context": decode_bytes(batch=4, context=500),
        "half the KV heads": before - 80 * 2 * 8192 * 512 * 2 - KV * 4 * 1001,  # k and v of 4 heads of 128, and half the cache
    }.items():
        assert found[name].gain == pytest.approx(before / after, rel=1e-9), name
        assert found[name].time_s == pytest.approx(after / 4.8e12, rel=1e-9), name
    assert found["twice the batch"].gain == pytest.approx(2 * before / decode_bytes(batch=8, context=1000), rel=1e-9)


def test_at_long_context_and_large_batch_the_cache_matters_more_than_the_weights():
    found = levers(LLAMA, batch=64, context=8192, **BARE)
    before = decode_bytes(batch=64, context=8192)
    kv, weights = found["KV cache fp8"].gain, found["weights fp8_a16"].gain
    assert kv == pytest.approx(before / decode_bytes(kv=1, batch=64, context=8192), rel=1e-9)
    assert weights == pytest.approx(before / decode_bytes(1, batch=64, context=8192), rel=1e-9)
    assert kv > weights > 1.2
    small = levers(LLAMA, batch=1, context=1024, **BARE)
    assert small["KV cache fp8"].gain < small["weights fp8_a16"].gain


def test_prefix_caching_by_hand():
    """A compute-bound prefill of 4096 tokens, half of them cached: FLOP of the second half against FLOP of all."""
    found = levers(LLAMA, step="prefill", prompt=4096, hit=0.5, **BARE)

    def flops(new, pairs):
        return 2 * new * 80 * LAYER + 80 * 2 * 64 * 256 * pairs + 2 * HEAD

    whole = flops(4096, 4096 * 4097 // 2)
    half = flops(2048, 2048 * 2048 + 2048 * 2049 // 2)
    assert found["prefix cache"].gain == pytest.approx(whole / half, rel=1e-12)
    assert 1.9 < whole / half < 2  # the second half of a prompt has more to attend to
    assert found["prefix cache"].change == {"cached": 2048}
    assert not levers(LLAMA, step="prefill", prompt=4096, cached=2048, hit=0.5, **BARE)["prefix cache"].applicable
    assert levers(LLAMA, step="prefill", prompt=100, hit=1.0, **BARE)["prefix cache"].change == {"cached": 99}


def test_speculative_decoding_by_hand():
    """Batch 1 without context: a verification reads the weights once, three more rows of the table, writes three more cache entries."""
    expected = 1 + 0.8 + 0.8**2 + 0.8**3
    assert expected_tokens(3, 0.8) == pytest.approx(expected)
    verify = weight_bytes(2, tokens=4) + KV * 2 * 4
    free = levers(LLAMA, drafts=3, acceptance=0.8, **BARE)["speculative decoding"]
    assert free.gain == pytest.approx(expected * decode_bytes() / verify, rel=1e-9)
    # Llama-3-8B: 32 layers, width 4096, 32 heads of 128, 8 KV heads, feed-forward 14336; three steps of it
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    draft = 2 * (32 * layer + 4096 * 128256 + (2 * 32 + 1) * 4096 + 4096) + 2 * 2 * 32 * 8 * 128
    paid = levers(LLAMA, drafts=3, acceptance=0.8, draft="llama-3-8b", **BARE)["speculative decoding"]
    assert paid.gain == pytest.approx(expected * decode_bytes() / (verify + 3 * draft), rel=1e-9)
    assert paid.resident_bytes > free.resident_bytes + 15e9
    assert expected_tokens(4, 1) == 5
    assert expected_tokens(4, 0) == 1


def test_speculation_with_modules_of_its_own():
    found = levers("deepseek-v3", "h200", context=100, acceptance=0.85, drafts=3, tensor_parallel=8)["speculative decoding"]
    assert "its own multi-token-prediction module" in found.how
    direct = step_floor("deepseek-v3", "h200", Step.verify(3, batch=1, context=100), mtp=3, tensor_parallel=8)
    assert found.time_s == direct.time_s
    assert found.tokens == pytest.approx(1 + 0.85 + 0.85**2 + 0.85**3)


# --------------------------------------------------------------------------------------------- each is a direct call of a floor

CASES = {
    "dense decode": ({"model": "llama-3-8b", "hardware": "h100-sxm", "batch": 8, "context": 2048}, "decode"),
    "quantized decode": ({"model": "llama-3-8b", "hardware": "h100-sxm", "weights": "int4", "kv": "fp8", "context": 100}, "decode"),
    "unfused prefill": ({"model": "qwen3-8b", "hardware": "a100-sxm-80gb", "prompt": 3000, "fusion": "none"}, "prefill"),
    "experts": ({"model": "mixtral-8x7b", "hardware": "h200", "batch": 16, "context": 512, "routing": "best"}, "decode"),
    "latent": ({"model": "deepseek-v3", "hardware": "b200-sxm", "batch": 4, "context": 4096, "tensor_parallel": 8}, "decode"),
    "recurrent": ({"model": "falcon-mamba-7b", "hardware": "h100-sxm", "batch": 4, "context": 100}, "decode"),
    "hybrid": ({"model": "jamba-v0.1", "hardware": "h200", "prompt": 512, "cached": 100}, "prefill"),
    "anonymous": ({"model": "70B", "memory_bandwidth": 3e12}, "decode"),
    "encoder": ({"model": "bert-large", "hardware": "v100-sxm2-16gb", "prompt": 512, "batch": 8, "weights": "fp16"}, "prefill"),
    "mixed step": ({"model": "llama-3-8b", "hardware": "mi300x"}, Step.decode(batch=8, context=1024) + Step.prefill(512)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_lever_is_a_direct_call(name):
    arguments, step = CASES[name]
    found = levers(**arguments, step=step, machines=("h200", "mi300x"))
    floors = {"decode": decode_floor, "prefill": prefill_floor}

    def direct(change):
        given = {**arguments, **change}
        if "hardware" in change:
            given.pop("memory_bandwidth", None)
        if isinstance(step, Step) or "step" in change:
            given = {"hardware": None, "step": step, **given}
            return step_floor(**{k: v for k, v in given.items() if k not in ("batch", "context", "prompt", "cached")})
        return floors[step](**given)

    base = direct({})
    assert found.base.time_s == base.time_s
    assert found.roofline_s == base.roofline_s
    assert sum(row.applicable for row in found) >= 8
    for row in found:
        if not row.applicable:
            assert row.reason
            assert math.isnan(row.gain)
            continue
        again = direct(row.change)
        assert row.time_s == again.time_s, row.name
        assert row.roofline_s == pytest.approx(again.roofline_s, rel=1e-12), row.name
        assert row.bound == again.bound, row.name
        assert row.fits == again.fits, row.name
        if base.time_s and again.time_s:
            assert row.gain == pytest.approx(base.time_s / again.time_s * row.tokens, rel=1e-12), row.name
        assert row.devices == row.floor.devices == again.devices, row.name
        assert (row.tokens != 1) == (row.per == "token")


MODEL, MACHINE = "llama-3-8b", "h100-sxm"
SAME = {"batch": 8, "context": 2048}
BY_NAME = {
    # what a user would call instead, written out, with the useful tokens of its step per token of the step before
    "weights fp8_a16": (decode_floor, {**SAME, "weights": "fp8_a16"}, 1),
    "weights int4": (decode_floor, {**SAME, "weights": "int4"}, 1),
    "weights and activations fp8": (decode_floor, {**SAME, "weights": "fp8", "activations": "fp8"}, 1),
    "KV cache fp8": (decode_floor, {**SAME, "kv": "fp8"}, 1),
    "twice the batch": (decode_floor, {"batch": 16, "context": 2048}, 2),
    "half the context": (decode_floor, {"batch": 8, "context": 1024}, 1),
    "tensor_parallel=4": (decode_floor, {**SAME, "tensor_parallel": 4}, 1),
    "operator fusion": (decode_floor, {**SAME, "fusion": "full"}, 1),
    "speculative decoding": (step_floor, {"step": Step.verify(3, batch=8, context=2048)}, 1 + 0.5 + 0.25 + 0.125),
    "machine h200-sxm": (decode_floor, {**SAME, "hardware": "h200"}, 1),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_lever_is_the_floor_of_the_call_it_names(name):
    found = levers(MODEL, MACHINE, **SAME, acceptance=0.5, machines=("h200",))
    floor, call, tokens = BY_NAME[name]
    direct = floor(**{"model": MODEL, "hardware": MACHINE, **call})
    row = found[name]
    assert (row.time_s, row.roofline_s, row.bound) == (direct.time_s, pytest.approx(direct.roofline_s, rel=1e-12), direct.bound)
    assert (row.resident_bytes, row.fits, row.devices) == (direct.resident_bytes, direct.fits, direct.devices)
    assert row.tokens == tokens
    assert row.gain == pytest.approx(tokens * decode_floor(MODEL, MACHINE, **SAME).time_s / direct.time_s, rel=1e-12)


@pytest.mark.parametrize(
    ("degrees", "devices"),
    [
        ({"tensor_parallel": 8, "expert_parallel": 8}, 8),  # experts spread over the same eight devices
        ({"tensor_parallel": 4, "expert_parallel": 4}, 4),
        ({"data_parallel": 8, "expert_parallel": 8}, 8),
        ({"tensor_parallel": 2, "pipeline_parallel": 4}, 8),
    ],
)
def test_devices_of_a_lever_are_those_of_its_floor(degrees, devices):
    found = levers("deepseek-v3", "h200", batch=64, context=1024, **degrees)
    assert found.base.devices == devices
    for row in found:
        split = {name: degree for name, degree in row.change.items() if name.endswith("_parallel")}
        if row.applicable:
            assert row.devices == row.floor.devices, row.name
            assert row.devices == math.prod({**degrees, **split, "expert_parallel": 1}.values()), row.name
            assert f"devices instead of {devices}" in row.cost or not split
        elif not split:
            assert row.devices == devices, row.name


@pytest.mark.parametrize("name", CASES)
def test_levers_are_ranked(name):
    arguments, step = CASES[name]
    rows = levers(**arguments, step=step).rows
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    keys = [(not row.applicable, row.fits is False, -row.gain if row.applicable else 0) for row in rows]
    assert keys == sorted(keys)


# ------------------------------------------------------------------------------------------------------ capacity and devices


def test_levers_that_make_a_step_fit_come_first_and_say_so():
    found = levers(LLAMA, "h100-sxm", context=1024)  # 141 GB of weights, 80 GB of memory
    assert found.base.bound == "capacity"
    unlocking = [row.name for row in found if row.unlocks]
    assert {"weights int4", "weights fp8_a16", "tensor_parallel=2", "tensor_parallel=8", "twice the memory capacity"} <= set(unlocking)
    assert [row.name for row in found][: len(unlocking)] == unlocking
    assert found["twice the memory capacity"].gain == 1
    assert found["twice the memory bandwidth"].bound == "capacity"
    assert not found["twice the memory bandwidth"].helps
    assert "What makes it fit" in found.explain()
    assert found.best.unlocks
    assert "makes it fit" in found["weights fp8_a16"].line()


def test_a_lever_that_breaks_the_fit_is_not_a_gain():
    found = levers("llama-3-8b", "h100-sxm", batch=60, context=8192)  # 64 GB of cache beside 16 GB of weights: twice is too much
    assert found.base.fits
    doubled = found["twice the batch"]
    assert doubled.gain > 1
    assert (doubled.fits, doubled.bound, doubled.helps) == (False, "capacity", False)
    assert "DOES NOT FIT" in doubled.line()


def test_more_devices_name_their_price():
    found = levers(LLAMA, "h200", context=1024)
    row = found["tensor_parallel=4"]
    assert row.devices == 4
    assert row.time_s == decode_floor(LLAMA, "h200", context=1024, tensor_parallel=4).time_s
    assert row.resident_bytes == pytest.approx(found.base.resident_bytes / 4, rel=0.01)
    assert "4 devices instead of 1" in row.cost
    split = levers(LLAMA, "h200", context=1024, tensor_parallel=4)
    assert [split[f"tensor_parallel={t}"].applicable for t in (2, 4, 8)] == [False, False, True]
    assert "8 devices instead of 4" in split["tensor_parallel=8"].cost


def test_a_degree_that_does_not_divide_says_why():
    found = levers("qwen2.5-7b", "h100-sxm")  # 28 heads
    assert found["tensor_parallel=4"].applicable
    assert not found["tensor_parallel=8"].applicable
    assert "28" in found["tensor_parallel=8"].reason


def test_unknown_capacity_is_not_a_fit():
    found = levers(LLAMA, **BARE)
    assert all(row.fits is None for row in found if row.applicable)
    assert not found["twice the memory capacity"].applicable


# ------------------------------------------------------------------------------------------------- changed machines and models


@pytest.mark.parametrize("name", Hardware.list())
def test_a_scaled_machine_differs_in_one_figure(name):
    h = Hardware.load(name)
    twice = scaled(h, "memory bandwidth")
    assert twice.memory_bandwidth == 2 * h.memory_bandwidth
    assert (twice.compute, twice.cache, twice.memory_capacity) == (h.compute, h.cache, h.memory_capacity)
    if not any(np.isfinite(h.peak(operand).value) for operand in ("bf16", "fp32")):
        with pytest.raises(InvalidValueError, match="gives no FLOP/s"):
            scaled(h, "FLOP/s", 3)
        return
    faster = scaled(h, "FLOP/s", 3)
    assert faster.memory == h.memory
    for operand in ("bf16", "fp8", "int8", "fp32"):
        if h.peak(operand).name == faster.peak(operand).name:
            assert faster.peak(operand).value == pytest.approx(3 * h.peak(operand).value)
            assert faster.ceiling(operand).value == pytest.approx(3 * h.ceiling(operand).value)
    if h.memory_capacity is not None:
        assert scaled(h, "memory capacity").memory_capacity == 2 * h.memory_capacity
    assert h.id in twice.id
    assert h.id in twice.memory_ceiling.source


def test_scaling_an_unknown_rate_raises():
    bare = Hardware.from_rates(memory_bandwidth=1e12)
    for what in ("memory capacity", "FLOP/s", "link bandwidth"):
        with pytest.raises(InvalidValueError, match="gives no"):
            scaled(bare, what)
    with pytest.raises(InvalidValueError, match="must be one of"):
        scaled(bare, "price")


def test_model_variants_of_levers():
    llama = Model.load(LLAMA)
    assert half_kv_heads(llama).kv_bytes_per_token() == llama.kv_bytes_per_token() / 2 == 163_840
    # DeepSeek-V2, arXiv 2405.04434 table 1: (4 + 1/2) head widths per layer, against 2 · 8 head widths of Llama
    assert latent_cache(llama).kv_bytes_per_token() == 80 * 4.5 * 128 * 2
    assert decode_floor(windowed(llama, 100), context=5000, **BARE).kv_read_bytes == KV * 2 * 99
    for change in (half_kv_heads, latent_cache):
        with pytest.raises(InvalidValueError, match="falcon-mamba"):
            change(Model.load("falcon-mamba-7b"))
    with pytest.raises(InvalidValueError, match="full attention"):
        windowed(Model.load("deepseek-v3"), 100)
    with pytest.raises(InvalidValueError, match="smaller as a latent"):
        latent_cache(Model.load("falcon-7b"))  # one KV head: 2 head widths


# -------------------------------------------------------------------------------------------------------------- kernels, states


def test_flash_attention_shortens_the_roofline_time_only():
    unfused = levers("llama-3-8b", "h100-sxm", "prefill", prompt=8192, fusion="none")
    assert unfused["flash attention"].gain == 1
    assert unfused["flash attention"].roofline_gain > 1.1
    assert unfused["operator fusion"].roofline_gain >= unfused["flash attention"].roofline_gain
    assert not levers("llama-3-8b", "h100-sxm", "prefill", prompt=8192)["flash attention"].applicable
    assert not levers("llama-3-8b", "h100-sxm", fusion="full")["operator fusion"].applicable


def test_without_a_cache_no_cache_lever():
    for model in ("70B", "falcon-mamba-7b"):
        found = levers(model, "h200", context=0)
        assert [found[n].applicable for n in ("KV cache fp8", "sliding window", "half the KV heads", "half the context")] == [False] * 4
    assert "no KV cache" in levers("70B", "h200")["KV cache fp8"].reason


def test_a_mapping_of_weight_formats_keeps_its_components():
    given = {"*": "fp8", "lm_head": "fp8"}
    found = levers(LLAMA, "h200", weights=given)
    assert found["weights int4"].change["weights"] == {"*": "int4", "lm_head": "fp8"}
    assert found["weights fp8_a16"].gain == 1
    assert given == {"*": "fp8", "lm_head": "fp8"}


def test_a_model_without_a_dtype_keeps_the_one_it_was_given():
    found = levers("bert-large", "v100-sxm2-16gb", "prefill", prompt=512, batch=8, weights="fp16")
    assert found["weights int4"].applicable
    assert found["weights int4"].gain == 1  # compute-bound
    assert 0.25 < found["weights int4"].resident_bytes / found.base.resident_bytes < 0.4  # the embedding tables stay in fp16
    assert "no fp8 mode: computed in fp16" in found["weights and activations fp8"].reason


def test_a_draft_model_has_to_fit_too():
    beside = levers("llama-3-8b", "rtx-4090", draft="llama-3-8b")  # 16 GB fit into 24, twice 16 do not
    assert beside.base.fits
    assert (beside["speculative decoding"].fits, beside["speculative decoding"].bound) == (False, "capacity")
    assert levers("llama-3-8b", "h100-sxm", draft="llama-3-8b")["speculative decoding"].gain < 1  # a draft as dear as the model
    assert not levers("llama-3-8b", "h100-sxm", "prefill", prompt=9)["speculative decoding"].applicable


def test_best_lever_is_none_or_makes_the_step_fit():
    rows = levers("llama-3-8b", "h100-sxm", batch=100, context=100_000)  # far too large: no single lever makes it fit
    assert rows.best is None or rows.best.unlocks
    assert "Levers after which it does not fit into memory" in rows.explain()


# ------------------------------------------------------------------------------------------------------------------------ words


def test_explain_a_decode():
    text = explain(decode_floor(LLAMA, "h200", context=1024))
    assert "and is memory-bound." in text
    assert "What helps: twice the memory bandwidth 2.00×" in text
    assert "twice the FLOP/s 1.00×" in text.split("What does not:")[1]
    assert "below the ridge of this machine at 223" in text  # 132 · 4096 FLOP · 1.98 GHz / 4.8e12 B/s


def test_explain_a_prefill():
    text = explain(prefill_floor(LLAMA, "h200", prompt=4096))
    assert "and is compute-bound." in text
    assert "What helps: twice the FLOP/s 2.00×" in text
    assert "twice the memory bandwidth 1.00×" in text.split("What does not:")[1]


def test_explain_names_the_batch_where_the_bound_changes():
    floor = decode_floor(LLAMA, context=0, **BARE)
    text = explain(floor)
    times = float(text.split("With about ")[1].split(" ×")[0])
    batch = np.arange(1, 1024)
    bounds = decode_floor(LLAMA, batch=batch, context=0, **BARE).bound
    assert times == pytest.approx(batch[bounds == "compute"][0], rel=0.01)
    long = explain(decode_floor(LLAMA, context=100_000, **BARE))
    assert "No batch makes it compute-bound" in long
    assert np.all(decode_floor(LLAMA, batch=batch * 1000, context=100_000, **BARE).bound == "memory")


def test_explain_without_a_peak_or_with_experts_or_tiny():
    assert "No other roof of this step is known." in explain(decode_floor("70B", memory_bandwidth=3e12))
    experts = explain(decode_floor("mixtral-8x7b", "h200"))
    assert "The bound changes to compute once memory is" in experts
    assert "× the sequences" not in experts  # more sequences touch more experts: no closed form
    assert "and is compute-bound." in explain(decode_floor(10**7, "h100-sxm"))  # all of it stays in the cache


def test_explain_says_first_what_does_not_fit():
    assert "does not fit" in explain(decode_floor(LLAMA, "h100-sxm")).splitlines()[1]


def test_levers_explain_in_words():
    text = levers(LLAMA, "h200", context=1024).explain()
    assert text.startswith("This decode step of")
    assert "Levers that lower the floor:" in text
    assert "quality" in text
    assert "Levers that do not help here:" in text.split("Levers that lower the floor:")[1]


def test_levers_convert_to_dict_json_and_records():
    found = levers("llama-3-8b", "h100-sxm", context=100)
    records = found.to_records()
    assert len(records) == len(found) == len(found.rows)
    assert records[0]["name"] == found.rows[0].name
    data = json.loads(found.to_json())
    assert data["base_bound"] == "memory"
    assert data["gain"][0] == found.rows[0].gain
    assert None in data["gain"]  # what does not apply has no gain
    assert isinstance(found, Levers)
    assert str(found).splitlines()[0].startswith("levers for this decode")
    assert "<Levers" not in repr(found)
    assert "<table>" in found._repr_html_()
    with pytest.raises(UnknownNameError, match="weights fp8_a16"):
        found["weights fp8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": [1, 2]}, "array"),
        ({"prompt": 10}, "prompt cannot be given for a decode"),
        ({"step": "prefill"}, "needs prompt"),
        ({"step": "prefill", "prompt": 10, "context": 3}, "context cannot be given"),
        ({"step": "train"}, "'decode', 'prefill' or a Step"),
        ({"step": Step.decode(), "batch": 2}, "a Step: it says all itself"),
        ({"step": Step.decode(batch=np.array([1, 2]))}, "one step"),
        ({"acceptance": 1.5}, "probability"),
        ({"hit": -1}, "share of the prompt"),
        ({"drafts": 0}, "at least 1"),
        ({"fusion": "some"}, "fusion"),
    ],
)
def test_invalid_lever_arguments_raise(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        levers("llama-3-8b", "h100-sxm", **arguments)


def test_explain_takes_one_floor():
    with pytest.raises(InvalidValueError, match="one step"):
        explain(decode_floor("70B", memory_bandwidth=3e12, batch=[1, 2]))
    with pytest.raises(InvalidValueError, match="floor of a step"):
        explain("70B")


def test_unknown_machines_are_refused_at_once():
    with pytest.raises(UnknownNameError):
        levers("llama-3-8b", "h100-sxm", machines=("h1000",))
