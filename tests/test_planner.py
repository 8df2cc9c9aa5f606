"""Plans: which machines, how many, what binds, what forbids, and what would change the answer."""

import csv
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from roofline import (
    SLO,
    Deployment,
    InvalidValueError,
    Model,
    UnknownNameError,
    UnsupportedModelError,
    Workload,
    max_rate,
    plan,
    serving_estimate,
    simulate,
)
from roofline.engines import load_engine
from roofline.planner import Candidate, not_dominated
from roofline.planner.trials import simulated, tried

pytestmark = pytest.mark.slow

CHAT = Workload.generated(1500, prompt=1000, output=200, arrivals=40.0, seed=1)
PROMISED = SLO(ttft_s=0.5, tpot_s=0.02)
PRICES = {"h100-sxm": 3.0, "l4": 0.8, "l40s": 1.0}  # invented, to have an order


@pytest.fixture(scope="module")
def found():
    return plan("llama-3.1-8b", CHAT, PROMISED, machines=list(PRICES), degrees=[1, 2], prices=PRICES)


def fewer(candidate, plan_, *, replicas):
    return tried(replace(candidate, replicas=replicas), plan_.asked.traffic())


# ------------------------------------------------------------------------------------------------------------------ the answer


def test_the_cheapest_plan_keeps_the_promises_and_one_replica_less_does_not(found):
    best = found.cheapest.trial.candidate
    again = simulate(best.deployment, CHAT, replicas=best.replicas)
    assert PROMISED.met(again.steady[0])
    assert best.replicas == 1 or not fewer(best, found, replicas=best.replicas - 1).kept


def test_no_simulated_alternative_is_cheaper(found):
    costs = [choice.cost for choice in (found.cheapest, *found.alternatives)]
    assert costs == sorted(costs)
    assert all(
        choice.cost == choice.candidate.by_machine[choice.candidate.deployment.machine.id] * PRICES[choice.candidate.deployment.machine.id]
        for choice in found.choices
    )


@pytest.mark.parametrize(("machine", "said"), [("l4", True), ("h100-sxm", False)])
def test_a_plan_on_constants_of_no_machine_says_so(machine, said):
    """An L4 has neither a record nor a sister with one."""
    few = Workload.generated(100, prompt=100, output=20, arrivals=1.0, seed=1)
    found = plan("llama-3.1-8b", few, {"tpot_s": 0.2}, machines=machine, degrees=1)
    assert any("constants of no machine in particular" in note for note in found.notes) == said


@pytest.mark.parametrize(
    ("given", "named"), [({"link_bandwidth": "foo"}, "link_bandwidth is 'foo'"), ({"degrees": [1, 0]}, "degrees is 0")]
)
def test_what_no_candidate_could_have_is_refused_by_name(given, named):
    with pytest.raises(InvalidValueError, match=named):
        plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", **given)


def test_some_replicas_of_a_round_robin_are_served_as_among_all():
    """Requests of replica k are those whose number is k modulo the replicas, so k alone has the times that it has among all."""
    traffic = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, simulated=0).asked.traffic()
    candidate = Candidate(Deployment("llama-3.1-8b", "h100-sxm"), replicas=4)
    part, whole = simulated(candidate, traffic).times, simulated(candidate, traffic, whole=True).times
    some = np.arange(len(CHAT)) % 4 < 3
    assert len(part) == some.sum() < len(whole)
    assert np.array_equal(part.finish_s, whole.finish_s[some])


def test_every_candidate_has_a_reason(found, tmp_path):
    rows = found.to_records()
    assert len(rows) == len({row["name"] for row in rows}) == len(found.candidates) + len(found.asked.excluded)
    assert all(row["reason"] for row in rows)
    assert [row["status"] for row in rows].count("cheapest") == 1
    found.to_csv(tmp_path / "plan.csv")
    with (tmp_path / "plan.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [row["name"] for row in rows]


def test_why_not_says_what_forbids_a_candidate(found):
    assert "cheapest" in found.why_not(found.cheapest.candidate)
    assert "its floor is" in found.why_not("l4")  # 16 GB of weights at 300 GB/s take longer than 20 ms (datasheet)
    assert "its floor is" in found.why_not(Deployment("llama-3.1-8b", "l4", tensor_parallel=1))
    with pytest.raises(UnknownNameError, match="l40s"):
        found.why_not("l40")


def test_what_cannot_be_is_kept_with_its_reason():
    odd = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=[1, 3], simulated=0)
    assert "3" in odd.why_not("h100-sxm tp3")
    assert odd.asked.excluded[0].name == "h100-sxm tp3"


