"""A model in words, as printing it shows it."""

from typing import TYPE_CHECKING

from roofline.model.components import Norm, Part
from roofline.model.ends import HEAD
from roofline.units import GIGA, show_bytes

if TYPE_CHECKING:
    from roofline.model.spec import Model


def in_words(model: "Model") -> str:
    """Return a model in a few lines: parameters, layers, what a sequence keeps, what is left out."""
    active = "" if model.active_parameters == model.parameters else f", {model.active_parameters / GIGA:.4g} billion active for a token"
    lines = [f"{model.name}: {model.parameters / GIGA:.4g} billion parameters{active}"]
    runs: dict[str, int] = {}
    for group in model.layers:
        parts = ", ".join(_sizes(part) for part in (group.mixer, group.feed_forward) if part is not None)
        runs[parts] = runs.get(parts, 0) + group.count
    lines += [f"  {count} {'layer' if count == 1 else 'layers'}: {parts}" for parts, count in runs.items()]
    if model.encoder is not None:
        lines.append(f"  encoder of {model.encoder.num_layers} layers, for {model.source_positions} positions")
    for tower in model.towers:
        count = sum(group.count for group in tower.layers if group.mixer is not None)
        lines.append(f"  {tower.senses} tower of {count} layers: {tower.parameters / GIGA:.4g} billion further parameters")
    if model.embedding is not None:
        head = "head" if model.head is None or model.head.name == HEAD else model.head.name
        tied = "" if model.head is None else f", tied {head}" if model.head.tied else f", {head} of {model.head.outputs} outputs"
        lines.append(f"  hidden size: {model.hidden_size}; vocabulary {model.embedding.vocabulary}{tied}")
    if model.dtype is not None:
        lines.append(f"  stored: {show_bytes(model.stored_bytes())}, {model.dtype} where nothing else is said")
    cache, state = model.kv_bytes_per_token(model.kv_format or "bf16"), model.state_bytes_per_sequence
    kept = [f"{show_bytes(cache)} of KV cache per token in {model.kv_format or 'bf16'}"] if cache else []
    source = model.source_bytes_per_sequence(model.kv_format or "bf16")
    kept += [f"{show_bytes(source)} for {model.source_positions} positions of its source"] if source else []
    kept += [f"{show_bytes(state)} of state"] if state else []
    lines += [f"  a sequence holds: {' and '.join(kept)}"] if kept else []
    lines += [f"  positions: {model.max_positions}"] if model.max_positions else []
    lines += [f"  left out: {note}" for note in model.not_modelled]
    return "\n".join([*lines, f"  source: {model.source}"])


def _sizes(part: Part) -> str:
    """Return what kind of part it is, and its sizes by the names of its fields."""
    sizes = []
    for name in part._fields:
        value = getattr(part, name)
        if isinstance(value, Part) and not isinstance(value, Norm):
            sizes.append(f"{name} {_sizes(value)}")
        elif name in ("kind", "prefix") or isinstance(value, bool) or value == part._field_defaults.get(name):
            continue
        elif isinstance(value, (int, str)):
            sizes.append(f"{name} {value}")
    return f"{str(getattr(part, 'kind', '')).replace('_', ' ')} ({', '.join(sizes)})".lstrip()
