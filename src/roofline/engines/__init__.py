"""Serving engines: what each does unless it is told otherwise, and how long its host takes, every group of figures with its source.

:func:`load_engine` returns one of the shipped profiles (``hardware_specs/engines/*.toml``). Estimates take a step's time outside kernels from
the profile of the engine that their record was measured with.
"""

from roofline.engines.load import ENGINES, list_engines, load_engine
from roofline.engines.profile import (
    Admission,
    CacheMemory,
    Engine,
    Formats,
    Graphs,
    HostTimes,
    LayerTimes,
    Limits,
    Scheduling,
    SharedExperts,
    Speculation,
)

__all__ = [
    "ENGINES",
    "Admission",
    "CacheMemory",
    "Engine",
    "Formats",
    "Graphs",
    "HostTimes",
    "LayerTimes",
    "Limits",
    "Scheduling",
    "SharedExperts",
    "Speculation",
    "list_engines",
    "load_engine",
]
