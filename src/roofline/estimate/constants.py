"""Which constants a kernel is timed with: those of its own class, or the nearest there are, said so."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from roofline.arithmetic import LinearForm
from roofline.bounds import network_time
from roofline.errors import CalibrationError
from roofline.hardware import Hardware
from roofline.kernels import Family
from roofline.ops import Op
from roofline.records import PERCENTILES, CalibrationRecord, KernelClass, load_record, shipped_records

__all__ = ["GENERIC", "Chosen", "choose", "find_record", "generic_record", "residual_quantile"]

GENERIC = "generic"
"""Id of the record whose shares hold for any machine, with an interval as wide as machines differ [-]."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The constants of n kernels of one family on one machine, as columns.

    Parameters
    ----------
    constants : mapping of str to numpy.ndarray
        Every constant of the form, n × 1 [unit].
    peak_flops_per_s, bandwidth : numpy.ndarray
        What shares refer to, n × 1 [FLOP/s], [B/s].
    quantiles : numpy.ndarray
        log(measured / fitted) at ``roofline.records.PERCENTILES``, n × 13 [-].
    generic : numpy.ndarray
        Whether the constants are those of no machine in particular, n [-].
    notes : tuple of str
        Where no constants of the very class exist, what stands in for them [-].
    """

    constants: dict[str, np.ndarray]
    peak_flops_per_s: np.ndarray
    bandwidth: np.ndarray
    quantiles: np.ndarray
    generic: np.ndarray
    notes: tuple[str, ...]


def find_record(calibration: Any, hardware: Hardware) -> CalibrationRecord:
    """Return the record that an estimate rests on.

    Parameters
    ----------
    calibration : CalibrationRecord, str, Path or None
        A record, its file, the id of a shipped one, the engine of one (``"vllm"``), ``"generic"``; by default the one the machine carries, else the first that
        is shipped for it, else the generic one [-].
    hardware : Hardware
        The machine [-].

    Returns
    -------
    CalibrationRecord
        The record [-].

    Raises
    ------
    CalibrationError
        If it cannot be read, or was measured on another machine.
    """
    if calibration is None:
        return hardware.calibration or _default(hardware.id)
    of_engine = _of_engine(calibration, hardware.id) if isinstance(calibration, str) else None
    record = of_engine or (_named(calibration) if isinstance(calibration, str) else load_record(calibration))
    found: CalibrationRecord = hardware.calibrated(record).calibration or record
    return found


def _of_engine(name: str, machine: str) -> CalibrationRecord | None:
    """Return the first record shipped for a machine whose id goes on with the name: an engine, with or without its version."""
    return next((_named(i) for i in shipped_records(machine) if name and i.startswith(f"{machine}-{name.lower()}")), None)


@lru_cache(maxsize=64)
def _named(source: str) -> CalibrationRecord:
    return load_record(source)


def generic_record() -> CalibrationRecord:
    """Return the record whose shares hold for any machine.

    Returns
    -------
    CalibrationRecord
        The record ``"generic"`` [-].
    """
    return _named(GENERIC)


@lru_cache(maxsize=256)
def _default(machine: str) -> CalibrationRecord:
    shipped = shipped_records(machine)
    return _named(shipped[0] if shipped else GENERIC)


def choose(family: Family, ops: Sequence[Op], record: CalibrationRecord, hardware: Hardware) -> Chosen:
    """Return the constants of kernels of one family.

    The record's class of the same family, stored format and operand format; else one of its classes of that family and operand,
    else of that family; else the generic ones.

    Parameters
    ----------
    family : Family
        The family [-].
    ops : sequence of Op
        n operators of it [-].
    record : CalibrationRecord
        What the estimate rests on [-].
    hardware : Hardware
        The machine [-].

    Returns
    -------
    Chosen
        Constants as columns [-].
    """
    notes = []
    columns: dict[str, list[float]] = {c.name: [] for c in family.constants}
    peaks, bandwidths, quantiles, generic = [], [], [], []
    for op in ops:
        found, origin = _nearest(record, family.name, op.stored, op.operand), record
        if found is None:
            origin = generic_record()
            found = _nearest(origin, family.name, op.stored, op.operand)
        if found is None:
            raise CalibrationError(f"neither {record.id} nor the generic record has kernels of the family {family.name}.")
        wanted, got = _label(op.stored, op.operand), _label(found.stored, found.operand)
        if origin is not record and record.id != GENERIC:
            notes.append(f"{family.name} {wanted}: not in {record.id}, generic constants")
        elif wanted != got and found.stored:
            notes.append(f"{family.name} {wanted}: constants of {got}")
        for c in family.constants:
            columns[c.name].append(found.constants[c.name].value)
        peak, bandwidth = _rates(origin, hardware, op, family.roof)
        peaks.append(peak)
        bandwidths.append(bandwidth)
        quantiles.append(found.residual_quantiles)
        generic.append(origin.rates.origin == "fraction")
    return Chosen(
        {name: np.array(column)[:, None] for name, column in columns.items()},
        np.array(peaks)[:, None],
        np.array(bandwidths)[:, None],
        np.array(quantiles),
        np.array(generic),
        tuple(dict.fromkeys(notes)),
    )


def _label(stored: str, operand: str) -> str:
    return f"{stored} in {operand}" if stored and stored != operand else operand


def _nearest(record: CalibrationRecord, family: str, stored: str, operand: str) -> KernelClass | None:
    fitted = [c for c in record.classes if c.family == family and c.constants]
    for match in (
        [c for c in fitted if (c.stored, c.operand) == (stored, operand)],
        [c for c in fitted if c.operand == operand and c.stored == operand],
        [c for c in fitted if c.operand == operand],
        [c for c in fitted if c.stored == stored],
        fitted,
    ):
        if match:
            return match[0]
    return None


def _rates(record: CalibrationRecord, hardware: Hardware, op: Op, roof: str) -> tuple[float, float]:
    """Return the peak and bandwidth that shares refer to: the machine's, or what the record has, if that is less."""
    peak, rates = hardware.peak(op.operand).value, record.rates
    bandwidth, known = (
        (_link_rate(op, hardware), rates.link_bandwidth) if roof == "link" else (hardware.memory_bandwidth, rates.memory_bandwidth)
    )
    if rates.origin == "fraction":
        return peak, bandwidth
    return min(peak, rates.peak_flops_per_s.get(op.operand, peak)), min(bandwidth, known or bandwidth)


