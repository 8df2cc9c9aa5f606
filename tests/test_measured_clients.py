"""Files of benchmark clients as measurements: real files have the values that stand in them, and no trap of a format is fallen into.

Files in data/results are real (sources.csv). Objects in this module are of the layout of their tools, written by hand unless a source is named.
"""

import contextlib
import copy
import csv
import gzip
import json
import math
import re
from pathlib import Path

import pytest

from roofline import InvalidValueError, RooflineError
from roofline.measured import Latency, ServingMeasurement, read_measurement, read_measurements, step_of_two_runs
from roofline.requests import RequestTimes

RESULTS = Path(__file__).parent / "data" / "results"

VLLM = {  # layout of vllm bench serve 0.25 to 0.33
    "date": "20260801-101010",
    "backend": "openai-chat",
    "endpoint_type": "openai-chat",
    "label": None,
    "model_id": "Qwen/Qwen3-8B",
    "tokenizer_id": "Qwen/Qwen3-8B",
    "num_prompts": 20,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": 2,
    "duration": 10.0,
    "completed": 20,
    "failed": 0,
    "total_input_tokens": 2000,
    "total_output_tokens": 1000,
    "request_throughput": 2.0,
    "request_goodput": None,
    "output_throughput": 100.0,
    "total_token_throughput": 300.0,
    "max_output_tokens_per_s": 150.0,
    "max_concurrent_requests": 6,
    "mean_ttft_ms": 20.0,
    "median_ttft_ms": 19.0,
    "std_ttft_ms": 2.0,
    "p99_ttft_ms": 30.0,
    "mean_tpot_ms": 10.0,
    "median_tpot_ms": 9.5,
    "std_tpot_ms": 1.0,
    "p99_tpot_ms": 12.0,
    "mean_itl_ms": 9.8,
    "median_itl_ms": 9.4,
    "std_itl_ms": 1.5,
    "p99_itl_ms": 14.0,
}
DETAILS = {  # what --save-detailed adds
    "input_lens": [100, 300],
    "output_lens": [3, 11],
    "start_times": [100.0, 100.5],
    "ttfts": [0.5, 0.5],
    "itls": [[0.25, 0.25], [0.2] * 10],
    "latencies": [1.0, 2.5],
    "errors": ["", ""],
}
SGLANG = {  # layout of SGLang 0.5.23, benchmark/serving.py
    "tag": None,
    "backend": "sglang",
    "dataset_name": "random",
    "request_rate": math.inf,
    "max_concurrency": 64,
    "random_input_len": 1024,
    "random_output_len": 512,
    "random_range_ratio": 1.0,
    "server_info": {
        "model_path": "Qwen/Qwen3-32B",
        "version": "0.5.23",
        "tp_size": 8,
        "dp_size": 4,
        "enable_dp_attention": True,
        "ep_size": 8,
        "quantization": "fp8",
        "kv_cache_dtype": "fp8_e4m3",
        "max_running_requests": 48,
        "api_key": "sk-very-secret-key",
        "speculative_num_draft_tokens": 4,
    },
    "duration": 20.0,
    "completed": 100,
    "total_input_tokens": 102400,
    "total_output_tokens": 51200,
    "request_throughput": 5.0,
    "input_throughput": 5120.0,
    "output_throughput": 2560.0,
    "mean_e2e_latency_ms": 12000.0,
    "median_e2e_latency_ms": 11900.0,
    "mean_ttft_ms": 1780.0,
    "median_ttft_ms": 1700.0,
    "mean_tpot_ms": 20.0,
    "median_tpot_ms": 19.0,
    "mean_itl_ms": 20.5,
    "p95_itl_ms": 40.0,
    "concurrency": 60.0,
    "accept_length": 2.5,
}
AIPERF = {  # published by aiperf 0.10.0, cut to what is read; input_config and telemetry in the layout of 0.13
    "schema_version": "1.3",
    "aiperf_version": "0.10.0",
    "request_throughput": {"unit": "requests/sec", "avg": 0.8233},
    "request_latency": {"unit": "ms", "avg": 2413.5, "p50": 2431.75, "p90": 2438.5, "p99": 2439.45, "std": 30.01, "count": 10},
    "request_count": {"unit": "requests", "avg": 10.0},
    "time_to_first_token": {"unit": "ms", "avg": 195.84, "p50": 175.05, "p90": 251.45, "p99": 253.45, "std": 46.21},
    "inter_token_latency": {"unit": "ms", "avg": 35.2, "p50": 34.73, "p90": 35.95, "p99": 35.96, "std": 0.60},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 52.69},
    "output_sequence_length": {"unit": "tokens", "avg": 64.0},
    "output_token_count": {"unit": "tokens", "avg": 16.0},
    "input_sequence_length": {"unit": "tokens", "avg": 256.0},
    "benchmark_duration": {"unit": "sec", "avg": 12.14},
    "time_to_second_token": None,
    "was_cancelled": False,
    "error_summary": [],
    "input_config": {
        "endpoint": {"model_names": ["openai/gpt-oss-20b"], "api_key": "abcdef123456", "urls": ["http://user:pw@host:8000"]},
        "loadgen": {"concurrency": 2},
        "cli_command": "aiperf profile --api-key abcdef123456 --header 'Authorization: Bearer abcdef123456' --model openai/gpt-oss-20b",
    },
    "telemetry_data": {
        "endpoints": {
            "http://node/metrics": {
                "gpus": {
                    "gpu_0": {"gpu_name": "NVIDIA A100-SXM4-80GB", "metrics": {"gpu_utilization": {"unit": "%", "avg": 35.0}}},
                    "gpu_1": {"gpu_name": "NVIDIA T4", "metrics": {"gpu_utilization": {"unit": "%", "avg": 0.0}}},
                }
            }
        }
    },
}
TRTLLM = {  # layout of trtllm-bench --report_json 1.1 without --streaming; numbers of gpt-oss-120b, TP8 EP4, Eagle3
    "engine": {
        "model": "openai/gpt-oss-120b",
        "engine_dir": "None",
        "version": "1.1.0rc2",
        "quantization": "MXFP4",
        "kv_cache_dtype": "FP8",
    },
    "machine": None,
    "world_info": {"tp_size": 8, "pp_size": 1, "ep_size": 4, "max_batch_size": 10, "kv_cache_percentage": 0.9, "issue_rate": 3.5e13},
    "request_info": {"num_requests": 1000, "avg_num_concurrent_requests": 505.0, "avg_input_length": 512.0, "avg_output_length": 512.0},
    "performance": {
        "total_latency_ms": 135773.0,
        "system_output_throughput_tok_s": 3771.0,
        "system_total_throughput_tok_s": 7542.0,
        "request_throughput_req_s": 7.365,
        "output_throughput_per_user_tok_s": 19.4,
        "avg_request_latency_ms": 68565.0,
        "request_latency_percentiles_ms": {"p50": 68000.0, "p99": 134000.0},
    },
    "decoding_stats": {"mode": "EAGLE", "acceptance_length": 2.358, "draft_acceptance_rate": 0.45},
}
LLAMA = {  # layout of llama-bench -o json (README of llama-bench)
    "build_commit": "8cf427ff",
    "build_number": 5163,
    "cpu_info": "AMD Ryzen 7 7800X3D 8-Core Processor",
    "gpu_info": "NVIDIA GeForce RTX 4080",
    "model_type": "llama 7B Q4_0",
    "model_size": 3791658496,
    "model_n_params": 6738415616,
    "n_gpu_layers": 99,
    "type_k": "f16",
    "type_v": "f16",
    "n_prompt": 0,
    "n_gen": 128,
    "n_depth": 512,
    "avg_ns": 1100000000,
    "avg_ts": 116.4,
    "stddev_ts": 0.5,
}
LLAMA_LOG = """\
ggml_cuda_init: found 1 ROCm devices:
  Device 0: Radeon 8060S Graphics, gfx1151 (0x1151), VMM: no, Wave Size: 32
| model                          |       size |     params | backend    | ngl | fa | mmap |            test |                  t/s |
| ------------------------------ | ---------: | ---------: | ---------- | --: | -: | ---: | --------------: | -------------------: |
| gpt-oss 20B MXFP4 MoE          |  11.27 GiB |    20.91 B | ROCm       |  99 |  1 |    0 |           pp512 |      1625.58 ± 10.36 |
| gpt-oss 20B MXFP4 MoE          |  11.27 GiB |    20.91 B | ROCm       |  99 |  1 |    0 |           tg128 |         79.80 ± 0.40 |
| gpt-oss 20B MXFP4 MoE          |  11.27 GiB |    20.91 B | ROCm       |  99 |  1 |    0 | pp2048 @ d32768 |        290.00 ± 1.00 |
| gpt-oss 20B MXFP4 MoE          |  11.27 GiB |    20.91 B | ROCm       |  99 |  1 |    0 |  tg32 @ d32768 |         50.00 ± 0.10 |

build: 9187 (abc)
"""
AGGREGATE = {  # layout of agg_*.json (InferenceX, utils/process_result.py)
    "hw": "h200",
    "conc": 64,
    "image": "vllm/vllm-openai:v0.11",
    "model": "openai/gpt-oss-120b",
    "framework": "vllm",
    "precision": "fp4",
    "spec_decoding": "none",
    "disagg": False,
    "isl": 1024,
    "osl": 1024,
    "is_multinode": False,
    "tp": 4,
    "ep": 1,
    "dp_attention": "false",
    "tput_per_gpu": 2000.0,
    "output_tput_per_gpu": 900.0,
    "mean_ttft": 0.2,
    "p99_ttft": 0.5,
    "mean_tpot": 0.0125,
    "median_tpot": 0.012,
    "p99_tpot": 0.02,
    "median_intvty": 83.3,
    "p99_intvty": 50.0,
}
LLMD = {  # layout of llm-d's report 0.2.1 (its example), cut to what is read
    "version": "0.2.1",
    "run": {"uid": "1", "time": {"duration": "PT49.97S"}},
    "scenario": {
        "load": {"standardized": {"tool": "vllm-benchmark", "rate_qps": 10.0, "concurrency": math.inf}},
        "stack": [
            {
                "standardized": {
                    "kind": "inference_engine",
                    "role": "decode",
                    "replicas": 2,
                    "model": {"name": "Qwen/Qwen3-0.6B"},
                    "accelerator": {"count": 8, "model": "NVIDIA-H100-80GB-HBM3", "parallelism": {"tp": 8, "pp": 1, "ep": 1, "dp": 1}},
                }
            },
            {"standardized": {"kind": "generic", "tool": "scheduler"}},
        ],
    },
    "results": {
        "request_performance": {
            "aggregate": {
                "latency": {
                    "time_to_first_token": {"mean": 0.0368, "p50": 0.0362, "p99": 0.0503, "units": "s"},
                    "time_per_output_token": {"mean": 4.0, "units": "ms/token"},
                    "inter_token_latency": {"mean": 4.2, "units": "ms/token"},
                    "request_latency": {"mean": 4.0, "units": "s"},
                },
                "requests": {"total": 500, "failures": 100, "input_length": {"mean": 2262.448}, "output_length": {"mean": 1000.0}},
                "throughput": {"request_rate": {"mean": 8.0}, "output_token_rate": {"mean": 8000.0}},
            }
        }
    },
}
MLPERF = """\
================================================
MLPerf Results Summary
================================================
SUT name : SUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 9.00
Completed tokens per second: 2000.00
Result is : INVALID
  Min duration satisfied : Yes

================================================
Additional Stats
================================================
Min latency (ns)                : 874044833
Mean latency (ns)               : 7292024730
50.00 percentile latency (ns)   : 7291127729
99.00 percentile latency (ns)   : 14315322167

Mean First Token latency (ns)               : 500000000
99.00 percentile first token latency (ns)   : 900000000

Mean Time per Output Token (ns)               : 31000000
99.00 percentile time to output token (ns)   : 45000000
"""
OBJECTS = {"vllm": VLLM, "sglang": SGLANG, "aiperf": AIPERF, "trtllm": TRTLLM, "llama": LLAMA, "agg": AGGREGATE, "llmd": LLMD}


