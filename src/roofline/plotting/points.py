"""What stands on a roofline: operators of a step, single kernels, measured times, each at its intensity and rate."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from roofline.bounds import OpTime
from roofline.errors import InvalidValueError
from roofline.estimate import Estimate, KernelEstimate
from roofline.floors import Floor, KernelFloor
from roofline.hardware import Hardware
from roofline.plotting.style import describe_devices, describe_formats, describe_step, one_step, short_name
from roofline.units import check_broadcast, show_time

_MARKERS = {"decode": "o", "prefill": "s"}  # and triangles for other steps
_Row = tuple[str, tuple[OpTime, ...], float]  # what to call it, the operators that it runs, and its time [s]
_ALONE = 0.05  # the size of a point that is no part of a step, as a share of its time


class Point(NamedTuple):
    """One point: its intensity [FLOP/B], its rate [FLOP/s], its share of the time, and what to call it; empty for no label."""

    x: float
    y: float
    share: float
    name: str


@dataclass(frozen=True, slots=True)
class Cloud:
    """Points that belong together."""

    hardware: Hardware
    points: list[Point]
    operands: tuple[str, ...]  # formats whose roofs they are under
    label: str
    marker: str
    about: str = ""  # what the title says of them
    shares: bool = False  # whether sizes are shares of a time


def cloud_of(drawn: Any) -> Cloud:
    """Return the points of a floor or an estimate, of a step or of a kernel."""
    if isinstance(drawn, KernelFloor):
        memory_s = drawn.total_bytes / drawn.hardware.memory_bandwidth  # on the roof that is drawn, which knows no cache
        return _kernel(drawn, np.maximum(drawn.compute_s, memory_s), "")
    if isinstance(drawn, KernelEstimate):
        return _kernel(drawn.floor, drawn.time_s, ", estimate")
    if isinstance(drawn, Estimate):
        return _step(one_step(drawn.floor), list(_kernels(drawn)), float(drawn.time_s), ", estimate")
    if isinstance(drawn, Floor):
        rows: list[_Row] = [(row.name, (row,), float(row.time_s)) for row in one_step(drawn).by_op()]
        return _step(drawn, rows, float(drawn.roofline_s), "")
    raise InvalidValueError(f"what is drawn on a roofline is a floor or an estimate of a step or a kernel, not {type(drawn).__name__}.")


def measured_cloud(floor: Any, time_s: Any) -> Cloud:
    """Return the points of a step or a kernel, or of arrays of them, in the times that were measured."""
    if not isinstance(floor, (Floor, KernelFloor)):
        raise InvalidValueError(f"a measured time stands beside the floor of its step or kernel, not beside {type(floor).__name__}.")
    try:
        times = np.asarray(time_s, dtype=float)
    except (TypeError, ValueError):
        times = np.asarray(np.nan)
    if not np.all(np.isfinite(times) & (times > 0)):
        raise InvalidValueError(f"a measured time is {time_s!r}; it must be a positive number of seconds, or an array of them.")
    check_broadcast(floor=floor.time_s, measured=times)
    if isinstance(floor, KernelFloor):
        return _kernel(floor, times, ", measured", "*")
    points = _alone(floor.flops, floor.total_bytes, times, "measured")
    label = f"{describe_step(floor)}, measured{f' {show_time(float(times))}' if not times.ndim else ''}"
    return Cloud(floor.hardware, points, tuple(o for o, _ in floor.work.program.operands), label, "*", _about(floor))


def _about(floor: Floor) -> str:
    return f"{floor.model.name} ({describe_formats(floor)}{describe_devices(floor)})"


def _step(floor: Floor, rows: list[_Row], whole: float, kind: str) -> Cloud:
    points, operands = [], []
    for name, parts, time_s in rows:
        work = sum(row.op.flops for row in parts) or sum(row.op.vector_flops for row in parts)
        moved = sum(row.op.compulsory_bytes + row.op.activation_bytes for row in parts)
        if work and moved and time_s:
            points.append(Point(float(work / moved), float(work / time_s), time_s / whole, short_name(name)))
            operands += [row.op.operand for row in parts if row.op.flops]
    label = f"{describe_step(floor)}{kind}"
    return Cloud(floor.hardware, points, tuple(dict.fromkeys(operands)), label, _MARKERS.get(floor.kind, "^"), _about(floor), True)


def _kernels(estimate: Estimate) -> Iterator[_Row]:
    """Yield every kernel of an estimate with the operators that it runs, and its time."""
    rows = estimate.floor.by_op()
    for kernel in estimate.by_op():
        names = kernel.name.split(" + ")
        runs = [row for row in rows if row.count == kernel.count and (row.name in names or row.name.startswith(f"{kernel.name}."))]
        yield kernel.name, tuple(runs), float(kernel.time_s)


def _kernel(floor: KernelFloor, time_s: Any, kind: str, marker: str = "D") -> Cloud:
    work = floor.flops if np.any(floor.flops) else floor.op.vector_flops
    points = _alone(work, floor.total_bytes, time_s, floor.op.name)
    operands = (floor.op.operand,) if np.any(floor.flops) else ()
    return Cloud(floor.hardware, points, operands, f"{floor.op.name}{kind}", marker)


def _alone(work: Any, moved: Any, time_s: Any, name: str) -> list[Point]:
    """Return a point for each element; only one that stands alone is labelled."""
    columns = np.broadcast_arrays(*(np.asarray(column, dtype=float) for column in (work, moved, time_s)))
    rows = [row for row in zip(*(column.ravel().tolist() for column in columns), strict=True) if row[0] and row[1]]
    return [Point(flops / size, flops / seconds, _ALONE, name if len(rows) == 1 else "") for flops, size, seconds in rows]
