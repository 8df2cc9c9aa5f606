"""The command line without a process of its own: what a command prints, and its exit status."""

import contextlib
import io
from typing import NamedTuple

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


def invoke(*words):
    """Run `roofline` with these words."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run([str(word) for word in words])
        except SystemExit as exit:
            status = exit.code or 0
    return Done(status, out.getvalue(), err.getvalue())
