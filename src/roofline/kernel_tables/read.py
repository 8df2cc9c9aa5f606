"""Reading tables of measured kernels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError, RooflineError
from roofline.kernel_tables.aiconfigurator.columns import CheckedColumns
from roofline.kernel_tables.aiconfigurator.layout import LAYOUTS, find_layout, find_tables, origin_of, table_name
from roofline.kernel_tables.columns import read_columns, read_parquet
from roofline.kernel_tables.named_columns import read_named
from roofline.kernel_tables.table import KernelGroup, KernelTable, group_rows
from roofline.kernel_tables.times import UNITS
from roofline.kernels import KINDS
from roofline.names import local_path


def read_table(
    source: Any,
    *,
    unit: str | None = None,
    kind: str | None = None,
    time: str | None = None,
    ignore: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> KernelTable:
    """Return the measured kernels of a table.

    Parameters
    ----------
    source : path, data frame or KernelTable
        A CSV or Parquet file, a frame of pandas or polars, a pyarrow table, or a mapping of columns, with one row per kernel:

        - matrix products: ``m``, ``n``, ``k``, perhaps ``batch``, and ``format`` (or ``dtype``; or ``weights`` and ``activations``);
        - attention: ``batch``, ``heads``, ``head_dim``, ``kv``; a length: ``context`` (tokens cached), ``new`` (new tokens), ``kv_len``
          (both) or ``seq_len``; and perhaps ``kv_heads``, ``v_head_dim``, ``window``, ``causal``; latent attention has ``rank`` instead of
          ``head_dim``;
        - mixtures of experts: ``tokens``, ``hidden``, ``intermediate``, ``experts``, ``top_k``, ``format``, and perhaps ``tp``, ``ep``;
        - collectives: ``op``, ``ranks``, ``bytes``;
        - updates of a recurrent state: ``batch``, ``heads``, ``key_dim``, ``state`` or ``dtype``, and perhaps lengths, ``key_heads``,
          ``value_dim``, ``retrieves``; short convolutions: ``batch``, ``channels``, ``dtype``, and perhaps lengths, ``taps``;
        - row-wise kernels: ``rows``, ``width``, ``format``, and perhaps ``inputs``, ``output``;

        and the time: ``seconds``, or a name that ends in its unit, such as ``latency_ms`` or ``time_us``. Most names that engines and
        libraries have for them are understood. A ``seq_len`` without new tokens is that of a cache at a decode step, which costs less than
        a prompt of that length. A time called a total, such as ``total_ms``, is divided by ``calls`` (``iters``, ``repeat``); ``gpu`` must be
        the machine that is asked about, and ``sparsity`` say dense. Rows with empty cells or masked elements are skipped. A column that may hold a size and is not understood is an error.
        Or a file or folder of ``aiconfigurator-core``, ``systems/data/<gpu>`` [-].
    unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times, if not the one in the column's name [-].
    kind : str, optional
        The kind of kernels, a key of ``roofline.kernels.KINDS``, if the columns do not tell [-].
    time : str, optional
        The column of times, if there are several [-].
    ignore : str or sequence of str, optional
        Columns that hold no size, or patterns of their names such as ``"tile_*"`` [-].
    columns : mapping of str to str, optional
        Column → what it is, such as ``{"N_CTX": "new"}``, where its name does not tell [-].

    Returns
    -------
    KernelTable
        Its rows; `reading` says how each column was read, `skipped` which rows were left out [-].

    Raises
    ------
    RooflineError
        If something cannot be read; the message names the row.

    Examples
    --------
    >>> table = read_table({"m": [16, 32], "n": [4096, 4096], "k": [4096, 4096], "dtype": ["bf16", "bf16"], "time_us": [12, 13]})
    >>> [(group.family, group.stored, group.seconds.tolist()) for group in table]
    [('matmul', 'bf16', [1.2e-05, 1.3e-05])]
    """
    options = {
        "unit": (unit, f"one of {', '.join(UNITS)}"),
        "kind": (kind, f"one of {', '.join(KINDS)}"),
        "time": (time, "a column's name"),
    }
    for name, (given, allowed) in options.items():
        if given is not None and not isinstance(given, str):
            raise InvalidValueError(f"{name} is of type {type(given).__name__}; it must be text, {allowed}, or None.")
    if isinstance(source, KernelTable):
        return source
    if isinstance(source, (str, Path)):
        path = local_path(source)
        if path.is_dir() or (table_name(path) is not None and path.is_file()):
            if unit is not None or kind is not None or time is not None or ignore or columns:
                raise InvalidValueError(
                    f"{path} is read as tables of aiconfigurator-core, whose columns are known: leave out unit, kind, time, ignore and columns."
                )
            return _read_layout_files(path)
        if not path.exists():
            raise InvalidValueError(f"cannot read {path}: no such file or folder.")
    named = str(source) if isinstance(source, (str, Path)) else "the table"
    rows = read_named(read_columns(source), unit=unit, kind=kind, time=time, ignore=ignore, meaning=columns)
    labels = None if rows.machines is None else {"machine": rows.machines}
    groups = (
        replace(group, rows=rows.places[group.rows], unsaid=rows.unsaid)
        for group in group_rows(rows.kind.name, rows.sizes, rows.seconds, labels=labels, origin={"table": named})
    )
    return KernelTable(named, _checked(named, groups), rows.skipped, rows.reading)


def _checked(named: str, groups: Iterable[KernelGroup]) -> tuple[KernelGroup, ...]:
    """Return groups after counting one row of each, so that impossible sizes are found now and not at first use."""
    found = tuple(groups)
    for group in found:
        try:
            group.take(np.array([0])).op  # noqa: B018 - sizes of single rows are checked already, shared ones are not
        except RooflineError as error:
            raise type(error)(f"row {group.rows[0] + 1} of {named}: {error}") from None
    return found


def read_layout(table: str, columns: Any, *, origin: dict[str, str] | None = None) -> KernelTable:
    """Return the measured kernels in a table of ``aiconfigurator-core``.

    Examples
    --------
    >>> columns = {"m": [1], "n": [8], "k": [8], "gemm_dtype": ["fp8"], "latency": [0.003]}
    >>> read_layout("gemm", columns).groups[0].seconds
    array([3.e-06])
    """
    layout, origin = find_layout(table), {"table": table} | (origin or {})
    checked = CheckedColumns(table, read_columns(columns, named=f"the table {table}"))
    skipped = np.ones(len(layout.seconds(checked)), bool)
    labels = {name: checked[name] for name in (*layout.labels, "kernel_source") if name in checked}
    read = (
        group
        for part in (layout, *layout.also)
        for group in group_rows(part.kind, part.read(checked), part.seconds(checked), labels=labels, origin=origin)
    )
    groups = _checked(f"the table {table}", read)
    for group in groups:
        skipped[group.rows] = False
    where = " ".join(origin.values())
    unknown = sorted({" ".join(str(labels[name][i]) for name in layout.labels if name in labels) for i in np.flatnonzero(skipped).tolist()})
    known = f"; known: {', '.join(layout.known)}" if layout.known else ""
    note = f"{int(skipped.sum())} rows of {where}: unknown label {', '.join(unknown)}{known}"
    return KernelTable(where, groups, (note,) if unknown else ())


def _read_layout_files(path: Path) -> KernelTable:
    tables, skipped = [], []
    for file in find_tables(path):
        if path.is_dir() and table_name(file) not in LAYOUTS:
            skipped.append(f"{file.relative_to(path)}: unknown table")
            continue
        origin, columns = origin_of(file), read_parquet(file)
        try:
            tables.append(read_layout(origin["table"], columns, origin=origin))
        except RooflineError as error:
            raise type(error)(f"{file}, read as a table of aiconfigurator-core because its name ends in _perf.parquet: {error}") from None
    groups = tuple(group for table in tables for group in table.groups)
    if not tables:
        raise InvalidValueError(f"{path} holds no known table; known: {', '.join(LAYOUTS)}.")
    if not groups:
        raise InvalidValueError(f"no row of {path} can be read: {'; '.join(note for table in tables for note in table.skipped)}.")
    return KernelTable(str(path), groups, (*skipped, *(note for table in tables for note in table.skipped)))
