"""Why a phase takes longer than its estimate: what is looked for, in this order, and what the input says of it."""

from collections.abc import Iterator
from math import exp, isfinite
from typing import Any

from roofline.diagnose.phase import HEALTHY, Cause
from roofline.diagnose.seen import Seen
from roofline.errors import RooflineError
from roofline.estimate import step_estimate
from roofline.floors import step_floor
from roofline.measured import ComparedTime, Comparison, Part
from roofline.measured.gaps import AT_MOST, OF_REQUEST
from roofline.step import Step
from roofline.units import show_time

IDLE_BELOW = 0.8
"""Share of the time with a kernel, below which devices wait for the host [-]."""
_MUCH = 0.25  # of the time beyond the estimate: a part as large as that explains it
_SLOWER = 1.1  # times an estimate, from which on another label makes a difference
_WAIT = 0.5  # requests that wait on average, from which on a first token waits for others
_ALONE = 1.05  # requests in flight on average, up to which none of them waits for another


def causes_of_tokens(comparison: Comparison, row: ComparedTime, seen: Seen, step: Step) -> tuple[Cause, ...]:
    """Return what makes tokens slower than the estimate of their step: prompts of others, the host, labels."""
    return (_prompts(comparison, row), _host(comparison, row, seen), _labels(comparison, row, step))


def causes_of_prompts(comparison: Comparison, row: ComparedTime, seen: Seen, step: Step) -> tuple[Cause, ...]:
    """Return what makes the first token later than the estimate of its prompt: a queue, the host, the front end, labels."""
    return (
        _queue(comparison, row, seen.waiting),
        _host(comparison, row, seen),
        _front_end(row),
        _labels(comparison, row, step),
    )


def refuted(row: ComparedTime) -> str:
    """Say that the estimate at this load is far above what was measured, so that no part of it tells what the time is made of; empty if it is not."""
    undivided = any(part.how.startswith(AT_MOST) for part in row.parts)
    if row.served_s is None or not (undivided or row.served_s > HEALTHY * row.measured_s):
        return ""
    return f"at this load {show_time(row.served_s)} are expected, {row.served_s / row.measured_s:.2g} × what was measured, so the split is not known"


def is_front_end(part: Part) -> bool:
    """Return whether a part is what a request goes through before and in its step, which a comparison counts to the host."""
    return part.name == "host" and part.how.startswith((OF_REQUEST, AT_MOST))


def _beyond(row: ComparedTime) -> float:
    return row.measured_s - (row.estimate_s or row.floor_s)


def _part(row: ComparedTime, name: str) -> Part | None:
    return next((part for part in row.parts if part.name == name), None)


def _alone(comparison: Comparison) -> bool:
    measured, flight = comparison.measurement, comparison.point.concurrency
    return measured.max_concurrency == 1 or (comparison.point.exact and comparison.point.batch == 1) or (flight or 2.0) <= _ALONE


def _queue(comparison: Comparison, row: ComparedTime, waiting: float | None) -> Cause:
    """Say whether requests waited before their prompt was computed."""
    name, point = "queue", comparison.point
    if waiting is not None and waiting >= _WAIT:
        return Cause(name, True, f"{waiting:.1f} requests wait on average, as the engine counts them")
    if _alone(comparison):
        return Cause(name, False, "one request is in flight, so it waits for no other")
    if row.name == "prefill":
        return Cause(name, False, "a static batch has no queue")
    step = comparison.decode
    running = None if step is None or step.estimate_s is None else step.estimate_s * point.accepted
    beyond = show_time(_beyond(row))
    if running is not None and _beyond(row) <= running:
        return Cause(
            name, False, f"{beyond} beyond the estimate are no more than the step that runs when a request comes ({show_time(running)})"
        )
    flight, batch = point.concurrency, point.batch
    replicas = comparison.measurement.replicas or 1
    if flight is not None and batch is not None and flight / replicas > 2 * batch:
        return Cause(name, True, f"{flight / replicas:.4g} requests are in flight and {batch} of them decode: the others wait")
    known = [
        part for part in (_part(row, "queue"), _part(row, "prompts of others")) if part is not None and part.how.startswith("estimated")
    ]
    expected = sum(part.expected_s for part in known)
    if known and (doubt := refuted(row)):
        return Cause(name, None, doubt)
    if expected >= _MUCH * _beyond(row):
        return Cause(name, True, f"{show_time(expected)} of waiting for steps, requests and prompts before it are expected at this load")
    rate = comparison.measurement.request_rate
    if rate is not None and not isfinite(rate) and comparison.measurement.max_concurrency is None:
        return Cause(name, True, "all requests were sent at once, so most prompts waited for others")
    if comparison.served is None:
        return Cause(name, None, f"nothing tells how many requests waited; {beyond} lie beyond the estimate of the prompt")
    return Cause(name, False, f"only {show_time(expected)} of waiting are expected at this load")


