"""Hold generic estimates of decode against published measurements on machines that no record knows: GeForce, workstation, and Apple's GPUs.

The rows are in measurements/llama_cpp.csv: tokens per second of llama.cpp at batch 1, each with its source. A run of n generated tokens
starts from an empty context, so the estimate is of a context of n / 2; where a source names no length, 128 tokens are assumed. Nothing was
fitted to these rows.

Usage: ``python benchmarks/desktop_decode.py`` prints the tables; ``--write`` puts them into docs/estimates.md and docs/tables.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pages import DOCS, comma_separated, markdown, publish
from roofline import Hardware, decode_estimate

PAGE = DOCS / "estimates.md"
ROWS = Path(__file__).parent / "measurements" / "llama_cpp.csv"
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


def rows(path: Path = ROWS) -> list[Row]:
    """Return every row of the table with its estimate."""
    found = []
    with path.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            count = int(line["generated"])
            estimate = decode_estimate(
                line["model"],
                Hardware.load(line["machine"]),
                batch=1,
                context=count // 2,
                weights=line["weights"],
                kv="fp16",
                calibration="generic",
            )
            times = (1 / float(line["tokens_per_s"]), estimate.floor.time_s, estimate.time_s, estimate.low_s, estimate.high_s)
            found.append(Row(line["machine"], line["model"], line["weights"], count, *map(float, times), line["source"]))
    return found


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
    kinds = {"16-bit weights": ["fp16", "bf16"], "quantized weights": sorted({r.weights for r in judged} - {"fp16", "bf16"})}
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
