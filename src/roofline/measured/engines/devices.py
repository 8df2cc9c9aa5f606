"""Counters of devices on a page of dcgm-exporter, each for what it is: shares of time in which a unit works, or in which any kernel runs."""

from typing import Any

from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError
from roofline.measured.engines.exposition import Sample, read_exposition
from roofline.telemetry.samples import DeviceSample

# field of DCGM: our name, and its unit. Profiling fields are shares of 1, whatever the page's HELP says.
_FIELDS = {
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("tensor_active", "share"),
    "DCGM_FI_PROF_DRAM_ACTIVE": ("dram_active", "share"),
    "DCGM_FI_PROF_SM_ACTIVE": ("sm_active", "share"),
    "DCGM_FI_PROF_SM_OCCUPANCY": ("sm_occupancy", "share"),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": ("busy", "share"),  # of an instance of a split device, which has no GPU_UTIL
    "DCGM_FI_DEV_GPU_UTIL": ("busy", "percentage"),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("memory_busy", "percentage"),
    "DCGM_FI_DEV_FB_USED": ("memory_used_bytes", "MiB"),
    "DCGM_FI_DEV_FB_FREE": ("free_bytes", "MiB"),
    "DCGM_FI_DEV_POWER_USAGE": ("power_w", "W"),
    "DCGM_FI_DEV_SM_CLOCK": ("clock_hz", "MHz"),
    "DCGM_FI_DEV_MEM_CLOCK": ("memory_clock_hz", "MHz"),
    "DCGM_FI_DEV_GPU_TEMP": ("temperature_c", "degC"),
    "DCGM_FI_PROF_PCIE_RX_BYTES": ("pcie_in_bytes_per_s", "B/s"),
    "DCGM_FI_PROF_PCIE_TX_BYTES": ("pcie_out_bytes_per_s", "B/s"),
    "DCGM_FI_PROF_NVLINK_RX_BYTES": ("link_in_bytes_per_s", "B/s"),
    "DCGM_FI_PROF_NVLINK_TX_BYTES": ("link_out_bytes_per_s", "B/s"),
}
_SI = {
    "share": lambda value: value,
    "percentage": lambda value: value / 100,
    "MiB": lambda value: value * 2**20,
    "MHz": lambda value: value * 1e6,
}
_BLANK = 0x7FFFFFF0
"""What DCGM writes for a value that a device does not have, and larger ones for the reasons (dcgm_fields.h, DCGM_INT32_BLANK) [-]."""


@checks_keywords
def read_device_metrics(source: Any, *, timeout_s: float = 5.0) -> tuple[DeviceSample, ...]:
    r"""Return what a page of dcgm-exporter says of each device.

    Parameters
    ----------
    source : str or Path
        ``"http://localhost:9400/metrics"``, the path of a saved page, or the page itself [-].
    timeout_s : float, optional
        How long a server may take to answer [s].

    Returns
    -------
    tuple of DeviceSample
        One for each device, by its number [-].

    Raises
    ------
    InvalidValueError
        If nothing answers, it is no such page, or a share is above 1.

    Examples
    --------
    >>> [device] = read_device_metrics('DCGM_FI_DEV_GPU_UTIL{gpu="0"} 100\nDCGM_FI_PROF_DRAM_ACTIVE{gpu="0"} 0.62\n')
    >>> device.busy, device.dram_active
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
    for one in found.values():
        free = one.pop("free_bytes", None)
        if free is not None and "memory_used_bytes" in one:
            one["memory_total_bytes"] = one["memory_used_bytes"] + free
    return tuple(DeviceSample(device, "nvidia", **found[device]) for device in sorted(found, key=lambda device: (len(device), device)))


def _device(sample: Sample) -> str:
    """Return what tells a device from others; a page may have samples without labels."""
    instance = sample.labels.get("GPU_I_ID")
    number = sample.labels.get("gpu", "")
    return f"gpu{number}/mig{instance}" if instance else f"gpu{number}"
