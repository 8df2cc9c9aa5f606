"""Diagnoses of a service that was measured: by a benchmark client, or by its engine."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from roofline.diagnose.misdiagnoses import of_service
from roofline.diagnose.of_comparison import phases_of
from roofline.diagnose.result import Diagnosis
from roofline.diagnose.seen import Seen, of_counters, of_recording
from roofline.diagnose.sources import Kind, kind_of
from roofline.errors import InvalidValueError, RooflineError, quoted
from roofline.measured import (
    Comparison,
    EnginePage,
    EngineWindow,
    compare,
    engine_window,
    own_counters,
    read_device_metrics,
    read_metrics,
    watch_engine,
)
from roofline.measured.subject import other_machine
from roofline.monitor import Recording, read_recording
from roofline.names import local_path

_GIVEN = "as given"


def find_counters(monitor: Any, busy: float | None) -> Seen:
    """Return what counters say beside the source."""
    seen = Seen()
    if monitor is not None:
        seen = _read_counters(monitor)
    if busy is None:
        return seen
    if isinstance(busy, bool) or not isinstance(busy, (int, float)) or not 0 <= busy <= 1:
        raise InvalidValueError(f"busy is {quoted(busy)}; it must be a share from 0 to 1, such as GPU-Util divided by 100.")
    return replace(seen, busy=float(busy), source=_GIVEN)


def _read_counters(monitor: Any) -> Seen:
    """Return what a recording says, or a page of dcgm-exporter."""
    url = isinstance(monitor, str) and monitor.startswith(("http://", "https://"))
    kind = "devices" if url else kind_of(monitor)
    if kind == "recording":
        return of_recording(monitor if isinstance(monitor, Recording) else read_recording(monitor))
    if kind == "devices":
        return of_counters(read_device_metrics(monitor) if isinstance(monitor, (str, os.PathLike)) else monitor)
    raise InvalidValueError(
        f"monitor is {quoted(monitor)}; it must be a recording of a monitor, nvidia-smi or amd-smi, or a page of dcgm-exporter."
    )


def find_window(source: Any, seconds: float | None) -> EngineWindow:
    """Return what an engine did, from its URL or two pages."""
    if isinstance(source, EngineWindow):
        return source
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return watch_engine(source, 10.0 if seconds is None else seconds)
    if isinstance(source, Sequence) and not isinstance(source, str):
        return engine_window(*(one if isinstance(one, EnginePage) else read_metrics(one) for one in source), seconds=seconds)
    raise InvalidValueError(
        f"{local_path(source).name} is one page of metrics, whose counters run since the engine started: a diagnosis needs two, with the seconds between "
        "them (seconds=), or the URL of the engine."
    )


def diagnose_service(
    kind: Kind,
    source: Any,
    named: tuple[Any, Any],
    asked: Mapping[str, Any],
    window: EngineWindow | None,
    seen: Seen,
    serving_batch: int | None,
) -> Diagnosis:
    """Diagnose a service that was measured from outside or by its engine."""
    if isinstance(source, Comparison):
        if asked or named != (None, None):
            raise InvalidValueError("a comparison already says what ran: leave out model, hardware and options.")
        comparison = source
    else:
        extra = {} if seen.busy is None else {"busy": seen.busy}
        found = compare(source, *named, **{**asked, **extra})
        assert isinstance(found, Comparison)  # a table has a kind of its own
        comparison = found
    measured = comparison.measurement
    if seen.busy is None and measured.busy is not None:
        seen = replace(seen, busy=measured.busy, source=measured.source)
    if seen.busy is None and window is not None and window.busy is not None:
        seen = replace(seen, busy=min(window.busy, 1.0), source=f"steps of {window.engine}")
    if window is not None:
        seen = replace(seen, waiting=window.waiting)
    phases = phases_of(comparison, seen, window)
    return Diagnosis(
        kind,
        comparison.summary()[0],
        phases,
        of_service(comparison, phases, seen, serving_batch),
        tuple(_findings(comparison, window, seen)),
        tuple(_untold(comparison, seen)),
        comparison,
        comparison.subject.assumed,
        (*comparison.notes, *(note for name in seen.names for note in other_machine(seen.source, name, comparison.deployment))),
    )


def _findings(comparison: Comparison, window: EngineWindow | None, seen: Seen) -> list[str]:
    said = []
    if window is not None and window.kv_use is not None:
        said.append(f"{window.kv_use:.0%} of the KV cache are in use")
    if window is not None and window.waiting:
        said.append(f"{window.waiting:.1f} requests wait on average")
    if window is not None and window.prefix_hits:
        said.append(f"{window.prefix_hits:.0%} of the prompts' tokens were in the prefix cache")
    if window is not None and window.counted.get("flops"):
        with suppress(RooflineError):  # where the window does not say batch or context
            own = own_counters(window, comparison.deployment)
            amounts = f"{own.flops_ratio:.2f} × the FLOP and {own.bytes_ratio:.2f} × the bytes that these steps need"
            said.append(f"{window.engine}'s own counters have {amounts}")
    shares = {"a kernel ran": seen.busy, "tensor cores were active": seen.tensor_active, "the memory was in use": seen.dram_active}
    known = [f"{what} in {share:.0%}" for what, share in shares.items() if share is not None]
    return [*said, *([f"counters of {seen.source}: {', '.join(known)} of the time"] if known and seen.source != _GIVEN else [])]


def _untold(comparison: Comparison, seen: Seen) -> list[str]:
    """Return what a measurement of a service cannot say."""
    found, names = [], {time.name for time in comparison.times}
    if not names & {"ttft", "prefill"}:
        found.append("how long prompts take: there is no time to the first token, or no length of prompts")
    if not names & {"tpot", "itl", "step"}:
        found.append("how long tokens take: there is no time per token, or it is not known what a step held")
    if seen.busy is None:
        found.append("whether devices wait for the host: there are no counters (busy=, monitor=)")
    if comparison.record is None:
        found.append("what is to be expected beyond the floor: the model has no estimates")
    return found
