"""What steps take beyond their floor, roofline time or estimate: named constants of an engine."""

from typing import Any

from roofline.arithmetic import Number
from roofline.frozen import FrozenDict
from roofline.step.sequences import Sequences
from roofline.step.step import Step

STEP = FrozenDict({"step_s": "s", "sequence_s": "s", "context_s": "s/token", "token_s": "s/token", "pair_s": "s"})
"""Constants of steps, and their units [-]."""


def beyond_s(
    decodes: Any,
    context: Any,
    prompts: Any,
    tokens: Any,
    pairs: Any,
    *,
    step_s: Any = 0.0,
    sequence_s: Any = 0.0,
    context_s: Any = 0.0,
    token_s: Any = 0.0,
    pair_s: Any = 0.0,
) -> Any:
    """Return what a step takes beyond its kernels' bound; of arrays, an array.

    Examples
    --------
    >>> beyond_s(decodes=3, context=100, prompts=1, tokens=50, pairs=1275, step_s=2.0, sequence_s=1.0, token_s=0.5)
    31.0
    """
    return step_s + sequence_s * (decodes + prompts) + context_s * context + token_s * tokens + pair_s * pairs


def amounts_of(step: Step) -> tuple[Number, ...]:
    """Return of what constants are the price: sequences that decode and their tokens in the cache, and prompts, their tokens and pairs.

    A sequence decodes if all of its rows reach the LM head; of a prompt at most the last one does.

    Examples
    --------
    >>> amounts_of(Step((Sequences(3, 1, 100, 1), Sequences(1, 50, 0, 1))))
    (3, 300, 1, 50, 1275.0)
    """
    return (
        step.total(_decodes),
        step.total(lambda each: each.cached * _decodes(each)),
        step.total(_prompts),
        step.total(lambda each: each.new * _prompts(each)),
        step.total(lambda each: each.new * (each.cached + (each.new + 1) / 2) * _prompts(each)),
    )


def _decodes(each: Sequences) -> Number:
    return each.sampled >= each.new


def _prompts(each: Sequences) -> Number:
    return each.sampled < each.new
