"""Arguments and options that several commands share."""

from typing import Annotated

import typer

__all__ = [
    "Activations",
    "Batch",
    "Cached",
    "Context",
    "ContextParallel",
    "DataParallel",
    "ExpertParallel",
    "HardwareName",
    "Json",
    "Kv",
    "ModelName",
    "Mtp",
    "Ops",
    "PipelineParallel",
    "Prompt",
    "Routing",
    "TensorParallel",
    "Weights",
    "check_phase",
]

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
Routing = Annotated[str, typer.Option(help="How tokens spread over experts: uniform or best.")]
Mtp = Annotated[int, typer.Option(help="Multi-token-prediction modules that run in the step.")]
TensorParallel = Annotated[int, typer.Option("--tensor-parallel", "--tp", help="Devices that share every layer.")]
PipelineParallel = Annotated[int, typer.Option("--pipeline-parallel", "--pp", help="Stages that share the layers.")]
ExpertParallel = Annotated[int, typer.Option("--expert-parallel", "--ep", help="Devices that share the experts.")]
DataParallel = Annotated[int, typer.Option("--data-parallel", "--dp", help="Groups of devices that share the sequences.")]
ContextParallel = Annotated[int, typer.Option("--context-parallel", "--cp", help="Devices that share every sequence's cache.")]
Ops = Annotated[bool, typer.Option("--ops", help="Also print the breakdown by operator.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def check_phase(prompt: int | None, context: int, cached: int) -> None:
    """Refuse what a decode step or a prefill does not have.

    Parameters
    ----------
    prompt : int or None
        Tokens of a prefill; None for a decode step [token].
    context, cached : int
        Tokens in the cache, and those of a prompt among them [token].

    Raises
    ------
    typer.BadParameter
        If a decode step is given cached tokens of a prompt, or a prefill a context.
    """
    if prompt is None and cached:
        raise typer.BadParameter("--cached tokens are part of a --prompt; a decode step has a --context")
    if prompt is not None and context:
        raise typer.BadParameter("a prefill has a --prompt and perhaps --cached tokens of it, no --context")
