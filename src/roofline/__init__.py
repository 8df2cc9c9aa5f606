"""How fast a transformer can run on given hardware, how fast it should, and why it runs slower.

>>> from roofline import decode_floor
>>> round(decode_floor("70B", memory_bandwidth=3e12).time_s * 1e3, 2)
46.67
"""

from importlib.metadata import version

from roofline.bounds import attainable, ridge_point
from roofline.catalog import list_models
from roofline.errors import (
    ConfigError,
    InvalidValueError,
    MissingDependencyError,
    RooflineError,
    SpecError,
    UnknownNameError,
    UnsupportedModelError,
)
from roofline.floors import Floor, decode_floor, prefill_floor, step_floor
from roofline.formats import FORMATS, Format
from roofline.forward import forward
from roofline.hardware import Ceiling, Hardware
from roofline.kernels import KernelFloor, attention_floor, matmul_floor
from roofline.model import Model
from roofline.step import Step

__version__ = version("roofline")

__all__ = [
    "FORMATS",
    "Ceiling",
    "ConfigError",
    "Floor",
    "Format",
    "Hardware",
    "InvalidValueError",
    "KernelFloor",
    "MissingDependencyError",
    "Model",
    "RooflineError",
    "SpecError",
    "Step",
    "UnknownNameError",
    "UnsupportedModelError",
    "__version__",
    "attainable",
    "attention_floor",
    "decode_floor",
    "forward",
    "list_models",
    "matmul_floor",
    "prefill_floor",
    "ridge_point",
    "step_floor",
]
