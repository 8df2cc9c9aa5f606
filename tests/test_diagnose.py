"""One report of any run: what binds each phase, what it lost, what would help, which conclusions would be wrong, and what cannot be told."""

import http.server
import json
import threading
import time
from pathlib import Path

import pytest

from roofline import Deployment, InvalidValueError, RooflineError, levers
from roofline.diagnose import diagnose
from roofline.diagnose.sources import kind_of
from roofline.measured import Latency, ServingMeasurement, compare, read_metrics
from roofline.monitor import read_recording
from roofline.profile import read_trace
from test_cli import ok, run

RESULTS = Path(__file__).parent / "data" / "results"
H200 = {"model": "llama-3.3-70b", "hardware": "h200-sxm", "tensor_parallel": 4}
TRACES = RESULTS / "traces"
SGLANG = RESULTS / "sglang_h200_llama33_70b_online.jsonl"


def per_token(ms, **more):
    return Latency("per token after the first", "request", mean_s=ms / 1e3, **more)


def decode(batch, context, ms, **more):
    return ServingMeasurement("my client", batch=batch, cached_context=context, tpot=per_token(ms), **more)


def check(found, name):
    """Return the one misdiagnosis of a name."""
    (one,) = [each for each in found.misdiagnoses if name in each.name]
    return one


def names(found):
    return {each.name for each in found.misdiagnoses}


def cause(phase, name):
    return next(each for each in phase.causes if each.name == name)


def aiperf(busy):
    """Return a summary in the layout of AIPerf 0.13, with the figures of a published run: gpt-oss-20b on an A100, one request at a time."""

    def figure(value, unit):
        return {"unit": unit, "avg": value}

    gpu = {"gpu_name": "NVIDIA A100-SXM4-80GB", "metrics": {"gpu_utilization": figure(busy, "%")}}
    return {
        "aiperf_version": "0.13.0",
        "request_count": figure(20, "requests"),
        "request_throughput": figure(0.365, "requests/sec"),
        "request_latency": figure(2736.8, "ms"),
        "time_to_first_token": figure(82.8, "ms"),
        "inter_token_latency": figure(18.0, "ms"),
        "output_token_throughput": figure(54.0, "tokens/sec"),
        "input_sequence_length": figure(264, "tokens"),
        "output_sequence_length": figure(148, "tokens"),
        "benchmark_duration": figure(54.8, "sec"),
        "input_config": {"loadgen": {"concurrency": 1}, "endpoint": {"model_names": ["openai/gpt-oss-20b"]}},
        "telemetry_data": {"endpoints": {"localhost:9400": {"gpus": {"gpu_0": gpu}}}},
    }


# ------------------------------------------------------------------------------------------------------------------- services


def test_a_healthy_run_is_bound_by_the_roof_of_its_floor():
    """SGLang 0.4, Llama-3.3-70B on 4 H200, rate 1: 1.98 × floor and 1.21 × the estimate by kernels of SGLang 0.5.14, without a fault."""
    phase = diagnose(SGLANG, run=0, **H200)["decode"]
    assert phase.over_floor == pytest.approx(1.98, rel=0.02)
    assert phase.over_estimate == pytest.approx(1.21, abs=0.05)
    assert (phase.roof, phase.binds, phase.causes) == ("memory", "memory", ())


def test_prompts_between_tokens_bind_where_tpot_is_far_above_itl():
    """The same server at rate 4: TPOT 25.3 ms, ITL 19.4 ms; the difference is prompts of others."""
    phase = diagnose(SGLANG, run=2, **H200)["decode"]
    assert phase.binds == "prompts of others"
    lost = next(part for part in phase.losses if part.name == "prompts of others")
    assert lost.expected_s == pytest.approx(25.3e-3 - 19.4e-3, rel=0.02)
    assert phase.helps[0].name.startswith("smaller chunks of prompts")
    assert phase.helps[0].most == pytest.approx(25.3 / 19.4, rel=0.02)


def test_phases_are_never_averaged():
    found = diagnose(SGLANG, run=0, **H200)
    assert [phase.name for phase in found.phases] == ["prefill", "decode"]
    assert [phase.roof for phase in found.phases] == ["compute", "memory"]


