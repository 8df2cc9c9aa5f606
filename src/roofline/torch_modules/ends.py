"""What is outside the layers of a module: embedding, head, norms, towers, and what no part has."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from roofline.model import CountedMixer, Embedding, Head, LayerGroup, Norm
from roofline.model.ends import EMBEDDING, HEAD
from roofline.torch_modules.attention import counted
from roofline.torch_modules.events import Call, Product, Record
from roofline.torch_modules.kept import tensors_in
from roofline.torch_modules.layers import Layer
from roofline.torch_modules.notes import address_of
from roofline.torch_modules.pieces import Pieces, named, projection
from roofline.torch_modules.required import torch
from roofline.torch_modules.tally import FLOATS, Tally, Weight, inside, shown


def towers_of(tally: Tally, outside: list[Weight]) -> dict[str, int]:
    """Return the outermost modules outside the layers that never ran on text, and unused parameters that stand beside them, with their sizes."""
    found: dict[str, int] = {}
    for weight in outside:
        parts = weight.name.split(".")
        path = next((path for i in range(1, len(parts)) if not tally.runs[path := ".".join(parts[:i])] and not _list(tally, path)), None)
        if path is not None and weight.name not in tally.used:
            found[path] = found.get(path, 0) + weight.size
    beside = {path.rpartition(".")[0] for path in found}
    loose = [weight for weight in outside if weight.name not in tally.used and weight.name.rpartition(".")[0] in beside]
    return found | {weight.name: weight.size for weight in loose if weight.name not in found}


def named_towers(towers: Mapping[str, int]) -> tuple[str, ...]:
    """Return in words that towers are in no memory of a model."""
    return tuple(f"{path}, {size:,} parameters that no run on text alone uses: in no memory here" for path, size in towers.items())


def _list(tally: Tally, path: str) -> bool:
    """Return whether a module only holds others, and so never runs itself."""
    return isinstance(tally.module.get_submodule(path), (torch.nn.ModuleList, torch.nn.ModuleDict))


def common_widths(layers: list[Layer]) -> list[int]:
    """Return the widths that most matrices of the layers come from or lead to."""
    widths: Counter[int] = Counter()
    for weight in (weight for layer in layers for weight in (*layer.own, *layer.borrowed) if weight.uses):
        widths.update({weight.inputs, weight.outputs})
    most = max(widths.values(), default=0)
    return [width for width, number in widths.items() if number == most]


def token_table(tally: Tally, widths: list[int]) -> Weight | None:
    """Return the table that token ids are looked up in.

    It is the one that transformers' class names, else the largest whose rows depend on more than positions, of the layers' width if one is.
    """
    tables = [tally.weight(name) for name in tally.embeddings]
    tables = [table for table in tables if len(table.shape) == 2]
    known = _named_table(tally.module)

    def fits(table: Weight) -> tuple[bool, bool, bool, int]:
        named = tally.module.get_parameter(table.name) is known
        return named, table.name not in tally.placed, table.shape[1] in widths, table.size

    return max(tables, key=fits, default=None)


def _named_table(module: torch.nn.Module) -> Any:
    """Return the weight of what a class of transformers names as its embedding of tokens, None where it names none."""
    try:
        return getattr(module.get_input_embeddings(), "weight", None)  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None


def width_of(widths: list[int], table: Weight | None) -> int:
    """Return the width of the residual stream."""
    if table is not None and (table.shape[1] in widths or not widths):
        return table.shape[1]
    return widths[0] if widths else 1


def _logits(record: Record) -> int:
    outputs = record.outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs[0] if isinstance(outputs, tuple) else outputs
    return int(logits.shape[-1]) if isinstance(logits, torch.Tensor) and logits.ndim > 1 else 0


def ends_of(
    tally: Tally, outside: list[Weight], table: Weight | None, hidden: int, record: Record
) -> tuple[dict[str, Any], tuple[LayerGroup, ...], tuple[str, ...]]:
    """Return embedding, final norm and head, and what else is outside the layers as a group of its own."""
    left = [weight for weight in outside if table is None or weight.name != table.name]
    idle = [weight for weight in left if weight.name not in tally.used]
    left = [weight for weight in left if weight.name in tally.used]
    ends: dict[str, Any] = {}
    logits = _logits(record)
    pieces = Pieces(left)
    rows = table and (table.part or table)  # of the table those that make logits
    tied = rows is not None and (rows.uses == 1 or rows.last_only) and rows.inputs == rows.shape[1] and logits == rows.shape[0]
    last = [weight for weight in pieces.vectors if weight.last_only and weight.outputs == logits]
    pieces = Pieces(left, matrices=last)
    heads = [weight for weight in pieces.matrices if weight.outputs == logits and (weight.uses == 1 or weight in last)]
    formats = [(EMBEDDING, table.format)] if table is not None else []
    if heads and not tied:
        head = heads[-1]
        bias = pieces.bias(head)
        pieces.matrices.remove(head)
        formats += [(HEAD, head.format)]
        ends["head"] = Head(outputs=logits, tied=False, bias=bias > 0, inner=None if head.inputs == hidden else head.inputs)
    elif tied and table is not None:
        loose = [vector for vector in pieces.vectors if vector.size == logits and vector.leaf.endswith("bias")]
        pieces.vectors = [vector for vector in pieces.vectors if vector not in loose[:1]]
        formats += [(HEAD, table.format)]
        ends["head"] = Head(outputs=logits, tied=True, bias=bool(loose), inner=None if table.inputs == hidden else table.inputs)
    tables = [
        vector for vector in pieces.vectors if vector.name in tally.embeddings and len(vector.shape) == 2 and vector.shape[1] == hidden
    ]
    if table is not None:
        positions = sum(vector.shape[0] for vector in tables)
        others = [v for v in pieces.vectors if v.name in tally.embeddings and len(v.shape) == 2 and v not in tables][:1]
        second: dict[str, Any] = {"layer_rows": others[0].shape[0], "layer_width": others[0].shape[1]} if others else {}
        ends["embedding"] = Embedding(vocabulary=table.shape[0], width=table.shape[1], positions=positions, **second)
        pieces.vectors = [vector for vector in pieces.vectors if vector not in (*tables, *others)]
    later = _later(pieces, _after(tally, record))
    size = sum(vector.size for vector in pieces.vectors) if not pieces.matrices else 0
    if size:
        ends["final_norm"] = Norm(name="norm", width=hidden, parameters=size)
        pieces.vectors = []
    further: tuple[LayerGroup, ...] = ()
    notes = (*_once(tally, logits), *_unsure(tally), *_packed(tally, [*heads[-1:], *([table] if table is not None else [])]))
    ends["formats"] = tuple((place, format) for place, format in formats if format)
    if table is not None and table.token_flops and not tied:  # multiplied with beside being looked up in
        further = (LayerGroup(count=1, mixer=counted(Pieces([table]), (), (), "", cached=False), feed_forward=None, distinct=0),)
    unread = sum(weight.size for weight in idle)
    if pieces.matrices or pieces.vectors or pieces.idle or unread:
        part = counted(pieces, (), (), "", cached=False).but(idle=unread + pieces.idle)
        further = (*further, LayerGroup(count=1, mixer=part, feed_forward=None, formats=pieces.formats("")))
    further = (*further, *later)
    if idle:
        notes += (f"the use of {unread:,} parameters that no operator of the forward read: {_shown(idle)}",)
    return ends, further, notes


def _after(tally: Tally, record: Record) -> Counter[str]:
    """Return how often every row passes a matrix after all layers, where nothing but results is made of it and no token sees a later one.

    A sequence needs these for the rows of which logits are asked alone. Results that are not of every token may be made of all of them.
    """
    calls = [event for event in tally.events if isinstance(event, Call)]
    if any(call.visible.looks_ahead if call.visible is not None else not tally.kept for call in calls):
        return Counter()

    tokens = tally.lengths[1]
    results = [tensor for _, (tensor, _) in tensors_in(record.outputs) if tensor.is_floating_point() and tensor.ndim]
    if any(tokens not in tensor.shape and tally.layer_of(record.made.get(address_of(tensor), "")) is None for tensor in results):
        return Counter()
    last = max((i for i, event in enumerate(tally.events) if tally.layer_of(event.path) is not None), default=len(tally.events))
    products = [event for event in tally.events[last + 1 :] if isinstance(event, Product) and len(event.parameters) == 1]
    names = [event.parameters[0] for event in products if event.flops == 2 * math.prod(tally.shapes[event.parameters[0]]) * tokens]
    return Counter(names)


def _later(pieces: Pieces, after: Counter[str]) -> tuple[LayerGroup, ...]:
    """Take the matrices that rows pass after all layers out of the others, and return them as groups: their own, and those passed before, too."""
    groups: list[LayerGroup] = []
    later = [weight for weight in pieces.matrices if 0 < after[weight.name] <= weight.uses]
    for before in (False, True):
        some = [weight for weight in later if (weight.uses > after[weight.name]) is before]
        rows = [replace(weight, token_flops=Fraction(2 * weight.size * after[weight.name])) for weight in some]
        if rows:
            alone = tuple(projection(weight, 0 if before else pieces.bias(weight), "") for weight in rows)
            part = CountedMixer(projections=alone, sampled=True)
            formats = tuple((named(weight, ""), weight.format) for weight in rows if weight.format)
            groups.append(LayerGroup(count=1, mixer=part, feed_forward=None, formats=formats, distinct=0 if before else None))
    left = {weight.name: weight.token_flops - 2 * weight.size * after[weight.name] for weight in later}
    pieces.matrices = [replace(w, token_flops=left.get(w.name, w.token_flops)) for w in pieces.matrices if left.get(w.name, 1)]
    return tuple(groups)


def _unsure(tally: Tally) -> tuple[str, ...]:
    """Return what masks leave open, and products that no part counts."""
    found: tuple[str, ...] = ()
    if alike := _all_of_several(tally):
        found += (f"that a token may need only some of the modules in {shown(alike)}: the code runs all of them",)
    if tally.assumed:
        found += (f"masks of {shown(tally.assumed)} that depend on more than positions: taken as hiding nothing beside what comes later",)
    stacked = [weight for weight in map(tally.weight, tally.costs) if len(weight.shape) == 3 and weight.uses == 1 and weight.shape[0] > 1]
    if stacked:
        found += (f"that a token may need only some of the stacked matrices {_shown(stacked)}: the code multiplies it with all of them",)
    return found


def _all_of_several(tally: Tally) -> list[str]:
    """Return the lists in layers of which every token passes all modules, all alike, beside which something is ranked."""
    near = tally.ranks | {path.rpartition(".")[0] for path in tally.ranks}
    found = []
    for path, module in tally.module.named_modules():
        if not isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict)) or path.rpartition(".")[0] not in near:
            continue
        held = [f"{path}.{name}" for name, _ in module.named_children()]
        kinds = {tuple(tuple(parameter.shape) for parameter in child.parameters()) for child in module.children()}
        run = {at for costs in tally.costs.values() for at in costs}
        if (
            tally.layer_of(path) is not None
            and len(held) > 1
            and len(kinds) == 1
            and all(any(inside(at, child) for at in run) for child in held)
        ):
            found.append(path)
    return found


def bytes_of_model(names: list[str]) -> str:
    """Return in words that the formats of some parameters are taken to be those of the model."""
    return f"the format of {shown(names)}: bytes are those of the model's"


def _packed(tally: Tally, ends: list[Weight]) -> tuple[str, ...]:
    """Return what is not known of the formats of parameters that have one of their own; those of matrices, and of table and head, are."""
    weights = [weight for weight in map(tally.weight, tally.shapes) if weight.format]
    packed = [weight for weight in weights if weight.uses > 1 and weight.format not in ("fp8_a16", *FLOATS.values())]
    found = (f"weights= as formats of weights in {_shown(packed)}: they are of its elements, each of several weights",) if packed else ()
    placed = {weight.name for weight in (*weights, *ends) if weight.uses or len(weight.shape) == 3 or weight in ends}
    other = [weight.name for weight in weights if weight.name not in placed and weight.size > 1]
    return (*found, bytes_of_model(other)) if other else found


def _once(tally: Tally, logits: int) -> tuple[str, ...]:
    """Return what is multiplied once for a sequence, however many tokens it has, which no part counts."""
    once = [
        weight
        for weight in map(tally.weight, tally.costs)
        if weight.once_flops and not weight.depthwise and not (weight.last_only and weight.outputs == logits)
    ]
    flops = int(sum(weight.once_flops for weight in once))
    return (f"{flops:,} FLOP of products that a sequence needs once: {_shown(once)}",) if once else ()


def _shown(weights: list[Weight]) -> str:
    return shown([weight.name for weight in weights])
