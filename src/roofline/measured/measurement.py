"""`ServingMeasurement`: what a client or an engine measured of a service, in one schema, whatever tool wrote it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from roofline.calls import checks_methods, refuse_name
from roofline.deployment.options import OPTIONS
from roofline.deployment.spelling import refused_option
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import freeze, sealed
from roofline.measured.private import kept, without_secrets
from roofline.requests import RequestTimes
from roofline.results import Result, show_notes
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
LATENCIES = ("ttft", "tpot", "itl", "step", "e2e")
"""The times of a measurement, in the order in which tables list them."""

_ALIKE = 0.01  # spread of times to the first token, of its mean, under which no server under load was ever seen
_MANY = 100  # requests, from which on such a spread says something
_QUEUE = 1.02  # in flight over running, from which on requests wait


@checks_methods
@dataclass(frozen=True, slots=True)
class Latency:
    """One time that a file has, with what it is a time of.

    Parameters
    ----------
    definition : str
        What was timed: ``"first token"`` (from sent), ``"per token after the first"`` ((last − first) / (n − 1)), ``"per token with the first"``
        ((last − sent) / n), ``"gap of chunks"`` (a chunk holds all tokens of a step), ``"gap per token"`` (the same divided by the tokens of the chunk),
        ``"step"`` (of the engine) or ``"end to end"`` (from sent to the last token) [-].
    weight : str
        What counts once in the mean: a ``"request"``, ``"token"``, ``"chunk"`` or ``"step"`` [-].
    mean_s, median_s, std_s : float, optional
        None where the file does not say it [s].
    percentiles : mapping of float to float
        By percent, such as 99.0 [s].
    key : str
        What the file calls it [-].

    Raises
    ------
    InvalidValueError
        If definition or weight is none of these, or a time is negative or not finite.
    """

    definition: Definition
    weight: Weight
    mean_s: float | None = None
    median_s: float | None = None
    std_s: float | None = None
    percentiles: Mapping[float, float] = field(default_factory=dict)
    key: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("definition", get_args(Definition)), ("weight", get_args(Weight))):
            if getattr(self, name) not in allowed:
                raise InvalidValueError(f"{name} is {quoted(getattr(self, name))}; it must be one of {', '.join(map(repr, allowed))}.")
        for name in ("mean_s", "median_s", "std_s"):
            object.__setattr__(self, name, _amount(name, getattr(self, name), "s"))
        known = {float(percent): _amount(f"percentile {percent:g}", time, "s") for percent, time in self.percentiles.items()}
        object.__setattr__(self, "percentiles", freeze(dict(sorted(known.items()))))

    @property
    def typical_s(self) -> float | None:
        """The mean, or the median where no mean is known [s]."""
        return self.mean_s if self.mean_s is not None else self.median_s

    @property
    def quantile(self) -> str:
        """Which of the two that is: ``"mean"`` or ``"median"`` [-]."""
        return "mean" if self.mean_s is not None else "median"

    def __str__(self) -> str:
        if self.typical_s is None:
            return f"not known ({self.definition})"
        tail = "".join(f", p{percent:g} {show_time(time)}" for percent, time in list(self.percentiles.items())[-1:])
        return f"{show_time(self.typical_s)} {self.quantile}{tail} ({self.definition}, a value for each {self.weight})"


sealed(Latency)


def _amount(name: str, value: Any, unit: str, *, infinite: bool = False) -> float | None:
    """Return a number that a measurement may have, or None."""
    if value is None:
        return None
    try:
        number = float("x" if isinstance(value, (bool, str, bytes)) else value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number >= 0 or (math.isinf(number) and not infinite):
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be a number of at least 0 [{unit}], or None where it is not known.")
    return number


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
        Options of a :class:`roofline.deployment.Deployment` that the file states: ``tensor_parallel``, ``weights``, ``kv`` … [-].
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
        Most sequences that the engine runs at a time, in each group of data-parallel ranks [-].
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
    replicas : int, optional
        Independent copies of the deployment that share the requests; `concurrency` and rates are of all of them [-].
    busy : float, optional
        Share of the time in which a kernel ran (GPU-Util), the mean of the devices that worked [-].
    times : RequestTimes, optional
        The requests one by one [-].
    notes : tuple of str
        What a reader must know [-].
    raw : mapping
        The file's own keys without lists, texts and secrets [-].

    Raises
    ------
    InvalidValueError
        If a number is negative or none, or a time is no :class:`Latency`.
    UnknownOptionError
        If `options` has what no deployment has.
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
    replicas: int | None = None
    busy: float | None = None
    times: RequestTimes | None = None
    notes: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)

    _numbers = (
        "duration_s", "completed", "failed", "prompt", "output", "cached_context", "request_rate", "max_concurrency", "concurrency", "batch", "sequences",
        "requests_per_s", "prompt_tokens_per_s", "output_tokens_per_s", "prefill_s", "accepted", "drafts", "replicas", "busy",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check every field, remove secrets, and add notes on what the numbers themselves show."""
        for name in self._numbers:
            value = _amount(name, getattr(self, name), _UNITS.get(name, "-"), infinite=name == "request_rate")
            if name in _COUNTS and value is not None:
                if value != math.floor(value):
                    raise InvalidValueError(f"{name} is {value:g}; it must be a whole number.")
                value = int(value)
            object.__setattr__(self, name, value)
        for name in LATENCIES:
            if not isinstance(value := getattr(self, name), Latency | None):
                raise InvalidValueError(f"{name} is {quoted(value)}; it must be a Latency, which says what was timed, or None.")
        for name, kind, what in (
            ("options", Mapping, "a mapping"),
            ("raw", Mapping, "a mapping"),
            ("notes", (tuple, list), "a tuple of texts"),
        ):
            if not isinstance(value := getattr(self, name), kind):
                raise InvalidValueError(f"{name} is {quoted(value)}; it must be {what}.")
        if (unknown := next((name for name in self.options if name not in OPTIONS), None)) is not None:
            raise refused_option("Deployment", str(unknown), tuple(OPTIONS))
        object.__setattr__(self, "raw", freeze(kept(self.raw)))
        object.__setattr__(self, "options", freeze(dict(self.options)))
        object.__setattr__(self, "path", None if self.path is None else without_secrets(str(self.path)))
        object.__setattr__(self, "notes", tuple(dict.fromkeys((*map(without_secrets, self.notes), *_shown_by_numbers(self)))))

    @classmethod
    def from_times(cls, times: RequestTimes, *, source: str, **known: Any) -> "ServingMeasurement":
        """Return the measurement that single requests make.

        Parameters
        ----------
        times : RequestTimes
            The requests, measured or simulated [-].
        source : str
            What measured them [-].
        **known : optional
            Other fields; they go before what follows from the requests [-].

        Returns
        -------
        ServingMeasurement
            Means and percentiles over the requests that ended [-].

        Raises
        ------
        InvalidValueError
            If no request ended.
        """
        return cls(**{"source": source, **fields_of_times(times), **known})

    def but(self, **changes: Any) -> "ServingMeasurement":
        """Return this measurement with more said of it, such as what its file does not say.

        Parameters
        ----------
        **changes : optional
            Any field; ``options`` are added to those that are known [-].

        Returns
        -------
        ServingMeasurement
            Another measurement [-].
        """
        names = [each.name for each in fields(self)]
        if (unknown := next((name for name in changes if name not in names), None)) is not None:
            raise refuse_name("ServingMeasurement.but", unknown, names)
        if "options" in changes:
            changes["options"] = {**self.options, **changes["options"]}
        shown = _shown_by_numbers(self)
        return replace(self, **{"notes": tuple(note for note in self.notes if note not in shown), **changes})

    def latencies(self) -> dict[str, Latency]:
        """Return the times that are known, by name.

        Returns
        -------
        dict of str to Latency
            Of ``ttft``, ``tpot``, ``itl``, ``step`` and ``e2e`` those with a mean or a median [-].
        """
        return {name: latency for name in LATENCIES if (latency := getattr(self, name)) is not None and latency.typical_s is not None}

    def values(self) -> dict[str, Any]:
        """Return the numbers by name, and the mean of each time, or its median where no mean is known [SI]."""
        times = {f"{name}_s": getattr(self, name) and getattr(self, name).typical_s for name in LATENCIES}
        return {**{name: getattr(self, name) for name in self._numbers}, **times}

    def basis(self) -> dict[str, Any]:
        """Return what a table of several measurements must say beside the numbers [-]."""
        return {name: getattr(self, name) for name in ("source", "path", "model", "machine", "engine")}

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each time that is known, with its definition [-]."""
        return [
            {
                "name": name,
                "definition": one.definition,
                "weight": one.weight,
                "key": one.key,
                **{each: getattr(one, each) for each in ("mean_s", "median_s", "std_s")},
                **{f"p{percent:g}_s": time for percent, time in one.percentiles.items()},
            }
            for name, one in self.latencies().items()
        ]

    def summary(self) -> list[str]:
        """Return the lines of the text: what ran, at what load, and its times [-]."""
        stated = [f"{name}={value}" for name, value in self.options.items()]
        return [
            f"{self.source}: {self.model or 'model not named'} on {self.machine or 'a machine not named'}{''.join(f', {each}' for each in stated)}",
            f"  load: {self._load() or 'not stated'}",
            *(f"  {name}: {latency}" for name, latency in self.latencies().items()),
            *show_notes(self.notes),
        ]

    def _load(self) -> str:
        parts = (
            ("{:g} requests ended", self.completed),
            ("{:g} failed", self.failed or None),
            ("prompts of {:.4g} tokens", self.prompt),
            ("answers of {:.4g}", self.output),
            ("{:.4g} in flight", self.concurrency),
            ("batch {:.4g}", self.batch),
            ("at most {:g} run", self.sequences),
            ("{:.4g} output tokens/s", self.output_tokens_per_s),
            ("{:.4g} tokens per verification", self.accepted),
        )
        return ", ".join(text.format(value) for text, value in parts if value is not None)

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: the tool, what it names, how each time is defined [-]."""
        return {name: getattr(self, name) for name in ("source", "path", "model", "machine", "engine", "options", "notes")}


