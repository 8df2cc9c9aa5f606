"""The application: its commands, each imported when it runs, and what becomes of errors."""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from roofline.cli.printing import UnwritableError, complain, help_width, prepare_streams, wrapped, write
from roofline.cli.reading import Command, two_columns
from roofline.errors import RooflineError, UnknownOptionError, quoted
from roofline.names import nearest_names

COMMANDS = {
    # the first lines of the commands' docstrings, so that --help imports none of them: a test compares them
    "floor": "Print the floor of one decode step, or of a prefill with --prompt.",
    "estimate": "Print the time to expect of one decode step, or of a prefill with --prompt.",
    "explain": "Say in words what binds a step and why, and what would change it.",
    "sweep": "Print floors and estimates side by side, for lists of machines, batches, contexts, formats and degrees.",
    "levers": "Rank every known optimization of one step by what it gains.",
    "journey": "Print what binds decode as the batch grows, and the batch at which the memory is full.",
    "fit": "Print what is in memory, the largest batch, the longest context and the fewest devices.",
    "serve-estimate": "Print what requests of a service wait and take by closed forms, or the largest rate that keeps promises.",
    "simulate": "Serve a trace or made-up requests step by step by the engine's own rules, and print what became of them.",
    "plan": "Find the cheapest machines that serve a workload and keep promises, and say why not others.",
    "kernel": "Print the floor of one kernel and the time to expect of it.",
    "efficiency": "Print which share of the machine's FLOP/s and bandwidth (MFU, MBU) a measured step used.",
    "check": "Hold every row of a table of measured kernels against its floor.",
    "ask": "Ask the question of a saved result again, as this version answers it.",
    "calibrate": "Measure what this machine really reaches, and write it to a calibration record that estimates can rest on.",
    "monitor": "Watch the devices of this machine while they work: their counters, and what binds each.",
    "diagnose": "Say what a run was bound by, phase by phase, what it lost, what would help, and which conclusions would be wrong.",
    "records": "List the calibration records that are shipped, or sum up one.",
    "hardware": "List the machines that are known, or show one with the source of every figure.",
    "models": "List the models that are known by name, or show one with its components.",
}
"""First line of help of every command; each is a module of its name, with _ for -."""

FINDING, MISUSED, UNWRITTEN, INTERRUPTED = 1, 2, 74, 130
"""Exit statuses: a finding; words or values that cannot be; output that cannot be written (EX_IOERR); Ctrl-C (128 + SIGINT)."""

_ABOUT = (
    "How fast a transformer can run (floor), how fast to expect it (estimate), what limits it and what would help. "
    "'roofline COMMAND --help' says what a command takes."
)


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
    if not words or words[0] in ("--help", "-h", "help"):
        write(_help())
        return 0 if words else MISUSED
    if words[0] == "--version":
        from importlib.metadata import version

        write(f"roofline {version('roofline')}")
        return 0
    command: Command | None = None
    try:
        command, rest = find_command(words)
        if {"--help", "-h"} & set(rest):
            write(command.help(help_width()))
            return 0
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_, **__: complain(f"note: {_in_our_words(message, command)}")
            return command(rest)
    except RooflineError as error:
        complain(_in_our_words(error, command))
    except OSError as error:  # of a file that was named
        complain(f"{error.strerror or error}.")
    return MISUSED


def _in_our_words(message: Exception, command: Command | None) -> str:
    from roofline.cli.wording import in_our_words

    return in_our_words(str(message), command.arguments if command else ())


def find_command(words: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """Import the command that words name, and return it with the words that are left for it."""
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        near = nearest_names(name, COMMANDS)
        raise UnknownOptionError(
            f"unknown command {quoted(name)}; " + (f"nearest: {', '.join(near)}." if near else f"known: {', '.join(COMMANDS)}.")
        )
    module_name = name.replace("-", "_")
    module: Any = import_module(f"roofline.cli.{module_name}")
    if hasattr(module, "find_kind"):  # a command of several, such as kernel matmul
        found: tuple[Command, Sequence[str]] = module.find_kind(rest)
        return found
    return Command.of(name, getattr(module, module_name)), rest


def _help() -> str:
    width = help_width()
    lines = ["usage: roofline COMMAND [options]", "", *wrapped(_ABOUT, width), ""]
    for name, line in COMMANDS.items():
        lines += two_columns(name, line, width, column=18)
    return "\n".join([*lines, "", *two_columns("--version", "Print the version.", width, column=18)])


def main() -> None:
    """Run the command line."""
    prepare_streams()
    if sys.stdout is None:
        complain("the output cannot be written: it is closed.")
        sys.exit(UNWRITTEN)
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = INTERRUPTED
    except UnwritableError as error:
        status = UNWRITTEN
        if not isinstance(error.__cause__, BrokenPipeError):  # of a pipe: whoever read the output has seen enough
            complain(f"the output cannot be written: {getattr(error.__cause__, 'strerror', None) or error.__cause__}.")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer would be written once more at exit
    sys.exit(status)
