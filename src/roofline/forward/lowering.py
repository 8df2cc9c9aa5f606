"""What every part of a model needs to become operators: its number formats, and the operators that all parts share."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from roofline import ops
from roofline.arithmetic import Number
from roofline.forward.precision import Precision
from roofline.forward.symbols import TOKENS
from roofline.model import LayerGroup, Matrix, Model, Norm, Part
from roofline.ops import Op

__all__ = ["FUSIONS", "LOWERED", "Fusion", "Lowering", "lowers"]

Fusion = Literal["none", "attention", "full"]
FUSIONS: tuple[Fusion, ...] = ("none", "attention", "full")
"""What stays on chip between operators: nothing; the score matrix (flash attention); everything row-wise as well."""


@dataclass(frozen=True, slots=True)
class Lowering:
    """One model under one choice of number formats and fusion, on its way to operators.

    Parameters
    ----------
    model : Model
        The model [-].
    precision : Precision
        Its number formats [-].
    fusion : {"none", "attention", "full"}
        What stays on chip between operators [-].
    """

    model: Model
    precision: Precision
    fusion: Fusion

    def linear(
        self,
        matrix: Matrix,
        group: LayerGroup | None,
        rows: Number = TOKENS,
        *,
        name: str = "",
        outputs: int = 0,
        bias: int = 0,
        reads: Number = 1,
    ) -> Op:
        """Return the operator of one matrix, or of several with the same input merged into one.

        Parameters
        ----------
        matrix : Matrix
            The (first) matrix [-].
        group : LayerGroup or None
            Its layer; None outside the layers [-].
        rows : LinearForm, optional
            Rows that pass through [token].
        name : str, optional
            What to call it, if not after the matrix [-].
        outputs, bias : int, optional
            Totals over the merged matrices, if there are several [-].
        reads : LinearForm or int, optional
            How many matrices of this shape are read [-].

        Returns
        -------
        Op
            A contraction [-].
        """
        stored = self.precision.stored(matrix, group)
        return ops.linear(
            name or matrix.name,
            rows,
            inputs=matrix.inputs,
            outputs=outputs or matrix.outputs,
            weights=stored,
            activations=self.precision.multiplied(stored),
            stream=self.precision.stream,
            bias=bias or matrix.bias,
            reads=reads,
        )

    def merged(
        self, name: str, matrices: Iterable[Matrix], group: LayerGroup | None, rows: Number = TOKENS, *, reads: Number = 1
    ) -> Iterator[Op]:
        """Yield matrices with the same input as one operator, as engines do, or several if their formats differ.

        Parameters
        ----------
        name : str
            What to call the merged one [-].
        matrices : iterable of Matrix
            Matrices with equal inputs [-].
        group : LayerGroup or None
            Their layer [-].
        rows : LinearForm, optional
            Rows that pass through [token].
        reads : LinearForm or int, optional
            How many of each are read [-].

        Yields
        ------
        Op
            One contraction per stored format [-].
        """
        for _, alike in groupby(matrices, key=lambda m: self.precision.stored(m, group)):
            run = list(alike)
            label = run[0].name if len(run) == 1 else name
            yield self.linear(
                run[0], group, rows, name=label, outputs=sum(m.outputs for m in run), bias=sum(m.bias for m in run), reads=reads
            )

    def norm(self, norm: Norm, rows: Number = TOKENS, *, width: int = 0, reads: Number = 1) -> Op:
        """Return the operator of a norm.

        Parameters
        ----------
        norm : Norm
            The norm [-].
        rows : LinearForm, optional
            Rows normalized [token].
        width : int, optional
            Elements of a row, if several heads of `norm.width` stand in it [-].
        reads : LinearForm or int, optional
            1, or 0 where no row arrives [-].

        Returns
        -------
        Op
            A normalization [-].
        """
        op = ops.norm(
            norm.name, rows, width=width or norm.width, parameters=norm.parameters, stored=self.precision.base, stream=self.precision.stream
        )
        return self.rowwise(replace(op, weight_bytes=op.weight_bytes * reads))

    def elementwise(self, name: str, rows: Number = TOKENS, *, width: int, inputs: int, what: str) -> Op:
        """Return an element-wise operator.

        Parameters
        ----------
        name : str
            What to call it [-].
        rows : LinearForm, optional
            Rows that come out [token].
        width : int
            Elements of a row that comes out [-].
        inputs : int
            Elements in for one out [-].
        what : str
            A key of :data:`roofline.ops.ELEMENTWISE_FLOPS` [-].

        Returns
        -------
        Op
            An element-wise operator [-].
        """
        flops = ops.ELEMENTWISE_FLOPS[what]
        return self.rowwise(ops.elementwise(name, rows, width=width, inputs=inputs, flops=flops, stream=self.precision.stream))

    def rowwise(self, op: Op) -> Op:
        """Return `op` as it is, or without activation traffic where full fusion keeps its rows on chip.

        Parameters
        ----------
        op : Op
            A norm or element-wise operator [-].

        Returns
        -------
        Op
            The same work [-].
        """
        return replace(op, input_bytes=0, output_bytes=0) if self.fusion == "full" else op

    def layer(self, group: LayerGroup) -> Iterator[Op]:
        """Yield the operators of one layer: norms, mixer, feed-forward, residuals.

        Parameters
        ----------
        group : LayerGroup
            The layer [-].

        Yields
        ------
        Op
            Amounts for one layer [-].
        """
        for norm in group.norms:
            yield self.norm(norm)
        for part in (group.mixer, group.feed_forward):
            if part is not None:
                yield from LOWERED[type(part)](part, self, group)


LOWERED: dict[type[Part], Callable[[Any, Lowering, LayerGroup], Iterator[Op]]] = {}
"""How each kind of mixer and feed-forward becomes operators."""

_Lower = Callable[[Any, Lowering, LayerGroup], Iterator[Op]]


def lowers(kind: type[Part]) -> Callable[[_Lower], _Lower]:
    """Register the function that turns one kind of part into operators.

    Parameters
    ----------
    kind : type
        A mixer or feed-forward class [-].

    Returns
    -------
    callable
        A decorator that returns the function unchanged [-].
    """

    def register(function: _Lower) -> _Lower:
        LOWERED[kind] = function
        return function

    return register
