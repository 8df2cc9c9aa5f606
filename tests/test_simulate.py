"""`simulate`: clients, users, two pools, and what a simulation says of its runs."""

import gzip
import json
import pickle
from itertools import pairwise

import numpy as np
import pytest

from roofline import SLO, Deployment, InvalidValueError, Rules, UnknownOptionError, Workload, prefill_floor, rules_of, simulate
from roofline.serving import Fleet, Load, Member
from roofline.serving.schedulers import VllmScheduler
from roofline.serving.simulation.saturation import find_saturation

RULES = Rules("vllm", step_tokens=1000, sequences=64, kv_blocks=10_000)


def seconds(load):
    """20 ms for a step of 1,000 tokens of prompts, 8 ms for one without."""
    return 0.008 + 0.000012 * load.tokens


def served(workload, **options):
    return simulate(None, workload, **({"rules": RULES, "step_s": seconds} | options))


def steady(seed=0, requests=400, rate=20.0):
    return Workload.generated(requests, prompt=500, output=20, arrivals=rate, seed=seed)


# clients and users


def test_a_request_alone_takes_its_prefill_and_a_decode_for_each_further_token():
    """Prefill 20 ms, decode 8 ms, 10 tokens: first token after 20 ms, the last after 20 + 9 · 8 = 92 ms."""
    times = served(Workload(np.array([1000]), np.array([10]), np.array([3.0]))).times
    assert times.ttft_s[0] == pytest.approx(0.020, abs=1e-12)
    assert times.e2e_s[0] == pytest.approx(0.092, abs=1e-12)


@pytest.mark.parametrize("replicas", [1, 3])
def test_clients_send_the_next_request_when_one_has_ended(replicas):
    rng = np.random.default_rng(1)
    work = Workload(rng.integers(10, 900, 120), rng.integers(1, 30, 120), np.zeros(120), clients=7)
    times = served(work, replicas=replicas, router="least loaded").times
    ends = np.sort(times.finish_s)
    assert (times.sent_s[:7] == 0).all()
    assert np.sort(times.sent_s[7:]) == pytest.approx(ends[: 120 - 7])
    assert (np.diff(times.sent_s) >= 0).all()  # in the order of the workload


def test_a_client_that_is_free_waits_for_the_next_arrival():
    times = served(Workload(np.full(3, 1000), np.full(3, 10), np.array([0.0, 5.0, 5.01]), clients=1)).times
    assert times.sent_s == pytest.approx([0.0, 5.0, 5.092])


def test_users_think_after_the_answer():
    work = Workload(
        np.full(4, 1000), np.full(4, 10), np.array([0.0, 0.0, 0.5, 9.0]), after=np.array([-1, 0, 1, 2]), think_s=np.full(4, 2.0)
    )
    times = served(work).times
    assert times.sent_s == pytest.approx([0.0, 2.092, 4.184, 9.0])  # the last one not before it arrives


def test_the_hosts_time_passes_before_the_engine_knows_the_request():
    found = served(Workload(np.array([1000]), np.array([2]), np.array([1.0])), request_s=0.03)
    assert found.times.sent_s[0] == 1.0
    assert found.times.start_s[0] == pytest.approx(1.03)
    assert found.times.ttft_s[0] == pytest.approx(0.05)


# two pools


def test_another_replica_goes_on_once_the_cache_has_come():
    work = Workload(np.array([1000, 1000, 1000]), np.array([10, 1, 3]), np.zeros(3))
    found = served(work, prefill_replicas=1, link_latency_s=0.5)
    times, run = found.times, found.runs[0]
    assert times.first_token_s == pytest.approx([0.020, 0.040, 0.060])
    assert run.cache_s[[0, 2]] == pytest.approx([0.52, 1.02])  # the second waits for the first to be sent
    assert np.isnan(run.cache_s[1])
    assert times.finish_s == pytest.approx([0.52 + 9 * 0.008, 0.040, 1.02 + 2 * 0.008], abs=2e-5)
    assert run.prefilled_by.tolist() == [1, 1, 1]
    assert times.replica.tolist() == [0, 1, 0]  # an answer of one token ends where its prompt is computed
    assert run.link_busy == pytest.approx((1.0 / times.finish_s.max(),))
    assert run.link_wait_s == pytest.approx((1.02 - 0.5 - 0.060) / 2)
    assert times.token_s[0] == pytest.approx([0.020, *(0.52 + 0.008 * np.arange(1, 10))], abs=2e-5)


