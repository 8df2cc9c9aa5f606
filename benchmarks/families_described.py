"""The figures of a description that benchmarks/families.py holds beside those of a class: without torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from roofline import Model, Step
from roofline.forward import forward
from roofline.model.spec import OF_SOURCE

LENGTHS = (16, 48)
"""Tokens of the two prompts whose caches are compared; a window of 64 is full in neither."""
SOURCE = 24
"""Positions of what an encoder reads for a decoder."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What is held side by side; None where it could not be counted."""

    parameters: int | None = None
    linear_flops: float | None = None
    """FLOP of products with weights, per token of a prompt, logits of all positions included."""
    kv_bytes: float | None = None
    """Per token, at 16 bits."""
    state_bytes: int | None = None
    """Per sequence, with keys and values of a source."""
    tower_parameters: int | None = None
    """Of what encodes images or sound for a text model."""

    FIELDS = ("parameters", "linear_flops", "kv_bytes", "state_bytes", "tower_parameters")

    def __iter__(self) -> Iterator[float | None]:
        return iter(getattr(self, name) for name in self.FIELDS)


def of_model(model: Model) -> Counts:
    """Return the same figures of a description."""
    fixed = model.encoder is not None and not any(OF_SOURCE in note for note in model.not_modelled)
    described = model.with_source(SOURCE) if model.source_positions and not fixed else model
    pooled = model.head is not None and model.head.name == "pooler"
    rows = "last" if pooled else "all"
    short, long = (forward(described, Step.prefill(tokens, logits=rows), weights="bf16") for tokens in LENGTHS)
    linear = sum(op.flops for op in long.ops if op.kind == "contraction" and not mixes(op.name))
    slope = (long.held_bytes - short.held_bytes) / (LENGTHS[1] - LENGTHS[0])
    state = round(short.held_bytes - slope * LENGTHS[0])
    return Counts(model.parameters, linear / LENGTHS[1], slope, state, model.tower_parameters)


def mixes(name: str) -> bool:
    """Whether an operator multiplies activations by each other or by a state, not by a weight."""
    mixed = any(f"{mixer}.attention" in name and f"{mixer}.attention." not in name for mixer in ("self_attn", "cross_attn", "mixer"))
    return mixed or name.endswith((".attention.scores", ".attention.values", ".indexer", ".state_update"))