def _prompts(comparison: Comparison, row: ComparedTime) -> Cause:
    """Say whether prompts of other requests were computed between the tokens of one."""
    name = "prompts of others"
    if _alone(comparison):
        return Cause(name, False, "one request is in flight, so there are no prompts of others")
    if row.name == "step":
        return Cause(name, False, "the time is of steps, whose batch is known")
    if row.name == "itl" and row.what.startswith("median"):
        return Cause(name, False, "the median gap between tokens has mostly no prompt in it")
    part = _part(row, name)
    if part is None:
        return Cause(name, None, "there is no median gap between tokens beside the time per token, which would tell")
    share = part.expected_s / _beyond(row) if _beyond(row) > 0 else 0.0
    measured = part.how.startswith("measured")
    if not measured and (doubt := refuted(row)):
        return Cause(name, None, doubt)
    said = f"{show_time(part.expected_s)} of the {show_time(_beyond(row))} beyond the estimate"
    how = "the time per token less the median gap" if measured else "estimated at this load, since there is no median gap between tokens"
    if share >= _MUCH:
        return Cause(name, True, f"{said} ({how})")
    return Cause(name, False if measured else None, f"{said} ({how})")


def _host(comparison: Comparison, row: ComparedTime, seen: Seen) -> Cause:
    """Say whether devices waited for the host, by the share of the time in which any kernel ran."""
    name = "host"
    if seen.busy is None:
        return Cause(name, None, "no counter says how long devices had nothing to do: busy=, or a recording of a monitor (monitor=)")
    said = f"a kernel ran in {seen.busy:.0%} of the time ({seen.source})"
    flight, rate = comparison.point.concurrency, comparison.measurement.request_rate
    without = exp(-flight) if flight is not None and rate is not None and isfinite(rate) else 0.0
    if seen.busy >= IDLE_BELOW:
        return Cause(name, False, said)
    if seen.busy >= IDLE_BELOW * (1 - without):
        return Cause(name, None, f"{said}, but at this load the engine has no request in {without:.0%} of it")
    working = seen.busy * row.measured_s
    estimate = "" if row.estimate_s is None else f", {working / row.estimate_s:.2g} × the estimate"
    return Cause(
        name, True, f"{said}: {show_time(working)} of {show_time(row.measured_s)} are kernels{estimate}; for the rest devices waited"
    )


def _front_end(row: ComparedTime) -> Cause:
    """Say whether HTTP, tokenizer and scheduler take much of the time; it is estimated, no client measures it."""
    name = "front end"
    part = next((part for part in row.parts if is_front_end(part)), None)
    if doubt := refuted(row):
        return Cause(name, None, doubt)
    if part is None:
        return Cause(name, None, "what a request goes through before its step is not known at this load")
    expected, beyond = show_time(part.expected_s), show_time(_beyond(row))
    said = f"{expected} for HTTP, tokenizer, scheduler and launches are expected at this load; {beyond} lie beyond the estimate"
    return Cause(name, part.expected_s >= _MUCH * _beyond(row), said)


def _labels(comparison: Comparison, row: ComparedTime, step: Step) -> Cause:
    """Say what may be other than it was said, and with which labels the time would be as expected."""
    doubts = list(comparison.subject.assumed)
    if comparison.record is not None and comparison.record.id == "generic":
        doubts.append("the estimate has the generic constants, of no machine in particular")
    said = f"taken without being said: {'; '.join(doubts)}" if doubts else "everything was said, so check that it is so"
    fits = list(_fitting(comparison, row, step))
    return Cause("labels", None, f"{said}; it would be as expected with {' or '.join(fits)}" if fits else said)


def _fitting(comparison: Comparison, row: ComparedTime, step: Step) -> Iterator[str]:
    """Yield slower deployments of which the measured time would be as expected: fewer devices, weights of 16 bits."""
    deployment, record = comparison.deployment, comparison.record
    if record is None or row.estimate_s is None:
        return
    now = float(step_estimate(deployment, step=step, calibration=record).time_s)
    shared = deployment.parallel.tensor
    changes: list[dict[str, Any]] = [{"tensor_parallel": shared // part} for part in (2, 4, 8) if shared % part == 0]
    for change in (*changes, {"weights": "bf16"}):
        if change.keys() & comparison.subject.stated.keys():  # what the measurement itself says is no guess
            continue
        try:
            changed = deployment.but(**change)
            slower = float(step_estimate(changed, step=step, calibration=record).time_s) / now
        except RooflineError:  # not for this model or machine
            continue
        ratio = row.measured_s / row.estimate_s / slower
        fits = step_floor(changed, step=step).fits is not False
        if fits and slower > _SLOWER and 1 / HEALTHY <= ratio <= HEALTHY:
            yield f"{', '.join(f'{name}={value}' for name, value in change.items())} ({ratio:.2f} × its estimate)"
