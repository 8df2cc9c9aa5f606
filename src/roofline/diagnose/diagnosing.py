"""`diagnose`: one report from a benchmark, a running engine, a trace, counters of devices, a log, or a table of steps."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from roofline.deployment import Deployment
from roofline.deployment.machine import Machine
from roofline.deployment.options import ALL, DeploymentOptions, asks
from roofline.diagnose.counters import diagnose_counters, diagnose_recording, diagnose_report
from roofline.diagnose.of_steps import diagnose_table
from roofline.diagnose.result import Diagnosis
from roofline.diagnose.service import diagnose_service, find_counters, find_window
from roofline.diagnose.sources import Kind, kind_of
from roofline.diagnose.start import diagnose_log
from roofline.diagnose.traces import OF_TRACES, diagnose_trace, machine_of
from roofline.errors import InvalidValueError, quoted
from roofline.hardware.recognition import recognize
from roofline.measured import read_device_metrics
from roofline.monitor import Recording, read_recording
from roofline.names import local_path
from roofline.profile import KernelReport, read_report
from roofline.records import CalibrationRecord
from roofline.units import whole_number

_OF_SERVICES = ("prompt", "output", "accepted", "drafts", "replicas", "sequences", "step_tokens", "kv_blocks", "batch", "run")
_OF_STEPS = ("unit", "columns", "engine", "calibration", "cuda_graph")
_UNSET: Mapping[str, Any] = {"cuda_graph": True, "interval": 0.8}


@asks(ALL)
def diagnose(
    source: Any,
    model: Any = None,
    hardware: Machine = None,
    *,
    monitor: Any = None,
    busy: float | None = None,
    serving_batch: int | None = None,
    seconds: float | None = None,
    capture: str | Path | None = None,
    run: int | None = None,
    batch: float | None = None,
    context: float | None = None,
    prompt: float | None = None,
    output: float | None = None,
    cached: float | None = None,
    accepted: float | None = None,
    drafts: int | None = None,
    replicas: int | None = None,
    sequences: int | None = None,
    step_tokens: int | None = None,
    kv_blocks: int | None = None,
    unit: str | None = None,
    columns: Mapping[str, str] | None = None,
    engine: str | None = None,
    calibration: CalibrationRecord | str | Path | None = None,
    cuda_graph: bool = True,
    interval: float = 0.8,
    **options: Unpack[DeploymentOptions],
) -> Diagnosis:
    """Say what a run was bound by, phase by phase, what it lost, what would help, and which conclusions would be wrong.

    Parameters
    ----------
    source : path, str, ServingMeasurement, EngineWindow, Trace, Profile, Recording, EngineLog, or table
        What happened: a file, whose kind its content tells (a benchmark client's result, a trace of torch.profiler, a recording of a monitor, the log of an
        engine's start, a table of steps, a page of dcgm-exporter, a report of Nsight or rocprof); the URL of a running engine; two pages of an engine's
        metrics, read or as files, in a list; or what roofline.measured, roofline.profile and roofline.monitor read of any of these [-].
    model : str, Path, mapping, object, int, float, Model or Deployment, optional
        What :meth:`Model.load` takes, or a deployment; what the source names if not given [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; what the source names if not given [-].
    monitor : path, URL or Recording, optional
        Counters of the devices while it ran, beside a benchmark or an engine: a recording of a monitor, or a page of dcgm-exporter [-].
    busy : float, optional
        Share of the time in which a kernel ran, such as the GPU utilization of nvidia-smi divided by 100 [-].
    serving_batch : int, optional
        Sequences of a decode step in the service that the benchmark stands for [-].
    seconds : float, optional
        How long to watch a running engine, 10 if not given; between two pages that are files [s].
    capture : str or Path, optional
        The trace of the capture of the CUDA graph that a trace's steps replay [-].
    run : int, optional
        Which run of a file that holds several, the first is 0 [-].
    batch : float, optional
        Sequences of a decode step of one replica, if it is not to be derived [-].
    context, prompt, output : float, optional
        Tokens in the cache of a sequence that decodes, of a prompt and of an answer, if they are not those of the source [token].
    cached : float, optional
        Tokens of each prompt that a prefix cache had [token].
    accepted : float, optional
        Tokens that a step yields for a sequence under speculation [token].
    drafts : int, optional
        Drafted tokens that a step verifies for a sequence [token].
    replicas : int, optional
        Replicas of the deployment, which share the requests evenly [-].
    sequences : int, optional
        Most sequences that run at a time [-].
    step_tokens : int, optional
        Most tokens of a step [token].
    kv_blocks : int, optional
        Blocks of the cache [-].
    unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times of a table of steps, if not the one in the column's name [-].
    columns : mapping of str to str, optional
        Column of a table of steps → what it is, where its name does not tell [-].
    engine : str, optional
        Whose rules and kernels; what the source says, else vLLM's, if not given [-].
    calibration : CalibrationRecord, str or Path, optional
        What estimates rest on, as in :func:`roofline.measured.compare` [-].
    cuda_graph : bool, optional
        Whether an estimate's decode steps are launched as one graph [-].
    interval : float, optional
        Probability of the interval of an estimate [-].
    {options}

    Returns
    -------
    Diagnosis
        Phases with what binds each, losses, remedies, misdiagnoses, and what cannot be told [-].

    Raises
    ------
    RooflineError
        If the source cannot be read, it is not known what ran, or an option does not go with this kind of source.

    Notes
    -----
    Above 1.5 times the estimate, or 3 times the floor where there is none, a cause is looked for in this order: requests that wait, prompts of others
    between the tokens, the host, labels that are other than said. The phases of a run are never averaged.

    Examples
    --------
    >>> from roofline.measured import Latency, ServingMeasurement
    >>> run = ServingMeasurement("my client", batch=1, cached_context=338, tpot=Latency("per token after the first", "request", mean_s=18e-3))
    >>> found = diagnose(run, "gpt-oss-20b", "a100-sxm", busy=0.35)
    >>> found["decode"].binds, found["decode"].roof
    ('host', 'memory')
    """
    kind = kind_of(source, columns_told=unit is not None or columns is not None)
    own = {
        "run": run, "batch": batch, "context": context, "prompt": prompt, "output": output, "cached": cached, "accepted": accepted, "drafts": drafts,
        "replicas": replicas, "sequences": sequences, "step_tokens": step_tokens, "kv_blocks": kv_blocks, "unit": unit, "columns": columns, "engine": engine,
        "calibration": calibration, "cuda_graph": cuda_graph, "interval": interval,
    }  # fmt: skip
    given = {name: value for name, value in own.items() if value is not None and value != _UNSET.get(name)}
    beside = {"monitor": monitor, "busy": busy, "serving_batch": serving_batch, "seconds": seconds, "capture": capture}
    _refuse_strays(kind, {**given, **{name: value for name, value in beside.items() if value is not None}}, source)
    if serving_batch is not None:
        whole_number("serving_batch", serving_batch, minimum=1)
    if kind in ("benchmark", "engine"):
        counters = find_counters(monitor, busy)
        window = find_window(source, seconds) if kind == "engine" else None
        return diagnose_service(kind, window or source, (model, hardware), {**given, **options}, window, counters, serving_batch)
    if kind == "steps":
        return diagnose_table(source, (model, hardware), {**given, **options})
    if kind in ("trace", "profile"):
        return diagnose_trace(source, model, hardware, capture, {**given, **options})
    if kind == "recording":
        recording = source if isinstance(source, Recording) else read_recording(source, hardware=machine_of(model, hardware))
        return diagnose_recording(recording, _deployment(recording, model, hardware, options), given)
    if kind == "report":
        return diagnose_report(source if isinstance(source, KernelReport) else read_report(source))
    if kind == "devices":
        return diagnose_counters(read_device_metrics(source) if isinstance(source, (str, os.PathLike)) else source)
    return diagnose_log(source, model, hardware, options)


_TAKES: Mapping[Kind, tuple[str, ...]] = {
    "benchmark": (
        *_OF_SERVICES,
        "context",
        "cached",
        "engine",
        "calibration",
        "cuda_graph",
        "interval",
        "monitor",
        "busy",
        "serving_batch",
    ),
    "engine": (
        *(name for name in _OF_SERVICES if name != "run"),
        *("context", "cached", "engine", "calibration", "cuda_graph", "interval", "monitor", "busy", "serving_batch", "seconds"),
    ),
    "steps": _OF_STEPS,
    "trace": (*OF_TRACES, "capture"),
    "profile": (),
    "recording": ("batch", "context", "prompt"),
    "devices": (),
    "report": (),
    "log": (),
}
_NAMES: Mapping[Kind, str] = {
    "benchmark": "the result of a benchmark",
    "engine": "a running engine",
    "steps": "a table of steps",
    "trace": "a trace",
    "profile": "a profile",
    "recording": "a recording",
    "report": "the report of a profiler",
    "devices": "a page of dcgm-exporter",
    "log": "the log of an engine's start",
}


def _refuse_strays(kind: Kind, given: Mapping[str, Any], source: Any) -> None:
    stray = next((name for name in given if name not in _TAKES[kind]), None)
    if stray is not None:
        file = isinstance(source, (str, os.PathLike)) and kind != "engine"
        which = f", which {local_path(source).name} is" if file else ""
        raise InvalidValueError(f"{stray}= does not go with {_NAMES[kind]}{which}: leave it out.")


def _deployment(recording: Recording, model: Any, hardware: Any, options: Mapping[str, Any]) -> Deployment | None:
    """Return what ran on the devices of a recording, which it does not name; None where nobody says it."""
    if model is None:
        if options:
            raise InvalidValueError(f"{quoted(next(iter(options)))} is of a deployment, which needs model= and hardware=.")
        return None
    if isinstance(model, Deployment):
        return model
    if hardware is None and options.get("memory_bandwidth") is None:
        hardware = next((found for device in recording.devices if device.name and (found := recognize(device.name))), None)
    return Deployment(model, hardware, **options)
