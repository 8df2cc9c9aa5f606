"""Routers of a simulated fleet: which replica each takes, by what it sees of them."""

import numpy as np
import pytest

from roofline import InvalidValueError, Rules, UnknownNameError, Workload, simulate
from roofline.serving import Fleet, Member, Seen
from roofline.serving.simulation.routing import make_router

PLAIN = Workload(np.full(20, 100), np.full(20, 5), np.arange(20.0))
RULES = Rules("vllm", step_tokens=1000, sequences=4, kv_blocks=1000)


def seconds(load):
    return 0.5 + load.tokens / 1000


def seen(*loads):
    return [Seen(*load) for load in loads]


def chooser(name, replicas=3, workload=PLAIN, seed=0):
    return make_router(name, workload, replicas, seed).choose


def test_turns_are_taken_in_order():
    choose = chooser("round robin")
    assert [choose(i, seen((9,), (0,), (0,))) for i in range(5)] == [0, 1, 2, 0, 1]


def test_chance_takes_all_alike_and_is_the_same_for_the_same_seed():
    taken = [chooser("random", seed=4)(0, []) for _ in range(2)]
    assert taken[0] == taken[1]
    choose = chooser("random")
    counts = np.bincount([choose(i, []) for i in range(3000)], minlength=3)
    assert counts.min() > 900


def test_the_fewest_requests_win_and_equal_ones_take_turns():
    choose = chooser("least loaded")
    assert choose(0, seen((2, 1), (0, 2), (5, 0))) == 1
    assert [choose(0, seen((1, 0), (0, 1), (1, 0))) for _ in range(4)] == [2, 0, 1, 2]


def test_of_two_that_chance_picks_the_less_loaded_is_taken():
    choose = chooser("power of two")
    taken = {choose(i, seen((9, 9), (0, 0), (5, 5))) for i in range(200)}
    assert taken == {1, 2}  # the worst of three is never the better of two


def test_vllm_weighs_those_that_wait_four_times_and_counts_its_own():
    choose = chooser("vllm")
    assert choose(0, seen((1, 0, 0), (0, 3, 0), (0, 5, 0))) == 1
    assert choose(0, seen((0, 3, 1), (1, 3, 0), (0, 6, 0))) == 2
    assert choose(0, seen((1, 0, 0), (0, 4, 0), (1, 0, 0))) == 0  # of equal ones the first


def test_a_prefix_goes_where_it_went_before_unless_that_replica_is_overrun():
    blocks = ((1, 2, 3), (7, 8), (1, 2, 3, 4), (1, 9), (1, 2, 3))
    work = Workload(np.array([60, 40, 80, 200, 60]), np.full(5, 5), np.arange(5.0), blocks=blocks)
    choose = chooser("prefix", 2, work)
    idle = seen((0, 0), (0, 0))
    first = choose(0, idle)
    assert choose(1, idle) == 1 - first  # nothing known: the other one's turn
    assert choose(2, idle) == first  # 48 of 80 tokens
    loads = [(0, 0), (0, 0)]
    loads[first] = (1, 0)
    assert choose(3, seen(*loads)) == 1 - first  # 16 of 200 tokens are too few, so the less loaded
    loads[first] = (65, 0)
    assert choose(4, seen(*loads)) == 1 - first  # more than 64 apart


def test_loads_count_as_far_apart_only_if_they_are_so_as_a_share_too():
    work = Workload(np.array([60, 60]), np.full(2, 5), np.arange(2.0), blocks=((1, 2, 3), (1, 2, 3)))
    choose = chooser("prefix", 2, work)
    first = choose(0, seen((0, 0), (0, 0)))
    load = [(200, 0), (200, 0)]
    load[first] = (290, 0)
    assert choose(1, seen(*load)) == first  # 90 more, but not 1.5 times as many


