"""Columns of numbers and text from CSV, Parquet, any data frame, or a mapping."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError, MissingDependencyError, install, quoted
from roofline.names import local_path
from roofline.units import is_masked
from roofline.validation import regular_file

Columns = Mapping[str, np.ndarray]
"""Columns of a table by name, all of one length."""

_DELIMITERS = ",;\t|"
_LARGEST_WHOLE = 2**53
_SHORTEST, _LONGEST = 1e-30, 1e30  # of times, in any unit: far beyond any kernel, and no quotient of them overflows
_NOTHING = {
    "",
    "nan",
    "<na>",
    "na",
    "n/a",
    "#n/a",
    "none",
    "null",
    "-",
    "--",
    "oom",
    "err",
    "error",
    "fail",
    "failed",
    "skip",
    "skipped",
    "timeout",
}
"""Words for a cell without a value, in lower case."""
_COMMAS = re.compile(r"[+-]?\d+([.,]\d+)*,\d+([.,]\d+)*(e[+-]?\d+)?", re.IGNORECASE)
"""A number with a comma: a decimal one, or one that parts thousands."""
_MOST_COLUMNS = 1000  # a table of kernels has some dozens; one that lies on its side has thousands


def read_columns(source: Any, *, named: str = "the table") -> dict[str, np.ndarray]:
    """Return the columns of a CSV or Parquet file, a data frame or a mapping.

    Examples
    --------
    >>> read_columns({"m": [1, 2], "seconds": [3e-6, 4e-6]})["m"]
    array([1, 2])
    """
    if isinstance(source, (str, Path)):
        path = local_path(source)
        if path.suffix.lower() in (".parquet", ".pq"):
            return _whole(read_parquet(path), str(path))
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            return _whole(_read_csv(path), str(path))
        raise InvalidValueError(f"{path} is not read as a table: its name ends in {path.suffix!r} instead of .csv, .tsv, .txt or .parquet.")
    if callable(getattr(source, "collect", None)):  # polars' LazyFrame has no data yet
        raise InvalidValueError(f"a {type(source).__name__} holds no rows yet; give the result of its collect().")
    names = getattr(source, "column_names", None)  # pyarrow
    if names is None:
        names = source.keys() if isinstance(source, Mapping) else getattr(source, "columns", None)
    if names is None or not hasattr(source, "__getitem__"):
        raise InvalidValueError(f"a table is a path, a data frame or a mapping of columns, not {type(source).__name__}.")
    names = list(names)
    _check_names([str(name) for name in names], named)
    return _whole({str(name): _as_array(str(name), source[name]) for name in names}, named)


def _check_names(names: list[str], where: str) -> list[str]:
    """Return the names of a table's columns, which must be some dozens and all different."""
    if len(names) > _MOST_COLUMNS:
        raise InvalidValueError(
            f"{where} has {len(names):,} columns, and at most {_MOST_COLUMNS:,} are read: a table has one row per kernel and a column per size."
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidValueError(f"{where} has several columns called {show_names(repeated)}; names of columns must be unique.")
    return names


def show_names(names: Sequence[str], *, most: int = 8) -> str:
    """Write the first of some names, as messages quote them.

    Examples
    --------
    >>> show_names(["m", "n", "k"], most=2)
    "'m', 'n' and 1 more"
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(quoted, names[:most])) + more


def read_parquet(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a Parquet file."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise MissingDependencyError(f"Parquet files are read with pyarrow: {install('calibrate')}.") from None
    try:
        regular_file(path)
        _check_names(parquet.read_schema(path).names, str(path))
        read = parquet.read_table(path)
    except (OSError, ValueError) as error:  # bases of pyarrow's errors
        if isinstance(error, InvalidValueError):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(".")
        raise InvalidValueError(f"cannot read {path}: {reason}.") from None
    return {name: np.asarray(read[name].to_numpy()) for name in read.column_names}


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    try:
        with regular_file(path).open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            delimiter = max(_DELIMITERS, key=first.count)
            reader = csv.reader(file, delimiter=delimiter)
            header: list[str] = []
            rows: list[list[str]] = []
            for row in reader:
                empty = not any(map(str.strip, row))
                if not header:
                    header = [] if empty else _check_names([name.strip() or f"Unnamed: {i}" for i, name in enumerate(row)], str(path))
                elif empty or len(row) == len(header):
                    rows.append([""] * len(header) if empty else row)  # an empty row counts, so that the next ones keep their numbers
                else:
                    point = "; a decimal comma must be a point" if delimiter == "," and len(row) > len(header) else ""
                    raise InvalidValueError(
                        f"line {reader.line_num} of {path} has {len(row)} cell{'s' * (len(row) != 1)} where the first line names {len(header)} "
                        f"columns, separated by {delimiter!r}{point}."
                    )
            while rows and not any(rows[-1]):
                rows.pop()
    except UnicodeDecodeError:
        raise InvalidValueError(f"cannot read {path}: it is no text in UTF-8; save it as CSV in UTF-8.") from None
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidValueError(f"cannot read {path}: {reason}.") from None
    if not header:
        raise InvalidValueError(f"{path} is empty; its first line must name the columns.")
    return {name: np.array([row[i].strip() for row in rows], dtype=object) for i, name in enumerate(header)}


def _as_array(name: str, column: Any) -> np.ndarray:
    if is_masked(column):
        column = column.tolist()  # with None for what is masked
    for method in ("to_numpy", "to_list", "to_pylist"):
        if hasattr(column, method):
            column = getattr(column, method)()
            break
    try:
        array = np.asarray(column)
    except ValueError:  # ragged
        array = np.empty((0, 0))
    if array.ndim != 1:
        raise InvalidValueError(f"column {quoted(name)} has {array.ndim} dimensions; the columns of a table have one.")
    return array


def _whole(columns: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    lengths = {name: len(column) for name, column in columns.items()}
    if not lengths:
        raise InvalidValueError(f"{where} has no columns.")
    if len(set(lengths.values())) > 1:
        raise InvalidValueError(f"the columns of {where} differ in length: {', '.join(f'{n} {k}' for n, k in list(lengths.items())[:8])}.")
    if not next(iter(lengths.values())):
        raise InvalidValueError(f"{where} has columns ({', '.join(list(lengths)[:8])}) but no rows.")
    return columns


def show_rows(marked: np.ndarray, column: np.ndarray) -> str:
    """Write the first marked rows, counted from 1, each with its value.

    Examples
    --------
    >>> show_rows(np.array([False, True, True]), np.array([1, -2, -3]))
    'row 2 (-2), row 3 (-3)'
    """
    places = np.flatnonzero(marked)
    more = f" and {places.size - 3} more" if places.size > 3 else ""
    return ", ".join(f"row {i + 1} ({quoted(_item(column[i]))})" for i in places[:3].tolist()) + more


def number_values(name: str, column: np.ndarray, *, least: int | None = None, rows: np.ndarray | None = None) -> np.ndarray:
    """Return a column as numbers: positive ones, or whole ones of at least `least`; perhaps only those of marked rows.

    Examples
    --------
    >>> number_values("m", np.array(["1", "128"], dtype=object), least=1)
    array([  1., 128.])
    """
    values = as_numbers(column)
    if least is None:
        bad, allowed = ~((values >= _SHORTEST) & (values <= _LONGEST)), f"positive finite numbers (of {_SHORTEST:g} to {_LONGEST:g})"
    else:
        bad = ~((values >= least) & (values <= _LARGEST_WHOLE) & (values == np.floor(values)))
        allowed = f"whole numbers of at least {least}"
    if rows is not None:
        bad &= rows
    if bad.any():
        commas = bad & _with_commas(column)
        if commas.any():
            raise InvalidValueError(
                f"column {quoted(name)} has numbers with commas in {int(commas.sum())} of {bad.size} rows: {show_rows(commas, column)}; write a "
                "decimal point, and nothing between thousands: 12.5, 1024."
            )
        raise InvalidValueError(
            f"column {quoted(name)} must hold {allowed}; {int(bad.sum())} of {bad.size} rows do not: {show_rows(bad, column)}."
        )
    return values if rows is None else values[rows]


def _with_commas(column: np.ndarray) -> np.ndarray:
    """Mark the cells with a comma in their number."""
    return np.array([isinstance(cell, str) and bool(_COMMAS.fullmatch(cell.strip())) for cell in column.tolist()], dtype=bool)


def as_numbers(column: np.ndarray) -> np.ndarray:
    """Return a column as numbers, with NaN for what is none.

    Examples
    --------
    >>> as_numbers(np.array(["1", "fast", None, True], dtype=object))
    array([ 1., nan, nan, nan])
    """
    if column.dtype.kind in "iuf":
        return column.astype(np.float64)
    return np.array([_number(cell) for cell in column.tolist()], dtype=np.float64)


def _number(cell: Any) -> float:
    if isinstance(cell, bool) or "_" in str(cell):  # Python reads 1_000, nothing else does
        return np.nan
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def find_holes(column: np.ndarray) -> np.ndarray:
    """Mark the cells without a value: empty, not a number, or a word for a kernel that was not measured.

    Examples
    --------
    >>> find_holes(np.array(["12", "", None, "OOM", "fast"], dtype=object))
    array([False,  True,  True,  True, False])
    """
    if column.dtype.kind == "f":
        return np.asarray(np.isnan(column))
    if column.dtype.kind != "O" and column.dtype.kind not in "US":
        return np.zeros(len(column), bool)
    return np.array([cell is None or str(cell).strip().lower() in _NOTHING for cell in column.tolist()], dtype=bool)


def text_values(column: np.ndarray) -> list[str]:
    """Return a column as text, empty where a cell is None or not a number.

    Examples
    --------
    >>> text_values(np.array([" fp8", None, float("nan")], dtype=object))
    ['fp8', '', '']
    """
    return ["" if hole else str(cell).strip() for cell, hole in zip(column.tolist(), find_holes(column).tolist(), strict=True)]


def select(columns: Columns, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rows of a table at some places, or marked ones."""
    return {name: column[rows] for name, column in columns.items()}


def rows_by_value(columns: Columns, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield each combination of values in some columns, with the places of its rows.

    Examples
    --------
    >>> table = {"k": np.array([8, 4, 8]), "format": np.array(["fp8", "fp8", "fp8"])}
    >>> for values, rows in rows_by_value(table, ["k", "format"]):
    ...     print(values, rows)
    {'k': 4, 'format': 'fp8'} [1]
    {'k': 8, 'format': 'fp8'} [0 2]
    """
    code = np.zeros(len(next(iter(columns.values()))), dtype=np.int64)
    for name in names:
        column = columns[name]
        if column.dtype == object:  # several times faster than sorting objects
            index: dict[Any, int] = {}
            codes = np.fromiter((index.setdefault(v, len(index)) for v in column.tolist()), dtype=np.int64, count=len(column))
        else:
            codes = np.unique(column, return_inverse=True)[1].ravel()
        _, code = np.unique(code * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)
    order = np.argsort(code, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        if rows.size:
            yield {name: _item(columns[name][rows[0]]) for name in names}, rows


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
