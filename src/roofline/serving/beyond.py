"""What steps take beyond their floor, roofline time or estimate: named constants, and the seconds of steps with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from roofline.frozen import FrozenDict
from roofline.serving.load import Load, RankSeconds, StepSeconds

STEP = FrozenDict({"step_s": "s", "sequence_s": "s", "context_s": "s/token", "token_s": "s/token", "pair_s": "s"})
"""Constants of steps, and their units [-]."""

CONSTANTS = FrozenDict({**STEP, "request_s": "s"})
"""All constants: also what a request takes before the engine knows it [-]."""


def beyond_s(load: Load, *, step_s: Any = 0.0, sequence_s: Any = 0.0, context_s: Any = 0.0, token_s: Any = 0.0, pair_s: Any = 0.0) -> Any:
    """Return what a step takes beyond its kernels' bound; of arrays in a `Load`, an array.

    Examples
    --------
    >>> beyond_s(Load(decodes=3, context=100, prompts=1, tokens=50), step_s=2.0, sequence_s=1.0, token_s=0.5)
    31.0
    """
    decodes, context, prompts, tokens, pairs, _ = load
    return step_s + sequence_s * (decodes + prompts) + context_s * context + token_s * tokens + pair_s * pairs


def add_to_steps(seconds: StepSeconds, constants: Mapping[str, float]) -> StepSeconds:
    """Return the seconds of steps with constants beyond them."""
    own = {name: constants.get(name, 0.0) for name in STEP}
    return lambda load: seconds(load) + beyond_s(load, **own)


def add_to_ranks(seconds: RankSeconds, constants: Mapping[str, float]) -> RankSeconds:
    """Return the seconds of steps of data-parallel ranks, with what the constants add to the rank to which they add most."""
    own = {name: constants.get(name, 0.0) for name in STEP}

    def together(loads: Sequence[Load]) -> float:
        most: float = max(beyond_s(load, **own) for load in loads)
        return seconds(loads) + most

    return together
