"""`roofline check`: a table of measured kernels against the floor."""

from typing import Annotated

from roofline.cli import options as given
from roofline.cli.app import FINDING
from roofline.cli.machines import find_machine
from roofline.cli.reading import Given
from roofline.kernel_tables import check_table


def check(
    table: Annotated[
        str, Given("A CSV or Parquet file of measured kernels, or a folder of aiconfigurator-core's tables.", positional=True)
    ],
    hardware: Annotated[str, Given("The machine they ran on: its name, its spec file, or a calibration record of it.", positional=True)],
    unit: Annotated[str | None, Given("Unit of the times, s, ms, us or ns, whatever their column is called.")] = None,
    kind: Annotated[str | None, Given("What was measured, where the columns do not tell.")] = None,
    time: Annotated[str | None, Given("The column of times, where several could be meant.")] = None,
    json: given.Json = False,
    csv: given.Csv = False,
) -> int:
    """Hold every row of a table of measured kernels against its floor.

    Rows that are faster than physics allows are listed with the likely reason. The exit status is 0 if all rows hold, 1 if not,
    2 if the table cannot be read.
    """
    result = check_table(table, find_machine(hardware), unit=unit, kind=kind, time=time)
    given.print_result(result, json=json, csv=csv)
    return 0 if result.ok else FINDING
