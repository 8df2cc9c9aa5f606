"""A result carries its question: its dict, its JSON and its records can be asked again, and a table shows what the numbers rest on."""

import json
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roofline
from roofline import (
    SLO,
    Deployment,
    Format,
    Hardware,
    InvalidValueError,
    MissingDependencyError,
    Model,
    RequestTimes,
    Rules,
    Step,
    StepTime,
    UnknownNameError,
    Workload,
    ask_again,
    attention_floor,
    check_table,
    collective_floor,
    critical_batch,
    decode_estimate,
    decode_floor,
    experts_floor,
    free_rows,
    journey,
    kernel_estimate,
    latent_attention_floor,
    levers,
    load_record,
    matmul_floor,
    max_rate,
    memory_limits,
    plan,
    prefill_estimate,
    prefill_floor,
    resident,
    rowwise_floor,
    serving_estimate,
    simulate,
    step_estimate,
    step_floor,
    sweep,
    utilization,
)
from roofline.floors import counted_floor
from roofline.ops import all_reduce
from roofline.results import Result

OWN_MODEL = Model.load("llama-3-8b").but(hidden_size=8192)
OTHER_POOL = Deployment("llama-3-8b", "h200", weights="fp8")
OWN_MACHINE = Hardware.load("h100-sxm").but(id="h100-sxm", aliases=())
MIXED = Step.decode(batch=np.array([1, 8]), context=1024) + Step.prefill(512)

