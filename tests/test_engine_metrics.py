"""Pages of metrics of engines: what is read, what a window makes of two, and a clear sentence for whatever is no page."""

import gzip
import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from roofline import Deployment, InvalidValueError, decode_floor
from roofline.measured import (
    EngineWindow,
    compare,
    engine_window,
    own_counters,
    read_device_metrics,
    read_engine_log,
    read_metrics,
    watch_engine,
)
from roofline.measured.engines import exposition

PAGES = Path(__file__).parent / "data" / "results" / "engine_metrics"


def window_of(first, last, seconds=10):
    return engine_window(read_metrics(first), read_metrics(last), seconds=seconds)


def vllm(**values):
    """A short page of vLLM."""
    return "".join(f'vllm:{name}{{engine="0",model_name="m"}} {value}\n' for name, value in values.items())


# ------------------------------------------------------------------------------------------------------------------------- vLLM


def test_a_window_of_vllm_has_the_batch_and_the_gap_of_the_page():
    """Real page of 0.25.1: 2829 steps, 165,293 tokens of 664 requests, 164,629 gaps with a mean of 6.06 ms."""
    window = window_of(PAGES / "vllm_idle.txt", PAGES / "vllm_loaded.txt")
    assert window.itl.mean_s == pytest.approx(6.06e-3, abs=5e-6)
    assert (window.itl.definition, window.itl.weight) == ("gap of chunks", "step")
    assert window.batch == pytest.approx(164629 / 2829)
    assert window.counted["output_tokens"] - 664 == 164629  # a first token has no gap before it
    assert 2829 * window.itl.mean_s == pytest.approx(997.65 / window.batch, rel=1e-3)  # steps in a row take the time of the gaps
    assert window.output_tokens_per_s == pytest.approx(16529.3)
    assert window.kv_tokens == 400448
    assert window.preemptions == 0
    assert window.prefix_hits == pytest.approx(1 / 8)
    assert any("--enable-mfu-metrics" in note for note in window.notes)


def test_a_measurement_says_what_the_engine_times():
    measured = window_of(PAGES / "vllm_idle.txt", PAGES / "vllm_loaded.txt").measurement()
    assert (measured.engine, measured.model, measured.duration_s) == ("vllm", "facebook/opt-125m", 10)
    assert (measured.completed, measured.prompt, measured.output) == (600, 128, 250)
    assert measured.ttft.definition == "first token"
    assert (measured.tpot.definition, measured.tpot.weight) == ("per token after the first", "request")
    assert measured.e2e.mean_s == pytest.approx(1296.6 / 600)
    assert measured.ttft.percentiles == {}  # of buckets there are none
    assert json.loads(measured.to_json())["engine"] == "vllm"


def test_waiting_by_reason_is_not_counted_twice():
    assert read_metrics(PAGES / "vllm_loaded.txt").waiting == 64


def test_old_names_of_vllm_are_read():
    old = ["gpu_cache_usage_perc", "time_per_output_token_seconds_sum", "time_per_output_token_seconds_count", "generation_tokens_total"]
    window = window_of(vllm(**dict.fromkeys(old, 0)), vllm(**dict(zip(old, (0.5, 10, 1000, 1010), strict=True))))
    assert window.kv_use == 0.25  # the mean of both pages
    assert window.itl.mean_s == 0.01


def test_ranks_add_up_and_shares_do_not():
    lines = 'vllm:num_requests_running{{engine="{0}",model_name="m"}} {1}\nvllm:kv_cache_usage_perc{{engine="{0}",model_name="m"}} {2}\n'
    page = read_metrics(lines.format(0, 3, 0.2) + lines.format(1, 5, 0.6))
    assert (page.running, page.ranks) == (8, 2)
    assert page.kv_use == pytest.approx(0.4)


def test_speculation_has_tokens_of_a_verification():
    """1 + accepted / verifications: 600 accepted of 1600 drafts in 400 verifications yield 2.5 tokens each."""
    names = [
        "spec_decode_num_drafts_total",
        "spec_decode_num_draft_tokens_total",
        "spec_decode_num_accepted_tokens_total",
        "generation_tokens_total",
    ]
    window = window_of(vllm(**dict.fromkeys(names, 7)), vllm(**dict(zip(names, (407, 1607, 607, 1007), strict=True))))
    assert (window.accepted, window.drafts) == (2.5, 4)
    assert window.measurement().drafts == 4
    assert window_of(vllm(generation_tokens_total=1), vllm(generation_tokens_total=2)).accepted is None


