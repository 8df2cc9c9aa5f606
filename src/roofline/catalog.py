"""Models by name, and whatever else stands for a model: a path, a dict, a config object, a number of parameters."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofline.calls import checks_call
from roofline.errors import ConfigError, InvalidValueError, SpecError, UnknownNameError, quoted
from roofline.formats import named_format
from roofline.hardware.load import find_spec
from roofline.huggingface import model_from_config, read_json
from roofline.huggingface.hub import cached_config, id_words, is_id, is_tuned_otherwise, readings
from roofline.model import Model
from roofline.names import local_path, normalize_name, unknown_name
from roofline.validation import regular_file

if TYPE_CHECKING:
    from roofline.huggingface.check import ModelCheck
    from roofline.huggingface.stored import Files

__all__ = ["check_model", "list_models"]

_COUNT = re.compile(r"\d[\d_]*(\.\d+)?(e\+?\d+|[kmbt])?", re.IGNORECASE)


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


def _entry_of(name: str) -> str | None:
    key = normalize_name(name)
    return _names().get(key) or _aliases().get(key)


@lru_cache(maxsize=256)
def _named(name: str) -> Model | None:
    found = _entry_of(name)
    return None if found is None else _entry(found)


@lru_cache(maxsize=256)
def _read_as(name: str) -> Model | None:
    """Return the entry that an id stands for if it is one of a model's variants, with a note that says so."""
    reading, found = _nearest_entry(name)
    if found is None or _may_be_stored_otherwise(name, reading, found):
        return None
    return _entry(found).but(alias_note=f"{quoted(name)} is read as {found}, whose architecture and formats it is taken to have")


def _nearest_entry(name: str) -> tuple[str, str | None]:
    """Return the first reading of an id that is an entry's, and the entry."""
    return next(((reading, entry) for reading in readings(name) if (entry := _entry_of(reading))), (name, None))


def _may_be_stored_otherwise(name: str, reading: str, entry: str) -> bool:
    """Return whether a variant may be published in another format than the entry that it would be read as.

    Models in 16 bits are published so whatever they are tuned for; of others a variant often is not (Kimi-K2-Thinking is in int4, Kimi-K2
    in fp8; gemma-2 in float32, gemma-2-it in bfloat16), unless its name states the format.
    """
    plain = _entry(entry).dtype in ("bf16", "fp16") and not any(group.formats for group in _entry(entry).layers)
    return not plain and is_tuned_otherwise(name, reading) and not any(map(named_format, id_words(reading)))


def is_known_model(name: str) -> bool:
    """Return whether a text is a name of the catalogue, or an id of a variant of one."""
    return (_named(name) or _read_as(name)) is not None


@cache
def _entry(name: str) -> Model:
    return model_from_config(_data(name)["config"], name=name, source=_data(name)["source"])


@lru_cache(maxsize=128)
def _read(path: str, name: str, states: tuple[tuple[str, int, int], ...]) -> Model:
    """Return the model of a config.json or a GGUF file; `states` are the files that it is read from, as they are now."""
    return _opened(path, name)[0]


def _opened(path: str, name: str, read: str = "auto") -> "tuple[Model, Files | None]":
    """Return the model of a config.json or a GGUF file, and the tensors of its checkpoint where their headers are there."""
    from roofline import checkpoints  # not needed for a name of the catalogue

    if _is_gguf(Path(path)):
        if read == "code":
            raise ConfigError(f"{path} is a GGUF file, which no code of transformers is built from.")
        from roofline.huggingface.gguf import describe_gguf

        data, described = describe_gguf(checkpoints.read_gguf(Path(path)))
        return model_from_config(data, name=name, source=path, files=described), described
    data = read_json(Path(path))
    if (beside := _sibling(path)) is not None:
        data = {**data, "hf_quant_config": read_json(beside)}
    checkpoint = checkpoints.read_folder(Path(path).parent) if Path(path).name == "config.json" else None
    files = None
    if checkpoint is not None:
        from roofline.huggingface.stored import Files

        files = Files(checkpoint)
    if read == "code":
        model = _from_code(data, name)
        return (model if files is None else files.unnamed(model)), files
    return model_from_config(data, name=name, source=path, files=files), files


