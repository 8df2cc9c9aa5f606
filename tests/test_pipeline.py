"""Steps in the stages of a pipeline: against a slow literal reference, hand-computed examples, and what must be conserved."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import exp, factorial, inf

import numpy as np
import pytest

import reference_pipeline
from roofline import Deployment, Lengths, Workload, serving_estimate, simulate
from roofline.serving.closed_forms.forms import most_of
from roofline.serving.rules import Rules, rules_of
from roofline.serving.schedulers import PipelinedSglang, PipelinedTrtllm, PipelinedVllm
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.simulation.pipelined import PipelinedReplica
from roofline.serving.steps.load import Load
from roofline.serving.steps.seconds import compile_steps
from roofline.serving.steps.stages import compile_stages
from roofline.step_time import StepTime

SCHEDULERS = {"vllm": PipelinedVllm, "sglang": PipelinedSglang, "trtllm": PipelinedTrtllm}


def workload(shapes, **options):
    prompt, output, arrival_s = zip(*shapes, strict=True)
    return Workload(np.array(prompt), np.array(output), np.array(arrival_s, float), **options)


def served(work, rules, seconds, stages):
    """Return the books, the scheduler and the steps of a workload that one replica serves."""
    ledger, log = Ledger(work), []
    scheduler = SCHEDULERS[rules.engine](rules, ledger, stages)
    replica = PipelinedReplica(scheduler, seconds, stages, log=log)
    for request, at_s in enumerate(work.arrival_s.tolist()):
        replica.advance(at_s)
        replica.add(request, at_s)
    replica.advance(inf)
    return ledger, scheduler, log, replica


# vLLM against the literal reference


def drawn(seed):
    """Return a random workload, its rules, the contents of its prompts, its priorities, and stages; every request fits into the cache alone."""
    rng = np.random.default_rng(seed)
    count, caching = int(rng.integers(2, 25)), bool(rng.random() < 0.5)
    prompts = []
    for number in range(count):
        own = [(number, i) for i in range(int(rng.integers(1, 150)))]
        if caching and rng.random() < 0.5:  # a group's prefix
            own = [("group", int(rng.integers(2)), i) for i in range(int(rng.integers(1, 90)))] + own[:60]
        prompts.append(own)
    output = rng.integers(1, 70, count).tolist()
    arrival_s = np.cumsum(rng.exponential(rng.choice([0.0, 0.01, 0.1]), count)).tolist()
    most = max(len(prompt) + tokens for prompt, tokens in zip(prompts, output, strict=True))
    sequences = int(rng.integers(1, 17))
    rules = Rules(
        "vllm",
        step_tokens=int(rng.integers(1, rng.choice([12, 200]))),
        sequences=sequences,
        kv_blocks=-(-(most + 10) // 16) + int(rng.integers(0, 40)),
        prefix_caching=caching,
        reserve=str(rng.choice(["prompt", "chunk"])),
        watermark=float(rng.choice([0.0, 0.1])),
        policy=str(rng.choice(["fcfs", "priority"])),
        long_prompt_tokens=int(rng.choice([0, 0, 7, 40])),
        max_model_len=int(rng.choice([0, most + 2])),
    )
    ids: dict = {}
    blocks = tuple(tuple(ids.setdefault(tuple(prompt[:end]), len(ids)) for end in range(16, len(prompt) + 1, 16)) for prompt in prompts)
    uses = Counter(of for named in blocks for of in named)
    blocks = tuple(tuple(of for of in named if uses[of] > 1) for named in blocks)
    return list(zip(map(len, prompts), output, arrival_s, strict=True)), rules, prompts, rng.integers(0, 3, count).tolist(), blocks


@pytest.mark.parametrize("ahead", [True, False], ids=["asynchronous", "synchronous"])
@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("seed", [*range(25), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(25, 200))])
def test_random_workloads_run_as_in_the_literal_reference(seed, stages, ahead):
    shapes, rules, prompts, priority, blocks = drawn(seed)
    rules = replace(rules, async_scheduling=ahead)

    def seconds(load):
        whole = 0.01 + 1e-4 * (load[0] + load[3]) + 1e-7 * load[1]
        return [whole * share / sum(range(1, stages + 1)) for share in range(1, stages + 1)]

    requests = reference_pipeline.literal(shapes, prompts, priority)
    told = reference_pipeline.simulate(rules, requests, seconds, stages)
    work = workload(shapes, blocks=blocks, priority=np.array(priority))
    ledger, scheduler, log, _ = served(work, rules, seconds, stages)
    assert [(begin, end, tuple(load)) for begin, end, load in log] == told
    times = ledger.times(work)
    assert [list(of) for of in times.token_s] == [request.times for request in requests]
    assert ledger.preemptions == [request.preemptions for request in requests]
    assert list(ledger.start_s) == [request.start for request in requests]
    assert ledger.cached == [request.cached for request in requests]
    assert list(ledger.finish_s) == [request.finish for request in requests]
    assert (scheduler.used_blocks, scheduler.waiting, scheduler.running, scheduler.steps) == (0, 0, 0, len(log))


# by hand


def test_two_sequences_in_two_stages():
    """A prompt takes 4 s in each stage, an answer's step 1 s. Request 0 comes at 0 s, request 1 at 1 s.

    Request 0: its prompt is in the stages at 0 … 4 … 8 s. Request 1 is seen when that has ended, at 8 s, in a step between those of request 0, whose second
    token was decided before: it is in the stages at 8 … 9 … 10 s, the prompt of request 1 at 9 … 13 … 17 s. The third token of request 0 is decided at 8 s too, and the
    first stage takes it when the second token is known and it is free: at 13 s; the second stage is free at 17 s: 18 s. The second of request 1 then: 17 s … 18 s … 19 s.
    """
    rules = Rules("vllm", step_tokens=100, sequences=4, kv_blocks=100)

    def seconds(load):
        return [4.0, 4.0] if load.prompts else [1.0, 1.0]

    ledger, _, log, replica = served(workload([(10, 3, 0.0), (10, 2, 1.0)]), rules, seconds, 2)
    assert [(begin, end) for begin, end, _ in log] == [(0, 8), (8, 10), (9, 17), (13, 18), (17, 19)]
    times = ledger.times(workload([(10, 3, 0.0), (10, 2, 1.0)]))
    assert [list(of) for of in times.token_s] == [[8, 10, 18], [17, 19]]
    assert list(ledger.start_s) == [0, 9]
    assert replica.busy_s == 19


def test_two_sequences_in_two_stages_where_nothing_is_scheduled_ahead():
    """The same; request 1 is seen at 8 s together with request 0, whose token is known then: both are in one step until 16 s, and in one more until 18 s."""
    rules = Rules("vllm", step_tokens=100, sequences=4, kv_blocks=100, async_scheduling=False)
    work = workload([(10, 3, 0.0), (10, 2, 1.0)])
    ledger, _, log, _ = served(work, rules, lambda load: [4.0, 4.0] if load.prompts else [1.0, 1.0], 2)
    assert [(begin, end, load.decodes, load.prompts) for begin, end, load in log] == [(0, 8, 0, 1), (8, 16, 1, 1), (16, 18, 2, 0)]
    assert [list(of) for of in ledger.times(work).token_s] == [[8, 16, 18], [16, 18]]


def test_steps_of_two_sequences_take_turns():
    """Two sequences in lanes of their own: once both decode, each stage always has a step, and a token of either takes the sum of both stages."""
    rules = Rules("vllm", step_tokens=10, sequences=4, kv_blocks=100)
    ledger, *_ = served(workload([(10, 40, 0.0), (10, 40, 0.0)]), rules, lambda load: [1.0, 1.0], 2)
    times = ledger.times(workload([(10, 40, 0.0), (10, 40, 0.0)])).token_s
    assert np.diff(times[0][1:]).tolist() == np.diff(times[1]).tolist()[1:] == [2.0] * 38
    assert times[1][0] - times[0][0] == 1.0


def test_a_cut_prompt_is_in_all_stages_at_a_time():
    """A prompt of three steps of 1 s in each of two stages: the last one ends after 4 s, not after 6 s."""
    for engine in SCHEDULERS:
        rules = Rules(engine, step_tokens=32, sequences=2, kv_blocks=100)
        ledger, _, log, _ = served(workload([(96, 2, 0.0)]), rules, lambda load: [1.0, 1.0], 2)
        assert [(begin, end) for begin, end, _ in log] == [(0, 2), (1, 3), (2, 4), (4, 6)], engine
        assert list(ledger.first_token_s) == [4.0]


def test_in_a_ring_who_comes_alone_joins_the_only_requests_that_run():
    """SGLang and TensorRT-LLM look at the other place when a step begins, and not again before it has ended: nobody gets into it who comes meanwhile."""
    for engine in ("sglang", "trtllm"):
        rules = Rules(engine, step_tokens=64, sequences=8, kv_blocks=100)
        *_, log, _ = served(workload([(16, 20, 0.0), (16, 20, 5.0)]), rules, lambda load: [1.0, 1.0], 2)
        assert max(load.decodes for *_, load in log) == 2, engine
        assert all(before[1] <= after[0] for before, after in pairwise(log)), engine


# what must be conserved


@pytest.mark.parametrize("engine", SCHEDULERS)
@pytest.mark.parametrize("seed", range(8))
def test_tokens_blocks_and_time_are_conserved(engine, seed):
    """Every token is computed, each stage has one step at a time, no more steps than stages overlap, and nothing is left behind."""
    rng = np.random.default_rng(seed)
    stages, count = int(rng.integers(2, 5)), 60
    shapes = list(
        zip(
            rng.integers(1, 300, count).tolist(),
            rng.integers(1, 60, count).tolist(),
            np.cumsum(rng.exponential(0.02, count)).tolist(),
            strict=True,
        )
    )
    tight = {} if engine == "sglang" else {"reserve": "chunk"}
    rules = Rules(engine, step_tokens=128, sequences=16, kv_blocks=60 if seed % 2 else 2000, **tight)
    work = workload(shapes)
    ledger, scheduler, log, replica = served(work, rules, lambda load: [(0.01 + 1e-5 * load.tokens) / stages] * stages, stages)
    times = ledger.times(work)
    assert [len(of) for of in times.token_s] == work.output.tolist()
    assert all(np.all(np.diff(of) > 0) for of in times.token_s)
    assert np.all(times.start_s >= times.sent_s)
    assert (scheduler.used_blocks, scheduler.waiting, scheduler.running) == (0, 0, 0)
    if not sum(ledger.preemptions):
        assert sum(load.tokens for *_, load in log) == work.prompt.sum()
        assert sum(load.decodes for *_, load in log) == (work.output - 1).sum()
    begins, ends = (np.array([step[i] for step in log]) for i in (0, 1))
    assert np.all(np.diff(begins) > 0)
    assert np.all(np.diff(ends) > 0)
    assert np.all(begins[stages:] >= ends[:-stages] - 1e-12)
    assert replica.busy_s <= ends[-1] - begins[0] + 1e-9


def test_a_full_pipeline_serves_as_many_as_stages_say_and_obeys_little():
    """Steps of 1 s in each of four stages, a sequence at a time in each: four sequences of 100 steps in 100 · 4 s, all of them there all the time."""
    rules = Rules("vllm", step_tokens=16, sequences=4, kv_blocks=4000)
    work = workload([(16, 100, 0.0)] * 400)
    ledger, *_ = served(work, rules, lambda load: [1.0] * 4, 4)
    times = ledger.times(work)
    whole = times.finish_s.max()
    rate, stay = len(work) / whole, (times.finish_s - times.start_s).mean()
    assert rate == pytest.approx(4 / 400, rel=0.01)
    assert rate * stay == pytest.approx(4, rel=0.01)  # Little: L = λ W


# deployments


NODES = Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel=4, pipeline_parallel=2)


def test_stages_add_up_to_the_step_and_the_head_is_in_the_last():
    time = StepTime(Deployment("llama-3.1-8b", "h100-sxm", pipeline_parallel=4))
    rules = rules_of(time.deployment)
    whole, stages = compile_steps(time, rules), compile_stages(time, rules)
    for load in (Load(1, 1000), Load(64, 64_000), Load(8, 8000, 2, 2000, 1_001_000, 2)):
        parts = stages(load)
        assert sum(parts) == pytest.approx(whole(load), rel=1e-12)
        assert max(parts) == parts[-1]
    head, layers = 128_256 * 4096 * 2, (8_030_261_248 - 2 * 128_256 * 4096) * 2 / 4  # bytes of Llama 3.1 8B
    first, *_, last = stages(Load(1, 1))
    assert last / first == pytest.approx((layers + head) / layers, rel=0.06)  # reading weights is nearly all of such a step


@pytest.mark.parametrize("engine", SCHEDULERS)
def test_one_request_alone_takes_the_sum_of_the_stages_for_a_token(engine):
    one = Workload(prompt=[1000], output=[50], arrival_s=[0.0])
    alone = simulate(NODES, one, engine=engine).times
    expected = serving_estimate(NODES, prompt=1000, output=50, concurrency=1, engine=engine)
    assert alone.tpot_s[0] == pytest.approx(float(expected.tpot_s), rel=1e-3)
    assert alone.ttft_s[0] == pytest.approx(float(expected.ttft_s), rel=1e-3)


@pytest.mark.parametrize(("prompt", "output", "step_tokens"), [(200, 500, None), (1000, 200, 1024), (1000, 200, None)])
@pytest.mark.parametrize("clients", [64, 256])
def test_closed_forms_answer_as_a_full_pipeline_does(prompt, output, step_tokens, clients):
    lengths = {"prompt": Lengths.lognormal(mean=prompt, cv=0.3), "output": Lengths.lognormal(mean=output, cv=0.3)}
    found = simulate(NODES, Workload.generated(1000, **lengths, clients=clients, seed=1), step_tokens=step_tokens, token_times=False)
    spread = {"prompt_cv": 0.3, "output_cv": 0.3}
    closed = serving_estimate(NODES, prompt=prompt, output=output, **spread, concurrency=clients, step_tokens=step_tokens)
    assert float(closed.tpot_s) == pytest.approx(float(np.nanmean(found.times.tpot_s)), rel=0.08)


@pytest.mark.parametrize("stages", [2, 4])
def test_closed_forms_let_the_steps_of_a_cut_prompt_overlap(stages):
    """A prompt alone in several steps is simulated step by step; before, closed forms added its steps up, 1.3 to 1.7 times as much."""
    node = Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel=4, pipeline_parallel=stages)
    alone = simulate(node, Workload(prompt=[4096], output=[2], arrival_s=[0.0]), step_tokens=1024).times
    closed = serving_estimate(node, prompt=4096, output=2, concurrency=1, step_tokens=1024)
    assert float(closed.ttft_s) == pytest.approx(alone.ttft_s[0], rel=0.01)


@pytest.mark.parametrize(("engine", "most"), [("vllm", 8), ("sglang", 8), ("trtllm", 16)])
def test_the_limit_of_sequences_is_of_all_stages_or_of_each_step(engine, most):
    """vLLM's max_num_seqs and SGLang's max_running_requests are of the engine, TensorRT-LLM's max_batch_size is of a step (model_engine.get_max_num_sequences)."""
    lengths = {"prompt": Lengths.lognormal(mean=200, cv=0.3), "output": Lengths.lognormal(mean=300, cv=0.3)}
    times = simulate(NODES, Workload.generated(400, **lengths, clients=64, seed=1), engine=engine, sequences=8, token_times=False).times
    changes = sorted([(at, 1) for at in times.start_s + 1e-9] + [(at, -1) for at in times.finish_s])
    assert max(np.cumsum([change for _, change in changes])) == most
    closed = serving_estimate(NODES, prompt=200, output=300, prompt_cv=0.3, output_cv=0.3, concurrency=64, engine=engine, sequences=8)
    assert float(closed.running) == pytest.approx(most, rel=0.05)


