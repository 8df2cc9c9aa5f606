"""Fit one set of constants for all machines to the kernel tables of every GPU and engine, and measure how wrong it is on each.

The set is the record ``generic``: shares of a machine's own peaks, and times. Its interval is that of machines it has not seen: every
GPU is left out once, the rest is fitted, and the GPU left out is judged. All-reduces of machines whose devices reach each other over host links are a
class of their own; the tables have one such machine, so that there an engine is left out, and the interval is at least that of other links. What unpacking a weight of ggml's K-quants costs a machine without matrix units is fitted
to published rates of Apple's (`desktop_decode`).

Usage: ``python benchmarks/fit_generic.py`` prints; ``--write`` writes hardware_specs/measured/generic.json and the table of
docs/estimates.md.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from desktop_decode import unpacking
from fit_records import FOLDER, lanes
from measured_tables import MACHINES, tables
from pages import DOCS, markdown, write
from roofline import Hardware
from roofline.engines import ENGINES
from roofline.estimate.constants import HOST, wider_residuals
from roofline.fitting.selection import residual_fields
from roofline.fitting.shapes import decode_rows
from roofline.fitting.solve import fit_family
from roofline.fitting.tables import class_features, group_rates, split_classes
from roofline.kernels import FAMILIES
from roofline.records import CalibrationRecord, Environment, FittedConstant, KernelClass, Rates, save_record

PAGE = DOCS / "estimates.md"
Kind = tuple[str, str, str]  # family, operand format, and over which links: empty for scale-up links and for what needs none
ROWS = 60
"""Rows of a class from each table: every GPU and engine counts alike."""


@dataclass(slots=True)
class Pool:
    """Points of one class on all GPUs."""

    gpus: list[str] = field(default_factory=list)
    features: list[Mapping[str, np.ndarray]] = field(default_factory=list)
    seconds: list[np.ndarray] = field(default_factory=list)
    rates: list[tuple[float, np.ndarray]] = field(default_factory=list)
    decode: list[np.ndarray] = field(default_factory=list)

    def add(
        self, gpu: str, features: Mapping[str, np.ndarray], seconds: np.ndarray, rates: tuple[float, np.ndarray], decode: np.ndarray
    ) -> None:
        """Add the points of one table."""
        columns = (self.gpus, gpu), (self.features, features), (self.seconds, seconds), (self.rates, rates), (self.decode, decode)
        for column, value in columns:
            column.append(value)

    def columns(self, wanted: list[bool]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        """Return features, times, peaks and bandwidths of some of the tables."""
        some = [i for i, w in enumerate(wanted) if w]
        x = {name: np.concatenate([self.features[i][name] for i in some]) for name in self.features[0]}
        peak, bandwidth = (np.concatenate([np.full(self.seconds[i].size, self.rates[i][j]) for i in some]) for j in (0, 1))
        return x, np.concatenate([self.seconds[i] for i in some]), peak, bandwidth


def gather() -> dict[Kind, Pool]:
    """Return points by family, operand format and links; where a format is stored in several ways, all of them."""
    pools: dict[Kind, Pool] = {}
    for gpu, machine in MACHINES.items():
        hardware = Hardware.load(machine)
        host = hardware.scale_up is None
        for engine in ENGINES:
            found = [table for _, table in lanes(gpu, engine)]
            for (family, _, operand), (groups, _) in split_classes(found, hardware, rows_per_table=ROWS).items():
                x, t = class_features(FAMILIES[family], groups), np.concatenate([group.seconds for group in groups])
                peak, bandwidth = group_rates(FAMILIES[family], operand, groups, hardware)
                rates = peak, np.broadcast_to(bandwidth, t.shape)
                decode = decode_rows(groups)
                links = HOST if host and family == "all_reduce" else ""
                pools.setdefault((family, operand, links), Pool()).add(f"{gpu} {engine}" if links else gpu, x, t, rates, decode)
                if family == "exchange" and np.any(pair := x["ranks"] == 2):
                    sent = {"bytes": x["bytes"][pair]}  # between two ranks an exchange is one message each way
                    pools.setdefault(("send", operand, ""), Pool()).add(gpu, sent, t[pair], (peak, rates[1][pair]), decode[pair])
    return pools


def fit(pool: Pool, family: str, wanted: list[bool]) -> dict[str, tuple[float, float, float]]:
    """Return constants found from some of the tables."""
    x, t, peak, bandwidth = pool.columns(wanted)
    return dict(fit_family(FAMILIES[family].of_any_machine(), x, t, peak_flops_per_s=peak, bandwidth=bandwidth).constants)


def unseen(pool: Pool, family: str) -> dict[str, np.ndarray]:
    """Return log(measured / fitted) of every GPU by constants of all others."""
    found = {}
    for gpu in dict.fromkeys(pool.gpus):
        others = [g != gpu for g in pool.gpus]
        if not any(others):
            continue
        values = {name: value for name, (value, _, _) in fit(pool, family, others).items()}
        x, t, peak, bandwidth = pool.columns([g == gpu for g in pool.gpus])
        found[gpu] = np.log(t / FAMILIES[family].of_any_machine().seconds(x, values, peak_flops_per_s=peak, bandwidth=bandwidth))
    return found


def wider(fields: Mapping[str, Any], other: KernelClass) -> dict[str, Any]:
    """Return the residuals of a class of one GPU, at least as wide as those of another; its own by kinds and sizes are too few."""
    return {"residual_quantiles": wider_residuals(fields["residual_quantiles"], other.residual_quantiles), "error": fields["error"]}


def note_of(rows: int, gpus: int, links: str) -> str:
    """Return what a class was fitted to."""
    if links:
        return f"fitted to {rows} rows of one GPU, and no other checks it; the residuals are at least those of other links"
    return f"fitted to {rows} rows of {gpus} GPUs; the error and the residuals are those of GPUs left out of the fit"


def launch() -> FittedConstant:
    """Return what an engine's host needs to launch one kernel: its smallest all-reduces without a CUDA graph."""
    times = []
    for gpu in MACHINES:
        for lane, table in tables("all_reduce", gpu):
            if lane.table == "custom_allreduce":
                eager = np.char.endswith(table["kernel_source"].astype(str), "eager")
                for ranks in np.unique(table["num_gpus"][eager]).tolist():
                    rows = np.flatnonzero(eager & (table["num_gpus"] == ranks))
                    smallest = rows[np.argsort(table["message_size"][rows])[:3]]
                    times.append(float(np.median(table["latency"][smallest])) * 1e-3)
    low, middle, high = np.percentile(times, (10, 50, 90)).tolist()
    return FittedConstant(value=middle, low=low, high=high, unit="s")


