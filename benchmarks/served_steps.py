"""Hold estimates of decode steps against served systems: the time per output token that clients saw at low concurrency.

The table ``silicon_sample.csv`` of the wheel ``aiconfigurator-core`` has 5,221 measurements of whole serving systems. Here are those of
dense models whose engine and GPU have a shipped record, aggregated, at no more than eight clients: there a token's time is nearly one decode
step. What the table does not say is assumed: a cache in fp8 where TensorRT-LLM serves quantized weights, else in bf16, and the middle of
the answer as context.

Usage: ``python benchmarks/served_steps.py`` prints the table; ``--write`` puts it into docs/estimates.md.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from measured_tables import MACHINES, data_folder
from pages import DOCS, markdown, publish
from roofline import decode_estimate, list_records

PAGE = DOCS / "estimates.md"
MODELS = {"Llama-3.1-70B": "llama-3.1-70b", "Llama-3.1-8B": "llama-3.1-8b", "Qwen3-32B": "qwen3-32b"}
WEIGHTS = {"bf16": "bf16", "": "bf16", "fp8": "fp8", "fp4": "nvfp4", "nvfp4": "nvfp4"}
CLIENTS = 8

Served = tuple[str, str, str, str]


def rows() -> Iterator[tuple[Served, float, bool]]:
    """Yield what was served (machine, record, model, weights), estimate of a step over time per output token [-], and whether that
    time lies in the estimate's 80 % interval.
    """
    data = data_folder()
    if data is None:
        raise SystemExit("pip install aiconfigurator-core==0.12.0 (Linux x86-64) for the served systems")
    records = list_records()
    with (data.parent / "silicon_sample.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            model = next((ours for theirs, ours in MODELS.items() if theirs in row["model_path"]), None)
            machine = MACHINES.get(row["system"])
            found = [name for name in records if name.startswith(f"{machine}-{row['backend']}-")]
            weights = WEIGHTS.get(row["gemm_quant_mode"] or row["precision"])
            clients = re.search(r"silicon_concurrency=(\d+)", row["silicon_data_source"])
            if model is None or not found or weights is None or clients is None or row["mode"] != "agg" or int(clients[1]) > CLIENTS:
                continue
            kv = "fp8" if row["backend"] == "trtllm" and weights != "bf16" else "bf16"
            estimate = decode_estimate(
                model,
                machine,
                batch=int(clients[1]),
                context=int(float(row["isl"])) + int(float(row["osl"])) // 2,
                tensor_parallel=int(float(row["tp_size"])),
                weights=weights,
                kv=kv,
                calibration=found[0],
            )
            measured = float(row["silicon_tpot_ms"]) * 1e-3
            yield (str(machine), found[0], model, weights), estimate.time_s / measured, bool(estimate.low_s <= measured <= estimate.high_s)


def report() -> str:
    """Return the table."""
    groups: dict[Served, list[tuple[float, bool]]] = defaultdict(list)
    for served, ratio, inside in rows():
        groups[served].append((ratio, inside))
    lines = []
    for (machine, record, model, weights), found in sorted(groups.items()):
        ratios, inside = np.array(found).T
        low, middle, high = np.percentile(ratios, (10, 50, 90))
        spread = f"{low:.2f} … {high:.2f}"
        lines.append((f"`{machine}`", f"`{record}`", model, weights, len(ratios), f"{middle:.2f}", spread, f"{inside.mean():.0%}"))
    every = [inside for found in groups.values() for _, inside in found]
    lines.append(("all", "", "", "", len(every), "", "", f"{np.mean(every):.0%}"))
    head = ("machine", "record", "model", "weights", "rows", "estimate / measured, median", "10–90 %", "inside the 80 % interval")
    return markdown(head, lines)


def main() -> None:
    """Print or write the table."""
    publish(lambda: {"served": report()}, PAGE, __doc__)


if __name__ == "__main__":
    main()
