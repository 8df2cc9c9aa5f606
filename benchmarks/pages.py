"""Tables on the pages of docs/: what every script that makes one needs."""

import argparse
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
TABLES = DOCS / "tables"
"""Tables too long for a page, which links them."""


def markdown(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    """Return a table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def comma_separated(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((head, *rows))
    return text.getvalue()


def number(value: int) -> str:
    """Return a count with its thousands set apart."""
    return f"{value:,}"


def write(sections: Mapping[str, str], page: Path) -> None:
    """Put each section between its two marks on the page, and those that are named as a file into it."""
    text = page.read_text(encoding="utf-8")
    for name, section in sections.items():
        if name.endswith(".csv"):
            (TABLES / name).write_text(section, encoding="utf-8")
            continue
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{section}\n{end}{rest.split(end)[1]}"
    page.write_text(text, encoding="utf-8")


def options(page: Path, description: str) -> argparse.ArgumentParser:
    """Return the command line of a script that makes tables."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{page.name}")
    return parser


def put(sections: Mapping[str, str], page: Path, *, onto_page: bool) -> None:
    """Print the sections of a report, or put them on a page."""
    if onto_page:
        write(sections, page)
        return
    for name, section in sections.items():
        print(f"\n{name}\n\n{section}")


def publish(report: Callable[[], Mapping[str, str]], page: Path, description: str) -> None:
    """Print the sections of a report, or put them on a page if the command line says ``--write``."""
    onto_page = options(page, description).parse_args().write
    put(report(), page, onto_page=onto_page)
