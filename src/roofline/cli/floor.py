"""`roofline floor`: the floor of one decode step or prefill."""

from typing import Annotated, Any

import typer
from rich.table import Table

from roofline.cli.app import app, clear_errors, make_console
from roofline.floors import Floor, decode_floor, prefill_floor
from roofline.units import show_bytes, show_flops, show_time


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
@clear_errors
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
        make_console().print(_breakdown(result))
