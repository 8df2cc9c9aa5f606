"""Seconds of many steps: the same as of results one by one, empty groups, ranks, hooks, files."""

import json
import pickle

import numpy as np
import pytest

from roofline import (
    Deployment,
    InvalidValueError,
    RooflineError,
    Step,
    StepTime,
    UnknownNameError,
    UnknownOptionError,
    step_estimate,
    step_floor,
)

NODES = {
    "dense": Deployment("llama-3-8b", "h100-sxm"),
    "dense, tp 4, fp8": Deployment("llama-3-70b", "h200", tensor_parallel=4, weights="fp8", kv="fp8"),
    "experts": Deployment("mixtral-8x7b", "h100-sxm", tensor_parallel=2),
    "latent": Deployment("deepseek-v3", "h200", tensor_parallel=8, expert_parallel=8),
    "windows": Deployment("gemma-3-27b", "h100-sxm"),
    "state": Deployment("falcon-mamba-7b", "h100-sxm"),
    "compressed": Deployment("deepseek-v4-flash", "b200", tensor_parallel=4, expert_parallel=4),
}
every_node = pytest.mark.parametrize("node", NODES.values(), ids=NODES)
bases = pytest.mark.parametrize("basis", ["floor", "roofline", "estimate"])

RNG = np.random.default_rng(5)
GROUPS = 5
COUNT = RNG.integers(0, 40, (30, GROUPS))
COUNT[:, 0] += 1  # no step is empty
NEW = np.where(RNG.random((30, GROUPS)) < 0.6, 1, RNG.integers(1, 700, (30, GROUPS)))
CACHED = RNG.integers(0, 9000, (30, GROUPS))
SAMPLED = np.minimum(RNG.integers(0, 2, (30, GROUPS)), NEW)


def one_by_one(row):
    parts = [
        Step.of(count=int(c), new=int(n), cached=int(k), sampled=int(s))
        for c, n, k, s in zip(COUNT[row], NEW[row], CACHED[row], SAMPLED[row], strict=True)
        if c
    ]
    step = parts[0]
    for part in parts[1:]:
        step = step + part
    return step


@every_node
@bases
def test_times_are_those_of_results(node, basis):
    found = StepTime(node, basis)(COUNT, NEW, CACHED, sampled=SAMPLED)
    ask = {"floor": lambda s: step_floor(node, s).time_s, "roofline": lambda s: step_floor(node, s).roofline_s}
    ask["estimate"] = lambda s: step_estimate(node, s).time_s
    assert found.shape == (30,)
    assert found == pytest.approx([ask[basis](one_by_one(row)) for row in range(30)], rel=1e-9)


def test_quantiles_are_the_ends_of_the_interval():
    node, step = NODES["dense"], one_by_one(3)
    estimate = step_estimate(node, step, interval=0.8)
    low, high = (StepTime(node, quantile=q)(COUNT[3:4], NEW[3:4], CACHED[3:4], sampled=SAMPLED[3:4])[0] for q in (0.1, 0.9))
    assert (low, high) == (pytest.approx(estimate.low_s), pytest.approx(estimate.high_s))


@every_node
@bases
def test_empty_groups_change_nothing_and_empty_steps_take_no_time(node, basis):
    time = StepTime(node, basis)
    alone = time([[8]], [[1]], [[1000]])
    padded = time([[8, 0, 0]], [[1, 512, 1]], [[1000, 0, 77]])
    assert padded == pytest.approx(alone, rel=1e-12)
    assert time([[0, 0]], [[1, 512]], [[1000, 0]]).tolist() == [0.0]


@pytest.mark.parametrize("name", ["dense", "experts", "latent"])
@bases
def test_decode_from_the_sum_of_contexts_is_exact_for_causal_attention(name, basis):
    contexts = RNG.integers(1, 20_000, 16)
    time = StepTime(NODES[name], basis)
    each = time(np.ones((1, 16)), 1, contexts[None])
    assert time.decode([16], [contexts.sum()]) == pytest.approx(each, rel=1e-9)


@bases
def test_decode_from_the_sum_of_contexts_is_an_upper_bound_for_windows(basis):
    contexts = np.array([10, 10, 10, 40_000])
    time = StepTime(NODES["windows"], basis)
    assert time.decode([4], [contexts.sum()])[0] >= time(np.ones((1, 4)), 1, contexts[None])[0]


