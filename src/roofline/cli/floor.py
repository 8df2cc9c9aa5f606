"""`roofline floor`: the floor of one decode step or prefill."""

from typing import TYPE_CHECKING, Any

from roofline.cli import options as given
from roofline.floors import Floor, decode_floor, prefill_floor
from roofline.units import show_bytes, show_flops, show_time

if TYPE_CHECKING:
    from rich.table import Table


def _breakdown(floor: Floor) -> "Table":
    from rich.table import Table

    table = Table(title="by operator, one after another")
    for heading in ("operator", "layers", "FLOP", "bytes", "activations", "time", "bound"):
        table.add_column(heading, justify="left" if heading in ("operator", "bound") else "right", overflow="fold")
    for row in floor.by_op():
        op = row.op
        table.add_row(
            op.name,
            str(op.count),
            show_flops(op.flops + op.vector_flops),
            show_bytes(op.compulsory_bytes),
            show_bytes(op.activation_bytes),
            show_time(row.time_s),
            str(row.bound),
        )
    return table


@given.takes_deployment
def floor(
    model: given.ModelName,
    hardware: given.HardwareName = None,
    batch: given.Batch = 1,
    context: given.Context = 0,
    prompt: given.Prompt = None,
    cached: given.Cached = 0,
    ops: given.Ops = False,
    json: given.Json = False,
    **options: Any,
) -> None:
    """Print the floor of one decode step, or of a prefill with --prompt."""
    phase: dict[str, Any] = {"batch": batch, "context": context, "prompt": prompt, "cached": cached}
    result = given.ask(decode_floor, prefill_floor, model, hardware, **phase, **options)
    given.print_result(result, json=json, breakdown=_breakdown if ops else None)
