"""`ServingMeasurement`: what a client or an engine measured of a service, in one schema, whatever tool wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from roofline.frozen import freeze
from roofline.requests import RequestTimes
from roofline.results import Result
from roofline.units import show_time

Definition = Literal[
    "first token",  # first token - sent
    "per token after the first",  # (last - first) / (n - 1)
    "per token with the first",  # (last - sent) / n
    "gap of chunks",  # between chunks that arrive; a chunk holds all tokens of a step
    "gap per token",  # between chunks, divided by the tokens of the chunk
    "step",  # of the engine, all sequences of it together
    "end to end",  # last token - sent
]
Weight = Literal["request", "token", "chunk", "step"]


@dataclass(frozen=True, slots=True)
class Latency:
    """One time that a file has, with what it is a time of.

    Parameters
    ----------
    definition : str
        What was timed: ``"first token"``, ``"per token after the first"``, ``"per token with the first"``, ``"gap of chunks"``, ``"gap per token"``,
        ``"step"`` or ``"end to end"`` [-].
    weight : str
        What counts once in the mean: a ``"request"``, ``"token"``, ``"chunk"`` or ``"step"`` [-].
    mean_s, median_s, std_s : float, optional
        None where the file does not say it [s].
    percentiles : mapping of float to float
        By percent, such as 99.0 [s].
    key : str
        What the file calls it [-].
    """

    definition: Definition
    weight: Weight
    mean_s: float | None = None
    median_s: float | None = None
    std_s: float | None = None
    percentiles: Mapping[float, float] = field(default_factory=dict)
    key: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "percentiles", freeze(dict(self.percentiles)))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ServingMeasurement(Result):
    """What was measured of a service.

    Everything but ``source`` is None, or empty, where the file does not say it; a time of 0 that stands for failed requests is None too.

    Parameters
    ----------
    source : str
        The tool, with its version where the file says it: ``"vllm bench serve"`` [-].
    path : str, optional
        Where it was read [-].
    model, machine, engine : str, optional
        As the file names them [-].
    options : mapping
        Options of a :class:`roofline.Deployment` that the file states: ``tensor_parallel``, ``weights``, ``kv`` … [-].
    duration_s : float, optional
        From the first request to the last answer [s].
    completed, failed : int, optional
        Requests [-].
    prompt, output : float, optional
        Mean tokens of a request [token].
    cached_context : float, optional
        Mean cached tokens of a sequence during decode steps, if it is not prompt + output / 2 [token].
    request_rate : float, optional
        Requests sent per second; infinite if all at once [request/s].
    max_concurrency : int, optional
        Most requests that the client had in flight [-].
    concurrency : float, optional
        Mean requests in flight, those that waited included [-].
    batch : float, optional
        Mean sequences that decode together, where that is known apart from waiting ones; exact for static batches [-].
    sequences : int, optional
        Most sequences that the engine runs at a time [-].
    requests_per_s : float, optional
        Of the whole service [request/s].
    prompt_tokens_per_s, output_tokens_per_s : float, optional
        Of the whole service [token/s].
    ttft, tpot, itl, step, e2e : Latency, optional
        Times to the first token, per token, between tokens, of a decode step, end to end [s].
    prefill_s : float, optional
        Time of the prefill of a static batch [s].
    accepted : float, optional
        Tokens that a verification yields on average under speculation; None without [token].
    drafts : int, optional
        Drafted tokens of each verification [token].
    times : RequestTimes, optional
        The requests one by one [-].
    notes : tuple of str
        What a reader must know [-].
    raw : mapping
        The file's own keys without lists, texts and secrets [-].
    """

    source: str
    path: str | None = None
    model: str | None = None
    machine: str | None = None
    engine: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    duration_s: float | None = None
    completed: int | None = None
    failed: int | None = None
    prompt: float | None = None
    output: float | None = None
    cached_context: float | None = None
    request_rate: float | None = None
    max_concurrency: int | None = None
    concurrency: float | None = None
    batch: float | None = None
    sequences: int | None = None
    requests_per_s: float | None = None
    prompt_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None
    ttft: Latency | None = None
    tpot: Latency | None = None
    itl: Latency | None = None
    step: Latency | None = None
    e2e: Latency | None = None
    prefill_s: float | None = None
    accepted: float | None = None
    drafts: int | None = None
    times: RequestTimes | None = None
    notes: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)

    _numbers = (
        "duration_s",
        "completed",
        "failed",
        "prompt",
        "output",
        "concurrency",
        "batch",
        "requests_per_s",
        "prompt_tokens_per_s",
        "output_tokens_per_s",
    )

    def summary(self) -> list[str]:
        """Return the lines of the text: what ran, at what load, and its times [-]."""
        known = {name: latency for name in ("ttft", "tpot", "itl", "step", "e2e") if (latency := getattr(self, name)) and latency.mean_s}
        return [
            f"{self.source}: {self.model or 'model not named'}",
            *(f"{name}: {show_time(latency.mean_s)}, {latency.definition}, by {latency.weight}" for name, latency in known.items()),
        ]

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: the tool, what it names, how each time is defined [-]."""
        return {name: getattr(self, name) for name in ("source", "path", "model", "machine", "engine", "options", "notes")}
