"""The time forms of attention: at no point under the roofline, monotone, found again by a fit, and true to measured kernels."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline import Hardware, Model, Step, attention_floor, latent_attention_floor, ops
from roofline.arithmetic import LinearForm
from roofline.formats import Format
from roofline.forward import forward
from roofline.kernels import FAMILIES

PEAK, BANDWIDTH = 5e14, 2e12
RATES = {"peak_flops_per_s": PEAK, "bandwidth": BANDWIDTH}
BARE = {"peak_flops_per_s": PEAK, "memory_bandwidth": BANDWIDTH}
BF16 = Format.load("bf16")
NAMES = ("attention", "latent_attention")


def usual(family):
    return {c.name: c.start for c in family.constants}


def op_of(family, shape, kv="bf16"):
    """A kernel of either family, as the floors count it."""
    if family.name == "attention":
        return attention_floor(**BARE, **shape, kv=kv).op
    return latent_attention_floor(**BARE, heads=shape["heads"], **{n: shape[n] for n in ("batch", "context", "new")}, kv=kv).op


@st.composite
def shapes(draw):
    kv_heads, group = draw(st.integers(1, 16)), draw(st.integers(1, 16))
    return {
        "heads": kv_heads * group,
        "kv_heads": kv_heads,
        "head_dim": draw(st.sampled_from((1, 32, 64, 128, 192, 256))),
        "batch": draw(st.integers(1, 4096)),
        "context": draw(st.integers(0, 200_000)),
        "new": draw(st.one_of(st.just(1), st.integers(1, 100_000))),
    }


@st.composite
def constants(draw, family):
    """Any constants within their bounds, the ends among them."""
    return {
        c.name: c.least * (c.most / c.least) ** draw(st.floats(0, 1)) if draw(st.booleans()) else draw(st.sampled_from((c.least, c.most)))
        for c in family.constants
    }


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_no_time_is_under_the_roofline(name, data):
    family = FAMILIES[name]
    op = op_of(family, data.draw(shapes()), data.draw(st.sampled_from(("bf16", "fp8"))))
    time = family.seconds(family.features(op), data.draw(constants(family)), **RATES)
    assert time >= max(op.flops / PEAK, (op.compulsory_bytes + op.activation_bytes) / BANDWIDTH) * (1 - 1e-9)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_more_work_never_takes_less_time(name, data):
    family, shape = FAMILIES[name], data.draw(shapes())
    values, grown = data.draw(constants(family)), data.draw(st.sampled_from(("batch", "context", "new")))
    more = shape | {grown: shape[grown] + data.draw(st.integers(1, 10_000))}
    less, longer = (family.seconds(family.features(op_of(family, s)), values, **RATES) for s in (shape, more))
    assert longer >= less * (1 - 1e-12)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_little_more_of_any_amount_takes_at_most_a_little_longer(name, data):
    family, values = FAMILIES[name], data.draw(constants(FAMILIES[name]))
    x = family.features(op_of(family, data.draw(shapes())))
    amount = data.draw(st.sampled_from([n for n in x if n != "width"]))
    time, longer = (family.seconds(x | {amount: x[amount] * by}, values, **RATES) for by in (1, 1 + 1e-3))
    assert time * (1 - 1e-12) <= longer <= time * (1 + 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_mixed_step_takes_longer_than_its_parts_and_less_than_one_kernel_for_each(name):
    family, values = FAMILIES[name], usual(FAMILIES[name])
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128}
    decode = family.features(op_of(family, shape | {"batch": 64, "context": 4000, "new": 1}))
    chunk = family.features(op_of(family, shape | {"batch": 1, "context": 1000, "new": 2000}))
    both = {n: decode[n] if n == "width" else decode[n] + chunk[n] for n in decode}
    alone = [family.seconds(x, values, **RATES) for x in (decode, chunk)]
    together = family.seconds(both, values, **RATES)
    assert max(alone) < together < sum(alone)


BY_HAND = {
    "attention": (
        {"flops": 3, "row_flops": 1, "width": 10, "head_sequences": 16, "ungrouped_sequences": 8},
        {"pad_rows": 0.25, "softmax_width": 10, "head_sequence_s": 3, "double_width": 10, "ungrouped": 0.5},
    ),
    "latent_attention": ({"flops": 6, "absorbed_flops": 10, "sequences": 20}, {"absorbed_share": 0.25, "sequence_s": 3}),
}


@pytest.mark.parametrize("name", NAMES)
def test_seconds_by_hand(name):
    x, c = BY_HAND[name]
    x = x | {"head_rows": 4, "cache_bytes": 2.8, "activation_bytes": 3}
    c = c | {"compute_share": 0.5, "bandwidth_share": 0.4, "fixed_s": 1, "ramp_s": 4, "passes": 2, "head_row_s": 0.5}
    # products of 7 FLOP at half of 1 FLOP/s, and 4 rows of half a second: 16 s, and 8 s until all processors have work;
    # 7 s of reading and 60 s of bookkeeping beside them; 6 s of activations and 1 s besides
    assert 16 + (4 * 16) ** 0.5 == 24
    assert 24**2 + 7**2 + 60**2 == 65**2
    assert FAMILIES[name].seconds(x, c, peak_flops_per_s=1, bandwidth=1) == pytest.approx(65 + 6 + 1)


def test_features_of_grouped_decode_by_hand():
    # 16 sequences, each with one new token after 99, 32 query heads of width 128 share 8 key-value heads, bf16
    x = FAMILIES["attention"].features(
        op_of(FAMILIES["attention"], {"heads": 32, "kv_heads": 8, "head_dim": 128} | {"batch": 16, "context": 99, "new": 1})
    )
    assert x == {
        "flops": 2 * 32 * (128 + 128) * 100 * 16,
        "row_flops": 2 * 8 * (128 + 128) * 100 * 16,
        "width": 128,
        "head_rows": 32 * 16,
        "head_sequences": 8 * 16,
        "ungrouped_sequences": 0,
        "cache_bytes": 99 * 8 * 256 * 2 * 16,
        "activation_bytes": (32 * 128 + 8 * 256 + 32 * 128) * 2 * 16,
    }


def test_heads_that_share_nothing_are_counted_apart():
    shape = {"heads": 32, "kv_heads": 32, "head_dim": 128} | {"batch": 16, "context": 99, "new": 1}
    x = FAMILIES["attention"].features(op_of(FAMILIES["attention"], shape))
    assert (x["head_sequences"], x["ungrouped_sequences"]) == (0, 32 * 16)


def test_absorbing_costs_the_same_in_decode_and_more_in_prefill():
    features = FAMILIES["latent_attention"].features
    decode = features(latent_attention_floor(**BARE, heads=16, batch=8, context=4000).op)
    assert decode["absorbed_flops"] == pytest.approx(decode["flops"])
    prefill = features(latent_attention_floor(**BARE, heads=16, new=4000).op)
    assert prefill["absorbed_flops"] / prefill["flops"] == pytest.approx((2 * 512 + 64) / (128 + 64 + 128))


def test_the_cache_is_what_is_read_and_what_is_written():
    amounts = {"pairs": 5000, "tokens": 40, "read": 300, "written": 40, "kv": Format.load("fp8"), "stream": BF16}
    op = ops.attention("a", **amounts, heads=8, kv_heads=2, qk_dim=96, v_dim=64)
    assert FAMILIES["attention"].features(op)["cache_bytes"] == 2 * (96 + 64) * (300 + 40)
    op = ops.latent_attention("a", flops=0, **amounts, heads=8, rank=512, rope_dim=64, query_dim=192, v_dim=128)
    assert FAMILIES["latent_attention"].features(op)["cache_bytes"] == (512 + 64) * (300 + 40)


def test_features_of_symbols_are_features_of_numbers():
    numbers = {"pairs": 5000, "tokens": 40, "read": 300, "written": 40, "sequences": 3}
    shape = {"heads": 8, "kv_heads": 2, "qk_dim": 96, "v_dim": 64, "kv": Format.load("fp8"), "stream": BF16}
    op = ops.attention("a", **{n: LinearForm.of(n) for n in numbers}, **shape)
    expected = FAMILIES["attention"].features(ops.attention("a", **numbers, **shape))
    for name, form in FAMILIES["attention"].features(op).items():
        assert sum(c * numbers.get(s, 1) for s, c in LinearForm.coerce(form).terms.items()) == pytest.approx(expected[name]), name


@pytest.mark.parametrize("fusion", ["attention", "none"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v3", "deepseek-v3.2", "minimax-m3", "deepseek-v4-flash"])
def test_whatever_reads_a_cache_has_a_form_that_knows_its_sequences(model, fusion):
    work = forward(Model.load(model), Step.decode(batch=5, context=7000), fusion=fusion)
    readers = [op for op in work.ops if op.kv_read_bytes]
    assert readers
    for op in readers:
        family, kernels = FAMILIES[op.family], op.count
        assert (op.rows, op.sequences, op.stored) == (5 * kernels, 5 * kernels, "bf16")
        x = {n: v if n == "width" else v / kernels for n, v in family.features(op).items()}
        time = family.seconds(x, usual(family), **RATES)
        assert time * kernels >= max(op.flops / PEAK, (op.compulsory_bytes + op.activation_bytes) / BANDWIDTH)


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_finds_the_times_of_known_constants_again(name):
    pytest.importorskip("scipy", reason="fitting needs scipy")
    from roofline.fitting.solve import fit_family

    family, rng = FAMILIES[name], np.random.default_rng(7)
    true = {c.name: float(np.clip(c.start * rng.uniform(0.6, 1.6), c.least, c.most)) for c in family.constants}
    columns = []
    for _ in range(400):
        kv_heads, decode = int(rng.choice((1, 2, 4, 8))), bool(rng.integers(2))
        shape = {"heads": kv_heads * int(rng.choice((1, 4, 8))), "kv_heads": kv_heads, "head_dim": int(rng.choice((64, 128, 256)))}
        shape |= {"batch": int(2 ** rng.uniform(0, 9 if decode else 5)), "new": 1 if decode else int(2 ** rng.uniform(4, 14))}
        columns.append(family.features(op_of(family, shape | {"context": int(2 ** rng.uniform(3, 16)) * decode})))
    x = {n: np.array([row[n] for row in columns], dtype=float) for n in columns[0]}
    t = family.seconds(x, true, **RATES)
    fit = fit_family(family, {n: c[:200] for n, c in x.items()}, t[:200], **RATES)
    found = family.seconds({n: c[200:] for n, c in x.items()}, {n: v[0] for n, v in fit.constants.items()}, **RATES)
    assert np.abs(found / t[200:] - 1).max() < 0.01


# --- measured kernels ---


def lanes():
    spec = find_spec("aiconfigurator_core")
    return Path(spec.submodule_search_locations[0], "systems", "data") if spec and spec.submodule_search_locations else None


def measured(gpu, folder, table, engine, stored, **fixed):
    """Features and times of one lane, and what tells its rows apart."""
    pytest.importorskip("pyarrow", reason="pyarrow reads the kernel tables")
    from roofline.kernel_tables import read_table

    data = lanes()
    if data is None:
        pytest.skip("aiconfigurator-core is not installed: a wheel for Linux x86-64 with measured kernels")
    (path,) = data.glob(f"{gpu}/{folder}/{engine}/{table}_perf.parquet")
    columns, seconds = [], []
    for group in read_table(path).where(kv=stored, activations="bf16", **fixed):
        rows = FAMILIES[group.family].features(group.op) | {"rows": group.op.rows, "new": group.sizes["new"]}
        columns.append({n: np.broadcast_to(np.asarray(v, dtype=float), len(group)) for n, v in rows.items()})
        seconds.append(group.seconds)
    return {n: np.concatenate([c[n] for c in columns]) for n in columns[0]}, np.concatenate(seconds)


def held_out(family, gpu, operand, *tables):
    """Deviations of rows that the fit has not seen: of each table 250 random rows are fitted."""
    from roofline.fitting.solve import fit_family

    machine, rng = Hardware.load(gpu), np.random.default_rng(0)
    rates = {"peak_flops_per_s": machine.peak(operand).value, "bandwidth": machine.memory_bandwidth}
    features = [n for n in tables[0][0] if n not in ("rows", "new")]
    # engines decode chunks of a few tokens, whatever the table is called
    fits = [np.flatnonzero((x["new"] > 16) | (x["new"].max() == 1)) for x, _ in tables]
    seen = [rng.choice(places, 250, replace=False) for places in fits]
    x = {n: np.concatenate([c[n][i] for (c, _), i in zip(tables, seen, strict=True)]) for n in features}
    t = np.concatenate([t[i] for (_, t), i in zip(tables, seen, strict=True)])
    constants = {n: v[0] for n, v in fit_family(family, x, t, **rates).constants.items()}
    for (c, t), i in zip(tables, seen, strict=True):
        rest = np.delete(np.arange(t.size), i)
        c = {n: v[rest] for n, v in c.items()}
        yield c, np.abs(family.seconds(c, constants, **rates) / t[rest] - 1)


@pytest.mark.parametrize(
    ("gpu", "machine", "engine", "stored"),
    [
        ("h100_sxm", "h100-sxm", "vllm/0.24.0", "bf16"),
        ("h100_sxm", "h100-sxm", "trtllm/1.3.0rc20", "bf16"),
        ("a100_sxm", "a100-sxm-80gb", "vllm/0.14.0", "bf16"),
    ],
)
def test_attention_is_within_15_percent_of_measured_kernels(gpu, machine, engine, stored):
    pytest.importorskip("scipy", reason="fitting needs scipy")
    decode = measured(gpu, "attention", "generation_attention", engine, stored)
    prefill = measured(gpu, "attention", "context_attention", engine, stored)
    (d, off_decode), (p, off_prefill) = held_out(FAMILIES["attention"], machine, stored, decode, prefill)
    assert off_decode[d["cache_bytes"] >= 1e8].mean() < 0.15
    assert off_prefill[p["rows"] >= 1024].mean() < 0.15


@pytest.mark.parametrize("stored", ["bf16", "fp8"])
def test_latent_decode_is_within_15_percent_of_measured_kernels(stored):
    pytest.importorskip("scipy", reason="fitting needs scipy")
    both = [measured("h100_sxm", "mla", table, "trtllm/1.3.0rc20", stored) for table in ("generation_mla", "context_mla")]
    (_, off_decode), (_, off_prefill) = held_out(FAMILIES["latent_attention"], "h100-sxm", stored, *both)
    assert np.median(off_decode) < 0.15
    assert np.median(off_prefill) < 0.15
