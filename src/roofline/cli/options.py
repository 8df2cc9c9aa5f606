"""Arguments and options that several commands share."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from roofline.cli.app import make_console
from roofline.results import Result

Answer = TypeVar("Answer", bound=Result)

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A catalogue name, the path of a config.json, or a number of parameters: 70B.")
]
HardwareName = Annotated[str, typer.Argument(metavar="HARDWARE", help="A machine's name or the path of its spec file.")]
Batch = Annotated[int, typer.Option(help="Sequences.")]
Context = Annotated[int, typer.Option(help="Tokens of each already in the cache.")]
Prompt = Annotated[int | None, typer.Option(help="A prefill of so many tokens instead of a decode step.")]
Cached = Annotated[int, typer.Option(help="Tokens of the prompt found in the prefix cache.")]
Weights = Annotated[str | None, typer.Option(help="Format of the weights, e.g. fp8; as stored if not given.")]
Activations = Annotated[str | None, typer.Option(help="Format that rows are multiplied in; follows the weights if not given.")]
Kv = Annotated[str | None, typer.Option(help="Format of the KV cache.")]
Routing = Annotated[str, typer.Option(help="How tokens spread over experts: uniform, best, or power_law_1.2 with any exponent.")]
Mtp = Annotated[int, typer.Option(help="Multi-token-prediction modules that run in the step.")]
TensorParallel = Annotated[int, typer.Option("--tensor-parallel", "--tp", help="Devices that share every layer.")]
PipelineParallel = Annotated[int, typer.Option("--pipeline-parallel", "--pp", help="Stages that share the layers.")]
ExpertParallel = Annotated[int, typer.Option("--expert-parallel", "--ep", help="Devices that share the experts.")]
DataParallel = Annotated[int, typer.Option("--data-parallel", "--dp", help="Groups of devices that share the sequences.")]
ContextParallel = Annotated[int, typer.Option("--context-parallel", "--cp", help="Devices that share every sequence's cache.")]
Ops = Annotated[bool, typer.Option("--ops", help="Also print the breakdown by operator.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def ask(
    decode: Callable[..., Answer],
    prefill: Callable[..., Answer],
    *of: Any,
    batch: int,
    context: int,
    prompt: int | None,
    cached: int,
    **options: Any,
) -> Answer:
    """Return the answer for a decode step, or for a prefill if there is a prompt."""
    if prompt is None:
        if cached:
            raise typer.BadParameter("--cached tokens are part of a --prompt; a decode step has a --context")
        return decode(*of, batch=batch, context=context, **options)
    if context:
        raise typer.BadParameter("a prefill has a --prompt and perhaps --cached tokens of it, no --context")
    return prefill(*of, prompt=prompt, batch=batch, cached=cached, **options)


def print_result(result: Answer, *, json: bool, breakdown: Callable[[Answer], Table] | None) -> None:
    """Print a result as JSON, or as text and, if asked for, its breakdown."""
    if json:
        typer.echo(result.to_json(indent=2))
        return
    typer.echo(str(result))
    if breakdown is not None:
        make_console().print(breakdown(result))
