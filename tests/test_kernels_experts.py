"""The time form of fused mixtures of experts: what goes in, what must hold, and how well it does on measured kernels."""

from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline import Hardware, InvalidValueError, Model, Step, experts_floor
from roofline.fitting.solve import fit_family
from roofline.formats import Format
from roofline.forward import forward
from roofline.kernels import FAMILIES
from roofline.kernels.stacks import merge_experts
from roofline.ops import distinct_experts, fused_experts
from roofline.ops.popularity import busiest_rank
from roofline.parallel import Parallel

FAMILY = FAMILIES["experts"]
BF16 = Format.load("bf16")
PEAK, BANDWIDTH = 1e15, 3e12


def kernel(**given):
    sizes = {"hidden": 4096, "intermediate": 1536, "count": 128, "weights": BF16, "activations": BF16, "stream": BF16}
    return fused_experts("experts", **(sizes | given))


def seconds(op, constants, peak=PEAK, bandwidth=BANDWIDTH):
    return FAMILY.seconds(FAMILY.features(op), constants, peak_flops_per_s=peak, bandwidth=bandwidth)


def kernels_of(work):
    """The mixture of the first layers as one kernel, and the features of one such kernel."""
    fused = merge_experts(next(list(run) for family, run in groupby(work.ops, key=lambda op: op.family) if family == "experts"))
    return fused, {name: value / fused.count if name != "intermediate" else value for name, value in FAMILY.features(fused).items()}


CONSTANTS = st.fixed_dictionaries({c.name: st.floats(c.least, c.most) for c in FAMILY.constants})
SIZES = st.fixed_dictionaries(
    {"hidden": st.integers(1, 16384), "intermediate": st.integers(1, 16384), "gated": st.booleans(), "ranks": st.integers(1, 64)}
)
VISITS, TOUCHED = st.integers(0, 10**6), st.floats(0, 512)


# --- what goes in ---


@pytest.mark.parametrize("tokens", [1, 7, 64, 4096])
@pytest.mark.parametrize("routing", ["uniform", "best"])
def test_layer_of_a_model_and_row_of_a_table_have_the_same_features(tokens, routing):
    layer, features = kernels_of(forward(Model.load("mixtral-8x7b"), Step.decode(batch=tokens), routing=routing))
    row = experts_floor(tokens, "h100-sxm", hidden=4096, intermediate=14336, count=8, top_k=2, format="bf16", routing=routing).op
    assert features == pytest.approx(FAMILY.features(row), rel=1e-12)
    assert (layer.stored, layer.operand, dict(layer.sizes)) == (row.stored, row.operand, dict(row.sizes))


@pytest.mark.parametrize(("parallel", "width", "count"), [(Parallel(tensor=4), 3584, 8), (Parallel(tensor=4, expert=4), 14336, 2)])
def test_share_of_a_device_has_the_features_of_the_kernel_it_runs(parallel, width, count):
    ranks = 8 // count
    _, features = kernels_of(forward(Model.load("mixtral-8x7b"), Step.decode(batch=64), parallel=parallel))
    touched = distinct_experts(64, count=count, top_k=2 / ranks)
    row = kernel(intermediate=width, count=count, visits=128 / ranks, touched=touched, ranks=ranks)
    assert features == pytest.approx(FAMILY.features(row), rel=1e-12)


def test_biases_and_scales_of_experts_are_no_experts_of_their_own():
    """gpt-oss stores 4-bit experts with scales and 16-bit biases: all experts of a large batch are still as many as there are."""
    fused, features = kernels_of(forward(Model.load("gpt-oss-20b"), Step.prefill(8192)))
    row_flops = 2 * 3 * 2880 * 2880
    assert fused.stored == "mxfp4"
    assert features["spare_flops"] / row_flops == pytest.approx(32, rel=1e-9)


def test_merged_operators_add_up_and_rows_are_counted_once():
    ops = [op for op in forward(Model.load("mixtral-8x7b"), Step.decode(batch=3)).ops if op.family == "experts"]
    fused = merge_experts(ops)
    assert fused.name == "mlp.experts"
    assert fused.rows == 3 * 2 * fused.count == max(op.rows for op in ops)
    assert [fused.flops, fused.weight_bytes] == [sum(op.flops for op in ops), sum(op.weight_bytes for op in ops)]


def test_only_operators_of_one_mixture_merge():
    mixtral, qwen = (
        [op for op in forward(Model.load(name), Step.decode()).ops if op.family == "experts"] for name in ("mixtral-8x7b", "qwen3-30b-a3b")
    )
    other = next(op for op in forward(Model.load("mixtral-8x7b"), Step.decode()).ops if op.family != "experts")
    for ops in ([], [*mixtral, *qwen], [*mixtral, other]):
        with pytest.raises(InvalidValueError, match="mixture of experts"):
            merge_experts(ops)


