"""Profiles of serving engines: their figures against what was published, and what estimates take from them."""

import subprocess
import sys

import numpy as np
import pytest

from roofline import (
    InvalidValueError,
    Step,
    StepTime,
    UnknownNameError,
    Workload,
    ask_again,
    decode_estimate,
    prefill_estimate,
    serving_estimate,
    simulate,
    step_estimate,
)
from roofline.deployment import Deployment
from roofline.engines import ENGINES, Engine, list_engines, load_engine
from roofline.hardware import EVIDENCE
from roofline.records import FittedConstant, load_record
from roofline.shipped import Table

GIB = 2**30


@pytest.fixture(params=list_engines())
def engine(request):
    return load_engine(request.param)


# ------------------------------------------------------------------------------------------------------------------ profiles


def test_every_engine_with_a_name_has_a_profile_and_no_other(repository):
    folder = repository / "hardware_specs" / "engines"
    assert sorted(file.stem for file in folder.glob("*.toml")) == sorted(ENGINES) == sorted(list_engines())
    assert {name: load_engine(name).name for name in list_engines()} == ENGINES


def test_every_group_of_figures_has_its_source(engine):
    tables = [value for value in (getattr(engine, name) for name in Engine._fields) if isinstance(value, Table)]
    assert len(tables) >= 6
    for table in tables:
        assert table.source != "not stated"
        assert table.evidence in EVIDENCE
    assert engine.limits_source
    assert "fit_engines" in engine.host.source  # a fit names its script


def test_a_profile_is_plain_data_and_back(engine):
    assert Engine.from_dict(engine.to_dict()) == engine


def test_a_profile_cannot_be_changed(engine):
    with pytest.raises(AttributeError, match="frozen"):
        engine.version = "1"
    with pytest.raises(AttributeError, match="frozen"):
        engine.host.layer_s.dense = 1.0
    assert engine.but(version="1").version == "1"
    assert load_engine(engine.id) is engine


def test_earlier_versions_have_host_times_of_their_own():
    """Matched runs of DeepSeek-R1 on H200 under SGLang 0.5.9 and 0.5.12 (InferenceX, pull request 3173): prompts of 922 tokens cost others less."""
    sglang, vllm = load_engine("sglang"), load_engine("vllm")
    old, new = sglang.at("0.5.9").host, sglang.host
    assert sglang.at("0.5.12") is sglang.at("v0.5.10.post1") is sglang
    assert sglang.at("0.5.6.post2").host == sglang.at("0.4").host == old
    assert sglang.at("0.5.9").at("0.5.2rc1").host == old
    assert str(sglang.at("0.5.9")).endswith("as before 0.5.10")
    note = serving_estimate(R1_NODE, prompt=100, output=10, concurrency=1, engine=sglang.at("0.5.9")).service.server.time.timing
    assert any("of the profile of SGLang before 0.5.10" in text for text in note.borrowed(load_record("h200-sxm-sglang-0.5.14")))
    assert old.layer_s.other_experts > new.layer_s.other_experts
    assert old.first_token_s.other_experts > new.first_token_s.other_experts
    assert old.sequence_s == new.sequence_s
    assert vllm.at("0.11") is vllm
    slow, fast = (StepTime(R1_NODE, calibration="sglang", engine=profile)([1], [512], [0]) for profile in (sglang.at("0.5.9"), sglang))
    assert slow > 1.3 * fast


@pytest.mark.parametrize("name", ["sglang 0.5.9", "SGLang v0.5.9", " sglang  0.5.9"])
def test_a_name_may_bring_a_version(name):
    sglang = load_engine("sglang")
    assert load_engine(name) == sglang.at("0.5.9")
    assert load_engine("TensorRT-LLM 1.2.0rc1") == load_engine("trtllm")
    load = {"prompt": 100, "output": 10, "concurrency": 1}
    named, given = (serving_estimate(R1_NODE, **load, engine=engine) for engine in (name, sglang.at("0.5.9")))
    assert named.ttft_s == given.ttft_s > serving_estimate(R1_NODE, **load, engine="sglang").ttft_s


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sglang 0..5", r"version is '0\.\.5'; it must be a version of SGLang"),
        ("sglangg 0.5.9", "unknown engine 'sglangg'; nearest: SGLang"),
        ("sglang latest", "unknown engine 'sglang latest'; nearest: SGLang"),
        ("0.5.9", r"unknown engine '0\.5\.9'"),
    ],
)
def test_a_version_in_a_name_is_checked(name, said):
    with pytest.raises((InvalidValueError, UnknownNameError), match=said):
        load_engine(name)


