"""Floors of single kernels against numbers worked out by hand from datasheet peaks."""

import json

import numpy as np
import pytest

from roofline import (
    Hardware,
    InvalidValueError,
    UnknownNameError,
    UnknownOptionError,
    attention_floor,
    collective_floor,
    experts_floor,
    latent_attention_floor,
    matmul_floor,
    rowwise_floor,
)
from roofline.floors import counted_floor
from roofline.ops import Op

# NVIDIA white papers, dense FLOP per clock of an SM: V100 1024 in fp16; A100 2048 in bf16, 4096 in int8; H100 4096 in bf16, 8192 in fp8
H100_BF16 = 132 * 4096 * 1.98e9  # its highest clock, which nvidia-smi prints
RATES = {"memory_bandwidth": 1e12, "peak_flops_per_s": 1e14}


# ------------------------------------------------------------------------------------------------------------------ matmul


@pytest.mark.parametrize(
    ("machine", "format", "peak"),
    [
        ("v100-sxm2-16gb", "fp16", 80 * 1024 * 1.53e9),
        ("a100-sxm-80gb", "bf16", 312e12),
        ("a100-sxm-80gb", "int8", 624e12),
        ("h100-sxm", "bf16", H100_BF16),
        ("h100-sxm", "fp8", 2 * H100_BF16),
    ],
)
def test_a_large_product_runs_at_the_peak(machine, format, peak):
    floor = matmul_floor(8192, 8192, 8192, machine, format=format)
    assert floor.bound == "compute"
    assert floor.flops == 2 * 8192**3
    assert floor.time_s == pytest.approx(2 * 8192**3 / peak, rel=1e-3)


def test_a_matrix_times_a_vector_runs_at_the_bandwidth():
    floor = matmul_floor(1, 28672, 8192, format="bf16", **RATES)
    moved = 2 * (8192 + 8192 * 28672 + 28672)  # row in, matrix, row out
    assert (floor.bound, floor.total_bytes, floor.flops) == ("memory", moved, 2 * 8192 * 28672)
    assert floor.time_s == moved / 1e12
    assert floor.compute_s == 2 * 8192 * 28672 / 1e14
    assert floor.intensity == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("format", "weights", "output", "moved"),
    [
        ("bf16", None, None, 2 * 64 * 1024 + 2 * 1024 * 512 + 2 * 64 * 512),
        ("fp32", None, None, 4 * (64 * 1024 + 1024 * 512 + 64 * 512)),
        ("fp8", None, None, 64 * 1024 + 1024 * 512 + 2 * 64 * 512),  # fp8 in, bf16 out
        ("fp8", None, "fp8", 64 * 1024 + 1024 * 512 + 64 * 512),
        ("int8", None, "fp32", 64 * 1024 + 1024 * 512 + 4 * 64 * 512),
        ("bf16", "int4", None, 2 * 64 * 1024 + 1024 * 512 * 4.25 / 8 + 2 * 64 * 512),  # 4 + 32/128 bits with scale and zero
        ("bf16", "fp8", None, 2 * 64 * 1024 + 1024 * 512 + 2 * 64 * 512),
    ],
)
def test_bytes_of_a_product(format, weights, output, moved):
    floor = matmul_floor(64, 512, 1024, format=format, weights=weights, output=output, **RATES)
    assert floor.total_bytes == moved
    assert floor.time_s == max(moved / 1e12, 2 * 64 * 512 * 1024 / 1e14)


def test_weight_only_quantization_keeps_the_peak_of_the_rows():
    weights_only = matmul_floor(8192, 8192, 8192, "h100-sxm", format="bf16", weights="fp8")
    assert weights_only.compute_s == pytest.approx(2 * 8192**3 / H100_BF16, rel=1e-3)
    assert "products in bf16" in str(weights_only)


def test_a_missing_mode_is_said():
    floor = matmul_floor(8192, 8192, 8192, "a100-sxm-80gb", format="fp8")
    assert floor.compute_s == pytest.approx(2 * 8192**3 / 312e12, rel=1e-3)
    assert any("no fp8 mode" in note for note in floor.assumptions)


def test_the_cache_may_hold_the_operands():
    h = Hardware.load("h100-sxm")
    assert matmul_floor(64, 1024, 1024, h, format="bf16").memory_s == 0  # 2.4 MB, and 50 MB of L2
    large = matmul_floor(1, 65536, 65536, h, format="bf16")
    moved = 2 * (65536 + 65536**2 + 65536)
    assert large.memory_s == pytest.approx((moved - h.last_level_cache) / h.memory_bandwidth, rel=1e-12)
    assert any("cache" in note for note in large.assumptions)


