"""What an engine schedules by unless told otherwise, and the blocks of cache that it finds room for, held against logs of starts."""

import csv

import numpy as np
import pytest

from roofline import Deployment, InvalidValueError, UnknownNameError, UnknownOptionError, serving_estimate
from roofline.capacity import resident
from roofline.engines import load_engine
from roofline.serving import Rules, rules_of
from roofline.serving.rules import LOGGED

H100 = Deployment("llama-3.1-8b", "h100-sxm")

# ------------------------------------------------------------------------------------------------------------------- limits


def test_limits_are_those_of_the_engine_on_the_machine():
    """The sources of each figure are in ``hardware_specs/engines``."""
    vllm = rules_of(H100)
    assert (vllm.engine, vllm.step_tokens, vllm.sequences, vllm.page) == ("vllm", 8192, 1024, 16)
    assert (vllm.reserve, vllm.chunked, vllm.prefix_caching, vllm.policy, vllm.watermark) == ("prompt", True, True, "fcfs", 0.0)
    a100 = rules_of(Deployment("llama-3.1-8b", "a100-sxm-80gb"))
    assert (a100.step_tokens, a100.sequences) == (2048, 256)
    sglang = rules_of(H100, engine="SGLang")
    assert (sglang.engine, sglang.step_tokens, sglang.page, sglang.reserve) == ("sglang", 8192, 1, "ratio")
    trtllm = rules_of(H100, engine="TensorRT-LLM")
    assert (trtllm.engine, trtllm.step_tokens, trtllm.sequences, trtllm.page) == ("trtllm", 8192, 2048, 32)
    assert (trtllm.reserve, trtllm.chunked) == ("whole", False)
    wide = rules_of(Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel=4), engine="sglang")
    assert [rules.graph_sequences for rules in (vllm, sglang, wide, trtllm)] == [512, 256, 512, 128]


def test_what_is_given_counts():
    given = {"step_tokens": 2048, "sequences": 128, "page": 32, "prefix_caching": False, "watermark": 0.01, "policy": "priority"}
    given |= {"chunked": False, "long_prompt_tokens": 512, "drafts": 3, "max_model_len": 4096, "kv_blocks": 1000, "graph_sequences": 64}
    rules = rules_of(H100, **given, admission="chunk")
    assert rules == Rules("vllm", **given | {"kv_blocks": 999}, reserve="chunk")
    assert rules.notes == ()


@pytest.mark.parametrize(
    ("option", "engine", "of"),
    [
        ({"ratio": 0.5}, "vllm", "SGLang"),
        ({"chunking": "equal"}, "sglang", "TensorRT-LLM"),
        ({"batch_wait_steps": 20}, "vllm", "TensorRT-LLM"),
        ({"rank_wait_steps": 60}, "sglang", "TensorRT-LLM"),
    ],
)
def test_an_option_of_another_engine_is_refused(option, engine, of):
    with pytest.raises(InvalidValueError, match=rf"{next(iter(option))} is of {of}, and engine is {engine}"):
        rules_of(H100, engine=engine, **option)


def test_only_vllm_can_be_told_to_schedule_nothing_ahead():
    assert (rules_of(H100).async_scheduling, rules_of(H100, async_scheduling=False).async_scheduling) == (True, False)
    with pytest.raises(InvalidValueError, match="async_scheduling is of vLLM, and engine is sglang"):
        rules_of(H100, engine="sglang", async_scheduling=False)


def test_of_vllm_s_blocks_one_is_no_sequences():
    """wheel vllm 0.33.0, v1/core/block_pool.py: block 0 is the null block."""
    assert rules_of(H100, kv_blocks=2588).kv_blocks == 2587
    assert rules_of(H100, engine="trtllm", kv_blocks=2588).kv_blocks == 2588


