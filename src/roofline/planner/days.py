"""A plan over a day: replicas period by period, what they save, and what is kept of the promises."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from roofline.errors import InvalidValueError
from roofline.planner.demand import check_workload
from roofline.planner.questions import replica_rate
from roofline.planner.trials import fleet_of
from roofline.requests import Workload
from roofline.serving.simulation.routing import Choose
from roofline.units import check_rate

if TYPE_CHECKING:
    from roofline.planner.result import Plan


class Shift(NamedTuple):
    """One period of a schedule.

    Parameters
    ----------
    start_s : float
        When it begins [s].
    rate : float
        What comes [request/s].
    replicas : int
        Replicas that serve, spare ones included [-].
    """

    start_s: float
    rate: float
    replicas: int


class Schedule(NamedTuple):
    """Replicas period by period.

    Parameters
    ----------
    shifts : tuple of Shift
        The periods [-].
    replica_rate : float
        The largest load at which a replica keeps the promises, simulated [request/s].
    device_hours, static_device_hours : float
        Hours of all devices, starts included; and with the most replicas all the time [-].
    share, static_share : float
        Requests that keep all promises, of all, simulated [-].
    saved : float
        Device-hours saved, of those of the static fleet [-].
    """

    shifts: tuple[Shift, ...]
    replica_rate: float
    device_hours: float
    static_device_hours: float
    share: float
    static_share: float
    saved: float


def schedule(plan: "Plan", trace: Workload, period_s: float, start_delay_s: float, ahead: bool, head_room: float) -> Schedule:
    """Return how many replicas it takes period by period."""
    check_workload("trace", trace)
    best, spare = plan.cheapest.trial.candidate, plan.asked.spare
    if best.prefill is not None or plan.candidates.demand.closed or trace.clients is not None:
        raise InvalidValueError("a schedule is of one pool, and of requests that arrive.")
    delay = check_rate("start_delay_s", start_delay_s, "s", least=0, most=86_400, positive=False)
    room = 1 + check_rate("head_room", head_room, "-", least=0, most=100, positive=False)
    periods, each = trace.by_hour(period_s=period_s), replica_rate(plan)
    needed = [max(ceil(room * period.rate / each - 1e-9), 1) + spare for period in periods]
    # without foresight a period begins with what the one before needed, and has its own only once that is seen and started
    serving = needed if ahead else [needed[0], *needed[:-1]]
    most = max(needed)
    begins = [period.start_s + (0 if ahead or not at else delay) for at, period in enumerate(periods)]
    started = sum(max(now - before, 0) for before, now in zip([0, *serving], serving, strict=False))
    span_h = len(periods) * period_s / 3600
    hours = best.deployment.devices * (sum(serving) * period_s + started * delay) / 3600
    static = best.deployment.devices * most * span_h
    traffic = plan.asked.traffic()
    fleet = fleet_of(replace(best, replicas=most), traffic)
    shares = []
    for counts in (serving, [most] * len(periods)):
        run = replace(fleet, router=_of_those_that_serve(trace, begins, counts)).serve(
            trace, traffic.seed, token_times="itl_s" in traffic.slo.promises
        )
        shares.append(run.times.goodput(traffic.slo).share)
    shifts = tuple(Shift(period.start_s, period.rate, count) for period, count in zip(periods, serving, strict=True))
    return Schedule(shifts, each, hours, static, shares[0], shares[1], 1 - hours / static if static else 0.0)


def _of_those_that_serve(trace: Workload, begins: Sequence[float], counts: Sequence[int]) -> Choose:
    """Return a router that lets those replicas take turns that serve when a request arrives."""
    period = np.maximum(np.searchsorted(begins, trace.arrival_s, side="right") - 1, 0)
    serve = np.asarray(counts)[period].tolist()
    return lambda request, seen: request % serve[request]
