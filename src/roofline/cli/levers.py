"""`roofline levers`: every known optimization of one step, ranked."""

from functools import partial
from typing import Annotated, Any

from roofline.cli import options as given
from roofline.cli.machines import find_machine
from roofline.cli.printing import Column, show, show_csv, show_json, show_table
from roofline.cli.reading import Given
from roofline.cli.wording import in_our_words
from roofline.optimizations import Lever
from roofline.optimizations import levers as find_levers

_COLUMNS = (
    Column("lever", right=False),
    Column("floor"),
    Column("roofline", rank=1),
    Column("then bound by", right=False, rank=2),
    Column("devices", rank=3),
    Column("cost", right=False, rank=5),
    Column("why", right=False, rank=4),
)


def _row(lever: Lever) -> tuple[str, ...]:
    name = in_our_words(lever.name) + (" (per token)" if lever.per == "token" else "")
    if not lever.applicable:
        return name, "–", "–", "does not apply", "", "", in_our_words(lever.reason)
    then = "fits now" if lever.unlocks else "does not fit" if lever.fits is False else lever.bound
    gains = f"{lever.gain:.2f}×", f"{lever.roofline_gain:.2f}×"
    return name, *gains, then, str(lever.devices), lever.cost if lever.helps else "", in_our_words(lever.reason)


@given.takes_step
def levers(
    *,
    drafts: Annotated[int, Given("Draft tokens that speculative decoding verifies at once.")] = 3,
    acceptance: Annotated[float, Given("Probability that a draft is accepted, given that those before it were.")] = 0.7,
    draft: Annotated[
        str | None, Given("The model that drafts; by default the model's own modules, or a look-up that costs nothing.")
    ] = None,
    hit: Annotated[float, Given("Share of the prompt that a prefix cache would find.")] = 0.5,
    machines: Annotated[tuple[str, ...] | None, Given("Other machines to try, joined by commas.", several=True)] = None,
    explain: Annotated[bool, Given("Say it in words: what binds, what helps at which cost, and what does not and why.")] = False,
    json: given.Json = False,
    csv: given.Csv = False,
    **asked: Any,
) -> None:
    """Rank every known optimization of one step by what it gains.

    Each is evaluated alone: gains do not multiply, and after one of them something else may bind.
    """
    tried: dict[str, Any] = {"drafts": drafts, "acceptance": acceptance, "draft": draft, "hit": hit}
    tried["machines"] = tuple(map(find_machine, machines or ()))
    if asked["hardware"] is not None:
        asked["hardware"] = find_machine(asked["hardware"])
    found = given.ask(partial(find_levers, step="decode"), partial(find_levers, step="prefill"), **asked, **tried)
    if json:
        show_json(found.to_dict())
    elif csv:
        show_csv(found.to_records())
    elif explain:
        show(in_our_words(found.explain()), prose=True)
    else:
        head, *_ = found.summary()
        show(head)
        show()
        show_table(_COLUMNS, map(_row, found.rows))
        show()
        for note in (*(f"assumed: {note}" for note in found.assumptions), *(f"note: {note}" for note in found.base.deployment.notes)):
            show(f"  {in_our_words(note)}")