def test_a_cache_beyond_the_memory_is_said():
    """Llama-3.1-8B's config.json: 32 layers of 8 heads of 128 keys and values in 16 bit, 131,072 B a token, and 8.03 billion weights of 2 B."""
    page_bytes, left = 16 * 2 * 32 * 8 * 128 * 2, H100.memory_capacity - 2 * 8_030_261_248
    most = left // page_bytes
    assert rules_of(H100, kv_blocks=most).notes == ()
    (note,) = rules_of(H100, kv_blocks=most + 1).notes
    assert note.startswith(
        f"kv_blocks: {most + 1:,} blocks of 16 tokens take 69.46 GB of a device, and beside the weights H100 SXM5 80GB has"
    )
    (note,) = rules_of(H100, kv_blocks=10**9).notes
    assert "take 2.097 PB" in note
    assert (
        rules_of(Deployment("llama-3.1-8b", memory_bandwidth=1e12, peak_flops_per_s=1e14), kv_blocks=10**9).notes == ()
    )  # no memory is known
    assert note in serving_estimate(H100, prompt=1000, output=100, rate=1.0, kv_blocks=10**9).notes


def test_a_length_beyond_the_model_s_positions_is_said():
    """Llama-3.1-8B's config.json: max_position_embeddings is 131072."""
    said = "max_model_len is 131,073, but llama-3.1-8b was made for 131,072 positions"
    assert said in rules_of(H100, max_model_len=131_073).notes
    assert not any("positions" in note for note in rules_of(H100, max_model_len=131_072).notes)
    assert said in serving_estimate(H100, prompt=1000, output=100, rate=1.0, max_model_len=131_073).notes


def test_vllm_needs_a_token_for_each_sequence():
    """wheel vllm 0.33.0, config/scheduler.py: max_num_batched_tokens is at least max_num_seqs."""
    assert rules_of(H100, step_tokens=512).sequences == 512
    with pytest.raises(InvalidValueError, match="sequences is 1024 but step_tokens is 512"):
        rules_of(H100, step_tokens=512, sequences=1024)


@pytest.mark.parametrize(
    ("tokens", "longest", "expected"), [(10**6, 4096, 4096), (10**5, 32_768, 2048), (1_000_000, 200_000, 2560), (500, 4096, 250)]
)
def test_sglang_runs_as_many_sequences_as_its_cache_suggests(tokens, longest, expected):
    """wheel sglang 0.5.23, srt/mem_cache/kv_cache_configurator.py, resolve_max_num_reqs."""
    assert rules_of(H100, engine="sglang", kv_blocks=tokens, max_model_len=longest).sequences == expected


def test_sglang_divides_a_step_among_data_parallel_ranks():
    """wheel sglang 0.5.23, srt/arg_groups/parallel_hook.py: chunked_prefill_size // attn_dp_size."""
    node = Deployment("deepseek-v3", "h200", data_parallel=8, expert_parallel=8)
    assert rules_of(node, engine="sglang").step_tokens == 8192 // 8
    assert rules_of(node, engine="sglang", step_tokens=4096).step_tokens == 4096
    assert rules_of(node).step_tokens == 8192


def test_how_requests_wait_is_what_the_profile_says():
    """Figures of ``hardware_specs/engines``; sglang 0.5.23, parallel_hook.py: with data-parallel attention conservativeness is times 0.3."""
    sglang = rules_of(H100, engine="sglang")
    assert (sglang.ratio, sglang.least_ratio, sglang.ratio_steps, sglang.longest_answer) == (0.7, 0.098, 600, 4096)
    ranks = rules_of(Deployment("deepseek-v3", "h200", data_parallel=8, expert_parallel=8), engine="sglang")
    assert (ranks.ratio, ranks.least_ratio) == (pytest.approx(0.21), pytest.approx(0.0294))
    given = {"ratio": 1.0, "receive_interval": 10, "answer_tokens": 1024}
    told = rules_of(H100, engine="sglang", mixed=True, **given)
    assert told.mixed_chunk
    assert {name: getattr(told, name) for name in given} == given
    assert rules_of(H100, engine="trtllm", batch_wait_steps=20, chunking="equal").batch_wait_steps == 20


def test_drafts_are_those_of_the_models_own_modules():
    assert rules_of(Deployment("deepseek-v3", "h200", tensor_parallel=8, mtp=1)).drafts == 1
    assert rules_of(H100).drafts == 0


