"""Run benchmarks/test_speed.py and write the table of docs/performance.md: ``python benchmarks/write_performance.py``."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import pydantic

from pages import DOCS, write

HERE = Path(__file__).parent
PAGE = DOCS / "performance.md"


def run() -> dict:
    """Return what pytest-benchmark reports."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "speed.json")
        # the table has the benchmarks' own times, taken in turn with a reference
        short = ["--benchmark-max-time=0.1", "--benchmark-min-rounds=1"]
        command = [sys.executable, "-m", "pytest", HERE / "test_speed.py", "--quiet", *short, f"--benchmark-json={report}"]
        subprocess.run(command, check=True, cwd=HERE.parent)
        return json.loads(report.read_text())


def show_time(seconds: float) -> str:
    """Return a time with three digits."""
    scale, unit = next((s, u) for s, u in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")) if seconds >= s or u == "µs")
    return f"{seconds / scale:.3g} {unit}"


def row(info: dict) -> str:
    """Return one line of the table."""
    rate = f"{info['points_per_s'] / 1e6:.3g} million points/s" if info.get("points_per_s") else ""
    cost = f"{info['megabytes']:.3g} MB" if "megabytes" in info else show_time(info["seconds"])
    cells = (info["what"], cost, rate, f"{info['ratio']:.3g} ×", info["against"], info["target"])
    return "| " + " | ".join(cells) + " |"


def table(report: dict) -> str:
    """Return the table and what it was taken on."""
    machine = f"{os.cpu_count()} cores of an {platform.machine()} virtual machine, Python {platform.python_version()}"
    lines = [
        f"Taken on {machine}, NumPy {numpy.__version__}, pydantic {pydantic.VERSION}; the best of several rounds.",
        "",
        "| what | time or memory | rate | ratio | to | target |",
        "| --- | --- | --- | --- | --- | --- |",
        *(row(benchmark["extra_info"]) for benchmark in report["benchmarks"]),
    ]
    return "\n".join(lines)


def main() -> None:
    """Replace the part of the page between the marks."""
    write({"speed": table(run())}, PAGE)


if __name__ == "__main__":
    main()
