"""`roofline journey`: what binds decode as the batch grows."""

from typing import Annotated, Any

from roofline.batching import journey as travel
from roofline.cli import options as given
from roofline.cli.machines import find_machine
from roofline.cli.printing import Column
from roofline.cli.reading import Given
from roofline.deployment.options import STEP
from roofline.units import show_time

_COLUMNS = (Column("batch"), Column("floor"), Column("tokens/s"), Column("FLOP/B", rank=2), Column("bound", right=False, rank=1))


@given.takes_deployment(STEP)
def journey(
    model: given.ModelName,
    hardware: given.HardwareName = None,
    context: given.Context = 0,
    batches: Annotated[
        tuple[int, ...] | None, Given("Batches to print a line for; --csv and --json have evenly spaced ones by default.", several=True)
    ] = None,
    json: given.Json = False,
    csv: given.Csv = False,
    **options: Any,
) -> None:
    """Print what binds decode as the batch grows, and the batch at which the memory is full."""
    machine = None if hardware is None else find_machine(hardware)
    result = travel(model, machine, context=context, batches=None if batches is None else list(batches), **options)
    rows = [
        (
            f"{r['batch']:.0f}",
            show_time(r["time_s"]),
            f"{r['tokens_per_s']:.5g}" if r["fits"] is not False else "",
            f"{r['intensity']:.4g}",
            r["bound"],
        )
        for r in (result.to_records() if batches else ())
    ]
    given.print_result(result, json=json, csv=csv, columns=_COLUMNS if rows else (), rows=rows)
