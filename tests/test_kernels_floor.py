"""Floors of single kernels against numbers worked out by hand from datasheet peaks."""

import json

import numpy as np
import pytest

from roofline import Hardware, InvalidValueError, UnknownNameError, attention_floor, matmul_floor

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
    floor = attention_floor("h100-sxm", heads=32, head_dim=128, new=4096, visible=visible, span=span)
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
        attention_floor("h100-sxm", heads=64, kv_heads=8, head_dim=128, new=4096, context=100_000, kv=kv) for kv in ("bf16", "fp8")
    )
    assert wide.op.kv_read_bytes == 2 * narrow.op.kv_read_bytes
    assert wide.compute_s / narrow.compute_s == pytest.approx(1978.9 / 989.4, rel=1e-3)


def test_widths_of_keys_and_values_may_differ():
    floor = attention_floor(heads=128, kv_heads=128, head_dim=192, v_head_dim=128, context=100, **RATES)  # DeepSeek-V3, expanded
    assert floor.flops == 2 * 128 * (192 + 128) * 101
    assert floor.op.kv_read_bytes == 100 * 128 * (192 + 128) * 2


def test_attention_over_arrays():
    grid = attention_floor("h100-sxm", heads=64, kv_heads=8, head_dim=128, batch=[[1], [64]], context=[0, 8192, 131072])
    assert grid.time_s.shape == (2, 3)
    one = attention_floor("h100-sxm", heads=64, kv_heads=8, head_dim=128, batch=64, context=8192)
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