def test_idle_devices_mean_the_host(tmp_path):
    """Of 18.0 ms a token 6.3 ms are kernels (GPU-Util 35 %), and the floor is 1.80 ms: neither bandwidth nor arithmetic would help."""
    file = tmp_path / "profile_export_aiperf.json"
    file.write_text(json.dumps(aiperf(35.0)))
    phase = diagnose(file)["decode"]
    assert phase.binds == "host"
    assert phase.over_floor == pytest.approx(10.0, rel=0.03)
    assert "6.3 ms of 18 ms are kernels" in phase.why
    assert cause(phase, "prompts of others").found is False
    assert (phase.losses[0].name, phase.losses[0].expected_s) == ("host", pytest.approx(0.65 * 18e-3))
    assert phase.helps[0].name.startswith("CUDA graphs")
    assert phase.helps[0].most == pytest.approx(1 / 0.35, rel=1e-3)
    prefill = diagnose(file)["prefill"]
    assert (prefill.binds, cause(prefill, "queue").found) == ("host", False)


def test_busy_devices_are_not_the_host(tmp_path):
    file = tmp_path / "profile_export_aiperf.json"
    file.write_text(json.dumps(aiperf(97.0)))
    phase = diagnose(file)["decode"]
    assert phase.binds == "not explained"
    assert cause(phase, "host").found is False
    assert "GPU-Util of 100 % taken for compute-bound" in names(diagnose(file))


def test_without_an_estimate_the_distance_to_the_floor_counts():
    """A model that is a number of parameters has no estimates; healthy runs lie at 1.6 – 2.2 × the floor, and this one at 10 ×."""
    floor_s = diagnose(decode(1, 0, 100), "8B", "h100-sxm")["decode"].floor_s
    slow = decode(1, 0, 1e4 * floor_s)
    assert diagnose(slow, "8B", "h100-sxm")["decode"].binds == "not explained"
    assert diagnose(slow, "8B", "h100-sxm", busy=0.3)["decode"].binds == "host"
    assert diagnose(decode(1, 0, 2e3 * floor_s), "8B", "h100-sxm")["decode"].binds == "memory"


def test_an_engine_without_requests_is_not_waiting_for_its_host():
    """At 0.4 requests in flight of random arrivals an engine has none in exp(-0.4) = 67 % of the time."""
    seldom = decode(1, 338, 18, request_rate=0.1, concurrency=0.4)
    assert cause(diagnose(seldom, "gpt-oss-20b", "a100-sxm", busy=0.3)["decode"], "host").found is None
    assert cause(diagnose(seldom, "gpt-oss-20b", "a100-sxm", busy=0.1)["decode"], "host").found is True


def test_below_the_floor_a_label_is_wrong_and_nothing_helps():
    """gpt-oss-20b on 256 GB/s at 12.53 ms is 0.865 × the floor of its published formats; its file had attention and head in 8 bits."""
    run = decode(1, 64, 12.53)
    rates = {"memory_bandwidth": 256e9, "peak_flops_per_s": 59e12, "kv": "bf16"}
    phase = diagnose(run, "gpt-oss-20b", **rates)["decode"]
    assert (phase.binds, phase.remedies, phase.mbu) == ("labels", (), None)
    assert "attention" in phase.why
    assert any(label.lifts for label in phase.labels)


def test_a_slow_run_is_held_against_other_labels():
    """A step of two devices, said to be one of four, is twice as slow as it should be; weights of 141 GB do not fit into one of 80 GB."""
    run = decode(8, 853, 37)
    node = {"model": "llama-3.3-70b", "hardware": "h100-sxm"}
    found = cause(diagnose(run, **node, tensor_parallel=4)["decode"], "labels")
    assert found.found is None
    assert "as expected with tensor_parallel=2 (" in found.text
    assert "tensor_parallel=1" not in found.text
    stated = run.but(options={"tensor_parallel": 4})
    assert "as expected with" not in cause(diagnose(stated, **node)["decode"], "labels").text


def test_requests_that_wait_are_a_queue():
    """The gauges of the engine say that requests wait; the pages are those of a server under load."""
    pages = [read_metrics(RESULTS / "engine_metrics" / name) for name in ("vllm_idle.txt", "vllm_loaded.txt")]
    found = diagnose(pages, "qwen3-0.6b", "h100-sxm", seconds=60)
    assert found["prefill"].binds == "queue"
    assert "32.0 requests wait" in found["prefill"].why


def test_an_estimate_that_the_run_refutes_splits_no_time():
    """The same server at rate 16: the first token comes after 614 ms, where the estimate at this load is many seconds."""
    phase = diagnose(SGLANG, run=4, **H200)["prefill"]
    assert phase.served_s > 2 * phase.measured_s
    assert [cause(phase, name).found for name in ("queue", "front end")] == [None, None]
    assert "so the split is not known" in cause(phase, "queue").text
    assert phase.losses[0].name == "not explained"
    assert not any("replicas" in remedy.name or "API" in remedy.name for remedy in phase.remedies)


