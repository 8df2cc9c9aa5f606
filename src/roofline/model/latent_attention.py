"""Multi-head latent attention, dense or sparse by an indexer."""

from typing import Literal

from roofline.model.components import Count, Matrix, Part, Size, Vector
from roofline.model.held import Held, MixerPart
from roofline.step.rows import Rows
from roofline.visibility import CAUSAL, Visibility


class Indexer(Part):
    """A small attention that selects, for every token, the positions that the main attention looks at.

    Parameters
    ----------
    heads : int
        Its query heads; keys are shared by all [-].
    head_dim : int
        Width of one head, and of the index key cached per token [-].
    top_k : int
        Positions selected per token [token].
    shared : bool, optional
        Whether this layer reuses the selection of an earlier one, and so has neither weights nor index keys [-].

    References
    ----------
    DeepSeek-V3.2-Exp technical report, "DeepSeek Sparse Attention" (lightning indexer).
    """

    heads: Size
    head_dim: Size
    top_k: Size
    shared: bool = False


class LatentAttention(MixerPart):
    """Multi-head latent attention (MLA): one low-rank row per token is cached and shared by all heads.

    Parameters
    ----------
    heads : int
        Query heads [-].
    q_lora_rank : int or None
        Rank of the query projection, None for a full one [-].
    kv_lora_rank : int
        Rank of the cached latent, r [-].
    nope_dim, rope_dim : int
        Width of a query or key head without and with rotation, 0 for none [-].
    v_head_dim : int
        Width of a value head [-].
    bias : bool, optional
        Whether the down-projections and the output have biases [-].
    output_gate : bool, optional
        Whether a gate of one value per head and value element multiplies the output [-].
    head_gate : bool, optional
        Whether a gate of one value per head multiplies the output [-].
    indexer : Indexer, optional
        What makes it sparse [-].

    References
    ----------
    DeepSeek-V2, arXiv 2405.04434, section 2.1.
    """

    kind: Literal["latent_attention"] = "latent_attention"
    heads: Size
    q_lora_rank: Size | None
    kv_lora_rank: Size
    nope_dim: Size
    rope_dim: Count
    v_head_dim: Size
    bias: bool = False
    output_gate: bool = False
    head_gate: bool = False
    indexer: Indexer | None = None

    @property
    def visibility(self) -> Visibility:
        """Which positions a token attends to [-]."""
        return CAUSAL if self.indexer is None else Visibility("selected", self.indexer.top_k)

    def keeps(self) -> tuple[Held, ...]:
        """Return the latent, the rotated key and the index key of every position [-]."""
        return (Held(Rows("all"), self.kv_lora_rank + self.rope_dim + self.index_elements_per_token),)

    @property
    def index_elements_per_token(self) -> int:
        """Index key elements kept for one token in one layer [-]."""
        return 0 if self.indexer is None or self.indexer.shared else self.indexer.head_dim

    def query_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the query projection, in one piece or down and up [-]."""
        outputs = self.heads * (self.nope_dim + self.rope_dim)
        if self.q_lora_rank is None:
            return (Matrix("self_attn.q_proj", hidden, outputs),)
        down = Matrix("self_attn.q_a_proj", hidden, self.q_lora_rank, self.q_lora_rank * self.bias)
        return (down, Matrix("self_attn.q_b_proj", self.q_lora_rank, outputs))

    def index_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the indexer's projections: queries (from the query latent), the key, the weights of heads [-]."""
        if self.indexer is None or self.indexer.shared:
            return ()
        i = self.indexer
        return (
            Matrix("self_attn.indexer.wq_b", self.q_lora_rank or hidden, i.heads * i.head_dim),
            Matrix("self_attn.indexer.wk", hidden, i.head_dim),
            Matrix("self_attn.indexer.weights_proj", hidden, i.heads, quantizable=False),
        )

    def latent_matrices(self, hidden: int) -> tuple[Matrix, Matrix]:
        """Return the projections to the cached row, and from its latent to keys and values [-]."""
        latent = self.kv_lora_rank + self.rope_dim
        return (
            Matrix("self_attn.kv_a_proj_with_mqa", hidden, latent, latent * self.bias),
            Matrix("self_attn.kv_b_proj", self.kv_lora_rank, self.heads * (self.nope_dim + self.v_head_dim)),
        )

    def output_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projections of the gate, if there is one, and of the output [-]."""
        values = self.heads * self.v_head_dim
        gates = self.heads if self.head_gate else values
        gate = (Matrix("self_attn.g_proj", hidden, gates),) if self.output_gate or self.head_gate else ()
        return (*gate, Matrix("self_attn.o_proj", values, hidden, hidden * self.bias))

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return every matrix: queries, latent down and up, (gate,) output, indexer [-]."""
        return (
            *self.query_matrices(hidden),
            *self.latent_matrices(hidden),
            *self.output_matrices(hidden),
            *self.index_matrices(hidden),
        )

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices: norms of the latents and of the index key [-]."""
        query = (Vector("self_attn.q_a_layernorm", self.q_lora_rank),) if self.q_lora_rank else ()
        index = (Vector("self_attn.indexer.k_norm", 2 * self.index_elements_per_token),) if self.index_elements_per_token else ()
        return (*query, Vector("self_attn.kv_a_layernorm", self.kv_lora_rank), *index)