def test_conversations_find_their_cache_behind_a_router_that_knows_prefixes():
    work = Workload.from_users(12, think_s=1.0, turns=4, prompt=160, output=64, seed=1)
    rules = Rules("vllm", step_tokens=2048, sequences=64, kv_blocks=10_000, prefix_caching=True)
    cached = {
        router: simulate(None, work, rules=rules, step_s=seconds, replicas=4, router=router).times.cached.sum()
        for router in ("random", "prefix")
    }
    alone = simulate(None, work, rules=rules, step_s=seconds).times.cached.sum()
    assert cached["random"] < cached["prefix"] <= alone


def test_a_router_sees_what_was_when_the_state_was_last_read():
    """Requests at 0, 1, 2, … s, each served for 4.6 s; the state is read at 0, 2.5, 5, … s."""
    looked = []

    def choose(request, replicas):
        looked.append([(one.waiting, one.running, one.sent) for one in replicas])
        return request % 2

    options = {"rules": RULES, "step_s": lambda load: 1.0 if load.decodes else 0.6, "replicas": 2, "router": choose}
    work = Workload(np.full(6, 10), np.full(6, 5), np.arange(6.0))
    simulate(None, work, staleness_s=2.5, **options)
    assert looked[0] == [(0, 0, 0), (0, 0, 0)]
    assert looked[1] == [(0, 0, 1), (0, 0, 0)]
    assert looked[2] == [(0, 0, 1), (0, 0, 1)]
    assert looked[3] == [(1, 1, 0), (0, 1, 0)]  # read at 2.5 s: request 2 came at 2 s, while a step ran
    assert looked[4] == [(1, 1, 0), (0, 1, 1)]
    looked.clear()
    simulate(None, work, **options)
    assert [sum(waiting + running for waiting, running, _ in now) for now in looked] == [0, 1, 2, 3, 4, 4]  # the first has ended at 4.6 s
    assert all(sent == 0 for now in looked for *_, sent in now)


@pytest.mark.parametrize("router", ["round robin", "random", "least loaded", "power of two", "prefix", "vllm"])
@pytest.mark.parametrize("staleness_s", [0.0, 0.7])
@pytest.mark.parametrize("prefill", [None, 2])
def test_clients_without_a_limit_that_binds_are_no_clients(router, staleness_s, prefill):
    """Replicas that advance one by one, and replicas that advance side by side, do the same."""
    rng = np.random.default_rng(8)
    prompt, output, arrival_s = rng.integers(1, 1500, 150), rng.integers(1, 8, 150), np.cumsum(rng.exponential(0.4, 150))
    options = {"rules": RULES, "step_s": seconds, "replicas": 3, "router": router, "staleness_s": staleness_s}
    pool = {} if prefill is None else {"prefill_replicas": prefill, "prefill_router": router, "link_latency_s": 0.1}
    options |= {**pool, "seed": 5, "request_s": 0.01}
    apart = simulate(None, Workload(prompt, output, arrival_s), **options).times
    beside = simulate(None, Workload(prompt, output, arrival_s, clients=10**6), **options).times
    for name in ("sent_s", "start_s", "first_token_s", "finish_s", "replica", "preemptions"):
        assert np.array_equal(getattr(apart, name), getattr(beside, name)), name


def test_the_faster_of_unlike_replicas_serves_more():
    fleet = Fleet(
        decode=(Member(None, RULES, seconds), Member(None, RULES, lambda load: 4 * seconds(load))),
        router="least loaded",
    )
    work = Workload(np.full(200, 100), np.full(200, 5), np.arange(200) * 1.0)
    served = np.bincount(fleet.serve(work).times.replica)
    assert served[0] > 2 * served[1] > 0


def test_mistakes_are_answered():
    with pytest.raises(UnknownNameError, match="least loaded"):
        simulate(None, PLAIN, rules=RULES, step_s=seconds, replicas=2, router="leastloadd")
    with pytest.raises(InvalidValueError, match="0 … 1"):
        simulate(None, PLAIN, rules=RULES, step_s=seconds, replicas=2, router=lambda request, replicas: 2)
    with pytest.raises(InvalidValueError, match="one of round robin"):
        simulate(None, PLAIN, rules=RULES, step_s=seconds, router=3)
