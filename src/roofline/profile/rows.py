"""Operators of a profile: what was measured of alike calls, what they cost, their roof, and sums over them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from roofline.bounds import operator_time
from roofline.hardware import Hardware
from roofline.ops import Op
from roofline.units import show_time


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """The calls of one operator that are alike, or the sum over several: what was measured, what it costs, and its own roof.

    Parameters
    ----------
    name : str
        The operator, as torch calls it: ``"aten::mm"``; of a sum, what it is over [-].
    calls : int
        How often it ran [-].
    time_s : float
        Measured: of its kernels on a GPU, of itself with what it calls on a CPU [s].
    module : str, optional
        Path of the module that called it, such as ``"model.layers.0.mlp.up_proj"``; empty where it is not known [-].
    phase : str, optional
        ``"prefill"``, ``"decode"`` or another name that the run was given; None outside of them [-].
    shapes : str, optional
        Of its inputs; empty for sums and where they are not known [-].
    format : str, optional
        Format that its products run in, or that its elements have; several are separated by commas; None where it is not known [-].
    flops : float, optional
        Operations of matrix products, all calls together; None where the operator is not understood, never 0 for that [FLOP].
    vector_flops : float, optional
        Operations of general units; None where the operator is not understood [FLOP].
    total_bytes : float, optional
        Every input read once and every output written once; None where the operator is not understood [B].
    counted_s : float, optional
        The part of `time_s` whose FLOP and bytes are known [s].
    compute_s, memory_s : float, optional
        Its arithmetic at peak, its bytes at full bandwidth; None without a machine [s].
    roof_s : float, optional
        The longer of the two, call by call; None without a machine [s].
    bound : str, optional
        Which one is longer: ``"compute"`` or ``"memory"``; None without a machine [-].
    """

    name: str
    calls: int
    time_s: float
    module: str = ""
    phase: str | None = None
    shapes: str = ""
    format: str | None = None
    flops: float | None = None
    vector_flops: float | None = None
    total_bytes: float | None = None
    counted_s: float = 0.0
    compute_s: float | None = None
    memory_s: float | None = None
    roof_s: float | None = None
    bound: str | None = None

    @property
    def known(self) -> bool:
        """Whether its FLOP and bytes are known, of a sum at least for some of its time."""
        return self.total_bytes is not None

    @property
    def intensity(self) -> float | None:
        """FLOP of all kinds per byte; None where they are not known, or no byte moves [FLOP/B]."""
        return self._flops / self.total_bytes if self.total_bytes else None

    @property
    def achieved_flops_per_s(self) -> float | None:
        """FLOP of all kinds that were achieved, over the time whose FLOP are known [FLOP/s]."""
        return self._flops / self.counted_s if self.known and self.counted_s else None

    @property
    def achieved_bytes_per_s(self) -> float | None:
        """Bytes that were moved, over the time whose bytes are known [B/s]."""
        return self.total_bytes / self.counted_s if self.total_bytes is not None and self.counted_s else None

    @property
    def of_roof(self) -> float | None:
        """Share of its roof: `roof_s` over the time whose costs are known; above 1 where operands were still in a cache [-]."""
        return self.roof_s / self.counted_s if self.roof_s is not None and self.counted_s else None

    @property
    def _flops(self) -> float:
        return (self.flops or 0) + (self.vector_flops or 0)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain Python, with what follows from it.

        Returns
        -------
        dict
            Fields by name [SI].
        """
        derived = ("intensity", "achieved_flops_per_s", "achieved_bytes_per_s", "of_roof")
        return {name: getattr(self, name) for name in (*self.__slots__, *derived)}


