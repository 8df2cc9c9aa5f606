"""A measurement beside its estimate and floor: what it is of, where it was taken, what lies between, and what explains a time below the floor."""

import json
import math
from pathlib import Path

import pytest

from roofline import (
    Deployment,
    InvalidValueError,
    UnknownOptionError,
    Workload,
    decode_estimate,
    decode_floor,
    max_batch,
    prefill_floor,
    serving_estimate,
    simulate,
    step_floor,
)
from roofline.measured import Latency, Part, ServingMeasurement, compare, engine_window, read_metrics
from roofline.measured.gaps import remainder
from roofline.step import Step


def per_token(ms, **more):
    return Latency("per token after the first", "request", mean_s=ms / 1e3, **more)


def gaps(ms, **more):
    return Latency("gap of chunks", "chunk", median_s=ms / 1e3, **more)


def first(ms, **more):
    return Latency("first token", "request", mean_s=ms / 1e3, **more)


def run(**more):
    return ServingMeasurement(source="my client", **more)


def decode(batch, context, **times):
    return run(batch=batch, cached_context=context, **times)


H200 = {"model": "llama-3.3-70b", "hardware": "h200-sxm", "tensor_parallel": 4, "engine": "sglang"}


def sglang(rate, ttft_ms, itl_ms, e2e_ms, duration_s, requests, inputs, outputs):
    """Return a run of datacrunch-research/h200-benchmarks (SGLang 0.4, Llama-3.3-70B, lengths uniform in 1 … 1024), by the figures of its file."""
    return run(
        engine="sglang",
        duration_s=duration_s,
        completed=requests,
        prompt=inputs / requests,
        output=outputs / requests,
        cached_context=1024 / 2 + 1024 / 3,  # who answers longer is met more often: N/2 + N/3 for uniform lengths
        request_rate=rate,
        concurrency=requests * e2e_ms / 1e3 / duration_s,
        requests_per_s=requests / duration_s,
        ttft=Latency("first token", "request", median_s=ttft_ms / 1e3),
        itl=gaps(itl_ms),
        e2e=Latency("end to end", "request", mean_s=e2e_ms / 1e3),
    )


RATE_1 = sglang(1.0, 85.745, 13.639, 7840.6, 298.37, 300, 152_612, 160_347)
RATE_4 = sglang(4.0, 106.06, 19.420, 12896.3, 296.86, 1200, 615_860, 607_936)
RATE_8 = sglang(8.0, 191.41, 70.763, 52064.8, 346.78, 2400, 1_222_995, 1_218_922)
RATE_16 = sglang(16.0, 614.25, 179.121, 149037.3, 383.07, 3200, 1_629_242, 1_642_637)


