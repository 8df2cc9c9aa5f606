"""Machines: what an accelerator can do at most, each figure with the page it was read on.

:class:`Hardware` loads one of the shipped specs (``hardware_specs/*.toml``), a spec file of your own, or bare rates, and
answers with :class:`Ceiling` objects: a value in SI units that carries its source.
"""

from roofline.hardware.load import spec_folder
from roofline.hardware.sections import (
    EVIDENCE,
    Cache,
    Ceiling,
    Compute,
    FormatCounts,
    FormatRates,
    HostLink,
    Memory,
    Power,
    ScaleOut,
    ScaleUp,
    Units,
)
from roofline.hardware.spec import Hardware

__all__ = [
    "EVIDENCE",
    "Cache",
    "Ceiling",
    "Compute",
    "FormatCounts",
    "FormatRates",
    "Hardware",
    "HostLink",
    "Memory",
    "Power",
    "ScaleOut",
    "ScaleUp",
    "Units",
    "spec_folder",
]