RESULTS = {
    "decode": lambda: decode_floor("llama-3-8b", "h100", batch=[1, 8, 64], context=[[128], [8192]], weights="fp8", tensor_parallel=2),
    "bare rates": lambda: decode_floor("70B", memory_bandwidth=3e12, peak_flops_per_s=1e15, batch=[1, 2]),
    "components": lambda: decode_floor(
        "mixtral-8x7b", "h200", weights={"mlp.experts.up_proj": "fp8"}, kv=Format.load("fp8"), routing="power_law_1.2"
    ),
    "popularity": lambda: decode_floor("mixtral-8x7b", "h200", batch=4, routing=np.full(8, 1 / 8)),
    "prefill": lambda: prefill_floor("llama-3-8b", "mi300x", prompt=[100, 1000], cached=50, batch=2, logits="all"),
    "no logits": lambda: prefill_floor("llama-3-8b", "mi300x", prompt=1, logits="none"),
    "step": lambda: step_floor("llama-3-8b", "h100-sxm", MIXED, pipeline_parallel=2),
    "own model": lambda: decode_floor(OWN_MODEL, "h100-sxm", batch=8),
    "own number of parameters": lambda: decode_floor(Model.anonymous("70B").but(name="mine"), "h100-sxm"),
    "own machine": lambda: decode_floor("llama-3-8b", OWN_MACHINE, batch=8),
    "config": lambda: decode_floor("examples/llama-2-70b/config.json", "h100-sxm"),
    "deployment": lambda: decode_floor(Deployment("llama-3-8b", "h100-sxm", page=32, utilization=0.9), batch=3),
    "decode estimate": lambda: decode_estimate("gpt-oss-20b", "h100-sxm", batch=[1, 64], context=512, cuda_graph=False, interval=0.5),
    "generic estimate": lambda: decode_estimate("llama-3-8b", "mi300x"),
    "prefill estimate": lambda: prefill_estimate("llama-3-8b", "h100-sxm", prompt=2048, calibration="sglang"),
    "step estimate": lambda: step_estimate("llama-3-8b", "h100-sxm", MIXED),
    "own record": lambda: decode_estimate(
        "llama-3-8b", "h100-sxm", calibration=load_record("h100-sxm-vllm-0.24.0").model_copy(update={"id": "mine"})
    ),
    "matmul": lambda: matmul_floor([[1], [64]], [4096, 8192], 4096, "h100-sxm", format="fp8", output=Format.load("bf16")),
    "matmul on rates": lambda: matmul_floor(8, 8, k=8, format="bf16", memory_bandwidth=3e12),
    "attention": lambda: attention_floor([1, 64], 8192, "h100-sxm", heads=64, kv_heads=8, head_dim=128, kv="fp8", cache="cold"),
    "experts": lambda: experts_floor((1, 64), "h200", hidden=4096, intermediate=14336, count=8, top_k=2, format="bf16", routing=[0.25] * 8),
    "latent attention": lambda: latent_attention_floor(np.array([1, 64]), 8192, OWN_MACHINE, heads=16),
    "an id of the Hub": lambda: decode_floor("meta-llama/Meta-Llama-3-8B-Instruct", "8xH100", batch=2),
    "a sweep with a cache by its size": lambda: sweep("70B", "h200", batch=2, context=100, kv_bytes_per_token=327680),
    "collective": lambda: collective_floor("all-reduce", [2**20, 2**28], "h100-sxm", devices=16),
    "rows": lambda: rowwise_floor([64, 4096], 4096, "h100-sxm", format=np.float16, inputs=2, output="fp8", cache="cold"),
    "cache of a number": lambda: decode_floor("70B", "h200", context=[128, 8192], kv_bytes_per_token=327_680),
    "dtype": lambda: decode_floor("minimax-m2.5", "h100", tensor_parallel=4, dtype=np.float16, weights={"self_attn": "FP8"}),
    "kernel estimate": lambda: kernel_estimate(matmul_floor([64, 4096], 4096, 4096, "h100-sxm", format="bf16"), interval=0.5),
    "sweep": lambda: sweep("llama-3-8b", ["h100-sxm", OWN_MACHINE], batch=[1, 64], context=[1024], tensor_parallel=[1, 2], kv="fp8"),
    "sweep of rates": lambda: sweep("70B", batch=[1, 64], memory_bandwidth=3e12),
    "levers": lambda: levers("llama-3-8b", "h100-sxm", batch=8, context=1024, machines=["h200", "b200"], draft="1B", drafts=4),
    "levers of a prefill": lambda: levers("llama-3-8b", "h100-sxm", "prefill", prompt=1024, hit=0.25),
    "levers of a step": lambda: levers("llama-3-8b", "h100-sxm", Step.decode(batch=8) + Step.chunk(64)),
    "critical batch": lambda: critical_batch("llama-3-8b", "h100-sxm", context=[0, 128], weights="fp8"),
    "free rows": lambda: free_rows("llama-3-8b", "h100-sxm", batch=[1, 8], context=1024),
    "journey": lambda: journey("llama-3-8b", "h100-sxm", context=128, batches=[1, 64, 4096]),
    "resident": lambda: resident("llama-3-8b", "h100-sxm", batch=[1, 8], context=4096, shared_prefix=100, page=32),
    "mix": lambda: resident("llama-3-8b", memory_capacity=80e9, batch=2, context={1024: 3, 8192: 1}),
    "limits": lambda: memory_limits("llama-3-8b", "h100-sxm", batch=[1, 8], context=4096, at_most=4, reserve="2GB"),
    "limits of a mix": lambda: memory_limits("llama-3-8b", memory_capacity=80e9, batch=2, context={1024: 3, 8192: 1}),
    "limits without a memory": lambda: memory_limits("llama-3-8b"),
    "utilization": lambda: utilization(decode_floor("llama-3-8b", "h100-sxm", batch=[1, 8], context=1024), [0.008, 0.009]),
    "utilization of a kernel": lambda: utilization(matmul_floor(4096, 4096, 4096, "h100-sxm", format="bf16"), 310e-6),
    "utilization of a collective": lambda: utilization(collective_floor("all_reduce", 2**28, "h100-sxm", devices=8), 0.01),
    "table": lambda: StepTime(Deployment("llama-3-8b", "h100-sxm", weights="fp8"), quantile=0.9).table(batch=[1, 8], context=[128, 1024]),
    "serving": lambda: serving_estimate(
        "llama-3-8b", "h100-sxm", prompt=1024, output=256, rate=[1.0, 10.0], engine="sglang", weights="fp8"
    ),
    "serving by two pools": lambda: serving_estimate("llama-3-8b", "h100-sxm", prompt=1024, output=256, concurrency=8, prefill=OTHER_POOL),
    "largest rate": lambda: max_rate("llama-3-8b", "h100-sxm", slo={"tpot_s": 0.02}, prompt=[100, 1024], output=256),
    "table of floors": lambda: StepTime(Deployment("llama-3-8b", "h100-sxm"), "floor").table(batch=1, context=0),
}
NOT_BY_RECORD = {"serving by two pools", "own model", "own number of parameters", "own machine", "own record", "latent attention", "sweep"}


@cache
def result_of(name):
    return RESULTS[name]()


