"""Floors of single kernels with matrix products: what to hold a measured GEMM or attention kernel against.

All take their arguments in one order: by position what changes from step to step, then the machine; by name what a model fixes.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from roofline.bounds import kernel_roofs
from roofline.calls import checks_call
from roofline.deployment import machine
from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError, quoted
from roofline.floors.kernel_result import Cache, KernelFloor, keeps_question
from roofline.formats import Format
from roofline.frozen import freeze
from roofline.hardware import Hardware
from roofline.kernels.counting import count_attention, count_experts, count_latent_attention, count_matmul
from roofline.ops import AMOUNTS, Op
from roofline.ops.routing import parse_routing, routing_note


@checks_call
def counted_floor(op: Op, hardware: Hardware, *notes: str, cache: Cache = "warm") -> KernelFloor:
    r"""Return the floor of one kernel from its operator: :math:`\max(F/P, \max(0, B - C - \min(C, S/2))/W, B_{link}/L, n \lambda)`.

    Parameters
    ----------
    op : Op
        What the kernel costs, activations in and out included [-].
    hardware : Hardware
        The machine [-].
    *notes : str
        Further assumptions of the floor [-].
    cache : {"warm", "cold"}, optional
        Whether the last-level cache may hold operands from before; if cold, C is 0 [-].

    Returns
    -------
    KernelFloor
        Numbers of the shape of the operator's amounts [-].

    Raises
    ------
    InvalidValueError
        If `cache` is neither of the two.

    Examples
    --------
    >>> from roofline.ops import all_reduce
    >>> op = all_reduce("all_reduce", 450_000_000, ranks=8, domain=8)
    >>> counted_floor(op, Hardware.load("h100-sxm")).time_s
    0.001
    """
    if not isinstance(op, Op) or not isinstance(hardware, Hardware):
        raise InvalidValueError(f"a floor is of an Op on a Hardware, not of {quoted(op)} on {quoted(hardware)}.")
    if not isinstance(cache, str) or cache not in ("warm", "cold"):
        raise InvalidValueError(f"cache is {quoted(cache)}; it must be 'warm' or 'cold'.")
    op = replace(op, **{name: freeze(getattr(op, name)) for name in (*AMOUNTS, "sizes")})
    return KernelFloor(op, hardware, kernel_roofs(op, hardware, cache=cache), notes, cache)


def _check_order(asked: str, first: Any) -> None:
    """Say so where the machine stands before the sizes."""
    if isinstance(first, (Path, Hardware)) or (isinstance(first, str) and not first.isdigit()):
        raise InvalidValueError(f"{asked}: the sizes come first and the machine after them, or by name as hardware=.")


@checks_keywords
@keeps_question
def matmul_floor(
    m: Any,
    n: Any,
    k: Any,
    hardware: Hardware | str | Path | None = None,
    *,
    format: str | Format,
    weights: str | Format | None = None,
    output: str | Format | None = None,
    cache: Cache = "warm",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> KernelFloor:
    r"""Return the floor of one matrix product (m × k) · (k × n): :math:`\max(2mnk/P, \max(0, B - C)/W)`.

    Parameters
    ----------
    m, n, k : int or array_like
        Rows, columns of the result, and the inner dimension [-].
    {hardware}
    format : str or Format
        Format of the rows, and of the weights unless `weights` says otherwise; not one of weights alone, such as ``"int4"`` [-].
    weights : str or Format, optional
        Format of the k × n matrix: ``format="bf16", weights="int4"`` is weight-only quantization [-].
    output : str or Format, optional
        Format of the result; by default `format`, or bf16 where that has fewer than 16 bits [-].
    {rest}

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
    ('compute', 1.03)
    >>> decode = matmul_floor(16, 4096, 4096, "h100-sxm", format="bf16")  # 34 MB, and a cache of 52 MB
    >>> round(decode.warm_s * 1e6, 2), round(decode.cold_s * 1e6, 1)
    (0.5, 10.1)
    """
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    return counted_floor(count_matmul(m, n, k, format=format, weights=weights, output=output), target, cache=cache)


@checks_keywords
@keeps_question
def attention_floor(
    batch: Any = 1,
    context: Any = 0,
    hardware: Hardware | str | Path | None = None,
    *,
    heads: int,
    head_dim: int,
    kv_heads: int | None = None,
    v_head_dim: int | None = None,
    new: Any = 1,
    visible: Literal["causal", "window", "chunk", "bidirectional"] = "causal",
    span: int = 0,
    kv: str | Format = "bf16",
    activations: str | Format = "bf16",
    cache: Cache = "warm",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> KernelFloor:
    r"""Return the floor of one fused attention kernel: :math:`\max(2h(d_{qk}+d_v)\,pairs/P, \max(0, B - C)/W)`.

    Parameters
    ----------
    batch : int or array_like, optional
        Sequences [-].
    context : int or array_like, optional
        Tokens of each already in the cache [token].
    {hardware}
    heads : int
        Query heads [-].
    head_dim : int
        Width of a query or key head [-].
    kv_heads : int, optional
        Key-value heads; `heads` if not given [-].
    v_head_dim : int, optional
        Width of a value head; `head_dim` if not given [-].
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
    {rest}

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
    >>> floor = attention_floor(64, 8192, "h100-sxm", heads=64, kv_heads=8, head_dim=128)
    >>> floor.bound, round(floor.time_s * 1e6)
    ('memory', 626)
    """
    _check_order("attention_floor(batch, context, hardware, heads=…)", batch)
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    heads_of: dict[str, Any] = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "v_head_dim": v_head_dim}
    step: dict[str, Any] = {"batch": batch, "context": context, "new": new, "visible": visible, "span": span}
    return counted_floor(count_attention(**heads_of, **step, kv=kv, activations=activations), target, cache=cache)


@checks_keywords
@keeps_question
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
    routing: Any = "uniform",
    cache: Cache = "warm",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> KernelFloor:
    r"""Return the floor of one fused mixture-of-experts kernel: the weights of the experts touched, tokens in, tokens out.

    Parameters
    ----------
    tokens : int or array_like
        T, tokens routed [token].
    {hardware}
    hidden, intermediate : int
        Width of the tokens, and inside one expert [-].
    count : int
        E, experts on this device [-].
    top_k : int or float
        k, experts on this device that a token visits; an average may be a fraction [-].
    format : str or Format
        Format of the tokens when they are multiplied; not one of weights alone, such as ``"int4"`` [-].
    weights : str or Format, optional
        Format of the experts; `format` if not given [-].
    gated : bool, optional
        Three matrices per expert instead of two [-].
    routing : str or array_like, optional
        ``"uniform"`` (a bound on average), ``"best"`` (a bound for any routing), ``"power_law_1.2"`` or any other exponent, or the
        popularity of each expert on this device [-].
    {rest}

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
    sizes: dict[str, Any] = {"hidden": hidden, "intermediate": intermediate, "count": count, "top_k": top_k, "gated": gated}
    spread = parse_routing(routing)
    op = count_experts(tokens, **sizes, format=format, weights=weights, routing=spread)
    return counted_floor(op, target, routing_note(spread), cache=cache)


