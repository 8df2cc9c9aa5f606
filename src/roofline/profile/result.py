"""`Profile`: what a run spent its time on, operator by operator, each beside its own roof; live or from a saved trace alike."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from roofline.bounds import operator_time
from roofline.errors import RooflineError
from roofline.hardware import Ceiling, Hardware
from roofline.names import unknown_name
from roofline.ops import Op
from roofline.results import Result, show_ceilings, show_notes
from roofline.units import show_bytes, show_flops, show_rate, show_time

_SHOWN = 12  # rows in the text


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
    def flops_per_s(self) -> float | None:
        """FLOP of all kinds that were achieved, over the time whose FLOP are known [FLOP/s]."""
        return self._flops / self.counted_s if self.known and self.counted_s else None

    @property
    def bytes_per_s(self) -> float | None:
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
        derived = ("intensity", "flops_per_s", "bytes_per_s", "of_roof")
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
        Amounts of all calls; without times of roofs where the machine's rate for its format is not known [-].
    """
    row = OperatorTime(name, calls, time_s, **where)
    if op is None:
        return row
    moved = op.compulsory_bytes + op.activation_bytes
    counted = {"flops": op.flops * calls, "vector_flops": op.vector_flops * calls, "total_bytes": float(moved * calls), "counted_s": time_s}
    row = replace(row, **counted)
    if hardware is None:
        return row
    try:
        roof = operator_time(op, hardware)
    except RooflineError:  # no rate of this format: the memory roof alone would say that the operator is memory-bound
        return row
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
        **{amount: total(known, amount) for amount in ("flops", "vector_flops", "total_bytes")},
        **{amount: total(roofed, amount) if whole else None for amount in ("compute_s", "memory_s", "roof_s")},
        bound=max(bounds, key=lambda name: bounds[name]) if whole and bounds else None,
        **where,
    )


def _grouped(rows: Iterable[OperatorTime], key: Callable[[OperatorTime], tuple[str, str | None]]) -> tuple[OperatorTime, ...]:
    """Return the sums over rows of one name and phase, the longest first."""
    groups: dict[tuple[str, str | None], list[OperatorTime]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    sums = [add_up(name, group, phase=phase) for (name, phase), group in groups.items()]
    return tuple(sorted(sums, key=lambda row: -row.time_s))


def without_numbers(module: str) -> str:
    """Return the path of a module with a star for the number of a layer, so that identical layers are one.

    Examples
    --------
    >>> without_numbers("model.layers.12.mlp.experts.3.up_proj")
    'model.layers.*.mlp.experts.*.up_proj'
    """
    return ".".join("*" if part.isdigit() else part for part in module.split("."))


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
        return _grouped((row for row in self.rows if not row.known), lambda row: (row.name, None))

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
        forwards = {phase: count for name, count in (self.forwards or {}).items() if name == (phase or "")}
        only = {phase: wall} if phase and wall else None
        return replace(
            self, rows=rows, wall_s=wall or sum(row.time_s for row in rows), walls=only, forwards={k or "": v for k, v in forwards.items()}
        )

    def by_operator(self) -> tuple[OperatorTime, ...]:
        """Return sums over operators of one name, phases apart.

        Returns
        -------
        tuple of OperatorTime
            The longest first; operators that are not understood have their time and no amounts [-].
        """
        return _grouped(self.rows, lambda row: (row.name, row.phase))

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
        return _grouped(self.rows, lambda row: (row.module if layers else without_numbers(row.module), row.phase))

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
            "ceilings": [c.to_dict() for c in self.ceilings],
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
            names = ", ".join(f"{row.name} {row.time_s / self.time_s:.1%}" for row in self.unknown[:5] if row.time_s)
            lines.append(f"  FLOP and bytes not known: {self.unknown_s / (self.time_s or 1):.1%} of the time ({names})")
        if self.hardware is not None:
            lines.append(f"  ceilings: {show_ceilings(self.ceilings)}")
        return [*lines, *show_notes(self.notes)]


def _line(row: OperatorTime, whole_s: float, name: str | None = None) -> str:
    """Return one row in words: its time, rates, and share of its roof."""
    words = [f"{name or row.name}{f' ({row.phase})' if row.phase and not name else ''}: {show_time(row.time_s)}"]
    words.append(f"{row.time_s / (whole_s or 1):.1%} of the time in {row.calls:,} calls")
    if not row.known:
        return ", ".join([*words, "FLOP and bytes not known"])
    if row.flops_per_s:
        words.append(show_rate(row.flops_per_s, "FLOP/s"))
    if row.bytes_per_s:
        words.append(show_rate(row.bytes_per_s, "B/s"))
    if row.of_roof is not None and row.bound:
        words.append(f"{row.of_roof:.0%} of its {row.bound} roof")
    return ", ".join(words)
