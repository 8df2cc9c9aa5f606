"""Forms of kernel times: what they promise for any constants, that a fit finds constants again, and held-out error on measured collectives."""

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline import Hardware, Model, list_models
from roofline.arithmetic import LinearForm
from roofline.fitting.solve import fit_family
from roofline.formats import Format
from roofline.forward import compile_model
from roofline.kernels import FAMILIES
from roofline.ops import all_reduce, convolution, elementwise, embedding, exchange, linear, norm, send, state_update

BF16, FP32 = Format.load("bf16"), Format.load("fp32")
PEAK, BANDWIDTH = 1e15, 3e12

# feature → least and most, of which the time must never fall as it grows
AMOUNTS = {
    "matmul": {"m": (1, 1e6), "n": (1, 3e5), "k": (1, 3e5), "bytes": (1, 1e12)},
    "rowwise": {"bytes": (1, 1e12)},
    "state": {"flops": (0, 1e15), "state_bytes": (1, 1e12), "row_bytes": (1, 1e12), "excess": (0, 1e6)},
    "all_reduce": {"bytes": (1, 1e12), "ranks": (2, 128)},
    "exchange": {"bytes": (1, 1e12), "ranks": (2, 128)},
    "send": {"bytes": (1, 1e12), "ranks": (2, 128)},
}


# one model of the catalogue for each set of kinds of parts
ONE_OF_EACH = sorted(
    {frozenset(type(p) for g in m.layers for p in (g.mixer, g.feed_forward)): m.name for m in map(Model.load, list_models())}.values()
)


