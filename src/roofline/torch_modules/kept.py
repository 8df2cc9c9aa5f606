"""What a module keeps of a sequence: the tensors that its runs return beside their result, and how they grow."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roofline.errors import UnsupportedModelError
from roofline.torch_modules.events import Call, Contraction, Record
from roofline.torch_modules.notes import address_of
from roofline.torch_modules.required import torch

_RESULTS = {
    "logits",
    "last_hidden_state",
    "hidden_states",
    "attentions",
    "loss",
    "pooler_output",
    "prediction_logits",
    "encoder_last_hidden_state",
    "encoder_hidden_states",
    "encoder_attentions",
    "decoder_hidden_states",
    "decoder_attentions",
    "cross_attentions",
}
"""What the outputs of a model have that is no memory of the sequence [-]."""

_CACHES = ("past", "cache", "mem", "state", "kv")
"""What is in the name of an output that is a memory of the sequence [-]."""

_INDICES = (torch.int64, torch.int32, torch.bool)
"""Formats of what only counts or marks positions [-]."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One tensor that is kept."""

    path: str  # the module that made it
    label: str  # what the cache calls it
    row: int  # elements that a token adds, 0 if it does not grow
    elements: int  # elements if it does not grow
    dtype: torch.dtype  # their format
    usual: bool  # whether that is the format of most parameters that a run used
    span: int  # the window that it is cut to, 0 for none
    selects: int  # positions that an indexer selects by it, 0 where it is none's


def kept(module: torch.nn.Module, records: tuple[Record, Record], lengths: tuple[int, int]) -> tuple[Kept, ...]:
    """Return every tensor that is kept, from two runs of different lengths."""
    memories = [_memory(record.outputs) for record in records]
    first, second = (dict(tensors_in(memory)) for memory, _ in memories)
    loose = {id(tensor) for _, (tensor, _) in tensors_in(memories[1][1])}
    attending = {event.path for event in records[1].events if isinstance(event, (Call, Contraction)) and event.path}
    formats: Counter[torch.dtype] = Counter()
    for name, parameter in module.named_parameters():
        formats[parameter.dtype] += parameter.numel() if name in records[1].used else 0
    usual = max(formats, key=formats.__getitem__, default=None)
    found = []
    for place, (tensor, span) in second.items():
        before = first.get(place)
        if before is None or tensor.numel() < 2 or tensor.dtype in _INDICES:
            continue
        full, size = tensor.numel(), before[0].numel()
        made = records[1].made.get(address_of(tensor), "")
        if id(tensor) in loose and full != size and not any(f"{made}.".startswith(f"{path}.") for path in attending):
            continue  # a further result, as logits of a second head
        grown = [min(length, span - 1) if span > 1 else length for length in lengths]
        row = (full - size) // (grown[1] - grown[0]) if grown[1] > grown[0] else full // grown[1]
        ahead = full - row * grown[1] if row else 0  # rows that stand before all tokens
        if ahead != (size - row * grown[0] if row else 0) or (ahead and (ahead < 2 * row or ahead % row)):
            raise UnsupportedModelError(
                f"what {place.lstrip('.')} keeps is {size:,} elements after {lengths[0]} tokens and {full:,} after {lengths[1]}, not so many a token."
            )
        label = place.rsplit(".", 1)[-1]
        found.append(
            Kept(made, label, row, ahead if row else full, tensor.dtype, tensor.dtype == usual, span, _selected(module, made, label))
        )
    returned = {held.path for held in found if not held.row}
    for place, tensor in records[1].states.items():
        path, _, label = place.rpartition(".")
        earlier = records[0].states.get(place)
        if earlier is not None and earlier.shape == tensor.shape and path not in returned:
            found.append(Kept(path, label, 0, tensor.numel(), tensor.dtype, tensor.dtype == usual, 0, 0))
    return tuple(found)


def _selected(module: torch.nn.Module, path: str, label: str) -> int:
    """Return how many positions a token sees where keys of an indexer are kept, 0 where they are others."""
    if "index" not in label:
        return 0
    owner = module.get_submodule(path)
    found = next(
        (n for name in ("index_topk", "index_top_k", "topk", "top_k", "token_budget") if isinstance(n := getattr(owner, name, None), int)),
        0,
    )
    if not found:
        raise UnsupportedModelError(f"{path} keeps keys of an indexer, and how many positions it selects is not found on it.")
    return found


def _memory(outputs: Any) -> tuple[Any, list[Any]]:
    """Return what a run returned beside its result, and which of it neither its name nor its class calls a cache."""
    if isinstance(outputs, Mapping):
        held: Any = {name: value for name, value in outputs.items() if name not in _RESULTS}
        named = {id(value) for name, value in held.items() if any(word in name for word in _CACHES)}
    else:
        held, named = outputs[1:] if isinstance(outputs, tuple) else (), set()
    plain = (torch.Tensor, list, tuple, Mapping)
    values = held.values() if isinstance(held, Mapping) else held
    return held, [value for value in values if isinstance(value, plain) and id(value) not in named]


def tensors_in(held: Any) -> list[tuple[str, tuple[torch.Tensor, int]]]:
    """Return every tensor inside an object by its place there, with the window of what holds it."""
    return list(_tensors(held, "", 0, set()))


def _tensors(held: Any, place: str, span: int, seen: set[int]) -> Iterator[tuple[str, tuple[torch.Tensor, int]]]:
    """Yield every tensor inside an object by its place there, with the window of what holds it."""
    if id(held) in seen or isinstance(held, (str, bytes, torch.nn.Module, type)) or callable(held):
        return
    seen.add(id(held))
    if isinstance(held, torch.Tensor):
        yield place, (held, span)
    elif isinstance(held, (list, tuple, Mapping)):
        for name, value in held.items() if isinstance(held, Mapping) else enumerate(held):
            yield from _tensors(value, f"{place}[{name}]" if isinstance(name, int) else f"{place}.{name}", span, seen)
    elif hasattr(held, "__dict__"):
        own = vars(held)
        window = own.get("sliding_window")
        for name, value in own.items():
            if name not in ("config", "_sliding_window_tensor"):
                yield from _tensors(value, f"{place}.{name}", window if isinstance(window, int) else span, seen)