def test_products_over_arrays():
    m = np.array([1, 64, 4096])
    grid = matmul_floor(m, 4096, [[4096], [8192]], "h100-sxm", format="bf16")
    assert grid.time_s.shape == grid.bound.shape == (2, 3)
    for i, k in enumerate((4096, 8192)):
        for j, rows in enumerate((1, 64, 4096)):
            one = matmul_floor(rows, 4096, k, "h100-sxm", format="bf16")
            assert grid.time_s[i, j] == pytest.approx(one.time_s, rel=1e-12)
            assert grid.bound[i, j] == one.bound
    assert len(grid.to_records()) == 6


@pytest.mark.parametrize("bad", [0, -1, 1.5, float("nan"), "8", None, True, []])
@pytest.mark.parametrize("name", ["m", "n", "k"])
def test_bad_sizes_of_a_product(name, bad):
    sizes = {"m": 8, "n": 8, "k": 8} | {name: bad}
    with pytest.raises(InvalidValueError, match=f"^{name} "):
        matmul_floor(**sizes, format="bf16", **RATES)


def test_other_bad_products():
    with pytest.raises(InvalidValueError, match=r"do not broadcast.*\(2,\).*\(3,\)"):
        matmul_floor([1, 2], [1, 2, 3], 4, format="bf16", **RATES)
    with pytest.raises(UnknownNameError, match="unknown number format 'bf15'; nearest: bf16"):
        matmul_floor(1, 1, 1, format="bf15", **RATES)
    for name in ("format", "weights", "output"):
        with pytest.raises(InvalidValueError, match="number format"):
            matmul_floor(1, 1, 1, **({"format": "bf16"} | {name: ["fp8"]}), **RATES)
    with pytest.raises(InvalidValueError, match="no machine"):
        matmul_floor(1, 1, 1, format="bf16")


@pytest.mark.parametrize(
    ("format", "ask"),
    [
        ("int4", "format='bf16', weights='int4', or format='int4_aint4' if the rows are as narrow"),
        ("w4a16", "format='bf16', weights='int4_sym'"),
        ("nf4", "format='bf16', weights='nf4'."),
        ("q4_k_m", "format='int8', weights='q4_k_m'."),
        ("q5_k", "format='int8', weights='q5_k'."),
        ("mxfp4", "format='bf16', weights='mxfp4', or format='mxfp4_amxfp4' if"),
        ("fp8_a16", "format='bf16', weights='fp8_a16'."),
    ],
)
def test_formats_of_weights_are_no_formats_of_both_operands(format, ask):
    shape = {"hidden": 4096, "intermediate": 14336, "count": 8, "top_k": 2}
    for floor in (lambda **f: matmul_floor(16, 4096, 4096, "h100-sxm", **f), lambda **f: experts_floor(16, "h100-sxm", **shape, **f)):
        with pytest.raises(InvalidValueError, match="a format of weights") as caught:
            floor(format=format)
        assert ask in str(caught.value)
        assert floor(format="bf16", weights=format).op.operand == "bf16"


def test_rows_of_four_bits_have_a_mode_of_their_own():
    """A100: 1248 TOPS of int4, 624 of int8 (data sheet); H100 has no int4."""
    floor = matmul_floor(8192, 8192, 8192, "a100-sxm-80gb", format="int4_channel_aint4")
    assert floor.compute_s == pytest.approx(2 * 8192**3 / 1248e12, rel=1e-3)
    assert matmul_floor(8192, 8192, 8192, "a100-sxm-80gb", format="w4a4").time_s == floor.time_s
    native = matmul_floor(8192, 8192, 8192, "b200", format="mxfp4_amxfp4")
    assert native.compute_s < 0.6 * matmul_floor(8192, 8192, 8192, "b200", format="fp8").compute_s


def test_activations_of_a_product_are_called_format():
    with pytest.raises(UnknownOptionError, match="it is called format here"):
        matmul_floor(8, 8, 8, "h100", weights="int4", activations="bf16")


