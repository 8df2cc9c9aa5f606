"""Attention to a window and to compressed entries, as operators."""

from collections.abc import Callable, Iterator

from roofline import ops
from roofline.arithmetic import LinearForm, Number
from roofline.forward.latent_attention import scores_in_memory
from roofline.forward.lowering import Lowering, lowers
from roofline.forward.symbols import SEQUENCES, TOKENS, pairs, read, written
from roofline.model import CompressedAttention, LayerGroup, Norm
from roofline.ops import Op
from roofline.ops.compressed_attention import entries_read, entries_written, entry_pairs, pooling
from roofline.step import Aggregate, Sequences


def _entry_pairs(g: Sequences, ratio: int, top_k: int | None) -> Number:
    return entry_pairs(g.new, g.cached, ratio=ratio, top_k=top_k)


def _entries_read(g: Sequences, ratio: int, top_k: int | None) -> Number:
    return entries_read(g.new, g.cached, ratio=ratio, top_k=top_k)


def _entries_written(g: Sequences, ratio: int) -> Number:
    return entries_written(g.new, g.cached, ratio=ratio)


def _form(name: str, function: Callable[..., Number], *arguments: int | None) -> LinearForm:
    return LinearForm.of(Aggregate(name, function, arguments, divided=True))


@lowers(CompressedAttention)
def compressed_attention(part: CompressedAttention, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield attention to a window and compressed entries: projections, compressor, indexer, attention, grouped output."""
    hidden, precision = lowering.model.hidden_size, lowering.precision
    q_a, q_b, row, o_a, o_b, *_ = part.matrices(hidden)
    yield from lowering.merged("self_attn.fused_qkv_a_proj", [q_a, row], group)
    latents = part.q_lora_rank + part.head_dim
    yield lowering.norm(Norm(name="self_attn.a_norms", width=latents, parameters=latents))
    yield lowering.linear(q_b, group)
    yield lowering.norm(Norm(name="self_attn.q_b_norm", width=part.head_dim, parameters=0), width=part.heads * part.head_dim)
    # queries, rows, and the result, which is rotated back
    yield lowering.elementwise("self_attn.rotary", width=(2 * part.heads + 1) * part.rope_dim, inputs=1, what="rotary")
    seen, loaded, stored, label = pairs(part.visibility), read(part.visibility), written(part.visibility), f"window {part.window}"
    if part.ratio:
        top_k = part.indexer.top_k if part.indexer else None
        yield from _entries(part, lowering, group)
        seen = seen + _form("entry pairs", _entry_pairs, part.ratio, top_k)
        loaded = loaded + _form("entries read", _entries_read, part.ratio, top_k)
        stored = stored + _form("entries written", _entries_written, part.ratio)
        label += f", {f'{top_k} ' if top_k else ''}entries of {part.ratio}"
    op = ops.compressed_attention(
        f"self_attn.attention[{label}]",
        pairs=seen,
        tokens=TOKENS,
        read=loaded,
        written=stored,
        heads=part.heads,
        head_dim=part.head_dim,
        kv=precision.kv,
        stream=precision.stream,
        sequences=SEQUENCES,
    )
    yield scores_in_memory(lowering, op, heads=part.heads, pairs=seen)
    yield lowering.vectors("self_attn.sinks", part.heads)
    yield lowering.linear(o_a, group, TOKENS * o_a.copies, reads=o_a.copies)
    yield lowering.linear(o_b, group)
    yield lowering.residual("self_attn")


def _entries(part: CompressedAttention, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield what makes entries and index keys, and what selects among them."""
    hidden, stream = lowering.model.hidden_size, lowering.precision.stream
    made = _form("entries written", _entries_written, part.ratio)
    inner = [*part.compressor_matrices(hidden), *part.weight_matrices(hidden)]
    yield from lowering.merged("self_attn.compressor.kv_gate_proj", inner, group)
    yield lowering.rowwise(
        pooling("self_attn.compressor.pool", tokens=TOKENS, entries=made, width=part.entry_elements, series=part.series, stream=stream)
    )
    yield lowering.vectors("self_attn.compressor.vectors", sum(v.parameters for v in part.entry_vectors()))
    if part.indexer is None:
        return
    for matrix in part.index_matrices():
        yield lowering.linear(matrix, group)
    yield ops.indexer(
        "self_attn.compressor.indexer",
        pairs=_form("entry pairs", _entry_pairs, part.ratio, None),
        tokens=TOKENS,
        read=_form("entries read", _entries_read, part.ratio, None),
        written=made,
        heads=part.indexer.heads,
        head_dim=part.indexer.head_dim,
        kv=lowering.precision.kv,
        stream=stream,
        sequences=SEQUENCES,
    )
