"""Watching an NVIDIA GPU through NVML, by queries only: no setting of the device is ever changed."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

from roofline.records import Condition, Flag, Telemetry
from roofline.telemetry.reading import Property, Reading

T = TypeVar("T")

_EVERY_S = 0.05  # between two readings of clocks and power; each costs the host about a millisecond
_GPM_WINDOW_S = 0.15  # NVML wants more than 100 ms between the two samples that a counter is computed from
_BUSY_PERCENT = 10  # an idle device shows 0; the display of a workstation a few per cent

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, NVML_CLOCKS_EVENT_REASONS) without GpuIdle (0x1), which is no throttling.
_REASONS = {
    0x2: "ApplicationsClocksSetting",
    0x4: "SwPowerCap",
    0x8: "HwSlowdown",
    0x10: "SyncBoost",
    0x20: "SwThermalSlowdown",
    0x40: "HwThermalSlowdown",
    0x80: "HwPowerBrakeSlowdown",
    0x100: "DisplayClockSetting",
}
_THROTTLED = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")


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
        self._gpm = bool(getattr(self._ask("nvmlGpmQueryDeviceSupport", handle), "isSupportedDevice", 0))
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

    def _celsius(self) -> float | None:
        sensor = getattr(self._nvml, "NVML_TEMPERATURE_GPU", 0)
        return _number(self._ask("nvmlDeviceGetTemperature", self._device, sensor))

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
            "temperature_c": self._celsius(),
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
        watch = _Watch(self._read_state, self._counters() if self._gpm else None)
        watch.start()
        try:
            result = work()
        finally:
            watch.stop()
        states = watch.states or [self._read_state()]
        names = tuple(name for bit, name in _REASONS.items() if any((state.reasons or 0) & bit for state in states))
        counters = watch.counters
        telemetry = Telemetry(
            sm_clock_hz=_over(median, [state.sm_hz for state in states]),
            memory_clock_hz=_over(median, [state.memory_hz for state in states]),
            power_w=_over(median, [state.power_w for state in states]),
            temperature_c=_over(max, [state.celsius for state in states]),
            throttle_reasons=names,
            tensor_active=_over(max, [c[0] for c in counters]),
            dram_active=_over(max, [c[1] for c in counters]),
        )
        return result, Reading(telemetry, (*_throttled(names), *self._shared()))

    def _shared(self) -> tuple[Flag, ...]:
        # by now this process is one of those on the device, though a container may show it under another id than its own
        others = len(self._processes() or ()) - 1
        detail = f"{others} other compute process{'es' if others > 1 else ''}"
        return (Flag(code="device shared", detail=detail),) if others > 0 else ()

    def _read_state(self) -> "_State":
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", self._device)
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", self._device)
        if reasons is None:  # the name before driver 535
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", self._device)
        power = None if milliwatts is None else milliwatts / 1e3
        return _State(self._clock("NVML_CLOCK_SM"), self._clock("NVML_CLOCK_MEM"), power, self._celsius(), reasons)

    def _counters(self) -> "_Counters | None":
        samples = [self._ask("nvmlGpmSampleAlloc") for _ in range(2)]
        return None if any(s is None for s in samples) else _Counters(self._nvml, self._device, samples)

    def close(self) -> None:
        """Stop NVML."""
        self._ask("nvmlShutdown")


@dataclass(frozen=True, slots=True)
class _State:
    """Clocks, power, temperature and throttle reasons at one moment."""

    sm_hz: float | None
    memory_hz: float | None
    power_w: float | None
    celsius: float | None
    reasons: int | None


class _Watch(threading.Thread):
    """Reads a device periodically until it is stopped."""

    def __init__(self, read_state: Callable[[], _State], counters: "_Counters | None") -> None:
        super().__init__(name="roofline-telemetry", daemon=True)
        self._read_state, self._counter, self._ended = read_state, counters, threading.Event()
        self.states: list[_State] = []
        self.counters: list[tuple[float | None, float | None]] = []

    def run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self.states.append(self._read_state())
            if self._counter is not None:
                self.counters += self._counter.window()

    def stop(self) -> None:
        self._ended.set()
        self.join()
        if self._counter is not None:
            self.counters += self._counter.window()
            self._counter.free()


class _Counters:
    """Tensor-core and memory activity between two samples of the GPM counters (Hopper and later)."""

    def __init__(self, nvml: Any, device: Any, samples: list[Any]) -> None:
        self._nvml, self._device, self._samples = nvml, device, samples
        self._taken_at: float | None = None
        self.window()

    def window(self) -> list[tuple[float | None, float | None]]:
        """Return the activity since the last window, nothing if that is too recent."""
        nvml, now = self._nvml, time.monotonic()
        if self._taken_at is not None and now - self._taken_at < _GPM_WINDOW_S:
            return []
        try:
            nvml.nvmlGpmSampleGet(self._device, self._samples[1])
            first, self._taken_at = self._taken_at is None, now
            found = [] if first else [self._between()]
        except (nvml.NVMLError, AttributeError):
            return []
        self._samples.reverse()
        return found

    def _between(self) -> tuple[float | None, float | None]:
        nvml = self._nvml
        query = nvml.c_nvmlGpmMetricsGet_t()
        query.version, query.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, 2
        query.sample1, query.sample2 = self._samples
        query.metrics[0].metricId = nvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL
        query.metrics[1].metricId = nvml.NVML_GPM_METRIC_DRAM_BW_UTIL
        query = nvml.nvmlGpmMetricsGet(query)
        tensor, memory = (m.value / 100 if m.nvmlReturn == nvml.NVML_SUCCESS else None for m in (query.metrics[0], query.metrics[1]))
        return _share(tensor), _share(memory)

    def free(self) -> None:
        for sample in self._samples:
            with suppress(self._nvml.NVMLError, AttributeError):
                self._nvml.nvmlGpmSampleFree(sample)


def _throttled(names: tuple[str, ...]) -> tuple[Flag, ...]:
    """Flag a sample whose clocks were throttled for one of the reasons that slow kernels down."""
    grave = [name for name in names if name in _THROTTLED]
    return (Flag(code="throttled", detail=", ".join(grave)),) if grave else ()


def _memory_of_others(processes: list[Any]) -> int | None:
    """Return the memory of other processes [B]; None in a container that hides which process is ours."""
    if os.getpid() not in (p.pid for p in processes):
        return None
    return sum(int(p.usedGpuMemory or 0) for p in processes if p.pid != os.getpid())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _share(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= 1.5 else None  # NaN where nothing was counted


def _over(combine: Callable[[list[float]], float], values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return combine(known) if known else None
