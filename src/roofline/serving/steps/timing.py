"""What takes how long in a service: the steps of a deployment, and what the engine's host takes of each request."""

from collections.abc import Mapping
from typing import Any

from roofline.deployment import Deployment
from roofline.engines import Engine
from roofline.estimate.overheads import of_layers
from roofline.model import Model
from roofline.serving.steps.engine_times import engine_times
from roofline.serving.steps.service_fit import check_fit
from roofline.step_time import StepTime


def timing_of(deployment: Deployment, asked: Mapping[str, Any], engine: Engine) -> StepTime:
    """Return the times of steps: those of a fit if there is one, else estimates by the engine's record of the machine if there is one."""
    if asked.get("fit") is None:
        return engine_times(deployment, asked, engine)
    fit = check_fit(asked["fit"], asked, engine)
    options = {name: asked.get(name, default) for name, default in (("quantile", None), ("cuda_graph", True), ("graph_tokens", None))}
    return fit.time(deployment, **options)


def host_request_s(asked: Mapping[str, Any], engine: Engine, model: Model) -> float:
    """Return what the engine's host takes of a request of a model outside of steps [s].

    A fit has its own time. Beside estimates it is that of the profile of the engine that serves, whatever record the steps rest on; beside floors
    and roofline times there is none, for no host is a part of these.
    """
    if asked.get("fit") is not None:
        return float(asked["fit"].request_s)
    if asked.get("basis", "estimate") != "estimate":
        return 0.0
    host = engine.host
    return (host.request_s or 0.0) + (0.0 if host.first_token_s is None else of_layers(host.first_token_s, model))
