"""Linear attention: recurrent mixers whose state is a matrix of keys times values in every head."""

from typing import ClassVar, Literal

from roofline.model.components import Matrix, Size
from roofline.model.recurrent import RecurrentMixer


class GatedDeltaNet(RecurrentMixer):
    """Gated delta net: linear attention whose update first subtracts what the key retrieves.

    Parameters
    ----------
    key_heads, value_heads : int
        Heads of queries and keys, and of values [-].
    key_dim, value_dim : int
        Width of one key head, and of one value head [-].
    fused : bool, optional
        Whether checkpoints keep queries, keys, values and gate in one matrix (Qwen3-Next) [-].

    References
    ----------
    arXiv 2412.06464.
    """

    retrieves: ClassVar[bool] = True

    kind: Literal["gated_delta_net"] = "gated_delta_net"
    key_heads: Size
    value_heads: Size
    key_dim: Size
    value_dim: Size
    fused: bool = False

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution runs over: queries, keys, values [-]."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def state_elements(self) -> int:
        """Elements of the recurrent state of one sequence in one layer [-]."""
        return self.value_heads * self.key_dim * self.value_dim

    @property
    def pair_width(self) -> int:
        """Multiply-accumulates for one pair of tokens: a score per key head, and the values of all value heads [-]."""
        return self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def input_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return queries, keys, values and gate; decay and update rates [-]."""
        values, heads, p = self.value_heads * self.value_dim, self.value_heads, self.prefix
        if self.fused:
            return (
                Matrix(f"{p}.in_proj_qkvz", hidden, self.conv_channels + values),
                Matrix(f"{p}.in_proj_ba", hidden, 2 * heads, quantizable=False),
            )
        return (
            Matrix(f"{p}.in_proj_qkv", hidden, self.conv_channels),
            Matrix(f"{p}.in_proj_z", hidden, values),
            Matrix(f"{p}.in_proj_b", hidden, heads, quantizable=False),
            Matrix(f"{p}.in_proj_a", hidden, heads, quantizable=False),
        )

    def output_matrix(self, hidden: int) -> Matrix:
        """Return out [-]."""
        return Matrix(f"{self.prefix}.out_proj", self.value_heads * self.value_dim, hidden)

    def named_vectors(self) -> tuple[tuple[str, int], ...]:
        """Return decay rates, their biases, the gated norm [-]."""
        return (("A_log", self.value_heads), ("dt_bias", self.value_heads), ("norm", self.value_dim))


class KimiDeltaAttention(RecurrentMixer):
    """Kimi delta attention (KDA): a gated delta net with a decay of its own for every key element.

    Parameters
    ----------
    heads, head_dim : int
        Heads, and the width of queries, keys and values in each [-].
    gate_rank : int, optional
        Rank of the low-rank projections for decay and output gate; `head_dim` if not given [-].
    full_rank_gate : bool, optional
        Whether the output gate has one full matrix instead (Kimi K3) [-].
    full_rank_decay : bool, optional
        Whether the decay has one full matrix instead (Ling 3) [-].

    References
    ----------
    Kimi Linear, arXiv 2510.26692.
    """

    retrieves: ClassVar[bool] = True

    kind: Literal["kimi_delta_attention"] = "kimi_delta_attention"
    heads: Size
    head_dim: Size
    gate_rank: Size | None = None
    full_rank_gate: bool = False
    full_rank_decay: bool = False

    @property
    def inner(self) -> int:
        """Channels of all heads [-]."""
        return self.heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution runs over: queries, keys, values [-]."""
        return 3 * self.inner

    @property
    def state_elements(self) -> int:
        """Elements of the recurrent state of one sequence in one layer [-]."""
        return self.inner * self.head_dim

    @property
    def pair_width(self) -> int:
        """Multiply-accumulates for one pair of tokens: scores and values of all heads [-]."""
        return 2 * self.inner

    def input_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return queries, keys, values, the gate and the decay (full, or their down-projections), update rates [-]."""
        p, rank = self.prefix, self.gate_rank or self.head_dim
        gate = Matrix(f"{p}.g_proj", hidden, self.inner) if self.full_rank_gate else Matrix(f"{p}.g_a_proj", hidden, rank)
        decay = Matrix(f"{p}.f_proj", hidden, self.inner) if self.full_rank_decay else Matrix(f"{p}.f_a_proj", hidden, rank)
        return (
            *(Matrix(f"{p}.{n}_proj", hidden, self.inner) for n in "qkv"),
            gate,
            decay,
            Matrix(f"{p}.b_proj", hidden, self.heads, quantizable=False),
        )

    def inner_matrices(self) -> tuple[Matrix, ...]:
        """Return the up-projections of decay and gate [-]."""
        full = {"f_b_proj": self.full_rank_decay, "g_b_proj": self.full_rank_gate}
        rank = self.gate_rank or self.head_dim
        return tuple(Matrix(f"{self.prefix}.{name}", rank, self.inner) for name, whole in full.items() if not whole)

    def output_matrix(self, hidden: int) -> Matrix:
        """Return out [-]."""
        return Matrix(f"{self.prefix}.o_proj", self.inner, hidden)

    def named_vectors(self) -> tuple[tuple[str, int], ...]:
        """Return decay rates, their biases, the gated norm [-]."""
        return (("A_log", self.heads), ("dt_bias", self.inner), ("o_norm", self.head_dim))


class LightningAttention(RecurrentMixer):
    """Lightning attention: linear attention with one fixed decay per head.

    Parameters
    ----------
    heads, head_dim : int
        Heads, and the width of queries, keys and values in each [-].

    References
    ----------
    arXiv 2401.04658; MiniMax-01, arXiv 2501.08313.
    """

    kind: Literal["lightning_attention"] = "lightning_attention"
    heads: Size
    head_dim: Size

    @property
    def state_elements(self) -> int:
        """Elements of the recurrent state of one sequence in one layer [-]."""
        return self.heads * self.head_dim**2

    @property
    def pair_width(self) -> int:
        """Multiply-accumulates for one pair of tokens: scores and values of all heads [-]."""
        return 2 * self.heads * self.head_dim

    def input_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return queries, keys and values in one; the output gate [-]."""
        inner = self.heads * self.head_dim
        return (Matrix(f"{self.prefix}.qkv_proj", hidden, 3 * inner), Matrix(f"{self.prefix}.output_gate", hidden, inner))

    def output_matrix(self, hidden: int) -> Matrix:
        """Return out [-]."""
        return Matrix(f"{self.prefix}.out_proj", self.heads * self.head_dim, hidden)

    def named_vectors(self) -> tuple[tuple[str, int], ...]:
        """Return the norm on the output [-]."""
        return (("norm", self.heads * self.head_dim),)
