"""`roofline ask`: the question of a saved result, asked again."""

import sys
from typing import Annotated

from roofline.cli import options as given
from roofline.cli.reading import Given
from roofline.errors import InvalidValueError, quoted
from roofline.names import local_path
from roofline.saved import ask_again
from roofline.validation import regular_file


def ask(
    result: Annotated[
        str,
        Given(
            "A file that --json of floor, estimate, serve-estimate, simulate, plan, levers, journey, fit or efficiency wrote, or Result.to_json; - is standard input.",
            positional=True,
        ),
    ],
    json: given.Json = False,
    csv: given.Csv = False,
) -> None:
    """Ask the question of a saved result again, as this version answers it."""
    try:
        text = sys.stdin.read() if result == "-" else regular_file(local_path(result)).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        raise InvalidValueError(f"{quoted(result)} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    given.print_result(ask_again(text), json=json, csv=csv)