def test_an_executor_gives_the_same_answer():
    asked = {"machines": ["h100-sxm", "l40s"], "degrees": [1, 2], "step_tokens": [None, 2048]}
    here = plan("llama-3.1-8b", CHAT, PROMISED, **asked)
    with ProcessPoolExecutor(2) as pool:
        there = plan("llama-3.1-8b", CHAT, PROMISED, executor=pool, **asked)
    assert [choice.values() for choice in there.choices] == [choice.values() for choice in here.choices]
    assert there.to_records() == here.to_records()


def test_a_plan_is_pickled(found):
    assert pickle.loads(pickle.dumps(found)).cheapest.name == found.cheapest.name


@pytest.mark.parametrize("pools", ["one", "two"])
def test_many_limits_searched_at_once_find_what_each_finds_alone(pools):
    """Limits of a deployment share its curves, and deployments an array; those beyond the memory come to the same."""
    limits, ranges = [4, 32, 256, 1024, 8192], {"machines": ["h100-sxm", "l40s"], "degrees": [1, 2], "pools": pools, "simulated": 0}
    table = plan("llama-3.1-8b", CHAT, PROMISED, sequences=limits, step_tokens=8192, **ranges).candidates
    together = table.whole or table.decode
    for limit in limits:
        alone = plan("llama-3.1-8b", CHAT, PROMISED, sequences=limit, step_tokens=8192, **ranges).candidates
        here = [row for row, sequences in enumerate(together.sequences) if sequences == limit]
        one = alone.whole or alone.decode
        assert np.array(together.load)[here] == pytest.approx(np.array(one.load), rel=2e-3)
        assert np.array(together.binds)[here].tolist() == one.binds


def test_closed_forms_find_what_max_rate_finds():
    only = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, simulated=0)
    most = max_rate("llama-3.1-8b", "h100-sxm", slo=PROMISED, prompt=1000, output=200).rate
    assert only.candidates.whole.load[0] == pytest.approx(most, rel=1e-3)
    assert only.estimated().replicas == np.ceil(CHAT.rate / most)
    with pytest.raises(InvalidValueError, match="simulated=0"):
        _ = only.cheapest


def test_spare_replicas_are_paid_for_and_serve_nothing(found):
    spare = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, prices=3.0, spare=2)
    without = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, prices=3.0)
    assert spare.cheapest.trial == without.cheapest.trial
    assert spare.cheapest.cost == without.cheapest.cost + 2 * 3.0
    assert spare.cheapest.candidate.replicas == without.cheapest.candidate.replicas + 2


def test_head_room_is_load():
    roomy = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, head_room=0.5, simulated=0)
    assert roomy.candidates.demand.load == pytest.approx(1.5 * CHAT.rate)


def test_of_a_long_workload_the_busiest_stretch_is_planned_for():
    calm = Workload(prompt=500, output=50, arrival_s=np.concatenate([np.arange(300.0), 300 + np.arange(300) / 10]))
    found = plan("llama-3.1-8b", calm, {"ttft_s": 1}, machines="h100-sxm", degrees=1, requests=200, simulated=0)
    assert found.candidates.demand.load == pytest.approx(10)
    assert "fastest" in found.notes[0]


def test_two_pools_split_promises_between_them():
    both = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=[1, 2], pools=("one", "two"), simulated=6)
    split = [choice for choice in both.choices if choice.candidate.prefill is not None]
    assert len(both.candidates) == 2 + 2 * 2
    for choice in split:
        candidate = choice.candidate
        assert choice.ratio == candidate.prefill_replicas * candidate.prefill.devices / (candidate.replicas * candidate.deployment.devices)
        assert choice.devices == candidate.prefill_replicas * candidate.prefill.devices + candidate.replicas * candidate.deployment.devices
    kept = next(choice.trial.candidate for choice in split if choice.trial.kept)
    again = simulate(kept.deployment, CHAT, replicas=kept.replicas, prefill=kept.prefill, prefill_replicas=kept.prefill_replicas)
    assert PROMISED.met(again.steady[0])