# Healthy runs. Times are those of the published files; a healthy one is known to take 1.6 to 2.2 times the floor.
# Estimates have been fitted anew since, so that their band begins lower.
HEALTHY = {
    "SGLang, Llama-3.3-70B, 4 H200, gaps": (decode(8, 853, itl=gaps(13.64)), H200),
    "SGLang, Llama-3.3-70B, 4 H200, per token": (decode(8, 853, tpot=per_token(14.5)), H200),
    "vLLM, Llama-3.2-3B, L40S": (decode(8, 1134, itl=gaps(13.8)), {"model": "llama-3.2-3b", "hardware": "l40s"}),
    "vLLM, Llama-3.2-3B, L40S, batch 129": (decode(129, 1134, tpot=per_token(46.3)), {"model": "llama-3.2-3b", "hardware": "l40s"}),
    "Qwen3.5-27B in bf16, 4 RTX 3090": (
        decode(1, 640, tpot=per_token(25.9)),
        {"model": "qwen3.5-27b", "hardware": "rtx-3090", "tensor_parallel": 4, "weights": "bf16"},
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_are_a_little_above_the_estimate_and_about_twice_the_floor(name):
    measurement, deployment = HEALTHY[name]
    (time,) = compare(measurement, **deployment).times
    assert 1.6 <= time.over_floor <= 2.2
    assert 1.05 <= time.over_estimate <= 1.4
    assert not time.labels


def test_four_bits_on_several_devices_are_slower_than_estimated_as_in_bf16():
    """An archive of four RTX 3090 reports 12.5 ms in int4 and 25.9 ms in bf16: the estimates are below both."""
    measured = decode(1, 640, tpot=per_token(12.5))
    (time,) = compare(measured, "qwen3.5-27b", "rtx-3090", tensor_parallel=4, weights="int4").times
    assert time.over_floor == pytest.approx(2.96, abs=0.05)
    assert 1.3 < time.over_estimate < 1.6


def test_a_step_of_a_trace_is_held_against_a_step():
    """vLLM's decode of gpt-oss-20b on an MI300X, batch 32: 10.72 ms of busy GPU, of which its experts take 7.03 at 27 % of the bandwidth."""
    measured = decode(32, 1721, step=Latency("step", "step", mean_s=10.72e-3))
    found = compare(measured, "gpt-oss-20b", "mi300x")
    assert found["step"].over_floor == pytest.approx(4.18, abs=0.05)
    assert found.decode.name == "step"
    matrices = next(part for part in found["step"].parts if part.name == "matrices")
    assert matrices.high_s > 7.03e-3 * (1 - 0.27)  # the loss that the trace shows is within what is said to be possible


def test_tokens_beside_the_floor_by_hand():
    """70e9 parameters of 2 B over 3 TB/s are 46.67 ms: a token of 93.33 ms is twice the floor, at an MBU of one half."""
    measured = decode(1, 0, tpot=per_token(2 * 70e9 * 2 / 3e12 * 1e3))
    found = compare(measured, "70B", memory_bandwidth=3e12)
    assert found["tpot"].over_floor == pytest.approx(2)
    assert found["tpot"].mbu == pytest.approx(0.5)
    assert found["tpot"].estimate_s is None
    assert any("no estimates" in note for note in found.notes)


def test_batch_follows_from_what_was_in_flight():
    """Little's law on the file's own figures: 300 / 298.37 × (7.8406 − 0.0857) = 7.80; 1200 / 296.86 × (12.896 − 0.106) = 51.7."""
    for measurement, expected in ((RATE_1, 8), (RATE_4, 52)):
        found = compare(measurement, **H200)
        assert found.point.batch == expected
        assert "end to end" in found.point.known["batch"]


def test_a_file_without_time_per_token_has_it_derived():
    """(7.8406 − 0.0857) s / (534.49 − 1) = 14.54 ms."""
    found = compare(RATE_1, **H200)
    assert found["tpot"].measured_s == pytest.approx((7.8406 - 0.085745) / (160_347 / 300 - 1))
    assert "derived" in found["tpot"].what


def test_prompts_of_others_are_the_time_per_token_beyond_the_median_gap():
    """At 4 requests a second 25.3 ms a token and gaps of 19.4 ms: 5.9 ms are prompts of others, most of all at this load."""
    found = compare(RATE_4, **H200)
    part = next(part for part in found["tpot"].parts if part.name == "prompts of others")
    assert part.expected_s == pytest.approx(found["tpot"].measured_s - 19.420e-3)
    assert "measured" in part.how
    assert part.low_s < part.expected_s <= part.high_s


def test_more_requests_in_flight_than_the_interval_explains_are_told():
    """At 4 a second 52 of them, more than slow steps explain; at 1 a second an interval of 90 % holds the 7.9 there are, one of 80 % 7.6."""
    (note,) = [note for note in compare(RATE_4, **H200).notes if "in flight" in note]
    sent = {"prompt": 615_860 / 1200, "output": 607_936 / 1200, "rate": 4.0}
    expected, at_most = (4 * serving_estimate(**H200, **sent, quantile=quantile).e2e_s for quantile in (None, 0.9))
    assert note.startswith(f"52.13 requests are in flight where the rate explains {expected:.3g}, and {at_most:.3g} ")
    assert not any("in flight" in note for note in compare(RATE_1, **H200, interval=0.9).notes)


def test_requests_that_come_faster_than_the_estimate_serves_pile_up():
    """Sixteen a second were sent for 200 s, and it took 383 s to answer them: the file's own figures."""
    (note,) = [note for note in compare(RATE_16, **H200).notes if "pile up" in note]
    assert note.startswith("16 requests/s are sent, and the estimate serves ")


def test_both_estimates_stand_beside_a_token():
    """The step alone, and at this load: with prompts of others in between it is longer."""
    found = compare(RATE_4, **H200)
    assert found["tpot"].estimate_s < found["tpot"].served_s
    record = found.record.id
    assert record.startswith("h200-sxm-sglang")
    bare = decode_estimate("llama-3.3-70b", "h200-sxm", batch=52, context=853, tensor_parallel=4, calibration=record)
    assert found["tpot"].estimate_s == pytest.approx(bare.time_s)


def test_first_token_beside_its_prompt():
    found = compare(run(prompt=1024, output=128, concurrency=4, ttft=first(60)), "llama-3.1-8b", "h100-sxm")
    floor = prefill_floor("llama-3.1-8b", "h100-sxm", prompt=1024)
    assert found["ttft"].floor_s == floor.time_s
    names = {part.name for part in found["ttft"].parts}
    assert {"host", "queue", "matrices", "not explained"} <= names
    cached = compare(run(prompt=1024, output=128, concurrency=4, ttft=first(60)), "llama-3.1-8b", "h100-sxm", cached=1000)
    assert cached["ttft"].floor_s == prefill_floor("llama-3.1-8b", "h100-sxm", prompt=1024, cached=1000).time_s


@pytest.mark.parametrize("measurement", [RATE_1, RATE_4, RATE_8])
def test_parts_add_up_to_the_distance_from_the_floor(measurement):
    for time in compare(measurement, **H200).times:
        if time.parts:
            assert sum(part.expected_s for part in time.parts) == pytest.approx(time.measured_s - time.floor_s)
        assert all(part.low_s <= part.expected_s + 1e-12 and part.expected_s <= part.high_s + 1e-12 for part in time.parts)


def test_an_estimate_that_the_run_refutes_tells_no_parts():
    """The first SGLang run with a time to the first token of 45 ms, about half of what is expected at its load: nothing tells host from queue."""
    measured = sglang(0.5, 45, 14.0, 8000, 600, 300, 153_600, 153_600)
    found = compare(measured, **H200)
    time = found["ttft"]
    assert time.over_served < 0.8
    parts = {part.name: part for part in time.parts}
    assert sum(part.expected_s for part in time.parts) == pytest.approx(time.measured_s - time.floor_s)
    for name in ("host", "queue"):
        assert parts[name].how.startswith("estimated, at most: the estimate at this load is")
        assert (parts[name].expected_s, parts[name].low_s) == (0, 0)
        assert 0 < parts[name].high_s < time.measured_s - time.floor_s
    kernels = sum(parts[name].expected_s for name in ("matrices", "cache", "collectives", "small kernels"))
    assert parts["not explained"].expected_s == pytest.approx(time.measured_s - time.floor_s - kernels)
    assert any(note.startswith("ttft: the estimate at this load is") for note in found.notes)


def test_a_part_that_is_cut_to_the_gap_says_so():
    cut = remainder(10e-3, [Part("queue", 25e-3, 0.0, 30e-3, "estimated")])[0]
    assert (cut.expected_s, cut.how) == (10e-3, "estimated; 2.5 × what lies above the floor, so it is cut to that")
    assert remainder(10e-3, [Part("queue", 5e-3, 0.0, 30e-3, "estimated")])[0].how == "estimated"


def test_time_without_kernels_is_the_hosts_where_it_was_measured():
    """A gateway before gpt-oss-20b on an A100: 18.0 ms a token at 35 % GPU utilization, so that no kernel runs for 65 % of them."""
    measured = decode(1, 338, tpot=per_token(18.0), machine="NVIDIA A100-SXM4-80GB", model="openai/gpt-oss-20b")
    found = compare(measured, busy=0.35)
    host = next(part for part in found["tpot"].parts if part.name == "host")
    assert host.low_s == host.high_s == pytest.approx(0.65 * 18.0e-3)
    assert found["tpot"].over_estimate > 3
    rest = next(part for part in found["tpot"].parts if part.name == "not explained")
    assert rest.expected_s < 0.15 * 18.0e-3


# Speculation: what is a time of a step, and what of a token.

EAGLE = {"model": "gpt-oss-120b", "hardware": "b200-sxm", "tensor_parallel": 8, "expert_parallel": 4}


def test_a_time_per_token_is_held_against_the_step_over_its_tokens():
    """trtllm-bench with Eagle3: 2.65 ms a token, 2.358 tokens a verification of 3 drafts, 6.25 ms a step."""
    found = compare(decode(10, 768, tpot=per_token(2.65), accepted=2.358, drafts=3), engine="trtllm", **EAGLE)["tpot"]
    step = step_floor(
        "gpt-oss-120b", "b200-sxm", Step.verify(3, batch=10, context=768), **{k: v for k, v in EAGLE.items() if "parallel" in k}
    )
    assert found.floor_s == pytest.approx(step.time_s / 2.358)
    assert 1.1 < found.over_estimate < 1.6
    plain = compare(decode(10, 768, tpot=per_token(2.65)), engine="trtllm", **EAGLE)["tpot"]
    assert plain.over_estimate < 0.9  # not known to draft, it looks faster than it should be


def test_gaps_of_chunks_are_steps_and_other_times_tokens():
    both = {"accepted": 2.0, "drafts": 3}
    times = {"tpot": per_token(10), "itl": gaps(20)}
    found = compare(decode(4, 1000, **times, **both), "llama-3.1-8b", "h100-sxm")
    assert found["itl"].floor_s == pytest.approx(2 * found["tpot"].floor_s)
    each = Latency("gap per token", "token", median_s=10e-3)
    same = compare(decode(4, 1000, itl=each, **both), "llama-3.1-8b", "h100-sxm")
    assert same["itl"].floor_s == found["tpot"].floor_s


def test_unknown_drafts_are_the_fewest_that_yield_the_tokens():
    found = compare(decode(4, 1000, tpot=per_token(10), accepted=2.4), "llama-3.1-8b", "h100-sxm")
    assert found.point.drafts == 2
    assert any("drafts=" in note for note in found.notes)
    with pytest.raises(InvalidValueError, match=r"accepted is 3.5; a verification of 2 drafts yields 1 … 3 tokens"):
        compare(decode(4, 1000, tpot=per_token(10), accepted=3.5, drafts=2), "llama-3.1-8b", "h100-sxm")


def test_a_time_per_token_that_holds_the_first_is_taken_apart():
    """128 tokens, the first after 1006 ms, (last − sent) / n = 10.34 ms: (128 · 10.34 − 1006) / 127 = 2.50 ms each of the others."""
    whole = Latency("per token with the first", "token", mean_s=10.34e-3)
    measured = run(batch=1, prompt=120, output=128, ttft=first(1006), tpot=whole)
    found = compare(measured, "qwen3-0.6b", "h100-sxm")
    assert found["tpot"].measured_s == pytest.approx((128 * 10.34e-3 - 1.006) / 127)
    without = compare(run(batch=1, prompt=120, output=128, tpot=whole, itl=gaps(3)), "qwen3-0.6b", "h100-sxm")
    assert "tpot" not in without
    assert any("holds the first token" in note for note in without.notes)


# Below the floor.

STRIX = decode(1, 64, tpot=per_token(12.53), model="gpt-oss-20b", machine="Ryzen AI Max+ 395")


def test_a_time_below_the_floor_is_explained_by_labels():
    """llama-bench, gpt-oss-20b on a Ryzen AI Max+ 395: 12.53 ms where bf16 outside the experts takes 14.5; the GGUF has it in q8_0."""
    found = compare(STRIX)
    (time,) = found.below_floor
    assert time.over_floor == pytest.approx(0.87, abs=0.01)
    assert time.mbu is None
    assert not time.parts
    lifting = [label.name for label in time.labels if label.lifts]
    assert lifting[:3] == ["the head stored in 8 bits", "attention stored in 8 bits", "attention and the head stored in 8 bits"]
    assert any("speculation" in name for name in lifting)
    assert "BELOW THE FLOOR" in str(found)


def test_each_label_is_the_floor_of_what_it_changes():
    for label in compare(STRIX)["tpot"].labels:
        change = dict(label.change)
        accepted = change.pop("accepted", 1)
        floor = decode_floor("gpt-oss-20b", "strix-halo", batch=1, context=change.pop("context", 64), **change)
        assert label.floor_s == pytest.approx(floor.time_s / accepted)


def test_the_right_label_gives_a_healthy_run():
    """With attention and head in eight bits the same run is 1.2 to 1.5 times its floor."""
    found = compare(STRIX, weights={"lm_head": "int8", "self_attn": "int8"})
    assert 1.2 < found["tpot"].over_floor < 1.5
    assert not found.below_floor


def test_a_prompt_below_its_floor_may_have_been_cached_or_the_peak_sparse():
    measured = run(batch=1, prompt=4096, output=16, ttft=first(40))
    time = compare(measured, "llama-3.1-8b", "h100-sxm")["ttft"]
    names = {label.name: label for label in time.labels}
    assert names["a peak with structured sparsity, which is twice as high"].floor_s == pytest.approx(time.floor_s / 2, rel=0.01)
    assert names["a prompt that the prefix cache had but for one token"].lifts


def test_what_no_label_explains_is_said_to_be_so():
    found = compare(decode(1, 64, tpot=per_token(1e-3)), "llama-3.1-8b", "h100-sxm")
    assert not any(label.lifts for label in found["tpot"].labels if "speculation" not in label.name)


@pytest.mark.parametrize(("seconds", "words"), [(14.5e-6, "1000 times longer"), (14.5e-9, "a million times longer")])
def test_a_time_in_another_unit_is_told_by_its_distance_below_the_floor(seconds, words):
    """A step of 14.5 ms, 1.97 × its floor, written in s and read as ms or µs; no speculation yields hundreds of tokens a step."""
    time = compare(decode(8, 853, tpot=per_token(seconds * 1e3)), **H200)["tpot"]
    assert time.labels[0].name.startswith(f"another unit: a time {words}")
    assert time.labels[0].over_floor == pytest.approx(1.97, abs=0.01)
    assert not any("speculation" in label.name for label in time.labels)


def test_a_time_in_another_unit_is_told_by_its_distance_above_the_floor():
    notes = compare(decode(8, 853, tpot=per_token(14_500)), **H200).notes
    assert any("tpot is 1.97e+03 × the floor; a time 1000 times shorter" in note and "would be 1.97 ×" in note for note in notes)
    assert not any("check its unit" in note for note in compare(decode(8, 853, tpot=per_token(14.5)), **H200).notes)


def test_a_step_that_memory_cannot_hold_is_said_to_be_so():
    """Llama 3.1 8B keeps 128 KiB a token: 1000 sequences of 8192 tokens are 1.07 TB on a device of 80 GB; 8 are 8.6 GB beside 16 GB."""
    beyond = compare(decode(8, 8192, tpot=per_token(2000)), "llama-3.1-8b", "h100-sxm", batch=1000)
    assert "does not fit: such a step needs 1.09 TB on each device" in beyond.notes[0]
    assert not any("fit" in note for note in compare(decode(8, 8192, tpot=per_token(14)), "llama-3.1-8b", "h100-sxm").notes)


# What a measurement is of.


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ({"machine": "Foo X9"}, "my client names the machine 'Foo X9', which the catalogue does not have; H100 SXM5 80GB is taken for it"),
        ({"machine": "NVIDIA H200"}, "contradiction: my client names the machine H200"),
        ({"machine": "8xH100-SXM"}, None),
        (
            {"model": "facebook/opt-125m"},
            "names the model 'facebook/opt-125m', which the catalogue does not have; llama-3.1-8b is taken for it",
        ),
        (
            {"model": "RedHatAI/Llama-3.1-8B-Instruct-FP8"},
            "says weights in FP8; they are taken as the checkpoint of llama-3.1-8b stores them",
        ),
        ({"model": "/models/my-llama-3.1-8b"}, None),
    ],
)
def test_other_names_in_a_measurement_are_said(said, note):
    notes = compare(decode(8, 853, tpot=per_token(14.5), **said), "llama-3.1-8b", "h100-sxm").notes
    assert not notes if note is None else any(note in each for each in notes)


