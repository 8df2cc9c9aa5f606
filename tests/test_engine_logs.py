"""What engines say when they start: figures of real logs, the traps in them, and our count of the cache beside theirs."""

import pytest

from roofline import InvalidValueError
from roofline.measured import read_engine_log

GIB = 2**30


def vllm(model, *, weights, available, tokens, concurrency, tensor=1, version="0.10.1.1", length="16,384", more=""):
    """Lines of a start as vLLM 0.10 writes them: colours, processes, and once for every worker."""
    api, core = "\x1b[1;36m(APIServer pid=15)\x1b[0;0m", "[1;36m(EngineCore_0 pid=82)[0;0m"
    workers = [f"(VllmWorker TP{rank} pid={100 + rank})" if tensor > 1 else core for rank in range(tensor)]
    per_worker = [
        line
        for who in workers
        for line in (
            f"{who} INFO 08-27 21:02:41 [gpu_model_runner.py:2007] Model loading took {weights} GiB and 2.994 seconds",
            f"{who} INFO 08-27 21:03:02 [gpu_worker.py:276] Available KV cache memory: {available} GiB",
        )
    ]
    return "\n".join(
        [
            f"{api} INFO 08-27 21:02:14 [api_server.py:1805] vLLM API server version {version}",
            f"{api} INFO 08-27 21:02:14 [utils.py:326] non-default args: {{'model': '{model}', 'api_key': 'sk-very-secret', 'dtype': 'auto'}}",
            f"{api} INFO 08-27 21:02:22 [__init__.py:1750] Using max model len {length.replace(',', '')}",
            f"{api} INFO 08-27 21:02:22 [scheduler.py:222] Chunked prefill is enabled with max_num_batched_tokens=2048.",
            f"{core} INFO 08-27 21:02:30 [core.py:74] Initializing a V1 LLM engine (v{version}) with config: model='{model}', "
            f"speculative_config=None, tokenizer='{model}', dtype=torch.bfloat16, max_seq_len={length.replace(',', '')}, "
            f"tensor_parallel_size={tensor}, pipeline_parallel_size=1, data_parallel_size=1, quantization=None, kv_cache_dtype=auto, {more}",
            *per_worker,
            *(f"{core} INFO 08-27 21:03:03 [kv_cache_utils.py:849] GPU KV cache size: {tokens} tokens" for _ in workers),
            *(
                f"{core} INFO 08-27 21:03:03 [kv_cache_utils.py:853] Maximum concurrency for {length} tokens per request: {concurrency}x"
                for _ in workers
            ),
            "INFO:     Application startup complete.",
        ]
    )


QWEN = vllm("Qwen/Qwen2-7B-Instruct", weights="14.2488", available="24.83", tokens="464,848", concurrency="28.37")
GPT_OSS = vllm("openai/gpt-oss-120b", weights="16.1", available="45.32", tokens="2,640,144", concurrency="284.25", tensor=4)


def test_a_start_of_vllm_is_read():
    """Figures of a real start of Qwen2-7B under vLLM 0.10.1.1."""
    log = read_engine_log(QWEN)
    assert (log.engine, log.version, log.model, log.dtype) == ("vllm", "0.10.1.1", "Qwen/Qwen2-7B-Instruct", "bfloat16")
    assert log.weight_bytes == pytest.approx(14.2488 * GIB)
    assert log.kv_bytes == pytest.approx(24.83 * GIB)
    assert (log.kv_tokens, log.concurrency, log.per_request, log.step_tokens) == (464_848, 28.37, 16_384, 2048)
    assert log.options == {"dtype": "bfloat16"}  # degrees of 1 and formats as stored are no options
    assert log.failure is None
    assert "very-secret" not in log.to_json()


def test_our_count_of_full_attention_is_the_logs():
    """24.83 GiB / 464,848 = 57,353 B for a token; 28 layers · 4 heads · 128 · 2 · 2 B = 57,344."""
    log = read_engine_log(QWEN)
    cache = log.cache(model="qwen2.5-7b")  # the same shapes
    assert cache.booked_sequences == cache.kept_sequences == pytest.approx(28.37, abs=0.01)
    assert "28.37 by vllm" in str(cache)


