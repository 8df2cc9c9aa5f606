"""Hold the floor against millions of measured kernels: none may be faster.

The measurements are the kernel tables of the wheel ``aiconfigurator-core`` (NVIDIA, Apache-2.0, Linux x86-64): matrix products,
attention and mixtures of experts of three serving engines on nine GPUs, replayed with fixed buffers, and their collectives
with NCCL's. A row faster than its floor is an error in the floor, in the machine's spec or in the table, and never smoothed
over: what is wrong with a table stands in `measured_defects`, with the evidence, and everything else must hold.

Usage: ``python benchmarks/measured_kernels.py`` prints the tables; ``--write`` puts them into docs/validation.md, and those by lane into docs/tables/.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from measured_defects import DEFECTS, Defect, defective
from measured_floors import EXPERTS, FAMILIES, MATMULS, lengths, sizes
from measured_tables import MACHINES, Lane, Table, select, tables
from pages import DOCS, comma_separated, markdown, number, publish

PAGE = DOCS / "validation.md"

LEAST_KV_BYTES = 100e6
"""Decode attention kernels below this are launch time and cache hits [B]."""

MORE = {
    "mla_generation_module": " module",
    "mla_context_module": " module",
    "wideep_generation_mla": " wide EP",
    "wideep_context_mla": " wide EP",
}
"""Tables whose rows hold projections besides the kernel, and what their labels say of it."""


@dataclass(slots=True)
class Checked:
    """What the rows of one label came to."""

    lane: Lane
    label: str
    ratios: np.ndarray
    """Floor over measured time of the rows that count [-]."""
    shapes: list[np.ndarray] = field(repr=False)
    bounds: np.ndarray = field(repr=False)
    naive: int
    """Rows faster than the bound without a cache, or than a ring: those that the plain figure gets wrong."""

    @property
    def below(self) -> int:
        """Rows faster than their floor."""
        return int((self.ratios > 1).sum())

    @property
    def tightest(self) -> float:
        """The largest ratio."""
        return float(self.ratios.max())

    @property
    def where(self) -> str:
        """Shape and roof of the tightest row."""
        i = int(self.ratios.argmax())
        return f"{FAMILIES[self.lane.family].form.format(*(int(s[i]) for s in self.shapes))}, {self.bounds[i]}"


def labelled(family: str, table: Table) -> np.ndarray:
    """Mark the rows that a family is about."""
    if family == "gemm":
        return np.isin(table["gemm_dtype"].astype(str), list(MATMULS))
    if family in ("all_reduce", "redistribution"):
        return (table["op_name"] == "all_reduce") == (family == "all_reduce")
    if family == "balanced_moe":
        return table["distribution"] == "balanced"
    if family == "moe" and (unknown := set(table["moe_dtype"]) - set(EXPERTS)):
        raise SystemExit(f"no format is known for experts labelled {unknown}")
    return np.ones(len(table["latency"]), bool)


def check(family: str, gpu: str) -> list[Checked]:
    """Check one family of kernels on one GPU, label by label."""
    found = []
    for lane, table in tables(family, gpu):
        found += check_lane(lane, select(table, labelled(family, table) & ~defective(lane, table)))
    return found


def skewed(gpu: str) -> list[Checked]:
    """Hold mixtures of experts with skewed routing against the floor of uniform routing, which is no bound for them."""
    found = []
    for lane, table in tables("moe", gpu):
        found += check_lane(lane, select(table, table["distribution"] != "balanced"), routing="uniform")
    return found


def check_lane(lane: Lane, table: Table, **meant: object) -> Iterator[Checked]:
    """Check the rows of one table, label by label; of decode attention only those that read much."""
    family, seconds = FAMILIES[lane.family], table["latency"] * 1e-3
    if not seconds.size:
        return
    floors = family.of(lane.gpu, table, **meant)
    counted = (floors.read >= LEAST_KV_BYTES) | (lane.family != "generation_attention")
    ratios, faster = floors.time / seconds, floors.naive > seconds
    if "step" in table:
        new, cached = lengths(table, decode=family.given["decode"])
        table = {**table, "new": new, "cached": cached}
    if "message_size" in table:
        table = {**table, "size": sizes(table)}
    labels = label_rows(lane, table, family.labels)
    for label in np.unique(labels[counted]).tolist():
        rows = counted & (labels == label)
        shapes = [table[name][rows] for name in family.shape]
        yield Checked(lane, label, ratios[rows], shapes, floors.bound[rows], int(faster[rows].sum()))


def label_rows(lane: Lane, table: Table, columns: Sequence[str]) -> np.ndarray:
    """Return the label of each row."""
    first, *rest = (table[name].astype(str) for name in columns)
    labels = first
    for column in rest:
        labels = np.char.add(np.char.add(labels, "/"), column)
    return np.char.add(np.char.replace(labels, "bfloat16", "bf16"), MORE.get(lane.table, ""))


def defect_ratios(defect: Defect, gpu: str) -> tuple[np.ndarray, np.ndarray]:
    """Return floor over measured time of a defect's rows, as labelled and as they were probably meant [-]."""
    labelled, meant = [], []
    for lane, table in tables(defect.family, gpu):
        rows = defect.rows(lane, table)
        if rows.any():
            some, family = select(table, rows), FAMILIES[defect.family]
            labelled.append(family.of(gpu, some).time / (some["latency"] * 1e-3))
            meant.append(family.of(gpu, some, **defect.meant).time / (some["latency"] * 1e-3))
    return np.concatenate(labelled), np.concatenate(meant)


