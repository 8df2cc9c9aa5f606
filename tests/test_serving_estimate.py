"""Closed forms of a service: by hand, at their limits, against the steps that they are made of, and what is conserved."""

import numpy as np
import pytest

from roofline import (
    SLO,
    Deployment,
    InvalidValueError,
    Lengths,
    StepTime,
    UnknownNameError,
    Workload,
    ask_again,
    max_rate,
    prefill_estimate,
    serving_estimate,
    simulate,
)
from roofline.engines import load_engine
from roofline.serving import mg1_wait
from roofline.serving.closed_forms.forms import decoding_time, loop_wait, open_decoding, prompt_wait, shared_prompts, steps_of_ranks
from roofline.serving.closed_forms.gaps import usual_gap
from roofline.serving.closed_forms.phases import Phases

pytestmark = pytest.mark.slow

NODE = Deployment("llama-3.1-8b", "h100-sxm")
MIXTURE = Deployment("qwen3-235b-a22b-fp8", "h200-sxm", tensor_parallel=8)
TIME = StepTime(NODE, calibration="h100-sxm-vllm-0.24.0")
LOAD = {"prompt": 1024, "output": 256}
HOST = load_engine("vllm").host.request_s


def step(count, new, cached, **options):
    return TIME([count], [new], [cached], **options)[()].item()


# ------------------------------------------------------------------------------------------------------------------- by hand


def test_time_of_decoding_is_the_fixed_point_of_its_own_definition():
    """y₀ = 2 s, P₁ = 1 s, ΔP = 0.5 s and 5 others give y = 4 s: each of them begins 4 s / (4 s + 1 s) prompts meanwhile, 2 + 4 · 0.5 = 4."""
    assert decoding_time(*(np.array([value]) for value in (2.0, 0.5, 1.0, 5.0))) == pytest.approx([4.0])
    assert decoding_time(*(np.array([value]) for value in (2.0, 0.5, 1.0, 0.0))) == pytest.approx([2.0])


def phases_of(**seconds):
    zero = {name: np.array([float(name == "interval")]) for name in Phases._fields} | {
        "bulk": np.array([False]),
        "first": np.array([False]),
        "ranks": np.array([1]),
    }
    return Phases(**zero | {name: np.array([value]) for name, value in seconds.items()})


def test_wait_of_a_closed_loop_has_a_burst_half_a_step_and_a_queue():
    """A tenth of 5/2 · 0.5 s; nine tenths of half a step of 20 ms and M/D/1 at ρ = 0.4 · 5/6 = 1/3, which is 0.5/2 · 0.5 s = 0.125 s."""
    found = phases_of(decode=0.02, alone=0.9, service=0.5, bulk=False)
    waited = loop_wait(found, np.array([6.0]), np.array([0.8]), np.array([0.0]), rounds=10)
    assert waited == pytest.approx([0.1 * 1.25 + 0.9 * 0.135])


def test_prompts_that_come_together_share_a_step():
    """D = 20 ms, ΔP = 50 ms, 10 a second: steps of 40 ms, as an arrival meets them 40 + 10 · 50²/(1 − 0.5²) = 73.3 ms; half of one, and half of it more."""
    found = phases_of(decode=0.02, added=0.05, service=0.03, packed=0.05, whole=2.0, bulk=True)
    waited = prompt_wait(found, np.array([6.0]), np.array([10.0]), np.array([0.0]))
    assert waited == pytest.approx([0.0733333])


def test_prompts_that_came_while_a_request_waited_run_while_it_decodes():
    """D = 10 ms, P₁ = 110 ms, ΔP = 100 ms, λ = 4/s, answers of 21 tokens.

    Steps last 10/(1 − 0.4) ms = 16.7 ms on average, and 4 · 16.7 ms = 1/15 of them have a prompt. A request waits for half a step and for M/D/1 at
    ρ = 0.44, 0.44/0.56 · 55 ms = 43.2 ms; T = 14/15 · (48.2 + 110 − 10) ms = 138.3 ms, and y = (200 ms + 0.4 T)/0.6.
    """
    found = phases_of(decode=0.01, prompt=0.11, added=0.1, service=0.11, parts=1.0, stall=0.11, bulk=False)
    waited = 0.005 + 0.44 / 0.56 * 0.055
    batch, rate, cv = (np.array([value]) for value in (5.0, 4.0, 0.0))
    assert prompt_wait(found, batch, rate, cv) == pytest.approx([waited])
    at = [np.array([20.0]), rate, found.added, np.array([waited])]
    assert open_decoding(found, *at, mixed=True) == pytest.approx([(0.2 + 0.4 * 14 / 15 * (waited + 0.1)) / 0.6])
    assert open_decoding(found, *at, mixed=False) == pytest.approx([(0.2 + 0.4 * (waited + 0.1)) / 0.6])  # no step has both
    at[0] = np.array([1.0])
    mean, room = 0.4 * 14 / 15 * (waited + 0.1) / 0.6, 14 / 15 * 0.1  # in one step, which has no prompt yet: exponential, and cut there
    assert open_decoding(found, *at, mixed=True) == pytest.approx([0.01 / 0.6 + mean * (1 - np.exp(-room / mean))])


