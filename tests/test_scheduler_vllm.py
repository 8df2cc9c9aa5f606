"""vLLM's scheduler against the engine's own traces, against a slow literal reference, and against what its rules promise."""

import gzip
import itertools
import json
from collections import Counter
from math import inf

import numpy as np
import pytest

from reference_vllm import Engine, Request, load_of, simulate
from roofline.errors import InvalidValueError
from roofline.requests import Workload
from roofline.serving.rules import Rules
from roofline.serving.schedulers import Ranks, VllmScheduler
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.ranks import by_load
from roofline.serving.simulation.replica import Replica
from roofline.serving.steps.load import Load


def workload(requests, **options):
    prompt, output, arrival_s = zip(*requests, strict=True)
    return Workload(np.array(prompt), np.array(output), np.array(arrival_s, float), **options)


def served(work, rules, seconds, *, logged=True, **options):
    """Return the books, the scheduler and the steps of a workload that one replica serves."""
    ledger = Ledger(work)
    scheduler = VllmScheduler(rules, ledger, **options)
    log = [] if logged else None
    replica = Replica(scheduler, seconds, log=log)
    for request, at_s in enumerate(work.arrival_s.tolist()):
        replica.advance(at_s)
        replica.add(request, at_s)
    replica.advance(inf)
    return ledger, scheduler, log


# the engine's own traces


@pytest.fixture(scope="session")
def traces(repository):
    return json.loads(gzip.decompress((repository / "tests" / "data" / "scheduler" / "vllm_0.33.0_traces.json.gz").read_bytes()))["cases"]


