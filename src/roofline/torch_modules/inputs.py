"""What a module is run on: token ids on the meta device, as many as asked for."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from roofline.errors import InvalidValueError, UnsupportedModelError, quoted
from roofline.torch_modules.required import torch

Inputs = Callable[[int], Any] | Mapping[str, Any] | None


_OF_OTHERS = {
    "cross_attention_states": "what an encoder makes of images",
    "self_conditioning_logits": "what its last run predicted of a block that it makes in several",
    "shared_kv_states": "the cache of the model that it drafts for",
}
"""Arguments of transformers' classes that layers attend to and no token ids make."""

_IN_BOOKS: dict[str, Callable[[Any, int], tuple[int, ...]]] = {
    "dia": lambda config, tokens: (1, tokens, config.decoder_config.num_channels),
    "kyutai_speech_to_text": lambda config, tokens: (1, tokens, config.num_codebooks + 1),  # and one of text
    "musicgen_decoder": lambda config, tokens: (config.num_codebooks, tokens),
    "musicgen_melody_decoder": lambda config, tokens: (config.num_codebooks, tokens),
}
"""Families of transformers of which a token is an id in each of several codebooks, and the shape of so many tokens."""


def token_ids(module: torch.nn.Module, tokens: int) -> torch.Tensor:
    """Return the ids of so many tokens."""
    config = getattr(module, "config", None)
    shape = _IN_BOOKS.get(getattr(config, "model_type", ""))
    return torch.zeros((1, tokens) if shape is None else shape(config, tokens), dtype=torch.int64, device="meta")


def arguments(module: torch.nn.Module, inputs: Inputs, tokens: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a run of so many tokens."""
    if callable(inputs):
        made = inputs(tokens)
        if isinstance(made, Mapping):
            return (), {name: _on_meta(value) for name, value in made.items()}
        return tuple(_on_meta(value) for value in (made if isinstance(made, tuple) else (made,))), {}
    if inputs is not None and not isinstance(inputs, Mapping):
        raise InvalidValueError(
            f"inputs is {quoted(inputs)}; it is a mapping of further arguments, or a function of the number of tokens that makes all."
        )
    takes = inspect.signature(module.forward).parameters
    given: dict[str, Any] = {name: _on_meta(value) for name, value in (inputs or {}).items()}
    others = next((name for name in _OF_OTHERS if name in takes and name not in given), None)
    if others is not None:
        raise UnsupportedModelError(
            f"{type(module).__name__} also attends to {others}, {_OF_OTHERS[others]}, which reading its code leaves out: "
            "from_module(module, inputs=...) is given it."
        )
    if "use_cache" in takes or (any(p.kind is p.VAR_KEYWORD for p in takes.values()) and hasattr(module, "config")):
        given.setdefault("use_cache", True)
        name = "cache" if "cache" in takes else "past_key_values"
        if name in takes and _cache_too_short(module):
            from transformers import DynamicCache

            given.setdefault(name, DynamicCache())
    if "input_ids" in takes:
        return (), {"input_ids": token_ids(module, tokens), **given}
    return (token_ids(module, tokens),), given


def _cache_too_short(module: torch.nn.Module) -> bool:
    """Return whether a decoder of transformers would make its cache for as many layers as its encoder has (Blenderbot)."""
    config = getattr(module, "config", None)
    layers = getattr(config, "decoder_layers", None)
    return isinstance(layers, int) and not config.is_encoder_decoder and layers > config.num_hidden_layers  # type: ignore[union-attr]


def _on_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) else value
