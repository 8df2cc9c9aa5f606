"""Estimates: what must hold for every model, machine and step, and what their results say."""

import copy
import gc
import json
import math
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from roofline import (
    CalibrationError,
    Deployment,
    Hardware,
    InvalidValueError,
    Model,
    Step,
    UnknownOptionError,
    attention_floor,
    collective_floor,
    decode_estimate,
    decode_floor,
    experts_floor,
    kernel_estimate,
    latent_attention_floor,
    matmul_floor,
    ops,
    prefill_estimate,
    rowwise_floor,
    step_estimate,
)
from roofline.engines import load_engine
from roofline.floors import counted_floor
from roofline.records import FittedConstant, save_record

FEW = settings(max_examples=40, deadline=None)
UP = 1 + 1e-9
CALIBRATIONS = (None, "generic")


def models(**options):
    """Models of which more than a number of parameters is known."""
    return strategies.models(**options).filter(lambda model: not model.is_anonymous)


@FEW
@given(models(), strategies.machines(), strategies.steps(), st.sampled_from(CALIBRATIONS), st.booleans())
def test_floor_low_estimate_and_high_stand_in_this_order(model, hardware, step, calibration, cuda_graph):
    estimate = step_estimate(model, hardware, step, calibration=calibration, cuda_graph=cuda_graph)
    assert np.all(estimate.floor.time_s <= estimate.low_s)
    assert np.all(estimate.low_s <= estimate.time_s * UP)
    assert np.all(estimate.time_s <= estimate.high_s * UP)


@FEW
@given(models(), strategies.machines(), st.integers(1, 500), st.integers(1, 500), strategies.contexts())
def test_more_sequences_never_lower_the_estimate(model, hardware, batch, more, context):
    few, many = (decode_estimate(model, hardware, batch=b, context=context) for b in (batch, batch + more))
    assert few.time_s <= many.time_s * UP


@FEW
@given(models(chunked=False), strategies.machines(), st.integers(1, 500), strategies.contexts(), st.integers(1, 10_000))
def test_more_context_never_lowers_the_estimate(model, hardware, batch, context, more):
    short, long = (decode_estimate(model, hardware, batch=batch, context=c) for c in (context, context + more))
    assert short.time_s <= long.time_s * UP


@FEW
@given(models(chunked=False, encoders=True), strategies.machines(), st.integers(1, 20_000), st.integers(1, 10_000))
def test_a_longer_prompt_never_lowers_the_estimate(model, hardware, prompt, more):
    short, long = (prefill_estimate(model, hardware, prompt=p) for p in (prompt, prompt + more))
    assert short.time_s <= long.time_s * UP


@FEW
@given(models(), strategies.machines(), st.lists(st.integers(1, 600), min_size=1, max_size=4), strategies.contexts())
def test_arrays_give_what_scalars_give(model, hardware, batches, context):
    whole = decode_estimate(model, hardware, batch=np.array(batches), context=context)
    for i, batch in enumerate(batches):
        one = decode_estimate(model, hardware, batch=batch, context=context)
        for name in ("time_s", "low_s", "high_s", "kernels_s"):
            assert np.asarray(getattr(whole, name))[i] == pytest.approx(getattr(one, name), rel=1e-9)


def test_an_array_longer_than_a_block_is_timed_whole():
    batches = np.arange(1, 20_001)
    whole = decode_estimate("llama-3-8b", "h100-sxm", batch=batches, context=100)
    for place in (0, 8191, 8192, 19_999):
        one = decode_estimate("llama-3-8b", "h100-sxm", batch=int(batches[place]), context=100)
        assert whole.time_s[place] == pytest.approx(one.time_s, rel=1e-9)


