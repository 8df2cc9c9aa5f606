"""A compiled model as kernels: operators of one family stacked, so that a step's kernels are timed in a handful of array operations."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from roofline.arithmetic import LinearForm, Number
from roofline.errors import InvalidValueError
from roofline.formats import OPERANDS, Format
from roofline.forward import Program
from roofline.frozen import freeze
from roofline.kernels import FAMILIES, Family
from roofline.model.feed_forward import ROUTER, SHARED
from roofline.ops import Op

_STREAM = Format.load("bf16")  # of the rows between operators, as engines keep them


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """All kernels of one family in a compiled model."""

    family: Family  # the family
    ops: tuple[Op, ...]  # n operators, each with the amounts of one kernel
    counts: np.ndarray  # how many kernels each stands for, n × 1
    names: tuple[str, ...]  # the family's k features
    # coefficients of the rows that pass through (a kernel without rows is not launched) and of every feature, (1 + k) × n × (1 +
    # aggregates)
    coefficients: np.ndarray
    first: np.ndarray  # the first operator of each of d different kernels: with other formats, sizes or amounts, d
    alike: np.ndarray  # 1 where an operator launches a kernel, else 0, d × n


def stack_kernels(program: Program, *, shared_within: Collection[int] = ()) -> tuple[Stack, ...]:
    """Return the kernels of a compiled model by family, where mixtures of so many experts compute the shared one in the kernel of the routed ones."""
    index: dict[object, int] = {symbol: i for i, symbol in enumerate((1, *program.aggregates))}
    families: dict[str, list[Op]] = {}
    for op in _as_launched(program.ops, shared_within):
        if op.family:
            families.setdefault(op.family, []).append(op)
    return tuple(_stack(FAMILIES[name], ops, index) for name, ops in families.items())


def _stack(family: Family, ops: list[Op], index: dict[object, int]) -> Stack:
    single = tuple(_one_kernel(op) for op in ops)
    features = [family.features(op) for op in single]
    names = tuple(features[0])
    rows = _matrix([op.rows if LinearForm.coerce(op.rows).terms else 1 for op in single], index)
    counts = np.array([[op.count] for op in ops], dtype=float)
    coefficients = np.stack([rows, *(_matrix([x[name] for x in features], index) for name in names)])
    return Stack(family, single, freeze(counts), names, freeze(coefficients), *_different(single, coefficients))


def _different(ops: tuple[Op, ...], coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first operator of each kernel, and which operators launch it."""
    amounts = coefficients.astype(np.float32)  # sums over different counts differ in their last digits
    found: dict[object, int] = {}
    keys = ((op.kind, op.stored, op.operand, *op.sizes.items(), amounts[:, i].tobytes()) for i, op in enumerate(ops))
    kernel_of = np.array([found.setdefault(key, i) for i, key in enumerate(keys)])
    first = np.array(list(found.values()))
    return freeze(first), freeze((kernel_of == first[:, None]).astype(float))


def _matrix(forms: list[Number], index: dict[object, int]) -> np.ndarray:
    """Return the coefficients of linear forms, one row each."""
    matrix = np.zeros((len(forms), len(index)))
    for i, form in enumerate(forms):
        for symbol, coefficient in LinearForm.coerce(form).terms.items():
            matrix[i, index[symbol]] = coefficient
    return matrix


def _one_kernel(op: Op) -> Op:
    """Return the cost of one of the `count` kernels that an operator sums over."""
    amounts: dict[str, Number] = {n: form / op.count if isinstance(form, LinearForm) or form else form for n, form in op.amounts().items()}
    return replace(op, **amounts)


def _as_launched(ops: tuple[Op, ...], shared_within: Collection[int]) -> Iterator[Op]:
    """Yield operators as engines launch them: a mixture of experts as one kernel, a residual together with the norm after it."""
    yield from _add_small(_fuse_residuals(_fuse_shared([op for run in _fuse_experts(ops) for op in run], shared_within)))


