"""Closed forms of a service: what requests wait and take, and the largest rate that keeps a promise."""

from typing import Any, Unpack

from roofline.deployment.deployment import deploy
from roofline.deployment.machine import Machine
from roofline.deployment.options import ALL, asks
from roofline.errors import InvalidValueError
from roofline.estimate.constants import check_interval
from roofline.serving.closed_forms.estimate_result import ServingEstimate
from roofline.serving.closed_forms.operation import Loads, Operation
from roofline.serving.closed_forms.options import SERVICE, ServiceOptions, serves
from roofline.serving.closed_forms.service import Service, lengths_of


@asks(ALL)
@serves
def serving_estimate(
    model: Any,
    hardware: Machine = None,
    *,
    prompt: Any,
    output: Any,
    concurrency: Any = None,
    rate: Any = None,
    interval: float | None = 0.8,
    **options: Unpack[ServiceOptions],
) -> ServingEstimate:
    r"""Return what requests of a service wait and take on average, without a simulation.

    Parameters
    ----------
    {model}
    prompt, output : float or array_like
        Mean lengths of prompts, prefix hits included, and of answers [token].
    concurrency : float or array_like, optional
        Clients that each send a request when the one before has been answered, of all replicas together [-].
    rate : float or array_like, optional
        Requests a second that arrive at random, of all replicas together; give it or `concurrency` [-].
    interval : float, optional
        Probability of the interval of an estimate, None for no interval [-].
    {service}
    {options}

    Returns
    -------
    ServingEstimate
        Numbers of the shape that lengths and load broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.
    """
    given = {name: options.pop(name) for name in SERVICE if name in options}  # type: ignore[misc]
    deployment = deploy("serving_estimate", ALL, model, hardware, options)
    if (concurrency is None) == (rate is None):
        raise InvalidValueError("give concurrency, the number of clients, or rate, the requests a second, and not both.")
    service = Service.of(deployment, given)
    if interval is not None:
        check_interval(interval)
    time = service.server.time
    shown = interval if time.basis == "estimate" and time.quantile is None else None
    load = {"rate": rate} if concurrency is None else {"concurrency": concurrency}
    lengths, loads, shape = lengths_of(prompt, output, given, **load)
    asked = {"prompt": prompt, "output": output, **load}
    at = Loads(service, lengths)
    if concurrency is None:
        if service.static:
            raise InvalidValueError("static batches are of clients: give concurrency, not rate.")
        if "rounds" in service.given:
            raise InvalidValueError("rounds are of clients, who begin together: give concurrency, not rate.")
        sent = loads["rate"] / at.lanes
        return ServingEstimate(Operation(at, at.open_loop(sent), sent=sent), asked, shape, shown)
    return ServingEstimate(Operation(at, at.closed_loop(loads["concurrency"] / at.lanes)), asked, shape, shown)
