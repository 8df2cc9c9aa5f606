"""Classes of kernels in records: what each is fitted to, which one an estimate uses, and records put together."""

import dataclasses

import numpy as np
import pytest

from roofline import (
    CalibrationError,
    Deployment,
    Hardware,
    InvalidValueError,
    Model,
    Step,
    StepTime,
    UnknownNameError,
    attention_floor,
    decode_estimate,
    kernel_estimate,
    list_records,
    load_record,
    matmul_floor,
    prefill_estimate,
    step_estimate,
)
from roofline.estimate.constants import STEPS, choose
from roofline.kernel_tables import read_table
from roofline.kernels import FAMILIES, count_op
from roofline.records import save_record, with_classes
from roofline.records.store import shipped_records
from roofline.saved import ask_again

SHAPES = {
    "attention": {"heads": 32, "kv_heads": 8, "head_dim": 128, "batch": 4, "context": 1000},
    "latent_attention": {"heads": 16, "batch": 4, "context": 1000},
    "state": {"heads": 32, "key_dim": 128, "batch": 4, "context": 1000},
}
"""A kernel of each family whose decode and prefill are told apart."""

SHIPPED = [(record, place) for record in list_records() for place in range(len(load_record(record).classes))]


def counted(c):
    formats = {"state": c.stored} if c.family == "state" else {"kv": c.stored, "activations": c.operand}
    return count_op(c.family, **SHAPES[c.family], **formats)


@pytest.mark.parametrize(("name", "place"), [(n, p) for n, p in SHIPPED if load_record(n).classes[p].family in SHAPES])
def test_a_class_is_used_for_steps_of_which_it_has_samples_and_for_no_others(name, place):
    record = load_record(name)
    c = record.classes[place]
    if not c.constants or name == "generic":  # which keeps no samples
        return
    for kind in STEPS:
        chosen = choose(FAMILIES[c.family], [counted(c)], record, Hardware.load(record.hardware), steps=frozenset({kind}))
        (stand_in,) = chosen.stand_ins
        assert (stand_in.endswith(f": constants of {c.taken_from}") if c.taken_from else not stand_in) == (kind in c.steps)
    assert c.steps, "its samples have lengths"


@pytest.mark.parametrize(("name", "place"), [(n, p) for n, p in SHIPPED if load_record(n).classes[p].family in ("matmul", "experts")])
def test_products_and_experts_have_rows_of_decode_and_of_prefill(name, place):
    c = load_record(name).classes[place]
    rows = np.array(c.samples.sizes.get("m" if c.family == "matmul" else "tokens", ()))
    assert not c.constants or not rows.size or (np.sum(rows <= 64) >= 5 and np.sum(rows >= 512) >= 5)


@pytest.mark.parametrize(("name", "place"), [(n, p) for n, p in SHIPPED if load_record(n).classes[p].family == "experts"])
def test_no_experts_are_fitted_to_rows_without_a_gate_alone(name, place):
    c = load_record(name).classes[place]
    assert not c.samples.seconds or np.any(c.samples.sizes.get("gated", (c.fixed_sizes.get("gated", 1),)))


def test_attention_of_prompts_alone_says_nothing_of_decode():
    """TensorRT-LLM 1.0.0's decode rows on A100 have a label that cannot be true, and are left out; its prefill rows are not."""
    step, machine = {"batch": 8, "context": 4096}, "a100-sxm-80gb"
    estimates = {e: decode_estimate("llama-3-8b", machine, **step, calibration=e) for e in ("trtllm", "generic")}
    attention = {e: [row for row in estimate.by_op() if row.family == "attention"] for e, estimate in estimates.items()}
    assert attention["trtllm"] == attention["generic"]
    note = "attention bf16: in a100-sxm-80gb-trtllm-1.0.0 for prefill steps alone, generic constants"
    assert note in estimates["trtllm"].notes
    assert not any("attention" in note for note in prefill_estimate("llama-3-8b", machine, prompt=4096, calibration="trtllm").notes)
    shape = {"batch": 8, "heads": 32, "kv_heads": 8, "head_dim": 128, "kv": "bf16", "hardware": machine}
    one, prompt = (kernel_estimate(attention_floor(**shape, **lengths), calibration="trtllm") for lengths in ({"context": 99}, {"new": 99}))
    assert (note in one.notes, note in prompt.notes) == (True, False)