@pytest.mark.parametrize("prefix", ["ray_vllm:", "ray_vllm_", "vllm_"])
def test_vllm_under_ray_is_vllm(prefix):
    """A real page of Ray 2.32 with a 70B Llama: 300 tokens, 299 gaps in 16.18 s. (DataDog/integrations-core, ray_vllm_metrics.txt)"""
    lines = vllm(generation_tokens_total="{0}", time_per_output_token_seconds_count="{1}", time_per_output_token_seconds_sum="{2}")
    lines = lines.replace("{engine", "{{engine").replace('"}', '"}}').replace("vllm:", prefix)
    window = window_of(lines.format(0, 0, 0), lines.format(300, 299, 16.178537607192993))
    assert (window.engine, window.model) == ("vllm", "m")
    assert window.itl.mean_s == pytest.approx(0.0541, abs=5e-5)


# --------------------------------------------------------------------------------------------------------------- other engines


def test_ranks_of_sglang_that_report_the_same_count_once():
    """Two data-parallel ranks of two GPUs each, with a series for one priority beside the one for all."""
    page = read_metrics(PAGES / "sglang_1.txt")
    assert (page.running, page.waiting, page.ranks, page.kv_tokens) == (40, 2, 2, 800_000)
    assert page.kv_use == pytest.approx(0.15)


def test_a_window_of_sglang_has_the_context_and_the_time_of_a_token():
    window = window_of(PAGES / "sglang_0.txt", PAGES / "sglang_1.txt")
    assert (window.itl.definition, window.itl.weight) == ("gap per token", "token")
    assert window.itl.mean_s == pytest.approx(396 / 36000)
    assert window.output_tokens_per_s == 3600  # streaming requests and others
    assert window.batch == pytest.approx(39.6)  # 396 s of gaps in 10 s
    assert window.cached_context == pytest.approx((38000 + 42000) / 80)
    assert window.busy == pytest.approx(0.9)  # each rank 9 s of 10
    assert window.prefix_hits == pytest.approx(12800 / 64000)
    assert window.accepted is None
    assert window.options == {"data_parallel": 2}


def test_older_names_of_sglang_are_read():
    """From the example page of its documentation, 0.4: 7,400,757 tokens in 866,964.6 s, 162 requests that use 123,859 tokens of cache."""
    lines = (
        "sglang:time_per_output_token_seconds_sum {0}\nsglang:time_per_output_token_seconds_count {1}\nsglang:generation_tokens_total {2}\n"
    )
    lines += "sglang:num_running_reqs 162.0\nsglang:num_used_tokens 123859.0\nsglang:num_queue_reqs 2826.0\nsglang:token_usage 0.28\n"
    window = window_of(lines.format(0, 0, 0), lines.format(866964.5791549598, 7.400757e06, 7.557572e06), seconds=None)
    assert (window.itl.mean_s, window.itl.weight) == (pytest.approx(0.11715, abs=1e-5), "token")
    assert window.cached_context == pytest.approx(123859 / 162)
    assert (window.batch, window.waiting, window.kv_use) == (162, 2826, 0.28)


