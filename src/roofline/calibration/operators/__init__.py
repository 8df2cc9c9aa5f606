"""The kernels that are measured: one function per family that prepares them."""

from collections.abc import Callable

from roofline.calibration.devices import Device
from roofline.calibration.operators.attention import prepare_attention
from roofline.calibration.operators.kernel import ROTATION, Kernel, OutOfMemory, poison, rotation
from roofline.calibration.operators.matmul import prepare_matmul
from roofline.calibration.operators.memory import prepare_copy, prepare_read, prepare_transfer
from roofline.calibration.operators.overheads import prepare_launch, prepare_sync
from roofline.calibration.operators.rowwise import prepare_rowwise
from roofline.calibration.plan import Point
from roofline.names import unknown_name

__all__ = ["PREPARE", "ROTATION", "Kernel", "OutOfMemory", "poison", "prepare", "rotation"]

PREPARE: dict[str, Callable[[Point, Device], tuple[Kernel, ...]]] = {
    "matmul": prepare_matmul,
    "attention": prepare_attention,
    "rowwise": prepare_rowwise,
    "read": prepare_read,
    "copy": prepare_copy,
    "host_to_device": prepare_transfer,
    "device_to_host": prepare_transfer,
    "launch": prepare_launch,
    "graph_launch": prepare_launch,
    "step_sync": prepare_sync,
}
"""The function that prepares the kernels of a family."""


def prepare(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return the kernels that can run a point, ready to run; the fastest one counts."""
    if point.family not in PREPARE:
        raise unknown_name("family of measured kernels", point.family, PREPARE)
    return PREPARE[point.family](point, device)