def traced(case):
    """Return a case's workload and rules; its step time is 0.008 + 2e-5 of each token."""
    shared = [
        request["prompt"] if isinstance(request["prompt"], dict) else {"prefix_group": 0, "prefix_len": 0} for request in case["requests"]
    ]
    blocks = tuple(tuple(1000 * of["prefix_group"] + block for block in range(of["prefix_len"] // 16)) for of in shared)
    work = workload([(r["prompt_len"], r["output"], r["arrival"]) for r in case["requests"]], blocks=blocks)
    config = case["config"]
    reserve = "prompt" if config["reserve"] else "chunk"
    limits = config["budget"], config["seqs"], config["blocks"]
    return work, Rules("vllm", *limits, prefix_caching=config["apc"], reserve=reserve, watermark=config["watermark"])


def trace_seconds(load):
    return 0.008 + 2e-5 * (load.decodes + load.tokens)


@pytest.mark.parametrize("logged", [True, False], ids=["step by step", "steps without decisions at once"])
@pytest.mark.parametrize("number", range(16))
def test_the_engine_s_own_traces_are_reproduced(traces, number, logged):
    case = traces[number]
    ledger, scheduler, _ = served(*traced(case), trace_seconds, logged=logged)
    assert len(scheduler.ends) == case["steps"]
    assert sum(ledger.preemptions) == case["preemptions"]
    np.testing.assert_allclose(ledger.first_token_s, case["first_token"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ledger.finish_s, case["finish"], rtol=0, atol=1e-12)
    assert scheduler.used_blocks == 0


@pytest.mark.parametrize("number", range(16))
def test_each_of_the_first_steps_holds_as_many_requests_and_tokens_as_the_engine_s(traces, number):
    case = traces[number]
    *_, log = served(*traced(case), trace_seconds)
    held = [(load.decodes + load.prompts, load.decodes + load.tokens) for *_, load in log]
    assert held[:40] == [(len(step), sum(step.values())) for step, _ in case["first_40_steps"]]


def literal(work, prompts=None, priority=None):
    shapes = zip(work.prompt.tolist(), work.output.tolist(), work.arrival_s.tolist(), strict=True)
    return [
        Request(
            number,
            at,
            prompts[number] if prompts else [(number, i) for i in range(prompt)],
            output,
            16,
            priority[number] if priority else 0,
        )
        for number, (prompt, output, at) in enumerate(shapes)
    ]


@pytest.mark.parametrize("number", range(16))
def test_the_reference_holds_what_the_engine_s_first_steps_do(traces, number):
    case = traces[number]
    work, rules = traced(case)
    prompts = [
        [("group", ids[0] // 1000, i) for i in range(16 * len(ids))] * bool(ids) + [(number, i) for i in range(prompt - 16 * len(ids))]
        for number, (ids, prompt) in enumerate(zip(work.blocks, work.prompt.tolist(), strict=True))
    ]
    requests = literal(work, prompts)
    steps = simulate(rules, requests, lambda load: 0.008 + 2e-5 * (load[0] + load[3]))
    told = [
        [{int(request): tokens for request, tokens in step.items()}, [int(request) for request in stopped]]
        for step, stopped in case["first_40_steps"]
    ]
    assert [[tokens, stopped] for *_, tokens, stopped in steps[:40]] == told
    assert [request.finish for request in requests] == pytest.approx(case["finish"], rel=0, abs=1e-12)


# random workloads against the literal reference


def drawn(seed, drafts=0):
    """Return a random workload, its rules, the contents of its prompts and its priorities; every request fits into the cache alone."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 25))
    caching, chunked = bool(rng.random() < 0.5), bool(rng.random() < 0.85)
    prompts, output = [], rng.integers(1, 70, count).tolist()
    for number in range(count):
        own = [(number, i) for i in range(int(rng.integers(1, 150)))]
        kind = rng.integers(3) if caching else 0
        before = int(rng.integers(number)) if number else 0
        if kind == 1:  # a group's prefix
            own = [("group", int(rng.integers(2)), i) for i in range(int(rng.integers(1, 90)))] + own[:60]
        elif kind == 2 and number:  # a conversation goes on
            own = prompts[before] + [("answer", before, i) for i in range(output[before])] + own[:30]
        prompts.append(own)
    arrival_s = np.cumsum(rng.exponential(rng.choice([0.0, 0.01, 0.1]), count))
    most = max(len(prompt) + tokens for prompt, tokens in zip(prompts, output, strict=True))
    priority = rng.integers(0, 3, count).tolist()
    rules = Rules(
        "vllm",
        step_tokens=int(rng.integers(1, 200)) if chunked else most + int(rng.integers(0, 100)),
        sequences=int(rng.integers(1, 17)),
        kv_blocks=-(-(most + 10) // 16) + int(rng.integers(0, 40)),
        prefix_caching=caching,
        reserve=str(rng.choice(["prompt", "chunk"])),
        watermark=float(rng.choice([0.0, 0.1])),
        policy=str(rng.choice(["fcfs", "priority"])),
        chunked=chunked,
        long_prompt_tokens=int(rng.choice([0, 0, 7, 40])),
        drafts=drafts,
        max_model_len=int(rng.choice([0, most, most + 2])),
    )
    ids = {}
    texts = [prompt + [("answer", number, i) for i in range(output[number])] for number, prompt in enumerate(prompts)]
    blocks = tuple(tuple(ids.setdefault(tuple(text[:end]), len(ids)) for end in range(16, len(text) + 1, 16)) for text in texts)
    if rng.random() < 0.7:  # what only one request has needs no name
        uses = Counter(of for named in blocks for of in named)
        blocks = tuple(tuple(of for of in named if uses[of] > 1) for named in blocks)
    shapes = zip(map(len, prompts), output, arrival_s.tolist(), strict=True)
    return workload(list(shapes), blocks=blocks, priority=np.array(priority)), rules, prompts, priority


@pytest.mark.parametrize("seed", [*range(25), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(25, 200))])
@pytest.mark.parametrize("accepted", [(), (0.9, 0.5, 0.2)], ids=["no drafts", "drafts"])
def test_random_workloads_run_as_in_the_literal_reference(seed, accepted):
    work, rules, prompts, priority = drawn(seed, len(accepted))
    requests = literal(work, prompts, priority)
    told = simulate(rules, requests, lambda load: 0.01 + 1e-4 * (load[0] + load[3]) + 1e-7 * load[1], accepted, seed)

    def seconds(load):
        return 0.01 + 1e-4 * (load.decodes + load.tokens) + 1e-7 * load.context

    ledger, scheduler, log = served(work, rules, seconds, accepted=accepted, seed=seed)
    assert [(begin, end, tuple(load)) for begin, end, load in log] == [step[:3] for step in told]
    times = ledger.times(work)
    assert [list(of) for of in times.token_s] == [request.times for request in requests]
    assert ledger.preemptions == [request.preemptions for request in requests]
    assert list(ledger.start_s) == [request.start for request in requests]
    assert ledger.cached == [request.cached for request in requests]
    assert list(ledger.finish_s) == [request.finish for request in requests]
    assert (scheduler.used_blocks, scheduler.waiting, scheduler.running) == (0, 0, 0)
    at_once, *_ = served(work, rules, seconds, logged=False, accepted=accepted, seed=seed)
    assert at_once.finish_s == ledger.finish_s
    assert at_once.times(work).first_token_s.tolist() == times.first_token_s.tolist()


# single cases: the first five were run on the engine's own scheduler (0.33.0)


def steps_of(requests, rules, **options):
    """Return of each step how many answers go on, how many prompts have a part in it, and their tokens; and the books."""
    ledger, _, log = served(workload(requests, **options), rules, trace_seconds)
    return [(load.decodes, load.prompts, load.tokens) for *_, load in log], ledger


def test_a_prompt_in_chunks_leaves_the_rest_of_a_step_to_others():
    steps, _ = steps_of([(250, 3, 0), (30, 3, 0), (10, 2, 0)], Rules("vllm", 100, 256, 100))
    assert steps == [(0, 1, 100), (0, 1, 100), (0, 3, 90), (3, 0, 0), (2, 0, 0)]


def test_the_request_that_began_last_is_stopped_when_blocks_run_short():
    steps, ledger = steps_of([(64, 40, 0), (64, 40, 0)], Rules("vllm", 512, 256, 10))
    assert steps[:18] == [(0, 2, 128), *[(2, 0, 0)] * 16, (1, 0, 0)]
    assert (len(steps), ledger.preemptions) == (63, [0, 1])


def test_a_request_whose_prompt_would_not_fit_waits():
    steps, ledger = steps_of([(100, 4, 0), (100, 4, 0)], Rules("vllm", 48, 256, 10))
    assert (len(steps), ledger.preemptions) == (12, [0, 0])
    assert ledger.start_s[1] == ledger.finish_s[0]


def test_a_request_that_begins_with_its_first_chunk_may_be_stopped_again_and_again():
    steps, ledger = steps_of([(100, 4, 0), (100, 4, 0)], Rules("vllm", 48, 256, 10, reserve="chunk"))
    assert steps[:7] == [(0, 1, 48), (0, 1, 48), (0, 2, 48), (1, 0, 0), (1, 1, 47), (1, 0, 0), (0, 1, 48)]
    assert (len(steps), ledger.preemptions) == (12, [0, 2])


def test_a_prompt_that_the_cache_has_whole_is_computed_again_from_its_last_block():
    blocks = ((0, 1, 2, 3),) * 3
    steps, ledger = steps_of([(64, 1, 0), (64, 1, 1), (74, 1, 2)], Rules("vllm", 512, 256, 100, prefix_caching=True), blocks=blocks)
    assert steps == [(0, 1, 64), (0, 1, 16), (0, 1, 10)]
    assert ledger.cached == [0, 48, 64]


def test_one_request_takes_its_prefill_and_a_step_for_every_further_token():
    ledger, *_ = served(workload([(100, 10, 0)]), Rules("vllm", 8192, 256, 100), lambda load: 0.020 if load.prompts else 0.008)
    assert ledger.first_token_s[0] == pytest.approx(0.020, rel=1e-12)
    assert ledger.finish_s[0] == pytest.approx(0.092, rel=1e-12)


def test_a_long_prompt_alone_is_not_cut():
    rules = Rules("vllm", 512, 256, 100, long_prompt_tokens=100)
    assert steps_of([(300, 1, 0)], rules)[0] == [(0, 1, 300)]
    assert steps_of([(300, 1, 0), (50, 1, 0)], rules)[0] == [(0, 2, 150), (0, 1, 200)]


def test_the_least_important_request_is_stopped_and_gives_its_tokens_back():
    """The first is in this step already when the second needs a block: it is taken out again, and the second goes on alone."""
    rules = Rules("vllm", 512, 256, 4, policy="priority")
    steps, ledger = steps_of([(20, 20, 0), (31, 20, 0)], rules, priority=np.array([1, 0]))
    assert steps[:3] == [(0, 2, 51), (2, 0, 0), (1, 0, 0)]
    assert ledger.preemptions == [1, 0]
    assert ledger.finish_s[1] < ledger.finish_s[0]


def test_a_more_important_request_is_first_of_those_that_wait():
    _, ledger = steps_of([(10, 5, 0), (10, 5, 0), (10, 5, 0)], Rules("vllm", 512, 1, 100, policy="priority"), priority=np.array([2, 1, 0]))
    assert np.argsort(ledger.start_s).tolist() == [2, 1, 0]


def test_an_answer_is_found_by_the_next_turn():
    """Of 16 + 17 tokens the last is never in the cache: two full blocks, the second of which holds only the answer."""
    blocks = ((0, 1), (0, 1, 2))
    _, ledger = steps_of([(16, 17, 0), (48, 1, 10)], Rules("vllm", 512, 256, 100, prefix_caching=True), blocks=blocks)
    assert ledger.cached == [0, 32]


def test_a_block_that_nobody_has_used_for_longest_is_lost_first_and_the_end_of_a_prefix_before_its_beginning():
    """In six blocks the fourth request finds its prefix and takes one more block: the last one of the second request's prefix."""
    blocks = ((0, 1), (2, 3), (4, 5), (0, 1, 6), (2, 3, 7))
    requests = [(32, 1, 0), (32, 1, 1), (32, 1, 2), (48, 1, 3), (48, 1, 4)]
    _, ledger = steps_of(requests, Rules("vllm", 512, 256, 4, prefix_caching=True), blocks=blocks)
    assert ledger.cached == [0, 0, 0, 0, 0]
    _, ledger = steps_of(requests, Rules("vllm", 512, 256, 6, prefix_caching=True), blocks=blocks)
    assert ledger.cached == [0, 0, 0, 32, 16]


def test_a_request_whose_cache_comes_with_it_begins_with_its_second_token():
    ledger = Ledger(workload([(100, 4, 0)]))
    ledger.sent_s[0], ledger.first_token_s[0] = 0.0, 0.5
    scheduler = VllmScheduler(Rules("vllm", 512, 256, 100), ledger)
    log = []
    replica = Replica(scheduler, lambda load: 0.008, log=log)
    replica.add(0, 1.0, held=100)
    assert replica.advance(inf) == [0]
    assert [(load.decodes, load.prompts, load.tokens, load.pairs) for *_, load in log] == [(0, 1, 1, 101), (1, 0, 0, 0), (1, 0, 0, 0)]
    assert (list(ledger.first_token_s), len(ledger.times(workload([(100, 4, 0)])).token_s[0])) == ([0.5], 3)


def test_a_request_that_only_needs_its_first_token_here_ends_with_it():
    ledger = Ledger(workload([(100, 4, 0)]))
    replica = Replica(VllmScheduler(Rules("vllm", 64, 256, 100), ledger), lambda load: 0.02)
    replica.add(0, 1.0, tokens=1)
    assert replica.advance(inf) == [0]
    assert list(ledger.first_token_s) == list(ledger.finish_s) == [1.04]


def test_all_drafts_accepted_or_none():
    rules = Rules("vllm", 512, 256, 100, drafts=3)
    for accepted, steps in (((1.0, 1.0, 1.0), 4), ((0.0, 0.0, 0.0), 13)):
        ledger, scheduler, _ = served(workload([(10, 13, 0)]), rules, trace_seconds, accepted=accepted)
        assert len(scheduler.ends) == steps
        assert len(ledger.times(workload([(10, 13, 0)])).token_s[0]) == 13


def test_drafts_are_accepted_as_often_as_told():
    """1 + 0.8 + 0.5 tokens a step."""
    rules = Rules("vllm", 512, 256, 10_000, drafts=2)
    _, scheduler, _ = served(workload([(10, 20_000, 0)]), rules, lambda load: 0.01, accepted=(0.8, 0.5))
    assert 20_000 / len(scheduler.ends) == pytest.approx(2.3, rel=0.02)


@pytest.mark.parametrize(
    ("request_", "rules", "said"),
    [
        ((100, 61, 0), Rules("vllm", 512, 256, 9), "never fits into 9 blocks of 16 tokens"),
        ((100, 61, 0), Rules("vllm", 128, 256, 100, chunked=False), "never fits into a step of 128"),
        ((100, 61, 0), Rules("vllm", 512, 256, 100, max_model_len=160), "max_model_len is 160"),
    ],
)
def test_a_request_that_never_fits_is_refused(request_, rules, said):
    with pytest.raises(InvalidValueError, match=said):
        served(workload([request_]), rules, trace_seconds)


def test_a_request_without_a_token_to_come_is_refused():
    scheduler = VllmScheduler(Rules("vllm", 512, 256, 100), Ledger(workload([(100, 1, 0)])))
    with pytest.raises(InvalidValueError, match="no other one is asked for"):
        scheduler.add(0, held=100)


def test_a_request_that_just_fits_is_served():
    for rules in (Rules("vllm", 512, 256, 10), Rules("vllm", 160, 256, 10, chunked=False), Rules("vllm", 512, 256, 10, max_model_len=161)):
        ledger, *_ = served(workload([(100, 61, 0)]), rules, trace_seconds)
        assert ledger.finish_s[0] > 0


@pytest.mark.parametrize(
    ("rules", "accepted", "said"),
    [
        (Rules("vllm", 512, 256, 100, reserve="whole"), (), "reserve is 'whole'"),
        (Rules("vllm", 512, 256, 100, drafts=2), (0.9,), "for each of 2 drafts"),
        (Rules("vllm", 512, 256, 100, drafts=2), (0.5, 0.9), "none larger"),
        (Rules("vllm", 512, 256, 100), (0.9,), "for each of 0 drafts"),
    ],
)
def test_rules_that_the_engine_does_not_have_are_refused(rules, accepted, said):
    with pytest.raises(InvalidValueError, match=said):
        VllmScheduler(rules, Ledger(workload([(1, 1, 0)])), accepted)


# data-parallel ranks


def ranked(work, rules, count, seconds, **options):
    ledger, log = Ledger(work), []
    ranks = Ranks([VllmScheduler(rules, ledger) for _ in range(count)], **options)
    replica = Replica(ranks, seconds, log=log)
    for request, at_s in enumerate(work.arrival_s.tolist()):
        replica.advance(at_s)
        replica.add(request, at_s)
    replica.advance(inf)
    return ledger, ranks, log


FOUR = Rules("vllm", 512, 4, 100)


def test_ranks_step_together_and_wait_for_the_slowest():
    ledger, _, log = ranked(workload([(300, 3, 0), (20, 3, 0)]), FOUR, 2, lambda loads: max(trace_seconds(load) for load in loads))
    assert [[load.decodes + load.tokens for load in loads] for *_, loads in log] == [[300, 20], [1, 1], [1, 1]]
    assert ledger.first_token_s[0] == ledger.first_token_s[1] == trace_seconds(log[0][2][0])


def test_a_rank_with_nothing_to_do_runs_along():
    ledger, ranks, log = ranked(workload([(30, 9, 0), (30, 2, 0)]), FOUR, 3, lambda loads: 0.01 * len(loads))
    assert {len(loads) for *_, loads in log} == {3}
    assert [tuple(map(sum, loads)) for *_, loads in log][-1] == (38, 0, 0)  # one answer that goes on, 37 tokens in the cache
    assert (ranks.waiting, ranks.running, ranks.used_blocks) == (0, 0, 0)
    assert len(ledger.times(workload([(30, 9, 0), (30, 2, 0)])).token_s[0]) == 9


def test_one_rank_is_a_replica():
    work = workload([(200, 30, 0.01 * i) for i in range(30)])
    ledger, *_ = ranked(work, FOUR, 1, lambda loads: trace_seconds(loads[0]))
    alone, *_ = served(work, FOUR, trace_seconds)
    assert (ledger.first_token_s, ledger.finish_s) == (alone.first_token_s, alone.finish_s)


def test_a_burst_spreads_evenly_over_ranks():
    chosen, by = [], by_load()

    def choose(ranks):
        chosen.append(by(ranks))
        return chosen[-1]

    ranked(workload([(20, 5, 0)] * 12), FOUR, 4, lambda loads: 0.01, choose=choose)
    assert np.bincount(chosen).tolist() == [3, 3, 3, 3]


def test_ranks_run_as_engines_that_step_together():
    """Three literal engines in turn, whose steps last as long as the longest of them."""
    rng = np.random.default_rng(0)
    shapes = zip(rng.integers(1, 300, 60).tolist(), rng.integers(1, 90, 60).tolist(), rng.exponential(0.01, 60).cumsum(), strict=True)
    work = workload(list(shapes))
    rules = Rules("vllm", 512, 4, 40)
    engines, requests, now = [Engine(rules) for _ in range(3)], literal(work), 0.0
    coming = list(requests)
    while coming or any(engine.waiting or engine.running for engine in engines):
        if not any(engine.waiting or engine.running for engine in engines):
            now = max(now, coming[0].arrival)
        while coming and coming[0].arrival <= now:
            engines[coming[0].number % 3].waiting.append(coming[0])
            coming.pop(0)
        granted = [engine.schedule(now)[0] for engine in engines]
        now += max(trace_seconds(Load(*load_of(of))) for of in granted)
        for engine, of in zip(engines, granted, strict=True):
            engine.complete(of, now)
    turns = itertools.cycle(range(3))
    ledger, ranks, _ = ranked(work, rules, 3, lambda loads: max(map(trace_seconds, loads)), choose=lambda ranks: next(turns))
    assert list(ledger.finish_s) == [request.finish for request in requests]
    assert [of.tolist() for of in ledger.times(work).token_s] == [request.times for request in requests]
    assert sum(ledger.preemptions) > 0
    assert ranks.held_up["sequences"] > 0
