"""A diagnosis as the parts of a page."""

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING

from roofline.diagnose.phase import WORDS, Phase
from roofline.errors import InvalidValueError, quoted
from roofline.names import local_path
from roofline.planner.report import Section, to_html, to_markdown
from roofline.units import show_time

if TYPE_CHECKING:
    from roofline.diagnose.result import Diagnosis

_MOST_ROWS = 8
_ANSWERS = {True: "yes", False: "no", None: "not told"}


def write_report(found: "Diagnosis", path: "str | PathLike[str]", words: Callable[[str], str] = str) -> None:
    """Write a diagnosis on one page; `words` says how options are named in its texts."""
    file = local_path(path)
    form = {".html": to_html, ".md": to_markdown}.get(file.suffix)
    if form is None:
        raise InvalidValueError(f"{quoted(file.name)} is neither .html nor .md, the two forms of a report.")
    parts = [
        replace(part, lines=[words(line) for line in part.lines], rows=[tuple(map(words, row)) for row in part.rows])
        for part in sections(found)
    ]
    try:
        file.write_text(form(parts, "Diagnosis"), encoding="utf-8")
    except OSError as error:
        raise InvalidValueError(f"{quoted(str(path))} cannot be written: {error.strerror or error}.") from None


def sections(found: "Diagnosis") -> list[Section]:
    """Return the parts of a report: times, then each phase, misdiagnoses, and what cannot be told."""
    parts = [Section("What was diagnosed", [found.subject, *found.findings])]
    if found.phases:
        parts.append(_times(found.phases))
    for phase in found.phases:
        parts += _of_phase(phase)
    if found.misdiagnoses:
        rows = [(one.name, "misleads" if one.misleads else "would be right here", one.text) for one in found.misdiagnoses]
        parts.append(Section("Classic misdiagnoses", ["Checked with the numbers of this run."], ("conclusion", "here", "numbers"), rows))
    if found.unknown:
        parts.append(Section("What cannot be told", [f"{_begin(text)}." for text in found.unknown]))
    if found.assumed:
        parts.append(Section("What was assumed", [f"{_begin(text)}." for text in found.assumed]))
    return parts + ([Section("Notes", [f"{_begin(note)}." for note in found.notes])] if found.notes else [])


def _begin(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _times(phases: tuple[Phase, ...]) -> Section:
    longest = max(phase.measured_s for phase in phases)
    rows = [
        (
            phase.name,
            show_time(phase.measured_s),
            show_time(phase.floor_s) if phase.floor_s else "–",
            show_time(phase.estimate_s) if phase.estimate_s else "–",
            f"{phase.over_floor:.2f}" if phase.floor_s else "–",
            f"{phase.over_estimate:.2f}" if phase.estimate_s else "–",
            phase.binds or "not known",
        )
        for phase in phases
    ]
    bars = [(0.0, phase.measured_s / longest) for phase in phases]
    return Section("Times", [], ("phase", "measured", "floor", "estimate", "× floor", "× estimate", "bound by"), rows, bars)


def _of_phase(phase: Phase) -> list[Section]:
    """Return the parts on one phase: what binds, what was looked for, losses, remedies."""
    title = phase.name.capitalize() if phase.name.islower() else phase.name
    bound = f"Bound by {WORDS.get(phase.binds, phase.binds)}: {phase.why}." if phase.binds else f"What binds is not known: {phase.why}."
    lines = [f"{phase.times()}.", bound, *([f"{_begin(phase.roof_line())}."] if phase.roof else [])]
    causes = [(cause.name, _ANSWERS[cause.found], cause.text) for cause in phase.causes]
    parts = [Section(title, lines, ("looked for", "found", "why"), causes)]
    if phase.losses:
        rows = [(part.name, show_time(part.expected_s), part.how) for part in phase.losses]
        bars = [(0.0, min(max(part.expected_s / phase.measured_s, 0.0), 1.0)) for part in phase.losses]
        parts.append(
            Section(
                f"{title}: largest {'losses' if phase.floor_s else 'parts'}",
                [f"{'Time beyond the floor' if phase.floor_s else 'All of the time'}; bars are shares of the measured time."],
                ("what", "time", "how"),
                rows,
                bars,
            )
        )
    if phase.remedies:
        chosen = [*phase.helps[:_MOST_ROWS], *phase.does_not_help[:_MOST_ROWS]]
        told = [
            (one.name, "yes" if one.helps else "no", f"{one.gain:.2f}×", f"{one.most:.2f}×", one.reason, one.cost if one.helps else "")
            for one in chosen
        ]
        lines = ["Gains on the measured time, each alone: if all that lies beyond the floor stays, and at most."]
        parts.append(Section(f"{title}: what would help", lines, ("what", "helps", "gain", "at most", "why", "cost"), told))
    return parts
