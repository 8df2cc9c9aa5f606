"""What was counted of a mixer, as operators."""

from collections.abc import Iterator

from roofline import ops
from roofline.formats import Format
from roofline.forward.lowering import Lowering, lowers
from roofline.forward.symbols import ANY_SAMPLED, CONTINUED, SAMPLED, SEQUENCES, TOKENS, pairs, read, written
from roofline.model import CountedMixer, LayerGroup
from roofline.ops import Op


@lowers(CountedMixer)
def counted(part: CountedMixer, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield the matrices one by one, attention, what is kept in a state, and whatever a token costs besides."""
    for one in part.projections:
        for matrix in one.matrices(lowering.model.hidden_size):
            if part.sampled:
                yield lowering.linear(matrix, group, SAMPLED * one.uses, reads=ANY_SAMPLED)
            else:
                yield lowering.linear(matrix, group, TOKENS * one.uses)
    if part.sampled:
        return
    if part.further:
        yield lowering.vectors("mixer.further", part.further)
    if part.heads:
        yield _attention(part, lowering)
    if part.state:
        yield _state(part, lowering)
    if part.columns:  # of a convolution's columns one is replaced and the others are read
        size = part.columns * lowering.precision.stream.bytes_per_element
        yield Op(
            "mixer.columns", "element-wise", state_bytes=CONTINUED * size, rows=TOKENS, family="rowwise", sizes={"width": part.columns}
        )
    if part.token_flops:
        yield Op("mixer.others", "element-wise", vector_flops=TOKENS * part.token_flops, rows=TOKENS, family="rowwise", sizes={"width": 1})
    yield lowering.residual("mixer")


def _attention(part: CountedMixer, lowering: Lowering) -> Op:
    visibility, row = part.visibility, part.row * lowering.precision.kv.bytes_per_element
    op = ops.attention(
        "mixer.attention" + (f"[{visibility.kind} {visibility.span}]" if visibility.span else ""),
        pairs=pairs(visibility),
        tokens=TOKENS,
        read=read(visibility),
        written=written(visibility),
        heads=part.heads,
        kv_heads=part.heads,
        qk_dim=part.qk_dim,
        v_dim=part.v_dim,
        kv=lowering.precision.kv,
        stream=lowering.precision.stream,
        cached=part.row > 0,
        sequences=SEQUENCES,
    )
    return op.having(kv_read_bytes=read(visibility) * row, kv_write_bytes=written(visibility) * row) if row else op


def _state(part: CountedMixer, lowering: Lowering) -> Op:
    """Return the update of a state: one multiplication and addition per element and token, the least that changes all of it."""
    return ops.state_update(
        "mixer.state_update",
        TOKENS,
        flops=TOKENS * (2 * part.state),
        sequences=SEQUENCES,
        continued=CONTINUED,
        elements=part.state,
        decays=0,
        state=Format.load(part.state_format),
        operand=lowering.precision.stream.operand,
        inputs=0,
        outputs=0,
        stream=lowering.precision.stream,
    )
