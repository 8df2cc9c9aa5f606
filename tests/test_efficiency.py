"""MFU and MBU by hand, and a measured time under the floor, which is never clipped."""

import warnings

import numpy as np
import pytest

from roofline import Hardware, InvalidValueError, Model, Step, decode_floor, matmul_floor, mbu, mfu, prefill_floor
from roofline.forward import forward

BARE = {"memory_bandwidth": 3e12, "peak_flops_per_s": 1e15}


def test_mfu_and_mbu_by_hand():
    """2 · 70e9 · 1000 FLOP in 0.28 s at 1e15 FLOP/s is one half; 140 GB in 62.5 ms at 3 TB/s is 46.67 / 62.5."""
    assert mfu(prefill_floor("70B", prompt=1000, **BARE), 0.28) == pytest.approx(0.5)
    decode = decode_floor("70B", **BARE)
    assert mbu(decode, 62.5e-3) == pytest.approx(46.6667 / 62.5, rel=1e-5)
    assert mfu(decode, 62.5e-3) == pytest.approx(140e9 / 62.5e-3 / 1e15)
    assert mbu(decode, decode.time_s) == 1
    assert isinstance(mbu(decode, 1.0), float)


def test_a_published_mfu():
    """PaLM 540B, arXiv 2204.02311 appendix B: with 6144 TPU v4 of 275e12 FLOP/s at 238.3e3 tokens/s its MFU without attention is 45.7 %.

    That counts 6 FLOP per parameter and token for training; inference has 2, so three forward passes in the same time.
    """
    forward_pass = prefill_floor(540.35e9, prompt=2048, memory_bandwidth=1.2e12, peak_flops_per_s=275e12)
    seconds_per_pass_and_chip = 2048 / (238.3e3 / 6144) / 3
    assert mfu(forward_pass, seconds_per_pass_and_chip) == pytest.approx(0.457, abs=0.001)


def test_each_format_is_held_against_its_own_peak():
    h = Hardware.load("h100-sxm")
    wide, narrow = (prefill_floor("llama-3-8b", h, prompt=4096, weights=f) for f in (None, "fp8"))
    assert mfu(wide, 0.1) == pytest.approx(wide.flops / 0.1 / h.peak("bf16").value)
    parts = {operand: flops / h.peak(operand).value for operand, flops in narrow.work.flops_by_operand.items()}
    assert set(parts) >= {"fp8", "bf16"}
    assert mfu(narrow, 0.1) == pytest.approx(sum(parts.values()) / 0.1)


def test_arrays_broadcast():
    floor = decode_floor("llama-3-8b", "h100-sxm", batch=[1, 8, 64], context=1024)
    measured = np.array([[8e-3], [16e-3]]) * np.ones(3)
    for share in (mfu(floor, measured), mbu(floor, measured)):
        assert share.shape == (2, 3)
        np.testing.assert_allclose(share[0], 2 * share[1])
    np.testing.assert_allclose(mbu(floor, 0.02), floor.total_bytes / 0.02 / floor.hardware.memory_bandwidth)
    np.testing.assert_allclose(mbu(floor, [0.02, 0.03, 0.04])[1], mbu(decode_floor("llama-3-8b", "h100-sxm", batch=8, context=1024), 0.03))


@pytest.mark.parametrize("utilization", [mfu, mbu])
def test_a_time_under_the_floor_is_an_error(utilization):
    floor = decode_floor("70B", **BARE)
    with pytest.raises(InvalidValueError, match=r"the floor is 46\.67 ms.*seconds.*spec"):
        utilization(floor, 40e-3)
    with pytest.raises(InvalidValueError, match=r"1 of 3 measured times.*40 ms"):
        utilization(floor, [50e-3, 40e-3, 60e-3])
    assert utilization(floor, floor.time_s * (1 - 1e-12)) <= 1 + 1e-9  # rounding is not a discovery


def test_mbu_above_one_where_the_last_level_cache_is_credited():
    """10 million parameters, 20 MB, live in the 50 MB L2 of an H100: 20e6 B in 1 µs is 6 times what its memory could deliver."""
    floor = decode_floor(10**7, "h100-sxm")
    with pytest.warns(UserWarning, match=r"MBU is 5\.97, above 1: not all bytes came from memory.*last-level cache") as warned:
        assert mbu(floor, 1e-6) == pytest.approx(20e6 / 1e-6 / 3.352e12, rel=1e-3)
    assert warned[0].filename == __file__
    with pytest.raises(InvalidValueError, match="the floor is"):
        mbu(floor, floor.time_s / 2)


def test_a_cold_kernel_has_no_mbu_above_one():
    warm, cold = (matmul_floor(16, 4096, 4096, "h100-sxm", format="bf16", cache=cache) for cache in ("warm", "cold"))
    with pytest.warns(UserWarning, match="above 1"):
        assert mbu(warm, 5e-6) == pytest.approx(2.02, abs=0.01)  # 34 MB in 5 µs, of 3.352 TB/s
    with pytest.raises(InvalidValueError, match="still in the last-level cache, where the floor is for a cold one"):
        mbu(cold, 5e-6)
    assert mbu(cold, cold.time_s) == 1


