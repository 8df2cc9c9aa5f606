"""Reading records: from a file, from plain data, or those that are shipped."""

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from roofline.calls import checks_call
from roofline.engines import ENGINES
from roofline.errors import CalibrationError, InvalidValueError, quoted
from roofline.names import local_path, normalize_name, unknown_name
from roofline.records.schema import SCHEMA_VERSION, CalibrationRecord
from roofline.shipped import spec_folder
from roofline.validation import describe_faults, parse_json, regular_file

_BOM = b"\xef\xbb\xbf"


@checks_call
def load_record(source: "str | os.PathLike[str] | Mapping[str, Any] | CalibrationRecord") -> CalibrationRecord:
    """Return a calibration record from a file, from plain data, by the id of a shipped one, or as it is.

    Parameters
    ----------
    source : str, path, mapping or CalibrationRecord
        A path to a JSON file (text counts as a path if it ends with ``.json``, contains a separator or names a file that
        exists); the content of one; the id of a shipped record; or a record [-].

    Returns
    -------
    CalibrationRecord
        The record, validated [-].

    Raises
    ------
    CalibrationError
        If it cannot be read, is cut short or does not validate; the message names file, key, value and what is allowed.
    UnknownNameError
        If no shipped record has that id; the message lists the nearest.
    InvalidValueError
        If `source` is none of these.

    Examples
    --------
    >>> rates = {"origin": "measured", "memory_bandwidth": 2e10}
    >>> record = load_record(
    ...     {"schema_version": 2, "id": "mine", "date": "2026-11-30", "source": "by hand", "environment": {"device": "CPU"}, "rates": rates}
    ... )
    >>> record.rates.memory_bandwidth
    20000000000.0
    """
    if isinstance(source, CalibrationRecord):
        return source
    if isinstance(source, Mapping):
        return _validated("the record", _as_json(source))
    if isinstance(source, str) and not _is_path(source):
        return _named(source)
    if isinstance(source, (str, os.PathLike)):
        path = local_path(source)
        text = _read(path)
        try:
            parse_json(text)  # pydantic takes the last of two equal keys in silence
        except ValueError as error:
            raise CalibrationError(f"{path}: {str(error).rstrip('.?')}.") from None
        return _validated(str(path), text)
    raise InvalidValueError(
        f"a calibration record is a path, the content of one, a shipped id or a CalibrationRecord, not {quoted(source)}."
    )


@checks_call
def list_records() -> list[str]:
    """Return the ids of the shipped records, reading none of them.

    Returns
    -------
    list of str
        Sorted ids [-].
    """
    return list(_record_files())


def shipped_records(hardware: str, engine: str = "") -> list[str]:
    """Return the ids of the shipped records of a machine, the preferred one first.

    A finished record is preferred to an unfinished one, then the engine that stands first in a fixed order, so that machines are
    compared under the same software, then the newer.

    Examples
    --------
    >>> shipped_records("h100-sxm", "sglang")
    ['h100-sxm-sglang-0.5.14']
    """
    return [i for i in _shipped(hardware) if i.startswith(f"{hardware}-{engine}")]


@cache
def _shipped(hardware: str) -> tuple[str, ...]:
    # a shipped record's id starts with its machine's, so that only the files of one machine are read
    found = [record for i in _record_files() if i.startswith(hardware) and (record := _named(i)).hardware == hardware]

    def engine(record: CalibrationRecord) -> int:
        name = record.id.removeprefix(f"{hardware}-")
        return next((i for i, e in enumerate(ENGINES) if name.startswith(e)), len(ENGINES))

    newest = sorted(found, key=lambda r: (r.date, r.id), reverse=True)
    return tuple(r.id for r in sorted(newest, key=lambda r: (not r.complete, engine(r))))


def _named(name: str) -> CalibrationRecord:
    known = _record_files()
    exact = {normalize_name(i): i for i in known}.get(normalize_name(name))
    if exact is None:
        hint = "list_records() lists all; a record of your own is named by its path, which ends with .json"
        raise unknown_name("calibration record", name, known or ["none is shipped"], hint=hint)
    return _opened(exact)


@cache
def _opened(record_id: str) -> CalibrationRecord:
    file = _record_files()[record_id]
    return _validated(file.name, _read(file))


@cache
def _record_files() -> dict[str, Path]:
    """Return the shipped record files by id: the packaged ones, or the repository's in an editable install."""
    folder = spec_folder() / "measured"
    found = {f.stem: f for f in folder.glob("*.json")}
    return dict(sorted(found.items()))


def _is_path(name: str) -> bool:
    return name.lower().endswith(".json") or "/" in name or "\\" in name or os.path.isfile(name)


def _read(file: Path) -> bytes:
    try:
        return regular_file(file).read_bytes().removeprefix(_BOM)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise CalibrationError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _as_json(data: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(dict(data)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CalibrationError(f"the record holds what JSON cannot: {error}.") from None


def _validated(where: str, text: bytes) -> CalibrationRecord:
    try:
        # strict: a quoted number or a boolean is a mistake in the file, not something to convert in silence
        record = CalibrationRecord.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise CalibrationError(_describe(where, error)) from None
    if "schema_version" not in record.model_fields_set:
        raise CalibrationError(f"{where}: schema_version is missing.")
    return record


def _describe(where: str, error: ValidationError) -> str:
    for fault in error.errors(include_url=False):
        if fault["type"] == "json_invalid":
            reason = fault["msg"].removeprefix("Invalid JSON: ")
            return f"{where}: not valid JSON, cut short or corrupted: {reason}."
        version = fault["input"]
        if fault["loc"] == ("schema_version",) and type(version) is int:
            older = "an older roofline, which kept conditions and flags as plain sentences"
            by, then = ("a newer roofline", "upgrade roofline") if version > SCHEMA_VERSION else (older, "measure or fit it again")
            return f"{where}: schema_version is {version}: it was written by {by}; this one reads version {SCHEMA_VERSION}: {then}."
    return describe_faults(where, error, CalibrationRecord)
