"""A module as a `Model`: run twice on the meta device, its parameters and what it did attributed to parts."""

import copy
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from roofline.errors import InvalidValueError, UnsupportedModelError, quoted
from roofline.model import Embedding, Head, LayerGroup, Model, Norm
from roofline.torch_modules.attention import counted
from roofline.torch_modules.build import build, one_line, quiet
from roofline.torch_modules.events import Call, Record
from roofline.torch_modules.inputs import Inputs, arguments
from roofline.torch_modules.layers import Layer, groups, split_layers
from roofline.torch_modules.notes import address_of
from roofline.torch_modules.pieces import Pieces
from roofline.torch_modules.required import torch
from roofline.torch_modules.tally import Tally, Weight, inside, take
from roofline.torch_modules.values import give
from roofline.torch_modules.watch import watch
from roofline.visibility import BIDIRECTIONAL, CAUSAL, Visibility

_LENGTHS = (5, 11)
"""Tokens of the two runs: primes, so that no width of a model is taken for one of them [token]."""

_LONGER = (4099, 2039, 1021, 509, 251, 127, 61, 31, 17)
"""Tokens of the run that looks for windows in masks, the first that the module allows: primes just below usual limits [token]."""

_DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def read_module(module: Any, *, inputs: Inputs = None, name: str = "", visible: str | None = None) -> Model:
    """Return the model that a module is; see :meth:`Model.from_module`."""
    if visible not in (None, "causal", "bidirectional"):
        raise InvalidValueError(f"visible is {quoted(visible)}; it is 'causal' or 'bidirectional'.")
    if not isinstance(module, torch.nn.Module):
        raise InvalidValueError(f"module is {quoted(module)}; it must be a torch.nn.Module.")
    dtypes = Counter(parameter.dtype for parameter in module.parameters() for _ in range(min(parameter.numel(), 1)))
    plain = _DTYPES.get(dtypes.most_common(1)[0][0]) if dtypes else None
    seen = None if visible is None else CAUSAL if visible == "causal" else BIDIRECTIONAL
    return _read(_on_meta(module), inputs, name or type(module).__name__, plain, visible=seen)


def read_code(data: Mapping[str, Any], *, name: str) -> Model:
    """Return the model of a configuration, read from transformers' code for it."""
    module, config = build(data, name)
    dtype = data.get("dtype", data.get("torch_dtype"))
    plain = next((label for kind, label in _DTYPES.items() if str(kind) == f"torch.{dtype}"), None)
    notes: tuple[str, ...] = ()
    if data.get("quantization_config"):
        plain, notes = None, ("the number formats that the checkpoint is quantized to: weights= says them",)
    composite = config.get_text_config() is not config
    try:
        model = _read(module, None, name, plain, composite=composite)
    except UnsupportedModelError as error:
        if "float" not in str(error).lower():
            raise
        model = _read(module.float(), None, name, plain, composite=composite)  # code that mixes a format of its own with 16 bits
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return model.but(
        max_positions=longest if isinstance(longest, int) and longest > 0 else None, not_modelled=(*model.not_modelled, *notes)
    )


