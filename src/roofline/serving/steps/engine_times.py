"""Times of an engine's steps on a deployment."""

from collections.abc import Mapping
from typing import Any

from roofline.deployment import Deployment
from roofline.engines import Engine
from roofline.errors import CalibrationError
from roofline.step_time import StepTime


def engine_times(deployment: Deployment, asked: Mapping[str, Any], engine: Engine, beyond: Mapping[str, float] | None = None) -> StepTime:
    """Return the times of steps: estimates by the engine's record of the machine if there is one."""
    basis, calibration = asked.get("basis", "estimate"), asked.get("calibration")
    if calibration is None and isinstance(basis, str) and basis == "estimate":
        try:
            calibration = deployment.machine.calibrated(engine.id, sister=True).calibration
        except CalibrationError:  # another engine's record, or the generic one, then: the result names it
            calibration = None
    options = {"quantile": asked.get("quantile"), "calibration": calibration, "cuda_graph": asked.get("cuda_graph", True)}
    return StepTime(deployment, basis, beyond=beyond, **options)
