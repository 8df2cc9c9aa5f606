"""Machines: what an accelerator can do at most, each figure with the page it was read on.

:class:`Hardware` loads one of the shipped specs (``hardware_specs/*.toml``), a spec file of your own, or bare rates, and
answers with :class:`Ceiling` objects: a value in SI units that carries its source. :meth:`Hardware.calibrated` puts what was
measured beside them.
"""

from roofline.hardware.datasheet import Datasheet
from roofline.hardware.sections import (
    Cache,
    Clock,
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
from roofline.provenance import EVIDENCE, Ceiling
from roofline.shipped import spec_folder

__all__ = [
    "EVIDENCE",
    "Cache",
    "Ceiling",
    "Clock",
    "Compute",
    "Datasheet",
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
