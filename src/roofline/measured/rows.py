"""The rows of a comparison: every time of a measurement that something can be held against."""

from collections.abc import Mapping
from math import isinf
from typing import Any

from roofline.deployment import Deployment
from roofline.estimate import Estimate
from roofline.floors import Floor, step_floor
from roofline.measured.gaps import OF_REQUEST, Part, kernel_parts, of_a_token, prompts_part, remainder, unless_refuted
from roofline.measured.labels import Label, find_labels
from roofline.measured.measurement import Latency, ServingMeasurement
from roofline.measured.point import Point
from roofline.measured.times import Beside, ComparedTime, finite, interval_of, is_below, is_per_step, typical, used
from roofline.serving import ServingEstimate
from roofline.step import Step

_MANY = 1024  # sequences, among which work spreads evenly


def compared_times(measurement: ServingMeasurement, beside: Beside) -> tuple[list[ComparedTime], list[str]]:
    """Return all times of a measurement that something can be held against, and sentences on those that it cannot."""
    rows: list[ComparedTime] = []
    notes: list[str] = []
    point, known = beside.point, measurement.latencies()
    if point.prompt is not None:
        rows += _first(measurement, beside)
    elif "ttft" in known or measurement.prefill_s:
        notes.append("the length of prompts is not known, so the time to the first token has no floor: give prompt=")
    if point.batch is not None and point.context is not None:
        rows += [*_tokens(measurement, beside, notes), *_request(measurement, beside)]
    elif {"tpot", "itl", "step", "e2e"} & known.keys():
        missing = [] if point.batch is not None else ["batch="]
        missing += [] if point.context is not None else ["prompt= and output=, or context="]
        notes.append(f"it is not known what a decode step held: give {' and '.join(missing)}")
    return rows + _run(measurement, beside, notes), notes


def _first(measurement: ServingMeasurement, beside: Beside) -> list[ComparedTime]:
    """Return the time to the first token, or that of a static batch's prefill."""
    rows, point = [], beside.point
    ttft = measurement.latencies().get("ttft")
    found = {
        "ttft": None if ttft is None else typical("ttft", ttft),
        "prefill": (measurement.prefill_s, "time") if measurement.prefill_s else None,
    }
    step = beside.estimated(beside.decode(beside.deployment, {})) if point.batch and point.context is not None and not point.exact else None
    running = None if step is None or ttft is None else float(step.time_s)
    for name, time in found.items():
        if time is None:
            continue
        measured, statistic = time
        batch = point.batch or 1 if name == "prefill" else 1
        floor = beside.prompt(beside.deployment, {}, batch=batch)
        estimate, served = beside.estimated(floor), beside.served if name == "ttft" else None
        below = is_below(measured, float(floor.time_s))

        def least(deployment: Deployment, change: Mapping[str, Any], batch: int = batch) -> float:
            return float(beside.prompt(deployment, change, batch=batch).time_s)

        given = {"prompt": round(point.prompt or 1), "batch": batch}
        rows.append(
            ComparedTime(
                name=name,
                what=f"{statistic} of first token − sent" if name == "ttft" else "a prefill of the whole batch",
                measured_s=measured,
                floor_s=float(floor.time_s),
                **interval_of(estimate, 1.0),
                served_s=None if served is None else finite(served.ttft_s),
                **used(floor, measured),
                parts=() if below else tuple(_first_parts(floor, estimate, served, measured, running)),
                labels=find_labels(floor, least, measured, drafts=False, given=given) if below else (),
            )
        )
    return rows


def _first_parts(
    floor: Floor, estimate: Estimate | None, served: ServingEstimate | None, measured: float, step_s: float | None
) -> list[Part]:
    """Return what a time to the first token consists of beside its floor; `step_s` is what a step takes that runs when a request comes."""
    parts, distance = [] if estimate is None else kernel_parts(estimate), measured - float(floor.time_s)
    if served is not None and estimate is not None:
        host, queue = float(served.host_s) + float(estimate.overhead_s), finite(served.queue_s) or 0.0
        others = max((finite(served.prompt_s) or 0.0) - float(estimate.time_s), 0.0)
        waits = max(queue, float(served.step_s))
        parts = [part for part in parts if part.name != "host"]
        of_service = [
            Part("host", host, 0.0, host, OF_REQUEST),
            Part("queue", queue, 0.0, waits, "estimated: waiting for the step that runs, and for requests before it"),
            Part("prompts of others", others, 0.0, others, "estimated: who else is in the steps of the prompt"),
        ]
        return remainder(distance, [*parts, *unless_refuted(distance, parts, of_service, float(served.ttft_s) / measured)])
    if step_s is not None:
        parts.append(Part("queue", step_s / 2, 0.0, step_s, "estimated: waiting for the step that runs, half of one on average"))
    return remainder(distance, parts)