def test_clients_and_users_are_planned_for():
    streams = Workload.generated(300, prompt=200, output=100, clients=50)
    closed = plan("llama-3.1-8b", streams, {"ttft_s": 0.2, "tpot_s": 0.03}, machines=["h100-sxm", "l4"], degrees=1)
    assert closed.candidates.demand.unit == "clients"
    assert closed.cheapest.candidate.deployment.machine.id == "h100-sxm"
    talk = Workload.from_users(100, prompt=100, output=100, turns=4, think_s=10.0, seed=2)
    users = plan("llama-3.1-8b", talk, {"ttft_s": 1.0, "tpot_s": 0.03}, machines="h100-sxm", degrees=1)
    assert users.cheapest.trial.kept
    # four answers of at least nothing, four thoughts of 10 s: at most 100 users · 4 / 40 s
    assert 5 < users.candidates.demand.load < 15


# ------------------------------------------------------------------------------------------------------------ what forbids it


def test_a_promise_below_the_floor_is_answered_with_the_floor_and_a_way_out():
    hard = plan("llama-3.1-8b", CHAT, {"tpot_s": 0.003}, machines="h100-sxm", degrees=1)
    assert not hard.kept
    # 16 GB of weights over 3.35 TB/s are 4.8 ms (datasheet), so 3 ms cannot be
    assert "its floor of 4." in hard.forbidden
    assert "forbids it" in hard.forbidden
    assert "tensor_parallel=" in hard.forbidden
    with pytest.raises(InvalidValueError, match="forbids it"):
        _ = hard.cheapest
    assert hard.to_records()[0]["reason"]


def test_a_model_that_fits_nowhere_is_answered_with_the_memory():
    big = plan("llama-3.1-70b", CHAT, PROMISED, machines="l4", degrees=[1, 2])
    assert not big.kept
    assert "memory" in big.forbidden or "cache" in big.forbidden


# -------------------------------------------------------------------------------------------------- what would change the answer


def test_dearer_promises_cost_more(found):
    for price in found.promises():
        assert price.relaxed <= price.promised <= price.tightened
        assert price.tightened_s < price.promised_s < price.relaxed_s


def test_more_load_longer_requests_and_slower_steps_never_cost_less(found):
    bars = found.sensitivity()
    assert {bar.what.split()[0] for bar in bars} == {"load", "prompts", "answers", "times"}
    assert all(bar.less <= found.cheapest.cost <= bar.more for bar in bars)
    assert [bar.more - bar.less for bar in bars] == sorted((bar.more - bar.less for bar in bars), reverse=True)


def test_growth_is_planned_anew(found):
    points = found.growth([1, 2])
    assert points[0].cost == found.cheapest.cost
    assert found.cheapest.cost < points[1].cost <= 2 * found.cheapest.cost + max(PRICES.values())


def test_a_sweep_has_a_point_for_each_limit(found):
    few, many = found.sweep("sequences", [4, 256])
    assert few.replicas > many.replicas  # four sequences at a time serve less
    assert (few.value, many.value) == (4, 256)
    with pytest.raises(UnknownNameError):
        found.sweep("batch", [1])


def test_levers_compare_the_largest_load_of_a_replica(found):
    gains = {gain.lever: gain for gain in found.levers(hit=0.5, drafts=2, acceptance=0.9)}
    assert gains["prefix cache that finds 50%"].gain > 1
    assert gains["weights fp8"].gain > 1


def test_thresholds_are_of_one_replica(found):
    edge = found.thresholds()
    assert edge.planned_rate == pytest.approx(found.candidates.demand.load / found.cheapest.trial.candidate.replicas)
    assert edge.rate_share == pytest.approx(edge.planned_rate / edge.most_rate)


