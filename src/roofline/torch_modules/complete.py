"""Whether a model has all parameters of its code and counts all that it multiplies: the FLOP of its two runs, by torch's own formulas, beside those of two prefills."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

from roofline.errors import UnsupportedModelError
from roofline.forward import forward
from roofline.model import Model
from roofline.step import Step
from roofline.torch_modules.attention import seen
from roofline.torch_modules.events import Contraction, Record
from roofline.torch_modules.layers import Layer
from roofline.torch_modules.tally import Tally, shown
from roofline.visibility import visible_pairs

_KINDS = {"attention": "attention", "latent_attention": "attention", "state": "state"}
"""What operators of a family multiply, if not activations with parameters."""


def check_parameters(model: Model, tally: Tally, towers: Mapping[str, int]) -> None:
    """Refuse a model that has not as many parameters as its module has outside towers."""
    expected = sum(math.prod(shape) for shape in tally.shapes.values()) - sum(towers.values())
    if model.parameters != expected:
        raise UnsupportedModelError(f"{model.name}: {expected:,} parameters, of which {model.parameters:,} could be attributed to parts.")


def uncounted(model: Model, tally: Tally, records: tuple[Record, Record], layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return in words where the FLOP of the products of two runs are not those that the model counts of as many tokens.

    All products of a run are those with parameters, attention with all keys, and other products of activations. The model counts attention
    over the pairs that masks leave, of a state the least there is, and no rows that padding adds to a convolution.
    """
    found: dict[str, str] = {}
    heads = [weight for weight in map(tally.weight, tally.costs) if model.head is not None and weight.last_only]
    heads = [weight for weight in heads if model.head is not None and weight.outputs == model.head.outputs]
    once = sum((weight.once_flops for weight in map(tally.weight, tally.costs) if weight not in heads), start=Fraction(0))
    for run, (record, tokens) in enumerate(zip(records, tally.lengths, strict=True)):
        counted = _prefill(model, tokens, "last" if heads else "all")
        around = [product for product in tally.left[run] if any(product.path == held.path and not held.row for held in tally.kept)]
        beside = [product for product in tally.left[run] if product not in around]
        linear = sum(record.flops.values()) - sum(record.aside.values()) - tally.attention[run] - once
        linear -= sum(product.flops for product in tally.left[run]) + counted["parameters"]
        held = "" if tally.kept else ", and whatever a sequence keeps for them"  # what no cache shows
        differences = {
            "of products with parameters": linear if abs(linear) > tokens * model.num_layers else 0,  # a part counts whole FLOP per token
            "of attention": _attention(tally, layers, tokens) - counted["attention"],
            f"of products of activations in {in_modules(beside)}{held}": sum(product.flops for product in beside),
            f"of products around the states of {in_modules(around)}, beyond one multiplication and addition per element and token": max(
                sum(product.flops for product in around) - counted["state"], 0
            ),
        }
        for what, flops in differences.items():
            if flops:
                more = "" if flops > 0 else "counted beyond those "
                found[what] = f"{abs(round(flops)):,} FLOP, in a prefill of {tokens} tokens, {more}{what}"
    return tuple(found.values())


def _prefill(model: Model, tokens: int, logits: Literal["last", "all"]) -> dict[str, int]:
    """Return the FLOP that a model counts of a prefill: of products with parameters, of attention, and of states."""
    counted = {"parameters": 0, "attention": 0, "state": 0}
    for op in forward(model, Step.prefill(tokens, logits=logits), weights="bf16").ops:
        flops = op.flops if op.kind == "contraction" else op.vector_flops if op.name == "mixer.others" else 0
        counted[_KINDS.get(op.family, "parameters")] += int(flops)
    return counted


def _attention(tally: Tally, layers: Sequence[Layer], tokens: int) -> int:
    """Return the FLOP of all calls of attention over the pairs of a prompt that they see."""
    cached, total = any(held.row for held in tally.kept), 0
    for layer in layers:
        for child in layer.mixing:
            kept = layer.keeps(child)
            rows = sum(held.row for held in kept)
            for call in layer.calls(child):
                pairs = visible_pairs(tokens, 0, seen(call, kept, rows, cached=cached))
                total += layer.times * call.flops // (call.queries * call.keys) * pairs
    return total


def in_modules(products: Sequence[Contraction]) -> str:
    """Return in words which modules make products of activations."""
    return shown(list(dict.fromkeys(product.path or "the module" for product in products)))
