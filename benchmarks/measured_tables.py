"""Where the measured kernels and collectives are: the tables of the wheel ``aiconfigurator-core``, column by column."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

WHEEL = "aiconfigurator_core"

MACHINES = {
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "a100_sxm": "a100-sxm-80gb",
    "b200_sxm": "b200-sxm",
    "b300_sxm": "b300-sxm",
    "gb200": "gb200",
    "gb300": "gb300",
    "l40s": "l40s",
    "rtx_pro_6000_server": "rtx-pro-6000-blackwell-server",
}
"""Folder of the wheel → machine. Intel's B60 has tables too, but no spec here."""

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
}
"""Family → folder, and the tables in it. Left out: ``wideep_moe``, ``wideep_context_moe`` and ``wideep_generation_moe``,
where the work of the rank measured depends on dispatch and on replicas of experts that the tables do not spell out. The
all-to-all of experts, ``wideep_deepep_*`` and ``moe_a2a``, is not held against a floor yet."""

RENAMED = {"nccl_dtype": "dtype", "allreduce_dtype": "dtype"}
"""Columns that mean the same in tables of one family."""

Table = Mapping[str, np.ndarray]


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
            read = parquet.read_table(path)
            columns = {RENAMED.get(column, column): np.asarray(read[column].to_numpy()) for column in read.column_names}
            columns.setdefault("window_size", np.zeros(read.num_rows, int))
            yield Lane(family, name, gpu, *path.parts[-3:-1]), columns


def select(table: Table, rows: np.ndarray) -> Table:
    """Return some rows of a table."""
    return {name: column[rows] for name, column in table.items()}


def kinds(table: Table, *names: str) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield each combination of values that some columns have, and the places of its rows."""
    code = np.zeros(len(table["latency"]), dtype=int)
    for name in names:
        values, codes = np.unique(table[name], return_inverse=True)
        code = code * len(values) + codes.ravel()
    order = np.argsort(code, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        if rows.size:
            yield {name: getattr(value := table[name][rows[0]], "item", lambda value=value: value)() for name in names}, rows
