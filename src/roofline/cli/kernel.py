"""`roofline kernel KIND`: the floor and the estimate of one kernel, for every kind that the library has a floor of.

What a kind takes is read from the signature and the docstring of its function, so a new kind appears here by itself.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from inspect import Parameter, cleandoc, signature
from itertools import product
from typing import Any

import numpy as np

import roofline
from roofline.cli import options as given
from roofline.cli.beside import TIMES, beside, times
from roofline.cli.machines import find_machine
from roofline.cli.printing import Column, show, show_csv, show_json, show_table
from roofline.cli.reading import Argument, Command, Given
from roofline.cli.wording import in_our_words
from roofline.deployment.options import OPTIONS
from roofline.efficiency import Utilization, utilization
from roofline.errors import InvalidValueError, RooflineError
from roofline.estimate import KernelEstimate, kernel_estimate
from roofline.floors import KernelFloor
from roofline.names import unknown_name
from roofline.units import check_count

_MACHINE = "A machine's name, the path of its spec file, or a calibration record of it"
_OWN = (
    Argument("calibration", str, Given("As for estimate: a record, its file or id, an engine, or generic.")),
    Argument("interval", float, Given("Probability of the estimate's interval."), 0.8),
    Argument("time", str, Given("A measured time with its unit, such as 310us: also print its share of the floor, MBU and MFU.")),
    Argument("json", bool, Given("Print JSON instead of text."), False),
    Argument("csv", bool, Given("Print CSV instead of text, in SI units."), False),
)


ABOUT = "Print the floor of one kernel and the time to expect of it."


@cache
def kinds() -> dict[str, Callable[..., KernelFloor]]:
    """Return the function of every kind of kernel that has a floor, by the name of the kind."""
    public = {name.removesuffix("_floor"): getattr(roofline, name) for name in roofline.__all__ if name.endswith("_floor")}
    return {name: function for name, function in public.items() if signature(function).return_annotation is KernelFloor}


def find_kind(words: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """Return the command of the kind that the first word names, and the words after it."""
    if not words or words[0].startswith("-"):
        which = Argument(
            "kind", str, Given(f"One of {', '.join(kinds())}; 'roofline kernel KIND --help' says what it takes.", positional=True)
        )
        return Command("kernel", ABOUT, (replace(which, required=True),), lambda **_: 0), words
    kind = words[0].replace("-", "_")
    if kind not in kinds():
        raise unknown_name("kind of kernel", words[0], kinds())
    function = kinds()[kind]
    about = cleandoc(function.__doc__ or "").partition("\n")[0].partition(": :math:")[0].rstrip(".").replace("Return", "Print", 1)
    text = f"{about}, and the time to expect.\n\nSizes take lists: every combination is one row."
    return Command(f"kernel {kind}", text, (*_arguments(function), *_OWN), partial(_run, function)), words[1:]


def _arguments(function: Callable[..., KernelFloor]) -> Iterator[Argument]:
    """Yield what a kind takes: the machine first, then its sizes and formats as its docstring has them."""
    texts = _documented(function)
    parameters = signature(function).parameters
    bare = "; left out with --memory-bandwidth" if "memory_bandwidth" in parameters else ""
    yield Argument("hardware", str, Given(f"{_MACHINE}{bare}.", positional=True))
    for name, parameter in parameters.items():
        if name in OPTIONS and OPTIONS[name].value is float:  # bare rates
            yield Argument(name, float, given.option(OPTIONS[name]), None)
        elif name != "hardware":
            types, text = texts[name]
            required = parameter.default is Parameter.empty
            several = types.startswith("int") and "array_like" in types
            kind = bool if types.startswith("bool") else float if "float" in types else int if types.startswith("int") else str
            text = f"Not: {text[0].lower()}{text[1:]}" if parameter.default is True else text
            default = None if required else (parameter.default,) if several else parameter.default
            yield Argument(name, kind, Given(text, several=several), default, required)


def _documented(function: Callable[..., KernelFloor]) -> dict[str, tuple[str, str]]:
    """Return type and description of every parameter in a numpydoc docstring, without the markup."""
    section = cleandoc(function.__doc__ or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    found: dict[str, tuple[str, str]] = {}
    for names, types, text in re.findall(r"^(\S[^:\n]*) : (.*)\n((?:    .*\n?)+)", section, flags=re.MULTILINE):
        plain = re.sub(r" \[[^\]]*\](?=[.,])", "", " ".join(text.split()))
        plain = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`|``\"?(.*?)\"?``|`(\w+)`", lambda m: m[1] or m[2] or f"--{m[3].replace('_', '-')}", plain)
        choices = re.match(r"\{(.*?)\}", types)
        if choices:
            plain = f"{plain.rstrip('.')}: {choices[1]}.".replace('"', "")
        found |= dict.fromkeys(re.split(r", *", names), (types, plain))
    return found


def _run(
    function: Callable[..., KernelFloor],
    *,
    hardware: str | None,
    calibration: str | None,
    interval: float,
    time: str | None,
    json: bool,
    csv: bool,
    **sizes: Any,
) -> None:
    machine = None if hardware is None else find_machine(hardware)
    varied = {name: values for name, values in sizes.items() if isinstance(values, tuple) and len(values) > 1}
    points = list(product(*varied.values()))
    single = {name: values[0] if isinstance(values, tuple) else values for name, values in sizes.items() if name not in varied}
    arrays = {name: _array(name, values) for name, values in zip(varied, zip(*points, strict=True), strict=True)} if varied else {}
    floor = function(**{**single, **arrays}, hardware=machine)
    try:
        estimate = kernel_estimate(floor, calibration=calibration, interval=interval)
    except RooflineError as error:
        if calibration is not None or interval != _OWN[1].default:
            raise
        estimate, note = None, in_our_words(str(error))
    else:
        note = ""
    used = None if time is None else _measured(floor, time)
    measured = {} if used is None else used.shares
    if json:
        show_json({"floor": floor.to_dict(), "estimate": None if estimate is None else estimate.to_dict(), **measured})
        return
    rows = beside(floor.to_records(), None if estimate is None else estimate.to_records())
    rows = [{**dict(zip(varied, point, strict=True)), **row, **measured} for point, row in zip(points, rows, strict=True)]
    if csv:
        show_csv(rows)
    elif varied:
        _show_rows(floor, estimate, list(varied), rows)
    else:
        show(in_our_words(str(floor)))
        show(in_our_words(str(estimate)) if estimate is not None else f"no estimate: {note}")
        if used is not None:
            show(used.line())


def _array(name: str, values: Sequence[Any]) -> np.ndarray:
    return np.array([check_count(name, value) for value in values])


def _measured(floor: KernelFloor, time: str) -> Utilization:
    if np.ndim(floor.time_s):
        raise InvalidValueError("--time is of one kernel; give one value of each size.")
    return utilization(floor, given.read_time(time))


def _show_rows(floor: KernelFloor, estimate: KernelEstimate | None, varied: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    show(f"{floor.op.name} on {floor.hardware.name}")
    show()
    columns = [Column(name.replace("_", " ")) for name in varied]
    show_table([*columns, *TIMES], [(*(str(row[name]) for name in varied), *times(row)) for row in rows])
    if estimate is not None:
        show(f"  estimates: {estimate.record.id}")
        for text in estimate.notes:
            show(f"  note: {in_our_words(text)}")
    for text in floor.assumptions:
        show(f"  assumed: {in_our_words(text)}")