def test_replicas_that_compute_prompts_send_over_links_of_their_own():
    work = Workload(np.full(2, 1000), np.full(2, 10), np.zeros(2))
    run = served(work, prefill_replicas=2, link_latency_s=0.5).runs[0]
    assert run.cache_s == pytest.approx([0.52, 0.52])


def test_a_cache_takes_its_bytes_over_the_rate_of_the_devices():
    """Llama-3.1-70B in bf16 keeps 2 · 80 · 8 · 128 · 2 = 327,680 B of a token, on 8 devices 40,960 B each; on 4 devices 81,920 B."""
    wide, narrow = (Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel=n) for n in (8, 4))
    members = {n: Member(deployment, RULES, seconds) for n, deployment in ((8, wide), (4, narrow))}
    prompts = np.array([1600, 3200])
    alike = Fleet(decode=(members[8],), prefill=(members[8],), link_bandwidth=50e9, link_latency_s=0.001)
    assert alike.transfers_s(prompts) == pytest.approx([0.001 + 40_960 * 1600 / 50e9, 0.001 + 40_960 * 3200 / 50e9])
    unlike = Fleet(decode=(members[4],), prefill=(members[8],), link_bandwidth=50e9)
    assert unlike.transfers_s(prompts) == pytest.approx([81_920 * 1600 / 50e9, 81_920 * 3200 / 50e9])


def test_the_link_is_the_machines_network_unless_it_is_named():
    """The spec file of the H100 states 50 GB/s of network for each device."""
    deployment = Deployment("llama-3.1-8b", "h100-sxm")
    work = Workload(np.array([1600]), np.array([5]), np.array([0.0]))
    own = simulate(deployment, work, step_s=seconds, prefill_replicas=1).runs[0]
    named = simulate(deployment, work, step_s=seconds, prefill_replicas=1, link_bandwidth="25 GB/s").runs[0]
    sent = [float(run.cache_s[0] - run.times.first_token_s[0]) for run in (own, named)]
    assert sent == pytest.approx([131_072 * 1600 / 50e9, 131_072 * 1600 / 25e9])
    bare = Deployment("llama-3.1-8b", memory_bandwidth=3e12, memory_capacity=80e9)
    with pytest.raises(InvalidValueError, match="link_bandwidth"):
        simulate(bare, work, step_s=seconds, prefill_replicas=1, sequences=8, step_tokens=1000)


def test_two_pools_of_unlike_machines():
    found = simulate(
        Deployment("llama-3.1-8b", "h200-sxm"),
        steady(requests=60),
        replicas=2,
        prefill=Deployment("llama-3.1-8b", "h100-sxm", tensor_parallel=2),
        prefill_replicas=2,
    )
    assert found.fleet.devices == 2 * 1 + 2 * 2
    assert {use.pool for use in found.replicas} == {"decode", "prefill"}


# what a simulation says


def test_the_parts_of_the_time_to_first_token_add_up():
    work = Workload.generated(300, prompt=1500, output=30, arrivals=12.0, seed=2)
    found = served(work, request_s=0.01)
    parts = found.ttft_parts()
    assert sum(parts.values()) == pytest.approx(found.times.ttft_s)
    assert (parts["host_s"] == 0.01).all()
    assert parts["prefill_s"] == pytest.approx(0.020 + 0.014)  # a step of 1,000 tokens and one of 500
    assert parts["queue_s"].min() > -1e-12
    assert parts["interference_s"].min() > -1e-12
    assert parts["interference_s"].max() > 0.02
    alone = served(Workload(np.full(3, 1500), np.full(3, 3), np.array([0.0, 10.0, 20.0]))).ttft_parts()
    assert alone["queue_s"] == pytest.approx(0.0, abs=1e-12)
    assert alone["interference_s"] == pytest.approx(0.0, abs=1e-12)


