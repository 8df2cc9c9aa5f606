"""Deployments: what they check, what they know, and that every question takes one or the same arguments."""

import inspect
import math
import pickle
from importlib.util import find_spec

import numpy as np
import pytest

import roofline
from roofline import (
    CallError,
    Deployment,
    Hardware,
    InvalidValueError,
    Model,
    RooflineError,
    Step,
    UnknownNameError,
    UnknownOptionError,
    attention_floor,
    check_table,
    context_without_compute,
    critical_batch,
    decode_estimate,
    decode_floor,
    experts_floor,
    fewest_devices,
    free_rows,
    journey,
    levers,
    matmul_floor,
    max_batch,
    max_context,
    max_rate,
    memory_limits,
    mfu,
    plot_batch,
    prefill_estimate,
    prefill_floor,
    resident,
    serving_estimate,
    step_estimate,
    step_floor,
    sweep,
)
from roofline.deployment.options import ALL, CAPACITY, OPTIONS, STEP, CapacityOptions, DeploymentOptions, StepOptions

MODEL, MACHINE = "llama-3-8b", "h100-sxm"
DECODE = {"batch": 8, "context": 1000}

QUESTIONS = {
    "decode_floor": (decode_floor, DECODE),
    "prefill_floor": (prefill_floor, {"prompt": 100}),
    "step_floor": (step_floor, {"step": Step.decode(batch=3, context=7)}),
    "decode_estimate": (decode_estimate, DECODE),
    "prefill_estimate": (prefill_estimate, {"prompt": 100}),
    "step_estimate": (step_estimate, {"step": Step.decode(batch=3, context=7)}),
    "resident": (resident, DECODE),
    "max_batch": (max_batch, {"context": 1000}),
    "max_context": (max_context, {"batch": 8}),
    "fewest_devices": (fewest_devices, DECODE),
    "memory_limits": (memory_limits, DECODE),
    "levers": (levers, DECODE),
    "journey": (journey, {"context": 100}),
    "critical_batch": (critical_batch, {"context": 100}),
    "context_without_compute": (context_without_compute, {}),
    "free_rows": (free_rows, DECODE),
    "plot_batch": (plot_batch, {"context": 100, "batches": [1, 8]}),
    "serving_estimate": (serving_estimate, {"prompt": 100, "output": 10, "concurrency": [1, 8]}),
    "max_rate": (max_rate, {"slo": {"tpot_s": 0.02}, "prompt": 100, "output": 10}),
    "sweep": (sweep, {"batch": [1, 8], "context": [100, 1000]}),
}
if find_spec("matplotlib") is None:  # an extra
    del QUESTIONS["plot_batch"]
everyone = pytest.mark.parametrize(("ask", "own"), QUESTIONS.values(), ids=QUESTIONS)


def plain(answer):
    if hasattr(answer, "get_lines"):  # an Axes
        from matplotlib import pyplot

        pyplot.close(answer.figure)
        return [line.get_xydata().tolist() for line in answer.get_lines()]
    return answer.to_dict() if hasattr(answer, "to_dict") else answer


# --------------------------------------------------------------------------------------------------------------- one deployment


def test_every_question_with_a_model_and_a_machine_is_here():
    asked = {
        name
        for name in roofline.__all__
        if inspect.isfunction(thing := getattr(roofline, name)) and {"model", "hardware"} <= set(inspect.signature(thing).parameters)
    }
    assert asked == set(QUESTIONS) | {"plot_batch", "compare", "compare_steps"}  # the last two ask about a measurement first: test_compare


@everyone
def test_a_deployment_answers_as_the_same_arguments_do(ask, own):
    degree = {} if ask is fewest_devices else {"tensor_parallel": 2}
    node = Deployment(MODEL, MACHINE, weights="fp8", kv="fp8", **degree)
    assert plain(ask(node, **own)) == plain(ask(MODEL, MACHINE, weights="fp8", kv="fp8", **degree, **own))


