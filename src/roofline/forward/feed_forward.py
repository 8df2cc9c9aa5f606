"""Feed-forward blocks as operators."""

from collections.abc import Iterator

from roofline import ops
from roofline.formats import Format
from roofline.forward.lowering import Lowering, lowers
from roofline.forward.symbols import TOKENS, gathered_tokens, touched_experts
from roofline.model import AnonymousWeights, DenseFeedForward, Experts, LayerGroup, Projection, Projections
from roofline.ops import Op, PowerLaw, busiest_popularity
from roofline.ops.experts import expert_sizes


@lowers(DenseFeedForward)
def dense(part: DenseFeedForward, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield a multilayer perceptron: (gate and) up, activation, down."""
    yield from _block(part, lowering, group, "mlp")
    for vector in part.vectors():
        yield lowering.vectors(vector.name, vector.parameters)
    yield lowering.residual("mlp")


@lowers(Experts)
def experts(part: Experts, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield a mixture of experts: router, routed experts, and the blocks and matrices that every token passes."""
    hidden = lowering.model.hidden_size
    yield lowering.linear(part.router(hidden), group)
    vectors = sum(v.parameters for v in part.vectors())
    if vectors:
        yield lowering.vectors("mlp.gate.vectors", vectors)
    visits = part.visits(best=lowering.routing == "best")
    touched = touched_experts(part, visits, lowering.routing)
    *wide, down = part.expert_matrices(hidden)
    served = gathered_tokens(part.gathered)
    rows = average = served * (visits if part.ranks == 1 else visits / part.ranks)
    busiest = _busiest_share(part, visits, lowering)
    if busiest is not None:
        rows = served * (visits * busiest)
    stream = lowering.precision.stream
    sent = lowering.precision.multiplied(lowering.precision.stored(wide[0], group))  # rows may be quantized before they are sent
    yield from _collect(part, visits, lowering, "dispatch", min(sent, stream, key=lambda rows: rows.bits))
    routed = [
        *lowering.merged("mlp.experts.gate_up_proj", wide, group, rows, reads=touched),
        lowering.activation("mlp.experts.activation", part.intermediate, gated=part.gated, rows=rows),
        lowering.linear(down, group, rows, reads=touched),
        lowering.elementwise("mlp.experts.combine", width=part.latent or hidden, inputs=part.top_k, what="residual"),
    ]
    sizes = expert_sizes(
        hidden=down.outputs,
        intermediate=down.inputs,
        matrices=len(wide) + 1,
        expert_bytes=sum(lowering.linear(matrix, group, 0).weight_bytes for matrix in (*wide, down)),
        count=part.local,
        ranks=part.ranks,
        senders=None if part.gathered == 1 else 1,
    )
    for i, op in enumerate(routed):  # engines fuse these into one kernel; only the first has rows, so that merging does not add them up
        yield op.having(rows=0 if i else average, family="experts", stored=routed[0].stored, sizes=sizes)
    yield from _collect(part, visits, lowering, "combine", stream)
    for prefix, block in part.dense_blocks:
        yield from _block(block, lowering, group, prefix)
    for matrix in part.token_matrices(hidden):
        yield lowering.linear(matrix, group)
    yield lowering.residual("mlp")


def _block(block: DenseFeedForward, lowering: Lowering, group: LayerGroup, prefix: str) -> Iterator[Op]:
    *wide, down = block.matrices(lowering.model.hidden_size, prefix)
    yield from lowering.merged(f"{prefix}.gate_up_proj", wide, group)
    yield lowering.activation(f"{prefix}.activation", block.intermediate, gated=block.gated)
    yield lowering.linear(down, group)


def _busiest_share(part: Experts, visits: float, lowering: Lowering) -> float | None:
    """Return the busiest device's share of all visits; None where the routing makes all devices alike."""
    if part.ranks == 1 or not isinstance(lowering.routing, PowerLaw):
        return None
    here = sum(busiest_popularity(lowering.routing.exponent, count=part.count, visits=visits, ranks=part.ranks))
    return min(here / visits, 1.0)


def _collect(part: Experts, visits: float, lowering: Lowering, what: str, rows: Format) -> Iterator[Op]:
    """Yield the all-to-all that dispatches tokens to the devices of their experts, or combines their results."""
    parallel = lowering.parallel
    width = (part.latent or lowering.model.hidden_size) * rows.bytes_per_element
    if part.gathered == 1:
        return  # every device has all tokens; the all-reduce after the block adds up the results
    if part.ranks > 1:
        chosen = 0 if lowering.routing == "best" else visits
        # the busiest device receives more tokens than an average one and returns as many results, so that its link is the slowest
        busiest = _busiest_share(part, visits, lowering)
        # tensor-parallel devices hold the same tokens: each sends its share
        size = TOKENS * (width / parallel.tensor)
        yield ops.exchange(f"mlp.experts.{what}", size, ranks=part.ranks, visits=chosen, domain=lowering.domain, share=busiest)
    else:
        # every expert's width is split over all groups of devices: an all-gather of tokens, and a reduce-scatter of results
        others = (gathered_tokens(part.gathered) - TOKENS) * (width / parallel.tensor)
        yield ops.send(f"mlp.experts.{what}", others, outside=parallel.devices > lowering.domain)


@lowers(Projection)
@lowers(Projections)
def projection(part: Projection | Projections, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield a single matrix, or several one by one."""
    for one in part.parts if isinstance(part, Projections) else (part,):
        for matrix in one.matrices(lowering.model.hidden_size):
            yield lowering.linear(matrix, group, TOKENS * one.uses)


@lowers(AnonymousWeights)
def anonymous(part: AnonymousWeights, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield all weights of an anonymous model as one operator without activation traffic."""
    (matrix,) = part.matrices(lowering.model.hidden_size)
    yield lowering.linear(matrix, group).having(input_bytes=0, output_bytes=0)