def test_more_than_can_be_served_is_said_in_place_of_percentiles():
    """A step of 1,000 tokens takes 20 ms, so 2 prompts of 500 tokens in each: at most 100 requests per second."""
    found = served(steady(requests=2000, rate=130.0))
    assert found.saturation.label == "overloaded"
    assert found.saturation.served_rate < 100
    assert "are served" in found.saturation.text
    assert {row.measure for row in found.statistics()} == {"tpot_s", "itl_s"}
    assert not any("time to first token" in line for line in found.summary())
    kept = served(steady(requests=2000, rate=50.0))
    assert kept.saturation.label == "stable"
    assert {"ttft_s", "e2e_s"} < {row.measure for row in kept.statistics()}


def test_what_an_overloaded_service_serves_is_told_although_nothing_ends_while_requests_come():
    """One after another, 20 ms + 199 · 8 ms each, while all 40 come within 0.4 s: 1 / 1.612 s are served."""
    one_at_a_time = Rules("vllm", step_tokens=1000, sequences=1, kv_blocks=10_000)
    found = served(Workload(np.full(40, 1000), np.full(40, 200), np.arange(40) / 100), rules=one_at_a_time).saturation
    assert found.label == "overloaded"
    assert found.served_rate == pytest.approx(1 / 1.612, rel=0.01)


def test_whether_a_service_keeps_up_is_not_said_of_too_few_requests():
    rng = np.random.default_rng(0)
    labels = {}
    for rate in (0.5, 1.5):
        for requests in (20, 20_000):
            arrival_s, free, start_s = np.cumsum(rng.exponential(1 / rate, requests)), 0.0, []
            for moment in arrival_s:  # one server, services of 1 s
                start_s.append(max(free, moment))
                free = start_s[-1] + 1.0
            labels[rate, requests] = find_saturation(arrival_s, np.array(start_s), np.array(start_s) + 1.0).label
    assert labels == {(0.5, 20): "unclear", (1.5, 20): "unclear", (0.5, 20_000): "stable", (1.5, 20_000): "overloaded"}


def test_clients_cannot_overload_a_service():
    found = served(Workload(np.full(200, 500), np.full(200, 20), np.zeros(200), clients=50))
    assert found.saturation.label == "closed"
    assert found.saturation.offered_rate == pytest.approx(found.times.requests_per_s)


def test_what_held_requests_up_is_named():
    many = Workload(np.full(60, 400), np.full(60, 40), np.zeros(60))
    lacking = {
        "sequences": Rules("vllm", step_tokens=10**5, sequences=4, kv_blocks=10**5),
        "blocks": Rules("vllm", step_tokens=10**5, sequences=100, kv_blocks=150),
        "tokens": Rules("vllm", step_tokens=64, sequences=64, kv_blocks=10**5),
    }
    for name, rules in lacking.items():
        found = served(many, rules=rules)
        assert max(found.held_up, key=found.held_up.get) == name
        assert 0.3 < found.held_up[name] <= 1


def test_busy_replicas_are_busy_all_the_time():
    found = served(Workload(np.full(50, 500), np.full(50, 20), np.zeros(50)))
    assert found.replicas[0].busy == pytest.approx(1.0)
    idle = served(Workload(np.full(2, 1000), np.full(2, 10), np.array([0.0, 0.908])))
    assert idle.replicas[0].busy == pytest.approx(0.184)  # twice 92 ms in a second
    assert idle.replicas[0].steps == 20


def test_steps_that_are_kept_are_the_same_steps():
    kept, counted = (served(steady(rate=60.0), replicas=2, router="least loaded", steps=keep) for keep in (True, False))
    assert kept.times == counted.times
    assert [use.steps for use in kept.replicas] == [use.steps for use in counted.replicas]
    assert counted.runs[0].steps is None
    assert [use.busy_s for use in counted.replicas] == pytest.approx([use.busy_s for use in kept.replicas])


def test_a_request_that_is_never_run_is_no_endless_loop(monkeypatch):
    monkeypatch.setattr(VllmScheduler, "schedule", lambda self, now_s: None)
    monkeypatch.setattr(VllmScheduler, "run", lambda self, begin_s, until_s, seconds: begin_s)
    for clients in (None, 3):
        with pytest.raises(InvalidValueError, match="request 0 is never served"):
            served(Workload(np.full(9, 100), np.full(9, 10), np.zeros(9), clients=clients))


