"""The time that no implementation on a machine can beat: of a step of a model, and of a single kernel."""

from roofline.floors.kernel_result import KernelFloor
from roofline.floors.kernels import attention_floor, counted_floor, experts_floor, latent_attention_floor, matmul_floor
from roofline.floors.moving import collective_floor, rowwise_floor
from roofline.floors.result import UNKNOWN_LINKS, Floor
from roofline.floors.steps import decode_floor, prefill_floor, step_floor

__all__ = [
    "UNKNOWN_LINKS",
    "Floor",
    "KernelFloor",
    "attention_floor",
    "collective_floor",
    "counted_floor",
    "decode_floor",
    "experts_floor",
    "latent_attention_floor",
    "matmul_floor",
    "prefill_floor",
    "rowwise_floor",
    "step_floor",
]