def time_operator(
    name: str, op: Op | None, hardware: Hardware | None = None, *, calls: int = 1, time_s: float, **where: Any
) -> OperatorTime:
    """Return the calls of one operator that are alike beside their roof.

    Parameters
    ----------
    name : str
        What it is called [-].
    op : Op or None
        What a single call costs; None if that is not known [-].
    hardware : Hardware, optional
        The machine that it ran on [-].
    calls : int, optional
        How often it ran [-].
    time_s : float
        Of all calls together [s].
    **where : optional
        ``module``, ``phase``, ``shapes`` and ``format`` of an :class:`OperatorTime` [-].

    Returns
    -------
    OperatorTime
        Amounts of all calls; without times of roofs where the machine's peak for its products is not known [-].
    """
    row = OperatorTime(name, calls, time_s, **where)
    if op is None:
        return row
    moved = op.compulsory_bytes + op.activation_bytes
    counted = {"flops": op.flops * calls, "vector_flops": op.vector_flops * calls, "total_bytes": float(moved * calls), "counted_s": time_s}
    row = replace(row, **counted)
    if hardware is None or (op.flops and not math.isfinite(hardware.ceiling(op.operand).value)):
        return row  # without a peak the memory roof alone would say that a product is memory-bound
    roof = operator_time(op, hardware)
    times = {"compute_s": roof.compute_s * calls, "memory_s": roof.memory_s * calls, "roof_s": roof.time_s * calls}
    return replace(row, **times, bound=str(roof.bound) if roof.time_s else None)


def add_up(name: str, rows: Sequence[OperatorTime], **where: Any) -> OperatorTime:
    """Return the sum over operators; those that are not understood add time, and no amounts."""
    known = [row for row in rows if row.known]
    roofed = [row for row in known if row.roof_s is not None]
    bounds: dict[str, float] = defaultdict(float)
    for row in roofed:
        if row.bound:
            bounds[row.bound] += row.roof_s or 0
    formats: dict[str, float] = defaultdict(float)
    for row in rows:
        if row.format and (row.flops or row.total_bytes):
            formats[row.format] += row.time_s

    def total(of: list[OperatorTime], amount: str) -> float | None:
        return sum(getattr(row, amount) for row in of) if of else None

    whole = len(roofed) == len(known)  # a roof of some of the operators only would look like a share of all
    return OperatorTime(
        name,
        sum(row.calls for row in rows),
        sum(row.time_s for row in rows),
        format=", ".join(sorted(formats, key=lambda name: -formats[name])) or None,
        counted_s=sum(row.counted_s for row in rows),
        flops=total(known, "flops"),
        vector_flops=total(known, "vector_flops"),
        total_bytes=total(known, "total_bytes"),
        compute_s=total(roofed, "compute_s") if whole else None,
        memory_s=total(roofed, "memory_s") if whole else None,
        roof_s=total(roofed, "roof_s") if whole else None,
        bound=max(bounds, key=lambda name: bounds[name]) if whole and bounds else None,
        **where,
    )


def grouped(rows: Iterable[OperatorTime], key: Callable[[OperatorTime], tuple[str, str | None]]) -> tuple[OperatorTime, ...]:
    """Return the sums over rows of one name and phase, the longest first."""
    groups: dict[tuple[str, str | None], list[OperatorTime]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    sums = [add_up(name, group, phase=phase) for (name, phase), group in groups.items()]
    return tuple(sorted(sums, key=lambda row: -row.time_s))


def show_change(before_s: float, after_s: float) -> str:
    """Return two times of the same work in words.

    Examples
    --------
    >>> show_change(3e-3, 2e-3)
    '3 ms → 2 ms, 1 ms saved'
    """
    return (
        f"{show_time(before_s)} → {show_time(after_s)}, {show_time(abs(before_s - after_s))} {'saved' if after_s <= before_s else 'lost'}"
    )


_LONGEST = 60  # characters of a name in a text
_LAST = 20  # of them from its end, where kernels that differ in their sizes say so


def short(name: str) -> str:
    """Return the name of a kernel or an operator as texts show it: C++ templates can be thousands of characters long."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - _LAST - 1]}…{name[-_LAST:]}"


def without_numbers(module: str) -> str:
    """Return the path of a module with a star for the number of a layer, so that identical layers are one.

    Examples
    --------
    >>> without_numbers("model.layers.12.mlp.experts.3.up_proj")
    'model.layers.*.mlp.experts.*.up_proj'
    """
    return ".".join("*" if part.isdigit() else part for part in module.split("."))
