"""Seconds of a step in each stage of a pipeline."""

from collections.abc import Callable, Sequence
from typing import Any

from roofline.parallel.sharding import stages
from roofline.serving.rules import Rules
from roofline.serving.steps.load import Load, StepSeconds
from roofline.serving.steps.seconds import compile_steps
from roofline.step_time import StepTime

StageSeconds = Callable[[Load], Sequence[float]]
"""Returns how long a step takes in each stage of a pipeline, in their order [s]."""


def compile_stages(time: StepTime, rules: Rules) -> StageSeconds:
    r"""Return a function that looks up how long a step takes in each stage.

    A stage has the layers that engines give it; the first one has the embedding too, the last one the head. With :math:`t_i` the time of stage i
    as a model of its own, and T that of the whole step, the stage takes :math:`T t_i / \sum_j t_j`: what is of no stage alone, as the host's
    part of a step and what is sent from one to the next, is spread over all.

    Parameters
    ----------
    time : StepTime
        What the steps run on, with a pipeline [-].
    rules : Rules
        The engine, and the largest steps that it builds [-].

    Returns
    -------
    callable
        Takes a :class:`Load` and returns seconds, one for each stage; their sum is the time of the step [-].
    """
    deployment, whole = time.deployment, compile_steps(time, rules)
    how: dict[str, Any] = {"calibration": time.calibration, "graph_tokens": time.graph_tokens, "cuda_graph": time.cuda_graph}
    own = [
        compile_steps(StepTime(deployment.but(model=stage, pipeline_parallel=1), time.basis, **how), rules)
        for stage in stages(deployment.model, deployment.parallel.pipeline)
    ]

    def seconds(load: Load) -> list[float]:
        parts = [stage(load) for stage in own]
        scale = whole(load) / sum(parts)
        return [part * scale for part in parts]

    return seconds


def evenly(seconds: StepSeconds, count: int) -> StageSeconds:
    """Return the seconds of stages that share those of a step evenly."""
    return lambda load: [seconds(load) / count] * count
