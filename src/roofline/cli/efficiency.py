"""`roofline efficiency`: MFU and MBU of a measured step."""

from typing import Any

from roofline.cli import options as given
from roofline.deployment.options import STEP
from roofline.efficiency import utilization


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
    given.print_result(utilization(floor, time_s), json=json, csv=csv)
