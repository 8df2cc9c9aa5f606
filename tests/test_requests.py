"""Times of requests, simulated or measured: metrics as benchmark clients define them, promises, cost, and intervals that hold what they say."""

import json
from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from roofline import SLO, InvalidValueError, RequestTimes, Workload
from roofline.requests import mean_interval, percentile_interval
from roofline.requests.statistics import percentile_intervals, student_t


def times(**changes):
    """Three requests: one of 10 tokens, the first after 20 ms and the others every 8 ms, one of a single token, and one that did not end."""
    given = {
        "workload": Workload(prompt=[100, 200, 50], output=[10, 1, 5], arrival_s=[0, 1, 1.5]),
        "sent_s": [0, 1, 1.5],
        "start_s": [0.005, 1, 1.75],
        "first_token_s": [0.02, 1.5, 1.9],
        "finish_s": [0.092, 1.5, nan],
        "cached": [0, 0, 16],
        "preemptions": [0, 0, 0],
        "replica": [0, 1, 0],
    }
    return RequestTimes(**given | changes)


TOKENS = [0.02 + 0.008 * np.arange(10), np.array([1.5]), np.array([1.9, 1.95])]


def many(ttft_s, tpot_s=0.01, output=11):
    """Requests, one a second, with these times to the first token and per token."""
    sent = np.arange(len(ttft_s), dtype=float)
    first = sent + ttft_s
    workload = Workload(prompt=100, output=np.full(sent.size, output), arrival_s=sent)
    none = np.zeros(sent.size)
    return RequestTimes(workload, sent, sent, first, first + (output - 1) * np.asarray(tpot_s), none, none, none)


# ----------------------------------------------------------------------------------------------------------------- metrics


def test_metrics_are_those_of_benchmark_clients():
    """vLLM 0.33.0, benchmarks/serve.py: tpot = (latency − ttft) / (output_len − 1), of answers with more than one token."""
    found = times(token_s=TOKENS)
    assert found.ttft_s == pytest.approx([0.02, 0.5, 0.4])
    assert found.tpot_s == pytest.approx([0.008, nan, nan], nan_ok=True)
    assert found.e2e_s == pytest.approx([0.092, 0.5, nan], nan_ok=True)
    assert found.queue_s == pytest.approx([0.005, 0, 0.25])
    assert found.itl_s == pytest.approx([0.008] * 9 + [0.05])
    assert found.ended.tolist() == [True, True, False]


def test_rates_are_of_requests_that_ended_over_the_time_observed():
    found = times()
    assert found.duration_s == 1.5
    assert found.requests_per_s == pytest.approx(2 / 1.5)
    assert (found.input_tokens, found.output_tokens) == (300, 11)
    assert found.output_tokens_per_s == pytest.approx(11 / 1.5)
    assert found.total_tokens_per_s == pytest.approx(311 / 1.5)
    assert times(begin_s=0, end_s=4).requests_per_s == 0.5
    assert isnan(times(finish_s=[nan] * 3).requests_per_s)


def test_gaps_need_the_time_of_every_token():
    with pytest.raises(InvalidValueError, match="do not say when each token was there"):
        times().itl_s  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sent_s": [0, 1]}, "sent_s is an array of 2; it must hold one number for each of 3 requests."),
        ({"start_s": [0, 1, inf]}, "start_s contains inf, of request 2"),
        ({"first_token_s": [0.02, 0.5, 1.9]}, "first_token_s of request 1 is 0.5 and sent_s is 1: are these times of one clock?"),
        ({"finish_s": [0.01, 1.5, nan]}, "finish_s of request 0 is 0.01 and first_token_s is 0.02"),
        ({"cached": [nan, 0, 0]}, "cached contains nan, of request 0"),
        ({"token_s": []}, "token_s has the tokens of 0 requests; there are 3."),
    ],
)
def test_times_that_cannot_be_are_said_in_a_sentence(changes, sentence):
    with pytest.raises(InvalidValueError) as caught:
        times(**changes)
    assert sentence in str(caught.value)