def test_a_step_of_prompts_or_of_decodes_alone_is_timed_like_a_prefill_or_a_decode():
    deployment, record = Deployment("llama-3-8b", "a100-sxm-80gb"), "a100-sxm-80gb-trtllm-1.0.0"
    prompt, decode = Step.prefill(512), Step.decode(batch=8, context=99)
    assert (
        step_estimate(deployment, prompt, calibration=record).time_s == prefill_estimate(deployment, prompt=512, calibration=record).time_s
    )
    assert (
        step_estimate(deployment, decode, calibration=record).time_s
        == decode_estimate(deployment, batch=8, context=99, calibration=record).time_s
    )
    assert any("for prefill steps alone" in note for note in step_estimate(deployment, prompt + decode, calibration=record).notes)


def test_experts_without_a_gate_alone_are_no_class_of_a_newer_version(import_benchmark):
    """TensorRT-LLM 1.3.0rc23 on Hopper has rows of non-gated experts only, rc20 of both."""
    fit_records = import_benchmark("fit_records")
    lane = fit_records.Lane("moe", "moe", "h100_sxm", "trtllm", "1.3.0rc20")
    rows = {"tokens": [1, 64] * 30, "hidden": [2048] * 60, "intermediate": [1024] * 60, "experts": [8] * 60, "top_k": [2] * 60}
    both = read_table(rows | {"format": ["bf16"] * 60, "time_us": [9.0] * 60})
    plain = dataclasses.replace(both, groups=tuple(dataclasses.replace(g, fixed={**g.fixed, "gated": 0}) for g in both.groups))
    other = read_table(rows | {"format": ["fp8"] * 60, "time_us": [9.0] * 60})
    few = dataclasses.replace(other, groups=tuple(g.take(np.arange(3)) for g in other.groups))
    newer = dataclasses.replace(lane, version="1.3.0rc23")
    old = dataclasses.replace(both, groups=both.groups + plain.groups + other.groups)
    new = dataclasses.replace(both, groups=plain.groups + few.groups)
    assert [(lane.version, len(table)) for lane, table in fit_records.newest([(lane, old), (newer, new)])] == [("1.3.0rc20", 180)]
    new = dataclasses.replace(both, groups=plain.groups + other.groups)
    found = [(lane.version, len(table)) for lane, table in fit_records.newest([(newer, new), (lane, old)])]
    assert found == [("1.3.0rc23", 60), ("1.3.0rc20", 120)]


# ---------------------------------------------------------------------------------------------------------------- what stands in


def test_a_stand_in_that_takes_much_of_the_step_is_named_in_the_second_lines():
    estimate = decode_estimate("gpt-oss-120b", "h200-sxm", batch=8, context=2048, calibration="h200-sxm-vllm-0.24.0", weights="fp8")
    lines = estimate.summary()
    assert lines[1].startswith("  calibration: h200-sxm-vllm-0.24.0 (dated ")
    (line,) = (line for line in lines if "stand-in" in line)
    assert lines.index(line) == 2
    share = sum(row.time_s for row in estimate.by_op() if row.family == "experts") / estimate.time_s
    assert line == f"  stand-in for {share:.0%} of the time: experts fp8: constants of fp8_block128 in fp8"
    assert not any("stand-in" in line for line in decode_estimate("llama-3-8b", "h100-sxm", batch=8, context=64).summary())


def test_constants_of_the_same_codes_with_other_scales_stand_in_before_those_of_nearer_width():
    """Kimi-K2.5's int4 has a 16-bit scale for 32 elements, 4.5 bits an element: mxfp4's 4.25 are nearer than int4's 4, its kernels are not."""
    estimate = decode_estimate("kimi-k2.5", "h200-sxm", batch=16, context=1024, tensor_parallel=8, calibration="vllm")
    assert any("experts int4_g32 in bf16: constants of int4_sym in bf16" in note for note in estimate.notes)


def test_the_interval_of_another_formats_constants_is_at_least_the_generic_one():
    int8, fp8 = (kernel_estimate(matmul_floor(64, 4096, 4096, "h100-sxm", format=format)) for format in ("int8", "fp8"))
    generic = kernel_estimate(matmul_floor(64, 4096, 4096, "h100-sxm", format="int8"), calibration="generic")
    assert int8.chosen.constants == fp8.chosen.constants
    assert int8.high_s / int8.time_s == pytest.approx(max(e.high_s / e.time_s for e in (fp8, generic)))
    assert int8.low_s / int8.time_s == pytest.approx(min(e.low_s / e.time_s for e in (fp8, generic)))


# -------------------------------------------------------------------------------------------------- scales stored or computed


