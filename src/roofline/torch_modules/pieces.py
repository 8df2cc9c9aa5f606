"""The parameters of a part of a layer: its matrices with their biases, and what is left of the others."""

import re
from collections.abc import Iterable
from fractions import Fraction

from roofline.model import Norm, Projection
from roofline.torch_modules.tally import Weight


class Pieces:
    """The parameters of a part of a layer: its matrices with their biases, and what is left of the others."""

    def __init__(self, weights: Iterable[Weight], matrices: Iterable[Weight] = ()) -> None:
        whole = {weight.name: weight for weight in weights}
        own = {name: weight.part or weight for name, weight in whole.items()}
        self.idle = sum(whole[name].size - weight.size for name, weight in own.items())  # parameters of matrices that no token passes
        self.matrices = [weight for weight in own.values() if weight.uses or weight in matrices]
        self.biases: dict[str, int] = {}
        self.bias_of: dict[str, str] = {}  # the bias of each matrix that has one, by names
        for matrix in self.matrices:
            bias = own.get(f"{matrix.leaf}.bias") or own.get(f"{matrix.name}_bias") or own.get(re.sub("weight$", "bias", matrix.name))
            if bias is not None and bias is not matrix and not bias.uses and bias.size <= matrix.outputs:
                self.biases[matrix.name] = bias.size
                self.bias_of[matrix.name] = bias.name
                del own[bias.name]
        self.vectors = [weight for weight in own.values() if weight not in self.matrices]

    def formats(self, prefix: str) -> tuple[tuple[str, str], ...]:
        """Return the formats of the matrices that have one of their own, by the names that `projections` gives them."""
        return tuple((named(weight, prefix), weight.format) for weight in self.matrices if weight.format)

    @property
    def others(self) -> Fraction:
        """FLOP of a token with parameters that are no matrix, such as taps of a convolution [FLOP]."""
        return sum((weight.token_flops for weight in self.vectors), start=Fraction(0))

    @property
    def further(self) -> int:
        """Parameters outside matrices [-]."""
        return sum(weight.size for weight in self.vectors)

    def bias(self, weight: Weight) -> int:
        """Elements of a matrix's bias [-]."""
        return self.biases.get(weight.name, 0)

    def projections(self, prefix: str) -> tuple[Projection, ...]:
        """Return the matrices, named without what a layer's parameters begin with."""
        return tuple(projection(weight, self.bias(weight), prefix) for weight in self.matrices)


def named(weight: Weight, prefix: str) -> str:
    """Return what a matrix is called in its layer."""
    return weight.leaf.removeprefix(f"{prefix}.") or weight.leaf


def projection(weight: Weight, bias: int, prefix: str) -> Projection:
    """Return a matrix as a part of its own."""
    return Projection(
        name=named(weight, prefix), inputs=weight.inputs, outputs=weight.outputs, bias=bias, uses=weight.uses, quantizable=True
    )


def norms_of(vectors: Iterable[Weight], prefix: str) -> tuple[Norm, ...]:
    """Return parameters outside matrices as norms, those of one module as one: over as many elements as the first of them has."""
    found: dict[str, Norm] = {}
    for vector in vectors:
        stem, _, last = vector.name.rpartition(".")
        name = (stem if last in ("weight", "bias") else vector.name).removeprefix(f"{prefix}.")
        before = found.get(name)
        found[name] = (
            Norm(name=name, width=vector.size, parameters=vector.size)
            if before is None
            else before.but(parameters=before.parameters + vector.size)
        )
    return tuple(norm for norm in found.values() if norm.width)
