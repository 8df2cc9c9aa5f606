"""What must hold for every model, machine and step: relations that no bug in a formula or a reader survives for long."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from roofline import Floor, Hardware, Model, Step, decode_floor, prefill_floor, step_floor
from roofline.bounds import roofline_times
from roofline.formats import Format
from roofline.forward import forward
from strategies import FORMATS, contexts, machines, models, rates, steps

FEW = settings(max_examples=60)
UP = 1 + 1e-12  # sums in another order may differ in the last bits


# ------------------------------------------------------------------------------------------------------------ monotonicity


@FEW
@given(models(), machines(), st.integers(1, 500), st.integers(1, 500), contexts())
def test_more_sequences_never_lower_the_floor(model, hardware, batch, more, context):
    few, many = (decode_floor(model, hardware, batch=b, context=context) for b in (batch, batch + more))
    assert few.time_s <= many.time_s * UP
    assert few.flops < many.flops or not few.flops
    assert few.total_bytes <= many.total_bytes
    assert few.resident_bytes <= many.resident_bytes
    assert few.roofline_s <= many.roofline_s * UP


@FEW
@given(models(chunked=False), machines(), st.integers(1, 500), contexts(), st.integers(1, 10_000))
def test_more_context_never_lowers_the_floor(model, hardware, batch, context, more):
    """Chunked attention is the exception by design: a token at the start of a chunk sees only itself."""
    short, long = (decode_floor(model, hardware, batch=batch, context=c) for c in (context, context + more))
    assert short.time_s <= long.time_s * UP
    assert short.kv_read_bytes <= long.kv_read_bytes
    assert short.flops <= long.flops


@FEW
@given(models(chunked=False, encoders=True), machines(), st.integers(1, 20_000), st.integers(1, 10_000))
def test_a_longer_prompt_never_lowers_the_floor(model, hardware, prompt, more):
    short, long = (prefill_floor(model, hardware, prompt=p) for p in (prompt, prompt + more))
    assert short.time_s <= long.time_s * UP
    assert short.flops < long.flops or not long.flops


@FEW
@given(models(), machines(), steps(), st.integers(1, 50), st.data())
def test_more_layers_never_lower_the_floor(model, hardware, step, more, data):
    which = data.draw(st.integers(0, len(model.layers) - 1))
    layers = [g.but(count=g.count + more * (i == which)) for i, g in enumerate(model.layers)]
    deeper = model.but(layers=tuple(layers))
    before, after = (step_floor(m, hardware, step) for m in (model, deeper))
    assert before.time_s <= after.time_s * UP
    assert before.roofline_s <= after.roofline_s * UP
    assert deeper.parameters >= model.parameters
    assert before.total_bytes <= after.total_bytes


@FEW
@given(models(), machines(), steps(), steps())
def test_a_larger_mixture_never_lowers_the_floor(model, hardware, step, other):
    one, both = (step_floor(model, hardware, s) for s in (step, step + other))
    assert one.time_s <= both.time_s * UP
    # what both need is read once: never slower than one after the other, when no cache carries bytes over
    if not hardware.last_level_cache:
        assert both.time_s <= (one.time_s + step_floor(model, hardware, other).time_s) * UP


@FEW
@given(models(), rates(), steps(), st.sampled_from(("memory_bandwidth", "peak_flops_per_s")), st.floats(1, 10))
def test_a_faster_machine_is_never_slower(model, rates, step, which, factor):
    faster = rates | {which: rates[which] * factor}
    slow, fast = (step_floor(model, None, step, **r) for r in (rates, faster))
    assert fast.time_s <= slow.time_s * UP
    assert fast.roofline_s <= slow.roofline_s * UP


@FEW
@given(models(), rates(), steps(), st.floats(1, 100))
def test_more_memory_changes_what_fits_and_nothing_else(model, rates, step, factor):
    larger = rates | {"memory_capacity": rates["memory_capacity"] * factor}
    small, large = (step_floor(model, None, step, **r) for r in (rates, larger))
    assert small.time_s == large.time_s
    assert large.fits or not small.fits


@FEW
@given(models(), machines(), steps(), st.sampled_from(FORMATS), st.sampled_from(FORMATS))
def test_wider_weights_never_lower_the_floor(model, hardware, step, one, other):
    """With one format to multiply in, and 16 bits for what is never quantized, so that only the matrices differ."""
    model = model.but(dtype="bf16")
    narrow, wide = sorted((one, other), key=lambda name: Format.load(name).bits)
    floors = [step_floor(model, hardware, step, weights={"*": w}, activations="bf16") for w in (narrow, wide)]
    assert floors[0].total_bytes <= floors[1].total_bytes
    assert floors[0].memory_s <= floors[1].memory_s * UP
    assert floors[0].resident_bytes <= floors[1].resident_bytes


@FEW
@given(models(), machines(), steps())
def test_a_wider_cache_never_lowers_the_floor(model, hardware, step):
    narrow, wide = (step_floor(model, hardware, step, kv=kv) for kv in ("fp8", "bf16"))
    assert narrow.memory_s <= wide.memory_s * UP
    assert narrow.resident_bytes <= wide.resident_bytes


# ------------------------------------------------------------------------------------------------------------ conservation


@FEW
@given(models(), st.lists(st.integers(1, 3000), min_size=1, max_size=5), contexts(), st.integers(1, 64))
def test_chunked_prefill_conserves_flops(model, chunks, hit, batch):
    whole = forward(model, Step.prefill(hit + sum(chunks), cached=hit, batch=batch)).total("flops")
    done, total = hit, 0
    for i, new in enumerate(chunks):
        total += forward(model, Step.chunk(new, cached=done, batch=batch, last=i == len(chunks) - 1)).total("flops")
        done += new
    assert total == whole


@FEW
@given(models(encoders=True), st.integers(1, 5000), st.integers(1, 64))
def test_fusion_conserves_work(model, prompt, batch):
    works = [forward(model, Step.prefill(prompt, batch=batch), fusion=f) for f in ("none", "attention", "full")]
    for amount in ("flops", "vector_flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes"):
        assert len({w.total(amount) for w in works}) == 1, amount
    traffic = [w.total("activation_bytes") for w in works]
    assert traffic == sorted(traffic, reverse=True)


@FEW
@given(models(), steps())
def test_operators_add_up_to_the_totals(model, step):
    work = forward(model, step)
    for amount in ("flops", "vector_flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes", "activation_bytes"):
        assert work.total(amount) == pytest.approx(sum(getattr(op, amount) for op in work.ops), rel=1e-12), amount
    assert sum(work.flops_by_operand.values()) == work.total("flops")


@FEW
@given(models(chunked=False))
def test_what_one_decode_reads_is_what_the_steps_before_wrote(model):
    """Ten tokens one by one, then the eleventh: it reads what the ten wrote, less what has left the windows."""
    wrote = sum(forward(model, Step.decode(context=i)).total("kv_write_bytes") for i in range(10))
    read = forward(model, Step.decode(context=10)).total("kv_read_bytes")
    assert read <= wrote
    if all(g.mixer is None or not g.mixer.span or g.mixer.span > 10 for g in model.layers):
        assert read == wrote


@FEW
@given(models(encoders=True))
def test_components_add_up_to_the_parameters(model):
    assert sum(model.by_component().values()) == model.parameters > 0
    assert 0 < model.active_parameters <= model.parameters
    assert min(model.by_component().values()) > 0


# --------------------------------------------------------------------------------------------------- scalars equal to arrays


@FEW
@given(models(), machines(), st.lists(st.integers(1, 1000), min_size=1, max_size=3), st.lists(contexts(), min_size=1, max_size=3))
def test_arrays_equal_scalars(model, hardware, batches, lengths):
    shape = (len(batches), len(lengths))
    grid = decode_floor(model, hardware, batch=np.array(batches)[:, None], context=lengths)
    for i, batch in enumerate(batches):
        for j, context in enumerate(lengths):
            one = decode_floor(model, hardware, batch=batch, context=context)
            for name in ("time_s", "compute_s", "memory_s", "flops", "total_bytes", "resident_bytes", "tokens_per_s", "roofline_s"):
                whole = np.broadcast_to(getattr(grid, name), shape)
                np.testing.assert_allclose(whole[i, j], getattr(one, name), rtol=1e-12, err_msg=name)
            if one.compute_s != pytest.approx(one.memory_s, rel=1e-9):
                assert np.broadcast_to(grid.bound, shape)[i, j] == one.bound


# ------------------------------------------------------------------------------------------------------ the three numbers


@FEW
@given(models(encoders=True), machines(), st.data(), st.sampled_from(("none", "attention", "full")))
def test_the_floor_is_never_above_the_roofline_time(model, hardware, data, fusion):
    encoder = any(g.mixer is not None and g.mixer.visible == "bidirectional" for g in model.layers)
    floor = step_floor(model, hardware, data.draw(steps(cached=not encoder)), fusion=fusion)
    assert floor.time_s <= floor.roofline_s * UP
    assert floor.time_s == max(floor.compute_s, floor.memory_s, floor.network_s)
    assert floor.roof in ("compute", "memory", "network")
    assert getattr(floor, f"{floor.roof}_s") == floor.time_s
    assert floor.time_s >= 0
    assert np.isfinite(floor.time_s)


@FEW
@given(models(), machines(), steps())
def test_without_activations_the_roofline_time_is_at_most_twice_the_floor(model, hardware, step):
    """A sum of maxima is at most the sum of both sums, so at most twice the larger; no cache, for that is subtracted once only."""
    bare = Hardware.from_rates(memory_bandwidth=hardware.memory_bandwidth, peak_flops_per_s=hardware.peak("bf16").value)
    floor = step_floor(model, bare, step)
    peak, bandwidth = bare.peak("bf16").value, bare.memory_bandwidth
    alone = sum(max(row.op.flops / peak, row.op.compulsory_bytes / bandwidth) for row in floor.by_op())
    assert floor.time_s <= alone * UP
    assert alone <= 2 * floor.time_s * UP


@FEW
@given(models(), machines(), steps())
def test_roofline_times_are_the_operators_own_roofs(model, hardware, step):
    for row in roofline_times(forward(model, step), hardware):
        moved = row.op.compulsory_bytes + row.op.activation_bytes
        products, general = row.op.flops / hardware.ceiling(row.op.operand).value, row.op.vector_flops / hardware.vector_ceiling.value
        assert row.time_s == max(products, general, moved / hardware.memory_bandwidth)


@FEW
@given(models(), rates(), steps())
def test_what_does_not_fit_has_no_throughput(model, rates, step):
    floor = step_floor(model, None, step, **rates)
    assert floor.fits == (floor.resident_bytes <= int(rates["memory_capacity"]))
    assert (floor.bound == "capacity") == np.isnan(floor.tokens_per_s) == (not floor.fits)
    assert ("DOES NOT FIT" in str(floor)) == (not floor.fits)


# ------------------------------------------------------------------------------------------------------------- round trips


@FEW
@given(models(encoders=True))
def test_models_survive_json(model):
    again = Model.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again == model
    assert again.by_component() == model.by_component()


@FEW
@given(rates())
def test_machines_survive_json(rates):
    hardware = Hardware.from_rates(**rates)
    assert Hardware.from_dict(json.loads(json.dumps(hardware.to_dict()))) == hardware


@FEW
@given(models(), machines(), steps())
def test_results_survive_json(model, hardware, step):
    floor = step_floor(model, hardware, step)
    assert isinstance(floor, Floor)
    data = json.loads(floor.to_json(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert data == floor.to_dict()
    assert data["time_s"] == floor.time_s
    assert len(data["ops"]) == len(floor.by_op())
    (record,) = floor.to_records()
    assert record["time_s"] == floor.time_s


@FEW
@given(models(), machines(), steps())
@example(Model.anonymous("405B"), Hardware.from_rates(memory_bandwidth=3e12), Step.prefill(10**6, batch=10**6))  # FLOP beyond 2^64
def test_results_can_be_shown(model, hardware, step):
    floor = step_floor(model, hardware, step)
    assert str(floor).startswith("step floor of ")
    assert "nan" not in str(floor)
    assert floor._repr_html_().startswith("<table>")
