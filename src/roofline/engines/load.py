"""Engines by name."""

import re
import tomllib
from functools import cache
from typing import Any

from roofline.calls import checks_call
from roofline.engines.profile import Engine
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import FrozenDict
from roofline.names import normalize_name, unknown_name
from roofline.shipped import spec_folder

ENGINES = {"vllm": "vLLM", "trtllm": "TensorRT-LLM", "sglang": "SGLang"}
"""Engines with profiles and records, the preferred one first: the name in ids, and the engine's own name [-]."""
ENGINES = FrozenDict(ENGINES)
_WITH_VERSION = re.compile(r"(.*\S)\s+v?(\d\S*)")


def find_engine(name: Any) -> str | None:
    """Return the id of the engine that a name means.

    Examples
    --------
    >>> find_engine("TensorRT-LLM"), find_engine("generic")
    ('trtllm', None)
    """
    known = {normalize_name(spelling): engine for engine, title in ENGINES.items() for spelling in (engine, title)}
    return known.get(normalize_name(name)) if isinstance(name, str) else None


@checks_call
def list_engines() -> list[str]:
    """Return the ids of the engines with a profile, reading none of them.

    Returns
    -------
    list of str
        Ids, the preferred engine first [-].

    Examples
    --------
    >>> list_engines()
    ['vllm', 'trtllm', 'sglang']
    """
    return list(ENGINES)


@checks_call
def load_engine(name: "str | Engine") -> Engine:
    """Return what an engine does unless it is told otherwise, with sources.

    Parameters
    ----------
    name : str or Engine
        An engine's id or own name, in any spelling, and after a space the version whose host times count; a profile is returned as it is [-].

    Returns
    -------
    Engine
        The profile; what is not known of an engine is None [-].

    Raises
    ------
    UnknownNameError
        If no engine has that name; the message lists the nearest.
    InvalidValueError
        If `name` is no text, or its version is none.

    Examples
    --------
    >>> engine = load_engine("TensorRT-LLM")
    >>> engine.id, engine.cache.page
    ('trtllm', 32)
    >>> load_engine("sglang 0.5.9") == load_engine("sglang").at("0.5.9")
    True
    """
    if isinstance(name, Engine):
        return name
    if not isinstance(name, str):
        raise InvalidValueError(f"an engine is given by its name, such as {next(iter(ENGINES))!r}, not as {quoted(name)}.")
    versioned = _WITH_VERSION.fullmatch(name)
    if versioned:
        return load_engine(versioned[1]).at(versioned[2])
    engine = find_engine(name)
    if engine is None:
        raise unknown_name("engine", name, [*ENGINES, *ENGINES.values()], hint="list_engines() lists all")
    return _shipped(engine)


def is_shipped(engine: Engine) -> bool:
    """Return whether a profile is one of those that come with the library, not one of the caller's own.

    Examples
    --------
    >>> vllm = load_engine("vllm")
    >>> is_shipped(vllm), is_shipped(vllm.but(host=vllm.host.but(request_s=0.1)))
    (True, False)
    """
    return engine.id in ENGINES and engine == _shipped(engine.id)


@cache
def _shipped(engine: str) -> Engine:
    file = spec_folder() / "engines" / f"{engine}.toml"
    return Engine.from_dict(tomllib.loads(file.read_text(encoding="utf-8")))