def test_a_step_that_is_not_in_memory_did_not_run():
    """256 sequences of 8,192 tokens of Llama-3.1-8B have 2 × 32 layers × 8 heads × 128 × 2 B a token, 275 GB, and an L40S 48 GB."""
    table = {"batch": [256], "context": [8192], "ms": [2000]}
    phase = diagnose(table, "llama-3.1-8b", "l40s")["decode"]
    assert (phase.binds, phase.remedies) == ("capacity", ())
    assert "needs 291 GB" in phase.why  # with 16.1 GB of weights
    phase = diagnose(SGLANG, run=4, batch=1000, context=5000, **H200)["decode"]  # 1.6 TB of cache, a quarter on each device
    assert phase.binds == "capacity"


def test_remedies_are_levers_at_the_measured_step():
    found = diagnose(decode(8, 853, 14.5), **H200)["decode"]
    deployment = Deployment("llama-3.3-70b", "h200-sxm", tensor_parallel=4)
    known = levers(deployment, batch=8, context=853)
    base = float(known.base.time_s)
    told = {remedy.name: remedy for remedy in found.remedies}
    assert told["weights fp8_a16"].gain == pytest.approx(14.5e-3 / (14.5e-3 - base + known["weights fp8_a16"].time_s))
    assert told["weights fp8_a16"].most == pytest.approx(known["weights fp8_a16"].gain)
    assert not told["twice the FLOP/s"].helps
    assert found.does_not_help[0].name == "twice the FLOP/s"
    assert [remedy.helps for remedy in found.remedies] == sorted((remedy.helps for remedy in found.remedies), reverse=True)


def test_more_prompts_in_a_step_bring_no_first_token_sooner():
    told = {remedy.name: remedy for remedy in diagnose(SGLANG, run=0, **H200)["prefill"].remedies}
    assert not told["twice the batch"].helps
    assert told["twice the batch"].gain < 1
    assert told["twice the FLOP/s"].helps


def test_losses_are_the_largest_parts_of_the_gap():
    found, compared = diagnose(SGLANG, run=0, **H200), compare(SGLANG, run=0, **H200)
    expected = sorted((part.expected_s for part in compared["tpot"].parts), reverse=True)[:3]
    assert [part.expected_s for part in found["decode"].losses] == expected


def test_one_time_for_both_phases_has_no_roof():
    found = diagnose(RESULTS / "vllm_latency_llama3_8b_2025-02.json", "llama-3-8b", "h100-sxm", batch=8, prompt=32, output=128)
    assert [(phase.name, phase.roof, phase.binds) for phase in found.phases] == [("request", "", "")]
    assert any(text.startswith("how long tokens take") for text in found.unknown)


# ------------------------------------------------------------------------------------------------------------------- misdiagnoses


def test_misdiagnoses_show_the_numbers_of_the_input():
    found = diagnose(SGLANG, run=2, busy=0.97, serving_batch=1, **H200)
    itl = check(found, "ITL")
    assert itl.misleads
    assert itl.numbers["itl_median_s"] == pytest.approx(19.4e-3, rel=0.005)  # of the file
    assert "tokens/s, and not 51.5" in itl.text  # 1 / 19.42 ms
    judged = check(found, "judged by MFU")
    assert judged.numbers["mfu"] < judged.numbers["best_mfu"] < 1
    averaged = check(found, "averaged").numbers
    assert averaged["decode"] < averaged["mean"] < averaged["balance"] < averaged["prefill"]
    sparse = check(found, "sparsity").numbers
    assert sparse["mfu_of_sparse_peak"] == pytest.approx(sparse["mfu"] / 2)  # NVIDIA's data sheets: twice the dense peak
    batch = check(found, "benchmark batch")
    assert (batch.numbers["benchmark_batch"], batch.numbers["service_batch"]) == (52, 1)
    assert batch.numbers["benchmark_tokens_per_s"] > 20 * batch.numbers["service_tokens_per_s"]
    assert check(found, "GPU-Util").numbers["busy"] == 0.97


def test_misdiagnoses_appear_only_where_the_input_has_their_numbers():
    found = diagnose(decode(8, 853, 14.5), **H200)
    assert names(found) == {"decode judged by MFU"}


def test_tokens_that_come_at_once_make_itl_no_tpot():
    """DFlash speculation: chunks every 56.9 ms and 7.36 ms per token are 7.7 tokens in a chunk."""
    run = ServingMeasurement("c", batch=1, cached_context=640, itl=Latency("gap of chunks", "chunk", median_s=56.9e-3), accepted=7.73)
    one = check(diagnose(run, "qwen3-32b", "a100-sxm", tensor_parallel=4), "ITL")
    assert one.misleads
    assert "7.361 ms a token" in one.text


