"""Vision and audio towers as operators and as bytes: layers of another width, which a prompt's images or sounds pass once."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from roofline.arithmetic import LinearForm, Number
from roofline.formats import Format
from roofline.forward.lowering import Lowering, merge_alike
from roofline.forward.precision import Precision
from roofline.forward.symbols import encoded
from roofline.model import LayerGroup, Model
from roofline.model.storage import bytes_by_component
from roofline.model.tower import Tower
from roofline.ops import Op
from roofline.parallel.degrees import SINGLE


def _precision(tower: Tower, precision: Precision) -> Precision:
    """Return the formats of a tower: a choice for the whole model before it is quantized, else what it is stored in."""
    model = precision.model
    whole = precision.weights if precision.weights == precision.base and not precision.base.whole_file else None
    base = whole or Format.load(tower.dtype or model.dtype)
    alone = Model(name=model.name, source=model.source, hidden_size=tower.hidden_size, dtype=base.name, layers=tower.layers)
    return replace(precision, weights=whole, components=(), base=base, stream=base, model=alone)


def tower_bytes(model: Model, precision: Precision) -> Number:
    """Return the bytes of all towers and projectors on one device [B]."""
    total: Number = 0
    for tower in model.towers:
        size = sum(bytes_by_component(tower.tensors(), _precision(tower, precision).stored).values())
        total += size if tower.ways == 1 else size / tower.ways
    return total


def tower_operators(lowering: Lowering) -> Iterator[Op]:
    """Yield the operators of the towers whose work is counted, as a step runs them: for every sequence of which nothing is cached."""
    for tower in lowering.model.towers:
        if not tower.encoded:
            continue
        precision = _precision(tower, lowering.precision)
        alone = replace(lowering, model=precision.model, precision=precision, parallel=SINGLE)
        most = tower.encoded * tower.hidden_size  # of a larger table, only the rows of some positions are read
        tables = [alone.vectors(name, min(elements, most)) for name, elements in tower.tables]
        yield from _counted(tower, _layers(alone, tower.embedding), max(tower.encoded - tower.added, 0) // tower.window)
        yield from _counted(tower, (*tables, *_layers(alone, tower.layers)), tower.encoded)
        yield from _counted(tower, _layers(alone, tower.projector), tower.rows)


def _layers(lowering: Lowering, layers: Iterable[LayerGroup]) -> Iterator[Op]:
    for group, count, stored in merge_alike(layers):
        yield from (op.times(count, stored=stored) for op in lowering.layer(group))


def _counted(tower: Tower, operators: Iterable[Op], positions: int) -> Iterator[Op]:
    for op in operators:
        amounts = {n: encoded(form, positions, tower.times) for n, form in op.amounts().items() if isinstance(form, LinearForm) or form}
        if tower.ways > 1:
            amounts = {name: form / tower.ways for name, form in amounts.items()}
        yield op.having(name=f"{tower.senses}.{op.name}", **amounts)
