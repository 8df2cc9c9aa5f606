"""Why a measured kernel may be faster than its floor: what a label would have to say for its rows to hold."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.floors import KernelFloor
from roofline.formats import Format
from roofline.hardware import Hardware
from roofline.kernel_tables.table import KernelGroup
from roofline.units import show_bytes, show_rate

REASONS = ("wrong units", "narrower values", "one-byte cache", "wrong format label", "sparse peak", "cache-resident", "no likely reason")
"""Likely reasons, in the order in which they are looked for."""

LAUNCH_S = 5e-6
"""What a kernel takes besides its work, roughly, so that small ones do not look slow [s]."""

_NARROWER = {
    "fp64": ("fp32",),
    "fp32": ("tf32", "bf16"),
    "tf32": ("bf16", "fp16"),
    "bf16": ("fp8", "int8"),
    "fp16": ("fp8", "int8"),
    "fp8": ("nvfp4",),
    "int8": ("int4",),
}
"""Operand format → the formats that a faster kernel is likely to have run in."""

_SPARSE_ARCHITECTURES = ("Ampere", "Ada", "Hopper", "Blackwell", "CDNA3", "CDNA4")
"""Designs that skip 2 of 4 weights, at twice the dense rate: NVIDIA A100 whitepaper (2020), "fine-grained structured sparsity",
and every design since; AMD CDNA 3 whitepaper (2023), "4:2 structured sparsity"."""
_SPARSE_OPERANDS = ("tf32", "bf16", "fp16", "fp8", "int8", "fp4", "int4")

_USUAL_CACHE, _MOST_CACHE = 100e6, 1e9  # what a last-level cache may well hold, and what the largest of a processor do [B]


@dataclass(frozen=True, slots=True)
class Reading:
    """Another way to read the label of some kernels.

    Parameters
    ----------
    change : mapping of str to (str or int)
        Arguments to read otherwise [-].
    reason : str
        What would be wrong with the label [-].
    """

    change: dict[str, Any]
    reason: str


def narrower_readings(group: KernelGroup) -> list[Reading]:
    """Return the narrower formats that kernels may have run in, likeliest first.

    Examples
    --------
    >>> from roofline.kernel_tables import read_table
    >>> table = read_table({"m": [16], "n": [4096], "k": [4096], "dtype": ["bf16"], "seconds": [1e-5]})
    >>> [reading.change for reading in narrower_readings(table.groups[0])][0]
    {'format': 'fp8', 'weights': 'fp8'}
    """
    if "kv" in group.fixed:
        cache = Format.load(group.fixed["kv"])
        # the published models with keys 192 wide have values of 128: MiMo-V2-Flash, and DeepSeek-V3 in prefill
        alike = group.fixed.get("head_dim") == group.fixed["v_head_dim"] == 192
        values = [Reading({"v_head_dim": 128}, "narrower values")] if alike else []
        if cache.bits == 16:
            return [*values, Reading({"kv": "fp8"}, "one-byte cache"), Reading({"kv": "fp8", "activations": "fp8"}, "wrong format label")]
        names = _NARROWER.get(cache.operand, ())
        return values + [Reading({"kv": name} | ({"activations": name} if cache.bits > 16 else {}), "wrong format label") for name in names]
    if "format" not in group.fixed:
        return []
    rows, weights = Format.load(group.fixed["format"]), Format.load(group.fixed["weights"])
    found: list[dict[str, Any]] = []
    if weights.bits < rows.bits:  # weight-only: perhaps the rows were quantized too
        found += [{"format": name} for name in _NARROWER.get(rows.operand, ())]
    else:
        found += [{"format": name, "weights": name} for name in _NARROWER.get(rows.operand, ())]
    found += [{"weights": name} for name in _NARROWER.get(weights.operand, ())]
    return [Reading(change, "wrong format label") for change in found]


def unit_shift(seconds: np.ndarray, roofline_s: np.ndarray) -> int:
    """Return by how many powers of ten a table's times are off, 0 if they look right.

    A unit is wrong by three or six powers of ten, and for all rows alike: so it shows in the median of measured over roofline
    time, launch included, which lies between about 1 and 10 where the unit is right.

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
    """Return the likely reason for each row of a group that is faster than its floor, the unit apart."""
    case = _case(group, floor, below)
    reasons = _likeliest(case)
    return reasons, {reason: _evidence(case, reason, reasons == reason) for reason in sorted(set(reasons.tolist()))}


@dataclass(frozen=True, slots=True)
class _Case:
    """Rows that are faster than their floor, and what bears on the reason."""

    rows: KernelGroup
    hardware: Hardware
    ratio: np.ndarray
    """Floor over measured time [-]."""
    computing: np.ndarray
    """Under the compute roof rather than another."""
    fetching: np.ndarray
    """Under the memory's, on a machine whose cache is not known."""
    flops_per_s: np.ndarray
    """Rate of the products, if the label is true [FLOP/s]."""
    moved: np.ndarray
    """Bytes, if the label is true [B]."""
    sparse: np.ndarray
    """Whether skipped weights would explain it."""
    carried: float | None
    """Share of the memory's rate at which memory-bound rows of the same label carry their bytes, if that shows the label true [-]."""
    reading: Reading | None
    """The reading of the label that explains most of them."""
    holds: np.ndarray
    """Which it explains."""
    tightest: float
    """How near those come to their floor then [-]."""

    @property
    def faster(self) -> bool:
        """Whether the machine multiplies faster in the other reading."""
        if self.reading is None:
            return False
        other = self.rows.but(**self.reading.change).operand
        return self.hardware.peak(other).value > self.hardware.peak(self.rows.operand).value


