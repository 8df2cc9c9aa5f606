"""Names and paths as people type them: case and punctuation of a name do not matter, and a miss lists the nearest ones."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from roofline.errors import InvalidValueError, UnknownNameError, quoted

_PUNCTUATION = re.compile(r"[^a-z0-9]+")
_MOST_COMPARED = 200  # comparing takes time that grows with the square of the length


def normalize_name(name: str) -> str:
    """Reduce a name to lower-case letters and digits, so that "H100 SXM" equals "h100-sxm".

    Examples
    --------
    >>> normalize_name("Llama-3.1 70B")
    'llama3170b'
    """
    return _PUNCTUATION.sub("", name.lower())


def local_path(name: "str | os.PathLike[str]") -> Path:
    """Return the path that a name means, with ``~`` for a home folder where there is such a user.

    Examples
    --------
    >>> local_path("~nobody-of-that-name/spec.toml").parts
    ('~nobody-of-that-name', 'spec.toml')
    """
    if not isinstance(name, (str, os.PathLike)):
        raise InvalidValueError(f"{quoted(name)} is not the path of a file: give text or a pathlib.Path.")
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:  # no such user: the file is as absent as its folder
        return path


def nearest_names(name: str, known: Iterable[str], *, most: int = 4) -> list[str]:
    """Return the known names that look most like `name`, best first.

    Examples
    --------
    >>> nearest_names("h100sx", ["a100-sxm-80gb", "h100-sxm", "l4"], most=1)
    ['h100-sxm']
    """
    import difflib  # only mistakes need it

    by_key = {normalize_name(k): k for k in known}
    key = normalize_name(name)
    close = difflib.get_close_matches(key, by_key, n=most, cutoff=0.5)
    inside = [k for k in by_key if len(key) > 1 and (key in k or k in key) and k not in close]
    return [by_key[k] for k in (close + inside)[:most]]


def unknown_name(kind: str, name: str, known: Iterable[str], *, like: str = "", hint: str = "") -> UnknownNameError:
    """Build the error for a name that is not known: what was given, and the nearest to it, or to `like`, that exist."""
    known = list(known)
    near = nearest_names((like or name)[:_MOST_COMPARED], known)
    text = f"unknown {kind} {quoted(name)}"
    text += (
        f"; nearest: {', '.join(near)}"
        if near
        else f"; known: {', '.join(sorted(known, key=lambda k: ('/' in k, not k[:1].isalpha(), k.lower()))[:8])}{', …' if len(known) > 8 else ''}"
    )
    return UnknownNameError(f"{text}. {hint}".rstrip(". ") + ".")