def test_prompts_that_run_first_share_the_step_after_each_look():
    """R = 10 steps of 10 ms, a + c N = 30 + 20 N ms for N prompts, λ = 5/s: S = 0.1 + 0.03 (2 − e^−0.5 − e^−5(S − 0.1)) + 0.1 S has the root
    S = 128.7 ms: 0.1287 = 0.1 + 0.03 · (0.3935 + 0.1336) + 0.0129; 28.7 ms are those of 0.643 prompts, 44.6 ms each."""
    found = phases_of(decode=0.01, interval=10.0, added=0.05, packed=0.023, whole=10.0, bulk=True, first=True)
    added = shared_prompts(found, np.array([5.0]))
    assert added == pytest.approx([0.02867 / 0.64335], rel=1e-3)
    share, looks = 5 * 0.02867 / 0.64335, 0.1
    waited = prompt_wait(found, np.array([9.0]), np.array([5.0]), np.array([0.0]), added)
    assert waited == pytest.approx([looks * (1 - share + share**2 / (1 - share)) * (0.5 + 5 * 0.02)], rel=2e-3)


@pytest.mark.parametrize("interval", [1, 10, 30])
def test_closed_forms_and_simulations_agree_on_how_often_requests_are_received(interval):
    """Prompts of 820–1,024 tokens, four a second, drawn at random: means of 600 requests."""
    chance, count = np.random.default_rng(0), 600
    prompt, output = chance.integers(820, 1025, count), chance.integers(410, 513, count)
    work = Workload(prompt=prompt, output=output, arrival_s=np.cumsum(chance.exponential(0.25, count)))
    how = {"engine": "sglang", "receive_interval": interval, "step_tokens": 8192}
    times = simulate(MIXTURE, work, prefix_caching=False, **how).times
    lengths = {"prompt": prompt.mean(), "output": output.mean(), "prompt_cv": 0.06, "output_cv": 0.06}
    found = serving_estimate(MIXTURE, **lengths, rate=4.0, **how)
    late = slice(100, 500)
    assert found.tpot_s == pytest.approx(((times.finish_s - times.first_token_s) / (output - 1))[late].mean(), rel=0.08)
    assert found.ttft_s == pytest.approx(times.ttft_s[late].mean(), rel=0.1)


def test_the_first_of_few_rounds_meets_half_of_the_prompts():
    """All prompts are sent at once: of those of the other seven, half run before a request's own."""
    lasting, one = (serving_estimate(NODE, **LOAD, concurrency=8, **how) for how in ({}, {"rounds": 1}))
    decode = step([8], [1], [1024 + 128])
    assert one.tpot_s < lasting.tpot_s
    assert (one.tpot_s - decode) / (lasting.tpot_s - decode) == pytest.approx(0.5, abs=0.03)


def test_steps_of_prompts_run_from_graphs_as_large_as_the_engine_is_told():
    """gpt-oss launches 36 layers of experts one by one above vLLM's 512 tokens, which takes longer than 600 tokens run on H100."""
    node = Deployment("gpt-oss-120b", "h100-sxm", tensor_parallel=2)
    load = {"prompt": 600, "output": 2, "concurrency": 1}
    usual, wide = serving_estimate(node, **load), serving_estimate(node, **load, graph_tokens=2048)
    assert usual.prompt_s == pytest.approx(prefill_estimate(node, prompt=600).time_s)
    assert wide.prompt_s < usual.prompt_s
    one = Workload(prompt=np.array([600]), output=np.array([2]), arrival_s=np.array([0.0]))
    assert simulate(node, one, graph_tokens=2048).times.ttft_s[0] == pytest.approx(wide.ttft_s, rel=0.01)
    with pytest.raises(InvalidValueError, match="no step runs from a graph"):
        serving_estimate(node, **load, graph_tokens=2048, cuda_graph=False)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
def test_gaps_of_steps_that_share_prompts_are_those_of_a_chain_drawn_at_random(share):
    """Steps of 10 ms, 20 ms more with a prompt and 15 ms more with each further one, 20 prompts a second: 200,000 steps drawn one after the other."""
    draw, came, gaps = np.random.default_rng(1), 0, []
    for _ in range(200_000):
        gaps.append(0.01 + (0.02 + 0.015 * (came - 1) if came else 0.0))
        came = draw.poisson(20 * gaps[-1])
    found = phases_of(decode=0.01, added=0.02, packed=0.0155, whole=10.0, bulk=True)  # ten prompts add 20 + 9 · 15 = 155 ms
    gap, within = usual_gap(found, np.array([20.0]), np.array([0.0]), share)
    assert gap == pytest.approx([np.quantile(gaps, share, method="inverted_cdf")])
    drawn = np.array(gaps)
    shorter, as_long = np.mean(drawn < gap - 1e-6), np.mean(abs(drawn - gap) < 1e-6)
    assert within == pytest.approx([(share - shorter) / as_long], abs=0.05)  # of the gaps with as many prompts


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("share", [0.9, 0.99])
def test_gaps_beside_prompts_of_drawn_lengths_are_those_of_a_queue_drawn_at_random(cv, share):
    """The same steps, but of log-normal prompts, of which a step takes no more than ten mean ones: what is left waits for the next."""
    draw, waits, gaps = np.random.default_rng(1), 0.0, []
    sigma = np.sqrt(np.log1p(cv**2))
    for _ in range(100_000):
        gaps.append(0.01 + (0.005 + 0.015 * min(waits, 10) if waits else 0.0))
        waits = max(waits - 10, 0) + draw.lognormal(-(sigma**2) / 2, sigma, draw.poisson(15 * gaps[-1])).sum()
    found = phases_of(decode=0.01, added=0.02, packed=0.0155, whole=10.0, bulk=True)
    gap, _ = usual_gap(found, np.array([15.0]), np.array([0.0]), share, np.array([cv]))
    assert gap == pytest.approx([np.quantile(gaps, share)], abs=0.015 / 4)  # half a cell of the grid