@pytest.fixture
def read(tmp_path):
    """Reads what a file of some content, or several lines of it, holds."""

    def reading(*contents, name="result.json"):
        texts = [each if isinstance(each, str) else json.dumps(each) for each in contents]
        (tmp_path / name).write_text("\n".join(texts), encoding="utf-8", newline="")
        found = read_measurements(tmp_path / name)
        return found[0] if len(found) == 1 else found

    return reading


# ------------------------------------------------------------------------------------------------------------------- real files


def test_sglang_without_tpot_has_it_derived():
    """Row 1 of seven: 4 × H200, Llama-3.3-70B, one request per second; 8 in flight, 14.5 ms per token, 853 tokens of context (by hand, from the file)."""
    runs = read_measurements(RESULTS / "sglang_h200_llama33_70b_online.jsonl")
    assert len(runs) == 7
    first = runs[0]
    assert first.concurrency == pytest.approx(300 * 7.840616212638561 / 298.3675805060193)
    assert (first.prompt, first.output) == (152612 / 300, 160347 / 300)  # not the random_input_len of 1024
    assert (first.ttft.mean_s, first.ttft.median_s) == (None, pytest.approx(0.08574514742940664))
    assert first.itl.median_s == pytest.approx(13.638956006616354e-3)
    assert first.itl.definition == "gap of chunks"
    assert first.tpot.mean_s == pytest.approx(14.5e-3, rel=5e-3)
    assert first.tpot.weight == "token"
    assert first.cached_context == pytest.approx(853, rel=5e-3)
    assert [round(run.concurrency) for run in runs[2:4]] == [52, 360]
    assert first.request_rate == 1