def test_weights_that_a_name_states_need_no_word_once_they_are_given():
    named = decode(8, 853, tpot=per_token(14.5), model="RedHatAI/Llama-3.1-8B-Instruct-FP8")
    assert not compare(named, "llama-3.1-8b", "h100-sxm", weights="fp8").notes


def test_an_engine_that_is_not_known_is_named_where_another_is_assumed():
    assumed = compare(decode(8, 853, tpot=per_token(14.5), engine="vlm"), "llama-3.1-8b", "h100-sxm").subject.assumed
    assert "'vlm' is none of vllm" in assumed[0]


def test_what_is_not_said_is_asked_for_in_one_sentence():
    with pytest.raises(InvalidValueError, match=r"my client does not say what ran: give model= and hardware=;"):
        compare(decode(1, 64, tpot=per_token(10)))
    with pytest.raises(InvalidValueError, match=r"give model= \(it says 'our-model-7', which is no name of the catalogue\)"):
        compare(decode(1, 64, tpot=per_token(10), model="our-model-7"), hardware="h100-sxm")
    with pytest.raises(InvalidValueError, match=r"give hardware= \(it says 'cpu'"):
        compare(decode(1, 64, tpot=per_token(10), machine="cpu"), "llama-3.1-8b")
    with pytest.raises(InvalidValueError, match=r"does not fit into one H100 SXM5 80GB, and my client does not say how many"):
        compare(decode(1, 64, tpot=per_token(10)), "llama-3.3-70b", "h100-sxm")


