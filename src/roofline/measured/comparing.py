"""`compare`: a measurement, or a table of steps, beside the estimates and floors of the same."""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import inf, isinf
from pathlib import Path
from typing import Any, Unpack

from roofline.deployment import Deployment
from roofline.deployment.machine import Machine
from roofline.deployment.options import ALL, DeploymentOptions, asks
from roofline.errors import InvalidValueError, RooflineError, quoted
from roofline.estimate.constants import check_interval
from roofline.measured.comparison import Comparison, check_any
from roofline.measured.engines import EngineWindow
from roofline.measured.gaps import AT_MOST
from roofline.measured.labels import too_long
from roofline.measured.measurement import ServingMeasurement
from roofline.measured.point import Point, find_point
from roofline.measured.reading import read_measurement
from roofline.measured.rows import compared_times
from roofline.measured.step_columns import is_table
from roofline.measured.steps import StepComparison, compare_steps
from roofline.measured.subject import Subject, find_record, find_subject
from roofline.measured.times import Beside, unfit_note
from roofline.records import CalibrationRecord
from roofline.requests import RequestTimes
from roofline.serving import ServingEstimate, Simulation, serving_estimate
from roofline.step import expected_tokens
from roofline.units import check_flag, whole_number

_WITH_WAITS = ("ttft", "e2e", "run")  # an overloaded service makes them as long as one likes
_NEVER_IDLE = 4.0  # sequences that decode on average, with which an engine is without work for less than 2 % of the time (Poisson)


