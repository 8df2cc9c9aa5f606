"""Sampling every NVIDIA GPU of a machine, and every slice of one that is cut by MIG."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from roofline.telemetry.gpm import RATES, SHARES, GpmCounters
from roofline.telemetry.nvml import has_counters
from roofline.telemetry.nvml_queries import read
from roofline.telemetry.samples import DeviceSample, reason_of

_WITHOUT_GPM = "the device, or its driver, has no GPM counters; they begin with Hopper"


class NvmlSampler:
    """Reads one GPU, or one slice of a GPU.

    Parameters
    ----------
    nvml : module
        ``pynvml``, started [-].
    handle : object
        Handle of the GPU or slice [-].
    device : str
        What it is called here [-].
    whole : object, optional
        Handle of the GPU that a slice is of [-].
    """

    def __init__(self, nvml: Any, handle: Any, device: str, whole: Any = None) -> None:
        self._nvml, self._handle, self.device, self.name = nvml, handle, device, None
        self._errors = (nvml.NVMLError, AttributeError)
        with suppress(*self._errors):
            name = nvml.nvmlDeviceGetName(handle)
            self.name = name.decode() if isinstance(name, bytes) else str(name)
        self._counters, self._no_counters = self._open_counters(handle, whole)

    def _open_counters(self, handle: Any, whole: Any) -> tuple[GpmCounters | None, str]:
        nvml = self._nvml
        if not has_counters(nvml, handle if whole is None else whole):
            return None, _WITHOUT_GPM
        try:
            if whole is None:
                return GpmCounters(nvml, handle), ""
            return GpmCounters(nvml, whole, nvml.nvmlDeviceGetGpuInstanceId(handle)), ""
        except self._errors as error:
            return None, reason_of(error)

    def sample(self) -> DeviceSample:
        """Return what the device shows now; a first sample waits until the counters have been open long enough."""
        found, missing = read(self._nvml, self._handle)
        counted, uncounted = self._window()
        return DeviceSample(self.device, "nvidia", self.name, time.time(), **found | counted, missing=missing | uncounted)

    def _window(self) -> tuple[dict[str, float], dict[str, str]]:
        if self._counters is None:
            return {}, dict.fromkeys((*SHARES, *RATES), self._no_counters)
        time.sleep(max(self._counters.left_s(), 0))
        try:
            return self._counters.window()
        except self._errors as error:
            return {}, dict.fromkeys((*SHARES, *RATES), reason_of(error))

    def close(self) -> None:
        """Give the counters back."""
        if self._counters is not None:
            self._counters.free()


def find_gpus(nvml: Any) -> Iterator[NvmlSampler]:
    """Yield a sampler for every GPU and slice that NVML shows, in its order."""
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            yield _Absent(nvml, f"gpu{index}", str(error))
            continue
        yield NvmlSampler(nvml, handle, f"gpu{index}")
        with suppress(nvml.NVMLError, AttributeError):
            yield from _slices(nvml, handle, f"gpu{index}")


def _slices(nvml: Any, handle: Any, device: str) -> Iterator[NvmlSampler]:
    if not nvml.nvmlDeviceGetMigMode(handle)[0]:
        return
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(nvml.NVMLError):  # numbers without a slice
            yield NvmlSampler(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index), f"{device}/mig{index}", handle)


class _Absent(NvmlSampler):
    """A GPU that NVML counts and does not open, for want of permission or because it is lost."""

    def __init__(self, nvml: Any, device: str, reason: str) -> None:
        self.device, self.name, self._reason = device, None, reason

    def sample(self) -> DeviceSample:
        return DeviceSample(self.device, "nvidia", time_s=time.time(), missing={"device": self._reason})

    def close(self) -> None:
        """Do nothing."""
