"""Reading a config.json key by key: every value is checked, every key read is remembered, what nobody read is refused."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.huggingface.free import FREE_KEYS, FREE_PATTERN, MEANINGS
from roofline.names import nearest_names
from roofline.validation import parse_json, regular_file

if TYPE_CHECKING:
    from roofline.huggingface.stored import Files

_MOST = 2**31
MOST_LAYERS = 4_000
"""Layers that a configuration may ask for: numbers of layers become lists [-]."""
_MOST_LAYERS = {
    # of layers for drafting nobody published more than seven
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), MOST_LAYERS),
    **dict.fromkeys(("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules"), 100),
}
_MISSING: Any = object()
_MOST_BYTES = 1 << 26
_BOM = b"\xef\xbb\xbf"
QUANTIZATION_KEYS = ("quantization_config", "compression_config", "quantization", "hf_quant_config")
"""Where number formats are described: in three places of config.json, and in the file that ModelOpt puts beside it."""


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object from a file.

    Parameters
    ----------
    path : Path
        The file [-].

    Returns
    -------
    dict
        Its content [-].

    Raises
    ------
    ConfigError
        If the file cannot be read, is not JSON, or is no object.
    """
    try:
        size = regular_file(path).stat().st_size
        if size > _MOST_BYTES:
            raise ConfigError(f"{path} has {size / 1e6:.0f} MB: a config.json has kilobytes, so it is something else.")
        data = parse_json(path.read_bytes().removeprefix(_BOM).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is no text, and so not valid JSON'}.") from None
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {str(error).rstrip('.?')}.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a JSON {type(data).__name__}, not the object that a config.json is.")
    return data


class Config:
    """One level of a model configuration."""

    def __init__(self, data: Mapping[str, Any], where: str, outer: "Config | None" = None, files: "Files | None" = None) -> None:
        self.data = data  # keys and values as published
        self.where = where  # what to call it in messages
        self.outer = outer  # the configuration it is nested in, asked for what it lacks itself
        self.files: Files | None = (
            outer.files if outer is not None else files
        )  # the tensors of the checkpoint, where their headers are there
        self.seen: set[str] = set()
        self.inner: list[Config] = []

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def assume(self, **defaults: Any) -> None:
        """Fill in what published files of a family leave to the class defaults of its reference implementation."""
        self.data = {**defaults, **{k: v for k, v in self.data.items() if v is not None or k not in defaults}}

    def _find(self, keys: Sequence[str]) -> tuple[str, Any]:
        self.seen.update(keys)
        for key in keys:
            if self.data.get(key) is not None:
                return key, self.data[key]
        return keys[0], _MISSING

    def _missing(self, keys: Sequence[str]) -> ConfigError:
        near = nearest_names(keys[0], [str(k) for k, value in self.data.items() if value is not None], most=2)
        return ConfigError(
            f"{self.where} lacks {' or '.join(repr(k) for k in keys)}"
            + (f"; nearest key there: {', '.join(map(repr, near))}" if near else "")
            + "."
        )

    def _wrong(self, key: str, value: Any, wanted: str) -> ConfigError:
        return ConfigError(f"{self.where}: {key!r} is {quoted(value)}; it must be {wanted}.")

    def size(self, *keys: str, default: Any = _MISSING, least: int = 1) -> int:
        """Return a whole number under the first of several keys."""
        key, value = self._find(keys)
        if value is _MISSING:
            if default is _MISSING:
                raise self._missing(keys)
            return default  # type: ignore[no-any-return]
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        most = _MOST_LAYERS.get(keys[0], _MOST)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._wrong(key, value, f"a whole number of {least} … {most}")
        return value

    def flag(self, *keys: str, default: bool) -> bool:
        """Return true or false under the first of several keys."""
        key, value = self._find(keys)
        if value is _MISSING:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, *keys: str, default: str) -> str:
        """Return text under the first of several keys."""
        key, value = self._find(keys)
        if value is _MISSING:
            return default
        if not isinstance(value, str):
            raise self._wrong(key, value, "text")
        return value

    def items(self, *keys: str, length: int | None = None) -> list[Any] | None:
        """Return a list under the first of several keys, or None if there is none."""
        key, value = self._find(keys)
        if value is _MISSING:
            return None
        if not isinstance(value, (list, tuple)):
            raise self._wrong(key, value, "a list")
        if length is not None and len(value) != length:
            raise ConfigError(f"{self.where}: {key!r} has {len(value)} items for {length} layers.")
        return list(value)

    def nested(self, key: str) -> "Config | None":
        """Return the configuration nested under a key, or None if there is none."""
        key, value = self._find((key,))
        if value is _MISSING:
            return None
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "an object")
        self.inner.append(Config(value, f"{self.where}, {key!r}", self))
        return self.inner[-1]

    def only(self, key: str, *allowed: Any, means: str) -> None:
        """Refuse a key that changes the cost, unless it has a value that is modelled."""
        key, value = self._find((key,))
        if value is not _MISSING and value not in allowed:
            supported = ", ".join(quoted(a) for a in allowed)
            raise UnsupportedModelError(
                f"{self.where}: {key!r} is {quoted(value)}, which means {means}; that is not modelled. Supported: {supported} or absent."
            )

    def free(self, *keys: str) -> None:
        """Note keys that this family has and that do not change the cost."""
        self.seen.update(keys)

    def quantization(self) -> dict[str, Any]:
        """Return what is said about number formats, here or further out, by key; empty if nothing is quantized."""
        found: dict[str, Any] = {}
        level: Config | None = self
        while level is not None:
            level.free(*QUANTIZATION_KEYS)
            for key in QUANTIZATION_KEYS:
                if key in level:
                    if not isinstance(level.data[key], Mapping):
                        raise ConfigError(f"{level.where}: {key!r} is {quoted(level.data[key])}; it must be an object.")
                    found.setdefault(key, level.data[key])
            level = level.outer
        return found

    def refuse_unread(self) -> None:
        """Refuse keys, here and in nested levels, that no reader asked for and that are not known to be free."""
        for level in self.inner:
            level.refuse_unread()
        for key, value in self.data.items():
            if key in self.seen or key in FREE_KEYS or FREE_PATTERN.search(str(key)) or _inert(value):
                continue
            meaning = next((m for part, m in MEANINGS.items() if part in str(key)), "an extension of the architecture")
            near = nearest_names(str(key), self.seen, most=3)
            raise UnsupportedModelError(
                f"{self.where}: key {quoted(str(key))} = {quoted(value)} is not understood; it might mean {meaning}, which would change the cost."
                + (f" Keys understood here that look like it: {', '.join(near)}." if near else "")
            )


def _inert(value: Any) -> bool:
    """Whether a key switches nothing on: null, false, an empty list or object."""
    return value is None or value is False or value == [] or value == {} or value == ""