def test_any_shape_of_steps_in_front_of_the_groups():
    time = StepTime(NODES["dense"], "floor")
    flat = time(COUNT, NEW, CACHED)
    assert time(COUNT.reshape(5, 6, GROUPS), NEW.reshape(5, 6, GROUPS), CACHED.reshape(5, 6, GROUPS)) == pytest.approx(flat.reshape(5, 6))
    assert time(COUNT[0], NEW[0], CACHED[0]).shape == ()


# ---------------------------------------------------------------------------------------------------------------------- ranks

DP = Deployment("deepseek-v3", "h200", data_parallel=8, expert_parallel=8)


@bases
def test_one_prompt_on_eight_ranks_is_less_work_for_the_experts_than_eight(basis):
    time = StepTime(DP, basis)
    counts = np.zeros((2, 8, 1))
    counts[0, 0], counts[1] = 1, 1
    one, eight = time(counts, 2048, 0, ranks=True)
    assert one < eight


def test_a_prompt_on_one_rank_beside_decodes_on_seven_by_hand():
    """Either rank reads all 32 experts that it holds; one writes a prompt's entries and reads its rows of the table, one reads 16 caches.

    DeepSeek-V3: 61 layers with entries of 512 + 64 elements of 2 B, rows of 7168 of 2 B; a prompt of 1,024 tokens, contexts of 2,000.
    """
    time, entry, row = StepTime(DP, "floor"), 61 * 576 * 2, 7168 * 2
    counts = np.array([[[1, 0]] + [[0, 0]] * 7, [[1, 0]] + [[0, 16]] * 7])
    alone, mixed = time(counts, [1024, 1], [0, 2000], ranks=True)
    more = (16 * 2001 - 1024) * entry - (1024 - 16) * row
    assert mixed - alone == pytest.approx(more / DP.machine.memory_bandwidth, rel=1e-6)


def test_the_experts_of_every_rank_serve_the_prompt_of_one():
    """Seven ranks with 16 decodes each wait for the rank with the prompt, whose experts serve 1,136 tokens."""
    time = StepTime(DP, calibration="generic")  # without an engine's host, which launches prompts of one rank and of eight alike
    counts = np.array([[[0, 16]] * 8, [[1, 0]] + [[0, 0]] * 7, [[1, 0]] + [[0, 16]] * 7, [[1, 0]] * 8])
    decodes, alone, mixed, eight = time(counts, [1024, 1], [0, 2000], ranks=True)
    assert decodes < alone < mixed < eight
    assert mixed - alone < 0.2 * (eight - alone)  # 112 more tokens for the experts, not 7 · 1,024


@bases
@pytest.mark.parametrize("mtp", [0, 3])
def test_even_ranks_are_what_a_floor_deals_out(basis, mtp):
    time = StepTime(DP.but(mtp=mtp), basis)
    assert time(np.full((1, 8, 1), 4), 1, 1000, ranks=True) == pytest.approx(time([[32]], 1, 1000), rel=1e-9)


@bases
def test_the_slowest_rank_sets_the_time(basis):
    """Batches 1 … 8 on eight ranks take as long as the rank with 8 would beside ranks that share the other 28 tokens evenly."""
    time = StepTime(DP, basis)
    contexts = np.full(8, 30_000.0)
    counts = np.arange(1, 9)
    uneven = time(counts[None, :, None], 1, contexts[None, :, None], ranks=True)
    even = time(np.full((1, 8, 1), 4.5), 1, contexts[None, :, None], ranks=True)
    full = time(np.full((1, 8, 1), 8), 1, contexts[None, :, None], ranks=True)
    assert even < uneven <= full
    assert time(counts[None, ::-1, None], 1, contexts[None, :, None], ranks=True) == pytest.approx(uneven, rel=1e-12)