@pytest.mark.parametrize(
    "name", ["llama-3-70b", "mixtral-8x7b", "deepseek-v3", "deepseek-v3.2", "gpt-oss-120b", "qwen3-next-80b-a3b", "bert-large"]
)
@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_every_kind_of_model_can_be_estimated(name, calibration):
    encoder = name == "bert-large"
    options = {"weights": "bf16"} if encoder else {"tensor_parallel": 8}
    step = Step.prefill(256, logits="none") if encoder else Step.decode(batch=16, context=2048) + Step.prefill(256)
    estimate = step_estimate(name, "h100-sxm", step, calibration=calibration, **options)
    assert 1 < estimate.time_s / estimate.floor.time_s < 60
    assert sum(row.time_s for row in estimate.by_op()) == pytest.approx(estimate.kernels_s)
    # every operator of the floor is timed by some kernel, but for vectors that other kernels add or scale by
    ran = {row.name for row in estimate.by_op()}
    untimed = [row for row in estimate.floor.by_op() if not any(row.op.name in kernel or row.op.family == "experts" for kernel in ran)]
    assert sum(row.time_s for row in untimed) < 0.01 * estimate.floor.roofline_s, [row.op.name for row in untimed]
    assert not any(row.op.kind == "contraction" or row.op.kv_read_bytes for row in untimed)


def test_every_catalogue_model_can_be_estimated_on_a_machine_without_a_record():
    from roofline import list_models

    for name in list_models():
        weights = {} if Model.load(name).dtype else {"weights": "bf16"}
        encoder = any(getattr(g.mixer, "visible", "") == "bidirectional" for g in Model.load(name).layers)
        step = Step.prefill(64) if encoder else Step.decode(batch=4, context=512)
        estimate = step_estimate(name, "mi300x", step, **weights)
        assert estimate.record.id == "generic"
        assert estimate.floor.time_s < estimate.time_s < 1000 * estimate.floor.time_s + 0.1


def test_a_wider_interval_contains_a_narrower_one():
    narrow, wide = (decode_estimate("llama-3-8b", "h100-sxm", batch=8, context=1024, interval=i) for i in (0.5, 0.9))
    assert wide.low_s < narrow.low_s < narrow.time_s < narrow.high_s < wide.high_s


def test_the_generic_interval_is_wider_and_says_so():
    own, generic = (decode_estimate("llama-3-8b", "h100-sxm", batch=8, context=1024, calibration=c) for c in CALIBRATIONS)
    assert own.record.hardware == "h100-sxm"
    assert (generic.high_s - generic.low_s) / generic.time_s > (own.high_s - own.low_s) / own.time_s
    assert "generic" in str(generic)
    assert generic.to_dict()["calibration"]["generic"] is True
    assert own.to_dict()["calibration"]["generic"] is False


def test_generic_constants_are_an_extrapolation_beyond_the_gpus_they_were_fitted_to():
    floor = matmul_floor(64, 4096, 4096, "mi300x", format="bf16")
    for elsewhere in (decode_estimate("llama-3-8b", "mi300x"), kernel_estimate(floor)):
        assert any("on mi300x they are an extrapolation" in note for note in elsewhere.notes)
        assert elsewhere.to_dict()["calibration"]["generic"] is True
    assert not any("extrapolation" in note for note in decode_estimate("llama-3-8b", "h100-sxm", calibration="generic").notes)


def test_without_a_graph_the_host_launches_every_kernel():
    graph, eager = (decode_estimate("llama-3-8b", "h100-sxm", batch=1, cuda_graph=g) for g in (True, False))
    launch, host = 30e-6, load_engine("vllm").host  # of the generic record, and of the profile of the record's engine
    launched = max(eager.kernels * launch, 32 * host.layer_s.dense)
    assert eager.kernels_s + eager.overhead_s == pytest.approx(launched + host.step_s + host.sequence_s, rel=0.01)
    assert graph.overhead_s == pytest.approx(host.step_s + host.sequence_s)
    assert any("overhead per launch is the generic record's" in note for note in eager.notes)
    assert not any("launch" in note for note in graph.notes)


def test_a_sequence_longer_than_the_model_was_made_for_is_named():
    """Llama 3.1 has 131,072 positions (``max_position_embeddings`` of its configuration)."""
    within, beyond = (decode_estimate("llama-3.1-8b", "h100-sxm", batch=1, context=context) for context in (131_071, 131_072))
    assert not any("positions" in note for note in within.notes)
    assert "the longest sequence, 131073 tokens, exceeds the 131072 positions the model was made for" in beyond.notes


