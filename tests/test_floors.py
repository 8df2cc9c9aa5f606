"""Floors against numbers worked out by hand from datasheet rates and published dimensions, and what a result says about itself."""

import json
import math

import numpy as np
import pytest

from reference_counts import load_counts
from roofline import (
    Deployment,
    Hardware,
    InvalidValueError,
    Model,
    Step,
    StepTime,
    UnknownNameError,
    decode_estimate,
    decode_floor,
    matmul_floor,
    max_batch,
    prefill_floor,
    resident,
    ridge_point,
    step_floor,
    sweep,
)
from roofline.bounds import roofline_times
from roofline.forward import forward
from roofline.results import SCHEMA_VERSION

TRUTH = load_counts("llama-2-70b")
LLAMA = TRUTH["config"]
PARAMETERS, TABLE = TRUTH["params"]["total"], TRUTH["params"]["embedding"]
KV = 2 * 80 * 8 * 128 * 2  # keys and values, layers, heads, width, bytes: 327,680 B per token
SMALL = LLAMA | {"num_hidden_layers": 4}  # fits everywhere
GI = 2**30


# ------------------------------------------------------------------------------------------------------------ decode anchors


def test_decode_of_70b_parameters_at_3_tb_per_s_takes_46_67_ms():
    """70e9 parameters of 2 bytes at 3 TB/s: 140e9 / 3e12 = 46.67 ms."""
    floor = decode_floor("70B", memory_bandwidth=3e12)
    assert floor.time_s == pytest.approx(46.67e-3, abs=0.005e-3)
    assert floor.time_s == 70e9 * 2 / 3e12
    assert (floor.bound, floor.flops, floor.total_bytes) == ("memory", 2 * 70 * 10**9, 140 * 10**9)
    assert floor.tokens_per_s == pytest.approx(3e12 / 140e9)
    assert floor.intensity == 1


SHAPES = [(1, 0), (1, 1024), (1, 8192), (8, 1024), (8, 8192), (64, 1024), (64, 8192)]
DECODE_MS = {
    # (2·(68,976,648,192 − 32000·8192 of the table that only gives rows) + 327,680·batch·context) / W, in milliseconds
    3.35e12: (41.02, 41.12, 41.82, 41.83, 47.43, 47.44, 92.31),
    2.039e12: (67.40, 67.56, 68.72, 68.72, 77.93, 77.94, 151.67),
    3.0e12: (45.81, 45.92, 46.70, 46.71, 52.97, 52.97, 103.08),
}


@pytest.mark.parametrize(
    ("bandwidth", "batch", "context", "ms"), [(w, *s, ms) for w, row in DECODE_MS.items() for s, ms in zip(SHAPES, row, strict=True)]
)
def test_decode_of_llama_2_70b_at_bare_rates(bandwidth, batch, context, ms):
    floor = decode_floor(LLAMA, memory_bandwidth=bandwidth, batch=batch, context=context)
    assert floor.time_s * 1e3 == pytest.approx(ms, abs=0.01)
    read = 2 * (PARAMETERS - TABLE) + 2 * 8192 * batch  # every matrix once, a row of the table per token
    assert (floor.weight_bytes, floor.kv_read_bytes, floor.kv_write_bytes) == (read, KV * batch * context, KV * batch)
    assert floor.time_s == pytest.approx((read + KV * batch * (context + 1)) / bandwidth, rel=1e-12)


def test_the_configuration_in_a_file_gives_the_same(repository):
    file = repository / "examples" / "llama-2-70b" / "config.json"
    for source in (file, file.parent, str(file)):
        assert decode_floor(source, memory_bandwidth=3.35e12).time_s * 1e3 == pytest.approx(41.02, abs=0.01)


@pytest.mark.parametrize(("name", "bandwidth"), [("h100-sxm", 3.35e12), ("a100-sxm-80gb", 2.039e12)])
def test_named_machines_are_within_their_cache_of_the_bare_rates(name, bandwidth):
    h = Hardware.load(name)
    for (batch, context), ms in zip(SHAPES, DECODE_MS[bandwidth], strict=True):
        named = decode_floor(LLAMA, h, batch=batch, context=context)
        bare = decode_floor(LLAMA, batch=batch, context=context, memory_bandwidth=h.memory_bandwidth)
        assert 0 <= bare.time_s - named.time_s <= h.last_level_cache / h.memory_bandwidth * (1 + 1e-9)
        assert named.time_s * 1e3 == pytest.approx(ms, rel=2e-3)  # 3.352 TB/s there, 3.35 in the table