def test_what_one_has_is_worth_replicas():
    own = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1)
    have = Candidate(Deployment("llama-3.1-8b", "h200-sxm"))
    needed = own.mixed(have, owned=1)
    assert needed.replicas < own.cheapest.candidate.replicas
    enough = own.mixed(have, owned=3 * own.cheapest.candidate.replicas)
    assert enough.replicas == 0


def test_a_day_with_quiet_hours_takes_fewer_device_hours(found):
    loud, quiet = np.cumsum(np.full(1200, 1 / 40)), 30 + np.cumsum(np.full(150, 1 / 5))
    trace = Workload(prompt=1000, output=200, arrival_s=np.concatenate([loud, quiet]))
    day = found.schedule(trace, period_s=30.0, head_room=0.1)
    assert [shift.replicas for shift in day.shifts] == sorted((shift.replicas for shift in day.shifts), reverse=True)
    assert day.device_hours < day.static_device_hours
    assert day.saved == pytest.approx(1 - day.device_hours / day.static_device_hours)
    assert day.static_share >= day.share > 0.9
    late = found.schedule(
        replace(trace, arrival_s=trace.arrival_s[-1] - trace.arrival_s[::-1]), period_s=30.0, start_delay_s=10.0, ahead=False
    )
    assert late.share < late.static_share  # replicas come a period and ten seconds after the load


# ---------------------------------------------------------------------------------------------------------------- cost and energy


def test_cost_is_devices_times_price_over_requests(found):
    cost, best = found.cost(), found.cheapest
    assert cost.per_hour == best.cost
    assert cost.per_request == pytest.approx(best.cost / 3600 / CHAT.rate)
    assert cost.per_million_output == pytest.approx(1e6 * cost.per_request / 200)
    assert found.cost(2 * PRICES[best.candidate.deployment.machine.id]).per_hour == pytest.approx(2 * best.cost)


def test_break_even_is_where_both_cost_the_same(found):
    best = found.cheapest
    even = found.break_even(input_price=1.0, output_price=4.0)
    assert even.per_request == pytest.approx((1000 * 1.0 + 200 * 4.0) / 1e6)
    one = best.cost / best.candidate.replicas
    assert even.requests_per_s == pytest.approx(one / 3600 / even.per_request)  # a single replica carries that
    assert found.break_even(input_price=1e-6, output_price=1e-6).requests_per_s == float("inf")


def test_energy_is_power_over_requests(found):
    energy = found.energy(700.0)
    assert energy.power_w == 700.0 * found.cheapest.devices
    assert energy.per_request_j == pytest.approx(energy.power_w / CHAT.rate)


def test_prices_are_asked_for_where_there_are_none():
    unpriced = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1)
    assert unpriced.cheapest.cost == unpriced.cheapest.devices
    with pytest.raises(InvalidValueError, match="price="):
        unpriced.cost()


# ----------------------------------------------------------------------------------------------------------------------- frontier


def test_not_dominated_is_what_no_other_row_beats():
    rows = np.random.default_rng(0).integers(0, 6, size=(200, 3)).astype(float)
    beaten = [any((other <= row).all() and (other < row).any() for other in rows) for row in rows]
    assert np.array_equal(not_dominated(rows), ~np.array(beaten))


def test_the_frontier_holds_the_cheapest(found):
    assert found.cheapest in found.frontier


# ----------------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("engine", "told"), [("sglang", {"receive_interval": 8}), ("vllm", {"graph_tokens": 0})])
def test_what_an_engine_is_told_of_looks_and_graphs_is_in_both_passes(engine, told):
    """Looks for requests at every eighth step, and steps with prompts without graphs, whose layers the host launches one by one, delay first tokens."""
    deployment, short = Deployment("llama-3.1-8b", "h100-sxm"), Workload.generated(1500, prompt=60, output=200, arrivals=20.0, seed=1)
    asked = {"machines": "h100-sxm", "degrees": 1, "engine": engine}
    usual, changed = (plan("llama-3.1-8b", short, {"ttft_s": 5.0, "tpot_s": 0.5}, **asked, **each) for each in ({}, told))
    best = changed.cheapest
    assert best.candidate.limits == told
    assert best.candidate.name == f"h100-sxm, {' '.join(str(word) for pair in told.items() for word in pair)}"
    assert best.trial.ttft_s > 1.02 * usual.cheapest.trial.ttft_s
    found = simulate(deployment, short, replicas=best.candidate.replicas, engine=engine, **told)
    assert best.trial.ttft_s == pytest.approx(found.steady[0].ttft_s.mean(), rel=1e-9)
    slo = SLO(ttft_s=0.1, tpot_s=0.02)
    few, many = (plan("llama-3.1-8b", short, slo, **asked, **each, simulated=0).candidates.whole for each in (told, {}))
    assert few.load[0] < many.load[0]
    rate = max_rate(deployment, slo=slo, prompt=60, output=200, engine=engine, **told).rate
    assert few.load[0] == pytest.approx(float(rate), rel=0.01)