def test_a_cold_cache_gives_every_byte_to_memory():
    """16 rows: 2 · 16 · 4096² FLOP, 33.8 MB at 3.352 TB/s; the L2 of an H100 holds 50 MB, its 132 SMs do 4096 FLOP in each of up to 1980 MHz."""
    warm = matmul_floor(16, 4096, 4096, "h100-sxm", format="bf16")
    cold = matmul_floor(16, 4096, 4096, "h100-sxm", format="bf16", cache="cold")
    moved = 2 * (4096 * 4096 + 2 * 16 * 4096)
    assert warm.time_s == warm.warm_s == cold.warm_s == pytest.approx(2 * 16 * 4096**2 / (132 * 4096 * 1.98e9), rel=1e-3)
    assert cold.time_s == cold.cold_s == warm.cold_s == pytest.approx(moved / 3.352e12, rel=1e-3)
    assert (warm.bound, cold.bound) == ("compute", "memory")
    for floor in (warm, cold):
        assert "cache: 501.5 ns if the operands are still in the cache, 10.09 µs from memory" in str(floor)
        assert floor.to_dict()["cold_s"] == cold.time_s
    assert any("a cold cache" in note for note in cold.assumptions)
    assert not any("may be in the cache" in note for note in cold.assumptions)
    assert "still in the cache" not in str(matmul_floor(16, 4096, 4096, format="bf16", **RATES))  # no cache is known


def test_every_kernel_takes_a_cold_cache():
    shape = {"hidden": 1024, "intermediate": 1024, "count": 4, "top_k": 2}
    floors = [
        attention_floor(1, 512, "h100-sxm", heads=8, head_dim=64, cache="cold"),
        latent_attention_floor(1, 512, "h100-sxm", heads=8, cache="cold"),
        experts_floor(1, "h100-sxm", **shape, format="bf16", cache="cold"),
        rowwise_floor(64, 512, "h100-sxm", format="bf16", cache="cold"),
    ]
    for floor in floors:
        assert floor.time_s == floor.total_bytes / floor.hardware.memory_bandwidth
    with pytest.raises(InvalidValueError, match="cache is 'hot'; it must be 'warm' or 'cold'"):
        matmul_floor(1, 1, 1, format="bf16", cache="hot", **RATES)


# --------------------------------------------------------------------------------------------- one order of arguments, routing


def test_sizes_come_first_and_the_machine_after_them():
    by_place = attention_floor(64, 8192, "h100-sxm", heads=64, kv_heads=8, head_dim=128)
    by_name = attention_floor(hardware="h100-sxm", heads=64, kv_heads=8, head_dim=128, batch=64, context=8192)
    assert by_place.time_s == by_name.time_s
    assert latent_attention_floor(64, 8192, "h100-sxm", heads=16).time_s == (
        latent_attention_floor(hardware="h100-sxm", heads=16, batch=64, context=8192).time_s
    )
    for floor in (attention_floor, latent_attention_floor):
        for machine in ("h100-sxm", Hardware.load("h100-sxm")):
            with pytest.raises(InvalidValueError, match=rf"^{floor.__name__}\(batch, context, hardware, .*the sizes come first"):
                floor(machine, heads=8, **({"head_dim": 64} if floor is attention_floor else {}))


def test_experts_assume_what_steps_assume():
    """Mixtral-8x7B: at 64 tokens uniform routing reads all 8 experts, the best case 2."""
    shape = {"hidden": 4096, "intermediate": 14336, "count": 8, "top_k": 2, "format": "bf16"}
    usual, best = experts_floor(64, "h100-sxm", **shape), experts_floor(64, "h100-sxm", **shape, routing="best")
    assert usual.op.weight_bytes / best.op.weight_bytes == pytest.approx(8 / 2, rel=1e-6)
    assert any("uniformly and independently" in note for note in usual.assumptions)
    assert any("a bound for any routing" in note for note in best.assumptions)


# ----------------------------------------------------------------------------------------------------- collectives and rows


def test_an_all_reduce_takes_what_a_device_must_send():
    """NVLink of an H100: 450 GB/s in one direction; 50 GB/s of network per device (DGX H100: 8 × 400 Gbit/s)."""
    floor = collective_floor("all_reduce", [450_000_000, 900_000_000], "h100-sxm", devices=8)
    assert floor.time_s.tolist() == [0.001, 0.002]
    assert set(floor.bound) == {"network"}
    assert collective_floor("All-Reduce", 450_000_000, "h100-sxm", devices=2).time_s == 0.001
    assert collective_floor("all_reduce", 450_000_000, "h100-sxm", devices=1).time_s == 0
    assert "all_reduce floor on H100" in str(floor)


