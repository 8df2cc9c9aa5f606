"""Opening the telemeter of a device."""

from contextlib import suppress

from roofline.calls import checks_call
from roofline.errors import install
from roofline.telemetry.nvml import NvmlTelemeter, find_device
from roofline.telemetry.processors import CpuTelemeter
from roofline.telemetry.reading import SilentTelemeter, Telemeter


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
    try:
        import pynvml
    except ImportError:
        return SilentTelemeter(f"the package nvidia-ml-py is not installed: {install('calibrate')}")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return SilentTelemeter(f"NVML does not start ({error})")
    try:
        return NvmlTelemeter(pynvml, find_device(pynvml, index, uuid))
    except pynvml.NVMLError as error:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
        return SilentTelemeter(f"NVML does not find the device ({error})")
