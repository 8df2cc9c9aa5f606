"""Constants of an engine from a measured run: `fit_service` finds those that a run was made with, and says what a run cannot be."""

from dataclasses import replace

import numpy as np
import pytest

from roofline import Deployment, StepTime, ask_again, plan
from roofline.errors import CalibrationError, InvalidValueError, UnknownNameError
from roofline.requests import RequestTimes, Workload
from roofline.serving import (
    Load,
    Rules,
    ServiceFit,
    compile_ranks,
    compile_steps,
    fit_service,
    load_service_fit,
    max_rate,
    serving_estimate,
    simulate,
)
from roofline.serving.steps.beyond import add_to_ranks, add_to_steps

pytestmark = pytest.mark.slow

RULES = Rules("vllm", step_tokens=2048, sequences=64, kv_blocks=3000)
DEPLOYMENT = Deployment("llama-3.1-8b", "h100-sxm")
TRUTH = {"step_s": 3e-3, "sequence_s": 5e-5, "token_s": 2e-5}


def floor():
    return compile_steps(StepTime(DEPLOYMENT, "floor"), RULES)


def a_run(constants, *, requests=60, rate=3.0):
    """Times of requests on an engine with known constants."""
    random = np.random.default_rng(0)
    workload = Workload(
        prompt=random.integers(100, 3000, requests),
        output=random.integers(20, 200, requests),
        arrival_s=np.cumsum(random.exponential(1 / rate, requests)),
    )
    steps = add_to_steps(floor(), constants)
    request_s = constants.get("request_s", 0.0)
    return simulate(DEPLOYMENT, workload, rules=RULES, step_s=steps, request_s=request_s, token_times=False).times


@pytest.fixture(scope="module")
def run():
    return a_run(TRUTH)


@pytest.fixture(scope="module")
def fit(run):
    return fit_service(run, DEPLOYMENT, rules=RULES)


@pytest.mark.parametrize(
    "truth",
    [TRUTH, {"step_s": 3e-3, "context_s": 2e-8, "token_s": 2e-5}, {"step_s": 3e-3, "token_s": 2e-5, "request_s": 0.02}],
    ids=lambda truth: "+".join(truth),
)
def test_constants_of_a_simulated_run_are_found(truth):
    """The expected values are those that the run was made with; schedules are discrete, so that near ones fit as well."""
    found = fit_service(a_run(truth), DEPLOYMENT, rules=RULES, constants=tuple(truth))
    assert {name: one.value for name, one in found.constants.items()} == pytest.approx(truth, rel=0.04)
    assert max(abs(error.mean) for error in found.errors) < 0.005


def test_a_constant_without_effect_is_zero_and_noted():
    found = fit_service(a_run({"step_s": 3e-3}), DEPLOYMENT, rules=RULES, constants=("step_s", "token_s"))
    assert found.constants["token_s"].value == pytest.approx(0, abs=2e-7)
    assert found.constants["step_s"].value == pytest.approx(3e-3, rel=0.01)


def test_others_count_with_their_lengths_alone(run):
    """Half of the requests have no times: the fit is that of the others, in the traffic of all."""
    known = np.arange(0, 60, 2)
    hidden = np.full(60, np.nan)
    hidden[known] = 0
    partly = replace(run, first_token_s=run.first_token_s + hidden, finish_s=run.finish_s + hidden)
    found = fit_service(partly, DEPLOYMENT, rules=RULES, requests=known.tolist())
    assert found.constants["step_s"].value == pytest.approx(TRUTH["step_s"], rel=0.04)
    assert found.fitted == 30
    assert found.requests == 60
    assert {error.requests for error in found.errors} == {"fitted", "all"}


def test_records_in_any_order_give_the_same_fit(run, fit):
    rows = [
        {"input_toks": p, "output_toks": o, "sent_s": 7 + s, "first_token_s": 7 + f, "finish_s": 7 + e}
        for p, o, s, f, e in zip(
            run.workload.prompt.tolist(),
            run.workload.output.tolist(),
            run.sent_s.tolist(),
            run.first_token_s.tolist(),
            run.finish_s.tolist(),
            strict=True,
        )
    ]
    found = fit_service(rows[::-1], DEPLOYMENT, rules=RULES)
    assert found.values() == pytest.approx(fit.values(), rel=0.01)


def test_no_step_is_faster_than_its_floor(fit):
    seconds, least = fit.step_s(), floor()
    for load in (Load(1, 0), Load(64, 64 * 4000), Load(0, 0, 1, 2048, 2048 * 1024, 1), Load(30, 30_000, 2, 500, 70_000, 1)):
        assert seconds(load) >= least(load)