def _beside(name):
    """Return another module of tests, which pytest imports by path."""
    spec = spec_from_file_location(f"beside_{name}", Path(__file__).with_name(f"{name}.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_family_is_in_a_table_of_tests():
    """Those whose amounts are bound to each other are drawn in files of their own, and hold the same there."""
    attention, experts = _beside("test_kernels_attention").NAMES, _beside("test_kernels_experts").FAMILY.name
    assert sorted([*AMOUNTS, *attention, experts]) == sorted(FAMILIES)


def _roofline(name, x):
    flops = {"matmul": lambda: 2 * x["m"] * x["n"] * x["k"], "state": lambda: x["flops"]}.get(name, lambda: 0)()
    moved = x["state_bytes"] + x["row_bytes"] if name == "state" else x["bytes"]
    return max(flops / PEAK, moved / BANDWIDTH)


def _time(name, x, c):
    return float(FAMILIES[name].seconds(x, c, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH))


def _between(least, most):
    return (
        st.floats(0, 1).map(lambda u: least + u * (most - least))
        if least <= 0
        else st.floats(0, 1).map(lambda u: least * (most / least) ** u)
    )


@st.composite
def kernels(draw):
    """Return a family, any constants within their bounds, and sizes."""
    name = draw(st.sampled_from(sorted(AMOUNTS)))
    c = {k.name: draw(_between(k.least, k.most)) for k in FAMILIES[name].constants}
    return name, c, {amount: draw(_between(*ends)) for amount, ends in AMOUNTS[name].items()}


@given(kernels())
def test_no_kernel_is_faster_than_its_roofline(kernel):
    name, c, x = kernel
    assert _time(name, x, c) >= _roofline(name, x) * (1 - 1e-12)


@given(kernels(), st.data())
def test_more_work_never_takes_less_time(kernel, data):
    name, c, x = kernel
    grown = data.draw(st.sampled_from(sorted(x)))
    more = x | {grown: x[grown] * data.draw(st.floats(1, 10))}
    assert _time(name, more, c) >= _time(name, x, c) * (1 - 1e-12)


@given(kernels(), st.data())
def test_a_little_more_work_takes_a_little_more_time(kernel, data):
    name, c, x = kernel
    grown = data.draw(st.sampled_from(sorted(x)))
    more = x | {grown: x[grown] * (1 + 1e-6)}
    # no form grows faster than (nk)^(1+large), its exponent bounded by 3: a jump would be far beyond
    assert _time(name, more, c) <= _time(name, x, c) * (1 + 1e-5)


@given(kernels())
def test_constants_and_sizes_broadcast(kernel):
    name, c, x = kernel
    columns = {k: np.full((3, 1), v) for k, v in c.items()}
    rows = {k: np.full((3, 2), v) for k, v in x.items()}
    times = FAMILIES[name].seconds(rows, columns, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)
    assert times.shape == (3, 2)
    alone = FAMILIES[name].seconds(x, c, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)
    assert isinstance(alone, float)
    assert not isinstance(alone, np.floating)  # a single step's kernels are timed without numpy
    assert np.allclose(times, alone, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(AMOUNTS))
def test_starts_lie_within_their_bounds(name):
    for c in FAMILIES[name].constants:
        assert 0 < c.least < c.start < c.most, c.name


@pytest.mark.parametrize("name", sorted(AMOUNTS))
def test_a_fit_finds_what_the_points_were_made_from(name):
    pytest.importorskip("scipy")
    rng = np.random.default_rng(7)
    ends = AMOUNTS[name] | ({"bytes": (1e3, 1e9), "ranks": (2, 8)} if name in ("all_reduce", "exchange", "send") else {})
    ends |= {"m": (1, 2e4), "n": (1e3, 6e4), "k": (1e3, 6e4)} if name == "matmul" else {}
    x = {a: np.maximum(low, 1) * (high / max(low, 1)) ** rng.random(300) for a, (low, high) in ends.items()}
    if name == "matmul":
        x["bytes"] = 2 * (x["n"] * x["k"] + x["m"] * x["k"] + x["m"] * x["n"])
    # away from the starts, and from the bounds
    true = {c.name: float(np.sqrt(c.start * (1 if c.most == 1 else 2 * c.start))) for c in FAMILIES[name].constants}
    exact = FAMILIES[name].seconds(x, true, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)
    noisy = exact * np.exp(rng.normal(0, 0.02, 300))
    noisy[::50] *= 3  # outliers, which no fit should follow
    fit = fit_family(FAMILIES[name], x, noisy, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)
    found = {k: v for k, (v, _, _) in fit.constants.items()}
    again = FAMILIES[name].seconds(x, found, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)
    assert np.abs(again / exact - 1).mean() < 0.01
    assert found["bandwidth_share"] == pytest.approx(true["bandwidth_share"], rel=0.05)


def test_operators_name_their_kernels():
    bf16, sizes = {"stored": BF16, "stream": BF16}, {"ranks": 8, "domain": 4}
    ops = {
        "matmul": linear("up", 4, inputs=64, outputs=256, weights=BF16, activations=BF16, stream=BF16),
        "rowwise": norm("norm", 4, width=64, parameters=64, **bf16),
        "state": state_update(
            "s", 4, flops=8, sequences=2, continued=2, elements=16, decays=0, state=FP32, operand="bf16", inputs=1, outputs=1, stream=BF16
        ),
        "all_reduce": all_reduce("sum", 4096, **sizes),
        "exchange": exchange("dispatch", 4096, visits=8, **sizes),
        "send": send("next", 4096, outside=False),
    }
    assert {op.family for op in ops.values()} == set(ops)
    for name, op in ops.items():
        assert set(FAMILIES[name].features(op)) == set(AMOUNTS[name])
    assert FAMILIES["state"].features(ops["state"])["excess"] == 4 - 2
    assert FAMILIES["all_reduce"].features(ops["all_reduce"]) == {"bytes": 4096, "ranks": 8}
    others = (
        embedding("embed", 4, width=64, tables=1, **bf16),
        elementwise("add", 4, width=64, inputs=2, flops=1, stream=BF16),
        convolution("conv", 4, read=3, written=3, channels=64, kernel=4, stream=BF16),
    )
    for op in others:
        assert op.family == "rowwise"
        assert op.rows == 4
        assert FAMILIES["rowwise"].features(op)["bytes"] == op.compulsory_bytes + op.activation_bytes
    for nothing in (all_reduce("sum", 4096, ranks=1, domain=8), exchange("dispatch", 4096, ranks=8, visits=0, domain=8)):
        assert nothing.family == ""


def test_only_collectives_run_at_the_rate_of_links():
    assert {name for name, family in FAMILIES.items() if family.roof == "link"} == {"all_reduce", "exchange", "send"}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_operator_of_a_model_is_a_kernel_of_a_known_family_or_nothing(name):
    for op in compile_model(Model.load(name), weights="bf16").ops:
        if op.family:
            assert op.family in FAMILIES, f"{op.name}: no estimate knows a family {op.family!r}"
            features = FAMILIES[op.family].features(op)  # fails where `sizes` lacks one
            assert op.stored, op.name
            assert op.family not in AMOUNTS or set(features) == set(AMOUNTS[op.family]), op.name
        else:  # nothing runs, so that nothing passes through
            amounts = (op.rows, op.flops, op.activation_bytes, op.link_bytes)
            assert not any(LinearForm.coerce(amount).terms for amount in amounts), (
                f"{op.name} has amounts, but no family: estimates lack it"
            )


@pytest.mark.parametrize("lane", [("trtllm", "1.3.0rc20"), ("vllm", "0.24.0"), ("nccl", "2.29.2")], ids="-".join)
def test_all_reduces_of_an_h100_are_predicted_from_every_other_size(lane):
    """The error demanded is 20 %, of engines' kernels in a CUDA graph and of NCCL; measured by the wheel aiconfigurator-core."""
    pytest.importorskip("scipy")
    parquet = pytest.importorskip("pyarrow.parquet")
    found = find_spec("aiconfigurator_core")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the wheel aiconfigurator-core is not installed")
    table = "nccl_perf" if lane[0] == "nccl" else "custom_allreduce_perf"
    path = Path(found.submodule_search_locations[0], "systems", "data", "h100_sxm", "comm", *lane, f"{table}.parquet")
    columns = parquet.read_table(path).to_pydict()
    eager = [str(source).endswith("eager") for source in columns["kernel_source"]]
    wanted = [name == "all_reduce" and not slow for name, slow in zip(columns["op_name"], eager, strict=True)]
    width = [1 if str(label) == "int8" else 2 for label in columns.get("nccl_dtype", columns.get("allreduce_dtype"))]
    size, ranks, ms = (np.array(columns[c], dtype=float)[wanted] for c in ("message_size", "num_gpus", "latency"))
    x = {"bytes": size * np.array(width)[wanted], "ranks": ranks}  # message_size counts elements
    seconds, train = ms * 1e-3, np.lexsort((x["bytes"], ranks))[::2]
    test = np.setdiff1d(np.arange(ms.size), train)
    links = Hardware.load("h100-sxm").link_ceiling.value
    family = FAMILIES["all_reduce"]
    fit = fit_family(family, {k: v[train] for k, v in x.items()}, seconds[train], peak_flops_per_s=1.0, bandwidth=links)
    c = {k: v for k, (v, _, _) in fit.constants.items()}
    estimate = family.seconds({k: v[test] for k, v in x.items()}, c, peak_flops_per_s=1.0, bandwidth=links)
    assert test.size > 30
    assert np.abs(estimate / seconds[test] - 1).mean() <= 0.2