def test_a_step_that_samples_nothing_runs_no_head():
    estimate = step_estimate("llama-3-8b", "h100-sxm", Step.chunk(512))
    idle = [row for row in estimate.by_op() if row.time_s == 0]
    assert {"norm", "lm_head"} <= {row.name for row in idle}
    decode = decode_estimate("llama-3-8b", "h100-sxm")
    assert estimate.kernels == decode.kernels - sum(row.count for row in idle)
    assert decode_estimate("llama-3-8b", "h100-sxm", batch=[1, 2]).kernels.tolist() == [decode.kernels] * 2


@pytest.mark.parametrize("given", ["x", float("nan"), [], -1, 1, np.array([True])])
def test_cuda_graph_must_be_a_bool(given):
    with pytest.raises(InvalidValueError, match=r"cuda_graph is .*; it must be True or False"):
        decode_estimate("llama-3-8b", "h100-sxm", cuda_graph=given)


def test_a_misspelt_argument_is_told_from_those_there_are():
    with pytest.raises(UnknownOptionError, match="decode_estimate has no contxt: nearest: context,"):
        decode_estimate("llama-3-8b", "h100-sxm", contxt=8)
    with pytest.raises(UnknownOptionError, match="prefill_estimate has no context: a prefill has prompt"):
        prefill_estimate("llama-3-8b", "h100-sxm", prompt=8, context=8)
    with pytest.raises(UnknownOptionError, match="step_estimate has no batch: batch belongs to decode_"):
        step_estimate("llama-3-8b", "h100-sxm", Step.decode(), batch=8)


def test_what_is_assumed_of_a_floor_is_not_said_of_an_estimate():
    estimate = decode_estimate("llama-3-8b", "h100-sxm", tensor_parallel=2)
    said, floor = estimate.to_dict(), estimate.floor.to_dict()
    assert any("perfect overlap" in note for note in floor["assumptions"])
    assert any("without latency" in note for note in floor["assumptions"])
    assert not any("perfect" in note or "latency" in note for note in said["assumptions"])
    assert set(said["assumptions"]) < set(floor["assumptions"])
    assert not any("launches" in note for note in said["not_modelled"])


def test_unknown_link_rate_is_noted():
    for result in (
        decode_estimate("llama-3-8b", "apple-m1-8", tensor_parallel=2),
        decode_floor("llama-3-8b", "apple-m1-8", tensor_parallel=2),
    ):
        assert "traffic between devices: no rate of links is known" in str(result)
        assert "no rate of links is known" in str(result.to_dict()["not_modelled"])
    assert "no rate of links" not in str(decode_estimate("llama-3-8b", "apple-m1-8"))


def test_the_ends_of_an_operator_are_on_both_sides_of_it():
    for row in decode_estimate("llama-3-8b", "h100-sxm", batch=8, interval=0.02).by_op():
        assert row.low_s <= row.time_s <= row.high_s


def test_a_number_of_parameters_has_no_kernels():
    with pytest.raises(InvalidValueError, match=r"70B.*: a number of parameters says how much.*Name a model"):
        decode_estimate("70B", "h100-sxm")


def test_a_link_is_needed_for_several_devices():
    one, two = (decode_estimate("llama-3-70b", "h100-sxm", batch=8, context=1024, tensor_parallel=t) for t in (4, 8))
    assert two.time_s < one.time_s
    reduced = [row for row in two.by_op() if row.family == "all_reduce"]
    assert len(reduced) == 2
    assert all(row.time_s > 0 for row in reduced)


def test_estimate_converts_to_dict_json_and_records():
    estimate = decode_estimate("llama-3-8b", "h100-sxm", batch=np.array([1, 8]), context=1024)
    read = json.loads(estimate.to_json())
    assert read["kind"] == "decode estimate"
    assert read["time_s"] == pytest.approx(list(estimate.time_s))
    assert len(estimate.to_records()) == 2
    assert "floor" in str(estimate)
    assert "<table>" in estimate._repr_html_()