@checks_keywords
@keeps_question
def latent_attention_floor(
    batch: Any = 1,
    context: Any = 0,
    hardware: Hardware | str | Path | None = None,
    *,
    heads: int,
    rank: int = 512,
    nope_dim: int = 128,
    rope_dim: int = 64,
    v_head_dim: int = 128,
    new: Any = 1,
    kv: str | Format = "bf16",
    activations: str | Format = "bf16",
    cache: Cache = "warm",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> KernelFloor:
    """Return the floor of one latent-attention (MLA) kernel, in the cheaper of its absorbed and expanded forms.

    The absorbed kernel takes queries and gives results in the latent space, the expanded one in the heads' own widths; the
    narrower of the two is counted.

    Parameters
    ----------
    batch : int or array_like, optional
        Sequences [-].
    context : int or array_like, optional
        Tokens of each already in the cache [token].
    {hardware}
    heads : int
        Query heads [-].
    rank, nope_dim, rope_dim, v_head_dim : int, optional
        Sizes of the latent and of the heads; those of DeepSeek-V3 if not given [-].
    new : int or array_like, optional
        New tokens of each: 1 in decode [token].
    kv : str or Format, optional
        Format of the cache, in which the products run too [-].
    activations : str or Format, optional
        Format of queries and result [-].
    {rest}

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
    >>> latent_attention_floor(64, 8192, "h100-sxm", heads=16).bound
    'memory'
    """
    _check_order("latent_attention_floor(batch, context, hardware, heads=…)", batch)
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    dims = {"heads": heads, "rank": rank, "nope_dim": nope_dim, "rope_dim": rope_dim, "v_head_dim": v_head_dim}
    op = count_latent_attention(**dims, batch=batch, context=context, new=new, kv=kv, activations=activations)
    return counted_floor(op, target, cache=cache)
