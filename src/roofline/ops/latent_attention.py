"""Multi-head latent attention (MLA) and the indexer of sparse attention."""

from dataclasses import replace

from roofline.arithmetic import Number, minimum
from roofline.formats import Format
from roofline.ops.attention import SOFTMAX_FLOPS
from roofline.ops.op import Op


def latent_attention_flops(*, pairs: Number, reexpanded: Number, heads: int, rank: int, nope_dim: int, rope_dim: int, v_dim: int) -> Number:
    r"""Return the FLOP of the cheaper of MLA's two forms for one sequence, beyond one pass of every new token through kv_b [FLOP].

    Absorbed, queries are taken into the latent space: :math:`2h((r + rope) + r) \cdot pairs`. Expanded, keys and values are
    made from latents of rank r: :math:`2h((nope + rope) + v) \cdot pairs`, and every cached position that is seen passes kv_b again. The
    absorb projections of a new token cost just what passing kv_b does.

    Notes
    -----
    The cache holds latents; that keeping expanded keys and values instead might cost less is left out, because it reads many
    times the bytes. Absorbing towards cached positions and expanding among new ones never beats both: with
    :math:`d = 2r - nope - v` it would take more than :math:`2r(nope+v)/d` new tokens to beat the one, and fewer than half of
    those to beat the other.

    References
    ----------
    DeepSeek-V2, arXiv 2405.04434, section 2.1.2 (absorption).

    Examples
    --------
    >>> latent_attention_flops(pairs=1025, reexpanded=1024, heads=128, rank=512, nope_dim=128, rope_dim=64, v_dim=128)
    285491200
    """
    absorbed = 2 * heads * (2 * rank + rope_dim) * pairs
    expanded = 2 * heads * (nope_dim + rope_dim + v_dim) * pairs + 2 * rank * heads * (nope_dim + v_dim) * reexpanded
    return minimum(absorbed, expanded)


def latent_attention(
    name: str,
    *,
    flops: Number,
    pairs: Number,
    tokens: Number,
    read: Number,
    written: Number,
    heads: int,
    rank: int,
    rope_dim: int,
    query_dim: int,
    v_dim: int,
    kv: Format,
    stream: Format,
    sequences: Number = 0,
) -> Op:
    """Return the cost of MLA over a cache of one latent row per position, shared by all heads.

    Parameters
    ----------
    name : str
        What to call it [-].
    flops : int or numpy.ndarray
        From ``latent_attention_flops``, all sequences together [FLOP].
    pairs : int or numpy.ndarray
        Query-key pairs, all sequences together [-].
    tokens : int or numpy.ndarray
        New tokens [token].
    read, written : int or numpy.ndarray
        Cached positions read, and positions written [token].
    heads : int
        Query heads [-].
    rank, rope_dim : int
        Elements of the latent, and of the rotated key beside it [-].
    query_dim, v_dim : int
        Width of one query head, and of one value head [-].
    kv : Format
        Format of the cache; the products run in its operand format [-].
    stream : Format
        Format of queries and result [-].
    sequences : int or numpy.ndarray, optional
        Sequences that the new tokens belong to, which only the time of a kernel depends on [-].

    Returns
    -------
    Op
        A contraction [-].

    Examples
    --------
    >>> bf16 = Format.load("bf16")
    >>> amounts = dict(flops=0, pairs=0, tokens=0, read=1000, written=1)
    >>> latent_attention("mla", **amounts, heads=128, rank=512, rope_dim=64, query_dim=192, v_dim=128, kv=bf16, stream=bf16).kv_read_bytes
    1152000
    """
    row = (rank + rope_dim) * kv.bytes_per_element
    return Op(
        name,
        "contraction",
        kv.operand,
        flops=flops,
        vector_flops=SOFTMAX_FLOPS * heads * pairs,
        kv_read_bytes=row * read,
        kv_write_bytes=row * written,
        input_bytes=(heads * query_dim + rank + rope_dim) * stream.bytes_per_element * tokens,
        output_bytes=heads * v_dim * stream.bytes_per_element * tokens,
        rows=tokens,
        sequences=sequences,
        family="latent_attention",
        stored=kv.name,
        sizes={"heads": heads, "rank": rank, "rope_dim": rope_dim, "qk_dim": query_dim, "v_dim": v_dim},
    )


def materialized_scores(op: Op, *, heads: int, pairs: Number, stream: Format) -> Op:
    """Return an attention operator whose scores pass through memory: written, read and written by the softmax, read once more.

    Examples
    --------
    >>> fused = Op("attention", "contraction", "bf16")
    >>> materialized_scores(fused, heads=8, pairs=100, stream=Format.load("bf16")).activation_bytes
    6400
    """
    matrix = heads * stream.bytes_per_element * pairs
    return replace(op, input_bytes=op.input_bytes + 2 * matrix, output_bytes=op.output_bytes + 2 * matrix)


def indexer(
    name: str,
    *,
    pairs: Number,
    tokens: Number,
    read: Number,
    written: Number,
    heads: int,
    head_dim: int,
    kv: Format,
    stream: Format,
    weights: int = 1,
    sequences: Number = 0,
) -> Op:
    r"""Return the cost of scoring every visible position: :math:`2 h_i (d_i + 1) \cdot pairs`, one index key read for each.

    Every head's score is a product of `head_dim` elements; the scores of all heads are added up with weights.

    Parameters
    ----------
    name : str
        What to call it [-].
    pairs : int or numpy.ndarray
        Query-key pairs without selection [-].
    tokens : int or numpy.ndarray
        New tokens [token].
    read, written : int or numpy.ndarray
        Index keys read and written [token].
    heads, head_dim : int
        Heads of the indexer, and the width of one [-].
    kv : Format
        Format of the index keys [-].
    stream : Format
        Format of its queries [-].
    weights : int, optional
        Weights per head with which scores are added up; 0 where every head selects for itself [-].
    sequences : int or numpy.ndarray, optional
        Sequences that the new tokens belong to, which only the time of a kernel depends on [-].

    Returns
    -------
    Op
        A contraction [-].

    Examples
    --------
    >>> bf16 = Format.load("bf16")
    >>> indexer("indexer", pairs=1025, tokens=1, read=1024, written=1, heads=64, head_dim=128, kv=bf16, stream=bf16).flops
    16924800
    """
    key = head_dim * kv.bytes_per_element
    return Op(
        name,
        "contraction",
        kv.operand,
        flops=2 * heads * (head_dim + weights) * pairs,
        vector_flops=heads * pairs,
        kv_read_bytes=key * read,
        kv_write_bytes=key * written,
        input_bytes=(heads * (head_dim + weights) + head_dim) * stream.bytes_per_element * tokens,
        rows=tokens,
        sequences=sequences,
        family="attention",
        stored=kv.name,
        sizes={"heads": heads, "kv_heads": 1, "qk_dim": head_dim + weights, "v_dim": 0, "position_bytes": key},
    )