def test_bare_infinity_is_read(read):
    assert read('{"backend": "sglang", "request_rate": Infinity, "median_e2e_latency_ms": 5.0}').request_rate == math.inf


def test_guidellm_schema_1_counts_requests_and_is_seen_to_be_simulated():
    run = read_measurement(RESULTS / "guidellm_schema1_qwen3_0.6b.json.gz")
    assert run.source == "guidellm (schema 1)"
    assert run.model == "Qwen/Qwen3-0.6B"
    assert (run.completed, run.failed) == (586, 0)
    assert run.concurrency == pytest.approx(22.783126411617154)
    assert run.ttft.mean_s == pytest.approx(1.0062143587)
    assert run.e2e.mean_s == pytest.approx(2.3300955914)  # in seconds, beside names in milliseconds
    assert run.tpot.mean_s == pytest.approx(10.423929083e-3)
    assert run.tpot.weight == "request"
    assert run.output_tokens_per_s == pytest.approx(1251.5371956866534)
    assert run.request_rate == 10
    assert run.max_concurrency is None
    assert len(run.times) == 60
    assert abs(run.times.ttft_s - 1.014298677444458).min() < 1e-6  # of the first in the list
    assert any("simulator" in note for note in run.notes)
    assert any("23 requests were cut off" in note for note in run.notes)


def test_guidellm_schema_2_counts_tokens():
    runs = read_measurements(RESULTS / "guidellm_schema2_0.8.0dev18.json.gz")
    assert [run.source for run in runs] == ["guidellm 0.8.0.dev18 (schema 2)"] * 2
    assert [run.request_rate for run in runs] == [2, 4]
    assert runs[0].tpot.weight == "token"
    assert runs[0].tpot.mean_s == pytest.approx(1.1508464813e-3)
    assert runs[0].ttft.mean_s == pytest.approx(11.481165886e-3)
    assert runs[0].accepted is None
    assert runs[0].max_concurrency is None  # 10240 is the pool of a client with a constant rate


def test_guidellm_tokens_of_a_chunk_are_those_accepted(read):
    report = json.loads(gzip.decompress((RESULTS / "guidellm_schema2_0.8.0dev18.json.gz").read_bytes()))
    report["benchmarks"] = report["benchmarks"][:1]
    report["benchmarks"][0]["metrics"]["iter_tokens_per_iteration"]["successful"]["mean"] = 2.4
    assert read(report).accepted == 2.4


def test_inferencex_experiment_is_in_seconds():
    run = read_measurement(RESULTS / "inferencex_glm5_fp8_tp8_conc16.json")
    assert run.model == "zai-org/GLM-5-FP8"
    assert (run.ttft.median_s, run.tpot.median_s, run.e2e.median_s) == (0.29139942955225706, 0.033614915054966145, 4.5732344426214695)
    assert run.ttft.percentiles == {99.0: 2.077586937993753}
    assert (run.prompt, run.output, run.max_concurrency) == (1024, 128, 16)
    assert run.concurrency == pytest.approx(160 * 4.5732344426214695 / 50.745707761496305)
    assert any("median time" in note for note in run.notes)


def test_vllm_latency_gives_a_step_by_two_runs():
    """Suite of that run: batch 8, 32 tokens in, 128 out."""
    run = read_measurement(RESULTS / "vllm_latency_llama3_8b_2025-02.json")
    assert run.e2e.mean_s == 7.419569773475329
    assert run.e2e.percentiles[99.0] == 7.734547998122871
    with pytest.raises(InvalidValueError, match=r"the longer run does not say batch=…, prompt=…, output=…"):
        step_of_two_runs(run.but(batch=8, prompt=32, output=128), run)
    long = run.but(batch=8, prompt=32, output=128)
    short = long.but(output=64, e2e=Latency("end to end", "request", 3.8))
    found = step_of_two_runs(short, long)
    assert found.step.mean_s == pytest.approx((7.419569773475329 - 3.8) / 64)
    assert found.prefill_s == pytest.approx(3.8 - 63 * found.step.mean_s)
    assert found.cached_context == 32 + 96
    with pytest.raises(InvalidValueError, match="the longer must have more of both"):
        step_of_two_runs(long, short)
    with pytest.raises(InvalidValueError, match="batch is 8 in the shorter run and 4 in the longer"):
        step_of_two_runs(short, long.but(batch=4))


