"""What to say of an option that a question does not take: its name here, its nearest name, or the question that takes it."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from roofline.calls import checks_call, listed
from roofline.deployment.options import ALL, CAPACITY, OWN
from roofline.errors import UnknownOptionError
from roofline.names import nearest_names, normalize_name

Function = TypeVar("Function", bound=Callable[..., Any])

_SPELLINGS = {
    "model": "model_path model_name pretrained hf_model checkpoint",
    "hardware": "gpu device machine accelerator gpu_type gpu_name",
    "batch": "batch_size bs max_batch_size max_num_seqs num_seqs concurrency max_running_requests max_concurrency",
    "context": "seq_len seqlen sequence_length context_length ctx ctx_len context_len max_model_len max_seq_len kv_len past_len",
    "output": "osl output_len output_tokens max_tokens max_new_tokens random_output_len answer",
    "rate": "request_rate qps requests_per_s arrival_rate",
    "concurrency": "max_concurrency clients num_clients users batch batch_size",
    "prompt": "input_len isl prompt_len input_tokens prompt_tokens random_input_len prefill_len prompt_length",
    "cached": "prefix prefix_len num_computed_tokens cached_tokens prefix_cache",
    # of a kernel; what has no format has weights
    "format": "dtype torch_dtype precision quantization activations",
    "dtype": "torch_dtype model_dtype",
    "weights": "quantization quant_method weight_dtype weights_dtype quant quant_algo wbits load_format precision format",
    "activations": "activation_dtype compute_dtype act_dtype",
    "kv": "kv_cache_dtype kv_dtype kv_cache_quant_algo cache_dtype kv_format kv_cache kv_cache_quantization",
    "drafts": "num_speculative_tokens num_draft_tokens speculative_num_draft_tokens",
    "mtp": "num_nextn_predict_layers num_speculative_tokens speculative_num_steps mtp_num_layers",
    "tensor_parallel": "tp tp_size tensor_parallel_size tensor_parallelism tensor_model_parallel_size moe_tp_size",
    "pipeline_parallel": "pp pp_size pipeline_parallel_size pipeline_parallelism pipeline_model_parallel_size",
    "expert_parallel": "ep ep_size expert_parallel_size moe_expert_parallel_size enable_expert_parallel moe_ep_size",
    "data_parallel": "dp dp_size data_parallel_size enable_dp_attention enable_attention_dp attention_dp_size",
    "context_parallel": "cp cp_size context_parallel_size decode_context_parallel_size dcp dcp_size prefill_context_parallel_size",
    "memory_bandwidth": "bandwidth bw hbm_bandwidth mem_bw memory_bandwidth_bytes_per_s",
    "peak_flops_per_s": "flops peak_flops tflops peak compute_peak",
    "memory_capacity": "memory vram memory_size capacity hbm_capacity hbm_size memory_bytes",
    "utilization": "gpu_memory_utilization mem_fraction_static mem_fraction free_gpu_memory_fraction kv_cache_free_gpu_mem_fraction gpu_mem_util mem_util kv_cache_free_gpu_memory_fraction",
    "reserve": "reserve_bytes reserved_memory overhead",
    "page": "block_size page_size tokens_per_block page_tokens",
    "in_flight_tokens": "max_in_flight_tokens",
    "activation_tokens": "max_num_batched_tokens max_num_tokens chunked_prefill_size max_prefill_tokens",
    "cuda_graph": "enforce_eager eager use_cuda_graph disable_cuda_graph",
    "shared_prefix": "prefix_tokens common_prefix",
    "routing": "moe_routing expert_distribution load_balance",
    "heads": "num_heads n_heads num_attention_heads hq q_heads num_q_heads",
    "kv_heads": "num_kv_heads n_kv_heads num_key_value_heads hkv",
    "head_dim": "head_size d_head dim_head qk_head_dim",
    "new": "q_len query_len seq_len_q s_q num_new_tokens",
    "tokens": "num_tokens n_tokens batch m",
    "hidden": "hidden_size d_model",
    "intermediate": "intermediate_size moe_intermediate_size ffn_dim inter_size",
    "count": "num_experts n_experts n_routed_experts num_local_experts",
    "top_k": "topk num_experts_per_tok",
    "size": "bytes size_bytes message_bytes nbytes",
    "devices": "ranks world_size num_gpus gpus n_gpus",
    "time_s": "time seconds latency latency_s measured_s",
    # of a server
    "engine": "backend framework server inference_engine",
    "kv_blocks": "num_gpu_blocks num_gpu_blocks_override gpu_blocks num_blocks max_total_tokens max_total_num_tokens",
    "step_tokens": "max_num_batched_tokens max_num_tokens chunked_prefill_size max_prefill_tokens token_budget budget max_num_scheduled_tokens",
    "sequences": "max_num_seqs max_running_requests max_batch_size max_num_reqs num_seqs",
    "prefix_caching": "enable_prefix_caching enable_block_reuse radix_cache disable_radix_cache prefix_cache",
    "admission": "reserve scheduler_reserve_full_isl capacity_scheduler_policy",
    "policy": "scheduling_policy schedule_policy scheduler_policy",
    "chunked": "enable_chunked_prefill enable_chunked_context chunked_prefill chunked_context",
    "long_prompt_tokens": "long_prefill_token_threshold",
    "ratio": "schedule_conservativeness new_token_ratio",
    "receive_interval": "scheduler_recv_interval",
    "async_scheduling": "asynchronous_scheduling enable_async_scheduling",
    "mixed": "enable_mixed_chunk mixed_chunk",
    "chunking": "context_chunking_policy",
    "batch_wait_steps": "batch_wait_timeout_iters",
    "batch_wait_ratio": "batch_wait_max_tokens_ratio",
    "rank_wait_steps": "timeout_iters",
    "rank_gather_steps": "batching_wait_iters",
    "graph_sequences": "cuda_graph_max_bs cuda_graph_max_bs_decode cuda_graph_bs max_cudagraph_capture_size cudagraph_capture_sizes cuda_graph_max_batch_size",
    "graph_tokens": "piecewise_cuda_graph_max_tokens cuda_graph_max_bs_prefill capture_num_tokens",
    "max_model_len": "context_length context_len max_seq_len max_position_embeddings",
}
"""How vLLM, SGLang, TensorRT-LLM, their configurations and benchmarks call what an option means."""

_OURS: dict[str, list[str]] = {}
for _ours, _theirs in _SPELLINGS.items():
    for _name in _theirs.split():
        _OURS.setdefault(normalize_name(_name), []).append(_ours)

_SERVING = {
    normalize_name(name)
    for name in [
        "osl",
        "output_len",
        "output_tokens",
        "max_tokens",
        "max_new_tokens",
        "request_rate",
        "rate",
        "qps",
        "ttft",
        "tpot",
        "itl",
        "enable_prefix_caching",
    ]
}
_DEVICES = {normalize_name(name) for name in ["devices", "num_devices", "n_devices", "gpus", "num_gpus", "n_gpus", "world_size"]}


def options_meant(name: str, known: Collection[str]) -> list[str]:
    """Return the options among those known that engines call by a name."""
    return [option for option in _OURS.get(normalize_name(name), []) if option in known]


def refused_option(question: str, name: str, takes: Sequence[str] = ()) -> UnknownOptionError:
    """Return the error for an option that a question does not take."""
    own = OWN.get(question, ())
    known = tuple(dict.fromkeys((*own, *takes)))
    ours = next(iter([*options_meant(name, own), *options_meant(name, known)]), None)
    if ours is None:
        ours = name if any(name in own for own in (ALL, *OWN.values())) else _OURS.get(normalize_name(name), [name])[0]
    return UnknownOptionError(f"{question} has no {name[:60]}: {_advice(question, name, ours, known)}.")


def checks_keywords(function: Function) -> Function:
    """Refuse calls that do not fit a function, and keywords that it does not have as those of a question are refused."""
    called = function.__qualname__.removesuffix(".__init__")
    OWN[called] = tuple(name for name in inspect.signature(function).parameters if name != "self")
    return checks_call(function, refused_option)


def _advice(question: str, name: str, ours: str, known: tuple[str, ...]) -> str:
    if ours in known:
        return f"it is called {ours} here"
    if normalize_name(name) in _SERVING and "output" not in known:
        return "it is of requests that are served, and this is about one step"
    if normalize_name(name) in _DEVICES and question == "fewest_devices":
        return "devices are its answer, and at_most limits them"
    if normalize_name(name) in _DEVICES:
        return f"devices are given as degrees: {', '.join(n for n in known if n.endswith('_parallel'))}"
    phase = question.partition("_")[0]
    if phase == "prefill" and ours == "context":
        return f"a prefill has prompt, of which cached tokens may come from the prefix cache; {question.replace(phase, 'decode', 1)} has context"
    if phase == "decode" and ours in ("prompt", "cached", "logits"):
        return f"a decode step has batch and context; {question.replace(phase, 'prefill', 1)} has {ours}"
    if ours in ALL and "deployment" in known:
        return f"{ours} is an option of the deployment: deployment.but({ours}=...)"
    if ours in ALL and "model" not in known:
        return "it is about one kernel or one time, not about a deployment"
    if ours in CAPACITY and "page" not in known:
        return f"{ours} is counted by resident, max_batch, max_context and fewest_devices"
    if ours == "tensor_parallel" and question == "fewest_devices":
        return "it is what the question looks for, up to at_most"
    if ours in ALL:
        return f"its answer does not depend on {ours}"
    kind = question.rpartition("_")[2]  # floors are nearer to a floor than estimates
    takers = sorted((other for other, own in OWN.items() if ours in own), key=lambda other: (other.rpartition("_")[2] != kind, other))
    if takers:
        return f"{ours} belongs to {', '.join(takers[:3])}{', …' if len(takers) > 3 else ''}"
    if ours != name:
        return f"it is called {ours}, and no deployment has it: it belongs to the step that is asked about"
    near = nearest_names(name, known)
    return f"nearest: {', '.join(near)}" if near else f"known: {listed(known)}"