def recorded(tmp_path, samples):
    file = tmp_path / "recording.jsonl"
    device = {"device": "gpu0", "kind": "nvidia", "name": "NVIDIA H100 80GB HBM3"}
    lines = [{"schema": "roofline monitor 1", **device, "time_s": 1.7e9 + i, **sample} for i, sample in enumerate(samples)]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return file


def test_a_recording_of_two_phases_is_not_averaged(tmp_path):
    """Tensor cores 90 % and memory 20 % is compute-bound, 5 % and 88 % memory-bound; their mean is neither."""
    samples = [{"busy": 1.0, "tensor_active": t, "dram_active": d} for t, d in [(0.9, 0.2), (0.05, 0.88)] * 10]
    found = diagnose(recorded(tmp_path, samples))
    one = check(found, "averaged")
    assert one.misleads
    assert one.numbers["compute_bound"] == one.numbers["memory_bound"] == 0.5
    assert check(found, "GPU-Util").misleads
    assert found.phases == ()


def test_a_recording_joins_a_benchmark(tmp_path):
    file = recorded(tmp_path, [{"busy": 0.35}] * 5)
    for monitor in (file, read_recording(file)):
        found = diagnose(decode(1, 338, 18), "gpt-oss-20b", "a100-sxm", monitor=monitor)
        assert found["decode"].binds == "host"
    assert any("counters of roofline monitor: a kernel ran in 35%" in text for text in found.findings)


def test_the_load_of_a_processor_is_no_time_of_kernels(tmp_path):
    processor = {"device": "cpu", "kind": "cpu", "name": "AMD EPYC", "busy": 1.0}
    alone = recorded(tmp_path, [processor] * 5)
    wrong(lambda: diagnose(decode(1, 338, 18), "gpt-oss-20b", "a100-sxm", monitor=alone), "recording.jsonl", "of a processor")
    assert names(diagnose(alone)) == set()
    both = recorded(tmp_path, [processor, {"busy": 0.35}] * 5)
    assert "a kernel ran in 35%" in str(diagnose(decode(1, 338, 18), "gpt-oss-20b", "h100-sxm", monitor=both))


@pytest.mark.parametrize(("machine", "said"), [("h100-sxm", False), ("a100-sxm", True)])
def test_counters_of_other_devices_are_said(tmp_path, machine, said):
    found = diagnose(decode(1, 338, 18), "gpt-oss-20b", machine, monitor=recorded(tmp_path, [{"busy": 0.35}] * 5))
    assert any("roofline monitor names the machine H100" in note for note in found.notes) == said


@pytest.mark.parametrize(("active", "why"), [(0.95, "read twice"), (0.5, None), (0.2, "other devices")])
def test_counters_of_the_memory_are_held_against_the_bytes_of_a_step(tmp_path, active, why):
    """SGLang at rate 1: 14.5 ms a token, half the bandwidth of an H200 (floor 7.34 ms)."""
    file = recorded(tmp_path, [{"busy": 1.0, "tensor_active": 0.1, "dram_active": active, "name": "NVIDIA H200"}] * 5)
    found = diagnose(SGLANG, run=0, monitor=file, **H200)
    if why is None:
        assert not any("activity of the memory" in name for name in names(found))
    else:
        assert why in check(found, "activity of the memory").text


def test_a_recording_of_a_known_model_has_its_levers(tmp_path):
    file = recorded(tmp_path, [{"busy": 1.0, "tensor_active": 0.05, "dram_active": 0.88}] * 5)
    found = diagnose(file, "llama-3-8b", batch=8, context=1000)  # on the machine that the device's name is
    assert any("weights int4" in text and text.startswith("gpu0: helps") for text in found.findings)
    assert any("twice the FLOP/s" in text for text in found.findings if text.startswith("gpu0: does not help"))
    wrong(lambda: diagnose(file, tensor_parallel=2), "needs model=")


def test_coarse_counters_cannot_tell_what_binds():
    found = diagnose(RESULTS / "amd_smi_metric.csv")
    assert (found.kind, found.phases) == ("recording", ())
    assert any(text.startswith("arithmetic or memory") for text in found.unknown)


