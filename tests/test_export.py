"""Plans as command lines and manifests: what an engine is told is what was planned."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from roofline import Deployment
from roofline.errors import RooflineError
from roofline.planner import Candidate, plan, read_export
from roofline.planner.candidates import LIMITS
from roofline.planner.export import export as write
from roofline.planner.flags import ENGINES
from roofline.planner.yaml import write_yaml
from roofline.requests import Workload

pytestmark = pytest.mark.slow

ARGUMENTS = json.loads((Path(__file__).parent / "data" / "engine_arguments.json").read_text())  # its first entry names the sources
DENSE, EXPERTS = "llama-3.1-8b", "deepseek-v3"


def export(candidate, target, checkpoint=None, image=None):
    return write(candidate, target, checkpoint=checkpoint, image=image)


def one(engine, model=DENSE, machine="h100-sxm", **options):
    limits = {name: options.pop(name) for name in ("replicas", *LIMITS) if name in options}
    return Candidate(Deployment(model, machine, **options), engine=engine, **limits)


CANDIDATES = [
    one("vllm"),
    one("vllm", tensor_parallel=4, pipeline_parallel=2, replicas=3),
    one("vllm", kv="fp8", weights="fp8", step_tokens=4096, sequences=128, utilization=0.85, page=32),
    one("vllm", EXPERTS, "h200-sxm", tensor_parallel=8, expert_parallel=8),
    one("vllm", EXPERTS, "h200-sxm", data_parallel=8, expert_parallel=8, sequences=64),
    one("vllm", dtype="fp16", reserve=2e9, routing="power_law_1.2"),
    replace(one("vllm", replicas=2), prefill=Deployment(DENSE, "h200-sxm", tensor_parallel=2), prefill_replicas=5),
    one("vllm", kv_blocks=3000, admission="chunk", max_model_len=8192),
    one("vllm", page=32, kv_blocks=3000, admission="prompt"),
    one("vllm", graph_tokens=1024),
    one("sglang", tensor_parallel=2, kv="fp8", step_tokens=4096),
    one("sglang", kv_blocks=60_000, max_model_len=8192, admission="ratio"),
    one("sglang", receive_interval=4, graph_tokens=8192),
    one("sglang", EXPERTS, "h200-sxm", data_parallel=4, tensor_parallel=2, expert_parallel=8, step_tokens=2048, sequences=32),
    replace(one("sglang", weights="fp8"), prefill=Deployment(DENSE, "h100-sxm", weights="fp8"), prefill_replicas=2),
    one("trtllm", tensor_parallel=2, sequences=256),
    one("trtllm", kv_blocks=3000, admission="prompt", max_model_len=8192),
    one("trtllm", kv_blocks=3000, page=64, admission="whole", graph_tokens=4096),
    one("trtllm", EXPERTS, "h200-sxm", data_parallel=8, expert_parallel=8, kv="fp8", page=64),
    one("trtllm", EXPERTS, "h200-sxm", data_parallel=8, expert_parallel=8, rank_wait_steps=60),
    replace(one("trtllm", kv="fp8"), prefill=Deployment(DENSE, "h100-sxm", tensor_parallel=2), prefill_replicas=2),
]


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: f"{c.engine}: {c}")
def test_command_lines_are_read_as_the_candidate_they_start(candidate):
    assert read_export(export(candidate, candidate.engine)) == candidate


@pytest.mark.parametrize("candidate", [c for c in CANDIDATES if c.deployment.devices <= 8], ids=lambda c: f"{c.engine}: {c}")
def test_manifests_are_read_as_the_candidate_they_start(candidate):
    documents = list(yaml.safe_load_all(export(candidate, "k8s")))
    assert read_export(documents) == candidate
    asked = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Deployment"}
    limits = [d["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for d in asked.values()]
    assert sum(int(n) * d["spec"]["replicas"] for n, d in zip(limits, asked.values(), strict=True)) == candidate.devices
    assert {d["metadata"]["name"] for d in documents if d["kind"] == "Service"} == set(asked)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: f"{c.engine}: {c}")
def test_every_argument_is_one_that_the_engine_has(candidate):
    text = export(candidate, candidate.engine)
    flags = [
        word.lstrip("-").removeprefix("no-") for word in shlex.split(text.replace("\\\n", " "), comments=True) if word.startswith("--")
    ]
    assert flags
    assert set(flags) <= set(ARGUMENTS[candidate.engine])
    if "kv_cache_config" in text:
        options = yaml.safe_load(text.partition("'END'\n")[2].partition("END\n")[0])
        assert set(options.get("kv_cache_config", {})) <= set(ARGUMENTS["trtllm KvCacheConfig"])


def test_every_flag_of_the_tables_exists():
    for engine, arguments in ENGINES.items():
        flags = {flag.lstrip("-") for flag in arguments.flags.values() if flag.startswith("--")}
        assert flags <= set(ARGUMENTS[engine])


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        # docs of SGLang: --tp-size counts the devices of all data-parallel ranks, among which prompts of a step and requests are divided
        (
            one("sglang", EXPERTS, "h200-sxm", data_parallel=4, tensor_parallel=2, step_tokens=2048, sequences=32),
            "--tp-size 8 --dp-size 4 --enable-dp-attention --chunked-prefill-size 8192 --max-running-requests 128",
        ),
        # vLLM's switch for experts has no number: it is all devices
        (one("vllm", EXPERTS, "h200-sxm", tensor_parallel=8, expert_parallel=8), "--tensor-parallel-size 8 --enable-expert-parallel"),
        (one("vllm", weights="fp8", kv="fp8"), "--quantization fp8 --kv-cache-dtype fp8"),
        (one("trtllm", step_tokens=16384, sequences=64), "--max_num_tokens 16384 --max_batch_size 64"),
        # vLLM counts its cache in blocks, of which the log's number has the null block too; SGLang counts tokens
        (one("vllm", kv_blocks=2588, admission="chunk"), "--num-gpu-blocks-override 2588 --no-scheduler-reserve-full-isl"),
        (one("sglang", kv_blocks=3000, page=64, max_model_len=4096), "--max-total-tokens 192000 --context-length 4096"),
        (one("sglang", receive_interval=4, graph_tokens=8192), "--scheduler-recv-interval 4 --cuda-graph-max-bs-prefill 8192"),
        (one("vllm", graph_tokens=1024), "--max-cudagraph-capture-size 1024"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.engine,
)
def test_engines_are_told_in_their_own_terms(candidate, words):
    told = shlex.split(export(candidate, candidate.engine).replace("\\\n", " "), comments=True)
    pairs = words.split(" --")
    assert all(f"--{pair.removeprefix('--')}" in " ".join(told) for pair in pairs)


def test_tensorrt_llm_is_told_that_ranks_wait_for_each_other():
    """``attention_dp_config`` of its file of options; a single rank waits for nobody."""
    ranks = export(one("trtllm", EXPERTS, "h200-sxm", data_parallel=8, expert_parallel=8, rank_wait_steps=60), "trtllm")
    options = yaml.safe_load(ranks.partition("'END'\n")[2].partition("END\n")[0])
    assert options["attention_dp_config"] == {"timeout_iters": 60, "enable_balance": True}
    alone = one("trtllm", rank_wait_steps=60)
    assert "enable_balance" not in export(alone, "trtllm")
    assert read_export(export(alone, "trtllm")) == alone


def test_what_is_left_to_the_engine_is_not_written():
    text = export(one("vllm"), "vllm")
    assert "--max-num-seqs" not in text
    assert "--tensor-parallel-size" not in text
    assert "meta-llama/Llama-3.1-8B" in text


def test_a_checkpoint_says_what_its_weights_are():
    candidate = one("trtllm", weights="nvfp4", machine="b200-sxm")
    with pytest.raises(RooflineError, match="checkpoint= names one that has them so"):
        export(candidate, "trtllm")
    text = export(candidate, "trtllm", checkpoint="nvidia/Llama-3.1-8B-Instruct-FP4")
    assert "trtllm-serve nvidia/Llama-3.1-8B-Instruct-FP4" in text
    assert read_export(text) == candidate


def test_machines_of_amd_are_asked_for_by_their_name():
    limits = next(
        d
        for d in yaml.safe_load_all(export(one("vllm", machine="mi300x", tensor_parallel=2), "k8s", image="rocm/vllm:x"))
        if "replicas" in d["spec"]
    )
    container = limits["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"amd.com/gpu": "2"}
    assert container["image"] == "rocm/vllm:x"


@pytest.mark.parametrize(
    ("candidate", "target", "message"),
    [
        (one("vllm"), "sglang", "the plan is for vllm, whose rules were followed, not for sglang: plan with engine='sglang'."),
        (one("vllm"), "vlm", "unknown target 'vlm'; nearest: vllm"),
        (one("vllm", tensor_parallel=8, pipeline_parallel=2), "k8s", "a replica of 16 devices of H100 SXM5 80GB takes several servers"),
        (one("vllm", EXPERTS, "h200-sxm", tensor_parallel=8, expert_parallel=4), "vllm", "expert_parallel of 4 cannot be told to vLLM"),
        (one("vllm", context_parallel=2), "vllm", "context_parallel of 2 cannot be told to vLLM"),
        (one("trtllm", EXPERTS, "h200-sxm", data_parallel=4, tensor_parallel=2), "trtllm", "cannot both be told to TensorRT-LLM"),
        (one("sglang", kv="nvfp4", machine="b200-sxm"), "sglang", "kv of 'nvfp4' cannot be told to sglang; it takes bf16, fp8."),
        (one("sglang", admission="whole"), "sglang", "admission of whole cannot be told to SGLang"),
        (one("trtllm", admission="chunk"), "trtllm", "admission of 'chunk' cannot be told to trtllm"),
        (one("vllm", weights="int4"), "vllm", "vllm makes fp8 of stored weights, not 'int4' as planned"),
        (one("vllm", weights="fp8", activations="bf16"), "vllm", "checkpoint= names one"),
        (one("vllm", EXPERTS, "h200-sxm", tensor_parallel=8, mtp=1), "vllm", "drafts of mtp are not exported"),
    ],
    ids=lambda value: "" if isinstance(value, Candidate) else value,
)
def test_what_cannot_be_told_is_refused(candidate, target, message):
    with pytest.raises(RooflineError) as refused:
        export(candidate, target)
    assert message in str(refused.value)
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--max-num-seqs 9", "--max-num-sequences 9"), "'--max-num-sequences' is nothing that a candidate has; nearest: --max-num-seqs"),
        (("--max-num-seqs 9", "--max-num-seqs nine"), "--max-num-seqs is 'nine'; a candidate has a number there."),
        (("--kv-cache-dtype fp8", "--kv-cache-dtype fp7"), "--kv-cache-dtype is 'fp7'; a candidate has bfloat16 or"),
        (("vllm serve", "vllm chat"), "is no command of vllm: it begins with vllm serve and a checkpoint."),
        (("# roofline: {", "# roofline: ["), "names no model, machine, replicas and engine."),
        (("# roofline: ", "# "), "there is no command of replicas that write answers"),
        (('"engine": "vllm"', '"engine": "vlm"'), "unknown engine 'vlm'; nearest: vllm"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(change, message):
    text = export(one("vllm", sequences=9, kv="fp8"), "vllm")
    assert change[0] in text
    with pytest.raises(RooflineError) as refused:
        read_export(text.replace(*change))
    assert message in str(refused.value)


def test_manifests_without_a_candidate_are_one_sentence():
    with pytest.raises(RooflineError, match="a Deployment has no command, replicas or annotation"):
        read_export([{"kind": "Deployment", "metadata": {"name": "x"}, "spec": {}}])


def test_a_plan_with_limits_of_an_engine_is_read_from_its_own_flags():
    some = Workload.generated(200, prompt=800, output=100, arrivals=6.0, seed=1)
    limits = {"kv_blocks": 3000, "admission": "chunk", "max_model_len": 4096}
    found = plan(DENSE, some, {"ttft_s": 1.0, "tpot_s": 0.05}, machines="h100-sxm", degrees=1, **limits)
    candidate = read_export(found.export("vllm"))
    assert candidate == found.cheapest.candidate
    assert candidate.limits == limits
    assert found.simulate().fleet.decode[0].rules.kv_blocks == 2999  # of vLLM's blocks no sequence gets one
    assert "kv_blocks 3000" in str(found)
    with pytest.raises(RooflineError, match="kv_blocks is of the log of one deployment, and there are 4"):
        plan(DENSE, some, {"ttft_s": 1.0}, machines="h100-sxm", kv_blocks=3000)
    short = plan(DENSE, some, {"ttft_s": 1.0}, machines="h100-sxm", degrees=1, max_model_len=500)
    assert "ends at 500" in short.forbidden


@pytest.mark.parametrize("simulated", [0, 1])
def test_a_plan_says_which_limits_an_engine_would_not_take(simulated):
    some = Workload.generated(200, prompt=800, output=100, arrivals=6.0, seed=1)
    limits = {"kv_blocks": 10**9, "max_model_len": 10**6}
    found = plan(DENSE, some, {"ttft_s": 1.0}, machines="h100-sxm", degrees=1, simulated=simulated, **limits)
    for said in ("1,000,000,000 blocks of 16 tokens take 2.097 PB", "but llama-3.1-8b was made for 131,072 positions"):
        assert str(found).count(said) == 1


def test_a_plan_exports_its_cheapest_candidate_with_spare_replicas():
    chat = Workload.generated(300, prompt=500, output=50, arrivals=4.0)
    found = plan(DENSE, chat, {"ttft_s": 1.0}, machines="h100-sxm", degrees=1, spare=1)
    assert read_export(found.export("vllm")) == found.cheapest.candidate
    assert read_export(list(yaml.safe_load_all(found.export("k8s")))).replicas == found.cheapest.trial.candidate.replicas + 1


def test_yaml_is_what_a_reader_of_yaml_takes_for_the_same_data():
    rng = np.random.default_rng(0)
    words = [
        "yes",
        "8000",
        "a b",
        "1e3",
        "null",
        "",
        "it's",
        '"',
        "a: b",
        "# c",
        "- d",
        "~",
        "0x1f",
        "two\nlines\n",
        "1:30",
        "true",
        "/a.b-c",
    ]

    def made(depth):
        kind = rng.integers(3) if depth else 2
        if kind == 0:
            return {str(rng.choice(words[:-4])) + str(i): made(depth - 1) for i in range(rng.integers(1, 4))}
        if kind == 1:
            return [made(depth - 1) for _ in range(rng.integers(1, 4))]
        return rng.choice(np.array([*words, 3, 2.5, True, None], dtype=object))

    for _ in range(200):
        data = {"top": made(3)}
        assert yaml.safe_load(write_yaml(data)) == data
