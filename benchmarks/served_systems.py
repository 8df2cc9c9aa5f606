"""Score calibration records on published served systems, end to end: time per output token and to the first one.

3,555 aggregated rows of the sample that ``served_rows`` reads, by ``serving_estimate``: with the record of the row's own machine and engine, with
the generic record, and with the own record and the host times of the engine's profile, which ``fit_engines`` fitted to rows of H100 and H200. In
the first two no constant of the forms, and none of the kernels, comes from these rows, except `step_s` of the generic record, which both have.

Assumed: clients that begin together and send ten requests each; steps as long as ``served_told`` says; 95 % of the memory less 3 GB for weights and
cache; all ranks of data-parallel attention prefill at the same time; a row labelled mtp drafts three tokens, each accepted with probability 0.65
if the one before was (0.75 where prompts run apart), so that a step verifies four rows of each sequence and yields 2.35 tokens, and runs the model's module three times (one token with
TensorRT-LLM and data-parallel attention, two of DeepSeek-R1 with SGLang); tokens spread over experts as in most rows of the kernel tables, evenly in disaggregated systems. Decode workers of disaggregated systems have the time per token of a decode step.

Usage: ``python benchmarks/served_systems.py`` prints the tables; ``--write`` puts them into docs/estimates.md and docs/tables; ``--machine``
and ``--engine`` choose rows, ``--records DIR`` takes records from a folder, by file name, before the shipped ones.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fit_records import version_key
from pages import DOCS, comma_separated, markdown, number, options, put
from roofline import (
    CalibrationRecord,
    Deployment,
    InvalidValueError,
    Model,
    ServingEstimate,
    expected_tokens,
    list_records,
    load_record,
    serving_estimate,
)
from roofline.records import with_classes
from served_rows import DENSE, DEV, READ, Served, aggregated, disaggregated, later, sample
from served_told import engine_of, graph_tokens_of, prompt_tokens_of, receive_interval_of, waits_of

PAGE = DOCS / "estimates.md"
USABLE, RESERVE = 0.95, 3e9
ROUNDS = 10
ROUTING = "power_law_1.01"
DRAWN = 0.2 / 12**0.5 / 0.9
"""Standard deviation of lengths drawn uniformly from 0.8–1.0 of the nominal ones, over their mean."""


@dataclass(frozen=True, slots=True)
class Times:
    """What was predicted for a row [s]."""

    tpot_s: float
    low_s: float
    high_s: float
    ttft_s: float


def served_as(deployment: Deployment, rows: Sequence[Served], **how: Any) -> ServingEstimate:
    """Return what the library makes of the rows of one configuration."""
    prompt, answer, clients, drawn = np.array([(row.isl, row.osl, row.concurrency, row.drawn) for row in rows]).T
    drafts = {"drafts": rows[0].drafts, "acceptance": rows[0].acceptance} if rows[0].drafts else {}
    clients = np.maximum(clients, 1.0)  # of one of many workers there are less than one
    load = {"prompt": prompt, "output": answer, "concurrency": clients, "prompt_cv": DRAWN * drawn, "output_cv": DRAWN * drawn}
    one = rows[0]
    told = {"rounds": ROUNDS, "step_tokens": prompt_tokens_of(one), "chunked": True, "admission": "prompt"}
    told |= {"receive_interval": receive_interval_of(one), "rank_wait_steps": waits_of(one).get("rank_wait_steps")}
    told |= {} if "basis" in how else {"graph_tokens": graph_tokens_of(one)}
    return serving_estimate(deployment, **load, **drafts, **told, **how, engine=engine_of(one))


def predict(deployment: Deployment, record: CalibrationRecord, rows: Sequence[Served]) -> list[Times]:
    """Return the times of every row of one configuration; where prompts run apart, of decode steps alone."""
    found = served_as(deployment, rows, calibration=record).values()
    per_token, first = found["tpot_s"], found["ttft_s"] + rows[0].client_s
    if rows[0].apart:
        per_token, first = found["step_s"] / tokens_of(rows), np.full(len(rows), np.nan)
    ends = (per_token * found[f"tpot_{end}_s"] / found["tpot_s"] for end in ("low", "high"))
    return [Times(*map(float, row)) for row in zip(per_token, *ends, first, strict=True)]


def tokens_of(rows: Sequence[Served]) -> float:
    """Return the tokens that a step yields for each sequence, of rows of one configuration [token]."""
    return expected_tokens(rows[0].drafts, rows[0].acceptance) if rows[0].drafts else 1.0


def deploy(row: Served) -> Deployment:
    """Return what serves a row."""
    checkpoint, weights = row.checkpoint()
    model = Model.load(checkpoint)
    return Deployment(
        model,
        row.machine,
        weights=weights,
        kv=row.kv,
        tensor_parallel=row.tensor,
        data_parallel=row.data,
        expert_parallel=row.expert,
        routing="uniform" if row.apart else ROUTING,
        mtp=row.drafts if model.mtp_modules else 0,
        utilization=USABLE,
        reserve=RESERVE,
    )


def configurations(rows: Iterable[Served]) -> list[list[Served]]:
    """Return the rows that one deployment serves, together."""
    groups: dict[tuple[object, ...], list[Served]] = defaultdict(list)
    for row in rows:
        what = (row.machine, row.engine, row.model, row.weights, row.kv, row.tensor, row.data, row.expert, row.drafts, row.borrowed)
        groups[*what, receive_interval_of(row), graph_tokens_of(row), row.drawn, prompt_tokens_of(row), engine_of(row)].append(row)
    return list(groups.values())


class Records:
    """The records to score: those of a folder, by the names of their files, and the shipped ones where it has none."""

    def __init__(self, folder: Path | None) -> None:
        files = {} if folder is None else {path.stem: path for path in folder.glob("*.json")}
        self._known: dict[str, str | Path] = {**{name: name for name in (*list_records(), "generic")}, **files}
        self.generic = load_record(self._known["generic"])

    def of(self, row: Served) -> CalibrationRecord:
        """Return the record of a row's machine and engine, with experts of SGLang's where they ran on kernels that only its tables have."""
        found = self.own(row.machine, row.engine)
        return with_classes(found, self.own(row.machine, "sglang"), family="experts", stored="fp8_block128") if row.borrowed else found

    def own(self, machine: str, engine: str) -> CalibrationRecord:
        """Return the newest record of a machine and an engine; those of the folder first."""
        begin = f"{machine}-{engine}-"
        names = [name for name in self._known if name.startswith(begin)]
        newest = max(names, key=lambda name: (isinstance(self._known[name], Path), version_key(name.removeprefix(begin))))
        return load_record(self._known[newest])


@dataclass(frozen=True, slots=True)
class Scored:
    """A row and what was predicted of it."""

    row: Served
    record: str
    floor_s: float  # of a decode step, over the tokens that it yields
    own: Times
    generic: Times
    host: Times  # by the own record and the host times of its engine

    @property
    def refuted(self) -> bool:
        """Whether the row is faster than its labels allow."""
        return self.row.tpot_s < self.floor_s


def score(rows: Sequence[Served | str], records: Records) -> tuple[list[Scored], Counter[str]]:
    """Return the scores of rows in the sample's order, and how many have none for which reason."""
    reasons = Counter(row for row in rows if isinstance(row, str))
    scored = []
    for group in configurations(row for row in rows if not isinstance(row, str)):
        deployment, own = deploy(group[0]), records.of(group[0])
        try:
            lowest = served_as(deployment, group, basis="floor")
        except InvalidValueError:
            reasons["nothing is left for a cache beside the weights"] += len(group)
            continue
        floors = lowest.step_s / tokens_of(group)
        kernels = own.model_copy(update={"overheads": records.generic.overheads})
        times = (predict(deployment, record, group) for record in (kernels, records.generic, own))
        name = records.own(group[0].machine, group[0].engine).id
        scored += [Scored(row, name, float(floor), *both) for row, floor, *both in zip(group, floors, *times, strict=True)]
    return scored, reasons


