"""Recurrent mixers as operators."""

from collections.abc import Iterator

from roofline import ops
from roofline.arithmetic import LinearForm, Number
from roofline.formats import Format
from roofline.forward.lowering import Lowering, lowers
from roofline.forward.symbols import CONTINUED, SEQUENCES, TOKENS, read, written
from roofline.model import (
    RGLRU,
    GatedDeltaNet,
    KimiDeltaAttention,
    LayerGroup,
    LightningAttention,
    Mamba1,
    Mamba2,
    RecurrentMixer,
    ShortConvolution,
)
from roofline.ops import Op
from roofline.ops.recurrent import state_flops
from roofline.step import Aggregate, Sequences, Visibility


@lowers(Mamba1)
@lowers(Mamba2)
@lowers(GatedDeltaNet)
@lowers(KimiDeltaAttention)
@lowers(LightningAttention)
@lowers(RGLRU)
def recurrent(part: RecurrentMixer, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield a recurrent mixer: projections, convolution, update and read-out of the state, gate, output."""
    hidden, prefix, stream = lowering.model.hidden_size, part.prefix, lowering.precision.stream
    outer, out = part.input_matrices(hidden), part.output_matrix(hidden)
    yield from lowering.merged(f"{prefix}.in_proj", [m for m in outer if m.quantizable], group)
    yield from lowering.merged(f"{prefix}.in_proj_rates", [m for m in outer if not m.quantizable], group)
    if part.conv_channels and part.conv_kernel:
        yield lowering.rowwise(_convolution(part, lowering))
    for matrix in part.inner_matrices():
        yield lowering.linear(matrix, group, TOKENS * matrix.copies, reads=matrix.copies)
    yield lowering.vectors(f"{prefix}.scales", sum(v.parameters for v in part.vectors()))
    yield ops.state_update(
        f"{prefix}.state_update",
        TOKENS,
        flops=LinearForm.of(Aggregate("state FLOP", _state_flops, (part.state_elements, part.pair_width, part.retrieves))),
        sequences=SEQUENCES,
        continued=CONTINUED,
        elements=part.state_elements,
        decays=part.decays,
        state=Format.load(part.state_format),
        operand=stream.operand,
        inputs=part.conv_channels or 3 * out.inputs,
        outputs=out.inputs,
        stream=stream,
    )
    yield lowering.elementwise(f"{prefix}.gate", width=out.inputs, inputs=2, what="gated_activation")
    yield lowering.linear(out, group)
    yield lowering.residual(prefix)


@lowers(ShortConvolution)
def short_convolution(part: ShortConvolution, lowering: Lowering, group: LayerGroup) -> Iterator[Op]:
    """Yield a short convolution: projection, a gate before and one after the convolution, output."""
    hidden, prefix = lowering.model.hidden_size, part.prefix
    (into,), out = part.input_matrices(hidden), part.output_matrix(hidden)
    yield lowering.linear(into, group)
    yield lowering.elementwise(f"{prefix}.gate_in", width=part.width, inputs=2, what="residual")
    yield lowering.rowwise(_convolution(part, lowering))
    yield lowering.vectors(f"{prefix}.taps", sum(v.parameters for v in part.vectors()))
    yield lowering.elementwise(f"{prefix}.gate_out", width=part.width, inputs=2, what="residual")
    yield lowering.linear(out, group)
    yield lowering.residual(prefix)


def _convolution(part: RecurrentMixer, lowering: Lowering) -> Op:
    taps = Visibility("window", part.conv_kernel)
    return ops.convolution(
        f"{part.prefix}.conv1d",
        TOKENS,
        read=read(taps),
        written=written(taps),
        channels=part.conv_channels,
        kernel=part.conv_kernel,
        stream=lowering.precision.stream,
    )


def _state_flops(g: Sequences, elements: int, pair_width: int, retrieves: bool) -> Number:
    return state_flops(g.new, g.cached, elements=elements, pair_width=pair_width, retrieves=retrieves)
