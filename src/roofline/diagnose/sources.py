"""What is diagnosed: the kind of a file by its content, and what reads it."""

import os
import re
from collections.abc import Sequence
from typing import Any, Literal

from roofline.errors import InvalidValueError, quoted
from roofline.measured import Comparison, EngineLog, EnginePage, EngineWindow, ServingMeasurement, StepComparison
from roofline.measured.step_columns import is_table
from roofline.monitor import DeviceSample, Recording
from roofline.names import local_path
from roofline.profile import KernelReport, Profile, Trace, TraceBesideEstimate
from roofline.requests import RequestTimes
from roofline.serving import Simulation
from roofline.validation import read_text

Kind = Literal["benchmark", "steps", "engine", "trace", "profile", "recording", "devices", "report", "log"]
_TABLES = (".csv", ".tsv")
_HEAD = 1 << 16  # bytes that tell a file's kind
_CLASSES: tuple[tuple[Any, Kind], ...] = (
    ((ServingMeasurement, RequestTimes, Simulation, Comparison), "benchmark"),
    (EngineWindow, "engine"),
    (StepComparison, "steps"),
    ((Trace, TraceBesideEstimate), "trace"),
    (Profile, "profile"),
    (Recording, "recording"),
    (KernelReport, "report"),
    (EngineLog, "log"),
)
_ENGINES = re.compile(r"^(?:(?:ray_)?vllm[:_]|sglang[:_]|trtllm_|tgi_|llamacpp:)\w+(?:\{.*\})? [-+\d.NI]", re.MULTILINE)
_DCGM = re.compile(r"^DCGM_FI_\w+(?:\{.*\})? [-+\d.NI]", re.MULTILINE)
_EXPOSED = re.compile(r"^# (?:HELP|TYPE) \w", re.MULTILINE)
_FIELDS = re.compile(r"^DCGM_FI_\w+, *(?:gauge|counter|label),", re.MULTILINE)
_PROFILED = re.compile(r'^ *"ID","|"Kernel Name"|^"?Time \(%\)|TotalDurationNs|"?Kernel_Name"?,|==PROF==', re.MULTILINE)
_COUNTERS = re.compile(r'"schema": ?"roofline monitor|utilization\.gpu|gfx_activity')
_TRACE = re.compile(r'"traceEvents"|"deviceProperties"|"ph": ?"[XMi]"')
_LOG = re.compile(r"LLM engine \(v|vLLM API server version|kv_cache_utils\.py|gpu_worker\.py|ServerArgs\(|\[TensorRT-LLM\]|\[TRT-LLM")
_SUMMARY = "Serving Benchmark Result"


def kind_of(source: Any, *, columns_told: bool = False) -> Kind:
    """Return what something is: by its class, or the content of a file; a file of columns that the caller tells the meaning of is a table."""
    known = next((kind for classes, kind in _CLASSES if isinstance(source, classes)), None)
    if known is not None:
        return known
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return "engine"
    if isinstance(source, Sequence) and not isinstance(source, str) and source:
        if all(isinstance(one, DeviceSample) for one in source):
            return "devices"
        if all(isinstance(one, (EnginePage, str, os.PathLike)) for one in source):
            return "engine"
    if is_table(source):
        return "steps"
    if isinstance(source, (str, os.PathLike)):
        kind = _of_text(read_text(source, errors="replace", at_most=_HEAD).lstrip(), source)
        return "steps" if columns_told and kind == "benchmark" and local_path(source).suffix.lower() in _TABLES else kind
    raise InvalidValueError(
        f"{quoted(source)} cannot be diagnosed: give a file, the URL of an engine, two pages of its metrics, or what roofline.measured, "
        "roofline.profile or roofline.monitor read."
    )


def _of_text(head: str, source: Any) -> Kind:
    """Return the kind of a file by its beginning; whatever is none of the others is left to the readers of benchmarks."""
    if _COUNTERS.search(head[:4096]) and not head.startswith("["):
        return "recording"
    if head.startswith(("{", "[")) and _TRACE.search(head):
        return "trace"
    if head.startswith("{"):
        return "benchmark"
    if _FIELDS.search(head):
        raise InvalidValueError(
            f"{local_path(source).name} is the list of counters that dcgm-exporter reads, and has none of their values: give a page of it."
        )
    if _PROFILED.search(head):
        return "report"
    if _ENGINES.search(head) or head.startswith('"# HELP llamacpp'):
        return "engine"
    if _DCGM.search(head):
        return "devices"
    if _LOG.search(head) and _SUMMARY not in head:
        return "log"
    if _EXPOSED.search(head):  # of whom, its reader says
        return "engine"
    return "benchmark"