@asks(ALL)
def compare(
    measurement: Any,
    model: Any = None,
    hardware: Machine = None,
    *,
    run: int | None = None,
    batch: float | None = None,
    context: float | None = None,
    prompt: float | None = None,
    output: float | None = None,
    cached: float | None = None,
    accepted: float | None = None,
    drafts: int | None = None,
    busy: float | None = None,
    replicas: int | None = None,
    sequences: int | None = None,
    step_tokens: int | None = None,
    kv_blocks: int | None = None,
    engine: str | None = None,
    calibration: CalibrationRecord | str | Path | None = None,
    cuda_graph: bool = True,
    interval: float = 0.8,
    **options: Unpack[DeploymentOptions],
) -> Comparison | StepComparison:
    """Return what was measured beside the estimate and the floor of the same, and what lies between them.

    Parameters
    ----------
    measurement : ServingMeasurement, EngineWindow, RequestTimes, Simulation, path or table
        What was measured: a file that :func:`roofline.measured.read_measurement` reads, or what it returns; what pages of an engine's metrics say; requests
        one by one; or a table of steps, as for :func:`roofline.measured.compare_steps` [-].
    model : str, Path, mapping, object, int, float, Model or Deployment, optional
        What :meth:`Model.load` takes, or a deployment; what the measurement names if not given [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; what the measurement names if not given [-].
    run : int, optional
        Which run of a file that holds several, the first is 0 [-].
    batch : float, optional
        Sequences of a decode step of one replica, if it is not to be derived [-].
    context, prompt, output : float, optional
        Tokens in the cache of a sequence that decodes, of a prompt and of an answer, if they are not those of the measurement [token].
    cached : float, optional
        Tokens of each prompt that a prefix cache had [token].
    accepted : float, optional
        Tokens that a step yields for a sequence under speculation [token].
    drafts : int, optional
        Drafted tokens that a step verifies for a sequence [token].
    busy : float, optional
        Share of the time in which a kernel ran, such as the GPU utilization of nvidia-smi over 100; what the measurement says if not given [-].
    replicas : int, optional
        Replicas of the deployment, which share the requests evenly; what the measurement says, else 1, if not given [-].
    sequences : int, optional
        Most sequences that run at a time; what the measurement says if not given [-].
    step_tokens : int, optional
        Most tokens of a step; the engine's default if not given [token].
    kv_blocks : int, optional
        Blocks of the cache; what fits into the memory if not given [-].
    engine : str, optional
        Whose rules and kernels; what the measurement says, else vLLM's, if not given [-].
    calibration : CalibrationRecord, str or Path, optional
        What estimates rest on; the engine's record of the machine if there is one, else the machine's default, if not given [-].
    cuda_graph : bool, optional
        Whether an estimate's decode steps are launched as one graph [-].
    interval : float, optional
        Probability of the interval of an estimate [-].
    {options}

    Returns
    -------
    Comparison or StepComparison
        Times to the first token, per token, of steps and of requests; for a table, a row for each step [-].

    Raises
    ------
    RooflineError
        If it is not known what ran, and where it cannot be guessed; one clear error for whatever is unknown, malformed or impossible.

    Notes
    -----
    Times per step are held against the floor of a step, times per token against that floor over the tokens that a step yields. Of gaps between tokens the
    median is taken, of all others the mean, where a file has both.

    Examples
    --------
    >>> from roofline.measured import Latency, ServingMeasurement
    >>> run = ServingMeasurement("my client", batch=8, cached_context=853, tpot=Latency("per token after the first", "request", mean_s=14.5e-3))
    >>> round(compare(run, "llama-3.3-70b", "h200-sxm", tensor_parallel=4)["tpot"].over_floor, 2)
    1.97
    """
    given = {
        "batch": batch,
        "context": context,
        "prompt": prompt,
        "output": output,
        "cached": cached,
        "accepted": accepted,
        "drafts": drafts,
    }
    service = {"sequences": sequences, "step_tokens": step_tokens, "kv_blocks": kv_blocks, "cuda_graph": cuda_graph}
    check_interval(interval)
    check_flag("cuda_graph", cuda_graph)
    if busy is not None:
        _check_busy(busy)
    if replicas is not None:
        whole_number("replicas", replicas, minimum=1)
    if is_table(measurement):
        other = {"run": run, "busy": busy, "replicas": replicas, "sequences": sequences, "step_tokens": step_tokens, "kv_blocks": kv_blocks}
        told = [name for name, value in {**given, **other}.items() if value is not None]
        if told:
            raise InvalidValueError(
                f"a table of steps has columns for what steps hold, and is no service: leave out {', '.join(told)}; "
                "a column may hold the same value in each row."
            )
        return compare_steps(measurement, model, hardware, engine=engine, calibration=calibration, cuda_graph=cuda_graph, **options)
    found = _measurement(measurement, run)
    replicas = replicas or found.replicas or 1
    if busy is None and isinstance(measurement, EngineWindow) and measurement.busy and (measurement.batch or 0.0) >= _NEVER_IDLE:
        busy = min(measurement.busy, 1.0)
    if busy is None:
        busy = found.busy
    subject = find_subject(found, model, hardware, engine, options)
    point = find_point(found, subject.deployment, {**given, "replicas": replicas, "sequences": sequences})
    notes = [*subject.deployment.notes, *found.notes, *subject.notes, *point.notes]
    record = find_record(subject.deployment, subject.engine, calibration, cuda_graph=cuda_graph)
    if record is None:
        notes.append(f"{subject.deployment.model.name} has floors but no estimates: only its number of parameters is known")
    served = None
    if record is not None and not point.exact:
        served = _serve(found, subject, point, {**service, "calibration": calibration, "replicas": replicas}, interval, notes)
    beside = Beside(subject.deployment, point, record, cuda_graph, served, interval, replicas, busy)
    times, left = compared_times(found, beside)
    check_any(tuple(times), found, tuple(left))
    if point.batch is not None and point.context is not None:
        notes = [*unfit_note(beside.decode(subject.deployment, {})), *notes]
    notes += [f"{time.name}: {part.how.removeprefix(AT_MOST)}" for time in times for part in time.parts if part.how.startswith(AT_MOST)]
    notes += [text for time in times if time.name not in _WITH_WAITS and (text := too_long(time.name, time.over_floor))]
    return Comparison(found, subject, point, tuple(times), served, record, tuple(dict.fromkeys([*notes, *left])))


def _check_busy(busy: Any) -> None:
    if isinstance(busy, bool) or not isinstance(busy, (int, float)) or not 0 <= busy <= 1:
        raise InvalidValueError(f"busy is {quoted(busy)}; it must be a share from 0 to 1, such as GPU-Util over 100.")


