"""What single kernels cost, from the sizes that people and tables give; nothing here knows a machine.

The counts are those of :mod:`roofline.ops`, by which a model's layers are counted too, so that a layer and a single kernel of the same
sizes cost the same. Inputs and outputs count as well: a kernel on its own cannot keep them on chip.
"""

from dataclasses import replace
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from roofline import ops
from roofline.arithmetic import Number, minimum
from roofline.errors import InvalidValueError, quoted
from roofline.formats import Format
from roofline.forward.precision import cache_format
from roofline.ops import Op
from roofline.ops.latent_attention import latent_attention_flops
from roofline.ops.popularity import busiest_rank
from roofline.ops.recurrent import state_flops
from roofline.step import CAUSAL, Visibility
from roofline.units import check_broadcast, check_count, check_flag, whole_number
from roofline.visibility import cached_positions, visible_pairs, written_positions

POWER_LAW = "power_law"
"""Routing of experts that were measured under a synthetic popularity, see ``ops.popularity.busiest_rank``; balanced if its exponent
is 0."""

_ROW_FLOPS = 1  # FLOP per element of a row-wise kernel, on the general units, which bound nothing here

FormatName = str | Format


def _check_counts(**counts: Any) -> tuple[Any, ...]:
    """Return counts of tokens and sequences, checked one by one and for shapes that broadcast."""
    checked = tuple(check_count(name, value, minimum=0 if name == "context" else 1) for name, value in counts.items())
    check_broadcast(**dict(zip(counts, checked, strict=True)))
    return checked


def _operand(format: FormatName) -> Format:
    """Return a format that both operands of a product may have; others are of weights alone."""
    rows = Format.load(format)
    if rows.weights_only:
        narrow = {"int4": "int4", "mxfp4": "mxfp4"}.get(rows.name.partition("_")[0])
        both = f", or format='{rows.name}_a{narrow}' if the rows are as narrow" if narrow and rows.activations == "bf16" else ""
        raise InvalidValueError(
            f"format is {rows.name!r}, which is a format of weights, multiplied by rows of more bits: "
            f"say format={rows.activations!r}, weights={rows.name!r}{both}."
        )
    return rows


def _of_rows(name: str, format: FormatName) -> Format:
    """Return a format that rows may be in; others are of weights alone."""
    rows = Format.load(format)
    if rows.weights_only:
        raise InvalidValueError(f"{name} is {rows.name!r}, which is a format of weights: rows are in {rows.activations!r}, for example.")
    return rows


def _result_format(rows: Format) -> Format:
    """Return the format of a product's result: that of its rows, or bf16 if they have fewer than 16 bits."""
    return max(rows, Format.load("bf16"), key=attrgetter("bits"))


def count_matmul(
    m: Any, n: Any, k: Any, *, format: FormatName, weights: FormatName | None = None, output: FormatName | None = None, batch: Any = 1
) -> Op:
    """Count one kernel of matrix products (m × k) · (k × n): one, or a batch of them, each with matrices of its own."""
    rows = _operand(format)
    stored = rows if weights is None else Format.load(weights)
    result = _result_format(rows) if output is None or (isinstance(output, str) and not output) else Format.load(output)
    m, n, k, batch = _check_counts(m=m, n=n, k=k, batch=batch)
    op = ops.linear("matmul", m * batch, inputs=k, outputs=n, weights=stored, activations=rows, stream=rows, reads=batch)
    return replace(op, output_bytes=n * result.bytes_per_element * m * batch)


def _append_once(op: Op, rows: Number, query: int, position: int, kv: Format, stream: Format) -> Op:
    """Count what is appended to the cache once: it is an input of the kernel, or another kernel wrote it and it is read from the cache."""
    appended = position * min(kv.bytes_per_element, stream.bytes_per_element)
    return replace(op, kv_write_bytes=0, input_bytes=(query * stream.bytes_per_element + appended) * rows)


