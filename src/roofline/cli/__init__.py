"""The command line: `roofline floor`, `estimate`, `sweep` and the other commands of `app.COMMANDS`. The only package that prints."""

from roofline.cli.app import main

__all__ = ["main"]