def test_times_are_a_result():
    found = times(token_s=TOKENS)
    record = found.to_records()[0]
    assert record["ttft_s"] == pytest.approx(0.02)
    assert list(record)[:4] == ["request", "prompt", "output", "arrival_s"]
    assert json.loads(found.to_json())["finish_s"][2] is None
    assert len(found.to_frame()) == 3
    assert str(found).startswith(
        "2 of 3 requests ended in 1.5 s: 1.333 requests/s, 7.333 output tokens/s\n  time to first token: mean 306.7 ms, median 400 ms"
    )
    assert "gap between tokens" in str(found)
    assert "gap between tokens" not in str(times())


# -------------------------------------------------------------------------------------------------------- measured records


def test_a_real_run_has_the_figures_of_its_publishers(repository):
    """LLMServingSim's summary of the run, rounded as it prints it (tests/data/requests/README.md)."""
    run = RequestTimes.from_records(repository / "tests" / "data" / "requests" / "vllm_0.19.0_rtx_pro_6000_llama_3.1_8b.jsonl.gz")
    rows = {row.measure: row for row in run.statistics()}
    found = [round(v, 2) for name in ("ttft_s", "e2e_s") for v in (rows[name].mean.value, rows[name].p99.value)]
    assert found == [7.10, 19.76, 28.20, 37.64]
    assert [round(rows["tpot_s"].mean.value * 1e3, 1), round(rows["tpot_s"].p99.value * 1e3, 1)] == [32.5, 37.3]
    assert len(run) == 300
    assert run.workload.arrival_s[0] == 0
    assert (run.sent_s >= run.workload.arrival_s).all()  # the engine sees a request after it has arrived


def test_result_of_vllm_with_details():
    """As vllm bench serve --save-detailed lists requests (vLLM 0.33.0, benchmarks/serve.py): moments sent, and spans from there."""
    run = RequestTimes.from_records(
        {
            "duration": 4.0,
            "input_lens": [100, 200, 50],
            "output_lens": [3, 2, 0],
            "start_times": [11.0, 10.0, 10.5],
            "ttfts": [0.5, 0.25, 0.0],
            "itls": [[0.1, 0.2], [0.5], []],
            "latencies": [0.8, 0.75, 0.0],
            "errors": ["", "", "timed out"],
        }
    )
    assert run.sent_s.tolist() == [0, 1]
    assert run.ttft_s == pytest.approx([0.25, 0.5])
    assert run.tpot_s == pytest.approx([0.5, 0.15])
    assert run.itl_s == pytest.approx([0.5, 0.1, 0.2])
    assert run.duration_s == pytest.approx(1.8)
    assert run.notes == ("failed requests left out: 1",)


def test_result_of_sglang_has_rates_over_its_duration():
    """SGLang 0.5.23 (benchmark/serving.py) does not say when requests were sent."""
    run = RequestTimes.from_records(
        {"duration": 2.0, "input_lens": [10, 10], "output_lens": [2, 3], "ttfts": [0.5, 0.25], "itls": [[0.1], [0.2, 0.3]]}
    )
    assert run.e2e_s == pytest.approx([0.6, 0.75])
    assert run.requests_per_s == 1
    assert "do not say when each request was sent" in run.notes[0]


def test_records_of_a_run_are_read_back():
    run = times(sent_s=[0.002, 1, 1.6])
    again = RequestTimes.from_records(run.to_records())
    for name in ("sent_s", "start_s", "first_token_s", "finish_s", "cached", "replica"):
        np.testing.assert_allclose(getattr(again, name), getattr(run, name), err_msg=name)
    assert again.workload.arrival_s.tolist() == [0, 1, 1.5]


