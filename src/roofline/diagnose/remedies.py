"""What would help a phase and what would not: every lever at the measured step, and every loss as if it were gone."""

from collections.abc import Iterable
from typing import Any

from roofline.deployment import Deployment
from roofline.diagnose.phase import Remedy
from roofline.errors import RooflineError
from roofline.explanation import NOTICEABLE
from roofline.measured import Part
from roofline.optimizations import Lever, levers
from roofline.units import show_time

_AGAINST = {
    "host": "CUDA graphs, asynchronous scheduling, a faster host",
    "front end": "a shorter way to the step: more API processes, a faster tokenizer",
    "queue": "more replicas, or fewer requests at a time",
    "prompts of others": "smaller chunks of prompts, or devices of their own for prompts",
    "collectives": "fewer devices to a layer, faster all-reduces",
    "small kernels": "fusion of small kernels",
    "matrices": "faster kernels for matrix products",
    "experts": "faster kernels for experts",
    "cache": "faster kernels for attention",
}
_FIRST = ("twice the FLOP/s", "twice the memory bandwidth")  # what is bought most often, so what is said first where it does not help


def remedies(deployment: Deployment, step: dict[str, Any], measured_s: float, losses: Iterable[Part], binds: str) -> tuple[Remedy, ...]:
    """Return what helps a measured step: what is against the cause that binds, then the largest gain first; then what does not help.

    ``step`` are the arguments of :func:`roofline.optimizations.levers` that say which step it is.
    """
    found = [_without(part, measured_s) for part in losses if part.name in _AGAINST and 0 < part.expected_s < measured_s]
    try:
        evaluated = levers(deployment, **step)
    except RooflineError:  # of a model that is a number of parameters, or a step that has no levers
        evaluated = None
    base_s = 0.0 if evaluated is None else float(evaluated.base.time_s)
    alone = step.get("step") == "prefill"
    usable = [lever for lever in evaluated or () if lever.applicable and lever.fits is not False]
    found += [(_later if alone and lever.tokens > 1 else _of_lever)(lever, base_s, measured_s) for lever in usable]
    first = _AGAINST.get(binds)
    return tuple(sorted(found, key=lambda remedy: (not remedy.helps, remedy.name != first, *_order(remedy))))


def _order(remedy: Remedy) -> tuple[Any, ...]:
    return (-remedy.gain, -remedy.most) if remedy.helps else (remedy.name not in _FIRST, -remedy.most)


def _of_lever(lever: Lever, base_s: float, measured_s: float) -> Remedy:
    """Return a lever's gain on the measured time: what lies beyond the floor stays as it is, or shrinks as the floor does."""
    if not lever.helps:
        return Remedy(lever.name, False, lever.gain, lever.gain, lever.reason)
    after = measured_s + lever.time_s - base_s
    gain = lever.tokens * measured_s / after if after > 0 else lever.gain
    most = max(gain, lever.gain, lever.roofline_gain)
    helps = (most if lever.unlocks else gain if lever.gain >= 1 + NOTICEABLE else most) >= 1 + NOTICEABLE
    reason = lever.reason
    if not helps:
        reason = f"the floor gains {lever.gain:.2f}×, but only {base_s / measured_s:.0%} of the measured time is floor"
    return Remedy(lever.name, helps, gain, most, reason, lever.cost)


def _later(lever: Lever, base_s: float, measured_s: float) -> Remedy:
    """Return what more prompts in a step do to the first token of each."""
    gain = measured_s / (measured_s + lever.time_s - base_s)
    return Remedy(lever.name, False, gain, gain, "more tokens in a step, and the first token of none comes sooner")


def _without(part: Part, measured_s: float) -> Remedy:
    most = measured_s / (measured_s - part.expected_s)
    return Remedy(_AGAINST[part.name], most >= 1 + NOTICEABLE, 1.0, most, f"{show_time(part.expected_s)} are {part.name}: {part.how}")
