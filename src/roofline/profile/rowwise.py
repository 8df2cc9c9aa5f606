"""What element-wise operators, copies, sums, norms, softmax and look-ups of torch cost, from the shapes of a call.

Every input is read once and every output written once. An operation of general units is one for each element that comes out, or that
goes into a sum, a transcendental function included; on whole numbers and flags there is none.
"""

import math
from collections.abc import Callable, Iterable

from roofline import ops
from roofline.frozen import FrozenDict
from roofline.ops import Kind, Op
from roofline.profile.call import ELEMENTS, Call, Element, Tensor, broadcast, dense, promoted

Cost = Callable[[Call], Op | None]
_BOOL, _INDEX, _FP32 = ELEMENTS["bool"], ELEMENTS["long int"], ELEMENTS["float"]


def _moved(call: Call, read: Iterable[Tensor], written: Tensor, operations: float, kind: Kind = "element-wise") -> Op:
    floats = written.element.kind == "float" or any(t.element.kind == "float" for t in read)
    return Op(
        call.name,
        kind,
        vector_flops=operations if floats else 0,
        input_bytes=sum(t.bytes for t in read),
        output_bytes=written.bytes,
        rows=math.prod(written.dims[:-1]),
        stored=written.element.name,
    )


def _elementwise(operations: int = 1, out: Element | None = None, *, floats: bool = False) -> Cost:
    """Return the cost function of an operator on tensors that broadcast, with so many operations for each element."""

    def count(call: Call) -> Op | None:
        tensors = call.tensors
        dims = broadcast(tensors) if tensors else None
        if not tensors or dims is None or any(kind == "TensorList" for kind in call.types):
            return None
        element = out or promoted(tensors)
        if floats and element.kind != "float":
            element = _FP32
        result = tensors[0] if call.name.endswith("_") else dense(dims, element)
        read = [t for t in tensors if t.dims]  # what has no dims is a number
        return _moved(call, read, result, operations * result.elements)

    return count


def _copied(call: Call) -> Op | None:
    """`copy_(to, from)`: the second is read, the first written."""
    to, source = call.tensor(0), call.tensor(1)
    return to and source and _moved(call, (source,), to, 0)


def _filled(call: Call) -> Op | None:
    to = call.tensor(0)
    return to and _moved(call, (), to, 0)


def _joined(call: Call) -> Op | None:
    """`cat(tensors, dim)`: all are read, and as much is written."""
    parts = call.members
    whole = sum(t.elements for t in parts)
    return _moved(call, parts, dense((whole,), promoted(parts)), 0) if parts else None


def _reduced(out: Element | None = None, *, dims_at: int = 1, operations: int = 1) -> Cost:
    """Return the cost function of sums, means and extremes over the dims that input number `dims_at` names, or over all."""

    def count(call: Call) -> Op | None:
        data = call.tensor(0)
        if data is None:
            return None
        if call.tensor(1):  # the greater of two tensors
            return _elementwise()(call)
        listed = call.numbers(dims_at)
        over = {d % len(data.dims) for d in listed or range(len(data.dims))} if data.dims else set()
        element = out or (_INDEX if data.element.kind != "float" and "sum" in call.name else data.element)
        result = dense([1 if i in over else size for i, size in enumerate(data.dims)], element)
        return _moved(call, (data,), result, operations * data.elements)

    return count


def _ordered(call: Call) -> Op | None:
    """`topk(data, k, dim)`: values and their places come out; no operation is counted for comparisons."""
    data, k = call.tensor(0), call.numbers(1)
    dim = call.numbers(2) or (-1,)
    if data is None or not k or not data.dims:
        return None
    out = data.elements // max(data.dims[dim[0]], 1) * k[0]
    return _moved(call, (data,), dense((out,), data.element._replace(size=data.element.size + _INDEX.size)), 0)


def _softmax(call: Call) -> Op | None:
    data = call.tensor(0)
    if data is None:
        return None
    element = _FP32 if call.flag(2) else data.element  # half_to_float
    return _moved(call, (data,), dense(data.dims, element), ops.SOFTMAX_FLOPS * data.elements, "normalization")


def _normed(call: Call) -> Op | None:
    """Count a norm of rows: the first input, and whatever scales and shifts there are."""
    data = call.tensor(0)
    return data and _moved(call, call.tensors, dense(data.dims, data.element), ops.NORM_FLOPS * data.elements, "normalization")


def _embedded(call: Call) -> Op | None:
    """`embedding(table, places)`: rows that are looked up are read and written."""
    table, places = call.tensor(0), call.tensor(1)
    if table is None or places is None or len(table.dims) != 2:
        return None
    rows = dense((*places.dims, table.dims[1]), table.element)
    return _moved(call, (rows, places), rows, 0, "gather")


