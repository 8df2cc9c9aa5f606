"""Where the measured kernels and collectives are: the tables of the wheel ``aiconfigurator-core``, family by family."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from roofline.kernel_tables.aiconfigurator.layout import MACHINES
from roofline.kernel_tables.columns import Columns as Table
from roofline.kernel_tables.columns import read_parquet, select

__all__ = ["MACHINES", "TABLES", "Lane", "Table", "data_folder", "select", "tables"]

WHEEL = "aiconfigurator_core"

TABLES = {
    "gemm": ("gemm", "gemm"),
    "generation_attention": ("attention", "generation_attention"),
    "context_attention": ("attention", "context_attention"),
    "moe": ("moe", "moe"),
    "balanced_moe": ("moe", "moe"),
    "generation_mla": ("mla", "generation_mla", "mla_generation_module", "wideep_generation_mla"),
    "context_mla": ("mla", "context_mla", "mla_context_module", "wideep_context_mla"),
    "all_reduce": ("comm", "nccl", "custom_allreduce"),
    "redistribution": ("comm", "nccl"),
    "dispatch": ("comm", "trtllm_alltoall", "wideep_deepep_ll"),
    "rowwise": ("quantize", "scale_matrix"),
    "computescale": ("quantize", "computescale"),
    "state": ("*", "gdn", "kda"),
}
"""Family → folder, ``*`` for any, and the tables in it, of those that :data:`roofline.kernel_tables.aiconfigurator.layout.LAYOUTS` reads, and
``computescale``, which is part of a kernel."""

RENAMED = {"nccl_dtype": "dtype", "allreduce_dtype": "dtype"}
"""Columns that mean the same in tables of one family."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Where a table comes from."""

    family: str
    table: str
    gpu: str
    framework: str
    version: str


def data_folder() -> Path | None:
    """Return the folder of the kernel tables, or None if the wheel is not installed."""
    spec = find_spec(WHEEL)
    return Path(spec.submodule_search_locations[0], "systems", "data") if spec and spec.submodule_search_locations else None


def tables(family: str, gpu: str) -> Iterator[tuple[Lane, Table]]:
    """Yield every table of a family on a GPU as columns."""
    data = data_folder()
    if data is None:
        raise SystemExit("pip install aiconfigurator-core==0.12.0 (Linux x86-64) for the measured kernels")
    folder, *names = TABLES[family]
    for name in names:
        for path in sorted(data.glob(f"{gpu}/{folder}/*/*/{name}_perf.parquet")):
            columns = {RENAMED.get(name, name): column for name, column in read_parquet(path).items()}
            columns.setdefault("window_size", np.zeros(len(next(iter(columns.values()))), int))
            yield Lane(family, name, gpu, *path.parts[-3:-1]), columns
