"""How tokens spread over experts: what may be said, and the load of the busiest device under a power law."""

import math
from importlib.util import find_spec
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline import (
    Hardware,
    InvalidValueError,
    Model,
    Step,
    decode_estimate,
    decode_floor,
    experts_floor,
    prefill_estimate,
    step_floor,
    sweep,
)
from roofline.fitting.solve import fit_family
from roofline.formats import Format
from roofline.forward import forward
from roofline.kernels import FAMILIES
from roofline.ops import PowerLaw, busiest_popularity, distinct_experts, fused_experts, shared_experts
from roofline.ops.popularity import busiest_rank
from roofline.ops.routing import parse_routing
from roofline.parallel import Parallel
from shell import invoke

EXPONENTS = st.one_of(st.sampled_from([0.0, 1.0, 1.01, 1.2, 2.0]), st.floats(0, 50))
LAYERS = st.sampled_from([(8, 2), (128, 8), (256, 8), (160, 6), (60, 4), (16, 1), (8, 8)])
RANKS = st.sampled_from([1, 2, 4, 8])
TOKENS = st.integers(1, 10**7)
ONE = {"hidden": 4096, "intermediate": 1536, "count": 128, "top_k": 8, "format": "bf16"}


def quantiles(exponent, count):
    """Popularities by the inverse of the cumulative distribution, one by one."""
    chances = [(i + 0.5) / count for i in range(count)]
    if exponent == 1:
        return [200**u for u in chances]
    power = 1 - exponent
    return [(1 + u * (200**power - 1)) ** (1 / power) for u in chances]


# --- what may be said ---


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("uniform", "uniform"),
        ("best", "best"),
        ("power_law_1.2", PowerLaw(1.2)),
        ("power_law_0", PowerLaw(0)),
        ("power_law_1e-1", PowerLaw(0.1)),
        (PowerLaw(2), PowerLaw(2)),
        ([0.5, 0.25, 0.25], (0.5, 0.25, 0.25)),
        (np.array([1, 1]), (1.0, 1.0)),
    ],
)
def test_routing_words_parse(said, meant):
    assert parse_routing(said) == meant
    assert parse_routing(str(said) if isinstance(said, PowerLaw) else said) == meant


BAD = {
    "unifrom": "uniform",
    "Best": "best",
    "power_law": "power_law_1.2",
    "power_law_-1": "power_law_1.2",
    "power_law_1_2": "power_law_1.2",
    "power_law_nan": "power_law_1.2",
    "power_law_1e999": "power_law_1.2",
}


@pytest.mark.parametrize(("routing", "nearest"), BAD.items())
def test_invalid_routing_has_one_message_in_all_functions(routing, nearest):
    step = {"batch": 4, "routing": routing}
    said = set()
    for call in (
        lambda: parse_routing(routing),
        lambda: decode_floor("llama-3-8b", "h100-sxm", **step),
        lambda: decode_estimate("mixtral-8x7b", "h100-sxm", **step),
        lambda: sweep("mixtral-8x7b", "h100-sxm", **step),
        lambda: experts_floor(4, "h100-sxm", **ONE, routing=routing),
    ):
        with pytest.raises(InvalidValueError) as error:
            call()
        said.add(str(error.value))
    (words,) = said
    assert words.startswith(f"routing is {routing!r}; it must be 'uniform', 'best'")
    assert words.endswith(f"; nearest: {nearest}.")
    shell = invoke("floor", "mixtral-8x7b", "h100-sxm", f"--routing={routing}")
    assert shell.exit_code == 2
    assert words in shell.output


@pytest.mark.parametrize("routing", [None, object(), {"uniform": 1}, ["uniform"]])
def test_invalid_routing_raises(routing):
    with pytest.raises(InvalidValueError, match=r"routing is .* it must be"):
        decode_floor("llama-3-8b", "h100-sxm", routing=routing)


def test_popularities_do_not_say_which_device_is_busiest():
    with pytest.raises(InvalidValueError, match="power law"):
        decode_floor("mixtral-8x7b", "h100-sxm", routing=[0.125] * 8, expert_parallel=2, tensor_parallel=2)


# --- popularity, against closed forms ---


@pytest.mark.parametrize("exponent", [0.5, 1, 1.2, 2, 7])
def test_popularities_are_quantiles_of_the_density(exponent):
    expected = np.array(quantiles(exponent, 64)) / sum(quantiles(exponent, 64))
    assert busiest_popularity(exponent, count=64, visits=1) == pytest.approx(expected, rel=1e-12)
    assert busiest_popularity(exponent, count=64, visits=2, ranks=64) == pytest.approx([2 * expected[-1]], rel=1e-12)  # one each