def test_dates_of_one_clock():
    row = {
        "prompt": 1,
        "output": 2,
        "sent_s": "2026-01-01T00:00:00+00:00",
        "first_token_s": "2026-01-01T01:00:00.5+01:00",
        "finish_s": "2026-01-01T00:00:02Z",
    }
    run = RequestTimes.from_records([row])
    assert (run.ttft_s[0], run.e2e_s[0]) == pytest.approx((0.5, 2))


def test_records_in_milliseconds():
    run = RequestTimes.from_records(
        [{"prompt": 1, "output": 5, "arrival_ms": 500, "ttft_ms": 20, "latency_ms": 60}], columns={"arrival_s": "arrival_ms"}
    )
    assert run.tpot_s == pytest.approx([0.01])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": 1}, "rows has no output; name its column: columns=dict(output=…)."),
        ({"prompt": 1, "output": 1}, "rows has no first_token_s or ttft_s; name its column: columns=dict(first_token_s=…)."),
        ({"prompt": 1, "output": 1, "ttft_s": 1}, "rows has no finish_s, e2e_s or gaps_s"),
        ({"prompt": 1, "output": 1, "first_token_s": 1, "finish_s": 2}, "does not say when requests were sent"),
        ({"prompt": 1, "output": 1, "ttft_s": "soon", "e2e_s": 2}, "ttft_s of row 1 is 'soon'; it must be a finite number."),
        ({"prompt": 1, "output": 2, "ttft_s": 1, "gaps_s": ["a"]}, "gaps_s of row 1 are ['a']; they must be a list of numbers."),
        ({"prompt": 1, "output": 2, "arrival_s": 1.7e9, "first_token_s": 5, "finish_s": 6}, "are these times of one clock?"),
    ],
)
def test_records_that_say_too_little(row, sentence):
    with pytest.raises(InvalidValueError) as caught:
        RequestTimes.from_records([row])
    assert sentence in str(caught.value)


# ------------------------------------------------------------------------------------------------------ parts, cost, energy


def test_a_part_of_a_run_has_rates_over_its_own_time():
    run = many(np.full(100, 0.5))  # request i is sent at i, and ends at i + 0.6
    part = run.between(10, 20)
    assert len(part) == 10
    assert part.sent_s.tolist() == list(range(10, 20))
    assert part.requests_per_s == 1
    assert part.notes == ("10 of 100 requests: those that ended from 10 s to 20 s",)
    with pytest.raises(InvalidValueError, match="no request ended from 200 s to 300 s"):
        run.between(200, 300)


def test_a_warm_run_is_its_middle():
    run = many(np.full(100, 0.4))  # from 0 to 99.5 s
    assert run.warm(first=0.1, last=0.1).requests_per_s == pytest.approx(1, rel=0.02)
    assert len(run.warm(first=0, last=0)) == 100
    assert run.warm(first=0.5, last=0).sent_s[0] == 50
    for shares in ({"first": -0.1}, {"first": 0.5, "last": 0.5}):
        with pytest.raises(InvalidValueError):
            run.warm(**shares)


def test_cost_and_energy():
    """2 devices for 1.5 s: 3 device-seconds, of which an hour costs 3600; 300 tokens of prompts and 11 of answers, of 2 requests."""
    run = times()
    assert run.gpu_seconds(2) == 3
    cost = run.cost(price_per_device_hour=3600, devices=2)
    assert cost == pytest.approx((3, 1.5, 3e6 / 300, 3e6 / 11, 3e6 / 311))
    apart = run.cost(price_per_device_hour=3600, devices=2, prompt_share=0.25)
    assert (apart.per_million_input * 300 + apart.per_million_output * 11) / 1e6 == pytest.approx(3)
    assert apart.per_million_input == pytest.approx(0.25 * cost.per_million_input)
    assert run.energy(power_w=500, devices=2) == pytest.approx((1500, 750, 1500 / 11, 1500 / 311))
    for wrong in (
        {"price_per_device_hour": 0, "devices": 1},
        {"price_per_device_hour": 1, "devices": 0},
        {"price_per_device_hour": 1, "devices": 1, "prompt_share": 1},
    ):
        with pytest.raises(InvalidValueError):
            run.cost(**wrong)