def test_the_busiest_rank_pays_the_constants():
    """Two ranks, of 1 and 3 sequences: 2 s of the kernels and 10 + 3 s beyond them."""
    seconds = add_to_ranks(lambda loads: 2.0, {"step_s": 10.0, "sequence_s": 1.0})
    assert seconds((Load(1, 5), Load(3, 5))) == 15.0


def test_a_saved_fit_is_the_same_and_belongs_to_its_deployment(fit):
    again = load_service_fit(fit.to_json(), DEPLOYMENT)
    assert isinstance(again, ServiceFit)
    assert again == fit
    assert again.step_s()(Load(8, 8000)) == fit.step_s()(Load(8, 8000))
    with pytest.raises(CalibrationError, match="hardware differ"):
        load_service_fit(fit.to_json(), Deployment("llama-3.1-8b", "h200-sxm"))
    for junk in ("{}", "[1]", "no JSON", {"rules": 3}):
        with pytest.raises(CalibrationError, match="no saved service fit"):
            load_service_fit(junk, DEPLOYMENT)


def test_a_fit_beyond_an_estimate_keeps_its_record():
    found = fit_service(a_run({"step_s": 2e-2}), DEPLOYMENT, rules=RULES, basis="estimate", constants="step_s")
    again = load_service_fit(found.to_json(), DEPLOYMENT)
    assert again.calibration is not None
    assert again == found
    assert again.step_s()(Load(8, 8000)) == found.step_s()(Load(8, 8000))


def test_another_deployment_has_the_same_constants_on_its_own_floor(fit):
    other = Deployment("llama-3.1-8b", "h200-sxm")
    own = compile_steps(StepTime(other, "floor"), RULES)
    load = Load(8, 8000)
    added = fit.step_s()(load) - floor()(load)
    assert fit.step_s(other)(load) - own(load) == pytest.approx(added)


def test_it_says_how_good_it_is(fit):
    text = str(fit)
    assert "3 constants beyond the floor, from 60 of 60 requests" in text
    assert "step_s: 3" in text
    assert fit.to_dict()["constants"]["token_s"]["unit"] == "s/token"


LIMITS = {"step_tokens": 2048, "sequences": 64, "kv_blocks": 3001}  # vLLM's null block is one of these


@pytest.fixture(scope="module")
def with_request():
    """A run with known constants, what a request takes before the engine knows it among them; and what was found in it."""
    truth = {**TRUTH, "request_s": 0.02}
    return truth, fit_service(a_run(truth), DEPLOYMENT, rules=RULES, constants=tuple(truth))


def test_a_simulation_with_a_fit_is_one_with_the_constants_of_the_run(with_request):
    """Held against other traffic, served with the constants themselves."""
    truth, fit = with_request
    traffic = Workload.generated(300, prompt=800, output=100, arrivals=4.0, seed=3)
    wanted = simulate(DEPLOYMENT, traffic, rules=RULES, step_s=add_to_steps(floor(), truth), request_s=0.02).times
    found = simulate(DEPLOYMENT, traffic, rules=RULES, fit=fit)
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        assert getattr(found.times, name).mean() == pytest.approx(getattr(wanted, name).mean(), rel=0.01)
    assert found.ttft_parts()["host_s"][0] == pytest.approx(0.02, rel=0.04)
    assert any("fitted: llama-3.1-8b on h100-sxm, vllm: 4 constants beyond the floor" in note for note in found.notes)
    assert simulate(DEPLOYMENT, traffic, rules=RULES, fit=fit, request_s=0.0).ttft_parts()["host_s"][0] == 0


def test_closed_forms_with_a_fit_are_near_the_simulation_with_the_constants(with_request):
    truth, fit = with_request
    traffic = Workload.generated(1000, prompt=800, output=100, arrivals=4.0, seed=3)
    wanted = simulate(DEPLOYMENT, traffic, rules=RULES, step_s=add_to_steps(floor(), truth), request_s=0.02, token_times=False).times
    found = serving_estimate(DEPLOYMENT, prompt=800, output=100, rate=4.0, fit=fit, **LIMITS)
    assert found.tpot_s == pytest.approx(wanted.tpot_s.mean(), rel=0.03)
    assert found.ttft_s == pytest.approx(wanted.ttft_s.mean(), rel=0.05)
    assert found.host_s == fit.request_s
    assert "floor and fitted constants" in str(found)
    alone = serving_estimate(DEPLOYMENT, prompt=800, output=100, rate=4.0, basis="floor", **LIMITS)
    assert found.step_s - alone.step_s > TRUTH["step_s"]


