"""Mixers: the part of a layer that moves information between tokens. One class for each kind."""

from roofline.model.attention import Attention
from roofline.model.block_sparse_attention import BlockSparseAttention
from roofline.model.compressed_attention import CompressedAttention
from roofline.model.latent_attention import LatentAttention
from roofline.model.linear_attention import GatedDeltaNet, KimiDeltaAttention, LightningAttention
from roofline.model.recurrent import RGLRU, Mamba1, Mamba2

Mixer = (
    Attention
    | LatentAttention
    | CompressedAttention
    | BlockSparseAttention
    | Mamba1
    | Mamba2
    | GatedDeltaNet
    | KimiDeltaAttention
    | LightningAttention
    | RGLRU
)