@bases
def test_several_groups_of_sequences_are_dealt_out_together(basis):
    """Two chunks on two ranks are a chunk each, and no deal of many groups is faster than what is taken for the fullest rank."""
    node = Deployment("llama-3-8b", "h100-sxm", data_parallel=2)
    time = StepTime(node, basis)
    best = time([[[1], [1]]], [[[2000], [2001]]], 0, ranks=True)
    assert time([[1, 1]], [[2000, 2001]], 0)[0] == pytest.approx(best[0], rel=1e-3)
    assert time([[1, 1]], [[2000, 2001]], 0)[0] <= best[0] * (1 + 1e-12)  # a sum in another order


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_floor_is_below_every_deal_of_sequences(ranks):
    node = Deployment("mixtral-8x7b", "h200", data_parallel=ranks, expert_parallel=ranks)
    time, rng = StepTime(node, "floor"), np.random.default_rng(3)
    for _ in range(20):
        groups = int(rng.integers(2, 5))
        count = rng.integers(1, 7, groups)
        new, cached = np.where(rng.random(groups) < 0.5, 1, rng.integers(1, 3000, groups)), rng.integers(0, 50_000, groups)
        deals = [rng.multinomial(c, np.full(ranks, 1 / ranks), 60) for c in count]  # groups × deals × ranks
        dealt = time(np.stack(deals, axis=-1), new, cached, ranks=True)
        assert time(count[None], new[None], cached[None])[0] <= dealt.min() * (1 + 1e-12)


def test_steps_that_fit_when_dealt_out_are_not_said_not_to():
    step = Step.decode(batch=1, context=100_000)
    for i in range(7):
        step = step + Step.decode(batch=1, context=100_001 + i)
    floor = step_floor(Deployment("llama-3.1-8b", "h100-sxm", data_parallel=8), step)
    assert floor.fits
    assert floor.resident_bytes < 30e9


def test_ranks_have_to_be_those_of_the_deployment():
    with pytest.raises(InvalidValueError, match="3 ranks in the arrays, but data_parallel is 8"):
        StepTime(DP)(np.ones((4, 3, 2)), 1, 0, ranks=True)


# -------------------------------------------------------------------------------------------------------------- hooks and files


def twice(features, seconds):
    assert all(value.shape[-1] == seconds.shape[-1] for value in features.values())
    return 2 * seconds


def test_a_family_can_be_replaced():
    node = NODES["dense"]
    plain, slower = StepTime(node), StepTime(node, replace={"attention": twice})
    attention = sum(row.time_s for row in step_estimate(node, one_by_one(2)).by_op() if row.family == "attention")
    added = slower(COUNT[2:3], NEW[2:3], CACHED[2:3], sampled=SAMPLED[2:3]) - plain(COUNT[2:3], NEW[2:3], CACHED[2:3], sampled=SAMPLED[2:3])
    assert added[0] == pytest.approx(attention)


@pytest.mark.parametrize(
    ("basis", "options"),
    [("floor", {}), ("estimate", {"quantile": 0.9}), ("estimate", {"replace": {"attention": twice}, "cuda_graph": False})],
)
def test_pickled_and_back(basis, options):
    if "replace" in options:  # pytest imports this file under a name of its own
        twice.__module__ = __name__
    time = StepTime(NODES["experts"], basis, **options)
    try:
        again = pickle.loads(pickle.dumps(time))
    except (pickle.PicklingError, ModuleNotFoundError):
        pytest.skip("this test module cannot be imported by its name")
    assert np.array_equal(again(COUNT, NEW, CACHED), time(COUNT, NEW, CACHED))


def test_constants_add_their_price_to_every_step():
    """8 decodes at 1000 tokens and two prompts' parts of 512 after 100: 10 sequences, 8000 tokens of cache, 1024 of prompts, by hand."""
    beyond = {"step_s": 1.0, "sequence_s": 10.0, "context_s": 1e-2, "token_s": 1e-1, "pair_s": 1e-3}
    node = Deployment("llama-3-8b", "h100-sxm")
    bare, time = StepTime(node, "floor"), StepTime(node, "floor", beyond=beyond)
    step = ([8, 2], [1, 512], [1000, 100])
    added = 1 + 100 + 80 + 102.4 + 1e-3 * 2 * (512 * 100 + 512 * 513 / 2)
    assert float(time(*step)) - float(bare(*step)) == pytest.approx(added)
    several = time(*(np.stack([np.array(field)] * 2) for field in step), sampled=[[1, 0], [1, 1]])
    assert several - float(bare(*step)) == pytest.approx([added, added], rel=1e-4)
    assert float(time.decode(8, 8000)) - float(bare.decode(8, 8000)) == pytest.approx(1 + 80 + 80)
    assert time.table(batch=[8], context=1000).to_dict()["inputs"]["beyond"] == beyond
    assert float(time([[0]], 1, 1000)[0]) == 0


