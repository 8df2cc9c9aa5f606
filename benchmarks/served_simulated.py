"""Score simulations of published served systems beside the closed forms: with one set of constants, and with six for each engine and machine.

Rows and their labels are those of ``served_rows``, how each is simulated is in ``served_requests``. Kernels are those of the row's own
record. Columns:

- *closed*: ``serving_estimate`` with the host times of the engine's profile, as in ``served_systems``.
- *simulated*: the same kernels and host times, and the engine's scheduler.
- *fitted*: simulated with six constants for each engine and machine, fitted to a tenth of its rows (``served_fit``), the others scored.

Of the interval of 80 % the ends are 10 and 90 % of measured over predicted of the tenth, each left out of its fit, by engine and whether the
model is a mixture.

Usage: ``python benchmarks/served_simulated.py`` prints the tables, and ``--write`` puts them into docs/estimates.md and docs/tables;
``--machine`` chooses rows, ``--seed`` the tenth.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from pages import DOCS, comma_separated, markdown, number, options, put
from roofline import RooflineError
from served_fit import Parts, drawn, fit, interval, measurement, parts_of
from served_requests import Host, Server, run
from served_rows import DENSE, DEV, TWICE, Served, aggregated, sample
from served_systems import NOT_REFUTED, Records, configurations, deploy, predict, served_as, shown, tokens_of
from served_told import Kind, kind_of, profile_of

PAGE = DOCS / "estimates.md"


class Times(NamedTuple):
    """Means of a row [s]."""

    tpot_s: float
    ttft_s: float


@dataclass(frozen=True, slots=True)
class Scored:
    """What was predicted of a row."""

    row: Served
    closed: Times
    simulated: Times
    fitted: Times | None  # None where the constants were fitted to it
    ends: tuple[float, float]  # of the interval of 80 %, over fitted
    refuted: bool  # whether it is faster than its labels allow
    full: bool  # whether more clients ask than the cache has room for, or more wait for a first token than have one, as measured


def server_of(rows: Sequence[Served]) -> Server:
    """Return what serves the rows of one configuration."""
    one = rows[0]
    return Server.of(deploy(one), Records(None).of(one), rows)


def simulated(hosts: Mapping[Kind, Host], rows: Sequence[Served]) -> dict[int, Times] | str:
    """Return the times of rows of one configuration by their lines, those of equal loads once; or why there are none."""
    found: dict[tuple[object, ...], Times] = {}
    times = {}
    try:
        server = server_of(rows)
        for row in rows:
            load, host = (row.isl, row.osl, row.drawn, row.concurrency), hosts[kind_of(row)]
            if load not in found:
                one = run(server, host, row)
                found[load] = Times(one.tpot_s, one.ttft_s(host))
            times[row.line] = found[load]
    except RooflineError as error:
        return str(error)
    return times


def parts(hosts: Mapping[Kind, Host], rows: Sequence[Served]) -> list[Parts]:
    """Return what the times of rows of one configuration consist of."""
    server = server_of(rows)
    return [parts_of(server, hosts[kind_of(row)], row) for row in rows]


def closed(rows: Sequence[Served]) -> dict[int, tuple[Times, bool, bool]]:
    """Return the times of rows of one configuration by the closed forms, whether their floor refutes them, and whether more clients ask than there is room for."""
    deployment, record = deploy(rows[0]), Records(None).of(rows[0])
    batch = served_as(deployment, rows, calibration=record).operation.point.batch
    floors = served_as(deployment, rows, basis="floor").step_s / tokens_of(rows)
    return {
        row.line: (
            Times(times.tpot_s, times.ttft_s),
            bool(row.tpot_s < floor),
            bool(most < row.concurrency / row.data - 1e-9) or row.ttft_s > row.tpot_s * row.osl,
        )
        for row, times, most, floor in zip(rows, predict(deployment, record, rows), batch, floors, strict=True)
    }


def fitted(executor: Executor, groups: Sequence[Sequence[Served]], profiles: Mapping[Kind, Host]) -> tuple[dict[Kind, Host], list[Parts]]:
    """Return the constants of each engine and machine, and what they were fitted to."""
    each = [part for found in executor.map(partial(parts, profiles), groups) for part in found]
    return {kind: fit([part for part in each if kind_of(part.row) == kind], profile) for kind, profile in profiles.items()}, each


def ends_of(each: Sequence[Parts], profiles: Mapping[Kind, Host]) -> dict[tuple[str, bool], tuple[float, float]]:
    """Return 10 and 90 % of measured over predicted time per output token, by engine and whether the model is a mixture."""
    errors = defaultdict(list)
    for kind, profile in profiles.items():
        own = [part for part in each if kind_of(part.row) == kind]
        for fold in range(FOLDS):
            host = fit([part for index, part in enumerate(own) if index % FOLDS != fold] or own, profile)
            for part in own[fold::FOLDS]:
                errors[part.row.engine, part.row.family in DENSE].append(part.error(host))
    return {name: interval(found) for name, found in errors.items()}


FOLDS = 5


def score(rows: Sequence[Served], seed: int) -> tuple[list[Scored], Counter[str]]:
    """Return the scores of rows in their order, and how many have none for which reason."""
    reasons: Counter[str] = Counter()
    groups = configurations(rows)
    profiles = {kind_of(row): Host.of(profile_of(row)) for row in rows}
    training = drawn(rows, seed)
    taught, held = (
        [part for group in groups if (part := [row for row in group if (measurement(row) in training) == inside])]
        for inside in (True, False)
    )
    with ProcessPoolExecutor(2) as executor:
        first: dict[int, Times] = {}
        for group, times in zip(groups, executor.map(partial(simulated, profiles), groups), strict=True):
            if isinstance(times, str):
                reasons[times] += len(group)
            else:
                first |= times
        taught = [[row for row in group if row.line in first] for group in taught if group[0].line in first]
        hosts, each = fitted(executor, taught, profiles)
        then: dict[int, Times] = {}
        for times in executor.map(partial(simulated, hosts), [group for group in held if group[0].line in first]):
            then |= times if isinstance(times, dict) else {}
    ends = ends_of(each, profiles)
    by_form = {line: found for group in groups if group[0].line in first for line, found in closed(group).items()}
    scored = [
        Scored(
            row, by_form[row.line][0], first[row.line], then.get(row.line), ends[row.engine, row.family in DENSE], *by_form[row.line][1:]
        )
        for row in rows
        if row.line in first
    ]
    return scored, reasons


def collisions(rows: Iterable[Served]) -> set[int]:
    """Return the lines of rows whose labels others have too, measured more than a tenth apart."""
    alike = defaultdict(list)
    for row in rows:
        alike[(*row.labels, row.speculative)].append(row)
    apart = (each for each in alike.values() if max(row.tpot_s for row in each) > TWICE * min(row.tpot_s for row in each))
    return {row.line for each in apart for row in each}


def parts_of_the_sample(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Return the rows by what they have in common."""
    twice = collisions(each.row for each in scored)
    found = {
        "all": list(scored),
        NOT_REFUTED: [each for each in scored if not each.refuted],
        "no tag, no collision of labels, not above capacity": [
            each for each in scored if not (each.row.tagged or each.row.line in twice or each.full)
        ],
        "H100 and H200 (developed on)": [each for each in scored if each.row.machine in DEV],
        "other machines": [each for each in scored if each.row.machine not in DEV],
        "lengths drawn": [each for each in scored if each.row.drawn],
        "lengths fixed": [each for each in scored if not each.row.drawn],
    }
    names: tuple[Callable[[Scored], str], ...] = (
        lambda each: "dense models" if each.row.family in DENSE else "mixtures of experts",
        lambda each: f"`{each.row.engine}`",
        lambda each: f"`{each.row.machine}`",
        lambda each: each.row.family,
    )
    for name in names:
        for value in sorted({name(each) for each in scored}):
            found[value] = [each for each in scored if name(each) == value]
    return {name: rows for name, rows in found.items() if rows}