@pytest.fixture(params=RESULTS)
def named(request):
    return request.param, result_of(request.param)


def alike(a, b):
    """Whether two records are the same but for rounding: a point alone is summed as Python numbers."""
    close = {key: pytest.approx(value, rel=1e-12, nan_ok=True) if isinstance(value, float) else value for key, value in b.items()}
    return a == close


def same(a, b):
    return json.dumps(a) == json.dumps(b)


def test_a_result_asked_again_from_its_json_is_the_same_result(named):
    _, result = named
    data = result.to_dict()
    assert list(data)[:3] == ["schema_version", "question", "inputs"]
    again = ask_again(result.to_json())
    assert again == result
    assert hash(again) == hash(result)
    assert same(again.to_dict(), data) or without_alias(again.to_dict()) == without_alias(data)
    assert same(ask_again(data).to_dict()["inputs"], data["inputs"])


def without_alias(data):
    """The data without what is said of the name that the caller used for a machine, which a saved result calls by its id."""
    return data | {k: [note for note in data[k] if "is read as" not in note] for k in ("assumptions", "notes") if k in data}


def test_a_record_asked_again_gives_its_own_point(named):
    name, result = named
    if name in NOT_BY_RECORD:
        return
    records = result.to_records()
    record = records[-1]
    assert next(iter(record)) == "question"
    again = ask_again(json.loads(json.dumps(record)))
    if name.startswith("levers"):  # a row for every lever
        assert [r["name"] for r in again.to_records()] == [r["name"] for r in records]
        return
    (point,) = again.to_records()
    assert alike(point, record)


@pytest.mark.parametrize("name", sorted(NOT_BY_RECORD))
def test_a_record_says_plainly_that_a_model_machine_or_calibration_has_no_name(name):
    record = result_of(name).to_records()[-1]
    with pytest.raises(InvalidValueError, match=r"\(own description\)'.*save to_dict\(\) or to_json\(\)"):
        ask_again(record)


def test_every_public_function_that_returns_a_result_is_tried_here():
    asked = {type(result_of(name)).__name__ for name in RESULTS}
    results = {n for n in roofline.__all__ if isinstance(thing := getattr(roofline, n), type) and issubclass(thing, Result)}
    assert results - asked == {
        "Plan",
        "TableCheck",
        "RequestTimes",
        "ServiceFit",
        "ServingMeasurement",
        "Simulation",
    }  # their questions are a file, or requests


@settings(max_examples=30, deadline=None)
@given(
    batch=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    context=st.integers(0, 10_000),
    options=st.fixed_dictionaries(
        {},
        optional={
            "weights": st.sampled_from(["fp8", "int4", {"*": "fp8", "lm_head": "bf16"}]),
            "kv": st.sampled_from(["fp8", "bf16"]),
            "tensor_parallel": st.sampled_from([1, 2, 8]),
            "fusion": st.sampled_from(["none", "full"]),
            "utilization": st.sampled_from([0.9, 1]),
        },
    ),
    asked=st.sampled_from([decode_floor, decode_estimate, free_rows, resident]),
)
def test_whatever_is_asked_can_be_asked_again(batch, context, options, asked):
    if asked is resident:
        options.pop("fusion", None)
    result = asked("llama-3-8b", "h100-sxm", batch=batch, context=context, **options)
    assert same(ask_again(result.to_json()).to_dict(), result.to_dict())
    assert [r["batch"] for r in result.to_records()] == batch
    assert alike(ask_again(result.to_records()[-1]).to_records()[0], result.to_records()[-1])


def test_inputs_come_first_then_values_then_calibration():
    columns = list(decode_estimate("llama-3-8b", "h100-sxm", batch=8, kv="fp8").to_records()[0])
    assert columns[:6] == ["question", "model", "hardware", "batch", "context", "cuda_graph"]
    assert columns.index("kv") < columns.index("time_s")
    assert columns[-2:] == ["calibration", "constants"]


