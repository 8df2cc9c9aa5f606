"""The application: its commands, each imported when it runs, what they are given, and what becomes of errors.

A command is a function of keywords whose annotations carry a :class:`Given`. argparse reads the words: a larger library would take longer to start
than a floor takes to compute.
"""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, cleandoc, signature
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

from roofline.errors import MissingDependencyError, RooflineError, UnknownOptionError
from roofline.names import nearest_names

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS = {
    # the first lines of the commands' docstrings, so that --help imports none of them: a test compares them
    "calibrate": (
        "calibrate",
        "Measure what this machine really reaches, and write it to a calibration record that estimates can rest on.",
    ),
    "check": ("check", "Hold every row of a table of measured kernels against its floor."),
    "estimate": ("estimate", "Print the time to expect of one decode step, or of a prefill with --prompt."),
    "floor": ("floor", "Print the floor of one decode step, or of a prefill with --prompt."),
    "hardware": ("lists", "List the machines that are known, or show one with the source of every figure."),
    "models": ("lists", "List the models that are known by name. Any other is read from its own config.json."),
}
"""Module and first line of help of every command."""

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: a finding, words or values that cannot be, Ctrl-C (128 + SIGINT, as shells count)."""

_ABOUT = "How fast a transformer can run (floor), how fast to expect it (estimate), and what a machine reaches (calibrate, check)."


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says of one parameter: ``Annotated[int, Given("Sequences.")]``."""

    help: str
    flags: tuple[str, ...] = ()  # beside the one that the name makes
    positional: bool = False


def run(words: Sequence[str]) -> int:
    """Run a command as the shell would, and return its exit status.

    Parameters
    ----------
    words : sequence of str
        What stands after ``roofline`` [-].

    Returns
    -------
    int
        0 if all is well, 1 for a finding, 2 for words or values that cannot be, 130 after Ctrl-C [-].
    """
    name, rest = (words[0], words[1:]) if words else ("", words)
    if name in COMMANDS:
        command = find_command(name)
        options, unknown = make_parser(name, command).parse_known_intermixed_args(rest)
        try:
            if unknown:
                raise _unknown_word(name, unknown[0], signature(command).parameters)
            return command(**vars(options)) or 0
        except RooflineError as error:
            print(f"roofline: {error}", file=sys.stderr)
            return MISUSED
    lines = "\n".join(f"  {known:<10} {line}" for known, (_, line) in COMMANDS.items())
    parser = ArgumentParser(
        "roofline", "roofline COMMAND ...", _ABOUT, f"commands:\n{lines}", formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if not name:
        parser.print_help()
        return MISUSED
    parser.parse_known_args([name])  # --help leaves here
    near = nearest_names(name, COMMANDS)
    print(
        f"roofline: unknown command {name!r}; " + (f"nearest: {', '.join(near)}." if near else f"known: {', '.join(COMMANDS)}."),
        file=sys.stderr,
    )
    return MISUSED


def _unknown_word(command: str, word: str, known: Collection[str]) -> UnknownOptionError:
    """Return the error for a word that a command does not know, with the option that it stands for."""
    from roofline.deployment.spelling import options_meant

    name = word.partition("=")[0].strip("-").replace("-", "_")
    near = options_meant(name, known) or nearest_names(name, known)
    flags = [f"--{option.replace('_', '-')}" for option in near[:2]]
    hint = f"did you mean {' or '.join(flags)}?" if flags else f"see roofline {command} --help."
    return UnknownOptionError(f"{command} has no {word!r}; {hint}")


def find_command(name: str) -> Callable[..., int | None]:
    """Import a command."""
    command: Callable[..., int | None] = getattr(import_module(f"roofline.cli.{COMMANDS[name][0]}"), name)
    return command


def make_parser(name: str, command: Callable[..., Any]) -> ArgumentParser:
    """Return what reads the words of a command."""
    about = cleandoc(command.__doc__ or "").replace("%", "%%")
    parameters = signature(command).parameters.values()
    needed = "".join(f" {_usage(p)}" for p in parameters if p.default is Parameter.empty or get_args(p.annotation)[1].positional)
    parser = ArgumentParser(
        f"roofline {name}", f"roofline {name}{needed} [options]", about, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for parameter in parameters:
        _add(parser, parameter)
    return parser


def _usage(parameter: Parameter) -> str:
    shown = parameter.name.upper()
    if not get_args(parameter.annotation)[1].positional:
        return f"--{parameter.name.replace('_', '-')} {shown}"
    return shown if parameter.default is Parameter.empty else f"[{shown}]"


def _add(parser: ArgumentParser, parameter: Parameter) -> None:
    hint, given = get_args(parameter.annotation)
    kind = next((option for option in get_args(hint) if option is not NoneType), hint)
    required = parameter.default is Parameter.empty
    default = None if required else parameter.default
    shown = "" if default is None or kind is bool else f" (default {default})"
    options: dict[str, Any] = {"help": given.help.replace("%", "%%") + shown, "default": default}
    if given.positional:
        parser.add_argument(parameter.name, metavar=parameter.name.upper(), nargs=None if required else "?", type=kind, **options)
        return
    flags = (f"--{parameter.name.replace('_', '-')}", *given.flags)
    how: dict[str, Any] = (
        {"action": "store_true"} if kind is bool else {"type": kind, "metavar": kind.__name__.upper(), "required": required}
    )
    parser.add_argument(*flags, dest=parameter.name, **how, **options)


def main() -> None:
    """Run the command line."""
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED
    sys.exit(status)


def make_console(*, stderr: bool = False) -> "Console":
    """Return a console as wide as the terminal, or wide enough for every table where the output goes elsewhere."""
    try:
        from rich.console import Console
    except ImportError:  # pragma: no cover - exercised in an environment without the extra
        raise MissingDependencyError("tables and progress need the package 'rich': pip install 'roofline[cli]'.") from None

    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal or stderr else Console(width=200, highlight=False)