def test_services_say_what_their_times_are_of():
    """As an estimate of the same step does: classes that stand in, and kernels that the engine does not launch."""
    within = "SGLang computes the shared expert in the kernel of the routed ones"
    other = "rowwise bf16 in fp32: not in h200-sxm-sglang-0.5.14, generic constants"
    requests = Workload.generated(4, arrivals=1, prompt=100, output=4, seed=1)
    said = (
        serving_estimate(R1_NODE, prompt=100, output=4, concurrency=2, engine="sglang").notes,
        simulate(R1_NODE, requests, engine="sglang").notes,
        StepTime(R1_NODE, calibration="sglang").table(batch=[1, 2], context=[100]).context()["notes"],
        decode_estimate(R1_NODE, batch=1, context=100, calibration="sglang").notes,
    )
    for notes in said:
        assert {within, other} <= set(notes)
    for engine in ("vllm", "trtllm"):
        assert within not in serving_estimate(R1_NODE, prompt=100, output=4, concurrency=2, engine=engine).notes
    assert StepTime(R1_NODE, "floor").notes == ()


@pytest.mark.parametrize("version", ["latest", "0.5.x", "0..5", "0.5.9-", "1!0.5", "", 7])
def test_versions_are_checked(version):
    with pytest.raises(InvalidValueError, match=r"it must be a version of SGLang, such as '0\.5\.23'"):
        load_engine("sglang").at(version)


def test_earlier_host_times_end_in_order():
    sglang = load_engine("sglang")
    with pytest.raises(InvalidValueError, match="end before a version"):
        sglang.but(earlier=(sglang.host,))
    (earlier,) = sglang.earlier
    with pytest.raises(InvalidValueError, match=r"has the host times of SGLang before 0\.5\.10; load the profile again"):
        sglang.at("0.5.9").at("0.5.23")
    with pytest.raises(InvalidValueError, match="the oldest first"):
        sglang.but(earlier=(earlier, earlier.but(before="0.5.2")))


@pytest.mark.parametrize("name", ["TensorRT-LLM", "tensorrt llm", "TRTLLM", "trtllm"])
def test_an_engine_has_its_id_and_its_own_name(name):
    assert load_engine(name).id == "trtllm"


def test_an_unknown_engine_is_told_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown engine 'vlm'; nearest: .*vLLM.*list_engines\(\) lists all"):
        load_engine("vlm")
    with pytest.raises(InvalidValueError, match="given by its name, such as 'vllm', not as 7"):
        load_engine(7)


def test_a_profile_is_read_without_pydantic():
    code = "import sys; from roofline.engines import load_engine; load_engine('vllm'); sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --------------------------------------------------------------------------------------- figures, as their sources have them

# wheel vllm 0.33.0, engine/arg_utils.py, get_batch_defaults, OPENAI_API_SERVER
VLLM_LIMITS = [
    (180 * GIB, "b200-sxm", 16384, 1024),
    (160 * GIB, "", 16384, 1024),
    (79.6 * GIB, "h100-sxm", 8192, 1024),
    (79.6 * GIB, "NVIDIA A100-SXM4-80GB", 2048, 256),
    (69 * GIB, "", 2048, 256),
    (24 * GIB, "rtx-4090", 2048, 256),
]


@pytest.mark.parametrize(("memory", "device", "tokens", "sequences"), VLLM_LIMITS)
def test_limits_of_vllm(memory, device, tokens, sequences):
    limits = load_engine("vllm").limits_on(memory, device)
    assert (limits.step_tokens, limits.sequences) == (tokens, sequences)


# wheel sglang 0.5.23, srt/arg_groups/memory_hook.py, handle_gpu_memory_settings: chunked_prefill_size, max_bs below and from tp 4
SGLANG_LIMITS = [
    (16, 2048, 8, None),
    (24, 4096, 48, 160),
    (40, 4096, 32, 160),
    (80, 8192, 256, 512),
    (141, 8192, 256, 512),
    (180, 16384, 512, None),
]


