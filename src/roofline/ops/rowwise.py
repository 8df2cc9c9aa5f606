"""Operators that touch every row by itself: norms, activation functions, gates, residuals, rotary embeddings.

They are almost no FLOP and as many bytes as a matrix product's activations, which is why they take time unless fused
(arXiv 2007.00072).
"""

from roofline.arithmetic import Number
from roofline.formats import Format
from roofline.frozen import FrozenDict
from roofline.ops.op import Op

NORM_FLOPS = 7
"""FLOP per element of a layer norm: mean, subtract, square, sum, scale by 1/σ, multiply and add parameters [FLOP]."""

ELEMENTWISE_FLOPS = {"residual": 1, "activation": 1, "gated_activation": 2, "rotary": 3}
"""FLOP per output element; a transcendental function counts as one, as in arXiv 2007.00072 [FLOP]."""
ELEMENTWISE_FLOPS = FrozenDict(ELEMENTWISE_FLOPS)


def norm(name: str, rows: Number, *, width: int, parameters: int, stored: Format, stream: Format) -> Op:
    """Return the cost of a LayerNorm or RMSNorm: about 7 FLOP per element, every element in and out.

    Parameters
    ----------
    name : str
        What to call it [-].
    rows : int or numpy.ndarray
        Rows normalized [token].
    width : int
        Elements of a row [-].
    parameters : int
        Scales and shifts [-].
    stored : Format
        Their format [-].
    stream : Format
        Format of the rows [-].

    Returns
    -------
    Op
        A normalization [-].

    Examples
    --------
    >>> bf16 = Format.load("bf16")
    >>> norm("norm", 2, width=1024, parameters=1024, stored=bf16, stream=bf16).output_bytes
    4096
    """
    elements = width * stream.bytes_per_element * rows
    return Op(
        name,
        "normalization",
        vector_flops=NORM_FLOPS * width * rows,
        weight_bytes=parameters * stored.bytes_per_element,
        input_bytes=elements,
        output_bytes=elements,
        rows=rows,
        family="rowwise",
        stored=stored.name,
        sizes={"width": width},
    )


def elementwise(name: str, rows: Number, *, width: int, inputs: int, flops: int, stream: Format) -> Op:
    """Return the cost of an element-wise operator.

    Parameters
    ----------
    name : str
        What to call it [-].
    rows : int or numpy.ndarray
        Rows that come out [token].
    width : int
        Elements of a row that comes out [-].
    inputs : int
        How many such elements go in for one that comes out: 2 for a residual or a gate [-].
    flops : int
        FLOP per element that comes out [FLOP].
    stream : Format
        Format of the rows [-].

    Returns
    -------
    Op
        An element-wise operator [-].

    Examples
    --------
    >>> elementwise("residual", 4, width=1024, inputs=2, flops=1, stream=Format.load("bf16")).input_bytes
    16384
    """
    out = width * stream.bytes_per_element * rows
    return Op(
        name,
        "element-wise",
        vector_flops=flops * width * rows,
        input_bytes=inputs * out,
        output_bytes=out,
        rows=rows,
        family="rowwise",
        stored=stream.name,
        sizes={"width": width},
    )