def test_lengths_that_hardly_vary_are_those_of_one_length():
    found = phases_of(decode=0.01, added=0.02, packed=0.0155, whole=10.0, bulk=True)
    for share in (0.5, 0.95, 0.99):
        alike, nearly = (float(usual_gap(found, np.array([20.0]), np.array([0.0]), share, cv)[0][0]) for cv in (0.0, 0.01))
        assert nearly == pytest.approx(alike, abs=0.015 / 4)  # half a cell


def test_a_prefill_first_engine_keeps_requests_of_one_length_in_lockstep():
    """Eight prompts of 1,000 tokens in two steps of four: 10 decode steps, half of the prompts before one and half after it."""
    found = serving_estimate(NODE, prompt=1000, output=11, concurrency=8, step_tokens=4000, mixed=False)
    four, decode = step([4], [1000], [0]), step([8], [1], [1005.5])
    assert found.ttft_s == pytest.approx(HOST + 1.5 * four)
    assert found.tpot_s == pytest.approx(decode + 0.5 * four / 10)


# ------------------------------------------------------------------------------------------------------------------ one request


def test_one_client_waits_for_its_own_steps_only():
    found = serving_estimate(NODE, **LOAD, concurrency=1)
    prompt, decode = step([1], [1024], [0]), step([1], [1], [1024 + 128])
    assert (found.queue_s, found.host_s) == (0, HOST)
    assert found.ttft_s == pytest.approx(HOST + prompt)
    assert found.tpot_s == pytest.approx(decode)
    assert found.e2e_s == pytest.approx(HOST + prompt + 255 * decode)
    assert found.requests_per_s == pytest.approx(1 / found.e2e_s)


@pytest.mark.parametrize("how", [{}, {"basis": "floor"}, {"static": True}, {"prefill": NODE}, {"engine": "sglang"}])
def test_replicas_without_a_client_do_not_make_the_others_faster(how):
    one, many = (serving_estimate(NODE, **LOAD, concurrency=1, replicas=count, **how) for count in (1, 64))
    for name in ("ttft_s", "tpot_s", "e2e_s", "requests_per_s", "running", "batch"):
        assert getattr(many, name) == pytest.approx(getattr(one, name)), name
    assert many.batch == 1


def test_one_client_of_many_ranks_has_a_step_of_its_own():
    node = Deployment("deepseek-v3", "h200", data_parallel=8, expert_parallel=8)
    found = serving_estimate(node, **LOAD, concurrency=1)
    assert found.tpot_s == pytest.approx(StepTime(node, calibration="vllm").decode(1, 1152)[()])


def test_a_rate_near_nothing_is_one_request():
    one, few = serving_estimate(NODE, **LOAD, concurrency=1), serving_estimate(NODE, **LOAD, rate=1e-6)
    for name in ("ttft_s", "tpot_s", "e2e_s", "prompt_s", "step_s"):
        assert getattr(few, name) == pytest.approx(getattr(one, name), rel=1e-4)
    assert few.load < 1e-6


def test_a_long_prompt_runs_in_parts():
    found = serving_estimate(NODE, prompt=20_000, output=1, concurrency=1, step_tokens=8192)
    parts = [step([1], [new], [begin], sampled=[last]) for new, begin, last in ((8192, 0, 0), (8192, 8192, 0), (3616, 16384, 1))]
    assert found.prompt_s == pytest.approx(sum(parts))
    assert np.isnan(found.tpot_s)
    assert found.e2e_s == found.ttft_s
    whole = serving_estimate(NODE, prompt=20_000, output=1, concurrency=1, step_tokens=20_000, chunked=False)
    assert whole.prompt_s == pytest.approx(step([1], [20_000], [0]))
    with pytest.raises(InvalidValueError, match="20,000 tokens; without chunks it never fits into a step of 8,192"):
        serving_estimate(NODE, prompt=20_000, output=1, concurrency=1, step_tokens=8192, chunked=False)


def test_a_prefix_hit_leaves_the_rest_of_the_prompt():
    found = serving_estimate(NODE, **LOAD, concurrency=1, cached=1000)
    assert found.prompt_s == pytest.approx(step([1], [24], [1000]))
    assert found.tpot_s == pytest.approx(serving_estimate(NODE, **LOAD, concurrency=1).tpot_s)


def test_drafts_yield_what_is_accepted():
    """Two drafts, accepted with 0.8 and then 0.5: 1 + 0.8 + 0.4 = 2.2 tokens of a step with three rows."""
    found = serving_estimate(NODE, **LOAD, concurrency=1, drafts=2, acceptance=[0.8, 0.5])
    assert found.tpot_s == pytest.approx(step([1], [3], [1152], sampled=[3]) / 2.2)


# -------------------------------------------------------------------------------------------------------------------- batches