STEP = FittedConstant(value=3e-4, low=2e-4, high=1e-3, unit="s")
"""Host and sampling per step: 0.3 ms for one set of three engines, 0.2 … 1.0 ms for single ones, fitted to 3,564 served
configurations of the wheel's silicon_sample.csv [s]."""


def build() -> tuple[CalibrationRecord, str]:
    """Return the record, and the table of its errors on GPUs that it has not seen."""
    classes: list[KernelClass] = []
    rows = []
    for (family, operand, links), pool in sorted(gather().items()):
        left_out = unseen(pool, family)
        if len(left_out) < 2:
            continue
        rest = np.concatenate(list(left_out.values()))
        every = pool.columns([True] * len(pool.gpus))[0]  # GPU by GPU, as the residuals are
        fields = residual_fields(FAMILIES[family], every, rest, np.concatenate(pool.decode))
        fields["error"] = float(np.mean([np.mean(np.abs(np.expm1(-r))) for r in left_out.values()]))
        fields = wider(fields, next(c for c in classes if c.family == family)) if links else fields
        errors = {gpu: float(np.median(np.abs(np.expm1(-r)))) for gpu, r in left_out.items()}
        units = {c.name: c.unit for c in FAMILIES[family].constants}
        constants = fit(pool, family, [True] * len(pool.gpus))
        classes.append(
            KernelClass(
                family=family,
                stored="",
                operand=operand,
                fixed_sizes={"links": links} if links else {},
                constants={n: FittedConstant(value=v, low=low, high=high, unit=units[n]) for n, (v, low, high) in constants.items()},
                **fields,
                note=note_of(rest.size, len(left_out), links),
            )
        )
        low, high = np.exp(np.percentile(rest, (10, 90)))
        worst = max(errors, key=errors.__getitem__)
        what = f"{family}{'' if FAMILIES[family].roof == 'link' else f', {operand}'}{' over host links' if links else ''}"
        middle = float(np.median(list(errors.values())))
        gpu, _, engine = worst.partition(" ")
        which = f"`{MACHINES[gpu]}`{f', {engine}' if engine else ''}"
        rows.append((what, 1 if links else len(left_out), f"{middle:.1%}", f"{errors[worst]:.1%} ({which})", f"{low:.2f} … {high:.2f}"))
    record = CalibrationRecord(
        id="generic",
        date="2026-11-22",
        source=(
            "kernel tables of vLLM, TensorRT-LLM and SGLang on nine GPUs in aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0, on PyPI); fitted by "
            "benchmarks/fit_generic.py"
        ),
        environment=Environment(device="any"),
        rates=Rates(origin="fraction"),
        classes=tuple(classes),
        overheads={"launch_s": launch(), "step_s": STEP},
        plan=f"{ROWS} rows of a class from each table, every GPU left out once",
    )
    record = record.model_copy(update={"unpacking_flops": unpacking(record)})
    head = ("kernels", "GPUs", "median error, GPU left out", "worst GPU", "measured / estimate, 10–90 %")
    return record, markdown(head, rows)


def main() -> None:
    """Fit, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write the record, and its table into docs/{PAGE.name}")
    arguments = parser.parse_args()
    record, table = build()
    if arguments.write:
        save_record(record, FOLDER / "generic.json")
        write({"generic": table}, PAGE)
    else:
        print(table)


if __name__ == "__main__":
    main()
