"""Hold the estimate of one layer against the sum of the measured kernels of the same operators.

Llama-3-70B in bf16 on H100 SXM, decode, by vLLM's tables: fused query-key-value, attention, output, fused gate and up, down, and two
all-reduces where there are several devices. Shapes that stand between two rows of a table are interpolated on logarithms; so is
the one beyond, attention of 64 sequences of 8,192 tokens with all 64 heads, of which the table ends at 4,096.

Usage: ``python benchmarks/sum_check.py`` prints the table; ``--write`` puts it into docs/estimates.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fit_records import version_key
from measured_tables import Table, tables
from pages import DOCS, markdown, publish
from roofline import decode_estimate
from roofline.kernel_tables.aiconfigurator.layout import message_bytes

PAGE = DOCS / "estimates.md"
GPU, MODEL, RECORD = "h100_sxm", "llama-3-70b", "h100-sxm-vllm-0.24.0"
HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM = 8192, 28672, 64, 8, 128
DEGREES, BATCHES, CONTEXTS = (1, 2, 4, 8), (1, 8, 64), (1024, 8192)
"""Contexts count the new token, as the tables of decode attention do."""


def newest(family: str, name: str) -> Table:
    """Return vLLM's newest table of that name."""
    found = [(lane, table) for lane, table in tables(family, GPU) if (lane.framework, lane.table) == ("vllm", name)]
    return max(found, key=lambda pair: version_key(pair[0].version))[1]


def interpolate(table: Table, where: dict[str, object], wanted: dict[str, float]) -> float:
    """Return the time of a kernel from the rows that agree in `where`, interpolated on logarithms, one size after another [s]."""
    rows = np.logical_and.reduce([table[name] == value for name, value in where.items()])
    name, *rest = wanted
    at = wanted[name]
    values = np.unique(table[name][rows])
    if values.size < 2 or at < values[0]:
        raise SystemExit(f"no measured kernels around {name} {at} with {where}")
    above = min(int(np.searchsorted(values, at)), values.size - 1)
    low, high = (at, at) if at in values else (values[above - 1], values[above])  # beyond the last, the last two go on
    times = []
    for value in dict.fromkeys((low, high)):
        inner = {**where, name: value}
        if rest:
            times.append(interpolate(table, inner, {n: wanted[n] for n in rest}))
        else:
            times.append(float(np.median(table["latency"][rows & (table[name] == value)])) * 1e-3)
    if len(times) == 1:
        return times[0]
    share = np.log(at / low) / np.log(high / low)
    return float(np.exp(np.log(times[0]) * (1 - share) + np.log(times[1]) * share))


@dataclass(frozen=True, slots=True)
class Case:
    """One layer of one step, measured and estimated."""

    tensor_parallel: int
    batch: int
    context: int
    measured_s: float
    estimate_s: float

    @property
    def error(self) -> float:
        """How far the estimate is from the sum [-]."""
        return self.estimate_s / self.measured_s - 1


def measured(tp: int, batch: int, context: int) -> float:
    """Return the sum of the measured kernels of one layer [s]."""
    gemm, attention = newest("gemm", "gemm"), newest("generation_attention", "generation_attention")
    products = (
        ((HEADS + 2 * KV_HEADS) * HEAD_DIM // tp, HIDDEN),
        (HIDDEN, HEADS * HEAD_DIM // tp),
        (2 * INTERMEDIATE // tp, HIDDEN),
        (HIDDEN, INTERMEDIATE // tp),
    )
    total = sum(interpolate(gemm, {"gemm_dtype": "bfloat16"}, {"m": batch, "n": n, "k": k}) for n, k in products)
    attention = {**attention, "length": attention["isl"] + attention["step"]}
    shape = {
        "num_heads": HEADS // tp,
        "num_key_value_heads": KV_HEADS // tp,
        "head_dim": HEAD_DIM,
        "window_size": 0,
        "attn_dtype": "bfloat16",
        "kv_cache_dtype": "bfloat16",
    }
    total += interpolate(attention, shape, {"batch_size": batch, "length": context})
    if tp > 1:
        reduce = newest("all_reduce", "custom_allreduce")
        reduce = {**reduce, "bytes": message_bytes(reduce)}
        where = {"num_gpus": tp, "kernel_source": "vLLM_custom_graph"}
        total += 2 * interpolate(reduce, where, {"bytes": batch * HIDDEN * 2})
    return total


def estimated(tp: int, batch: int, context: int) -> float:
    """Return the estimate of the same operators of one layer [s]."""
    estimate = decode_estimate(MODEL, "h100-sxm", batch=batch, context=context - 1, tensor_parallel=tp, calibration=RECORD)
    layers = 80
    rows = [row for row in estimate.by_op() if row.family in ("matmul", "attention", "all_reduce") and row.count == layers]
    return sum(row.time_s for row in rows) / layers


def cases() -> Iterator[Case]:
    """Yield every case."""
    for tp in DEGREES:
        for batch in BATCHES:
            for context in CONTEXTS:
                yield Case(tp, batch, context, measured(tp, batch, context), estimated(tp, batch, context))


def report() -> str:
    """Return the table."""
    rows = [
        (c.tensor_parallel, c.batch, c.context, f"{c.measured_s * 1e6:.1f} µs", f"{c.estimate_s * 1e6:.1f} µs", f"{c.error:+.1%}")
        for c in cases()
    ]
    return markdown(("tensor parallel", "batch", "context", "sum of measured kernels", "estimate", "difference"), rows)


def main() -> None:
    """Print or write the table."""
    publish(lambda: {"sum check": report()}, PAGE, __doc__)


if __name__ == "__main__":
    main()
