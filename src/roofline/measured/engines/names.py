"""What each engine calls its metrics: tables of names, newest first, with what each time is a time of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from roofline.frozen import FrozenDict
from roofline.measured.measurement import Definition, Weight


@dataclass(frozen=True, slots=True)
class Timed:
    """A histogram of seconds, or two counters that stand for one."""

    names: str  # of the histogram, newest first; or "sum/count" of two counters
    definition: Definition
    weight: Weight
    where: tuple[str, str] | None = None  # a label and its value, of a histogram that holds several times


@dataclass(frozen=True, slots=True)
class Names:
    """The metrics of one engine.

    ``counters`` only grow, ``gauges`` are of the moment and add up over ranks, ``shares`` are of the moment and are averaged over ranks,
    ``lengths`` are histograms of tokens of finished requests, ``labels`` say the configuration: (metric, label).
    """

    engine: str
    prefix: str
    copies: frozenset[str] = frozenset()  # labels of ranks that all report the same
    counters: Mapping[str, str] = field(default_factory=dict)
    gauges: Mapping[str, str] = field(default_factory=dict)
    shares: Mapping[str, str] = field(default_factory=dict)
    times: Mapping[str, Timed] = field(default_factory=dict)
    lengths: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)


_FIRST: tuple[Definition, Weight] = ("first token", "request")
_WHOLE: tuple[Definition, Weight] = ("end to end", "request")
_AFTER: tuple[Definition, Weight] = ("per token after the first", "request")

# vllm/v1/metrics/loggers.py and perf.py; gpu_cache_usage_perc and time_per_output_token_seconds are the names until 0.10 or so
VLLM = Names(
    "vllm",
    "vllm:",
    counters={
        "prompt_tokens": "vllm:prompt_tokens_total",
        "output_tokens": "vllm:generation_tokens_total",
        "completed": "vllm:request_success_total",
        "preemptions": "vllm:num_preemptions_total",
        "steps": "vllm:iteration_tokens_total_count",
        "looked_up_tokens": "vllm:prefix_cache_queries_total vllm:gpu_prefix_cache_queries_total",
        "hit_tokens": "vllm:prefix_cache_hits_total vllm:gpu_prefix_cache_hits_total",
        "verifications": "vllm:spec_decode_num_drafts_total",
        "drafted_tokens": "vllm:spec_decode_num_draft_tokens_total",
        "accepted_tokens": "vllm:spec_decode_num_accepted_tokens_total",
        "flops": "vllm:estimated_flops_per_gpu_total",
        "read_bytes": "vllm:estimated_read_bytes_per_gpu_total",
        "write_bytes": "vllm:estimated_write_bytes_per_gpu_total",
    },
    gauges={"running": "vllm:num_requests_running", "waiting": "vllm:num_requests_waiting"},
    shares={"kv_use": "vllm:kv_cache_usage_perc vllm:gpu_cache_usage_perc"},
    times={
        "ttft": Timed("vllm:time_to_first_token_seconds", *_FIRST),
        "tpot": Timed("vllm:request_time_per_output_token_seconds", *_AFTER),
        "itl": Timed("vllm:inter_token_latency_seconds vllm:time_per_output_token_seconds", "gap of chunks", "step"),
        "e2e": Timed("vllm:e2e_request_latency_seconds", *_WHOLE),
    },
    lengths={"prompt": "vllm:request_prompt_tokens", "output": "vllm:request_generation_tokens"},
    labels={
        "model": ("vllm:generation_tokens_total", "model_name"),
        "kv": ("vllm:cache_config_info", "cache_dtype"),
        "kv_tokens": ("vllm:cache_config_info", "kv_cache_size_tokens"),
        "blocks": ("vllm:cache_config_info", "num_gpu_blocks"),
        "page": ("vllm:cache_config_info", "block_size"),
    },
)

# python/sglang/srt/observability and docs, production metrics
SGLANG = Names(
    "sglang",
    "sglang:",
    copies=frozenset({"tp_rank", "pp_rank", "moe_ep_rank"}),
    counters={
        "prompt_tokens": "sglang:prompt_tokens_total",
        "output_tokens": "sglang:generation_tokens_total",
        "completed": "sglang:num_requests_total",
        "preemptions": "sglang:num_retracted_requests_total",
        "hit_tokens": "sglang:cached_tokens_total",
        "busy_s": "sglang:forward_execution_seconds_total",
        "flops": "sglang:estimated_flops_per_gpu_total",
        "read_bytes": "sglang:estimated_read_bytes_per_gpu_total",
        "write_bytes": "sglang:estimated_write_bytes_per_gpu_total",
    },
    gauges={
        "running": "sglang:num_running_reqs",
        "waiting": "sglang:num_queue_reqs",
        "kv_tokens": "sglang:max_total_num_tokens",
        "context_tokens": "sglang:decode_sum_seq_lens sglang:num_used_tokens",  # until 0.5 only what is used of the cache
    },
    shares={"kv_use": "sglang:token_usage", "accepted": "sglang:spec_accept_length"},
    times={
        "ttft": Timed("sglang:time_to_first_token_seconds", *_FIRST),
        "tpot": Timed("sglang:request_time_per_output_token_seconds", *_AFTER),
        "itl": Timed("sglang:inter_token_latency_seconds sglang:time_per_output_token_seconds", "gap per token", "token"),
        "e2e": Timed("sglang:e2e_request_latency_seconds", *_WHOLE),
    },
    lengths={"prompt": "sglang:prompt_tokens_histogram", "output": "sglang:generation_tokens_histogram"},
    labels={"model": ("sglang:num_running_reqs", "model_name")},
)

# tensorrt_llm/metrics/collector.py
TENSORRT_LLM = Names(
    "tensorrt-llm",
    "trtllm_",
    counters={
        "prompt_tokens": "trtllm_prompt_tokens_total",
        "output_tokens": "trtllm_generation_tokens_total",
        "completed": "trtllm_request_success_total",
        "drafted_tokens": "trtllm_spec_decode_num_draft_tokens_total",
        "accepted_tokens": "trtllm_spec_decode_num_accepted_tokens_total",
        "hit_blocks": "trtllm_kv_cache_reused_blocks_total",
        "missed_blocks": "trtllm_kv_cache_missed_blocks_total",
    },
    gauges={
        "running": "trtllm_num_requests_running",
        "waiting": "trtllm_num_requests_waiting",
        "decoding": "trtllm_num_generation_requests",
        "blocks": "trtllm_kv_cache_max_blocks",
        "page": "trtllm_kv_cache_tokens_per_block",
    },
    shares={"kv_use": "trtllm_kv_cache_utilization", "accepted": "trtllm_spec_decode_acceptance_length"},
    times={
        "ttft": Timed("trtllm_time_to_first_token_seconds", *_FIRST),
        "tpot": Timed("trtllm_time_per_output_token_seconds", *_AFTER),
        "e2e": Timed("trtllm_e2e_request_latency_seconds", *_WHOLE),
    },
    labels={
        "model": ("trtllm_request_success_total", "model_name"),
        "machine": ("trtllm_model_config_info", "gpu_type"),
        "tensor_parallel": ("trtllm_parallel_config_info", "tensor_parallel_size"),
        "pipeline_parallel": ("trtllm_parallel_config_info", "pipeline_parallel_size"),
        "expert_parallel": ("trtllm_parallel_config_info", "expert_parallel_size"),
    },
)

# router/src/infer and server.rs; a token's mean time divides a request's whole inference by all its tokens
TGI = Names(
    "tgi",
    "tgi_",
    counters={
        "prompt_tokens": "tgi_request_input_length_sum",
        "output_tokens": "tgi_request_generated_tokens_sum",
        "completed": "tgi_request_success",
    },
    gauges={"running": "tgi_batch_current_size", "waiting": "tgi_queue_size"},
    times={
        "tpot": Timed("tgi_request_mean_time_per_token_duration", "per token with the first", "request"),
        "step": Timed("tgi_batch_forward_duration", "step", "step", ("method", "decode")),
        "e2e": Timed("tgi_request_duration", *_WHOLE),
    },
    lengths={"prompt": "tgi_request_input_length", "output": "tgi_request_generated_tokens"},
)

# tools/server/README.md; seconds of generation begin with the first token, which is counted too
LLAMA_CPP = Names(
    "llama.cpp",
    "llamacpp:",
    counters={
        "prompt_tokens": "llamacpp:prompt_tokens_total",
        "output_tokens": "llamacpp:tokens_predicted_total",
        "steps": "llamacpp:n_decode_total",
        "verifications": "llamacpp:spec_decode_num_drafts_total",
        "drafted_tokens": "llamacpp:spec_decode_num_draft_tokens_total llamacpp:tokens_drafted_total",
        "accepted_tokens": "llamacpp:spec_decode_num_accepted_tokens_total llamacpp:tokens_drafted_accepted_total",
    },
    gauges={"running": "llamacpp:requests_processing", "waiting": "llamacpp:requests_deferred"},
    shares={"kv_use": "llamacpp:kv_cache_usage_ratio", "rows_per_step": "llamacpp:n_busy_slots_per_decode"},
    times={
        "tpot": Timed("llamacpp:tokens_predicted_seconds_total/llamacpp:tokens_predicted_total", "per token after the first", "token"),
    },
)

ENGINES: Mapping[str, Names] = FrozenDict({names.engine: names for names in (VLLM, SGLANG, TENSORRT_LLM, TGI, LLAMA_CPP)})