def test_questions_with_a_fit_are_asked_again(fit):
    found = serving_estimate(DEPLOYMENT, prompt=[100, 800], output=100, rate=2.0, fit=fit)
    assert ask_again(found.to_json()) == found
    most = max_rate(DEPLOYMENT, slo={"tpot_s": 0.02}, prompt=800, output=100, fit=fit)
    assert ask_again(most.to_json()) == most
    assert most.rate < max_rate(DEPLOYMENT, slo={"tpot_s": 0.02}, prompt=800, output=100, basis="floor").rate


def test_a_plan_with_a_fit_has_its_times(with_request):
    _, fit = with_request
    traffic = Workload.generated(400, prompt=800, output=100, arrivals=4.0, seed=3)
    asked = {"slo": {"ttft_s": 1.0, "tpot_s": 0.05}, "degrees": 1, "step_tokens": 2048, "sequences": 64}
    found = plan("llama-3.1-8b", traffic, machines="h100-sxm", fit=fit, **asked)
    own = simulate(DEPLOYMENT, traffic, fit=fit, step_tokens=2048, sequences=64, token_times=False)
    assert found.cheapest.trial.tpot_s == pytest.approx(own.steady[0].tpot_s.mean(), rel=1e-9)
    assert found.cheapest.trial.ttft_s == pytest.approx(own.steady[0].ttft_s.mean(), rel=1e-9)
    two = plan("llama-3.1-8b", traffic, machines=["h100-sxm", "h200-sxm"], fit=fit, simulated=0, **asked)
    assert any("a run with other hardware; its constants are taken to be the same" in note for note in two.notes)
    never = plan("llama-3.1-8b", traffic, machines="h100-sxm", fit=fit, **{**asked, "slo": {"tpot_s": 0.007}})
    assert "its floor of 4." in never.forbidden
    assert "does not forbid it" in never.forbidden


@pytest.mark.parametrize("beside", [True, False], ids=["prompts beside", "decodes alone"])
@pytest.mark.parametrize("data", [1, 2])
def test_tables_and_direct_times_of_a_fit_agree(fit, data, beside):
    """On data-parallel ranks with the same load each, and on the busiest of two."""
    time = fit.time(Deployment("llama-3.1-8b", "h100-sxm", data_parallel=data))
    prompts = (1, 512, 512 * 300 + 512 * 513 / 2, 1) if beside else (0, 0, 0, 0)
    load, groups = Load(16, 16_000, *prompts), np.array([16, int(beside)])
    assert compile_steps(time, RULES)(load) == pytest.approx(float(time(data * groups, [1, 512], [1000, 300])), rel=0.01)
    if data > 1:
        empty = Load(0, 0)
        both = time([[groups, 0 * groups]], [1, 512], [1000, 300], ranks=True)
        assert compile_ranks(time, RULES)((load, empty)) == pytest.approx(float(both[0]), rel=0.01)


def test_a_fit_beyond_an_estimate_has_quantiles_and_intervals():
    fit = fit_service(a_run({"step_s": 2e-2}), DEPLOYMENT, rules=RULES, basis="estimate", constants="step_s")
    plain, slow = fit.time(), fit.time(quantile=0.9)
    assert plain.calibration == fit.calibration
    assert float(slow.decode(8, 8000)) > float(plain.decode(8, 8000))
    found = serving_estimate(DEPLOYMENT, prompt=800, output=100, rate=1.0, fit=fit).to_dict()
    assert found["tpot_low_s"] < found["tpot_s"] < found["tpot_high_s"]
    assert found["tpot_low_s"] > fit.constants["step_s"].value


MISUSED = {
    "another engine": ({"engine": "sglang"}, CalibrationError, "the fit is of vllm, and SGLang serves"),
    "another basis": ({"basis": "roofline"}, InvalidValueError, "beyond the floor: leave basis out"),
    "a calibration": ({"calibration": "generic"}, InvalidValueError, "calibration and fit cannot be given together"),
    "a quantile of a floor": ({"quantile": 0.9}, InvalidValueError, "only an estimate has them"),
    "no fit": ({"fit": "fit.json"}, InvalidValueError, "fit is 'fit.json'; it is what fit_service"),
}


