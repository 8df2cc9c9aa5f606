"""How much of a machine's theoretical bandwidth its kernels reach, from calibration records."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from roofline.hardware import Hardware
from roofline.hardware.recognition import recognize
from roofline.records import CalibrationRecord, list_records, load_record
from roofline.records.samples import list_samples, stream_rates


@dataclass(frozen=True, slots=True)
class Reachable:
    """The share of the theoretical bandwidth that was measured, and where."""

    share: float
    source: str  # id of the record


def reachable_bandwidth(device: str | Hardware | None) -> Reachable | None:
    """Return what the records of a machine say of its memory; None where the device is no known machine, or no record has read its memory."""
    machine = recognize(device) if isinstance(device, str) else device
    if machine is None:
        return None
    own = None if machine.calibration is None else _of([machine.calibration])
    return own or _shipped(machine.id)


@cache
def _shipped(machine: str) -> Reachable | None:
    ids = [name for name in list_records() if name.startswith(f"{machine}-")]
    return _of([record for record in map(load_record, ids) if record.hardware == machine])


def _of(records: Iterable[CalibrationRecord]) -> Reachable | None:
    found = [Reachable(share, record.id) for record in records if (share := _best_share(record))]
    return max(found, key=lambda r: r.share, default=None)


def _best_share(record: CalibrationRecord) -> float | None:
    """Return the rate of the fastest stream over the data sheet's."""
    rates = [rate for _, rate in stream_rates(list_samples(record.classes))]
    bandwidth = record.rates.memory_bandwidth
    return max(rates) / bandwidth if rates and bandwidth and record.rates.origin == "datasheet" else None
