"""Floors of single kernels: what to hold a measured GEMM or attention kernel against."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from roofline import ops
from roofline.arithmetic import Number
from roofline.bounds import Roofs, memory_time, network_time, saved_bytes
from roofline.deployment import machine
from roofline.errors import InvalidValueError
from roofline.floors.kernel_result import KernelFloor
from roofline.formats import Format
from roofline.hardware import Hardware
from roofline.ops import Op, parse_routing
from roofline.ops.routing import routing_note
from roofline.step import CAUSAL, Visibility, cached_positions, visible_pairs, written_positions
from roofline.units import check_broadcast, check_count


def counted_floor(op: Op, hardware: Hardware, *notes: str) -> KernelFloor:
    r"""Return the floor of one kernel that is already counted: :math:`\max(F/P, \max(0, B - C - \min(C, S/2))/W, B_{link}/L)`.

    Parameters
    ----------
    op : Op
        What the kernel costs, activations in and out included [-].
    hardware : Hardware
        The machine [-].
    *notes : str
        What else the floor takes for granted [-].

    Returns
    -------
    KernelFloor
        Numbers of the shape of the operator's amounts [-].

    Examples
    --------
    >>> op = ops.all_reduce("all_reduce", 450_000_000, ranks=8, domain=8)
    >>> counted_floor(op, Hardware.load("h100-sxm")).time_s
    0.001
    """
    saved = saved_bytes(hardware.last_level_cache, state_bytes=op.state_bytes)
    memory = memory_time(op.compulsory_bytes + op.activation_bytes, bandwidth=hardware.memory_bandwidth, cache=saved)
    network = network_time(op.link_bytes, op.nic_bytes, hardware) if op.kind == "collective" else 0.0
    return KernelFloor(op, hardware, Roofs(op.flops / hardware.peak(op.operand).value, memory, network), notes)


def _appended_once(op: Op, rows: Number, query: int, position: int, kv: str | Format, activations: str | Format) -> Op:
    """Count what a kernel appends to the cache once: it comes as an input, or another kernel appended it and it is read from there."""
    stream = Format.load(activations).bytes_per_element
    narrower = min(Format.load(kv).bytes_per_element, stream)
    return replace(op, kv_write_bytes=0, input_bytes=(query * stream + position * narrower) * rows)


def matmul_floor(
    m: Any,
    n: Any,
    k: Any,
    hardware: Hardware | str | Path | None = None,
    *,
    format: str | Format,
    weights: str | Format | None = None,
    output: str | Format | None = None,
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> KernelFloor:
    r"""Return the floor of one matrix product (m × k) · (k × n): :math:`\max(2mnk/P, \max(0, B - C)/W)`.

    Parameters
    ----------
    m, n, k : int or array_like
        Rows, columns of the result, and the inner dimension [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    format : str or Format
        Format of the rows, and of the weights unless `weights` says otherwise [-].
    weights : str or Format, optional
        Format of the k × n matrix, e.g. ``"int4"`` for weight-only quantization [-].
    output : str or Format, optional
        Format of the result; by default `format`, or bf16 where that has fewer than 16 bits [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

    Returns
    -------
    KernelFloor
        Numbers of the shape that m, n and k broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown or impossible.

    Examples
    --------
    >>> floor = matmul_floor(8192, 8192, 8192, "h100-sxm", format="bf16")
    >>> floor.bound, round(floor.time_s * 1e3, 2)
    ('compute', 1.11)
    """
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    rows = Format.load(format)
    stored = rows if weights is None else Format.load(weights)
    result = Format.load(output) if output is not None else (rows if rows.bits >= 16 else Format.load("bf16"))
    m, n, k = _broadcastable(m=m, n=n, k=k)
    op = ops.linear("matmul", m, inputs=k, outputs=n, weights=stored, activations=rows, stream=rows)
    return counted_floor(replace(op, output_bytes=n * result.bytes_per_element * m), target)


def attention_floor(
    hardware: Hardware | str | Path | None = None,
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
    kv: str | Format = "bf16",
    activations: str | Format = "bf16",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> KernelFloor:
    r"""Return the floor of one fused attention kernel: :math:`\max(2h(d_{qk}+d_v)\,pairs/P, \max(0, B - C)/W)`.

    Parameters
    ----------
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    heads : int
        Query heads [-].
    head_dim : int
        Width of a query or key head [-].
    kv_heads : int, optional
        Key-value heads; `heads` if not given [-].
    v_head_dim : int, optional
        Width of a value head; `head_dim` if not given [-].
    batch : int or array_like, optional
        Sequences [-].
    context : int or array_like, optional
        Tokens of each already in the cache [token].
    new : int or array_like, optional
        New tokens of each: 1 in decode [token].
    visible : {"causal", "window", "chunk", "bidirectional"}, optional
        Which positions a token sees [-].
    span : int, optional
        Window or chunk length [token].
    kv : str or Format, optional
        Format of the cache, in which the products run too [-].
    activations : str or Format, optional
        Format of queries and result [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

    Returns
    -------
    KernelFloor
        Numbers of the shape that the arguments broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown or impossible.

    Examples
    --------
    >>> floor = attention_floor("h100-sxm", heads=64, kv_heads=8, head_dim=128, batch=64, context=8192)
    >>> floor.bound, round(floor.time_s * 1e6)
    ('memory', 626)
    """
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    for name, size in (("heads", heads), ("head_dim", head_dim), ("kv_heads", kv_heads), ("v_head_dim", v_head_dim)):
        if isinstance(size, (list, tuple, np.ndarray)) and not isinstance(size, np.generic):
            raise InvalidValueError(f"{name} is {size!r}; it must be a single whole number: call once for each shape of attention.")
    visibility = Visibility(visible, span) if visible != "causal" else CAUSAL
    heads, head_dim = check_count("heads", heads, minimum=1), check_count("head_dim", head_dim, minimum=1)
    shared = check_count("kv_heads", heads if kv_heads is None else kv_heads, minimum=1)
    if heads % shared:
        raise InvalidValueError(
            f"heads is {heads} and kv_heads {shared}: query heads share key-value heads evenly, so one is a multiple of the other."
        )
    values = check_count("v_head_dim", head_dim if v_head_dim is None else v_head_dim, minimum=1)
    batch, new, context = _broadcastable(batch=batch, new=new, context=context)
    if visible == "bidirectional" and np.any(context):
        raise InvalidValueError("bidirectional attention has no cache: context must be 0.")
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
        kv=Format.load(kv),
        stream=Format.load(activations),
        cached=visible != "bidirectional",
        sequences=batch,
    )
    return counted_floor(_appended_once(op, batch * new, heads * head_dim, shared * (head_dim + values), kv, activations), target)


def experts_floor(
    tokens: Any,
    hardware: Hardware | str | Path | None = None,
    *,
    hidden: int,
    intermediate: int,
    count: int,
    top_k: float,
    format: str | Format,
    weights: str | Format | None = None,
    gated: bool = True,
    routing: Any = "best",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> KernelFloor:
    r"""Return the floor of one fused mixture-of-experts kernel: the weights of the experts touched, tokens in, tokens out.

    Parameters
    ----------
    tokens : int or array_like
        T, tokens routed [token].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    hidden, intermediate : int
        Width of the tokens, and inside one expert [-].
    count : int
        E, experts on this device [-].
    top_k : int or float
        k, experts on this device that a token visits; an average may be a fraction [-].
    format : str or Format
        Format of the tokens when they are multiplied [-].
    weights : str or Format, optional
        Format of the experts; `format` if not given [-].
    gated : bool, optional
        Three matrices per expert instead of two [-].
    routing : str or array_like, optional
        ``"best"`` (unconditional), ``"uniform"``, ``"power_law_1.2"`` or any other exponent, or the popularity of each expert on
        this device [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

    Returns
    -------
    KernelFloor
        Numbers of the shape of `tokens` [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown or impossible.

    Examples
    --------
    >>> floor = experts_floor(1, "h100-sxm", hidden=4096, intermediate=14336, count=8, top_k=2, format="bf16")
    >>> floor.bound, round(floor.time_s * 1e6)
    ('memory', 195)
    """
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    rows = Format.load(format)
    stored = rows if weights is None else Format.load(weights)
    stream = rows if rows.bits >= 16 else Format.load("bf16")
    tokens = check_count("tokens", tokens, minimum=1)
    hidden, intermediate = check_count("hidden", hidden, minimum=1), check_count("intermediate", intermediate, minimum=1)
    count = check_count("count", count, minimum=1)
    if isinstance(top_k, bool) or not isinstance(top_k, (int, float)) or not 0 < top_k <= count:
        raise InvalidValueError(f"top_k is {top_k!r}; a token visits more than 0 and at most {count} experts.")
    spread = parse_routing(routing)
    touched = ops.distinct_experts(tokens, count=count, top_k=top_k, routing=spread)
    op = ops.fused_experts(
        "experts",
        visits=tokens * top_k,
        touched=touched,
        hidden=hidden,
        intermediate=intermediate,
        count=count,
        weights=stored,
        activations=rows,
        stream=stream,
        gated=gated,
    )
    # unlike a model's layer, this kernel takes every token in once and sums its results up
    moved = {"input_bytes": hidden * rows.bytes_per_element * tokens, "output_bytes": hidden * stream.bytes_per_element * tokens}
    op = replace(op, **moved)
    return counted_floor(op, target, routing_note(spread))


def latent_attention_floor(
    hardware: Hardware | str | Path | None = None,
    *,
    heads: int,
    rank: int = 512,
    nope_dim: int = 128,
    rope_dim: int = 64,
    v_head_dim: int = 128,
    batch: Any = 1,
    context: Any = 0,
    new: Any = 1,
    kv: str | Format = "bf16",
    activations: str | Format = "bf16",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> KernelFloor:
    """Return the floor of one latent-attention (MLA) kernel, in the cheaper of its absorbed and expanded forms.

    The absorbed kernel takes queries and gives results in the latent space, the expanded one in the heads' own widths; the
    narrower of the two is counted.

    Parameters
    ----------
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    heads : int
        Query heads [-].
    rank, nope_dim, rope_dim, v_head_dim : int, optional
        Sizes of the latent and of the heads; those of DeepSeek-V3 if not given [-].
    batch : int or array_like, optional
        Sequences [-].
    context : int or array_like, optional
        Tokens of each already in the cache [token].
    new : int or array_like, optional
        New tokens of each: 1 in decode [token].
    kv : str or Format, optional
        Format of the cache, in which the products run too [-].
    activations : str or Format, optional
        Format of queries and result [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

    Returns
    -------
    KernelFloor
        Numbers of the shape that the arguments broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown or impossible.

    Examples
    --------
    >>> latent_attention_floor("h100-sxm", heads=16, batch=64, context=8192).bound
    'memory'
    """
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    sizes = {"heads": heads, "rank": rank, "nope_dim": nope_dim, "rope_dim": rope_dim, "v_dim": v_head_dim}
    sizes = {name: check_count(name, value, minimum=1) for name, value in sizes.items()}
    batch, new, context = _broadcastable(batch=batch, new=new, context=context)
    pairs, read = visible_pairs(new, context), cached_positions(new, context)
    op = ops.latent_attention(
        "latent attention",
        flops=batch * ops.latent_attention_flops(pairs=pairs, reexpanded=read, **sizes),
        pairs=batch * pairs,
        tokens=batch * new,
        read=batch * read,
        written=batch * written_positions(new, context),
        heads=heads,
        rank=rank,
        rope_dim=rope_dim,
        query_dim=min(nope_dim, rank) + rope_dim,
        v_dim=min(v_head_dim, rank),
        kv=Format.load(kv),
        stream=Format.load(activations),
        sequences=batch,
    )
    return counted_floor(
        _appended_once(op, batch * new, heads * (min(nope_dim, rank) + rope_dim), rank + rope_dim, kv, activations), target
    )


def _broadcastable(**counts: Any) -> tuple[Any, ...]:
    """Check counts of tokens and sequences, and that their shapes go together."""
    checked = tuple(check_count(name, value, minimum=0 if name == "context" else 1) for name, value in counts.items())
    check_broadcast(**dict(zip(counts, checked, strict=True)))
    return checked