def test_a_page_of_devices(tmp_path):
    file = tmp_path / "dcgm.txt"
    label = '{gpu="0",modelName="NVIDIA H100 80GB HBM3"}'
    file.write_text(f"DCGM_FI_DEV_GPU_UTIL{label} 100\nDCGM_FI_PROF_PIPE_TENSOR_ACTIVE{label} 0.06\nDCGM_FI_PROF_DRAM_ACTIVE{label} 0.85\n")
    pytest.importorskip("prometheus_client")
    joined = diagnose(decode(8, 853, 14.5), **H200, monitor=file)
    assert check(joined, "GPU-Util").numbers["tensor_active"] == 0.06
    found = diagnose(file)
    assert found.kind == "devices"
    assert "memory-bound" in found.findings[0]
    assert check(found, "GPU-Util").misleads


# ------------------------------------------------------------------------------------------------------------------- traces, tables, logs


def test_a_graph_trace_says_which_kernels_are_slow():
    """Real trace of vLLM, gpt-oss-20b on MI300X, batch 32: 10.7 ms, of which the experts' kernels have most; their floor is far below."""
    found = diagnose(RESULTS / "traces" / "vllm_gpt_oss_20b_decode.json.gz", "gpt-oss-20b", "mi300x")
    phase = found["decode"]
    assert phase.measured_s == pytest.approx(10.72e-3, rel=0.01)
    assert phase.over_floor == pytest.approx(4.18, rel=0.02)
    assert (phase.binds, phase.roof, phase.losses[0].name) == ("experts", "memory", "experts")
    assert cause(phase, "host").found is False


def test_a_trace_without_a_model_has_times_and_no_floor():
    trace = read_trace(RESULTS / "traces" / "sglang_qwen3_8b_prefill.json.gz")
    (phase,) = diagnose(trace).phases
    assert (phase.name, phase.floor_s, phase.binds, phase.remedies) == ("prefill", None, "", ())
    assert any("model=" in text for text in diagnose(trace).unknown)
    assert {part.name for part in diagnose(trace)["prefill"].losses} <= {"matrices", "cache", "small kernels", "host"}
    assert "took: matrices" in str(diagnose(trace))
    assert "lost:" not in str(diagnose(trace))


def test_a_trace_is_held_against_the_engine_that_wrote_it():
    """SGLang's kernels have its name (``sgl_hip::activation``): the host's time of a step is not vLLM's."""
    found = diagnose(TRACES / "sglang_qwen3_8b_prefill.json.gz", "qwen3-8b", "h100-sxm", cached=0)
    assert "sglang" in found.rests_on.calibration
    assert "vllm" not in str(found).lower()


def test_an_eager_trace_is_a_profile():
    """Real trace of a prefill on an H100: elementwise kernels take 20 of 31.8 ms, so bytes bind it, though a prefill's products are compute-bound."""
    found = diagnose(RESULTS / "traces" / "h100_qwen1.5_0.5b.json.gz")
    (phase,) = found.phases
    assert phase.binds == "memory"
    assert phase.losses[0].name == "aten::mul"


@pytest.mark.slow  # torch is imported
def test_a_profile_keeps_its_phases():
    torch = pytest.importorskip("torch")
    from roofline.profile import profiling

    weights, rows = torch.randn(256, 256), torch.randn(64, 256)
    with profiling() as run:
        with run.phase("prefill"):
            rows @ weights
        with run.phase("decode"):
            rows[:1] @ weights
    found = diagnose(run.profile)
    assert [phase.name for phase in found.phases] == ["prefill", "decode"]
    assert any("no machine is known" in text for text in found.unknown)


def test_a_table_of_steps_keeps_phases_apart():
    table = {
        "model": ["llama-3-8b"] * 3,
        "gpu": ["h100-sxm"] * 3,
        "batch": [1, 64, 1],
        "context": [1024, 1024, None],
        "prompt": [None, None, 2048],
        "ms": [7.2, 19.1, 60],
    }
    found = diagnose(table)
    assert [(phase.name, phase.roof) for phase in found.phases] == [("prefill", "compute"), ("decode", "memory")]
    assert "row 2, of 2" in found["decode"].what
    below = diagnose({**table, "ms": [7.2, 1.0, 60]})["decode"]
    assert (below.binds, below.remedies) == ("labels", ())


LOG = """(EngineCore_0 pid=1) INFO 08-27 [core.py:74] Initializing a V1 LLM engine (v0.10.1.1) with config: model='Qwen/Qwen2.5-7B', dtype=torch.bfloat16
INFO 08-27 [gpu_worker.py:276] Available KV cache memory: 24.83 GiB
INFO 08-27 [kv_cache_utils.py:849] GPU KV cache size: 464,848 tokens
INFO 08-27 [kv_cache_utils.py:853] Maximum concurrency for 16,384 tokens per request: {}x
"""


