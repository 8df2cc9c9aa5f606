"""Reading tables of measured kernels."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError, RooflineError
from roofline.kernel_tables.columns import read_columns, read_parquet
from roofline.kernel_tables.operators import KINDS
from roofline.kernel_tables.plain import UNITS, find_kind, read_seconds, read_sizes
from roofline.kernel_tables.table import KernelGroup, KernelTable, group_rows
from roofline.kernel_tables.wheel import LAYOUTS, find_layout, find_tables, lane_of, table_name
from roofline.kernel_tables.wheel_columns import WheelColumns
from roofline.names import local_path


def read_table(source: Any, *, unit: str | None = None, kind: str | None = None, time: str | None = None) -> KernelTable:
    """Return the measured kernels of a table.

    Parameters
    ----------
    source : path, data frame or KernelTable
        A CSV or Parquet file, a frame of pandas or polars, a pyarrow table, or a mapping of columns, with one row per kernel:

        - matrix products: ``m``, ``n``, ``k``, and ``format`` (or ``dtype``; or ``weights`` and ``activations``);
        - attention: ``batch``, ``heads``, ``head_dim``, ``kv``, and perhaps ``context``, ``new``, ``kv_heads``, ``v_head_dim``,
          ``window``; latent attention has ``rank`` instead of ``head_dim``;
        - mixtures of experts: ``tokens``, ``hidden``, ``intermediate``, ``experts``, ``top_k``, ``format``, and perhaps ``tp``, ``ep``;
        - collectives: ``op``, ``ranks``, ``bytes``;
        - updates of a recurrent state: ``batch``, ``heads``, ``key_dim``, ``state`` or ``dtype``, and perhaps ``context``, ``new``,
          ``key_heads``, ``value_dim``, ``retrieves``; short convolutions: ``batch``, ``channels``, ``dtype``, and perhaps ``taps``;
        - kernels that touch rows: ``rows``, ``width``, ``format``, and perhaps ``inputs``, ``output``;

        and the time: ``seconds``, or a name that ends in its unit, such as ``latency_ms`` or ``time_us``. Or a folder or a file of the
        layout of ``aiconfigurator-core``, ``systems/data/<gpu>``. Other columns do not matter [-].
    unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times, whatever the column's name says [-].
    kind : str, optional
        What was measured, where the columns do not tell: a key of ``KINDS`` [-].
    time : str, optional
        The column of times, where several could be meant [-].

    Returns
    -------
    KernelTable
        Its rows by operator [-].

    Raises
    ------
    RooflineError
        One clear error for whatever cannot be read; what is wrong with a row names the row.

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
            if unit is not None or kind is not None or time is not None:
                raise InvalidValueError(
                    f"{path} is read by its layout, in which times are in ms; unit, kind and time are for other tables."
                )
            return _read_layout_files(path)
        if not path.exists():
            raise InvalidValueError(f"cannot read {path}: no such file or folder.")
    columns = read_columns(source)
    named = str(source) if isinstance(source, (str, Path)) else "the table"
    measured = find_kind(columns, kind)
    seconds, sizes = read_seconds(columns, unit=unit, time=time), read_sizes(columns, measured)
    return KernelTable(named, _possible(named, group_rows(measured.name, sizes, seconds, lane={"table": named})))


def _possible(named: str, groups: Iterable[KernelGroup]) -> tuple[KernelGroup, ...]:
    """Return groups whose operators can be: what cannot is found here rather than when it is first used."""
    found = tuple(groups)
    for group in found:
        try:
            group.take(np.array([0])).op  # noqa: B018 - of columns that are whole numbers, only what rows share can still be impossible
        except RooflineError as error:
            raise type(error)(f"row {group.rows[0] + 1} of {named}: {error}") from None
    return found


def read_layout(table: str, columns: Any, *, lane: dict[str, str] | None = None) -> KernelTable:
    """Return the measured kernels in columns of the layout of ``aiconfigurator-core``.

    Parameters
    ----------
    table : str
        The table, a key of ``LAYOUTS`` [-].
    columns : mapping of str to numpy.ndarray, or data frame
        Its columns, ``latency`` in milliseconds [-].
    lane : dict of str to str, optional
        Where they come from [-].

    Returns
    -------
    KernelTable
        Its rows by operator; labels without a meaning are left out, and named [-].

    Raises
    ------
    InvalidValueError
        If there is no such table, it lacks a column or has no rows, or a row holds what cannot be; the message names the row.

    Examples
    --------
    >>> columns = {"m": [1], "n": [8], "k": [8], "gemm_dtype": ["fp8"], "latency": [0.003]}
    >>> read_layout("gemm", columns).groups[0].seconds
    array([3.e-06])
    """
    layout, lane = find_layout(table), {"table": table} | (lane or {})
    checked = WheelColumns(table, read_columns(columns, named=f"the table {table}"))
    seconds = checked["latency"] * UNITS["ms"]
    labels = {name: checked[name] for name in (*layout.labels, "kernel_source") if name in checked}
    read = (
        group for each in (layout, *layout.also) for group in group_rows(each.kind, each.read(checked), seconds, labels=labels, lane=lane)
    )
    groups = _possible(f"the table {table}", read)
    left = np.ones(len(seconds), bool)
    for group in groups:
        left[group.rows] = False
    where = " ".join(lane.values())
    unknown = sorted({" ".join(str(labels[name][i]) for name in layout.labels if name in labels) for i in np.flatnonzero(left).tolist()})
    known = f"; known: {', '.join(layout.known)}" if layout.known else ""
    note = f"{int(left.sum())} rows of {where}: no meaning is known for {', '.join(unknown)}{known}"
    return KernelTable(where, groups, (note,) if unknown else ())


def _read_layout_files(path: Path) -> KernelTable:
    tables, skipped = [], []
    for file in find_tables(path):
        if path.is_dir() and table_name(file) not in LAYOUTS:
            skipped.append(f"{file.relative_to(path)}: no meaning is known for this table")
            continue
        lane, columns = lane_of(file), read_parquet(file)
        try:
            tables.append(read_layout(lane["table"], columns, lane=lane))
        except RooflineError as error:
            raise type(error)(f"{file}, read as a table of aiconfigurator-core because its name ends in _perf.parquet: {error}") from None
    groups = tuple(group for table in tables for group in table.groups)
    if not tables:
        raise InvalidValueError(f"{path} holds no table whose meaning is known; known: {', '.join(LAYOUTS)}.")
    if not groups:
        raise InvalidValueError(f"no row of {path} can be read: {'; '.join(note for table in tables for note in table.skipped)}.")
    return KernelTable(str(path), groups, (*skipped, *(note for table in tables for note in table.skipped)))
