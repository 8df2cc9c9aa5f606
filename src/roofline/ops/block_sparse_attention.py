"""Attention to selected blocks of positions: pairs, and positions read."""

from roofline.arithmetic import Number, minimum


def block_pairs(new: Number, cached: Number, *, block: int, top_k: int) -> Number:
    r"""Count the query-key pairs: position p sees its own block so far and k−1 whole ones, :math:`p \bmod b + 1 + b \min(\lfloor p/b \rfloor, k-1)`.

    References
    ----------
    `MiniMaxM3VLIndexer.build_block_mask` of transformers 5.23.

    Examples
    --------
    >>> block_pairs(1, 1000, block=128, top_k=16), block_pairs(1, 100_000, block=128, top_k=16)
    (1001, 1953)
    """
    return _pairs_before(cached + new, block, top_k) - _pairs_before(cached, block, top_k)


def _pairs_before(position: Number, block: int, top_k: int) -> Number:
    """Sum over p < position [-]."""
    ramp = minimum(position, block * top_k)  # so far every block is selected
    rest = position - ramp
    blocks, part = rest // block, rest % block
    own = blocks * (block * (block + 1) // 2) + part * (part + 1) // 2
    return ramp * (ramp + 1) // 2 + own + rest * block * (top_k - 1)


def block_positions_read(new: Number, cached: Number, *, block: int, top_k: int) -> Number:
    """Count the cached positions that must be read: those that the first new token selects, as if all others agreed with it [token].

    Examples
    --------
    >>> block_positions_read(1, 1000, block=128, top_k=16), block_positions_read(1, 100_000, block=128, top_k=16)
    (1000, 1952)
    """
    return cached % block + block * minimum(cached // block, top_k - 1) + 0 * new
