"""Seconds of steps with an engine's constants beyond them."""

from collections.abc import Mapping, Sequence

from roofline.frozen import FrozenDict
from roofline.serving.steps.load import Load, RankSeconds, StepSeconds
from roofline.step.beyond import STEP, beyond_s

CONSTANTS = FrozenDict({**STEP, "request_s": "s"})
"""All constants: also what a request takes before the engine knows it [-]."""


def add_to_steps(seconds: StepSeconds, constants: Mapping[str, float]) -> StepSeconds:
    """Return the seconds of steps with constants beyond them."""
    own = {name: constants.get(name, 0.0) for name in STEP}
    return lambda load: seconds(load) + beyond_s(*load[:5], **own)


def add_to_ranks(seconds: RankSeconds, constants: Mapping[str, float]) -> RankSeconds:
    """Return the seconds of steps of data-parallel ranks, with what the constants add to the rank to which they add most."""
    own = {name: constants.get(name, 0.0) for name in STEP}

    def together(loads: Sequence[Load]) -> float:
        most: float = max(beyond_s(*load[:5], **own) for load in loads)
        return seconds(loads) + most

    return together
