"""vLLM's scheduler against the engine's own traces, against a slow literal reference, and against what its rules promise."""

import gzip
import json
from collections import Counter
from math import inf

import numpy as np
import pytest

from reference_vllm import Request, simulate
from roofline.requests import Workload
from roofline.serving.ledger import Ledger
from roofline.serving.replica import Replica
from roofline.serving.rules import Rules
from roofline.serving.schedulers import VllmScheduler


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


def drawn(seed, *, drafts=False):
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
    )
    ids = {}
    texts = [prompt + [("answer", number, i) for i in range(output[number])] for number, prompt in enumerate(prompts)]
    blocks = tuple(tuple(ids.setdefault(tuple(text[:end]), len(ids)) for end in range(16, len(text) + 1, 16)) for text in texts)
    if rng.random() < 0.7:  # what only one request has needs no name
        uses = Counter(of for named in blocks for of in named)
        blocks = tuple(tuple(of for of in named if uses[of] > 1) for named in blocks)
    shapes = zip(map(len, prompts), output, arrival_s.tolist(), strict=True)
    return workload(list(shapes), blocks=blocks, priority=np.array(priority)), rules, prompts, priority


@pytest.mark.parametrize("seed", range(200))
@pytest.mark.parametrize("accepted", [(), (0.9, 0.5, 0.2)], ids=["no drafts", "drafts"])
def test_random_workloads_run_as_in_the_literal_reference(seed, accepted):
    work, rules, prompts, priority = drawn(seed)
    requests = literal(work, prompts, priority)
    told = simulate(rules, requests, lambda load: 0.01 + 1e-4 * (load[0] + load[3]) + 1e-7 * load[1], accepted, seed)

    def seconds(load):
        return 0.01 + 1e-4 * (load.decodes + load.tokens) + 1e-7 * load.context

    ledger, scheduler, log = served(work, rules, seconds, accepted=accepted, seed=seed)
    assert [(begin, end, tuple(load)) for begin, end, load in log] == [step[:3] for step in told]
    times = ledger.times(work)
    assert [list(of) for of in times.token_s] == [request.times for request in requests]
    assert ledger.preemptions == [request.preemptions for request in requests]
    assert ledger.start_s == [request.start for request in requests]
    assert ledger.cached == [request.cached for request in requests]
    assert ledger.finish_s == [request.finish for request in requests]
    assert (scheduler.used_blocks, scheduler.waiting, scheduler.running) == (0, 0, 0)
    at_once, *_ = served(work, rules, seconds, logged=False, accepted=accepted, seed=seed)
    assert at_once.finish_s == ledger.finish_s
    assert at_once.times(work).first_token_s.tolist() == times.first_token_s.tolist()
