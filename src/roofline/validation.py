"""Reading texts from files, and what is wrong with a file: that it is none, or does not validate; what was given and what is allowed, in one sentence per key."""

import errno
import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from roofline.errors import InvalidValueError, quoted
from roofline.names import local_path, nearest_names

if TYPE_CHECKING:  # files of models and tables are read without it
    from pydantic import BaseModel, ValidationError

_SHOWN = 5
_LONGEST = 60


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


def read_text(source: "str | os.PathLike[str]", *, errors: str = "strict", at_most: int | None = None) -> str:
    """Return the text of a file, in UTF-8 or with the mark of UTF-16, compressed by gzip or not.

    `errors` is what happens to bytes that are no text, as :meth:`bytes.decode` takes it; `at_most` so many bytes are read, all if not given.

    Raises
    ------
    InvalidValueError
        If there is no such file, or it is neither text nor whole.
    """
    try:
        path = regular_file(local_path(source))
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(-1 if at_most is None else at_most)
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data[: len(data) // 2 * 2].decode("utf-16", errors)  # published tables end in half a character
        return data.decode("utf-8-sig", errors)
    except EOFError:
        reason = "it is cut short"
    except (OSError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "it is neither text nor a gzip file"
    raise InvalidValueError(f"{quoted(str(source))} cannot be read: {reason}.")


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says, every key of an object once.

    Raises
    ------
    ValueError
        If it is no JSON or an object names a key twice; for the caller to put the name of the file in front.

    Examples
    --------
    >>> parse_json('{"bits": 4, "bits": 8}')
    Traceback (most recent call last):
    ValueError: the key 'bits' stands twice in one object; which of the two is meant?
    """
    try:
        return json.loads(text, object_pairs_hook=_each_key_once)
    except _KeyTwice as twice:
        raise ValueError(f"the key {quoted(twice.args[0])} stands twice in one object; which of the two is meant?") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON, cut short or corrupted: {error}") from None


class _KeyTwice(Exception):
    pass


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        raise _KeyTwice(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return found


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
    key = ".".join(part if len(part) <= _LONGEST else f"{part[: _LONGEST - 1]}…" for part in loc) or "the file"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "extra_forbidden":
        known = _keys(model, loc[:-1])
        near = nearest_names(loc[-1][:_LONGEST], known)
        return f"{key} is not a known key; " + (f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}")
    if error["type"] == "value_error":  # ours: it names the key and ends with a stop
        message = str(error["ctx"]["error"]).rstrip(".")
        of_field = bool(loc) and message.startswith(loc[-1])
        return ".".join([*(loc[:-1] if of_field else loc), message])
    allowed = str(error["msg"]).removeprefix("Input ").removesuffix(" or instance of " + str((error.get("ctx") or {}).get("class_name")))
    return f"{key} is {quoted(error['input'])}; it {allowed}"


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