def _case(group: KernelGroup, floor: KernelFloor, below: np.ndarray) -> _Case:
    def each(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value), (len(group),))

    hardware, rows = floor.hardware, group.take(below)
    ratio, bound, moved = each(floor.time_s / group.seconds)[below], each(floor.bound), each(floor.total_bytes).astype(float)
    computing, fetching = (bound == "compute")[below], (bound == "memory")[below] & (hardware.last_level_cache == 0)
    far_beyond = each(floor.memory_s > floor.compute_s) & (moved > 3 * hardware.last_level_cache)
    carried = float((each(floor.memory_s) / group.seconds)[far_beyond].max()) if far_beyond.any() else None
    may_skip = "weights" in rows.fixed and rows.operand in _SPARSE_OPERANDS and hardware.architecture.startswith(_SPARSE_ARCHITECTURES)
    return _Case(
        rows,
        hardware,
        ratio,
        computing,
        fetching,
        each(floor.flops / group.seconds)[below],
        moved[below],
        computing & (ratio <= 2) & may_skip,
        carried if carried is not None and 0.5 <= carried <= 1 else None,
        *_best_reading(rows, hardware),
    )


def _likeliest(case: _Case) -> np.ndarray:
    """Return the likeliest reason for each row."""
    reasons = np.full(len(case.rows), "no likely reason", dtype=object)
    reasons[case.fetching & (case.moved < _MOST_CACHE)] = "cache-resident"
    reasons[case.sparse] = "sparse peak"
    if case.reading is not None:
        denied = case.carried is not None and "weights" in case.reading.change  # memory-bound rows would show the missing bytes
        by_label = case.holds & ~(case.sparse & (denied or not case.faster)) & ~(case.fetching & (case.moved < _USUAL_CACHE))
        by_roof = np.where(case.computing & (case.reading.reason == "one-byte cache"), "wrong format label", case.reading.reason)
        reasons[by_label] = by_roof[by_label]
    return reasons.astype(str)


def _evidence(case: _Case, reason: str, mine: np.ndarray) -> str:
    """Return what speaks for a reason, in words and numbers."""
    most = f"up to {float(case.ratio[mine].max()):.2f} times as fast as the floor"
    moved, memory = show_rate(float((case.moved / case.rows.seconds)[mine].max()), "B/s"), show_rate(case.hardware.memory_bandwidth, "B/s")
    asked = f"bytes at up to {moved} where memory delivers {memory}"
    if case.rows.kind == "collective":
        asked = "more than the links carry"
    if case.computing[mine].any():
        operand, fast = case.rows.operand, show_rate(float(case.flops_per_s[mine].max()), "FLOP/s")
        asked = f"{fast} where the dense {operand} peak is {show_rate(case.hardware.peak(operand).value, 'FLOP/s')}"
    words = ", ".join(f"{name} {value}" for name, value in case.reading.change.items()) if case.reading is not None else ""
    if reason == "sparse peak":
        parts = [f"{most}: {asked}, and at most twice that, as with 2:4 structured sparsity"]
        if case.carried is not None:
            parts.append(
                f"memory-bound rows with this label reach {case.carried:.2f} of their floor's rate, so that their bytes are as labelled"
            )
        if case.faster and case.holds[mine].any():
            parts.append(f"read as {words}, {int(case.holds[mine].sum())} of {int(mine.sum())} would hold too")
    elif reason in ("wrong format label", "one-byte cache", "narrower values"):
        held = f"read as {words}, {int(case.holds[mine].sum())} of {int(mine.sum())} hold"
        parts = [f"{most}: {asked}", f"{held}, the tightest at {case.tightest:.2f} of its floor's rate"]
        if case.sparse[mine].any():
            parts.append("2:4 structured sparsity would explain as much")
    elif reason == "cache-resident":
        largest = show_bytes(float(case.moved[mine].max()))
        parts = [f"{most}: they move at most {largest}, which a cache may hold, and the spec of {case.hardware.id} names none"]
    else:
        parts = [f"{most}: {asked}", "neither unit, format, sparsity nor cache explains it: check the machine"]
    return "; ".join(parts)


def _best_reading(rows: KernelGroup, hardware: Hardware) -> tuple[Reading | None, np.ndarray, float]:
    """Return the first of the other readings that explains the most rows, which ones, and how tight they are then."""
    best: tuple[Reading | None, np.ndarray, float] = (None, np.zeros(len(rows), bool), 0.0)
    for reading in narrower_readings(rows):
        ratio = rows.but(**reading.change).floor(hardware).time_s / rows.seconds
        holds = ratio <= 1
        if holds.sum() > best[1].sum():
            best = (reading, holds, float(ratio[holds].max()))
    return best
