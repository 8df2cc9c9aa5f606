"""Writing records: JSON that a reader can follow, put in place in one step."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from roofline.errors import CalibrationError, InvalidValueError
from roofline.names import local_path
from roofline.records.schema import CalibrationRecord

_LINE = 120  # a table of plain values up to so many characters stands on one line
_EXACT = 2**53  # whole numbers below it are exact in float64


def save_record(record: CalibrationRecord, path: "str | os.PathLike[str]") -> Path:
    """Write a record to a file, all of it or nothing.

    It is written beside the file and then put in its place, so that a crash, a full disk or a kill leaves the file that was
    there before. Samples are written with 7 significant digits, whole numbers exactly.

    Parameters
    ----------
    record : CalibrationRecord
        What to write [-].
    path : str or path
        Where to; the folder must exist, and a file that is there is replaced [-].

    Returns
    -------
    pathlib.Path
        The file [-].

    Raises
    ------
    CalibrationError
        If it cannot be written: no such folder, no permission, disk full, or the path is no plain file.
    InvalidValueError
        If it is no record, or no path.

    Examples
    --------
    >>> from roofline.records import Environment, Rates
    >>> environment, rates = Environment(device="CPU"), Rates(origin="measured", memory_bandwidth=2e10)
    >>> mine = CalibrationRecord(id="mine", date="2026-11-30", source="by hand", environment=environment, rates=rates)
    >>> save_record(mine, "mine.json").name
    'mine.json'
    """
    if not isinstance(record, CalibrationRecord):
        raise InvalidValueError(f"what is saved is a CalibrationRecord, not {type(record).__name__}.")
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidValueError(f"a record is saved under a path, not under {path!r}.")
    text = write_json(record)
    try:
        target = local_path(path).resolve()  # of a link, what it points to is replaced
        _check_target(path, target)
        _replace(target, text)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(
            f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}; a record that was there is unchanged."
        ) from None
    return target


def write_json(record: CalibrationRecord) -> str:
    """Return a record as JSON, every column of samples on a line of its own."""
    return _written(record.model_dump(mode="python"), "") + "\n"


def _check_target(path: object, target: Path) -> None:
    if target.exists() and not target.is_file():
        raise CalibrationError(f"{path}: cannot be written: it is {'a folder' if target.is_dir() else 'no plain file'}.")
    if not target.parent.is_dir():
        raise CalibrationError(f"{path}: cannot be written: there is no folder {target.parent}.")


def _replace(target: Path, text: str) -> None:
    draft = target.with_name(f".{target.name[:100]}.{uuid4().hex}.tmp")
    try:
        with open(draft, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _written(value: Any, indent: str, *, rounded: bool = False) -> str:
    if isinstance(value, (list, tuple)) and all(isinstance(v, (float, int)) for v in value):
        return f"[{','.join([_rounded(v) if rounded else json.dumps(v) for v in value])}]"
    if not value or not isinstance(value, (Mapping, list, tuple)):
        return _rounded(value) if rounded and isinstance(value, float) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    deeper = indent + " "
    if isinstance(value, Mapping):
        # of samples only what there is; they alone are rounded: constants and rates are written to the last digit
        entries = {k: v for k, v in value.items() if not (rounded and v in (None, ()))}
        parts = [f"{json.dumps(str(k))}: {_written(v, deeper, rounded=rounded or k == 'samples')}" for k, v in entries.items()]
        inner, (left, right) = list(entries.values()), "{}"
    else:
        parts = [_written(v, deeper, rounded=rounded) for v in value]
        inner, (left, right) = list(value), "[]"
    if indent and not any(isinstance(v, (Mapping, list, tuple)) for v in inner) and len(", ".join(parts)) <= _LINE:
        return f"{left}{', '.join(parts)}{right}"
    lines = f",\n{deeper}".join(parts)
    return f"{left}\n{deeper}{lines}\n{indent}{right}"


def _rounded(value: float) -> str:
    """Write a whole number exactly, any other with 7 significant digits: a measurement has no more."""
    return str(int(value)) if value == int(value) and abs(value) < _EXACT else f"{value:.7g}"


def _sync_folder(folder: Path) -> None:
    """Have the new name on disk too, where the system can; the file itself is."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