def test_plans_may_have_ranks_wait_for_each_others_prompts():
    asked = {"machines": "h200-sxm", "degrees": {"data_parallel": 4}, "engine": "trtllm"}
    short = Workload.generated(600, prompt=1000, output=60, arrivals=20.0, seed=1)
    slo = {"ttft_s": 5.0, "tpot_s": 0.5}
    usual, waiting = (plan("mixtral-8x7b", short, slo, **asked, **each).cheapest for each in ({}, {"rank_wait_steps": 40}))
    assert waiting.candidate.limits == {"rank_wait_steps": 40}
    found = simulate(waiting.candidate.deployment, short, replicas=waiting.candidate.replicas, engine="trtllm", rank_wait_steps=40)
    assert waiting.trial.ttft_s == pytest.approx(found.steady[0].ttft_s.mean(), rel=1e-9)
    assert waiting.trial.ttft_s != usual.trial.ttft_s


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"machines": []}, "machines"),
        ({"machines": "h1000"}, "h100"),
        ({"degrees": []}, "degrees"),
        ({"degrees": [3]}, "not one candidate"),
        ({"pools": "three"}, "pools"),
        ({"prices": {"l4": 1.0}}, "h100-sxm"),
        ({"prices": {"h100-sxm": -1.0}}, "prices"),
        ({"sequences": [0]}, "sequences"),
        ({"head_room": -0.1}, "head_room"),
        ({"simulated": -1}, "simulated"),
        ({"router": "robin"}, "router"),
        ({"engine": "vlm"}, "vLLM"),
        ({"basis": "guess"}, "basis"),
        ({"max_model_len": 0}, "max_model_len"),
        ({"max_model_length": 3}, "max_model_length"),
        ({"admission": "now"}, "unknown admission 'now'"),
        ({"kv_blocks": 0}, "kv_blocks"),
        ({"receive_interval": 4}, "receive_interval is 4, but vLLM looks for requests at every step"),
        ({"receive_interval": 0, "engine": "sglang"}, "receive_interval"),
        ({"graph_tokens": -1}, "graph_tokens"),
        ({"rank_wait_steps": 60}, "rank_wait_steps is of TensorRT-LLM, and engine is vllm"),
        ({"rank_wait_steps": -1, "engine": "trtllm"}, "rank_wait_steps"),
        ({"rank_wait_steps": 60, "engine": "trtllm"}, "rank_wait_steps is 60, but no candidate has data-parallel ranks"),
        ({"graph_tokens": 512, "basis": "floor"}, "graph_tokens cannot be given with basis 'floor'"),
        ({"machine": "h100-sxm"}, "it is called machines here"),
        ({"price": 2}, "nearest: prices"),
        ({"tensor_parallel": 2}, "tensor_parallel is given alone and in degrees"),
        ({"executor": 3}, "executor is 3"),
        ({"head_room": -1}, "head_room is -1; it must be a finite number of at least 0"),
    ],
)
def test_bad_input_is_one_sentence(changes, said):
    asked = {"machines": "h100-sxm", "degrees": 1, "simulated": 0, **changes}
    with pytest.raises((ValueError, LookupError, TypeError), match=said) as error:
        plan("llama-3.1-8b", CHAT, PROMISED, **asked)
    assert "\n" not in str(error.value)


