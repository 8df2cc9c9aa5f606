"""The summary that the clients of vLLM and SGLang print, as logs and issues have it."""

import re
from typing import Any

from roofline.measured.clients import sglang, vllm
from roofline.measured.clients.content import Content
from roofline.measured.measurement import ServingMeasurement

_SUMMARY = re.compile(r"=+ *Serving Benchmark Result *=+(.*?)(?:={20,}|\Z)", re.DOTALL)
_LINE = re.compile(r"^[#\s]*([A-Za-z][^:\n]*?):\s+(\S+)(?: RPS\.?)?\s*$", re.MULTILINE)
_TIME = re.compile(r"(Mean|Median|Std|P[\d.]+) (TTFT|TPOT|ITL|E2EL|E2E Latency) \(ms\)")
_BEFORE = ("Traffic request rate", "Maximum request concurrency")  # which the client prints when it starts
_KEYS = {
    "Backend": "backend",
    "Traffic request rate": "request_rate",
    "Request rate configured (RPS)": "request_rate",
    "Maximum request concurrency": "max_concurrency",
    "Max request concurrency": "max_concurrency",
    "Successful requests": "completed",
    "Failed requests": "failed",
    "Benchmark duration (s)": "duration",
    "Total input tokens": "total_input_tokens",
    "Total generated tokens": "total_output_tokens",
    "Request throughput (req/s)": "request_throughput",
    "Output token throughput (tok/s)": "output_throughput",
    "Concurrency": "concurrency",
    "Peak concurrent requests": "max_concurrent_requests",
    "Accept length": "accept_length",
    "Acceptance length": "spec_decode_acceptance_length",
}


def has_summary(text: str) -> bool:
    """Return whether a text has such a summary."""
    return bool(_SUMMARY.search(text))


def read_summaries(text: str, name: str) -> list[ServingMeasurement]:
    """Return what the summaries in a text say, a measurement for each."""
    found, begin = [], 0
    for number, block in enumerate(_SUMMARY.finditer(text), 1):
        before = {label: value for label, value in _LINE.findall(text[begin : block.start()]) if label in _BEFORE}
        told = _told({**before, **dict(_LINE.findall(block[1]))})
        read = sglang.read_serving if "backend" in told else vllm.read_serve
        found.append(read(Content(told, f"{name}, summary {number}")))
        begin = block.end()
    return found


def _told(lines: dict[str, str]) -> dict[str, Any]:
    """Return the lines of a summary under the keys that result files have; "not set" and the like are no values."""
    told: dict[str, Any] = {}
    for label, value in lines.items():
        if time := _TIME.fullmatch(label):
            told[f"{time[1]}_{time[2].replace(' ', '_')}_ms".lower()] = value
        elif key := _KEYS.get(label):
            told[key] = value
    return told