# --- what must hold ---


@given(CONSTANTS, SIZES, VISITS, TOUCHED)
def test_never_faster_than_peak_and_bandwidth(constants, sizes, visits, touched):
    op = kernel(visits=visits, touched=touched, **sizes)
    assert seconds(op, constants) >= max(op.flops / PEAK, op.weight_bytes / BANDWIDTH)


@given(CONSTANTS, SIZES, VISITS, VISITS, TOUCHED, TOUCHED)
def test_more_visits_or_experts_never_take_less_time(constants, sizes, visits, further, touched, others):
    less, more = seconds(kernel(visits=visits, touched=touched, **sizes), constants), []
    more.append(seconds(kernel(visits=visits + further, touched=touched, **sizes), constants))
    more.append(seconds(kernel(visits=visits, touched=touched + others, **sizes), constants))
    assert min(more) >= less * (1 - 1e-12)


@given(CONSTANTS, SIZES, VISITS, TOUCHED, st.floats(1, 1.1))
def test_time_grows_by_no_larger_factor_than_the_amounts(constants, sizes, visits, touched, factor):
    """So it has no jumps: every amount grown by a factor costs at most that factor."""
    less = seconds(kernel(visits=visits, touched=touched, **sizes), constants)
    more = seconds(kernel(visits=visits * factor, touched=touched * factor, **sizes), constants)
    assert less * (1 - 1e-12) <= more <= less * factor * (1 + 1e-12)


def test_constants_and_features_broadcast_as_columns_and_rows():
    tokens = np.array([1, 8, 512])
    op = kernel(visits=tokens * 8, touched=distinct_experts(tokens, count=128, top_k=8))
    one = {c.name: c.start for c in FAMILY.constants}
    both = seconds(op, {name: np.array([[value], [value]]) for name, value in one.items()}, peak=np.array([[PEAK], [PEAK]]))
    assert both.shape == (2, 3)
    assert np.array_equal(both[1], seconds(op, one))


def test_fit_finds_the_constants_that_made_the_times():
    rng = np.random.default_rng(5)
    made = {
        "compute_share": 0.55,
        "bandwidth_share": 0.8,
        "fixed_s": 2.5e-5,
        "sharpness": 1.8,
        "pad_rows": 40.0,
        "pad_columns": 150.0,
        "tile_rows": 60.0,
        "element_bytes": 2.5,
    }
    rows = []
    for hidden, width, count, top_k in (
        (4096, 1536, 128, 8),
        (2048, 768, 128, 8),
        (4096, 14336, 8, 2),
        (6144, 256, 160, 8),
        (7168, 2048, 256, 8),
    ):
        tokens = np.unique(np.round(2.0 ** rng.uniform(0, 14, 60)))
        touched = distinct_experts(tokens, count=count, top_k=top_k)
        rows.append(FAMILY.features(kernel(hidden=hidden, intermediate=width, count=count, visits=tokens * top_k, touched=touched)))
        rows[-1]["intermediate"] = np.full(tokens.size, width)
    features = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    times = FAMILY.seconds(features, made, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH) * np.exp(
        rng.normal(0, 0.002, features["flops"].size)
    )
    found = fit_family(FAMILY, features, times, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)
    assert {name: value[0] for name, value in found.constants.items()} == pytest.approx(made, rel=0.1)


# --- synthetic routings ---


def counted(tokens, count, top_k, ranks, exponent, rng):
    """One draw of a power law, every visit moved one by one as the collector's description says."""
    least, most = (1, 0.8 * tokens) if tokens * top_k > count else (0.01, 2)
    power = 1 - exponent
    draws = ((most**power - least**power) * rng.random(count) + least**power) ** (1 / power)
    visits = np.minimum(np.round(draws / draws.sum() * tokens * top_k), tokens).reshape(ranks, -1)
    while lacking := int(tokens * top_k - visits.sum()):
        for rank in visits[: abs(lacking)]:
            if lacking > 0 and rank.min() < tokens:
                rank[rank.argmin()] += 1
            elif lacking < 0 and rank.max() > 0:
                rank[rank.argmax()] -= 1
    busiest = visits[visits.sum(axis=1).argmax()]
    return busiest.sum(), (busiest > 0).sum()


@pytest.mark.parametrize("exponent", [1.01, 1.2])
@pytest.mark.parametrize(
    ("tokens", "count", "top_k", "ranks"),
    [(8, 256, 8, 1), (32, 128, 8, 8), (64, 256, 8, 1), (64, 8, 2, 4), (512, 128, 4, 16), (4096, 256, 8, 8)],
)
def test_power_law_is_that_of_the_tables(tokens, count, top_k, ranks, exponent):
    rng = np.random.default_rng(11)
    draws = np.array([counted(tokens, count, top_k, ranks, exponent, rng) for _ in range(60)])
    visits, touched = busiest_rank(tokens, count=count, top_k=top_k, ranks=ranks, exponent=exponent)
    error = 4 * draws.std(axis=0) / np.sqrt(20)  # of the difference of two means over 32 and 60 draws
    assert np.all(abs(np.array([visits, touched]) - draws.mean(axis=0)) <= error + 0.005 * draws.mean(axis=0))


