"""`roofline fit`: what is in memory, and how many sequences, tokens and devices that allows."""

import math
import warnings
from typing import Annotated, Any

from roofline.capacity import fewest_devices, max_batch, max_context, resident
from roofline.cli import options as given
from roofline.cli.machines import find_machine
from roofline.cli.printing import show, show_csv, show_json
from roofline.cli.reading import Given
from roofline.cli.wording import in_our_words
from roofline.deployment import Deployment
from roofline.deployment.options import CAPACITY


@given.takes_deployment(CAPACITY)
def fit(
    model: given.ModelName,
    hardware: Annotated[str | None, Given("A machine, as for floor; left out with --memory-capacity.", positional=True)] = None,
    batch: given.Batch = 1,
    context: given.Context = 0,
    shared_prefix: Annotated[int, Given("Tokens at the start of all sequences that are in memory once.")] = 0,
    at_most: Annotated[int, Given("Largest tensor-parallel degree that is tried for the fewest devices.")] = 1024,
    json: given.Json = False,
    csv: given.Csv = False,
    **options: Any,
) -> None:
    """Print what is in memory, the largest batch, the longest context and the fewest devices.

    The largest batch is that of sequences of --context tokens, the longest context that of --batch sequences, and the fewest devices are
    those that hold --batch sequences of --context tokens.
    """
    given.check_one_form(json=json, csv=csv)
    asked = Deployment(model, None if hardware is None else find_machine(hardware), **options)
    sizes: dict[str, Any] = {"shared_prefix": shared_prefix}
    memory = resident(asked, batch=batch, context=context, **sizes)
    limits = {}
    if asked.usable_bytes is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what they warn of stands in the notes of `memory`
            limits = {
                "max_batch": max_batch(asked, context=context, **sizes),
                "max_context": max_context(asked, batch=batch, **sizes),
                "fewest_devices": fewest_devices(asked, batch=batch, context=context, at_most=at_most, **sizes),
            }
    plain = {name: value if math.isfinite(value) else None for name, value in limits.items()}
    if json:
        show_json({**memory.to_dict(), **plain})
    elif csv:
        show_csv([{**record, **plain} for record in memory.to_records()])
    else:
        show(in_our_words(str(memory)))
        if not limits:
            show("  limits: unknown without the memory of a device; name a machine or give --memory-capacity")
        else:
            unlimited = _why_unlimited(asked, context)
            show(f"  largest batch at context {context}: {_count(limits['max_batch'], unlimited)}")
            longest, positions = limits["max_context"], asked.model.max_positions
            beyond = f"; the model was made for {positions:,}" if positions and positions < longest < math.inf else ""
            show(f"  longest context at batch {batch}: {_count(longest, unlimited, ' tokens')}{beyond}")
            show(f"  fewest devices for batch {batch} at context {context}: {_count(limits['fewest_devices'], f'more than {at_most:,}')}")


def _count(value: float, endless: str, unit: str = "") -> str:
    return f"{value:,}{unit}" if math.isfinite(value) else endless


def _why_unlimited(asked: Deployment, context: int) -> str:
    """Return what to say where memory sets no limit."""
    if asked.model.is_anonymous and not asked.model.kv_bytes_per_token():
        return "not known: a number of parameters has no cache unless --kv-bytes-per-token is given"
    return "no limit: with an empty context nothing is in the cache; give --context" if not context else "no limit: nothing grows"