def _decodes(measurement: ServingMeasurement, point: Point, notes: list[str]) -> list[tuple[str, float, str, Latency | None]]:
    """Return the times of tokens and steps: name, time, what it is, and whose it is."""
    found: list[tuple[str, float, str, Latency | None]] = []
    known = measurement.latencies()
    first = None if "ttft" not in known else known["ttft"].typical_s
    for name in ("tpot", "itl", "step"):
        latency = known.get(name)
        if latency is None or (time := typical(name, latency)) is None:
            continue
        seconds, what = time[0], f"{time[1]} of {latency.definition}, by {latency.weight}"
        if latency.definition == "per token with the first":
            if first is None or point.output is None or point.output <= 1:
                notes.append(f"{latency.key or name} holds the first token, and without its time it is no time of a step")
                continue
            seconds, what = (point.output * seconds - first) / (point.output - 1), f"{what}, less the first token"
            if seconds <= 0:
                notes.append(
                    f"{latency.key or name} and the time to the first token contradict each other: nothing is left for the other tokens"
                )
                continue
        found.append((name, seconds, what, latency))
    e2e = measurement.e2e
    if "tpot" not in known and e2e is not None and e2e.mean_s and first and point.output and point.output > 1 and e2e.mean_s > first:
        derived = (e2e.mean_s - first) / (point.output - 1)
        found.insert(0, ("tpot", derived, "derived: (mean end to end − time to first token) / (mean output − 1)", None))
    return found


def _tokens(measurement: ServingMeasurement, beside: Beside, notes: list[str]) -> list[ComparedTime]:
    """Return times of tokens and of steps beside the step that they are of."""
    point = beside.point
    floor = beside.decode(beside.deployment, {})
    estimate, found = beside.estimated(floor), _decodes(measurement, point, notes)
    yielded = {name: 1.0 if latency is not None and is_per_step(latency) else point.accepted for name, _, _, latency in found}
    times = {name: seconds * yielded[name] for name, seconds, _, _ in found}  # of a step each
    alone = measurement.itl is not None and measurement.itl.median_s  # a gap in which there is mostly no prompt
    between = max(times["tpot"] - times["itl"], 0.0) if alone and {"tpot", "itl"} <= times.keys() else None
    rows = []
    for name, seconds, what, latency in found:
        tokens = yielded[name]
        floor_s = float(floor.time_s) / tokens
        below = is_below(seconds, floor_s)

        def least(deployment: Deployment, change: Mapping[str, Any], tokens: float = tokens) -> float:
            return float(beside.decode(deployment, change).time_s) / tokens

        others = prompts_part(between, _met(beside.served, tokens)) if name == "tpot" or (name == "itl" and not alone) else None
        given = {"batch": point.batch, "context": point.context}
        drafts = tokens == 1 and (name == "tpot" or "per token" in what)
        rows.append(
            ComparedTime(
                name=name,
                what=what,
                measured_s=seconds,
                floor_s=floor_s,
                **interval_of(estimate, tokens),
                served_s=_served(name, beside.served, point.accepted / tokens),
                **used(floor, times[name]),
                parts=() if below or estimate is None else of_a_token(_step_parts(estimate, times[name], others, beside.busy), tokens),
                labels=(*_bursts(latency, what, floor_s), *find_labels(floor, least, seconds, drafts=drafts, given=given)) if below else (),
            )
        )
    return rows


def _bursts(latency: Latency | None, what: str, floor_s: float) -> tuple[Label, ...]:
    """Return what explains a median gap below the floor whose mean is above it: chunks that arrive together."""
    if latency is None or latency.mean_s is None or latency.mean_s < floor_s or not what.startswith("median"):
        return ()
    return (
        Label("the median of gaps between chunks that arrive together; their mean is meant", {}, floor_s, latency.mean_s / floor_s, True),
    )


def _step_parts(estimate: Estimate, measured: float, others: Part | None, busy: float | None) -> list[Part]:
    """Return what a step consists of beside its floor; time in which no kernel ran is the host's, where that was measured."""
    parts = kernel_parts(estimate)
    if busy is not None:
        idle = (1 - busy) * measured
        parts = [part for part in parts if part.name != "host"]
        parts.append(Part("host", idle, idle, idle, "measured: no kernel ran"))
    return remainder(measured - float(estimate.floor.time_s), parts if others is None else [*parts, others])


