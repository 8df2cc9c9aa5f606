"""What lowering any part of a model to operators needs: its number formats, and the operators that all parts share."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from roofline import ops
from roofline.arithmetic import Number
from roofline.errors import UnsupportedModelError
from roofline.forward.precision import Precision
from roofline.forward.symbols import TOKENS
from roofline.model import AnonymousCache, AnonymousWeights, Embedding, LayerGroup, Matrix, Model, Norm, Part, Projection, Projections
from roofline.ops import Op, Routing
from roofline.parallel.degrees import SINGLE, Parallel

Fusion = Literal["none", "attention", "full"]
FUSIONS: tuple[Fusion, ...] = ("none", "attention", "full")
"""What stays on chip between operators: nothing; the score matrix (flash attention); everything row-wise as well."""


@dataclass(frozen=True, slots=True)
class Lowering:
    """One model under one choice of number formats and fusion, to be lowered to operators."""

    model: Model  # the model
    precision: Precision  # its number formats
    fusion: Fusion  # what stays on chip between operators
    routing: Routing  # how tokens spread over experts
    parallel: Parallel = SINGLE  # how many devices share the model, of which `model` is one device's share
    domain: int = 2**40  # devices that reach each other over scale-up links; all of them if not given

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
        """Return the operator of one matrix, or of several with the same input merged into one."""
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
        """Yield matrices with the same input as one operator, as engines do, or several if their formats differ."""
        for _, alike in groupby(matrices, key=lambda m: self.precision.stored(m, group)):
            run = list(alike)
            label = run[0].name if len(run) == 1 else name
            yield self.linear(
                run[0], group, rows, name=label, outputs=sum(m.outputs for m in run), bias=sum(m.bias for m in run), reads=reads
            )

    def norm(self, norm: Norm, rows: Number = TOKENS, *, width: int = 0, reads: Number = 1) -> Op:
        """Return the operator of a norm."""
        op = ops.norm(
            norm.name, rows, width=width or norm.width, parameters=norm.parameters, stored=self.precision.base, stream=self.precision.stream
        )
        return self.rowwise(op.having(weight_bytes=op.weight_bytes * reads))

    def elementwise(self, name: str, rows: Number = TOKENS, *, width: int, inputs: int, what: str) -> Op:
        """Return an element-wise operator."""
        flops = ops.ELEMENTWISE_FLOPS[what]
        return self.rowwise(ops.elementwise(name, rows, width=width, inputs=inputs, flops=flops, stream=self.precision.stream))

    def activation(self, name: str, width: int, *, gated: bool, rows: Number = TOKENS) -> Op:
        """Return the operator of an activation function, with the product by the gated half if there is one."""
        return self.elementwise(name, rows, width=width, inputs=1 + gated, what="gated_activation" if gated else "activation")

    def residual(self, prefix: str) -> Op:
        """Return the operator that adds a block's result to the residual stream."""
        return self.elementwise(f"{prefix}.residual", width=self.model.hidden_size, inputs=2, what="residual").having(adds_residual=True)

    def vectors(self, name: str, parameters: int, *, normalized: bool = False) -> Op:
        """Return the operator of parameters that are only added or scaled by.

        A small norm is a separate kernel. Other vectors (sinks, decay rates) are loaded by the kernel that uses them.
        """
        rows = TOKENS * (parameters if normalized else 0)
        traffic = rows * self.precision.stream.bytes_per_element
        return self.rowwise(
            Op(
                name,
                "normalization" if normalized else "element-wise",
                vector_flops=rows * ops.NORM_FLOPS,
                weight_bytes=parameters * self.precision.base.bytes_per_element,
                input_bytes=traffic,
                output_bytes=traffic,
                rows=TOKENS * normalized,
                family="rowwise" if normalized else "",
                stored=self.precision.base.name,
                sizes={"width": parameters},
            )
        )

    def rowwise(self, op: Op) -> Op:
        """Return `op` as it is, or without activation traffic where full fusion keeps its rows on chip."""
        return op.having(input_bytes=0, output_bytes=0) if self.fusion == "full" else op

    def streams(self, connection: Matrix, group: LayerGroup) -> Iterator[Op]:
        """Yield a hyper-connection: the weights of collapsing, expanding and mixing residual streams, and their use."""
        width = connection.inputs
        yield self.norm(Norm(name=f"{connection.name}.norm", width=width, parameters=0))
        yield self.linear(connection, group)
        # each resulting stream mixes all streams; the block's input and output are read and written once more
        mix = ops.elementwise(
            f"{connection.name}.mix", TOKENS, width=width, inputs=1, flops=2 * (group.streams + 2), stream=self.precision.stream
        )
        yield self.rowwise(mix)

    def layer(self, group: LayerGroup) -> Iterator[Op]:
        """Yield the operators of one layer: norms, mixer, feed-forward, residuals."""
        for norm in group.norms:
            yield self.norm(norm)
        reduced = [p for p in (group.mixer, group.feed_forward) if p is not None and not isinstance(p, _WHOLE)]
        for part, connection in zip((group.mixer, group.feed_forward), group.connections(self.model.hidden_size), strict=True):
            if connection is not None:
                yield from self.streams(connection, group)
            if part is not None:
                yield from self._part(part, group)
            if part in reduced and not (group.side_by_side and part is not reduced[-1]):
                yield from self.all_reduce("mixer" if part is group.mixer else "mlp")
        for part in group.further:
            yield from self._part(part, group)

    def beside_table(self, table: Embedding) -> Iterator[Op]:
        """Yield what embedded rows pass besides the layers: rows of a second table, projections and their norm."""
        for vector in table.layer_tables:
            stored = self.precision.stored(vector, None)
            yield ops.embedding(vector.name, TOKENS, width=table.layer_width, stored=stored, stream=self.precision.stream)
        for part in table.projections:
            yield from (self.linear(matrix, None, TOKENS * part.uses) for matrix in part.matrices(self.model.hidden_size))
        if table.projection_norm is not None:
            yield self.norm(table.projection_norm, width=table.layer_width)

    def _part(self, part: Part, group: LayerGroup) -> Iterator[Op]:
        lower = LOWERED.get(type(part))
        if lower is None:
            raise UnsupportedModelError(
                f"{type(part).__name__} cannot be counted: no function in roofline.forward is registered by @lowers({type(part).__name__})."
            )
        return lower(part, self, group)

    def all_reduce(self, name: str) -> Iterator[Op]:
        """Yield the all-reduce of the block's partial results, where tensor parallelism splits it."""
        if self.parallel.tensor > 1:
            size = TOKENS * (self.model.hidden_size * self.precision.stream.bytes_per_element)
            yield ops.all_reduce(f"{name}.all_reduce", size, ranks=self.parallel.tensor, domain=self.domain)


def merge_alike(layers: Iterable[LayerGroup]) -> Iterator[tuple[LayerGroup, int, int]]:
    """Yield layers of each kind once, with how many there are and how many have weights of their own, wherever they stand."""
    alike: dict[tuple[object, ...], list[LayerGroup]] = {}
    for group in layers:
        alike.setdefault(
            tuple(value for name, value in zip(group._fields, group._values(), strict=True) if name not in ("count", "distinct")), []
        ).append(group)
    for groups in alike.values():
        yield groups[0], sum(g.count for g in groups), sum(g.stored for g in groups)


_WHOLE = (Projection, Projections, AnonymousWeights, AnonymousCache)
"""Parts after which no all-reduce is needed: they are not split over devices, or nothing is known of them."""

LOWERED: dict[type[Part], Callable[[Any, Lowering, LayerGroup], Iterator[Op]]] = {}
"""How each kind of mixer and feed-forward becomes operators."""

_Lower = Callable[[Any, Lowering, LayerGroup], Iterator[Op]]


def lowers(kind: type[Part]) -> Callable[[_Lower], _Lower]:
    """Register the function that turns one kind of part into operators."""

    def register(function: _Lower) -> _Lower:
        LOWERED[kind] = function
        return function

    return register