_COUNTS = frozenset(("completed", "failed", "max_concurrency", "sequences", "drafts", "replicas"))
_UNITS = {
    **dict.fromkeys(("duration_s", "prefill_s"), "s"),
    **dict.fromkeys(("prompt", "output", "cached_context", "accepted", "drafts"), "token"),
    **dict.fromkeys(("request_rate", "requests_per_s"), "request/s"),
    **dict.fromkeys(("prompt_tokens_per_s", "output_tokens_per_s"), "token/s"),
}


def _shown_by_numbers(measured: ServingMeasurement) -> list[str]:
    """Return what the numbers of a measurement show that its reader may miss."""
    notes = []
    most = (measured.sequences or 0) * (measured.replicas or 1) * int(measured.options.get("data_parallel", 1))
    if most and measured.concurrency and measured.concurrency > most * _QUEUE:
        waiting = measured.concurrency - most
        notes.append(
            f"{measured.concurrency:.4g} requests were in flight on average and at most {most} run at a time: about {waiting:.3g} waited, and no batch is larger than {measured.sequences}"
        )
    first = measured.ttft
    if (measured.completed or 0) >= _MANY and first and first.mean_s and first.std_s is not None and first.std_s < _ALIKE * first.mean_s:
        notes.append(
            f"the times to the first token of {measured.completed} requests differ by {first.std_s / first.mean_s:.2%} (standard deviation over mean), less than those of any real server: is this a simulator?"
        )
    return notes