def test_vllm_throughput_counts_prompts_too():
    run = read_measurement(RESULTS / "vllm_throughput_llama3_8b_2025-02.json")
    assert (run.completed, run.duration_s, run.requests_per_s) == (200, 72.38106929324567, 2.7631534315929653)
    assert run.output_tokens_per_s is None
    assert any("tokens_per_second (1191) counts prompts and answers together, 431 for each request" in note for note in run.notes)


def test_mlperf_table_is_utf_16():
    rows = read_measurements(RESULTS / "mlperf_inference_6.0_results.tsv.gz")
    assert len(rows) == 493
    assert rows[0].model == "llama2-70b-99"
    assert rows[0].machine == "AMD Instinct MI355X 288GB HBM3e (x87)"
    assert rows[0].output_tokens_per_s == 1042110
    assert rows[-1].requests_per_s == 5596.6
    assert rows[-1].output_tokens_per_s is None
    assert sum(row.e2e is not None for row in rows) == 7  # SingleStream


def test_records_of_requests_are_a_measurement(repository):
    """LLMServingSim's summary of the run (tests/data/requests/README.md)."""
    run = read_measurement(repository / "tests" / "data" / "requests" / "vllm_0.19.0_rtx_pro_6000_llama_3.1_8b.jsonl.gz")
    assert [round(time, 2) for time in (run.ttft.mean_s, run.ttft.percentiles[99], run.e2e.mean_s, run.e2e.percentiles[99])] == [
        7.10,
        19.76,
        28.20,
        37.64,
    ]
    assert round(run.tpot.mean_s * 1e3, 1) == 32.5
    assert run.completed == 300
    assert run.batch < run.concurrency


# ---------------------------------------------------------------------------------------------------------------------- layouts


def test_vllm_serve(read):
    run = read(VLLM)
    assert run.source == "vllm bench serve"
    assert (run.model, run.machine, run.engine) == ("Qwen/Qwen3-8B", None, None)  # openai-chat is an API that any engine may serve
    assert (run.prompt, run.output, run.request_rate, run.max_concurrency) == (100, 50, math.inf, 2)
    assert (run.itl.definition, run.itl.weight, run.itl.key) == ("gap of chunks", "chunk", "mean_itl_ms")
    assert [run.itl.mean_s, run.itl.median_s, run.itl.std_s, run.itl.percentiles[99]] == pytest.approx([9.8e-3, 9.4e-3, 1.5e-3, 14e-3])
    assert run.tpot.weight == "request"
    assert run.concurrency == pytest.approx(20 * (0.020 + 0.0098 * 49) / 10)
    assert any("max_concurrent_requests (6)" in note for note in run.notes)


def test_vllm_0_9_writes_a_key_with_a_colon(read):
    old = {name: value for name, value in VLLM.items() if name not in ("request_goodput", "failed", "endpoint_type")}
    run = read({**old, "request_goodput:": None, "num_prompts": 21})
    assert run.failed == 1


def test_vllm_in_lines_and_in_an_array_are_several_runs(read, tmp_path):
    runs = read(VLLM, {**VLLM, "request_rate": 4})
    assert [run.request_rate for run in runs] == [math.inf, 4]
    sweep = read([{**VLLM, "run_number": 0, "max_num_seqs": 1}, {**VLLM, "run_number": 1, "max_num_seqs": 1}])
    assert sweep[0].sequences == 1
    assert not any("waited" in note for note in sweep[0].notes)  # 1.0004 in flight are not more than 1
    with pytest.raises(
        InvalidValueError, match=r"result\.json holds 2 runs \(0: rate inf, at most 2, in flight 1.0004; 1: .*\); say which: run=0"
    ):
        read_measurement(tmp_path / "result.json")
    assert read_measurement(tmp_path / "result.json", run=1).sequences == 1
    with pytest.raises(InvalidValueError, match=r"run is 2; result\.json holds 2 runs, from 0 to 1"):
        read_measurement(tmp_path / "result.json", run=2)


PRINTED = """\
INFO Traffic request rate: inf RPS.
Traffic request rate: inf
Maximum request concurrency: 32
100%|##########| 32/32 [02:30<00:00,  4.71s/it]
============ Serving Benchmark Result ============
Successful requests:                     32
Benchmark duration (s):                  150.87
Total input tokens:                      65536
Total generated tokens:                  65536
Request throughput (req/s):              0.21
Output token throughput (tok/s):         434.40
Total Token throughput (tok/s):          868.80
---------------Time to First Token----------------
Mean TTFT (ms):                          7279.56
Median TTFT (ms):                        7099.88
P99 TTFT (ms):                           10999.46
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          70.14
Median TPOT (ms):                        70.23
P99 TPOT (ms):                           72.63
---------------Inter-token Latency----------------
Mean ITL (ms):                           70.14
Median ITL (ms):                         68.15
P99 ITL (ms):                            72.47
==================================================
"""


def test_the_summary_that_clients_print(read):
    """Printed by vLLM for 32 requests at once (yiliu30/vllm-fork, scripts/pp_local_test_res.sh)."""
    run, again = read(PRINTED, PRINTED, name="bench.log")
    assert (run.source, run.request_rate, run.max_concurrency) == ("vllm bench serve", math.inf, 32)
    assert (run.prompt, run.output) == (2048, 2048)
    assert run.tpot.mean_s == pytest.approx(0.07014)
    assert run.itl.percentiles[99] == pytest.approx(0.07247)
    assert run.concurrency == pytest.approx(32, rel=1e-3)  # all of them, all the time
    assert again.to_records() == run.to_records()
    lines = {"Backend": "sglang", "Concurrency": "7.90", "Mean E2E Latency (ms)": "7840.62", "Max request concurrency": "not set"}
    text = PRINTED.replace("Successful", "\n".join(f"{label}:    {value}" for label, value in lines.items()) + "\nSuccessful")
    native = read(text)
    assert (native.source, native.concurrency, native.itl.definition) == ("sglang bench_serving", 7.9, "gap per token")


