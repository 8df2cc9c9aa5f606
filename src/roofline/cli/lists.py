"""`roofline hardware` and `roofline models`: what is known by name."""

from typing import Annotated

import typer
from rich.table import Table

from roofline.catalog import list_models
from roofline.cli.app import app, clear_errors, make_console
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.units import GIGA, show_bytes, show_rate


@app.command()
@clear_errors
def hardware(
    name: Annotated[str | None, typer.Argument(help="Show one machine in full.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List the machines that are known, or show one with the source of every figure."""
    if name is not None:
        machine = Hardware.load(name)
        typer.echo(machine.model_dump_json(indent=2, exclude_none=True) if json else str(machine))
        return
    machines = [Hardware.load(known) for known in Hardware.list()]
    if json:
        typer.echo("[" + ",\n".join(m.model_dump_json(exclude_none=True) for m in machines) + "]")
        return
    table = Table()
    for heading in ("id", "name", "16-bit peak", "memory", "bandwidth", "ridge FLOP/B"):
        table.add_column(heading, justify="left" if heading in ("id", "name") else "right", overflow="fold")
    for m in machines:
        peak = m.peak("bf16").value
        size = "" if m.memory_capacity is None else show_bytes(m.memory_capacity)
        known = peak != float("inf")
        rate = show_rate(peak, "FLOP/s") if known else ""
        table.add_row(m.id, m.name, rate, size, show_rate(m.memory_bandwidth, "B/s"), f"{m.ridge('bf16'):.0f}" if known else "")
    make_console().print(table)


@app.command()
@clear_errors
def models() -> None:
    """List the models that are known by name. Any other is read from its own config.json."""
    table = Table()
    for heading in ("name", "parameters", "active", "layers", "KV per token, bf16"):
        table.add_column(heading, justify="left" if heading == "name" else "right", overflow="fold")
    for name in list_models():
        model = Model.load(name)
        table.add_row(
            name,
            f"{model.parameters / GIGA:.4g} B",
            f"{model.active_parameters / GIGA:.4g} B",
            str(model.num_layers),
            show_bytes(model.kv_bytes_per_token()),
        )
    make_console().print(table)
