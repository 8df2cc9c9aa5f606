"""What counters say of a run, whoever read them: a monitor's recording, a page of dcgm-exporter, the engine, the benchmark itself, the caller."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from roofline.errors import InvalidValueError
from roofline.monitor import DeviceSample, Recording
from roofline.names import local_path

_IDLE = 0.01  # share of the time with a kernel, up to which a device had no part in the run


@dataclass(frozen=True, slots=True)
class Seen:
    """Counters of the devices that worked, averaged, and of the engine; None where nobody says them.

    Parameters
    ----------
    busy : float, optional
        Share of the time in which any kernel ran: GPU-Util [-].
    tensor_active, dram_active : float, optional
        Share of the arithmetic and of the bandwidth in use [-].
    source : str
        Who says so [-].
    waiting : float, optional
        Requests that wait on average, by the engine itself [-].
    names : tuple of str
        What the devices call themselves, as far as the counters say it [-].
    """

    busy: float | None = None
    tensor_active: float | None = None
    dram_active: float | None = None
    source: str = ""
    waiting: float | None = None
    names: tuple[str, ...] = ()


def of_recording(recording: Recording) -> Seen:
    """Return the means of a recording over the accelerators that were not idle all the time."""
    hosts = processors_of(recording)
    devices = [device for device in recording.devices if device.device not in hosts]
    if not devices:
        raise InvalidValueError(
            f"{local_path(recording.path).name} is a recording of a processor, whose load is no time of kernels: give one of the accelerators."
        )
    worked = [device.means for device in devices if device.means.get("busy", 1.0) > _IDLE] or [device.means for device in devices]
    busy, tensor, dram = (_mean(mean.get(name) for mean in worked) for name in ("busy", "tensor_active", "dram_active"))
    return Seen(busy, tensor, dram, recording.source, names=_names(device.name for device in devices))


def processors_of(recording: Recording) -> frozenset[str]:
    """Return the devices of a recording that are processors of the host."""
    return frozenset(sample.device for sample in recording.samples if sample.kind == "cpu")


def of_counters(devices: Iterable[DeviceSample]) -> Seen:
    """Return the means of a page of dcgm-exporter over the devices that are not idle."""
    every = list(devices)
    worked = [one for one in every if one.busy is None or one.busy > _IDLE] or every
    names = ("busy", "tensor_active", "dram_active")
    busy, tensor, dram = (_mean(getattr(one, name) for one in worked) for name in names)
    return Seen(busy, tensor, dram, "dcgm-exporter", names=_names(one.name for one in worked))


def _names(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def _mean(values: Iterable[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None
