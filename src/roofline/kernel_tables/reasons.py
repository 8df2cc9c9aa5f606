"""Likely reasons why a measured kernel is faster than its floor: which other label, sparsity or cache would explain it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.floors import KernelFloor
from roofline.formats import Format
from roofline.hardware import Hardware
from roofline.kernel_tables.table import KernelGroup
from roofline.units import show_bytes, show_rate

LAUNCH_S = 5e-6
"""Typical launch time of a kernel, so that small kernels do not look slow [s]."""

_NARROWER = {
    "fp64": ("fp32",),
    "fp32": ("tf32", "bf16"),
    "tf32": ("bf16", "fp16"),
    "bf16": ("fp8", "int8"),
    "fp16": ("fp8", "int8"),
    "fp8": ("nvfp4",),
    "int8": ("int4",),
}
"""Operand format → formats in which a faster kernel may have run."""

_SPARSE_ARCHITECTURES = ("Ampere", "Ada", "Hopper", "Blackwell", "CDNA3", "CDNA4")
"""Architectures with 2:4 structured sparsity, at twice the dense rate: NVIDIA A100 whitepaper (2020), "fine-grained structured sparsity",
and all later architectures; AMD CDNA 3 whitepaper (2023), "4:2 structured sparsity"."""
_SPARSE_OPERANDS = ("tf32", "bf16", "fp16", "fp8", "int8", "fp4", "int4")

_USUAL_CACHE, _MOST_CACHE = 100e6, 1e9  # of a usual and of the largest last-level cache [B]


@dataclass(frozen=True, slots=True)
class Reading:
    """Other formats that some kernels may have had."""

    change: dict[str, Any]  # the sizes and options that differ from the label
    reason: str  # the reason that this would be


def narrower_readings(group: KernelGroup) -> list[Reading]:
    """Return the narrower formats in which kernels may have run, the likeliest first.

    Examples
    --------
    >>> from roofline.kernel_tables import read_table
    >>> table = read_table({"m": [16], "n": [4096], "k": [4096], "dtype": ["bf16"], "seconds": [1e-5]})
    >>> [reading.change for reading in narrower_readings(table.groups[0])][0]
    {'format': 'fp8', 'weights': 'fp8'}
    """
    if "kv" in group.fixed:
        return _narrower_caches(group)
    return _narrower_products(group) if "format" in group.fixed else []


def _narrower_caches(group: KernelGroup) -> list[Reading]:
    cache = Format.load(group.fixed["kv"])
    # published models with keys of 192 have values of 128: MiMo-V2-Flash, and DeepSeek-V3 in prefill
    alike = group.fixed.get("head_dim") == group.fixed["v_head_dim"] == 192
    values = [Reading({"v_head_dim": 128}, "narrower values")] if alike else []
    if cache.bits == 16:
        return [*values, Reading({"kv": "fp8"}, "one-byte cache"), Reading({"kv": "fp8", "activations": "fp8"}, "wrong format label")]
    names = _NARROWER.get(cache.operand, ())
    return values + [Reading({"kv": name} | ({"activations": name} if cache.bits > 16 else {}), "wrong format label") for name in names]


def _narrower_products(group: KernelGroup) -> list[Reading]:
    rows, weights = Format.load(group.fixed["format"]), Format.load(group.fixed["weights"])
    weight_only = weights.bits < rows.bits  # perhaps rows were quantized too
    found: list[dict[str, Any]] = [
        {"format": name} | ({} if weight_only else {"weights": name}) for name in _NARROWER.get(rows.operand, ())
    ]
    found += [{"weights": name} for name in _NARROWER.get(weights.operand, ())]
    return [Reading(change, "wrong format label") for change in found]


def unit_shift(seconds: np.ndarray, roofline_s: np.ndarray) -> int:
    """Return by how many powers of ten the times of a table are off, 0 if they look right.

    A unit is wrong by three or six powers of ten, and for all rows alike. So the median of measured over roofline time, launch
    included, shows it: with the right unit it lies between about 1 and 10.

    Examples
    --------
    >>> unit_shift(np.array([2.0, 3.0]), np.array([1e-3, 2e-3]))
    3
    >>> unit_shift(np.array([2e-3, 3e-3]), np.array([1e-3, 2e-3]))
    0
    """
    logs = np.log10(seconds / (roofline_s + LAUNCH_S))
    middle = float(np.median(logs))
    shift = 3 * round((middle - (0.7 if middle > 0 else 0.3)) / 3)
    shift = max(-6, min(6, shift))
    alike = np.abs(logs - shift - 0.5) < 2
    return shift if shift and alike.mean() >= 0.8 else 0


def explain_rows(group: KernelGroup, floor: KernelFloor, below: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Return the likely reason for each row of a group that is faster than its floor, units apart, and the evidence for each reason."""
    case = _case(group, floor, below)
    reasons = _likeliest(case)
    evidence = {}
    for reason in sorted(set(reasons.tolist())):
        rows = reasons == reason
        evidence[reason] = (
            f"up to {float(case.ratio[rows].max()):.2f} times as fast as the floor: {'; '.join(_EVIDENCE[reason](case, rows))}"
        )
    return reasons, evidence


