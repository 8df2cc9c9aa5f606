"""Where a measurement was taken: lengths, context and batch of its steps, and how each of them is known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, inf, isfinite
from typing import Any

import numpy as np

from roofline.capacity import max_batch
from roofline.deployment import Deployment
from roofline.errors import InvalidValueError, RooflineError, quoted
from roofline.measured.measurement import ServingMeasurement

_LONGEST = 1e9


@dataclass(frozen=True, slots=True)
class Point:
    """What a step held, on average.

    Parameters
    ----------
    batch : int, optional
        Sequences of a decode step of one replica; None where nothing tells it [-].
    context : int, optional
        Tokens in the cache of each [token].
    prompt, output : float, optional
        Tokens of a request [token].
    cached : float
        Tokens of each prompt that a prefix cache had [token].
    output_cv : float
        Standard deviation of the answers' lengths over their mean, as far as `context` tells it [-].
    concurrency : float, optional
        Requests in flight, waiting ones included [-].
    accepted : float
        Tokens that a step yields for a sequence: 1 without speculation [token].
    drafts : int
        Drafted tokens that a step verifies for a sequence [token].
    exact : bool
        Whether batch and lengths are those of every step, as in a static batch [-].
    known : mapping of str to str
        How each of them is known [-].
    notes : tuple of str
        What a reader must know [-].
    """

    batch: int | None
    context: int | None
    prompt: float | None
    output: float | None
    cached: float
    output_cv: float
    concurrency: float | None
    accepted: float
    drafts: int
    exact: bool
    known: Mapping[str, str]
    notes: tuple[str, ...]


def find_point(measurement: ServingMeasurement, deployment: Deployment, given: Mapping[str, Any]) -> Point:
    """Return where a measurement was taken; what the caller gives counts more than what it says."""
    for name, least in {"batch": 1, "context": 0, "prompt": 1, "output": 1, "cached": 0, "accepted": 1, "drafts": 0}.items():
        _check(name, given.get(name), least)
    known: dict[str, str] = {}
    notes: list[str] = []
    prompt, output = (_either(name, measurement, given, known) for name in ("prompt", "output"))
    context = _context(measurement, given, prompt, output, known)
    accepted, drafts = _speculation(measurement, deployment, given, notes)
    concurrency = measurement.concurrency
    decoding = _decoding(measurement, given, known, accepted)
    batch = None if decoding is None else _capped(decoding, measurement, deployment, given, context, known, notes)
    spread = 0.0
    if prompt is not None and output is not None and context is not None and "output" not in given and measurement.cached_context:
        spread = float(np.sqrt(max(2 * (context - prompt) / output - 1, 0.0)))  # of context = prompt + output (1 + cv²) / 2
    return Point(
        batch=batch,
        context=None if context is None else round(context),
        prompt=prompt,
        output=output,
        cached=float(given.get("cached") or 0),
        output_cv=spread,
        concurrency=concurrency,
        accepted=accepted,
        drafts=drafts,
        exact=batch is not None and all(getattr(measurement, name) is None for name in ("concurrency", "request_rate", "requests_per_s")),
        known=known,
        notes=tuple(notes),
    )


def _check(name: str, value: Any, least: float) -> None:
    """Raise if what the caller gives is no amount."""
    if value is None:
        return
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not least <= value <= _LONGEST:
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be a number of at least {least}.")


def _either(name: str, measurement: ServingMeasurement, given: Mapping[str, Any], known: dict[str, str]) -> float | None:
    if given.get(name) is not None:
        known[name] = "given"
        return float(given[name])
    found = getattr(measurement, name)
    if found is not None:
        known[name] = "measured"
    return None if found is None else float(found)


def _context(
    measurement: ServingMeasurement, given: Mapping[str, Any], prompt: float | None, output: float | None, known: dict[str, str]
) -> float | None:
    """Return the mean tokens in the cache of a sequence that decodes."""
    if given.get("context") is not None:
        known["context"] = "given"
        return float(given["context"])
    lengths_given = given.get("prompt") is not None or given.get("output") is not None
    if measurement.cached_context is not None and not lengths_given:
        known["context"] = "measured"
        return measurement.cached_context
    if prompt is None or output is None:
        return None
    known["context"] = "prompt + output / 2"
    return prompt + output / 2


def _speculation(measurement: ServingMeasurement, deployment: Deployment, given: Mapping[str, Any], notes: list[str]) -> tuple[float, int]:
    accepted = given.get("accepted") or measurement.accepted or 1.0
    drafts = given.get("drafts") if given.get("drafts") is not None else measurement.drafts or deployment.mtp or None
    if drafts is None:
        drafts = ceil(accepted) - 1
        if accepted > 1:
            notes.append(
                f"drafts is not known: a verification is counted with {drafts}, the fewest that yield {accepted:.3g} tokens (drafts=)"
            )
    if accepted > drafts + 1:
        raise InvalidValueError(f"accepted is {accepted:.4g}; a verification of {drafts} drafts yields 1 … {drafts + 1} tokens.")
    if drafts and accepted == 1:
        notes.append("how many drafts were accepted is not known: a step is counted as one token (accepted=)")
    return float(accepted), int(drafts)


def _decoding(measurement: ServingMeasurement, given: Mapping[str, Any], known: dict[str, str], accepted: float) -> float | None:
    """Return the mean number of sequences that decode, of all replicas, by the best evidence there is."""
    if given.get("batch") is not None:
        known["batch"] = "given"
        return float(given["batch"])
    if measurement.batch is not None:
        known["batch"] = "measured"
        return measurement.batch
    for found, how in _counts(measurement, accepted):
        if found is not None and isfinite(found) and found > 0:
            known["batch"] = how
            return found
    return None


def _counts(measurement: ServingMeasurement, accepted: float) -> Iterator[tuple[float | None, str]]:
    """Yield what tells the number of sequences that decode (Little's law), best first."""
    known, rate, output_rate = measurement.latencies(), measurement.requests_per_s, measurement.output_tokens_per_s
    ttft, tpot, itl, e2e = (known.get(name) for name in ("ttft", "tpot", "itl", "e2e"))
    if rate and ttft and e2e and e2e.mean_s and ttft.typical_s:
        yield rate * max(e2e.mean_s - ttft.typical_s, 0.0), f"requests a second × (mean end to end − {ttft.quantile} TTFT)"
    if output_rate and tpot and tpot.typical_s and tpot.definition == "per token after the first":
        yield output_rate * tpot.typical_s, f"tokens a second × {tpot.quantile} TPOT"
    if output_rate and itl and itl.typical_s:
        step = accepted if itl.definition == "gap of chunks" else 1.0
        yield output_rate * itl.typical_s / step, f"tokens a second × {itl.quantile} ITL"
    yield measurement.concurrency, "requests in flight, waiting ones included"
    if measurement.max_concurrency and measurement.request_rate in (None, inf):
        yield float(measurement.max_concurrency), "the most requests in flight: an upper end"


def _capped(
    decoding: float,
    measurement: ServingMeasurement,
    deployment: Deployment,
    given: Mapping[str, Any],
    context: float | None,
    known: dict[str, str],
    notes: list[str],
) -> int:
    """Return the sequences of one replica's step: no more than the engine runs and its memory admits."""
    replicas, stages = int(given.get("replicas") or 1), deployment.parallel.pipeline
    batch = max(round(decoding / replicas / stages), 1)
    if known["batch"] == "given":
        return max(round(decoding), 1)
    sequences = given.get("sequences") or measurement.sequences
    if sequences is not None and batch > sequences * deployment.parallel.data / stages:
        batch = max(int(sequences * deployment.parallel.data // stages), 1)
        notes.append(f"{decoding:.4g} requests in flight include waiting ones: the engine runs {sequences} sequences at a time")
    if context is not None and deployment.memory_capacity is not None:
        try:
            most = float(max_batch(deployment, context=max(ceil(context), 1)))
        except RooflineError:  # a model whose cache is not known
            most = inf
        if 1 <= most < batch:
            notes.append(
                f"{batch} sequences of {context:,.0f} tokens do not fit into the memory, so some of them waited: {most:,.0f} are taken"
            )
            batch = int(most)
    return batch