def test_metadata_are_texts(read):
    run = read({**VLLM, "tensor_parallel_size": "4", "gpu": "H100", "input_len": "1000", "duration": "10.0"})
    assert run.options == {"tensor_parallel": 4}
    assert run.machine == "H100"
    assert run.prompt == 100
    assert run.duration_s == 10


def test_a_run_without_totals_has_no_concurrency(read):
    stripped = {
        name: value for name, value in VLLM.items() if not name.startswith(("total", "duration", "completed", "max", "output_", "failed"))
    }
    run = read(stripped)
    assert run.concurrency is None
    assert run.prompt is None
    assert run.tpot.mean_s == 0.010


def test_zeros_of_a_failed_run_are_no_times(read):
    """v0.25.1 with every request failed: 0 completed, 8 failed, zeros for all latencies."""
    zeros = {name: 0.0 for name in VLLM if name.endswith("_ms")}
    run = read({**VLLM, **zeros, "completed": 0, "failed": 8, "total_input_tokens": 0, "total_output_tokens": 0, "output_throughput": 0.0})
    assert run.latencies() == {}
    assert run.output_tokens_per_s is None
    assert any("no request was answered (8 failed)" in note for note in run.notes)


def test_zeros_of_one_time_are_missing(read):
    zeros = {name: 0.0 for name in VLLM if name.endswith("_itl_ms")}
    run = read({**VLLM, **zeros})
    assert run.itl is None
    assert run.concurrency == pytest.approx(20 * (0.020 + 0.010 * 49) / 10)


def test_pooling_models_have_times_end_to_end_alone(read):
    times = {name: value for name, value in VLLM.items() if not name.endswith("_ms")}
    run = read({**times, "total_input_sequences": 20, "total_output_tokens": None, "mean_e2el_ms": 12.0, "median_e2el_ms": 11.0})
    assert set(run.latencies()) == {"e2e"}
    assert any("pooling model" in note for note in run.notes)


def test_speculation_of_vllm(read):
    run = read(
        {
            **VLLM,
            "spec_decode_acceptance_rate": 45.0,
            "spec_decode_acceptance_length": 2.35,
            "spec_decode_num_drafts": 100,
            "spec_decode_draft_tokens": 300,
        }
    )
    assert (run.accepted, run.drafts) == (2.35, 3)


def test_details_give_each_request(read):
    run = read({**VLLM, **DETAILS})
    assert isinstance(run.times, RequestTimes)
    assert run.times.ttft_s.tolist() == [0.5, 0.5]
    assert run.ttft.mean_s == pytest.approx(0.020)  # the file's own figure stays
    assert run.concurrency == pytest.approx(3.5 / 3.0)
    assert run.batch == pytest.approx((0.5 + 2.0) / 2.5)  # from 100.5 to 103 somebody decodes
    assert run.cached_context == pytest.approx((2 * 101.5 + 10 * 305.5) / 12)
    assert "ttfts" not in run.raw


def test_latencies_stay_without_details(read):
    """vLLM 0.33 removes the other lists without --save-detailed."""
    run = read({**VLLM, "latencies": [0.4, 0.6, 0.0], "queue_times": [0.0, 0.0, 0.0]})
    assert run.e2e.mean_s == pytest.approx(0.5)
    assert run.times is None


def test_requests_without_moments_have_no_batch(read):
    told = {name: DETAILS[name] for name in ("input_lens", "output_lens", "ttfts", "itls", "errors")}
    run = read({**SGLANG, **told})
    assert run.batch is None
    assert any("do not say when each request was sent" in note for note in run.notes)


def test_lists_that_do_not_fit_are_left_out_and_said(read):
    run = read({**VLLM, **DETAILS, "ttfts": [0.5]})
    assert run.times is None
    assert any("left out" in note and "different lengths" in note for note in run.notes)


def test_sglang_says_its_server(read):
    run = read(SGLANG)
    assert run.source == "sglang bench_serving 0.5.23"
    assert run.model == "Qwen/Qwen3-32B"
    assert run.options == {"tensor_parallel": 2, "data_parallel": 4, "expert_parallel": 8, "kv": "fp8"}
    assert (run.accepted, run.drafts) == (2.5, 4)
    assert run.concurrency == 60
    assert run.sequences == 12  # of each of four ranks
    assert any("60 requests were in flight on average and at most 48 run" in note for note in run.notes)
    assert any("'fp8'" in note for note in run.notes)
    assert run.cached_context == 1024 + 256
    assert "secret" not in json.dumps(run.to_dict()) + repr(dict(run.raw))


def test_replicas_of_sglang_share_the_requests(read):
    server = {**SGLANG["server_info"], "enable_dp_attention": False, "max_running_requests": None}
    run = read({**SGLANG, "server_info": server})
    assert run.options["tensor_parallel"] == 8
    assert (run.replicas, run.sequences) == (4, None)


@pytest.mark.parametrize(
    ("changes", "definition"),
    [
        ({}, "gap per token"),  # 0.4.5 on, native client
        ({"backend": "sglang-oai"}, "gap per token"),  # 0.5.5 on, with speculation
        ({"backend": "sglang-oai", "accept_length": None}, "gap of chunks"),
        ({"backend": "vllm"}, "gap of chunks"),
    ],
)
def test_sglang_divides_gaps_by_client_and_version(read, changes, definition):
    """SGLang 0.4.1, 0.4.5, 0.5.5 and 0.5.23, bench_serving.py: where itl is divided by the new tokens."""
    assert read({**SGLANG, **changes}).itl.definition == definition


def test_rate_of_a_trace_is_no_number(read):
    assert read({**SGLANG, "request_rate": "trace"}).request_rate is None