def test_the_largest_of_several_numbers_at_random():
    """The mean of the larger of two Poisson numbers, summed over all pairs; of one number it is the mean."""
    chance = [exp(-1.5) * 1.5**k / factorial(k) for k in range(40)]
    larger = sum(max(k, m) * p * q for k, p in enumerate(chance) for m, q in enumerate(chance))
    assert most_of(np.array([1.5, 1.5]), np.array([2.0, 1.0])) == pytest.approx([larger, 1.5], rel=1e-9)


def test_parts_of_the_time_to_the_first_token_are_those_of_a_pipeline():
    """Of a prompt in four steps that is alone nothing is left over, although its steps overlap."""
    found = simulate(NODES, Workload(prompt=[4000], output=[2], arrival_s=[0.0]), step_tokens=1024, steps=True)
    parts = found.ttft_parts()
    (log,) = found.runs[0].steps
    steps = [(begin, end) for begin, end, load in log if load.prompts]
    assert len(steps) == 4
    assert parts["prefill_s"][0] == pytest.approx(steps[-1][1] - steps[0][0], rel=1e-12)
    assert parts["prefill_s"][0] < 0.7 * sum(end - begin for begin, end in steps)
    assert parts["interference_s"][0] == pytest.approx(0, abs=1e-12)


def test_drafts_go_through_a_pipeline_one_step_at_a_time():
    found = simulate(NODES, Workload(prompt=[100], output=[10], arrival_s=[0.0]), drafts=2, acceptance=0.5)
    assert any("one step at a time goes through the 2 pipeline stages" in note for note in found.notes)
    assert not any("one step at a time" in note for note in simulate(NODES, Workload(prompt=[100], output=[10], arrival_s=[0.0])).notes)


def test_slices_of_steps_that_overlap_are_in_lanes_of_their_own(tmp_path):
    """Slices of one lane of a Chrome trace must not overlap unless one lies within the other."""
    found = simulate(NODES, Workload.generated(30, prompt=100, output=20, arrivals=50.0, seed=1), steps=True)
    found.to_chrome_trace(tmp_path / "run.json")
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    steps = [event for event in events if event["name"] == "step"]
    assert {event["tid"] for event in steps} == {0, -1}
    for lane in (0, -1):
        slices = [(event["ts"], event["ts"] + event["dur"]) for event in steps if event["tid"] == lane]
        assert all(before[1] <= after[0] + 1e-3 for before, after in pairwise(slices))
