"""`roofline explain`: a floor in words."""

from typing import Any

from roofline.cli import options as given
from roofline.cli.printing import show
from roofline.cli.wording import in_our_words
from roofline.deployment.options import STEP
from roofline.explanation import explain as put_into_words


@given.takes_deployment(STEP)
def explain(
    model: given.ModelName,
    hardware: given.HardwareName = None,
    batch: given.Batch = 1,
    context: given.Context = 0,
    prompt: given.Prompt = None,
    cached: given.Cached = 0,
    **options: Any,
) -> None:
    """Say in words what binds a step and why, and what would change it."""
    floor = given.floor_of(model, hardware, batch=batch, context=context, prompt=prompt, cached=cached, **options)
    show(in_our_words(put_into_words(floor)), prose=True)
