"""TensorRT-LLM's schedulers against a slow literal reference, an example of its documentation, and what their rules promise."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from reference_trtllm import Request, simulate
from roofline.errors import InvalidValueError
from roofline.requests import Workload
from roofline.serving.rules import Rules
from roofline.serving.schedulers import Ranks, TrtllmScheduler
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.simulation.replica import Replica

pytestmark = pytest.mark.slow


def seconds(load):
    return 0.01 + 1e-4 * (load.decodes + load.tokens) + 1e-7 * (load.context + load.pairs)


def workload(requests, **options):
    prompt, output, arrival_s = zip(*requests, strict=True)
    return Workload(np.array(prompt), np.array(output), np.array(arrival_s, float), **options)


def served(work, rules, *, logged=True, accepted=(), seed=0):
    """Return the books, the scheduler and the steps of a workload that one replica serves."""
    ledger = Ledger(work)
    scheduler = TrtllmScheduler(rules, ledger, accepted, seed)
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


def drawn(seed, drafts=0):
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
    most = max(map(sum, zip(prompt, output, strict=True))) + 2 * drafts
    sequences = int(rng.integers(1, 17))
    rules = Rules(
        "trtllm",
        step_tokens=max(sequences * (1 + drafts), page, int(rng.integers(1, 200)))
        if chunked
        else most + sequences * (1 + drafts) + int(rng.integers(0, 100)),
        sequences=sequences,
        kv_blocks=-(-most // page) + int(rng.integers(0, 200 // page + 2)),
        page=page,
        prefix_caching=reuse,
        reserve=str(rng.choice(["whole", "prompt", "prompt", "batch"])),
        chunked=chunked,
        chunking=str(rng.choice(["fcfs", "equal"])),
        batch_wait_steps=int(rng.choice([0, 0, 4])),
        batch_wait_ratio=float(rng.choice([0.2, 0.9])),
        drafts=drafts,
    )
    arrival_s = np.cumsum(rng.exponential(rng.choice([0.0, 0.01, 0.1]), count))
    work = workload(list(zip(prompt, output, arrival_s.tolist(), strict=True)), blocks=tuple(blocks), block_tokens=unit)
    return work, rules, texts


@pytest.mark.parametrize(
    ("seed", "accepted"),
    [
        *((seed, ()) for seed in range(20)),
        *(pytest.param(seed, (), marks=pytest.mark.slow) for seed in range(20, 100)),
        *((seed, (1.0,) * (seed % 3) + (0.0,) * (seed % 4 + (seed % 3 == 0))) for seed in range(100, 160)),
    ],
)
def test_random_workloads_run_as_in_the_literal_reference(seed, accepted):
    work, rules, texts = drawn(seed, len(accepted))
    shapes = zip(texts, work.output.tolist(), work.arrival_s.tolist(), strict=True)
    requests = [Request(number, at_s, text, most) for number, (text, most, at_s) in enumerate(shapes)]
    shared = [len(of) * work.block_tokens for of in work.blocks]
    told = simulate(
        rules,
        requests,
        shared,
        lambda load: 0.01 + 1e-4 * (load[0] + load[3]) + 1e-7 * (load[1] + load[4]),
        accept=lambda request: int(sum(accepted)),
    )
    ledger, scheduler, log = served(work, rules, accepted=accepted)
    assert [(begin, end, tuple(load)) for begin, end, load in log] == told
    assert list(ledger.start_s) == [request.start for request in requests]
    assert list(ledger.first_token_s) == [request.first for request in requests]
    assert list(ledger.finish_s) == [request.finish for request in requests]
    assert ledger.cached == [request.cached for request in requests]
    assert ledger.preemptions == [request.paused for request in requests]
    assert scheduler.used_blocks == scheduler.waiting == scheduler.running == 0
    alone = Ledger(work)
    replica = Replica(Ranks([TrtllmScheduler(rules, alone, accepted)]), lambda loads: seconds(*loads))
    for request, at_s in enumerate(work.arrival_s.tolist()):
        replica.advance(at_s)
        replica.add(request, at_s)
    replica.advance(inf)
    assert alone.finish_s == ledger.finish_s
    at_once, quick, _ = served(work, rules, logged=False, accepted=accepted)
    assert at_once.finish_s == ledger.finish_s
    assert sum(quick.held_up.values()) == sum(scheduler.held_up.values())


def test_the_random_workloads_pause_reuse_and_cut():
    done = [served(*drawn(seed)[:2]) for seed in range(100)]
    assert sum(sum(ledger.preemptions) for ledger, *_ in done) > 20
    assert sum(sum(ledger.cached) for ledger, *_ in done) > 2000
    assert sum(any(load.prompts > load.ended for *_, load in log) for *_, log in done) > 30


def test_drafts_are_accepted_as_often_as_told():
    """1 + 0.8 + 0.5 tokens a step."""
    rules = Rules("trtllm", 512, 4, 10_000, drafts=2, reserve="whole")
    ledger, scheduler, _ = served(workload([(10, 20_000, 0)]), rules, accepted=(0.8, 0.5), logged=False)
    assert 20_000 / len(scheduler.ends) == pytest.approx(2.3, rel=0.02)
    assert len(ledger.times(workload([(10, 20_000, 0)])).token_s[0]) == 20_000


def test_a_step_holds_the_drafts_of_each_that_answers():
    rules = Rules("trtllm", 16, 4, 100, page=4, drafts=3)
    *_, log = served(workload([(4, 5, 0), (4, 5, 0), (4, 5, 0), (13, 1, 0.01)]), rules, accepted=(0.0, 0.0, 0.0))
    assert loads(log)[:2] == [(0, 3, 12), (3, 1, 4)]  # 12 tokens of drafts and answers leave 4 for a prompt of 13
    with pytest.raises(InvalidValueError, match="must hold 5 tokens of each of 4 sequences"):
        served(workload([(4, 5, 0)]), Rules("trtllm", 19, 4, 100, drafts=4), accepted=(0.5,) * 4)


# an example of the documentation


def test_two_prompts_of_5_tokens_fit_into_a_step_of_12_and_2_tokens_are_left():
    """nvidia.github.io/TensorRT-LLM/features/paged-attention-ifb-scheduler: at most 4 requests and 12 tokens."""
    work = workload([(5, 4, 0.0)] * 5)
    rules = Rules("trtllm", 12, 4, 100, page=4, reserve="whole", chunked=False)
    _, scheduler, log = served(work, rules)
    assert loads(log)[:3] == [(0, 2, 10), (2, 2, 10), (4, 0, 0)]
    assert scheduler.held_up["sequences"] > 0
    _, _, log = served(work, replace(rules, chunked=True))
    assert loads(log)[0] == (0, 2, 10)  # whole pages of 4 alone are cut off
    _, _, log = served(work, replace(rules, chunked=True, page=2))
    assert loads(log)[0] == (0, 3, 12)


# single rules


def test_nothing_is_paused_where_the_longest_answer_is_reserved():
    work = workload([(64, 40, 0.0)] * 2)
    rules = Rules("trtllm", 256, 8, 10, page=16, reserve="whole")
    ledger, _, log = served(work, rules)
    assert ledger.preemptions == [0, 0]
    assert max(load.decodes for *_, load in log) == 1
    ledger, _, log = served(work, replace(rules, reserve="prompt"))
    assert ledger.preemptions == [0, 1]
    assert max(load.decodes for *_, load in log) == 2


def test_reserved_is_what_clients_allow_not_what_they_get():
    work = workload([(64, 2, 0.0)] * 2)
    rules = Rules("trtllm", 256, 8, 20, page=16, reserve="whole")
    assert loads(served(work, rules)[2])[0] == (0, 2, 128)
    assert loads(served(work, replace(rules, answer_tokens=128))[2])[0] == (0, 1, 64)


def test_a_static_batch_begins_when_the_one_before_has_ended():
    _, _, log = served(workload([(10, 5, 0.0), (10, 9, 0.0), (10, 2, 0.0)]), Rules("trtllm", 256, 2, 100, page=16, reserve="batch"))
    assert loads(log) == [(0, 2, 20), *[(2, 0, 0)] * 4, *[(1, 0, 0)] * 4, (0, 1, 10), (1, 0, 0)]


def test_prompts_wait_for_others_beside_answers():
    work = workload([(10, 50, 0.0), (10, 5, 0.015), (10, 5, 0.015)])
    rules = Rules("trtllm", 100, 8, 100, page=16, reserve="whole", batch_wait_steps=6, batch_wait_ratio=0.5)
    _, _, log = served(work, rules)
    assert [load.prompts for *_, load in log[:10]] == [1, 0, 0, 0, 0, 0, 0, 0, 2, 0]
    _, _, log = served(work, replace(rules, batch_wait_ratio=0.2))
    assert [load.prompts for *_, load in log[:4]] == [1, 0, 2, 0]


def test_a_request_whose_prompt_was_computed_elsewhere_answers_at_once():
    work = workload([(100, 10, 0.0)])
    ledger = Ledger(work)
    replica = Replica(TrtllmScheduler(Rules("trtllm", 512, 8, 100, page=16, reserve="whole"), ledger), seconds, log=(log := []))
    ledger.first_token_s[0] = 0.0
    replica.add(0, 0.0, held=100)
    assert replica.advance(inf) == [0]
    assert loads(log) == [(1, 0, 0)] * 9
    assert log[0][2].context == 100
    assert len(ledger.times(work).token_s[0]) == 9


def test_what_never_fits_is_refused():
    rules = Rules("trtllm", 100, 8, 10, page=16, reserve="whole", chunked=False)
    with pytest.raises(InvalidValueError, match="request 0 has 90 tokens and 71 to answer; they never fit into 10 blocks of 16 tokens"):
        served(workload([(90, 71, 0.0)]), rules)
    with pytest.raises(InvalidValueError, match="request 0 has 101 tokens; without chunks they never fit into a step of 100 tokens"):
        served(workload([(101, 2, 0.0)]), rules)
    with pytest.raises(
        InvalidValueError, match=r"request 1, paused after \d tokens of its answer, has 10\d to compute anew; without chunks"
    ):
        served(workload([(90, 70, 0.0), (96, 60, 0.0)]), replace(rules, kv_blocks=13, reserve="prompt"))
    with pytest.raises(InvalidValueError, match="must hold a token of each of 128 sequences"):
        served(workload([(9, 7, 0.0)]), replace(rules, sequences=128))


def flat(load):
    return 0.02 if load.prompts else 0.008


def test_ranks_step_together_and_a_rank_goes_on_without_decisions():
    ledger = Ledger(workload([(100, 10, 0.0), (100, 10, 0.0), (100, 4, 0.0)]))
    rules = Rules("trtllm", 512, 8, 1000, page=16, reserve="whole")
    replica = Replica(Ranks([TrtllmScheduler(rules, ledger) for _ in range(2)]), lambda loads: max(map(flat, loads)), log=(log := []))
    for request in range(3):
        replica.add(request, 0.0)
    replica.advance(inf)
    assert list(ledger.finish_s) == pytest.approx([0.02 + 9 * 0.008, 0.02 + 9 * 0.008, 0.02 + 3 * 0.008])
    assert [sum(load.decodes for load in loads) for *_, loads in log] == [0, 3, 3, 3, *[2] * 6]
