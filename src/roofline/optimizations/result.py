"""The answer: levers in order of what they gain."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.calls import checks_methods
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.options import STEP
from roofline.explanation import NOTICEABLE, explain
from roofline.floors import Floor
from roofline.frozen import freeze
from roofline.names import unknown_name
from roofline.results import Question, Result, show_notes
from roofline.units import show_time


@checks_methods
@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Lever:
    """One optimization, evaluated for one step.

    Parameters
    ----------
    name : str
        What it is called [-].
    group : str
        Its kind: weights, activations, cache, batching, devices, machine, scheduling, kernels, context or model [-].
    how : str
        What to do [-].
    change : mapping
        Keywords to call the same floor with; a ``step`` is for `step_floor` in place of batch, context and prompt [-].
    per : str
        What the gain is per: ``"step"``, or ``"token"`` where the changed step yields other numbers of them [-].
    gain, roofline_gain : float
        How many times faster at the floor and at the roofline time; not a number where it does not apply [-].
    time_s, roofline_s : float
        Floor and roofline time of the changed step, drafts included; not a number where it does not apply [s].
    tokens : float
        Useful tokens of the changed step for each of the old one's [-].
    bound : str
        What binds then: a roof, or ``"capacity"``; empty where it does not apply [-].
    fits : bool or None
        Whether the changed step fits; None where the capacity is not known [-].
    unlocks : bool
        Whether it makes a step fit that did not [-].
    resident_bytes : float
        Bytes resident on each device then; not a number where it does not apply [B].
    devices : int
        Devices it takes, as many as its floor; those of the step as it is where it does not apply [-].
    cost : str
        What it costs: memory, devices, quality [-].
    reason : str
        Why it helps, why not, or why it does not apply [-].
    applicable : bool
        Whether it could be evaluated at all [-].
    floor : Floor or None
        The floor of the changed step; None where it does not apply [-].
    """

    name: str
    group: str
    how: str
    change: Mapping[str, Any]
    per: str
    gain: float
    roofline_gain: float
    time_s: float
    roofline_s: float
    tokens: float
    bound: str
    fits: bool | None
    unlocks: bool
    resident_bytes: float
    devices: int
    cost: str
    reason: str
    applicable: bool
    floor: Floor | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "change", freeze(self.change))

    @property
    def helps(self) -> bool:
        """Whether it gains noticeably at the floor or at the roofline time, or makes the step fit, and leaves it fitting."""
        gains = max(self.gain, self.roofline_gain) >= 1 + NOTICEABLE
        return self.applicable and (self.unlocks or (gains and self.fits is not False))

    def __eq__(self, other: object) -> bool:
        return (
            (self.name, self.reason, self.floor) == (other.name, other.reason, other.floor) if isinstance(other, Lever) else NotImplemented
        )

    def __hash__(self) -> int:
        return hash((self.name, self.reason))

    def __repr__(self) -> str:
        return f"<Lever {self.name}: {self.line()}>"

    def line(self) -> str:
        """Return the gains, what binds then, and why, in one line [-]."""
        if not self.applicable:
            return f"does not apply: {self.reason}"
        fit = "makes it fit; " if self.unlocks else "DOES NOT FIT; " if self.fits is False else ""
        then = f"then {self.bound}-bound" if self.bound else ""
        return f"{self.gain:.2f}× floor, {self.roofline_gain:.2f}× roofline; {fit}{then}; {self.reason}"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Levers(Result):
    """Every known lever for one step: those that leave it fitting first, by gain at the floor, the useless ones kept.

    Parameters
    ----------
    base : Floor
        The step as it is [-].
    roofline_s : float
        Its roofline time [s].
    rows : tuple of Lever
        In the order of their gain; those that do not apply last [-].
    assumptions : tuple of str
        What the levers take for granted beside the floor's own assumptions [-].
    asked : mapping
        What was asked beside the deployment: the step, and what the levers were told [-].
    """

    base: Floor
    roofline_s: float
    rows: tuple[Lever, ...]
    assumptions: tuple[str, ...]
    asked: Mapping[str, Any]

    def __iter__(self) -> Iterator[Lever]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Lever:
        for row in self.rows:
            if row.name == name:
                return row
        raise unknown_name("lever", str(name), [row.name for row in self.rows])

    @property
    def best(self) -> Lever | None:
        """The lever with the largest gain among those that help; None where nothing does."""
        return next((row for row in self.rows if row.helps), None)

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        return Question("levers", deployment_inputs(self.base.deployment, STEP, **self.asked))

    def values(self) -> dict[str, Any]:
        """Return every lever's numbers by name, one element per lever [SI]."""
        names = "name group per gain roofline_gain time_s roofline_s bound fits unlocks resident_bytes devices applicable cost reason how"
        columns = {name: [getattr(row, name) for row in self.rows] for name in names.split()}
        return {name: np.array(column, dtype=object if name == "fits" else None) for name, column in columns.items()}

    def context(self) -> dict[str, Any]:
        """Return what the levers start from and rest on [-]."""
        return {
            "kind": f"levers of a {self.base.kind} floor",
            "base_time_s": self.base.time_s,
            "base_roofline_s": self.roofline_s,
            "base_bound": self.base.bound,
            "model": self.base.model.name,
            "hardware": self.base.hardware.id,
            "assumptions": (*self.base.assumptions, *self.assumptions),
            "not_modelled": self.base.not_modelled,
        }

    def summary(self) -> list[str]:
        """Return the short text: the step in the first line, then one line per lever in the order of gain [-]."""
        base = self.base
        fit = ", DOES NOT FIT" if base.fits is False else ""
        head = f"levers for this {base.kind} of {base.model.name} on {base.hardware.name}: floor {show_time(base.time_s)}"
        lines = [f"{head} ({base.bound}-bound{fit}), roofline time {show_time(self.roofline_s)}"]
        lines += [
            f"  {row.name}{' (per token)' if row.per == 'token' else ''}: {row.line()}" + (f"; cost: {row.cost}" if row.helps else "")
            for row in self.rows
        ]
        lines += [f"  assumed: {note}" for note in self.assumptions]
        return [*lines, *show_notes(base.deployment.notes)]

    def explain(self) -> str:
        """Return in words what binds, what helps most at which cost, and what does not help and why.

        Returns
        -------
        str
            Sentences for a person; every number is evaluated [-].
        """
        parts = [explain(self.base)]
        helping = [row for row in self.rows if row.helps]
        if any(row.unlocks for row in helping):
            unlocking = [row for row in helping if row.unlocks]
            parts.append("What makes it fit: " + "; ".join(f"{row.name} ({row.gain:.2f}×)" for row in unlocking) + ".")
        at_floor = [row for row in helping if row.gain >= 1 + NOTICEABLE]
        if at_floor:
            shown = (f"  {row.gain:.2f}× per {row.per}: {row.name} – {row.how}; {row.reason}; cost: {row.cost}" for row in at_floor)
            parts.append("\n".join(["Levers that lower the floor:", *shown]))
        only = [row for row in helping if row not in at_floor and row.roofline_gain >= 1 + NOTICEABLE]
        if only:
            shown = (f"  {row.roofline_gain:.2f}×: {row.name} – {row.how}; cost: {row.cost}" for row in only)
            parts.append("\n".join(["Levers that leave the floor and shorten the roofline time:", *shown]))
        idle = [row for row in self.rows if row.applicable and not row.helps]
        for head, too_large in (("Levers that do not help here:", False), ("Levers after which it does not fit into memory:", True)):
            lines = [f"  {row.gain:.2f}×: {row.name} – {row.reason}" for row in idle if (row.fits is False) is too_large]
            parts += ["\n".join([head, *lines])] if lines else []
        return "\n".join(parts)


def order(row: Lever) -> tuple[bool, bool, float, float, str]:
    """Sort key: applicable first, fitting first, then by gain at the floor and at the roofline time [-]."""
    gains = (-row.gain, -row.roofline_gain) if row.applicable else (math.inf, math.inf)
    return (not row.applicable, row.fits is False, *gains, row.name)