@everyone
def test_options_beside_a_deployment_change_it(ask, own):
    assert plain(ask(Deployment(MODEL, MACHINE), kv="fp8", **own)) == plain(ask(Deployment(MODEL, MACHINE, kv="fp8"), **own))


@everyone
def test_a_deployment_names_its_machine(ask, own):
    if ask is sweep:  # machines are its first axis
        assert ask(Deployment(MODEL, "a100-sxm-80gb"), MACHINE, **own).machines == (Hardware.load(MACHINE),)
    else:
        with pytest.raises(InvalidValueError, match="deployment"):
            ask(Deployment(MODEL, MACHINE), MACHINE, **own)


def test_a_step_may_follow_a_deployment():
    node, step = Deployment(MODEL, MACHINE), Step.decode(batch=3) + Step.prefill(50)
    assert step_floor(node, step) == step_floor(MODEL, MACHINE, step)
    assert step_estimate(node, step).time_s == step_estimate(MODEL, MACHINE, step).time_s


def test_what_a_deployment_knows():
    node = Deployment("deepseek-v3", "h200", tensor_parallel=8, expert_parallel=8, utilization=0.9, reserve=2_000_000_000)
    assert node.devices == 8  # experts are spread over the same devices that share the layers
    assert node.model is Model.load("deepseek-v3")
    assert node.machine == Hardware.load("h200")
    assert node.usable_bytes == int(node.machine.memory_capacity * 0.9)
    assert Deployment("70B", memory_capacity=80e9).memory_capacity == 80_000_000_000
    assert Deployment("70B").usable_bytes is None


def test_but_changes_one_thing():
    node = Deployment(MODEL, MACHINE, tensor_parallel=2, weights="fp8")
    assert node.but(tensor_parallel=4) == Deployment(MODEL, MACHINE, tensor_parallel=4, weights="fp8")
    assert node.but(hardware="h200").machine == Hardware.load("h200")
    assert node.but(model="llama-3-70b").model == Model.load("llama-3-70b")
    assert node.but(weights=None) == Deployment(MODEL, MACHINE, tensor_parallel=2)
    assert node.but() == node
    bare = Deployment("70B", memory_bandwidth=3e12)
    assert bare.but(peak_flops_per_s=1e15) == Deployment("70B", memory_bandwidth=3e12, peak_flops_per_s=1e15)
    assert bare.but(hardware=MACHINE) == Deployment("70B", MACHINE)
    assert node.but(hardware=None, memory_bandwidth=3e12) == Deployment(MODEL, memory_bandwidth=3e12, tensor_parallel=2, weights="fp8")
    with pytest.raises(InvalidValueError, match=r"either a machine \('h100-sxm'\) or bare rates \(memory_capacity\), not both"):
        node.but(memory_capacity=40e9)
    assert decode_floor(Deployment(MODEL), MACHINE) == decode_floor(MODEL, MACHINE)  # no machine yet


