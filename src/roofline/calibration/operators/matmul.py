"""Rows times the weights of a linear layer."""

from typing import Any

from roofline.calibration.devices import Device, load_torch
from roofline.calibration.operators.kernel import Kernel, check_room, deviation, random_array, rotation
from roofline.calibration.plan import Point
from roofline.calibration.products import OPERANDS
from roofline.errors import CalibrationError
from roofline.fitting.classes import kernel_op
from roofline.formats import Format

_ROWS, _COLUMNS = 8, 64  # of the result that are checked


def prepare_matmul(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return a matrix product; weights come from main memory, rows and result may stay in the cache, as in a step."""
    torch = load_torch()
    if point.operand not in device.operands:
        raise CalibrationError(f"{device.label} ({device.name}) multiplies {', '.join(device.operands)}, not {point.operand}.")
    product = OPERANDS[point.operand]
    if point.stored != product.stored:
        raise CalibrationError(f"products in {point.operand} are measured with weights in {product.stored}, not in {point.stored}.")
    m, n, k = (point.sizes[name] for name in ("m", "n", "k"))
    if n % product.step or k % product.step or (device.kind == "cuda" and m < product.least_rows):
        raise CalibrationError(
            f"torch multiplies {point.operand} with n and k in multiples of {product.step}"
            f"{f' and at least {product.least_rows} rows' if product.least_rows > 1 else ''}, not m {m}, n {n}, k {k}."
        )
    op = kernel_op(point.family, point.stored, point.operand, point.sizes)
    size = int(n * k * Format.load(product.stored).bytes_per_element)
    sets = rotation(size, device)
    check_room(sets * size + int(op.activation_bytes), device)
    x = random_array((m, k), product.dtype, device, seed=1)
    weights = random_array((sets, n, k), product.dtype, device, seed=2)
    out = torch.empty((m, n), dtype=getattr(torch, product.output), device=device.label)
    one = torch.ones((), device=device.label)

    def check(i: int, result: Any) -> float:
        rows, columns = _sample(m, _ROWS), _sample(n, _COLUMNS)
        left, right = (torch.stack([t[j].float() for j in at]).cpu().double() for t, at in ((x, rows), (weights[i], columns)))
        return deviation(result[rows][:, columns], left @ right.t())

    calls = tuple(lambda w=w: product.run(torch, x, w, out, one) for w in weights.unbind())
    return (
        Kernel(
            _NAMES.get(point.operand, "torch.mm"),
            calls,
            float(op.compulsory_bytes + op.activation_bytes),
            float(op.flops),
            check,
            product.tolerance,
        ),
    )


_NAMES = {"fp8": "torch._scaled_mm", "int8": "torch._int_mm"}


def _sample(size: int, most: int) -> list[int]:
    """Return evenly spaced indices from first to last."""
    count = min(size, most)
    return [i * (size - 1) // max(count - 1, 1) for i in range(count)]