def test_a_static_batch_has_all_prompts_first_and_then_all_answers():
    found = serving_estimate(NODE, prompt=1000, output=101, concurrency=4, static=True)
    prompts, decode = step([4], [1000], [0]), step([4], [1], [1050.5])
    assert found.ttft_s == pytest.approx(HOST + prompts)
    assert found.tpot_s == pytest.approx(decode)
    assert found.requests_per_s == pytest.approx(4 / (prompts + 100 * decode))


def test_prompts_of_others_lengthen_decoding_and_run_alone_first_where_the_engine_does():
    mixed, first = (serving_estimate(NODE, prompt=4000, output=200, concurrency=32, output_cv=0.1, mixed=way) for way in (True, False))
    assert mixed.tpot_s > mixed.step_s
    assert mixed.stall_s == pytest.approx(step([31, 1], [1, 4000], [4000 + 101, 0]))
    assert first.stall_s == pytest.approx(step([1], [4000], [0]) + step([32], [1], [4000 + 101]))
    assert first.prompt_s < mixed.prompt_s
    assert serving_estimate(NODE, **LOAD, concurrency=8, engine="sglang").service.server.mixed is False


@pytest.mark.parametrize("clients", [1, 2, 7, 32, 300, 5000])
@pytest.mark.parametrize("lengths", [(1024, 256), (8000, 4), (32, 2000), (500, 1)])
@pytest.mark.parametrize("how", [{}, {"engine": "sglang"}, {"engine": "trtllm"}, {"output_cv": 0.5}, {"prefill": NODE}])
def test_clients_are_all_somewhere(clients, lengths, how):
    """Little's law, and no more work than time: of every second, prompts and decode steps take one at most."""
    found = serving_estimate(NODE, prompt=lengths[0], output=lengths[1], concurrency=clients, **how)
    assert found.requests_per_s * found.e2e_s == pytest.approx(clients)
    assert found.requests_per_s <= found.most_per_s * 1.2  # prompts of clients in lockstep share steps
    assert found.running <= clients
    assert found.queue_s >= 0


def test_memory_limits_the_batch_by_what_is_used_or_by_what_is_reserved():
    """1,000 blocks of 16 tokens, without the one that vLLM leaves out: 1,152 tokens in use of each request take 72 of them.

    500 of 32, which TensorRT-LLM has: 1,280 tokens that are reserved take 40.
    """
    used = serving_estimate(NODE, **LOAD, concurrency=64, kv_blocks=1001, admission="prompt")
    whole = serving_estimate(NODE, **LOAD, concurrency=64, engine="trtllm", kv_blocks=500, admission="whole")
    assert (used.batch, whole.batch) == (13, 12)
    assert used.binds == whole.binds == "capacity"
    assert used.queue_s == pytest.approx((64 - 13) / (13 / (used.prompt_s + 255 * used.tpot_s)), rel=0.1)
    assert serving_estimate(NODE, **LOAD, concurrency=64, sequences=8).binds == "sequences"


def test_ranks_share_the_clients():
    """Eight clients of eight ranks are one on each: a step of eight sequences."""
    node = Deployment("deepseek-v3", "h200", data_parallel=8, expert_parallel=8)
    found = serving_estimate(node, **LOAD, concurrency=8)
    assert found.batch == 1
    assert found.tpot_s == pytest.approx(StepTime(node, calibration="vllm").decode(8, 8 * 1152)[()])
    assert found.running <= 8


