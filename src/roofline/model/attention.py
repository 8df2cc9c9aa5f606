"""Softmax attention over a key-value cache."""

from typing import Literal

from roofline.errors import InvalidValueError, quoted
from roofline.model.components import Count, Matrix, Norm, Size, Vector
from roofline.model.held import Held, MixerPart
from roofline.step.rows import Rows
from roofline.visibility import Visibility


class Attention(MixerPart):
    """Softmax attention: MHA (`kv_heads` = `heads`), GQA, or MQA (`kv_heads` = 1).

    Parameters
    ----------
    heads, kv_heads : int
        Query heads, and key-value heads that they share [-].
    head_dim : int
        Width of one query or key head [-].
    v_head_dim : int, optional
        Width of one value head, if not `head_dim` [-].
    visible : {"causal", "window", "chunk", "bidirectional", "block"}, optional
        Which positions a token attends to [-].
    span : int, optional
        Window, chunk or block length, the token itself included; of bidirectional attention the positions seen on either side, 0 for all [token].
    query_bias, key_bias, value_bias, output_bias : bool, optional
        Which projections have a bias [-].
    query_norm, key_norm : Norm, optional
        Norms on queries and on keys, by what each normalizes together (a head, or the whole projection) [-].
    rotary : bool, optional
        Whether queries and keys are rotated [-].
    sinks : bool, optional
        Whether every query head has a learned sink, a score that attends to nothing [-].
    gate : bool, optional
        Whether the query projection also makes a gate on the output, and so is twice as wide [-].
    head_gate : bool, optional
        Whether a projection of its own makes one gate per query head [-].
    value_from_key : bool, optional
        Whether values are the keys, with no projection of their own; both are cached [-].
    shared_cache : bool, optional
        Whether keys and values are those that an earlier layer keeps: read again, neither projected nor written [-].
    bias_table : int, optional
        Elements of a learned table of biases that scores get by distance [-].
    routed : bool, optional
        Whether experts make queries and output, a mixture that stands in the same layer, and so no projections of its own do [-].
    input_width : int, optional
        Width of the rows that queries, keys and values are projected from, if not the residual stream's [-].
    """

    kind: Literal["attention"] = "attention"
    heads: Size
    kv_heads: Size
    head_dim: Size
    v_head_dim: Size | None = None
    visible: Literal["causal", "window", "chunk", "bidirectional", "block"] = "causal"
    span: Count = 0
    query_bias: bool = False
    key_bias: bool = False
    value_bias: bool = False
    output_bias: bool = False
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    rotary: bool = True
    sinks: bool = False
    gate: bool = False
    head_gate: bool = False
    value_from_key: bool = False
    shared_cache: bool = False
    bias_table: Count = 0
    routed: bool = False
    input_width: Size | None = None

    def _check(self) -> None:
        if self.visible != "bidirectional" and (self.visible in ("window", "chunk", "block")) != (self.span > 0):
            raise InvalidValueError(
                f"Attention: visible is {quoted(self.visible)} with a span of {self.span}; windows, chunks and blocks have one, causal attention none."
            )

    @property
    def value_dim(self) -> int:
        """Width of one value head [-]."""
        return self.head_dim if self.v_head_dim is None else self.v_head_dim

    @property
    def visibility(self) -> Visibility:
        """Which positions a token attends to, as the step model's key [-]."""
        return Visibility(self.visible, self.span)

    def keeps(self) -> tuple[Held, ...]:
        """Return the keys and values of every position that a later token may attend to, unless it is an encoder, or an earlier layer has them [-]."""
        if self.visibility.looks_ahead or self.shared_cache:
            return ()
        return (Held(Rows.seen(self.visibility), self.kv_heads * (self.head_dim + self.value_dim)),)

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projections: queries, keys, values, gates per head, output [-]."""
        q, k, v = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.kv_heads * self.value_dim
        wide = self.input_width or hidden
        queries = q * (1 + self.gate)
        key = () if self.shared_cache else (Matrix("self_attn.k_proj", wide, k, k * self.key_bias),)
        value = () if self.value_from_key or self.shared_cache else (Matrix("self_attn.v_proj", wide, v, v * self.value_bias),)
        gates = (Matrix("self_attn.g_proj", wide, self.heads),) if self.head_gate else ()
        query = () if self.routed else (Matrix("self_attn.q_proj", wide, queries, queries * self.query_bias),)
        output = () if self.routed else (Matrix("self_attn.o_proj", self.heads * self.value_dim, hidden, hidden * self.output_bias),)
        return (*query, *key, *value, *gates, *output)

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices [-]."""
        norms = tuple(Vector(n.name, n.parameters) for n in (self.query_norm, self.key_norm) if n is not None)
        named = (("sinks", self.heads * self.sinks), ("relative_attention_bias", self.bias_table))
        return (*norms, *(Vector(f"self_attn.{name}", size) for name, size in named if size))
