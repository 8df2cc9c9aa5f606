"""What is wrong with a file: that it is none, or does not validate; what was given and what is allowed, in one sentence per key."""

import errno
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from roofline.errors import quoted
from roofline.names import nearest_names

if TYPE_CHECKING:  # files of models and tables are read without it
    from pydantic import BaseModel, ValidationError

_SHOWN = 5


def regular_file(path: Path) -> Path:
    """Return the path of a file, after making sure that reading it ends: a pipe or a device may never.

    Raises
    ------
    OSError
        If it is no regular file or cannot be looked at, with a `strerror` for the sentence that the caller writes.

    Examples
    --------
    >>> regular_file(Path("/dev/null"))
    Traceback (most recent call last):
    OSError: [Errno 22] it is a device, a pipe or a socket, and only regular files are read: '/dev/null'
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, and only regular files are read", str(path))
    return path


def describe_faults(where: object, error: "ValidationError", model: "type[BaseModel]") -> str:
    """Return a validation error as one sentence: the file, and for each bad key what was given and what is allowed.

    Notes
    -----
    A validator of a field raises a sentence that starts with the name of its field; one of a whole table, with the name of the
    key in it that is wrong.
    """
    faults = error.errors(include_url=False)
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    text = f"{where}: {'; '.join(_fault(e, model) for e in faults[:_SHOWN])}{more}"
    return text if text.endswith("?") else f"{text}."


def _fault(error: Mapping[str, Any], model: "type[BaseModel]") -> str:
    loc = tuple(map(str, error["loc"]))
    key = ".".join(loc) or "the file"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "extra_forbidden":
        known = _keys(model, loc[:-1])
        near = nearest_names(loc[-1], known)
        return f"{key} is not a known key; " + (f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}")
    if error["type"] == "value_error":  # ours: it names the key and ends with a stop
        message = str(error["ctx"]["error"]).rstrip(".")
        of_field = bool(loc) and message.startswith(loc[-1])
        return ".".join([*(loc[:-1] if of_field else loc), message])
    given = quoted(error["input"])
    allowed = str(error["msg"]).removeprefix("Input ").removesuffix(" or instance of " + str((error.get("ctx") or {}).get("class_name")))
    return f"{key} is {given}; it {allowed}"


def _keys(model: "type[BaseModel]", parents: Iterable[str]) -> list[str]:
    """Keys allowed in the table that `parents` lead to."""
    hint: Any = model
    for parent in parents:
        hint = _inside(hint, parent)
    return next((list(o.model_fields) for o in _options(hint) if _is_model(o)), [])


def _inside(hint: Any, parent: str) -> Any:
    """Return the type hint of what stands under a key, or at a place, of what a type hint describes."""
    for option in _options(hint):
        if _is_model(option):
            return option.model_fields[parent].annotation
        if get_origin(option) in (dict, tuple, list):
            return get_args(option)[1 if get_origin(option) is dict else 0]
    return None


def _options(hint: Any) -> list[Any]:
    if get_origin(hint) is Annotated:
        return _options(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [option for part in get_args(hint) for option in _options(part)]
    return [hint]


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and hasattr(hint, "model_fields")
