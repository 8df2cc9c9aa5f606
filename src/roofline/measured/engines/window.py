"""What an engine did between two pages of its metrics: rates, means and times from differences, never from buckets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from roofline.measured.measurement import LATENCIES, Latency, ServingMeasurement
from roofline.results import Result, show_notes
from roofline.units import show_time

_SHOWN = {
    "prompts: {:,.0f} tokens/s": "prompt_tokens_per_s",
    "answers: {:,.0f} tokens/s": "output_tokens_per_s",
    "sequences that decode together: {:.1f}": "batch",
    "tokens of each in the cache: {:,.0f}": "cached_context",
    "waiting: {:.1f}": "waiting",
    "KV cache in use: {:.1%}": "kv_use",
    "tokens of a verification: {:.2f}": "accepted",
    "preempted: {:,}": "preemptions",
    "of prompts in the prefix cache: {:.1%}": "prefix_hits",
    "of the time in steps: {:.1%}": "busy",
}


def quotient(amount: float | None, by: float | None) -> float | None:
    """Return a quotient, or None where a part of it is not known or it divides by nothing."""
    return None if amount is None or not by else amount / by


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class EngineWindow(Result):
    """What an engine did between two pages of its metrics.

    Rates need the time between the pages; whatever the engine does not tell is None.

    Parameters
    ----------
    engine : str
        Which engine [-].
    model : str, optional
        As the engine calls it [-].
    source : str
        Where the pages were read [-].
    duration_s : float, optional
        Between the first page and the last [s].
    counted : mapping
        By how much each counter grew, by our names [-].
    ttft, tpot, itl, step, e2e : Latency, optional
        Means of what ended in the window, sum over count [s].
    prompt, output : float, optional
        Mean tokens of a request that finished in the window [token].
    batch : float, optional
        Mean sequences that decode in a step, all ranks together [-].
    cached_context : float, optional
        Mean tokens of a decoding sequence in the cache, where the engine tells them [token].
    running, waiting : float, optional
        Mean of the pages [-].
    kv_use : float, optional
        Share of the KV cache that is taken, mean of the pages [-].
    kv_tokens : float, optional
        Tokens that the KV cache holds [token].
    accepted : float, optional
        Tokens that a verification yields under speculation; None without [token].
    drafts : float, optional
        Drafted tokens of each verification [token].
    machine : str, optional
        As the pages name it [-].
    options : mapping
        Options of a deployment that the pages state [-].
    ranks : int
        Data-parallel ranks that report apart from each other [-].
    notes : tuple of str
        What a reader must know [-].
    """

    engine: str
    model: str | None
    source: str
    duration_s: float | None
    counted: Mapping[str, float]
    ttft: Latency | None = None
    tpot: Latency | None = None
    itl: Latency | None = None
    step: Latency | None = None
    e2e: Latency | None = None
    prompt: float | None = None
    output: float | None = None
    batch: float | None = None
    cached_context: float | None = None
    running: float | None = None
    waiting: float | None = None
    kv_use: float | None = None
    kv_tokens: float | None = None
    accepted: float | None = None
    drafts: float | None = None
    machine: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    ranks: int = 1
    notes: tuple[str, ...] = ()

    @property
    def prompt_tokens_per_s(self) -> float | None:
        """Tokens of prompts, those found in a prefix cache included where the engine counts them [token/s]."""
        return self._rate("prompt_tokens")

    @property
    def output_tokens_per_s(self) -> float | None:
        """Tokens of answers of the whole service [token/s]."""
        return self._rate("output_tokens")

    @property
    def requests_per_s(self) -> float | None:
        """Requests that finished [request/s]."""
        return self._rate("completed")

    @property
    def preemptions(self) -> int | None:
        """Sequences that were put back because the cache was full [-]."""
        count = self.counted.get("preemptions")
        return None if count is None else int(count)

    @property
    def prefix_hits(self) -> float | None:
        """Share of the prompts' tokens that were in a prefix cache; of blocks in TensorRT-LLM [-]."""
        if "hit_blocks" in self.counted:
            return quotient(self.counted["hit_blocks"], self.counted["hit_blocks"] + self.counted.get("missed_blocks", 0.0))
        looked = self.counted.get("looked_up_tokens", self.counted.get("prompt_tokens"))
        return quotient(self.counted.get("hit_tokens"), looked)

    @property
    def busy(self) -> float | None:
        """Share of the time in which a device ran a step, the mean of all ranks, where the engine tells it [-]."""
        return quotient(self._rate("busy_s"), self.ranks)

    def _rate(self, name: str) -> float | None:
        return quotient(self.counted.get(name), self.duration_s)

    def measurement(self) -> ServingMeasurement:
        """Return the window in the schema of all measurements, each time with what the engine times [-]."""
        completed = self.counted.get("completed")
        in_flight = None if self.running is None else self.running + (self.waiting or 0.0)
        return ServingMeasurement(
            f"metrics of {self.engine}",
            path=self.source,
            model=self.model,
            machine=self.machine,
            engine=self.engine,
            options=self.options,
            duration_s=self.duration_s,
            completed=None if completed is None else int(completed),
            prompt=self.prompt,
            output=self.output,
            cached_context=self.cached_context,
            concurrency=in_flight,
            batch=self.batch,
            requests_per_s=self.requests_per_s,
            prompt_tokens_per_s=self.prompt_tokens_per_s,
            output_tokens_per_s=self.output_tokens_per_s,
            ttft=self.ttft,
            tpot=self.tpot,
            itl=self.itl,
            step=self.step,
            e2e=self.e2e,
            accepted=self.accepted,
            drafts=None if self.drafts is None else round(self.drafts),
            notes=self.notes,
            raw=self.counted,
        )

    def values(self) -> dict[str, Any]:
        """Return every number by name [SI]."""
        names = (
            "duration_s prompt_tokens_per_s output_tokens_per_s requests_per_s batch cached_context running waiting kv_use kv_tokens prompt output "
            "accepted drafts preemptions prefix_hits busy"
        )
        times = {f"{name}_s": None if (one := getattr(self, name)) is None else one.mean_s for name in LATENCIES}
        return {name: getattr(self, name) for name in names.split()} | times

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: the engine, how each time is defined, what the pages state [-]."""
        told = {name: f"{one.definition}, by {one.weight}" for name in LATENCIES if (one := getattr(self, name)) is not None}
        named = {name: getattr(self, name) for name in ("engine", "model", "machine", "source", "ranks", "options", "counted", "notes")}
        return {"kind": "window of an engine", "definitions": told} | named

    def summary(self) -> list[str]:
        """Return the short text: rates, batch and cache, then each time with its definition [-]."""
        span = "an unknown time" if self.duration_s is None else show_time(self.duration_s)
        shown = {text: value for text, name in _SHOWN.items() if (value := getattr(self, name)) is not None}
        lines = [f"{self.engine} serving {self.model or 'a model without a name'} for {span}"]
        lines += [f"  {text.format(value)}" for text, value in shown.items()]
        for name in LATENCIES:
            one: Latency | None = getattr(self, name)
            if one is not None:
                lines.append(f"  {name}: {show_time(one.mean_s or 0.0)}, {one.definition}, by {one.weight}")
        return [*lines, *show_notes(self.notes)]
