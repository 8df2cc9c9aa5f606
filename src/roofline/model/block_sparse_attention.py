"""Grouped-query attention to blocks of positions that a small attention selects (MiniMax-M3)."""

from typing import Literal

from roofline.errors import InvalidValueError
from roofline.model.components import Matrix, Norm, Size, Vector
from roofline.model.held import Held, MixerPart
from roofline.step.rows import Rows
from roofline.visibility import CAUSAL, Visibility


class BlockSparseAttention(MixerPart):
    """Every token attends to `top_k` blocks of `block` positions: its own block, and the best of those before it.

    Each group of query heads selects for itself. The index key of a position is scored against every index head; the best score
    in a block is the block's.

    Parameters
    ----------
    heads, kv_heads : int
        Query heads, and key-value heads that they share [-].
    head_dim : int
        Width of one query, key or value head [-].
    index_heads, index_dim : int
        Heads of the indexer, and the width of one and of the index key cached per token [-].
    block : int
        Positions in a block [token].
    top_k : int
        Blocks that a token attends to, its own included [-].

    References
    ----------
    `MiniMaxM3VLAttention` and `MiniMaxM3VLIndexer` of transformers 5.23.
    """

    kind: Literal["block_sparse_attention"] = "block_sparse_attention"
    heads: Size
    kv_heads: Size
    head_dim: Size
    index_heads: Size
    index_dim: Size
    block: Size
    top_k: Size

    def _check(self) -> None:
        if self.heads % self.index_heads:
            raise InvalidValueError(f"BlockSparseAttention: {self.heads} heads are not a multiple of {self.index_heads} index heads.")

    @property
    def visibility(self) -> Visibility:
        """Which positions stay cached: all of them [-]."""
        return CAUSAL

    def keeps(self) -> tuple[Held, ...]:
        """Return the keys, values and index key of every position [-]."""
        return (Held(Rows("all"), 2 * self.kv_heads * self.head_dim + self.index_dim),)

    def norms(self) -> tuple[tuple[Norm, int], ...]:
        """Return the norms of queries, keys, index queries and index key, each with the heads it is applied to [-]."""
        named = (
            ("self_attn.q_norm", self.head_dim, self.heads),
            ("self_attn.k_norm", self.head_dim, self.kv_heads),
            ("self_attn.indexer.q_norm", self.index_dim, self.index_heads),
            ("self_attn.indexer.k_norm", self.index_dim, 1),
        )
        return tuple((Norm(name=name, width=width, parameters=width), heads) for name, width, heads in named)

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projections: queries, keys, values, index queries and key, output [-]."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            Matrix("self_attn.q_proj", hidden, queries),
            Matrix("self_attn.k_proj", hidden, keys),
            Matrix("self_attn.v_proj", hidden, keys),
            Matrix("self_attn.indexer.q_proj", hidden, self.index_heads * self.index_dim),
            Matrix("self_attn.indexer.k_proj", hidden, self.index_dim),
            Matrix("self_attn.o_proj", queries, hidden),
        )

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices: the norms of heads [-]."""
        return tuple(Vector(norm.name, norm.parameters) for norm, _ in self.norms())
