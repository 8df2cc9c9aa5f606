"""Rows times a weight matrix."""

from roofline.arithmetic import Number
from roofline.formats import Format, product_operand
from roofline.ops.op import Op


def linear(
    name: str,
    rows: Number,
    *,
    inputs: int,
    outputs: int,
    weights: Format,
    activations: Format,
    stream: Format,
    bias: int = 0,
    reads: Number = 1,
) -> Op:
    r"""Return the cost of a linear layer: :math:`2 \cdot T \cdot K \cdot N` FLOP, :math:`K \cdot N \cdot w` bytes of weights.

    Parameters
    ----------
    name : str
        What to call it [-].
    rows : int or numpy.ndarray
        T, rows that pass through [token].
    inputs, outputs : int
        K and N, the dimensions of the matrix [-].
    weights : Format
        Stored format of the matrix; its scales are read with it [-].
    activations : Format
        Format of the rows when they are multiplied [-].
    stream : Format
        Format of the rows in memory, in and out [-].
    bias : int, optional
        Bias elements, stored in the `stream` format [-].
    reads : int, float or numpy.ndarray, optional
        How many matrices of this shape are read: 1, or the distinct experts touched, or 0 where no row arrives [-].

    Returns
    -------
    Op
        A contraction [-].

    Examples
    --------
    >>> bf16 = Format.load("bf16")
    >>> op = linear("up", 1, inputs=4096, outputs=14336, weights=bf16, activations=bf16, stream=bf16)
    >>> op.flops, op.weight_bytes
    (117440512, 117440512)
    """
    return Op(
        name,
        "contraction",
        product_operand(weights, activations),
        flops=2 * inputs * outputs * rows,
        vector_flops=bias * rows,
        weight_bytes=(inputs * outputs * weights.bytes_per_element + bias * stream.bytes_per_element) * reads,
        input_bytes=inputs * stream.bytes_per_element * rows,
        output_bytes=outputs * stream.bytes_per_element * rows,
        rows=rows,
        family="matmul",
        stored=weights.name,
        sizes={"inputs": inputs, "outputs": outputs},
    )


def embedding(name: str, rows: Number, *, width: int, stored: Format, stream: Format, tables: int = 1) -> Op:
    """Return the cost of looking rows up in tables: no FLOP, and only the rows are read, never the table.

    Parameters
    ----------
    name : str
        What to call it [-].
    rows : int or numpy.ndarray
        Rows looked up in each table [token].
    width : int
        Elements of a row [-].
    stored : Format
        Format of the tables [-].
    stream : Format
        Format of the rows that come out [-].
    tables : int, optional
        Tables whose rows are added: tokens, positions, token types [-].

    Returns
    -------
    Op
        A gather [-].

    Examples
    --------
    >>> bf16 = Format.load("bf16")
    >>> embedding("embed_tokens", 8, width=4096, stored=bf16, stream=bf16).weight_bytes
    65536
    """
    return Op(
        name,
        "gather",
        vector_flops=(tables - 1) * width * rows,
        weight_bytes=tables * width * stored.bytes_per_element * rows,
        output_bytes=width * stream.bytes_per_element * rows,
        rows=rows,
        family="rowwise",
        stored=stored.name,
        sizes={"width": width},
    )