def test_what_the_file_says_is_used_and_the_rest_assumed_aloud():
    stated = decode(8, 853, tpot=per_token(14.5), model="/models/Llama-3.1-8B-Instruct", options={"kv": "fp8", "tensor_parallel": 2})
    found = compare(stated, hardware="h100-sxm")
    assert found.deployment.devices == 2
    assert found.subject.stated == {"kv": "fp8", "tensor_parallel": 2}
    assert [text for text in found.subject.assumed if "weights" in text]
    assert not [text for text in found.subject.assumed if "KV cache" in text or "one device" in text]
    assert "assumed: weights" in str(found)


def test_degrees_that_contradict_are_an_error_and_formats_a_note():
    stated = decode(8, 853, tpot=per_token(14.5), model="llama-3.1-8b", options={"tensor_parallel": 2, "kv": "fp8"})
    with pytest.raises(InvalidValueError, match="says tensor_parallel 2, and 4 was given"):
        compare(stated, hardware="h100-sxm", tensor_parallel=4)
    with pytest.raises(InvalidValueError, match="says tensor_parallel 2, and 1 was given"):
        compare(stated, Deployment("llama-3.1-8b", "h100-sxm"))
    found = compare(stated, hardware="h100-sxm", kv="bf16")
    assert found.deployment.kv == "bf16"
    assert any("contradiction" in note and "kv" in note for note in found.notes)
    other = compare(stated.but(machine="NVIDIA L40S"), "llama-3.1-70b", "h100-sxm")
    assert sum("contradiction" in note for note in other.notes) == 2