TRTLLM = """\
# TYPE trtllm_generation_tokens counter
trtllm_generation_tokens_total{{engine_type="trtllm",model_name="gpt"}} {0}
trtllm_prompt_tokens_total{{engine_type="trtllm",model_name="gpt"}} {1}
trtllm_request_success_total{{engine_type="trtllm",model_name="gpt",finished_reason="length"}} {2}
trtllm_time_per_output_token_seconds_sum{{engine_type="trtllm",model_name="gpt"}} {3}
trtllm_time_per_output_token_seconds_count{{engine_type="trtllm",model_name="gpt"}} {2}
trtllm_num_generation_requests{{engine_type="trtllm",model_name="gpt"}} 12
trtllm_num_requests_running{{engine_type="trtllm",model_name="gpt"}} 14
trtllm_kv_cache_utilization{{engine_type="trtllm",model_name="gpt"}} 0.3
trtllm_kv_cache_max_blocks{{engine_type="trtllm",model_name="gpt"}} 1000
trtllm_kv_cache_tokens_per_block{{engine_type="trtllm",model_name="gpt"}} 32
trtllm_kv_cache_reused_blocks_total{{engine_type="trtllm",model_name="gpt"}} {4}
trtllm_kv_cache_missed_blocks_total{{engine_type="trtllm",model_name="gpt"}} {5}
trtllm_model_config_info{{model="openai/gpt-oss-120b",dtype="bfloat16",gpu_type="NVIDIA H100 80GB HBM3",model_name="gpt"}} 1.0
trtllm_parallel_config_info{{tensor_parallel_size="4",pipeline_parallel_size="1",gpu_count="4",model_name="gpt"}} 1.0
trtllm_spec_decode_acceptance_length{{engine_type="trtllm",model_name="gpt"}} 2.4
"""


def test_a_window_of_tensorrt_llm():
    """By the names of tensorrt_llm/metrics/collector.py."""
    window = window_of(TRTLLM.format(0, 0, 0, 0, 0, 0), TRTLLM.format(1000, 5000, 10, 0.2, 30, 70))
    assert (window.model, window.batch, window.accepted, window.kv_tokens) == ("gpt", 12, 2.4, 32000)
    assert (window.prompt, window.output, window.prefix_hits) == (500, 100, 0.3)
    assert (window.machine, window.options) == ("NVIDIA H100 80GB HBM3", {"tensor_parallel": 4})
    assert (window.tpot.mean_s, window.tpot.definition) == (0.02, "per token after the first")
    assert any("moments" in note for note in window.notes)


TGI = """\
# TYPE tgi_request_success counter
tgi_request_success {0}
tgi_batch_current_size 8
tgi_queue_size 0
# TYPE tgi_request_generated_tokens histogram
tgi_request_generated_tokens_sum {1}
tgi_request_generated_tokens_count {0}
tgi_request_input_length_sum {2}
tgi_request_input_length_count {0}
# TYPE tgi_batch_forward_duration histogram
tgi_batch_forward_duration_sum{{method="prefill"}} {3}
tgi_batch_forward_duration_count{{method="prefill"}} {0}
tgi_batch_forward_duration_sum{{method="decode"}} {4}
tgi_batch_forward_duration_count{{method="decode"}} {5}
"""


def test_a_window_of_tgi_has_the_time_of_a_step_and_not_of_a_prefill():
    window = window_of(TGI.format(0, 0, 0, 0, 0, 0), TGI.format(100, 20_100, 50_000, 30.0, 50.0, 2500))
    assert (window.step.mean_s, window.step.definition) == (0.02, "step")
    assert window.batch == 8  # (20100 − 100) / 2500
    assert (window.prompt, window.output, window.requests_per_s) == (500, 201, 10)


