"""What a configuration says of its class, and what it leaves to it: keys that the class does not know, sizes that are its defaults."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roofline.errors import ConfigError, quoted
from roofline.huggingface.config import MOST_LAYERS
from roofline.huggingface.free import FREE_KEYS, FREE_PATTERN
from roofline.torch_modules.tally import shown

_NO_SIZE = re.compile(r"^(dtype|torch_dtype|text_config|tokens_per_second)$|^(mask|classifier)_")
"""Keys that say nothing of the sizes of a model that makes or encodes text, or that have keys of their own [-]."""


_LAYERS = re.compile(r"(^|_)(n_layer|layers)$")
"""Keys that say of how many layers a module is built [-]."""


def check_layers(told: Mapping[str, Any], name: str) -> None:
    """Refuse more layers than any model has, at any level: a module is built of every one of them."""
    for key, value in told.items():
        if isinstance(value, Mapping):
            check_layers(value, name)
        elif isinstance(value, int) and value > MOST_LAYERS and _LAYERS.search(key):
            raise ConfigError(f"{name}: {quoted(key)} is {quoted(value)}; it must be a whole number of 1 … {MOST_LAYERS}.")


@dataclass(frozen=True, slots=True)
class _Level:
    """One level of a configuration, beside the defaults of its class."""

    path: str  # the keys that lead to it, each with a dot behind it
    told: Mapping[str, Any]
    config: Any
    defaults: Mapping[str, Any]

    @property
    def known(self) -> set[str]:
        """Every key that the class knows."""
        return {*self.defaults, *self.config.attribute_map}

    def unknown(self) -> list[str]:
        """Return the keys that the class does not know, but for those that change no cost."""
        return [
            key for key, value in self.told.items() if key not in self.known and not _free(key) and value not in (None, False, "", [], {})
        ]

    def sizes(self) -> dict[str, int]:
        """Return the sizes that the class has a default for, but for those that it derives from others."""
        own = {key: getattr(type(self.config), key, None) for key in self.defaults if not _free(key)}
        return {key: size for key, size in own.items() if type(size) is int and size > 0}

    def says(self, key: str) -> bool:
        """Whether a key is there, by any of its names."""
        return key in self.told or any(name in self.told for name, other in self.config.attribute_map.items() if other == key)


def left_to_class(told: Mapping[str, Any], config: Any, name: str, code: str) -> tuple[str, ...]:
    """Return in words what transformers' class fills in of a configuration, and which keys neither it nor its code knows; refuse one without any size."""
    levels = list(_levels(told, config, ""))
    for level in levels:
        for key in level.unknown():
            if near := difflib.get_close_matches(key, level.known - set(level.told), n=1, cutoff=0.9):
                raise ConfigError(
                    f"{name}: transformers knows no {quoted(level.path + key)} in a configuration of {config.model_type}; did you mean {near[0]!r}?"
                )
    unknown = [
        level.path + key
        for level in levels
        for key in level.unknown()
        if not re.search(rf"\b{re.escape(key)}\b", code) and not any(key in other.known for other in levels)
    ]
    sizes = [(level, key, size) for level in levels for key, size in level.sizes().items()]
    filled = [f"{at.path}{key} {size}" for at, key, size in sizes if not at.says(key) and getattr(at.config, key, None) == size]
    if sizes and not any(at.says(key) for at, key, _ in sizes):
        raise ConfigError(
            f"{name} says no size of its model, and those of {type(config).__name__}'s defaults are another's: {shown(filled)}."
        )
    notes = (f"what keys mean that {type(config).__name__} does not know: {shown(unknown)}",) if unknown else ()
    return (*notes, f"sizes that the configuration does not say, taken from its class: {shown(filled)}") if filled else notes


def _free(key: str) -> bool:
    return key in FREE_KEYS or bool(_NO_SIZE.search(key) or FREE_PATTERN.search(key))


def _levels(told: Mapping[str, Any], config: Any, path: str) -> Iterator[_Level]:
    """Yield a configuration and those inside it, as far as their classes have defaults."""
    try:
        defaults = type(config)().to_dict()
    except Exception:  # a configuration class that has no defaults
        return
    yield _Level(path, told, config, defaults)
    for key in type(config).sub_configs:
        inner, said = getattr(config, key, None), told.get(key)
        if hasattr(inner, "sub_configs"):
            flat = told if key == "text_config" else {}  # older files have the keys of the text model in the outer level
            yield from _levels(said if isinstance(said, Mapping) else flat, inner, f"{path}{key}.")
