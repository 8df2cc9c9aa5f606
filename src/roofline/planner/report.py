"""A plan on one page, as HTML or Markdown: the question, the answer, what binds, what would change it, and how sure it is."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from roofline.planner import questions
from roofline.planner.choice import Choice
from roofline.planner.trials import at_load
from roofline.units import show_time

if TYPE_CHECKING:
    from roofline.planner.result import Plan

_MOST_ROWS = 8
_GROWTH = (1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    Parameters
    ----------
    title : str
        Its heading [-].
    lines : sequence of str
        Its sentences [-].
    columns : sequence of str, optional
        Headings of its table, the first one of names, the others of figures [-].
    rows : sequence of sequence of str, optional
        The table [-].
    bars : sequence of tuple of float, optional
        Begin and end of a bar for each row, as shares of the table's widest value [-].
    """

    title: str
    lines: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    bars: Sequence[tuple[float, float]] = ()


def sections(plan: "Plan", *, changes: bool) -> list[Section]:
    """Return the parts of a report; those that plan again for what would change the answer only if asked for."""
    demand, slo = plan.candidates.demand, plan.asked.slo
    load = f"{demand.load:.4g} {demand.unit}, prompts of {demand.prompt:.4g} and answers of {demand.output:.4g} tokens on average"
    if demand.prompt_cv or demand.output_cv:
        load += f" (spread {demand.prompt_cv:.2g} and {demand.output_cv:.2g} of the mean)"
    source = f" Requests: {plan.asked.workload.source}." if plan.asked.workload.source else ""
    model = plan.asked.case.deployments[0].model.name
    spare = f" {plan.asked.spare} replica{'s' * (plan.asked.spare != 1)} of each pool may fail." if plan.asked.spare else ""
    question = Section("Question", [f"Which machines serve {model} with {load}, and keep {slo}?{source}{spare}"])
    if not plan.kept or not plan.choices:
        answer = plan.forbidden if not plan.kept else f"By closed forms alone: {plan.estimated()}."
        return [question, Section("Answer", [_sentence(answer)]), _table_of(plan), *_notes(plan)]
    parts = [question, _answer(plan), Section("What binds", [_sentence(plan.binds)]), _frontier(plan)]
    if changes:
        parts += [_promises(plan), _sensitivity(plan), _growth(plan)]
    return [*parts, _table_of(plan), _sure(plan)]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _unit(plan: "Plan") -> str:
    return "devices" if plan.asked.prices is None else "cost per hour"


def _cost(value: float) -> str:
    return f"{value:.4g}" if isfinite(value) else "not kept"


def _answer(plan: "Plan") -> Section:
    best = plan.cheapest
    by_machine = " and ".join(f"{count} × {machine}" for machine, count in best.candidate.by_machine.items())
    cost = "" if plan.asked.prices is None else f", a cost of {best.cost:.4g} per hour"
    lines = [f"{best.candidate}: {by_machine}{cost}."]
    reached = ", ".join(
        f"{questions.NAMES[name]} {show_time(value)} of {show_time(plan.asked.slo.promises[name])}"
        for name, value in best.trial.reached.items()
    )
    lines.append(f"{plan.asked.slo.percentile * 100:.4g} % of the requests: {reached}. {best.trial.share:.2%} keep all promises.")
    lines.append(f"{best.tokens_per_s_per_device:.4g} tokens/s of answers per device, {best.tokens_per_s_per_user:.4g} per user.")
    if plan.asked.prices is not None:
        tokens = plan.cost()
        lines.append(
            f"{tokens.per_million_output:.4g} for a million tokens of answers, {tokens.per_million_total:.4g} for a million of all tokens."
        )
    others = [f"{other.candidate} ({other.cost:.4g})" for other in plan.alternatives[:2]]
    return Section("Answer", lines + ([f"Next: {'; '.join(others)}."] if others else []))


def _frontier(plan: "Plan") -> Section:
    def row(choice: Choice) -> tuple[str, ...]:
        figures = (choice.tokens_per_s_per_device, choice.tokens_per_s_per_user)
        return (str(choice.candidate), f"{choice.cost:.4g}", *(f"{figure:.4g}" for figure in figures))

    columns = ("candidate", _unit(plan), "tokens/s per device", "tokens/s per user")
    return Section("Frontier", ["No other candidate beats these in all three."], columns, [row(one) for one in plan.frontier[:_MOST_ROWS]])


def _promises(plan: "Plan") -> Section:
    rows = [
        (
            f"{questions.NAMES[price.promise.partition(' ')[0]]} ≤ {show_time(price.promised_s)}",
            *(
                f"{_cost(cost)} at {show_time(seconds)}"
                for cost, seconds in ((price.relaxed, price.relaxed_s), (price.tightened, price.tightened_s))
            ),
        )
        for price in plan.promises()
    ]
    lines = [f"{_unit(plan).capitalize()}: {plan.cheapest.cost:.4g} as promised; with one promise changed:"]
    return Section("What each promise costs", lines, ("promise", "relaxed", "tightened"), rows)