LLAMA = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total {0}
llamacpp:tokens_predicted_total {1}
llamacpp:tokens_predicted_seconds_total {2}
llamacpp:n_decode_total {3}
llamacpp:n_busy_slots_per_decode {4}
llamacpp:requests_processing 4
llamacpp:requests_deferred 1
"""


def test_a_window_of_llama_cpp_from_pages_that_are_quoted_strings():
    """Builds from 7010 on send the page as one JSON string. 100 · 1 and then 400 · 2.5 busy slots: 900 in 300 steps."""
    first, last = (json.dumps(LLAMA.format(*values)) for values in ((0, 0, 0, 100, 1), (300, 900, 18.0, 400, 2.5)))
    window = window_of(first, last)
    assert window.batch == 3
    assert (window.tpot.mean_s, window.tpot.weight) == (0.02, "token")
    assert (window.running, window.waiting) == (4, 1)
    with pytest.raises(InvalidValueError, match="cut off"):
        read_metrics(first[:-30])


# ------------------------------------------------------------------------------------------------------------- what is no window

ONE = vllm(generation_tokens_total=100, num_requests_running=1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# HELP vllm:x A comment.\n# TYPE vllm:x gauge\n", "no samples"),
        ("\n", "is empty"),
        ('[{"iter": 1, "iterLatencyMS": 5.1}]', "/prometheus/metrics"),
        ('{"object": "list"}', "is JSON"),
        ("\n<!DOCTYPE html><html></html>", "HTML page"),
        ("process_open_fds 12\n", "no metrics of an engine but 'process_open_fds'"),
        (ONE + "sglang:num_running_reqs 1\n", "vllm and sglang"),
        ('DCGM_FI_DEV_GPU_UTIL{gpu="0"} 3\n', "read_device_metrics"),
        (ONE + ONE.replace('"m"', '"other"'), "model= one of 'm', 'other'"),
        ('vllm:num_requests_running{engine="0 1\n', "no page of metrics, or was cut off"),
        (ONE + "vllm:num_requests_waiting many\n", "no page of metrics"),
        ("/no/such/file", "no file '/no/such/file'"),
        (12, "must be a URL"),
    ],
)
def test_what_is_no_page_is_refused_in_one_sentence(text, says):
    with pytest.raises(InvalidValueError, match=says.replace("(", r"\(")) as error:
        read_metrics(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("last", "seconds", "says"),
    [
        (ONE, 10, "did nothing between the pages in 10 s"),
        (ONE.replace("100", "20"), 10, "fell from 100 to 20: the engine was started again"),
        ("sglang:generation_tokens_total 200\n", 10, "different engines: vllm and sglang"),
        (ONE.replace('"m"', '"n"'), 10, "different models"),
        (ONE.replace("100", "200"), 0, "seconds is 0"),
        (ONE.replace("100", "200"), "10", "seconds is '10'"),
    ],
)
def test_what_is_no_window_is_refused_in_one_sentence(last, seconds, says):
    with pytest.raises(InvalidValueError, match=says):
        window_of(ONE, last, seconds)


def test_a_start_between_the_pages_is_seen_even_if_counters_are_higher():
    with pytest.raises(InvalidValueError, match="started again"):
        window_of(ONE + "process_start_time_seconds 100\n", ONE.replace("100", "200") + "process_start_time_seconds 400\n")


def test_a_start_between_pages_in_the_middle_is_seen():
    with pytest.raises(InvalidValueError, match="fell from 300 to 50"):
        engine_window(*(read_metrics(ONE.replace("100", count)) for count in ("100", "300", "50", "400")), seconds=10)


def test_one_page_is_no_window():
    with pytest.raises(InvalidValueError, match="two pages, 1 given"):
        engine_window(read_metrics(ONE))
    with pytest.raises(InvalidValueError, match="is no page"):
        engine_window(ONE, ONE)


def test_without_a_time_there_are_means_but_no_rates():
    window = engine_window(read_metrics(PAGES / "vllm_idle.txt"), read_metrics(PAGES / "vllm_loaded.txt"))
    assert (window.duration_s, window.output_tokens_per_s) == (None, None)
    assert window.itl.mean_s > 0
    assert "an unknown time" in str(window)


def test_one_of_several_models_is_chosen(tmp_path):
    both = ONE + ONE.replace('"m"', '"other"').replace("100", "7")
    (tmp_path / "page.gz").write_bytes(gzip.compress(both.encode()))
    page = read_metrics(tmp_path / "page.gz", model="other")
    assert (page.model, page.counter("output_tokens"), page.running) == ("other", 7, 1)
    with pytest.raises(InvalidValueError, match="no model 'othr'; it has 'other'"):
        read_metrics(both, model="othr")


# ------------------------------------------------------------------------------------------------------------------ over loopback


class _Engine(BaseHTTPRequestHandler):
    """Serves the page of a vLLM that decodes 8 sequences in 10 ms, with counters that move at every request."""

    def do_GET(self):
        if self.path != "/metrics":
            self.send_error(404)
            return
        self.server.asked += 1
        if self.server.asked in self.server.busy:
            self.send_error(503)
            return
        self.server.login = self.headers.get("Authorization")
        n = self.server.asked
        text = vllm(
            generation_tokens_total=8 * 100 * n, prompt_tokens_total=0, iteration_tokens_total_count=100 * n,
            inter_token_latency_seconds_sum=8.0 * n, inter_token_latency_seconds_count=800 * n, num_requests_running=8, num_requests_waiting=0,
        )  # fmt: skip
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not self.server.drips:
            self.wfile.write(body)
            return
        for byte in body:
            try:
                self.wfile.write(bytes([byte]))
                time.sleep(0.02)
            except OSError:
                return

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = HTTPServer(("127.0.0.1", 0), _Engine)
    server.asked, server.busy, server.drips = 0, (), False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def engine(server):
    return f"http://127.0.0.1:{server.server_port}"


def test_a_running_engine_is_watched(engine):
    window = watch_engine(engine, 0.2, every=0.1)
    assert isinstance(window, EngineWindow)
    assert (window.batch, window.itl.mean_s, window.running) == (8, pytest.approx(0.01), 8)
    assert window.duration_s == pytest.approx(0.2, abs=0.15)
    measured = window.measurement()
    assert measured.output_tokens_per_s == pytest.approx(window.counted["output_tokens"] / window.duration_s)
    beside = compare(measured, model="llama-3.1-8b", hardware="h100-sxm", context=1000)
    floor = decode_floor("llama-3.1-8b", "h100-sxm", batch=8, context=1000)
    assert beside["itl"].floor_s == pytest.approx(floor.time_s)
    assert beside["itl"].over_floor == pytest.approx(0.01 / floor.time_s)


def test_a_page_that_does_not_come_is_noted_and_the_others_count(engine, server):
    server.busy = (2,)
    window = watch_engine(engine, 0.3, every=0.1)
    assert (window.batch, window.itl.mean_s) == (8, pytest.approx(0.01))
    assert window.notes[-1].startswith("1 of ")
    assert window.notes[-1].endswith("/metrics answers 503 Service Unavailable")
    server.busy = range(server.asked + 2, 1000)
    with pytest.raises(InvalidValueError, match=r"answers 503 Service Unavailable\.$"):
        watch_engine(engine, 0.1, every=0.05)


def test_a_page_has_to_come_whole_in_the_time(engine, server):
    server.drips = True
    with pytest.raises(InvalidValueError, match=r"has not sent a whole page within 0\.2 s"):
        read_metrics(engine, timeout_s=0.2)


def test_a_body_that_does_not_end_is_no_page(engine, monkeypatch):
    monkeypatch.setattr(exposition, "_MOST_BYTES", 100)
    with pytest.raises(InvalidValueError, match="sends more than 0 MiB, which is no page"):
        read_metrics(engine)


def test_an_empty_path_is_no_file():
    with pytest.raises(InvalidValueError, match="there is no file ''; a page is read from"):
        read_metrics("")
    with pytest.raises(InvalidValueError, match=r"there is no file 'none\.log'; a log is read from"):
        read_engine_log("none.log")


def test_a_name_and_a_password_of_a_url_are_sent_as_such(engine, server):
    assert read_metrics(engine.replace("http://", "http://user:secret@")).source == f"{engine}/metrics"
    assert server.login == "Basic dXNlcjpzZWNyZXQ="  # RFC 7617: base64 of user:secret


def test_a_server_that_does_not_answer_is_named_without_its_password(engine):
    with pytest.raises(InvalidValueError, match="answers 404 Not Found; metrics are at /metrics"):
        read_metrics(f"{engine}/health")
    port = engine.rpartition(":")[2]
    with pytest.raises(InvalidValueError) as error:
        read_metrics("http://user:secret@127.0.0.1:1/metrics", timeout_s=0.5)
    assert "secret" not in str(error.value)
    assert "does not answer" in str(error.value)
    with pytest.raises(InvalidValueError, match=r"no URL: Invalid IPv6 URL") as error:
        read_metrics("http://user:secret@[::1")
    assert "secret" not in str(error.value)
    with pytest.raises(InvalidValueError, match="every is 0"):
        watch_engine(f"http://127.0.0.1:{port}", every=0)


# --------------------------------------------------------------------------------------------------- an engine's own counters


def perf_py(
    *, tokens, context, square, cached, logits, weight=2.0, layers=32, hidden=4096, heads=32, kv=8, width=128, inner=14336, words=128256
):
    """FLOP and bytes of a step by vLLM's vllm/v1/metrics/perf.py, dense layers, bf16: `square` is the sum of new · context."""
    flops = 2 * tokens * hidden * (heads + 2 * kv) * width * layers + 2 * tokens * hidden * heads * width * layers
    flops += 4 * heads * square * width * layers + 6 * hidden * inner * tokens * layers + 2 * logits * hidden * words
    rows = tokens * heads * width * 2 + 2 * (context + cached) * kv * width * 2
    read = layers * (
        tokens * hidden * 2
        + hidden * (heads + 2 * kv) * width * weight
        + rows
        + tokens * heads * width * 2
        + heads * width * hidden * weight
    )
    read += layers * (tokens * hidden * 2 + 3 * hidden * inner * weight + 3 * tokens * inner * 2) + logits * hidden * 2 + hidden * words * 2
    write = layers * (
        tokens * (heads + 2 * kv) * width * 2
        + 2 * tokens * kv * width * 2
        + tokens * hidden * 2
        + 3 * tokens * inner * 2
        + tokens * hidden * 2
    )
    return np.array([flops, read, write + logits * words * 2])