def test_power_law_exponent_is_continuous_at_one():
    around = [busiest_popularity(1 + d, count=32, visits=4) for d in (-1e-9, 0, 1e-9)]
    for near in (around[0], around[2]):
        assert near == pytest.approx(around[1], rel=1e-7)


@pytest.mark.parametrize("exponent", [0, 1e6])
def test_equal_popularities_are_balanced(exponent):
    popularity = busiest_popularity(exponent, count=256, visits=8, ranks=8)
    assert popularity == pytest.approx([8 / 256] * 32, rel=1e-4)
    tokens = np.array([4, 32, 64, 1024])  # where balanced visits divide over the devices
    visits, touched = busiest_rank(tokens, count=256, top_k=8, ranks=8)
    assert tokens * sum(popularity) == pytest.approx(visits, rel=1e-4)
    assert shared_experts(tokens, popularity) == pytest.approx(touched, rel=1e-4)


def test_a_token_that_visits_all_experts_knows_no_popularity():
    for ranks in (1, 2, 8):
        assert busiest_popularity(1.2, count=8, visits=8, ranks=ranks) == pytest.approx([1] * (8 // ranks), abs=1e-12)


def test_the_busiest_device_is_the_average_over_all_placements():
    for exponent, count, ranks in ((1.2, 6, 2), (1.01, 6, 3), (2, 7, 7), (0.5, 8, 2)):
        popularity = np.array(quantiles(exponent, count)) / sum(quantiles(exponent, count))
        placed = popularity[np.array(list(permutations(range(count))))].reshape(-1, ranks, count // ranks)
        assert sum(busiest_popularity(exponent, count=count, visits=1, ranks=ranks)) == pytest.approx(
            placed.sum(axis=2).max(axis=1).mean(), rel=0.02
        )


def test_experts_that_do_not_divide_leave_the_last_device_fewer():
    popularity = busiest_popularity(1.2, count=10, visits=2, ranks=4)
    assert len(popularity) == 3
    assert sum(popularity) > 2 / 4


# --- what must hold ---


@given(EXPONENTS, LAYERS, RANKS)
def test_the_busiest_device_has_an_average_one_s_visits_at_least(exponent, layer, ranks):
    count, top_k = layer
    popularity = np.array(busiest_popularity(exponent, count=count, visits=top_k, ranks=ranks))
    assert popularity.size == -(-count // ranks)
    assert top_k / ranks * (1 - 1e-12) <= popularity.sum() <= top_k * (1 + 1e-12)
    assert np.all(popularity >= 0)
    assert np.all(popularity <= 1 + 1e-12)
    assert np.all(np.diff(popularity) >= -1e-15)


@given(EXPONENTS, LAYERS, RANKS, st.lists(TOKENS, min_size=1, max_size=20))
def test_experts_touched_grow_to_all_that_there_are_and_arrays_are_scalars(exponent, layer, ranks, tokens):
    popularity = busiest_popularity(exponent, count=layer[0], visits=layer[1], ranks=ranks)
    several = np.sort(np.array(tokens))
    touched = shared_experts(several, popularity)
    assert touched.tolist() == [shared_experts(int(t), popularity) for t in several]
    assert touched == pytest.approx([np.minimum(1, t * np.array(popularity)).sum() for t in several], rel=1e-12)
    assert np.all(np.diff(touched) >= -1e-12 * touched[-1])
    assert np.all(touched <= len(popularity) * (1 + 1e-12))


DEGREES = st.sampled_from(
    [
        {},
        {"tensor_parallel": 2},
        {"tensor_parallel": 4, "expert_parallel": 4},
        {"tensor_parallel": 2, "data_parallel": 4, "expert_parallel": 8},
        {"data_parallel": 8, "expert_parallel": 8},
    ]
)


@settings(max_examples=40, deadline=None)
@given(EXPONENTS, DEGREES, st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 4000))
def test_floors_under_a_power_law(exponent, degrees, batch, more, context):
    """Never below the floor of the best routing, never lower with more sequences, the same in an array, in the estimate too."""
    given = {"model": "qwen3-30b-a3b", "hardware": "h100-sxm", "context": context} | degrees
    law, best = f"power_law_{exponent}", decode_floor(**given, batch=batch, routing="best")
    assert decode_floor(**given, batch=batch, routing="uniform").time_s >= best.time_s * (1 - 1e-12)
    one, other = (decode_floor(**given, batch=b, routing=law) for b in (batch, batch + more))
    both = decode_floor(**given, batch=np.array([batch, batch + more]), routing=law)
    for name in ("time_s", "memory_s", "compute_s", "network_s", "flops", "weight_bytes", "link_bytes"):
        low, mine, high = (getattr(floor, name) for floor in (best, one, other))
        assert low <= mine * (1 + 1e-9), name
        assert mine <= high * (1 + 1e-9), name
        assert getattr(both, name) == pytest.approx([mine, high], rel=1e-12), name
    estimate = decode_estimate(**given, batch=batch, routing=law, calibration="generic")
    assert estimate.time_s >= one.time_s


# --- steps ---

SHARED = {"tensor_parallel": 2, "data_parallel": 4, "expert_parallel": 8}


def mixtures(routing, parallel):
    """The products of the first mixture of a model: FLOP, weights touched, and the traffic of its tokens."""
    work = forward(Model.load("qwen3-30b-a3b"), Step.decode(batch=256), routing=routing, parallel=parallel)
    return {op.name.removeprefix("mlp.experts."): op for op in work.ops if op.name.startswith("mlp.experts.")}


def test_a_device_counts_its_own_visits_experts_and_traffic():
    even, skewed = (mixtures(routing, Parallel(tensor=2, data=4, expert=8)) for routing in ("uniform", "power_law_1.2"))
    popularity = busiest_popularity(1.2, count=128, visits=8, ranks=8)
    share = sum(popularity) / 8
    for name in ("gate_up_proj", "down_proj"):
        assert skewed[name].flops == pytest.approx(even[name].flops * 8 * share, rel=1e-12)
        touched = distinct_experts(256, count=16, top_k=1)  # of uniform routing
        assert skewed[name].weight_bytes / shared_experts(256, popularity) == pytest.approx(even[name].weight_bytes / touched, rel=1e-12)
        assert skewed[name].rows == even[name].rows  # the traffic of a kernel over all devices' visits
    for name in ("dispatch", "combine"):
        ratio = (1 - (1 - share) ** 8) / (1 - (1 - 1 / 8) ** 8)
        assert skewed[name].link_bytes == pytest.approx(even[name].link_bytes * ratio, rel=1e-12)
        assert ratio > 1


def test_equal_popularities_are_uniform_routing_where_all_experts_are_touched():
    even, equal = (decode_floor("qwen3-30b-a3b", "h100-sxm", batch=65536, routing=r, **SHARED) for r in ("uniform", "power_law_0"))
    for name in ("time_s", "flops", "weight_bytes", "link_bytes"):
        assert getattr(equal, name) == pytest.approx(getattr(even, name), rel=1e-9)


def test_on_one_device_a_power_law_changes_the_experts_touched_only():
    even, skewed = (mixtures(routing, Parallel()) for routing in ("uniform", "power_law_1.2"))
    assert {name: op.flops for name, op in even.items()} == {name: op.flops for name, op in skewed.items()}
    popularity = busiest_popularity(1.2, count=128, visits=8)
    assert distinct_experts(256, count=128, top_k=8, routing=PowerLaw(1.2)) == shared_experts(256, popularity)
    assert skewed["down_proj"].weight_bytes < even["down_proj"].weight_bytes


def test_the_busiest_device_of_a_single_token_is_visited_by_whole_experts():
    step = {"model": "mixtral-8x7b", "hardware": "h100-sxm", "tensor_parallel": 8, "expert_parallel": 8}
    best, law = (decode_floor(**step, routing=routing) for routing in ("best", "power_law_0"))
    assert law.weight_bytes == best.weight_bytes


def test_kernels_take_a_power_law_over_their_own_experts():
    floor = experts_floor(np.array([1, 64]), "h100-sxm", **ONE, routing="power_law_1.2")
    even = experts_floor(np.array([1, 64]), "h100-sxm", **ONE, routing="uniform")
    assert floor.time_s[0] == pytest.approx(even.time_s[0], rel=0.01)
    assert floor.time_s[1] < even.time_s[1]
    assert any("power law of exponent 1.2" in note for note in floor.assumptions)


def test_assumptions_name_average_or_busiest_device():
    def said(routing, **degrees):
        return " ".join(decode_floor("mixtral-8x7b", "h200", batch=8, routing=routing, **degrees).assumptions)

    shared = {"tensor_parallel": 4, "expert_parallel": 4}
    assert "power law of exponent 1.2" in said("power_law_1.2")
    assert "random placements" not in said("power_law_1.2")
    assert "busiest device, averaged over random placements of experts" in said("power_law_1.2", **shared)
    assert "average device" in said("uniform", **shared)
    assert "average device" not in said("uniform")
    assert "power law" not in said("best", **shared)


def test_steps_sweeps_and_estimates_take_a_power_law():
    law = {"routing": "power_law_1.2", "expert_parallel": 4}
    one = decode_floor("mixtral-8x7b", "h100-sxm", batch=64, context=1000, tensor_parallel=4, **law)
    grid = sweep("mixtral-8x7b", "h100-sxm", batch=[1, 64], context=[0, 1000], tensor_parallel=4, **law)
    assert grid.time_s[0, 0, 1, 1] == one.time_s
    assert step_floor("mixtral-8x7b", "h100-sxm", Step.decode(batch=64, context=1000), tensor_parallel=4, **law).time_s == one.time_s
    even, skewed = (
        prefill_estimate("mixtral-8x7b", "h100-sxm", prompt=8192, tensor_parallel=4, **(law | {"routing": routing})).time_s
        for routing in ("uniform", "power_law_1.2")
    )
    assert skewed > 1.2 * even  # all products of the mixture wait for the busiest device


# --- measured kernels ---


COLUMNS = ("num_tokens", "topk", "num_experts", "moe_ep_size", "distribution")


@pytest.fixture(scope="module")
def table():
    """Mixtures of vLLM on an H100: columns by name."""
    pytest.importorskip("pyarrow", reason="pyarrow reads the kernel tables")
    parquet = pytest.importorskip("pyarrow.parquet")
    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the kernel tables are in the package aiconfigurator-core")
    read = parquet.read_table(Path(spec.submodule_search_locations[0], "systems/data/h100_sxm/moe/vllm/0.24.0/moe_perf.parquet"))
    return {name: np.array(read[name].to_pylist()) for name in read.column_names}


def loads(tokens, top_k, count, ranks, label):
    """Visits and experts touched of the busiest device: as they were measured, by the label as a routing, and under uniform routing."""
    balanced = label == "balanced"
    exponent = 0.0 if balanced else parse_routing(label).exponent
    measured = busiest_rank(tokens, count=count, top_k=top_k, ranks=ranks, exponent=exponent)
    popularity = busiest_popularity(exponent, count=count, visits=top_k, ranks=ranks)
    law = tokens * sum(popularity), shared_experts(tokens, popularity, least=math.ceil(top_k / ranks))
    uniform = tokens * top_k / ranks, distinct_experts(tokens, count=count // ranks, top_k=top_k / ranks)
    return np.array([measured, measured if balanced else law, uniform], dtype=float)


def test_measured_kernels_had_the_visits_and_experts_of_their_label(table):
    distinct = sorted({row for row in zip(*(table[name].tolist() for name in COLUMNS), strict=True) if row[-1] != "balanced"})
    measured, law, uniform = np.stack([loads(*row) for row in distinct[::5]], axis=1)
    assert len(measured) > 500
    assert np.median(law / measured, axis=0) == pytest.approx(1, abs=0.05)
    off, uniform_off = (np.abs(np.log(these / measured)).mean(axis=0) for these in (law, uniform))
    assert np.all(off < uniform_off / 2)


def test_measured_times_are_met_better_by_their_label_than_by_uniform_routing(table):
    plain = {(1856, 6, 128), (2688, 22, 512), (5120, 22, 512)}  # Nemotron 3: experts of two matrices
    family, machine, bf16 = FAMILIES["experts"], Hardware.load("h100-sxm"), Format.load("bf16")
    rates = {"peak_flops_per_s": machine.peak("bf16").value, "bandwidth": machine.memory_bandwidth}
    chosen = np.random.default_rng(3).permutation(np.flatnonzero(table["moe_dtype"] == "bfloat16"))[:2000]
    features = ([], [], [])
    for i in chosen:
        hidden, wide, top_k, count, tp, ep = (
            int(table[n][i]) for n in ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
        )
        sizes = {"hidden": hidden, "intermediate": wide // tp, "count": count // ep, "gated": (wide, top_k, count) not in plain}
        formats = {"weights": bf16, "activations": bf16, "stream": bf16}
        tokens = int(table["num_tokens"][i])
        for found, (visits, touched) in zip(features, loads(tokens, top_k, count, ep, table["distribution"][i]), strict=True):
            op = fused_experts("experts", visits=visits, touched=touched, **sizes, **formats, ranks=ep, routed=tokens * top_k)
            found.append(family.features(op))
    measured, law, uniform = ({name: np.array([float(row[name]) for row in rows]) for name in rows[0]} for rows in features)
    seconds = table["latency"][chosen] * 1e-3
    fitted = fit_family(family, {name: column[:500] for name, column in measured.items()}, seconds[:500], **rates)
    constants = {name: value[0] for name, value in fitted.constants.items()}
    held = np.flatnonzero(table["distribution"][chosen] != "balanced")
    held = held[held >= 500]
    error, uniform_error = (np.median(np.abs(family.seconds(x, constants, **rates) / seconds - 1)[held]) for x in (law, uniform))
    assert error < 0.1
    assert error < 0.9 * uniform_error