def test_one_batch_of_sglang(read):
    """Keys of sglang/benchmark/one_batch.py and one_batch_server.py, 0.5.23."""
    run = read(
        {
            "run_name": "x",
            "batch_size": 8,
            "input_len": 256,
            "output_len": 32,
            "prefill_latency": 0.1,
            "median_decode_latency": 0.012,
            "total_latency": 0.48,
        }
    )
    assert (run.batch, run.prefill_s, run.step.median_s, run.prompt, run.output) == (8, 0.1, 0.012, 256, 32)
    server = read(
        {"run_name": "x", "batch_size": 8, "input_len": 256, "output_len": 101, "latency": 2.1, "last_ttft": 0.1, "acc_length": 2.0}
    )
    assert server.step.mean_s == pytest.approx(2 / 100 * 2)
    assert server.accepted == 2


def test_aiperf(read):
    run = read(AIPERF)
    assert run.source == "aiperf 0.10.0"
    assert (run.model, run.machine) == ("openai/gpt-oss-20b", "NVIDIA A100-SXM4-80GB")  # the T4 was idle
    assert run.ttft.mean_s == pytest.approx(0.19584)
    assert run.tpot.mean_s == pytest.approx(0.0352)
    assert run.tpot.definition == "per token after the first"
    assert (run.prompt, run.output) == (256, 64)  # output_token_count leaves reasoning out
    assert run.concurrency == pytest.approx(10 * 2.4135 / 12.14)
    assert run.max_concurrency == 2
    said = json.dumps(run.to_dict()) + repr(run.raw)
    assert "abcdef" not in said
    assert "user:pw" not in said


def test_aiperf_in_seconds_and_genai_perf(read):
    old = {name: AIPERF[name] for name in ("request_throughput", "request_latency", "inter_token_latency", "request_count")}
    run = read(
        {
            **old,
            "inter_token_latency": {"unit": "s", "p90": 0.04},
            "input_config": {"model_names": ["m"], "perf_analyzer": {"stimulus": {"concurrency": 8}}},
        }
    )
    assert run.source == "genai-perf"
    assert (run.model, run.max_concurrency) == ("m", 8)
    assert run.tpot.percentiles == {90.0: 0.04}
    with pytest.raises(InvalidValueError, match="the unit of request_latency is 'fortnights'"):
        read({**old, "request_latency": {"unit": "fortnights", "avg": 1.0}})


def test_aiperf_requests(read):
    """Layout of MetricRecordInfo (aiperf 0.13, common/models/record_models.py)."""

    def request(start, first, whole, **more):
        values = {
            "time_to_first_token": (first, "ms"),
            "request_latency": (whole, "ms"),
            "input_sequence_length": (100, "tokens"),
            "output_sequence_length": (5, "tokens"),
        }
        metrics = {tag: {"value": value, "unit": unit} for tag, (value, unit) in values.items()}
        return {"metadata": {"request_start_ns": start, "request_end_ns": start + 1}, "metrics": metrics, "error": None, **more}

    run = read(
        request(10**18, 50.0, 250.0),
        request(10**18 + 10**9, 50.0, 450.0),
        request(10**18, 0, 0, error={"code": 500}),
        name="profile_export.jsonl",
    )
    assert (run.source, run.completed) == ("aiperf", 2)
    assert run.tpot.mean_s == pytest.approx((0.05 + 0.1) / 2)
    assert run.duration_s == pytest.approx(1.45)
    assert run.notes == ("failed requests left out: 1",)


def test_guidellm_requests_of_schema_2(read):
    """Computed fields of GenerativeRequestStats (guidellm 0.8.1, schemas/base/request_stats.py)."""
    report = json.loads(gzip.decompress((RESULTS / "guidellm_schema2_0.8.0dev18.json.gz").read_bytes()))
    report["benchmarks"] = report["benchmarks"][:1]
    request = {"prompt_tokens": 50, "output_tokens": 5, "request_start_time": 1e9, "time_to_first_token_ms": 100.0, "request_latency": 0.5}
    report["benchmarks"][0]["requests"]["successful"] = [request, {**request, "request_start_time": 1e9 + 1}]
    run = read(report)
    assert run.times.tpot_s == pytest.approx([0.1, 0.1])
    assert run.batch == 1


def test_trtllm_counts_the_queue(read):
    """505 in flight with 10 running; 10 / 3771 tokens/s is 2.65 ms per token, 6.25 ms per step of 2.358 tokens."""
    run = read(TRTLLM)
    assert run.options == {"tensor_parallel": 8, "expert_parallel": 4, "kv": "fp8"}
    assert run.machine is None
    assert run.request_rate == math.inf
    assert (run.concurrency, run.sequences, run.batch) == (505, 10, 10)
    assert run.tpot.mean_s == pytest.approx(2.65e-3, rel=2e-3)
    assert run.tpot.mean_s * run.accepted == pytest.approx(6.25e-3, rel=2e-3)
    assert any("about 495 waited" in note for note in run.notes)
    streamed = read(
        {**TRTLLM, "streaming_metrics": {"avg_ttft_ms": 50.0, "avg_tpot_ms": 6.0, "tpot_percentiles": {"p50": 5.9, "p99": 7.0}}}
    )
    assert (streamed.tpot.mean_s, streamed.tpot.weight) == (0.006, "request")


def test_llama_bench_in_its_three_forms(read):
    run = read([LLAMA])
    assert (run.model, run.machine, run.engine, run.options) == ("llama 7B Q4_0", "NVIDIA GeForce RTX 4080", "llama.cpp", {"kv": "fp16"})
    assert run.step.mean_s == pytest.approx(1 / 116.4)
    assert (run.batch, run.cached_context) == (1, 512 + 64)
    assert any("4.5 bit each" in note for note in run.notes)
    lines = ",".join(LLAMA) + "\n" + ",".join(f'"{value}"' for value in LLAMA.values())
    assert read(lines, name="bench.csv").to_dict()["ops"] == run.to_dict()["ops"]
    prompt, generated, deep, late = read(LLAMA_LOG, name="bench.log")
    assert prompt.machine == "Radeon 8060S Graphics"
    assert prompt.prefill_s == pytest.approx(512 / 1625.58)
    assert generated.step.mean_s == pytest.approx(12.53e-3, rel=1e-3)  # 79.8 tokens/s
    assert any("follows 32768 tokens" in note for note in deep.notes)
    assert late.cached_context == 32768 + 16


