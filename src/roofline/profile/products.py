"""What matrix products, attention and convolutions of torch cost, from the shapes of a call."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from roofline import ops
from roofline.errors import RooflineError
from roofline.formats import Format
from roofline.frozen import FrozenDict
from roofline.ops import Op
from roofline.profile.call import ELEMENTS, Call, Element, Tensor, dense


def _format(element: Element) -> Format | None:
    """Return the format that products of such elements run in; None where matrix units have none, as for int64."""
    name = {"uint8": "int8"}.get(element.name, element.name)
    try:
        return Format.load(name) if element.kind == "float" or name == "int8" else None
    except RooflineError:  # complex numbers
        return None


def _matrices(call: Call, a: Tensor | None, b: Tensor | None, out: Element | None = None) -> Op | None:
    """Return the cost of (… × m × k) · (… × k × n): one product, or a batch of them."""
    if a is None or b is None or len(a.dims) != len(b.dims) or len(a.dims) < 2:
        return None
    rows, weights = _format(a.element), _format(b.element)
    packed = 2 if a.element.name == "fp4" else 1
    (m, k), n, batch = a.dims[-2:], b.dims[-1], math.prod(a.dims[:-2])
    if rows is None or weights is None:
        return None
    op = ops.linear(call.name, m * batch, inputs=k * packed, outputs=n, weights=weights, activations=rows, stream=rows, reads=batch)
    size = (out or a.element).size
    return replace(op, weight_bytes=b.bytes, input_bytes=a.bytes, output_bytes=size * m * n * batch)


def _added(op: Op | None, added: Tensor | None) -> Op | None:
    """Return a product to whose result a tensor is added."""
    if op is None or added is None:
        return op
    elements = op.flops / (2 * op.sizes["inputs"]) if op.sizes["inputs"] else 0
    return replace(op, vector_flops=int(elements), input_bytes=op.input_bytes + added.bytes)


def _product(call: Call) -> Op | None:
    return _matrices(call, call.tensor(0), call.tensor(1))


def _product_added(call: Call) -> Op | None:
    return _added(_matrices(call, call.tensor(1), call.tensor(2)), call.tensor(0))


def _integers(call: Call) -> Op | None:
    return _matrices(call, call.tensor(0), call.tensor(1), ELEMENTS["int"])


def _vector(call: Call) -> Op | None:
    """Matrix times vector: a product of one column."""
    a, b = call.tensor(0), call.tensor(1)
    return a and b and _matrices(call, a, b._replace(dims=(*b.dims, 1)))


def _vector_added(call: Call) -> Op | None:
    a, b = call.tensor(1), call.tensor(2)
    return a and b and _added(_matrices(call, a, b._replace(dims=(*b.dims, 1))), call.tensor(0))


def _dot(call: Call) -> Op | None:
    a, b = call.tensor(0), call.tensor(1)
    return a and b and _matrices(call, a._replace(dims=(1, *a.dims)), b._replace(dims=(*b.dims, 1)))


def _scaled(call: Call) -> Op | None:
    """`_scaled_mm(a, b, scale_a, scale_b, bias, scale_result, out_dtype)`."""
    op = _matrices(call, call.tensor(0), call.tensor(1), call.dtype(6) or ELEMENTS["c10::BFloat16"])
    scales = sum(t.bytes for place in (2, 3) if (t := call.tensor(place)))
    op = op and replace(op, input_bytes=op.input_bytes + scales)
    return _added(op, call.tensor(4))


def _packed(call: Call) -> Op | None:
    """`_weight_int8pack_mm(a, weights, scales)`: weights n × k in int8, multiplied in the format of the rows."""
    a, weights, scales = (call.tensor(place) for place in range(3))
    if a is None or weights is None or len(a.dims) != 2 or (rows := _format(a.element)) is None:
        return None
    (m, k), n = a.dims, weights.dims[0]
    op = ops.linear(call.name, m, inputs=k, outputs=n, weights=rows, activations=rows, stream=rows)
    return replace(op, weight_bytes=weights.bytes + (scales.bytes if scales else 0), stored=weights.element.name)


def _linear(call: Call) -> Op | None:
    """Count a linear layer that is one operator: rows of any dims, weights n × k, bias."""
    a, weights = call.tensor(0), call.tensor(1)
    if a is None or weights is None or len(weights.dims) != 2 or not a.dims:
        return None
    rows = a._replace(dims=(math.prod(a.dims[:-1]), a.dims[-1]))
    return _added(_matrices(call, rows, weights._replace(dims=weights.dims[::-1])), call.tensor(2))


def _grouped(call: Call) -> Op | None:
    """`_grouped_mm(a, b, ends)`: rows of a, in groups, each times a matrix of b of its own; all of b is read."""
    a, b = call.tensor(0), call.tensor(1)
    if a is None or b is None or (len(a.dims), len(b.dims)) != (2, 3):
        return _matrices(call, a, b)  # a batch of products
    return _matrices(call, a, b._replace(dims=b.dims[1:]))


def visible(queries: int, keys: int, causal: bool) -> int:
    """Return the pairs that a sequence's queries see; torch aligns a causal mask with the first query and the first key.

    Examples
    --------
    >>> visible(3, 5, True), visible(5, 3, True), visible(1, 5, False)
    (6, 12, 5)
    """
    square = min(queries, keys)
    return square * (square + 1) // 2 + (queries - square) * keys if causal else queries * keys


def _attention(causal_at: int, mask_at: int) -> Callable[[Call], Op | None]:
    """Return the cost function of a fused attention kernel, whose flag and mask are the inputs of these numbers."""

    def count(call: Call) -> Op | None:
        query, key, value = (call.tensor(place) for place in range(3))
        causal = call.flag(causal_at)
        if query is None or key is None or value is None or causal is None or {len(t.dims) for t in (query, key, value)} != {4}:
            return None
        stream = _format(query.element)
        if stream is None:
            return None
        batch, heads, queries, width = query.dims
        keys, mask = key.dims[2], call.tensor(mask_at)
        op = ops.attention(
            call.name,
            pairs=batch * visible(queries, keys, causal),
            tokens=batch * queries,
            read=batch * keys,
            written=0,
            heads=heads,
            kv_heads=key.dims[1],
            qk_dim=width,
            v_dim=value.dims[3],
            kv=stream,
            stream=stream,
            sequences=batch,
        )
        # keys and values are read once, whether they are cached or new
        inputs = query.bytes + (mask.bytes if mask else 0)
        return replace(op, kv_read_bytes=key.bytes + value.bytes, input_bytes=inputs)

    return count


def _convolution(call: Call) -> Op | None:
    """`convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)`."""
    data, weights = call.tensor(0), call.tensor(1)
    stride, padding, dilation = (call.numbers(place) for place in (3, 4, 5))
    transposed, extra = call.flag(6), call.numbers(7)
    if (
        data is None
        or weights is None
        or not stride
        or padding is None
        or not dilation
        or transposed is None
        or (f := _format(data.element)) is None
    ):
        return None
    out, spatial = _out_dims(data.dims, weights.dims, (stride, padding, dilation, extra or (0,)), transposed, call.numbers(8))
    result = dense(out, data.element)
    places = math.prod(spatial if transposed else out[2:])
    flops = 2 * data.dims[0] * places * math.prod(weights.dims)
    op = Op(
        call.name,
        "contraction",
        f.operand,
        flops=flops,
        weight_bytes=weights.bytes,
        input_bytes=data.bytes,
        output_bytes=result.bytes,
        rows=data.dims[0] * places,
        stored=f.name,
    )
    bias = call.tensor(2)
    return replace(op, vector_flops=result.elements, input_bytes=data.bytes + bias.bytes) if bias else op


def _out_dims(
    data: Sequence[int], weights: Sequence[int], settings: tuple[Sequence[int], ...], transposed: bool, groups: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the dims of a convolution's result, and the spatial dims that go in."""
    spatial, kernel = tuple(data[2:]), weights[2:]
    stride, padding, dilation, extra = (tuple(s) * len(spatial) if len(s) == 1 else tuple(s) for s in settings)
    out = []
    for i, size in enumerate(spatial):
        reach = dilation[i] * (kernel[i] - 1) + 1
        out.append(
            (size - 1) * stride[i] - 2 * padding[i] + reach + extra[i] if transposed else (size + 2 * padding[i] - reach) // stride[i] + 1
        )
    channels = weights[1] * (groups or (1,))[0] if transposed else weights[0]
    return (data[0], channels, *out), spatial


