"""Writing records: readable JSON, written atomically."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from roofline.calls import checks_call
from roofline.errors import CalibrationError, InvalidValueError, quoted
from roofline.names import local_path
from roofline.records.schema import CalibrationRecord

_LINE = 120  # a table of plain values stands on one line of up to so many characters
_LEAF = re.compile(r"[{\[]\n[^{}\[\]]*\n *[}\]]")  # a list or table without inner ones: in JSON only layout holds a line break
_EXACT = 2**53  # whole numbers below it are exact in float64


@checks_call
def save_record(record: CalibrationRecord, path: "str | os.PathLike[str]") -> Path:
    """Write a record to a file, atomically.

    It is written to a temporary file, which then replaces the old one, so a crash, a full disk or a kill leaves the old file
    intact. Samples are written with 7 significant digits, whole numbers exactly.

    Parameters
    ----------
    record : CalibrationRecord
        What to write [-].
    path : str or path
        Where to; the folder must exist, and an existing file is replaced [-].

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
        raise InvalidValueError(f"a record is saved under a path, not under {quoted(path)}.")
    text = write_json(record)
    try:
        target = local_path(path).resolve()  # of a link, what it points to is replaced
        _check_target(path, target)
        _replace(target, text)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, CalibrationError):
            raise
        # Python's own words about a null byte differ from version to version
        reason = "a path has no null bytes" if "\0" in str(path) else getattr(error, "strerror", None) or error
        raise CalibrationError(f"{path}: cannot be written: {reason}; a record that was there is unchanged.") from None
    return target


def write_json(record: CalibrationRecord) -> str:
    """Return a record as JSON with every column of samples on one line."""
    data = record.model_dump()
    data["classes"] = [
        {n: v for n, v in c.items() if v or n not in ("taken_from", "shapes", "step_quantiles", "size_quantiles")}
        | {n: _compact(c[n]) for n in ("size_quantiles", "samples", "shapes") if c[n] is not None}
        for c in data["classes"]
    ]
    data["conditions"] = _compact(data["conditions"])
    return _LEAF.sub(_on_one_line, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def _compact(value: Any) -> Any:
    """Return samples without empty entries and with 7 significant digits, which is all that a measurement has; whole numbers stay exact."""
    if isinstance(value, float):
        kept = value if value.is_integer() and abs(value) < _EXACT else float(f"{value:.7g}")
        return int(kept) if kept.is_integer() and abs(kept) < _EXACT else kept
    if isinstance(value, Mapping):
        return {name: _compact(inner) for name, inner in value.items() if inner not in (None, (), "")}
    return [_compact(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _on_one_line(leaf: re.Match[str]) -> str:
    """Return a JSON list or table without inner ones on one line, unless it is a long one with text in it."""
    if '"' not in leaf[0]:
        return re.sub(r"\s", "", leaf[0])
    line = re.sub(r"\n *", " ", leaf[0][1:-1]).strip()
    return f"{leaf[0][0]}{line}{leaf[0][-1]}" if len(line) <= _LINE else leaf[0]


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


def _sync_folder(folder: Path) -> None:
    """Flush the new name to disk too, where the system can."""
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
