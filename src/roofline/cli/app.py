"""The application that every command joins: its console, and what becomes of errors."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from roofline.errors import MissingDependencyError, RooflineError

try:
    import typer
    from rich.console import Console
except ImportError as error:  # pragma: no cover - exercised in an environment without the extra
    raise MissingDependencyError(f"the command line needs the package {error.name!r}: pip install 'roofline[cli]'.") from None

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="How fast a transformer can run (floor), how fast to expect it (estimate), and what a machine reaches (calibrate, check).",
)


def make_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for every table where the output goes elsewhere."""
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
