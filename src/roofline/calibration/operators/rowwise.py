"""Row-wise kernels: norms and residual additions."""

from typing import Any

from roofline.calibration.devices import Device, load_torch
from roofline.calibration.operators.kernel import Kernel, check_room, deviation, random_array
from roofline.calibration.plan import Point
from roofline.calibration.products import OPERANDS
from roofline.errors import CalibrationError
from roofline.fitting.classes import kernel_op

_SPREAD = 4  # the maximum of thousands of products of two normal numbers is that much larger than that of a matrix product


def prepare_rowwise(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return an RMS norm or a residual addition; its rows may be in the cache, where the kernel before left them."""
    torch = load_torch()
    which = point.fixed.get("kernel", "norm")
    if which not in ("norm", "residual"):
        raise CalibrationError(f"rowwise kernels that are measured are norm and residual, not {which!r}.")
    if point.stored not in ("fp32", "bf16", "fp16"):
        raise CalibrationError(f"rowwise kernels are measured in fp32, bf16 or fp16, not in {point.stored}.")
    rows, width, dtype, norm = point.sizes["rows"], point.sizes["width"], OPERANDS[point.stored].dtype, which == "norm"
    op = kernel_op(point.family, point.stored, point.operand, {**point.sizes, "kernel": which})
    moved = op.compulsory_bytes + op.activation_bytes
    check_room(int(moved), device)
    x = random_array((rows, width), dtype, device, seed=5)
    other = random_array((width,) if norm else (rows, width), dtype, device, seed=6)
    out = torch.empty_like(x)
    epsilon = 1e-6

    def run() -> Any:
        return torch.nn.functional.rms_norm(x, (width,), other, epsilon) if norm else torch.add(x, other, out=out)

    def check(_: int, result: Any) -> float:
        at = sorted({0, rows // 2, rows - 1})
        values = x[at].double()
        if norm:
            return deviation(result[at], values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + epsilon) * other.double())
        return deviation(result[at], values + other[at].double())

    tolerance = _SPREAD * OPERANDS[point.stored].tolerance
    name = "rms_norm" if norm else "torch.add"
    return (Kernel(name, (run,), float(moved), float(op.vector_flops), check, tolerance),)