def test_our_count_of_windowed_layers_is_the_logs():
    """A start of gpt-oss-120b on four H100: 284.25, where what sequences keep would allow 320."""
    log = read_engine_log(GPT_OSS)
    assert log.options == {"tensor_parallel": 4, "dtype": "bfloat16"}
    assert log.kv_bytes == pytest.approx(45.32 * GIB)  # once, not for every worker
    cache = log.cache()
    assert cache.in_flight_tokens == 2048
    assert cache.booked_sequences == pytest.approx(cache.logged_sequences, abs=0.04)  # 45.32 has two decimals
    assert cache.kept_sequences == pytest.approx(319.8, abs=0.05)


def test_a_log_makes_a_deployment():
    deployment = read_engine_log(GPT_OSS).deployment("h100-sxm")
    assert (deployment.model.name, deployment.devices, deployment.hardware.id) == ("gpt-oss-120b", 4, "h100-sxm")
    assert read_engine_log(GPT_OSS).deployment("h100-sxm", tensor_parallel=8).devices == 8
    with pytest.raises(InvalidValueError, match="names no model; say which"):
        read_engine_log("INFO [kv_cache_utils.py:849] GPU KV cache size: 464,848 tokens\n").deployment()


def test_formats_degrees_and_folders_of_a_log():
    folder = "/root/.cache/huggingface/hub/models--opendatalab--MinerU2.5-2509-1.2B/snapshots/879e58bd"
    text = vllm(folder, weights="2", available="10", tokens="100", concurrency="1", tensor=2)
    text = text.replace("quantization=None", "quantization=compressed-tensors").replace("kv_cache_dtype=auto", "kv_cache_dtype=fp8_e4m3")
    text = text.replace("data_parallel_size=1", "data_parallel_size=4").replace("'dtype': 'auto'", "'enable_expert_parallel': True")
    log = read_engine_log(text)
    assert log.model == "opendatalab/MinerU2.5-2509-1.2B"
    assert log.options == {"tensor_parallel": 2, "data_parallel": 4, "expert_parallel": 8, "kv": "fp8", "dtype": "bfloat16"}
    assert log.quantization == "compressed-tensors"
    assert any("compressed-tensors" in note for note in log.notes)


def test_one_line_of_newer_versions_and_blocks_of_older_ones():
    newer = read_engine_log(
        "INFO 09-24 [kv_cache_utils.py:2396] GPU KV cache size: 456,320 tokens, Maximum concurrency for 16,384 tokens per request: 27.85x\n"
    )
    assert (newer.kv_tokens, newer.concurrency) == (456_320, 27.85)
    older = read_engine_log(
        "INFO 02-10 [llm_engine.py:234] Initializing an LLM engine (v0.7.2) with config: model='m', dtype=torch.bfloat16, tensor_parallel_size=1\n"
        "INFO [worker.py:267] model weights take 14.99GiB; non_torch_memory takes 0.05GiB; PyTorch activation peak memory takes 0.22GiB; the rest of "
        "the memory reserved for KV Cache is 4.60GiB.\n"
        "INFO [executor_base.py:110] # CUDA blocks: 2356, # CPU blocks: 2048\n".replace("CUDA", "cuda")
        + "INFO [executor_base.py:115] Maximum concurrency for 131072 tokens per request: 0.29x\n"
    )
    assert (older.version, older.kv_tokens, older.concurrency) == ("0.7.2", 2356 * 16, 0.29)  # 37,696, as that start itself says
    assert older.weight_bytes == pytest.approx(14.99 * GIB)


def test_of_several_starts_the_last_counts():
    log = read_engine_log(QWEN + "\n" + GPT_OSS)
    assert (log.model, log.kv_tokens) == ("openai/gpt-oss-120b", 2_640_144)


FAILED = QWEN[: QWEN.index("[gpu_worker.py:276]")] + (
    "ERROR 06-24 19:43:57 [core.py:515] EngineCore failed to start.\n"
    "ERROR 06-24 19:43:57 [core.py:515] Traceback (most recent call last):\n"
    "ERROR 06-24 19:43:57 [core.py:515] ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (9.45 GiB).\n"
)