def test_a_profile_of_ones_own_counts():
    vllm = load_engine("vllm")
    own = vllm.but(cache=vllm.cache.but(page=64, prefix_caching=False))
    assert (rules_of(H100, engine=own).page, rules_of(H100, engine=own).prefix_caching) == (64, False)


# ------------------------------------------------------------------------------------------------------------------- blocks


def logged(repository, engine):
    """The cache in every log of an engine, derived and logged [B]."""
    with (repository / "tests" / "data" / "kv_blocks.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["engine"] == engine]
    profile = load_engine(engine)
    before_graphs = profile.but(cache=profile.cache.but(graph_bytes=None))  # vLLM counts them since 0.21
    for row in rows:
        options = dict(option.split("=") for option in row["options"].split())
        options = {name: int(value) if value.isdigit() else value for name, value in options.items()}
        options |= {"utilization": float(row["utilization"])} if row["utilization"] else {}
        node = Deployment(row["model"], row["machine"], **options)
        old = engine == "vllm" and tuple(map(int, row["version"].split(".")[:2])) < (0, 21)
        rules = rules_of(node, engine=before_graphs if old else profile, length=10**9)  # logs count tokens that all layers keep
        token = resident(node, page=rules.page).page_bytes / rules.page
        blocks = rules.kv_blocks + (engine == "vllm")
        yield blocks * rules.page * token, float(row["tokens"]) * token if row["tokens"] else float(row["gib"]) * 2**30


@pytest.mark.parametrize("engine", LOGGED)
def test_derived_caches_are_as_far_from_logged_ones_as_the_notes_say(repository, engine):
    found = np.array(list(logged(repository, engine)))
    off = np.abs(found[:, 0] - found[:, 1])
    logs, median, most = LOGGED[engine]
    assert len(off) == logs
    assert 0.8 * median < np.median(off) <= median
    assert 0.8 * most < off.max() <= most


def test_most_caches_of_vllm_are_within_five_per_cent(repository):
    found = np.array(list(logged(repository, "vllm")))
    assert np.mean(np.abs(found[:, 0] / found[:, 1] - 1) < 0.05) > 0.65


def test_notes_say_how_far_off_a_derived_number_may_be():
    (note,) = rules_of(H100).notes
    assert "in 19 logs of vLLM" in note
    assert "kv_blocks= takes the number of a log" in note
    (other,) = rules_of(H100, engine="trtllm").notes
    assert "no log of TensorRT-LLM" in other


def test_blocks_are_of_one_data_parallel_rank():
    """Twice the ranks with half the experts each: more memory is left on every device, whose rank has it for itself."""
    few, many = (rules_of(Deployment("deepseek-v3", "h200", data_parallel=ranks, expert_parallel=ranks)).kv_blocks for ranks in (8, 16))
    assert many > few


def test_context_parallelism_spreads_a_block_over_its_devices():
    rules = rules_of(Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel=4, context_parallel=2))
    assert rules.page == 32