# ----------------------------------------------------------------------------------------------------------- prefill anchors


@pytest.mark.parametrize(("peak", "ms"), [(989.4e12, 288.9), (312e12, 916.3)])
def test_prefill_of_llama_2_70b(peak, ms):
    floor = prefill_floor(LLAMA, prompt=2048, memory_bandwidth=3.35e12, peak_flops_per_s=peak)
    assert floor.time_s * 1e3 == pytest.approx(ms, abs=0.05)
    assert floor.bound == "compute"
    layers = 2 * 2048 * 80 * 855_638_016  # 2·T·weights: q and o 2·8192², k and v 2·8192·1024, three of 8192·28672
    attention = 80 * 2 * 64 * (128 + 128) * 2048 * 2049 // 2
    assert floor.flops == layers + attention + 2 * 8192 * 32000


@pytest.mark.parametrize(("name", "ms"), [("h100-sxm", 267.0), ("a100-sxm-80gb", 916.3)])
def test_prefill_on_named_machines(name, ms):
    """The time above with H100 at 1.98 GHz, its highest clock, and not at the 1.83 GHz of its data sheet: 288.9 · 1.83 / 1.98."""
    assert prefill_floor(LLAMA, name, prompt=2048).compute_s * 1e3 == pytest.approx(ms, abs=0.1)


def test_lm_head_runs_on_sampled_rows_only():
    head = 2 * 8192 * 32000
    floors = {rows: prefill_floor(LLAMA, prompt=100, logits=rows, memory_bandwidth=3e12) for rows in ("none", "last", "all")}
    assert floors["last"].flops - floors["none"].flops == head
    assert floors["all"].flops - floors["none"].flops == 100 * head
    # the head's matrix and the final norm are not even read where no row is sampled
    assert floors["last"].weight_bytes - floors["none"].weight_bytes == 2 * (8192 * 32000 + 8192)
    assert floors["all"].weight_bytes == floors["last"].weight_bytes


def test_cached_tokens_are_read_not_computed():
    whole, hit = (prefill_floor(LLAMA, prompt=2048, cached=c, memory_bandwidth=3e12) for c in (0, 1024))
    assert (whole.kv_read_bytes, whole.kv_write_bytes) == (0, 2048 * KV)
    assert (hit.kv_read_bytes, hit.kv_write_bytes) == (1024 * KV, 1024 * KV)
    assert whole.flops > hit.flops > whole.flops / 2  # the later half sees more pairs


def test_a_prefill_of_one_token_is_a_decode_without_context():
    prefill, decode = prefill_floor(LLAMA, "h100", prompt=1), decode_floor(LLAMA, "h100")
    assert (prefill.time_s, prefill.flops, prefill.total_bytes) == (decode.time_s, decode.flops, decode.total_bytes)


# ------------------------------------------------------------------------------------------------------------------ capacity


@pytest.mark.parametrize("name", ["h100-sxm", "a100-sxm-80gb"])
def test_70b_in_16_bit_does_not_fit_one_80_gb_card(name):
    floor = decode_floor(LLAMA, name, weights="bf16")
    assert floor.fits is False
    assert floor.bound == "capacity"
    assert floor.roof == "memory"  # what the floor itself is made of is still said
    assert math.isnan(floor.tokens_per_s)
    assert floor.resident_bytes == 2 * PARAMETERS + KV
    text = str(floor)
    assert "DOES NOT FIT" in text
    assert "at least 2 such devices" in text  # 138 GB on cards of about 80
    assert "weights='int4'" in text
    assert "tokens/s" not in text


def test_advice_for_what_does_not_fit_makes_it_fit():
    floor = decode_floor(LLAMA, "a100-sxm-80gb", context=16384)
    assert not floor.fits
    assert "weights='int4'" in str(floor)
    assert decode_floor(LLAMA, "a100-sxm-80gb", context=16384, weights="int4").fits is True


def test_a_cache_that_does_not_fit():
    floor = decode_floor(LLAMA, "h100-sxm", weights="fp8", batch=[1, 512], context=8192)
    assert floor.fits.tolist() == [True, False]
    assert floor.bound.tolist() == ["memory", "capacity"]
    assert np.isnan(floor.tokens_per_s).tolist() == [False, True]
    assert "DOES NOT FIT" in str(floor)
    resident = (PARAMETERS - 2 * TABLE - 161 * 8192) * 1 + (2 * TABLE + 161 * 8192) * 2 + KV * 8193  # norms and tables stay at 16 bits
    assert floor.resident_bytes[0] == resident