def _link_rate(op: Op, hardware: Hardware) -> float:
    """Return at which rate a collective's bytes leave the device, be it over its links or, in part, beyond their domain [B/s]."""
    link, nic = (sum(LinearForm.coerce(amount).terms.values()) for amount in (op.link_bytes, op.nic_bytes))
    seconds = network_time(1.0, nic / link if link else 0.0, hardware)  # of one byte; both amounts are in proportion
    return 1 / float(seconds) if seconds else np.inf


def residual_quantile(quantiles: np.ndarray, level: float) -> np.ndarray:
    """Return how far measured times lie from fitted ones, at one level of probability.

    Parameters
    ----------
    quantiles : numpy.ndarray
        log(measured / fitted) at ``roofline.records.PERCENTILES``, n × 13 [-].
    level : float
        Probability, 0 … 1 [-].

    Returns
    -------
    numpy.ndarray
        log(measured / fitted) of each, n [-].

    Examples
    --------
    >>> residual_quantile(np.array([np.linspace(-1, 1, 13)]), 0.5)
    array([0.])
    """
    above = min(max(int(np.searchsorted(_LEVELS, level)), 1), len(_LEVELS) - 1)
    low, high = _LEVELS[above - 1], _LEVELS[above]
    share = min(max((level - low) / (high - low), 0.0), 1.0)  # beyond the outermost percentiles nothing is known
    between: np.ndarray = quantiles[:, above - 1] * (1 - share) + quantiles[:, above] * share
    return between


_LEVELS = np.array(PERCENTILES) / 100
