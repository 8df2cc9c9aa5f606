"""What works token by token as the part that it is: a dense block, or a mixture of experts."""

from collections.abc import Sequence
from fractions import Fraction

from roofline.errors import UnsupportedModelError
from roofline.model import DenseFeedForward, Experts
from roofline.torch_modules.events import Routed
from roofline.torch_modules.pieces import Pieces
from roofline.torch_modules.required import torch
from roofline.torch_modules.tally import Weight


def dense(matrices: Sequence[Weight], pieces: Pieces, hidden: int) -> DenseFeedForward | None:
    """Return a dense block if the matrices are those of one: up and down, perhaps a gate, all with biases or none."""
    if not 2 <= len(matrices) <= 3 or any(weight.uses != 1 or weight.format for weight in matrices):
        return None
    downs = [weight for weight in matrices if weight.outputs == hidden]
    down = downs[-1] if downs else matrices[-1]
    wide = [weight for weight in matrices if weight is not down]
    made = sum(weight.outputs for weight in wide)
    if down.outputs != hidden or any(weight.inputs != hidden for weight in wide) or made not in (down.inputs, 2 * down.inputs):
        return None
    biases = {pieces.bias(weight) == weight.outputs for weight in matrices}
    if len(biases) > 1 or any(pieces.bias(weight) not in (0, weight.outputs) for weight in matrices):
        return None
    return DenseFeedForward(intermediate=down.inputs, gated=made == 2 * down.inputs, bias=biases.pop())


def mixture(
    routed: Routed, module: torch.nn.Module, pieces: Pieces, stacked: Sequence[Weight], hidden: int
) -> tuple[Experts, list[Weight], list[Weight]]:
    """Return a mixture of experts with what beside its stacks has a place in it, the weights taken, and the router's rows for what is no expert."""
    three = [weight for weight in stacked if len(weight.shape) == 3]
    count = three[0].shape[0] if three else 0
    vectors = [weight for weight in stacked if len(weight.shape) == 1]  # a norm on what every expert makes
    size, rest = (
        sum(weight.size for weight in three),
        sum(weight.size for weight in stacked if weight not in three and weight not in vectors),
    )
    rows = routed.width or hidden
    gated = size == 3 * min(weight.size for weight in three) if routed.stacks and three else bool(getattr(module, "has_gate", True))
    inner, odd = divmod(size, count * (2 + gated) * rows) if count else (0, 1)
    biases = count * ((1 + gated) * inner + rows)
    if odd or not inner or rest not in (0, biases):
        raise UnsupportedModelError(f"the experts of {routed.path} are not matrices up and down, one of each for every expert.")
    router = _router(pieces, count)
    if router is None:
        raise UnsupportedModelError(f"what chooses among the {count} experts of {routed.path} was not found beside them.")
    taken = [router]
    others = [weight for weight in pieces.matrices if weight is not router]
    gates = [weight for weight in others if weight.outputs == 1 and weight.inputs == hidden and not pieces.bias(weight)]
    blocks = [weight for weight in others if weight not in gates]
    latent = _latent(blocks, pieces, hidden, rows)
    blocks = [weight for weight in blocks if weight not in latent]
    shared = dense(blocks, pieces, hidden)
    if shared is not None:
        taken += [*blocks, *gates[:1]]
    taken += latent
    corrections = [vector for vector in pieces.vectors if vector.size == router.outputs and "bias" in vector.name]
    extra = sum(vector.size for vector in (*pieces.vectors, *vectors) if vector not in corrections[:1] and not vector.token_flops)
    taken += [vector for vector in pieces.vectors if not vector.token_flops]
    chosen = min(max(routed.choices, count), router.outputs) if routed.choices else router.outputs
    further = router.outputs - chosen
    rows_left = Weight(f"{router.leaf}.others", (further, router.inputs), router.path, router.inputs, Fraction(2 * further * router.inputs))
    rows_left.format = router.format
    return (
        Experts(
            count=count,
            top_k=routed.top_k,
            intermediate=inner,
            gated=gated,
            bias=rest > 0,
            router_bias=pieces.bias(router) > 0,
            correction_bias=bool(corrections),
            zero_experts=chosen - count,
            shared=shared,
            shared_gate=bool(gates) and shared is not None,
            latent=rows if latent else None,
            extra=extra,
            router_inputs=None if router.inputs == hidden else router.inputs,
        ),
        taken,
        [rows_left] if further else [],
    )


def _router(pieces: Pieces, count: int) -> Weight | None:
    """Return what chooses among experts: as many outputs as there are, by name where several have; else the fewest beyond that."""
    found = [w for w in pieces.matrices if w.outputs >= count and w.uses == 1 and pieces.bias(w) in (0, w.outputs)]

    def likely(weight: Weight) -> tuple[bool, bool, int]:
        last = weight.leaf.rsplit(".", 1)[-1].lower()
        return (
            weight.outputs != count,
            last not in ("gate", "router", "wg", "classifier") and "router" not in weight.leaf.lower(),
            weight.outputs,
        )

    return min(found, key=likely, default=None)


def _latent(blocks: Sequence[Weight], pieces: Pieces, hidden: int, rows: int) -> list[Weight]:
    """Return the two projections to the width of the experts and back, none where that is the residual stream's."""
    if rows == hidden:
        return []
    down = [w for w in blocks if (w.inputs, w.outputs) == (hidden, rows) and not pieces.bias(w)]
    up = [w for w in blocks if (w.inputs, w.outputs) == (rows, hidden) and not pieces.bias(w)]
    return [down[0], up[0]] if down and up else []