def test_llama_bench_on_the_cpu_names_the_cpu(read):
    assert read({**LLAMA, "n_gpu_layers": 0}).machine == "AMD Ryzen 7 7800X3D 8-Core Processor"


def test_inferencex_aggregate(read):
    run = read(AGGREGATE)
    assert (run.machine, run.engine, run.options) == ("h200", "vllm", {"tensor_parallel": 4})
    assert (run.tpot.mean_s, run.tpot.percentiles[99.0]) == (0.0125, 0.02)
    assert run.output_tokens_per_s == 3600
    assert run.prompt_tokens_per_s == 8000 - 3600
    assert run.concurrency == 64
    apart = {name: value for name, value in AGGREGATE.items() if name not in ("tp", "ep", "dp_attention")}
    disaggregated = read(
        {
            **apart,
            "num_prefill_gpu": 4,
            "num_decode_gpu": 8,
            "decode_tp": 8,
            "decode_ep": 8,
            "decode_dp_attention": "true",
            "decode_num_workers": 1,
        }
    )
    assert disaggregated.output_tokens_per_s == 7200  # per device of decode
    assert disaggregated.options == {"tensor_parallel": 1, "data_parallel": 8, "expert_parallel": 8}


def test_llmd_report(read):
    run = read(LLMD)
    assert (run.model, run.machine, run.options) == ("Qwen/Qwen3-0.6B", "NVIDIA-H100-80GB-HBM3", {"tensor_parallel": 8})
    assert (run.completed, run.failed, run.replicas) == (400, 100, 2)
    assert run.ttft.mean_s == 0.0368
    assert (run.tpot.mean_s, run.itl.mean_s) == pytest.approx((0.004, 0.0042))
    assert run.concurrency == pytest.approx(8 * 4.0)
    old = {
        "version": "0.1",
        "scenario": {
            "model": {"name": "m"},
            "load": {"name": "guidellm"},
            "host": {"type": ["replica"], "accelerator": [{"model": "H100", "parallelism": {"tp": 2}}]},
        },
        "metrics": {
            "requests": {"total": 10},
            "latency": {
                "inter_token_latency": {"units": "ms/token", "mean": 5.0},
                "time_per_output_token": {"units": "ms/token", "mean": 6.0},
            },
            "throughput": {"output_tokens_per_sec": 100.0},
        },
    }
    first = read(old)
    assert (first.options, first.output_tokens_per_s) == ({"tensor_parallel": 2}, 100)
    assert first.tpot.mean_s == 0.005  # guidellm's gap is a mean without the first token


def test_llmd_report_in_yaml(read):
    yaml = pytest.importorskip("yaml")
    assert read(yaml.safe_dump(LLMD), name="report.yaml").to_dict() == {
        **read(LLMD).to_dict(),
        "path": read(yaml.safe_dump(LLMD), name="report.yaml").path,
    }


def test_mlperf_summary_and_detail(read):
    """Lines and keys of LoadGen's results.cc."""
    run = read(MLPERF, name="mlperf_log_summary.txt")
    assert (run.ttft.mean_s, run.tpot.mean_s, run.e2e.mean_s) == pytest.approx((0.5, 0.031, 7.29202473))
    assert run.tpot.percentiles[99] == pytest.approx(0.045)
    assert (run.requests_per_s, run.output_tokens_per_s) == (9, 2000)
    assert any("INVALID" in note for note in run.notes)
    events = {
        "effective_scenario": "Offline",
        "effective_test_mode": "PerformanceOnly",
        "result_validity": "VALID",
        "result_samples_per_second": 12.1491,
        "result_inferred_tokens_per_second": 838.288,
        "result_mean_latency_ns": 729202473042,
    }
    lines = [f":::MLLOG {json.dumps({'key': key, 'value': value, 'time_ms': 1.0})}" for key, value in events.items()]
    detail = read(*lines, name="mlperf_log_detail.txt")
    assert detail.output_tokens_per_s == 838.288
    assert any("inferred" in note for note in detail.notes)
    assert detail.request_rate == math.inf


