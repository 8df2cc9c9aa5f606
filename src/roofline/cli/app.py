"""The application: its commands, imported when one runs, its console, and what becomes of errors."""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any

from roofline.errors import MissingDependencyError, RooflineError

try:
    import typer
    from typer.core import TyperCommand, TyperGroup
except ImportError as error:  # pragma: no cover - exercised in an environment without the extra
    raise MissingDependencyError(f"the command line needs the package {error.name!r}: pip install 'roofline[cli]'.") from None

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS = {
    # the first lines of the commands' docstrings, so that --help imports none of them: a test compares them
    "calibrate": ("calibrate", "Measure what this machine really reaches, and keep it in a file that estimates can rest on."),
    "check": ("check", "Hold every row of a table of measured kernels against its floor."),
    "estimate": ("estimate", "Print the time to expect of one decode step, or of a prefill with --prompt."),
    "floor": ("floor", "Print the floor of one decode step, or of a prefill with --prompt."),
    "hardware": ("lists", "List the machines that are known, or show one with the source of every figure."),
    "models": ("lists", "List the models that are known by name. Any other is read from its own config.json."),
}
"""Module and first line of help of every command."""


class _Deferred(TyperCommand):
    """A command whose module is imported when it runs, or is asked for its own help."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return find_command(str(self.name)).make_context(*args, **kwargs)


class _Commands(TyperGroup):
    """All commands, none of them imported."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: _Deferred(name, help=line) for name, (_, line) in COMMANDS.items()}


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="How fast a transformer can run (floor), how fast to expect it (estimate), and what a machine reaches (calibrate, check).",
)


@app.callback()
def _only_commands() -> None:
    """Make the application a group, though no command has joined it yet."""


def find_command(name: str) -> Any:
    """Import a command and return it as click knows it."""
    import_module(f"roofline.cli.{COMMANDS[name][0]}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(next(c.callback for c in app.registered_commands if c.callback is not None and c.callback.__name__ == name))
    return typer.main.get_command(single)


def make_console() -> "Console":
    """Return a console as wide as the terminal, or wide enough for every table where the output goes elsewhere."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=200, highlight=False)


def clear_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the library's errors into one line on stderr and exit status 2."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except RooflineError as error:
            typer.echo(f"roofline: {error}", err=True)
            raise typer.Exit(2) from None

    return guarded
