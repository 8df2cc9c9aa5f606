"""`KernelReport`: what a vendor's profiler says of kernels, in SI units, whichever it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from roofline.profile.rows import short
from roofline.profile.traces.kernels_by_name import sum_by_class
from roofline.results import Result, show_notes
from roofline.units import show_bytes, show_flops, show_rate, show_time

_SHOWN = 12


@dataclass(frozen=True, slots=True)
class ReportedKernel:
    """A kernel, or several of the same name, as a profiler reports it.

    What the report does not say is None, never 0.

    Parameters
    ----------
    name : str
        As the report has it [-].
    kind : str
        What it does, by its name: ``"matrices"``, ``"attention"`` … [-].
    count : int
        How many ran [-].
    time_s : float, optional
        All together [s].
    dram_bytes : float, optional
        Read from and written to memory [B].
    dram_bytes_per_s : float, optional
        The same, each second [B/s].
    flops : float, optional
        Operations of matrix units [FLOP].
    vector_flops : float, optional
        Operations of general units, a fused multiply-add being two [FLOP].
    vector_flops_per_s : float, optional
        The same, each second [FLOP/s].
    peak_bytes_per_s : float, optional
        What the memory could do at the clock at which it was profiled [B/s].
    peak_vector_flops_per_s : float, optional
        What general units could do in fp32 at the clock at which it was profiled [FLOP/s].
    of_compute, of_memory : float, optional
        The profiler's own shares of peak: of the busiest unit of the multiprocessors, and of the memory system, caches included [-].
    metrics : mapping of str to float or str
        Everything that the report says, by section and name, in SI units; shares are 0 … 1 [-].
    advice : tuple of str
        What the profiler's rules say [-].
    """

    name: str
    kind: str
    count: int
    time_s: float | None = None
    dram_bytes: float | None = None
    dram_bytes_per_s: float | None = None
    flops: float | None = None
    vector_flops: float | None = None
    vector_flops_per_s: float | None = None
    peak_bytes_per_s: float | None = None
    peak_vector_flops_per_s: float | None = None
    of_compute: float | None = None
    of_memory: float | None = None
    metrics: Mapping[str, float | str] = field(default_factory=dict)
    advice: tuple[str, ...] = ()

    @property
    def product_flops_per_s(self) -> float | None:
        """Operations of matrix units each second [FLOP/s]."""
        return None if self.flops is None or not self.time_s else self.flops / self.time_s

    @property
    def of_bandwidth(self) -> float | None:
        """Share of the memory's bandwidth at the clock at which it was profiled [-]."""
        known = self.dram_bytes_per_s is not None and self.peak_bytes_per_s
        return self.dram_bytes_per_s / self.peak_bytes_per_s if known else None  # type: ignore[operator] # known

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain Python, with what follows from it.

        Returns
        -------
        dict
            Fields by name [SI].
        """
        return {name: getattr(self, name) for name in (*self.__slots__, "product_flops_per_s", "of_bandwidth")}


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class KernelReport(Result):
    """What a vendor's profiler says of kernels.

    Parameters
    ----------
    path : str
        Where it was read [-].
    tool : str
        Which profiler and which of its reports [-].
    kernels : tuple of ReportedKernel
        As the report lists them: launches one by one, or sums over a name [-].
    notes : tuple of str
        What a reader must know [-].
    """

    path: str
    tool: str
    kernels: tuple[ReportedKernel, ...]
    notes: tuple[str, ...] = ()

    _numbers = ("time_s", "dram_bytes", "count")

    @property
    def count(self) -> int:
        """Kernels that ran [-]."""
        return sum(kernel.count for kernel in self.kernels)

    @property
    def time_s(self) -> float | None:
        """Of all kernels together; None where that of one is not known [s]."""
        return total([kernel.time_s for kernel in self.kernels])

    @property
    def dram_bytes(self) -> float | None:
        """Of all kernels together; None where those of one are not known [B]."""
        return total([kernel.dram_bytes for kernel in self.kernels])

    def by_class(self) -> dict[str, float]:
        """Return the time of kernels by what they do; those whose time is not known are left out.

        Returns
        -------
        dict of str to float
            The longest first [s].
        """
        return sum_by_class((kernel.kind, kernel.time_s or 0.0) for kernel in self.kernels)

    def table(self) -> list[dict[str, Any]]:
        """Return a row for every kernel [-]."""
        return [kernel.to_dict() for kernel in self.kernels]

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        return {"path": self.path, "tool": self.tool, "notes": self.notes}

    def summary(self) -> list[str]:
        """Return the text: all kernels, then those that take longest [-]."""
        whole = "" if self.time_s is None else f", {show_time(self.time_s)}"
        lines = [f"{self.tool}: {self.count:,} kernel{'s' * (self.count != 1)}{whole}"]
        rows = sorted(self.kernels, key=lambda kernel: -(kernel.time_s or 0.0))
        lines += [f"  {_line(kernel)}" for kernel in rows[:_SHOWN]]
        if len(rows) > _SHOWN:
            lines.append(f"  {len(rows) - _SHOWN} more rows")
        return [*lines, *show_notes(self.notes)]


def total(amounts: Sequence[float | None]) -> float | None:
    """Return the sum of amounts, None if one of them is not known or there are none."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if amounts and len(known) == len(amounts) else None


def _line(kernel: ReportedKernel) -> str:
    words = [f"{short(kernel.name)} ({kernel.kind})" + (f", {kernel.count:,}" if kernel.count > 1 else "")]
    if kernel.time_s is not None:
        words.append(show_time(kernel.time_s))
    if kernel.dram_bytes is not None:
        words.append(show_bytes(kernel.dram_bytes))
    if kernel.dram_bytes_per_s is not None:
        share = "" if kernel.of_bandwidth is None else f" ({kernel.of_bandwidth:.0%} of the bandwidth at its clock)"
        words.append(show_rate(kernel.dram_bytes_per_s, "B/s") + share)
    if kernel.flops is not None:
        words.append(f"{show_flops(kernel.flops)} of products")
    if kernel.vector_flops is not None:
        words.append(f"{show_flops(kernel.vector_flops)} of general units")
    elif kernel.vector_flops_per_s is not None:
        words.append(f"{show_rate(kernel.vector_flops_per_s, 'FLOP/s')} of general units")
    return ", ".join(words)
