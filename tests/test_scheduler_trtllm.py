"""TensorRT-LLM's schedulers against a slow literal reference, an example of its documentation, and what their rules promise."""

from math import inf

import numpy as np
import pytest

from reference_trtllm import Request, simulate
from roofline.requests import Workload
from roofline.serving.ledger import Ledger
from roofline.serving.replica import Replica
from roofline.serving.rules import Rules
from roofline.serving.schedulers import TrtllmScheduler


def seconds(load):
    return 0.01 + 1e-4 * (load.decodes + load.tokens) + 1e-7 * (load.context + load.pairs)


def workload(requests, **options):
    prompt, output, arrival_s = zip(*requests, strict=True)
    return Workload(np.array(prompt), np.array(output), np.array(arrival_s, float), **options)


def served(work, rules, *, logged=True):
    """Return the books, the scheduler and the steps of a workload that one replica serves."""
    ledger = Ledger(work)
    scheduler = TrtllmScheduler(rules, ledger)
    log = [] if logged else None
    replica = Replica(scheduler, seconds, log=log)
    for request, at_s in enumerate(work.arrival_s.tolist()):
        replica.advance(at_s)
        replica.add(request, at_s)
    replica.advance(inf)
    return ledger, scheduler, log


def loads(log):
    return [(load.decodes, load.prompts, load.tokens) for *_, load in log]


# random workloads against the literal reference


def drawn(seed):
    """Return a random workload, its rules and the contents of its prompts."""
    rng = np.random.default_rng(seed)
    count, page = int(rng.integers(2, 16)), int(rng.choice([1, 4, 16, 32]))
    unit = page * int(rng.integers(1, 3)) if page > 1 else 4
    reuse, chunked = bool(rng.random() < 0.5), bool(rng.random() < 0.6)
    prompt, output = rng.integers(1, 150, count).tolist(), rng.integers(1, 70, count).tolist()
    texts, blocks = [], []
    for number, tokens in enumerate(prompt):
        group, common = int(rng.integers(3)), int(rng.integers(0, 7)) if rng.random() < 0.8 else 0
        ids = [(group, block) if block < common else (number, "own", block) for block in range(tokens // unit)]
        texts.append([(of, i) for of in ids for i in range(unit)] + [(number, i) for i in range(tokens % unit)])
        blocks.append(tuple(hash(of) for of in ids))
    most = max(map(sum, zip(prompt, output, strict=True)))
    sequences = int(rng.integers(1, 17))
    rules = Rules(
        "trtllm",
        step_tokens=max(sequences, page, int(rng.integers(1, 200))) if chunked else most + sequences + int(rng.integers(0, 100)),
        sequences=sequences,
        kv_blocks=-(-most // page) + int(rng.integers(0, 200 // page + 2)),
        page=page,
        prefix_caching=reuse,
        reserve=str(rng.choice(["whole", "prompt", "prompt", "batch"])),
        chunked=chunked,
        chunking=str(rng.choice(["fcfs", "equal"])),
        batch_wait_steps=int(rng.choice([0, 0, 4])),
        batch_wait_ratio=float(rng.choice([0.2, 0.9])),
    )
    arrival_s = np.cumsum(rng.exponential(rng.choice([0.0, 0.01, 0.1]), count))
    work = workload(list(zip(prompt, output, arrival_s.tolist(), strict=True)), blocks=tuple(blocks), block_tokens=unit)
    return work, rules, texts


@pytest.mark.parametrize("seed", range(120))
def test_random_workloads_run_as_in_the_literal_reference(seed):
    work, rules, texts = drawn(seed)
    shapes = zip(texts, work.output.tolist(), work.arrival_s.tolist(), strict=True)
    requests = [Request(number, at_s, text, most) for number, (text, most, at_s) in enumerate(shapes)]
    shared = [len(of) * work.block_tokens for of in work.blocks]
    told = simulate(rules, requests, shared, lambda load: 0.01 + 1e-4 * (load[0] + load[3]) + 1e-7 * (load[1] + load[4]))
    ledger, scheduler, log = served(work, rules)
    assert [(begin, end, tuple(load)) for begin, end, load in log] == told
    assert ledger.start_s == [request.start for request in requests]
    assert ledger.first_token_s == [request.first for request in requests]
    assert ledger.finish_s == [request.finish for request in requests]
    assert ledger.cached == [request.cached for request in requests]
    assert ledger.preemptions == [request.paused for request in requests]
    assert scheduler.used_blocks == scheduler.waiting == scheduler.running == 0
    at_once, quick, _ = served(work, rules, logged=False)
    assert at_once.finish_s == ledger.finish_s
    assert sum(quick.held_up.values()) == sum(scheduler.held_up.values())


def test_the_random_workloads_pause_reuse_and_cut():
    done = [served(*drawn(seed)[:2]) for seed in range(120)]
    assert sum(sum(ledger.preemptions) for ledger, *_ in done) > 20
    assert sum(sum(ledger.cached) for ledger, *_ in done) > 5000
    assert sum(any(load.prompts > load.ended for *_, load in log) for *_, log in done) > 30
