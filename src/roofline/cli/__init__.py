"""The command line: `roofline floor`, `estimate`, `calibrate`, `check`, `hardware`, `models`. The only package that prints."""

from roofline.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    app()