# ---------------------------------------------------------------------------------------------------------------- promises


def test_a_promise_is_kept_for_its_share_of_requests():
    run = many([0.1] * 99 + [0.5])
    assert SLO(ttft_s=0.1 + 1e-9).met(run)  # 99 of 100
    assert not SLO(ttft_s=0.1 + 1e-9, percentile=0.995).met(run)
    assert SLO(ttft_s=0.5 + 1e-9, percentile=0.995).met(run)
    assert SLO(ttft_s=0.2).reached(run) == {"ttft_s": pytest.approx(0.1)}
    assert str(SLO(ttft_s=1, tpot_s=0.05)) == "TTFT ≤ 1 s, TPOT ≤ 50 ms for 99 %"


def test_goodput_is_of_requests_that_keep_all_promises():
    run = many([0.1, 0.1, 0.9, 0.9], tpot_s=[0.01, 0.05, 0.01, 0.05])
    slo = SLO(ttft_s=0.5, tpot_s=0.02, percentile=0.5)
    good = run.goodput(slo)
    assert slo.kept(run).tolist() == [True, False, False, False]
    assert (good.share, good.met) == (0.25, True)  # each promise is kept for half of the requests, both for a quarter
    assert good.requests_per_s == pytest.approx(1 / run.duration_s)
    assert good.output_tokens_per_s == pytest.approx(11 / run.duration_s)
    assert good.reached == {"ttft_s": pytest.approx(0.1), "tpot_s": pytest.approx(0.01)}


def test_a_request_that_did_not_end_keeps_no_promise():
    run = times(token_s=TOKENS)
    assert SLO(ttft_s=1).kept(run).tolist() == [True, True, False]
    assert SLO(e2e_s=1, percentile=0.66).met(run)
    assert SLO(e2e_s=100, percentile=0.7).reached(run) == {"e2e_s": inf}
    assert SLO(tpot_s=0.01).kept(run).tolist() == [True, True, False]  # an answer of one token has no gaps
    assert SLO(tpot_s=0.01, percentile=0.5).reached(run)["tpot_s"] == pytest.approx(
        0.008
    )  # of two answers with more than one token, one ended
    assert SLO(itl_s=0.01).kept(run).tolist() == [True, True, False]
    assert SLO(itl_s=0.01, percentile=0.9).met(run)
    assert not SLO(itl_s=0.01, percentile=0.95).met(run)


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_what_is_reached_is_the_least_promise_that_is_met(ttft_s, percentile):
    run = many(ttft_s)
    reached = SLO(ttft_s=1, percentile=percentile).reached(run)["ttft_s"]
    assert SLO(ttft_s=reached, percentile=percentile).met(run)
    assert (run.ttft_s <= reached).mean() >= percentile - 1e-9
    assert (run.ttft_s < reached).mean() < percentile


@pytest.mark.parametrize(
    ("promises", "sentence"),
    [
        ({}, "an SLO promises something: give ttft_s, tpot_s, itl_s or e2e_s."),
        ({"ttft_s": 0}, "ttft_s is 0; it must be a positive finite number in s."),
        ({"tpot_s": "50ms"}, "tpot_s is '50ms'"),
        ({"ttft_s": 1, "percentile": 99}, "percentile is 99; it must be a share between 0 and 1, as 0.99."),
    ],
)
def test_what_is_no_promise_is_said_in_a_sentence(promises, sentence):
    with pytest.raises(InvalidValueError) as caught:
        SLO(**promises)
    assert sentence in str(caught.value)


# --------------------------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("freedom", [1, 2, 4, 19, 300])
@pytest.mark.parametrize("p", [0.9, 0.95, 0.995])
def test_students_distribution(freedom, p):
    assert student_t(freedom, p) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-4)