@pytest.mark.parametrize(("memory", "tokens", "batch", "parallel"), SGLANG_LIMITS)
def test_limits_of_sglang(memory, tokens, batch, parallel):
    limits = load_engine("sglang").limits_on(memory * GIB)
    assert (limits.step_tokens, limits.graph_sequences, limits.graph_sequences_parallel) == (tokens, batch, parallel)


def test_other_figures_of_the_engines():
    vllm, trtllm, sglang = map(load_engine, ("vllm", "trtllm", "sglang"))
    assert (vllm.cache.page, vllm.cache.share, vllm.cache.share_of) == (16, 0.92, "whole")  # vllm 0.33.0, config/cache.py
    assert (vllm.graphs.prefill, vllm.graphs.prefill_tokens) == ("piecewise", 512)  # config/vllm.py, _set_cudagraph_sizes
    # nvidia.github.io/TensorRT-LLM/1.3.0rc27: KvCacheConfig, SchedulerConfig (GUARANTEED_NO_EVICT), TorchCompileConfig
    assert (trtllm.cache.page, trtllm.cache.share, trtllm.cache.share_of) == (32, 0.9, "free")
    assert (trtllm.admission.reserve, trtllm.graphs.prefill) == ("whole", "eager")
    # sglang 0.5.23, srt/environ.py: 0.7, floor 0.14 of it, 600 steps, 4,096 tokens
    admission = sglang.admission
    assert (admission.ratio, admission.least_ratio, admission.ratio_steps, admission.longest_answer) == (0.7, 0.7 * 0.14, 600, 4096)
    assert [e.scheduling.policy for e in (vllm, trtllm, sglang)] == ["mixed", "mixed", "prefill first"]


def test_an_amount_of_memory_is_asked_for():
    with pytest.raises(InvalidValueError, match="memory_bytes is 80 B"):
        load_engine("vllm").limits_on(80)
    with pytest.raises(InvalidValueError, match="device is 7"):
        load_engine("vllm").limits_on(80e9, 7)


# ----------------------------------------------------------------------------------------------------- what estimates take

R1 = {"model": "deepseek-r1", "hardware": "h200-sxm", "tensor_parallel": 8}
R1_NODE = Deployment("deepseek-r1", "h200-sxm", tensor_parallel=8)


@pytest.mark.parametrize(
    ("engine", "model", "experts", "within"),
    [
        ("sglang", "deepseek-r1", 1, True),
        ("sglang", "deepseek-r1", 8, False),
        ("sglang", "glm-5-fp8", 1, False),
        ("vllm", "deepseek-r1", 1, False),
    ],
)
def test_a_shared_expert_within_the_routed_ones_has_no_kernels(engine, model, experts, within):
    """SGLang 0.5.14, determine_num_fused_shared_experts: DeepseekV3ForCausalLM with 256 experts and one shared, not with expert parallelism."""
    split = {"tensor_parallel": 8, "expert_parallel": experts}
    estimate = decode_estimate(model, "h200-sxm", batch=4, context=1000, calibration=engine, mtp=1, **split)
    shared = [kernel.name for kernel in estimate.by_op() if "shared_experts" in kernel.name]
    assert bool(shared) != within
    assert any("computes the shared expert" in note for note in estimate.notes) == within


def test_a_profile_of_ones_own_says_where_the_shared_expert_runs():
    sglang = load_engine("sglang")
    usual, own = (StepTime(R1_NODE, calibration="sglang", engine=profile) for profile in (sglang, sglang.but(shared_experts=None)))
    assert own.decode(4, 4000) > 1.1 * usual.decode(4, 4000)


def test_a_shared_expert_within_is_one_more_that_every_token_visits():
    """DeepSeek-R1's are 3 · 7168 · 2048 bytes of fp8 and as many scales as 128 × 128 blocks; a token visits 8 of 256 routed ones."""
    from roofline.kernels.stacks import stack_kernels

    program = R1_NODE.program
    (alone,), (within,) = (
        [op for stack in stack_kernels(program, shared_within=counts) for op in stack.ops if op.family == "experts"]
        for counts in ((), (256,))
    )
    more = {name: getattr(within, name) - getattr(alone, name) for name in ("flops", "weight_bytes", "rows")}
    assert {name: sum(form.terms.values()) for name, form in more.items() if name != "weight_bytes"} == {
        "flops": pytest.approx(2 * 3 * 7168 * 2048 / 8),
        "rows": pytest.approx(1),
    }
    assert more["weight_bytes"].terms[1] == pytest.approx(3 * 7168 * 2048 / 8 * (1 + 4 / 128**2))


