"""Workloads: from traces and results of benchmark clients, from generators, and from users who converse."""

import gzip
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline import Arrivals, InvalidValueError, Lengths, Workload

DRAWS = 200_000


@pytest.fixture
def data(repository):
    return repository / "tests" / "data" / "requests"


# ------------------------------------------------------------------------------------------------------------------ traces


def test_azure_trace(data):
    """The first rows of the file: 18:15:46.6805900, 374, 44 and 18:15:50.9951690, 396, 109."""
    trace = Workload.from_trace(data / "azure_llm_2023_conv_head.csv")
    assert len(trace) == 40
    assert trace.prompt[:2].tolist() == [374, 396]
    assert trace.output[:2].tolist() == [44, 109]
    assert trace.arrival_s[:2].tolist() == pytest.approx([0, 4.314579], abs=1e-6)
    assert trace.source == "azure_llm_2023_conv_head.csv"


def test_mooncake_trace_is_in_milliseconds_and_numbers_incomplete_blocks(data):
    """The first prompt, 6,758 tokens, has 14 ids of blocks of 512 tokens; 13 of them are full. All share block 0."""
    trace = Workload.from_trace(data / "mooncake_conversation_head.jsonl")
    assert trace.arrival_s[[9, 10]].tolist() == [0, 3]
    assert trace.blocks[0] == tuple(range(13))
    assert trace.block_tokens == 512
    assert trace.repeated()[:3].tolist() == [0, 512, 512]


def test_measured_requests_are_a_trace(data):
    """Its publishers say: 300 requests, Poisson, about 10 per second."""
    path = data / "vllm_0.19.0_rtx_pro_6000_llama_3.1_8b.jsonl.gz"
    trace = Workload.from_trace(path)
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert trace.prompt.tolist() == [row["input_toks"] for row in rows]
    assert trace.arrival_s[1] == rows[1]["arrival_time"] - rows[0]["arrival_time"]
    assert 9 < trace.rate < 11