def _add_small(ops: Iterator[Op]) -> Iterator[Op]:
    """Yield operators with the small kernels around products that engines launch and no count of work needs.

    Rows that get a scale for every few elements are quantized by a kernel before the product; a router's logits are ranked by one after it.
    """
    for op in ops:
        product = op.family == "matmul"
        if product and OPERANDS[op.operand] < _STREAM.bits and Format.load(op.stored).bits > OPERANDS[op.operand]:
            elements = op.sizes["inputs"] * op.rows
            yield _small(op, "quantize", elements * _STREAM.bytes_per_element, elements * OPERANDS[op.operand] / 8)
        yield op
        if product and op.name.endswith(ROUTER):
            yield _small(op, "top_k", op.sizes["outputs"] * op.rows * _STREAM.bytes_per_element, 0)


def _small(product: Op, what: str, input_bytes: Number, output_bytes: Number) -> Op:
    """Return the kernel that works on the rows of a product."""
    return Op(
        f"{product.name}.{what}",
        "element-wise",
        input_bytes=input_bytes,
        output_bytes=output_bytes,
        rows=product.rows,
        count=product.count,
        family="rowwise",
        stored=_STREAM.name,
        sizes={"width": product.sizes["inputs"]},
    )


def _fuse_experts(ops: tuple[Op, ...]) -> Iterator[list[Op]]:
    """Yield the operators of each mixture of experts as one, all others unchanged."""
    for key, alike in groupby(ops, key=lambda op: op.family == "experts" and (op.count, tuple(op.sizes.items()))):
        run = list(alike)
        yield [merge_experts(run)] if key else run


def _fuse_shared(ops: list[Op], counts: Collection[int]) -> list[Op]:
    """Return operators with the shared expert of mixtures of so many experts as one more routed one, which every token visits.

    Experts that are divided among devices whole have no place for it.
    """
    found: list[Op] = []
    mixture, rows_counted = -1, False
    for op in ops:
        if op.family == "experts":
            mixture, rows_counted = len(found) if op.sizes["ranks"] == 1 and op.sizes["count"] in counts else -1, False
        within = mixture >= 0 and SHARED in op.name and op.count == found[mixture].count
        if not within:
            found.append(op)
            continue
        routed = found[mixture]
        amounts = {name: form + getattr(op, name) for name, form in routed.amounts().items() if name != "rows" or not rows_counted}
        found[mixture], rows_counted = routed.having(**amounts), True
    return found


def merge_experts(ops: Sequence[Op]) -> Op:
    """Return the operators of one mixture of experts as the one kernel that engines launch for them.

    Examples
    --------
    >>> up = Op("experts.up", "contraction", flops=2, rows=1, family="experts", sizes={"hidden": 8})
    >>> op = merge_experts([up, Op("experts.down", "contraction", flops=1, family="experts", sizes={"hidden": 8})])
    >>> op.name, op.flops, op.rows
    ('experts', 3, 1)
    """
    first = ops[0] if ops else None
    if first is None or any(op.family != "experts" or op.count != first.count or dict(op.sizes) != dict(first.sizes) for op in ops):
        raise InvalidValueError(
            f"{', '.join(op.name for op in ops) or 'nothing'}: only operators of one mixture of experts merge into one kernel."
        )
    parts = [op.name.split(".") for op in ops]
    shared = [column[0] for column in zip(*parts, strict=False) if len(set(column)) == 1]
    amounts = {name: sum((getattr(op, name) for op in ops[1:]), start=form) for name, form in first.amounts().items()}
    return replace(first, name=".".join(shared) or first.name, **amounts)


def _fuse_residuals(ops: list[Op]) -> Iterator[Op]:
    """Yield each norm together with a residual of as many layers; residuals without such a norm come last."""
    waiting = [op for op in ops if _is_residual(op)]
    for op in ops:
        if _is_residual(op):
            continue
        is_norm = op.family == "rowwise" and op.kind == "normalization"
        place = next((i for i, residual in enumerate(waiting) if residual.count == op.count), None) if is_norm else None
        yield op if place is None else _add(op, waiting.pop(place))
    yield from waiting


def _is_residual(op: Op) -> bool:
    return op.family == "rowwise" and op.adds_residual


def _add(norm: Op, residual: Op) -> Op:
    """Return both as one kernel, whose rows pass through once."""
    amounts = {name: form + getattr(residual, name) for name, form in norm.amounts().items() if name != "rows"}
    return replace(norm, name=f"{norm.name} + {residual.name}", **amounts)
