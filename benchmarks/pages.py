"""Tables on the pages of docs/: what every script that makes one needs."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def markdown(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    """Return a table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value: int) -> str:
    """Return a count with its thousands set apart."""
    return f"{value:,}"


def write(sections: Mapping[str, str], page: Path) -> None:
    """Put each section between its two marks on the page."""
    text = page.read_text(encoding="utf-8")
    for name, section in sections.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{section}\n{end}{rest.split(end)[1]}"
    page.write_text(text, encoding="utf-8")


def publish(report: Callable[[], Mapping[str, str]], page: Path, description: str) -> None:
    """Print the sections of a report, or put them on a page if the command line says ``--write``."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{page.name}")
    wanted = parser.parse_args().write
    sections = report()
    if wanted:
        write(sections, page)
        return
    for name, section in sections.items():
        print(f"\n{name}\n\n{section}")
