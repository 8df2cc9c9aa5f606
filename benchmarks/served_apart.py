"""Score closed forms of two pools on published disaggregated systems: workers that compute prompts, and others that decode.

Workers and degrees of both pools are those of the sweep that ran the row (``served_rows``); kernels are those of the row's own record.
Columns:

- *decode only*: TPOT is that of a decode step of all clients of a worker, as in ``served_systems``.
- *two pools*: ``serving_estimate`` with ``prefill=``: of a worker's clients some are in the other pool.
- *fitted*: the same with `sequence_s` and factors of the kernels of dense models and of mixtures for each engine and machine, fitted to a
  tenth of its rows, the others scored.

Usage: ``python benchmarks/served_apart.py`` prints the table, ``--write`` puts it into docs/estimates.md and docs/tables.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from pages import DOCS, comma_separated, markdown, number, options, put
from roofline import CalibrationRecord, InvalidValueError, serving_estimate
from served_fit import Parts, drawn, fit, measurement
from served_requests import NOTHING, Host
from served_rows import DENSE, DEV, Served, disaggregated, sample
from served_systems import DRAWN, ROUNDS, Records, deploy, predict, shown, tokens_of
from served_told import kind_of, profile_of

PAGE = DOCS / "estimates.md"
CHUNK = 8192


@dataclass(frozen=True, slots=True)
class Apart:
    """What was predicted of a disaggregated row [s]."""

    row: Served
    parts: Parts  # of the time per output token
    alone_s: float
    pools_s: float
    ttft_s: float
    fitted_s: float = float("nan")


def pools(rows: Sequence[Served], record: CalibrationRecord) -> tuple[np.ndarray, ...]:
    """Return time per output token, to the first one, of a decode step, and sequences in it, of rows of one configuration."""
    one = rows[0]
    workers, tensor, data, expert = one.prompts_by
    deployment = deploy(one)
    first = deployment.but(tensor_parallel=tensor, data_parallel=data, expert_parallel=1 if one.family in DENSE else expert)
    prompt, answer, clients, varied = np.array([(row.isl, row.osl, row.concurrency * row.workers, DRAWN * row.drawn) for row in rows]).T
    drafts = {"drafts": one.drafts, "acceptance": one.acceptance} if one.drafts else {}
    load = {"prompt": prompt, "output": answer, "concurrency": np.maximum(clients, 1.0), "prompt_cv": varied, "output_cv": varied}
    limits = {"step_tokens": CHUNK, "chunked": True, "admission": "prompt", "rounds": ROUNDS, "engine": one.engine}
    count = {"replicas": round(one.workers), "prefill_replicas": max(1, round(workers))}
    found = serving_estimate(deployment, **load, **limits, **count, **drafts, prefill=first, calibration=record)
    values = found.values()
    return values["tpot_s"], values["ttft_s"], values["step_s"], found.operation.point.batch


def score(rows: Sequence[Served], seed: int) -> tuple[list[Apart], Counter[str]]:
    """Return the scores of rows, and how many have none for which reason."""
    records, reasons = Records(None), Counter[str]()
    groups: dict[tuple[object, ...], list[Served]] = defaultdict(list)
    for row in rows:
        what = (row.machine, row.engine, row.model, row.weights, row.kv, row.tensor, row.data, row.expert, row.workers, row.prompts_by)
        groups[(*what, row.speculative == "mtp")].append(row)
    scored: list[Apart] = []
    for group in groups.values():
        record = records.of(group[0])
        kernels = record.model_copy(update={"overheads": {**record.overheads, "step_s": NOTHING}})
        try:
            tpot, ttft, *_ = pools(group, record)
            _, _, step, batch = pools(group, kernels)
            alone = predict(deploy(group[0]), record, group)
        except InvalidValueError as error:
            reasons[str(error)[:120]] += len(group)
            continue
        for index, row in enumerate(group):
            amounts = {"sequence_s": batch[index], "dense" if row.family in DENSE else "experts": step[index]}
            columns = np.array([amounts.get(name, 0.0) for name in Host.__slots__]) / tokens_of([row])
            parts = Parts(columns, np.full(len(columns), np.nan), row, 0.0)
            scored.append(Apart(row, parts, alone[index].tpot_s, float(tpot[index]), float(ttft[index])))
    return with_constants(scored, seed), reasons


def with_constants(scored: Sequence[Apart], seed: int) -> list[Apart]:
    """Return the rows with what constants say of those that they were not fitted to."""
    training = drawn((each.row for each in scored), seed)
    taught = defaultdict(list)
    for each in scored:
        if measurement(each.row) in training:
            taught[kind_of(each.row)].append(each.parts)
    profiles = {kind_of(each.row): Host.of(profile_of(each.row)) for each in scored}
    hosts = {kind: np.array(astuple(fit(taught[kind], profile, prior=0.8))) for kind, profile in profiles.items()}
    found = []
    for each in scored:
        held = measurement(each.row) not in training
        fitted = float(each.parts.tpot @ hosts[kind_of(each.row)]) if held else float("nan")
        found.append(Apart(each.row, each.parts, each.alone_s, each.pools_s, each.ttft_s, fitted))
    return found


def table(scored: Sequence[Apart], counted: set[int]) -> str:
    """Return the table of errors; `counted` are lines of which the sample itself says how many workers there were."""
    sorts = {
        "all": list(scored),
        "workers named in the sample": [each for each in scored if each.row.line in counted],
        "H100 and H200 (developed on)": [each for each in scored if each.row.machine in DEV],
        "other machines": [each for each in scored if each.row.machine not in DEV],
    }
    for name in (lambda each: f"`{each.row.engine}`", lambda each: f"`{each.row.machine}`", lambda each: f"drafts: {each.row.speculative}"):
        for value in sorted({name(each) for each in scored}):
            sorts[value] = [each for each in scored if name(each) == value]
    lines = []
    for what, rows in sorts.items():
        columns = [np.array([getattr(each, name) / each.row.tpot_s - 1 for each in rows]) for name in ("alone_s", "pools_s", "fitted_s")]
        columns.append(np.array([each.ttft_s / each.row.ttft_s - 1 for each in rows]))
        lines.append((what, number(len(rows)), *(shown(column[np.isfinite(column)]) for column in columns)))
    return markdown(("rows of", "rows", "TPOT, decode only", "TPOT, two pools", "TPOT, fitted", "TTFT, two pools"), lines)


def detail(scored: Sequence[Apart]) -> str:
    """Return a line of every row, in milliseconds."""
    lines = []
    for each in sorted(scored, key=lambda each: each.row.line):
        times = (each.row.tpot_s, each.row.ttft_s, each.alone_s, each.pools_s, each.ttft_s, each.fitted_s)
        lines.append((each.row.line, *(f"{1e3 * time:.3g}" if np.isfinite(time) else "" for time in times)))
    return comma_separated(("line", "tpot_ms", "ttft_ms", "decode_only_tpot_ms", "pools_tpot_ms", "pools_ttft_ms", "fitted_tpot_ms"), lines)


def main() -> None:
    """Print or write the table."""
    parser = options(PAGE, __doc__)
    parser.add_argument("--machine", nargs="*", help="only rows of these machines, such as h100-sxm")
    parser.add_argument("--seed", type=int, default=0, help="of the tenth that constants are fitted to")
    asked = parser.parse_args()
    rows = sample()
    counted = {int(row["line"]) for row in rows if row["decode_num_workers"]}
    every = [row for row in disaggregated(rows) if not isinstance(row, str)]
    scored, reasons = score([row for row in every if asked.machine is None or row.machine in asked.machine], asked.seed)
    for reason, count in reasons.items():
        print(f"{count} rows not scored: {reason}")
    sections = {"simulated apart": table(scored, counted)}
    if asked.write:
        sections["served_apart.csv"] = detail(scored)
    put(sections, PAGE, onto_page=asked.write)


if __name__ == "__main__":
    main()
