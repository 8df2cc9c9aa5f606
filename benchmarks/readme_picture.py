"""Draw the picture of README.md, docs/_static/batch.png: the three numbers of Llama-3.1-8B's decode steps on an H100.

Usage: ``python benchmarks/readme_picture.py``; the measured times are those of `on_gpu`.
"""

import json

import matplotlib.pyplot as plt

from on_gpu import MEASUREMENTS, MODEL
from pages import DOCS
from roofline import plot_batch

MACHINE, CONTEXT = "h100-sxm", 1024


def main() -> None:
    """Draw it."""
    rows = json.loads((MEASUREMENTS / MACHINE / "llama.json").read_text())["rows"]
    mine = [row for row in rows if row.get("context") == CONTEXT and row["launched"] == "graph"]
    measured = ([row["batch"] for row in mine], [row["median_s"] for row in mine])
    _, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
    plot_batch(MODEL, MACHINE, context=CONTEXT, estimate=True, measured=measured, ax=ax)
    plt.savefig(DOCS / "_static" / "batch.png", dpi=120)


if __name__ == "__main__":
    main()
