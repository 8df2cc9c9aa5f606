"""Headers of GGUF files: what a file says about itself, and its tensors. Only the header is read, and a header alone is enough.

References
----------
ggml, ``docs/gguf.md`` (versions 2 and 3, names of split files); ``ggml.h``, ``enum ggml_type``, and ``ggml-common.h``, the size of a block of each.
"""

import mmap
import re
import struct
from math import prod
from pathlib import Path
from typing import Any

from roofline.checkpoints.files import Checkpoint, StoredTensor
from roofline.errors import ConfigError, RooflineError, UnsupportedModelError
from roofline.validation import regular_file

_TYPES: dict[int, tuple[str, int, int]] = {
    # number of the type: name, elements of a block, bytes of a block
    0: ("f32", 1, 4),
    1: ("f16", 1, 2),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210),
    16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110),
    22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136),
    24: ("i8", 1, 1),
    25: ("i16", 1, 2),
    26: ("i32", 1, 4),
    27: ("i64", 1, 8),
    28: ("f64", 1, 8),
    29: ("iq1_m", 256, 56),
    30: ("bf16", 1, 2),
    34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66),
    39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36),
}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_ALIGNMENT = 32  # of the first tensor, unless the file says another [B]
_TEXT, _LIST = 8, 9
_MOST_LISTED = 10_000  # a list for each layer is kept, one for each token is not
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


class _Header:
    """A place in a header that moves on as values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.order = data, 8, "<"
        if struct.unpack_from("<I", data, 4)[0] & 0xFFFF == 0:
            self.order = ">"  # written on a machine of the other byte order

    def number(self, letter: str) -> Any:
        layout = self.order + letter
        (value,) = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return value

    def text(self) -> str:
        size = self.number("Q")
        if size > len(self.data) - self.at:
            raise struct.error
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind != _LIST:
            return self.number(_SCALARS[kind])
        inner, count = self.number("I"), self.number("Q")
        if inner in _SCALARS:
            layout = f"{self.order}{count}{_SCALARS[inner]}"
            begin, self.at = self.at, self.at + struct.calcsize(layout)
            return list(struct.unpack_from(layout, self.data, begin)) if count <= _MOST_LISTED else None
        unpack, at = struct.Struct(f"{self.order}Q").unpack_from, self.at
        if inner == _TEXT:  # the vocabulary: hundreds of thousands of words, which nobody asks for
            for _ in range(count):
                at += 8 + unpack(self.data, at)[0]
            self.at = at
            return None
        for _ in range(count):
            self.value(inner)
        return None


def _read(path: Path) -> tuple[dict[str, Any], list[StoredTensor]]:
    try:
        with regular_file(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != b"GGUF":
                raise ConfigError(f"{path} is no GGUF file: it does not begin with GGUF.")
            return _parsed(path, _Header(data))
    except RooflineError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from None
    except (struct.error, KeyError, ValueError, TypeError, OverflowError, MemoryError):  # ValueError: an empty file
        raise ConfigError(f"{path}: its header ends too early or is malformed.") from None


def _parsed(path: Path, header: _Header) -> tuple[dict[str, Any], list[StoredTensor]]:
    header.at = 4
    version = header.number("I")
    if version not in (2, 3):
        raise UnsupportedModelError(f"{path}: GGUF version {version} is not read; 2 and 3 are.")
    count, keys = header.number("Q"), header.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        name = header.text()
        value = header.value(header.number("I"))
        if value is not None:
            metadata[name] = value
    tensors, ends = [], 0
    for _ in range(count):
        name = header.text()
        shape = tuple(header.number("Q") for _ in range(header.number("I")))
        kind, offset = header.number("I"), header.number("Q")
        if kind not in _TYPES:
            raise UnsupportedModelError(f"{path}: {name} is of the type {kind} of ggml, whose size is not known here.")
        label, block, size = _TYPES[kind]
        tensors.append(StoredTensor(name, label, shape, prod(shape) // block * size))
        ends = max(ends, offset + tensors[-1].bytes)
    unit = max(int(metadata.get("general.alignment", _ALIGNMENT)), 1)
    held = len(header.data) - -(-header.at // unit) * unit
    if 0 < held < ends:  # a header alone says what it says
        raise ConfigError(f"{path} is cut short: its header speaks of {ends:,} bytes of tensors, of which {held:,} are there.")
    return metadata, tensors


def read_gguf(path: Path) -> Checkpoint:
    """Return what the header of a GGUF file says, and of all its parts if it is split.

    Parameters
    ----------
    path : Path
        The file, or one of several parts, ``NAME-00001-of-00003.gguf`` [-].

    Returns
    -------
    Checkpoint
        Its metadata and tensors [-].

    Raises
    ------
    ConfigError
        If it is no GGUF file, ends before its tensors do, or a part is missing; a header without any tensor's bytes is read.
    UnsupportedModelError
        If its version, or the type of a tensor, is not known.
    """
    part = _PART.fullmatch(path.name)
    count = int(part["count"]) if part else 1
    if count > 9_999:
        raise ConfigError(f"{path}: no file has {count:,} parts.")
    paths = [path.with_name(f"{part['stem']}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)] if part else [path]
    read = [_read(each) for each in paths]
    metadata = read[0][0]
    if not part and metadata.get("split.count", 1) > 1:
        raise ConfigError(
            f"{path} is one of {metadata['split.count']} parts, but its name does not say which, so the others are not found."
        )
    tensors = tuple(tensor for _, inside in read for tensor in inside)
    return Checkpoint(str(path), tensors, sum(t.bytes for t in tensors), len(paths), metadata)
