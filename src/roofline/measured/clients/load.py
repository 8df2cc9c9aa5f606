"""What follows from the totals of a run: mean lengths, rates, and how many requests were in flight."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from roofline.errors import InvalidValueError
from roofline.measured.clients.content import Content
from roofline.measured.measurement import Latency, ServingMeasurement, fields_of_times
from roofline.requests import RequestTimes

_DETAILS = ("ttfts", "itls", "latencies", "start_times")


def totals(content: Content) -> dict[str, Any]:
    """Return the fields that the totals of a flat file make: those of vLLM's client and of all that descend from it."""
    completed, sent = content.count("completed"), content.count("num_prompts")
    failed = content.count("failed")
    if failed is None and completed is not None and sent is not None and sent >= completed:
        failed = sent - completed
    inputs, outputs, duration = (
        content.positive("total_input_tokens"),
        content.positive("total_output_tokens"),
        content.positive("duration"),
    )
    found: dict[str, Any] = {
        "duration_s": duration,
        "completed": completed,
        "failed": failed,
        "prompt": inputs / completed if inputs and completed else None,
        "output": outputs / completed if outputs and completed else None,
        "request_rate": request_rate(content),
        "max_concurrency": content.count("max_concurrency") or None,
        "requests_per_s": content.positive("request_throughput") or (completed / duration if completed and duration else None),
        "prompt_tokens_per_s": content.positive("input_throughput") or (inputs / duration if inputs and duration else None),
        "output_tokens_per_s": content.positive("output_throughput") or (outputs / duration if outputs and duration else None),
    }
    return found


def request_rate(content: Content) -> float | None:
    """Return the rate of arrivals; None where arrivals are those of a trace."""
    if content.text("request_rate") == "trace":
        return None
    return content.number("request_rate") or None


def completed_with(found: Mapping[str, Any], content: Content) -> ServingMeasurement:
    """Return the measurement of a run: times of failed runs left out, single requests where the file has them, concurrency derived."""
    known = {name: value for name, value in found.items() if value is not None}
    notes = list(known.pop("notes", ()))
    if known.get("completed") == 0:
        known, said = without_answers(known)
        notes.append(said)
    elif any(isinstance(content.data.get(name), Sequence) and content.data.get(name) for name in _DETAILS) and "output_lens" in content:
        try:
            single = fields_of_times(RequestTimes.from_records(dict(content.data)))
        except InvalidValueError as error:
            notes.append(f"the lists of single requests are left out: {error}")
        else:
            notes += single.pop("notes")
            known = {**{name: value for name, value in single.items() if value is not None}, **known}
    known, more = with_concurrency(known)
    return ServingMeasurement(**known, notes=(*notes, *more))


def without_answers(known: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the fields of a run in which no request was answered, without times and rates, and what to say of it."""
    failed = f" ({known['failed']} failed)" if known.get("failed") else ""
    kept = {name: value for name, value in known.items() if not isinstance(value, Latency) and not name.endswith("_per_s")}
    return kept, f"no request was answered{failed}: the zeros that stand for times and rates are left out"


def with_concurrency(known: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    r"""Return the fields with the mean number of requests in flight, by Little's law :math:`N e / d`, and what to say of it."""
    completed, duration = known.get("completed"), known.get("duration_s")
    if "concurrency" in known:
        return known, []
    if completed and duration:
        e2e, said = _end_to_end(known)
        if e2e is not None:
            notes = [f"requests in flight: those that ended × {said} / duration"] if said else []
            return {**known, "concurrency": completed * e2e / duration}, notes
    clients = known.get("max_concurrency")
    if clients and math.isinf(known.get("request_rate", 0.0)) and completed:
        return {**known, "concurrency": float(clients)}, [
            "requests in flight: the most that the client allows, as it sends the next when one ends"
        ]
    return known, []


def _end_to_end(known: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return the mean time of a request, and what stands for it where it is not stated."""
    e2e: Latency | None = known.get("e2e")
    if e2e is not None and e2e.typical_s is not None:
        return e2e.typical_s, "" if e2e.mean_s is not None else "their median time"
    first, output = known.get("ttft"), known.get("output")
    # Both bound the mean of a token from above: gaps where chunks hold several tokens, means over requests where short answers are slow ones.
    rest = [time for name in ("tpot", "itl") if (one := known.get(name)) is not None and (time := one.typical_s) is not None]
    if first is None or first.typical_s is None or output is None or not rest:
        return None, ""
    return first.typical_s + min(rest) * max(output - 1, 0), "(TTFT + time per token × (output − 1))"
