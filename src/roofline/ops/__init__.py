"""One pure cost function per operator. Numbers in, :class:`Op` out; no hardware, no step, no model."""

from roofline.ops.attention import SOFTMAX_FLOPS, attention, unfused_attention
from roofline.ops.linear import embedding, linear
from roofline.ops.op import Kind, Op
from roofline.ops.rowwise import ELEMENTWISE_FLOPS, NORM_FLOPS, elementwise, norm

__all__ = [
    "ELEMENTWISE_FLOPS",
    "NORM_FLOPS",
    "SOFTMAX_FLOPS",
    "Kind",
    "Op",
    "attention",
    "elementwise",
    "embedding",
    "linear",
    "norm",
    "unfused_attention",
]
