"""Seconds of steps looked up in tables: what StepTime says of the same step, whatever it holds, and the host's times around it."""

from dataclasses import replace

import numpy as np
import pytest

from roofline import Deployment, InvalidValueError, StepTime, UnknownOptionError
from roofline.engines import load_engine
from roofline.serving import Load, Rules, compile_ranks, compile_steps

pytestmark = pytest.mark.slow

RULES = Rules("vllm", step_tokens=4096, sequences=256, kv_blocks=10_000, prefix_caching=True)
NODES = {
    "dense": Deployment("llama-3-8b", "h100-sxm"),
    "experts": Deployment("mixtral-8x7b", "h100-sxm", tensor_parallel=2),
    "latent": Deployment("deepseek-v3", "h200", tensor_parallel=8, expert_parallel=8),
    "windows": Deployment("gemma-3-27b", "h100-sxm"),
    "state": Deployment("falcon-mamba-7b", "h100-sxm"),
    "both": Deployment("jamba-v0.1", "h200", tensor_parallel=2),
}
every_node = pytest.mark.parametrize("node", NODES.values(), ids=NODES)
bases = pytest.mark.parametrize("basis", ["floor", "roofline", "estimate"])


def load_of(decodes, context, new, cached, sampled):
    """The load of decodes of one context and of prompts, each with new and cached tokens."""
    new, cached = np.asarray(new, dtype=int), np.asarray(cached, dtype=int)
    pairs = int((new * cached + new * (new + 1) // 2).sum())
    return Load(decodes, decodes * context, new.size, int(new.sum()), pairs, int(np.sum(sampled)))


def groups_of(decodes, context, new, cached, sampled):
    """The same as the arguments of StepTime: one step of groups."""
    count = [decodes, *[1] * len(new)]
    return [count], [[1, *new]], [[context, *cached]], [[1, *sampled]]


def random_steps(kind, number=60, seed=7):
    rng = np.random.default_rng(seed)
    for _ in range(number):
        decodes, prompts = int(rng.integers(1, 256)) if rng.random() < 0.85 else 0, int(rng.integers(1, 8))
        if kind == "alone":
            decodes, prompts = max(decodes, 1), 0
        if kind == "one prompt":
            prompts = 1
        new, cached = rng.lognormal(5.5, 1, prompts).astype(int) + 1, np.zeros(prompts, dtype=int)
        if kind == "one prompt":
            cached[0] = int(rng.lognormal(7.5, 1))
        if kind == "prefix hits":
            new[:], cached[:] = new[0], int(rng.lognormal(7.5, 1))
        while new.sum() + decodes > 4096:
            new = np.maximum(1, new // 2)
        yield decodes, int(rng.lognormal(7, 1)) + 1, new.tolist(), cached.tolist(), (rng.random(prompts) < 0.8).astype(int).tolist()


def errors(node, kind, basis="estimate"):
    time = StepTime(node, basis)
    seconds, found = compile_steps(time, RULES), []
    for step in random_steps(kind):
        count, new, cached, sampled = groups_of(*step)
        found.append(seconds(load_of(*step)) / time(count, new, cached, sampled=sampled)[0] - 1)
    return np.abs(found)


@every_node
@bases
def test_decodes_of_one_context_take_what_step_time_says(node, basis):
    assert errors(node, "alone", basis).max() < 1e-3


@every_node
@pytest.mark.parametrize("kind", ["one prompt", "fresh prompts", "prefix hits"])
def test_steps_with_prompts_take_what_step_time_says(node, kind):
    found = errors(node, kind)
    assert np.median(found) < 0.005
    assert found.max() < 0.02


@every_node
@pytest.mark.parametrize("basis", ["floor", "roofline"])
def test_floors_and_roofline_times_of_steps_with_prompts_are_near(node, basis):
    """Their corners lie between the nodes of the tables."""
    found = errors(node, "one prompt", basis)
    assert np.median(found) < 0.005
    assert found.max() < 0.08


@every_node
def test_more_work_never_takes_less_time(node):
    seconds = compile_steps(StepTime(node), RULES)
    for count in (1, 2, 17, 100, 255):
        contexts = [seconds(Load(count, count * context)) for context in (1, 63, 64, 65, 500, 1023, 1024, 1025, 9000, 10**6)]
        assert np.diff(contexts).min() >= -1e-12
    batches = [seconds(Load(count, count * 700)) for count in range(1, 257)]
    prompts = [seconds(load_of(8, 700, [new], [0], [1])) for new in range(1, 4000, 37)]
    assert min(np.diff(batches).min(), np.diff(prompts).min()) >= -1e-12


def test_a_step_without_sequences_takes_no_time():
    assert compile_steps(StepTime(NODES["dense"]), RULES)(Load(0, 0)) == 0.0


@pytest.mark.parametrize("quantile", [0.1, 0.9])
def test_a_quantile_is_that_of_step_time(quantile):
    time = StepTime(NODES["dense"], quantile=quantile)
    seconds = compile_steps(time, RULES)
    for step in [(64, 1000, [], [], []), (10, 3000, [], [], []), (32, 1000, [1500, 700], [0, 0], [1, 1])]:
        count, new, cached, sampled = groups_of(*step)
        assert seconds(load_of(*step)) == pytest.approx(time(count, new, cached, sampled=sampled)[0], rel=0.02)


@pytest.mark.parametrize("factor", [0.0, 3.0])
def test_seconds_replaced_by_a_caller_are_looked_up_too(factor):
    """Where they lie below the floor, the floor."""
    time = StepTime(NODES["dense"], replace={"attention": {0.0: no_time, 3.0: three_times}[factor]})
    seconds = compile_steps(time, RULES)
    for context in (10, 1000, 8000):
        assert seconds(Load(64, 64 * context)) == pytest.approx(float(time.decode(64, 64 * context)), rel=3e-3)


def no_time(features, seconds):
    return np.zeros_like(seconds)


def three_times(features, seconds):
    return 3 * seconds


# -------------------------------------------------------------------------------------------------------- contexts that differ


def test_contexts_that_differ_see_less_of_a_window():
    """Log-normal contexts about 1,600 tokens, many of them shorter than the window of 1,024 that their mean would fill for all."""
    time = StepTime(NODES["windows"])
    contexts = np.random.default_rng(3).lognormal(0, 0.9, (50, 200))
    contexts = np.round(1600 * contexts / contexts.mean(axis=1, keepdims=True))
    spread = float((contexts.std(axis=1) / contexts.mean(axis=1)).mean())
    apart = time(np.ones((50, 200)), 1, contexts).mean()
    alike, known = (compile_steps(time, RULES, spread=value)(Load(200, 200 * 1600)) for value in (0.0, spread))
    assert alike > 1.05 * apart
    assert known == pytest.approx(apart, rel=0.02)
    dense = StepTime(NODES["dense"])  # where only the sum matters
    assert compile_steps(dense, RULES, spread=spread)(Load(64, 64 * 1600)) == compile_steps(dense, RULES)(Load(64, 64 * 1600))


def test_chunked_attention_is_taken_at_all_places_of_its_chunk():
    """On average over a chunk of 8,192 positions; a multiple of it alone would see nothing."""
    time = StepTime(Deployment("llama-4-scout", "h200", tensor_parallel=8))
    seconds, places = compile_steps(time, RULES), np.linspace(-4096, 4096, 65)[:-1]
    for context in (16_384, 20_480, 24_576):
        average = time.decode(np.full(64, 64), 64 * (context + places)).mean()
        assert seconds(Load(64, 64 * context)) == pytest.approx(average, rel=0.015)


# ------------------------------------------------------------------------------------------------------------- host and graphs


def test_what_runs_eagerly_takes_at_least_as_long_as_its_layers_are_launched():
    """DeepSeek-R1 on 8 H200: 3 dense layers and 58 of experts with latent attention. vLLM replays steps with prompts of up to 512 tokens."""
    node = Deployment("deepseek-r1", "h200", tensor_parallel=8)
    host = load_engine("vllm").host
    launch_s = 3 * host.layer_s.dense + 58 * host.layer_s.other_experts
    rules = Rules("vllm", step_tokens=8192, sequences=1024, kv_blocks=10_000, graph_sequences=512)
    seconds = compile_steps(StepTime(node), rules)
    eager, replayed = seconds(load_of(0, 0, [513], [0], [1])), seconds(load_of(0, 0, [512], [0], [1]))
    assert eager == pytest.approx(launch_s + host.step_s + host.sequence_s)
    assert replayed < 0.6 * eager
    beyond, within = seconds(Load(513, 513 * 100)), seconds(Load(512, 512 * 100))  # the largest batch in a graph
    assert beyond == pytest.approx(launch_s + host.step_s + 513 * host.sequence_s)
    assert within < beyond
    drafting = compile_steps(StepTime(node), replace(rules, drafts=1))
    assert drafting(Load(257, 25_700)) == pytest.approx(launch_s + host.step_s + 257 * host.sequence_s)  # vLLM counts rows
    assert drafting(Load(256, 25_600)) < beyond
    assert compile_steps(StepTime(node), replace(rules, graph_sequences=0))(Load(513, 51_300)) == pytest.approx(within, rel=0.02)


def test_without_graphs_every_step_is_launched_kernel_by_kernel():
    time = StepTime(NODES["dense"], cuda_graph=False)
    seconds = compile_steps(time, RULES)
    assert seconds(Load(8, 8000)) == pytest.approx(float(time.decode(8, 8000)), rel=1e-3)


def test_drafts_are_rows_of_every_decode():
    """A verification of three drafts for each of 32 sequences."""
    time = StepTime(NODES["dense"])
    seconds = compile_steps(time, Rules("vllm", step_tokens=4096, sequences=256, kv_blocks=10_000, drafts=3))
    assert seconds(Load(32, 32 * 1000)) == pytest.approx(time([[32]], 4, 1000, sampled=4)[0], rel=0.002)


def test_the_longest_request_bounds_the_tables_and_changes_no_time():
    time = StepTime(NODES["dense"])
    short, long = (compile_steps(time, replace(RULES, max_model_len=longest)) for longest in (5000, 0))
    for load in (Load(64, 64 * 4900), load_of(32, 4900, [300, 2000], [4000, 0], [1, 1])):
        assert short(load) == pytest.approx(long(load), rel=1e-3)


PARALLEL = {
    "modules that draft": Deployment("deepseek-v3", "h200", tensor_parallel=8, mtp=1),
    "stages": Deployment("mixtral-8x7b", "h100-sxm", tensor_parallel=2, pipeline_parallel=2),
    "a divided cache": Deployment("llama-3-70b", "h100-sxm", tensor_parallel=2, context_parallel=2),
    "unequal experts": Deployment("mixtral-8x7b", "h100-sxm", tensor_parallel=2, routing="power_law_1.2"),
}


@bases
@pytest.mark.parametrize("node", PARALLEL.values(), ids=PARALLEL)
def test_whatever_the_deployment_is_divided_by(node, basis):
    rows = 1 + node.mtp
    time = StepTime(node, basis)
    seconds = compile_steps(time, replace(RULES, drafts=node.mtp))
    for decodes, context in ((1, 100), (32, 1000), (200, 5000)):
        alone = time([[decodes]], rows, context, sampled=rows)[0]
        mixed = time([[decodes, 1]], [[rows, 1000]], [[context, 0]], sampled=[[rows, 1]])[0]
        assert seconds(Load(decodes, decodes * context)) == pytest.approx(alone, rel=2e-3)
        assert seconds(load_of(decodes, context, [1000], [0], [1])) == pytest.approx(mixed, rel=2e-3)


def test_larger_steps_than_the_tables_hold_go_on_in_a_straight_line():
    time = StepTime(NODES["dense"])
    seconds = compile_steps(time, Rules("sglang", step_tokens=2048, sequences=64, kv_blocks=10_000))
    step = (0, 0, [4000], [0], [1])
    count, new, cached, sampled = groups_of(*step)
    assert seconds(load_of(*step)) == pytest.approx(time(count, new, cached, sampled=sampled)[0], rel=0.03)


# ----------------------------------------------------------------------------------------------------------------------- ranks

DP = Deployment("deepseek-v3", "h200", data_parallel=8, expert_parallel=8)
LOADS = [(64, 1000, [], [], []), (32, 2000, [700], [300], [1]), (1, 100, [], [], []), (0, 0, [2000], [0], [0])]


@pytest.mark.parametrize("basis", ["floor", "estimate"])
def test_ranks_wait_for_the_slowest_and_experts_serve_all(basis):
    time = StepTime(DP, basis)
    together = compile_ranks(time, RULES)
    ranks = [*LOADS, *LOADS]
    most = 1 + max(len(new) for _, _, new, _, _ in ranks)
    fields = np.zeros((4, 1, 8, most))
    fields[1] = 1
    for rank, step in enumerate(ranks):
        for field, values in zip(fields, groups_of(*step), strict=True):
            field[0, rank, : len(values[0])] = values[0]
    count, new, cached, sampled = fields
    expected = time(count, new, cached, sampled=sampled, ranks=True)[0]
    assert together([load_of(*step) for step in ranks]) == pytest.approx(expected, rel=0.01)


def test_one_load_stands_for_all_ranks():
    time = StepTime(DP)
    load = Load(16, 16_000)
    assert compile_steps(time, RULES)(load) == compile_ranks(time, RULES)([load] * 8)
    assert compile_steps(time, RULES)(load) == pytest.approx(float(time.decode(8 * 16, 8 * 16_000)), rel=1e-3)


def test_a_rank_without_work_waits_for_the_others():
    together = compile_ranks(StepTime(DP), RULES)
    idle, busy = Load(0, 0), Load(16, 16_000)
    assert together([idle] * 8) == 0.0
    assert together([busy, *[idle] * 7]) < together([busy] * 8)


# ----------------------------------------------------------------------------------------------------------------------- input


def test_what_cannot_be_compiled_is_told_in_a_sentence():
    time = StepTime(NODES["dense"])
    with pytest.raises(InvalidValueError, match="time is 7; it is a StepTime"):
        compile_steps(7, RULES)
    with pytest.raises(InvalidValueError, match="rules is 'vllm'; it is what rules_of"):
        compile_steps(time, "vllm")
    with pytest.raises(InvalidValueError, match=r"spread is -1; .* 0 … 10"):
        compile_ranks(time, RULES, spread=-1)
    with pytest.raises(UnknownOptionError, match="compile_steps has no sprea"):
        compile_steps(time, RULES, sprea=1)
