"""`roofline efficiency`: MFU and MBU of a measured step."""

from typing import Any

from roofline.cli import options as given
from roofline.efficiency import utilization


@given.takes_step
def efficiency(
    *,
    time: given.Time,
    json: given.Json = False,
    csv: given.Csv = False,
    **asked: Any,
) -> None:
    """Print which share of the machine's FLOP/s and bandwidth (MFU, MBU) a measured step used.

    Only required work counts: the FLOP of the products and the bytes that every implementation moves.
    """
    time_s = given.read_time(time)
    floor = given.floor_of(**asked)
    given.print_result(utilization(floor, time_s), json=json, csv=csv)