def errors(scored: Sequence[Scored], record: str, what: str) -> np.ndarray:
    """Return predicted over measured, less 1, by the own or the generic record, of ``tpot_s`` or ``ttft_s`` [-]."""
    return np.array([getattr(getattr(each, record), what) / getattr(each.row, what) - 1 for each in scored])


def shown(error: np.ndarray) -> str:
    """Return the mean, the median and the bias of errors in percent."""
    size = np.abs(error) * 100
    return f"{size.mean():.1f} / {np.median(size):.1f} ({np.median(error) * 100:+.0f})"


def inside(scored: Sequence[Scored], record: str) -> str:
    """Return how many rows lie in the interval of 80 %."""
    found = [getattr(each, record).low_s <= each.row.tpot_s <= getattr(each, record).high_s for each in scored]
    return f"{np.mean(found):.0%}"


NOT_REFUTED = "all that their floor does not refute"
PARTS: tuple[Callable[[Served], str], ...] = (
    lambda row: "H100 and H200" if row.machine in DEV else "other machines",
    lambda row: "dense models" if row.family in DENSE else "mixtures of experts",
    lambda row: f"`{row.engine}`",
    lambda row: f"`{row.machine}`",
    lambda row: row.family,
    lambda row: SPECULATIVE[row.speculative],
)
"""Into which parts the rows are divided."""