def test_the_same_seed_gives_the_same_and_another_seed_another_run():
    same = [served(steady(), replicas=3, router="random", seed=seed) for seed in (1, 1, 2)]
    assert same[0] == same[1]
    assert same[0] != same[2]


def test_runs_of_other_requests_give_intervals():
    one = served(steady)
    several = served(steady, replications=6)
    assert one.times.sent_s.tolist() == several.times.sent_s.tolist()
    assert [run.seed for run in several.runs] == list(range(6))
    found = next(row for row in several.statistics() if row.measure == "ttft_s")
    each = [next(row for row in times.statistics() if row.measure == "ttft_s").p99.value for times in several.steady]
    assert found.p99.value == pytest.approx(np.mean(each))
    # Student's t of 5 degrees of freedom at 0.95 is 2.015
    assert found.p99.high - found.p99.value == pytest.approx(2.015 * np.std(each, ddof=1) / 6**0.5, rel=1e-3)
    with pytest.raises(InvalidValueError, match="function of a seed"):
        served(steady(), replications=2)


def test_runs_are_added_until_intervals_are_as_narrow_as_asked():
    def short(seed):
        return steady(seed, requests=60)

    wide = served(short, half_width=0.5)
    narrow = served(short, half_width=0.03)
    assert len(wide.runs) == 10
    assert len(narrow.runs) > 10
    assert all(row.p99.half_width <= 0.03 for row in narrow.statistics() if row.measure in ("ttft_s", "tpot_s"))
    cut = served(short, half_width=0.001, most_replications=11)
    assert len(cut.runs) == 11
    assert "still wider" in cut.notes[-1]


def test_the_warm_up_is_left_out_of_figures_but_not_of_times():
    """Requests that come at once at the beginning wait; those that come later one by one do not."""
    arrival_s = np.concatenate([np.zeros(100), 10 + np.arange(1900) * 0.5])
    found = served(Workload(np.full(2000, 500), np.full(2000, 20), arrival_s))
    assert 100 <= 2000 - len(found.steady[0]) <= 200
    assert len(found.times) == 2000
    row = next(row for row in found.statistics() if row.measure == "ttft_s")
    assert row.most == pytest.approx(0.014)
    asked = served(Workload(np.full(2000, 500), np.full(2000, 20), arrival_s), warm_up_s=500.0)
    assert asked.steady[0].finish_s.min() >= 500
    closed = served(Workload(np.full(2000, 500), np.full(2000, 20), np.zeros(2000), clients=100))
    assert len(closed.steady[0]) == 2000


def test_promises_are_held_against_each_run():
    found = served(steady, replications=2)
    each = [np.sort(times.ttft_s)[int(np.ceil(0.99 * len(times))) - 1] for times in found.steady]
    kept = found.goodput({"ttft_s": 10.0})
    assert kept == found.goodput(SLO(ttft_s=10.0))
    assert (kept.share, kept.met) == (1.0, True)
    assert kept.reached["ttft_s"] == pytest.approx(np.mean(each))


def test_records_have_a_row_for_each_request_of_each_run():
    found = served(steady, replications=2, prefill_replicas=1)
    rows = found.to_records()
    assert len(rows) == 800
    assert [row["run"] for row in rows] == [0] * 400 + [1] * 400
    row = rows[450]
    assert row["request"] == 50
    parts = row["ttft_host_s"] + row["ttft_queue_s"] + row["ttft_prefill_s"] + row["ttft_interference_s"]
    assert parts == pytest.approx(row["ttft_s"])
    assert row["sent_s"] <= row["start_s"] < row["first_token_s"] <= row["cache_s"] <= row["finish_s"]
    whole = json.loads(found.to_json())
    assert whole["seeds"] == [0, 1]
    assert whole["replicas"][0]["rules"]["step_tokens"] == 1000
    assert len(whole["replicas"]) == 2