@pytest.mark.parametrize("rate", [0.5, 2.0, 5.0])
def test_steps_of_ranks_are_those_of_a_chain_drawn_at_random(rate):
    """Eight ranks: 20 ms, 80 ms more with a prompt on each and 40 ms with another on each, half of it the slowest rank's; 100,000 steps, one after the other."""
    draw, came, lasted = np.random.default_rng(1), 0, []
    for _ in range(100_000):
        some, most = min(came, 8) / 8, -(-came // 8)
        lasted.append(0.02 + 0.5 * (0.04 * (came > 0) + 0.04 * most) + 0.5 * (0.04 * some + 0.04 * came / 8))
        came = draw.poisson(8 * rate * lasted[-1])
    lane = {"decode": 0.02, "added": 0.08, "packed": 0.044, "whole": 10.0, "bulk": True, "parts": 1.0}  # ten prompts add 40 + 10 · 40 ms
    found = phases_of(**lane, ranks=8, slowest=0.5)
    step, own = steps_of_ranks(found, np.array([rate]))
    assert step == pytest.approx([np.mean(lasted)], rel=0.03)
    assert shared_prompts(found, np.array([rate])) == pytest.approx((own - 0.02) / (rate * own))
    gap, _ = usual_gap(found, np.array([rate]), np.array([0.0]), 0.9)
    assert gap == pytest.approx([np.quantile(lasted, 0.9, method="inverted_cdf")], rel=0.1)


@pytest.mark.parametrize(("engine", "near"), [("vllm", 0.05), ("sglang", 0.12), ("trtllm", 0.05)])
@pytest.mark.parametrize("load", [{"rate": 2.0}, {"rate": 8.0}, {"concurrency": 8}, {"concurrency": 64}])
def test_closed_forms_and_simulations_agree_where_prompts_come_to_ranks_one_by_one(engine, near, load):
    """A step with a prompt on any rank holds up the sequences of all."""
    ranks = Deployment("deepseek-r1", "h200-sxm", data_parallel=8, expert_parallel=8)
    sent = {"arrivals": load["rate"]} if "rate" in load else {"clients": load["concurrency"]}
    work = Workload.generated(1500, prompt=Lengths.lognormal(mean=1000, cv=0.1), output=Lengths.lognormal(mean=200, cv=0.1), **sent, seed=2)
    times = simulate(ranks, work, engine=engine, prefix_caching=False, token_times=False).times
    found = serving_estimate(ranks, prompt=1000, output=200, prompt_cv=0.1, output_cv=0.1, engine=engine, **load)
    late = slice(300, None)
    assert found.tpot_s == pytest.approx(times.tpot_s[late].mean(), rel=near + 0.03 * ("concurrency" in load))
    assert found.ttft_s == pytest.approx(times.ttft_s[late].mean(), rel=0.2)


def test_ranks_that_wait_for_each_other_have_prompts_together():
    """Then an answer meets as many steps with prompts as on one rank, of the prompts of all."""
    ranks = Deployment("deepseek-r1", "h200-sxm", data_parallel=8, expert_parallel=8)
    load = {"prompt": 1000, "output": 200, "rate": 8.0, "engine": "trtllm"}
    apart, together = serving_estimate(ranks, **load), serving_estimate(ranks, **load, rank_wait_steps=50)
    assert together.tpot_s < 0.6 * apart.tpot_s
    with pytest.raises(InvalidValueError, match="rank_wait_steps is of TensorRT-LLM"):
        serving_estimate(ranks, **load | {"engine": "vllm"}, rank_wait_steps=50)


# ----------------------------------------------------------------------------------------------------------- arrivals at random


def test_answers_of_one_token_are_a_queue_with_one_server():
    """Prompts that fill a step, and nothing else: M/D/1."""
    one = serving_estimate(NODE, prompt=2048, output=1, rate=1e-6, step_tokens=2048)
    rates = np.array([0.1, 0.5, 0.9]) / one.prompt_s
    found = serving_estimate(NODE, prompt=2048, output=1, rate=rates, step_tokens=2048)
    assert found.most_per_s == pytest.approx(1 / one.prompt_s)
    assert found.queue_s == pytest.approx(mg1_wait([0.1, 0.5, 0.9], one.prompt_s))
    assert found.load == pytest.approx([0.1, 0.5, 0.9])


def test_decoding_sequences_are_as_many_as_little_says():
    found = serving_estimate(NODE, **LOAD, rate=[1.0, 5.0, 15.0])
    assert found.batch - 1 == pytest.approx(found.requests_per_s * 255 * found.tpot_s, rel=2e-3)


def test_more_than_can_be_served_is_said_not_computed():
    most = serving_estimate(NODE, **LOAD, rate=1.0).most_per_s
    found = serving_estimate(NODE, **LOAD, rate=[0.9 * most, most, 3 * most])
    assert found.saturated.tolist() == [False, True, True]
    assert np.isfinite(found.ttft_s[0])
    assert np.isinf(found.ttft_s[1:]).all()
    assert found.requests_per_s[1:] == pytest.approx(most)
    assert "SATURATED" in str(found)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("lengths", [(1024, 256), (8000, 4), (32, 2000)])
def test_nothing_gets_faster_by_load(engine, lengths):
    most = serving_estimate(NODE, prompt=lengths[0], output=lengths[1], rate=1.0, engine=engine).most_per_s
    loads = most * np.linspace(0.01, 0.99, 40)
    found = serving_estimate(NODE, prompt=lengths[0], output=lengths[1], rate=loads, engine=engine)
    for name in ("ttft_s", "tpot_s", "e2e_s", "running", "load"):
        values = getattr(found, name)
        assert np.all(np.diff(values) > -1e-3 * values[1:]), name


def test_replicas_share_a_load_evenly():
    one, four = serving_estimate(NODE, **LOAD, rate=3.0), serving_estimate(NODE, **LOAD, rate=12.0, replicas=4)
    assert four.ttft_s == pytest.approx(one.ttft_s)
    assert four.requests_per_s == pytest.approx(4 * one.requests_per_s)
    assert four.tokens_per_s_per_device == pytest.approx(one.tokens_per_s_per_device)


def test_points_of_an_array_are_those_of_single_calls():
    rates, prompts = np.array([1.0, 8.0]), np.array([[100.0], [3000.0]])
    found = serving_estimate(NODE, prompt=prompts, output=256, rate=rates)
    clients = serving_estimate(NODE, prompt=prompts, output=256, concurrency=[1, 50])
    assert found.ttft_s.shape == clients.ttft_s.shape == (2, 2)
    for i in range(2):
        for j in range(2):
            one = serving_estimate(NODE, prompt=prompts[i, 0], output=256, rate=rates[j])
            assert (found.ttft_s[i, j], found.tpot_s[i, j]) == (pytest.approx(one.ttft_s), pytest.approx(one.tpot_s))
            one = serving_estimate(NODE, prompt=prompts[i, 0], output=256, concurrency=[1, 50][j])
            assert (clients.ttft_s[i, j], clients.tpot_s[i, j]) == (pytest.approx(one.ttft_s), pytest.approx(one.tpot_s))


# -------------------------------------------------------------------------------------------------------------------- two pools


def test_a_cache_goes_over_the_link_after_the_first_token():
    """131,072 B of each token (meta-llama/Llama-3.1-8B: 2 · 32 layers · 8 heads · 128 · 2 B): 1,024 of them take 2.684 ms at 50 GB/s."""
    found = serving_estimate(NODE, **LOAD, concurrency=1, prefill=NODE, link_bandwidth=50e9)
    one = serving_estimate(NODE, **LOAD, concurrency=1)
    assert found.ttft_s == pytest.approx(one.ttft_s)
    assert found.e2e_s - one.e2e_s == pytest.approx(1024 * 131_072 / 50e9)


def test_prompts_of_another_pool_do_not_disturb():
    found = serving_estimate(NODE, **LOAD, rate=10.0, prefill=NODE, prefill_replicas=2)
    assert found.stall_s == found.step_s
    assert found.tpot_s < serving_estimate(NODE, **LOAD, rate=10.0).tpot_s
    assert found.service.devices == 3


@pytest.mark.parametrize(
    ("how", "binds"), [({"prefill_replicas": 1, "replicas": 9}, "prompts"), ({"prefill_replicas": 99, "link_bandwidth": 1e9}, "link")]
)
def test_the_scarcest_of_pools_and_link_limits(how, binds):
    found = serving_estimate(NODE, prompt=4000, output=32, rate=1e5, prefill=NODE, **how)
    assert found.binds == binds
    assert found.saturated
    if binds == "link":
        assert found.most_per_s == pytest.approx(1e9 / (4000 * 131_072))


# --------------------------------------------------------------------------------------------------------- bases and intervals


def test_the_basis_is_chosen_by_name_and_shown():
    bases = {basis: serving_estimate(NODE, **LOAD, rate=5.0, basis=basis) for basis in ("floor", "roofline", "estimate")}
    assert bases["floor"].tpot_s < bases["roofline"].tpot_s < bases["estimate"].tpot_s
    for basis, found in bases.items():
        assert f"({basis})" in str(found).splitlines()[0]
        assert found.to_records()[0]["basis"] == basis
    assert "tpot_low_s" not in bases["floor"].values()


def test_an_interval_is_that_of_the_steps():
    found = serving_estimate(NODE, **LOAD, concurrency=1).values()
    low, high = (StepTime(NODE, calibration=TIME.calibration, quantile=level).decode(1, 1152)[()] for level in (0.1, 0.9))
    assert (found["tpot_low_s"], found["tpot_high_s"]) == (pytest.approx(low), pytest.approx(high))
    assert found["ttft_low_s"] < found["ttft_s"] < found["ttft_high_s"]
    assert "tpot_low_s" not in serving_estimate(NODE, **LOAD, concurrency=1, interval=None).values()


def test_percentiles_are_above_means_and_end_at_the_service():
    found = serving_estimate(NODE, **LOAD, rate=5.0, prompt_cv=1.0, output_cv=0.5)
    tails = found.percentile(0.99)
    assert tails["ttft_s"] > found.ttft_s
    assert tails["tpot_s"] > found.tpot_s
    assert tails["e2e_s"] > found.e2e_s
    alike = serving_estimate(NODE, **LOAD, rate=5.0)
    assert (
        alike.stall_s < alike.percentile(0.99)["itl_s"] < 1.02 * alike.stall_s
    )  # a prompt in it, and a few more sequences than on average
    assert tails["itl_s"] > 1.1 * found.stall_s  # a prompt that is longer than the mean one
    with pytest.raises(InvalidValueError, match="arrive at random"):
        serving_estimate(NODE, **LOAD, concurrency=5).percentile(0.99)


def test_the_wait_of_a_percentile_has_an_exponential_tail():
    """M/D/1 at ρ = 0.9 waits 4.5 services on average: 99 % wait no more than 5 · ln 90 = 22.5 (exact: 21.9, as ρ → 1 of Kleinrock's bound)."""
    one = serving_estimate(NODE, prompt=2048, output=1, rate=1e-6, step_tokens=2048)
    found = serving_estimate(NODE, prompt=2048, output=1, rate=0.9 / one.prompt_s, step_tokens=2048)
    assert (found.percentile(0.99)["ttft_s"] - one.ttft_s) / one.prompt_s == pytest.approx(5 * np.log(90))


# ---------------------------------------------------------------------------------------------------------------- the most that


@pytest.mark.parametrize("slo", [{"ttft_s": 0.3}, {"tpot_s": 0.012}, {"ttft_s": 1.0, "tpot_s": 0.05}, {"e2e_s": 5.0}, {"itl_s": 0.02}])
def test_the_largest_rate_keeps_the_promises_and_a_larger_one_does_not(slo):
    found = max_rate(NODE, slo=SLO(**slo), **LOAD)
    assert found.kept
    assert found.rate > 0

    def broken(rate):
        tails = serving_estimate(NODE, **LOAD, rate=rate).percentile(0.99)
        return [name for name, seconds in slo.items() if tails[name] > seconds * (1 + 1e-6)]

    assert broken(found.rate) == []
    assert found.binds in broken(1.02 * found.rate)


def test_without_a_tight_promise_the_service_binds():
    found = max_rate(NODE, slo={"ttft_s": 1e4}, **LOAD, sequences=16)
    assert found.binds == "sequences"
    assert found.rate == pytest.approx(0.999 * found.estimate.most_per_s)


def test_a_promise_below_the_floor_names_the_floor():
    floor = StepTime(NODE, "floor").decode(1, 1152)[()]
    found = max_rate(NODE, slo={"tpot_s": 0.5 * floor, "ttft_s": 1.0}, **LOAD)
    assert (found.kept, found.rate, found.binds) == (False, 0.0, "")
    assert "above the promise" in found.reason
    assert f"its floor is {1e3 * floor:.4g} ms" in found.reason
    near = max_rate(NODE, slo={"tpot_s": 1.01 * floor}, **LOAD)  # the floor allows it, the machine's kernels do not
    assert not near.kept
    assert "above the promise" not in near.reason


def test_rates_of_several_lengths_at_once():
    found = max_rate(NODE, slo={"ttft_s": 0.2, "tpot_s": 0.02}, prompt=[100, 1000, 30_000], output=100)
    assert found.kept.tolist() == [True, True, False]
    assert found.rate[0] > found.rate[1] > found.rate[2] == 0
    assert len(found.to_records()) == 3


# ------------------------------------------------------------------------------------------- against the engine's rules, step by step


@pytest.mark.parametrize(("load", "within"), [(0.2, 0.03), (0.5, 0.05)])
@pytest.mark.parametrize("lengths", [(1024, 256), (4000, 100)])
def test_arrivals_at_random_are_near_a_simulation(load, within, lengths):
    rate = load * serving_estimate(NODE, prompt=lengths[0], output=lengths[1], rate=1.0).most_per_s
    found = serving_estimate(NODE, prompt=lengths[0], output=lengths[1], rate=rate)
    asked = Workload.generated(1000, prompt=lengths[0], output=lengths[1], arrivals=rate, seed=1)
    times = simulate(NODE, asked, token_times=False).times
    assert found.ttft_s == pytest.approx(times.ttft_s[200:].mean(), rel=within)
    assert found.tpot_s == pytest.approx(times.tpot_s[200:].mean(), rel=within)


@pytest.mark.parametrize(
    ("prompt", "output", "rate"), [(8000, 32, 1.5), (4000, 20, 3.0), (16_000, 100, 0.6), (30_000, 100, 0.3), (2000, 8, 10.0)]
)
def test_short_answers_to_long_prompts_are_near_a_simulation(prompt, output, rate):
    """Most of their time of decoding is prompts of others; the slowest hundredth has several times the mean."""
    found = serving_estimate(NODE, prompt=prompt, output=output, rate=rate)
    asked = Workload.generated(3000, prompt=prompt, output=output, arrivals=rate, seed=1)
    tpot_s = simulate(NODE, asked, token_times=False).times.tpot_s[300:]
    assert found.tpot_s == pytest.approx(tpot_s.mean(), rel=0.09)
    assert found.percentile(0.99)["tpot_s"] == pytest.approx(np.quantile(tpot_s, 0.99), rel=0.15)


@pytest.mark.parametrize("rate", [5.0, 10.0, 15.0])
def test_percentiles_are_near_a_simulation(rate):
    tails = serving_estimate(NODE, **LOAD, rate=rate).percentile(0.99)
    times = simulate(NODE, Workload.generated(3000, **LOAD, arrivals=rate, seed=1)).times
    late = 0.06 if rate < 15 else 0.10  # of eight seeds together, times to the first token are 9 % too short there
    for name, within in (("ttft_s", late), ("tpot_s", 0.06), ("itl_s", 0.04)):
        measured = times.itl_s if name == "itl_s" else getattr(times, name)[300:]
        assert tails[name] == pytest.approx(np.quantile(measured, 0.99), rel=within), name


@pytest.mark.parametrize(("cv", "within"), [(1.0, 0.08), (2.0, 0.15)])
def test_drawn_lengths_are_near_a_simulation(cv, within):
    """Log-normal lengths at about half of the most: the slowest hundredth is of short answers that met long prompts."""
    found = serving_estimate(NODE, prompt=1000, output=200, prompt_cv=cv, output_cv=cv, rate=13.0)
    prompt, output = (Lengths.lognormal(mean=mean, cv=cv) for mean in (1000, 200))
    times = simulate(NODE, Workload.generated(4000, prompt=prompt, output=output, arrivals=13.0, seed=1), token_times=False).times
    assert found.ttft_s == pytest.approx(times.ttft_s[800:].mean(), rel=within)
    assert found.tpot_s == pytest.approx(np.nanmean(times.tpot_s[800:]), rel=within)
    assert found.percentile(0.99)["tpot_s"] == pytest.approx(np.nanquantile(times.tpot_s[800:], 0.99), rel=within)


@pytest.mark.parametrize("promise", [{"ttft_s": 0.5, "tpot_s": 0.02}, {"itl_s": 0.03}])
def test_a_simulation_keeps_promises_just_below_the_largest_rate(promise):
    slo = SLO(**promise)
    rate = 0.95 * max_rate(NODE, slo=slo, **LOAD).rate
    times = simulate(NODE, Workload.generated(3000, **LOAD, arrivals=rate, seed=2)).times
    reached = slo.reached(times)
    assert all(reached[name] <= seconds for name, seconds in promise.items())


@pytest.mark.parametrize("lengths", [(1024, 256), (4000, 100)])
def test_clients_of_a_benchmark_are_near_a_simulation(lengths):
    """Lengths uniform in 0.8–1.2 of their mean, whose coefficient of variation is 0.4/√12; ten requests of each client."""
    drawn = [Lengths.uniform(int(0.8 * mean), int(1.2 * mean)) for mean in lengths]
    load = {"prompt": lengths[0], "output": lengths[1], "prompt_cv": 0.4 / 12**0.5, "output_cv": 0.4 / 12**0.5}
    found = serving_estimate(NODE, **load, concurrency=64, rounds=10)
    times = simulate(NODE, Workload.generated(640, prompt=drawn[0], output=drawn[1], clients=64, seed=1), token_times=False).times
    assert found.ttft_s == pytest.approx(times.ttft_s.mean(), rel=0.15)
    assert found.tpot_s == pytest.approx(times.tpot_s.mean(), rel=0.08)


# ---------------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give concurrency"),
        ({"concurrency": 4, "rate": 1.0}, "not both"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"rate": -1}, "rate is -1"),
        ({"rate": 1, "prompt": 0}, "prompt is 0"),
        ({"rate": 1, "output": [5, -1]}, "output is an array with -1"),
        ({"rate": 1, "cached": 1024}, "at least one token"),
        ({"rate": 1, "prompt": 131_000}, "131,256 tokens together, and llama-3.1-8b ends at 131,072"),
        ({"rate": 1, "drafts": 2}, "acceptance="),
        ({"rate": 1, "acceptance": 0.5}, "there are none"),
        ({"rate": 1, "drafts": 2, "acceptance": [0.5]}, "1 probabilities for 2 drafts"),
        ({"rate": 1, "static": True}, "give concurrency, not rate"),
        ({"rate": 1, "rounds": 3}, "give concurrency, not rate"),
        ({"rate": 1, "prefill_replicas": 2}, "prefill= names its deployment"),
        ({"rate": 1, "admission": "whole"}, "admission is 'whole'; vLLM"),
        ({"rate": 1, "link_bandwidth": 1e9}, "between two pools"),
        ({"rate": 1, "prefill": "llama-3.1-8b"}, "must be the Deployment"),
        ({"rate": 1, "prefill": Deployment("llama-3.1-70b", "h100-sxm")}, "of one model"),
        ({"rate": 1, "kv_blocks": 0}, "kv_blocks is 0"),
        ({"rate": 1, "basis": "guess"}, "basis is 'guess'"),
    ],
)
def test_what_cannot_be_asked_gets_one_sentence(given, said):
    with pytest.raises(InvalidValueError, match=r"^[^\n]*$") as caught:
        serving_estimate(NODE, **{**LOAD, **given})
    assert said in str(caught.value)


