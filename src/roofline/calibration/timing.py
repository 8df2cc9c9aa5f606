"""How long calls take: repeated until the median has settled, as median with quantiles."""

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
_WAITED = 0.02  # threads may have waited for so much of a block that counts
_GRAPH_S = 2e-3
_GRAPH_NODES = 4000
_WARM_UP = 4
_MEDIAN = 1.2533  # standard error of a median over that of a mean, of normal deviates
_TENTHS = 2.5631  # standard deviations between the 10 % and 90 % quantiles of normal deviates

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Times:
    """Times of one kernel.

    Parameters
    ----------
    samples : tuple of float
        Time of one call, averaged over each block of calls [s].
    last : int
        Which call ran last [-].
    result : Any
        What that call returned [-].
    flags : tuple of Flag, optional
        What is doubtful [-].
    """

    samples: tuple[float, ...]
    last: int
    result: Any
    flags: tuple[Flag, ...] = ()


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
    """Return whether to stop after so many runs, of which `samples` were undisturbed."""
    if runs < _LEAST_RUNS:
        return False
    if len(samples) < _ENOUGH_RUNS:  # long kernels, of which there are few runs, and disturbed ones may take twice as long
        return spent_s >= 2 * budget_s
    settled = spent_s >= budget_s / 4 and median_error(samples) < _SETTLED / 2
    return settled or spent_s >= budget_s or len(samples) >= _MOST_RUNS


def waited_s(tasks: Path = Path("/proc/self/task")) -> float:
    """Return how long the threads of this process have waited for a processor that others were using, all together [s].

    On a busy machine a kernel of several threads takes as long as the scheduler's time slice, very regularly: its scatter does not
    show that the time is wrong, but this does.

    Examples
    --------
    >>> waited_s(Path("/nowhere"))
    0.0
    """
    total = 0
    for file in tasks.glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # a thread may have ended meanwhile
            total += int(file.read_text().split()[1])
    return total * 1e-9


def check_settled(samples: Sequence[float]) -> tuple[Flag, ...]:
    """Flag samples whose median has not settled."""
    return () if median_error(samples) <= _SETTLED else (UNSETTLED,)


def host_times(calls: Sequence[Call], device: Device, *, budget_s: float, poison: Callable[[Any], None]) -> Times:
    """Return times by the host's clock, of blocks of about 5 ms or more, the device being waited for at the end of each.

    Blocks in which threads waited for a processor do not count, if there are enough others; if not, the result says so.
    """
    result = None
    first = time.perf_counter()
    for call in calls:  # every call once, if there is time for it: code and threads are there when the clock runs
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
        if elapsed < _BLOCK_S / 2 and not samples:  # the first call was slow to start: its time misled
            repeats = math.ceil(repeats * _BLOCK_S / max(elapsed, 1e-7))
            continue
        samples.append(elapsed / repeats)
        if waited <= _WAITED * elapsed:
            clean.append(elapsed / repeats)
        elif not clean and elapsed > 2 * _SHORT_BLOCK_S:  # shorter blocks are likelier to pass between two disturbances
            repeats = max(1, repeats // 2)
    last = (at - 1) % len(calls)
    if len(clean) < _LEAST_RUNS:
        return Times(tuple(samples), last, result, (SHARED, *check_settled(samples)))
    return Times(tuple(clean), last, result, check_settled(clean))


def device_times(calls: Sequence[Call], device: Device, *, budget_s: float, poison: Callable[[Any], None]) -> Times:
    """Return times by a GPU's own clock, of graphs that hold every call in turn, for at least 2 ms together.

    Each graph is launched while the one before it runs, so that the time from the end of one to the end of the next is the device's
    alone. Where a kernel cannot be captured, its calls are launched one by one, and the result says so.
    """
    torch = load_torch()
    stream = torch.cuda.Stream(device.index)
    stream.wait_stream(torch.cuda.current_stream(device.index))
    with torch.cuda.stream(stream):  # graphs are captured on a stream of their own, where libraries must be warm already
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
            # the next graph waits in line while one runs: the host takes tens of microseconds to launch it, which would count otherwise
            final = run()
            ends.append(_mark(torch, stream))
            ends[-2].synchronize()
            samples += [_between(*pair) / (rounds * len(calls)) for pair in pairwise(ends[-3:-1])]
        stream.synchronize()
        samples.append(_between(*ends[-2:]) / (rounds * len(calls)))
    return Times(tuple(samples), len(calls) - 1, final, flags + check_settled(samples))


def _mark(torch: Any, stream: Any) -> Any:
    """Return the moment at which the device has done what was launched so far."""
    event = torch.cuda.Event(enable_timing=True)
    event.record(stream)
    return event


def _between(start: Any, end: Any) -> float:
    """Return the time between two moments that have passed [s]."""
    return float(start.elapsed_time(end)) * 1e-3


def _long_graph(torch: Any, calls: Sequence[Call], stream: Any) -> tuple[Call, int, bool]:
    """Return what runs all calls in turn for 2 ms or more, how many times over, and whether it is a graph."""
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
        # a short graph lasts longer than its kernels do, for it waits for the host: it tells too few rounds
        rounds = min(most, max(2 * rounds, math.ceil(1.25 * rounds * _GRAPH_S / max(lasted, 1e-7))))


def _graph(torch: Any, calls: Sequence[Call], rounds: int, stream: Any) -> tuple[Call, bool]:
    """Return what runs all calls in turn, so many times over, and whether it is a graph: a loop where they cannot be captured."""

    def loop() -> Any:
        out = None
        for _ in range(rounds):
            for call in calls:
                out = call()
        return out

    graph = torch.cuda.CUDAGraph()
    try:  # what other threads do, such as the one that watches the device, is no reason to end a capture: "thread_local"
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
