"""The command line: `roofline floor`, `estimate`, `calibrate`, `check`, `hardware`, `models`. The only package that prints."""

from roofline.cli.app import main

__all__ = ["main"]