def counted(amounts, *, steps=500, batch=32, prompts=0, prompt=1024):
    """A window of vLLM in which its counters grew by these amounts."""
    grew = dict(zip(("flops", "read_bytes", "write_bytes"), map(float, amounts), strict=True))
    tokens = {"output_tokens": float(batch * steps + prompts), "prompt_tokens": float(prompt * prompts), "completed": float(prompts)}
    return EngineWindow(
        "vllm", "m", "a page", 10.0, {**grew, "steps": float(steps), **tokens}, batch=float(batch), prompt=float(prompt), output=400.0
    )


LLAMA_8B = Deployment("llama-3.1-8b", "h100-sxm")
DECODE = perf_py(tokens=32, context=0, cached=32 * 1001, square=32 * 1001, logits=32)


def test_vllms_counters_of_decode_steps_are_ours_and_the_activations():
    found = own_counters(counted(500 * DECODE), LLAMA_8B, cached_context=1000)
    assert found.flops_ratio == pytest.approx(1, rel=1e-3)
    assert found.expected_bytes == pytest.approx(found.counted_bytes, rel=2e-3)
    assert [row["reason"][:11] for row in found.table()] == ["activations"]


def test_vllms_counters_of_prompts_take_the_whole_square():
    """A prompt in a step adds its rows, but reads no weights once more: perf.py's difference of two steps."""
    prompt = perf_py(tokens=1024, context=1024, cached=0, square=1024**2, logits=1) - perf_py(
        tokens=0, context=0, cached=0, square=0, logits=0
    )
    found = own_counters(counted(500 * DECODE + 40 * prompt, prompts=40), LLAMA_8B, cached_context=1000)
    assert found.expected_flops == pytest.approx(found.counted_flops, rel=1e-3)
    assert found.expected_bytes == pytest.approx(found.counted_bytes, rel=1e-2)
    assert found.flops < 0.99 * found.counted_flops


