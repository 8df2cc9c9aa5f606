"""The parts that hold parameters: matrices that rows are multiplied by, and vectors that are only added or scaled by."""

from abc import ABC, abstractmethod
from typing import Annotated, NamedTuple

from roofline.description import Description, Number

Size = Annotated[int, Number(1, 2**40)]
"""A number of elements, heads, layers: positive, and not absurd."""

Count = Annotated[int, Number(0, 2**40)]
"""The same of what there may be none of."""


class Part(Description):
    """Base of everything in a model description."""


class Matrix(NamedTuple):
    """A weight matrix.

    Parameters
    ----------
    name : str
        Component name, in the vocabulary that checkpoints of the Llama family made common [-].
    inputs, outputs : int
        Its two dimensions [-].
    bias : int
        Bias elements, 0 for none [-].
    copies : int
        How many alike exist in the layer, as the experts of a mixture [-].
    quantizable : bool
        Whether quantization schemes convert it unless told otherwise; routers and gates they leave alone [-].
    """

    name: str
    inputs: int
    outputs: int
    bias: int = 0
    copies: int = 1
    quantizable: bool = True

    @property
    def parameters(self) -> int:
        """Weights and biases of all copies [-]."""
        return self.copies * (self.inputs * self.outputs + self.bias)


class Vector(NamedTuple):
    """Parameters that no matrix product uses: norm scales, sinks, decay rates.

    Parameters
    ----------
    name : str
        Component name [-].
    parameters : int
        Elements [-].
    """

    name: str
    parameters: int


class WeightedPart(Part, ABC):
    """Base of the parts that have weights of their own: matrices, and vectors beside them."""

    @abstractmethod
    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return every matrix of the part.

        Parameters
        ----------
        hidden : int
            Width of the residual stream [-].

        Returns
        -------
        tuple of Matrix
            All of them [-].
        """

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices: none, unless a part says otherwise [-]."""
        return ()


class Norm(Part):
    """A normalization over `width` elements of every row.

    Parameters
    ----------
    name : str
        Component name [-].
    width : int
        Elements of a row that it normalizes [-].
    parameters : int
        Scales and shifts: `width` for RMSNorm, twice that for LayerNorm with bias, 0 for none [-].
    """

    name: str
    width: int
    parameters: int