SPECULATIVE = {
    "mtp": "with drafts",
    "none": "without drafts",
    "either": "drafts: swept both ways",
    "unknown": "drafts: unknown",
}


def slices(scored: Sequence[Scored]) -> str:
    """Return the table of errors of all rows, and of parts of them."""
    columns: dict[str, Callable[[list[Scored]], str]] = {
        "rows": lambda part: number(len(part)),
        "TPOT, own": lambda part: shown(errors(part, "own", "tpot_s")),
        "TPOT, generic": lambda part: shown(errors(part, "generic", "tpot_s")),
        "TPOT, own and host": lambda part: shown(errors(part, "host", "tpot_s")),
        "inside, own": lambda part: inside(part, "own"),
        "inside, generic": lambda part: inside(part, "generic"),
    }
    if not scored[0].row.apart:
        columns["TTFT, own"] = lambda part: shown(errors(part, "own", "ttft_s"))
        columns["TTFT, generic"] = lambda part: shown(errors(part, "generic", "ttft_s"))
        columns["TTFT, own and host"] = lambda part: shown(errors(part, "host", "ttft_s"))
    parts = {"all": list(scored), NOT_REFUTED: [each for each in scored if not each.refuted]}
    for part_of in PARTS:
        for name in sorted({part_of(each.row) for each in scored}):
            parts[name] = [each for each in scored if part_of(each.row) == name]
    lines = [(name, *(column(part) for column in columns.values())) for name, part in parts.items()]
    return markdown(("rows of", *columns), lines)


def verdicts(scored: Sequence[Scored]) -> str:
    """Return which is nearer, for each machine and engine: what the own record estimates, host times and all, or the generic one."""
    lines = []
    for record in sorted({each.record for each in scored}):
        part = [each for each in scored if each.record == record]
        medians = {name: float(np.median(np.abs(errors(part, name, "tpot_s")))) for name in RECORDS}
        cells = (f"{medians[name]:.1%}" for name in ("own", "host", "generic"))
        low, high = by_chance(part)
        nearer = "own" if medians["host"] < medians["generic"] else "**generic**"
        lines.append((f"`{record}`", len(part), *cells, nearer, f"{100 * low:+.1f} … {100 * high:+.1f}"))
    return markdown(("own record", "rows", "own, kernels and 0.3 ms", "own and host", "generic", "nearer", "own less generic, 80 %"), lines)


def by_chance(scored: Sequence[Scored], draws: int = 1000) -> tuple[float, float]:
    """Return an interval of 80 % of the median error of own records less that of the generic one: configurations drawn with replacement."""
    by_line = {
        each.row.line: pair
        for each, *pair in zip(scored, *(np.abs(errors(scored, name, "tpot_s")) for name in ("host", "generic")), strict=True)
    }
    groups = [np.array([by_line[row.line] for row in rows]) for rows in configurations(each.row for each in scored)]
    chance = np.random.default_rng(0)
    drawn = (np.median(np.concatenate([groups[i] for i in chance.integers(0, len(groups), len(groups))]), axis=0) for _ in range(draws))
    low, high = np.quantile([own - generic for own, generic in drawn], (0.1, 0.9))
    return float(low), float(high)


def hosts(scored: Sequence[Scored]) -> str:
    """Return the table of what host times buy, medians."""
    lines = []
    for name, chosen in (("H100 and H200 (fitted to)", True), ("other machines", False)):
        part = [each for each in scored if (each.row.machine in DEV) == chosen]
        found = [errors(part, record, what) for what in ("tpot_s", "ttft_s") for record in ("own", "host")]
        if part:
            lines.append((name, *(f"{np.median(np.abs(e)) * 100:.1f} ({np.median(e) * 100:+.0f})" for e in found)))
    return markdown(
        ("rows of", *(f"{what}, {with_}" for what in ("TPOT", "TTFT") for with_ in ("kernels and 0.3 ms", "host times"))), lines
    )


