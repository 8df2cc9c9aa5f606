"""What a record says of where its samples come from, and whether a run can add to it."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any

from roofline.calibration.devices import Device
from roofline.calibration.reading import Telemeter
from roofline.errors import CalibrationError
from roofline.formats import OPERANDS
from roofline.hardware import Hardware
from roofline.records import CalibrationRecord, Environment, Rates, load_record

__all__ = ["check_same", "empty_record", "previous_record"]

_HOW_TO_GO_ON = "Name another file, or start anew with resume=False (--fresh)."
_MOST_SHOWN = 60


def empty_record(device: Device, telemeter: Telemeter, plan: str, hardware: Hardware | None) -> CalibrationRecord:
    """Return a record of a device, its software and the plan, without any samples.

    Parameters
    ----------
    device : Device
        What is to be measured [-].
    telemeter : Telemeter
        What watches it [-].
    plan : str
        Name of the plan [-].
    hardware : Hardware or None
        The machine whose datasheet shares refer to; None if the rates are to be measured [-].

    Returns
    -------
    CalibrationRecord
        Not complete [-].
    """
    now = datetime.now(UTC).replace(microsecond=0)
    release = version("roofline")
    described = {**telemeter.properties, **device.properties}
    software = {name: str(described.pop(name)) for name in ("torch", "cuda", "python", "system") if name in described}
    name = hardware.id if hardware else re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-") or device.kind
    return CalibrationRecord(
        id=f"{name}-torch-{now:%Y%m%d-%H%M}",
        hardware=hardware.id if hardware else "",
        date=now.isoformat(),
        source=f"roofline {release} calibrate, micro-benchmarks with torch",
        environment=Environment(device=device.name, software={"roofline": release, **software, **telemeter.software}, properties=described),
        rates=_datasheet(hardware) if hardware else Rates(origin="measured"),
        complete=False,
        plan=plan,
    )


def _datasheet(hardware: Hardware) -> Rates:
    peaks = {operand: hardware.peak(operand).value for operand in OPERANDS}
    return Rates(
        peak_flops_per_s={operand: peak for operand, peak in peaks.items() if math.isfinite(peak)},
        memory_bandwidth=hardware.memory_bandwidth,
        link_bandwidth=hardware.link_ceiling.value if hardware.link_ceiling else None,
        origin="datasheet",
    )


def check_same(previous: CalibrationRecord, now: CalibrationRecord, path: Path) -> None:
    """Refuse to mix samples of two devices, plans or versions of the software in one record.

    Parameters
    ----------
    previous : CalibrationRecord
        What the file holds [-].
    now : CalibrationRecord
        What this run would begin with [-].
    path : Path
        The file [-].

    Raises
    ------
    CalibrationError
        If they differ; the message says in what.
    """

    def identity(record: CalibrationRecord) -> Mapping[str, Any]:
        software, told = record.environment.software, record.environment.properties
        of_software = {name: software.get(name) for name in ("roofline", "torch", "cuda", "driver")}
        of_device = {name: told.get(name) for name in ("uuid_hash", "threads")}
        return {"device": record.environment.device, "plan": record.plan, "hardware": record.hardware or None, **of_software, **of_device}

    before, after = identity(previous), identity(now)
    differing = [
        f"{name} {shorten(str(before[name]), _MOST_SHOWN, placeholder=' …')} there, {after[name]} now"
        for name in before
        if before[name] != after[name] and None not in (before[name], after[name])
    ]
    if differing:
        raise CalibrationError(f"{path} holds a record that this run cannot go on with: {', '.join(differing)}. {_HOW_TO_GO_ON}")


def previous_record(path: Path) -> CalibrationRecord:
    """Return the record that a run would go on with.

    Parameters
    ----------
    path : Path
        A file that is there [-].

    Returns
    -------
    CalibrationRecord
        What it holds [-].

    Raises
    ------
    CalibrationError
        If that is no record, or none that can be read; the message says what to do about it.
    """
    try:
        return load_record(path)
    except CalibrationError as error:
        raise CalibrationError(f"{str(error).rstrip('.')}. {_HOW_TO_GO_ON}") from None
