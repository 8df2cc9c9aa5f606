"""Softmax attention over a key-value cache, as one fused kernel or as the three operators it consists of."""

from typing import Any

from roofline.arithmetic import Number
from roofline.formats import Format
from roofline.ops.op import Op

SOFTMAX_FLOPS = 5
"""FLOP per score: scale, subtract the maximum, exponentiate, add up, divide [FLOP]."""


def attention(
    name: str,
    *,
    pairs: Number,
    tokens: Number,
    read: Number,
    written: Number,
    heads: int,
    kv_heads: int,
    qk_dim: int,
    v_dim: int,
    kv: Format,
    stream: Format,
    cached: bool = True,
    sequences: Number = 0,
    made: Number | None = None,
) -> Op:
    r"""Return the cost of fused (flash) attention: :math:`2 h (d_{qk} + d_v) \cdot pairs` FLOP and one pass over the cache.

    The score matrix never leaves the chip (arXiv 2205.14135). Queries, the new keys and values, and the result are
    activations; the cache is read once for every position that any new token of a sequence sees.

    Parameters
    ----------
    name : str
        What to call it [-].
    pairs : int or numpy.ndarray
        Query-key pairs, all sequences together [-].
    tokens : int or numpy.ndarray
        New tokens [token].
    read, written : int or numpy.ndarray
        Cached positions read, and positions written [token].
    heads, kv_heads : int
        Query heads and key-value heads [-].
    qk_dim, v_dim : int
        Width of a query or key head, and of a value head [-].
    kv : Format
        Format of the cache; the products run in its operand format [-].
    stream : Format
        Format of queries and result [-].
    cached : bool, optional
        False for an encoder, which keeps no cache [-].
    sequences : int or numpy.ndarray, optional
        Sequences that the new tokens belong to, which only the time of a kernel depends on [-].
    made : int or numpy.ndarray, optional
        Positions whose keys and values come in, where they are not those of the new tokens, as in cross-attention [token].

    Returns
    -------
    Op
        A contraction [-].

    Examples
    --------
    >>> bf16 = Format.load("bf16")
    >>> op = attention("attention", pairs=1025, tokens=1, read=1024, written=1, heads=64, kv_heads=8, qk_dim=128, v_dim=128, kv=bf16, stream=bf16)
    >>> op.flops, op.kv_read_bytes, op.kv_write_bytes
    (33587200, 4194304, 4096)
    """
    stored = kv_heads * (qk_dim + v_dim) * kv.bytes_per_element
    position, size = stored * cached, stream.bytes_per_element
    made = tokens if made is None else made
    return Op(
        name,
        "contraction",
        kv.operand,
        flops=2 * heads * (qk_dim + v_dim) * pairs,
        vector_flops=SOFTMAX_FLOPS * heads * pairs,
        kv_read_bytes=position * read,
        kv_write_bytes=position * written,
        input_bytes=heads * qk_dim * size * tokens + kv_heads * (qk_dim + v_dim) * size * made,
        output_bytes=heads * v_dim * size * tokens,
        rows=tokens,
        sequences=sequences,
        family="attention",
        stored=kv.name,
        sizes={"heads": heads, "kv_heads": kv_heads, "qk_dim": qk_dim, "v_dim": v_dim, "position_bytes": stored},
    )


def unfused_attention(
    name: str,
    *,
    pairs: Number,
    tokens: Number,
    read: Number,
    written: Number,
    heads: int,
    kv_heads: int,
    qk_dim: int,
    v_dim: int,
    kv: Format,
    stream: Format,
    cached: bool = True,
    sequences: Number = 0,
    made: Number | None = None,
) -> tuple[Op, Op, Op]:
    """Return attention as three operators with the score matrix in memory between them.

    The scores are written, read and written again by the softmax, and read once more: four passes of heads · pairs elements.

    Parameters
    ----------
    name : str
        Prefix of the three names [-].
    pairs, tokens, read, written : int or numpy.ndarray
        As in :func:`attention` [-].
    heads, kv_heads, qk_dim, v_dim : int
        As in :func:`attention` [-].
    kv, stream : Format
        As in :func:`attention` [-].
    cached : bool, optional
        False for an encoder, which keeps no cache [-].
    sequences : int or numpy.ndarray, optional
        Sequences that the new tokens belong to, which only the time of a kernel depends on [-].
    made : int or numpy.ndarray, optional
        Positions whose keys and values come in, where they are not those of the new tokens, as in cross-attention [token].

    Returns
    -------
    tuple of Op
        Scores, softmax, values; their FLOP and compulsory bytes add up to the fused operator's [-].

    References
    ----------
    arXiv 2007.00072, table of operators: QKᵀ, scaled softmax, gamma.
    """
    size, kept = stream.bytes_per_element, kv.bytes_per_element * cached
    made = tokens if made is None else made
    matrix = heads * size * pairs
    kernel: dict[str, Any] = {"rows": tokens, "sequences": sequences, "family": "attention", "stored": kv.name}
    shared = {"heads": heads, "kv_heads": kv_heads}
    scores = Op(
        f"{name}.scores",
        "contraction",
        kv.operand,
        flops=2 * heads * qk_dim * pairs,
        kv_read_bytes=kv_heads * qk_dim * kept * read,
        kv_write_bytes=kv_heads * qk_dim * kept * written,
        input_bytes=heads * qk_dim * size * tokens + kv_heads * qk_dim * size * made,
        output_bytes=matrix,
        sizes=shared | {"qk_dim": qk_dim, "v_dim": 0, "position_bytes": kv_heads * qk_dim * kv.bytes_per_element},
        **kernel,
    )
    softmax = Op(
        f"{name}.softmax",
        "normalization",
        vector_flops=SOFTMAX_FLOPS * heads * pairs,
        input_bytes=matrix,
        output_bytes=matrix,
        rows=tokens,
        family="rowwise",
        stored=stream.name,
    )
    values = Op(
        f"{name}.values",
        "contraction",
        kv.operand,
        flops=2 * heads * v_dim * pairs,
        kv_read_bytes=kv_heads * v_dim * kept * read,
        kv_write_bytes=kv_heads * v_dim * kept * written,
        input_bytes=kv_heads * v_dim * size * made + matrix,
        output_bytes=heads * v_dim * size * tokens,
        sizes=shared | {"qk_dim": 0, "v_dim": v_dim, "position_bytes": kv_heads * v_dim * kv.bytes_per_element},
        **kernel,
    )
    return scores, softmax, values
