"""Attention of new tokens to a cache, through torch's scaled_dot_product_attention."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from roofline.calibration.devices import Device, load_torch
from roofline.calibration.operators.kernel import Kernel, check_room, deviation, random_array, rotation
from roofline.calibration.plan import Point
from roofline.calibration.products import OPERANDS
from roofline.errors import CalibrationError
from roofline.fitting.classes import kernel_op
from roofline.formats import Format


def prepare_attention(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return attention kernels: decode over a cache that comes from main memory, or causal prefill."""
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
    op = kernel_op(point.family, point.stored, point.operand, {**point.sizes, **point.fixed})
    moved = float(op.compulsory_bytes + op.activation_bytes)
    size = int(2 * batch * kv_heads * (context + new) * dim * Format.load(point.stored).bytes_per_element)
    sets = rotation(size, device) if new == 1 else 1  # a prompt's keys and values were written by the kernel before, and may be cached
    check_room(sets * size + int(op.activation_bytes), device)
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

    def attend(chosen: Callable[[], Any], k: Any, v: Any) -> Any:
        with chosen():
            return sdpa(q, k, v, is_causal=new > 1, **options)

    pairs = [cache.unbind() for cache in caches.unbind()]
    tolerance = max(OPERANDS[point.operand].tolerance, 1e-3)  # kernels may approximate the exponential
    return tuple(
        Kernel(name, tuple(partial(attend, chosen, k, v) for k, v in pairs), moved, float(op.flops), check, tolerance)
        for name, chosen in _backends(torch, point.operand, device).items()
    )


def _backends(torch: Any, operand: str, device: Device) -> dict[str, Callable[[], Any]]:
    """Return by name the contexts that select a kernel: flash and cuDNN in 16 bits on Ampere or later, which multiplies bf16."""
    if device.kind == "cpu" or operand == "fp32" or "bf16" not in device.native:
        return {"scaled_dot_product_attention": nullcontext}
    backends = torch.nn.attention.SDPBackend
    return {
        f"scaled_dot_product_attention, {name}": partial(torch.nn.attention.sdpa_kernel, backend)
        for name, backend in (("flash", backends.FLASH_ATTENTION), ("cuDNN", backends.CUDNN_ATTENTION))
    }


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
