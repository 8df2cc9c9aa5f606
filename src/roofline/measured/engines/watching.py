"""From pages of one engine to a window: `engine_window` of pages that are there, `watch_engine` of a server that runs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError, quoted
from roofline.measured.engines.page import EnginePage, read_metrics
from roofline.measured.engines.window import EngineWindow, quotient
from roofline.measured.measurement import Latency
from roofline.units import show_time

_AS_STORED = {"auto", "None", ""}  # what vLLM says of a cache in the model's own format
_START = "process_start_time_seconds"


@checks_keywords
def engine_window(*pages: EnginePage, seconds: float | None = None) -> EngineWindow:
    r"""Return what an engine did between the first of some pages and the last: :math:`\Delta sum / \Delta count` of every time.

    Parameters
    ----------
    *pages : EnginePage
        Two or more pages of one engine, in the order of their time; gauges are averaged over all of them [-].
    seconds : float, optional
        Between the first page and the last; known for pages that were read from a server, and without it there are no rates [s].

    Returns
    -------
    EngineWindow
        Rates, batch, cache and times [-].

    Raises
    ------
    InvalidValueError
        If the pages are of different engines or models, the engine was started again between them, or did nothing.

    Notes
    -----
    A quantile of buckets is no time: vLLM's first bucket of gaps ends at 10 ms, above the steps of most models. Only means are given.

    Examples
    --------
    >>> lines = 'vllm:generation_tokens_total {}\nvllm:inter_token_latency_seconds_sum {}\nvllm:inter_token_latency_seconds_count {}\n'
    >>> first, last = read_metrics(lines.format(0, 0, 0)), read_metrics(lines.format(1000, 10.0, 990))
    >>> window = engine_window(first, last, seconds=5)
    >>> window.output_tokens_per_s, round(window.itl.mean_s, 5)
    (200.0, 0.0101)
    """
    first, last = _checked(pages)
    duration = _duration(first, last, seconds)
    for before, after in pairwise(pages):
        _grown(before, after)  # which sees a start between two pages in the middle too
    counted = _grown(first, last)
    if not counted.get("output_tokens") and not counted.get("prompt_tokens"):
        span = "" if duration is None else f" in {show_time(duration)}"
        raise InvalidValueError(
            f"{last.engine} did nothing between the pages{span}: no token was counted; was it idle, or is the window too short?"
        )
    if begun := _between(first, last, "ttft", lambda page: page.timed("ttft"))[1]:
        counted["first_tokens"] = begun
    found: dict[str, Any] = {name: _latency(first, last, name) for name in last.names.times}
    means = {name: _mean(pages, partial(_gauge, name)) for name in ("running", "waiting", "decoding", "context_tokens")}
    batch, note = _batch(pages, counted, duration, means)
    accepted, drafts = _speculation(pages, counted)
    for name in ("prompt", "output"):
        found[name] = _mean_length(first, last, name) or quotient(counted.get(f"{name}_tokens"), counted.get("completed"))
    context = quotient(means["context_tokens"], means["running"])
    return EngineWindow(
        last.engine,
        last.model,
        last.source,
        duration,
        counted,
        **found,
        batch=batch,
        cached_context=context or None,
        running=means["running"],
        waiting=means["waiting"],
        kv_use=_mean(pages, lambda page: page.kv_use),
        kv_tokens=last.kv_tokens,
        accepted=accepted,
        drafts=drafts,
        machine=next(iter(last.label("machine")), None),
        options=_options(last),
        ranks=last.ranks,
        notes=tuple(text for text in (note, *_notes(last, counted, means, context)) if text),
    )


@checks_keywords
def watch_engine(url: str, seconds: float = 10.0, *, every: float = 1.0, model: str | None = None, timeout_s: float = 5.0) -> EngineWindow:
    """Return what a running engine does in the next seconds, from pages of its metrics.

    Parameters
    ----------
    url : str
        ``"http://localhost:8000"`` or with the path of the metrics [-].
    seconds : float, optional
        How long to watch [s].
    every : float, optional
        Time between pages, over which gauges are averaged [s].
    model : str, optional
        Which model, where one page has several [-].
    timeout_s : float, optional
        How long the server may take to send a page [s].

    Returns
    -------
    EngineWindow
        As :func:`engine_window` [-].

    Raises
    ------
    InvalidValueError
        If nothing answers, or the engine did nothing in the time; single pages that do not come are noted.
    """
    for name, value in (("seconds", seconds), ("every", every)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
            raise InvalidValueError(f"{name} is {quoted(value)}; it must be a number of seconds above 0.")
    pages = [read_metrics(url, model=model, timeout_s=timeout_s)]
    missed: list[InvalidValueError] = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, every))
        try:
            pages.append(read_metrics(url, model=model, timeout_s=timeout_s))
        except InvalidValueError as error:  # a server may be busy for a moment
            missed.append(error)
    if missed and len(pages) < 2:
        raise missed[0]
    window = engine_window(*pages)
    lost = f"{len(missed)} of {len(pages) + len(missed)} pages could not be read: {str(missed[-1]).rstrip('.')}" if missed else ""
    return replace(window, notes=(*window.notes, lost)) if lost else window


def _checked(pages: tuple[EnginePage, ...]) -> tuple[EnginePage, EnginePage]:
    """Return the first page and the last, if all are of one run of one engine."""
    for page in pages:
        if not isinstance(page, EnginePage):
            raise InvalidValueError(f"{quoted(page)} is no page; read_metrics(...) reads one.")
    if len(pages) < 2:
        raise InvalidValueError(f"a window needs two pages, {len(pages)} given; watch_engine(url) reads several of a running engine.")
    first, last = pages[0], pages[-1]
    if len({page.engine for page in pages}) > 1:
        raise InvalidValueError(f"the pages are of different engines: {first.engine} and {last.engine}.")
    if first.model != last.model:
        raise InvalidValueError(f"the pages are of different models: {quoted(first.model)} and {quoted(last.model)}.")
    began = [page.samples[_START][0].value for page in (first, last) if _START in page.samples]
    if len(began) == 2 and abs(began[1] - began[0]) > 1:
        raise InvalidValueError(f"{last.engine} was started again between the pages; take both from one run.")
    return first, last


def _duration(first: EnginePage, last: EnginePage, seconds: float | None) -> float | None:
    told = None if first.at_s is None or last.at_s is None else last.at_s - first.at_s
    if seconds is None:
        return told or None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e8:
        raise InvalidValueError(f"seconds is {quoted(seconds)}; it must be the time between the pages, above 0.")
    return float(seconds)


def _grown(first: EnginePage, last: EnginePage) -> dict[str, float]:
    """Return by how much every counter grew; one that is new counts from 0."""
    grown = {}
    for name in last.names.counters:
        now = last.counter(name)
        if now is not None:
            grown[name] = _difference(last, name, first.counter(name) or 0.0, now)
    return grown


def _difference(page: EnginePage, name: str, before: float, now: float) -> float:
    if now < before:
        raise InvalidValueError(
            f"{name} of {page.engine} fell from {before:g} to {now:g}: the engine was started again between the pages, or they are in the wrong order."
        )
    return now - before


def _between(first: EnginePage, last: EnginePage, name: str, of: Callable[[EnginePage], tuple[float, float] | None]) -> tuple[float, float]:
    """Return by how much the sum and the count of a histogram grew."""
    now, before = of(last), of(first) or (0.0, 0.0)
    if now is None:
        return 0.0, 0.0
    return _difference(last, name, before[0], now[0]), _difference(last, name, before[1], now[1])


def _latency(first: EnginePage, last: EnginePage, name: str) -> Latency | None:
    total, count = _between(first, last, name, lambda page: page.timed(name))
    timed = last.names.times[name]
    if not count or not total:
        return None
    return Latency(timed.definition, timed.weight, mean_s=total / count, key=timed.names.split()[0])


def _mean_length(first: EnginePage, last: EnginePage, name: str) -> float | None:
    total, count = _between(first, last, name, lambda page: page.length(name))
    return quotient(total, count)


def _gauge(name: str, page: EnginePage) -> float | None:
    return page.gauge(name)


def _mean(pages: tuple[EnginePage, ...], of: Callable[[EnginePage], float | None]) -> float | None:
    values = [value for page in pages if (value := of(page)) is not None]
    return sum(values) / len(values) if values else None


def _batch(
    pages: tuple[EnginePage, ...], counted: Mapping[str, float], duration: float | None, means: Mapping[str, float | None]
) -> tuple[float | None, str]:
    """Return the mean sequences that decode together, and what it is a mean of."""
    first, last = pages[0], pages[-1]
    gaps_s, gaps = _between(first, last, "itl", lambda page: page.timed("itl"))
    steps = counted.get("steps") or _between(first, last, "step", lambda page: page.timed("step"))[1]
    weight = last.names.times["itl"].weight if "itl" in last.names.times else None
    rows: float | None = None
    if weight == "step":
        rows = gaps  # one for each request in each step
    elif "rows_per_step" in last.names.shares:
        ends = [(page.share("rows_per_step"), page.counter("steps")) for page in (first, last)]
        rows = None if None in (*ends[0], *ends[1]) else ends[1][0] * ends[1][1] - ends[0][0] * ends[0][1]  # type: ignore[operator]
    elif steps:
        rows = max(0.0, counted.get("output_tokens", 0.0) - counted.get("completed", 0.0))  # a first token is no decode step's
    if rows and steps:
        return rows / steps * last.ranks, "batch is sequences of a step, averaged over steps, those without a decoding sequence included"
    if weight == "token" and gaps_s and duration:
        return gaps_s / duration, "batch is decoding sequences averaged over the time, idle time included"
    decoding = means["decoding"] if means["decoding"] is not None else means["running"]
    told = "" if decoding is None else f"batch is the mean of {len(pages)} moments, not of the time between them"
    return decoding or None, told


def _speculation(pages: tuple[EnginePage, ...], counted: Mapping[str, float]) -> tuple[float | None, float | None]:
    """Return the tokens that a verification yields, and those drafted for it; None without speculation."""
    verified = counted.get("verifications")
    if verified:
        yielded = quotient(counted.get("accepted_tokens"), verified)
        return None if yielded is None else 1 + yielded, quotient(counted.get("drafted_tokens"), verified)
    told = _mean(pages, lambda page: page.share("accepted") or None)  # 0 where nothing is drafted
    return told, None


def _options(page: EnginePage) -> dict[str, Any]:
    """Return options of a deployment that a page states."""
    told: dict[str, Any] = {}
    kv = next(iter(page.label("kv")), "")
    if kv not in _AS_STORED:
        told["kv"] = kv.partition("_")[0] if kv.startswith("fp8") else kv
    sizes = page.label("page")
    if len(sizes) == 1 and sizes[0].isdigit():
        told["page"] = int(sizes[0])
    for degree in ("tensor_parallel", "pipeline_parallel", "expert_parallel"):
        [size, *others] = page.label(degree) or ("1",)
        if size.isdigit() and int(size) > 1 and not others:
            told[degree] = int(size)
    if page.ranks > 1:
        told["data_parallel"] = page.ranks
    return told


def _notes(page: EnginePage, counted: Mapping[str, float], means: Mapping[str, float | None], context: float | None) -> list[str]:
    notes = []
    if context:
        notes.append("the mean context is a quotient of two moments' sums")
    if page.engine == "vllm" and counted.get("hit_tokens"):
        notes.append("vLLM counts tokens of prompts that were in the prefix cache among prompt_tokens")
    if counted.get("output_tokens") and counted.get("flops") == 0:
        notes.append(f"the counters of estimated FLOP are 0: {page.engine} runs without --enable-mfu-metrics")
    if page.engine == "tgi":
        notes.append("TGI counts a request's tokens when it ends, so a short window misses those of requests still running")
    if page.engine == "llama.cpp":
        notes.append("llama.cpp counts a request's tokens when it ends, and divides its time of generation by all its tokens")
    if (means["waiting"] or 0) > 0:
        notes.append(f"{means['waiting']:.1f} requests waited on average, and their wait is in ttft and e2e")
    return notes
