"""A configuration as a module of transformers on the meta device: no weights, no network, no code of others."""

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roofline.errors import ConfigError, MissingDependencyError, UnsupportedModelError, install, quoted
from roofline.torch_modules.required import torch
from roofline.torch_modules.told import check_layers, left_to_class

_CLASSES = (
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSpeechSeq2Seq",
    "AutoModelForMaskedLM",
    "AutoModel",
)
"""Classes of transformers that build a model, in the order in which they are asked where the configuration names none of their kinds [-]."""


def build(data: Mapping[str, Any], name: str) -> tuple[torch.nn.Module, Any, tuple[str, ...]]:
    """Return the module that transformers builds of a configuration, its configuration object, and in words what that had to assume."""
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError(f"reading a model from its code needs transformers: {install('models')}.") from None
    model_type = data.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ConfigError(f"{name} has no 'model_type', so that no code is known for it.")
    if model_type not in transformers.CONFIG_MAPPING:
        own = "auto_map" in data
        raise UnsupportedModelError(
            f"{name}: transformers {transformers.__version__} has no code for model_type {quoted(model_type)}"
            + ("; that of its repository is never run: build the module and give it to Model.from_module(module)." if own else ".")
        )
    told = {key: value for key, value in data.items() if key not in ("quantization_config", "hf_quant_config", "auto_map")}
    check_layers(told, name)
    with quiet():
        try:
            config = transformers.CONFIG_MAPPING[model_type].from_dict(told)
        except Exception as error:  # whatever a configuration class raises
            raise ConfigError(f"{name}: transformers does not accept the configuration: {one_line(error)}") from None
        autos = [auto for kind in _CLASSES if type(config) in (auto := getattr(transformers, kind))._model_mapping]
        wanted = data.get("architectures") or ()
        named = [auto for auto in autos if any(kind.__name__ in wanted for kind in _kinds(auto, config))]
        if getattr(config, "is_encoder_decoder", False):  # never its decoder alone, unless that is what it names
            autos = [auto for auto in autos if not auto.__name__.endswith(("ForCausalLM", "ForMaskedLM"))]
        if not autos:
            raise UnsupportedModelError(f"{name}: transformers has no model of {quoted(model_type)} that makes or encodes text.")
        auto = (named or autos)[0]
        notes = left_to_class(told, config, name, Path(inspect.getfile(_kinds(auto, config)[0])).read_text(encoding="utf-8"))
        module = _built(auto, config, name)
    return module, config if getattr(module, "config", None) is None else module.config, notes


def _kinds(auto: Any, config: Any) -> tuple[Any, ...]:
    """Return the classes of models that one of transformers' auto classes has for a configuration."""
    found = auto._model_mapping[type(config)]
    return found if isinstance(found, tuple) else (found,)


def _built(auto: Any, config: Any, name: str) -> torch.nn.Module:
    try:
        with torch.device("meta"):
            level = _own_level(auto, config)
            made = auto.from_config if level is config else _kinds(auto, config)[0]._from_config
            module: torch.nn.Module = made(level, dtype=torch.bfloat16, attn_implementation="eager")
    except Exception as error:  # whatever a model's constructor raises
        raise ConfigError(f"{name}: transformers does not build the model: {one_line(error)}") from None
    return module.eval()


def _own_level(auto: Any, config: Any) -> Any:
    """Return what the class of a model takes of a configuration: that of its decoder, where it is a decoder alone (MusicGen)."""
    takes = getattr(_kinds(auto, config)[0], "config_class", None)
    inner = getattr(config, "decoder", None)
    return inner if inner is not None and type(inner) is takes is not type(config) else config


def one_line(error: BaseException) -> str:
    """Return an error of others as a part of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what transformers has to say of optional packages and deprecated names to itself."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