@pytest.mark.parametrize("interval", [0, 1, 0.99, 80, "0.8", float("nan"), None])
def test_invalid_interval_raises(interval):
    with pytest.raises(InvalidValueError, match=r"must be in \(0, 0\.98\], e\.g\. 0\.8"):
        decode_estimate("llama-3-8b", "h100-sxm", interval=interval)


def test_a_record_of_another_machine_is_refused():
    record = decode_estimate("llama-3-8b", "h100-sxm").record
    with pytest.raises(CalibrationError, match="was measured on h100-sxm"):
        decode_estimate("llama-3-8b", "a100", calibration=record)


def test_an_unknown_record_lists_the_nearest():
    with pytest.raises(Exception, match="h100-sxm"):
        decode_estimate("llama-3-8b", "h100-sxm", calibration="h100-sxm-vlm")


def test_a_calibrated_machine_brings_its_record():
    machine = Hardware.load("h100-sxm").calibrated()
    estimate = decode_estimate("llama-3-8b", machine, batch=8)
    assert estimate.record is machine.calibration
    assert estimate.floor.time_s == decode_floor("llama-3-8b", "h100-sxm", batch=8).time_s


def test_a_residual_is_added_by_the_kernel_of_a_norm():
    names = [row.name for row in decode_estimate("llama-3-8b", "h100-sxm").by_op()]
    assert [name for name in names if "residual" in name] == [
        "input_layernorm + self_attn.residual",
        "post_attention_layernorm + mlp.residual",
    ]
    assert len(names) == len(set(names))


def test_a_model_is_estimated_in_as_many_kernels_as_an_engine_launches():
    estimate = decode_estimate("llama-3-8b", "h100-sxm")
    counts = {row.name: row.count for row in estimate.by_op()}
    assert sum(counts.values()) == estimate.kernels
    in_every_layer = {name for name, count in counts.items() if count == 32}
    assert in_every_layer == {
        *("input_layernorm + self_attn.residual", "post_attention_layernorm + mlp.residual", "self_attn.rotary", "mlp.activation"),
        *("self_attn.qkv_proj", "self_attn.attention", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    }
    assert all(counts[name] == 1 for name in ("embed_tokens", "norm", "lm_head"))


def test_all_reduces_of_many_sizes_are_estimated_as_each_alone():
    machine, sizes = Hardware.load("h100-sxm"), np.array([2**20, 2**26])
    together = kernel_estimate(counted_floor(ops.all_reduce("sum", sizes, ranks=8, domain=8), machine)).time_s
    alone = [kernel_estimate(counted_floor(ops.all_reduce("sum", int(size), ranks=8, domain=8), machine)).time_s for size in sizes]
    assert together.tolist() == pytest.approx(alone, rel=1e-12)


def test_an_all_reduce_beyond_the_domain_waits_for_the_network():
    """16 H100 are two servers of 8: what crosses between them goes over a network an order of magnitude slower than NVLink."""
    inside, beyond = (
        {row.name: row.time_s for row in prefill_estimate("llama-3.1-405b", "h100-sxm", prompt=8192, tensor_parallel=t).by_op()}
        for t in (8, 16)
    )
    machine = Hardware.load("h100-sxm")
    crossing = 8192 * 16384 * 2 / 8 / machine.network_ceiling.value  # an eighth of the activations, once
    assert beyond["mlp.all_reduce"] > inside["mlp.all_reduce"]
    assert beyond["mlp.all_reduce"] >= 126 * crossing


def test_changed_record_file_is_reloaded(tmp_path):
    record, path = decode_estimate("llama-3-8b", "h100-sxm").record, tmp_path / "mine.json"
    for name in ("first", "second"):
        save_record(record.model_copy(update={"id": name}), path)
        assert [decode_estimate("llama-3-8b", "h100-sxm", calibration=c).record.id for c in (path, str(path))] == [name] * 2


def changed(**constants):
    """The record of vLLM on H100 with other constants for products in bf16; None leaves one out."""
    record = decode_estimate("llama-3-8b", "h100-sxm", calibration="vllm").record
    (place,) = (i for i, c in enumerate(record.classes) if (c.family, c.stored) == ("matmul", "bf16"))
    own = record.classes[place]
    values = {name: value for name, value in {**own.constants, **constants}.items() if value is not None}
    classes = list(record.classes)
    classes[place] = own.model_copy(update={"constants": values, "shapes": None})
    return record.model_copy(update={"id": "mine", "classes": tuple(classes)})


def constant(value, unit="-"):
    return FittedConstant(value=value, low=value, high=value, unit=unit)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"fixed_s": None}, "mine, matmul bf16: has no fixed_s"),
        ({"speed": constant(1)}, "unknown constant 'speed'; this form has compute_share"),
        ({"fixed_s": constant(10, "ms")}, "fixed_s is in 'ms'; it must be in 's'"),
        ({"sharpness": constant(0.1)}, "sharpness is 0.1; it must lie in 1 …"),
        ({"compute_share": constant(1.5)}, "compute_share is 1.5; it must lie in 0.01 … 1 -"),
    ],
)
def test_constants_must_be_those_of_the_form(constants, message):
    with pytest.raises(CalibrationError, match=message):
        decode_estimate("llama-3-8b", "h100-sxm", calibration=changed(**constants))


