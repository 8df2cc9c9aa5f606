"""Where the samples of a record come from, and whether a run may add to them."""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any

from roofline.calibration.devices import Device
from roofline.errors import CalibrationError, quoted
from roofline.formats import OPERANDS
from roofline.hardware import Hardware
from roofline.hardware.load import name_keys
from roofline.hardware.rates import datasheet_rates
from roofline.hardware.recognition import recognize
from roofline.records import CalibrationRecord, Condition, Environment, Rates, load_record
from roofline.telemetry.reading import Telemeter

_WAY_OUT = "Name another file, or replace the record with resume=False (--fresh)."
_MOST_SHOWN = 60


def empty_record(device: Device, telemeter: Telemeter, plan: str, hardware: Hardware | None) -> CalibrationRecord:
    """Return a record of a device, its software and the plan, without any samples."""
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
        rates=datasheet_rates(hardware, OPERANDS) if hardware else Rates(origin="measured"),
        complete=False,
        plan=plan,
    )


def check_same(previous: CalibrationRecord, now: CalibrationRecord, path: Path) -> None:
    """Raise CalibrationError if a run would mix samples of two devices, plans or software versions in one record."""

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
        raise CalibrationError(f"{path} holds a record that this run cannot resume: {', '.join(differing)}. {_WAY_OUT}")


def resumed_record(path: Path) -> CalibrationRecord:
    """Return the record that a run resumes."""
    try:
        return load_record(path)
    except CalibrationError as error:
        raise CalibrationError(f"{str(error).rstrip('.')}. {_WAY_OUT}") from None


def continued_record(previous: CalibrationRecord, now: CalibrationRecord) -> CalibrationRecord:
    """Return the record that a resumed run starts from: the previous id, date and environment, without samples."""
    kept: dict[str, Any] = {"id": previous.id, "date": previous.date, "environment": previous.environment}
    if previous.hardware and not now.hardware:
        kept |= {"hardware": previous.hardware, "rates": previous.rates}
    return now.model_copy(update=kept)


def same_rates(previous: CalibrationRecord, now: CalibrationRecord) -> bool:
    """Return whether the shares of two records of the same samples refer to the same rates."""
    return previous.hardware == now.hardware and (now.rates == previous.rates or now.rates.origin == previous.rates.origin == "measured")


def check_device_name(name: str, hardware: Hardware | None) -> tuple[Condition, ...]:
    """Warn if the device's name does not match the machine whose datasheet is used.

    Examples
    --------
    >>> check_device_name("NVIDIA H200", Hardware.load("h200-sxm"))
    ()
    """
    if hardware is None:
        return ()
    found = recognize(name)
    own = {key for known in (hardware.id, hardware.name, *hardware.aliases) for key in name_keys(known)}
    if (found is not None and found.id == hardware.id) or not own.isdisjoint(name_keys(name)):
        return ()
    what = f"no known name of {hardware.id}" if found is None else f"which is {found.id} and not {hardware.id}"
    return (Condition(code="not recognized", text=f"not recognized: the device is {name}, {what}, whose datasheet its shares refer to"),)


def as_path(output: "str | os.PathLike[str]") -> Path:
    """Return the path of a record's file."""
    if not str(output):
        raise CalibrationError("output is empty; name the record's file.")
    try:
        return Path(output).expanduser()
    except (TypeError, RuntimeError) as error:  # RuntimeError: nobody has such a home
        raise CalibrationError(f"{quoted(output)} is no path for a record: {str(error).rstrip('.')}.") from None