def test_fits_is_none_where_the_capacity_is_unknown():
    floor = decode_floor(LLAMA, memory_bandwidth=3e12)
    assert floor.fits is None
    assert floor.bound == "memory"
    assert "FIT" not in str(floor)
    assert decode_floor(LLAMA, memory_bandwidth=3e12, memory_capacity=80e9).fits is False
    assert decode_floor(LLAMA, memory_bandwidth=3e12, memory_capacity=192e9).fits is True


def test_does_not_fit_is_reported_with_explicit_weight_format():
    """The configuration names no dtype, so the user does; the advice must not ask again."""
    config = {k: v for k, v in LLAMA.items() if k != "torch_dtype"}
    assert "DOES NOT FIT" in str(decode_floor(config, "h100-sxm", weights="bf16"))


def test_advice_keeps_what_was_chosen_for_single_components():
    floor = decode_floor(LLAMA, "h100-sxm", weights={"*": "fp8", "lm_head": "fp32"}, batch=64, context=8192)
    assert "DOES NOT FIT" in str(floor)


def test_a_bare_number_of_parameters_may_have_a_cache():
    """Llama-3-70B in bf16: 2 · 80 layers · 8 heads · 128 · 2 B = 327,680 B per token."""
    bare = {"memory_bandwidth": 3e12, "batch": 32, "context": 8192}
    floor = decode_floor("70B", kv_bytes_per_token=327_680, **bare)
    named = decode_floor("llama-3-70b", **bare)
    assert (floor.kv_read_bytes, floor.kv_write_bytes) == (named.kv_read_bytes, named.kv_write_bytes) == (32 * 8192 * 327_680, 32 * 327_680)
    assert floor.total_bytes == 140e9 + 32 * 8193 * 327_680
    assert floor.resident_bytes == floor.total_bytes
    assert max_batch("70B", memory_capacity=288e9, context=8192, kv_bytes_per_token=327_680) == (288 - 140) * 10**9 // (8192 * 327_680)
    split = decode_floor("70B", "h100-sxm", kv_bytes_per_token=327_680, context=8192, tensor_parallel=4)
    assert split.kv_read_bytes == 8192 * 81_920
    assert "products of attention" in str(floor)
    with pytest.raises(InvalidValueError, match=r"llama-3-70b has a KV cache of 327\.7 kB per token"):
        decode_floor("llama-3-70b", kv_bytes_per_token=1, **bare)
    with pytest.raises(InvalidValueError, match="give it or kv, not both"):
        decode_floor("70B", kv_bytes_per_token=1, kv="fp8", **bare)


# --------------------------------------------------------------------------------------------- BERT-large, arXiv 2007.00072

BERT = {"model": "bert-large", "step": Step.prefill(512, batch=8), "weights": "fp16"}
CONTRACTIONS = {
    # FLOP of one encoder layer at batch 8, sequence 512, in units of 2^30 (arXiv 2007.00072, table of operators, forward)
    "qkv_proj": 24,
    "scores": 4,
    "values": 4,
    "o_proj": 8,
    "up_proj": 32,
    "down_proj": 32,
}


def encoder(fusion):
    """The rows of BERT's encoder layers on a V100, as in that paper: 125 TFLOP/s, 900 GB/s."""
    work = forward(Model.load(BERT["model"]), BERT["step"], weights=BERT["weights"], fusion=fusion)
    rows = roofline_times(work, Hardware.load("v100-sxm2-16gb"))
    return [row for row in rows if row.op.count >= 24]


def test_contractions_of_bert_large():
    flops = {row.op.name.rpartition(".")[2]: row.op.flops for row in encoder("none") if row.op.kind == "contraction"}
    assert {name: f / 24 / GI for name, f in flops.items()} == CONTRACTIONS


def test_contractions_are_nearly_all_flops_of_bert_large():
    """The paper's table of operator classes: 99.80 % of FLOP are tensor contractions."""
    ops = [row.op for row in encoder("none")]
    contractions = sum(op.flops for op in ops)
    assert 0.997 < contractions / (contractions + sum(op.vector_flops for op in ops)) < 1


