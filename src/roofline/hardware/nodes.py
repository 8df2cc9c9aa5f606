"""Names of several devices: ``8xH100``, ``H100:8``, and of the servers and cloud instances that hold them."""

import re
from functools import cache

from roofline.errors import SpecError, UnknownNameError
from roofline.hardware.load import find_spec, read_spec, spec_files
from roofline.names import normalize_name

_AHEAD = re.compile(r"\s*(?:gpu[ _-])?(\d{1,4})[ _-]*[x×*][ _-]*(\S.*)", re.IGNORECASE)
_BEHIND = re.compile(r"\s*(.*\S)\s*[x×*:]\s*(\d{1,4})\s*", re.IGNORECASE)
_SIZE = re.compile(r"^standard")  # Azure sizes are written with and without it


def split_count(name: str) -> tuple[int, str] | None:
    """Return the number of devices that a name states, before it or behind, and the rest; None if it states none.

    Examples
    --------
    >>> split_count("8x H100"), split_count("A100-80GB x 4"), split_count("H100")
    ((8, 'H100'), (4, 'A100-80GB'), None)
    """
    if (found := _AHEAD.fullmatch(name)) and int(found[1]):
        return int(found[1]), found[2]
    if (found := _BEHIND.fullmatch(name)) and int(found[2]):
        return int(found[2]), found[1]
    return None


@cache
def _nodes() -> dict[str, tuple[str, int]]:
    """Machine and number of devices of every node, by its normalized name."""
    index: dict[str, tuple[str, int]] = {}
    for machine, file in spec_files().items():
        for text in read_spec(file).get("nodes", ()):
            node = split_count(text)
            if node is None:
                raise SpecError(f"{file.name}: the node {text!r} has no number of devices in front, as in '8x p5.48xlarge'.")
            if index.setdefault(normalize_name(node[1]), (machine, node[0])) != (machine, node[0]):
                raise SpecError(f"{file.name}: the node {text!r} is also one of {index[normalize_name(node[1])][0]}.")
    return index


def find_node(name: str) -> tuple[str, str, int] | None:
    """Return the machine of a name for several devices, the name of one of them, and how many they are; None for any other name.

    Examples
    --------
    >>> find_node("8xH100"), find_node("p5.48xlarge"), find_node("H100")
    (('h100-sxm', 'H100', 8), ('h100-sxm', 'h100-sxm', 8), None)
    """
    node = _nodes().get(_SIZE.sub("", normalize_name(name)))
    if node is not None:
        return node[0], node[0], node[1]
    counted = split_count(name)
    if counted is None:
        return None
    try:
        return find_spec(counted[1]), counted[1], counted[0]
    except UnknownNameError:
        return None