def _is_gguf(path: Path) -> bool:
    """Return whether a file is a GGUF file: by its name or, as ollama names them by their content, by its first bytes."""
    if path.suffix.lower() in (".gguf", ".json"):
        return path.suffix.lower() == ".gguf"
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _sibling(path: str) -> Path | None:
    """Return NVIDIA ModelOpt's description of number formats, which older exporters wrote to a file beside a config.json."""
    beside = Path(f"{path.removesuffix('config.json')}hf_quant_config.json")
    return beside if path.endswith("config.json") and beside.is_file() else None


def _states(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what tells whether a file, or one beside it that is read with it, has changed."""
    pattern = "*.safetensors*" if path.name == "config.json" else "*-of-*.gguf" if path.suffix.lower() == ".gguf" else ""
    beside = sorted(f for f in path.parent.glob(pattern) if f.is_file()) if pattern else []
    files = [path, *filter(None, [_sibling(str(path))]), *beside]
    return tuple((str(file), status.st_mtime_ns, status.st_size) for file in files if (status := file.stat()))


def _label(file: Path) -> str:
    """Name a model after its file, or after the folder of a config.json."""
    stem = file.stem.removesuffix("_config")
    return file.resolve().parent.name or stem if stem == "config" else stem


def _from_path(path: Path, name: str = "") -> Model:
    path, states = _found(path)
    return _read(str(path), name or _label(path), states)


@checks_call
def check_model(source: str | os.PathLike[str], *, read: str = "auto") -> "ModelCheck":
    """Return a model beside the tensors of its checkpoint: parameters, bytes and formats of every component by both.

    Parameters
    ----------
    source : str or os.PathLike
        A folder with a config.json and safetensors files, or with their index alone; a GGUF file; or an id of the Hugging Face Hub that is in
        the local cache with its files [-].
    read : {"auto", "code"}, optional
        How its configuration is read, as :meth:`Model.load` does; of a model read from code the totals are compared [-].

    Returns
    -------
    ModelCheck
        Both, and whether they agree [-].

    Raises
    ------
    ConfigError
        If there is no such file, or no files of tensors beside a configuration.
    UnsupportedModelError
        If the architecture is not understood.
    """
    from roofline.huggingface.check import compare_files

    if not isinstance(source, (str, os.PathLike)):
        raise ConfigError(f"a checkpoint is a path or an id, not {type(source).__name__}.")
    text = os.fspath(source)
    path = local_path(text) if isinstance(source, str) else Path(text)
    if not _exists(path):
        path = cached_config(text) or path
    path, _ = _found(path)
    model, files = _opened(str(path), _label(path), _how(read))
    if files is None:
        raise ConfigError(
            f"{path.parent} has no safetensors files and no index of them, so there is nothing to hold the description against."
        )
    return compare_files(model, files)


def _found(path: Path) -> tuple[Path, tuple[tuple[str, int, int], ...]]:
    """Return the file that a path means, and the state of all that is read with it."""
    try:
        if path.is_dir():
            path = _inside(path)
        elif path.suffix.lower() == ".safetensors" and path.with_name("config.json").is_file():
            path = path.with_name("config.json")
        elif path.suffix.lower() in _WEIGHTS:
            raise _weights(path)
        states = _states(regular_file(path))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, ConfigError):
            raise
        shown = str(path)
        elsewhere = "; where it is elsewhere, name the model that it was made from, and its format: weights='q4_k_m', for example"
        raise ConfigError(
            f"cannot read {shown[:200]}{'…' if len(shown) > 200 else ''}: {getattr(error, 'strerror', None) or error}"
            f"{elsewhere if path.suffix.lower() == '.gguf' else ''}."
        ) from None
    return path, states


def _inside(folder: Path) -> Path:
    """Return the file of a folder that describes a model: its config.json, else its GGUF file where there is one alone."""
    config = folder / "config.json"
    if not config.exists():
        models = [f for f in sorted(folder.glob("*.gguf")) if not f.name.startswith("mmproj")]  # a tower and its projector
        firsts = [f for f in models if "-of-" not in f.name or "-00001-of-" in f.name]
        if len(firsts) == 1:
            return firsts[0]
    return config


_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".npz")


def _weights(path: Path) -> ConfigError:
    return ConfigError(f"{quoted(str(path))} is a file of weights, which are not read: the config.json beside it is.")


def load_model(source: Any, read: str = "auto") -> Model:
    """Return the model that `source` names, points at or describes; see :meth:`Model.load`."""
    if _how(read) == "code":
        return _code_of(source)
    if isinstance(source, str):
        return _from_text(source)
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


def _from_text(text: str) -> Model:
    """Return the model that a text means: a name, a number of parameters, a path, an id, in this order."""
    model = _named(text)
    if model is not None:
        return model
    if _COUNT.fullmatch(text.strip()):
        return Model.anonymous(text)
    path = local_path(text)
    if text.strip() and _exists(path):
        return _from_path(path)
    if text.lstrip().startswith("{"):
        raise ConfigError(f"{quoted(text)} is the content of a configuration, not a name or a path: Model.load(json.loads(text)) reads it.")
    if path.suffix.lower() in _WEIGHTS:
        raise _weights(path)
    if text.endswith(".json") or path.suffix.lower() == ".gguf" or (("/" in text or os.sep in text) and not is_id(text)):
        return _from_path(path)
    cached = cached_config(text)
    if cached is not None:  # the configuration itself, rather than what the id is like
        return _from_path(cached, text)
    model = _read_as(text)
    if model is None:
        raise _unknown(text)
    return model


def _how(read: str) -> str:
    """Return how a configuration is to be read."""
    if read not in ("auto", "code"):
        raise InvalidValueError(f"read is {quoted(read)}; it is 'auto' or 'code'.")
    return read


def _from_code(data: Mapping[str, Any], name: str) -> Model:
    """Return the model of a configuration as transformers' code for it has it."""
    from roofline.torch_modules.read import read_code  # knows torch

    return read_code(data, name=name)


def _code_of(source: Any) -> Model:
    """Return what a name, a path, a dict or a config object stands for, read from code."""
    if isinstance(source, Mapping):
        return _from_code(source, "config")
    to_dict = getattr(source, "to_dict", None)
    if callable(to_dict) and not isinstance(source, Model):
        return _from_code(to_dict(), type(source).__name__)
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigError(f"read='code' is for a configuration, which {quoted(source)} is not: a name, a path, a dict or a config object.")
    entry = _entry_of(source) if isinstance(source, str) else None
    if entry is not None:
        return _from_code(_data(entry)["config"], entry)
    path = Path(source)
    if not _exists(path) and isinstance(source, str):
        path = cached_config(source) or path
    path, _ = _found(path)
    return _opened(str(path), _label(path), "code")[0]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, a null byte
        return False


def _split_formats(name: str) -> tuple[str, list[str]]:
    """Return an id without the number formats that it ends with, and these.

    Examples
    --------
    >>> _split_formats("Qwen/Qwen3-8B-GPTQ-Int4"), _split_formats("Qwen/Qwen3-8B")
    (('Qwen3-8B', ['GPTQ', 'Int4']), ('Qwen3-8B', []))
    """
    words = id_words(name)
    end = len(words)
    while end and named_format(words[end - 1]):
        end -= 1
    return "-".join(words[:end]), words[end:]


def _unknown(name: str) -> UnknownNameError:
    with suppress(UnknownNameError, SpecError):
        machine = find_spec(name)
        return UnknownNameError(f"{quoted(name)} is a machine ({machine}), not a model: the model is given first, then the machine.")
    known = [*_files(), *(alias for entry in _files() for alias in _data(entry)["aliases"] if "/" not in alias)]
    hint = "It is no path either; `roofline models` lists the catalogue, a config.json needs none"
    if is_id(name):
        hint = (
            "It is neither a path nor in the local cache of the Hugging Face Hub: "
            f"`hf download {name} config.json` puts its configuration there"
        )
    stem, formats = _split_formats(name)
    if variant := _nearest_entry(name)[1]:
        hint += f"; {variant} is tuned otherwise, and its files may be in another format: say weights= with that name where they are"
    elif formats and (unquantized := _nearest_entry(stem)[1]):
        chosen = f"weights={formats[0].lower()!r}" if len(formats) == 1 and formats[0][0].isalpha() else "weights="
        hint += f"; or name {unquantized} and say {chosen}"
    return unknown_name("model", name, known, like=[*readings(name)][-1] if name.strip("/") else name, hint=hint)


def hub_ids(name: str) -> tuple[str, ...]:
    """Return the ids by which the Hub knows a model of the catalogue; none of another model."""
    return tuple(alias for alias in _data(name)["aliases"] if "/" in alias) if name in _files() else ()