def test_classes_and_bounds_of_bert_large_before_fusion():
    """By hand, with 125e12/900e9 = 139 FLOP/B: linears 455…682 FLOP/B; scores and values below 2·64/2 = 64; all else below 2."""
    kinds = {}
    for row in encoder("none"):
        kinds.setdefault(row.op.kind, {})[row.op.name.rpartition(".")[2]] = row
    assert set(kinds) == {"contraction", "normalization", "element-wise"}
    linears = {"qkv_proj", "o_proj", "up_proj", "down_proj"}
    assert {name for name, row in kinds["contraction"].items() if row.bound == "compute"} == linears
    assert kinds["contraction"]["qkv_proj"].intensity == pytest.approx(24 * GI / 2 / (4096 * 1024 + 1024 * 3072 + 4096 * 3072), rel=1e-2)
    for kind in ("normalization", "element-wise"):
        for row in kinds[kind].values():
            assert row.bound == "memory", row.op.name
            assert row.intensity < 2, row.op.name
    assert {"softmax", "attention_layernorm", "output_layernorm"} <= set(kinds["normalization"])


def test_nothing_of_bert_large_is_memory_bound_after_full_fusion():
    assert {row.bound for row in encoder("full")} == {"compute"}
    by_fusion = [sum(row.time_s for row in encoder(fusion)) for fusion in ("none", "attention", "full")]
    assert by_fusion[0] > by_fusion[1] > by_fusion[2]


def test_fusion_changes_activations_only():
    floors = [prefill_floor(LLAMA, "h100", prompt=512, fusion=f) for f in ("none", "attention", "full")]
    assert len({f.time_s for f in floors}) == len({f.flops for f in floors}) == len({f.total_bytes for f in floors}) == 1
    assert floors[0].roofline_s > floors[1].roofline_s > floors[2].roofline_s > floors[2].time_s


# ------------------------------------------------------------------------------------------------------------------- formats

# Dense peaks of NVIDIA's data sheets (half of the figures "with sparsity"), FLOP/s
# H100 white paper: 132 SMs of 4096 FLOP per clock in 16 bit, 8192 in 8 bit; nvidia-smi: at most 1980 MHz
PEAKS = {"h100-sxm": {"fp16": 132 * 4096 * 1.98e9, "fp8": 132 * 8192 * 1.98e9}, "a100-sxm-80gb": {"fp16": 312e12, "int8": 624e12}}
MATRICES = 80 * 855_638_016
REST = 2 * (8192 * 32000 + 161 * 8192 + 8192)  # head, norms and one row of the table stay at 16 bits


@pytest.mark.parametrize(
    ("weights", "bits"),
    [
        # bits per weight with the scales: OCP MX v1.0 (8-bit scale per 32), NVFP4 (per 16), AWQ-style int4 (fp16 scale and zero per 128)
        ("fp16", 16),
        ("fp8", 8),
        ("int8", 8),
        ("int4", 4 + 32 / 128),
        ("int4_sym", 4 + 16 / 128),
        ("mxfp4", 4 + 8 / 32),
        ("nvfp4", 4 + 8 / 16),
    ],
)
def test_weight_formats_set_the_bytes(weights, bits):
    floor = decode_floor(LLAMA, memory_bandwidth=3e12, weights=weights)
    assert floor.weight_bytes == MATRICES * bits / 8 + REST


@pytest.mark.parametrize(
    ("machine", "weights", "activations", "operand"),
    [
        ("h100-sxm", None, None, "fp16"),
        ("h100-sxm", "fp8", None, "fp8"),
        ("h100-sxm", "fp8", "fp16", "fp16"),  # weights only
        ("h100-sxm", "int4", None, "fp16"),
        ("h100-sxm", "mxfp4", None, "fp16"),
        ("h100-sxm", "mxfp4", "fp8", "fp8"),
        ("a100-sxm-80gb", "int4", None, "fp16"),
        ("a100-sxm-80gb", "int8", None, "int8"),
        ("a100-sxm-80gb", "fp8", None, "fp16"),  # no fp8 mode
    ],
)
def test_formats_set_the_peak(machine, weights, activations, operand):
    floor = prefill_floor(LLAMA, machine, prompt=512, logits="none", weights=weights, activations=activations)
    pairs = 512 * 513 // 2
    attention = 80 * 2 * 64 * 256 * pairs / PEAKS[machine]["fp16"]  # the cache stays at 16 bits
    assert floor.compute_s == pytest.approx(2 * 512 * MATRICES / PEAKS[machine][operand] + attention, rel=1e-3)


