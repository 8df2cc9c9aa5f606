"""A pretended NVML, whose every query can fail."""

import os
import re
from types import SimpleNamespace

UUID = "GPU-11111111-2222-3333-4444-555555555555"
CHANGES = re.compile(r"^nvml\w*?(Set|Reset|Clear|Create|Destroy|Enable|Disable|Inject)([A-Z]|$)")
"""Calls of NVML that would change something."""


class NvmlError(Exception):
    """As pynvml.NVMLError."""


class Metrics:
    """As pynvml.c_nvmlGpmMetricsGet_t."""

    def __init__(self):
        self.metrics = [SimpleNamespace(metricId=0, nvmlReturn=-1, value=0.0) for _ in range(10)]


class FakeNvml:
    """Answers what it is told to; everything else is not supported. Constants are those of nvml.h."""

    NVMLError = NvmlError
    NVML_SUCCESS = 0
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_GPM_METRICS_GET_VERSION = 1
    NVML_GPM_METRIC_SM_UTIL, NVML_GPM_METRIC_SM_OCCUPANCY, NVML_GPM_METRIC_ANY_TENSOR_UTIL, NVML_GPM_METRIC_DRAM_BW_UTIL = 2, 3, 5, 10
    NVML_GPM_METRIC_PCIE_TX_PER_SEC, NVML_GPM_METRIC_PCIE_RX_PER_SEC = 20, 21
    NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC = 60, 61
    c_nvmlGpmMetricsGet_t = Metrics

    def __init__(self, *, absent=(), **answers):
        self.calls = []
        self.absent = set(absent)
        self.answers = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": lambda i: f"device {i}",
            "nvmlDeviceGetHandleByUUID": lambda uuid: f"device {uuid}",
            "nvmlSystemGetDriverVersion": b"575.57.08",
            "nvmlSystemGetCudaDriverVersion": 12090,
            "nvmlDeviceGetName": b"NVIDIA H200",
            "nvmlDeviceGetUUID": UUID,
            "nvmlDeviceGetClockInfo": lambda device, which: {1: 1755, 2: 3201}[which],
            "nvmlDeviceGetMaxClockInfo": lambda device, which: {1: 1980, 2: 3201}[which],
            "nvmlDeviceGetMemoryBusWidth": 6144,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetPowerUsage": 512_345,
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetEccMode": [1, 1],
            "nvmlDeviceGetMigMode": [0, 0],
            "nvmlDeviceGetPersistenceMode": 1,
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=10**9, total=141 * 10**9),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=0, memory=0),
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid(), usedGpuMemory=10**9)],
            "nvmlDeviceGetCurrentClocksEventReasons": 0,
            "nvmlGpmQueryDeviceSupport": SimpleNamespace(isSupportedDevice=1),
            "nvmlGpmSampleAlloc": object,
            "nvmlGpmSampleGet": lambda device, sample: sample,
            "nvmlGpmSampleFree": lambda sample: None,
            "nvmlGpmMetricsGet": counted,
            **answers,
        }

    def __getattr__(self, name):
        if not name.startswith("nvml") or name in self.absent:
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append(name)
            answer = self.answers.get(name, NvmlError("Not Supported"))
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return call


def counted(query, tensor=83.0, memory=41.0):
    """Fill in the GPM counters as nvmlGpmMetricsGet does: per cent, and MiB/s for traffic."""
    values = {2: 97.0, 3: 24.0, 5: tensor, 10: memory, 20: 3.0, 21: 5.0, 60: 7.0, 61: 11.0}
    for metric in query.metrics[: query.numMetrics]:
        metric.nvmlReturn, metric.value = 0, values[metric.metricId]
    return query
