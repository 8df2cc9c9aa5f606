"""Latent attention, dense and sparse, as operators."""

from collections.abc import Iterator

from roofline import ops
from roofline.arithmetic import Number
from roofline.forward.lowering import Lowering, lowers
from roofline.forward.symbols import SEQUENCES, TOKENS, latent_flops, pairs, read, written
from roofline.model import LatentAttention, LayerGroup, Norm
from roofline.ops import Op
from roofline.ops.latent_attention import materialized_scores
from roofline.step import CAUSAL


@lowers(LatentAttention)
def latent_attention(part: LatentAttention, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield MLA: down- and up-projections, the indexer if there is one, attention over the latents, output.

    kv_b costs the same whether new tokens are expanded or their queries absorbed; ``latent_flops`` takes the cheaper attention.
    """
    hidden, visibility, stream = lowering.model.hidden_size, part.visibility, lowering.precision.stream
    queries, *queries_up = part.query_matrices(hidden)
    latent, latent_up = part.latent_matrices(hidden)
    *gate, out = part.output_matrices(hidden)
    yield from lowering.merged("self_attn.fused_qkv_a_proj", [queries, latent], group)
    latents = (part.q_lora_rank or 0) + part.kv_lora_rank
    yield lowering.norm(Norm(name="self_attn.a_layernorms", width=latents, parameters=latents))
    for matrix in (*queries_up, latent_up, *gate):
        yield lowering.linear(matrix, group)
    if part.rope_dim:
        yield lowering.elementwise("self_attn.rotary", width=(part.heads + 1) * part.rope_dim, inputs=1, what="rotary")
    yield from _indexer(part, lowering, group)
    suffix = "" if part.indexer is None else f"[selected {part.indexer.top_k}]"
    op = ops.latent_attention(
        f"self_attn.attention{suffix}",
        flops=latent_flops(visibility, part.heads, part.kv_lora_rank, part.nope_dim, part.rope_dim, part.v_head_dim),
        pairs=pairs(visibility),
        tokens=TOKENS,
        read=read(visibility),
        written=written(visibility),
        heads=part.heads,
        rank=part.kv_lora_rank,
        rope_dim=part.rope_dim,
        query_dim=part.nope_dim + part.rope_dim,
        v_dim=part.v_head_dim,
        kv=lowering.precision.kv,
        stream=stream,
        sequences=SEQUENCES,
    )
    yield scores_in_memory(lowering, op, heads=part.heads, pairs=pairs(visibility))
    if part.output_gate or part.head_gate:
        yield lowering.elementwise("self_attn.gate", width=part.heads * part.v_head_dim, inputs=2, what="gated_activation")
    yield lowering.linear(out, group)
    yield lowering.residual("self_attn")


def scores_in_memory(lowering: Lowering, op: Op, *, heads: int, pairs: Number) -> Op:
    """Return an attention operator as it is, or with its score matrix in memory where nothing is fused."""
    if lowering.fusion != "none":
        return op
    return materialized_scores(op, heads=heads, pairs=pairs, stream=lowering.precision.stream)


def _indexer(part: LatentAttention, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    indexer = part.indexer
    if indexer is None or indexer.shared:
        return
    queries, key, weights = part.index_matrices(lowering.model.hidden_size)
    yield lowering.linear(queries, group)
    yield from lowering.merged("self_attn.indexer.wk_weights_proj", [key, weights], group)
    # a LayerNorm, the only one with shifts (DeepseekV32Indexer.k_norm)
    yield lowering.norm(Norm(name="self_attn.indexer.k_norm", width=indexer.head_dim, parameters=2 * indexer.head_dim))
    if rotated := min(part.rope_dim, indexer.head_dim):
        yield lowering.elementwise("self_attn.indexer.rotary", width=(indexer.heads + 1) * rotated, inputs=1, what="rotary")
    op = ops.indexer(
        "self_attn.indexer",
        pairs=pairs(CAUSAL),
        tokens=TOKENS,
        read=read(CAUSAL),
        written=written(CAUSAL),
        heads=indexer.heads,
        head_dim=indexer.head_dim,
        kv=lowering.precision.kv,
        stream=lowering.precision.stream,
        sequences=SEQUENCES,
    )
    # without fusion the selection reads at least one score per pair from memory
    selected = lowering.precision.stream.bytes_per_element * pairs(CAUSAL)
    yield op.having(output_bytes=selected) if lowering.fusion == "none" else op
