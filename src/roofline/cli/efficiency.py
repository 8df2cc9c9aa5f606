"""`roofline efficiency`: MFU and MBU of a measured step."""

from typing import Any

from roofline.cli import options as given
from roofline.cli.printing import show, show_csv, show_json
from roofline.deployment.options import STEP
from roofline.efficiency import mbu, mfu
from roofline.floors import Floor, KernelFloor
from roofline.units import show_time


def shares(floor: Floor | KernelFloor, time_s: float) -> dict[str, float]:
    """Return what a measured time says: the share of the floor, MBU where bytes are moved, and MFU where a compute peak is known."""
    found = {"measured_s": time_s, "of_floor": float(floor.time_s / time_s)}
    found |= {"mbu": float(mbu(floor, time_s))} if floor.total_bytes else {}
    return found | ({"mfu": float(mfu(floor, time_s))} if floor.compute_s else {})


def describe(found: dict[str, float]) -> str:
    """Write the shares."""
    over = {"mbu": " (some bytes were still in the cache)", "mfu": " (the device runs faster than the peak of its data sheet)"}
    used = [f"{name.upper()} {found[name]:.1%}{why if found[name] > 1 else ''}" for name, why in over.items() if name in found]
    return ", ".join([f"{show_time(found['measured_s'])} measured: the floor is {found['of_floor']:.1%} of it", *used])


@given.takes_deployment(STEP)
def efficiency(
    model: given.ModelName,
    time: given.Time,
    hardware: given.HardwareName = None,
    batch: given.Batch = 1,
    context: given.Context = 0,
    prompt: given.Prompt = None,
    cached: given.Cached = 0,
    json: given.Json = False,
    csv: given.Csv = False,
    **options: Any,
) -> None:
    """Print which share of the machine's FLOP/s and bandwidth (MFU, MBU) a measured step used.

    Only required work counts: the FLOP of the products and the bytes that every implementation moves.
    """
    time_s = given.read_time(time)
    floor = given.floor_of(model, hardware, batch=batch, context=context, prompt=prompt, cached=cached, **options)
    found = shares(floor, time_s)
    if json:
        show_json({**floor.to_dict(), **found})
    elif csv:
        show_csv([{**record, **found} for record in floor.to_records()])
    else:
        show(floor.summary()[0])
        show(f"  {describe(found)}")
