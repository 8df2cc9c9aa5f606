"""Overheads of a step outside its kernels: launches, and sampling with the copy of the ids to the host."""

from typing import Any

from roofline.calibration.devices import Device, load_torch
from roofline.calibration.operators.kernel import Kernel, check_room, random_array
from roofline.calibration.plan import Point
from roofline.errors import CalibrationError


def prepare_launch(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return an almost empty kernel, launched by the host one by one, or in a CUDA graph."""
    torch = load_torch()
    graph = point.family == "graph_launch"
    if graph and device.kind == "cpu":
        raise CalibrationError("graph_launch is measured on a GPU; a CPU has no CUDA graphs.")
    size = point.sizes.get("elements", 1)
    x = torch.zeros(size, device=device.label, dtype=torch.float64)

    def check(_: int, result: Any) -> float:
        counted = float(result[0])
        return 0.0 if counted > 0 and counted == round(counted) else float("inf")

    return (Kernel("add_", (lambda: x.add_(1),), 16.0 * size, 0.0, check, 0.0, clock="device" if graph else "host", poisoned=False),)


def prepare_sync(point: Point, device: Device) -> tuple[Kernel, ...]:
    """Return greedy sampling and the copy of the ids to the host, which end a step."""
    load_torch()
    if device.kind == "cpu":
        raise CalibrationError("step_sync is measured on a GPU; on a CPU the ids need no copy.")
    batch, vocabulary = point.sizes["batch"], point.sizes["vocabulary"]
    moved = 4 * batch * vocabulary + 8 * batch
    check_room(moved, device)
    logits = random_array((batch, vocabulary), "float32", device, seed=10)

    def run() -> Any:
        return logits.argmax(-1).tolist()

    def check(_: int, result: Any) -> float:
        return 0.0 if result == logits.cpu().argmax(-1).tolist() else float("inf")

    return (Kernel("argmax, tolist", (run,), float(moved), 0.0, check, 0.0, clock="host"),)