def test_vllm_prices_every_compressed_checkpoint_at_half_a_byte():
    """An fp8 checkpoint of compressed-tensors: half of the weights' bytes are missing in the counter."""
    half = perf_py(tokens=32, context=0, cached=32 * 1001, square=32 * 1001, logits=32, weight=0.5)
    found = own_counters(counted(500 * half), LLAMA_8B.but(weights="fp8"), cached_context=1000, quantization="compressed-tensors")
    assert found.expected_bytes == pytest.approx(found.counted_bytes, rel=5e-3)
    assert found.bytes_ratio < 0.75
    with pytest.raises(InvalidValueError, match="quantization is 'gguf', for which vLLM counts the head alone"):
        own_counters(counted(500 * half), LLAMA_8B, quantization="gguf")


def test_vllm_counts_more_experts_than_tokens_reach():
    """gpt-oss-20b, 4 of 32 experts: 8 tokens choose min(32, 32) = 32 for vLLM, and 32 · (1 − (1 − 4/32)⁸) = 21.0 on average."""
    found = own_counters(counted([1e12, 1e12, 0], batch=8, steps=1), Deployment("gpt-oss-20b"), cached_context=1000)
    [experts] = [row["bytes"] for row in found.table() if "experts" in row["reason"]]
    one = 3 * 2880 * 2880 * 4.25 / 8  # and biases, which are small
    assert experts == pytest.approx(24 * (32 - 32 * (1 - (1 - 4 / 32) ** 8)) * one, rel=0.01)