def test_a_deployment_stands_for_model_machine_and_options():
    node = Deployment("llama-3.3-70b", "h200-sxm", tensor_parallel=4)
    assert compare(RATE_1, node)["tpot"].floor_s == compare(RATE_1, **H200)["tpot"].floor_s


def test_waiting_requests_are_no_batch():
    """The engine runs 10 at a time of 505 in flight; and of Llama-3-8B at 8,192 tokens 59 fit into 80 GB beside the weights."""
    queued = run(concurrency=505, sequences=10, prompt=1000, output=100, tpot=per_token(20))
    assert compare(queued, "llama-3.1-8b", "h100-sxm").point.batch == 10
    full = run(concurrency=100, cached_context=8192, tpot=per_token(60))
    found = compare(full, "llama-3-8b", "h100-sxm")
    assert found.point.batch == max_batch("llama-3-8b", "h100-sxm", context=8192) < 100
    assert any("do not fit into the memory" in note for note in found.notes)


def test_replicas_share_the_requests():
    found = compare(run(concurrency=32, cached_context=1134, tpot=per_token(14)), "llama-3.2-3b", "l40s", replicas=4)
    assert found.point.batch == 8


def test_nothing_to_compare_is_an_error_that_says_what_lacks():
    with pytest.raises(InvalidValueError, match=r"no request was completed"):
        compare(run(completed=0, failed=8), "llama-3.1-8b", "h100-sxm")
    with pytest.raises(InvalidValueError, match=r"give batch= and prompt= and output=, or context="):
        compare(run(tpot=per_token(10)), "llama-3.1-8b", "h100-sxm")
    with pytest.raises(InvalidValueError, match="is no measurement"):
        compare(3, "llama-3.1-8b", "h100-sxm")
    with pytest.raises(InvalidValueError, match="batch is 'many'"):
        compare(run(tpot=per_token(10)), "llama-3.1-8b", "h100-sxm", batch="many")
    with pytest.raises(UnknownOptionError, match="it is called tensor_parallel here"):
        compare(RATE_1, "llama-3.3-70b", "h200-sxm", tp=4)


