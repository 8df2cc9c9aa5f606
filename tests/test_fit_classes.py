"""From samples to classes with constants, to rates and to overheads."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pretended import BANDWIDTH, DEVICE, PEAK, POINTS, made
from roofline import CalibrationError, Hardware, InvalidValueError, record_from_tables
from roofline.calibration import plan
from roofline.calibration.plan import Point
from roofline.estimate.constants import choose
from roofline.fitting import classes
from roofline.fitting.classes import fit_classes, measured_rates, overheads
from roofline.kernels import FAMILIES
from roofline.ops import all_reduce
from roofline.records import Flag, Rates
from roofline.records.conditions import WRONG
from roofline.records.samples import Sample, group_samples, list_samples
from roofline.records.schema import PERCENTILES

pytestmark = pytest.mark.usefixtures("remember_fits")


def sample(family, seconds, *, moved=0.0, operand="fp32", flags=(), **sizes):
    return Sample(family, operand, operand, sizes, {}, seconds, seconds * 0.9, seconds * 1.1, moved, flags)


def test_samples_survive_their_grouping():
    samples = [
        sample("matmul", i + 1.0, m=i, n=2, k=3, flags=(Flag(code="throttled", detail="a; b: c"), WRONG) if i == 1 else ())
        for i in range(1, 4)
    ]
    samples += [sample("read", 1.0, bytes=64, moved=64.0)]
    assert list_samples(group_samples(samples)) == samples


def test_the_peak_is_that_of_the_best_right_sample():
    samples = [sample("matmul", 1.0, m=1000, n=1000, k=1000), sample("matmul", 1.5, m=2000, n=1000, k=1000)]
    samples += [sample("matmul", 1e-6, m=2000, n=1000, k=1000, flags=(WRONG,))]
    rates, _ = measured_rates(samples, cache_bytes=1)
    assert rates.peak_flops_per_s == {"fp32": pytest.approx(4e9 / (0.9 * 1.5))}


def test_a_rate_out_of_the_cache_is_never_the_memorys():
    samples = [sample("read", 1e-3, bytes=2**22, moved=2.0**22), sample("copy", 0.1, bytes=2**29, moved=2.0**30)]
    rates, notes = measured_rates(samples, cache_bytes=2**22)
    assert rates.memory_bandwidth == pytest.approx(2**30 / 0.09)
    assert notes == ()
    _, notes = measured_rates(samples[:1], cache_bytes=2**22)
    assert "may be the cache's" in str(notes[0])


def test_weights_read_faster_than_a_plain_array_raise_the_bandwidth():
    samples = [sample("read", 0.1, bytes=1e9, moved=1e9), sample("matmul", 0.05, moved=1e9, m=1, n=16384, k=16384)]
    assert measured_rates(samples, cache_bytes=1e6)[0].memory_bandwidth == pytest.approx(1e9 / 0.045)


def test_classes_of_one_family_and_format_share_a_fit():
    def with_heads(heads, batch, context):
        sizes = {"batch": batch, "context": context, "new": 1}
        fixed = {"heads": heads, "kv_heads": heads, "head_dim": 128}
        seconds = 1e-5 + 2 * batch * context * heads * 128 * 4 / (0.5 * BANDWIDTH)
        return Sample("attention", "fp32", "fp32", sizes, fixed, seconds, seconds, seconds, 0.0)

    samples = [with_heads(heads, batch, context) for heads in (8, 32) for batch in (1, 4) for context in (255, 1023, 4095)]
    few, many = fit_classes(group_samples(samples), Rates(origin="measured", peak_flops_per_s={"fp32": PEAK}, memory_bandwidth=BANDWIDTH))
    assert few.constants
    assert few.constants == many.constants
    assert (few.fixed_sizes["heads"], many.fixed_sizes["heads"]) == (8, 32)


def test_norms_and_residuals_are_fitted_apart():
    made_of = {
        "norm": {"bandwidth_share": 0.1, "fixed_s": 2e-5, "sharpness": 1.5},
        "residual": {"bandwidth_share": 0.8, "fixed_s": 2e-6, "sharpness": 1.5},
    }

    def rowwise(kernel, rows, width=2048):
        moved = 4 * width * (2 * rows + 1 if kernel == "norm" else 3 * rows)  # in, out and the scales; two in, one out
        seconds = float(FAMILIES["rowwise"].seconds({"bytes": moved}, made_of[kernel], peak_flops_per_s=math.inf, bandwidth=BANDWIDTH))
        return Sample("rowwise", "fp32", "fp32", {"rows": rows, "width": width}, {"kernel": kernel}, seconds, seconds, seconds, 0.0)

    samples = [rowwise(kernel, rows) for rows in (1, 2, 8, 64, 256, 2048, 4096) for kernel in made_of]
    fitted = fit_classes(group_samples(samples), Rates(origin="measured", memory_bandwidth=BANDWIDTH))
    assert [(c.fixed_sizes["kernel"], classes.name_class(c)) for c in fitted] == [
        ("norm", "rowwise norm fp32"),
        ("residual", "rowwise residual fp32"),
    ]
    for c in fitted:
        for name, value in made_of[c.fixed_sizes["kernel"]].items():
            assert c.constants[name].value == pytest.approx(value, rel=0.02)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("points", [plan.quick_plan, plan.thorough_plan])
def test_plans_have_enough_of_every_class_for_a_fit(kind, points):
    device = replace(DEVICE, kind=kind, native=("fp32", "bf16", "fp8") if kind == "cuda" else ("fp32",), memory_bytes=2**36)
    samples = [Sample(p.family, p.stored, p.operand, p.sizes, p.fixed, 1.0, 1.0, 1.0, 0.0) for p in points(device)]
    pools = {}
    for c in group_samples(samples):
        if c.family in FAMILIES:
            name = classes.name_class(c)
            pools[name] = pools.get(name, 0) + len(c.samples.seconds)
    main = "bf16" if kind == "cuda" else "fp32"  # other formats have but one large product in the quick plan
    least = 5  # two constants need four, and every fifth is held out
    assert all(pools[f"{name} {main}"] >= least for name in ("matmul", "attention"))
    for kernel in ("rowwise norm", "rowwise residual"):
        assert max(count for name, count in pools.items() if name.startswith(kernel)) >= least


# what torch computes, counted by hand: the bytes that have to move, the FLOP of products
COUNTS = [
    (Point("matmul", "bf16", "bf16", {"m": 3, "n": 5, "k": 7}), 2 * (5 * 7 + 3 * 7 + 3 * 5), 2 * 3 * 5 * 7),
    (Point("matmul", "fp8", "fp8", {"m": 3, "n": 5, "k": 7}), 5 * 7 + 3 * 7 + 2 * 3 * 5, 2 * 3 * 5 * 7),  # the result is bf16
    (Point("matmul", "int8", "int8", {"m": 3, "n": 5, "k": 7}), 5 * 7 + 3 * 7 + 4 * 3 * 5, 2 * 3 * 5 * 7),  # the result is int32
    (Point("rowwise", "fp32", "fp32", {"rows": 3, "width": 5}, {"kernel": "norm"}), 4 * (3 * 5 + 5 + 3 * 5), 0),
    (Point("rowwise", "fp32", "fp32", {"rows": 3, "width": 5}, {"kernel": "residual"}), 4 * 3 * 3 * 5, 0),
    (Point("all_reduce", "fp32", "fp32", {"ranks": 4, "bytes": 1024}), 0, 0),
]


@pytest.mark.parametrize(("point", "moved", "flops"), COUNTS, ids=[point.key for point, _, _ in COUNTS])
def test_a_point_costs_what_it_asks_for(point, moved, flops):
    op = classes.kernel_op(point.family, point.stored, point.operand, {**point.fixed, **point.sizes})
    assert (op.compulsory_bytes + op.activation_bytes, op.flops) == (moved, flops)
    assert op.family == point.family


def test_what_has_no_form_is_refused_by_name():
    with pytest.raises(CalibrationError, match="family 'launch' have no form to be fitted; those of matmul, "):
        classes.kernel_op("launch", "fp32", "fp32", {"elements": 1})
    with pytest.raises(InvalidValueError, match="matmul kernels need m, n, k; k is missing"):
        classes.kernel_op("matmul", "fp32", "fp32", {"m": 1, "n": 1})


def test_the_error_is_of_samples_that_the_fit_has_not_seen():
    rng = np.random.default_rng(7)
    samples = [
        Sample("matmul", "fp32", "fp32", p.sizes, {}, t, t, t, 0.0)
        for p in (
            Point("matmul", "fp32", "fp32", {"m": m, "n": n, "k": 2048}) for m in (1, 8, 64, 512, 2048) for n in (512, 1024, 2048, 4096)
        )
        for t in [made(p) * float(np.exp(rng.normal(0, 0.1)))]
    ]
    rates = Rates(origin="datasheet", peak_flops_per_s={"fp32": PEAK}, memory_bandwidth=BANDWIDTH)
    (fitted,) = fit_classes(group_samples(samples), rates)
    mean_deviation = 0.1 * math.sqrt(2 / math.pi)
    assert 0.7 * mean_deviation < fitted.error < 3 * mean_deviation
    low, high = (fitted.residual_quantiles[PERCENTILES.index(p)] for p in (10, 90))
    assert 0.7 * 2 * 1.28 * 0.1 < high - low < 3 * 2 * 1.28 * 0.1


def test_few_samples_free_few_constants():
    samples = list_samples(
        group_samples(Sample("matmul", "fp32", "fp32", p.sizes, {}, made(p), made(p), made(p), 0.0) for p in POINTS[::2])
    )
    (fitted,) = fit_classes(group_samples(samples), Rates(origin="datasheet", peak_flops_per_s={"fp32": PEAK}, memory_bandwidth=BANDWIDTH))
    held = [c for c in FAMILIES["matmul"].constants if c.name in fitted.note]
    assert 0 < len(held) < len(FAMILIES["matmul"].constants)
    assert all(fitted.constants[c.name].value in (c.start, c.neutral) for c in held)
    assert fitted.error is not None


def test_overheads_leave_out_what_is_wrong():
    found = overheads([sample("launch", 4e-6), sample("launch", 6e-6), sample("launch", 9.0, flags=(WRONG,)), sample("step_sync", 1e-4)])
    assert {name: constant.value for name, constant in found.items()} == {"launch_s": pytest.approx(5e-6), "sync_s": pytest.approx(1e-4)}


@pytest.mark.parametrize(("machine", "ranks"), [("a100-pcie-80gb", 4), ("h100-sxm", 16)])
def test_all_reduces_beyond_the_scale_up_domain_are_fitted_to_the_rate_that_estimates_use(machine, ranks):
    """Half of the sums between two bridged pairs of GPUs, or an eighth between two servers, takes a slower link than NVLink."""
    machine, family = Hardware.load(machine), FAMILIES["all_reduce"]
    law = {c.name: c.start for c in family.constants}
    beyond = max(machine.network_ceiling.value, machine.host_ceiling.value) if ranks == 4 else machine.network_ceiling.value
    rate = min(machine.link_ceiling.value, beyond * machine.scale_up.domain_size)
    size = 2.0 ** np.arange(10, 30, 0.5)
    seconds = family.seconds({"bytes": size, "ranks": ranks}, law, peak_flops_per_s=1, bandwidth=rate)
    rows = {"op": ["all_reduce"] * size.size, "ranks": [ranks] * size.size, "bytes": size.astype(int), "seconds": seconds}
    record = record_from_tables(rows, machine, id="links", source="a law")
    samples = [
        Sample("all_reduce", "fp32", "fp32", {"ranks": ranks, "bytes": b}, {}, t, t, t, 0.0) for b, t in zip(size, seconds, strict=True)
    ]
    (measured,) = fit_classes(group_samples(samples), record.rates, hardware=machine)
    assert rate < machine.link_ceiling.value
    for fitted in (record.classes[0], measured):
        op = all_reduce("x", 2.0**28, ranks=ranks, domain=machine.scale_up.domain_size)
        chosen = choose(family, [op], record.model_copy(update={"classes": (fitted,)}), machine)
        assert chosen.bandwidth.item() == pytest.approx(rate)
        estimate = family.seconds({"bytes": size, "ranks": ranks}, chosen.constants, peak_flops_per_s=1, bandwidth=chosen.bandwidth)
        assert estimate[0] == pytest.approx(seconds, rel=0.02)  # it was 4.7 times as long on the bridged pairs