def test_a_timeline_shows_requests_steps_and_how_many_there_are(tmp_path):
    found = served(steady(requests=50), replicas=2, prefill_replicas=1, steps=True)
    times = found.times
    assert found.to_chrome_trace(tmp_path / "run.json.gz") == 0
    data = json.loads(gzip.decompress((tmp_path / "run.json.gz").read_bytes()))
    slices = [event for event in data["traceEvents"] if event["ph"] == "X"]
    prompts = {event["args"]["request"]: event for event in slices if event["name"] == "prompt"}
    answers = {event["args"]["request"]: event for event in slices if event["name"] == "answer"}
    assert [prompts[i]["ts"] / 1e6 for i in range(50)] == pytest.approx(times.start_s.tolist())
    assert [(answers[i]["ts"] + answers[i]["dur"]) / 1e6 for i in range(50)] == pytest.approx(times.finish_s.tolist())
    assert [answers[i]["pid"] for i in range(50)] == times.replica.tolist()
    steps = [event for event in slices if event["name"] == "step"]
    assert len(steps) == sum(use.steps for use in found.replicas)
    lanes = {}
    for event in slices:  # no two slices of a lane overlap
        lanes.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for spans in lanes.values():
        spans.sort()
        assert all(after[0] >= before[1] - 1e-3 for before, after in pairwise(spans))
    counts = [event["args"]["running"] for event in data["traceEvents"] if event["name"] == "running"]
    assert counts[-1] == 0
    assert max(counts) >= 1
    left = found.to_chrome_trace(tmp_path / "short.json", most_events=40)
    short = json.loads((tmp_path / "short.json").read_text())
    assert left == short["otherData"]["events_left_out"] > 0
    assert sum(event["ph"] != "M" for event in short["traceEvents"]) == 40
    with pytest.raises(InvalidValueError, match="cannot be written"):
        found.to_chrome_trace(tmp_path / "nowhere" / "run.json")


# deployments


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_engines_serve_a_deployment_by_their_own_rules_and_times(engine):
    found = simulate(Deployment("llama-3.1-8b", "h100-sxm"), steady(requests=60), engine=engine)
    assert np.isfinite(found.times.finish_s).all()
    assert found.fleet.decode[0].rules.engine == engine
    assert found.replicas[0].steps > 20
    assert engine in str(found)


def test_ranks_of_one_engine_step_together_as_long_as_the_slowest():
    deployment = Deployment("deepseek-v3", "h200-sxm", data_parallel=8, expert_parallel=8)
    found = simulate(deployment, steady(requests=40), steps=True)
    begin_s, end_s, loads = found.runs[0].steps[0][-1]
    assert len(loads) == 8
    assert isinstance(loads[0], Load)
    assert end_s - begin_s == pytest.approx(found.fleet.decode[0].seconds(loads))
    assert found.ttft_parts()["interference_s"].min() > -1e-9


def test_a_simulation_can_be_pickled_and_serves_again_afterwards():
    found = simulate(Deployment("llama-3-8b", "h100-sxm"), steady(requests=40), replicas=2)
    again = pickle.loads(pickle.dumps(found))
    assert again.fleet.decode[0] is again.fleet.decode[1]
    assert again.times.finish_s.tolist() == found.times.finish_s.tolist()
    assert again.fleet.serve(steady(requests=40)).times.finish_s.tolist() == found.times.finish_s.tolist()


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_other_engines_verify_drafts_too(engine):
    rules = Rules(engine, step_tokens=1000, sequences=64, kv_blocks=10_000, reserve="whole", drafts=2)
    work = Workload(np.full(30, 100), np.full(30, 31), np.arange(30.0))
    assert served(work, rules=rules, acceptance=1.0).replicas[0].steps == 30 * (1 + 10)


def test_rules_say_which_engine_it_is():
    """Steps and the host's time are those of the engine whose rules are given, as if it were named."""
    node = Deployment("llama-3.1-8b", "h100-sxm")
    named = simulate(node, steady(requests=20), engine="sglang")
    by_rules = simulate(node, steady(requests=20), rules=rules_of(node, engine="sglang"))
    assert by_rules.fleet.host_s == named.fleet.host_s
    assert by_rules.times.finish_s == pytest.approx(named.times.finish_s)


