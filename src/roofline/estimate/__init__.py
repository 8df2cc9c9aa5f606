"""The time to expect: calibrated kernels one after another, overheads, and an interval. Never below the floor."""

from roofline.estimate.kernels import KernelEstimate, kernel_estimate
from roofline.estimate.overheads import Overheads
from roofline.estimate.result import Estimate, KernelTime
from roofline.estimate.steps import decode_estimate, prefill_estimate, step_estimate

__all__ = [
    "Estimate",
    "KernelEstimate",
    "KernelTime",
    "Overheads",
    "decode_estimate",
    "kernel_estimate",
    "prefill_estimate",
    "step_estimate",
]
