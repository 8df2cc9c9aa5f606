"""Plain data as YAML: mappings, lists, text, numbers."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z/][\w./-]*")
_TAKEN = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}  # which readers of YAML 1.1 take for something else


def write_yaml(data: Any, indent: int = 0) -> str:
    """Return data as YAML.

    Examples
    --------
    >>> print(write_yaml({"a": 1, "b": ["x", "8000"], "c": {"d": True}}), end="")
    a: 1
    b:
    - x
    - "8000"
    c:
      d: true
    """
    pad = " " * indent
    if isinstance(data, Mapping):
        return "".join(_entry(f"{pad}{_scalar(str(key))}:", value, indent) for key, value in data.items())
    lines = []
    for item in data:
        if isinstance(item, (Mapping, list, tuple)) and item:
            inner = write_yaml(item, indent + 2)
            lines.append(f"{pad}- {inner[indent + 2 :]}")
        else:
            lines.append(f"{pad}- {_scalar(item)}\n")
    return "".join(lines)


def _entry(name: str, value: Any, indent: int) -> str:
    if isinstance(value, Mapping) and value:
        return f"{name}\n{write_yaml(value, indent + 2)}"
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return f"{name}\n{write_yaml(value, indent)}"
    if isinstance(value, str) and "\n" in value:
        return f"{name} |\n" + "".join(f"{' ' * (indent + 2)}{line}\n" for line in value.splitlines())
    return f"{name} {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value) and value.lower() not in _TAKEN:
        return value
    return json.dumps(value)
