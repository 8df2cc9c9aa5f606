"""The command line: `roofline floor`, `roofline hardware`, `roofline models`. The only room that prints."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

from roofline.errors import MissingDependencyError, RooflineError

try:
    import typer
    from rich.console import Console
    from rich.table import Table
except ImportError as error:  # pragma: no cover - exercised in an environment without the extra
    raise MissingDependencyError(f"the command line needs the package {error.name!r}: pip install 'roofline[cli]'.") from None

from roofline.catalog import list_models
from roofline.floors import Floor, decode_floor, prefill_floor
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.units import GIGA, show_bytes, show_flops, show_rate, show_time

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="How fast a transformer can run: floors of prefill and decode.")


def _console() -> Console:
    """Return a console as wide as the terminal, or wide enough for every table where the output goes elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=200, highlight=False)


def _clear(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the library's errors into one line on stderr and exit status 2."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except RooflineError as error:
            typer.echo(f"roofline: {error}", err=True)
            raise typer.Exit(2) from None

    return guarded


def _breakdown(floor: Floor) -> Table:
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


@app.command()
@_clear
def floor(
    model: Annotated[str, typer.Argument(help="A catalogue name, the path of a config.json, or a number of parameters such as 70B.")],
    hardware: Annotated[str, typer.Argument(help="A machine's name or the path of its spec file.")],
    batch: Annotated[int, typer.Option(help="Sequences.")] = 1,
    context: Annotated[int, typer.Option(help="Tokens of each already in the cache.")] = 0,
    prompt: Annotated[int | None, typer.Option(help="Floor of a prefill of so many tokens instead of a decode step.")] = None,
    cached: Annotated[int, typer.Option(help="Tokens of the prompt found in the prefix cache.")] = 0,
    weights: Annotated[str | None, typer.Option(help="Format of the weights, e.g. fp8; as stored if not given.")] = None,
    activations: Annotated[str | None, typer.Option(help="Format that rows are multiplied in; follows the weights if not given.")] = None,
    kv: Annotated[str | None, typer.Option(help="Format of the KV cache.")] = None,
    routing: Annotated[str, typer.Option(help="How tokens spread over experts: uniform or best.")] = "uniform",
    mtp: Annotated[int, typer.Option(help="Multi-token-prediction modules that run in the step.")] = 0,
    tensor_parallel: Annotated[int, typer.Option("--tensor-parallel", "--tp", help="Devices that share every layer.")] = 1,
    pipeline_parallel: Annotated[int, typer.Option("--pipeline-parallel", "--pp", help="Stages that share the layers.")] = 1,
    expert_parallel: Annotated[int, typer.Option("--expert-parallel", "--ep", help="Devices that share the experts.")] = 1,
    data_parallel: Annotated[int, typer.Option("--data-parallel", "--dp", help="Groups of devices that share the sequences.")] = 1,
    context_parallel: Annotated[int, typer.Option("--context-parallel", "--cp", help="Devices that share every sequence's cache.")] = 1,
    ops: Annotated[bool, typer.Option("--ops", help="Also print the breakdown by operator.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Print the floor of one decode step, or of a prefill with --prompt."""
    options: dict[str, Any] = {
        "weights": weights,
        "activations": activations,
        "kv": kv,
        "routing": routing,
        "mtp": mtp,
        "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel,
        "expert_parallel": expert_parallel,
        "data_parallel": data_parallel,
        "context_parallel": context_parallel,
    }
    if prompt is None:
        if cached:
            raise typer.BadParameter("--cached tokens are part of a --prompt; a decode step has a --context")
        result = decode_floor(model, hardware, batch=batch, context=context, **options)
    else:
        if context:
            raise typer.BadParameter("a prefill has a --prompt and perhaps --cached tokens of it, no --context")
        result = prefill_floor(model, hardware, prompt=prompt, batch=batch, cached=cached, **options)
    if json:
        typer.echo(result.to_json(indent=2))
        return
    typer.echo(str(result))
    if ops:
        _console().print(_breakdown(result))


@app.command()
@_clear
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
    _console().print(table)


@app.command()
@_clear
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
    _console().print(table)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    sys.exit(app())