@pytest.mark.parametrize(("asked", "error", "words"), MISUSED.values(), ids=MISUSED)
def test_what_cannot_be_asked_with_a_fit(fit, asked, error, words):
    asked, traffic = {"fit": fit, **asked}, Workload.generated(100, prompt=100, output=10, arrivals=1.0)
    with pytest.raises(error, match=words):
        serving_estimate(DEPLOYMENT, prompt=100, output=10, rate=1.0, **asked)
    with pytest.raises(error, match=words):
        simulate(DEPLOYMENT, traffic, **asked)
    with pytest.raises(error, match=words):
        plan("llama-3.1-8b", traffic, {"tpot_s": 0.1}, machines="h100-sxm", degrees=1, **asked)


def test_a_fit_is_of_one_model_and_of_a_deployment(fit):
    other, traffic = Deployment("qwen3-8b", "h100-sxm"), Workload.generated(100, prompt=100, output=10, arrivals=1.0)
    with pytest.raises(CalibrationError, match=r"the fit is of llama-3.1-8b, not of qwen3-8b"):
        serving_estimate(other, prompt=100, output=10, rate=1.0, fit=fit)
    with pytest.raises(InvalidValueError, match="leave step_s and prefill_step_s out"):
        simulate(DEPLOYMENT, traffic, fit=fit, step_s=floor())
    limits = serving_estimate(DEPLOYMENT, prompt=100, output=10, rate=1.0, fit=fit, sequences=32).notes
    assert any("not those of the run that was fitted" in note and "sequences 64, here 32" in note for note in limits)


WRONG = {
    "too few": ({"requests": 10}, CalibrationError, "10 requests are too few for 3 constants; at least 12"),
    "no such request": ({"requests": [*range(12), 60]}, InvalidValueError, "there are 60 requests, counted from 0"),
    "unknown constant": ({"constants": ("step",)}, UnknownNameError, "step_s"),
    "the same twice": ({"constants": ("step_s", "step_s")}, InvalidValueError, "once"),
    "rules and options": ({"kv_blocks": 30}, InvalidValueError, "give either rules or kv_blocks"),
    "calibration of a floor": ({"calibration": "generic"}, InvalidValueError, "only an estimate"),
    "too slow a basis": ({"basis": "estimate"}, CalibrationError, "take basis='floor'"),
}


@pytest.mark.parametrize(("asked", "error", "words"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_asked(run, asked, error, words):
    times = a_run({}) if "basis" in asked else run
    with pytest.raises(error, match=words):
        fit_service(times, DEPLOYMENT, rules=RULES, **asked)


def without(run, **changed):
    return RequestTimes(
        **{name: getattr(run, name) for name in ("workload", "sent_s", "start_s", "cached", "preemptions", "replica")},
        **{"first_token_s": run.first_token_s, "finish_s": run.finish_s, **changed},
    )


def test_runs_that_cannot_be(run):
    first, last = run.first_token_s.copy(), run.finish_s.copy()
    first[3] = last[3] = np.nan
    with pytest.raises(CalibrationError, match="1 of 60 requests have no first or no last token, request 3"):
        fit_service(without(run, first_token_s=first, finish_s=last), DEPLOYMENT, rules=RULES)
    with pytest.raises(CalibrationError, match="of 2 replicas"):
        fit_service(replace(run, replica=np.arange(60) % 2), DEPLOYMENT, rules=RULES)
    with pytest.raises(CalibrationError, match="the answer of request 0 takes no time"):
        fit_service(without(run, finish_s=run.first_token_s), DEPLOYMENT, rules=RULES)
    with pytest.raises(CalibrationError, match="request 0 had its first token when it was sent"):
        fit_service(without(run, first_token_s=run.sent_s), DEPLOYMENT, rules=RULES)
    with pytest.raises(CalibrationError, match=r"faster than its floor: .* number format"):
        fit_service(run, Deployment("llama-3.1-70b", "h200-sxm"), rules=RULES)
    with pytest.raises(InvalidValueError, match="never fits"):
        fit_service(run, DEPLOYMENT, rules=replace(RULES, kv_blocks=50))


@pytest.mark.slow
@pytest.mark.parametrize("which", [range(30), range(0, 300, 10)], ids=["first 30", "every tenth"])
@pytest.mark.parametrize("place", [0, 1], ids=["RTX 4090", "RTX PRO 6000"])
def test_thirty_requests_tell_the_times_of_three_hundred(import_benchmark, place, which):
    """Published runs of vLLM 0.19.0 (casys-kaist/LLMServingSim): means within 2 % and 99th percentiles within 3 %, of all requests and of those held out."""
    runs = import_benchmark("served_runs")
    fit = runs.fitted(runs.RUNS[place], which)
    judged = [error for error in fit.errors if error.requests != "fitted"]
    assert max(abs(error.mean) for error in judged) < 0.02
    assert max(abs(error.p99) for error in judged) < 0.03
