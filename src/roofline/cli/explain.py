"""`roofline explain`: a floor in words."""

from typing import Any

from roofline.cli import options as given
from roofline.cli.printing import show
from roofline.cli.wording import in_our_words
from roofline.explanation import explain as put_into_words


@given.takes_step
def explain(
    **asked: Any,
) -> None:
    """Say in words what binds a step and why, and what would change it."""
    show(in_our_words(put_into_words(given.floor_of(**asked))), prose=True)