def test_a_start_that_failed_says_why():
    log = read_engine_log(FAILED)
    assert log.failure.startswith("ValueError: To serve at least one request")
    assert (log.model, log.kv_tokens) == ("Qwen/Qwen2-7B-Instruct", None)
    assert "the start failed" in str(log)
    with pytest.raises(InvalidValueError, match="does not say how much memory the cache has, since the start failed"):
        log.cache()


SGLANG = """\
[2025-03-08 12:29:05] server_args=ServerArgs(model_path='Qwen/QwQ-32B', tokenizer_path='Qwen/QwQ-32B', dtype='auto', kv_cache_dtype='fp8_e5m2', \
quantization=None, mem_fraction_static=0.88, max_running_requests=None, api_key='sk-very-secret', tp_size=4, dp_size=1, ep_size=1, page_size=1)
[2025-03-08 12:29:21 TP1] Load weight end. type=Qwen2ForCausalLM, dtype=torch.bfloat16, avail mem=6.09 GB, mem usage=15.54 GB.
[2025-03-08 12:29:21 TP0] Load weight end. type=Qwen2ForCausalLM, dtype=torch.bfloat16, avail mem=6.09 GB, mem usage=15.54 GB.
[2025-03-08 12:29:21 TP0] KV Cache is allocated. #tokens: 46611, K size: 1.42 GB, V size: 1.42 GB
[2025-03-08 12:29:21 TP1] KV Cache is allocated. #tokens: 46611, K size: 1.42 GB, V size: 1.42 GB
[2025-03-08 12:29:40 TP0] max_total_num_tokens=46611, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=48, context_len=131072
"""


def test_a_start_of_sglang_is_read():
    """Lines of a real start on four GPUs; what SGLang calls GB is GiB. 46,611 tokens of 64 layers · 2 heads · 128 · 2 · 2 B are 2.84 GiB."""
    log = read_engine_log(SGLANG)
    assert (log.engine, log.model, log.kv_tokens, log.sequences, log.longest) == ("sglang", "Qwen/QwQ-32B", 46_611, 48, 131_072)
    assert log.options == {"tensor_parallel": 4, "kv": "fp8", "dtype": "bfloat16"}
    assert log.kv_bytes == pytest.approx(2.84 * GIB) == pytest.approx(46_611 * 64 * 2 * 128 * 2 * 2, rel=0.005)
    assert log.weight_bytes == pytest.approx(15.54 * GIB)
    assert "very-secret" not in log.to_json()


def test_a_start_of_tensorrt_llm_counts_what_is_allocated_last():
    """Lines of tensorrt_llm's log: a trial run allocates a small cache before the one that stays."""
    log = read_engine_log(
        "[TensorRT-LLM] TensorRT-LLM version: 1.1.0rc2\n"
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).\n"
        "[TensorRT-LLM][INFO] Number of tokens per block: 64.\n"
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 26.91 GiB for max tokens in paged KV cache (220480).\n"
        "[02/14/2025-09:38:53] [TRT-LLM] [I] max_seq_len=131072, max_num_requests=2048, max_num_tokens=8192, max_batch_size=64\n"
    )
    assert (log.engine, log.version, log.kv_tokens, log.longest, log.sequences) == ("tensorrt-llm", "1.1.0rc2", 220_480, 131_072, 64)
    assert log.kv_bytes == pytest.approx(26.91 * GIB)
    assert log.options == {"page": 64}
    # 26.91 GiB / 220,480 = 131,053 B: an 8B Llama in bf16, 32 layers · 8 heads · 128 · 2 · 2 B = 131,072
    assert log.cache(model="llama-3.1-8b").kept_sequences == pytest.approx(220_480 / 131_072, rel=1e-3)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nothing\nof interest\n", "has no line that vLLM, SGLang or TensorRT-LLM writes"),
        ("INFO vLLM API server\n", "none that says model, degrees or cache"),
        ("/no/such/log", "there is no file"),
        (3, "must be the path of a log"),
    ],
)
def test_what_is_no_log_is_refused_in_one_sentence(source, says):
    with pytest.raises(InvalidValueError, match=says):
        read_engine_log(source)