# ---------------------------------------------------------------------------------------------------------------- report


def counts(results: list[Checked]) -> tuple[str, str, str]:
    """Return rows, rows below the floor, and rows below the naive bound."""
    return number(sum(r.ratios.size for r in results)), number(sum(r.below for r in results)), number(sum(r.naive for r in results))


def by_machine(results: list[Checked]) -> str:
    """Return one line per GPU."""
    rows = []
    for gpu, machine in MACHINES.items():
        mine = [r for r in results if r.lane.gpu == gpu]
        best = max(mine, key=lambda r: r.tightest)
        source = f"{best.lane.framework} {best.lane.version}, {best.label}: {best.where}"
        rows.append((f"`{machine}`", *counts(mine), f"{best.tightest:.3f}", source))
    rows.append(("all", *counts(results), f"{max(r.tightest for r in results):.3f}", ""))
    naive = FAMILIES[results[0].lane.family].naive
    return markdown(("machine", "rows", "below the floor", naive, "tightest", "which row, and its roof"), rows)


def by_ranks() -> str:
    """Return how near all-reduce comes to sending every byte once, by GPU and number of ranks, and to a ring."""
    rows = []
    for gpu, machine in MACHINES.items():
        results = check("all_reduce", gpu)
        ranks = np.concatenate([r.shapes[0] for r in results])
        ratios = np.concatenate([r.ratios for r in results])
        names = np.concatenate([np.full(r.ratios.size, f"{r.lane.framework} {r.lane.version}, {r.label}") for r in results])
        for t in np.unique(ranks).tolist():
            mine = ranks == t
            ring = ratios[mine] * 2 * (t - 1) / t
            best = int(ratios[mine].argmax())
            near = (f"{ratios[mine][best]:.3f}", f"{ring.max():.3f}", number(int((ring > 1).sum())), names[mine][best])
            rows.append((f"`{machine}`", t, number(ring.size), *near))
    return markdown(("machine", "ranks", "rows", "tightest", "its ring", "faster than a ring", "lane of the tightest"), rows)


def by_lane(results: list[Checked]) -> str:
    """Return one line per GPU, engine, version and label."""
    rows = []
    for r in results:
        engine = f"{r.lane.framework} {r.lane.version}"
        rows.append((MACHINES[r.lane.gpu], engine, r.label, r.ratios.size, r.below, f"{r.tightest:.3f}", r.where))
    return comma_separated(("machine", "engine", "label", "rows", "below the floor", "tightest", "its shape and roof"), rows)


def routing() -> str:
    """Return how many rows with skewed routing are faster than uniform routing would allow."""
    rows, total, faster = [], 0, 0
    for gpu, machine in MACHINES.items():
        ratios = np.concatenate([found.ratios for found in skewed(gpu)])
        below = int((ratios > 1).sum())
        rows.append((f"`{machine}`", number(ratios.size), number(below), f"{below / ratios.size:.1%}", f"{ratios.max():.3f}"))
        total, faster = total + ratios.size, faster + below
    rows.append(("all", number(total), number(faster), f"{faster / total:.1%}", ""))
    return markdown(("machine", "rows", "faster than uniform routing", "share", "largest ratio"), rows)


def defects() -> str:
    """Return the named defects with their evidence."""
    rows, texts = [], []
    for name, defect in DEFECTS.items():
        for gpu in defect.gpus:
            labelled, meant = defect_ratios(defect, gpu)
            below = number(int((labelled > 1).sum()))
            rows.append((f"`{name}`", f"`{MACHINES[gpu]}`", number(labelled.size), below, f"{labelled.max():.3f}", f"{meant.max():.3f}"))
        rows_of = ", ".join(f"`{column}` {value}" for column, value in defect.where.items())
        label = f"{defect.framework} {defect.version}, {FAMILIES[defect.family].title.lower()}, {rows_of}"
        read = ", ".join(f"{argument} {value}" for argument, value in defect.meant.items())
        texts.append(f"`{name}`\n: {label}; read instead as {read}.\n  {defect.evidence}")
    head = ("defect", "machine", "rows left out", "below the floor", "tightest", "tightest if read as below")
    return "\n\n".join((markdown(head, rows), *texts))


def report() -> dict[str, str]:
    """Return every generated section by name."""
    sections, lanes = {}, []
    for family in FAMILIES:
        results = [r for gpu in MACHINES for r in check(family, gpu)]
        sections[f"{family} by machine"], sections[f"{family}.csv"] = by_machine(results), by_lane(results)
        lanes.append(
            (f"{{download}}`{family}.csv <tables/{family}.csv>`", FAMILIES[family].title.lower(), len(results), *counts(results)[:2])
        )
    sections["lanes"] = markdown(("file", "kernels", "lanes", "rows", "below the floor"), lanes)
    return sections | {"routing": routing(), "all_reduce by ranks": by_ranks(), "defects": defects()}


def main() -> None:
    """Print or write the report."""
    publish(report, PAGE, __doc__)


if __name__ == "__main__":
    main()
