"""What stays in the memory of a device: parameters as stored, and what its layers keep for every sequence."""

from roofline.arithmetic import LinearForm, Number
from roofline.formats import Format
from roofline.forward.precision import Precision
from roofline.model import LayerGroup, Model
from roofline.model.held import CACHE, STREAM
from roofline.model.storage import bytes_by_component, tensors
from roofline.step import Aggregate, Rows, Sequences


def _draft_layers(model: Model, mtp: int) -> tuple[LayerGroup, ...]:
    return tuple(group for module in model.mtp_modules[:mtp] for group in module)


def stored_bytes(model: Model, precision: Precision, mtp: int) -> Number:
    """Return the bytes of all parameters but those of towers, tied tensors once [B]."""
    return sum(bytes_by_component(tensors(model, _draft_layers(model, mtp)), precision.stored).values())


def held_bytes(model: Model, precision: Precision, mtp: int) -> dict[Rows, Number]:
    """Return the bytes of one row of each kind that is kept for a sequence, summed over layers [B]."""
    formats = {CACHE: precision.kv, STREAM: precision.stream}
    total: dict[Rows, Number] = {}
    for group in (*model.layers, *_draft_layers(model, mtp)):
        for held in group.mixer.keeps() if group.mixer is not None else ():
            stored = formats.get(held.stored) or Format.load(held.stored)
            total[held.rows] = total.get(held.rows, 0) + group.count * (held.elements * stored.bytes_per_element)
    return {rows: size for rows, size in total.items() if size}


def held_form(held: dict[Rows, Number]) -> LinearForm:
    """Return the bytes that a step leaves in memory, as a form in its aggregates [B]."""
    return LinearForm({Aggregate("held", _rows_after, (rows,), divided=rows.cached): size for rows, size in held.items()})


def _rows_after(g: Sequences, rows: Rows) -> Number:
    return rows.after(g.cached + g.new)
