"""Models read from their code: a torch module, or a configuration that transformers has the code of. Nothing here is imported before it is asked for."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roofline.model import Model

__all__ = ["read_code", "read_module"]


def read_module(
    module: Any, *, inputs: Callable[[int], Any] | Mapping[str, Any] | None = None, name: str = "", visible: str | None = None
) -> "Model":
    """Return the model that a torch module is; see :meth:`Model.from_module`.

    Parameters
    ----------
    module : torch.nn.Module
        The module [-].
    inputs : callable or mapping, optional
        A function of the number of tokens that returns the arguments of its forward, or arguments beside the token ids [-].
    name : str, optional
        What to call the model [-].
    visible : {"causal", "bidirectional"}, optional
        Which positions a token attends to where masks do not say it [-].

    Returns
    -------
    Model
        The model [-].

    Raises
    ------
    MissingDependencyError
        If torch is not installed.
    UnsupportedModelError
        If the module does not run on the meta device, or cannot be attributed to parts.
    """
    from roofline.torch_modules.read import module_as_model

    return module_as_model(module, inputs=inputs, name=name, visible=visible)


def read_code(data: Mapping[str, Any], *, name: str) -> "Model":
    """Return the model that transformers builds of a configuration; see :meth:`Model.load`.

    Parameters
    ----------
    data : mapping
        The content of a config.json [-].
    name : str
        What to call the model [-].

    Returns
    -------
    Model
        The model [-].

    Raises
    ------
    MissingDependencyError
        If torch or transformers is not installed.
    ConfigError
        If transformers does not accept the configuration.
    UnsupportedModelError
        If transformers has no code for it, or it cannot be attributed to parts.
    """
    from roofline.torch_modules.read import configuration_as_model

    return configuration_as_model(data, name=name)
