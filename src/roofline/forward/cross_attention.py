"""Attention to a source as operators: its keys and values are made when a sequence begins, and read by every later step."""

from collections.abc import Iterator
from typing import Any

from roofline import ops
from roofline.forward.lowering import Lowering, lowers
from roofline.forward.mixers import attention
from roofline.forward.symbols import ANY_FRESH, FRESH, SEQUENCES, TOKENS, source_pairs, source_read, source_written
from roofline.model import CrossAttention, LayerGroup
from roofline.ops import Op


@lowers(CrossAttention)
def cross_attention(part: CrossAttention, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield the sequence's own attention if there is one, queries of new tokens, keys and values of new sources, attention, output."""
    if part.own is not None:
        yield from attention(part.own, lowering, group)
        yield from lowering.all_reduce("self_attn")
    made, precision = FRESH * part.source, lowering.precision
    queries, *source, out = part.cross_matrices(lowering.model.hidden_size)
    yield lowering.linear(queries, group)
    yield from lowering.merged("cross_attn.kv_proj", source, group, made, reads=ANY_FRESH)
    if part.query_norm is not None:
        yield lowering.norm(part.query_norm, width=part.heads * part.head_dim)
    if part.key_norm is not None:
        yield lowering.norm(part.key_norm, made, width=part.kv_heads * part.head_dim, reads=ANY_FRESH)
    cost: dict[str, Any] = {
        "pairs": source_pairs(part.source),
        "tokens": TOKENS,
        "read": source_read(part.source),
        "written": source_written(part.source),
        "heads": part.heads,
        "kv_heads": part.kv_heads,
        "qk_dim": part.head_dim,
        "v_dim": part.head_dim,
        "kv": precision.kv,
        "stream": precision.stream,
        "sequences": SEQUENCES,
        "made": made,
    }
    name = f"cross_attn.attention[{part.source} of a source]"
    if lowering.fusion == "none":
        yield from ops.unfused_attention(name, **cost)
    else:
        yield ops.attention(name, **cost)
    if part.gates:
        yield lowering.vectors("cross_attn.gates", part.gates)
    yield lowering.linear(out, group)
    yield lowering.residual("cross_attn")
