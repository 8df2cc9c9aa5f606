"""Judge the shipped calibration records by all measured kernels that they were not fitted to.

Usage: ``python benchmarks/estimate_accuracy.py`` prints the tables; ``--write`` puts them into docs/estimates.md and docs/tables/accuracy.csv. About two minutes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from fit_records import lanes
from measured_tables import MACHINES
from pages import DOCS, comma_separated, markdown, publish
from roofline import CalibrationRecord, Hardware, load_record
from roofline.engines import ENGINES
from roofline.estimate.constants import choose_each
from roofline.fitting.shapes import decode_rows
from roofline.fitting.tables import class_features, split_classes
from roofline.kernel_tables.table import KernelGroup
from roofline.kernels import FAMILIES
from roofline.records import list_records

PAGE = DOCS / "estimates.md"
ROWS = 250
"""Rows of a class that were fitted, of each table: the records' own."""

LARGE_CACHE, LONG_PROMPT = 100e6, 1024
"""Cache that a decode kernel reads [B], and tokens of a prompt: what lies below is mostly fixed time."""

WIDE = 1024
"""Outputs and inner dimension of products that are neither narrow nor shallow, at least."""

TARGETS = {
    ("matmul bf16", "h100_sxm"): 0.06,
    ("matmul bf16", "h200_sxm"): 0.06,
    ("matmul bf16", "a100_sxm"): 0.09,
    ("matmul fp8", "h100_sxm"): 0.12,
    ("matmul fp8", "h200_sxm"): 0.12,
}
"""Mean errors to stay below, by kind and GPU; those of :data:`EVERYWHERE`, and the medians, are marked wherever they are missed."""

EVERYWHERE = {"decode attention, 100 MB of cache and more": 0.15, "causal prefill attention, 1024 tokens and more": 0.15, "all-reduce": 0.2}
MEDIANS = {"experts, balanced": 0.15, "experts, power law": 0.15, "latent attention, decode": 0.15}


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows of one class in one table that no fit has seen."""

    gpu: str
    engine: str
    kind: str
    ratios: np.ndarray
    """Estimate over measured time [-]."""
    inside: np.ndarray
    """Whether the measured time lies in the 80 % interval."""

    @property
    def error(self) -> float:
        """Mean absolute error [-]."""
        return float(np.abs(self.ratios - 1).mean())

    @property
    def median(self) -> float:
        """Median absolute error [-]."""
        return float(np.median(np.abs(self.ratios - 1)))


def find_record(gpu: str, engine: str) -> CalibrationRecord | None:
    """Return the shipped record of an engine on a GPU."""
    found = [name for name in list_records() if name.startswith(f"{MACHINES[gpu]}-{engine}-")]
    return load_record(found[0]) if found else None


def parts(group: KernelGroup) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the kinds of kernels in a group as users speak of them, and the rows of each."""
    op, rows = group.op, np.ones(len(group), bool)
    if group.family == "attention":
        new = np.broadcast_to(group.sizes["new"], rows.shape)
        decode = new == 1
        large = np.broadcast_to(op.kv_read_bytes, rows.shape) >= LARGE_CACHE
        yield "decode attention, 100 MB of cache and more", decode & large
        yield "decode attention, less", decode & ~large
        long = np.broadcast_to(op.rows, rows.shape) >= LONG_PROMPT
        causal = not group.fixed["window"] and group.fixed["visible"] == "causal"
        yield "causal prefill attention, 1024 tokens and more", ~decode & long & causal
        yield "prefill attention, windowed or shorter", ~decode & ~(long & causal)
    elif group.family == "latent_attention":
        decode = np.broadcast_to(group.sizes["new"], rows.shape) == 1
        yield "latent attention, decode", decode
        yield "latent attention, prefill", ~decode
    elif group.family == "experts":
        yield ("experts, balanced" if group.origin["distribution"] == "balanced" else "experts, power law"), rows
    elif group.family == "matmul":
        name = f"matmul {group.stored if group.stored == group.operand else group.stored + ' in ' + group.operand}"
        wide = rows & (np.minimum(op.sizes["outputs"], op.sizes["inputs"]) >= WIDE)
        yield name, wide
        yield f"{name}, narrow or shallow", ~wide
    else:
        yield {"all_reduce": "all-reduce", "exchange": "all-to-all"}.get(group.family, group.family), rows