def test_a_generic_row_shows_beside_a_calibrated_one():
    own, generic = (decode_estimate("llama-3-8b", machine) for machine in ("h100-sxm", "mi300x"))
    assert [r["calibration"] for e in (own, generic) for r in e.to_records()] == ["h100-sxm-vllm-0.24.0", "generic"]
    assert (own.constants.partition(":")[0], generic.constants) == ("borrowed", "generic")
    assert "per sequence are of the profile of vLLM" in own.to_records()[0]["constants"]
    assert "generic constants" in repr(generic)
    assert "generic" not in repr(own)
    kernel = matmul_floor(4096, 4096, 4096, "h100-sxm", format="bf16")
    assert kernel_estimate(kernel).to_records()[0]["constants"] == "own"
    assert "generic constants" in repr(kernel_estimate(kernel, calibration="generic"))
    table = StepTime(Deployment("llama-3-8b", "mi300x")).table(batch=[1, 2], context=0)
    assert {r["constants"] for r in table.to_records()} == {"generic"}
    assert "generic constants" in repr(table)


def test_arrays_that_change_later_do_not_change_a_question():
    m, batch = np.array([1, 2]), np.array([1, 8])
    floor, step = matmul_floor(m, 64, 64, "h100-sxm", format="bf16"), decode_floor("llama-3-8b", "h100-sxm", batch=batch)
    m[0] = batch[0] = 1000
    assert (floor.to_dict()["inputs"]["m"], step.to_dict()["inputs"]["batch"]) == ([1, 2], [1, 8])


def test_records_become_a_frame():
    pandas = pytest.importorskip("pandas")
    floor = decode_floor("llama-3-8b", "h100-sxm", batch=[1, 8])
    frame = floor.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.to_dict("records") == floor.to_records()
    both = pandas.concat([frame, prefill_floor("llama-3-8b", "h100-sxm", prompt=100).to_frame()])
    assert ask_again(both.to_dict("records")[0]) == decode_floor("llama-3-8b", "h100-sxm", batch=1)  # empty cells are no inputs


def test_without_pandas_a_frame_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pandas"):
        decode_floor("llama-3-8b", "h100-sxm").to_frame()


@pytest.mark.parametrize("saved", ["", "nonsense", "[1]", {}, 7, None, {"question": 3}])
def test_what_is_no_saved_result_is_refused(saved):
    with pytest.raises(InvalidValueError, match="saved result"):
        ask_again(saved)


def test_a_saved_question_that_is_not_known_is_refused():
    with pytest.raises(UnknownNameError, match="decode_floor"):
        ask_again({"question": "decode_flor", "inputs": {}})


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_a_saved_result_of_another_schema_is_refused(version):
    data = decode_floor("llama-3-8b", "h100-sxm").to_dict() | {"schema_version": version}
    with pytest.raises(InvalidValueError, match=r"^schema_version is .*; this version reads saved results of schema_version 1\.$"):
        ask_again(data)


def test_results_of_other_questions_or_values_are_not_equal():
    floor, estimate = decode_floor("llama-3-8b", "h100-sxm"), decode_estimate("llama-3-8b", "h100-sxm")
    assert floor != decode_floor("llama-3-8b", "h100-sxm", batch=2)
    assert estimate != decode_estimate("llama-3-8b", "h100-sxm", calibration="sglang")
    assert estimate != decode_estimate("llama-3-8b", "h100-sxm", interval=0.5)
    assert estimate != floor
    assert utilization(floor, 0.01) != utilization(floor, 0.02)
    assert len({estimate, decode_estimate("Llama 3 8B", "H100 SXM"), floor}) == 2


def test_checks_of_one_table_are_equal():
    table = {"m": [16, 32], "n": [4096, 4096], "k": [4096, 4096], "dtype": ["bf16", "bf16"], "time_us": [12, 13]}
    check = check_table(table, "h100-sxm")
    assert check == check_table(dict(table), "h100-sxm")
    assert check != check_table({**table, "time_us": [12, 14]}, "h100-sxm")


def test_the_floor_of_an_operator_has_no_question():
    floor = counted_floor(all_reduce("all_reduce", 450_000_000, ranks=8, domain=8), Hardware.load("h100-sxm"))
    assert "question" not in floor.to_dict()
    assert next(iter(floor.to_records()[0])) == "time_s"


def test_questions_that_are_answered_by_a_number_can_be_asked_again():
    asked = {"question": "max_batch", "inputs": {"model": "llama-3-8b", "memory_capacity": 80e9, "context": 8192}}
    assert ask_again(json.dumps(asked)) == 59  # (80e9 - 16.06e9) / (8192 * 131,072 B)
    mix = {"question": "fewest_devices", "inputs": {"model": "llama-3-70b", "memory_capacity": 80e9, "context": {"8192": 32}}}
    assert ask_again(json.dumps(mix)) == 4  # 141 GB of weights and 86 GB of cache on devices of 80 GB


