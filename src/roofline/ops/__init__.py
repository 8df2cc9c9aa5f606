"""One pure cost function per operator: numbers in, :class:`Op` out."""

from roofline.ops.attention import SOFTMAX_FLOPS, attention, unfused_attention
from roofline.ops.collectives import all_gather, all_reduce, exchange, send
from roofline.ops.compressed_attention import compressed_attention
from roofline.ops.experts import distinct_experts, fused_experts
from roofline.ops.latent_attention import indexer, latent_attention
from roofline.ops.linear import embedding, linear
from roofline.ops.op import AMOUNTS, Kind, Op
from roofline.ops.popularity import busiest_popularity, shared_experts
from roofline.ops.recurrent import convolution, state_update
from roofline.ops.routing import PowerLaw, Routing
from roofline.ops.rowwise import ELEMENTWISE_FLOPS, NORM_FLOPS, elementwise, norm

__all__ = [
    "AMOUNTS",
    "ELEMENTWISE_FLOPS",
    "NORM_FLOPS",
    "SOFTMAX_FLOPS",
    "Kind",
    "Op",
    "PowerLaw",
    "Routing",
    "all_gather",
    "all_reduce",
    "attention",
    "busiest_popularity",
    "compressed_attention",
    "convolution",
    "distinct_experts",
    "elementwise",
    "embedding",
    "exchange",
    "fused_experts",
    "indexer",
    "latent_attention",
    "linear",
    "norm",
    "send",
    "shared_experts",
    "state_update",
    "unfused_attention",
]