def judge(gpu: str, engine: str) -> Iterator[Judged]:
    """Yield every kind of kernels of an engine on a GPU."""
    record, hardware = find_record(gpu, engine), Hardware.load(MACHINES[gpu])
    if record is None:
        return
    fitted = {(c.family, c.stored, c.operand) for c in record.classes if not c.static_scales}
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for key, (_, groups) in split_classes([table for _, table in lanes(gpu, engine)], hardware, rows_per_table=ROWS).items():
        if key in fitted:
            for group in groups:
                ratios, inside = compare(group, record, hardware)
                for kind, rows in parts(group):
                    if rows.any():
                        found.setdefault(kind, []).append((ratios[rows], inside[rows]))
    for kind, pieces in found.items():
        yield Judged(gpu, engine, kind, *(np.concatenate(column) for column in zip(*pieces, strict=True)))


def compare(group: KernelGroup, record: CalibrationRecord, hardware: Hardware) -> tuple[np.ndarray, np.ndarray]:
    """Return estimate over measured time of every row, and whether its interval holds the measured one, by kind of step."""
    family, decode = FAMILIES[group.family], decode_rows([group])
    ratios, inside = np.empty(decode.size), np.empty(decode.size, bool)
    for kind, rows in (("decode", decode), ("prefill", ~decode)):
        if rows.any():
            some = group.take(np.flatnonzero(rows))
            chosen = choose_each(family, some.op, some.seconds.shape, record, hardware, steps=frozenset({kind}))
            rates = {"peak_flops_per_s": chosen.peak_flops_per_s, "bandwidth": chosen.bandwidth}
            features = {name: column.reshape(len(chosen.generic), -1) for name, column in class_features(family, [some]).items()}
            times = family.seconds(features, chosen.constants, **rates)
            ratios[rows] = times.ravel() / some.seconds
            residuals = chosen.residuals(family, features)
            low, high = (np.broadcast_to(residuals.at(level), times.shape).ravel() for level in (0.1, 0.9))
            inside[rows] = (-np.log(ratios[rows]) >= low) & (-np.log(ratios[rows]) <= high)
    return ratios, inside


@cache
def judged() -> tuple[Judged, ...]:
    """Return every kind of kernels of every engine on every GPU."""
    return tuple(found for gpu in MACHINES for engine in ENGINES for found in judge(gpu, engine))


def together(gpu: str, kind: str, engines: tuple[str, ...]) -> Judged | None:
    """Return one kind of kernels of several engines on a GPU in one."""
    mine = [j for j in judged() if j.gpu == gpu and j.kind == kind and j.engine in engines]
    if not mine:
        return None
    return Judged(
        gpu, "+".join(j.engine for j in mine), kind, *(np.concatenate([getattr(j, f) for j in mine]) for f in ("ratios", "inside"))
    )


def by_gpu() -> str:
    """Return the error of every kind on every GPU: vLLM and TensorRT-LLM together, as a mean; a median where the target is one."""
    kinds = [*dict.fromkeys(kind for kind, _ in TARGETS), "matmul nvfp4 in fp4", *EVERYWHERE, *MEDIANS]
    rows = []
    for kind in kinds:
        cells = [kind + (" (median)" if kind in MEDIANS else "")]
        for gpu in MACHINES:
            found = together(gpu, kind, ("vllm", "trtllm"))
            if found is None:
                cells.append("–")
                continue
            error = found.median if kind in MEDIANS else found.error
            target = TARGETS.get((kind, gpu), {**EVERYWHERE, **MEDIANS}.get(kind))
            cells.append(f"{error:.1%}" + ("" if target is None or error <= target else f" > {target:.0%}"))
        rows.append(tuple(cells))
    covered = ["inside the 80 % interval"]
    for gpu in MACHINES:
        mine = [j.inside for j in judged() if j.gpu == gpu]
        covered.append(f"{np.concatenate(mine).mean():.0%}")
    return markdown(("kernels", *(f"`{machine}`" for machine in MACHINES.values())), [*rows, tuple(covered)])


def by_record() -> str:
    """Return one line per GPU, engine and kind."""
    rows = []
    for j in judged():
        name = (find_record(j.gpu, j.engine) or load_record("generic")).id
        rows.append((name, j.kind, j.ratios.size, f"{j.error:.3f}", f"{j.median:.3f}", f"{j.inside.mean():.2f}"))
    return comma_separated(("record", "kernels", "rows not fitted", "mean error", "median error", "share inside the 80 % interval"), rows)


def report() -> dict[str, str]:
    """Return both tables."""
    return {"accuracy by gpu": by_gpu(), "accuracy.csv": by_record()}


def main() -> None:
    """Print or write the report."""
    publish(report, PAGE, __doc__)


if __name__ == "__main__":
    main()
