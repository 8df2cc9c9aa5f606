"""What a transformer consists of, and its exact parameter counts."""

from roofline.model.anonymous import AnonymousCache
from roofline.model.attention import Attention
from roofline.model.block_sparse_attention import BlockSparseAttention
from roofline.model.components import Matrix, Norm, Part, Vector, WeightedPart
from roofline.model.compressed_attention import CompressedAttention
from roofline.model.counted import CountedMixer
from roofline.model.cross_attention import CrossAttention
from roofline.model.encoder import Encoder
from roofline.model.ends import Embedding, Head
from roofline.model.feed_forward import AnonymousWeights, DenseFeedForward, Experts, FeedForward, Projection, Projections
from roofline.model.held import Held
from roofline.model.latent_attention import Indexer, LatentAttention
from roofline.model.layers import LayerGroup, Mixer
from roofline.model.linear_attention import GatedDeltaNet, KimiDeltaAttention, LightningAttention
from roofline.model.recurrent import RGLRU, Mamba1, Mamba2, RecurrentMixer, ShortConvolution
from roofline.model.spec import Model
from roofline.model.tower import Tower

__all__ = [
    "RGLRU",
    "AnonymousCache",
    "AnonymousWeights",
    "Attention",
    "BlockSparseAttention",
    "CompressedAttention",
    "CountedMixer",
    "CrossAttention",
    "DenseFeedForward",
    "Embedding",
    "Encoder",
    "Experts",
    "FeedForward",
    "GatedDeltaNet",
    "Head",
    "Held",
    "Indexer",
    "KimiDeltaAttention",
    "LatentAttention",
    "LayerGroup",
    "LightningAttention",
    "Mamba1",
    "Mamba2",
    "Matrix",
    "Mixer",
    "Model",
    "Norm",
    "Part",
    "Projection",
    "Projections",
    "RecurrentMixer",
    "ShortConvolution",
    "Tower",
    "Vector",
    "WeightedPart",
]