def test_a_static_batch_is_compared_whole():
    """Eight prompts of 32 and 127 more steps of eight; no one waits for others."""
    measured = run(e2e=Latency("end to end", "request", mean_s=1.2))
    found = compare(measured, "llama-3-8b", "h100-sxm", batch=8, prompt=32, output=128)
    floor = prefill_floor("llama-3-8b", "h100-sxm", prompt=32, batch=8).time_s
    floor += 127 * decode_floor("llama-3-8b", "h100-sxm", batch=8, context=96).time_s
    assert found["e2e"].floor_s == pytest.approx(floor)
    assert found.served is None


def test_a_run_of_all_requests_at_once_is_held_against_its_arithmetic():
    measured = run(duration_s=20.0, completed=1000, request_rate=math.inf, requests_per_s=50.0)
    found = compare(measured, "llama-3.1-8b", memory_bandwidth=3.35e12, peak_flops_per_s=989.4e12, prompt=512, output=128)
    flops = prefill_floor("llama-3.1-8b", "h100-sxm", prompt=512).flops + 127 * decode_floor("llama-3.1-8b", "h100-sxm", context=576).flops
    assert found["run"].floor_s == pytest.approx(flops / 989.4e12)
    assert found["run"].measured_s == pytest.approx(20.0 / 1000)
    assert found["run"].floor_s < found["run"].served_s
    untimed = run(output_tokens_per_s=128 * 50.0, request_rate=math.inf)
    machine = {"memory_bandwidth": 3.35e12, "peak_flops_per_s": 989.4e12, "prompt": 512, "output": 128}
    assert compare(untimed, "llama-3.1-8b", **machine)["run"].over_floor == pytest.approx(
        found["run"].over_floor
    )  # one meaning, whatever tells it


