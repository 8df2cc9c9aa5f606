"""`roofline floor`: the floor of one decode step or prefill."""

from typing import Any

from roofline.cli import options as given
from roofline.cli.printing import Column
from roofline.floors import Floor
from roofline.units import show_bytes, show_flops, show_time

_COLUMNS = (
    Column("operator", right=False),
    Column("layers", rank=2),
    Column("FLOP", rank=3),
    Column("bytes", rank=3),
    Column("activations", rank=4),
    Column("time"),
    Column("bound", right=False, rank=1),
)


def _breakdown(floor: Floor) -> list[tuple[str, ...]]:
    return [
        (
            row.op.name,
            str(row.op.count),
            show_flops(row.op.flops + row.op.vector_flops),
            show_bytes(row.op.compulsory_bytes),
            show_bytes(row.op.activation_bytes),
            show_time(row.time_s),
            str(row.bound),
        )
        for row in floor.by_op()
    ]


@given.takes_step
def floor(
    *,
    ops: given.Ops = False,
    json: given.Json = False,
    csv: given.Csv = False,
    **asked: Any,
) -> None:
    """Print the floor of one decode step, or of a prefill with --prompt."""
    result = given.floor_of(**asked)
    given.print_result(result, json=json, csv=csv, columns=_COLUMNS if ops else (), rows=_breakdown(result) if ops else ())
