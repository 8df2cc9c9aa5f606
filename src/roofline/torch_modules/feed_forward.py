"""What works token by token as the part that it is: a dense block, or a mixture of experts."""

from collections.abc import Sequence

from roofline.model import DenseFeedForward, Experts
from roofline.torch_modules.attention import Pieces
from roofline.torch_modules.required import torch
from roofline.torch_modules.tally import Weight, inside
from roofline.torch_modules.watch import Routed


def dense(matrices: Sequence[Weight], pieces: Pieces, hidden: int) -> DenseFeedForward | None:
    """Return a dense block if the matrices are those of one: up and down, perhaps a gate, all with biases or none."""
    *wide, down = sorted(matrices, key=lambda weight: weight.outputs == hidden and weight.inputs != hidden) if len(matrices) > 1 else [None]
    if down is None or down.outputs != hidden or any(weight.inputs != hidden for weight in wide) or any(w.uses != 1 for w in matrices):
        return None
    made = sum(weight.outputs for weight in wide)
    if made not in (down.inputs, 2 * down.inputs) or len(wide) > 2:
        return None
    biases = {pieces.bias(weight) == weight.outputs if pieces.bias(weight) else False for weight in (*wide, down)}
    partial = any(pieces.bias(weight) not in (0, weight.outputs) for weight in (*wide, down))
    if partial or len(biases) > 1:
        return None
    return DenseFeedForward(intermediate=down.inputs, gated=made == 2 * down.inputs, bias=biases.pop())


def mixture(routed: Routed, module: torch.nn.Module, pieces: Pieces, stacked: Sequence[Weight], hidden: int) -> Experts | None:
    """Return a mixture of experts if the stacked weights are those of one, and every matrix beside them has its place in it."""
    three = [weight for weight in stacked if len(weight.shape) == 3]
    count = three[0].shape[0] if three else 0
    size, rest = sum(weight.size for weight in three), sum(weight.size for weight in stacked if len(weight.shape) != 3)
    gated = bool(getattr(module, "has_gate", True))
    inner, odd = divmod(size, count * (2 + gated) * hidden) if count else (0, 1)
    if odd or not inner or any(inner not in weight.shape and (1 + gated) * inner not in weight.shape for weight in three):
        return None
    bias = count * ((1 + gated) * inner + hidden)
    if rest not in (0, bias):
        return None
    chooses = [weight for weight in pieces.matrices if weight.inputs == hidden and weight.outputs >= count and _routes(weight)]
    if len(chooses) != 1:
        return None
    (router,) = chooses
    zero = router.outputs - count
    others = [weight for weight in pieces.matrices if weight is not router]
    gates = [weight for weight in others if weight.outputs == 1 and weight.inputs == hidden]
    if len(gates) > 1 or any(weight.uses != 1 for weight in pieces.matrices) or pieces.bias(router) not in (0, router.outputs):
        return None
    blocks = [weight for weight in others if weight not in gates]
    shared = dense(blocks, pieces, hidden) if blocks else None
    if (blocks and shared is None) or (gates and (shared is None or pieces.bias(gates[0]))):
        return None
    corrections = [vector for vector in pieces.vectors if vector.size == router.outputs and "bias" in vector.name]
    corrected = len(corrections) == 1
    return Experts(
        count=count,
        top_k=routed.top_k,
        intermediate=inner,
        gated=gated,
        bias=rest == bias and rest > 0,
        router_bias=pieces.bias(router) > 0,
        correction_bias=corrected,
        zero_experts=zero,
        shared=shared,
        shared_gate=bool(gates),
        extra=pieces.further - router.outputs * corrected,
    )


def _routes(weight: Weight) -> bool:
    """Return whether a name is that of what chooses experts, not of a gate inside a block."""
    parts = weight.leaf.split(".")
    return "shared" not in weight.leaf and not inside(parts[-1], "gate_proj") and not inside(parts[-1], "up_proj")