def test_a_format_the_machine_lacks_is_converted_and_the_result_says_so():
    said = decode_floor(LLAMA, "a100", weights="fp8").assumptions
    assert any(("no fp8 mode" in note and "fp16" in note) or ("no fp8 mode" in note and "bf16" in note) for note in said)
    assert not any("no fp8 mode" in note for note in decode_floor(LLAMA, "h100", weights="fp8").assumptions)
    nvfp4 = decode_floor(LLAMA, "h100", weights="nvfp4")
    assert any("no fp4 mode" in note for note in nvfp4.assumptions)
    assert "no fp4 mode" in str(nvfp4)


def test_the_cache_has_a_format_of_its_own():
    wide, narrow = (decode_floor(LLAMA, "h100", context=8192, kv=kv) for kv in (None, "fp8"))
    assert wide.kv_read_bytes == 2 * narrow.kv_read_bytes == 8192 * KV
    assert wide.weight_bytes == narrow.weight_bytes


def test_formats_of_single_components():
    floor = decode_floor(LLAMA, memory_bandwidth=3e12, weights={"*": "fp8", "lm_head": "fp32", "mlp.down_proj": "int8"})
    assert floor.weight_bytes == MATRICES + REST + 2 * 8192 * 32000  # the head twice as wide as in 16 bits
    only = decode_floor(LLAMA, memory_bandwidth=3e12, weights={"mlp.down_proj": "fp8"})
    assert only.weight_bytes == 2 * MATRICES - 80 * 8192 * 28672 + REST


