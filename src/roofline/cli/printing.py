"""What the command line prints: text as wide as the terminal, plain tables, CSV, JSON. Nothing else writes to standard output."""

import codecs
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, TextIO

_WIDTH = 80  # of --help where there is no terminal
_FURTHER = "    "  # begins the further lines of what does not fit into one
_ASCII = {"µ": "u", "μ": "u", "×": "x", "·": "*", "–": "-", "−": "-", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "²": "^2", "∞": "inf"}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Write what the output's encoding does not have in other characters."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_ASCII.get(c, "?") for c in error.object[error.start : error.end]), error.end


codecs.register_error("roofline", _in_ascii)


def prepare_streams() -> None:
    """Let no character be one that a stream cannot write."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="roofline")


class UnwritableError(Exception):
    """Standard output cannot be written; its cause says why."""


def write(text: str) -> None:
    """Print lines as they are."""
    try:
        print(text, flush=True)
    except OSError as error:
        raise UnwritableError from error


def terminal_width(stream: TextIO | None) -> int | None:
    """Return the columns of a stream's terminal; None where the stream goes elsewhere and lines may be of any length."""
    if stream is None or not stream.isatty():
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return shutil.get_terminal_size((columns or _WIDTH, 24)).columns  # what COLUMNS says goes first


def help_width() -> int:
    """Return how wide the text of --help is."""
    return terminal_width(sys.stdout) or _WIDTH


def wrapped(text: str, width: int | None, *, prose: bool = True) -> list[str]:
    """Break a line between words; in what is not prose the rest is indented more, so that it does not look like a line of its own."""
    import textwrap

    if width is None or len(text) <= width:
        return [text]
    indent = " " * (len(text) - len(text.lstrip()))
    further = indent if prose else f"{indent}{_FURTHER}"
    return textwrap.wrap(text, width, subsequent_indent=further, break_long_words=False, break_on_hyphens=False) or [text]


def show(text: str = "", *, prose: bool = False) -> None:
    """Print text, broken between words at the width of a terminal."""
    width = terminal_width(sys.stdout)
    write("\n".join(part for line in text.split("\n") for part in wrapped(line, width, prose=prose)))


def complain(text: str) -> None:
    """Print a sentence for whoever runs the command; nothing is left to say it with if even standard error is closed."""
    if sys.stderr is not None:
        with suppress(OSError):
            print("\n".join(wrapped(f"roofline: {text}", terminal_width(sys.stderr), prose=False)), file=sys.stderr)


def write_over(text: str, stream: TextIO) -> None:
    """Write a line of progress over the one before; an empty one removes it."""
    width = terminal_width(stream) or len(text)
    stream.write(f"\r\x1b[K{text[:width]}")  # to the line's beginning, and clear it; a second line would stay
    stream.flush()


class Working:
    """Show at a terminal what takes longer than a second, and for how long it has; say that it was interrupted if it was.

    Parameters
    ----------
    text : str
        What is done [-].
    """

    def __init__(self, text: str) -> None:
        self._text, self._begun, self._done, self._shown = text, time.monotonic(), Event(), False
        at_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._teller = Thread(target=self._tell, args=(sys.stderr,), daemon=True) if at_terminal else None

    def _tell(self, stream: TextIO) -> None:
        while not self._done.wait(1.0):
            self._shown = True
            write_over(f"{self._text}, {time.monotonic() - self._begun:.0f} s", stream)

    def __enter__(self) -> None:
        if self._teller is not None:
            self._teller.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        if self._teller is not None:
            self._teller.join()
        if self._shown:
            write_over("", sys.stderr)
        if kind is KeyboardInterrupt:
            complain("interrupted; nothing was written.")


def show_json(data: Any) -> None:
    """Print plain data as JSON."""
    from json import dumps

    from roofline.results import plain

    write(dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False))


def show_csv(records: Sequence[Mapping[str, Any]]) -> None:
    """Print records as CSV: one column for every name that any of them has, empty where a record has none."""
    import csv
    from io import StringIO

    names = list(dict.fromkeys(name for record in records for name in record))
    text = StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write(text.getvalue().rstrip("\n"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    heading: str
    right: bool = True  # figures
    rank: int = 0  # the larger, the earlier the column is left out where the terminal is too narrow; 0 never is


def show_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of plain text. At a terminal that is too narrow columns are left out, and named; then rows go on in further lines."""
    body = [tuple(map(str, row)) for row in rows]
    sizes = [max([len(column.heading), *(len(row[i]) for row in body)]) for i, column in enumerate(columns)]
    kept = [i for i, size in enumerate(sizes) if any(row[i] for row in body) or not columns[i].rank]
    width, dropped = terminal_width(sys.stdout), []
    while width is not None and sum(sizes[i] + 2 for i in kept) - 2 > width:
        last = max(kept, key=lambda i: (columns[i].rank, i))
        if not columns[last].rank:
            break
        kept.remove(last)
        dropped.append(last)
    parts, used = [kept[:1]], sizes[kept[0]]  # the columns of each line of a row
    for i in kept[1:]:
        used += 2 + sizes[i]
        if width is not None and used > width:
            parts.append([])
            used = len(_FURTHER) + sizes[i]
        parts[-1].append(i)
    lines = []
    for row in (tuple(column.heading for column in columns), *body):
        cells = [row[i].rjust(sizes[i]) if columns[i].right else row[i].ljust(sizes[i]) for i in range(len(columns))]
        lines += [(_FURTHER if part is not parts[0] else "") + "  ".join(cells[i] for i in part).rstrip() for part in parts]
    write("\n".join(lines))
    if dropped:
        write("")
        names = ", ".join(columns[i].heading for i in sorted(dropped))
        show(f"Left out for want of width: {names}. A wider terminal or a pipe has all.", prose=True)
