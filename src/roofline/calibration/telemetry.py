"""What watches a device while it is measured. Everything here only reads: no setting of a device is ever changed."""

from contextlib import suppress

from roofline.calibration.nvml import NvmlTelemeter, find_device
from roofline.calibration.processors import CpuTelemeter
from roofline.calibration.reading import SilentTelemeter, Telemeter


def open_telemeter(kind: str, index: int = 0, *, uuid: str | None = None) -> Telemeter:
    """Return what watches a device, or what stands in for it and says why.

    Examples
    --------
    >>> open_telemeter("cpu").beside(lambda: 1 + 1)[0]
    2
    """
    if kind == "cpu":
        return CpuTelemeter()
    try:
        import pynvml
    except ImportError:
        return SilentTelemeter("the package nvidia-ml-py is not installed: pip install 'roofline[calibrate]'")
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
