"""Timing calls: repeated until the median has settled."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from roofline.calibration.devices import Device, load_torch
from roofline.records import Flag

SHARED = Flag(code="processor shared")
"""Flag of times during which other processes used the processor [-]."""

UNSETTLED = Flag(code="did not settle")
"""Flag of times whose median has a large standard error [-]."""

_SETTLED = 0.02  # relative standard error of the median below which a time has settled
_LEAST_RUNS, _ENOUGH_RUNS, _MOST_RUNS = 3, 5, 200
_BLOCK_S = 5e-3
_SHORT_BLOCK_S = 1e-3
_WAITED = 0.02  # share of a block that threads may have waited for a processor
_GRAPH_S = 2e-3
_GRAPH_NODES = 4000
_WARM_UP = 4
_MEDIAN = 1.2533  # standard error of a median over that of a mean, of normal deviates
_TENTHS = 2.5631  # standard deviations between the 10 % and 90 % quantiles of normal deviates

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Times:
    """Times of one kernel."""

    samples: tuple[float, ...]  # time of one call, as the mean of each block of calls [s]
    last: int  # index of the last call
    result: Any  # result of the last call
    flags: tuple[Flag, ...] = ()  # what is doubtful


def quantile(samples: Sequence[float], level: float) -> float:
    """Return a quantile, interpolated between samples [s].

    Examples
    --------
    >>> quantile([3.0, 1.0, 2.0], 0.5), quantile([0.0, 1.0], 0.25)
    (2.0, 0.25)
    """
    ordered = sorted(samples)
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def median_error(samples: Sequence[float]) -> float:
    r"""Return the relative standard error of the median: :math:`1.25\,\sigma / (\sqrt{n}\, t_{50})`, :math:`\sigma = (t_{90} - t_{10})/2.56`.

    Examples
    --------
    >>> median_error([1.0, 1.0, 1.0])
    0.0
    """
    if len(samples) < 2:
        return math.inf
    sigma = (quantile(samples, 0.9) - quantile(samples, 0.1)) / _TENTHS
    return _MEDIAN * sigma / math.sqrt(len(samples)) / max(quantile(samples, 0.5), 1e-12)


def _enough(samples: Sequence[float], runs: int, spent_s: float, budget_s: float) -> bool:
    """Return whether to stop after this many runs, of which `samples` were undisturbed."""
    if runs < _LEAST_RUNS:
        return False
    if len(samples) < _ENOUGH_RUNS:  # long kernels have few runs, and may take twice the budget to get undisturbed ones
        return spent_s >= 2 * budget_s
    settled = spent_s >= budget_s / 4 and median_error(samples) < _SETTLED / 2
    return settled or spent_s >= budget_s or len(samples) >= _MOST_RUNS


def waited_s(tasks: Path = Path("/proc/self/task")) -> float:
    """Return the time that all threads of this process have waited for a processor used by other processes [s].

    On a busy machine a kernel of several threads regularly takes the scheduler's time slice: the scatter of its times does not
    show that they are wrong, but this does.

    Examples
    --------
    >>> waited_s(Path("/nowhere"))
    0.0
    """
    total = 0
    for file in tasks.glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # the thread may have ended
            total += int(file.read_text().split()[1])
    return total * 1e-9


def check_settled(samples: Sequence[float]) -> tuple[Flag, ...]:
    """Flag samples whose median has not settled."""
    return () if median_error(samples) <= _SETTLED else (UNSETTLED,)


def host_times(calls: Sequence[Call], device: Device, *, budget_s: float, poison: Callable[[Any], None]) -> Times:
    """Return times by the host's clock, of blocks of about 5 ms or more that end with a synchronization.

    Blocks in which threads waited for a processor are dropped if there are enough others; if not, the result is flagged.
    """
    result = None
    first = time.perf_counter()
    for call in calls:  # warm-up: every call once, if time allows, so that code is loaded and threads are started
        result = call()
        if time.perf_counter() - first > budget_s / 4:
            break
    device.synchronize()
    start = time.perf_counter()
    calls[0]()
    device.synchronize()
    once = max(time.perf_counter() - start, 1e-7)
    poison(result)
    repeats = max(1, math.ceil(_BLOCK_S / once))
    samples: list[float] = []
    clean: list[float] = []
    at, began = 0, time.perf_counter()
    while not _enough(clean, len(samples), time.perf_counter() - began, budget_s):
        turn = [calls[(at + i) % len(calls)] for i in range(min(repeats, len(calls)))]
        whole, rest = divmod(repeats, len(turn))
        waited = waited_s()
        start_ns = time.perf_counter_ns()
        for _ in range(whole):
            for call in turn:
                result = call()
        for call in turn[:rest]:
            result = call()
        device.synchronize()
        elapsed = (time.perf_counter_ns() - start_ns) * 1e-9
        waited = waited_s() - waited
        at = (at + repeats) % len(calls)
        if elapsed < _BLOCK_S / 2 and not samples:  # the first call was slow to start, so the block is too short
            repeats = math.ceil(repeats * _BLOCK_S / max(elapsed, 1e-7))
            continue
        samples.append(elapsed / repeats)
        if waited <= _WAITED * elapsed:
            clean.append(elapsed / repeats)
        elif not clean and elapsed > 2 * _SHORT_BLOCK_S:  # shorter blocks are more likely to be undisturbed
            repeats = max(1, repeats // 2)
    last = (at - 1) % len(calls)
    if len(clean) < _LEAST_RUNS:
        return Times(tuple(samples), last, result, (SHARED, *check_settled(samples)))
    return Times(tuple(clean), last, result, check_settled(clean))


def device_times(calls: Sequence[Call], device: Device, *, budget_s: float, poison: Callable[[Any], None]) -> Times:
    """Return times by CUDA events, of CUDA graphs of at least 2 ms that hold every call in turn.

    Each graph is launched while the one before it runs, so that the time between their ends excludes the launch. The calls of a kernel that
    cannot be captured are launched one by one, and the result is flagged.
    """
    torch = load_torch()
    stream = torch.cuda.Stream(device.index)
    stream.wait_stream(torch.cuda.current_stream(device.index))
    with torch.cuda.stream(stream):  # warm-up on the capture stream: libraries must be initialized before capture
        for i in range(_WARM_UP):
            calls[i % len(calls)]()
        run, rounds, captured = _long_graph(torch, calls, stream)
        flags = () if captured else (Flag(code="not in a graph"),)
        poison(run())
        final = run()
        ends = [_mark(torch, stream)]
        samples: list[float] = []
        began = time.perf_counter()
        while not _enough(samples, len(samples), time.perf_counter() - began, budget_s):
            # the next graph is queued while one runs, which hides the tens of microseconds that its launch takes
            final = run()
            ends.append(_mark(torch, stream))
            ends[-2].synchronize()
            samples += [_between(*pair) / (rounds * len(calls)) for pair in pairwise(ends[-3:-1])]
        stream.synchronize()
        samples.append(_between(*ends[-2:]) / (rounds * len(calls)))
    return Times(tuple(samples), len(calls) - 1, final, flags + check_settled(samples))


def _mark(torch: Any, stream: Any) -> Any:
    """Record an event after all work launched so far."""
    event = torch.cuda.Event(enable_timing=True)
    event.record(stream)
    return event


def _between(start: Any, end: Any) -> float:
    """Return the time between two completed events [s]."""
    return float(start.elapsed_time(end)) * 1e-3


def _long_graph(torch: Any, calls: Sequence[Call], stream: Any) -> tuple[Call, int, bool]:
    """Return what runs rounds of all calls for 2 ms or more, the number of rounds, and whether it is a CUDA graph."""
    most = max(1, _GRAPH_NODES // len(calls))
    rounds = 1
    while True:
        run, captured = _graph(torch, calls, rounds, stream)
        run()
        start = _mark(torch, stream)
        run()
        end = _mark(torch, stream)
        stream.synchronize()
        lasted = _between(start, end)
        if lasted >= _GRAPH_S or rounds >= most:
            return run, rounds, captured
        # a short graph also waits for the host, so its time suggests too few rounds
        rounds = min(most, max(2 * rounds, math.ceil(1.25 * rounds * _GRAPH_S / max(lasted, 1e-7))))


def _graph(torch: Any, calls: Sequence[Call], rounds: int, stream: Any) -> tuple[Call, bool]:
    """Return what runs rounds of all calls, and whether it is a CUDA graph: a loop if they cannot be captured."""

    def loop() -> Any:
        out = None
        for _ in range(rounds):
            for call in calls:
                out = call()
        return out

    graph = torch.cuda.CUDAGraph()
    try:  # "thread_local": calls of other threads, such as telemetry, must not end the capture
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            result = loop()
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError:
        return loop, False

    def replay() -> Any:
        graph.replay()
        return result

    return replay, True
