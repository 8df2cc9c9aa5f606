"""`roofline check`: a table of measured kernels against the floor."""

from typing import Annotated

import typer

from roofline.cli.app import app, clear_errors
from roofline.kernel_tables import check_table


@app.command()
@clear_errors
def check(
    table: Annotated[str, typer.Argument(help="A CSV or Parquet file of measured kernels, or a folder of aiconfigurator-core's tables.")],
    hardware: Annotated[str, typer.Option(help="The machine they ran on: its name or the path of its spec file.")],
    unit: Annotated[str | None, typer.Option(help="Unit of the times, s, ms, us or ns, whatever their column is called.")] = None,
    kind: Annotated[str | None, typer.Option(help="What was measured, where the columns do not tell.")] = None,
    time: Annotated[str | None, typer.Option(help="The column of times, where several could be meant.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Hold every row of a table of measured kernels against its floor.

    Rows that are faster than physics allows are listed with the likely reason. The exit status is 0 if all rows hold, 1 if not,
    2 if the table cannot be read.
    """
    result = check_table(table, hardware, unit=unit, kind=kind, time=time)
    typer.echo(result.to_json(indent=2) if json else str(result))
    if not result.ok:
        raise typer.Exit(1)
