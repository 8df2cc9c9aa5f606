"""Feed-forward blocks as operators."""

from collections.abc import Iterator
from dataclasses import replace

from roofline.forward.lowering import Lowering, lowers
from roofline.model import AnonymousWeights, DenseFeedForward, LayerGroup
from roofline.ops import Op

__all__ = ["anonymous", "dense"]


@lowers(DenseFeedForward)
def dense(part: DenseFeedForward, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield a multilayer perceptron: (gate and) up, activation, down.

    Parameters
    ----------
    part : DenseFeedForward
        The block [-].
    lowering : Lowering
        Formats and fusion [-].
    group : LayerGroup
        The layer it stands in [-].

    Yields
    ------
    Op
        Amounts for one layer [-].
    """
    *wide, down = part.matrices(lowering.model.hidden_size)
    yield from lowering.merged("mlp.gate_up_proj", wide, group)
    yield lowering.elementwise(
        "mlp.activation",
        width=part.intermediate,
        inputs=1 + part.gated,
        what="gated_activation" if part.gated else "activation",
    )
    yield lowering.linear(down, group)
    yield lowering.elementwise("mlp.residual", width=lowering.model.hidden_size, inputs=2, what="residual")


@lowers(AnonymousWeights)
def anonymous(part: AnonymousWeights, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield all weights of an anonymous model as one operator without activation traffic.

    Parameters
    ----------
    part : AnonymousWeights
        The weights [-].
    lowering : Lowering
        Formats and fusion [-].
    group : LayerGroup
        The layer it stands in [-].

    Yields
    ------
    Op
        One contraction [-].
    """
    (matrix,) = part.matrices(lowering.model.hidden_size)
    yield replace(lowering.linear(matrix, group), input_bytes=0, output_bytes=0)