@pytest.mark.parametrize(
    ("op", "share", "outside"),
    [
        ("all_gather", 15 / 16, 8 / 16 / 8),
        ("reduce_scatter", 15 / 16, 8 / 16 / 8),
        ("all_to_all", 15 / 16, 8 / 16),
        ("all_reduce", 1, 1 / 8),
    ],
)
def test_collectives_beyond_one_server(op, share, outside):
    """Of 16 devices 8 are in the other server: gathered data enters a server once over its 8 NICs, an all-to-all has no copies."""
    floor = collective_floor(op, 1e9, "h100-sxm", devices=16)
    assert floor.link_bytes == pytest.approx(1e9 * share, rel=1e-12)
    assert floor.op.nic_bytes == pytest.approx(1e9 * outside, rel=1e-12)
    assert floor.network_s == pytest.approx(max(1e9 * share / 450e9, 1e9 * outside / 50e9), rel=1e-9)
    within = collective_floor(op, 1e9, "h100-sxm", devices=8)
    assert (within.op.nic_bytes, within.link_bytes) == (0, pytest.approx(1e9 * (1 if op == "all_reduce" else 7 / 8), rel=1e-12))


def test_rows_are_read_and_written_once():
    floor = rowwise_floor([1024, 2048], 4096, format="bf16", inputs=2, output="fp8", **RATES)
    assert floor.total_bytes.tolist() == [rows * 4096 * (2 * 2 + 1) for rows in (1024, 2048)]
    assert floor.time_s.tolist() == (floor.total_bytes / 1e12).tolist()
    assert set(floor.bound) == {"memory"}
    assert rowwise_floor(8, 8, format=np.float16, **RATES).total_bytes == 2 * 2 * 64


def test_bad_collectives_and_rows():
    with pytest.raises(UnknownNameError, match="unknown collective 'all_redcue'; nearest: all_reduce"):
        collective_floor("all_redcue", 1, "h100", devices=8)
    with pytest.raises(InvalidValueError, match="devices is 0"):
        collective_floor("all_reduce", 1, "h100", devices=0)
    with pytest.raises(InvalidValueError, match="devices is"):
        collective_floor("all_reduce", 1, "h100", devices=[2, 4])
    with pytest.raises(InvalidValueError, match="size is 0"):
        collective_floor("all_reduce", 0, "h100", devices=8)
    with pytest.raises(UnknownOptionError, match="it is called devices here"):
        collective_floor("all_reduce", 1, "h100", ranks=8)
    with pytest.raises(InvalidValueError, match="inputs is 0"):
        rowwise_floor(8, 8, format="bf16", inputs=0, **RATES)
    with pytest.raises(InvalidValueError, match="do not broadcast"):
        rowwise_floor([1, 2], [1, 2, 3], format="bf16", **RATES)


# --------------------------------------------------------------------------------------------------------------- attention


def test_decode_attention_reads_the_cache_once():
    floor = attention_floor(heads=64, kv_heads=8, head_dim=128, batch=64, context=8192, **RATES)
    token = 2 * 8 * 128 * 2  # keys and values of 8 heads at 16 bits: 4096 B
    moved = 64 * (8192 + 1) * token + 64 * 2 * 64 * 128 * 2  # the cache with the new token's keys and values; queries and result
    assert floor.total_bytes == moved
    assert floor.flops == 2 * 64 * (128 + 128) * 64 * 8193
    assert (floor.bound, floor.time_s) == ("memory", moved / 1e12)
    assert floor.intensity == pytest.approx(8, rel=0.01)  # 64 query heads on 8 key-value heads: 8 FLOP/B at 16 bits