def test_a_step_takes_the_times_of_its_records_engine(engine):
    estimate = decode_estimate("llama-3.1-8b", "h100-sxm", batch=8, context=1000, calibration=engine.id)
    assert estimate.overhead_s == pytest.approx(engine.host.step_s + 8 * engine.host.sequence_s)
    assert any(f"of the profile of {engine.name}" in note for note in estimate.notes)
    assert estimate.context()["overheads"]["engine"] == engine.id


def test_generic_constants_are_of_no_engine():
    estimate = prefill_estimate(**R1, prompt=128, calibration="generic")
    assert estimate.overhead_s == load_record("generic").overheads["step_s"].value
    assert estimate.context()["overheads"]["engine"] is None


def test_a_step_with_prompts_is_not_faster_than_its_layers_are_launched():
    """DeepSeek-R1 has 3 dense layers and 58 of experts with latent attention, as its config.json says."""
    host = load_engine("trtllm").host
    layers = 3 * host.layer_s.dense + 58 * host.layer_s.other_experts
    estimate = prefill_estimate(**R1, prompt=128, calibration="trtllm")
    assert estimate.kernels_s < layers
    assert estimate.time_s == pytest.approx(layers + host.step_s + host.sequence_s)
    assert any("longer than their kernels run" in note for note in estimate.notes)
    long = prefill_estimate(**R1, prompt=8192, calibration="trtllm")
    assert long.overhead_s == pytest.approx(host.step_s + host.sequence_s)
    assert not any("longer than their kernels run" in note for note in long.notes)


def test_what_is_replayed_from_graphs_does_not_wait_for_the_host():
    host = load_engine("vllm").host
    graph, eager = (prefill_estimate(**R1, prompt=prompt, calibration="vllm") for prompt in (512, 513))
    assert graph.overhead_s == pytest.approx(host.step_s + host.sequence_s)
    assert eager.overhead_s > 10 * host.step_s
    for batch, step in ((600, Step.decode(batch=600, context=100)), (100, Step.verify(batch=100, context=100, drafts=7))):
        estimate = step_estimate(R1["model"], R1["hardware"], step, tensor_parallel=8, calibration="vllm")
        assert estimate.overhead_s == pytest.approx(host.step_s + batch * host.sequence_s)


def test_a_time_per_sequence_is_counted_with_the_sequences(monkeypatch):
    from roofline.estimate import overheads

    vllm = load_engine("vllm")
    slower = vllm.but(host=vllm.host.but(sequence_s=1e-5))
    monkeypatch.setattr(overheads, "load_engine", lambda name: slower)
    model = {"model": "llama-3.1-8b", "hardware": "h100-sxm", "context": 100}
    record = load_record("h100-sxm-vllm-0.24.0").model_copy()  # another object, so that no remembered timing is taken
    estimate = decode_estimate(**model, batch=[1, 64], calibration=record)
    assert estimate.overhead_s == pytest.approx(vllm.host.step_s + 1e-5 * np.array([1, 64]))


def slower(engine):
    """Return a profile whose host takes 0.1 ms more for each sequence."""
    return engine.but(host=engine.host.but(sequence_s=engine.host.sequence_s + 1e-4))


NODE = Deployment("llama-3.1-8b", "h100-sxm")


def test_the_time_of_a_step_lies_in_its_own_interval(engine):
    with pytest.raises(InvalidValueError, match=r"host\.step_s is 0\.01; it must lie between step_low_s, 0, and step_high_s, 0\.00"):
        engine.host.but(step_s=0.01)
    assert engine.host.but(step_s=0.01, step_high_s=0.02).step_s == 0.01