def _sensitivity(plan: "Plan") -> Section:
    bars = plan.sensitivity()
    ends = [end for bar in bars for end in (bar.less, bar.more) if isfinite(end)] or [plan.cheapest.cost]
    widest = max(*ends, plan.cheapest.cost)
    spans = [tuple(sorted(end / widest if isfinite(end) else 1.0 for end in (bar.less, bar.more))) for bar in bars]
    rows = [(bar.what, _cost(bar.less), _cost(bar.more)) for bar in bars]
    return Section(
        "Sensitivity",
        [f"{_unit(plan).capitalize()} of the same candidate if something is less or more than assumed."],
        ("what", "less", "more"),
        rows,
        [(low, high) for low, high in spans],
    )


def _growth(plan: "Plan") -> Section:
    if plan.asked.workload.after is not None:
        return Section("Growth", ["The load of users who think is their number: plan for a workload of more users."])
    rows = [(f"{point.value:g} ×", point.name or "none", str(point.devices), _cost(point.cost)) for point in plan.growth(_GROWTH)]
    return Section("Growth", [], ("load", "candidate", "devices", _unit(plan)), rows)


def _table_of(plan: "Plan") -> Section:
    rows = [(str(row["name"]), str(row["status"]), str(row["reason"])) for row in plan.to_records()]
    more = f" The first {_MOST_ROWS} of {len(rows):,} candidates; to_csv() writes all." if len(rows) > _MOST_ROWS else ""
    return Section("Candidates", [f"What there was to choose from, and why not.{more}"], ("candidate", "status", "why"), rows[:_MOST_ROWS])


def _sure(plan: "Plan") -> Section:
    at = at_load(plan.cheapest.trial.candidate, plan.asked.traffic())
    trial, found, record = plan.cheapest.trial, at.values(), at.service.server.time.calibration
    source = "" if record is None else f" of the record {record.id}"
    times = f"The simulation has a mean time per token of {show_time(trial.tpot_s)}, closed forms {show_time(at.tpot_s)}"
    lines = [f"Times of steps: {at.service.basis}{source}. {times}"]
    if "tpot_low_s" in found:
        lines[0] += f", which lies between {show_time(found['tpot_low_s'])} and {show_time(found['tpot_high_s'])} with {at.interval:.0%}"
    lines[0] += "."
    return Section("How sure", [*lines, *map(_sentence, dict.fromkeys((*plan.notes, *at.notes)))])


def _notes(plan: "Plan") -> list[Section]:
    return [Section("Notes", [_sentence(note) for note in plan.notes])] if plan.notes else []


def to_markdown(parts: Sequence[Section], title: str) -> str:
    """Return a report as Markdown."""
    lines = [f"# {title}", ""]
    for part in parts:
        lines += [f"## {part.title}", "", *(text for line in part.lines for text in (line, ""))]
        if part.rows:
            escaped = [[cell.replace("|", "\\|") for cell in row] for row in part.rows]
            lines += [
                f"| {' | '.join(part.columns)} |",
                f"|{' --- |' * len(part.columns)}",
                *(f"| {' | '.join(row)} |" for row in escaped),
                "",
            ]
    return "\n".join(lines)


_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d5d9de, #3b4148); --bar: light-dark(#3b7dd8, #6ea8fe); --dim: light-dark(#57606a, #9aa4af); }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; background: light-dark(#fff, #16191d);
  color: light-dark(#1c2024, #e6e8ea); }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.05rem; margin: 1.1rem 0 .3rem; } p { margin: .2rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; margin-top: .3rem; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 600; } td.figure { font-variant-numeric: tabular-nums; }
.track { background: var(--line); height: .7rem; min-width: 10rem; } .bar { background: var(--bar); height: 100%; min-width: 2px; }
@page { size: A4; margin: 12mm; }
@media print { :root { color-scheme: light; font-size: 9px; } body { font-size: 1rem; margin: 0; max-width: none; } h2 { margin: .6rem 0 .2rem; } section { break-inside: avoid; } }
"""


def to_html(parts: Sequence[Section], title: str) -> str:
    """Return a report as a page that needs nothing from elsewhere."""
    name = html.escape(title)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{name}</title><style>{_STYLE}</style>'
    body = "\n".join(_section(part) for part in parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><h1>{name}</h1>\n{body}\n</body></html>\n'


def _section(part: Section) -> str:
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in part.lines)
    return f"<section><h2>{html.escape(part.title)}</h2>{lines}{_table(part) if part.rows else ''}</section>"


def _table(part: Section) -> str:
    bars = [_bar(*bar) for bar in part.bars] or [""] * len(part.rows)
    head = "".join(f"<th>{html.escape(column)}</th>" for column in part.columns) + ("<th></th>" if part.bars else "")
    body = "".join(f"<tr>{_cells(row)}{bar}</tr>" for row, bar in zip(part.rows, bars, strict=True))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(row: Sequence[str]) -> str:
    return "".join(f"<td{' class=figure' * (i > 0)}>{html.escape(cell)}</td>" for i, cell in enumerate(row))


def _bar(low: float, high: float) -> str:
    return f'<td><div class="track"><div class="bar" style="margin-left:{low:.1%};width:{high - low:.1%}"></div></div></td>'
