"""What to say of an option that a question does not take: its name here, its nearest name, or the question that takes it."""

from roofline.deployment.options import ALL, CAPACITY, OWN
from roofline.errors import UnknownOptionError
from roofline.names import nearest_names, normalize_name

_SPELLINGS = {
    "model": "model_path model_name pretrained hf_model checkpoint",
    "hardware": "gpu device machine accelerator gpu_type gpu_name",
    "batch": "batch_size bs max_batch_size max_num_seqs num_seqs concurrency max_running_requests max_concurrency",
    "context": "seq_len seqlen sequence_length context_length ctx ctx_len context_len max_model_len max_seq_len kv_len past_len",
    "prompt": "input_len isl prompt_len input_tokens prompt_tokens random_input_len prefill_len prompt_length",
    "cached": "prefix prefix_len num_computed_tokens cached_tokens prefix_cache",
    "weights": "dtype quantization weight_dtype weights_dtype quant quant_algo wbits load_format precision torch_dtype format",
    "activations": "activation_dtype compute_dtype act_dtype",
    "kv": "kv_cache_dtype kv_dtype kv_cache_quant_algo cache_dtype kv_format kv_cache",
    "mtp": "num_nextn_predict_layers num_speculative_tokens speculative_num_steps mtp_num_layers",
    "tensor_parallel": "tp tp_size tensor_parallel_size tensor_parallelism",
    "pipeline_parallel": "pp pp_size pipeline_parallel_size pipeline_parallelism",
    "expert_parallel": "ep ep_size expert_parallel_size moe_expert_parallel_size enable_expert_parallel moe_ep_size",
    "data_parallel": "dp dp_size data_parallel_size enable_dp_attention enable_attention_dp attention_dp_size",
    "context_parallel": "cp cp_size context_parallel_size decode_context_parallel_size dcp dcp_size prefill_context_parallel_size",
    "memory_bandwidth": "bandwidth bw hbm_bandwidth mem_bw memory_bandwidth_bytes_per_s",
    "peak_flops_per_s": "flops peak_flops tflops peak compute_peak",
    "memory_capacity": "memory vram memory_size capacity hbm_capacity memory_bytes",
    "utilization": "gpu_memory_utilization mem_fraction_static mem_fraction free_gpu_memory_fraction kv_cache_free_gpu_mem_fraction gpu_mem_util",
    "reserve": "reserve_bytes reserved_memory overhead",
    "page": "block_size page_size tokens_per_block page_tokens",
    "activation_tokens": "max_num_batched_tokens max_num_tokens chunked_prefill_size max_prefill_tokens",
    "shared_prefix": "prefix_tokens common_prefix",
    "routing": "moe_routing expert_distribution load_balance",
}
"""How vLLM, SGLang, TensorRT-LLM and their benchmarks call what an option means."""

_OURS = {normalize_name(theirs): ours for ours, all_theirs in _SPELLINGS.items() for theirs in all_theirs.split()}

_DEVICES = {normalize_name(name) for name in ["devices", "num_devices", "n_devices", "gpus", "num_gpus", "n_gpus", "world_size"]}


def refused_option(question: str, name: str, takes: tuple[str, ...]) -> UnknownOptionError:
    """Return the error for an option that a question does not take."""
    known = ("model", "hardware", *OWN.get(question, ()), *takes)
    ours = name if any(name in own for own in (ALL, *OWN.values())) else _OURS.get(normalize_name(name), name)
    return UnknownOptionError(f"{question} has no {name}: {_advice(question, name, ours, known)}.")


def _advice(question: str, name: str, ours: str, known: tuple[str, ...]) -> str:
    if ours in known:
        return f"it is called {ours} here"
    if normalize_name(name) in _DEVICES:
        return f"devices are given as degrees: {', '.join(n for n in known if n.endswith('_parallel'))}"
    phase = question.partition("_")[0]
    if phase == "prefill" and ours == "context":
        return f"a prefill has prompt, of which cached tokens may come from the prefix cache; {question.replace(phase, 'decode', 1)} has context"
    if phase == "decode" and ours in ("prompt", "cached", "logits"):
        return f"a decode step has batch and context; {question.replace(phase, 'prefill', 1)} has {ours}"
    if ours in CAPACITY and "page" not in known:
        return "resident, max_batch, max_context and fewest_devices count it"
    if ours == "tensor_parallel" and question == "fewest_devices":
        return "it is what the question looks for, up to at_most"
    if ours in ALL:
        return f"its answer does not depend on {ours}"
    takers = sorted(other for other, own in OWN.items() if ours in own)
    if takers:
        return f"{ours} belongs to {', '.join(takers)}"
    if ours != name:
        return f"it is called {ours}, and no deployment has it: it belongs to the step that is asked about"
    near = nearest_names(name, known)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"