def test_mfu_and_mbu_of_kernel_floor_and_work():
    h = Hardware.load("h100-sxm")
    kernel = matmul_floor(8192, 8192, 8192, h, format="bf16")
    assert mfu(kernel, 2e-3) == pytest.approx(2 * 8192**3 / 2e-3 / 989.4e12, rel=1e-6)
    model = Model.load("llama-3-8b")
    work = forward(model, Step.decode(context=100))
    floor = decode_floor(model, h, context=100)
    assert mbu(work, 0.01, hardware=h) == mbu(floor, 0.01)
    assert mfu(work, 0.01, hardware="h100-sxm") == mfu(floor, 0.01)
    with pytest.raises(InvalidValueError, match="hardware="):
        mfu(work, 0.01)
    with pytest.raises(InvalidValueError, match="only with a Work"):
        mfu(floor, 0.01, hardware=h)


@pytest.mark.parametrize("time", [0, -1.0, np.nan, np.inf, "1 ms", None, [], [1.0, 0.0], True])
def test_invalid_measured_times_raise(time):
    with pytest.raises(InvalidValueError, match="positive number of seconds"):
        mbu(decode_floor("70B", **BARE), time)


def test_mfu_without_a_compute_peak_raises():
    with pytest.raises(InvalidValueError, match="peak"):
        mfu(decode_floor("70B", memory_bandwidth=3e12), 1.0)
    with pytest.raises(InvalidValueError, match="must be a floor"):
        mfu(3.0, 1.0)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(InvalidValueError, match="broadcast"):
        mbu(decode_floor("70B", batch=[1, 2], **BARE), [1.0, 2.0, 3.0])


# ---------------------------------------------------------------------------------- faster than the peak of the data sheet

# 8192³ bf16 products by torch, best of several boards; FlashAttention-2 forward on the second (public torch benchmark tables, 2026)
MEASURED = [("rtx-5090", "bf16", 242.2), ("rtx-5090", "fp16", 224.4), ("rtx-4090", "bf16", 173.3), ("rtx-4090", "bf16", 169.3)]


@pytest.mark.parametrize(("machine", "format", "tflops"), MEASURED)
def test_boards_that_clock_above_their_data_sheet_do_not_beat_the_floor(machine, format, tflops):
    floor = matmul_floor(8192, 8192, 8192, machine, format=format)
    measured = 2 * 8192**3 / (tflops * 1e12)
    assert measured > floor.time_s
    peak = Hardware.load(machine).peak(format).value
    assert mfu(floor, measured) == pytest.approx(tflops * 1e12 / peak, rel=1e-9)  # of the data sheet's peak, as always
    assert mfu(floor, measured) > 1


def test_llama_cpp_sums_fp16_products_in_fp16():
    """Llama-3-8B F16 on an RTX 4080, prompts of 512: 7,247 tokens/s (llama.cpp), above the 97.5 TFLOP/s of fp32 sums."""
    floor = prefill_floor("llama-3-8b", "rtx-4080", prompt=512, logits="last", weights="fp16", activations="fp16", kv="fp16")
    assert floor.time_s < 512 / 7247
    assert floor.flops / 97.5e12 > 512 / 7247


@pytest.mark.parametrize("function", [mfu, mbu])
def test_a_peak_that_is_no_bound_is_noted_and_not_refused(function):
    """No source gives the clocks of TPU v6e, so its 918 TFLOP/s may be exceeded; its bandwidth of 1638 GB/s may not."""
    compute = matmul_floor(8192, 8192, 8192, "tpu-v6e", format="bf16")
    with pytest.warns(UserWarning, match=r"may be faster than its data sheet.*no proven bound"):
        share = function(compute, compute.time_s / 1.1)
    assert function is mbu or share == pytest.approx(1.1)
    memory = matmul_floor(1, 65536, 65536, "tpu-v6e", format="bf16")
    with pytest.raises(InvalidValueError, match="Likely mistakes"):
        function(memory, memory.time_s / 1.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function(compute, compute.time_s)


def test_a_peak_at_the_highest_clock_is_a_bound():
    floor = matmul_floor(8192, 8192, 8192, "h100-sxm", format="bf16")
    assert mfu(floor, floor.time_s) == pytest.approx(1.98 / 1.83, rel=1e-3)
    with pytest.raises(InvalidValueError, match="Likely mistakes"):
        mfu(floor, floor.time_s / 1.01)


def test_floors_of_measured_rates_say_that_they_are_no_bound():
    from roofline import load_record

    record = load_record("h100-sxm-torch-20261127-1126")
    own = Hardware.from_record(record.model_copy(update={"rates": record.rates.model_copy(update={"origin": "measured"}), "id": "lab"}))
    floor = decode_floor("llama-3.1-8b", own)
    assert "the rates are the best that were measured, no proven bound" in floor.assumptions
    assert any("throttled" in note for note in floor.assumptions)
    with pytest.warns(UserWarning, match="no proven bound"):
        mfu(floor, 0.9 * floor.time_s)
