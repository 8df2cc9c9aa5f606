"""A run as a timeline in the format of Chrome's tracing page, which Perfetto reads too."""

import gzip
import json
from heapq import heappop, heappush
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError
from roofline.names import local_path
from roofline.serving.simulation.fleet import Run
from roofline.serving.simulation.members import Log
from roofline.serving.steps.load import Load
from roofline.units import whole_number

Event = dict[str, Any]


def write_timeline(run: Run, path: "str | PathLike[str]", *, most_events: int) -> int:
    """Write a run's timeline, and return how many events were left out.

    References
    ----------
    "Trace Event Format" of the Chromium project: complete events (X), counters (C), metadata (M); times in microseconds.
    """
    most = whole_number("most_events", most_events, minimum=1)
    events = sorted(_events(run), key=lambda event: event["ts"])
    left_out = max(0, len(events) - most)
    data = {
        "displayTimeUnit": "ms",
        "otherData": {"requests": len(run.times), "events_left_out": left_out},
        "traceEvents": _names(run) + events[:most],
    }
    file = local_path(path)
    text = json.dumps(data, allow_nan=False).encode()
    try:
        Path(file).write_bytes(gzip.compress(text, mtime=0) if file.suffix == ".gz" else text)
    except OSError as error:
        raise InvalidValueError(f"{file} cannot be written: {error.strerror or error}.") from None
    return left_out


def _names(run: Run) -> list[Event]:
    """Return what processes are called, and the lanes of steps, of which a pipeline has several."""
    names = [{"name": "process_name", "ph": "M", "pid": one.number, "args": {"name": _name(one.number, one.pool)}} for one in run.replicas]
    lanes = {number: max(_step_lanes(log), default=0) for number, log in enumerate(run.steps or ())}
    return names + [
        {"name": "thread_name", "ph": "M", "pid": one.number, "tid": -lane, "args": {"name": "steps"}}
        for one in run.replicas
        for lane in range(lanes.get(one.number, 0) + 1)
    ]


def _step_lanes(log: Log) -> list[int]:
    """Return the lane of each step: the first in which the one before has ended."""
    lanes, ends = [], [0.0]
    for begin_s, end_s, _ in log:
        lane = next((lane for lane, before_s in enumerate(ends) if before_s <= begin_s), len(ends))
        ends[lane : lane + 1] = [end_s]
        lanes.append(lane)
    return lanes


def _name(number: int, pool: str) -> str:
    return f"replica {number}" if pool == "all" else f"replica {number}, {pool}"


def _events(run: Run) -> list[Event]:
    """Return slices of requests and steps, and counters."""
    times = run.times
    events: list[Event] = []
    for one in run.replicas:
        at_prompt = times.replica if run.prefilled_by is None else run.prefilled_by
        spans = []
        if one.pool != "decode":
            mine = np.flatnonzero(at_prompt == one.number)
            spans += _spans("prompt", mine, times.start_s, times.first_token_s)
            events += _counter("waiting", one.number, times.sent_s[mine], times.start_s[mine])
        if one.pool != "prefill":
            mine = np.flatnonzero((times.replica == one.number) & (times.workload.output > 1))
            spans += _spans("answer", mine, times.first_token_s if run.cache_s is None else run.cache_s, times.finish_s)
        events += _in_lanes(run, one.number, spans)
        events += _counter("running", one.number, np.array([s[0] for s in spans]), np.array([s[1] for s in spans]))
    for number, log in enumerate(run.steps or ()):
        events += [
            {
                "name": "step",
                "ph": "X",
                "pid": number,
                "tid": -lane,
                "ts": begin_s * 1e6,
                "dur": (end_s - begin_s) * 1e6,
                "args": _together(load),
            }
            for (begin_s, end_s, load), lane in zip(log, _step_lanes(log), strict=True)
        ]
    return events


def _together(load: Load | tuple[Load, ...]) -> dict[str, int]:
    """Return what a step holds, of all ranks."""
    whole = load if isinstance(load, Load) else Load(*map(sum, zip(*load, strict=True)))
    return whole._asdict()


def _spans(name: str, requests: np.ndarray, begin_s: np.ndarray, end_s: np.ndarray) -> list[tuple[float, float, int, str]]:
    return list(zip(begin_s[requests].tolist(), end_s[requests].tolist(), requests.tolist(), [name] * len(requests), strict=True))


def _in_lanes(run: Run, number: int, spans: list[tuple[float, float, int, str]]) -> list[Event]:
    """Return slices, each in the first lane that is free; a request's answer stays in the lane of its prompt if both are here."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    lanes, lane_of = 0, {}
    last: dict[int, float] = {}
    for _, end_s, request, _ in spans:
        last[request] = max(end_s, last.get(request, end_s))
    events = []
    for begin_s, end_s, request, name in sorted(spans):
        while busy and busy[0][0] <= begin_s:
            heappush(free, heappop(busy)[1])
        if request not in lane_of:
            if not free:
                lanes += 1
                heappush(free, lanes)
            lane_of[request] = heappop(free)
            heappush(busy, (last[request], lane_of[request]))
        workload, times = run.times.workload, run.times
        told = {
            "request": request,
            "prompt": int(workload.prompt[request]),
            "output": int(workload.output[request]),
            "cached": int(times.cached[request]),
            "preemptions": int(times.preemptions[request]),
        }
        place = {"pid": number, "tid": lane_of[request], "ts": begin_s * 1e6, "dur": (end_s - begin_s) * 1e6}
        events.append({"name": name, "ph": "X", **place, "args": told})
    return events


def _counter(name: str, number: int, begin_s: np.ndarray, end_s: np.ndarray) -> list[Event]:
    """Return how many spans there are at a time, whenever that changes."""
    moments = np.concatenate([begin_s, end_s])
    changes = np.concatenate([np.ones(len(begin_s), int), -np.ones(len(end_s), int)])
    at, where = np.unique(moments, return_inverse=True)
    counts = np.cumsum(np.bincount(where, weights=changes, minlength=len(at))).astype(int)
    return [
        {"name": name, "ph": "C", "pid": number, "ts": moment * 1e6, "args": {name: count}}
        for moment, count in zip(at.tolist(), counts.tolist(), strict=True)
    ]
