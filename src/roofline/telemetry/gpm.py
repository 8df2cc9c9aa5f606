"""NVIDIA's GPM counters (Hopper and later): what happened between two samples of them."""

import time
from contextlib import suppress
from typing import Any

from roofline.telemetry.samples import is_quantity

_WINDOW_S = 0.15  # NVML wants more than 100 ms between the two samples that a counter is computed from
_MIB = 2**20

SHARES = {
    "tensor_active": "NVML_GPM_METRIC_ANY_TENSOR_UTIL",
    "dram_active": "NVML_GPM_METRIC_DRAM_BW_UTIL",
    "sm_active": "NVML_GPM_METRIC_SM_UTIL",
    "sm_occupancy": "NVML_GPM_METRIC_SM_OCCUPANCY",
}
"""Counters in per cent, by quantity."""
RATES = {
    "pcie_in_bytes_per_s": "NVML_GPM_METRIC_PCIE_RX_PER_SEC",
    "pcie_out_bytes_per_s": "NVML_GPM_METRIC_PCIE_TX_PER_SEC",
    "link_in_bytes_per_s": "NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC",
    "link_out_bytes_per_s": "NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC",
}
"""Counters in MiB/s, by quantity."""


class GpmCounters:
    """The counters of one GPU, or of one slice of it, between a window's begin and end.

    Parameters
    ----------
    nvml : module
        ``pynvml``, started [-].
    device : object
        The GPU's handle [-].
    instance : int, optional
        The GPU instance, for a slice [-].
    names : tuple of str, optional
        Quantities to count [-].

    Raises
    ------
    pynvml.NVMLError, AttributeError
        If the driver or the binding has no such counters.
    """

    def __init__(self, nvml: Any, device: Any, instance: int | None = None, names: tuple[str, ...] = (*SHARES, *RATES)) -> None:
        self._nvml, self._device, self._instance, self._names = nvml, device, instance, names
        self._samples: list[Any] = []
        self._taken_at = 0.0
        try:
            for _ in range(2):
                self._samples.append(nvml.nvmlGpmSampleAlloc())
            self._take(0)
        except (nvml.NVMLError, AttributeError):
            self.free()
            raise

    def _take(self, which: int) -> None:
        if self._instance is None:
            self._nvml.nvmlGpmSampleGet(self._device, self._samples[which])
        else:
            self._nvml.nvmlGpmMigSampleGet(self._device, self._instance, self._samples[which])
        self._taken_at = time.monotonic()

    def left_s(self) -> float:
        """Return how long the window has to stay open still; not positive when it may be closed [s]."""
        return self._taken_at + _WINDOW_S - time.monotonic()

    def window(self) -> tuple[dict[str, float], dict[str, str]]:
        """Close the window and open the next; return what was counted by quantity, and why others were not."""
        nvml = self._nvml
        self._take(1)
        query = nvml.c_nvmlGpmMetricsGet_t()
        query.version, query.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, len(self._names)
        query.sample1, query.sample2 = self._samples
        for metric, name in zip(query.metrics, self._names, strict=False):
            metric.metricId = getattr(nvml, (SHARES | RATES)[name])
        self._samples.reverse()
        query = nvml.nvmlGpmMetricsGet(query)
        found: dict[str, float] = {}
        missing: dict[str, str] = {}
        for metric, name in zip(query.metrics, self._names, strict=False):
            value = metric.value / 100 if name in SHARES else metric.value * _MIB
            if metric.nvmlReturn != nvml.NVML_SUCCESS:
                missing[name] = str(nvml.NVMLError(metric.nvmlReturn))
            elif is_quantity(name, value):
                found[name] = value
            else:  # not a number
                missing[name] = "nothing was counted"
        return found, missing

    def free(self) -> None:
        """Give the samples back."""
        for sample in self._samples:
            with suppress(self._nvml.NVMLError, AttributeError):
                self._nvml.nvmlGpmSampleFree(sample)