COSTS: FrozenDict[str, Callable[[Call], Op | None]] = FrozenDict(
    {
        "aten::mm": _product,
        "aten::bmm": _product,
        "aten::addmm": _product_added,
        "aten::addmm_": _product_added,
        "aten::_addmm_activation": _product_added,
        "aten::baddbmm": _product_added,
        "aten::baddbmm_": _product_added,
        "aten::mv": _vector,
        "aten::addmv": _vector_added,
        "aten::addmv_": _vector_added,
        "aten::dot": _dot,
        "aten::_int_mm": _integers,
        "aten::_scaled_mm": _scaled,
        "aten::_weight_int8pack_mm": _packed,
        "aten::_grouped_mm": _grouped,
        "aten::mkldnn_linear": _linear,
        "mkldnn::_linear_pointwise": _linear,
        "mkl::_mkl_linear": _linear,
        "aten::_scaled_dot_product_flash_attention": _attention(4, 99),
        "aten::_scaled_dot_product_flash_attention_for_cpu": _attention(4, 5),
        "aten::_scaled_dot_product_efficient_attention": _attention(6, 3),
        "aten::_scaled_dot_product_cudnn_attention": _attention(6, 3),
        "aten::convolution": _convolution,
    }
)
"""Cost functions of products by the operator's name in torch."""
