"""A run of identical layers: a mixer, a feed-forward, the norms and connections around them."""

from typing import Annotated

from roofline.description import Number
from roofline.model.anonymous import AnonymousCache
from roofline.model.attention import Attention
from roofline.model.block_sparse_attention import BlockSparseAttention
from roofline.model.components import Count, Matrix, Norm, Size, Vector, WeightedPart
from roofline.model.compressed_attention import CompressedAttention
from roofline.model.counted import CountedMixer
from roofline.model.cross_attention import CrossAttention
from roofline.model.feed_forward import FeedForward, Projection
from roofline.model.hyper_connections import hyper_connection
from roofline.model.latent_attention import LatentAttention
from roofline.model.linear_attention import GatedDeltaNet, KimiDeltaAttention, LightningAttention
from roofline.model.recurrent import RGLRU, Mamba1, Mamba2, ShortConvolution

Mixer = (
    Attention
    | LatentAttention
    | CompressedAttention
    | BlockSparseAttention
    | CrossAttention
    | Mamba1
    | Mamba2
    | GatedDeltaNet
    | KimiDeltaAttention
    | LightningAttention
    | RGLRU
    | ShortConvolution
    | CountedMixer
    | AnonymousCache
)
"""The part of a layer that moves information between tokens: one class for each kind."""


class LayerGroup(WeightedPart):
    """A run of identical layers.

    Parameters
    ----------
    count : int
        How many [-].
    distinct : int, optional
        How many of them have weights of their own, where layers share them; all if not given, 0 if all weights are an earlier layer's [-].
    mixer : Mixer or None
        The part that mixes tokens, if the layer has one [-].
    feed_forward : FeedForward or None
        The part that works token by token, if the layer has one [-].
    norms : tuple of Norm, optional
        The norms on the residual stream [-].
    formats : tuple of (str, str), optional
        Stored format of the components that are not in the model's `dtype`, by name [-].
    side_by_side : bool, optional
        Whether mixer and feed-forward read the same rows and their results are added together, not one after the other [-].
    streams : int, optional
        Residual streams, which hyper-connections collapse before each block and mix after it; 1 for a plain residual [-].
    further : tuple of Projection, optional
        Small matrices that every token passes besides, in neither block [-].
    """

    count: Annotated[int, Number(1, 100_000)]
    mixer: Mixer | None
    feed_forward: FeedForward | None
    norms: tuple[Norm, ...] = ()
    formats: tuple[tuple[str, str], ...] = ()
    distinct: Count | None = None
    side_by_side: bool = False
    streams: Size = 1
    further: tuple[Projection, ...] = ()

    @property
    def stored(self) -> int:
        """Layers with weights of their own [-]."""
        return self.count if self.distinct is None else self.distinct

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return every matrix of one layer: the mixer's, the feed-forward's, further ones, the hyper-connections' [-]."""
        own = tuple(m for part in (self.mixer, self.feed_forward, *self.further) if part is not None for m in part.matrices(hidden))
        return (*own, *(m for m in self.connections(hidden) if m is not None))

    def connections(self, hidden: int) -> tuple[Matrix | None, Matrix | None]:
        """Return the hyper-connections around mixer and feed-forward; None where there is no such block, or only one stream [-]."""
        mixer, feed_forward = (
            hyper_connection(name, hidden, self.streams) if part is not None and self.streams > 1 else None
            for name, part in (("attn_hc", self.mixer), ("ffn_hc", self.feed_forward))
        )
        return mixer, feed_forward

    def parameters(self, hidden: int) -> int:
        """Return the parameters of one layer, in matrices and outside [-]."""
        return sum(m.parameters for m in self.matrices(hidden)) + sum(v.parameters for v in self.vectors())

    def vectors(self) -> tuple[Vector, ...]:
        """Return every parameter of one layer that is in no matrix [-]."""
        inner = tuple(v for part in (self.mixer, self.feed_forward) if part is not None for v in part.vectors())
        return (*inner, *(Vector(n.name, n.parameters) for n in self.norms))
