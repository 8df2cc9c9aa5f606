"""Mixers: the part of a layer that moves information between tokens."""

from typing import Annotated, Literal

from pydantic import Field

from roofline.model.components import Matrix, Norm, Part, Vector
from roofline.step import Visibility

__all__ = ["Attention", "Mixer"]

Size = Annotated[int, Field(gt=0, le=2**40)]


class Attention(Part):
    """Softmax attention: MHA (`kv_heads` = `heads`), GQA, or MQA (`kv_heads` = 1).

    Parameters
    ----------
    heads, kv_heads : int
        Query heads, and key-value heads that they share [-].
    head_dim : int
        Width of one query or key head [-].
    v_head_dim : int, optional
        Width of one value head, if not `head_dim` [-].
    visible : {"causal", "window", "chunk", "bidirectional"}, optional
        Which positions a token attends to [-].
    span : int, optional
        Window or chunk length, the token itself included [token].
    query_bias, key_bias, value_bias, output_bias : bool, optional
        Which projections have a bias [-].
    query_norm, key_norm : Norm, optional
        Norms on queries and on keys, by what each normalizes together (a head, or the whole projection) [-].
    rotary : bool, optional
        Whether queries and keys are rotated [-].
    """

    kind: Literal["attention"] = "attention"
    heads: Size
    kv_heads: Size
    head_dim: Size
    v_head_dim: Size | None = None
    visible: Literal["causal", "window", "chunk", "bidirectional"] = "causal"
    span: Annotated[int, Field(ge=0)] = 0
    query_bias: bool = False
    key_bias: bool = False
    value_bias: bool = False
    output_bias: bool = False
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    rotary: bool = True

    @property
    def value_dim(self) -> int:
        """Width of one value head [-]."""
        return self.head_dim if self.v_head_dim is None else self.v_head_dim

    @property
    def visibility(self) -> Visibility:
        """Which positions a token attends to, as the step model's key [-]."""
        return Visibility(self.visible, self.span)

    @property
    def cache_elements_per_token(self) -> int:
        """Key and value elements kept for one token in one layer [-]."""
        return 0 if self.visible == "bidirectional" else self.kv_heads * (self.head_dim + self.value_dim)

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projections: queries, keys, values, output.

        Parameters
        ----------
        hidden : int
            Width of the residual stream [-].

        Returns
        -------
        tuple of Matrix
            Four matrices [-].
        """
        q, k, v = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.kv_heads * self.value_dim
        return (
            Matrix("self_attn.q_proj", hidden, q, q * self.query_bias),
            Matrix("self_attn.k_proj", hidden, k, k * self.key_bias),
            Matrix("self_attn.v_proj", hidden, v, v * self.value_bias),
            Matrix("self_attn.o_proj", self.heads * self.value_dim, hidden, hidden * self.output_bias),
        )

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices [-]."""
        return tuple(Vector(n.name, n.parameters) for n in (self.query_norm, self.key_norm) if n is not None)


Mixer = Attention
