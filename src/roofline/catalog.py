"""Models by name, and whatever else stands for a model: a path, a dict, a config object, a number of parameters."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from roofline.calls import checks_call
from roofline.errors import ConfigError, UnknownNameError
from roofline.huggingface import model_from_config, read_json
from roofline.model import Model
from roofline.names import normalize_name, unknown_name

__all__ = ["list_models"]

_COUNT = re.compile(r"\d+(\.\d+)?([kmbt])?", re.IGNORECASE)


@cache
def _files() -> dict[str, Path]:
    """Return the file of every entry by the name of the model."""
    return {f.name.removesuffix(".json"): f for f in Path(__file__).with_name("_models").iterdir() if f.name.endswith(".json")}


@cache
def _data(name: str) -> dict[str, Any]:
    """Parse one entry: {aliases, source, config}."""
    entry: dict[str, Any] = json.loads(_files()[name].read_text(encoding="utf-8"))
    return entry


@cache
def _names() -> dict[str, str]:
    return {normalize_name(name): name for name in _files()}


@cache
def _aliases() -> dict[str, str]:
    """Return the model of every alias; unlike a name's own, this needs every entry."""
    return {normalize_name(alias): name for name in _files() for alias in _data(name)["aliases"]}


@checks_call
def list_models() -> list[str]:
    """Return the names of the catalogue.

    Returns
    -------
    list of str
        Every name that :meth:`Model.load` knows without a file [-].

    Examples
    --------
    >>> "llama-3-70b" in list_models()
    True
    """
    return sorted(_files())


@lru_cache(maxsize=256)
def _named(name: str) -> Model | None:
    key = normalize_name(name)
    found = _names().get(key) or _aliases().get(key)
    return None if found is None else _entry(found)


@cache
def _entry(name: str) -> Model:
    return model_from_config(_data(name)["config"], name=name, source=_data(name)["source"])


@lru_cache(maxsize=128)
def _read(path: str, changed_ns: int, size: int, beside: str, beside_changed_ns: int) -> Model:
    file = Path(path)
    data = read_json(file)
    if beside:
        data = {**data, "hf_quant_config": read_json(Path(beside))}
    return model_from_config(data, name=_label(file), source=path)


def _label(file: Path) -> str:
    """Name a model after its file, or after the folder of a config.json."""
    stem = file.stem.removesuffix("_config")
    return file.resolve().parent.name or stem if stem == "config" else stem


def _from_path(path: Path) -> Model:
    try:
        if path.is_dir():
            path = path / "config.json"
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        shown = str(path)
        raise ConfigError(
            f"cannot read {shown[:200]}{'…' if len(shown) > 200 else ''}: {getattr(error, 'strerror', None) or error}."
        ) from None
    beside, beside_changed = path.with_name(f"{path.name.removesuffix('config.json')}hf_quant_config.json"), 0
    if path.name.endswith("config.json"):
        with suppress(OSError):  # NVIDIA ModelOpt's description of number formats, which older exporters wrote to a file of its own
            beside_changed = beside.stat().st_mtime_ns
    return _read(str(path), status.st_mtime_ns, status.st_size, str(beside) if beside_changed else "", beside_changed)


def load_model(source: Any) -> Model:
    """Return the model that `source` names, points at or describes; see :meth:`Model.load`."""
    if isinstance(source, str):
        model = _named(source)
        if model is not None:
            return model
        if _COUNT.fullmatch(source.strip()):
            return Model.anonymous(source)
        if os.sep in source or source.endswith(".json") or os.path.exists(source):
            return _from_path(Path(source))
        raise _unknown(source)
    if isinstance(source, Model):
        return source
    if isinstance(source, os.PathLike):
        return _from_path(Path(source))
    if isinstance(source, Mapping):
        return model_from_config(source, name="config", source="the given dict")
    if isinstance(source, Real) and not isinstance(source, bool):
        return Model.anonymous(float(source) if not isinstance(source, Integral) else int(source))
    to_dict = getattr(source, "to_dict", None)
    if callable(to_dict) and isinstance(to_dict(), Mapping):
        return model_from_config(to_dict(), name=type(source).__name__, source=f"the given {type(source).__name__}")
    raise ConfigError(f"a model is a name, a path, a config (dict or object) or a number of parameters, not {type(source).__name__}.")


def _unknown(name: str) -> UnknownNameError:
    known = [*_files(), *(alias for entry in _files() for alias in _data(entry)["aliases"])]
    return unknown_name("model", name, known, hint="It is no path either; `roofline models` lists the catalogue, a config.json needs none")
