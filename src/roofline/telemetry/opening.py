"""Opening what reads a device."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from roofline.calls import checks_call
from roofline.errors import install
from roofline.telemetry import amd, nvidia
from roofline.telemetry.nvml import NvmlTelemeter, find_device
from roofline.telemetry.processors import CpuTelemeter
from roofline.telemetry.reading import SilentTelemeter, Telemeter
from roofline.telemetry.samples import Sampler


@checks_call
def open_telemeter(kind: str, index: int = 0, *, uuid: str | None = None) -> Telemeter:
    """Return what watches a device; where it cannot be watched, a silent telemeter whose condition says why.

    Parameters
    ----------
    kind : {"cpu", "cuda"}
        The host's processors, or a GPU [-].
    index : int, optional
        The GPU's number for CUDA [-].
    uuid : str, optional
        The GPU's UUID, which counts instead of the number if given [-].

    Returns
    -------
    Telemeter
        To be closed after use [-].

    Examples
    --------
    >>> open_telemeter("cpu").watch(lambda: 1 + 1)[0]
    2
    """
    if kind == "cpu":
        return CpuTelemeter()
    nvml, reason = _start_nvml("calibrate")
    if nvml is None:
        return SilentTelemeter(reason)
    try:
        return NvmlTelemeter(nvml, find_device(nvml, index, uuid))
    except nvml.NVMLError as error:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
        return SilentTelemeter(f"NVML does not find the device ({error})")


def _start_nvml(extra: str) -> tuple[Any, str]:
    """Return NVML, started, or why there is none."""
    try:
        import pynvml
    except ImportError:
        return None, f"the package nvidia-ml-py is not installed: {install(extra)}"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, f"NVML does not start ({error})"
    return pynvml, ""


def _start_amdsmi() -> tuple[Any, str]:
    """Return AMD SMI, started, or why there is none."""
    try:
        import amdsmi
    except Exception as error:  # it looks for ROCm's library when it is imported, and fails in several ways
        return None, f"the package amdsmi, which comes with ROCm, is not there ({error})" if str(error) else "the package amdsmi fails"
    try:
        amdsmi.amdsmi_init()
    except amdsmi.AmdSmiException as error:
        return None, f"AMD SMI does not start ({error})"
    return amdsmi, ""


def find_samplers() -> tuple[Sequence[Sampler], dict[str, str], Callable[[], None]]:
    """Return a sampler for every GPU, why a vendor's GPUs cannot be read, and what closes all."""
    found: list[Sampler] = []
    reasons: dict[str, str] = {}
    closing = ExitStack()
    nvml, reason = _start_nvml("monitor")
    if nvml is None:
        reasons["NVIDIA"] = reason
    else:
        closing.callback(_quietly, nvml.nvmlShutdown, nvml.NVMLError)
        try:
            found += nvidia.find_gpus(nvml)
        except nvml.NVMLError as error:
            reasons["NVIDIA"] = f"NVML does not list the devices ({error})"
        if not found:
            reasons.setdefault("NVIDIA", "NVML lists no device")
    smi, reason = _start_amdsmi()
    if smi is None:
        reasons["AMD"] = reason
    else:
        closing.callback(_quietly, smi.amdsmi_shut_down, smi.AmdSmiException)
        try:
            found += amd.find_gpus(smi, len({sampler.device.partition("/")[0] for sampler in found}))
        except smi.AmdSmiException as error:
            reasons["AMD"] = f"AMD SMI does not list the devices ({error})"
    for sampler in found:
        closing.callback(sampler.close)
    return found, reasons, closing.close


def _quietly(call: Callable[[], Any], error: type[Exception]) -> None:
    with suppress(error):
        call()