def test_ranks_of_a_dense_model_are_replicas_of_their_own():
    """vLLM coordinates ranks only of mixtures of experts (v1/engine/core.py, run_engine_core)."""
    node = Deployment("llama-3.1-8b", "h100-sxm")
    work, limits = steady(requests=60), {"kv_blocks": 2000}
    found = simulate(node.but(data_parallel=4), work, **limits)
    assert found.fleet.devices == 4
    assert found.times.finish_s == pytest.approx(simulate(node, work, replicas=4, **limits).times.finish_s)
    with pytest.raises(InvalidValueError, match="is dense"):
        Member(node.but(data_parallel=4), RULES, seconds)


@pytest.mark.parametrize("basis", ["floor", "roofline"])
def test_no_time_of_the_host_is_part_of_a_floor(basis):
    node = Deployment("llama-3.1-8b", "h100-sxm")
    times = simulate(node, Workload(1000, 1, np.array([0.0])), basis=basis).times
    floor = prefill_floor(node, prompt=1000)
    assert times.ttft_s[0] == pytest.approx(floor.time_s, rel=0.01 if basis == "floor" else 0.2)


def test_drafts_need_to_be_known_to_be_accepted():
    rules = Rules("vllm", step_tokens=1000, sequences=64, kv_blocks=10_000, drafts=2)
    work = Workload(np.full(30, 100), np.full(30, 31), np.arange(30.0))
    plain = served(work).replicas[0].steps
    always = served(work, rules=rules, acceptance=1.0).replicas[0].steps
    assert plain == 30 * 31
    assert always == 30 * (1 + 10)  # three tokens with each step
    first = served(work, rules=rules, acceptance=(1.0, 0.0)).replicas[0].steps
    assert first == 30 * (1 + 15)  # two tokens with each
    with pytest.raises(InvalidValueError, match="2 drafts"):
        served(work, rules=rules)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"workload": 3}, InvalidValueError, "workload is 3"),
        ({"rules": None}, InvalidValueError, "no deployment"),
        ({"prefill": "llama-3.1-8b"}, InvalidValueError, "deployment is 'llama-3.1-8b'"),
        ({"step_s": None}, InvalidValueError, "no deployment"),
        ({"replicas": 0}, InvalidValueError, "replicas is 0"),
        ({"replicas": (1, 2)}, InvalidValueError, "1 deployments and 2"),
        ({"staleness_s": -1}, InvalidValueError, "staleness_s is -1"),
        ({"kv_blocks": 100}, InvalidValueError, "either rules or kv_blocks"),
        ({"max_num_seqs": 3}, (InvalidValueError, UnknownOptionError), "max_num_seqs"),
        ({"rules": Rules("vllm", 1000, 64, 10)}, InvalidValueError, "never fits"),
        ({"workload": lambda seed: seed}, InvalidValueError, "returned 0"),
        ({"half_width": 0.0, "workload": steady}, InvalidValueError, "half_width is 0"),
        ({"step_s": 0.01}, InvalidValueError, "step_s is 0.01; it must be a function"),
        ({"step_s": lambda load: None}, InvalidValueError, "what step_s returns is None"),
        ({"step_s": lambda load: float("nan")}, InvalidValueError, "what step_s returns is nan"),
        ({"step_s": lambda load: 0.0}, InvalidValueError, "what step_s returns is 0"),
        ({"basis": "floor"}, InvalidValueError, "step_s takes the place"),
        ({"engine": "sglang"}, InvalidValueError, "rules are of vllm, and engine is sglang"),
        ({"link_bandwidth": 1e9}, InvalidValueError, "link_bandwidth is of two pools"),
        ({"prefill_router": "random"}, InvalidValueError, "prefill_router is of two pools"),
        ({"acceptance": 0.7}, InvalidValueError, "there are none"),
        ({"warm_up_s": 1e9}, InvalidValueError, r"warm_up_s is 1e\+09, but the last request ends at"),
        ({"kv_block": 100}, UnknownOptionError, "simulate has no kv_block: nearest: kv_blocks"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(options, error, said):
    given = {"workload": steady(requests=5)} | options
    with pytest.raises(error, match=said):
        served(given.pop("workload"), **given)
