"""Reading tables of measured kernels."""

from pathlib import Path
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError, RooflineError
from roofline.kernel_tables.columns import Columns, numbers, read_columns, read_parquet
from roofline.kernel_tables.plain import UNITS, find_kind, read_seconds, read_sizes
from roofline.kernel_tables.table import KernelTable, group_rows
from roofline.kernel_tables.wheel import LAYOUTS, find_tables, lane_of, table_name

__all__ = ["read_layout", "read_table"]


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
    if isinstance(source, KernelTable):
        return source
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
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
    groups = tuple(group_rows(measured.name, sizes, seconds, lane={"table": named}))
    for group in groups:  # what cannot be is found here rather than when it is first used
        try:
            group.op  # noqa: B018
        except RooflineError as error:
            raise type(error)(f"row {group.rows[0] + 1} of {named}: {error}") from None
    return KernelTable(named, groups)


def read_layout(table: str, columns: Columns, *, lane: dict[str, str] | None = None) -> KernelTable:
    """Return the measured kernels in columns of the layout of ``aiconfigurator-core``.

    Parameters
    ----------
    table : str
        The table, a key of ``LAYOUTS`` [-].
    columns : mapping of str to numpy.ndarray
        Its columns, ``latency`` in milliseconds [-].
    lane : dict of str to str, optional
        Where they come from [-].

    Returns
    -------
    KernelTable
        Its rows by operator; labels without a meaning are left out, and named [-].

    Examples
    --------
    >>> columns = {"m": [1], "n": [8], "k": [8], "gemm_dtype": ["fp8"], "latency": [0.003]}
    >>> read_layout("gemm", {name: np.array(column) for name, column in columns.items()}).groups[0].seconds
    array([3.e-06])
    """
    layout, lane = LAYOUTS[table], {"table": table} | (lane or {})
    seconds = numbers("latency", columns["latency"]) * UNITS["ms"]
    told_apart = [name for name in (*layout.labels, "kernel_source") if name in columns]
    labels = {name: columns[name].astype(str).astype(object) for name in told_apart}
    groups = tuple(
        group for each in (layout, *layout.also) for group in group_rows(each.kind, each.read(columns), seconds, labels=labels, lane=lane)
    )
    left = np.ones(len(seconds), bool)
    for group in groups:
        left[group.rows] = False
    where = " ".join(lane.values())
    unknown = sorted({" ".join(str(labels[name][i]) for name in layout.labels if name in labels) for i in np.flatnonzero(left).tolist()})
    return KernelTable(
        where, groups, (f"{int(left.sum())} rows of {where}: no meaning is known for {', '.join(unknown)}",) if unknown else ()
    )


def _read_layout_files(path: Path) -> KernelTable:
    tables, skipped = [], []
    for file in find_tables(path):
        if path.is_dir() and table_name(file) not in LAYOUTS:
            skipped.append(f"{file.relative_to(path)}: no meaning is known for this table")
            continue
        tables.append(read_layout(str(table_name(file)), read_parquet(file), lane=lane_of(file)))
    groups = tuple(group for table in tables for group in table.groups)
    if not groups:
        raise InvalidValueError(f"{path} holds no table whose meaning is known; known: {', '.join(LAYOUTS)}.")
    return KernelTable(str(path), groups, (*skipped, *(note for table in tables for note in table.skipped)))
