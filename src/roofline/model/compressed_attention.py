"""Attention to a window of positions, and to the rest of the sequence through compressed entries (DeepSeek-V4)."""

from typing import Literal

from roofline.errors import InvalidValueError
from roofline.model.components import Count, Matrix, Size, Vector
from roofline.model.held import STREAM, Held, MixerPart
from roofline.model.latent_attention import Indexer
from roofline.step.rows import Rows
from roofline.visibility import Visibility


class CompressedAttention(MixerPart):
    """Shared-KV attention: one row per position, key and value at once, for all heads; behind a window one row per `ratio` positions.

    With an indexer (compressed sparse attention) a token attends to the entries that it selects, without one (heavily compressed
    attention) to all of them, and with `ratio` 0 to its window only. The output projection is low-rank, in groups of heads.

    Parameters
    ----------
    heads : int
        Query heads [-].
    head_dim : int
        Width of a query head, and of the row that is key and value [-].
    rope_dim : int
        Elements of it that are rotated [-].
    q_lora_rank : int
        Rank of the query projection [-].
    o_groups, o_lora_rank : int
        Groups of heads that the output projection treats apart, and its rank in each [-].
    window : int
        Positions attended to as they are, the token itself included [token].
    ratio : int, optional
        Positions that become one compressed entry; 0 if there are none [token].
    overlapping : bool, optional
        Whether an entry also sees the positions of the entry before, through a second series of projections [-].
    indexer : Indexer, optional
        What selects entries [-].

    References
    ----------
    DeepSeek-V4 technical report, sections 2.3.1 and 2.3.2; `DeepseekV4Attention` of transformers 5.23.
    """

    kind: Literal["compressed_attention"] = "compressed_attention"
    heads: Size
    head_dim: Size
    rope_dim: Size
    q_lora_rank: Size
    o_groups: Size
    o_lora_rank: Size
    window: Size
    ratio: Count = 0
    overlapping: bool = False
    indexer: Indexer | None = None

    def _check(self) -> None:
        if self.heads % self.o_groups:
            raise InvalidValueError(
                f"CompressedAttention: {self.heads} heads are not a multiple of {self.o_groups} groups of the output projection."
            )
        if not self.ratio and (self.overlapping or self.indexer is not None):
            raise InvalidValueError(
                "CompressedAttention: without a ratio there are no compressed entries that could overlap or be selected."
            )

    @property
    def visibility(self) -> Visibility:
        """Which positions a token attends to as they are [-]."""
        return Visibility("window", self.window)

    @property
    def series(self) -> int:
        """Rows that a position contributes to entries: one, or two where entries overlap [-]."""
        return 1 + self.overlapping

    @property
    def entry_elements(self) -> int:
        """Elements cached for one compressed entry, its index key included [-]."""
        return 0 if not self.ratio else self.head_dim + (self.indexer.head_dim if self.indexer else 0)

    def keeps(self) -> tuple[Held, ...]:
        """Return the window, the entries, and what waits to become an entry [-].

        Of every position whose entry is not complete wait its rows and their gates, in the format of activations; of the last complete
        entry's positions, one series of both for the entry that overlaps them, whose gates have 32 bits since their position biases do.
        """
        window = Held(Rows.seen(self.visibility), self.head_dim)
        if not self.ratio:
            return (window,)
        waiting = Held(Rows("open", self.ratio, cached=False), 2 * self.series * self.entry_elements, STREAM)
        kept = (window, Held(Rows("entries", self.ratio), self.entry_elements), waiting)
        if not self.overlapping:
            return kept
        overlap, elements = Rows("overlap", self.ratio, cached=False), self.ratio * self.entry_elements
        return (*kept, Held(overlap, elements, STREAM), Held(overlap, elements, "fp32"))

    def compressor_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projections that compressed entries, and index keys, are made from; checkpoints keep them in 16 bit [-]."""
        widths = {"compressor": self.head_dim} if self.ratio else {}
        if self.indexer is not None:
            widths["compressor.indexer"] = self.indexer.head_dim
        return tuple(
            Matrix(f"self_attn.{where}.{what}", hidden, self.series * width, quantizable=False)
            for where, width in widths.items()
            for what in ("kv_proj", "gate_proj")
        )

    def index_matrices(self) -> tuple[Matrix, ...]:
        """Return the indexer's query projection, from the query latent [-]."""
        if self.indexer is None:
            return ()
        return (Matrix("self_attn.compressor.indexer.q_b_proj", self.q_lora_rank, self.indexer.heads * self.indexer.head_dim),)

    def weight_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the projection to the weights of the indexer's heads, if there is one [-]."""
        if self.indexer is None:
            return ()
        return (Matrix("self_attn.compressor.indexer.scorer.weights_proj", hidden, self.indexer.heads, quantizable=False),)

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return every matrix: queries down and up, the shared row, output in groups and joined, compressor, indexer [-]."""
        queries = self.heads * self.head_dim
        return (
            Matrix("self_attn.q_a_proj", hidden, self.q_lora_rank),
            Matrix("self_attn.q_b_proj", self.q_lora_rank, queries),
            Matrix("self_attn.kv_proj", hidden, self.head_dim),
            Matrix("self_attn.o_a_proj", queries // self.o_groups, self.o_lora_rank, copies=self.o_groups),
            Matrix("self_attn.o_b_proj", self.o_groups * self.o_lora_rank, hidden),
            *self.compressor_matrices(hidden),
            *self.index_matrices(),
            *self.weight_matrices(hidden),
        )

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices: norms of the latents, sinks, and norms and position biases of entries [-]."""
        own = (
            Vector("self_attn.q_a_norm", self.q_lora_rank),
            Vector("self_attn.kv_norm", self.head_dim),
            Vector("self_attn.sinks", self.heads),
        )
        return (*own, *self.entry_vectors())

    def entry_vectors(self) -> tuple[Vector, ...]:
        """Return the norms and position biases of entries and index keys, or none [-]."""
        widths = {"compressor": self.head_dim} if self.ratio else {}
        if self.indexer is not None:
            widths["compressor.indexer"] = self.indexer.head_dim
        return tuple(
            vector
            for where, width in widths.items()
            for vector in (
                Vector(f"self_attn.{where}.position_bias", self.ratio * self.series * width),
                Vector(f"self_attn.{where}.kv_norm", width),
            )
        )