@dataclass(frozen=True, slots=True)
class _Case:
    """Rows that are faster than their floor, and what bears on the reason; all arrays have one element per row."""

    rows: KernelGroup
    hardware: Hardware
    ratio: np.ndarray
    """Floor over measured time [-]."""
    compute_bound: np.ndarray
    may_be_cached: np.ndarray
    """Whether the floor is that of memory, on a machine whose cache is not known."""
    flops_per_s: np.ndarray
    """Rate of the products, if the label is true [FLOP/s]."""
    moved_bytes: np.ndarray
    """Bytes, if the label is true [B]."""
    may_be_sparse: np.ndarray
    """Whether 2:4 structured sparsity would explain it."""
    carried: float | None
    """Largest share of the memory bandwidth that memory-bound rows of the same label reach, if it shows the label to be true [-]."""
    reading: Reading | None
    """The other reading of the label that explains most rows."""
    explained: np.ndarray
    """Whether that reading explains the row."""
    tightest: float
    """The largest ratio of floor to measured time of these, in that reading [-]."""

    @property
    def reading_is_faster(self) -> bool:
        """Whether the machine has a higher peak in the other reading."""
        if self.reading is None:
            return False
        other = self.rows.read_as(**self.reading.change).operand
        return self.hardware.ceiling(other).value > self.hardware.ceiling(self.rows.operand).value

    @property
    def reading_text(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.reading.change.items()) if self.reading is not None else ""


def _case(group: KernelGroup, floor: KernelFloor, below: np.ndarray) -> _Case:
    def each(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value), (len(group),))

    hardware, rows = floor.hardware, group.take(below)
    ratio, bound, moved = each(floor.time_s / group.seconds)[below], each(floor.bound)[below], each(floor.total_bytes).astype(float)
    uncached = each(floor.memory_s > floor.compute_s) & (moved > 3 * hardware.last_level_cache)
    carried = float((each(floor.memory_s) / group.seconds)[uncached].max()) if uncached.any() else None
    can_skip = "weights" in rows.fixed and rows.operand in _SPARSE_OPERANDS and hardware.architecture.startswith(_SPARSE_ARCHITECTURES)
    reading, explained, tightest = _best_reading(rows, hardware)
    return _Case(
        rows=rows,
        hardware=hardware,
        ratio=ratio,
        compute_bound=bound == "compute",
        may_be_cached=(bound == "memory") & (hardware.last_level_cache == 0),
        flops_per_s=each(floor.flops / group.seconds)[below],
        moved_bytes=moved[below],
        may_be_sparse=(bound == "compute") & (ratio <= 2) & can_skip,
        carried=carried if carried is not None and 0.5 <= carried <= 1 else None,
        reading=reading,
        explained=explained,
        tightest=tightest,
    )


