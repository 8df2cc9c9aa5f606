"""One pure cost function per operator: numbers in, :class:`Op` out."""

from roofline.ops.attention import SOFTMAX_FLOPS, attention, unfused_attention
from roofline.ops.block_sparse_attention import block_pairs, block_positions_read
from roofline.ops.collectives import all_reduce, exchange, send
from roofline.ops.compressed_attention import compressed_attention, entries_read, entries_written, entry_pairs, pooling
from roofline.ops.experts import distinct_experts, expert_sizes, fused_experts
from roofline.ops.latent_attention import indexer, latent_attention, latent_attention_flops, materialized_scores
from roofline.ops.linear import embedding, linear
from roofline.ops.op import AMOUNTS, Kind, Op
from roofline.ops.popularity import busiest_popularity, busiest_rank, shared_experts
from roofline.ops.recurrent import convolution, state_flops, state_update
from roofline.ops.routing import PowerLaw, Routing, parse_routing
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
    "all_reduce",
    "attention",
    "block_pairs",
    "block_positions_read",
    "busiest_popularity",
    "busiest_rank",
    "compressed_attention",
    "convolution",
    "distinct_experts",
    "elementwise",
    "embedding",
    "entries_read",
    "entries_written",
    "entry_pairs",
    "exchange",
    "expert_sizes",
    "fused_experts",
    "indexer",
    "latent_attention",
    "latent_attention_flops",
    "linear",
    "materialized_scores",
    "norm",
    "parse_routing",
    "pooling",
    "send",
    "shared_experts",
    "state_flops",
    "state_update",
    "unfused_attention",
]
