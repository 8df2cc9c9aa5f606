"""Counters of devices on a page of dcgm-exporter, each for what it is: shares of time in which a unit works, or in which any kernel runs."""

from dataclasses import dataclass
from typing import Any

from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError
from roofline.measured.engines.exposition import Sample, read_exposition

# field of DCGM: our name, and its unit. Profiling fields are shares of 1, whatever the page's HELP says.
_FIELDS = {
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("tensor_active", "share"),
    "DCGM_FI_PROF_DRAM_ACTIVE": ("dram_active", "share"),
    "DCGM_FI_PROF_SM_ACTIVE": ("sm_active", "share"),
    "DCGM_FI_PROF_SM_OCCUPANCY": ("sm_occupancy", "share"),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": ("engine_active", "share"),
    "DCGM_FI_DEV_GPU_UTIL": ("kernel_running", "percentage"),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("memory_running", "percentage"),
    "DCGM_FI_DEV_FB_USED": ("memory_used_bytes", "MiB"),
    "DCGM_FI_DEV_FB_FREE": ("memory_free_bytes", "MiB"),
    "DCGM_FI_DEV_POWER_USAGE": ("power_w", "W"),
    "DCGM_FI_DEV_SM_CLOCK": ("sm_clock_hz", "MHz"),
}
_SI = {
    "share": lambda value: value,
    "percentage": lambda value: value / 100,
    "MiB": lambda value: value * 2**20,
    "MHz": lambda value: value * 1e6,
}
_BLANK = 0x7FFFFFF0
"""What DCGM writes for a value that a device does not have, and larger ones for the reasons (dcgm_fields.h, DCGM_INT32_BLANK) [-]."""


@dataclass(frozen=True, slots=True)
class DeviceCounters:
    """What dcgm-exporter says of one device, or of one instance of a device that is split; None where it does not say it.

    Parameters
    ----------
    device : str
        Number of the device, and of its instance where it is split [-].
    name : str, optional
        As the driver names it [-].
    tensor_active : float, optional
        Share of the cycles in which tensor cores work: what MFU is compared with [-].
    dram_active : float, optional
        Share of the cycles in which memory sends or receives: what MBU is compared with [-].
    sm_active : float, optional
        Share of the cycles in which a processor has a warp, the mean of all [-].
    sm_occupancy : float, optional
        Warps that are resident, of those that could be [-].
    engine_active : float, optional
        Share of the time in which any part of the compute engine is busy [-].
    kernel_running : float, optional
        GPU_UTIL: share of the time in which a kernel runs, be it on one processor; it does not say how much is used [-].
    memory_running : float, optional
        MEM_COPY_UTIL: share of the time in which memory is read or written at all, not of its bandwidth [-].
    memory_used_bytes, memory_free_bytes : float, optional
        Memory [B].
    power_w : float, optional
        Power [W].
    sm_clock_hz : float, optional
        Clock of the processors [Hz].
    """

    device: str
    name: str | None = None
    tensor_active: float | None = None
    dram_active: float | None = None
    sm_active: float | None = None
    sm_occupancy: float | None = None
    engine_active: float | None = None
    kernel_running: float | None = None
    memory_running: float | None = None
    memory_used_bytes: float | None = None
    memory_free_bytes: float | None = None
    power_w: float | None = None
    sm_clock_hz: float | None = None


@checks_keywords
def read_device_metrics(source: Any, *, timeout_s: float = 5.0) -> tuple[DeviceCounters, ...]:
    r"""Return what a page of dcgm-exporter says of each device.

    Parameters
    ----------
    source : str or Path
        ``"http://localhost:9400/metrics"``, the path of a saved page, or the page itself [-].
    timeout_s : float, optional
        How long a server may take to answer [s].

    Returns
    -------
    tuple of DeviceCounters
        One for each device, by its number [-].

    Raises
    ------
    InvalidValueError
        If nothing answers, it is no such page, or a share is above 1.

    Examples
    --------
    >>> [device] = read_device_metrics('DCGM_FI_DEV_GPU_UTIL{gpu="0"} 100\nDCGM_FI_PROF_DRAM_ACTIVE{gpu="0"} 0.62\n')
    >>> device.kernel_running, device.dram_active
    (1.0, 0.62)
    """
    page = read_exposition(source, timeout_s=timeout_s)
    found: dict[str, dict[str, Any]] = {}
    for field, (name, unit) in _FIELDS.items():
        for sample in page.samples.get(field, ()):
            if sample.value >= _BLANK:
                continue
            one = found.setdefault(_device(sample), {"name": sample.labels.get("modelName") or None})
            one[name] = _SI[unit](sample.value) if unit in _SI else sample.value
            if unit in ("share", "percentage") and not 0 <= one[name] <= 1.001:
                raise InvalidValueError(f"{field} of {page.source} is {sample.value:g}, which is no {unit}.")
    if not found:
        fields = ", ".join(list(_FIELDS)[:2])
        raise InvalidValueError(f"{page.source} has no counters of dcgm-exporter, such as {fields}.")
    return tuple(DeviceCounters(device, **counters) for device, counters in sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _device(sample: Sample) -> str:
    """Return what tells a device from others; a page may have samples without labels."""
    instance = sample.labels.get("GPU_I_ID")
    number = sample.labels.get("gpu", "")
    return f"{number}/{instance}" if instance else number
