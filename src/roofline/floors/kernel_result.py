"""The result of a kernel's floor."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, ParamSpec

import numpy as np

from roofline.arithmetic import Number, quotient
from roofline.bounds import Roofs, kernel_roofs, network_assumption
from roofline.deployment.inputs import machine_input, option_input
from roofline.floors.result import UNKNOWN_LINKS
from roofline.frozen import FrozenDict, freeze
from roofline.hardware import Ceiling, Hardware
from roofline.ops import Op
from roofline.results import Question, Result, show_ceilings, show_span
from roofline.units import show_bytes, show_flops, show_time

Cache = Literal["warm", "cold"]
"""What the last-level cache may hold before a kernel starts: its operands, as far as there is room, or nothing of them."""

Arguments = ParamSpec("Arguments")
_HARDWARE = """\
hardware : Hardware, str or Path, optional
    A machine, its name, or its spec file; None with bare rates [-]."""
_REST = """\
cache : {"warm", "cold"}, optional
    Whether operands may still be in the last-level cache, which bounds any measurement, or every byte comes from memory [-].
memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
    Bare rates of a machine without a name [B/s], [FLOP/s], [B]."""

QUESTIONS: dict[str, Callable[..., "KernelFloor"]] = {}
"""The functions that return floors of kernels, by name [-]."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class KernelFloor(Result):
    """The floor of one kernel. Unlike in a whole step, its inputs and outputs count as well.

    Parameters
    ----------
    op : Op
        What the kernel costs [-].
    hardware : Hardware
        The machine [-].
    roofs : Roofs
        Time under each roof [s].
    notes : tuple of str, optional
        Further assumptions [-].
    cache : {"warm", "cold"}, optional
        Whether the last-level cache may hold operands from before [-].
    asked : tuple, optional
        The function that was asked, by name, its arguments and its keywords; empty for an operator of the caller's own [-].
    """

    op: Op
    hardware: Hardware
    roofs: Roofs
    notes: tuple[str, ...] = ()
    cache: Cache = "warm"
    asked: tuple[str, tuple[Any, ...], Mapping[str, Any]] | tuple[()] = ()

    @property
    def time_s(self) -> Number:
        """The floor [s]."""
        return self.roofs.time_s

    @property
    def warm_s(self) -> Number:
        """The floor if as many operands as the last-level cache holds are still in it: a bound for any measurement [s]."""
        return self._with_cache("warm")

    @property
    def cold_s(self) -> Number:
        """The floor if every byte comes from memory, as after a flush of the cache or on operands not used before [s]."""
        return self._with_cache("cold")

    def _with_cache(self, cache: Cache) -> Number:
        return self.time_s if cache == self.cache else kernel_roofs(self.op, self.hardware, cache=cache).time_s

    @property
    def compute_s(self) -> Number:
        """Time of the products at peak [s]."""
        return self.roofs.compute_s

    @property
    def memory_s(self) -> Number:
        """Time of all bytes at full bandwidth, less what a warm cache may hold [s]."""
        return self.roofs.memory_s

    @property
    def network_s(self) -> Number:
        """Time on the links between devices; 0 unless the kernel is a collective [s]."""
        return self.roofs.network_s

    @property
    def bound(self) -> Number:
        """Which roof binds: ``"compute"``, ``"memory"`` or ``"network"``."""
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
    def link_bytes(self) -> Number:
        """Bytes that leave the device over its links, one direction [B]."""
        return self.op.link_bytes

    @property
    def intensity(self) -> Number:
        """FLOP per byte of memory; not a number where none is moved, as in a collective [FLOP/B]."""
        return quotient(self.flops, self.total_bytes)

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """The rates used, each with its source."""
        h, used = self.hardware, []
        if np.any(self.total_bytes):
            used.append(h.memory_ceiling)
        if np.any(self.flops):
            used.append(h.ceiling(self.op.operand))
        if np.any(self.total_bytes) and h.last_level_cache and self.cache == "warm":
            used.append(h.cache_ceiling)
        links = zip((self.link_bytes, self.op.nic_bytes), h.exit_ceilings, strict=True)
        return (*used, *(ceiling for moved, ceiling in links if ceiling is not None and np.any(moved)))

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the floor assumes."""
        notes, peak = [], self.hardware.ceiling(self.op.operand)
        if np.any(self.total_bytes):
            products = f"products in {self.op.operand}; " if np.any(self.flops) else ""
            notes.append(f"{products}every input read once, every output written once")
            if self.cache == "cold":
                notes.append("a cold cache: every byte comes from memory or goes there")
            elif cache := self.hardware.last_level_cache:
                notes.append(f"up to {show_bytes(cache)} may be in the cache before, or stay there after")
        if self._is_collective:
            notes.append(network_assumption(self.hardware))
        notes += self.notes
        if np.any(self.flops) and peak.note:
            notes.append(peak.note)
        return (*notes, *self.hardware.measured_notes, *((self.hardware.alias_note,) if self.hardware.alias_note else ()))

    @property
    def not_modelled(self) -> tuple[str, ...]:
        """What the floor leaves out."""
        unknown = np.any(self.link_bytes) and self.hardware.link_ceiling is None
        return (UNKNOWN_LINKS,) if unknown else ()

    @property
    def _is_collective(self) -> bool:
        return self.op.kind == "collective"

    def question(self) -> Question | None:
        """Return the question that this answers; None for an operator of the caller's own, which no function counted [-]."""
        if not self.asked:
            return None
        name, arguments, keywords = self.asked
        bound = inspect.signature(QUESTIONS[name]).bind(*arguments, **keywords)
        bound.apply_defaults()
        given = {key: option_input(value) for key, value in bound.arguments.items() if value is not None and key != "hardware"}
        if "memory_bandwidth" not in given:
            given["hardware"] = machine_input(self.hardware)
        return Question(name, {key: given[key] for key in bound.arguments if key in given})

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        names = ("time_s", "cold_s", "compute_s", "memory_s", "network_s", "bound", "flops", "total_bytes", "link_bytes", "intensity")
        return {name: getattr(self, name) for name in names}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        return {
            "kind": f"{self.op.name} floor",
            "hardware": self.hardware.id,
            "ceilings": [{f: getattr(c, f) for f in ("name", "value", "unit", "source", "evidence", "note")} for c in self.ceilings],
            "assumptions": self.assumptions,
            "not_modelled": self.not_modelled,
        }

    def summary(self) -> list[str]:
        """Return the short text [-]."""
        bounds = ", ".join(sorted(set(np.ravel(self.bound).tolist())))
        roofs = f"memory {show_span(self.memory_s, show_time)}, compute {show_span(self.compute_s, show_time)}"
        work = f"{show_span(self.flops, show_flops)}; {show_span(self.total_bytes, show_bytes)}"
        if self._is_collective:
            roofs += f", network {show_span(self.network_s, show_time)}"
            work += f"; {show_span(self.link_bytes, show_bytes)} over the links"
        return [
            f"{self.op.name} floor on {self.hardware.name}: {show_span(self.time_s, show_time)} ({bounds}-bound)",
            f"  roofs: {roofs}",
            f"  work: {work}",
            *self._cache_lines(),
            *([f"  ceilings: {show_ceilings(self.ceilings)}"] if self.ceilings else []),
            *(f"  assumed: {note}" for note in self.assumptions),
            *(f"  left out: {note}" for note in self.not_modelled),
        ]

    def _cache_lines(self) -> list[str]:
        """Both floors, where they differ."""
        warm, cold = self.warm_s, self.cold_s
        if np.all(np.equal(warm, cold)):
            return []
        return [f"  cache: {show_span(warm, show_time)} if the operands are still in the cache, {show_span(cold, show_time)} from memory"]

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


def keeps_question(function: Callable[Arguments, KernelFloor]) -> Callable[Arguments, KernelFloor]:
    """Let a function that returns the floor of a kernel keep its arguments there, and write into its docstring what all such functions take."""

    @wraps(function)
    def asked(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> KernelFloor:
        floor = function(*arguments, **keywords)
        kept = tuple(_kept(value) for value in arguments), FrozenDict({name: _kept(value, name) for name, value in keywords.items()})
        object.__setattr__(floor, "asked", (function.__name__, *kept))  # nobody else has it yet
        return floor

    asked.__doc__ = inspect.cleandoc(function.__doc__ or "").replace("{hardware}", _HARDWARE).replace("{rest}", _REST)
    QUESTIONS[function.__name__] = asked
    return asked


def _kept(value: Any, name: str = "") -> Any:
    """Return an argument as something that nobody changes any more: an array of points, or the popularity of experts."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return value
    return tuple(value) if name == "routing" else freeze(np.array(value))