def _selected(call: Call) -> Op | None:
    """`index_select(data, dim, places)`."""
    data, dim, places = call.tensor(0), call.numbers(1), call.tensor(2)
    if data is None or places is None or not dim or not data.dims:
        return None
    out = dense((data.elements // max(data.dims[dim[0]], 1) * places.elements,), data.element)
    return _moved(call, (out, places), out, 0, "gather")


def _gathered(call: Call) -> Op | None:
    """`gather(data, dim, places)`: one element for each place."""
    data, places = call.tensor(0), call.tensor(2)
    if data is None or places is None:
        return None
    out = dense(places.dims, data.element)
    return _moved(call, (out, places), out, 0, "gather")


def _written(call: Call, to: Tensor, values: Tensor | None, places: Tensor | None, written: Tensor, operations: int = 0) -> Op:
    """Count what is written to places of a tensor: of a copy of it, unless the operator works in place; sums read what was there."""
    whole = [] if call.name.endswith("_") else [to]
    read = [t for t in (values, places, written if operations else None) if t]
    op = _moved(call, [*read, *whole], written, operations * written.elements, "gather")
    return op.having(output_bytes=op.output_bytes + sum(t.bytes for t in whole))


def _scattered(operations: int = 0) -> Cost:
    """Return the cost function of `scatter(to, dim, places, values)`."""

    def count(call: Call) -> Op | None:
        to, places, values = call.tensor(0), call.tensor(2), call.tensor(3)
        if to is None or places is None:
            return None
        return _written(call, to, values, places, dense((values or places).dims, to.element), operations)

    return count


def _placed(values_at: int, places_at: int) -> Cost:
    """Return the cost function of an operator that writes one of its inputs to places of the first."""

    def count(call: Call) -> Op | None:
        to, values = call.tensor(0), call.tensor(values_at)
        return to and values and _written(call, to, values, call.tensor(places_at), dense(values.dims, to.element))

    return count


_ARITHMETIC = """
    abs add bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min elu
    floor floor_divide fmod gelu gelu_backward hardsigmoid hardswish hardtanh leaky_relu log_sigmoid_forward logical_and logical_not
    logical_or maximum minimum mish mul neg pow relu relu6 remainder round rsub sign silu silu_backward softplus square sub threshold
    threshold_backward tril triu trunc
"""
_TRANSCENDENTAL = """
    acos asin atan atan2 cos cosh div erf erfinv exp exp2 expm1 log log10 log1p log2 reciprocal rsqrt sigmoid sin sinh sqrt tan tanh
"""
_COMPARISONS = """
    eq ge gt isfinite isinf isnan le lt ne
"""
_EXTREMES = """
    all amax amin any linalg_vector_norm logsumexp max mean min nansum norm prod sum
"""


def _named(names: str, cost: Cost) -> dict[str, Cost]:
    return {f"aten::{name}": cost for name in names.split()}


def _both(names: str, cost: Cost) -> dict[str, Cost]:
    """Return a cost function for operators of such names, and for those that write in place."""
    return {f"aten::{name}{end}": cost for name in names.split() for end in ("", "_")}


COSTS: FrozenDict[str, Cost] = FrozenDict(
    {
        **_both(_ARITHMETIC, _elementwise()),
        **_both(_TRANSCENDENTAL, _elementwise(floats=True)),
        **_both(_COMPARISONS, _elementwise(out=_BOOL)),
        **_both("addcmul addcdiv lerp", _elementwise(3)),
        **_both("where masked_fill", _elementwise(0)),
        **_named(_EXTREMES, _reduced()),
        **_named("argmax argmin count_nonzero", _reduced(_INDEX)),
        **_named("var std var_mean", _reduced(operations=3)),
        **_named("cumsum cumprod", _elementwise()),
        "aten::topk": _ordered,
        "aten::copy_": _copied,
        **_named("fill_ zero_ normal_ uniform_ random_ exponential_ bernoulli_", _filled),
        "aten::cat": _joined,
        **_named("_softmax _log_softmax", _softmax),
        **_named("native_layer_norm native_group_norm native_batch_norm _fused_rms_norm", _normed),
        "aten::embedding": _embedded,
        "aten::index_select": _selected,
        "aten::gather": _gathered,
        **_both("index_put _index_put_impl", _placed(2, 1)),  # a trace does not tell the lists of places
        **_both("index_copy", _placed(3, 2)),
        **_both("scatter", _scattered()),
        **_both("scatter_add index_add", _scattered(1)),
    }
)
"""Cost functions of everything but products, by the operator's name in torch."""
