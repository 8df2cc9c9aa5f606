"""`roofline check`: a table of measured kernels against the floor."""

from collections.abc import Mapping
from typing import Annotated, Any

from roofline.cli import options as given
from roofline.cli.app import FINDING
from roofline.cli.machines import find_machine
from roofline.cli.printing import Column
from roofline.cli.reading import Given
from roofline.kernel_tables import check_table
from roofline.units import show_time

_COLUMNS = (
    Column("row"),
    Column("kernels", right=False, rank=3),
    Column("shape", right=False),
    Column("time"),
    Column("floor", rank=2),
    Column("share"),
    Column("estimate", rank=4),
    Column("bound", right=False, rank=5),
    Column("reason", right=False, rank=1),
)


def check(
    table: Annotated[
        str, Given("A CSV or Parquet file of measured kernels, or a folder of aiconfigurator-core's tables.", positional=True)
    ],
    hardware: Annotated[str, Given("The machine they ran on: its name, its spec file, or a calibration record of it.", positional=True)],
    unit: Annotated[str | None, Given("Unit of the times, s, ms, us or ns, whatever their column is called.")] = None,
    kind: Annotated[str | None, Given("What was measured, where the columns do not tell.")] = None,
    time: Annotated[str | None, Given("The column of times, where several could be meant.")] = None,
    ignore: Annotated[
        tuple[str, ...], Given("Columns that hold no size, joined by commas; patterns such as tile_* are allowed.", several=True)
    ] = (),
    columns: Annotated[
        tuple[str, ...], Given("What a column is where its name does not tell: N_CTX=new, joined by commas.", several=True)
    ] = (),
    calibration: given.Calibration = None,
    all: Annotated[bool, Given("Also print every row, the nearest to its floor first.")] = False,
    json: given.Json = False,
    csv: given.Csv = False,
) -> int:
    """Hold every row of a table of measured kernels against its floor.

    Rows that are faster than physics allows are listed with the likely reason. The exit status is 0 if all rows hold, 1 if not,
    2 if the table cannot be read.
    """
    named = dict(map(given.pair, columns))
    how: dict[str, Any] = {"unit": unit, "kind": kind, "time": time, "ignore": ignore, "columns": named or None, "calibration": calibration}
    result = check_table(table, find_machine(hardware), **how)
    rows = [_cells(row) for row in result.to_records()] if all else []
    given.print_result(result, json=json, csv=csv, columns=_COLUMNS if all else (), rows=rows)
    return 0 if result.ok else FINDING


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    estimate = show_time(row["estimate_s"]) if row["estimate_s"] == row["estimate_s"] else ""  # NaN where there are no constants
    times = show_time(row["time_s"]), show_time(row["floor_s"])
    return str(row["row"]), row["kernels"], row["shape"], *times, f"{row['share']:.3f}", estimate, row["bound"], row["reason"]