def test_a_deployment_is_frozen_hashable_and_picklable():
    node = Deployment(MODEL, MACHINE, tensor_parallel=2, weights={"*": "fp8"}, routing=np.array([0.5, 0.5]))
    for name in ("model", "mtp", "options", "anything"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(node, name, 1)
    with pytest.raises(TypeError):
        node.options["kv"] = "fp8"
    with pytest.raises(TypeError):
        node.options["weights"]["*"] = "int4"
    assert (node.tensor_parallel, node.kv, node.page) == (2, None, 16)
    with pytest.raises(AttributeError, match="no 'wieghts'"):
        _ = node.wieghts
    assert pickle.loads(pickle.dumps(node)) == node
    assert len({node, pickle.loads(pickle.dumps(node)), node.but(kv="fp8")}) == 2
    assert repr(Deployment(MODEL, MACHINE, tensor_parallel=2)) == "Deployment('llama-3-8b', 'h100-sxm', tensor_parallel=2)"


def test_memory_that_may_be_used_decides_what_fits_in_floors_too():
    # 16.06 GB of weights (Llama-3-8B, arXiv 2407.21783) on 24 GB
    full = decode_floor(MODEL, "rtx-4090")
    assert full.fits
    assert not decode_floor(MODEL, "rtx-4090", utilization=0.6).fits
    assert not decode_floor(MODEL, "rtx-4090", reserve=12e9).fits
    assert decode_floor(MODEL, "rtx-4090", reserve=12e9).time_s == full.time_s
    assert "of 15.45 GB" in decode_floor(MODEL, "rtx-4090", utilization=0.6).summary()[1]  # of 25.76 GB


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"page": 0}, "page is 0"),
        ({"page": [8, 16]}, "single whole number"),
        ({"reserve": -1}, "reserve is -1"),
        ({"utilization": 0}, "utilization is 0"),
        ({"utilization": 90}, "utilization is 90; it is a share"),
        ({"utilization": True}, "utilization is True"),
        ({"tensor_parallel": 1.5}, "tensor_parallel is 1.5"),
        ({"tensor_parallel": True}, "tensor_parallel is True"),
        ({"tensor_parallel": 3}, "3 ways"),
        ({"expert_parallel": 2}, "expert_parallel is 2"),
        ({"weights": "fp9"}, "fp9"),
        ({"mtp": 2}, "mtp is 2"),
        ({"memory_bandwidth": 3e12}, "not both"),
        ({"routing": math.nan}, "routing is nan"),
        ({"routing": True}, "routing is True"),
        ({"routing": [[0.5, 0.5]]}, "routing is"),
        ({"routing": []}, "routing is"),
        ({"routing": [0.5, -0.5]}, "routing is"),
    ],
    ids=str,
)
def test_a_deployment_that_cannot_be_is_refused_when_it_is_made(options, message):
    with pytest.raises(RooflineError, match=message):
        Deployment(MODEL, MACHINE, **options)


def test_popularities_are_checked_against_the_layers_when_it_is_made():
    with pytest.raises(InvalidValueError, match="4"):
        Deployment("mixtral-8x7b", MACHINE, routing=[0.5] * 4)
    with pytest.raises(InvalidValueError):
        Deployment("mixtral-8x7b", MACHINE, routing=[9.0] * 8)


def test_nothing_makes_a_step_fit_beside_too_large_a_reserve():
    assert "nothing makes it fit: the reserve alone" in str(decode_floor(MODEL, MACHINE, reserve=10**11))


def test_equal_numbers_of_other_types_are_checked_each_time():
    """A remembered deployment must not answer for 1.0 or True, which equal 1."""
    decode_floor(MODEL, MACHINE, tensor_parallel=1)
    for degree in (True, 1.5):
        with pytest.raises(RooflineError):
            decode_floor(MODEL, MACHINE, tensor_parallel=degree)


