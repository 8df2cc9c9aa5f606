"""Kinds of kernels that layers have besides products, attention, experts and collectives: recurrent state, convolutions, row by row.

They are counted by the functions that :mod:`roofline.forward` counts a model's layers with, so that a layer and a row of a table of
the same sizes cost the same.
"""

from dataclasses import replace

from roofline.arithmetic import Number, minimum
from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.kernel_tables.kind import SEQUENCES, Column, Kind
from roofline.ops import Op, convolution, elementwise, state_flops, state_update
from roofline.step import Visibility, cached_positions, written_positions
from roofline.units import check_count

_FLOPS = 1  # FLOP per element of a row-wise kernel, on the general units, which bound nothing here


def _tokens(batch: Number, context: Number, new: Number) -> tuple[Number, Number, Number]:
    """Return counts of sequences and tokens as numbers whose products cannot overflow."""
    return check_count("batch", batch, minimum=1), check_count("context", context), check_count("new", new, minimum=1)


def _state(
    *,
    batch: Number,
    context: Number,
    new: Number,
    heads: int,
    key_heads: int,
    key_dim: int,
    value_dim: int,
    retrieves: int,
    state: str,
    activations: str,
) -> Op:
    """Count the update and read-out of a state that is a matrix of keys times values in every head."""
    if heads % key_heads:
        raise InvalidValueError(f"heads is {heads} and key_heads {key_heads}; every key head serves as many heads.")
    batch, context, new = _tokens(batch, context, new)
    keys, values, stream = key_heads * key_dim, heads * value_dim, Format.load(activations)
    elements = values * key_dim
    return state_update(
        "state update",
        batch * new,
        flops=batch * state_flops(new, context, elements=elements, pair_width=keys + values, retrieves=bool(retrieves)),
        sequences=batch,
        continued=batch * minimum(context, 1),
        elements=elements,
        decays=0,
        state=Format.load(state),
        operand=stream.operand,
        inputs=2 * keys + values,
        outputs=values,
        stream=stream,
    )


def _convolution(*, batch: Number, context: Number, new: Number, channels: int, taps: int, stream: str) -> Op:
    """Count a short causal convolution, whose taps see as far back as a window does."""
    batch, context, new = _tokens(batch, context, new)
    seen = Visibility("window", taps)
    return convolution(
        "convolution",
        batch * new,
        read=batch * cached_positions(new, context, seen),
        written=batch * written_positions(new, context, seen),
        channels=channels,
        kernel=taps,
        stream=Format.load(stream),
    )


def _rowwise(*, rows: Number, width: Number, inputs: int, activations: str, output: str, vectors: int = 0) -> Op:
    """Count a kernel that touches every row by itself: rows in, perhaps several of them, and one out, perhaps in another format.

    A norm reads a vector of scales besides, which tables leave out.
    """
    rows, width = check_count("rows", rows, minimum=1), check_count("width", width, minimum=1)
    stream = Format.load(activations)
    op = elementwise("rows", rows, width=width, inputs=inputs, flops=_FLOPS, stream=stream)
    scales = vectors * width * stream.bytes_per_element
    return replace(op, weight_bytes=scales, output_bytes=width * Format.load(output or activations).bytes_per_element * rows)


LAYER_KINDS = (
    Kind(
        "state",
        (
            *SEQUENCES,
            Column("heads", ("value_heads", "num_v_heads", "num_heads"), fixed=True),
            Column("key_heads", ("num_k_heads",), "heads", fixed=True),
            Column("key_dim", ("head_k_dim", "key_head_dim", "d_state"), fixed=True),
            Column("value_dim", ("head_v_dim", "value_head_dim"), "key_dim", fixed=True),
            Column("retrieves", ("delta_rule",), 1, least=0, fixed=True),
        ),
        {"state": "fp32", "activations": "bf16"},
        "batch {batch:.0f}, {new:.0f} after {context:.0f} tokens, state {heads} × {key_dim} × {value_dim}",
        _state,
    ),
    Kind(
        "convolution",
        (*SEQUENCES, Column("channels", ("conv_channels",), fixed=True), Column("taps", ("d_conv", "conv_kernel"), 4, fixed=True)),
        {"stream": ""},
        "batch {batch:.0f}, {new:.0f} after {context:.0f} tokens, {taps} taps on {channels} channels",
        _convolution,
    ),
    Kind(
        "rowwise",
        (Column("rows", ("num_rows",)), Column("width", ("row_width",)), Column("inputs", ("num_inputs",), 1, fixed=True)),
        {"activations": "", "output": ""},
        "{rows:.0f} rows of {width:.0f}",
        _rowwise,
    ),
)
"""The kinds by whose names and columns ``KINDS`` is extended. `heads` of a state are those of
values, `retrieves` is 1 where the update first takes out what the key retrieves (delta rule), 0 for Mamba-2 and plain linear
attention; a state that was not there before a step is written only. `inputs` of a row-wise kernel counts the rows that go in for one
that comes out: 2 for a gate or a residual; `output` is the format that comes out, the same as that of `activations` if empty."""
