"""`roofline estimate`: the time to expect of one decode step or prefill."""

from typing import Any

from roofline.cli import options as given
from roofline.cli.printing import Column
from roofline.errors import InvalidValueError
from roofline.estimate import Estimate, decode_estimate, prefill_estimate
from roofline.units import show_time

_COLUMNS = (
    Column("operator", right=False),
    Column("kernels", rank=1),
    Column("timed as", right=False, rank=2),
    Column("time"),
    Column("from", rank=3),
    Column("to", rank=3),
)


def _breakdown(estimate: Estimate) -> list[tuple[str, ...]]:
    return [
        (row.name, str(row.count), row.family, show_time(row.time_s), show_time(row.low_s), show_time(row.high_s))
        for row in estimate.by_op()
    ]


@given.takes_step
def estimate(
    *,
    calibration: given.Calibration = None,
    eager: given.Eager = False,
    interval: given.Interval = 0.8,
    ops: given.Ops = False,
    json: given.Json = False,
    csv: given.Csv = False,
    **asked: Any,
) -> None:
    """Print the time to expect of one decode step, or of a prefill with --prompt.

    Without HARDWARE the machine is the one that the --calibration record was measured on.
    """
    machine = given.machine_for(asked["hardware"], calibration, asked)
    if machine is None and asked["memory_bandwidth"] is None:
        raise InvalidValueError("name a machine, or give --calibration a record, which knows its own, or --memory-bandwidth.")
    constants = given.constants_for(machine, calibration, named=asked["hardware"] is not None)
    told = {"hardware": machine, "calibration": constants, "cuda_graph": not eager, "interval": interval}
    result = given.ask(decode_estimate, prefill_estimate, **(asked | told))
    given.print_result(result, json=json, csv=csv, columns=_COLUMNS if ops else (), rows=_breakdown(result) if ops else ())
