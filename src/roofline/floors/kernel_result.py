"""The result of a kernel's floor."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.arithmetic import Number
from roofline.bounds import Roofs
from roofline.hardware import Ceiling, Hardware
from roofline.ops import Op
from roofline.results import Result, show_ceilings, show_span
from roofline.units import show_bytes, show_flops, show_time


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class KernelFloor(Result):
    """The floor of one kernel. Unlike in a whole step, its inputs and outputs are compulsory too.

    Parameters
    ----------
    op : Op
        What the kernel costs [-].
    hardware : Hardware
        The machine [-].
    roofs : Roofs
        Time under each roof [s].
    notes : tuple of str, optional
        What else the floor takes for granted [-].
    """

    op: Op
    hardware: Hardware
    roofs: Roofs
    notes: tuple[str, ...] = ()

    @property
    def time_s(self) -> Number:
        """The floor [s]."""
        return self.roofs.time_s

    @property
    def compute_s(self) -> Number:
        """Time of the products at peak [s]."""
        return self.roofs.compute_s

    @property
    def memory_s(self) -> Number:
        """Time of all bytes at full bandwidth, less what the cache may hold [s]."""
        return self.roofs.memory_s

    @property
    def bound(self) -> Number:
        """Which roof binds: ``"compute"`` or ``"memory"``."""
        return self.roofs.binding

    @property
    def flops(self) -> Number:
        """Operations of the matrix products [FLOP]."""
        return self.op.flops

    @property
    def total_bytes(self) -> Number:
        """Inputs, weights, cache and outputs, each once [B]."""
        return self.op.compulsory_bytes + self.op.activation_bytes

    @property
    def intensity(self) -> Number:
        """FLOP per byte [FLOP/B]."""
        return self.flops / self.total_bytes

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """The rates used, each with where it comes from."""
        h = self.hardware
        return (h.memory_ceiling, h.peak(self.op.operand), *((h.cache_ceiling,) if h.last_level_cache else ()))

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the floor takes for granted."""
        cache = self.hardware.last_level_cache
        notes = [f"products in {self.op.operand}; every input read once, every output written once"]
        notes += [f"up to {show_bytes(cache)} may be in the cache before, or stay there after"] if cache else []
        return (*notes, *self.notes, *(n for n in (self.hardware.peak(self.op.operand).note, self.hardware.alias_note) if n))

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        return {n: getattr(self, n) for n in ("time_s", "compute_s", "memory_s", "bound", "flops", "total_bytes", "intensity")}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        return {
            "kind": f"{self.op.name} floor",
            "hardware": self.hardware.id,
            "ceilings": [{f: getattr(c, f) for f in ("name", "value", "unit", "source", "evidence", "note")} for c in self.ceilings],
            "assumptions": self.assumptions,
        }

    def summary(self) -> list[str]:
        """Return the short text [-]."""
        bounds = ", ".join(sorted(set(np.ravel(self.bound).tolist())))
        return [
            f"{self.op.name} floor on {self.hardware.name}: {show_span(self.time_s, show_time)} ({bounds}-bound)",
            f"  roofs: memory {show_span(self.memory_s, show_time)}, compute {show_span(self.compute_s, show_time)}",
            f"  work: {show_span(self.flops, show_flops)}; {show_span(self.total_bytes, show_bytes)}",
            f"  ceilings: {show_ceilings(self.ceilings)}",
            *(f"  assumed: {note}" for note in self.assumptions),
        ]

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"