def of_later(scored: Sequence[Scored]) -> str:
    """Return the table of versions that the sample does not have, by machine."""
    columns = {"own, kernels and 0.3 ms": ("own", "tpot_s"), "own and host": ("host", "tpot_s"), "generic": ("generic", "tpot_s")}
    head = ("rows of", "rows", *(f"TPOT, {name}" for name in columns), "inside, own and host", "TTFT, own and host")
    lines = []
    for machine in sorted({each.row.machine for each in scored}):
        part = [each for each in scored if each.row.machine == machine]
        cells = (shown(errors(part, *column)) for column in columns.values())
        lines.append((f"`{machine}`", len(part), *cells, inside(part, "host"), shown(errors(part, "host", "ttft_s"))))
    return markdown(head, lines)


def counted(counts: Sequence[Counter[str]]) -> str:
    """Return how many aggregated and disaggregated rows there are of each sort."""
    others = sorted(set().union(*counts) - set(READ.values()), key=lambda name: (name.startswith("not"), name))
    names = [*READ.values(), *others]
    return markdown(("rows", "aggregated", "disaggregated"), [(name, *(number(count[name]) for count in counts)) for name in names])


LABELS = [
    "line",
    "apart",
    "machine",
    "engine",
    "version",
    "model",
    "precision",
    "tensor",
    "data",
    "expert",
    "isl",
    "osl",
    "concurrency",
    "speculative",
    "repaired",
]


RECORDS = ("own", "generic", "host")


def detail(scored: Sequence[Scored]) -> str:
    """Return a line of every row: its labels, and times in milliseconds."""
    times = ("tpot_s", "low_s", "high_s", "ttft_s")
    head = [*LABELS, "tpot_ms", "ttft_ms", "floor_ms", *(f"{record}_{name[:-1]}ms" for record in RECORDS for name in times)]
    lines = []
    for each in scored:
        seconds = [
            each.row.tpot_s,
            each.row.ttft_s,
            each.floor_s,
            *(getattr(getattr(each, record), name) for record in RECORDS for name in times),
        ]
        known = (f"{1e3 * value:.3g}" if np.isfinite(value) else "" for value in seconds)
        labels = (getattr(each.row, name) for name in LABELS)
        lines.append((*(f"{label:.0f}" if isinstance(label, (bool, float)) else label for label in labels), *known))
    return comma_separated(tuple(head), lines)


def report(records: Records, chosen: Callable[[Served], bool]) -> dict[str, str]:
    """Return the sections."""
    rows = sample()
    sections, every, counts = {}, [], []
    for served, name in ((aggregated, "served"), (disaggregated, "served apart")):
        scored, reasons = score([row for row in served(rows) if isinstance(row, str) or chosen(row)], records)
        if scored:
            sections |= {name: slices(scored), f"{name} records": verdicts(scored)}
            sections |= {} if scored[0].row.apart else {"served hosts": hosts(scored)}
        count = Counter(READ[each.row.repaired] for each in scored)
        count["of all these, faster than the floor of their decode steps"] = sum(each.refuted for each in scored)
        counts.append(count + Counter({f"not scored: {reason}": there for reason, there in reasons.items()}))
        every += scored
    newer, _ = score([row for row in later() if chosen(row)], records)
    sections |= {"served later": of_later(newer)} if newer else {}
    lines = detail(sorted(every, key=lambda each: each.row.line))
    return {**sections, "served rows": counted(counts), "served_systems.csv": lines}


def main() -> None:
    """Print or write the tables."""
    parser = options(PAGE, __doc__)
    parser.add_argument("--machine", help="only rows of this machine, such as h100-sxm")
    parser.add_argument("--engine", help="only rows of this engine, such as vllm")
    parser.add_argument("--records", type=Path, help="a folder of records that stand before the shipped ones, by file name")
    parser.add_argument("--detail", type=Path, help="a file to write a line of every row to")
    asked = parser.parse_args()
    if asked.write and (asked.machine or asked.engine or asked.records):
        parser.error("--write is for all rows and the shipped records")
    sections = report(Records(asked.records), lambda row: asked.machine in (None, row.machine) and asked.engine in (None, row.engine))
    lines = sections["served_systems.csv"] if asked.write else sections.pop("served_systems.csv")
    if asked.detail:
        asked.detail.write_text(lines, encoding="utf-8")
    put(sections, PAGE, onto_page=asked.write)


if __name__ == "__main__":
    main()
