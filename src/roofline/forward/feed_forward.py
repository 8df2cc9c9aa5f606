"""Feed-forward blocks as operators."""

from collections.abc import Iterator
from dataclasses import replace

from roofline import ops
from roofline.forward.lowering import Lowering, lowers
from roofline.forward.symbols import TOKENS, touched_experts
from roofline.model import AnonymousWeights, DenseFeedForward, Experts, LayerGroup, Projection, Projections
from roofline.ops import Op, PowerLaw, busiest_popularity


@lowers(DenseFeedForward)
def dense(part: DenseFeedForward, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield a multilayer perceptron: (gate and) up, activation, down."""
    *wide, down = part.matrices(lowering.model.hidden_size)
    yield from lowering.merged("mlp.gate_up_proj", wide, group)
    yield lowering.activation("mlp.activation", part.intermediate, gated=part.gated)
    yield lowering.linear(down, group)
    yield lowering.elementwise("mlp.residual", width=lowering.model.hidden_size, inputs=2, what="residual")


@lowers(Experts)
def experts(part: Experts, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield a mixture of experts: router, the routed experts, and what every token passes besides."""
    hidden = lowering.model.hidden_size
    yield lowering.linear(part.router(hidden), group)
    vectors = sum(v.parameters for v in part.vectors())
    if vectors:
        yield lowering.vectors("mlp.gate.vectors", vectors)
    visits = part.visits(best=lowering.routing == "best")
    touched = touched_experts(part, visits, lowering.routing)
    *wide, down = part.expert_matrices(hidden)
    rows = average = TOKENS * (visits * part.gathered if part.ranks == 1 else visits * part.gathered / part.ranks)
    busiest = _busiest_share(part, visits, lowering)
    if busiest is not None:
        rows = TOKENS * (visits * part.gathered * busiest)
    yield from _collect(part, visits, lowering, "dispatch")
    routed = [
        *lowering.merged("mlp.experts.gate_up_proj", wide, group, rows, reads=touched),
        lowering.activation("mlp.experts.activation", part.intermediate, gated=part.gated, rows=rows),
        lowering.linear(down, group, rows, reads=touched),
        lowering.elementwise("mlp.experts.combine", width=part.latent or hidden, inputs=part.top_k, what="residual"),
    ]
    sizes = ops.expert_sizes(
        hidden=down.outputs,
        intermediate=down.inputs,
        matrices=len(wide) + 1,
        expert_bytes=sum(lowering.linear(matrix, group, 0).weight_bytes for matrix in (*wide, down)),
        count=part.local,
        ranks=part.ranks,
    )
    for i, op in enumerate(routed):  # engines run them as one kernel, whose rows are an average device's, counted where they enter
        yield replace(op, rows=0 if i else average, family="experts", stored=routed[0].stored, sizes=sizes)
    yield from _collect(part, visits, lowering, "combine")
    others = part.other_matrices(hidden)
    for prefix, block in (("mlp.shared_experts", part.shared), ("mlp", part.parallel)):
        if block is not None:
            names = {m.name.replace("mlp.", f"{prefix}.", 1) for m in block.matrices(hidden)}
            *wide, down = (m for m in others if m.name in names)
            yield from lowering.merged(f"{prefix}.gate_up_proj", wide, group)
            yield lowering.activation(f"{prefix}.activation", block.intermediate, gated=block.gated)
            yield lowering.linear(down, group)
    for matrix in others:
        if matrix.name in ("mlp.shared_expert_gate", "mlp.fc1_latent_proj", "mlp.fc2_latent_proj"):
            yield lowering.linear(matrix, group)
    yield lowering.elementwise("mlp.residual", width=hidden, inputs=2, what="residual")


def _busiest_share(part: Experts, visits: float, lowering: Lowering) -> float | None:
    """Return the busiest device's share of all visits, where the routing says that it differs from the others'."""
    if part.ranks == 1 or not isinstance(lowering.routing, PowerLaw):
        return None
    here = sum(busiest_popularity(lowering.routing.exponent, count=part.count, visits=visits, ranks=part.ranks))
    return min(here / visits, 1.0)


def _collect(part: Experts, visits: float, lowering: Lowering, what: str) -> Iterator[Op]:
    """Yield the traffic that takes tokens to the devices of their experts, or their results back."""
    parallel = lowering.parallel
    row = TOKENS * ((part.latent or lowering.model.hidden_size) * lowering.precision.stream.bytes_per_element)
    if part.gathered == 1:
        return  # every device has every token already; adding the results up is the all-reduce after the block
    if part.ranks > 1:
        chosen = 0 if lowering.routing == "best" else visits
        # the busiest device takes in more tokens than an average one, and sends as many results back: its link is the slowest
        busiest = _busiest_share(part, visits, lowering)
        # devices that share a width hold the same tokens: each of them carries its share
        size = row / parallel.tensor
        yield ops.exchange(f"mlp.experts.{what}", size, ranks=part.ranks, visits=chosen, domain=lowering.domain, share=busiest)
    else:
        # the widths of all experts are spread over every group of devices: all tokens come together, and the sums go back
        yield ops.send(f"mlp.experts.{what}", row * ((part.gathered - 1) / parallel.tensor), outside=parallel.devices > lowering.domain)


@lowers(Projection)
@lowers(Projections)
def projection(part: Projection | Projections, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield a single matrix, or several one by one."""
    for matrix in part.matrices(lowering.model.hidden_size):
        yield lowering.linear(matrix, group)


@lowers(AnonymousWeights)
def anonymous(part: AnonymousWeights, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield all weights of an anonymous model as one operator without activation traffic."""
    (matrix,) = part.matrices(lowering.model.hidden_size)
    yield replace(lowering.linear(matrix, group), input_bytes=0, output_bytes=0)
