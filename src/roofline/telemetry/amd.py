"""Sampling AMD GPUs through ``amdsmi``, the Python binding that comes with ROCm.

Names and units as of AMD SMI's Python API reference for ROCm 6 and 7: activities in per cent, memory in MiB, power in W, temperatures in °C,
clocks in MHz; what a GPU does not have is the text ``"N/A"``.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from roofline.telemetry.samples import DeviceSample, ask_each

_MIB = 2**20
_POWER = ("socket_power", "current_socket_power", "average_socket_power")  # of ROCm 7, of MI300 and of those before
_NOTHING = 0xFFFF  # what older bindings return for what there is none of


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value != _NOTHING else None


def _scaled(value: Any, unit: float) -> float | None:
    number = _number(value)
    return None if number is None else number * unit


def _activity(smi: Any, device: Any) -> tuple[float | None, ...]:
    found = smi.amdsmi_get_gpu_activity(device)
    percents = [_number(found.get(name)) for name in ("gfx_activity", "umc_activity")]
    return tuple(None if percent is None else percent / 100 for percent in percents)


def _memory(smi: Any, device: Any) -> tuple[float | None, ...]:
    found = smi.amdsmi_get_gpu_vram_usage(device)
    return tuple(_scaled(found.get(name), _MIB) for name in ("vram_used", "vram_total"))


def _power(smi: Any, device: Any) -> float | None:
    found = smi.amdsmi_get_power_info(device)
    return next((watts for name in _POWER if (watts := _number(found.get(name))) is not None), None)


def _temperature(smi: Any, device: Any) -> float | None:
    return _number(smi.amdsmi_get_temp_metric(device, smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT))


def _clock(smi: Any, device: Any, kind: str) -> float | None:
    found = smi.amdsmi_get_clock_info(device, getattr(smi.AmdSmiClkType, kind))
    return _scaled(found.get("clk", found.get("cur_clk")), 1e6)  # the second before ROCm 6.2


_QUERIES = (
    (("busy", "memory_busy"), _activity),
    (("memory_used_bytes", "memory_total_bytes"), _memory),
    (("power_w",), _power),
    (("temperature_c",), _temperature),
    (("clock_hz",), lambda smi, device: _clock(smi, device, "GFX")),
    (("memory_clock_hz",), lambda smi, device: _clock(smi, device, "MEM")),
)


class AmdSampler:
    """Reads one GPU.

    Parameters
    ----------
    smi : module
        ``amdsmi``, started [-].
    handle : object
        The GPU's handle [-].
    device : str
        What it is called here [-].
    """

    def __init__(self, smi: Any, handle: Any, device: str) -> None:
        self._smi, self._handle, self.device, self.name = smi, handle, device, None
        self._errors = (smi.AmdSmiException, AttributeError, TypeError)  # TypeError: the signature is another version's
        with suppress(*self._errors):
            name = smi.amdsmi_get_gpu_asic_info(handle).get("market_name")
            self.name = str(name) if name and name != "N/A" else None

    def sample(self) -> DeviceSample:
        """Return what the device shows now."""
        found, missing = ask_each(_QUERIES, self._errors, self._smi, self._handle)
        return DeviceSample(self.device, "amd", self.name, time.time(), **found, missing=missing)

    def close(self) -> None:
        """Do nothing."""


def find_gpus(smi: Any, first: int = 0) -> Iterator[AmdSampler]:
    """Yield a sampler for every GPU that AMD SMI shows, in its order, numbered from `first`."""
    for index, handle in enumerate(smi.amdsmi_get_processor_handles(), first):
        yield AmdSampler(smi, handle, f"gpu{index}")