def errors(scored: Sequence[Scored], column: str, what: str) -> np.ndarray:
    """Return predicted over measured, less 1 [-]."""
    known = [each for each in scored if getattr(each, column) is not None]
    return np.array([getattr(getattr(each, column), what) / getattr(each.row, what) - 1 for each in known])


def table(scored: Sequence[Scored]) -> str:
    """Return the table of errors."""
    lines = []
    for name, rows in parts_of_the_sample(scored).items():
        held = [each for each in rows if each.fitted is not None]
        inside = [each.ends[0] <= each.row.tpot_s / each.fitted.tpot_s <= each.ends[1] for each in held if each.fitted]
        cells = [shown(errors(rows, column, what)) for what in ("tpot_s", "ttft_s") for column in ("closed", "simulated", "fitted") if held]
        lines.append((name, number(len(rows)), *cells, f"{np.mean(inside):.0%}"))
    columns = [f"{what}, {column}" for what in ("TPOT", "TTFT") for column in ("closed", "simulated", "fitted")]
    return markdown(("rows of", "rows", *columns, "inside"), lines)


def detail(scored: Sequence[Scored]) -> str:
    """Return a line of every row, in milliseconds; its labels are in served_systems.csv."""
    names = [f"{column}_{what}_ms" for column in ("closed", "simulated", "fitted") for what in ("tpot", "ttft")]
    lines = []
    for each in sorted(scored, key=lambda each: each.row.line):
        times = [each.row.tpot_s, each.row.ttft_s, *each.closed, *each.simulated, *(each.fitted or ("", ""))]
        marks = (int(each.row.tagged), int(each.full))
        lines.append((each.row.line, *marks, *(time if time == "" else f"{1e3 * time:.3g}" for time in times)))
    return comma_separated(("line", "tagged", "above_capacity", "tpot_ms", "ttft_ms", *names), lines)


def main() -> None:
    """Print or write the tables."""
    parser = options(PAGE, __doc__)
    parser.add_argument("--machine", nargs="*", help="only rows of these machines, such as h100-sxm")
    parser.add_argument("--seed", type=int, default=0, help="of the tenth that constants are fitted to")
    parser.add_argument("--detail", type=argparse.FileType("w"), help="a file to write a line of every row to")
    asked = parser.parse_args()
    every = [row for row in aggregated(sample()) if not isinstance(row, str)]
    scored, reasons = score([row for row in every if asked.machine is None or row.machine in asked.machine], asked.seed)
    for reason, count in reasons.items():
        print(f"{count} rows not simulated: {reason}")
    sections = {"simulated": table(scored)}
    if asked.detail:
        asked.detail.write(detail(scored))
    if asked.write:
        sections["served_simulated.csv"] = detail(scored)
    put(sections, PAGE, onto_page=asked.write)


if __name__ == "__main__":
    main()
