"""What a plan costs and what energy it takes, at the load that it is for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from roofline.errors import InvalidValueError
from roofline.hardware import Hardware
from roofline.units import check_rate

if TYPE_CHECKING:
    from roofline.planner.result import Plan

_HOUR = 3600.0


class PlanCost(NamedTuple):
    """What a plan costs, in the currency of the prices.

    Parameters
    ----------
    per_hour, per_request : float
        Of all devices, spare ones included, and of one request at `requests_per_s` [currency].
    per_million_input, per_million_output, per_million_total : float
        The whole cost over a million tokens of prompts, of answers, and of both together [currency].
    requests_per_s : float
        What is served: the load planned for, or the mean rate of a long workload of which the fastest stretch is planned for [request/s].
    """

    per_hour: float
    per_request: float
    per_million_input: float
    per_million_output: float
    per_million_total: float
    requests_per_s: float


class BreakEven(NamedTuple):
    """Above which load a plan's machines are cheaper than a service that charges for tokens.

    Parameters
    ----------
    requests_per_s : float
        The least load at which they are, with as many replicas as that takes; infinite where they never are [request/s].
    per_request : float
        What the service charges for a request of mean lengths [currency].
    own_per_request : float
        What a request costs on the plan's machines, as `PlanCost.per_request` [currency].
    """

    requests_per_s: float
    per_request: float
    own_per_request: float


class PlanEnergy(NamedTuple):
    """What energy a plan takes.

    Parameters
    ----------
    power_w : float
        Of all devices, spare ones included [W].
    per_request_j : float
        Energy of a request, of as many as `PlanCost.requests_per_s` says [J].
    per_output_token_j : float
        Energy of a token of answers [J].
    """

    power_w: float
    per_request_j: float
    per_output_token_j: float


def cost(plan: "Plan", price: float | Mapping[str, float] | None) -> PlanCost:
    """Return what the cheapest plan costs."""
    per_hour = _sum(plan, "price", plan.asked.prices if price is None else price)
    rate, demand = _rate(plan), plan.candidates.demand
    each = per_hour / _HOUR / rate
    million = 1e6 * each
    return PlanCost(per_hour, each, million / demand.prompt, million / demand.output, million / (demand.prompt + demand.output), rate)


def break_even(plan: "Plan", input_price: float, output_price: float, price: float | Mapping[str, float] | None) -> BreakEven:
    """Return above which load a plan is cheaper than a service that charges for tokens."""
    own, demand, candidate = cost(plan, price), plan.candidates.demand, plan.cheapest.candidate
    prices = {"input_price": input_price, "output_price": output_price}
    asks = [check_rate(name, value, "currency", least=0, most=1e9, positive=False) for name, value in prices.items()]
    charged = (demand.prompt * asks[0] + demand.output * asks[1]) / 1e6
    if not charged:
        return BreakEven(float("inf"), 0.0, own.per_request)
    planned, spare = plan.cheapest.trial.candidate.replicas, plan.asked.spare
    each, carries = own.per_hour / candidate.replicas / _HOUR, own.requests_per_s / plan.asked.mean_share / planned
    for replicas in range(1, planned + 1):  # with so many, the load at which they cost no more, if they carry it
        least = (replicas + spare) * each / charged
        if least <= replicas * carries * (1 + 1e-12):
            return BreakEven(max(least, (replicas - 1) * carries), charged, own.per_request)
    more = carries * charged - each  # gained by each further replica
    if more <= 0:
        return BreakEven(float("inf"), charged, own.per_request)
    replicas = -int(-(spare * each) // more)
    return BreakEven((replicas + spare) * each / charged, charged, own.per_request)


def energy(plan: "Plan", power_w: float | Mapping[str, float]) -> PlanEnergy:
    """Return what energy the cheapest plan takes."""
    power, rate = _sum(plan, "power_w", power_w), _rate(plan)
    return PlanEnergy(power, power / rate, power / rate / plan.candidates.demand.output)


def _rate(plan: "Plan") -> float:
    """Return the requests a second that are served, on average over the whole workload."""
    demand = plan.candidates.demand
    return plan.cheapest.trial.output_tokens_per_s / demand.output if demand.closed else demand.load * plan.asked.mean_share


def _sum(plan: "Plan", name: str, given: float | Mapping[str, float] | None) -> float:
    """Return the sum of an amount over all devices."""
    if given is None:
        raise InvalidValueError(
            "no prices were given to the plan: price= says what a device costs for an hour, prices= of plan() for all questions."
        )
    devices = plan.cheapest.candidate.by_machine
    each = (
        {Hardware.load(machine).id: value for machine, value in given.items()}
        if isinstance(given, Mapping)
        else dict.fromkeys(devices, given)
    )
    missing = [machine for machine in devices if machine not in each]
    if missing:
        raise InvalidValueError(f"{name} has none of {', '.join(missing)}, which the plan uses.")
    unit = "W" if name == "power_w" else "currency"
    return float(
        sum(count * check_rate(name, each[machine], unit, least=0, most=1e9, positive=False) for machine, count in devices.items())
    )
