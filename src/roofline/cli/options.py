"""Arguments and options that several commands share."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from roofline.cli.app import Given, make_console
from roofline.deployment.options import OPTIONS, STEP
from roofline.errors import InvalidValueError
from roofline.results import Result

if TYPE_CHECKING:
    from rich.table import Table

Answer = TypeVar("Answer", bound=Result)
Command = TypeVar("Command", bound=Callable[..., None])

ModelName = Annotated[str, Given("A catalogue name, the path of a config.json, or a number of parameters: 70B.", positional=True)]
HardwareName = Annotated[
    str | None,
    Given("A machine's name or the path of its spec file; left out with --memory-bandwidth.", positional=True),
]
Batch = Annotated[int, Given("Sequences.")]
Context = Annotated[int, Given("Tokens of each already in the cache.")]
Prompt = Annotated[int | None, Given("A prefill of so many tokens instead of a decode step.")]
Cached = Annotated[int, Given("Tokens of the prompt found in the prefix cache.")]
Ops = Annotated[bool, Given("Also print the breakdown by operator.")]
Json = Annotated[bool, Given("Print JSON instead of text.")]


def takes_deployment(command: Command) -> Command:
    """Give a command an option for every option of a deployment, with the same name, description and default."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *map(_parameter, STEP)])  # type: ignore[attr-defined]
    return command


def _parameter(name: str) -> inspect.Parameter:
    option = OPTIONS[name]
    flags = (option.flag,) if option.flag else ()
    unit = "" if option.unit == "-" else f" [{option.unit}]"
    kind = option.value if option.default is not None else option.value | None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=option.default,
        annotation=Annotated[kind, Given(f"{option.text}{unit}.", flags)],
    )


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
            raise InvalidValueError("--cached tokens are part of a --prompt; a decode step has a --context.")
        return decode(*of, batch=batch, context=context, **options)
    if context:
        raise InvalidValueError("a prefill has a --prompt and perhaps --cached tokens of it, no --context.")
    return prefill(*of, prompt=prompt, batch=batch, cached=cached, **options)


def print_result(result: Answer, *, json: bool, breakdown: "Callable[[Answer], Table] | None") -> None:
    """Print a result as JSON, or as text and, if asked for, its breakdown."""
    if json:
        print(result.to_json(indent=2))
        return
    print(str(result))
    if breakdown is not None:
        make_console().print(breakdown(result))