def test_a_rate_alone_is_held_against_arithmetic_and_its_formats():
    """MLPerf v6.0-0001: Llama-2-70B, 1,042,110 tokens/s on 87 MI355X, too fast for products in 16 bits (2 · 70e9 FLOP a token, some 2.5 PFLOP/s)."""
    measured = run(output_tokens_per_s=1_042_110.0, request_rate=math.inf)
    found = compare(measured, "llama-2-70b", "mi355x", prompt=294, output=294, replicas=87)
    assert found["run"].below_floor
    assert {"weights in fp8", "weights in nvfp4"} <= {label.name for label in found["run"].labels if label.lifts}
    narrow = compare(measured, "llama-2-70b", "mi355x", prompt=294, output=294, replicas=87, weights="mxfp4", activations="mxfp4")
    assert not narrow.below_floor
    with pytest.raises(InvalidValueError, match="give prompt= and output="):
        compare(measured, "llama-2-70b", "mi355x")


def test_a_simulation_is_compared_like_a_measurement():
    requests = Workload.generated(60, arrivals=4.0, prompt=512, output=64, seed=1)
    deployment = Deployment("llama-3.1-8b", "h100-sxm")
    result = simulate(deployment, requests)
    for measured in (result, result.times):
        found = compare(measured, deployment)
        assert {"ttft", "tpot", "e2e"} <= {time.name for time in found.times}
        assert 0.9 < found["tpot"].over_served < 1.2  # the simulation's steps have the times of the estimate


RESULTS = Path(__file__).parent / "data" / "results"


def test_a_measurement_of_an_earlier_version_is_held_against_its_host_times():
    """SGLang before 0.5.10 takes longer to launch a prompt's layers (docs/estimates.md); what a caller says goes first."""
    r1 = {"model": "deepseek-r1", "hardware": "h200-sxm", "tensor_parallel": 8}
    found = {}
    for engine in ("sglang 0.5.9", "sglang 0.5.23", "sglang"):
        measured = run(engine=engine, prompt=200, output=200, concurrency=1, ttft=first(300))
        found[engine] = compare(measured, **r1)
    assert [c.subject.engine for c in found.values()] == ["sglang 0.5.9", "sglang", "sglang"]
    times = [c["ttft"].served_s for c in found.values()]
    assert times[0] > 1.2 * times[1]
    assert times[1] == times[2]
    assert compare(measured, **r1, engine="sglang 0.5.9")["ttft"].served_s == times[0]


@pytest.mark.parametrize(
    ("number", "batch", "itl_over_floor", "tpot_over_floor"), [(0, 8, 1.86, 1.98), (2, 52, 2.43, 3.17), (3, 360, 5.5, 8.0)]
)
def test_a_file_of_sglang_is_as_far_above_its_floor_as_published(number, batch, itl_over_floor, tpot_over_floor):
    """Ratios that were found by hand of the same runs, at the batch of Little's law and a context of N/2 + N/3."""
    found = compare(RESULTS / "sglang_h200_llama33_70b_online.jsonl", run=number, **H200)
    assert found.point.batch == pytest.approx(batch, rel=0.01)
    assert found["itl"].over_floor == pytest.approx(itl_over_floor, rel=0.04)
    assert found["tpot"].over_floor == pytest.approx(tpot_over_floor, rel=0.04)


def test_a_file_of_several_runs_asks_for_one():
    with pytest.raises(InvalidValueError, match=r"holds 7 runs .* say which: run=0"):
        compare(RESULTS / "sglang_h200_llama33_70b_online.jsonl", **H200)


