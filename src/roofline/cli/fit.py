"""`roofline fit`: what is in memory, and how many sequences, tokens and devices that allows."""

from typing import Annotated, Any

from roofline.capacity import memory_limits
from roofline.cli import options as given
from roofline.cli.machines import find_machine
from roofline.cli.reading import Given
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
    machine = None if hardware is None else find_machine(hardware)
    limits = memory_limits(model, machine, batch=batch, context=context, shared_prefix=shared_prefix, at_most=at_most, **options)
    given.print_result(limits, json=json, csv=csv)