def test_configuration_without_dtype_raises():
    config = {k: v for k, v in LLAMA.items() if k != "torch_dtype"}
    with pytest.raises(InvalidValueError, match=r"names no dtype.*weights='bf16'"):
        decode_floor(config, memory_bandwidth=3e12)
    assert decode_floor(config, memory_bandwidth=3e12, weights="bf16").time_s == decode_floor(LLAMA, memory_bandwidth=3e12).time_s
    assert decode_floor(config, memory_bandwidth=3e12, weights="fp32").weight_bytes == 4 * (MATRICES + REST // 2)


# -------------------------------------------------------------------------------------------------------------- what it says


@pytest.fixture(scope="module")
def floor():
    return decode_floor(SMALL, "H100", batch=8, context=1024)


def test_summary_text_of_a_floor(floor):
    first, *rest = str(floor).splitlines()
    assert first.startswith("decode floor of config on H100 SXM5 80GB: ")
    assert first.endswith("(memory-bound)")
    text = "\n".join(rest)
    for word in ("roofs:", "work:", "intensity:", "tokens/s", "ceilings:", "assumed:", "left out:", "memory bandwidth", "fp16 matrix peak"):
        assert word in text
    assert repr(floor) == f"<{first}>"


def test_ambiguous_machine_alias_is_noted(floor):
    assert any('"H100" is read as h100-sxm' in note for note in floor.assumptions)
    assert '"H100" is read as h100-sxm' in str(floor)
    assert "is read as" not in str(decode_floor(SMALL, "h100-sxm"))


def test_ceilings_carry_their_sources(floor):
    assert {c.name for c in floor.ceilings} == {"memory bandwidth", "fp16 matrix peak", "last-level cache"}
    for ceiling in floor.ceilings:
        assert len(ceiling.source) > 10
        assert ceiling.evidence in "PVSR"
    bare = decode_floor(SMALL, memory_bandwidth=3e12)
    assert {c.source for c in bare.ceilings} == {"given by the caller"}


def test_without_a_compute_peak_the_floor_omits_arithmetic_and_says_so():
    floor = prefill_floor(LLAMA, prompt=10_000, memory_bandwidth=3e12)
    assert (floor.bound, floor.compute_s) == ("memory", 0)
    assert any("no compute peak" in note for note in floor.not_modelled)
    assert math.isinf(floor.ridge)


def test_ridge_and_intensity(floor):
    assert decode_floor(SMALL, "h100-sxm").ridge == pytest.approx(132 * 4096 * 1.98e9 / 3.352e12, rel=1e-3)
    assert ridge_point(peak_flops_per_s=989.4e12, bandwidth=3.35e12) == pytest.approx(295.3, abs=0.1)
    assert floor.intensity == floor.flops / floor.total_bytes
    assert (floor.intensity < floor.ridge) == (floor.roof == "memory")


def test_by_op_adds_up(floor):
    rows = floor.by_op()
    for amount in ("flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes"):
        assert sum(getattr(row.op, amount) for row in rows) == getattr(floor, amount)
    assert sum(row.time_s for row in rows) == pytest.approx(floor.roofline_s, rel=1e-12)
    assert sum(row.op.count for row in rows if row.op.name == "mlp.down_proj") == 4
    assert floor.roofline_s > floor.time_s


def test_the_result_names_the_matrices_that_it_takes_as_16_bits():
    """llama.cpp's GGUF of gpt-oss keeps attention, embedding and head in 8 bits, so it is faster than this floor of the Hub's formats.

    The measured steps take 0.87 to 0.99 of the floor with the Hub's formats on an APU of 256 GB/s, and 1.24 to 1.42 times that with those of the file.
    """
    hub = decode_floor("gpt-oss-20b", "strix-halo", context=512)
    assert "in 16 bits or more: embed_tokens, self_attn.qkv_proj, self_attn.o_proj, mlp.gate, lm_head; the other matrices in mxfp4" in str(
        hub
    )
    names = ("embed_tokens", "lm_head", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    file = decode_floor("gpt-oss-20b", "strix-halo", context=512, weights=dict.fromkeys(names, "q8_0"))
    assert 1.24 / 0.99 < hub.time_s / file.time_s < 1.42 / 0.87
    assert "in 16 bits or more: mlp.gate; " in str(file)
    assert "16 bits or more" not in str(decode_floor("llama-3-8b", "strix-halo"))


def test_context_beyond_max_positions_is_noted():
    assert any("4096 positions" in note for note in decode_floor(LLAMA, memory_bandwidth=3e12, context=4096).assumptions)
    assert not any("positions" in note for note in decode_floor(LLAMA, memory_bandwidth=3e12, context=4095).assumptions)


def plain(value):
    """Whether a value is made of what JSON knows."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value))


RESULTS = {
    "scalar": lambda: decode_floor(SMALL, "H100", batch=8, context=1024),
    "does not fit, so tokens/s is not a number": lambda: decode_floor(LLAMA, "H100"),
    "no peak, so an infinite ridge": lambda: decode_floor("70B", memory_bandwidth=3e12),
    "grid": lambda: decode_floor(SMALL, "h100", batch=[[1], [8]], context=[0, 10, 100]),
    "grid, partly fitting": lambda: decode_floor(LLAMA, "h100", weights="fp8", batch=[1, 512], context=8192),
}


@pytest.mark.parametrize("case", RESULTS)
def test_results_convert_to_dict_json_and_records(case):
    result = RESULTS[case]()
    data = result.to_dict()
    assert plain(data)
    assert data["schema_version"] == SCHEMA_VERSION == 1
    assert json.loads(result.to_json()) == data == json.loads(result.to_json(indent=2))
    assert "NaN" not in result.to_json()
    assert "Infinity" not in result.to_json()
    assert data["time_s"] == np.asarray(result.time_s).tolist()
    assert [row["name"] for row in data["ops"]] == [row.op.name for row in result.by_op()]
    assert all(c["source"] for c in data["ceilings"])
    assert len(result.to_records()) == np.size(result.time_s)


def test_records_are_flat_and_in_the_order_of_the_grid():
    grid = decode_floor(SMALL, "h100", batch=[[1], [8]], context=[0, 10, 100])
    records = grid.to_records()
    assert [r["time_s"] for r in records] == grid.time_s.ravel().tolist()
    assert records[4]["flops"] == decode_floor(SMALL, "h100", batch=8, context=10).flops
    assert all(not isinstance(v, (list, np.ndarray)) for r in records for v in r.values())
    assert records[0]["bound"] == "memory"


def test_html_view_of_a_floor(floor):
    html = floor._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<tr>") == html.count("</tr>") == len(str(floor).splitlines()) - 1
    evil = decode_floor(SMALL | {"_name_or_path": "<script>alert(1)</script>"}, "h100-sxm")
    assert "<script>" not in evil._repr_html_()


def test_results_are_frozen_and_compare(floor):
    with pytest.raises(AttributeError):
        floor.kind = "other"
    assert floor == decode_floor(SMALL, "H100", batch=8, context=1024)
    assert floor != decode_floor(SMALL, "H100", batch=9, context=1024)


def test_results_over_arrays_compare():
    one, same, other = (decode_floor(SMALL, "H100", batch=batch) for batch in ([1, 2], [1, 2], [1, 3]))
    assert one == same
    assert one != other


# -------------------------------------------------------------------------------------------------------- arrays and mixtures


def test_arrays_equal_scalars():
    batches, contexts = np.array([1, 2, 300])[:, None], np.array([0, 1, 5000, 131072])
    grid = decode_floor(LLAMA, "h100-sxm", batch=batches, context=contexts, kv="fp8")
    assert grid.time_s.shape == grid.bound.shape == grid.tokens_per_s.shape == (3, 4)
    for i, batch in enumerate(batches.ravel()):
        for j, context in enumerate(contexts):
            one = decode_floor(LLAMA, "h100-sxm", batch=int(batch), context=int(context), kv="fp8")
            for name in ("time_s", "compute_s", "memory_s", "total_bytes", "flops", "resident_bytes", "roofline_s", "ridge", "intensity"):
                value = np.broadcast_to(getattr(grid, name), (3, 4))[i, j]
                np.testing.assert_allclose(value, getattr(one, name), rtol=1e-12, err_msg=name)
            assert grid.bound[i, j] == one.bound
            assert grid.fits[i, j] == one.fits
            np.testing.assert_allclose(grid.tokens_per_s[i, j], one.tokens_per_s, rtol=1e-12)


@pytest.mark.parametrize("model", ["70B", SMALL], ids=["anonymous", "llama"])
@pytest.mark.parametrize(
    ("batch", "context", "shape"), [([1, 2], 0, (2,)), (1, [0, 5, 7], (3,)), ([[1], [2]], [0, 5, 7], (2, 3)), ([4], 0, (1,))]
)
def test_results_have_the_shape_that_the_arguments_broadcast_to(model, batch, context, shape):
    floor = decode_floor(model, batch=batch, context=context, memory_bandwidth=3e12, peak_flops_per_s=1e15, memory_capacity=192e9)
    for name in ("time_s", "tokens_per_s", "bound"):
        assert np.shape(getattr(floor, name)) == shape, name
    assert len(floor.to_records()) == math.prod(shape)


def test_scalars_in_scalars_out():
    floor = decode_floor(SMALL, "h100", batch=np.int64(3), context=5)
    assert isinstance(floor.time_s, float)
    assert isinstance(floor.flops, int)
    assert isinstance(floor.bound, str)
    assert isinstance(floor.fits, bool)
    assert np.ndim(floor.ridge) == np.ndim(floor.tokens_per_s) == 0


def test_mixed_steps_share_the_weights():
    rates = {"memory_bandwidth": 3e12, "peak_flops_per_s": 1e15}
    decode, prefill = Step.decode(batch=8, context=1024), Step.prefill(512)
    mixed, *parts = (step_floor(LLAMA, None, s, **rates) for s in (decode + prefill, decode, prefill))
    assert mixed.flops == sum(p.flops for p in parts)
    assert mixed.kv_read_bytes == sum(p.kv_read_bytes for p in parts)
    assert mixed.kv_write_bytes == sum(p.kv_write_bytes for p in parts)
    assert mixed.weight_bytes == 2 * (PARAMETERS - TABLE) + 2 * 8192 * (8 + 512)
    assert max(p.time_s for p in parts) < mixed.time_s < sum(p.time_s for p in parts)
    assert mixed.tokens_per_s == pytest.approx(520 / mixed.time_s)


def test_speculative_verification_of_k_drafts():
    rates = {"memory_bandwidth": 3e12}
    verify = step_floor(LLAMA, None, Step.verify(3, batch=2, context=100), **rates)
    decode = decode_floor(LLAMA, batch=2, context=100, **rates)
    pairs = sum(100 + i + 1 for i in range(4))
    assert verify.flops == 2 * 8 * (MATRICES + 8192 * 32000) + 80 * 2 * 64 * 256 * 2 * pairs  # all eight rows meet the head
    assert verify.kv_read_bytes == decode.kv_read_bytes  # the cache is read once for all rows
    assert verify.kv_write_bytes == 4 * decode.kv_write_bytes


def test_a_step_floor_of_a_decode_is_the_decode_floor():
    step = step_floor(LLAMA, "h100-sxm", Step.decode(batch=4, context=100))
    decode = decode_floor(LLAMA, "h100-sxm", batch=4, context=100)
    assert step.values() == pytest.approx(decode.values(), nan_ok=True)


# --------------------------------------------------------------------------------------------------------------- cached bytes


def test_last_level_cache_is_credited_against_memory_traffic():
    h = Hardware.load("h100-sxm")
    assert h.last_level_cache >= 50e6  # NVIDIA H100 architecture white paper: 50 MB of L2
    small = decode_floor(10**7, h)  # 20 MB of weights
    assert small.memory_s == 0
    assert small.bound == "compute"
    assert small.time_s == pytest.approx(2e7 / (132 * 4096 * 1.98e9), rel=1e-3)
    assert any("may survive in the cache" in note for note in small.assumptions)
    large = decode_floor(10**9, h)
    assert large.memory_s == pytest.approx((2e9 - h.last_level_cache) / h.memory_bandwidth, rel=1e-12)
    bare = decode_floor(10**7, memory_bandwidth=h.memory_bandwidth)
    assert bare.memory_s == 2e7 / h.memory_bandwidth


def test_a_tie_between_roofs_has_one_name():
    floor = decode_floor(10**9, memory_bandwidth=1e12, peak_flops_per_s=1e12)  # 2e9 B / 1e12 = 2e9 FLOP / 1e12
    assert floor.memory_s == floor.compute_s
    assert floor.bound in ("memory", "compute")


# ------------------------------------------------------------------------------------------------------------------- encoders


def test_an_encoder_has_a_prefill_floor_and_no_decode_floor():
    floor = prefill_floor("bert-large", "v100-sxm2-16gb", prompt=512, batch=8, weights="fp16")
    assert (floor.kv_read_bytes, floor.kv_write_bytes) == (0, 0)
    assert floor.bound == "compute"
    with pytest.raises(InvalidValueError, match="encoder"):
        decode_floor("bert-large", "v100-sxm2-16gb", context=10, weights="fp16")


def test_unknown_or_missing_machine_raises():
    with pytest.raises(UnknownNameError, match=r"nearest:.*h100"):
        decode_floor("70B", "h100-sxmx")


def test_the_text_of_an_array_says_which_points_do_not_fit():
    # a sequence of 8192 tokens takes 8192 * 131,072 B = 1.07 GB beside 16.06 GB of weights: 64 of them fit into 85.5 GB, 256 do not
    grid = decode_floor("llama-3-8b", "h100-sxm", batch=[[1], [64], [256]], context=[1024, 8192])
    assert "DOES NOT FIT: 1 of 6 points (batch 256, context 8192): the largest needs 291 GB" in str(grid)
    many = decode_floor("llama-3-8b", "h100-sxm", batch=[1, 5000, 6000, 7000, 8000], context=1024)
    assert "4 of 5 points (batch 5000; batch 6000; batch 7000; and 1 more): " in str(many)
    assert "all 2 points: " in str(decode_floor("llama-3-70b", "h100-sxm", batch=[1, 8]))
    step = Step.decode(batch=[1, 1000], context=8192) + Step.prefill(100)
    assert "1 of 2 points (index (1,)): " in str(step_floor("llama-3-8b", "h100-sxm", step))


def test_rows_of_floors_and_estimates_have_the_same_names():
    estimate = decode_estimate("llama-3-8b", "h100-sxm", batch=8, context=1024)
    floor = {row.name: row.count for row in estimate.floor.by_op()}
    timed = {row.name: row.count for row in estimate.by_op()}
    assert floor["self_attn.qkv_proj"] == timed["self_attn.qkv_proj"] == 32
    for name, count in timed.items():  # a kernel that runs several operators joins their names
        assert {floor[part] for part in name.split(" + ")} == {count}


@pytest.mark.parametrize(
    "ask",
    [
        lambda many, more: decode_floor("llama-3-8b", "h100-sxm", batch=many[:, None], context=more),
        lambda many, more: prefill_floor("llama-3-8b", "h100-sxm", batch=many[:, None], prompt=more),
        lambda many, more: sweep("llama-3-8b", "h100-sxm", batch=many, context=more),
        lambda many, more: max_batch("llama-3-8b", "h100-sxm", context=10**7 + many[:, None], shared_prefix=more),
        lambda many, more: resident("llama-3-8b", "h100-sxm", context=many[:, None], batch=more),
        lambda many, more: matmul_floor(many[:, None], more, 64, "h100-sxm", format="bf16"),
        lambda many, more: StepTime(Deployment("llama-3-8b", "h100-sxm")).table(batch=many, context=more),
    ],
)
def test_a_grid_that_no_memory_holds_is_refused_in_one_sentence(ask):
    with pytest.raises(InvalidValueError, match=r"100,000 × 1,000,000 points: one number for each takes 800 GB, .* ask for parts"):
        ask(np.arange(1, 10**5 + 1), np.arange(1, 10**6 + 1))


@pytest.mark.parametrize("ask", [decode_floor, decode_estimate])
def test_an_encoder_decodes_nothing(ask):
    assert "an encoder generates nothing" in ask("bert-large", "v100").to_json()
    with pytest.raises(InvalidValueError, match="encoder"):
        ask("bert-large", "v100", context=8)
