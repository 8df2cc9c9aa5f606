"""Feed-forward blocks: the part of a layer that works on every token by itself."""

from typing import Annotated, Literal

from pydantic import Field

from roofline.model.components import Matrix, Part, Vector
from roofline.model.mixers import Size

__all__ = ["AnonymousWeights", "DenseFeedForward", "FeedForward"]


class DenseFeedForward(Part):
    """A multilayer perceptron: up and down, or with a gate (SwiGLU, GeGLU) gate, up and down.

    Parameters
    ----------
    intermediate : int
        Width between the matrices [-].
    gated : bool, optional
        Three matrices instead of two [-].
    bias : bool, optional
        Whether all of them have a bias [-].
    """

    kind: Literal["dense"] = "dense"
    intermediate: Size
    gated: bool = True
    bias: bool = False

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the matrices of the block.

        Parameters
        ----------
        hidden : int
            Width of the residual stream [-].

        Returns
        -------
        tuple of Matrix
            (gate,) up, down [-].
        """
        wide = self.intermediate * self.bias
        gate = (Matrix("mlp.gate_proj", hidden, self.intermediate, wide),) if self.gated else ()
        return (
            *gate,
            Matrix("mlp.up_proj", hidden, self.intermediate, wide),
            Matrix("mlp.down_proj", self.intermediate, hidden, hidden * self.bias),
        )

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices: none [-]."""
        return ()


class AnonymousWeights(Part):
    """So many parameters of a dense transformer about which nothing else is known.

    Each is multiplied once per token; there is no cache, no head and no activation traffic to count.

    Parameters
    ----------
    parameters : int
        How many [-].
    """

    kind: Literal["anonymous"] = "anonymous"
    parameters: Annotated[int, Field(gt=0)]

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return all weights as one matrix of one row.

        Parameters
        ----------
        hidden : int
            Ignored: unknown [-].

        Returns
        -------
        tuple of Matrix
            One matrix [-].
        """
        return (Matrix("weights", 1, self.parameters),)

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices: none known [-]."""
        return ()


FeedForward = Annotated[DenseFeedForward | AnonymousWeights, Field(discriminator="kind")]