@pytest.mark.parametrize(("said", "differs"), [("28.37", False), ("14.18", True)])
def test_the_log_of_a_start_has_no_times_but_a_cache(tmp_path, said, differs):
    """Of a real log (a model of 57,344 bytes per token): 24.83 GiB are 28.37 sequences of 16,384 tokens."""
    file = tmp_path / "vllm.log"
    file.write_text(LOG.format(said))
    found = diagnose(file)
    assert (found.kind, found.phases) == ("log", ())
    assert any(text.startswith("counted: 28.38") for text in found.findings)
    assert any("the two differ by -50%" in text for text in found.findings) == differs
    assert any("no times" in text for text in found.unknown)
    with pytest.raises(RooflineError, match="unknown model"):
        diagnose(file, "nonesuch")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("b200_cublaslt_fp8_details.log", "406.2"),
        ("sm120_dsocr_k1_metrics.csv", "20% of the bandwidth"),
        ("dsocr_decode_cuda_gpu_kern_sum.csv", "matrices 50%"),
    ],
)
def test_reports_of_profilers(file, words):
    """Nsight Compute's Duration and Memory Throughput (345 of 1756 GB/s), Nsight Systems' share of gemv kernels, as those files have them."""
    found = diagnose(RESULTS / "profilers" / file)
    assert found.kind == "report"
    assert words in str(found)


# ------------------------------------------------------------------------------------------------------------------- every file

NODE = {"model": "qwen3-0.6b", "hardware": "h100-sxm"}
LLAMA = {"model": "llama-3-8b", "hardware": "h100-sxm"}
FILES = {
    "guidellm_schema1_qwen3_0.6b.json.gz": ({**NODE, "run": 0}, "benchmark"),
    "guidellm_schema2_0.8.0dev18.json.gz": ({**NODE, "run": 0}, "benchmark"),
    "inferencex_glm5_fp8_tp8_conc16.json": (
        {"model": "glm-5", "hardware": "h200-sxm", "tensor_parallel": 8, "weights": "fp8"},
        "benchmark",
    ),
    "sglang_h200_llama33_70b_online.jsonl": ({**H200, "run": 1}, "benchmark"),
    "vllm_latency_llama3_8b_2025-02.json": ({**LLAMA, "batch": 8, "prompt": 32, "output": 128}, "benchmark"),
    "vllm_throughput_llama3_8b_2025-02.json": ({**LLAMA, "prompt": 200, "output": 200}, "benchmark"),
    "amd_smi_metric.csv": ({}, "recording"),
    "mlperf_inference_6.0_results.tsv.gz": ({}, "holds 493 runs"),
    "sources.csv": ({}, "no known format"),
    "engine_metrics/vllm_loaded.txt": ({}, "one page of metrics"),
    "engine_metrics/sglang_1.txt": ({}, "one page of metrics"),
    "traces/mi250_rocm62_toy_train.json.gz": ({}, "trace"),
    "traces/vllm_gpt_oss_20b_capture.json.gz": ({}, "trace"),
    "traces/sglang_qwen3_8b_prefill.json.gz": ({"model": "qwen3-8b", "hardware": "mi300x", "cached": 0}, "trace"),
    "profilers/sm120_dsocr_k1_roofline_section.csv": ({}, "report"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_diagnosed_or_refused_with_its_reason(name):
    given, told = FILES[name]
    if " " in told:  # the words of its refusal
        with pytest.raises(RooflineError, match=told):
            diagnose(RESULTS / name, **given)
        return
    found = diagnose(RESULTS / name, **given)
    assert found.kind == told
    assert str(found).count("\n") >= 2
    json.loads(found.to_json())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"traceEvents": []}', "trace"),
        ('[{"ph": "X", "name": "a"}]', "trace"),
        ("vllm:num_requests_running 3.0\n", "engine"),
        ("# HELP x y\n# TYPE x gauge\nx 1\n", "engine"),
        ('DCGM_FI_DEV_GPU_UTIL{gpu="0"} 100\n', "devices"),
        ("timestamp, utilization.gpu [%], power.draw [W]\n", "recording"),
        ("model,gpu,batch,context,ms\n", "steps"),
        ('{"model_id": "m", "request_throughput": 1}', "benchmark"),
        ("INFO [kv_cache_utils.py:849] GPU KV cache size: 1 tokens\n", "log"),
        ("INFO [gpu_worker.py:1] x\n===== Serving Benchmark Result =====\n", "benchmark"),
        ('"ID","Process ID","Kernel Name"\n', "report"),
    ],
)
def test_the_content_of_a_file_tells_its_kind(tmp_path, text, kind):
    file = tmp_path / ("steps.csv" if kind == "steps" else "file")
    file.write_text(text)
    assert kind_of(file) == kind