def _best_reading(rows: KernelGroup, hardware: Hardware) -> tuple[Reading | None, np.ndarray, float]:
    """Return the first of the other readings that explains the most rows, which rows, and the tightest of them."""
    best: tuple[Reading | None, np.ndarray, float] = (None, np.zeros(len(rows), bool), 0.0)
    for reading in narrower_readings(rows):
        ratio = rows.read_as(**reading.change).floor(hardware).time_s / rows.seconds
        holds = ratio <= 1
        if holds.sum() > best[1].sum():
            best = (reading, holds, float(ratio[holds].max()))
    return best


def _likeliest(case: _Case) -> np.ndarray:
    """Return the likeliest reason for each row: later assignments win."""
    reasons = np.full(len(case.rows), "no likely reason", dtype=object)
    reasons[case.may_be_cached & (case.moved_bytes < _MOST_CACHE)] = "cache-resident"
    reasons[case.may_be_sparse] = "sparse peak"
    if case.reading is not None:
        denied = case.carried is not None and "weights" in case.reading.change  # memory-bound rows would show the missing bytes
        rather_sparse = case.may_be_sparse & (denied or not case.reading_is_faster)
        rather_cached = case.may_be_cached & (case.moved_bytes < _USUAL_CACHE)
        by_label = case.explained & ~rather_sparse & ~rather_cached
        by_roof = np.where(case.compute_bound & (case.reading.reason == "one-byte cache"), "wrong format label", case.reading.reason)
        reasons[by_label] = by_roof[by_label]
    return reasons.astype(str)


def _rate_needed(case: _Case, rows: np.ndarray) -> str:
    """Return the rate that the rows would need, beside that of the machine."""
    if case.compute_bound[rows].any():
        needed, operand = show_rate(float(case.flops_per_s[rows].max()), "FLOP/s"), case.rows.operand
        return f"{needed} where no dense {operand} product exceeds {show_rate(case.hardware.ceiling(operand).value, 'FLOP/s')}"
    if case.rows.kind == "collective":
        return "more than the links carry"
    needed = show_rate(float((case.moved_bytes / case.rows.seconds)[rows].max()), "B/s")
    return f"bytes at up to {needed} where memory delivers {show_rate(case.hardware.memory_bandwidth, 'B/s')}"


def _for_label(case: _Case, rows: np.ndarray) -> Iterator[str]:
    yield _rate_needed(case, rows)
    held = f"read as {case.reading_text}, {int(case.explained[rows].sum())} of {int(rows.sum())} hold"
    yield f"{held}, the tightest at {case.tightest:.2f} of its floor's rate"
    if case.may_be_sparse[rows].any():
        yield "2:4 structured sparsity would explain as much"


def _for_sparsity(case: _Case, rows: np.ndarray) -> Iterator[str]:
    yield f"{_rate_needed(case, rows)}, and at most twice that, as with 2:4 structured sparsity"
    if case.carried is not None:
        yield f"memory-bound rows with this label reach {case.carried:.2f} of their floor's rate, so that their bytes are as labelled"
    if case.reading_is_faster and case.explained[rows].any():
        yield f"read as {case.reading_text}, {int(case.explained[rows].sum())} of {int(rows.sum())} would hold too"


def _for_cache(case: _Case, rows: np.ndarray) -> Iterator[str]:
    largest = show_bytes(float(case.moved_bytes[rows].max()))
    yield f"they move at most {largest}, which a cache may hold, and the spec of {case.hardware.id} names none"


def _for_nothing(case: _Case, rows: np.ndarray) -> Iterator[str]:
    yield _rate_needed(case, rows)
    yield "neither unit, format, sparsity nor cache explains it: check the sizes and the machine"


_EVIDENCE: dict[str, Callable[[_Case, np.ndarray], Iterator[str]]] = {
    "narrower values": _for_label,
    "one-byte cache": _for_label,
    "wrong format label": _for_label,
    "sparse peak": _for_sparsity,
    "cache-resident": _for_cache,
    "no likely reason": _for_nothing,
}
"""Reason → the evidence for some rows, in parts."""
