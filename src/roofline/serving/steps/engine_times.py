"""Times of an engine's steps on a deployment."""

from collections.abc import Mapping
from typing import Any

from roofline.deployment import Deployment
from roofline.engines import Engine
from roofline.engines.load import is_shipped
from roofline.estimate.constants import record_of_engine
from roofline.step_time import StepTime


def engine_times(deployment: Deployment, asked: Mapping[str, Any], engine: Engine, beyond: Mapping[str, float] | None = None) -> StepTime:
    """Return the times of steps: estimates by the engine's record of the machine if there is one."""
    basis, calibration = asked.get("basis", "estimate"), asked.get("calibration")
    estimated = isinstance(basis, str) and basis == "estimate"
    if calibration is None and estimated:
        calibration = record_of_engine(deployment.machine, engine.id)
    options = {"quantile": asked.get("quantile"), "calibration": calibration, "cuda_graph": asked.get("cuda_graph", True)}
    options["graph_tokens"] = asked.get("graph_tokens")
    if estimated and not is_shipped(engine):
        options["engine"] = engine
    return StepTime(deployment, basis, beyond=beyond, **options)