def count_attention(
    *,
    heads: int,
    head_dim: int,
    kv_heads: int | None = None,
    v_head_dim: int | None = None,
    batch: Any = 1,
    context: Any = 0,
    new: Any = 1,
    visible: Literal["causal", "window", "chunk", "bidirectional"] = "causal",
    span: int = 0,
    kv: FormatName = "bf16",
    activations: FormatName = "bf16",
) -> Op:
    """Count one fused attention kernel."""
    for name, size in (("heads", heads), ("head_dim", head_dim), ("kv_heads", kv_heads), ("v_head_dim", v_head_dim)):
        if isinstance(size, (list, tuple, np.ndarray)):
            raise InvalidValueError(f"{name} is {quoted(size)}; it must be a single whole number: call once for each shape of attention.")
    visibility = CAUSAL if isinstance(visible, str) and visible == "causal" else Visibility(visible, span)
    if span and visibility.kind in ("causal", "bidirectional"):
        raise InvalidValueError(
            f"span is {quoted(span)}, but {visibility.kind} attention has none: say visible='window' or 'chunk' with it."
        )
    heads, head_dim = check_count("heads", heads, minimum=1), check_count("head_dim", head_dim, minimum=1)
    shared = check_count("kv_heads", heads if kv_heads is None else kv_heads, minimum=1)
    if heads % shared:
        raise InvalidValueError(
            f"heads is {heads} and kv_heads is {shared}; heads must be a multiple of kv_heads, which they share evenly."
        )
    values = check_count("v_head_dim", head_dim if v_head_dim is None else v_head_dim, minimum=1)
    batch, new, context = _check_counts(batch=batch, new=new, context=context)
    if visible == "bidirectional" and np.any(context):
        raise InvalidValueError("bidirectional attention has no cache: context must be 0.")
    cache, stream = cache_format(kv), _of_rows("activations", activations)
    op = ops.attention(
        "attention",
        pairs=batch * visible_pairs(new, context, visibility),
        tokens=batch * new,
        read=batch * cached_positions(new, context, visibility),
        written=batch * written_positions(new, context, visibility),
        heads=heads,
        kv_heads=shared,
        qk_dim=head_dim,
        v_dim=values,
        kv=cache,
        stream=stream,
        cached=visible != "bidirectional",
        sequences=batch,
    )
    return _append_once(op, batch * new, heads * head_dim, shared * (head_dim + values), cache, stream)


def count_latent_attention(
    *,
    heads: int,
    rank: int = 512,
    nope_dim: int = 128,
    rope_dim: int = 64,
    v_head_dim: int = 128,
    batch: Any = 1,
    context: Any = 0,
    new: Any = 1,
    kv: FormatName = "bf16",
    activations: FormatName = "bf16",
) -> Op:
    """Count one latent-attention (MLA) kernel in the cheaper of its absorbed and expanded forms."""
    sizes = {"heads": heads, "rank": rank, "nope_dim": nope_dim, "rope_dim": rope_dim, "v_dim": v_head_dim}
    sizes = {name: whole_number(name, value, minimum=1) for name, value in sizes.items()}
    batch, new, context = _check_counts(batch=batch, new=new, context=context)
    pairs, read = visible_pairs(new, context), cached_positions(new, context)
    query_dim = min(nope_dim, rank) + rope_dim
    cache, stream = cache_format(kv), Format.load(activations)
    op = ops.latent_attention(
        "latent attention",
        flops=batch * latent_attention_flops(pairs=pairs, reexpanded=read, **sizes),
        pairs=batch * pairs,
        tokens=batch * new,
        read=batch * read,
        written=batch * written_positions(new, context),
        heads=heads,
        rank=rank,
        rope_dim=rope_dim,
        query_dim=query_dim,
        v_dim=min(v_head_dim, rank),
        kv=cache,
        stream=stream,
        sequences=batch,
    )
    return _append_once(op, batch * new, heads * query_dim, rank + rope_dim, cache, stream)


def count_experts(
    tokens: Any,
    *,
    hidden: int,
    intermediate: int,
    count: int,
    top_k: float,
    format: FormatName,
    weights: FormatName | None = None,
    gated: bool = True,
    routing: ops.Routing = "uniform",
) -> Op:
    """Count one fused mixture-of-experts kernel: the weights of the experts touched, tokens in, tokens out."""
    rows = _operand(format)
    stored = rows if weights is None else Format.load(weights)
    stream = _result_format(rows)
    tokens = check_count("tokens", tokens, minimum=1)
    hidden, intermediate = check_count("hidden", hidden, minimum=1), check_count("intermediate", intermediate, minimum=1)
    count, gated = whole_number("count", count, minimum=1), check_flag("gated", gated)
    if isinstance(top_k, bool) or not isinstance(top_k, (int, float)) or not 0 < top_k <= count:
        raise InvalidValueError(f"top_k is {quoted(top_k)}; a token visits more than 0 and at most {count} experts.")
    op = ops.fused_experts(
        "experts",
        visits=tokens * top_k,
        touched=ops.distinct_experts(tokens, count=count, top_k=top_k, routing=routing),
        hidden=hidden,
        intermediate=intermediate,
        count=count,
        weights=stored,
        activations=rows,
        stream=stream,
        gated=gated,
    )
    # unlike a model's layer, this kernel reads every token once and adds up its experts' results
    moved = {"input_bytes": hidden * rows.bytes_per_element * tokens, "output_bytes": hidden * stream.bytes_per_element * tokens}
    return replace(op, **moved)


