"""Attention of new tokens to a cache, through torch's scaled_dot_product_attention."""

import math
from typing import Any

from roofline.calibration.devices import Device, load_torch
from roofline.calibration.operators.kernel import Kernel, check_room, deviation, random_array, rotation
from roofline.calibration.plan import Point
from roofline.calibration.products import OPERANDS
from roofline.errors import CalibrationError
from roofline.floors import attention_floor
from roofline.formats import Format

__all__ = ["prepare_attention"]

_RATE = 1e12  # only counts are asked for, which depend on no rate


def prepare_attention(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return attention: one new token to a cache that comes from main memory, or whole prompts to themselves.

    Parameters
    ----------
    point : Point
        batch, context and new; heads, kv_heads and head_dim among its fixed sizes [-].
    device : Device
        Where it runs [-].

    Returns
    -------
    tuple of Kernel
        One kernel [-].

    Raises
    ------
    CalibrationError
        If several new tokens meet a cache, for which torch has no fused kernel on every device, or the format is none of torch's.
    """
    torch = load_torch()
    sdpa = torch.nn.functional.scaled_dot_product_attention
    batch, context, new = (point.sizes[name] for name in ("batch", "context", "new"))
    heads, kv_heads, dim = (int(point.fixed[name]) for name in ("heads", "kv_heads", "head_dim"))
    if new > 1 and context:
        raise CalibrationError(f"attention is measured with 1 new token or without a cache, not with {new} new tokens after {context}.")
    if point.stored != point.operand or point.operand not in ("fp32", "bf16", "fp16") or point.operand not in device.operands:
        raise CalibrationError(
            f"attention is measured with fp32, bf16 or fp16 in cache and products alike, not {point.stored} and {point.operand} on {device.label}."
        )
    dtype = OPERANDS[point.operand].dtype
    cost = attention_floor(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        batch=batch,
        context=context,
        new=new,
        kv=point.stored,
        activations=point.stored,
        memory_bandwidth=_RATE,
        peak_flops_per_s=_RATE,
    )
    size = int(2 * batch * kv_heads * (context + new) * dim * Format.load(point.stored).bytes_per_element)
    sets = rotation(size, device) if new == 1 else 1  # a prompt's keys and values were written by the kernel before
    check_room(sets * size + int(cost.op.input_bytes + cost.op.output_bytes), device)
    q = random_array((batch, heads, new, dim), dtype, device, seed=3)
    caches = random_array((sets, 2, batch, kv_heads, context + new, dim), dtype, device, seed=4)
    options: dict[str, Any] = {"enable_gqa": True} if kv_heads != heads else {}  # from torch 2.5 on

    def check(i: int, result: Any) -> float:
        found, reference = [], []
        for b, h, rows in _sample(batch, heads, new):
            k, v = caches[i][:, b, h * kv_heads // heads].unbind()
            found.append(result[b, h, rows])
            reference.append(_reference(torch, q[b, h], k, v, rows))
        return deviation(torch.stack(found), torch.stack(reference))

    calls = tuple(lambda k=k, v=v: sdpa(q, k, v, is_causal=new > 1, **options) for k, v in (cache.unbind() for cache in caches.unbind()))
    tolerance = max(OPERANDS[point.operand].tolerance, 1e-3)  # a kernel's exponential may be an approximation
    return (Kernel("scaled_dot_product_attention", calls, float(cost.total_bytes), float(cost.flops), check, tolerance),)


def _sample(batch: int, heads: int, new: int) -> list[tuple[int, int, list[int]]]:
    """Return sequences, heads and new tokens to check: the first and last of each, and some between."""
    rows = sorted({0, new // 3, new // 2, new - 1})
    return [(0, 0, rows), (batch - 1, heads - 1, rows), (batch // 2, heads // 2, rows)]


def _reference(torch: Any, q: Any, k: Any, v: Any, rows: list[int]) -> Any:
    """Return attention of some rows of one head in fp64."""
    query, key, value = (t.detach().cpu().double() for t in (q[rows], k, v))
    scores = query @ key.t() / math.sqrt(q.shape[-1])
    last = torch.tensor(rows) + key.shape[0] - q.shape[0]
    scores.masked_fill_(torch.arange(key.shape[0]) > last[:, None], -math.inf)
    return torch.softmax(scores, dim=-1) @ value