def test_drafts_are_refused_as_nothing_says_how_many_are_accepted():
    with pytest.raises(InvalidValueError, match="mtp is 1, and plan is not told how many drafts are accepted"):
        plan("deepseek-v3", CHAT, PROMISED, machines="h200-sxm", degrees=8, mtp=1)


@pytest.mark.parametrize(("blocks", "serves"), [(75, False), (76, True)])
def test_closed_forms_promise_nothing_where_a_whole_request_does_not_fit(blocks, serves):
    """1,000 and 200 tokens are 75 blocks of 16, and vLLM keeps one of those it is given."""
    deployment, asked = Deployment("llama-3.1-8b", "h100-sxm"), {"prompt": 1000, "output": 200}
    assert bool(serving_estimate(deployment, **asked, rate=0.1, kv_blocks=blocks).fits) is serves
    found = plan(
        "llama-3.1-8b", Workload.generated(300, **asked, arrivals=0.1, seed=1), PROMISED, machines="h100-sxm", degrees=1, kv_blocks=blocks
    )
    assert bool(found.forbidden) is not serves


def test_a_cache_too_small_for_a_request_is_not_blamed_on_memory():
    found = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, kv_blocks=2)
    assert "not one request fits into kv_blocks of 2" in str(found)
    assert found.to_records()[0]["reason"] == "not one request fits into kv_blocks of 2"


@pytest.mark.parametrize("model", ["whisper-large-v3", "flan-t5-xl", Model.load("gemma-3-4b").with_encoded()])
def test_models_that_encode_for_every_sequence_are_refused_in_a_sentence(model):
    with pytest.raises(UnsupportedModelError, match="encodes a source, images or sound for every new sequence"):
        plan(model, CHAT, PROMISED, machines="h100-sxm", degrees=1)
    candidate = Candidate(Deployment(model, "h100-sxm"), max_model_len=1200)
    traffic = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, simulated=0).asked.traffic()
    assert "encodes a source" in tried(candidate, traffic).reason


def test_requests_that_come_at_once_have_no_rate():
    with pytest.raises(InvalidValueError, match="at once"):
        plan("llama-3.1-8b", Workload.generated(100, prompt=10, output=10), PROMISED, machines="h100-sxm", degrees=1)


# ------------------------------------------------------------------------------------------------------------- short workloads


@pytest.mark.parametrize("rate", [400.0, 20_000.0])
def test_a_burst_that_drains_takes_what_its_rate_takes(rate):
    """In 0.1 s or 5 s nothing is late yet; a service that keeps up with the rate takes as many replicas as closed forms find."""
    burst = Workload.generated(2000, prompt=1000, output=150, arrivals=rate, seed=1)
    short = plan("llama-3.1-8b", burst, PROMISED, machines="h100-sxm", degrees=1)
    most = max_rate("llama-3.1-8b", "h100-sxm", slo=PROMISED, prompt=1000, output=150).rate
    assert short.cheapest.candidate.replicas == pytest.approx(burst.rate / most, rel=0.01, abs=1)
    assert any("too few" in note for note in short.notes)


def test_more_replicas_than_requests_are_not_simulated():
    vast = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, head_room=1e5, simulated=1)
    assert len(vast.simulate().fleet.decode) == len(CHAT) < vast.cheapest.candidate.replicas


# ------------------------------------------------------------------------------------------------------------------ long prompts


def mostly_short(longest):
    """Three prompts of a hundred are long, so the 99 % slowest first tokens are theirs."""
    prompt = np.where(np.arange(1200) % 100 < 3, longest, 1000)
    return Workload(prompt=prompt, output=50, arrival_s=np.arange(1200) / 5)


def test_what_forbids_a_promise_to_long_prompts_is_their_floor_not_that_of_the_mean():
    none = plan("llama-3.1-8b", mostly_short(100_000), {"ttft_s": 1.5}, machines="h100-sxm", degrees=1)
    assert not none.kept
    # 2 · 7e9 · 1e5 FLOP of layers and 2 · 32 · 4096 · 1e10 of causal attention are 3.75 s at 132 · 4096 FLOP · 1.98 GHz (datasheet)
    assert "its floor of 3." in none.forbidden
    assert "forbids it" in none.forbidden
    assert "its floor is 3." in none.why_not("h100-sxm")


