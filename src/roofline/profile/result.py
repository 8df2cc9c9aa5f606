"""`Profile`: what a run spent its time on, operator by operator, each beside its own roof; live or from a saved trace alike."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from roofline.hardware import Ceiling, Hardware
from roofline.names import unknown_name
from roofline.profile.rows import OperatorTime, add_up, grouped, short, without_numbers
from roofline.results import Result, show_ceilings, show_notes
from roofline.units import show_bytes, show_flops, show_rate, show_time

_SHOWN = 12  # rows in the text


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Profile(Result):
    """What a run spent its time on, operator by operator.

    Parameters
    ----------
    rows : tuple of OperatorTime
        The operators: one row for calls of the same name, module, phase, shapes and format [-].
    wall_s : float
        From the start of what was profiled to its end, idle time included [s].
    source : str
        What it was made from: ``"torch.profiler"``, or a path [-].
    device : str
        What it ran on, as it calls itself [-].
    hardware : Hardware, optional
        The machine whose roofs the operators are beside [-].
    walls : mapping of str to float, optional
        Time from start to end of each phase, all its parts together [s].
    forwards : mapping of str to int, optional
        How often a whole model ran in each phase; ``""`` stands for outside of phases [-].
    notes : tuple of str
        What a reader must know [-].
    """

    rows: tuple[OperatorTime, ...]
    wall_s: float
    source: str
    device: str
    hardware: Hardware | None = None
    walls: Mapping[str, float] | None = None
    forwards: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()

    _numbers = ("wall_s", "time_s", "covered", "flops", "vector_flops", "total_bytes", "roof_s", "unknown_s")

    @property
    def total(self) -> OperatorTime:
        """All operators together."""
        return add_up("all", self.rows)

    @property
    def time_s(self) -> float:
        """Time of all operators together, understood or not [s]."""
        return sum(row.time_s for row in self.rows)

    @property
    def covered(self) -> float:
        """Share of the time from start to end in which operators ran; above 1 where kernels overlap [-]."""
        return self.time_s / self.wall_s if self.wall_s else 0.0

    @property
    def flops(self) -> float:
        """Operations of matrix products of the operators that are understood [FLOP]."""
        return self.total.flops or 0.0

    @property
    def vector_flops(self) -> float:
        """Operations of general units of the operators that are understood [FLOP]."""
        return self.total.vector_flops or 0.0

    @property
    def total_bytes(self) -> float:
        """Bytes of the operators that are understood, inputs and outputs of each [B]."""
        return self.total.total_bytes or 0.0

    @property
    def roof_s(self) -> float | None:
        """The operators that are understood one after another, each at its own roof; None without a machine [s]."""
        return self.total.roof_s

    @property
    def unknown_s(self) -> float:
        """Time of operators whose FLOP and bytes are not known [s]."""
        return sum(row.time_s for row in self.rows if not row.known)

    @property
    def unknown(self) -> tuple[OperatorTime, ...]:
        """The operators whose FLOP and bytes are not known, the longest first."""
        return grouped((row for row in self.rows if not row.known), lambda row: (row.name, None))

    @property
    def phases(self) -> tuple[str | None, ...]:
        """The phases that operators ran in, None among them for outside of all."""
        return tuple(dict.fromkeys(row.phase for row in self.rows))

    def of_phase(self, phase: str | None) -> "Profile":
        """Return the part that ran in one phase.

        Parameters
        ----------
        phase : str or None
            Its name; None for what ran outside of all [-].

        Returns
        -------
        Profile
            Its operators; the time from start to end is the phase's own where that is known [-].
        """
        if phase not in self.phases:
            raise unknown_name("phase of the profile", str(phase), [str(known) for known in self.phases])
        rows = tuple(row for row in self.rows if row.phase == phase)
        walls = dict(self.walls or {})
        wall = walls.get(phase) if phase else self.wall_s - sum(walls.values())
        forwards = {name: count for name, count in (self.forwards or {}).items() if name == (phase or "")}
        only = {phase: wall} if phase and wall else None
        return replace(self, rows=rows, wall_s=wall or sum(row.time_s for row in rows), walls=only, forwards=forwards)

    def by_operator(self) -> tuple[OperatorTime, ...]:
        """Return sums over operators of one name, phases apart.

        Returns
        -------
        tuple of OperatorTime
            The longest first; operators that are not understood have their time and no amounts [-].
        """
        return grouped(self.rows, lambda row: (row.name, row.phase))

    def by_module(self, *, layers: bool = False) -> tuple[OperatorTime, ...]:
        """Return sums over modules, phases apart.

        Parameters
        ----------
        layers : bool, optional
            Whether every layer has rows of its own; otherwise a star stands for its number [-].

        Returns
        -------
        tuple of OperatorTime
            The longest first; operators outside of all modules are under an empty name. A module's row is of what it calls itself, without
            the modules in it [-].
        """
        return grouped(self.rows, lambda row: (row.module if layers else without_numbers(row.module), row.phase))

    def by_phase(self) -> tuple[OperatorTime, ...]:
        """Return sums over phases.

        Returns
        -------
        tuple of OperatorTime
            In the order in which they ran [-].
        """
        return tuple(add_up(phase or "", [row for row in self.rows if row.phase == phase], phase=phase) for phase in self.phases)

    def table(self) -> list[dict[str, Any]]:
        """Return the rows, the longest first [-]."""
        return [row.to_dict() for row in sorted(self.rows, key=lambda row: -row.time_s)]

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """The rates that the roofs rest on, each with where it comes from."""
        if self.hardware is None:
            return ()
        formats = {name for row in self.rows if row.flops and row.roof_s for name in (row.format or "").split(", ")}
        return (self.hardware.memory_ceiling, *{c.name: c for c in map(self.hardware.ceiling, sorted(formats))}.values())

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        return {
            "source": self.source,
            "device": self.device,
            "hardware": self.hardware and self.hardware.id,
            "walls": self.walls,
            "forwards": self.forwards,
            "ceilings": [{f: getattr(c, f) for f in ("name", "value", "unit", "source", "evidence", "note")} for c in self.ceilings],
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Return the text: the whole, its phases, the operators that take longest, and what is not understood [-]."""
        lines = [
            f"profile of {self.device}: {show_time(self.time_s)} in operators, {self.covered:.0%} of {show_time(self.wall_s)}; "
            f"{show_flops(self.flops)} of products, {show_bytes(self.total_bytes)}"
        ]
        if self.phases != (None,):
            lines += [f"  {_line(row, self.time_s, name=row.phase or 'outside of phases')}" for row in self.by_phase()]
        operators = self.by_operator()
        lines += [f"  {_line(row, self.time_s)}" for row in operators[:_SHOWN]]
        if rest := operators[_SHOWN:]:
            lines.append(f"  {len(rest)} more: {sum(row.time_s for row in rest) / (self.time_s or 1):.1%} of the time")
        if self.unknown:
            names = ", ".join(f"{short(row.name)} {row.time_s / self.time_s:.1%}" for row in self.unknown[:5] if row.time_s)
            lines.append(f"  FLOP and bytes not known: {self.unknown_s / (self.time_s or 1):.1%} of the time ({names})")
        if self.hardware is not None:
            lines.append(f"  ceilings: {show_ceilings(self.ceilings)}")
        over = "above 100% of a roof: operands were still in a cache, or the machine is faster than its rates say"
        notes = (*self.notes, *((over,) if any((row.of_roof or 0) > 1 for row in operators) else ()))
        return [*lines, *show_notes(notes)]


def _line(row: OperatorTime, whole_s: float, name: str | None = None) -> str:
    """Return one row in words: its time, rates, and share of its roof."""
    words = [f"{short(name or row.name)}{f' ({row.phase})' if row.phase and not name else ''}: {show_time(row.time_s)}"]
    words.append(f"{row.time_s / (whole_s or 1):.1%} of the time in {row.calls:,} calls")
    if not row.known:
        return ", ".join([*words, "FLOP and bytes not known"])
    if row.achieved_flops_per_s:
        words.append(show_rate(row.achieved_flops_per_s, "FLOP/s"))
    if row.achieved_bytes_per_s:
        words.append(show_rate(row.achieved_bytes_per_s, "B/s"))
    if row.of_roof is not None and row.bound:
        words.append(f"{row.of_roof:.0%} of its {row.bound} roof")
    return ", ".join(words)