@pytest.mark.parametrize("machine", ["a100-sxm-80gb", "rtx-3090", "apple-m1-max-32"])
def test_generic_constants_of_fp8_are_those_of_what_a_machine_without_it_computes_in(machine):
    """A cache in fp8 halves the bytes, and no arithmetic of a prompt is slower for it."""
    wide, narrow = (prefill_estimate("llama-3.1-8b", machine, prompt=16384, kv=kv, calibration="generic").time_s for kv in ("bf16", "fp8"))
    assert 0.9 * wide < narrow <= wide


def test_so_are_those_that_stand_in_for_a_family_that_a_record_lacks():
    """The A100 record of vLLM has no latent attention."""
    wide, narrow = (
        prefill_estimate("deepseek-v2-lite", "a100-sxm-80gb", prompt=16384, kv=kv, calibration="vllm").kernels_s for kv in ("bf16", "fp8")
    )
    assert 0.9 * wide < narrow <= wide


def test_a_record_from_before_a_form_had_a_constant_is_as_good_as_it_was():
    times = [decode_estimate("llama-3-8b", "h100-sxm", calibration=changed(large=c)).time_s for c in (None, constant(1e-4))]
    assert times[0] == times[1]  # 1e-4 is where that constant has no effect


def test_a_class_without_residuals_has_no_interval():
    record = changed()
    bare = tuple(c.model_copy(update={"residual_quantiles": ()}) for c in record.classes)
    with pytest.raises(CalibrationError, match="has constants but no residual_quantiles"):
        decode_estimate("llama-3-8b", "h100-sxm", calibration=record.model_copy(update={"classes": bare}))


def test_the_class_of_nearest_width_stands_in():
    floor = matmul_floor(64, 4096, 4096, "h100-sxm", format="int8")
    assert kernel_estimate(floor, calibration="vllm").notes == ("matmul int8: constants of fp8",)
    generic = kernel_estimate(matmul_floor(64, 4096, 4096, "mi300x", format="int8"))
    assert any("matmul int8: constants of fp8" in note for note in generic.notes)


def test_machines_of_past_estimates_are_released():
    model, seen = Model.load("llama-3-8b"), []
    for _ in range(400):
        machine = copy.copy(Hardware.load("h100-sxm"))
        seen.append(weakref.ref(machine))
        decode_estimate(model, machine)
    del machine
    gc.collect()
    assert sum(machine() is not None for machine in seen) <= 300


def test_an_engine_names_the_record_of_this_machine():
    for engine in ("vllm", "trtllm", "SGLang"):
        assert decode_estimate("llama-3-8b", "h200-sxm", calibration=engine).record.id.startswith(f"h200-sxm-{engine.lower()}-")