def test_the_host_times_of_a_profile_of_ones_own_count():
    """In steps of an estimate by a record of that engine, and in everything that rests on them; saved, it comes along."""
    vllm = load_engine("vllm")
    usual, own = (StepTime(NODE, engine=profile) for profile in (vllm, slower(vllm)))
    assert own.decode(8, 8000) - usual.decode(8, 8000) == pytest.approx(8e-4)
    assert usual.decode(8, 8000) == StepTime(NODE).decode(8, 8000)
    of_another = StepTime(NODE, engine=slower(vllm), calibration="trtllm")
    assert of_another.decode(8, 8000) == StepTime(NODE, calibration="trtllm").decode(8, 8000)
    table = own.table(batch=[1, 8], context=[1000])
    assert (ask_again(table.to_json()).time_s == table.time_s).all()
    load = {"prompt": 500, "output": 100, "rate": 5.0}
    usual, own = (serving_estimate(NODE, **load, engine=profile) for profile in (vllm, slower(vllm)))
    assert own.tpot_s > usual.tpot_s + 1e-4
    assert ask_again(own.to_json()).tpot_s == own.tpot_s
    requests = Workload.generated(50, prompt=500, output=100, arrivals=5.0, seed=1)
    usual, own = (simulate(NODE, requests, engine=profile) for profile in (vllm, slower(vllm)))
    assert own.times.tpot_s.mean() > usual.times.tpot_s.mean() + 1e-4
    assert (ask_again(own.to_json()).times.tpot_s == own.times.tpot_s).all()


def test_a_profile_of_ones_own_brings_the_record_of_its_engine():
    trtllm = slower(load_engine("trtllm"))
    assert StepTime(NODE, engine=trtllm).calibration.id == StepTime(NODE, engine=trtllm, calibration="trtllm").calibration.id
    assert StepTime(Deployment("llama-3.1-8b", "l4"), engine=trtllm).calibration.id == "generic"


@pytest.mark.parametrize("given", ["vllm", 3])
def test_a_step_takes_a_profile_not_its_name(given):
    with pytest.raises(InvalidValueError, match=r"it is a profile of one's own, such as load_engine\('vllm'\)"):
        StepTime(NODE, engine=given)


def test_layers_with_a_recurrent_state_have_a_time_of_their_own():
    """Qwen3.5-397B-A17B has 60 layers, every fourth of them attention, as its config.json says (full_attention_interval)."""
    old = load_engine("sglang").at("0.5.9")
    layers = 15 * old.host.layer_s.experts + 45 * old.host.layer_s.recurrent_experts
    node = {"model": "qwen3.5-397b-a17b", "hardware": "h200-sxm", "tensor_parallel": 8}
    step = StepTime(Deployment(**node), calibration="sglang", engine=old)
    assert step([1], [16], [0]) == pytest.approx(layers + old.host.sequence_s)
    vllm = load_engine("vllm").host
    unknown = 15 * vllm.layer_s.experts + 45 * vllm.layer_s.other_experts
    assert prefill_estimate(**node, prompt=600, calibration="vllm").time_s == pytest.approx(unknown + vllm.sequence_s, rel=0.01)


def test_a_record_with_a_time_of_its_own_takes_nothing_from_a_profile():
    own = FittedConstant(value=1e-4, low=1e-4, high=1e-4, unit="s")
    record = load_record("h200-sxm-trtllm-1.3.0rc20").model_copy(update={"overheads": {"step_s": own}})
    assert prefill_estimate(**R1, prompt=128, calibration=record).overhead_s == 1e-4


def test_without_graphs_the_host_launches_decode_steps_too():
    """The more of launching every kernel, 30 µs each, and every layer."""
    host = load_engine("trtllm").host
    layers = 3 * host.layer_s.dense + 58 * host.layer_s.other_experts
    step = decode_estimate(**R1, batch=1, calibration="trtllm", cuda_graph=False)
    launch_s = load_record("generic").overheads["launch_s"].value
    assert step.time_s == pytest.approx(max(layers, step.kernels * launch_s) + host.step_s + host.sequence_s)


def test_many_steps_take_what_each_takes(engine):
    """Decode steps, prompts alone and both, from few tokens to many."""
    time = StepTime(Deployment("deepseek-r1", "h200-sxm", tensor_parallel=8), calibration=engine.id)
    count = np.array([[8, 0], [0, 1], [8, 1], [8, 1], [0, 2]])
    new = np.array([[1, 1], [1, 100], [1, 600], [1, 8000], [1, 300]])
    cached = np.array([[1000, 0], [0, 0], [1000, 0], [1000, 0], [0, 0]])
    together = time(count, new, cached)
    assert together == pytest.approx([float(time(*rows)) for rows in zip(count, new, cached, strict=True)], rel=1e-12)
    assert (np.diff(together[[0, 2, 3]]) >= 0).all()