def _on_meta(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a module on the meta device, without copying a weight."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = torch.nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = held = torch.empty_like(buffer, device="meta")
        if buffer.device.type != "meta":
            give(held, buffer.detach().cpu())
    return copy.deepcopy(module, memo).eval()


def _read(
    module: torch.nn.Module, inputs: Inputs, name: str, dtype: str | None, *, composite: bool = False, visible: Visibility | None = None
) -> Model:
    if getattr(getattr(module, "config", None), "is_encoder_decoder", False) and inputs is None:
        raise UnsupportedModelError(f"{name}: {type(module).__name__} is an encoder–decoder, which is not read from code.")
    for path, inner in module.named_modules():
        if isinstance(inner, (torch.nn.Transformer, torch.nn.TransformerDecoder)):
            raise UnsupportedModelError(
                f"{name}: {path or 'it'} is a {type(inner).__name__}, an encoder–decoder, which is not read from code."
            )
    named: dict[int, tuple[str, ...]] = {}
    for parameter_name, parameter in module.named_parameters():
        named.setdefault(address_of(parameter), (parameter_name,))
    buffers = {address_of(buffer): (path, sum(size > 1 for size in buffer.shape) > 1) for path, buffer in module.named_buffers()}
    with quiet(), torch.device("meta"):
        short, long = (_run(module, named, buffers, inputs, tokens, name) for tokens in _LENGTHS)
        further = _further(module, named, buffers, inputs, name) if long.masked else None
    if callable(inputs):
        _check_inputs(short, long)
        _check_batch([arguments(module, inputs, tokens) for tokens in _LENGTHS])
    try:
        tally = take(module, (short, long), _LENGTHS, visible, further)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{name}: {error}") from None
    if not tally.kept and not any(isinstance(event, Call) for event in tally.events):
        if tally.left:
            raise UnsupportedModelError(
                f"{name}: {tally.left[0]} multiplies activations in a way that is no attention known here, and no state was kept."
            )
        raise UnsupportedModelError(
            f"{name}: no attention was called and no state was kept, so that it is no model of sequences that could be read from its code."
        )
    return _model(tally, name, dtype, long, composite=composite)


def _further(
    module: torch.nn.Module, named: dict[int, tuple[str, ...]], buffers: dict[int, tuple[str, bool]], inputs: Inputs, name: str
) -> tuple[Record, int] | None:
    """Return the longest run that a module with masks of its own allows, for windows show only beyond their length."""
    for tokens in _LONGER:
        try:
            return _run(module, named, buffers, inputs, tokens, name), tokens
        except UnsupportedModelError:  # more than its masks hold
            continue
    return None


def _check_inputs(short: Record, long: Record) -> None:
    """Refuse inputs of which attention gets another number of tokens than was asked for."""
    rows = [max((event.queries for event in record.events if isinstance(event, Call)), default=None) for record in (short, long)]
    if rows[0] is None or rows[1] is None or rows[1] - rows[0] == _LENGTHS[1] - _LENGTHS[0]:
        return
    raise InvalidValueError(
        f"inputs makes {rows[0]} tokens where {_LENGTHS[0]} are asked for, and {rows[1]} where {_LENGTHS[1]} are; it makes as many as its argument says."
    )


def _check_batch(made: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
    """Refuse inputs of several sequences."""
    first = [[leaf for leaf in (*positional, *given.values()) if isinstance(leaf, torch.Tensor)][:1] for positional, given in made]
    for short, long in zip(*first, strict=True):
        if short.ndim in (2, 3) and short.shape[0] == long.shape[0] > 1 and short.shape[1] != long.shape[1]:
            raise InvalidValueError(
                f"inputs makes a batch of {short.shape[0]} sequences; it makes one, of as many tokens as its argument says."
            )


def _run(
    module: torch.nn.Module, named: dict[int, tuple[str, ...]], buffers: dict[int, tuple[str, bool]], inputs: Inputs, tokens: int, name: str
) -> Record:
    try:
        positional, given = arguments(module, inputs, tokens)
        return watch(module, named, buffers, positional, given, tokens)
    except (InvalidValueError, UnsupportedModelError):
        raise
    except Exception as error:  # whatever a module raises
        raise UnsupportedModelError(
            f"{name}: its code does not run on torch's meta device with {tokens} token ids ({type(error).__name__}: {one_line(error)}); "
            "inputs= gives a function of the number of tokens that makes other arguments."
        ) from None


def _model(tally: Tally, name: str, dtype: str | None, record: Record, *, composite: bool) -> Model:
    layers, outside = split_layers(tally)
    vocabulary = _table(tally, record)
    hidden = _hidden(layers, vocabulary)
    parts = groups(tally, layers, hidden)
    towers = _towers(tally, outside) if composite else {}
    outside = [weight for weight in outside if not any(inside(weight.name, path) for path in towers)]
    ends, further, notes = _ends(tally, outside, vocabulary, hidden, record)
    notes += tuple(f"{path}, {size:,} parameters that no run on text alone uses: in no memory here" for path, size in towers.items())
    model = Model(
        name=name,
        source=f"read from code: {type(tally.module).__name__}",
        hidden_size=hidden,
        dtype=dtype,
        layers=(*parts, *further),
        not_modelled=notes,
        unknown_towers=tuple(towers),
        **ends,
    )
    expected = sum(math.prod(shape) for shape in tally.shapes.values()) - sum(towers.values())
    if model.parameters != expected:
        raise UnsupportedModelError(f"{name}: {expected:,} parameters, of which {model.parameters:,} could be attributed to parts.")
    return model


def _towers(tally: Tally, outside: list[Weight]) -> dict[str, int]:
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


def _list(tally: Tally, path: str) -> bool:
    """Return whether a module only holds others, and so never runs itself."""
    return isinstance(tally.module.get_submodule(path), (torch.nn.ModuleList, torch.nn.ModuleDict))


def _table(tally: Tally, record: Record) -> Weight | None:
    """Return the table that token ids are looked up in: the one that transformers' class names, else the largest."""
    tables = [tally.weight(name) for name in tally.embeddings]
    tables = [table for table in tables if len(table.shape) == 2]
    known = _named_table(tally.module)
    return max(tables, key=lambda table: (tally.module.get_parameter(table.name) is known, table.size), default=None)


def _named_table(module: torch.nn.Module) -> Any:
    """Return the weight of what a class of transformers names as its embedding of tokens, None where it names none."""
    try:
        return getattr(module.get_input_embeddings(), "weight", None)
    except (AttributeError, NotImplementedError):
        return None


def _hidden(layers: list[Layer], table: Weight | None) -> int:
    """Return the width of the residual stream: what most matrices of the layers come from or lead to."""
    widths: Counter[int] = Counter()
    for weight in (weight for layer in layers for weight in (*layer.own, *layer.borrowed) if weight.uses):
        widths.update({weight.inputs, weight.outputs})
    if not widths:
        return table.shape[1] if table is not None else 1
    most = max(widths.values())
    common = [width for width, number in widths.items() if number == most]
    return table.shape[1] if table is not None and table.shape[1] in common else common[0]


def _logits(record: Record) -> int:
    outputs = record.outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs[0] if isinstance(outputs, tuple) else outputs
    return int(logits.shape[-1]) if isinstance(logits, torch.Tensor) and logits.ndim > 1 else 0


def _ends(
    tally: Tally, outside: list[Weight], table: Weight | None, hidden: int, record: Record
) -> tuple[dict[str, Any], tuple[LayerGroup, ...], tuple[str, ...]]:
    """Return embedding, final norm and head, and what else is outside the layers as a group of its own."""
    left = [weight for weight in outside if table is None or weight.name != table.name]
    idle = [weight for weight in left if weight.name not in tally.used]
    left = [weight for weight in left if weight.name in tally.used]
    ends: dict[str, Any] = {}
    logits = _logits(record)
    pieces = Pieces(left)
    tied = table is not None and (table.uses == 1 or table.last_only) and table.inputs == table.shape[1] and logits == table.shape[0]
    last = [weight for weight in pieces.vectors if weight.last_only and weight.outputs == logits]
    pieces = Pieces(left, matrices=last)
    heads = [weight for weight in pieces.matrices if weight.outputs == logits and (weight.uses == 1 or weight in last)]
    bias = 0
    if heads and not tied:
        head = heads[-1]
        bias = pieces.bias(head)
        pieces.matrices.remove(head)
        ends["head"] = Head(outputs=logits, tied=False, bias=bias > 0, inner=None if head.inputs == hidden else head.inputs)
    elif tied and table is not None:
        loose = [vector for vector in pieces.vectors if vector.size == logits and vector.leaf.endswith("bias")]
        pieces.vectors = [vector for vector in pieces.vectors if vector not in loose[:1]]
        ends["head"] = Head(outputs=logits, tied=True, bias=bool(loose), inner=None if table.inputs == hidden else table.inputs)
    tables = [
        vector for vector in pieces.vectors if vector.name in tally.embeddings and len(vector.shape) == 2 and vector.shape[1] == hidden
    ]
    if table is not None:
        positions = sum(vector.shape[0] for vector in tables)
        ends["embedding"] = Embedding(vocabulary=table.shape[0], width=table.shape[1], positions=positions)
        pieces.vectors = [vector for vector in pieces.vectors if vector not in tables]
    size = sum(vector.size for vector in pieces.vectors) if not pieces.matrices else 0
    if size:
        ends["final_norm"] = Norm(name="norm", width=hidden, parameters=size)
        pieces.vectors = []
    further: tuple[LayerGroup, ...] = ()
    notes = (*_once(tally, logits), *_unsure(tally))
    if table is not None and table.token_flops and not tied:  # multiplied with beside being looked up in
        further = (LayerGroup(count=1, mixer=counted(Pieces([table]), (), (), "", cached=False), feed_forward=None, distinct=0),)
    if pieces.matrices or pieces.vectors or idle:
        part = counted(pieces, (), (), "", cached=False).but(idle=sum(weight.size for weight in idle))
        further = (*further, LayerGroup(count=1, mixer=part, feed_forward=None))
    if idle:
        notes += (f"the use of {sum(weight.size for weight in idle):,} parameters that no operator of the forward read: {_shown(idle)}",)
    return ends, further, notes


def _unsure(tally: Tally) -> tuple[str, ...]:
    """Return what masks leave open, and products that no part counts."""
    found: tuple[str, ...] = ()
    if tally.assumed:
        found += (f"masks of {_names(tally.assumed)} that depend on more than positions: taken as hiding nothing beside what comes later",)
    stacked = [weight for weight in map(tally.weight, tally.costs) if len(weight.shape) == 3 and weight.uses == 1 and weight.shape[0] > 1]
    if stacked:
        found += (f"that a token may need only some of the stacked matrices {_shown(stacked)}: the code multiplies it with all of them",)
    if tally.left:
        found += (f"the FLOP of products of activations in {_names(tally.left)}",)
    return found


def _once(tally: Tally, logits: int) -> tuple[str, ...]:
    """Return what is multiplied once for a sequence, however many tokens it has, which no part counts."""
    once = [
        weight for weight in map(tally.weight, tally.costs) if weight.once_flops and not (weight.last_only and weight.outputs == logits)
    ]
    flops = int(sum(weight.once_flops for weight in once))
    return (f"{flops:,} FLOP of products that a sequence needs once: {_shown(once)}",) if once else ()


def _shown(weights: list[Weight]) -> str:
    return _names([weight.name for weight in weights])


def _names(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
