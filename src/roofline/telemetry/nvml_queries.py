"""What is read of an NVIDIA GPU, quantity by quantity, through queries that change nothing."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from roofline.telemetry.samples import ask_each

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
SLOWING = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
"""The reasons that slow kernels down against the device's will."""


def throttle_reasons(bits: int) -> tuple[str, ...]:
    """Return the names of the reasons that a bit mask holds.

    Examples
    --------
    >>> throttle_reasons(0x5)
    ('SwPowerCap',)
    """
    return tuple(name for bit, name in _REASONS.items() if bits & bit)


def _busy(nvml: Any, device: Any) -> tuple[float, float]:
    rates = nvml.nvmlDeviceGetUtilizationRates(device)
    return rates.gpu / 100, rates.memory / 100


def _memory(nvml: Any, device: Any) -> tuple[float, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(device)
    return float(memory.used), float(memory.total)


def _throttled(nvml: Any, device: Any) -> tuple[str, ...]:
    try:
        return throttle_reasons(nvml.nvmlDeviceGetCurrentClocksEventReasons(device))
    except (nvml.NVMLError, AttributeError) as error:
        with suppress(nvml.NVMLError, AttributeError):  # the name before driver 535
            return throttle_reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device))
        raise error


_QUERIES = {
    ("busy", "memory_busy"): _busy,
    ("memory_used_bytes", "memory_total_bytes"): _memory,
    ("power_w",): lambda nvml, device: nvml.nvmlDeviceGetPowerUsage(device) / 1e3,
    ("temperature_c",): lambda nvml, device: float(nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
    ("clock_hz",): lambda nvml, device: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM) * 1e6,
    ("memory_clock_hz",): lambda nvml, device: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM) * 1e6,
    ("throttle_reasons",): _throttled,
}
STATE = ("power_w", "temperature_c", "clock_hz", "memory_clock_hz", "throttle_reasons")
"""Quantities that cost little, for a look every few hundredths of a second."""


def read(nvml: Any, device: Any, names: Iterable[str] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return quantities by name, all or some, and why others could not be read."""
    wanted = None if names is None else set(names)
    queries = [(key, query) for key, query in _QUERIES.items() if wanted is None or wanted.intersection(key)]
    return ask_each(queries, (nvml.NVMLError, AttributeError), nvml, device)