def wrong(call, *words):
    with pytest.raises(InvalidValueError) as error:
        call()
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


def test_what_cannot_be_diagnosed_is_one_sentence(tmp_path):
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(b"\x1f\x8b\x08\x00broken")
    wrong(lambda: diagnose(tmp_path / "none.json"), "cannot be read: No such file")
    wrong(lambda: diagnose(cut), "cannot be read: it is cut short")
    wrong(lambda: diagnose(3), "3 cannot be diagnosed")
    wrong(lambda: diagnose(SGLANG), "holds 7 runs", "run=0")
    wrong(lambda: diagnose(SGLANG, run=0), "model= and hardware=")
    wrong(lambda: diagnose(RESULTS / "amd_smi_metric.csv", busy=0.5), "busy= does not go with a recording", "amd_smi_metric.csv")
    wrong(lambda: diagnose(decode(1, 1, 1), "llama-3-8b", "h100-sxm", busy=35), "busy is 35", "from 0 to 1")
    wrong(lambda: diagnose(compare(decode(1, 1, 9), "llama-3-8b", "h100-sxm"), busy=45), "busy is 45", "divided by 100")
    wrong(lambda: diagnose(decode(1, 1, 1), "llama-3-8b", "h100-sxm", monitor=SGLANG), "monitor is", "recording")
    wrong(lambda: diagnose(decode(1, 1, 1), "llama-3-8b", "h100-sxm", serving_batch=0), "serving_batch is 0")
    wrong(lambda: diagnose(compare(SGLANG, run=0, **H200), "llama-3-8b"), "already says what ran")


def test_a_report_is_one_page_of_its_own(tmp_path):
    found = diagnose(SGLANG, run=2, busy=0.97, **H200)
    found.report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "http" not in page.replace("HTTP", "")
    assert all(word in page for word in ("Classic misdiagnoses", "largest losses", "what would help", "prompts of others"))
    found.report(tmp_path / "page.md")
    assert "| prefill |" in (tmp_path / "page.md").read_text(encoding="utf-8")
    wrong(lambda: found.report(tmp_path / "page.pdf"), "neither .html nor .md")
    wrong(lambda: found.report(tmp_path / "none" / "page.md"), "cannot be written")


# ------------------------------------------------------------------------------------------------------------------- the command line

PAGE = """vllm:num_requests_running{{model_name="m"}} 16.0
vllm:num_requests_waiting{{model_name="m"}} 0.0
vllm:kv_cache_usage_perc{{model_name="m"}} 0.35
vllm:prompt_tokens_total{{model_name="m"}} {prompts}
vllm:generation_tokens_total{{model_name="m"}} {tokens}
vllm:request_success_total{{model_name="m",finished_reason="length"}} {requests}
vllm:num_preemptions_total{{model_name="m"}} {preempted}
vllm:estimated_flops_per_gpu_total{{model_name="m"}} {flops}
vllm:time_to_first_token_seconds_sum{{model_name="m"}} {first_s}
vllm:time_to_first_token_seconds_count{{model_name="m"}} {requests}
vllm:inter_token_latency_seconds_sum{{model_name="m"}} {gaps_s}
vllm:inter_token_latency_seconds_count{{model_name="m"}} {tokens}
vllm:iteration_tokens_total_sum{{model_name="m"}} {tokens}
vllm:iteration_tokens_total_count{{model_name="m"}} {steps}
vllm:request_prompt_tokens_sum{{model_name="m"}} {prompts}
vllm:request_prompt_tokens_count{{model_name="m"}} {requests}
vllm:request_generation_tokens_sum{{model_name="m"}} {tokens}
vllm:request_generation_tokens_count{{model_name="m"}} {requests}
"""
FLOPS = 3.0e11  # of a step, as an engine might count them
STEP_S = 0.0077  # of Llama-3.1-8B at batch 16 on an H100, so that the server looks healthy


