"""The machine that a device is, by the name that it calls itself."""

from roofline.errors import SpecError, UnknownNameError
from roofline.hardware.spec import Hardware


def recognize(name: str) -> Hardware | None:
    """Return the machine with a device's name, None if no spec has it.

    Examples
    --------
    >>> recognize("NVIDIA H200").id
    'h200-sxm'
    """
    try:
        return Hardware.load(name)
    except (UnknownNameError, SpecError):  # SpecError: a name that looks like a path
        return None
