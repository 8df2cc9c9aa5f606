"""What is odd about a table of measured kernels: which rows, and the likely reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from roofline.errors import quoted
from roofline.floors import KernelFloor
from roofline.hardware import Hardware
from roofline.kernel_tables.guess import show_default, usual_name
from roofline.kernel_tables.reasons import LAUNCH_S, explain_rows, unit_shift
from roofline.kernel_tables.table import KernelGroup, KernelTable

_SLACK = 1e-9  # rounding: a time computed from its floor is not below it
_ERROR = (
    0.01  # how far below its floor a measuring error puts a row: the rounding of figures, as `fitting.conditions` allows, and the timer
)
_UNLIKELY = 100  # times as fast as the roofline: only a wrong unit explains more
_TOO_SLOW = 1000  # times as slow as the roofline and a launch
_PROMPTS = 3  # times as slow as the roofline of a decode step, from where a prompt is likelier
_SHIFTS = {
    -3: "1,000 times too short, as if ms were given as us, or s as ms",
    -6: "1,000,000 times too short, as if s were given as us",
    3: "1,000 times too long, as if us were given as ms, or ms as s",
    6: "1,000,000 times too long, as if us were given as s",
}


EXCUSED = ("assumption", "at the floor")
"""Reasons why a row below its floor is not faster than physics allows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is odd about some rows of a table, faster than their floor or far slower than any kernel, and the likely reason.

    Parameters
    ----------
    reason : str
        ``"wrong units"``, ``"narrower values"``, ``"one-byte cache"``, ``"wrong format label"``, ``"sparse peak"``,
        ``"cache-resident"``, ``"prompts"``, ``"far too slow"``, ``"assumption"``, ``"at the floor"`` or ``"no likely reason"`` [-].
    kernels : str
        Table and label of the rows [-].
    rows : int
        Number of rows [-].
    worst : float
        The largest ratio of floor to measured time among them; above 1 it is faster than physics allows [-].
    evidence : str
        The evidence for the reason [-].
    """

    reason: str
    kernels: str
    rows: int
    worst: float
    evidence: str


@dataclass(slots=True)
class Held:
    """A group with its floors."""

    group: KernelGroup
    floor_s: np.ndarray
    roofline_s: np.ndarray
    bound: np.ndarray
    below: np.ndarray
    floor: KernelFloor
    cheapest: "Held | None" = None  # with the least of the sizes that the table does not give, if that is another group

    @property
    def share(self) -> np.ndarray:
        """Floor over measured time [-]."""
        return np.asarray(self.floor_s / self.group.seconds)


def hold(group: KernelGroup, hardware: Hardware) -> Held:
    """Return a group with its floors on a machine."""
    floor, rows = group.floor(hardware), len(group)
    floor_s = np.broadcast_to(np.asarray(floor.time_s, dtype=float), (rows,))
    bound = np.broadcast_to(np.asarray(floor.bound), (rows,))
    cold_s = np.broadcast_to(np.asarray(floor.cold_s, dtype=float), (rows,))
    least = group.cheapest()
    cheapest = None if least is group else hold(least, hardware)
    return Held(group, floor_s, cold_s, bound, beats_floor(group, floor), floor, cheapest)


def beats_floor(group: KernelGroup, floor: KernelFloor) -> np.ndarray:
    """Mark the kernels of a group that are faster than their floor."""
    return np.broadcast_to(np.asarray(floor.time_s, dtype=float) > group.seconds * (1 + _SLACK), (len(group),))


def show_below(share: float) -> str:
    """Write by how much a time is below its floor, given the ratio of the two.

    Examples
    --------
    >>> show_below(1.001)
    '0.1 % below'
    """
    return f"{100 * (1 - 1 / share):.1g} % below"


def _table(group: KernelGroup) -> str:
    """Return the table of a group, with engine and version if known."""
    origin = dict(group.origin)
    if "table" in origin:
        origin["table"] = Path(origin["table"]).name  # without the folder
    return " ".join(origin[name] for name in ("framework", "version", "table") if name in origin)


def name_kernels(group: KernelGroup) -> str:
    """Return the table, kind and label of a group as text."""
    return f"{_table(group)} {group.kind.replace('_', ' ')} {group.label}".strip()


def find_reasons(held: list[Held], table: KernelTable) -> tuple[tuple[Finding, ...], list[np.ndarray]]:
    """Return the findings, and a reason for every row of every group, empty if nothing is odd about the row."""
    if table.reading is not None and table.reading.as_steps and (prompts := _as_prompts(held, table.reading.as_steps)):
        return (prompts,), [np.full(len(h.group), prompts.reason, dtype=object) for h in held]
    shifts: dict[str, int] = {}
    for name in {_table(h.group) for h in held}:
        alike = [h for h in held if _table(h.group) == name]
        shifts[name] = _shift(alike)
    missed = {name_kernels(h.group) for h in held if ((h.cheapest or h).share > 1 + _ERROR).any()}
    found: dict[tuple[str, str], Finding] = {}
    reasons = []
    for h in held:
        of_rows = np.full(len(h.group), "", dtype=object)
        ratio = h.floor_s / h.group.seconds
        for reason, rows, kernels, evidence in _findings(h, ratio, shifts[_table(h.group)], name_kernels(h.group) in missed):
            of_rows[rows] = reason
            new = Finding(reason, kernels, int(rows.sum()), float(ratio[rows].max()), evidence)
            found[reason, kernels] = _merge(found.get((reason, kernels)), new)
        reasons.append(of_rows)
    return tuple(sorted(found.values(), key=lambda f: -f.rows)), reasons


def _shift(held: Sequence[Held]) -> int:
    """Return by how many powers of ten the times of a table are off, whatever the sizes that it does not give."""
    seconds = np.concatenate([h.group.seconds for h in held])
    shift, least = (unit_shift(seconds, np.concatenate([h.roofline_s for h in of])) for of in (held, [h.cheapest or h for h in held]))
    return shift if shift > 0 else max(shift, least)


def _findings(held: Held, ratio: np.ndarray, shift: int, missed: bool) -> Iterator[tuple[str, np.ndarray, str, str]]:
    """Yield each likely reason with the rows of a group that it is about, what they are, and the evidence.

    Rows that are below their floor by no more than a measuring error have the reason of others of the kernels that `missed` it by more.
    """
    if shift:
        yield "wrong units", np.ones(len(held.group), bool), _table(held.group), f"the times are about {_SHIFTS[shift]}"
        return
    least = held.cheapest or held
    if (excused := held.below & ~least.below).any():
        give = ", ".join(usual_name(size.name) for size in held.group.assumed)
        yield "assumption", excused, name_kernels(held.group), f"assumed {show_assumed(held.group)}; with less the rows hold: give {give}"
    odd = least.below & (least.roofline_s + LAUNCH_S > _UNLIKELY * held.group.seconds)
    if odd.any():
        most = f"up to {float(ratio[odd].max()):,.0f} times as fast as the floor"
        yield "wrong units", odd, name_kernels(held.group), f"{most}, unlike the rest of the table: another unit, or other sizes"
    slowness = held.group.seconds / (held.roofline_s + LAUNCH_S)
    slow = slowness > _TOO_SLOW
    if slow.any():
        most = f"up to {float(slowness[slow].max()):,.0f} times as slow as the roofline and a launch"
        yield "far too slow", slow, name_kernels(held.group), f"{most}, unlike the rest of the table: another unit, or other sizes"
    rest = least.below & ~odd
    if rest.any() and not missed:
        yield "at the floor", rest, name_kernels(held.group), f"{show_below(float(least.share[rest].max()))}: measuring error"
    elif rest.any():
        of_rest, evidence = explain_rows(least.group, least.floor, rest)
        least_sizes = ", ".join(f"{usual_name(size.name)} {size.least}" for size in held.group.assumed)
        even = f"; all this with {least_sizes}, the least that is possible" if least_sizes else ""
        places = np.flatnonzero(rest)
        for reason, text in evidence.items():
            rows = np.zeros(len(held.group), bool)
            rows[places[of_rest == reason]] = True
            yield reason, rows, name_kernels(held.group), text + even


def show_assumed(group: KernelGroup) -> str:
    """Write the sizes that a table does not give, and of which there may be less than was assumed; empty if there are none."""
    return ", ".join(show_default(size) for size in group.assumed)


def _merge(old: Finding | None, new: Finding) -> Finding:
    """Return one finding for two groups with the same text: the evidence is that of the worse."""
    if old is None:
        return new
    return replace(new if new.worst > old.worst else old, rows=old.rows + new.rows)


def _as_prompts(held: list[Held], column: str) -> Finding | None:
    """Return a finding if lengths that were taken for those of caches are likelier those of prompts.

    A decode step is too fast for a prompt of its length, unless that is short. So prompts are likelier if rows that are much slower than
    decode steps would hold as prompts.
    """
    seconds = np.concatenate([h.group.seconds for h in held])
    slowness = float(np.median(seconds / (np.concatenate([h.roofline_s for h in held]) + LAUNCH_S)))
    if slowness < _PROMPTS:
        return None
    prompts = [hold(_prompt(h.group), h.floor.hardware) for h in held]
    share = np.concatenate([h.share for h in prompts])
    shift = unit_shift(seconds, np.concatenate([h.roofline_s for h in prompts]))
    if shift or np.concatenate([h.below for h in prompts]).any():
        return None
    evidence = (
        f"as decode steps they are {slowness:,.0f} times as slow as the roofline and a launch, and as prompts of this length they hold, "
        f"the nearest at {float(share.max()):.2f} of its floor's rate: say which with columns={{{quoted(column)}: 'new'}} or 'kv_len'"
    )
    return Finding("prompts", name_kernels(held[0].group), len(seconds), float(max(h.share.max() for h in held)), evidence)


def _prompt(group: KernelGroup) -> KernelGroup:
    """Return a group whose cached tokens are new as well."""
    every = group.sizes["context"] + group.sizes["new"]
    return replace(group, sizes={**group.sizes, "new": every, "context": np.zeros_like(every)})