def test_drafts_that_are_verified_are_decodes():
    node, step = Deployment("llama-3-8b", "h100-sxm"), {"count": [4], "new": [3], "cached": [100]}
    bare, time = StepTime(node, "floor"), StepTime(node, "floor", beyond={"token_s": 1.0})
    assert float(time(**step, sampled=3)) == float(bare(**step, sampled=3))
    assert float(time(**step)) - float(bare(**step)) == pytest.approx(12)


def test_the_rank_with_most_pays_the_constants():
    node = Deployment("llama-3-8b", "h100-sxm", data_parallel=2)
    bare, time = StepTime(node, "floor"), StepTime(node, "floor", beyond={"step_s": 10.0, "sequence_s": 1.0})
    ranks = ([[[1], [3]]], 1, 1000)
    assert float((time(*ranks, ranks=True) - bare(*ranks, ranks=True))[0]) == pytest.approx(13)
    assert float(time([4], 1, 1000) - bare([4], 1, 1000)) == pytest.approx(12)


def test_frozen():
    time = StepTime(NODES["dense"])
    for name in ("basis", "deployment", "quantile", "other"):
        with pytest.raises(AttributeError, match="frozen"):
            setattr(time, name, "floor")


def test_a_table_holds_decode_times():
    time = StepTime(NODES["dense"], quantile=0.9)
    table = time.table(batch=[1, 8, 64], context=[100, 1000])
    assert table.time_s.shape == (3, 2)
    assert table.time_s[1, 1] == pytest.approx(time.decode(8, 8000), rel=1e-12)
    rows = table.to_records()
    assert {"batch": 8, "context": 1000, "time_s": table.time_s[1, 1]}.items() <= rows[3].items()
    assert json.loads(table.to_json())["hardware"] == "h100-sxm"
    assert "3 batches × 2 contexts" in str(table)


def test_ten_thousand_steps_are_one_call():
    count, cached = np.ones((10_000, 3)), RNG.integers(0, 9000, (10_000, 3))
    assert StepTime(NODES["dense"])(count, 1, cached).shape == (10_000,)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: StepTime("llama-3-8b"), InvalidValueError, "of a Deployment"),
        (lambda: StepTime(NODES["dense"], "guess"), InvalidValueError, "basis is 'guess'; it must be one of floor, roofline, estimate"),
        (lambda: StepTime(NODES["dense"], "floor", quantile=0.9), InvalidValueError, "only an estimate"),
        (lambda: StepTime(NODES["dense"], quantile=90), InvalidValueError, "quantile is 90"),
        (lambda: StepTime(NODES["dense"], replace={"atention": twice}), UnknownNameError, "nearest: attention"),
        (lambda: StepTime(Deployment("70B", memory_bandwidth=3e12)), InvalidValueError, "no kernels"),
        (lambda: StepTime(Deployment("llama-3-8b"), "floor"), InvalidValueError, "no machine"),
        (lambda: StepTime(NODES["dense"], interval=0.8), UnknownOptionError, "StepTime has no interval"),
        (lambda: StepTime(NODES["dense"], replace={"attention": 5}), InvalidValueError, "it is a function"),
        (lambda: StepTime(NODES["dense"], replace={"attention": lambda f, s: 1.0}).decode(8, 800), InvalidValueError, "returned 1.0"),
        (lambda: StepTime(NODES["dense"], beyond={"step": 1.0}), UnknownNameError, "constant of a step 'step'.*step_s"),
        (
            lambda: StepTime(NODES["dense"], beyond={"step_s": -1.0}),
            InvalidValueError,
            "step_s'\\] is -1.0; it must be a number of at least 0",
        ),
        (lambda: StepTime(NODES["dense"], beyond=0.003), InvalidValueError, "beyond is 0.003; it is a mapping"),
        (lambda: StepTime(NODES["dense"]).table(batch=[[1]], context=1), InvalidValueError, "one-dimensional"),
        (lambda: StepTime(NODES["dense"]).table(batch=0, context=1), InvalidValueError, "batch is 0"),
        (lambda: StepTime(NODES["dense"])(1, 1, 1), InvalidValueError, "last axis"),
    ],
)
def test_what_cannot_be_asked(make, error, message):
    with pytest.raises(RooflineError, match=message) as caught:
        make()
    assert type(caught.value) is error