def test_the_policy_of_the_deployment_counts():
    """A reserve takes the place of what engines are known to take, and utilization that of their share."""
    rules = rules_of(H100.but(reserve=10e9, utilization=0.5))
    node = resident(H100, batch=0)
    room = 0.5 * (H100.memory_capacity - 5e8) - node.weight_bytes - 10e9
    assert rules.kv_blocks == int(room // node.page_bytes) - 1
    assert rules_of(H100.but(page=32)).page == 32


def test_windows_and_state_are_spread_over_a_sequence_s_blocks():
    """Of Gemma-3-27B, 52 of 62 layers keep at most 1,023 positions: as many sequences fit as `resident` says of their length."""
    node = Deployment("gemma-3-27b", "h200", reserve=10e9)
    for length in (800, 20_000):
        rules = rules_of(node, length=length)
        fitting = rules.kv_blocks // -(-length // 16)
        full = resident(node, batch=fitting, context=length).total_bytes
        assert full == pytest.approx(0.92 * (node.memory_capacity - 5e8), rel=0.02)
        assert any("windows and state" in note and f"{length:,} tokens" in note for note in rules.notes)


def test_where_nothing_grows_a_block_is_the_state_of_a_sequence():
    node = Deployment("falcon-mamba-7b", "h100-sxm")
    rules = rules_of(node)
    state = resident(node, batch=1, context=100).state_bytes
    assert rules.page > 100_000
    assert 0.9 * 0.92 * node.memory_capacity < rules.kv_blocks * state + resident(node, batch=0).weight_bytes < node.memory_capacity


# -------------------------------------------------------------------------------------------------------------------- input


def test_a_model_that_does_not_fit_is_told_what_takes_the_memory():
    with pytest.raises(InvalidValueError, match=r"nothing is left for a cache: vLLM uses 78.22 GB of 85.52 GB .* weights take 141.1 GB"):
        rules_of(Deployment("llama-3.1-70b", "h100-sxm"))


def test_unknown_memory_asks_for_the_log():
    with pytest.raises(InvalidValueError, match="is not known; give kv_blocks"):
        rules_of(Deployment("llama-3.1-8b", memory_bandwidth=3e12, peak_flops_per_s=1e15))


WRONG = [
    ({"engine": "vlm"}, UnknownNameError, "unknown engine 'vlm'; nearest: vLLM"),
    ({"admission": "wholes"}, UnknownNameError, "unknown admission 'wholes'; nearest: whole"),
    ({"policy": 7}, InvalidValueError, "policy is 7; it must be one of fcfs, priority, lpm, lof"),
    ({"kv_blocks": 0}, InvalidValueError, "kv_blocks is 0; it must be a single whole number of at least 2"),
    ({"sequences": 0}, InvalidValueError, "sequences is 0"),
    ({"step_tokens": -1}, InvalidValueError, "step_tokens is -1"),
    ({"max_model_len": 0}, InvalidValueError, "max_model_len is 0"),
    ({"length": 0}, InvalidValueError, "length is 0"),
    ({"watermark": 1}, InvalidValueError, "watermark is 1; it is a share: at least 0, below 1"),
    ({"prefix_caching": 1}, InvalidValueError, "prefix_caching is 1; it must be True or False"),
    ({"max_num_seqs": 4}, UnknownOptionError, "rules_of has no max_num_seqs: it is called sequences here"),
    ({"max_num_batched_tokens": 4}, UnknownOptionError, "it is called step_tokens here"),
    ({"num_gpu_blocks_override": 4}, UnknownOptionError, "it is called kv_blocks here"),
    ({"scheduler_recv_interval": 10}, UnknownOptionError, "it is called receive_interval here"),
    ({"receive_interval": 10}, InvalidValueError, "vLLM looks for requests at every step"),
    ({"graph_tokens": -1}, InvalidValueError, "graph_tokens"),
    ({"cuda_graph_max_bs": 64}, UnknownOptionError, "it is called graph_sequences here"),
    ({"enable_prefix_caching": True}, UnknownOptionError, "it is called prefix_caching here"),
    ({"gpu_memory_utilization": 0.9}, UnknownOptionError, r"utilization is an option of the deployment: deployment.but\(utilization=...\)"),
]


@pytest.mark.parametrize(("given", "error", "said"), WRONG, ids=[next(iter(given)) + "=" + str(*given.values()) for given, *_ in WRONG])
def test_what_cannot_be_is_told_in_a_sentence(given, error, said):
    with pytest.raises(error, match=said):
        rules_of(H100, **given)


LIMITS = {"engine": "vllm", "step_tokens": 2048, "sequences": 256, "kv_blocks": 1000}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kv_blocks": 0}, "kv_blocks is 0; it must be a single whole number of at least 1"),
        ({"step_tokens": 2.5}, "step_tokens is 2.5"),
        ({"page": 0}, "page is 0"),
        ({"watermark": float("nan")}, "watermark is nan"),
        ({"chunked": "yes"}, "chunked is 'yes'; it must be True or False"),
        ({"reserve": None}, "reserve is None; it must be one of prompt, chunk, ratio, whole, batch"),
    ],
)
def test_limits_that_cannot_be_make_no_rules(given, said):
    with pytest.raises(InvalidValueError, match=said):
        Rules(**LIMITS | given)


def test_a_deployment_is_asked_for():
    with pytest.raises(InvalidValueError, match=r"rules_of takes a Deployment, not 'llama-3.1-8b'"):
        rules_of("llama-3.1-8b")