def test_a_changed_config_file_is_read_anew(tmp_path):
    import json
    from importlib.resources import files

    config = json.loads((files("roofline") / "_models" / "llama-3-8b.json").read_text())["config"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    before = decode_floor(str(path), MACHINE).weight_bytes
    path.write_text(json.dumps({**config, "num_hidden_layers": 16}) + " ")
    assert decode_floor(str(path), MACHINE).weight_bytes < before


# -------------------------------------------------------------------------------------------------------------------- options


def test_options_are_defined_once():
    assert set(DeploymentOptions.__annotations__) == set(ALL) == set(OPTIONS)
    assert set(StepOptions.__annotations__) == set(STEP)
    assert set(CapacityOptions.__annotations__) == set(CAPACITY)


@everyone
def test_signature_and_docstring_spell_every_option_out(ask, own):
    names = set(inspect.signature(ask).parameters)
    assert len(names & set(ALL)) >= 12
    for name in names & set(ALL):
        assert f"{name} : " in ask.__doc__
        if name not in ("tensor_parallel",):  # an axis of a sweep
            assert OPTIONS[name].text in ask.__doc__


def test_defaults_of_the_signature_are_those_of_a_deployment():
    parameters = inspect.signature(Deployment).parameters
    node = Deployment(MODEL, MACHINE, **{name: option.default for name, option in OPTIONS.items()})
    assert {name: parameters[name].default for name in OPTIONS} == {name: option.default for name, option in OPTIONS.items()}
    assert node == Deployment(MODEL, MACHINE)
    assert not node.options


# Flags of vllm serve, sglang.launch_server and trtllm-serve, and arguments of their benchmarks, as their documentation spells them
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("tensor_parallel_size", "tensor_parallel"),  # vLLM
        ("tp", "tensor_parallel"),  # all
        ("tp_size", "tensor_parallel"),  # SGLang, TensorRT-LLM
        ("pipeline_parallel_size", "pipeline_parallel"),
        ("data_parallel_size", "data_parallel"),
        ("ep_size", "expert_parallel"),
        ("moe_expert_parallel_size", "expert_parallel"),  # TensorRT-LLM
        ("decode_context_parallel_size", "context_parallel"),  # vLLM
        ("kv_cache_dtype", "kv"),
        ("torch_dtype", "dtype"),
        ("quantization", "weights"),
        ("gpu_memory_utilization", "utilization"),  # vLLM
        ("mem_fraction_static", "utilization"),  # SGLang
        ("free_gpu_memory_fraction", "utilization"),  # TensorRT-LLM
        ("batch_size", "batch"),
        ("seq_len", "context"),
        ("max_model_len", "context"),
    ],
)
def test_spellings_of_engines_are_known(theirs, ours):
    with pytest.raises(UnknownOptionError, match=f"decode_floor has no {theirs}: it is called {ours} here"):
        decode_floor(MODEL, MACHINE, **{theirs: 1})


@everyone
def test_a_wrong_keyword_is_one_error_everywhere(ask, own):
    with pytest.raises(UnknownOptionError, match=f"^{ask.__name__} has no wieghts: nearest: weights") as caught:
        ask(MODEL, MACHINE, wieghts="fp8", **own)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, UnknownNameError)
    with pytest.raises(UnknownOptionError, match=f"^{ask.__name__} has no wieghts: nearest: weights"):
        ask(Deployment(MODEL, MACHINE), wieghts="fp8", **own)


