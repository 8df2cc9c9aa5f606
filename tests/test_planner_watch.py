"""Trials that end early, and runs that candidates share: the same answers as of runs to the end."""

from dataclasses import replace

import numpy as np
import pytest

from roofline import SLO, Deployment, Lengths, StepTime, Workload
from roofline.planner import fewest
from roofline.planner.candidates import Candidate
from roofline.planner.trials import Traffic, fleet_of, tried
from roofline.planner.watch import Watch, at_least
from roofline.serving import Fleet, Load, Member, Rules, compile_steps

CHAT = {"prompt": Lengths.lognormal(mean=800, cv=1.0), "output": Lengths.lognormal(mean=120, cv=0.8)}
USERS = Workload.from_users(12, turns=8, think_s=1.0, prompt=600, output=100, seed=3)
TIMING = {"basis": "estimate", "calibration": None, "quantile": None, "fit": None}
ONE = Deployment("llama-3.1-8b", "h100-sxm")


def traffic(workload, slo):
    return Traffic(workload, slo, TIMING, {}, "round robin", None, 0)


def generated(rate, requests=500):
    return Workload.generated(requests, **CHAT, arrivals=rate, seed=7)


class Notes(list):
    """A watch that only notes what it sees."""

    def __init__(self, slo):
        super().__init__()
        self.slo = slo

    def __call__(self, service):
        self.append(at_least(self.slo, service))


@pytest.mark.parametrize(
    ("workload", "prefill"),
    [
        (generated(10.0), 0),
        (generated(40.0), 0),
        (generated(40.0), 2),
        (Workload.generated(400, **CHAT, clients=64, seed=2), 0),
        (Workload.generated(400, **CHAT, clients=64, seed=2), 1),
        (USERS, 0),
    ],
)
def test_what_a_run_under_way_proves_is_never_more_than_what_is_reached_at_its_end(workload, prefill):
    slo = SLO(ttft_s=1.0, tpot_s=0.02, e2e_s=3.0, percentile=0.95)
    pools = {"prefill": ONE, "prefill_replicas": prefill} if prefill else {}
    notes = Notes(slo)
    run = fleet_of(Candidate(ONE, 1, **pools), traffic(workload, slo)).serve(workload, watch=notes)
    reached = slo.reached(run.steady)
    assert len(notes) >= 20
    assert all(found[name] <= reached[name] for found in notes for name in slo.promises)
    assert any(notes[-1].values())


@pytest.mark.parametrize(
    "promised", [{"ttft_s": 0.2, "tpot_s": 0.02}, {"tpot_s": 0.0125}, {"e2e_s": 8.0}, {"ttft_s": 0.3, "percentile": 0.9}]
)
def test_a_trial_that_is_ended_early_says_what_it_says_at_its_end(promised):
    ended = []
    for rate in (4.0, 12.0, 20.0, 30.0, 45.0):
        asked, watch = traffic(generated(rate), SLO(**promised)), Watch(SLO(**promised))
        early, whole = tried(Candidate(ONE, 1), asked, watch=watch), tried(Candidate(ONE, 1), asked)
        assert early.kept == whole.kept
        assert early == whole or watch.broken
        assert all(early.reached[name] <= whole.reached[name] for name in promised if name != "percentile")
        ended.append(watch.broken)
    assert any(ended)
    assert not all(ended)


def test_candidates_whose_limits_are_out_of_reach_share_a_run(monkeypatch):
    runs = []
    monkeypatch.setattr(fewest, "tried", lambda candidate, *args, **options: runs.append(candidate) or tried(candidate, *args, **options))
    asked = traffic(generated(15.0), SLO(ttft_s=1.0, tpot_s=0.05))
    several = [Candidate(ONE, 1, "vllm", tokens, limit) for tokens in (None, 512, 4096) for limit in (None, 8, 100, 200, 300)]
    found = fewest.run_together([fewest.Task(one, asked, 4) for one in several])
    shared = len(runs)
    for candidate, trial in zip(several, found, strict=True):
        (alone,) = fewest.run_together([fewest.Task(candidate, asked, 4)])
        assert replace(trial, reached={}) == replace(alone, reached={})  # dicts with the same times
        assert trial.reached == pytest.approx(alone.reached, rel=1e-12)
    assert shared < 0.7 * (len(runs) - shared)


def test_ranks_that_step_together_share_no_run():
    mixture = Deployment("qwen3-30b-a3b", "h100-sxm", data_parallel=2, expert_parallel=2)
    asked = traffic(generated(10.0, 100), SLO(ttft_s=1.0))
    several = [Candidate(mixture, 1, "vllm", None, limit) for limit in (64, 128)]
    first, second = fewest.run_together([fewest.Task(one, asked, 2) for one in several])
    assert first.kept
    assert second.kept


def test_blocks_that_run_short_are_not_shared():
    few = Rules("vllm", 2048, 256, 700)
    asked = generated(30.0, 200)
    seen = []
    fleet = Fleet((Member(None, few, lambda load: 0.01 + 1e-5 * load.tokens),))
    fleet.serve(asked, watch=seen.append)
    assert seen[-1].decode.replicas[0].scheduler.reach is None
    fleet = Fleet((Member(None, replace(few, kv_blocks=40_000), lambda load: 0.01 + 1e-5 * load.tokens),))
    fleet.serve(asked, watch=seen.append)
    reach = seen[-1].decode.replicas[0].scheduler.reach
    most = 40_000 - reach.spare_blocks
    assert reach.same_under(replace(few, kv_blocks=most), replace(few, kv_blocks=40_000))
    assert not reach.same_under(replace(few, kv_blocks=most - 1), replace(few, kv_blocks=40_000))
    assert not reach.same_under(replace(few, kv_blocks=40_000, watermark=0.1), replace(few, kv_blocks=40_000))
    assert not reach.same_under(replace(few, kv_blocks=40_000, sequences=reach.sequences), replace(few, kv_blocks=40_000))


def test_steps_take_the_same_whatever_the_limits():
    time, chance = StepTime(ONE), np.random.default_rng(1)
    narrow, wide = (compile_steps(time, Rules("vllm", *limits, 20_000)) for limits in ((1000, 50), (8192, 300)))
    for _ in range(300):
        decodes, prompts, tokens = int(chance.integers(0, 50)), int(chance.integers(0, 3)), int(chance.integers(1, 900))
        mixed = (prompts, tokens, tokens * int(chance.integers(tokens, 5000)), prompts) if prompts else (0, 0, 0, 0)
        load = Load(decodes, decodes * int(chance.integers(10, 9000)), *mixed)
        assert narrow(load) == pytest.approx(wide(load), rel=1e-12)
