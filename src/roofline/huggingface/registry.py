"""Which reader understands which `model_type`, and the one call that turns a configuration into a model."""

from collections.abc import Callable, Mapping
from typing import Any

from roofline.errors import ConfigError, InvalidValueError, UnsupportedModelError
from roofline.huggingface.config import Config
from roofline.model import Model
from roofline.names import nearest_names

_Reader = Callable[[Config], Model]
_READERS: dict[str, _Reader] = {}


def reads(*model_types: str) -> Callable[[_Reader], _Reader]:
    """Register a reader for one or several values of `model_type`.

    Parameters
    ----------
    *model_types : str
        The values [-].

    Returns
    -------
    callable
        A decorator that returns the reader unchanged [-].
    """

    def register(reader: _Reader) -> _Reader:
        for name in model_types:
            _READERS[name] = reader
        return reader

    return register


def supported_model_types() -> tuple[str, ...]:
    """Return every `model_type` that is modelled.

    Returns
    -------
    tuple of str
        In alphabetical order [-].

    Examples
    --------
    >>> "llama" in supported_model_types()
    True
    """
    return tuple(sorted(_READERS))


def model_from_config(data: Mapping[str, Any], *, name: str = "config", source: str = "") -> Model:
    """Turn a Hugging Face configuration into a model, or refuse it with the reason.

    Parameters
    ----------
    data : mapping
        The content of a config.json [-].
    name : str, optional
        What to call the model [-].
    source : str, optional
        Where the configuration comes from [-].

    Returns
    -------
    Model
        The model, parameters exact [-].

    Raises
    ------
    ConfigError
        If a needed key is missing or has an impossible value.
    UnsupportedModelError
        If the architecture, or a key that might change the cost, is not understood.
    """
    config = Config(data, source if source.endswith(".json") else name)
    model_type = config.text("model_type", default="")
    if not model_type:
        raise ConfigError(f"{name} has no 'model_type', so its architecture is not known; supported: {', '.join(supported_model_types())}.")
    if model_type not in _READERS:
        near = nearest_names(model_type, _READERS)
        raise UnsupportedModelError(
            f"{name}: model_type {model_type!r} is not modelled; it might differ from every known architecture in what it reads and computes."
            + (f" Nearest: {', '.join(near)}." if near else "")
            + f" Supported: {', '.join(supported_model_types())}."
        )
    try:
        model = _READERS[model_type](config)
    except InvalidValueError as error:
        raise ConfigError(f"{name}: its keys lead to what cannot be. {error}") from None
    config.refuse_unread()
    return model.but(name=name, source=source or name)
