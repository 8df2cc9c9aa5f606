"""Headers of safetensors files: eight bytes that say how long it is, then JSON. No weight is read.

References
----------
huggingface/safetensors, README, "Format": an unsigned little-endian 64-bit length N, N bytes of JSON that map names to ``dtype``, ``shape`` and
``data_offsets``, and at most 100 MB of it. huggingface/transformers: ``model.safetensors``, or the files that
``model.safetensors.index.json`` names, whose ``metadata`` may hold ``total_size``.
"""

from math import prod
from pathlib import Path
from typing import Any

from roofline.checkpoints.files import Checkpoint, StoredTensor
from roofline.errors import ConfigError, quoted
from roofline.validation import parse_json, regular_file

_MOST = 100_000_000
_INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
_BITS = {"f4": 4, "f6_e2m3": 6, "f6_e3m2": 6} | {
    kind: bits
    for bits, kinds in {
        8: "bool u8 i8 f8_e5m2 f8_e4m3 f8_e8m0 f8_e4m3fnuz f8_e5m2fnuz",
        16: "u16 i16 f16 bf16",
        32: "u32 i32 f32",
        64: "u64 i64 f64 c64",
    }.items()
    for kind in kinds.split()
}
"""Bits of one element by type [bit]."""


def read_header(path: Path) -> tuple[StoredTensor, ...]:
    """Return the tensors of one safetensors file.

    Parameters
    ----------
    path : Path
        The file [-].

    Returns
    -------
    tuple of StoredTensor
        In the order of the header [-].

    Raises
    ------
    ConfigError
        If the file cannot be read, is no safetensors file, or ends before its tensors do; a header without any of them is read.
    """
    try:
        with regular_file(path).open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            text = file.read(size) if 2 <= size <= _MOST else b""
            held = file.seek(0, 2) - 8 - len(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from None
    if len(text) != size or not text.startswith(b"{"):
        raise ConfigError(f"{path} is no whole safetensors file: it does not begin with the length of its header and the header.")
    try:
        header: Any = parse_json(text.decode("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: its header is no JSON: {str(error).rstrip('.')}.") from None
    tensors = tuple(_tensor(path, name, entry) for name, entry in header.items() if name != "__metadata__")
    ends = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    if 0 < held < ends:  # a header alone says what it says
        raise ConfigError(f"{path} is cut short: its header speaks of {ends:,} bytes of tensors, of which {held:,} are there.")
    return tensors


def _tensor(path: Path, name: str, entry: Any) -> StoredTensor:
    try:
        kind, shape, (begin, end) = entry["dtype"].lower(), tuple(entry["shape"]), entry["data_offsets"]
        tensor = StoredTensor(name, kind, shape, end - begin)
        whole = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
    except (TypeError, KeyError, ValueError, AttributeError):
        whole = False
    if not whole or (kind in _BITS and 8 * tensor.bytes != _BITS[kind] * prod(shape)):
        raise ConfigError(f"{path}: the header says {quoted(entry)} of {quoted(name)}, which is no tensor.")
    return tensor


def read_folder(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in a folder, None if there is none.

    Parameters
    ----------
    folder : Path
        A folder as the Hub has it, with one file, several, or the index of several alone [-].

    Returns
    -------
    Checkpoint or None
        Its tensors [-].

    Raises
    ------
    ConfigError
        If a file of it is no safetensors file, or the index is malformed.
    """
    index = folder / _INDEX
    files, declared = _indexed(index) if index.is_file() else (_unindexed(folder), 0)
    if not files:
        return None
    missing = tuple(name for name in files if not _is_there(folder / name))
    if missing:
        beside = missing if len(missing) < len(files) else ()
        return Checkpoint(str(index), (), declared, 0, missing=beside) if declared else None
    tensors = tuple(tensor for name in files for tensor in read_header(folder / name))
    return Checkpoint(str(folder), tensors, sum(t.bytes for t in tensors), len(files))


def _is_there(file: Path) -> bool:
    """Whether a file is there, and not only what Git LFS leaves in its place where weights are not fetched."""
    if not file.is_file():
        return False
    with file.open("rb") as start:
        return not start.read(len(_POINTER)).startswith(_POINTER)


def _unindexed(folder: Path) -> list[str]:
    one = folder / "model.safetensors"
    return [one.name] if one.is_file() else sorted(f.name for f in folder.glob("model-*-of-*.safetensors"))


def _indexed(index: Path) -> tuple[list[str], int]:
    """Return the files that an index names, and how many bytes it says they hold, 0 if it does not say."""
    try:
        data: Any = parse_json(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {index}: {str(error).rstrip('.')}.") from None
    names = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) and Path(name).name == name for name in names.values()):
        raise ConfigError(f"{index} has no 'weight_map' of names of files beside it.")
    total = data["metadata"].get("total_size", 0) if isinstance(data.get("metadata"), dict) else 0
    return sorted(set(names.values())), int(total) if isinstance(total, (int, float)) and total > 0 else 0
