"""The command line: `roofline floor`, `estimate`, `calibrate`, `check`, `hardware`, `models`. The only room that prints."""

from roofline.cli import calibrate, check, estimate, floor, lists  # noqa: F401  (each joins the application)
from roofline.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    app()