@pytest.mark.parametrize(
    ("name", "text", "reader"),
    [
        (
            "a.jsonl",
            '{"schema": "roofline monitor 1", "device": "cpu", "time_s": 1.0, "busy": 0.9, "bottleneck": "unknown"}\n',
            "roofline.monitor",
        ),
        ("a.prom", "# HELP vllm:num_requests_running x\nvllm:num_requests_running 1\n", "roofline.measured.read_metrics"),
        ("a.log", "INFO 11-27 [kv_cache_utils.py:849] GPU KV cache size: 464,848 tokens\n", "roofline.measured.read_engine_log"),
    ],
)
def test_a_file_of_another_kind_is_pointed_to_its_reader(tmp_path, name, text, reader):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidValueError, match=f"{name} is no result of a benchmark client: it is .*; {reader}"):
        compare(tmp_path / name, "llama-3.1-8b", "h100-sxm")


def test_times_of_a_static_batch_without_its_size_ask_for_it():
    file = RESULTS / "vllm_latency_llama3_8b_2025-02.json"
    with pytest.raises(InvalidValueError, match=r"give batch= and prompt= and output=, or context="):
        compare(file, "llama-3-8b", "h100-sxm")
    found = compare(file, "llama-3-8b", "h100-sxm", batch=8, prompt=32, output=128)
    assert found["e2e"].measured_s == pytest.approx(7.41957, rel=1e-5)


def test_a_run_of_an_unnamed_machine_is_held_against_the_one_that_is_said():
    """GLM-5 in fp8 on eight devices, 16 clients of 1,024 and 128 tokens: 33.6 ms a token, 291 ms to the first."""
    found = compare(RESULTS / "inferencex_glm5_fp8_tp8_conc16.json", hardware="h200-sxm", tensor_parallel=8)
    assert found.deployment.model.name == "glm-5-fp8"
    assert 12 <= found.point.batch <= 16
    assert found["tpot"].measured_s == pytest.approx(33.615e-3, rel=1e-4)
    assert 0.9 < found["tpot"].over_served < 1.4


def test_pages_of_an_engine_are_compared_like_a_file():
    """A made-up page in SGLang's layout, of Llama-3.1-8B: 11 ms a token where 20 sequences of 1,000 tokens decode, 45 % of the time in steps."""
    pages = [read_metrics(RESULTS / "engine_metrics" / f"sglang_{i}.txt") for i in (0, 1)]
    found = compare(engine_window(*pages, seconds=20), hardware="h100-sxm")
    assert (found.point.batch, found.point.context) == (20, 1000)
    assert found.subject.engine == "sglang"
    host = next(part for part in found["itl"].parts if part.name == "host")
    assert host.expected_s == pytest.approx(0.55 * 11e-3, rel=0.01)
    assert "run" not in found  # nobody hurried


def test_a_comparison_becomes_plain_data():
    found = compare(RATE_1, **H200)
    data = json.loads(found.to_json())
    assert data["tpot_over_floor"] == pytest.approx(found["tpot"].over_floor)
    assert data["assumed"]
    assert {row["time"] for row in data["ops"]} == {"ttft", "tpot", "itl"}
    assert found.to_records()[0]["batch"] == 8
    with pytest.raises(LookupError, match="tpot"):
        found["tbt"]


# ------------------------------------------------------------------------------------------------------------------- what the measurement says itself


def test_replicas_and_idle_time_are_those_that_the_measurement_says():
    """Four replicas share 32 requests, so each decodes 8; at 60 % of the time with a kernel, 40 % of a step are the host's."""
    shared = decode(32, 853, tpot=per_token(14.5), replicas=4, busy=0.6)
    found = compare(shared, **H200)
    assert found.point.batch == 8
    assert next(part.expected_s for part in found["tpot"].parts if part.name == "host") == pytest.approx(0.4 * 14.5e-3)
    assert compare(shared, replicas=2, **H200).point.batch == 16


@pytest.mark.parametrize("busy", [35, -0.1, True, "0.3"])
def test_a_share_of_time_is_no_percentage(busy):
    with pytest.raises(InvalidValueError, match="share from 0 to 1"):
        compare(decode(8, 853, tpot=per_token(14.5)), busy=busy, **H200)
    assert compare(decode(8, 853, tpot=per_token(14.5)), busy=1.0, **H200)["tpot"].parts