def _served(name: str, served: ServingEstimate | None, steps: float) -> float | None:
    """Return what the estimate of the service says of a time of a token, or of so many tokens' share of a step."""
    if served is None or name == "step":
        return None
    if name == "tpot":
        return finite(served.tpot_s)
    return None if (step := finite(served.step_s)) is None else step / served.service.server.tokens * steps


def _met(served: ServingEstimate | None, tokens: float) -> float | None:
    """Return what prompts of others add to each step, by the estimate of the service [s]."""
    tpot, step = (None, None) if served is None else (finite(served.tpot_s), finite(served.step_s))
    return None if tpot is None or step is None else max(tpot * tokens - step, 0.0)


def _request(measurement: ServingMeasurement, beside: Beside) -> list[ComparedTime]:
    """Return the time of a whole request: that of its first token, and of all others."""
    point = beside.point
    e2e = measurement.latencies().get("e2e")
    if e2e is None or (time := typical("e2e", e2e)) is None or point.prompt is None or point.output is None:
        return []
    rest, batch = max(point.output - 1, 0.0) / point.accepted, point.batch or 1 if point.exact else 1

    def least(deployment: Deployment, change: Mapping[str, Any]) -> float:
        return float(beside.prompt(deployment, change, batch=batch).time_s) + rest * float(beside.decode(deployment, change).time_s)

    first, step = beside.prompt(beside.deployment, {}, batch=batch), beside.decode(beside.deployment, {})
    floor_s = least(beside.deployment, {})
    estimates = beside.estimated(first), beside.estimated(step)
    sums: dict[str, Any] = {}
    if estimates[0] is not None and estimates[1] is not None:
        ends = interval_of(estimates[0], 1.0), interval_of(estimates[1], 1.0)
        sums = {name: ends[0][name] + rest * ends[1][name] for name in ends[0]}
    given = {"batch": point.batch, "context": point.context}
    labels = find_labels(step, least, time[0], drafts=point.accepted == 1, given=given) if is_below(time[0], floor_s) else ()
    return [
        ComparedTime(
            name="e2e",
            what=f"{time[1]} of last token − sent",
            measured_s=time[0],
            floor_s=floor_s,
            **sums,
            served_s=None if beside.served is None else finite(beside.served.e2e_s),
            labels=labels,
        )
    ]


def _run(measurement: ServingMeasurement, beside: Beside, notes: list[str]) -> list[ComparedTime]:
    """Return the share of one request in a run whose requests did not wait to be sent: against arithmetic alone, and as expected."""
    point, rate, output = beside.point, measurement.request_rate, beside.point.output
    hurried = (rate is not None and isinf(rate)) or (rate is None and measurement.max_concurrency is not None)
    if not hurried or beside.deployment.parallel.pipeline > 1:
        return []
    if point.prompt is None or not output:
        notes.append("the rate of the run needs the lengths of requests: give prompt= and output=")
        return []
    if measurement.duration_s and measurement.completed:
        measured, what = measurement.duration_s / measurement.completed, "duration over requests"
    elif measurement.output_tokens_per_s:
        measured, what = output / measurement.output_tokens_per_s, "tokens of an answer over tokens a second"
    else:
        return []
    served = None if beside.served is None else finite(beside.served.requests_per_s)
    context = point.context if point.context is not None else round(point.prompt + output / 2)

    def least(deployment: Deployment, change: Mapping[str, Any]) -> float:
        many = _MANY * deployment.parallel.data  # so that every group of devices, and every expert, has its share
        token = step_floor(deployment, step=Step.decode(batch=many, context=change.get("context", context)))
        prompt = beside.prompt(deployment, {"batch": many, **change})
        return (float(prompt.compute_s) + max(output - 1, 0.0) * float(token.compute_s)) / many / beside.replicas

    floor_s = least(beside.deployment, {})
    if floor_s <= 0:  # no peak is known
        return []
    prompt = beside.prompt(beside.deployment, {}, batch=_MANY)  # bound by its products
    given = {"prompt": round(point.prompt), "context": context}
    return [
        ComparedTime(
            name="run",
            what=f"time of the service for each request ({what}), against arithmetic alone",
            measured_s=measured,
            floor_s=floor_s,
            served_s=None if not served else 1 / served,
            labels=find_labels(prompt, least, measured, drafts=False, given=given) if is_below(measured, floor_s) else (),
        )
    ]
