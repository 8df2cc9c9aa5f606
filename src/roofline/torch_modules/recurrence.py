"""What a module keeps of a sequence without a cache that shows it: states of recurrences and of linear attention are refused, rows before a token are named."""

from collections import Counter

from roofline.errors import UnsupportedModelError
from roofline.torch_modules.events import Call, Record
from roofline.torch_modules.tally import Tally, inside, own_code, shown


def check_recurrences(tally: Tally, records: tuple[Record, Record]) -> None:
    """Refuse a module that works through its tokens one after another, of which nothing is kept that does not grow with them."""
    _check_softmax(tally)
    steps = [Counter[str](), Counter[str]()]
    for record, total in zip(records, steps, strict=True):
        for path, number in record.steps.items():
            total[tally.layer_of(path) or ""] += number
    looping = [path for path, number in records[1].steps.items() if number > records[0].steps[path]]
    looping = [path for path in looping if steps[1][tally.layer_of(path) or ""] > steps[0][tally.layer_of(path) or ""]]
    for path in [*looping, *sorted(records[1].running)]:
        if _keeps_state(tally, path):
            continue
        how = "runs more operators the more tokens there are" if path in looping else "mixes a token with all before it in one operator"
        raise UnsupportedModelError(
            f"{path or 'the module'} {how}, as a recurrence does, and no state that it keeps was seen: "
            'a module that returns it beside the result, as in {"logits": …, "state": …}, is read with it.'
        )


def _check_softmax(tally: Tally) -> None:
    """Refuse scores that are multiplied with values as they are, where no keys are kept: the same products may be summed up in a state."""
    for event in tally.events:
        if not isinstance(event, Call) or event.weighed:
            continue
        if any(held.row and inside(held.path, tally.layer_of(event.path) or "") for held in tally.kept):
            continue
        raise UnsupportedModelError(
            f"{event.path or 'the module'} multiplies scores with values without a softmax between them, as linear attention does in its parallel form, "
            "of which a token needs a state instead of all before it, and no state and no keys that it keeps were seen: "
            'a module that returns its state beside the result, as in {"logits": …, "state": …}, is read with it.'
        )


def rows_before(tally: Tally, records: tuple[Record, Record]) -> tuple[str, ...]:
    """Return in words which modules read some rows before a token that nothing keeps."""
    if not any(isinstance(event, Call) and (event.visible is None or not event.visible.looks_ahead) for event in tally.events):
        return ()
    paths = [path for path in sorted(records[1].before) if not _keeps_rows(tally, path)]
    return (f"the last rows that a sequence keeps for convolutions or shifts in {shown(paths)}: no cache shows them",) if paths else ()


def _keeps_rows(tally: Tally, path: str) -> bool:
    """Return whether something that may be rows is kept there: beside a state in code of one's own, which shows the rows apart from it."""
    kept = [held for held in tally.kept if held.elements and inside(held.path, tally.layer_of(path) or "")]
    return bool(kept) and (not own_code(tally.module) or len(kept) > 1 or any("conv" in held.label for held in kept))


def _keeps_state(tally: Tally, path: str) -> bool:
    """Return whether something that does not grow is kept in the layer that a module is in, or anywhere where it is in none."""
    return any(held.elements and inside(held.path, tally.layer_of(path) or "") for held in tally.kept)
