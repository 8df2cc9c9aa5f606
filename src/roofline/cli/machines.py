"""The machine that a word names: a shipped one, a spec file, or a calibration record, which knows its own.

Records need pydantic, which most commands do not: it is imported when a record is named.
"""

import json

from roofline.errors import CalibrationError, SpecError, UnknownNameError
from roofline.hardware import Hardware
from roofline.names import local_path, normalize_name
from roofline.validation import regular_file


def find_machine(word: str) -> Hardware:
    """Return the machine of a name, a spec file, or a calibration record's file or id."""
    try:
        return Hardware.load(word)
    except SpecError:
        if not _holds_record(word):
            raise
    except UnknownNameError:
        from roofline.records import list_records

        if normalize_name(word) not in map(normalize_name, list_records()):
            raise
    return machine_of(word)


def _holds_record(word: str) -> bool:
    try:
        data = json.loads(regular_file(local_path(word)).read_bytes())
    except (OSError, ValueError, RecursionError):  # ValueError: not JSON
        return False
    return isinstance(data, dict) and {"environment", "classes", "rates"} <= data.keys()


def machine_of(record: str) -> Hardware:
    """Return the machine that a record was measured on: that of its spec, or one made of what was measured."""
    from roofline.engines.load import find_engine
    from roofline.records import load_record

    instead = f"roofline estimate MODEL MACHINE --calibration {record}"
    if find_engine(record):
        raise CalibrationError(f"{record} is an engine, with records of several machines; name the machine as well: {instead}.")
    found = load_record(record)
    if found.rates.origin == "fraction":
        raise CalibrationError(f"calibration record {found.id} is of no machine in particular; name the machine as well: {instead}.")
    if not found.hardware:
        return Hardware.from_record(found)
    try:
        machine = Hardware.load(found.hardware)
    except (UnknownNameError, SpecError):  # SpecError: an id that looks like a path
        raise CalibrationError(
            f"calibration record {found.id} was measured on {found.hardware}, which is no shipped machine; give its spec file: "
            f"roofline estimate MODEL SPEC.toml --calibration {record}."
        ) from None
    return machine.calibrated(found)
