"""Mixers as operators."""

from collections.abc import Iterator
from typing import Any

from roofline import ops
from roofline.forward.lowering import Lowering, lowers
from roofline.forward.symbols import SEQUENCES, TOKENS, pairs, read, written
from roofline.model import AnonymousCache, Attention, LayerGroup
from roofline.ops import Op
from roofline.step import CAUSAL


@lowers(AnonymousCache)
def anonymous_cache(part: AnonymousCache, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield what reading and writing a cache moves, of whatever attention."""
    size = part.bytes_per_token
    yield Op("kv_cache", "gather", kv_read_bytes=read(CAUSAL) * size, kv_write_bytes=written(CAUSAL) * size)


@lowers(Attention)
def attention(part: Attention, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield softmax attention: projections, norms and rotation of queries and keys, the attention itself, output."""
    hidden, visibility = lowering.model.hidden_size, part.visibility
    matrices = part.matrices(hidden)
    outputs = 0 if part.routed else 1
    yield from lowering.merged("self_attn.qkv_proj", matrices[: len(matrices) - outputs], group)
    for norm, heads in ((part.query_norm, part.heads), (part.key_norm, part.kv_heads)):
        if norm is not None:
            yield lowering.norm(norm, width=heads * part.head_dim)
    if part.rotary:
        rotated = part.heads + part.kv_heads * (not part.shared_cache)
        yield lowering.elementwise("self_attn.rotary", width=rotated * part.head_dim, inputs=1, what="rotary")
    name = "self_attn.attention" + (f"[{visibility.kind} {visibility.span}]" if visibility.span else "")
    cost: dict[str, Any] = {
        "pairs": pairs(visibility),
        "tokens": TOKENS,
        "read": read(visibility),
        "written": 0 if part.shared_cache else written(visibility),
        "heads": part.heads,
        "kv_heads": part.kv_heads,
        "qk_dim": part.head_dim,
        "v_dim": part.value_dim,
        "kv": lowering.precision.kv,
        "stream": lowering.precision.stream,
        "cached": not visibility.looks_ahead,
        "sequences": SEQUENCES,
    }
    if lowering.fusion == "none":
        yield from ops.unfused_attention(name, **cost)
    else:
        yield ops.attention(name, **cost)
    if part.sinks:
        yield lowering.vectors("self_attn.sinks", part.heads)
    if part.bias_table:
        yield lowering.vectors("self_attn.relative_attention_bias", part.bias_table)
    if part.gate or part.head_gate:
        yield lowering.elementwise("self_attn.gate", width=part.heads * part.value_dim, inputs=2, what="gated_activation")
    if not part.routed:
        yield lowering.linear(matrices[-1], group)
        yield lowering.residual("self_attn")