def test_a_record_of_a_machine_without_a_spec_is_refused_on_another():
    from roofline import load_record
    from roofline.records import Rates

    generic = load_record("generic")
    foreign = generic.model_copy(update={"id": "my-cpu", "rates": Rates(origin="measured", memory_bandwidth=4e10)})
    with pytest.raises(CalibrationError, match=r"my-cpu cannot be used for h100-sxm.*from_record"):
        decode_estimate("llama-3-8b", "h100-sxm", calibration=foreign)


def test_borrowed_constants_are_noted():
    estimate = decode_estimate("deepseek-v3", "h100-sxm", tensor_parallel=8, calibration="vllm")
    assert any("latent_attention" in note and "constants of h100-sxm-sglang" in note for note in estimate.notes)
    assert any("per sequence are of the profile of vLLM" in note for note in estimate.notes)
    assert not any("generic" in note for note in decode_estimate("llama-3-8b", "h100-sxm", calibration="generic").notes)


def test_a_borrowed_constant_widens_the_interval():
    """Generic constants are all wrong in the same direction, so that their deviations add up instead of averaging out."""
    estimate = decode_estimate("deepseek-v3", "h100-sxm", tensor_parallel=8, calibration="vllm")
    borrowed = [row for row in estimate.by_op() if row.family == "latent_attention"]
    assert estimate.high_s - estimate.time_s > sum(row.high_s - row.time_s for row in borrowed)


def test_kernels_that_are_the_same_err_together_and_others_apart():
    """Half of gpt-oss's layers have a window: of 25 operators 13 kernels differ, since experts, products and all-reduces of both halves are the same."""
    estimate = decode_estimate("gpt-oss-20b", "h100-sxm", batch=8, context=1024, tensor_parallel=2, calibration="vllm")
    above: dict[str, float] = {}
    for row in estimate.by_op():
        name = row.name.rpartition(".")[2]
        above[name] = above.get(name, 0.0) + row.high_s - row.time_s
    assert (len(estimate.by_op()), len(above)) == (25, 13)
    step_s = estimate.timed.overheads.step.high - estimate.timed.overheads.step.value
    assert estimate.high_s - estimate.time_s == pytest.approx(math.hypot(step_s, *above.values()))


# ------------------------------------------------------------------------------------------------------------ single kernels


@FEW
@given(
    st.lists(st.integers(1, 70_000), min_size=3, max_size=3),
    strategies.machines(),
    st.sampled_from(("bf16", "fp8", "nvfp4")),
    st.floats(1e-3, 0.98),
)
def test_no_product_is_expected_below_its_floor(sizes, hardware, number_format, interval):
    estimate = kernel_estimate(matmul_floor(*sizes, hardware, format=number_format), interval=interval)
    assert estimate.floor.time_s <= estimate.low_s <= estimate.time_s <= estimate.high_s
    assert all(isinstance(end, float) for end in (estimate.low_s, estimate.time_s, estimate.high_s))


def test_what_launches_no_kernel_has_no_time_to_expect():
    floor = counted_floor(ops.all_reduce("sum", 2**20, ranks=1, domain=8), Hardware.load("h100-sxm"))
    with pytest.raises(InvalidValueError, match=r"launches no kernel.*its floor is 0"):
        kernel_estimate(floor)


def test_a_kernel_is_expected_to_take_what_it_takes_in_a_step():
    row = {r.name: r for r in decode_estimate("llama-3-8b", "h100-sxm", batch=16, context=2047).by_op()}
    product = kernel_estimate(matmul_floor(16, 2 * 14336, 4096, "h100-sxm", format="bf16"))
    attention = kernel_estimate(attention_floor(hardware="h100-sxm", heads=32, kv_heads=8, head_dim=128, batch=16, context=2047))
    assert product.time_s == pytest.approx(row["mlp.gate_up_proj"].time_s / 32, rel=1e-9)
    assert attention.time_s == pytest.approx(row["self_attn.attention"].time_s / 32, rel=0.01)  # rows written count once there


