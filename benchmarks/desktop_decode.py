"""Hold generic estimates of decode against published measurements on machines that no record knows: GeForce, workstation, and Apple's GPUs.

The rows are in measurements/llama_cpp.csv: tokens per second of llama.cpp at batch 1, each with its source. A run of n generated tokens
starts from an empty context, so the estimate is of a context of n / 2; where a source names no length, 128 tokens are assumed. One constant is
fitted to them: what unpacking a weight of ggml's K-quants costs machines without matrix units, Apple's. Rows of one generation are judged with
what the others say.

Usage: ``python benchmarks/desktop_decode.py`` prints the tables; ``--write`` puts them into docs/estimates.md and docs/tables.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pages import DOCS, comma_separated, markdown, publish
from roofline import Format, Hardware, decode_estimate, load_record
from roofline.fitting.solve import SCALE
from roofline.records import CalibrationRecord, FittedConstant

PAGE = DOCS / "estimates.md"
ROWS = Path(__file__).parent / "measurements" / "llama_cpp.csv"
PLAIN = ("fp16", "bf16")
SEEN = ("h100", "a100")
"""Machines whose kernels the generic record was fitted to: their rows are shown and not judged."""


@dataclass(frozen=True, slots=True)
class Row:
    """One published measurement, and what the generic record says."""

    machine: str
    model: str
    weights: str
    generated: int
    measured_s: float
    floor_s: float
    estimate_s: float
    low_s: float
    high_s: float
    source: str

    @property
    def inside(self) -> bool:
        """Whether the interval holds the measured time."""
        return self.low_s <= self.measured_s <= self.high_s

    @property
    def group(self) -> str:
        """What kind of machine it is."""
        if self.machine.startswith(SEEN):
            return "H100 and A100 (not judged)"
        return "Apple" if self.machine.startswith("apple") else "GeForce, RTX and DGX Spark"


COSTS = tuple(float(c) for c in range(10, 62, 2))
"""FLOP of unpacking one weight that are tried."""


def with_cost(record: CalibrationRecord, flops: float) -> CalibrationRecord:
    """Return the record with what unpacking one weight costs."""
    return record.model_copy(update={"unpacking_flops": FittedConstant(value=flops, low=flops, high=flops, unit="FLOP")})


def lines() -> list[dict[str, str]]:
    """Return the published measurements."""
    with ROWS.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row(line: Mapping[str, str], record: CalibrationRecord) -> Row:
    """Return a measurement with its estimate."""
    count, weights = int(line["generated"]), line["weights"]
    machine = Hardware.load(line["machine"])
    options = {"batch": 1, "context": count // 2, "weights": weights, "kv": "fp16", "calibration": record}
    estimate = decode_estimate(line["model"], machine, **options)
    times = (1 / float(line["tokens_per_s"]), estimate.floor.time_s, estimate.time_s, estimate.low_s, estimate.high_s)
    return Row(line["machine"], line["model"], weights, count, *map(float, times), line["source"])


def unpacked(line: Mapping[str, str]) -> bool:
    """Return whether a machine without matrix units has to unpack the weights of a measurement."""
    return Format.load(line["weights"]).has_packed_scales and not Hardware.load(line["machine"]).compute.has_matrix_units


def generation(line: Mapping[str, str]) -> str:
    """Return the generation of an Apple machine, such as apple-m1."""
    return "-".join(line["machine"].split("-")[:2])


def losses(record: CalibrationRecord) -> dict[str, np.ndarray]:
    """Return for each generation how far off its rows are, together, with each of :data:`COSTS`: soft-L1, as fits have it."""
    found: dict[str, np.ndarray] = {}
    records = [with_cost(record, flops) for flops in COSTS]
    for line in filter(unpacked, lines()):
        off = np.array([np.log((made := row(line, r)).measured_s / made.estimate_s) for r in records])
        own = found.setdefault(generation(line), np.zeros(len(COSTS)))
        own += np.sqrt(1 + (off / SCALE) ** 2) - 1
    return found


def best(losses: Mapping[str, np.ndarray], without: str = "") -> float:
    """Return the cost that all generations but one agree on [FLOP]."""
    return COSTS[int(np.argmin(sum(loss for name, loss in losses.items() if name != without)))]


def unpacking(record: CalibrationRecord) -> FittedConstant:
    """Return what unpacking one weight costs machines without matrix units, from the least to the most with one generation left out."""
    found = losses(record)
    each = [best(found, without=name) for name in found]
    return FittedConstant(value=best(found), low=min(each), high=max(each), unit="FLOP")


def rows() -> list[Row]:
    """Return every row of the table with its estimate, that of machines that unpack weights by what other generations say."""
    record = load_record("generic")
    found = losses(record)
    others = {name: with_cost(record, best(found, without=name)) for name in found}
    return [row(line, others[generation(line)] if unpacked(line) else record) for line in lines()]


def summary(some: Sequence[Row]) -> tuple[object, ...]:
    """Return counts, ratios, and the share inside the interval."""
    over = np.array([r.estimate_s / r.measured_s for r in some])
    low, middle, high = np.percentile(over, (10, 50, 90))
    floors = np.median([r.measured_s / r.floor_s for r in some])
    inside = np.mean([r.inside for r in some])
    return len({r.machine for r in some}), len(some), f"{floors:.2f}", f"{middle:.2f}", f"{low:.2f} … {high:.2f}", f"{inside:.0%}"


def report() -> dict[str, str]:
    """Return the tables."""
    found = rows()
    judged = [r for r in found if not r.machine.startswith(SEEN)]
    groups = {name: [r for r in found if r.group == name] for name in sorted({r.group for r in found})}
    kinds = {"16-bit weights": [*PLAIN], "quantized weights": sorted({r.weights for r in judged} - {*PLAIN})}
    kept = {name: [r for r in judged if r.weights in formats] for name, formats in kinds.items()}
    lines = [(name, *summary(some)) for name, some in {**groups, **kept, "all that are judged": judged}.items()]
    head = ("rows", "machines", "count", "measured / floor", "estimate / measured, median", "10–90 %", "inside the 80 % interval")
    each = [
        (
            r.machine,
            r.model,
            r.weights,
            r.generated,
            *(f"{t * 1e3:.2f}" for t in (r.measured_s, r.floor_s, r.estimate_s, r.low_s, r.high_s)),
            r.inside,
            r.source,
        )
        for r in found
    ]
    names = "machine model weights generated measured_ms floor_ms estimate_ms low_ms high_ms inside source"
    return {"desktop": markdown(head, lines), "desktop_decode.csv": comma_separated(tuple(names.split()), each)}


def main() -> None:
    """Print or write the tables."""
    publish(report, PAGE, __doc__)


if __name__ == "__main__":
    main()