def test_any_csv_is_a_trace_once_its_columns_are_named(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("when_ms,question,answer\n500,10,3\n1500,20,4\n", encoding="utf-8")
    trace = Workload.from_trace(path, columns={"arrival_s": "when_ms", "prompt": "question", "output": "answer"}, clients=2)
    assert trace.arrival_s.tolist() == [0, 1]
    assert (trace.prompt.tolist(), trace.output.tolist(), trace.clients) == ([10, 20], [3, 4], 2)


def test_dates_with_a_zone_are_times():
    """The layout of Azure's traces of 2024."""
    rows = [{"TIMESTAMP": f"2024-05-10 00:00:{s}+00:00", "ContextTokens": 5, "GeneratedTokens": 1} for s in ("00.009930", "01.009930")]
    assert Workload.from_trace(rows).arrival_s == pytest.approx([0, 1], abs=1e-6)


def vllm_result(**changes):
    """What vllm bench serve --save-detailed writes of each request (vLLM 0.33.0, benchmarks/serve.py), as it lists them."""
    return {
        "duration": 4.0,
        "completed": 2,
        "input_lens": [100, 200, 50],
        "output_lens": [3, 2, 0],
        "start_times": [11.0, 10.0, 10.5],
        "ttfts": [0.5, 0.25, 0.0],
        "itls": [[0.1, 0.2], [0.5], []],
        "latencies": [0.8, 0.75, 0.0],
        "errors": ["", "", "timed out"],
    } | changes


def test_result_of_vllm_without_its_failed_requests():
    trace = Workload.from_trace(vllm_result())
    assert trace.prompt.tolist() == [200, 100]  # in the order in which they were sent
    assert trace.arrival_s.tolist() == [0, 1]
    assert trace.source == "rows (1 failed left out)"


def test_result_of_sglang_has_lengths_alone(tmp_path):
    """SGLang 0.5.23 (benchmark/serving.py) writes lengths with --output-details, and no times at which requests were sent."""
    path = tmp_path / "run.jsonl"
    result = {"request_rate": float("inf"), "max_concurrency": 64, "input_lens": [7, 8], "output_lens": [1, 2], "errors": ["", ""]}
    path.write_text(json.dumps(result), encoding="utf-8")
    trace = Workload.from_trace(path)
    assert (trace.prompt.tolist(), trace.arrival_s.tolist(), trace.clients) == ([7, 8], [0, 0], 64)
    assert trace.source == "run.jsonl, times not stated"
    assert Workload.from_trace(path, clients=2).clients == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no requests"),
        ("a,b\n", "holds no requests"),
        ("[]", "holds no requests"),
        ("a,b\n1,2\n", "has no column of prompt or output lengths"),
        ("prompt,output\n1,x\n", "output of row 1 is 'x'"),
        ("prompt,output\n1,0\n", "output of row 1 is 0; it must be a whole number of at least 1."),
        ("prompt,output\n1,inf\n", "output of row 1 is 'inf'; it must be a finite number."),
        ("prompt,arrival_s,output\n1,0,1\n1,1\n", "trace.txt: row 2 has no output; every row must have it."),
        ("prompt,output\n-1,1\n", "prompt of row 1 is -1"),
        ("prompt,output\n1.5,1\n", "prompt of row 1 is 1.5"),
        ("prompt,output,timestamp\n1,1,5\n1,1,4\n", "request 1 arrives at 0 s, request 0 at 1 s; sort them by time."),
        ("prompt,output,timestamp\n1,1,nan\n", "row 1 has no arrival_s; every row must have it."),
        ("prompt,output,timestamp\n1,1,2024-01-01\n1,1,soon\n", "neither numbers nor dates throughout"),
        ('{"prompt": 1, "output": 1}\n{"prompt": 1}\n', "trace.txt: row 2 has no output; every row must have it."),
        ('{"prompt": 1, "output": 1}\n{"prompt"\n', "line 2 is no JSON"),
        ('{"completed": 3, "mean_ttft_ms": 4.5}', "holds no lengths of single requests; run vllm bench serve with --save-detailed"),
        ('{"input_lens": [1], "output_lens": [1]}\n{"input_lens": [1], "output_lens": [1]}', "holds the results of 2 runs"),
        ('{"input_lens": [1, 2], "output_lens": [1]}', "input_lens 2, output_lens 1"),
        ('{"input_lens": [1], "output_lens": [0], "errors": ["no"]}', "all 1 requests failed"),
        (
            '{"timestamp": 0, "input_length": 5000, "output_length": 1, "hash_ids": [0]}\n',
            "row 1 has 1 block, and a prompt of 5000 tokens has 9 full ones",
        ),
        ('{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": "[0, 1]"}\n', "blocks of row 1 are '[0, 1]'"),
    ],
)
def test_what_is_no_trace_is_said_in_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "trace.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidValueError) as caught:
        Workload.from_trace(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trace_that_cannot_be_read(tmp_path):
    with pytest.raises(InvalidValueError, match="cannot be read: No such file"):
        Workload.from_trace(tmp_path / "none.csv")
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b123")
    with pytest.raises(InvalidValueError, match="it is cut short"):
        Workload.from_trace(tmp_path / "bad.gz")
    (tmp_path / "bad.gz").write_bytes(gzip.compress(b"prompt,output")[:10] + bytes([255]) * 20)
    with pytest.raises(InvalidValueError, match="neither text nor a gzip file"):
        Workload.from_trace(tmp_path / "bad.gz")
    with pytest.raises(InvalidValueError, match="rows holds no requests"):
        Workload.from_trace(7)
    with pytest.raises(InvalidValueError, match="has no column 'promt'; it has prompt"):
        Workload.from_trace([{"prompt": 1, "output": 1}], columns={"prompt": "promt"})
    with pytest.raises(InvalidValueError, match="columns has no 'arrival'; it names arrival_s"):
        Workload.from_trace([{"prompt": 1, "output": 1}], columns={"arrival": "prompt"})


# --------------------------------------------------------------------------------------------------------------- workloads


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"prompt": []}, "prompt is empty; a workload has at least one request."),
        ({"prompt": [1, 2, 3]}, "output is an array of 2; it must hold one length for each of 3 requests."),
        ({"output": [1, 0]}, "output contains 0"),
        ({"output": "long"}, "output is 'long'"),
        ({"arrival_s": [2, 1]}, "request 1 arrives at 1 s, request 0 at 2 s; sort them by time."),
        ({"arrival_s": [0, float("inf")]}, "arrival_s contains inf, of request 1"),
        ({"arrival_s": [-1, 0]}, "arrival_s contains -1; it must be at least 0 s."),
        ({"arrival_s": "now"}, "arrival_s"),
        ({"clients": 0}, "clients is 0"),
        ({"after": [-1, 1]}, "after of request 1 is 1; it must be the index of an earlier request, 0 … 0, or -1."),
        ({"after": [1, -1]}, "after of request 0 is 1; it must be -1"),
        ({"think_s": 1.0}, "think_s needs after"),
        ({"after": [-1, 0], "think_s": [0, -1]}, "think_s contains -1"),
        ({"blocks": [(1,)]}, "they must be a sequence of ids for each of 2 requests."),
        (
            {"blocks": [(1, 2), ()]},
            "blocks of request 0 are 2 of 16 tokens, and prompt and answer have 25 tokens; full blocks alone have ids.",
        ),
        ({"priority": [1, float("nan")]}, "priority contains nan, of request 1"),
    ],
)
def test_what_is_no_workload_is_said_in_a_sentence(fields, sentence):
    with pytest.raises(InvalidValueError) as caught:
        Workload(**{"prompt": [20, 20], "output": [5, 5], "arrival_s": [0, 1]} | fields)
    assert sentence in str(caught.value)