def test_kernels_come_as_arrays_and_as_plain_data():
    estimate = kernel_estimate(matmul_floor([1, 64, 4096], 4096, 4096, "h100-sxm", format="bf16"), calibration="trtllm")
    assert estimate.time_s.shape == (3,)
    assert np.all(np.diff(estimate.time_s) > 0)
    read = json.loads(estimate.to_json())
    assert read["calibration"]["id"].startswith("h100-sxm-trtllm")
    assert 0 < read["constants"]["compute_share"] <= 1
    assert "matmul estimate on H100" in str(estimate)


def test_kernels_of_a_mixture_and_of_latent_attention_have_an_estimate():
    experts = experts_floor(64, "h100-sxm", hidden=4096, intermediate=14336, count=8, top_k=2, format="bf16", routing="uniform")
    latent = latent_attention_floor(hardware="h100-sxm", heads=16, batch=64, context=8192)
    for floor in (experts, latent):
        assert 1 < kernel_estimate(floor, calibration="trtllm").time_s / floor.time_s < 10
    (note,) = [note for note in kernel_estimate(experts).notes if "uniformly" in note]
    assert note in str(kernel_estimate(experts))
    assert note in kernel_estimate(experts).to_dict()["notes"]


@pytest.mark.parametrize(("tokens", "microseconds"), [(512, 115), (2048, 116)])
def test_experts_behind_an_all_to_all_take_what_was_measured_of_them(tokens, microseconds):
    """SGLang 0.5.10's ``deepepmoe`` on H200, DeepSeek-V3's shape, uniform, one of 32 ranks: wideep_generation_moe of aiconfigurator-core 0.12.0.

    No constant is fitted to that table. Sorting the visits of all ranks would take 1.7 and 3.6 times as long.
    """
    node = Deployment("deepseek-r1", "h200-sxm", data_parallel=32, expert_parallel=32)
    rows = decode_estimate(node, batch=tokens, context=1024, calibration="h200-sxm-sglang-0.5.14").by_op()
    (experts,) = [row for row in rows if row.family == "experts"]
    assert 0.65 < experts.time_s / experts.count / (microseconds * 1e-6) < 1.7


def test_collectives_and_rows_have_an_estimate():
    """nccl-tests on eight H100: 256 MiB are reduced at a bus bandwidth of some 480 GB/s, in one millisecond (NVIDIA/nccl-tests)."""
    reduced = kernel_estimate(collective_floor("all_reduce", 2**28, "h100-sxm", devices=8))
    assert 0.8e-3 < reduced.time_s < 1.6e-3
    rows = kernel_estimate(rowwise_floor(8192, 8192, "h100-sxm", format="bf16", inputs=2))
    assert 1 < rows.time_s / rows.floor.cold_s < 1.5
    across = kernel_estimate(collective_floor("all_gather", 2**28, "h100-sxm", devices=16))
    assert across.time_s >= across.floor.time_s


def test_an_estimate_of_a_kernel_starts_from_its_floor():
    with pytest.raises(InvalidValueError, match="takes the floor of a kernel"):
        kernel_estimate(4096)
    with pytest.raises(InvalidValueError, match=r"it must be in \(0, 0\.98\]"):
        kernel_estimate(matmul_floor(1, 1, 1, "h100-sxm", format="bf16"), interval=80)


def test_a_record_is_used_only_with_the_rates_that_its_shares_refer_to():
    """A spec of one's own with the id of a shipped machine and another bandwidth gets the generic constants."""
    machine = Hardware.load("h100-sxm")
    slower = machine.but(memory=machine.memory.but(bandwidth_bytes_per_s=2e12))
    assert decode_estimate("llama-3.1-8b", machine).record.id == "h100-sxm-vllm-0.24.0"
    assert decode_estimate("llama-3.1-8b", slower).record.id == "generic"


def test_an_estimate_needs_the_peak_of_what_it_multiplies():
    with pytest.raises(CalibrationError, match=r"no peak of .* in bf16 is known, .*peak_flops_per_s="):
        decode_estimate("llama-3.1-8b", memory_bandwidth=3e12)
    known = decode_estimate("llama-3.1-8b", memory_bandwidth=3e12, peak_flops_per_s=1e15)
    assert known.low_s < known.time_s < known.high_s
