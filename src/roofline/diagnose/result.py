"""`Diagnosis`: what a run was bound by, what it lost, and what would help."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

from roofline.diagnose.misdiagnoses import Misdiagnosis
from roofline.diagnose.phase import WORDS, Phase
from roofline.diagnose.report import write_report
from roofline.names import unknown_name
from roofline.results import Result, show_notes
from roofline.units import show_time

_SHOWN = 4  # remedies of a phase in the text
_NUMBERS = ("measured_s", "floor_s", "estimate_s", "served_s", "over_floor", "over_estimate", "mbu", "mfu")
_ANSWERS = {True: "yes", False: "no", None: "not told"}


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Diagnosis(Result):
    """What a run was bound by, what it lost, and what would help.

    Parameters
    ----------
    kind : str
        What was diagnosed: ``"benchmark"``, ``"engine"``, ``"trace"``, ``"profile"``, ``"recording"``, ``"devices"``, ``"report"``, ``"log"``
        or ``"steps"`` [-].
    subject : str
        What ran and who measured it, in a line [-].
    phases : tuple of Phase
        Each phase that was measured, apart from the others [-].
    misdiagnoses : tuple of Misdiagnosis
        Wrong conclusions that the input has the numbers to check [-].
    findings : tuple of str
        What the input says beside times [-].
    unknown : tuple of str
        What cannot be told from the input [-].
    rests_on : Result, optional
        What it was made of: a comparison, a profile, a recording … [-].
    assumed : tuple of str
        What neither the input nor the caller says, and what is taken instead [-].
    notes : tuple of str
        What a reader must know [-].
    """

    kind: str
    subject: str
    phases: tuple[Phase, ...]
    misdiagnoses: tuple[Misdiagnosis, ...]
    findings: tuple[str, ...]
    unknown: tuple[str, ...]
    rests_on: Result | None
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Phase:
        """Return a phase by its name [-]."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise unknown_name("phase", str(name), [phase.name for phase in self.phases])

    def __contains__(self, name: object) -> bool:
        return any(phase.name == name for phase in self.phases)

    def values(self) -> dict[str, Any]:
        """Return the numbers of every phase by its name: ``decode_measured_s`` … [SI]."""
        return {f"{phase.name}_{name}": getattr(phase, name) for phase in self.phases for name in _NUMBERS}

    def table(self) -> Sequence[Mapping[str, Any]]:
        """Return a row for each phase, with its causes, losses and remedies [SI]."""
        return [phase.to_dict() for phase in self.phases]

    def context(self) -> dict[str, Any]:
        """Return what else is said, and what it rests on [-]."""
        checks = [{each.name: getattr(one, each.name) for each in fields(one)} for one in self.misdiagnoses]
        return {
            "kind": "diagnosis",
            "of": self.kind,
            "subject": self.subject,
            "misdiagnoses": checks,
            "findings": self.findings,
            "unknown": self.unknown,
            "rests_on": None if self.rests_on is None else self.rests_on.to_dict(),
            "assumed": self.assumed,
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Return the text: each phase with what binds it, losses and remedies; misdiagnoses; what cannot be told [-]."""
        lines = [self.subject]
        for phase in self.phases:
            lines += _lines_of(phase)
        lines += [f"  {text}" for text in self.findings]
        if self.misdiagnoses:
            lines.append("  misdiagnoses, checked with these numbers:")
            lines += [f"    {one.name}{'' if one.misleads else ' (would be right here)'}: {one.text}" for one in self.misdiagnoses]
        lines += [f"  cannot be told: {text}" for text in self.unknown]
        lines += [f"  assumed: {text}" for text in self.assumed]
        return [*lines, *show_notes(self.notes)]

    def report(self, path: "str | PathLike[str]") -> None:
        """Write the diagnosis on one page.

        Parameters
        ----------
        path : str or path
            Where to: a page of its own if it ends in ``.html``, Markdown if in ``.md`` [-].

        Raises
        ------
        InvalidValueError
            If the file ends in neither, or cannot be written.
        """
        write_report(self, path)


def _lines_of(phase: Phase) -> list[str]:
    """Return a phase in lines."""
    lines = [f"  {phase.name}: {phase.times()}"]
    if phase.binds:
        lines.append(f"    bound by {WORDS.get(phase.binds, phase.binds)}: {phase.why}")
    else:
        lines.append(f"    what binds is not known: {phase.why}")
    lines += [f"    {phase.roof_line()}"] if phase.roof else []
    lines += [f"    looked for {cause.name}: {_ANSWERS[cause.found]}: {cause.text}" for cause in phase.causes]
    word = "lost" if phase.floor_s else "took"
    lines += [f"    {word}: {part.name} {show_time(part.expected_s)} ({part.how})" for part in phase.losses]
    lines += [f"    would help: {remedy.line()}" for remedy in phase.helps[:_SHOWN]]
    lines += [f"    would not help: {remedy.line()}" for remedy in phase.does_not_help[:_SHOWN]]
    return lines