def test_products_of_a_checkpoint_that_stores_its_scales_are_timed_without_computing_them(tmp_path):
    record = load_record("h200-sxm-sglang-0.5.14")
    record = record.model_copy(update={"classes": tuple(c.model_copy(update={"shapes": None}) for c in record.classes)})
    (dynamic,) = (c for c in record.classes if (c.family, c.stored) == ("matmul", "fp8"))
    sooner = dynamic.constants["fixed_s"].model_copy(update={"value": 1e-6, "low": 1e-6, "high": 1e-6})
    static = dynamic.model_copy(
        update={"fixed_sizes": {**dynamic.fixed_sizes, "scales": "static"}, "constants": {**dynamic.constants, "fixed_s": sooner}}
    )
    both = record.model_copy(update={"id": "both", "classes": (static, *record.classes)})
    assert "matmul fp8, static scales: 250 samples" in str(both)
    assert load_record(save_record(both, tmp_path / "both.json")) == both
    stored = Model.load("llama-3.1-70b-instruct-fp8")  # ModelOpt's FP8, which stores input_scale
    step = {"batch": 4, "context": 1000, "tensor_parallel": 8}
    fast, slow = (decode_estimate(m, "h200-sxm", **step, calibration=both) for m in (stored, stored.but(static_scales=False)))
    products = sum(row.count for row in fast.by_op() if row.family == "matmul") - 1  # the head is in bf16
    gained = (dynamic.constants["fixed_s"].value - 1e-6) * products
    assert slow.time_s - fast.time_s == pytest.approx(gained, rel=1e-6)
    deployments = [Deployment(m, "h200-sxm", tensor_parallel=8) for m in (stored, stored.but(static_scales=False))]
    times = [float(StepTime(d, calibration=both).decode(4, 4000)) for d in deployments]
    assert times == pytest.approx([fast.time_s, slow.time_s])
    assert slow.time_s == decode_estimate("llama-3.1-70b-instruct-fp8", "h200-sxm", **step, calibration=record).time_s


def test_computing_scales_is_taken_off_the_times_of_the_table(import_benchmark, monkeypatch):
    fit_records = import_benchmark("fit_records")
    lane = fit_records.Lane("gemm", "gemm", "h100_sxm", "trtllm", "1.3.0rc20")
    sizes = {"m": np.array([1, 8]), "n": np.array([4096, 4096]), "k": np.array([4096, 8192]), "window_size": np.zeros(2, int)}
    products = {**sizes, "gemm_dtype": np.array(["fp8", "fp8"]), "latency": np.array([0.020, 0.030])}
    found = {"gemm": products, "computescale": {"m": sizes["m"], "k": sizes["k"], "latency": np.array([0.007, 0.008])}}
    monkeypatch.setattr(fit_records, "tables", lambda family, gpu: [(lane, found[family])])
    (table,) = fit_records.stored_scales("h100_sxm", "trtllm")
    assert sorted(s for group in table for s in group.seconds) == pytest.approx([13e-6, 22e-6])
    found["computescale"]["latency"] = np.zeros(2)  # as SGLang's
    assert not list(fit_records.stored_scales("h100_sxm", "trtllm"))


# ------------------------------------------------------------------------------------------------------------------ sister chips


@pytest.mark.parametrize(
    ("machine", "record"),
    [
        ("h800-sxm", "h100-sxm-vllm-"),  # DeepSeek-V3, arXiv 2412.19437, section 3.1: H100's die, NVLink cut to 400 GB/s
        ("h200-nvl", "h200-sxm-vllm-"),  # NVIDIA H200 data sheet: one die as SXM and as NVL
        ("gh200-144gb", "h200-sxm-vllm-"),  # NVIDIA GH200 data sheet: an H200-class Hopper GPU with 144 GB of HBM3e
        ("a100-sxm-40gb", "a100-sxm-80gb-vllm-"),  # NVIDIA A100 data sheet
        ("l40", "l40s-vllm-"),  # both AD102
        ("mi300x", "generic"),
        ("apple-m1-7", "generic"),
    ],
)
def test_a_machine_without_a_record_takes_a_sister_chips_shares(machine, record):
    estimate = decode_estimate("llama-3-8b", machine, batch=4, context=512)
    assert estimate.record.id.startswith(record)
    sister = record != "generic"
    assert any("a sister chip" in note for note in estimate.notes) == sister
    assert estimate.constants.startswith("borrowed: all of " if sister else "generic")
    assert (", of a sister chip)" in estimate.summary()[1]) == sister
    assert ask_again(estimate.to_dict()).time_s == estimate.time_s
    product = kernel_estimate(matmul_floor(8192, 8192, 8192, machine, format="bf16"))
    assert (product.record.id, product.time_s >= product.floor.time_s) == (estimate.record.id, True)


def test_a_sister_chips_record_is_found_by_engine_and_by_id():
    for calibration in ("trtllm", *shipped_records("h100-sxm", "trtllm")):
        assert decode_estimate("llama-3-8b", "h800-sxm", calibration=calibration).record.id.startswith("h100-sxm-trtllm-")
    with pytest.raises(CalibrationError, match="cannot be used for a100-sxm-80gb"):
        decode_estimate("llama-3-8b", "a100", calibration="h100-sxm-vllm-0.24.0")