@pytest.mark.parametrize(
    ("visible", "span", "pairs"),
    [
        ("causal", 0, 4096 * 4097 // 2),
        ("window", 1024, 1024 * 1025 // 2 + 3072 * 1024),
        ("chunk", 1024, 4 * 1024 * 1025 // 2),
        ("bidirectional", 0, 4096 * 4096),
    ],
)
def test_prefill_attention_counts_the_pairs_that_are_visible(visible, span, pairs):
    floor = attention_floor(hardware="h100-sxm", heads=32, head_dim=128, new=4096, visible=visible, span=span)
    assert floor.flops == 2 * 32 * 256 * pairs
    assert floor.compute_s == pytest.approx(2 * 32 * 256 * pairs / H100_BF16, rel=1e-3)


def test_a_window_bounds_what_is_read():
    wide, narrow = (
        attention_floor(heads=8, head_dim=64, context=100_000, visible=v, span=s, **RATES) for v, s in (("causal", 0), ("window", 4096))
    )
    assert wide.op.kv_read_bytes == 100_000 * 2 * 8 * 64 * 2
    assert narrow.op.kv_read_bytes == 4095 * 2 * 8 * 64 * 2


def test_an_encoder_has_no_cache():
    floor = attention_floor(heads=16, head_dim=64, batch=8, new=512, visible="bidirectional", **RATES)
    assert floor.op.compulsory_bytes == 0
    assert floor.total_bytes == 4 * 8 * 512 * 1024 * 2  # queries, keys, values in; result out
    with pytest.raises(InvalidValueError, match="context must be 0"):
        attention_floor(heads=16, head_dim=64, context=1, visible="bidirectional", **RATES)


def test_the_cache_format_sets_bytes_and_peak():
    wide, narrow = (
        attention_floor(hardware="h100-sxm", heads=64, kv_heads=8, head_dim=128, new=4096, context=100_000, kv=kv) for kv in ("bf16", "fp8")
    )
    assert wide.op.kv_read_bytes == 2 * narrow.op.kv_read_bytes
    assert wide.compute_s / narrow.compute_s == pytest.approx(1978.9 / 989.4, rel=1e-3)


def test_widths_of_keys_and_values_may_differ():
    floor = attention_floor(heads=128, kv_heads=128, head_dim=192, v_head_dim=128, context=100, **RATES)  # DeepSeek-V3, expanded
    assert floor.flops == 2 * 128 * (192 + 128) * 101
    assert floor.op.kv_read_bytes == 100 * 128 * (192 + 128) * 2


def test_attention_over_arrays():
    grid = attention_floor(hardware="h100-sxm", heads=64, kv_heads=8, head_dim=128, batch=[[1], [64]], context=[0, 8192, 131072])
    assert grid.time_s.shape == (2, 3)
    one = attention_floor(hardware="h100-sxm", heads=64, kv_heads=8, head_dim=128, batch=64, context=8192)
    assert grid.time_s[1, 1] == pytest.approx(one.time_s, rel=1e-12)


@pytest.mark.parametrize("bad", [0, -1, 1.5, float("nan"), "8", True, [], [[1], [1, 2]]])
@pytest.mark.parametrize("name", ["heads", "kv_heads", "head_dim", "v_head_dim", "batch", "new"])
def test_bad_sizes_of_attention(name, bad):
    with pytest.raises(InvalidValueError, match=f"^{name} "):
        attention_floor(**({"heads": 8, "head_dim": 64} | {name: bad}), **RATES)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"context": -1}, "context is -1"),
        ({"batch": [1, 2], "context": [1, 2, 3]}, "do not broadcast"),
        ({"visible": "window"}, "window length is 0"),
        ({"visible": "chunk", "span": 1.5}, "chunk length is 1.5"),
        ({"visible": "diagonal"}, "diagonal"),
        ({"visible": ["causal"]}, "causal"),
        ({"kv": ["fp8"]}, "number format"),
        ({"activations": 3}, "number format"),
        ({"kv_heads": 3}, "multiple"),
        ({"kv_heads": 16}, "multiple"),
        ({"heads": [8, 16], "batch": [1, 2, 3]}, "heads|broadcast"),
    ],
)
def test_other_bad_attention(other, message):
    with pytest.raises(InvalidValueError, match=message):
        attention_floor(**({"heads": 8, "head_dim": 64} | other), **RATES)


# ----------------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("array", [False, True])
def test_results_say_what_they_are(array):
    floor = matmul_floor([8, 16] if array else 8, 1024, 1024, "H100", format="fp8")
    text = str(floor)
    assert text.startswith("matmul floor on H100 SXM5 80GB: ")
    for word in ("roofs:", "work:", "ceilings:", "memory bandwidth", "fp8 matrix peak", '"H100" is read as h100-sxm'):
        assert word in text
    data = json.loads(floor.to_json())
    assert (data["schema_version"], data["kind"], data["hardware"]) == (1, "matmul floor", "h100-sxm")
    assert data["flops"] == np.asarray(floor.flops).tolist()
    assert all(len(c["source"]) > 10 for c in data["ceilings"])
    assert floor._repr_html_().startswith("<table>")
    assert repr(floor) == f"<{text.splitlines()[0]}>"


def test_an_operator_that_multiplies_in_no_format_is_refused():
    with pytest.raises(UnknownNameError, match="unknown operand format 'fp9'"):
        counted_floor(Op(name="own", kind="contraction", operand="fp9", flops=1), Hardware.load("h100-sxm"))