def test_one_number_stands_for_all():
    workload = Workload(prompt=[1, 2], output=7, arrival_s=0)
    assert workload.output.tolist() == [7, 7]
    assert workload.rate == float("inf")
    assert str(workload) == "2 requests: prompts of 1.5 tokens, answers of 7"


def test_a_workload_keeps_what_it_was_made_of():
    prompt = np.array([1, 2])
    workload = Workload(prompt=prompt, output=1, arrival_s=0)
    prompt[0] = 9
    assert workload.prompt.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        workload.prompt[0] = 9
    assert pickle.loads(pickle.dumps(workload)).prompt.tolist() == [1, 2]


def test_scaling_changes_gaps_by_one_factor():
    scaled = Workload(prompt=1, output=1, arrival_s=[1, 2, 5]).scaled(rate=4)  # (3 − 1) / 4 s = 0.5 requests/s before
    assert scaled.arrival_s.tolist() == [0, 0.125, 0.5]
    assert scaled.rate == 4
    with pytest.raises(InvalidValueError, match="no rate to scale"):
        Workload(prompt=1, output=[1, 1], arrival_s=0).scaled(rate=4)


def test_a_part_of_a_workload_counts_from_its_beginning_and_knows_its_predecessors():
    whole = Workload(prompt=[1, 2, 3, 4], output=1, arrival_s=[0, 10, 20, 30], after=[-1, 0, 1, 2], think_s=1, blocks=[()] * 4)
    part = whole.between(10, 30)
    assert part.arrival_s.tolist() == [0, 10]
    assert part.after.tolist() == [-1, 0]
    assert part.prompt.tolist() == [2, 3]
    assert whole.take([0, 2]).after.tolist() == [-1, -1]
    with pytest.raises(InvalidValueError, match="no request arrives from 11 s to 20 s"):
        whole.between(11, 20)
    for wrong in ([], [4], [1, 1], [-1], [[0]], "all", [True]):
        with pytest.raises(InvalidValueError, match="which is"):
            whole.take(wrong)


def test_a_trace_is_resampled_in_pairs():
    trace = Workload(prompt=[1, 2, 3], output=[10, 20, 30], arrival_s=[0, 1, 5], blocks=[()] * 3)
    again = trace.resampled(30_000, arrivals=4.0, seed=1)
    assert (again.output == 10 * again.prompt).all()
    assert again.prompt.mean() == pytest.approx(2, rel=0.01)
    assert again.rate == pytest.approx(4, rel=0.02)
    assert again.prompt.tolist() == trace.resampled(30_000, seed=1).prompt.tolist()
    assert again.prompt.tolist() != trace.resampled(30_000, seed=2).prompt.tolist()


def test_hours():
    periods = Workload(prompt=[10, 20, 60], output=[1, 3, 5], arrival_s=[0, 3599, 7300]).by_hour()
    assert [(p.start_s, p.requests, p.rate) for p in periods] == [(0, 2, 2 / 3600), (3600, 0, 0), (7200, 1, 1 / 3600)]
    assert (periods[0].prompt, periods[0].output) == (15, 2)
    assert np.isnan(periods[1].prompt)
    with pytest.raises(InvalidValueError, match="more than a million"):
        Workload(prompt=1, output=1, arrival_s=[1e9]).by_hour(period_s=1)