def count_experts_of_rank(
    *,
    tokens: Number,
    hidden: int,
    intermediate: int,
    count: int,
    top_k: int,
    tp: int,
    ep: int,
    gated: int,
    routing: str,
    exponent: float,
    format: str,
    weights: str,
) -> Op:
    """Count a mixture of experts on the rank that a table measured.

    Tensor parallelism leaves a rank 1/tp of each expert's width. Expert parallelism leaves it 1/ep of the experts and, being
    the busiest, at least T · k/ep visits. All T tokens may share them, which touches the fewest experts; or as few tokens as
    can make so many visits. So the weights are counted for T tokens with k/ep visits each, and tokens in and out for the fewest.
    Routing by a power law is no bound but what was run: the visits of the busiest rank.
    """
    shape: dict[str, Any] = {"hidden": hidden, "intermediate": intermediate // tp, "count": count // ep, "gated": bool(gated)}
    if routing == POWER_LAW:
        visits, touched = busiest_rank(np.asarray(tokens).astype(int), count=count, top_k=top_k, ranks=ep, exponent=exponent)
        rows = Format.load(format)
        formats: dict[str, Any] = {"weights": Format.load(weights), "activations": rows, "stream": _result_format(rows)}
        return ops.fused_experts("experts", visits=visits, touched=touched, **shape, **formats, ranks=ep, routed=tokens * top_k)
    shape |= {"format": format, "weights": weights, "routing": routing}
    op = count_experts(tokens, **shape, top_k=top_k / ep)
    most = min(top_k, shape["count"])  # visits of one token on this rank
    if most == top_k / ep:
        return op
    fewest = count_experts(np.ceil(tokens * (top_k / ep) / most).astype(int), **shape, top_k=most)
    return replace(op, input_bytes=fewest.input_bytes, output_bytes=fewest.output_bytes)


def count_collective(*, size: Number, ranks: int, op: str, domain: int = 0) -> Op:
    """Count a collective, whose size is the total as nccl-tests has it; over scale-up links alone unless they join fewer devices.

    An all-to-all leaves 1/t of the bytes on the rank that has them, as tokens do that visit one device of t. An all-gather that the
    switch multiplies sends less, but receives as much.
    """
    if op == "all_reduce":
        return ops.all_reduce(op, size, ranks=ranks, domain=domain or ranks)
    if op == "all_to_all":
        return ops.exchange(op, size, ranks=ranks, visits=1, domain=domain or ranks)
    return ops.all_gather(op, size, ranks=ranks, domain=domain or ranks)


def count_state(
    *,
    batch: Number,
    context: Number,
    new: Number,
    heads: int,
    key_heads: int,
    key_dim: int,
    value_dim: int,
    retrieves: int,
    state: str,
    activations: str,
) -> Op:
    """Count the update and read-out of a recurrent state, a matrix of keys times values in every head."""
    if heads % key_heads:
        raise InvalidValueError(
            f"heads is {heads} and key_heads is {key_heads}; heads must be a multiple of key_heads, which they share evenly."
        )
    batch, context, new = _check_counts(batch=batch, context=context, new=new)
    keys, values, stream = key_heads * key_dim, heads * value_dim, Format.load(activations)
    elements = values * key_dim
    return ops.state_update(
        "state update",
        batch * new,
        flops=batch * state_flops(new, context, elements=elements, pair_width=keys + values, retrieves=bool(retrieves)),
        sequences=batch,
        continued=batch * minimum(context, 1),
        elements=elements,
        decays=0,
        state=Format.load(state),
        operand=stream.operand,
        inputs=2 * keys + values,
        outputs=values,
        stream=stream,
    )


def count_convolution(*, batch: Number, context: Number, new: Number, channels: int, taps: int, stream: str) -> Op:
    """Count a short causal convolution, whose taps see as far back as a window does."""
    batch, context, new = _check_counts(batch=batch, context=context, new=new)
    seen = Visibility("window", taps)
    return ops.convolution(
        "convolution",
        batch * new,
        read=batch * cached_positions(new, context, seen),
        written=batch * written_positions(new, context, seen),
        channels=channels,
        kernel=taps,
        stream=Format.load(stream),
    )


def count_rowwise(*, rows: Number, width: Number, inputs: int, activations: FormatName, output: FormatName, vectors: int = 0) -> Op:
    """Count a row-wise kernel: `inputs` rows in for one row out, perhaps in another format; a norm reads a vector of scales besides."""
    rows, width = _check_counts(rows=rows, width=width)
    inputs = check_count("inputs", inputs, minimum=1)
    stream = _of_rows("format", activations)
    op = ops.elementwise("rowwise", rows, width=width, inputs=inputs, flops=_ROW_FLOPS, stream=stream)
    scales = vectors * width * stream.bytes_per_element
    return replace(op, weight_bytes=scales, output_bytes=width * Format.load(output or activations).bytes_per_element * rows)