def test_a_request_that_never_fits_is_named_by_its_number():
    long = mostly_short(2000)
    long = replace(long, prompt=np.where(np.arange(1200) == 501, 140_000, long.prompt))
    none = plan("llama-3.1-8b", long, {"ttft_s": 30}, machines="h100-sxm", degrees=1)
    assert "request 501 " in none.forbidden
    assert "max_model_len is 131072" in none.forbidden


# -------------------------------------------------------------------------------------------------------------- costs and answers


def test_a_trace_costs_what_its_mean_rate_pays_for():
    calm = Workload(prompt=500, output=50, arrival_s=np.concatenate([np.arange(300.0), 300 + np.arange(300) / 10]))
    busy = plan("llama-3.1-8b", calm, {"ttft_s": 1}, machines="h100-sxm", degrees=1, requests=200, prices=3.0)
    assert busy.cost().requests_per_s == pytest.approx(calm.rate)
    assert busy.cost().per_request == pytest.approx(3.0 / 3600 / calm.rate)  # one replica


def test_answers_of_one_token_have_no_time_between_tokens():
    prompts = Workload.generated(500, prompt=1000, output=1, arrivals=12.0, seed=1)
    only = plan("llama-3.1-8b", prompts, PROMISED, machines="h100-sxm", degrees=1)
    assert "reached_tpot_s" not in only.cheapest.values()
    assert "nan" not in str(only)
    assert "tpot_s 0 s" not in str(only)


def test_closed_forms_count_spare_replicas():
    spare = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, spare=2, simulated=0)
    without = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, simulated=0)
    assert spare.estimated().replicas == without.estimated().replicas + 2
    assert str(spare.estimated()) in str(spare)


def test_what_costs_are_counted_in_is_said(found):
    assert found.context()["cost_unit"] == found.to_records()[0]["cost_unit"] == "per hour"
    assert plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", degrees=1, simulated=0).cost_unit == "devices"


def test_degrees_given_as_options_are_those_of_every_candidate():
    two = plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", tensor_parallel=2, simulated=0)
    assert [one.name for one in two.candidates] == ["h100-sxm tp2"]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda found: found.levers(drafts=0), "drafts is 0"),
        (lambda found: found.levers(acceptance=2), "acceptance is 2; it must lie in 0 … 1"),
        (lambda found: found.levers(hit=1), "hit is 1"),
        (lambda found: found.schedule(None), "trace is None"),
        (lambda found: found.mixed("l40s", owned=1), "other is 'l40s'"),
        (lambda found: found.to_csv("/no such folder/plan.csv"), "cannot be written"),
    ],
)
def test_questions_to_a_plan_refuse_what_they_cannot_answer(found, ask, said):
    with pytest.raises(InvalidValueError, match=said):
        ask(found)
    assert found.why_not(found.cheapest) == "it is the cheapest plan"


SGLANG_S = load_engine("sglang").host.request_s + 32 * load_engine("sglang").host.first_token_s.dense
"""What SGLang's host takes of a request of Llama 3.1 8B, whose 32 layers are dense: its profile's times."""


@pytest.mark.parametrize("machine", ["h100-sxm", "mi300x"])  # with a record, and without
@pytest.mark.parametrize(("basis", "host_s"), [("estimate", SGLANG_S), ("roofline", 0), ("floor", 0)])
def test_estimates_simulations_and_plans_agree_on_what_the_host_takes_of_a_request(machine, basis, host_s):
    node, asked = Deployment("llama-3.1-8b", machine), {"engine": "sglang", "basis": basis}
    work = Workload.generated(100, prompt=500, output=5, arrivals=5.0, seed=1)
    planned = plan("llama-3.1-8b", work, {"ttft_s": 2.0}, machines=machine, degrees=1, **asked).cheapest
    assert serving_estimate(node, prompt=500, output=5, rate=1.0, **asked).host_s == host_s
    assert simulate(node, work, **asked).fleet.host_s == host_s
    assert host_s < planned.trial.ttft_s < host_s + 0.1