def fields_of_times(times: RequestTimes) -> dict[str, Any]:
    """Return the fields of a measurement that follow from single requests."""
    ended = times.ended
    if not ended.any():
        raise InvalidValueError(f"{times.workload.source}: none of {len(times)} requests ended, so there is nothing measured.")
    prompt, output = times.workload.prompt[ended].astype(float), times.workload.output[ended].astype(float)
    duration = times.duration_s if times.duration_s > 0 else None
    steps = np.maximum(output - 1, 0)
    one_clock = times.begin_s is None or bool(times.sent_s.any())  # else the moments of each request count from when it was sent
    decoding = _together(times.first_token_s[ended], times.finish_s[ended]) if one_clock and steps.any() else None
    found: dict[str, Any] = {
        "duration_s": duration,
        "completed": int(ended.sum()),
        "prompt": float(prompt.mean()),
        "output": float(output.mean()),
        "ttft": latency_of("first token", "request", times.ttft_s, "single requests"),
        "tpot": latency_of("per token after the first", "request", times.tpot_s, "single requests"),
        "e2e": latency_of("end to end", "request", times.e2e_s, "single requests"),
        "cached_context": float((steps * (prompt + output / 2)).sum() / steps.sum()) if steps.sum() else None,
        "batch": decoding,
        "times": times,
        "notes": times.notes,
    }
    if times.token_s is not None:
        found["itl"] = latency_of("gap of chunks", "chunk", times.itl_s, "single requests")
    if duration:
        found |= {
            "concurrency": float(np.nansum(times.e2e_s)) / duration,
            "requests_per_s": times.requests_per_s,
            "prompt_tokens_per_s": times.input_tokens / duration,
            "output_tokens_per_s": times.output_tokens_per_s,
        }
    return found


def _together(begin_s: np.ndarray, end_s: np.ndarray) -> float | None:
    """Return how many of some spans lie over one another on average, while any does."""
    order = np.argsort(begin_s)
    begin, latest = begin_s[order], np.maximum.accumulate(end_s[order])
    idle = np.maximum(begin[1:] - latest[:-1], 0).sum()
    covered = float(latest[-1] - begin[0] - idle)
    return float((end_s - begin_s).sum()) / covered if covered > 0 else None


def latency_of(definition: Definition, weight: Weight, values: np.ndarray, key: str) -> Latency | None:
    """Return what single values make, those that are not a number left out; None of nothing."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    percents = (50.0, 90.0, 95.0, 99.0)
    median, *rest = np.percentile(known, percents).tolist()
    return Latency(definition, weight, float(known.mean()), median, float(known.std()), dict(zip(percents[1:], rest, strict=True)), key)
