"""Watching an NVIDIA GPU through NVML, by queries only: no setting of the device is ever changed."""

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Any, TypeVar

from roofline.records import Condition, Flag, Telemetry
from roofline.telemetry.gpm import GpmCounters
from roofline.telemetry.nvml_queries import SLOWING, STATE, read
from roofline.telemetry.reading import Property, Reading

T = TypeVar("T")

_EVERY_S = 0.05  # between two readings of clocks and power; each costs the host about a millisecond
_COUNTED = ("tensor_active", "dram_active")
_BUSY_PERCENT = 10  # an idle device shows 0; the display of a workstation a few per cent


def find_device(nvml: Any, index: int, uuid: str | None = None) -> Any:
    """Return NVML's handle of the device that CUDA calls `index`."""
    if uuid is None:
        visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        name = visible[index] if index < len(visible) else str(index)
        if name.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(name))
        uuid = name
    if uuid.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    with suppress(nvml.NVMLError):
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")  # CUDA tells a slice of a GPU by the slice's own UUID


class NvmlTelemeter:
    """Watches an NVIDIA GPU through NVML; a query that the device, driver or binding does not support returns None.

    Parameters
    ----------
    nvml : module
        ``pynvml``, started [-].
    handle : object
        The device's handle [-].
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._device = nvml, handle
        self._gpm = has_counters(nvml, handle)
        cuda = self._ask("nvmlSystemGetCudaDriverVersion")
        software = {
            "driver": self._ask("nvmlSystemGetDriverVersion"),
            "driver CUDA": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        }
        self.software: dict[str, str] = {name: _text(value) for name, value in software.items() if value is not None}
        self.properties: dict[str, Property] = self._describe()
        busy = getattr(self._ask("nvmlDeviceGetUtilizationRates", handle), "gpu", None)
        self.conditions: tuple[Condition, ...] = ()
        if busy is not None and busy >= _BUSY_PERCENT:
            text = f"device busy: kernels were running in {busy} % of the time before the first sample"
            self.conditions = (Condition(code="device busy", text=text),)

    def _ask(self, query: str, *arguments: Any) -> Any:
        """Return the answer to one query, None if it is not supported."""
        try:
            return getattr(self._nvml, query)(*arguments)
        except (self._nvml.NVMLError, AttributeError):  # AttributeError: the binding is older than the query
            return None

    def _clock(self, which: str, query: str = "nvmlDeviceGetClockInfo") -> float | None:
        kind = getattr(self._nvml, which, None)
        mhz = None if kind is None else self._ask(query, self._device, kind)
        return None if mhz is None else mhz * 1e6

    def _processes(self) -> list[Any] | None:
        found = self._ask("nvmlDeviceGetComputeRunningProcesses", self._device)
        return None if found is None else list(found)

    def _is_slice(self) -> bool | None:
        slice_ = self._ask("nvmlDeviceIsMigDeviceHandle", self._device)
        return None if slice_ is None else bool(slice_)

    def _describe(self) -> dict[str, Property]:
        device = self._device
        uuid, limit = self._ask("nvmlDeviceGetUUID", device), self._ask("nvmlDeviceGetEnforcedPowerLimit", device)
        ecc, mig = self._ask("nvmlDeviceGetEccMode", device), self._ask("nvmlDeviceGetMigMode", device)
        memory, processes = self._ask("nvmlDeviceGetMemoryInfo", device), self._processes()
        persistence, name = self._ask("nvmlDeviceGetPersistenceMode", device), self._ask("nvmlDeviceGetName", device)
        return {
            "nvml_name": None if name is None else _text(name),
            # enough to distinguish two devices, but not to identify one
            "uuid_hash": None if uuid is None else hashlib.sha256(_text(uuid).encode()).hexdigest()[:16],
            "sm_clock_hz": self._clock("NVML_CLOCK_SM"),
            "sm_clock_max_hz": self._clock("NVML_CLOCK_SM", "nvmlDeviceGetMaxClockInfo"),
            "memory_clock_hz": self._clock("NVML_CLOCK_MEM"),
            "memory_clock_max_hz": self._clock("NVML_CLOCK_MEM", "nvmlDeviceGetMaxClockInfo"),
            "memory_bus_bits": self._ask("nvmlDeviceGetMemoryBusWidth", device),
            "power_limit_w": None if limit is None else limit / 1e3,
            "ecc": None if ecc is None else bool(ecc[0]),
            "mig": self._is_slice() if mig is None else bool(mig[0]),
            "persistence_mode": None if persistence is None else bool(persistence),
            "temperature_c": read(self._nvml, device, ["temperature_c"])[0].get("temperature_c"),
            "compute_processes": None if processes is None else len(processes),
            "memory_used_at_start_bytes": None if memory is None else int(memory.used),
            "memory_used_by_others_bytes": None if processes is None else _memory_of_others(processes),
            "gpm": self._gpm,
        }

    def watch(self, work: Callable[[], T]) -> tuple[T, Reading]:
        """Do the work, and read clocks, power and counters meanwhile.

        Clocks and power are medians over the time of the work; temperature and counters are maxima. The counters are of the busiest
        150 ms, because a sample also prepares data and checks results.
        """
        watch = _Watch(self._nvml, self._read_state, self._counters() if self._gpm else None)
        watch.start()
        try:
            result = work()
        finally:
            watch.stop()
        states = watch.states or [self._read_state()]
        names = tuple(dict.fromkeys(name for state in states for name in state.get("throttle_reasons", ())))
        telemetry = Telemetry(
            sm_clock_hz=_over(median, states, "clock_hz"),
            memory_clock_hz=_over(median, states, "memory_clock_hz"),
            power_w=_over(median, states, "power_w"),
            temperature_c=_over(max, states, "temperature_c"),
            throttle_reasons=names,
            tensor_active=_over(max, watch.counters, "tensor_active"),
            dram_active=_over(max, watch.counters, "dram_active"),
        )
        return result, Reading(telemetry, (*_throttled(names), *self._shared()))

    def _shared(self) -> tuple[Flag, ...]:
        # by now this process is one of those on the device, though a container may show it under another id than its own
        others = len(self._processes() or ()) - 1
        detail = f"{others} other compute process{'es' if others > 1 else ''}"
        return (Flag(code="device shared", detail=detail),) if others > 0 else ()

    def _read_state(self) -> dict[str, Any]:
        return read(self._nvml, self._device, STATE)[0]

    def _counters(self) -> GpmCounters | None:
        with suppress(self._nvml.NVMLError, AttributeError):
            return GpmCounters(self._nvml, self._device, names=_COUNTED)
        return None

    def close(self) -> None:
        """Stop NVML."""
        self._ask("nvmlShutdown")


class _Watch(threading.Thread):
    """Reads a device periodically until it is stopped."""

    def __init__(self, nvml: Any, read_state: Callable[[], dict[str, Any]], counters: GpmCounters | None) -> None:
        super().__init__(name="roofline-telemetry", daemon=True)
        self._errors = (nvml.NVMLError, AttributeError)
        self._read_state, self._counter, self._ended = read_state, counters, threading.Event()
        self.states: list[dict[str, Any]] = []
        self.counters: list[dict[str, float]] = []

    def run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self.states.append(self._read_state())
            self._count()

    def _count(self) -> None:
        if self._counter is not None and self._counter.left_s() <= 0:
            with suppress(*self._errors):
                self.counters.append(self._counter.window()[0])

    def stop(self) -> None:
        self._ended.set()
        self.join()
        if self._counter is not None:
            self._count()
            self._counter.free()


def has_counters(nvml: Any, device: Any) -> bool:
    """Return whether a GPU has GPM counters that driver and binding can read."""
    with suppress(nvml.NVMLError, AttributeError):
        return bool(nvml.nvmlGpmQueryDeviceSupport(device).isSupportedDevice)
    return False


def _throttled(names: tuple[str, ...]) -> tuple[Flag, ...]:
    """Flag a sample whose clocks were throttled for one of the reasons that slow kernels down."""
    grave = [name for name in names if name in SLOWING]
    return (Flag(code="throttled", detail=", ".join(grave)),) if grave else ()


def _memory_of_others(processes: list[Any]) -> int | None:
    """Return the memory of other processes [B]; None in a container that hides which process is ours."""
    if os.getpid() not in (p.pid for p in processes):
        return None
    return sum(int(p.usedGpuMemory or 0) for p in processes if p.pid != os.getpid())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _over(combine: Callable[[list[float]], float], readings: list[dict[str, Any]], name: str) -> float | None:
    known = [reading[name] for reading in readings if name in reading]
    return combine(known) if known else None
