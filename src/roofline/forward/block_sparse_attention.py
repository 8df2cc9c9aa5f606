"""Attention to selected blocks of positions, as operators."""

from collections.abc import Iterator

from roofline import ops
from roofline.arithmetic import LinearForm, Number
from roofline.forward.latent_attention import scores_in_memory
from roofline.forward.lowering import Lowering, lowers
from roofline.forward.symbols import SEQUENCES, TOKENS, pairs, read, written
from roofline.model import BlockSparseAttention, LayerGroup
from roofline.ops import Op
from roofline.ops.block_sparse_attention import block_pairs, block_positions_read
from roofline.step import CAUSAL, Aggregate, Sequences


def _block_pairs(g: Sequences, block: int, top_k: int) -> Number:
    return block_pairs(g.new, g.cached, block=block, top_k=top_k)


def _block_positions_read(g: Sequences, block: int, top_k: int) -> Number:
    return block_positions_read(g.new, g.cached, block=block, top_k=top_k)


@lowers(BlockSparseAttention)
def block_sparse_attention(part: BlockSparseAttention, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield attention to selected blocks: projections with those of the indexer, scores of all positions, attention, output."""
    hidden, precision = lowering.model.hidden_size, lowering.precision
    *inner, out = part.matrices(hidden)
    yield from lowering.merged("self_attn.qkv_proj", inner, group)
    for norm, heads in part.norms():
        yield lowering.norm(norm, width=heads * norm.width)
    rotated = (part.heads + part.kv_heads) * part.head_dim + (part.index_heads + 1) * part.index_dim
    yield lowering.elementwise("self_attn.rotary", width=rotated, inputs=1, what="rotary")
    yield ops.indexer(
        "self_attn.indexer",
        pairs=pairs(CAUSAL),
        tokens=TOKENS,
        read=read(CAUSAL),
        written=written(CAUSAL),
        heads=part.index_heads,
        head_dim=part.index_dim,
        kv=precision.kv,
        stream=precision.stream,
        weights=0,
        sequences=SEQUENCES,
    )
    seen = LinearForm.of(Aggregate("block pairs", _block_pairs, (part.block, part.top_k), divided=True))
    op = ops.attention(
        f"self_attn.attention[{part.top_k} blocks of {part.block}]",
        pairs=seen,
        tokens=TOKENS,
        read=LinearForm.of(Aggregate("block positions read", _block_positions_read, (part.block, part.top_k), divided=True)),
        written=written(CAUSAL),
        heads=part.heads,
        kv_heads=part.kv_heads,
        qk_dim=part.head_dim,
        v_dim=part.head_dim,
        kv=precision.kv,
        stream=precision.stream,
        sequences=SEQUENCES,
    )
    yield scores_in_memory(lowering, op, heads=part.heads, pairs=seen)
    yield lowering.linear(out, group)
    yield lowering.residual("self_attn")