@pytest.fixture
def server():
    """Serve pages of an engine whose counters move as those of one that decodes batch 16: prompts of 1,000 tokens, answers of 200."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            steps = 1000 + int((time.monotonic() - begun) / STEP_S)
            tokens = 16 * steps
            requests = tokens // 200
            page = PAGE.format(
                prompts=1000 * requests,
                tokens=tokens,
                requests=requests,
                preempted=self.server.preempted * steps,
                first_s=0.05 * requests,
                gaps_s=STEP_S * tokens,
                steps=steps,
                flops=FLOPS * steps,
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    begun = time.monotonic()
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    found.preempted = 0
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.mark.slow
def test_a_running_engine_is_diagnosed_over_its_url(server):
    pytest.importorskip("prometheus_client")
    url = f"http://127.0.0.1:{server.server_port}"
    out = ok("diagnose", "--url", url, "llama-3.1-8b", "h100-sxm", "--seconds", "1.5", "--json")
    decoded = next(phase for phase in json.loads(out)["ops"] if phase["name"] == "decode")
    assert (decoded["binds"], decoded["roof"]) == ("memory", "memory")
    assert decoded["measured_s"] == pytest.approx(STEP_S, rel=1e-3)
    assert 0.8 < decoded["over_estimate"] < 1.5
    server.preempted = 1
    text = ok("diagnose", "--url", url, "llama-3.1-8b", "h100-sxm", "--seconds", "1.1")
    assert "bound by the capacity of the memory" in text
    assert "vllm's own counters have" in text


def test_the_command_prints_times_first_and_writes_a_page(tmp_path):
    page = tmp_path / "page.html"
    out = ok("diagnose", SGLANG, "llama-3.3-70b", "h200-sxm", "--tp", 4, "--run", 2, "--report", page)
    head, *rest = out.splitlines()
    assert head.split()[:3] == ["time", "measured", "floor"]
    assert [line.split()[0] for line in rest[:4]] == ["ttft", "tpot", "itl", "e2e"]
    assert "bound by prompts of other requests" in out
    assert f"report: {page}" in out
    written = page.read_text(encoding="utf-8")
    assert written.startswith("<!doctype html>")
    assert "--weights" in written
    assert "weights=" not in written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "diagnose needs FILE, --url or --trace"),
        ((SGLANG,), "holds 7 runs"),
        ((SGLANG, "--run", 0), "give MODEL and HARDWARE; and degrees (--tensor-parallel …)"),
        ((SGLANG, "--run", 0, "llama-3.3-70b", "h20"), "does not fit into one H20"),
        (("none.json",), "No such file"),
        (("--url", "localhost:8000"), "it begins with http:// or https://"),
        (("--trace", SGLANG), "is no trace of torch.profiler"),
        (("--trace", "a", "--url", "http://b"), "give one of them"),
        (("--trace", TRACES / "sglang_qwen3_8b_prefill.json.gz", SGLANG), "is read as MODEL, since with --trace there is no FILE"),
        ((SGLANG, "h200-sxm", "--run", 0, "--tp", 4), "does not say what ran: give MODEL"),
        (("--url", "http://127.0.0.1:9", "a", "b", "c"), "is one word too many"),
        (("--url", "http://127.0.0.1:9", "llama-3-8b"), "does not answer"),
        ((RESULTS / "amd_smi_metric.csv", "--busy", 0.3), "--busy does not go with a recording"),
    ],
)
def test_words_that_cannot_be_are_one_sentence(words, said):
    result = run("diagnose", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_machine_alone_is_understood_where_the_file_names_the_model(tmp_path):
    file = tmp_path / "aiperf.json"
    told = aiperf(35.0)
    del told["telemetry_data"]
    file.write_text(json.dumps(told))
    assert "gpt-oss-20b on 1 × A100" in ok("diagnose", file, "a100-sxm")
    assert ok("diagnose", file, "a100-sxm") == ok("diagnose", file, "--hardware", "a100-sxm")


def test_a_table_has_its_unit_and_columns_said(tmp_path):
    file = tmp_path / "steps.csv"
    file.write_text("seqs,context,t\n1,1024,0.0072\n")
    out = ok("diagnose", file, "llama-3-8b", "h100-sxm", "--unit", "s", "--columns", "seqs=batch,t=step")
    assert "7.2 ms measured (row 1: batch 1, context 1024)" in out
    wrong(lambda: diagnose(SGLANG, run=0, unit="s", **H200), "unit= does not go with the result of a benchmark")


def test_pages_of_an_engine_as_two_files():
    folder = RESULTS / "engine_metrics"
    words = (folder / "vllm_idle.txt", "qwen3-0.6b", "h100-sxm", "--then", folder / "vllm_loaded.txt", "--seconds", 60)
    assert "32.0 requests wait on average" in ok("diagnose", *words)


def test_a_trace_by_its_option():
    out = ok("diagnose", "--trace", RESULTS / "traces" / "vllm_gpt_oss_20b_decode.json.gz", "gpt-oss-20b", "mi300x")
    assert "kernels of the experts" in out
