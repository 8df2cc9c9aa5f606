"""Arguments and options that several commands share, and how they print results."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from roofline.cli.machines import find_machine, machine_of
from roofline.cli.printing import Column, show, show_csv, show_json, show_table
from roofline.cli.reading import READ, Given
from roofline.cli.wording import in_our_words
from roofline.deployment.options import OPTIONS, STEP, Option
from roofline.errors import InvalidValueError, quoted
from roofline.floors import Floor, decode_floor, prefill_floor
from roofline.hardware import Hardware
from roofline.results import Result

Command = TypeVar("Command", bound=Callable[..., int | None])
Answer = TypeVar("Answer", bound=Result)

_MODEL = "A catalogue name, the path of a config.json or a GGUF file, or a number of parameters: 70B."
_MACHINE = "A machine's name, the path of its spec file, or a calibration record of it"
ModelName = Annotated[str, Given(_MODEL, positional=True, model=True)]
ModelNameIfAny = Annotated[str | None, Given(_MODEL, positional=True, model=True)]
HardwareName = Annotated[str | None, Given(f"{_MACHINE}; left out with --memory-bandwidth.", positional=True)]
HardwareNames = Annotated[tuple[str, ...] | None, Given(f"{_MACHINE}; several joined by commas.", positional=True, several=True)]
Read = Annotated[str, READ]
Batch = Annotated[int, Given("Sequences of one step.")]
Context = Annotated[int, Given("Tokens of each already in the cache.")]
Prompt = Annotated[int | None, Given("A prefill of so many tokens instead of a decode step.")]
Cached = Annotated[int, Given("Tokens of the prompt found in the prefix cache.")]
Ops = Annotated[bool, Given("Also print the breakdown by operator.")]
Json = Annotated[bool, Given("Print JSON instead of text.")]
Csv = Annotated[bool, Given("Print CSV instead of text, in SI units.")]
Calibration = Annotated[
    str | None,
    Given("A record's file, the id of a shipped one, an engine (vllm, trtllm, sglang), or generic; by default the machine's own."),
]
Eager = Annotated[bool, Given("The host launches every kernel, without a CUDA graph.")]
Interval = Annotated[float, Given("Probability that the interval is meant to hold.")]
Time = Annotated[str, Given("The measured time with its unit: 24.5ms, 310us, 1.2s.")]


def listed(text: str) -> Given:
    """Describe an option that takes several values."""
    return Given(f"{text}; several joined by commas.", several=True)


def takes(options: Mapping[str, Option], names: Sequence[str], *, several: bool = False) -> Callable[[Command], Command]:
    """Give a command an option for each of some options of a question, with the same name, description and default."""
    return lambda command: _give(command, (), [_parameter(name, options[name], several) for name in names])


def takes_deployment(names: Sequence[str], *, several: bool = False) -> Callable[[Command], Command]:
    """Give a command an option for every option of a deployment."""
    return takes(OPTIONS, names, several=several)


def takes_step(command: Command) -> Command:
    """Give a command what every question about one step takes: what :func:`floor_of` does, with an option for every option of a deployment."""
    shared = [p for p in inspect.signature(floor_of).parameters.values() if p.kind is not p.VAR_KEYWORD]
    return _give(command, shared, [_parameter(name, OPTIONS[name], several=False) for name in STEP])


def _give(command: Command, first: Sequence[inspect.Parameter], last: Sequence[inspect.Parameter]) -> Command:
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    every = [p.replace(kind=p.KEYWORD_ONLY) for p in (*first, *own, *last)]
    command.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
    return command


def _parameter(name: str, known: Option, several: bool) -> inspect.Parameter:
    default = known.default
    annotation: Any = Annotated[known.value, option(known, several=several)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=(default,) if several else default, annotation=annotation)


def option(known: Option, *, several: bool = False) -> Given:
    """Return what the command line says of an option of a question."""
    unit = "" if known.unit == "-" else f" [{known.unit}]"
    text = re.sub(r"(?::\w+:)?`(?:roofline\.)?(\w+)`", r"\1", known.text)
    return Given(f"{text}{unit}.", (known.flag,) if known.flag else (), several=several)


def machine_for(hardware: str | None, calibration: str | None, rates: Mapping[str, Any]) -> Hardware | None:
    """Return the machine of an estimate: the one named, or that of the record; None where bare rates are given."""
    if hardware is not None:
        return find_machine(hardware)
    if calibration is not None and rates.get("memory_bandwidth") is None:
        return machine_of(calibration)
    return None


def constants_for(machine: Hardware | None, calibration: str | None, *, named: bool) -> Any:
    """Return the calibration to ask for: the one given, or the one that the machine came with."""
    return calibration if named or machine is None else machine.calibration


def floor_of(
    model: ModelName,
    hardware: HardwareName = None,
    batch: Batch = 1,
    context: Context = 0,
    prompt: Prompt = None,
    cached: Cached = 0,
    **options: Any,
) -> Floor:
    """Return the floor of a decode step, or of a prefill if there is a prompt."""
    machine = None if hardware is None else find_machine(hardware)
    phase: dict[str, Any] = {"batch": batch, "context": context, "prompt": prompt, "cached": cached}
    return ask(decode_floor, prefill_floor, model, machine, **phase, **options)


def ask(
    decode: Callable[..., Answer],
    prefill: Callable[..., Answer],
    *of: Any,
    batch: Any,
    context: Any,
    prompt: Any,
    cached: Any,
    **options: Any,
) -> Answer:
    """Return the answer for a decode step, or for a prefill if there is a prompt."""
    if prompt is None:
        if _given(cached):
            raise InvalidValueError("--cached tokens are part of a --prompt; a decode step has a --context.")
        return decode(*of, batch=batch, context=context, **options)
    if _given(context):
        raise InvalidValueError("a prefill has a --prompt and perhaps --cached tokens of it, no --context.")
    return prefill(*of, prompt=prompt, batch=batch, cached=cached, **options)


def _given(value: Any) -> bool:
    return value not in (0, (0,))


def print_result(result: Result, *, json: bool, csv: bool, columns: Sequence[Column] = (), rows: Sequence[Sequence[str]] = ()) -> None:
    """Print a result as JSON, as CSV, or as text and, if asked for, a table under it."""
    if json:
        show_json(result.to_dict())
    elif csv:
        show_csv(result.to_records())
    else:
        show(in_our_words(str(result)))
        if columns:
            show()
            show_table(columns, rows)


_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def read_time(text: str, name: str = "--time") -> float:
    """Return a time with its unit in seconds: without one nobody could tell 24.5 ms from 24.5 s [s]."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-zµ]+)\s*", str(text).lower().replace("μ", "µ"))
    try:
        return float(found[1]) * _UNITS[found[2]]  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        raise InvalidValueError(f"{name} is {quoted(text)}; it is a number with its unit, {', '.join(_UNITS)}, such as 24.5ms.") from None


def pair(text: str) -> tuple[str, str]:
    """Return a column and what it is, of ``--columns``."""
    column, equals, meaning = text.partition("=")
    if not equals:
        raise InvalidValueError(f"--columns has {quoted(text)}; it names a column and what it is, such as N_CTX=new.")
    return column, meaning
