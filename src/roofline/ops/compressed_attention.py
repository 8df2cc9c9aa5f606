"""Attention to a window and to compressed entries: how many entries there are and are seen, and what attending to them costs."""

from roofline.arithmetic import Number, minimum
from roofline.formats import Format
from roofline.ops.attention import SOFTMAX_FLOPS
from roofline.ops.op import Op


def entry_pairs(new: Number, cached: Number, *, ratio: int, top_k: int | None = None) -> Number:
    r"""Count the pairs of new tokens and compressed entries: :math:`\sum_{p=c}^{c+n-1} \min(k, \lfloor (p+1)/r \rfloor)`.

    After c cached tokens n new ones are processed; r positions become an entry, of which a token selects k, or all. It sees an entry once
    the last position that belongs to it is there, its own included.

    References
    ----------
    DeepSeek-V4 technical report, section 2.3.1, equations 9–17.

    Examples
    --------
    >>> entry_pairs(8, 0, ratio=4), entry_pairs(1, 4095, ratio=4), entry_pairs(1, 4095, ratio=4, top_k=512)
    (6, 1024, 512)
    """
    return _pairs_before(cached + new, ratio, top_k) - _pairs_before(cached, ratio, top_k)


def _pairs_before(position: Number, ratio: int, top_k: int | None) -> Number:
    r"""Sum of min(k, ⌊t/r⌋) over t = 1 … position [-]."""
    ramp = position if top_k is None else minimum(position, ratio * top_k)
    whole, rest = ramp // ratio, ramp % ratio
    below = ratio * (whole * (whole - 1) // 2) + whole * (rest + 1)
    return below if top_k is None else below + (position - ramp) * top_k


def entries_written(new: Number, cached: Number, *, ratio: int) -> Number:
    r"""Count the entries that new tokens complete, n after c cached ones: :math:`\lfloor (c+n)/r \rfloor - \lfloor c/r \rfloor`.

    Examples
    --------
    >>> entries_written(1, 127, ratio=128), entries_written(1, 128, ratio=128)
    (1, 0)
    """
    return (cached + new) // ratio - cached // ratio


def entries_read(new: Number, cached: Number, *, ratio: int, top_k: int | None = None) -> Number:
    """Count the cached entries that must be read: all, or of selected ones the fewest, as if all new tokens agreed with the first.

    Examples
    --------
    >>> entries_read(1, 4095, ratio=4), entries_read(1, 4095, ratio=4, top_k=512), entries_read(1, 4096, ratio=4, top_k=512)
    (1023, 511, 512)
    """
    before = cached // ratio + 0 * new
    if top_k is None:
        return before
    just_made = (cached + 1) // ratio - cached // ratio  # the first new token may complete an entry, which is not read but on chip
    return minimum(before, top_k - just_made)


def pooling(name: str, *, tokens: Number, entries: Number, width: int, series: int, stream: Format) -> Op:
    """Return the cost of turning rows and gates of positions into entries: a softmax over positions, for every element by itself.

    Examples
    --------
    >>> pooling("pool", tokens=4, entries=1, width=512, series=2, stream=Format.load("bf16")).input_bytes
    16384
    """
    row = width * stream.bytes_per_element
    return Op(
        name,
        "element-wise",
        vector_flops=(SOFTMAX_FLOPS + 2) * series * width * tokens,
        input_bytes=2 * series * row * tokens,
        output_bytes=row * entries,
        rows=tokens,
        family="rowwise",
        stored=stream.name,
    )


def compressed_attention(
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
    sequences: Number = 0,
) -> Op:
    r"""Return the cost of attention whose one row per position or entry is key and value of all heads: :math:`4 h d \cdot pairs`.

    Parameters
    ----------
    name : str
        What to call it [-].
    pairs : int or numpy.ndarray
        Pairs of new tokens with positions in their window and with entries, all sequences together [-].
    tokens : int or numpy.ndarray
        New tokens [token].
    read, written : int or numpy.ndarray
        Rows and entries read and written [-].
    heads, head_dim : int
        h and d, query heads and the width of a row [-].
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

    Notes
    -----
    Rows of positions whose entry is not complete yet wait in a buffer of a few rows; its traffic is left out, so that the bytes
    stay a lower bound.

    Examples
    --------
    >>> bf16 = Format.load("bf16")
    >>> amounts = dict(pairs=640, tokens=1, read=638, written=2)
    >>> op = compressed_attention("attention", **amounts, heads=64, head_dim=512, kv=bf16, stream=bf16)
    >>> op.flops, op.kv_read_bytes
    (83886080, 653312)
    """
    row = head_dim * kv.bytes_per_element
    return Op(
        name,
        "contraction",
        kv.operand,
        flops=4 * heads * head_dim * pairs,
        vector_flops=SOFTMAX_FLOPS * heads * pairs,
        kv_read_bytes=row * read,
        kv_write_bytes=row * written,
        input_bytes=(heads + 1) * head_dim * stream.bytes_per_element * tokens,
        output_bytes=heads * head_dim * stream.bytes_per_element * tokens,
        rows=tokens,
        sequences=sequences,
        family="attention",
        stored=kv.name,
        sizes={"heads": heads, "kv_heads": 1, "qk_dim": head_dim, "v_dim": head_dim, "position_bytes": row},
    )