# ------------------------------------------------------------------------------------------------------------ what cannot be read


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "result.json is empty"),
        ("  \n", "result.json is empty"),
        ("[]", "holds no results: it is an empty list"),
        ("[1, 2]", "holds 1 where an object"),
        ("{", "line 1 is no JSON, cut short or corrupted"),
        (json.dumps(VLLM)[:-40], "line 1 is no JSON"),
        (f"{json.dumps(VLLM)}\n{json.dumps(VLLM)[:-40]}", "line 2 is no JSON, cut short or corrupted; the 1 before it are whole"),
        (f'{json.dumps(VLLM)}\n{{"loss": 1}}', "result 2 is of no known format: it has 'loss'"),
        ('{"a": 1}', "of no known format: it has 'a'; what is read: results of SGLang, vLLM, guidellm"),
        ("{}", "it has no keys"),
        ('[{"benchmark": {}, "model": {}, "metric": {}}]', "PyTorch's benchmark database"),
        ('{"traceEvents": []}', "a trace of torch.profiler"),
        ('"ID","Process ID"\n"0","1"', "a report of Nsight Compute"),
        ("prompt,reply\nhello,world", "of no known format"),
        ("OPENAI_API_KEY=XYZZY", "it has 'OPENAI_API_KEY=(removed)'"),
        ("prompt,reply\nhe\rllo\x00,world", "is no table of comma-separated values"),
        ("Public ID\tOrganization\nv6\r0\tAMD", "no table of MLPerf's results that can be read"),
        (json.dumps({**VLLM, "mean_tpot_ms": "fast"}), "mean_tpot_ms is 'fast'; it must be a number"),
        (json.dumps({**VLLM, "mean_tpot_ms": -1}), "mean_tpot_ms is -1; it must be a number of at least 0"),
        (json.dumps({**VLLM, "completed": 1.5}), "completed is 1.5; it must be a whole number"),
        (json.dumps({**SGLANG, "server_info": "none"}), "server_info is 'none'; it must be an object"),
        ('{"benchmarks": []}', "none of them has the metrics of guidellm"),
        ('{"metadata": {"version": 3}, "benchmarks": []}', "schema 3 of guidellm's reports is not known"),
        (json.dumps({**LLMD, "version": "0.9"}), "version 0.9 of llm-d's benchmark reports is not known"),
        (LLAMA_LOG.replace("tg128", "xx128"), "has the test 'xx128'"),
        (LLAMA_LOG.splitlines()[2], "no row below it"),
        (MLPERF.replace("PerformanceOnly", "AccuracyOnly"), "in mode AccuracyOnly"),
        ("scenario:\n  load: {", "no valid YAML"),
        (':::MLLOG {"key": "a"', "line 1 is no event of LoadGen"),
    ],
)
def test_what_is_no_result_is_refused_in_a_sentence(read, content, sentence):
    with pytest.raises(InvalidValueError, match=re.escape(sentence)) as caught:
        read(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_files_that_are_none(tmp_path):
    (tmp_path / "broken.json.gz").write_bytes(gzip.compress(b"{}")[:-5])
    for name in ("absent.json", "broken.json.gz", ""):
        with pytest.raises(InvalidValueError, match="cannot be read"):
            read_measurements(tmp_path / name)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_wrong_value_anywhere_is_read_or_refused(read, name):
    """Every value of every layout is replaced in turn by what it cannot be: a sentence, or a measurement, and nothing else."""
    for path in _places(OBJECTS[name]):
        for wrong in (None, -1, "x", [1], {"a": 1}, math.inf, 1e308):
            content = copy.deepcopy(OBJECTS[name])
            inner = content
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = wrong
            with contextlib.suppress(RooflineError):
                read(content)


def _places(content, path=()):
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from _places(value, (*path, key))


# ------------------------------------------------------------------------------------------------------------------- measurements


def test_a_measurement_checks_itself():
    with pytest.raises(InvalidValueError, match="definition is 'itl'; it must be one of 'first token'"):
        Latency("itl", "token", 1.0)
    with pytest.raises(InvalidValueError, match="mean_s is -1"):
        Latency("step", "step", -1)
    with pytest.raises(InvalidValueError, match="concurrency is 'many'"):
        ServingMeasurement("x", concurrency="many")
    with pytest.raises(InvalidValueError, match=r"sequences is 1\.5; it must be a whole number"):
        ServingMeasurement("x", sequences=1.5)
    with pytest.raises(InvalidValueError, match=r"tpot is 0\.02; it must be a Latency"):
        ServingMeasurement("x", tpot=0.02)
    with pytest.raises(RooflineError, match=r"Deployment has no tp: .*tensor_parallel"):
        ServingMeasurement("x", options={"tp": 4})
    with pytest.raises(RooflineError, match=r"ServingMeasurement.but has no tp: nearest: tpot"):
        ServingMeasurement("x").but(tp=4)


def test_what_is_said_later_is_added():
    run = ServingMeasurement("x", concurrency=505, sequences=10, options={"kv": "fp8"})
    said = run.but(model="m", options={"tensor_parallel": 2}, sequences=600)
    assert said.options == {"kv": "fp8", "tensor_parallel": 2}
    assert said.notes == ()  # none waits any more
    assert len(run.notes) == 1
    assert run.but(model="m").notes == run.notes


@pytest.mark.parametrize(
    "secret",
    [
        {"api_key": "XYZZY"},
        {"token": "XYZZY"},
        {"password": 12345},
        {"headers": {"Authorization": "Bearer XYZZY"}},
        {"command": "bench --api-key XYZZY --model m"},
        {"command": "bench --api-key=XYZZY"},
        {"command": "HF_TOKEN=XYZZY OPENAI_API_KEY='XYZZY' bench -H 'Authorization: Bearer XYZZY'"},
        {"command": 'bench --extra {"api_key": "XYZZY"}'},
        {"url": "https://me:XYZZY@host/v1?key=XYZZY&model=m"},
        {"command": "bench --token XYZZY"},
        {"text": "used sk-XYZZY12345678"},
    ],
)
def test_secrets_are_kept_nowhere(secret):
    run = ServingMeasurement(
        "x", path="https://me:XYZZY@host/result.json", raw={**secret, "time_to_first_token": 0.5}, notes=("--api-key XYZZY",)
    )
    said = str(run) + repr(run.raw) + run.to_json()
    assert "XYZZY" not in said
    assert "12345" not in said
    assert run.raw["time_to_first_token"] == 0.5


def test_views_of_a_measurement(read):
    run = read(VLLM)
    assert [row["name"] for row in run.table()] == ["ttft", "tpot", "itl"]
    record = run.to_records()[0]
    assert (record["tpot_s"], record["source"], record["model"]) == (0.010, "vllm bench serve", "Qwen/Qwen3-8B")
    assert json.loads(run.to_json())["ops"][1]["definition"] == "per token after the first"
    assert "tpot: 10 ms mean, p99 12 ms (per token after the first, a value for each request)" in str(run)
    assert run.question() is None
    assert run == read(VLLM)


def test_requests_make_a_measurement():
    times = RequestTimes.from_records({"duration": 4.0, **DETAILS})
    run = ServingMeasurement.from_times(times, source="simulation", model="m")
    assert (run.source, run.model, run.completed) == ("simulation", "m", 2)
    assert run.itl.mean_s == pytest.approx(2.5 / 12)
    assert run.output_tokens_per_s == pytest.approx(14 / 3.0)


def test_sources_of_files_are_listed():
    with (RESULTS / "sources.csv").open(encoding="utf-8") as stream:
        listed = {row["file"] for row in csv.DictReader(stream)}
    assert listed >= {file.name for file in RESULTS.iterdir() if file.is_file() and file.suffix != ".csv"}