@pytest.mark.parametrize(
    ("ask", "options", "message"),
    [
        (prefill_floor, {"prompt": 8, "context": 8}, "prefill_floor has no context: a prefill has prompt.*decode_floor has context"),
        (prefill_estimate, {"prompt": 8, "seq_len": 8}, "a prefill has prompt.*decode_estimate has context"),
        (decode_floor, {"prompt": 8}, "a decode step has batch and context; prefill_floor has prompt"),
        (decode_floor, {"input_len": 8}, "prefill_floor has prompt"),
        (decode_floor, {"page": 16}, "page is counted by resident, max_batch, max_context and fewest_devices"),
        (decode_floor, {"block_size": 16}, "resident"),
        (decode_floor, {"num_gpus": 8}, "devices are given as degrees: tensor_parallel, pipeline_parallel"),
        (fewest_devices, {"num_gpus": 8}, "devices are its answer, and at_most limits them"),
        (decode_floor, {"output_len": 8}, "of requests that are served"),
        (decode_estimate, {"enforce_eager": True}, "called cuda_graph here"),
        (levers, {"num_speculative_tokens": 3}, "called drafts here"),
        (max_batch, {"context": 8, "fusion": "full"}, "does not depend on fusion"),
        (max_batch, {"context": 8, "max_num_batched_tokens": 8}, "called activation_tokens here"),
        (fewest_devices, {"tensor_parallel": 8}, "what the question looks for"),
        (step_floor, {"step": Step.decode(), "batch": 8}, "batch belongs to"),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_a_wrong_keyword_names_the_right_one_or_the_sister(ask, options, message):
    with pytest.raises(UnknownOptionError, match=message):
        ask(MODEL, MACHINE, **options)


# ----------------------------------------------------------------------------------------------------------------- the fault


@pytest.mark.parametrize(
    "degrees",
    [
        {"tensor_parallel": 8, "expert_parallel": 8},
        {"tensor_parallel": 4, "expert_parallel": 4},
        {"tensor_parallel": 2, "data_parallel": 4, "expert_parallel": 8},
        {"tensor_parallel": 8, "pipeline_parallel": 2},
    ],
    ids=str,
)
def test_a_lever_takes_the_devices_of_its_floor(degrees):
    found = levers("deepseek-v3", "h200", batch=64, context=1024, **degrees)
    product = int(np.prod([d for name, d in degrees.items() if name != "expert_parallel"]))
    assert found.base.devices == product
    for row in found:
        assert row.devices == (row.floor.devices if row.floor is not None else product)


# ----------------------------------------------------------------------------------------------- functions without a deployment


@pytest.mark.parametrize(
    ("ask", "arguments", "options", "message"),
    [
        (matmul_floor, (8, 8, 8), {"dtype": "bf16"}, "matmul_floor has no dtype: it is called format here"),
        (matmul_floor, (8, 8, 8), {}, "matmul_floor needs format; it takes m, n, k"),
        (matmul_floor, (8,), {"format": "bf16"}, "matmul_floor needs n and k; it takes"),
        (attention_floor, (1, 0, "h100"), {"num_heads": 8}, "it is called heads here"),
        (attention_floor, (1, 0, "h100"), {"heads": 8, "head_dim": 64, "seq_len": 8}, "it is called context here"),
        (attention_floor, (1, 0, "h100"), {"tp": 8}, "about one kernel"),
        (experts_floor, (8, "h100"), {"num_experts": 8}, "it is called count here"),
        (mfu, (1,), {"latency": 8}, "it is called time_s here"),
        (check_table, ("t.csv", "h100"), {"units": "ms"}, "nearest: unit"),
    ],
    ids=str,
)
def test_functions_without_a_deployment_refuse_keywords_alike(ask, arguments, options, message):
    with pytest.raises(CallError, match=message):
        ask(*arguments, **options)


def test_what_has_to_be_given_is_asked_for():
    with pytest.raises(InvalidValueError, match="prompt is None; it must be a whole number of at least 1"):
        prefill_floor(MODEL, MACHINE)
    with pytest.raises(InvalidValueError, match="context is None"):
        max_batch(MODEL, MACHINE)


# ------------------------------------------------------------------------------------------------ every option changes an answer

SPLIT = {"tensor_parallel": 2, "data_parallel": 2, "expert_parallel": 2}
OTHER = {
    # another value of every option, and an answer that changes with it, so that no option is accepted and then ignored
    "weights": "int4",
    "dtype": "fp32",
    "activations": "bf16",
    "kv": "fp8",
    "kv_bytes_per_token": 70_000,
    "fusion": "full",
    "routing": "best",
    "mtp": 1,
    "tensor_parallel": 4,
    "pipeline_parallel": 2,
    "expert_parallel": 4,
    "data_parallel": 4,
    "context_parallel": 2,
    "memory_bandwidth": 2e12,
    "peak_flops_per_s": 1e15,
    "memory_capacity": 1e12,
    "utilization": 0.5,
    "reserve": 10**9,
    "page": 512,
    "in_flight_tokens": 2048,
    "activation_tokens": 4096,
}
RATES = {"memory_bandwidth": 3e12, "peak_flops_per_s": 2e15, "memory_capacity": 2e12}


def answers(deployment):
    floor = decode_floor(deployment, batch=64, context=1000)
    return floor.time_s, floor.compute_s, floor.roofline_s, floor.resident_bytes, max_batch(deployment, context=1000)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_an_answer(name):
    formats = name == "activations"  # bare rates have one peak for all formats
    machine = ("h200-sxm",) if formats else ()
    if name == "kv_bytes_per_token":  # for a model of which only the number of parameters is known
        deployment = Deployment("671B", **RATES)
    elif name == "in_flight_tokens":  # of windows only
        deployment = Deployment("gpt-oss-120b", **RATES)
    else:
        deployment = Deployment("deepseek-v3", *machine, **SPLIT, **({} if formats else RATES))
    assert answers(deployment) != answers(deployment.but(**{name: OTHER[name]}))