def _measurement(given: Any, run: int | None) -> ServingMeasurement:
    """Return a measurement from whatever holds one."""
    if isinstance(given, ServingMeasurement):
        return given
    if isinstance(given, EngineWindow):
        return given.measurement()
    if isinstance(given, RequestTimes):
        return ServingMeasurement.from_times(given, source="requests one by one")
    if isinstance(given, Simulation):
        return ServingMeasurement.from_times(given.steady[0] if given.steady[0].ended.any() else given.times, source="simulation")
    if isinstance(given, (str, os.PathLike)):
        return read_measurement(given, run=run)
    raise InvalidValueError(
        f"{quoted(given)} is no measurement: give a file of a benchmark client, a ServingMeasurement, RequestTimes or a table of steps."
    )


def _serve(
    measurement: ServingMeasurement, subject: Subject, point: Point, options: Mapping[str, Any], interval: float, notes: list[str]
) -> ServingEstimate | None:
    """Return the estimate of the service at the measured load; None, with a note, where it is not known."""
    if point.prompt is None or point.output is None:
        return None
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if point.drafts:
        given |= {"acceptance": _acceptance(point)} | ({} if point.drafts == subject.deployment.mtp else {"drafts": point.drafts})
    lengths: dict[str, Any] = {"prompt": max(point.prompt, 1.0), "output": max(point.output, 1.0), "output_cv": point.output_cv}
    if point.cached:
        lengths["cached"] = point.cached
    sequences = measurement.sequences
    if sequences is not None:
        given.setdefault("sequences", sequences)
    found = None
    for load in _loads(measurement, point, subject.deployment, int(options["replicas"])):
        try:
            found = serving_estimate(subject.deployment, engine=subject.engine, **lengths, **load, **given)
            if "rate" in load:
                asked = {**lengths, **load, **given, "engine": subject.engine, "quantile": 0.5 + interval / 2}
                notes += _pile(measurement, found, partial(serving_estimate, subject.deployment, **asked))
        except RooflineError as error:
            notes.append(f"the service at this load has no estimate: {str(error).rstrip('.')}")
            return None
        if not found.saturated:
            return found
    return found


def _loads(measurement: ServingMeasurement, point: Point, deployment: Deployment, replicas: int) -> Iterator[dict[str, Any]]:
    """Yield the load as a service is asked about it, best first; a rate that the estimate cannot serve tells no times, but requests in flight do."""
    rate = measurement.request_rate
    if rate is not None and isinf(rate) and measurement.completed:  # all clients begin together
        clients = max(float(min(measurement.max_concurrency or inf, measurement.completed)), 1.0)
        yield {"concurrency": clients, "rounds": max(measurement.completed / clients, 1.0)}
    elif measurement.max_concurrency is None and (sent := rate or measurement.requests_per_s) is not None and not isinf(sent):
        yield {"rate": sent}
    if measurement.concurrency is not None:
        yield {"concurrency": max(measurement.concurrency, 1.0)}
    elif point.batch is not None:
        yield {"concurrency": float(point.batch * replicas * deployment.parallel.pipeline)}


def _pile(measurement: ServingMeasurement, served: ServingEstimate, slower: Callable[[], ServingEstimate]) -> list[str]:
    """Return a sentence if more requests are in flight than the rate explains (Little), with steps at the upper end of their interval too (`slower`)."""
    rate, most = float(served.asked["rate"]), float(served.most_per_s)
    if served.saturated:
        return [f"{rate:.4g} requests/s are sent, and the estimate serves {most:.4g} at most: they pile up for as long as they come"]
    expected, flying = rate * float(served.e2e_s), measurement.concurrency
    if flying is None or not flying > max(expected, 1.0) or not flying > (at_most := rate * float(slower().e2e_s)):
        return []
    return [
        f"{flying:.4g} requests are in flight where the rate explains {expected:.3g}, and {at_most:.3g} if steps take as long as the interval "
        "allows: each makes the steps of all longer"
    ]


def _acceptance(point: Point) -> float:
    """Return the probability of accepting each draft with which a verification yields what was measured, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_tokens(point.drafts, middle) < point.accepted else (low, middle)
    return (low + high) / 2