def test_engines_and_options_by_other_names():
    with pytest.raises(UnknownNameError, match="vLLM"):
        serving_estimate(NODE, **LOAD, rate=1, engine="vlm")
    with pytest.raises(InvalidValueError, match="nothing is left for a cache"):
        serving_estimate("llama-3.1-70b", "h100-sxm", **LOAD, rate=1)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"kv_blocks": 10}, "it holds 1,280 tokens, and the cache has room for 144"),  # vLLM leaves one of the ten blocks of 16 tokens out
        ({"output_cv": 100}, "it holds 1,281,152 tokens, on average over time"),  # 1,024 + 256 · (1 + 100²)/2
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_never_fits_has_its_reason_in_the_first_line(how, said):
    found = serving_estimate(NODE, **LOAD, rate=1, **how)
    assert not found.fits
    assert found.waiting == np.inf
    assert said in str(found).splitlines()[0]
    assert said in found.notes[0]
    assert said in serving_estimate(NODE, **LOAD, concurrency=2, **how).notes[0]


def test_a_request_that_never_fits_is_never_served():
    found = serving_estimate(NODE, prompt=[100, 5000], output=10, rate=1.0, kv_blocks=100)
    assert found.fits.tolist() == [True, False]
    assert found.most_per_s[1] == found.requests_per_s[1] == 0
    assert np.isinf(found.ttft_s[1])
    assert found.binds[1] == "capacity"
    never = max_rate(NODE, slo={"ttft_s": 1}, prompt=5000, output=10, kv_blocks=100)
    assert never.rate == 0
    assert "not one request fits" in never.reason


def test_results_are_asked_again():
    found = serving_estimate(NODE, prompt=[100, 200], output=10, rate=2.0, prefill=NODE, engine="sglang")
    assert ask_again(found.to_json()) == found
    again = max_rate(NODE, slo=SLO(tpot_s=0.02, percentile=0.9), **LOAD)
    assert ask_again(again.to_json()) == again


@pytest.mark.parametrize("cv", [0.0, 1.0])
@pytest.mark.parametrize("load", [0.01, 0.3, 0.7, 0.9])
def test_a_sequence_sees_those_that_come_while_it_decodes(load, cv):
    """Little's law: itself, and as many others as arrive in the time of decoding, if none is turned away."""
    lengths = {"prompt": 500, "output": 200, "prompt_cv": cv, "output_cv": cv}
    most = max_rate(NODE, slo={"tpot_s": 10.0}, **lengths).rate
    point = serving_estimate(NODE, rate=load * most, **lengths).operation.point
    assert point.batch[0] == pytest.approx(1 + load * most * point.decoding_s[0], rel=2e-3)
