"""Simulated services held against queueing theory: the engine's schedulers reduce to queues whose waits are known exactly."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline import Rules, Workload, simulate
from roofline.requests import mean_interval
from roofline.serving import mg1_wait

pytestmark = pytest.mark.slow

ONE = Rules("vllm", step_tokens=10**9, sequences=1, kv_blocks=10**9)
TOKENS = 1000


def by_prompt(load):
    return load.tokens / TOKENS


def waits(arrival_s, prompt, **options):
    """The waits of requests of one token, each served alone in a step as long as its prompt."""
    work = Workload(prompt, np.ones(prompt.size, int), arrival_s)
    times = simulate(None, work, rules=ONE, step_s=by_prompt, **options).times
    return times.start_s - times.sent_s


def poisson(rng, requests, rate):
    return np.cumsum(rng.exponential(1 / rate, requests))


def lengths(services):
    return np.maximum(1, np.rint(services * TOKENS)).astype(int)


def hyperexponential(rng, count):
    """Services of mean 1 and squared coefficient of variation 4: one of two exponentials with balanced means."""
    p = (1 + np.sqrt(3 / 5)) / 2
    return np.where(rng.random(count) < p, rng.exponential(1 / (2 * p), count), rng.exponential(1 / (2 * (1 - p)), count))


SERVICES = {
    "M/M/1": (lambda rng, n: rng.exponential(1, n), 1.0),
    "M/D/1": (lambda rng, n: np.ones(n), 0.0),
    "M/G/1": (hyperexponential, 2.0),
}


@pytest.mark.parametrize("system", SERVICES)
def test_one_server_follows_lindleys_recursion(system):
    """W_{n+1} = max(0, W_n + S_n − A_{n+1}): D. V. Lindley, The theory of queues with a single server, 1952."""
    rng = np.random.default_rng(3)
    arrival_s, prompt = poisson(rng, 3000, 0.8), lengths(SERVICES[system][0](rng, 3000))
    wait, expected = 0.0, []
    for gap, length in zip(np.diff(arrival_s, prepend=0.0), np.concatenate([[0], prompt[:-1]]), strict=True):
        wait = max(0.0, wait + length / TOKENS - gap)
        expected.append(wait)
    assert waits(arrival_s, prompt) == pytest.approx(np.array(expected), abs=1e-8)


@pytest.mark.parametrize("system", SERVICES)
def test_waits_are_those_of_pollaczek_and_khinchine(system):
    """The truth lies within the 99.9 % interval of a run of 30,000 requests; benchmarks/queue_truth.py has runs long enough for 3 %."""
    services, cv = SERVICES[system]
    rng = np.random.default_rng(11)
    found = mean_interval(waits(poisson(rng, 30_000, 0.7), lengths(services(rng, 30_000))), confidence=0.999)
    assert found.low < mg1_wait(0.7, 1.0, service_cv=cv) < found.high
    assert found.half_width < 0.35


@pytest.mark.parametrize("servers", [2, 3])
def test_equal_services_behind_a_round_robin_are_many_servers_with_one_queue(servers):
    rng = np.random.default_rng(4)
    arrival_s = poisson(rng, 2000, 0.85 * servers)
    free = [0.0] * servers
    expected = []
    for moment in arrival_s.tolist():
        begin = max(moment, heapq.heappop(free))
        heapq.heappush(free, begin + 1.0)
        expected.append(begin - moment)
    assert waits(arrival_s, np.full(2000, TOKENS), replicas=servers) == pytest.approx(np.array(expected), abs=1e-8)


def test_requests_that_come_evenly_and_slower_than_they_are_served_never_wait():
    assert waits(np.arange(500) * 1.01, np.full(500, TOKENS)).max() == 0.0


def test_requests_under_way_without_limits_are_poisson():
    """M/D/∞: with one step time τ and n tokens each, λ·n·τ requests run on average, with a variance as large."""
    rng = np.random.default_rng(5)
    step, tokens, rate = 0.01, 100, 30.0
    work = Workload(np.full(30_000, 10), np.full(30_000, tokens), poisson(rng, 30_000, rate))
    rules = Rules("vllm", step_tokens=10**6, sequences=10**5, kv_blocks=10**8)
    times = simulate(None, work, rules=rules, step_s=lambda load: step, token_times=False).times
    at = np.linspace(100, times.sent_s[-1], 2000)
    running = np.searchsorted(times.start_s, at, "right") - np.searchsorted(np.sort(times.finish_s), at, "right")
    assert running.mean() == pytest.approx(rate * tokens * step, rel=0.03)
    assert running.var() == pytest.approx(rate * tokens * step, rel=0.15)  # of 1,000 lifetimes


def test_looking_at_the_replicas_beats_taking_turns_and_old_sight_loses_that():
    """With services as uneven as these (c² = 4) a turn often ends behind a long one."""
    rng = np.random.default_rng(6)
    arrival_s, prompt = poisson(rng, 8_000, 0.7 * 4), lengths(hyperexponential(rng, 8_000))
    tail = {}
    for name, options in {
        "turns": {"router": "round robin"},
        "looks": {"router": "least loaded"},
        "two": {"router": "power of two"},
        "old": {"router": "least loaded", "staleness_s": 5.0},
    }.items():
        tail[name] = float(np.quantile(waits(arrival_s, prompt, replicas=4, **options), 0.99))
    assert tail["looks"] < tail["two"] < tail["turns"]
    assert tail["old"] > 1.4 * tail["looks"]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    requests=st.integers(1, 60),
    replicas=st.integers(1, 3),
    router=st.sampled_from(["round robin", "random", "least loaded", "power of two", "prefix", "vllm"]),
    staleness_s=st.sampled_from([0.0, 0.3]),
    clients=st.sampled_from([None, 1, 4]),
    prefill=st.sampled_from([None, 2]),
)
def test_nothing_is_lost_and_no_replica_idles_beside_work(seed, requests, replicas, router, staleness_s, clients, prefill):
    rng = np.random.default_rng(seed)
    prompt, output = rng.integers(1, 200, requests), rng.integers(1, 12, requests)
    work = Workload(prompt, output, poisson(rng, requests, 5.0), clients=clients)
    rules = Rules("vllm", step_tokens=64, sequences=4, kv_blocks=40)
    found = simulate(
        None,
        work,
        rules=rules,
        step_s=lambda load: 0.01 + load.tokens / 1000 + load.context / 1e5,
        replicas=replicas,
        router=router,
        staleness_s=staleness_s,
        **({} if prefill is None else {"prefill_replicas": prefill, "prefill_router": router, "link_latency_s": 0.02}),
        steps=True,
    )
    times, run = found.times, found.runs[0]
    assert (times.sent_s <= times.start_s).all()
    assert (times.start_s < times.first_token_s).all()
    assert (times.first_token_s <= times.finish_s).all()
    assert [len(moments) for moments in times.token_s] == output.tolist()  # every token once
    assert all((np.diff(moments) > 0).all() for moments in times.token_s)
    prefilled = times.replica if run.prefilled_by is None else run.prefilled_by
    came_s = times.sent_s if run.cache_s is None else run.cache_s
    for use, log in zip(run.replicas, run.steps, strict=True):
        assert use.busy_s == pytest.approx(sum(end - begin for begin, end, _ in log))
        if use.pool == "prefill":
            mine, begin_s, end_s = prefilled == use.number, times.sent_s, times.first_token_s
        else:
            mine, begin_s, end_s = (times.replica == use.number) & ((output > 1) | (prefill is None)), came_s, times.finish_s
        here = list(zip(begin_s[mine].tolist(), end_s[mine].tolist(), strict=True))
        assert len(log) == use.steps
        # a replica idles from the end of a step until the next one begins, and only while nobody is there
        ends = [0.0] + [end for _, end, _ in log]
        for idle_s, next_s in zip(ends, [begin for begin, _, _ in log] + [np.inf], strict=True):
            assert not any(begin < next_s - 1e-9 and end > idle_s + 1e-9 for begin, end in here) or next_s <= idle_s + 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), requests=st.integers(1, 80), sequences=st.integers(1, 8))
def test_what_steps_hold_summed_over_time_is_the_time_of_requests_in_service(seed, requests, sequences):
    """Little's law of the requests in service, with both sides from different books: L·T from the steps' loads, λ·W·T from the requests."""
    rng = np.random.default_rng(seed)
    work = Workload(rng.integers(1, 200, requests), rng.integers(1, 12, requests), poisson(rng, requests, 5.0))
    rules = Rules("vllm", step_tokens=10**6, sequences=sequences, kv_blocks=10**6)
    found = simulate(None, work, rules=rules, step_s=lambda load: 0.01 + load.tokens / 1000 + load.context / 1e5, steps=True)
    held = sum((end - begin) * (load.decodes + load.prompts) for begin, end, load in found.runs[0].steps[0])
    assert held == pytest.approx(float((found.times.finish_s - found.times.start_s).sum()))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """M/M/1 at half load: 1 / (1 − ρ) = 2 services from sending to the end. Of 40 intervals of 90 %, 30 to 40 hold it but once in 1,000 times."""
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        work = Workload(lengths(rng.exponential(1, 2000)), np.ones(2000, int), poisson(rng, 2000, 0.5))
        mean = mean_interval(simulate(None, work, rules=ONE, step_s=by_prompt, token_times=False).steady[0].e2e_s)
        held += mean.low <= 2.0 <= mean.high
    assert 30 <= held <= 40
