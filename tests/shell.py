"""The command line without a process of its own: what a command prints, and its exit status."""

import contextlib
import io
import os
from typing import NamedTuple
from unittest import mock

from roofline.cli.app import run

__all__ = ["Done", "invoke"]


class Done(NamedTuple):
    """What a command left."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self):
        """Both streams."""
        return self.stdout + self.stderr


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def invoke(*words, columns=None):
    """Run `roofline` with these words, at a terminal of so many columns or, without a number, piped."""
    out, err = (io.StringIO() if columns is None else _Terminal() for _ in range(2))
    environment = {} if columns is None else {"COLUMNS": str(columns), "LINES": "24"}
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run([str(word) for word in words])
    return Done(status, out.getvalue(), err.getvalue())
