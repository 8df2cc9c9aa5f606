"""Attention to what is not the sequence itself: the output of an encoder, or of a vision tower."""

from typing import Literal

from roofline.model.attention import Attention
from roofline.model.components import Count, Matrix, Norm, Size, Vector
from roofline.model.held import Held, MixerPart
from roofline.step.rows import Rows


class CrossAttention(MixerPart):
    """Softmax attention to a source of fixed length, whose keys and values are made once, when a sequence begins.

    Parameters
    ----------
    source : int
        Positions of the source [token].
    heads, kv_heads : int
        Query heads, and key-value heads that they share [-].
    head_dim : int
        Width of one head [-].
    query_bias, key_bias, value_bias, output_bias : bool, optional
        Which projections have a bias [-].
    query_norm, key_norm : Norm, optional
        Norms on queries and on keys [-].
    gates : int, optional
        Learned numbers that its layer scales its results by [-].
    own : Attention, optional
        Attention of the sequence to itself in the same layer, which comes first [-].

    References
    ----------
    arXiv 1706.03762, section 3.2.3.
    """

    kind: Literal["cross_attention"] = "cross_attention"
    source: Size
    heads: Size
    kv_heads: Size
    head_dim: Size
    query_bias: bool = False
    key_bias: bool = False
    value_bias: bool = False
    output_bias: bool = False
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    gates: Count = 0
    own: Attention | None = None

    def keeps(self) -> tuple[Held, ...]:
        """Return what the sequence's own attention keeps, and the keys and values of the source [-]."""
        own = () if self.own is None else self.own.keeps()
        return (*own, Held(Rows("source", self.source), 2 * self.kv_heads * self.head_dim))

    def cross_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projections of the attention to the source: queries, keys, values, output [-]."""
        q, k = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            Matrix("cross_attn.q_proj", hidden, q, q * self.query_bias),
            Matrix("cross_attn.k_proj", hidden, k, k * self.key_bias),
            Matrix("cross_attn.v_proj", hidden, k, k * self.value_bias),
            Matrix("cross_attn.o_proj", q, hidden, hidden * self.output_bias),
        )

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projections of the sequence's own attention, then those of the attention to the source [-]."""
        return (*(() if self.own is None else self.own.matrices(hidden)), *self.cross_matrices(hidden))

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices [-]."""
        own = () if self.own is None else self.own.vectors()
        norms = tuple(Vector(n.name, n.parameters) for n in (self.query_norm, self.key_norm) if n is not None)
        return (*own, *norms, *((Vector("cross_attn.gates", self.gates),) if self.gates else ()))