def test_order_statistics_of_a_median():
    """Of 20 independent values the 6th and the 15th bound the median: P(6 ≤ Binomial(20, 1/2) ≤ 14) = 0.959, and no narrower pair reaches 95 %."""
    values = np.random.default_rng(0).permutation(np.arange(1, 21))
    found = percentile_interval(values, 0.5, confidence=0.95, correlated=False)
    assert found == (10.5, 6, 15)


def test_a_sample_may_not_bound_a_high_percentile():
    """100 values have no 95 % bound above of their 99th percentile: all are below it with probability 0.99¹⁰⁰ = 0.37.

    P(Binomial(100, 0.99) ≤ 96) = 0.018 and P(≤ 97) = 0.079, so that the 97th is the bound below.
    """
    found = percentile_interval(np.arange(100), 0.99, confidence=0.95, correlated=False)
    assert found.high == inf
    assert found.low == 96


def test_independent_values_have_students_interval():
    """W. S. Gosset's sleep data (Biometrika 6 (1908) 20): ten differences, mean 1.58, 95 % interval 0.70 … 2.46."""
    found = mean_interval([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4], confidence=0.95, correlated=False)
    assert [round(v, 2) for v in found] == [1.58, 0.70, 2.46]
    assert found.half_width == pytest.approx((2.46 - 0.70) / 2 / 1.58, rel=0.01)


def waiting(seed, customers, load):
    """Waiting times of an M/M/1 queue with service of mean 1, by Lindley's recursion, after a start from empty that is left out."""
    rng = np.random.default_rng(seed)
    change = rng.exponential(1, customers + 1000) - rng.exponential(1 / load, customers + 1000)
    walk = np.concatenate(([0.0], np.cumsum(change[:-1])))
    return (walk - np.minimum.accumulate(walk))[1000:]


def test_intervals_of_a_queue_hold_what_they_say():
    """M/M/1 at 70 %: mean wait ρ / (1 − ρ), P(wait > t) = ρ exp(−(1 − ρ) t); 90 % intervals shall hold it in 85 … 95 % of 200 runs."""
    load = 0.7
    true = {q: np.log(load / (1 - q)) / (1 - load) for q in (0.5, 0.9, 0.95, 0.99)}
    runs = [waiting(seed, 20_000, load) for seed in range(200)]
    found = [dict(zip(true, percentile_intervals(run, tuple(true), 0.9), strict=True)) for run in runs]
    held = {q: np.mean([run[q].low <= value <= run[q].high for run in found]) for q, value in true.items()}
    held["mean"] = np.mean([low <= load / (1 - load) <= high for _, low, high in map(mean_interval, runs)])
    assert {name: share for name, share in held.items() if not 0.85 <= share <= 0.95} == {}
    apart = [percentile_interval(run, 0.95, correlated=False) for run in runs]
    assert np.mean([low <= true[0.95] <= high for _, low, high in apart]) < 0.6  # as if waits did not depend on each other


def test_a_run_that_is_too_short_has_no_interval():
    values = np.arange(1999.0)
    assert all(isnan(end) for end in percentile_interval(values, 0.95)[1:])
    assert np.isfinite(percentile_interval(np.arange(2000.0), 0.95)).all()
    assert isnan(mean_interval(values[:999]).low)
    assert mean_interval([3.0], correlated=False)[0] == 3


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mean_interval([]), "values are []"),
        (lambda: mean_interval([1, nan]), "values are [1, nan]"),
        (lambda: mean_interval("ab"), "values are 'ab'"),
        (lambda: mean_interval([1, 2], confidence=90), "confidence is 90; it must be a share between 0 and 1"),
        (lambda: percentile_interval([1, 2], 99), "q is 99; it must be a share between 0 and 1"),
        (lambda: times().statistics(confidence=1), "confidence is 1"),
    ],
)
def test_what_has_no_interval_is_said_in_a_sentence(call, sentence):
    with pytest.raises(InvalidValueError) as caught:
        call()
    assert sentence in str(caught.value)