def test_counters_under_speculation_are_of_all_rows_of_a_verification():
    """A verification of 3 drafts has 4 rows of each sequence: perf.py's FLOP for 128 tokens, each of which attends to 1000 and some."""
    amounts = perf_py(tokens=128, context=0, cached=32 * 1004, square=128 * 1004, logits=128)
    found = own_counters(replace(counted(500 * amounts), drafts=3.0, accepted=2.5), LLAMA_8B, cached_context=1000)
    assert found.flops_ratio == pytest.approx(1, rel=2e-3)


def test_prompts_of_unknown_number_are_said():
    with pytest.raises(InvalidValueError, match="40,960 tokens of prompts, but does not say of how many"):
        own_counters(
            replace(counted(DECODE), counted={"flops": 1e12, "read_bytes": 1e12, "steps": 1.0, "prompt_tokens": 40960.0}), LLAMA_8B
        )


def test_counters_that_are_off_or_absent_are_said():
    off = window_of(PAGES / "vllm_idle.txt", PAGES / "vllm_loaded.txt")
    with pytest.raises(InvalidValueError, match="they are off; start vllm with --enable-mfu-metrics"):
        own_counters(off, LLAMA_8B)
    with pytest.raises(InvalidValueError, match="have no counters of estimated FLOP"):
        own_counters(window_of(ONE, ONE.replace("100", "200")), LLAMA_8B)


# ---------------------------------------------------------------------------------------------------------------------- devices

DCGM = """\
# HELP DCGM_FI_PROF_PIPE_TENSOR_ACTIVE Ratio of cycles the tensor (HMMA) pipe is active (in %).
# TYPE DCGM_FI_PROF_PIPE_TENSOR_ACTIVE gauge
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{gpu="0",UUID="GPU-a",modelName="NVIDIA H100 80GB HBM3",Hostname="n"} 0.11
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{gpu="10",UUID="GPU-b",modelName="NVIDIA H100 80GB HBM3",Hostname="n",GPU_I_PROFILE="2g.20gb",GPU_I_ID="3"} 0.5
DCGM_FI_PROF_DRAM_ACTIVE{gpu="0",UUID="GPU-a",modelName="NVIDIA H100 80GB HBM3",Hostname="n"} 0.72
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",modelName="NVIDIA H100 80GB HBM3",Hostname="n"} 100
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",modelName="NVIDIA H100 80GB HBM3",Hostname="n"} 71000
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-a",modelName="NVIDIA H100 80GB HBM3",Hostname="n"} 1980
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",modelName="NVIDIA H100 80GB HBM3",Hostname="n"} 2147483632
"""


def test_counters_of_devices_are_what_they_are_whatever_the_page_says():
    """Profiling fields are shares of 1 even where HELP says percent; GPU_UTIL is a percentage of time in which anything runs."""
    whole, part = read_device_metrics(DCGM)
    assert (whole.device, whole.tensor_active, whole.dram_active, whole.busy) == ("gpu0", 0.11, 0.72, 1.0)
    assert (whole.memory_used_bytes, whole.clock_hz, whole.power_w) == (71000 * 2**20, 1.98e9, None)  # blank in DCGM is no power
    assert (part.device, part.tensor_active, part.dram_active) == ("gpu10/mig3", 0.5, None)
    [bare] = read_device_metrics("DCGM_FI_DEV_GPU_UTIL 35\n")
    assert (bare.device, bare.name, bare.busy) == ("gpu", None, 0.35)


def test_counters_of_devices_that_cannot_be_are_refused():
    with pytest.raises(InvalidValueError, match="is 72, which is no share"):
        read_device_metrics('DCGM_FI_PROF_DRAM_ACTIVE{gpu="0"} 72\n')
    with pytest.raises(InvalidValueError, match="no counters of dcgm-exporter"):
        read_device_metrics(ONE)