# -------------------------------------------------------------------------------------------------------------- generators


@pytest.mark.parametrize(
    ("arrivals", "cv"),
    [
        (Arrivals.even(5), 0),
        (Arrivals.poisson(5), 1),
        (Arrivals.gamma(5, cv=0.5), 0.5),
        (Arrivals.gamma(5, cv=2), 2),
        (Arrivals.weibull(5, cv=0.5), 0.5),
        (Arrivals.weibull(5, cv=2), 2),
        # an interrupted Poisson process: cv² = 1 + 2 λ ω₁ / (ω₁ + ω₂)², λ within bursts, 1/ω₁ and 1/ω₂ mean bursts and silences
        # (W. Fischer and K. Meier-Hellstern, Performance Evaluation 18 (1993) 149–171)
        (Arrivals.on_off(5, on_s=1, off_s=1), (1 + 2 * 10 * 1 / 4) ** 0.5),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_gaps_have_the_mean_and_spread_asked(arrivals, cv):
    gaps = np.diff(Workload.generated(DRAWS, prompt=1, output=1, arrivals=arrivals).arrival_s)
    assert gaps.mean() == pytest.approx(1 / 5, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-6)


def test_rates_that_vary_repeat():
    arrivals = Arrivals.varying([1, 0, 5], period_s=100)
    periods = Workload.generated(DRAWS, prompt=1, output=1, arrivals=arrivals).by_hour(period_s=100)[:-1]
    assert arrivals.rate == 2
    for place, rate in enumerate((1, 0, 5)):
        assert np.mean([p.rate for p in periods[place::3]]) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(
    ("lengths", "mean", "quantiles"),
    [
        (Lengths.fixed(7), 7, {0.5: 7}),
        (Lengths.uniform(80, 100), 90, {0.05: 81, 0.5: 90, 0.95: 99}),
        (Lengths.lognormal(mean=1000, cv=1), 1000, {0.5: 1000 / 2**0.5}),  # median = mean / √(1 + cv²)
        (Lengths.lognormal(median=500, p95=3000), None, {0.5: 500, 0.95: 3000}),
        (Lengths.empirical([10, 10, 10, 50]), 20, {0.5: 10, 0.9: 50}),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_lengths_are_distributed_as_asked(lengths, mean, quantiles):
    drawn = Workload.generated(DRAWS, prompt=lengths, output=1).prompt
    assert drawn.mean() == pytest.approx(lengths.mean, rel=0.02)
    assert mean is None or lengths.mean == pytest.approx(mean)
    for q, value in quantiles.items():
        assert np.quantile(drawn, q) == pytest.approx(value, rel=0.02)


def test_log_normal_lengths_are_limited():
    drawn = Workload.generated(10_000, prompt=Lengths.lognormal(median=2, p95=100, most=50), output=1).prompt
    assert (drawn.min(), drawn.max()) == (1, 50)


@given(seed=st.integers(0, 2**32))
def test_equal_seeds_give_equal_requests_and_streams_do_not_touch(seed):
    def make(**changes):
        given = {"prompt": Lengths.uniform(1, 99), "output": Lengths.uniform(1, 99), "arrivals": 3.0, "seed": seed} | changes
        return Workload.generated(50, **given)

    first, other = make(), make(prompt=Lengths.lognormal(mean=9, cv=2))
    assert first.prompt.tolist() == make().prompt.tolist()
    assert first.arrival_s.tolist() == other.arrival_s.tolist()
    assert first.output.tolist() == other.output.tolist()
    assert first.arrival_s.tolist() != make(seed=seed + 1).arrival_s.tolist()
    assert make(arrivals=None).prompt.tolist() == first.prompt.tolist()
    assert not make(arrivals=None).arrival_s.any()


def test_system_prompts_are_shared_blocks():
    workload = Workload.generated(100, prompt=10, output=1, system_tokens=40, system_prompts=2)
    assert set(workload.prompt.tolist()) == {50}
    assert set(workload.blocks) == {(0, 1), (2, 3)}  # 40 tokens fill two blocks of 16


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Lengths.fixed(0), "length is 0"),
        (lambda: Lengths.uniform(5, 4), "least is 5 and most is 4"),
        (lambda: Lengths.lognormal(mean=5), "mean and cv, or median and p95"),
        (lambda: Lengths.lognormal(mean=5, cv=1, median=3), "mean and cv, or median and p95"),
        (lambda: Lengths.lognormal(median=5, p95=5), "the 95th percentile is the longer one"),
        (lambda: Lengths.lognormal(mean=-5, cv=1), "mean is -5"),
        (lambda: Lengths.empirical([]), "values is an empty array"),
        (lambda: Lengths.empirical([1, 0]), "values contains 0"),
        (lambda: Arrivals.poisson(0), "rate is 0"),
        (lambda: Arrivals.gamma(1, cv=float("nan")), "cv is nan"),
        (lambda: Arrivals.weibull(1, cv=1000), "of Weibull gaps it must be 0.01 … 100"),
        (lambda: Arrivals.on_off(1, on_s=0, off_s=1), "on_s is 0"),
        (lambda: Arrivals.varying([0, 0]), "one of them positive"),
        (lambda: Arrivals.varying(["a"]), "rates are ['a']"),
        (lambda: Workload.generated(0, prompt=1, output=1), "requests is 0"),
        (lambda: Workload.generated(1, prompt="long", output=1), "prompt is 'long'; it must be a whole number of at least 1, or Lengths."),
        (lambda: Workload.generated(1, prompt=1, output=1, arrivals=-3), "arrivals is -3; it must be a positive rate in requests/s"),
        (lambda: Workload.generated(1, prompt=1, output=1, seed=-1), "seed is -1"),
        (lambda: Workload.from_users(1, prompt=1, output=1, think_s=-1), "think_s is -1; it must be a finite number of at least 0 in s."),
    ],
)
def test_what_cannot_be_generated_is_said_in_a_sentence(make, sentence):
    with pytest.raises(InvalidValueError) as caught:
        make()
    assert sentence in str(caught.value)


# ------------------------------------------------------------------------------------------------------------------- users


def test_a_turn_repeats_the_conversation_so_far():
    """Two users, each 40 tokens of system prompt, then 100 new tokens and 50 of answer a turn: prompts of 140, 290 and 440 tokens."""
    talk = Workload.from_users(2, prompt=100, output=50, turns=3, think_s=5, system_tokens=40)
    assert talk.prompt.tolist() == [140, 290, 440] * 2
    assert talk.after.tolist() == [-1, 0, 1, -1, 3, 4]
    # 40 tokens fill 2 blocks of 16; what was said by the end of each answer fills 11, 21 and 30, of which the next prompt begins with all
    assert [len(ids) for ids in talk.blocks] == [11, 21, 30] * 2
    assert talk.blocks[1][:11] == talk.blocks[0]
    assert set(talk.blocks[2]) & set(talk.blocks[5]) == {0, 1}
    assert talk.repeated().tolist() == [0, 176, 336, 32, 176, 336]


def test_users_think_before_they_ask():
    talk = Workload.from_users(20_000, prompt=1, output=1, turns=2, think_s=3)
    thought = talk.think_s[talk.after >= 0]
    assert thought.mean() == pytest.approx(3, rel=0.03)
    assert thought.std() == pytest.approx(3, rel=0.05)  # exponential
    assert not talk.think_s[talk.after < 0].any()
    assert talk.arrival_s.mean() == pytest.approx(3, rel=0.03)  # before their first prompt too
    always = Workload.from_users(3, prompt=1, output=1, turns=2, think_s=3, think_cv=0)
    assert always.think_s.tolist() == [0, 3] * 3
    assert always.arrival_s.tolist() == [3] * 6


def test_conversations_may_begin_as_a_process():
    talk = Workload.from_users(1000, prompt=10, output=10, turns=Lengths.uniform(1, 5), arrivals=0.5, seed=3)
    begins = talk.arrival_s[talk.after < 0]
    assert begins.size == 1000
    assert begins[-1] == pytest.approx(2000, rel=0.1)
    assert len(talk) == pytest.approx(3000, rel=0.1)


@pytest.mark.parametrize(
    "draw", [lambda many: Workload.generated(many, prompt=1, output=1), lambda many: Workload.from_users(many, prompt=1, output=1)]
)
def test_more_requests_than_a_memory_holds_are_refused(draw):
    with pytest.raises(InvalidValueError, match=r"is 5,000,000,000; a workload has 100,000,000 requests at most"):
        draw(5 * 10**9)