def test_what_functions_are_given_is_made_again_of_its_json():
    rules = Rules("sglang", 2048, 256, 1000, prefix_caching=True, notes=("said",))
    slo = SLO(ttft_s=1, itl_s=0.05, percentile=0.95)
    for one in (rules, slo):
        again = type(one)(**json.loads(one.to_json()))
        assert again == one
        assert again.to_dict() == one.to_dict()
    work = Workload.from_users(3, prompt=100, output=20, turns=3, think_s=1.0, system_tokens=64, seed=1)
    again = Workload(**json.loads(work.to_json()))
    assert again.to_dict() == work.to_dict()
    assert again.blocks == work.blocks
    assert (again.after == work.after).all()


def test_what_does_not_hold_its_requests_says_why_it_cannot_be_asked_again():
    times = RequestTimes.from_records([{"prompt": 10, "output": 2, "sent_s": 0.0, "first_token_s": 1.0, "finish_s": 2.0}])
    with pytest.raises(InvalidValueError, match=r"does not hold its requests, .* call RequestTimes\.from_records with them"):
        ask_again(times.to_json())


FEW = Workload.from_users(12, prompt=300, output=20, turns=2, think_s=0.5, system_tokens=64, seed=1)


def asked_again(result):
    again = ask_again(result.to_json())
    assert again.to_dict() == result.to_dict()
    assert again.to_records() == result.to_records()
    return again


@pytest.mark.parametrize(
    "asked",
    [
        {"deployment": Deployment("llama-3.1-8b", "h100-sxm", weights="fp8"), "replicas": 2, "router": "least loaded", "seed": 3},
        {"deployment": [Deployment("llama-3.1-8b", machine) for machine in ("h100-sxm", "l40s")], "replicas": [1, 2], "kv_blocks": 2000},
        {"deployment": Deployment("llama-3.1-8b", "l40s"), "prefill_replicas": 1, "link_bandwidth": "50GB/s", "basis": "floor"},
        {"deployment": Deployment("llama-3.1-8b", "h100-sxm"), "rules": Rules("sglang", 2048, 64, 30_000), "drafts": None},
        {"deployment": Deployment("llama-3.1-8b", "h100-sxm"), "drafts": 2, "acceptance": [0.8, 0.5], "warm_up_s": 0.1},
    ],
)
def test_a_saved_simulation_is_asked_again(asked):
    asked = {name: value for name, value in asked.items() if value is not None}
    asked_again(simulate(workload=FEW, **asked))


@pytest.mark.parametrize(
    "asked",
    [
        {
            "machines": ["h100-sxm", Hardware.load("l40s")],
            "formats": [None, {"weights": "fp8", "kv": "fp8"}],
            "prices": {"H100 SXM": 2, "l40s": 1},
        },
        {
            "machines": "h100-sxm",
            "degrees": 1,
            "kv_blocks": 2000,
            "sequences": [None, 32],
            "head_room": 0.2,
            "spare": 1,
            "utilization": 0.8,
        },
        {"machines": "h100-sxm", "pools": ["one", "two"], "degrees": [1, {"tensor_parallel": 2}], "basis": "roofline", "simulated": 2},
    ],
)
def test_a_saved_plan_is_asked_again(asked):
    work = Workload.generated(200, prompt=300, output=20, arrivals=20.0, seed=1)
    found = plan("llama-3.1-8b", work, {"ttft_s": 0.5, "tpot_s": 0.05}, **asked)
    again = asked_again(found)
    assert str(again) == str(found)
    assert found.again(found.asked).question() is None


def test_what_was_asked_with_a_function_says_that_it_cannot_be_asked_again():
    one = Workload(prompt=100, output=10, arrival_s=[0.0])
    timed = simulate(None, one, rules=Rules("vllm", 2048, 256, 1000), step_s=lambda load: 0.01)
    routed = plan("llama-3.1-8b", FEW, {"ttft_s": 1.0}, machines="h100-sxm", degrees=1, router=lambda request, seen: 0)
    for result, name in ((timed, "simulate"), (routed, "plan")):
        with pytest.raises(InvalidValueError, match=f"does not hold its question, which had a function in it.*: call {name} again"):
            ask_again(result.to_json())