@given(st.integers(0, 300), st.sampled_from([(8, 2), (128, 8), (256, 8), (160, 10), (16, 1)]), st.sampled_from([1, 2, 4, 8]))
def test_balanced_routing_touches_as_many_experts_as_it_can_and_shares_visits_evenly(tokens, experts, ranks):
    count, top_k = experts
    visits, touched = busiest_rank(tokens, count=count, top_k=top_k)
    assert (visits, touched) == (tokens * top_k, min(tokens * top_k, count))
    here, _ = busiest_rank(count, count=count, top_k=top_k, ranks=ranks)  # every expert has had its turn equally often
    assert here == count * top_k / ranks


def test_skew_loads_the_busiest_device_and_leaves_experts_untouched():
    even, skewed = (busiest_rank(256, count=256, top_k=8, ranks=8, exponent=e) for e in (0, 1.2))
    assert skewed[0] > 1.3 * even[0]
    whole = busiest_rank(64, count=256, top_k=8, exponent=1.2)[1]
    assert whole < distinct_experts(64, count=256, top_k=8)


@pytest.mark.parametrize("given", [{"ranks": 3}, {"top_k": 0}, {"top_k": 9}, {"ranks": 0}])
def test_experts_that_do_not_divide_are_refused(given):
    with pytest.raises(InvalidValueError, match=r"devices hold equally many|1 to 8"):
        busiest_rank(4, **({"count": 8, "top_k": 2, "ranks": 1} | given))


# --- measured kernels ---


@pytest.fixture(scope="module")
def table():
    """bf16 mixtures of vLLM on an H100: columns by name."""
    pytest.importorskip("pyarrow", reason="pyarrow reads the kernel tables")
    parquet = pytest.importorskip("pyarrow.parquet")
    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the kernel tables are in the package aiconfigurator-core")
    file = Path(spec.submodule_search_locations[0], "systems/data/h100_sxm/moe/vllm/0.24.0/moe_perf.parquet")
    read = parquet.read_table(file, filters=[("moe_dtype", "=", "bfloat16")])
    return {name: np.asarray(read[name].to_numpy()) for name in read.column_names}


def features_of(table, rows, skewed=True):
    plain = {(1856, 6, 128), (2688, 22, 512), (5120, 22, 512)}  # Nemotron 3: experts of two matrices
    names = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size", "distribution")
    found = []
    for tokens, hidden, wide, top_k, count, tp, ep, distribution in zip(*(table[n][rows].tolist() for n in names), strict=True):
        exponent = 0.0 if distribution == "balanced" else float(distribution.removeprefix("power_law_"))
        visits, touched = busiest_rank(tokens, count=count, top_k=top_k, ranks=ep, exponent=exponent)
        if not skewed:
            visits, touched = tokens * top_k / ep, distinct_experts(tokens, count=count // ep, top_k=top_k / ep)
        sizes = {"hidden": hidden, "intermediate": wide // tp, "count": count // ep, "gated": (wide, top_k, count) not in plain}
        found.append(FAMILY.features(kernel(visits=visits, touched=touched, ranks=ep, routed=tokens * top_k, **sizes)))
    return {name: np.array([float(row[name]) for row in found]) for name in found[0]}


def test_held_out_kernels_are_timed_within_a_tenth_and_the_routing_is_what_it_takes(table):
    machine = Hardware.load("h100-sxm")
    rates = {"peak_flops_per_s": machine.peak("bf16").value, "bandwidth": machine.memory_bandwidth}
    rows = np.random.default_rng(3).permutation(len(table["latency"]))[:2000]
    fitted, held = rows[:500], rows[500:]
    errors = {}
    for skewed in (True, False):
        known, asked = (features_of(table, part, skewed) for part in (fitted, held))
        found = fit_family(FAMILY, known, table["latency"][fitted] * 1e-3, **rates)
        times = FAMILY.seconds(asked, {name: value[0] for name, value in found.constants.items()}, **rates)
        errors[skewed] = np.abs(times / (table["latency"][held] * 1e-3) - 1)
    assert np.median(errors[True]) < 0.1
    for distribution in ("balanced", "power_law_1.01", "power_law_1.2"):
        for spread in (table["moe_ep_size"][held] == 1, table["moe_ep_size"][held] > 1):
            assert np.median(errors[True][(table["distribution"][held] == distribution) & spread]) < 0.15
    assert np.median(errors[False]) > 1.3 * np.median(errors[True])