def test_times_on_a_sister_chip_follow_its_bandwidth():
    """A100 40 GB has 1,555 GB/s where A100 80 GB has 2,039 (NVIDIA's data sheet); a large read takes as much longer."""
    times = [kernel_estimate(matmul_floor(1, 2**15, 2**15, f"a100-sxm-{size}gb", format="bf16")) for size in (40, 80)]
    fixed = [float(estimate.chosen.constants["fixed_s"][0, 0]) for estimate in times]
    assert fixed[0] == fixed[1]
    assert times[0].time_s / times[1].time_s == pytest.approx(2039 / 1555, rel=0.02)


# --------------------------------------------------------------------------------------------------------- records put together

VLLM, SGLANG = "h100-sxm-vllm-0.24.0", "h100-sxm-sglang-0.5.14"


def test_classes_of_another_record_are_used_and_named(tmp_path):
    both = with_classes(VLLM, SGLANG, family="matmul", stored=["fp8", "fp8_block128"])
    assert both.id == f"{VLLM}+{SGLANG}"
    taken = [(c.family, c.stored) for c in both.classes if c.taken_from == SGLANG and c.family == "matmul"]
    assert taken == [("matmul", "fp8"), ("matmul", "fp8_block128")]
    assert all(c.note.startswith(f"of {SGLANG}, ") for c in both.classes if c.taken_from)
    kept = [c for c in load_record(VLLM).classes if (c.family, c.stored) not in taken]
    assert [c for c in both.classes if (c.family, c.stored) not in taken] == kept
    product = matmul_floor(64, 4096, 4096, "h100-sxm", format="fp8")
    mine, theirs = kernel_estimate(product, calibration=both), kernel_estimate(product, calibration=SGLANG)
    assert mine.time_s == theirs.time_s != kernel_estimate(product, calibration=VLLM).time_s
    assert mine.constants == f"borrowed: matmul fp8: constants of {SGLANG}"
    assert load_record(save_record(both, tmp_path / "both.json")) == both
    assert decode_estimate("llama-3-8b", "h100-sxm", batch=2, calibration=both).record == both


def test_a_class_taken_twice_says_whose_it_was_first():
    through = with_classes(with_classes(VLLM, SGLANG, family="latent_attention"), VLLM, family="rowwise", id="mine")
    assert through.id == "mine"
    again = with_classes(VLLM, through, family="latent_attention")
    assert {c.taken_from for c in again.classes if c.family == "latent_attention"} == {SGLANG}


def test_classes_of_a_sister_chip_come_by_way_of_its_shares():
    with pytest.raises(CalibrationError, match=r"h200-sxm-vllm-0.24.0 is of h200-sxm, h100-sxm-vllm-0.24.0 of h100-sxm; .*sister=True"):
        with_classes(VLLM, "h200-sxm-vllm-0.24.0", family="matmul")
    sister = Hardware.load("h100-sxm").calibrated("h200-sxm-vllm-0.24.0", sister=True).calibration
    both = with_classes(VLLM, sister, family="matmul")
    assert any("measured on h200-sxm, a sister chip" in str(condition) for condition in both.conditions)


@pytest.mark.parametrize(
    ("error", "message", "other", "asked"),
    [
        (UnknownNameError, "unknown family of kernels in .* 'matmull'.*matmul", SGLANG, {"family": "matmull"}),
        (UnknownNameError, "unknown stored format in .* 'nvfp4'", SGLANG, {"family": "matmul", "stored": "nvfp4"}),
        (InvalidValueError, "family is 3; it must be a name or several", SGLANG, {"family": 3}),
        (InvalidValueError, "family names no family", SGLANG, {"family": ()}),
        (CalibrationError, "generic is of a machine without a spec", "generic", {"family": "matmul"}),
    ],
)
def test_classes_that_cannot_be_taken(error, message, other, asked):
    with pytest.raises(error, match=message):
        with_classes(VLLM, other, **asked)


def test_shares_of_different_rates_are_not_put_together():
    record = load_record(SGLANG)
    measured = record.model_copy(update={"rates": record.rates.model_copy(update={"origin": "measured"})})
    with pytest.raises(CalibrationError, match="one has shares of datasheet rates, the other of measured ones"):
        with_classes(VLLM, measured, family="matmul")
    slower = record.model_copy(update={"rates": record.rates.model_copy(update={"memory_bandwidth": 3e12})})
    with pytest.raises(CalibrationError, match="rates of memory differ"):
        with_classes(VLLM, slower, family="matmul")
