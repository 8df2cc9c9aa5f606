"""A calibration record from tables of measured kernels."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from roofline.deployment.spelling import checks_keywords
from roofline.errors import CalibrationError, InvalidValueError, quoted
from roofline.fitting.classes import class_rates, name_class
from roofline.fitting.conditions import check_fits, check_rows
from roofline.fitting.selection import FEWEST, MANY_SHAPES, fitted_fields
from roofline.fitting.shapes import decode_rows, fit_shapes, row_values, shape_rows
from roofline.formats import Format
from roofline.hardware import Hardware
from roofline.hardware.rates import datasheet_rates
from roofline.kernel_tables import KernelTable, read_table
from roofline.kernel_tables.aiconfigurator.layout import WITH_PROJECTIONS, run_as
from roofline.kernel_tables.findings import beats_floor, show_assumed
from roofline.kernel_tables.surroundings import check_machine
from roofline.kernel_tables.table import KernelGroup
from roofline.kernels import FAMILIES, KINDS, Family
from roofline.records import CalibrationRecord, Environment, KernelClass, Samples
from roofline.units import check_count

_MOST_FITTED = 0.8  # of the rows of a small class, so that some are left to judge the fit by
_ROWS = math.ceil(FEWEST / _MOST_FITTED)  # of one table, of which enough to fit are taken
_FAR_MORE = 4  # times as many rows, from which on a way of running a class is taken before the usual one
_MUCH_WORSE = 1.25  # times the error of a class on shapes held out, beyond which means over near shapes are not taken
_PREFERRED = {"op": ("all_reduce", "all_to_all"), "routing": ("power_law", "uniform")}
Key = tuple[str, str, str]


@checks_keywords
def record_from_tables(
    sources: Any,
    hardware: Hardware | str | Path,
    *,
    id: str,
    source: str,
    software: Mapping[str, str] | None = None,
    device: str | None = None,
    date: str | None = None,
    rows_per_table: int = 250,
    unit: str | None = None,
    kind: str | None = None,
    time: str | None = None,
    ignore: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> CalibrationRecord:
    """Return a calibration record fitted to tables of measured kernels, in the same way as to own measurements.

    Of the rows of each class (family of kernels, format stored, format multiplied in) at most `rows_per_table` of each table, and
    at most four fifths, are fitted; they are the samples of the record. They are taken at even steps from all rows sorted by tokens
    and then by the kernel's floor, so that every size is among them. The error and the quantiles of the residuals
    are those of every fifth of them, held out in turn; all other rows are left for judging the record.

    Parameters
    ----------
    sources : path, data frame, KernelTable or list of them
        Tables, see :func:`~roofline.kernel_tables.read_table` [-].
    hardware : Hardware, str or Path
        The machine that the kernels ran on, to whose datasheet rates the shares refer [-].
    id : str
        Name of the record in results [-].
    source : str
        Who measured the tables, and where they are published [-].
    software : mapping of str to str, optional
        Versions of what ran the kernels [-].
    device : str, optional
        The device's own name; the machine's if not given [-].
    date : str, optional
        When they were measured, ISO 8601; today if not given [-].
    rows_per_table : int, optional
        Rows of a class to fit at most, of each table; at least 5, so that some can be held out [-].
    unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times; by default the one in the column's name [-].
    kind, time : str, optional
        The kind of kernels, and the column of times, if the columns do not tell [-].
    ignore : str or sequence of str, optional
        Columns that hold no size, or patterns of their names [-].
    columns : mapping of str to str, optional
        Column → what it is, where its name does not tell [-].

    Returns
    -------
    CalibrationRecord
        Its plan names what was left out: rows with empty cells, kernels without a form, labels of the same class that were run in another
        way, classes with too few rows; and what was assumed where no column says it. Its conditions name poor fits, and rows that are faster than their floor [-].

    Raises
    ------
    CalibrationError
        If nothing in the tables can be fitted.
    RooflineError
        If an argument is invalid, or a table cannot be read.
    MissingDependencyError
        If scipy is not installed.
    """
    _check_labels({"id": id, "source": source}, {"device": device, "date": date}, software)
    most = _check_most(rows_per_table)
    machine = Hardware.load(hardware)
    options: dict[str, Any] = {"unit": unit, "kind": kind, "time": time, "ignore": ignore, "columns": columns}
    tables = [check_machine(read_table(s, **options), machine) for s in (sources if isinstance(sources, (list, tuple)) else [sources])]
    if not tables:
        raise InvalidValueError(f"sources is an empty {type(sources).__name__}; it must be a table, or several.")
    pools, left_out = _pools(tables)
    classes: list[KernelClass] = []
    too_fast: dict[str, tuple[int, int]] = {}
    for key, groups in sorted(pools.items()):
        try:
            fitted = _fit_class(key, groups, machine, most)
        except CalibrationError as error:
            left_out.append(f"{_name(key)} not fitted: {error}")
            continue
        classes.append(fitted)
        faster = sum(int(beats_floor(group, group.floor(machine)).sum()) for group in groups)
        assumed = "; ".join(dict.fromkeys(filter(None, map(show_assumed, groups))))
        too_fast[name_class(fitted) + (f", with {assumed} assumed," if assumed else "")] = (faster, sum(map(len, groups)))
    if not classes:
        where = ", ".join(dict.fromkeys(table.source for table in tables))
        why = (*left_out, *(note for table in tables for note in table.skipped))
        raise CalibrationError(f"nothing in {where} can be fitted. {' '.join(why)}".rstrip())
    how = f"tables: at most {most} rows of a class from each, at even steps in the order of tokens and floor"
    return CalibrationRecord(
        id=id,
        hardware=machine.id,
        date=date or datetime.now(UTC).date().isoformat(),
        source=source,
        environment=Environment(device=device or machine.name, software=dict(software or {})),
        rates=datasheet_rates(machine, dict.fromkeys(c.operand for c in classes if FAMILIES[c.family].roof == "memory")),
        classes=tuple(classes),
        conditions=(*check_fits((), classes), *check_rows(too_fast)),
        plan="; ".join((how, *_unread(tables), *left_out)),
    )


def _unread(tables: Iterable[KernelTable]) -> Iterator[str]:
    """Yield which rows of tables in no particular layout were not read, and what was assumed of the others."""
    for table in tables:
        if table.reading is not None:
            yield from table.skipped
            yield from (f"assumed: {text}" for text in table.reading.assumed)


def _check_labels(needed: Mapping[str, object], others: Mapping[str, object], software: object) -> None:
    """Raise InvalidValueError for an invalid label, before anything is read or fitted."""
    for name, given in {**needed, **{n: g for n, g in others.items() if g is not None}}.items():
        if not isinstance(given, str) or not given.strip():
            raise InvalidValueError(f"{name} is {quoted(given)}; it must be text that is not empty.")
    date = others["date"]
    try:
        datetime.fromisoformat(str(date)) if date is not None else None
    except ValueError:
        raise InvalidValueError(f"date is {quoted(date)}; it must be in ISO 8601, like 2026-11-30.") from None
    if software is None:
        return
    if not isinstance(software, Mapping):
        raise InvalidValueError(f"software is {quoted(software)}; it must be a mapping of names to versions, like {{'cuda': '13.0'}}.")
    for name, version in software.items():
        if not isinstance(name, str) or not isinstance(version, str):
            raise InvalidValueError(
                f"software has {quoted(name)}: {quoted(version)}; names and versions must be text, like 'cuda': '13.0'."
            )


def _check_most(rows_per_table: Any) -> int:
    """Return how many rows of a class to fit at most of each table."""
    if not isinstance(rows_per_table, (int, float, np.number)):  # not an array of counts either
        raise InvalidValueError(
            f"rows_per_table is of type {type(rows_per_table).__name__}; it must be a whole number of at least {FEWEST}."
        )
    return int(check_count("rows_per_table", rows_per_table, minimum=FEWEST))


def _name(key: Key) -> str:
    """Return a readable name of a class."""
    family, stored, operand = key
    return (
        f"{family} kernels"
        + (f" reading {stored}" if stored else "")
        + (f", in {operand}" if family not in FAMILIES or FAMILIES[family].roof == "memory" else "")
    )


def _pools(tables: Iterable[KernelTable]) -> tuple[dict[Key, list[KernelGroup]], list[str]]:
    """Return the groups of each class; of a table that ran a class in several ways, the usual way, or the one with far more rows."""
    found: dict[tuple[Key, str], dict[tuple[tuple[str, str], ...], list[KernelGroup]]] = {}
    left: dict[str, int] = {}
    for group in (group for table in tables for group in table):
        one = run_as(group.take(np.array([0])))  # what class it is needs one row
        if group.origin.get("table") in WITH_PROJECTIONS:
            left[f"rows of {group.origin['table']} hold projections besides the kernel and were not fitted"] = 0
        elif one.family not in FAMILIES:
            left[f"{one.family} kernels were not fitted: no form is known for them"] = 0
        else:
            words = tuple((word, str(one.fixed[word])) for word in KINDS[group.kind].options)
            place = ((one.family, one.stored, one.operand), group.origin.get("table", ""))
            found.setdefault(place, {}).setdefault(words, []).append(group)
    pools: dict[Key, list[KernelGroup]] = {}
    for (key, _), ways in found.items():
        rows = {words: sum(map(len, groups)) for words, groups in ways.items()}
        several = [words for words in ways if rows[words] * _FAR_MORE >= max(rows.values())]
        words = max(several, key=lambda words: (_usual(words), rows[words], words))
        pools.setdefault(key, []).extend(ways[words])
        for other in ways:
            if other != words:
                differ = ", ".join(f"{name} {value}" for (name, value) in other if (name, value) not in words)
                left[
                    f"{_name(key)} with {differ} were not fitted; {', '.join(f'{n} {v}' for n, v in words if (n, v) not in other)} was"
                ] = 0
    return pools, sorted(left)


def _usual(words: Sequence[tuple[str, str]]) -> int:
    """Return how many words of an operator are the usual ones in a model: 16-bit activations, all-to-all."""
    return sum(value in _PREFERRED.get(name, ()) or (name == "activations" and Format.load(value).bits == 16) for name, value in words)


def class_features(family: Family, groups: Sequence[KernelGroup]) -> dict[str, np.ndarray]:
    """Return the features of every kernel of some groups."""
    rows = [family.features(group.op) for group in groups]
    return {name: row_values([x[name] for x in rows], groups) for name in (rows[0] if rows else ())}


def group_rates(family: Family, operand: str, groups: Sequence[KernelGroup], machine: Hardware) -> tuple[float, np.ndarray]:
    """Return the peak that the shares of a class refer to, and the bandwidth for each kernel of some groups [FLOP/s], [B/s]."""
    peak, bandwidth = class_rates(family, operand, [group.op for group in groups], machine=machine)
    if np.isinf(bandwidth).any():
        raise CalibrationError(f"the spec of {machine.id} gives no rate of links.")
    return peak, bandwidth if family.roof == "memory" else np.repeat(bandwidth, [len(group) for group in groups])


def split_classes(
    tables: Iterable[KernelTable], machine: Hardware, *, rows_per_table: int
) -> dict[Key, tuple[list[KernelGroup], list[KernelGroup]]]:
    """Return the kernels in tables by class: those that its own constants are fitted to, and those that no constants are."""
    found = {}
    for key, groups in sorted(_pools(tables)[0].items()):
        groups = [run_as(group) for group in groups]
        places = _spread(groups, machine, rows_per_table)
        fitted = places if not FAMILIES[key[0]].shape else np.union1d(places, np.flatnonzero(shape_rows(FAMILIES[key[0]], groups)))
        found[key] = _take(groups, places), _take(groups, np.setdiff1d(np.arange(sum(map(len, groups))), fitted))
    return found


def _take(groups: Sequence[KernelGroup], places: np.ndarray) -> list[KernelGroup]:
    """Return some rows of several groups, numbered through all of them."""
    lengths = np.array([len(group) for group in groups])
    ends = np.cumsum(lengths)
    home = np.searchsorted(ends, places, side="right")
    return [groups[i].take(np.sort(places[home == i]) - (ends - lengths)[i]) for i in np.unique(home).tolist()]


def _fit_class(key: Key, groups: Sequence[KernelGroup], machine: Hardware, most: int) -> KernelClass:
    """Fit one class to a part of its rows."""
    family, total = FAMILIES[key[0]], sum(map(len, groups))
    groups = [run_as(group) for group in groups]
    fitted = _take(groups, _spread(groups, machine, most))
    peak, bandwidth = group_rates(family, key[2], fitted, machine)
    points, seconds = class_features(family, fitted), _seconds(fitted)
    if seconds.size < FEWEST:
        several = " of one table" if len({group.origin.get("table") for group in groups}) > 1 else ""
        raise CalibrationError(f"{total} row{' is' if total == 1 else 's are'} too few; at least {_ROWS}{several} are needed.")
    fields = fitted_fields(
        family, points, seconds, peak_flops_per_s=peak, bandwidth=bandwidth, shapes=_shapes(fitted), decode=decode_rows(fitted)
    )
    rows = f"fitted to {seconds.size} of {total} rows{_versions(groups)}, every fifth of which, by shape, was held out in turn"
    note = f"{rows}; {fields.pop('note')}".rstrip("; ")
    if family.shape:
        fields |= _shape_fields(family, groups, fields, group_rates(family, key[2], groups, machine))
    fixed, sizes = _sizes(fitted)
    moved = row_values([_moved(g) for g in fitted], fitted)
    samples = Samples(
        sizes={name: tuple(column.tolist()) for name, column in sizes.items()},
        seconds=tuple(seconds.tolist()),
        moved_bytes=tuple(moved.tolist()),
    )
    return KernelClass(family=key[0], stored=key[1], operand=key[2], fixed_sizes=fixed, samples=samples, note=note, **fields)


def _shape_fields(
    family: Family, groups: Sequence[KernelGroup], fields: Mapping[str, Any], rates: tuple[float, np.ndarray]
) -> dict[str, Any]:
    """Return the fields of a class that constants of single shapes fill, given those of its own fit.

    Of alike shapes, its error and residuals become those of shapes not measured, which have means over near ones; unless these are much further
    off than its own constants, where whole shapes were held out of those. Of many that are not alike, residuals stay those of whole shapes held
    out, for the shapes too: rows between others of the same shape come out better than kernels of a model do.
    """
    x, seconds = class_features(family, groups), _seconds(groups)
    constants = {name: c.value for name, c in fields["constants"].items()}
    found = fit_shapes(family, groups, x, seconds, constants, {"peak_flops_per_s": rates[0], "bandwidth": rates[1]})
    if found is None:
        return {}
    shapes, others = found
    many = len(np.unique(_shapes(groups))) >= MANY_SHAPES
    if others and many and others["error"] > _MUCH_WORSE * fields["error"]:
        return {"shapes": shapes.model_copy(update={"near": False})}
    if not family.alike and len(shapes.sizes[family.shape[0]]) >= MANY_SHAPES:
        shapes = shapes.model_copy(update={name: fields[name] for name in ("residual_quantiles", "step_quantiles", "size_quantiles")})
    return {"shapes": shapes, **others}


def _versions(groups: Sequence[KernelGroup]) -> str:
    """Return of which software rows are, where their tables say it."""
    names = dict.fromkeys(f"{g.origin['framework']} {g.origin['version']}" for g in groups if {"framework", "version"} <= g.origin.keys())
    return f" of {', '.join(names)}" if names else ""


def _spread(groups: Sequence[KernelGroup], machine: Hardware, most: int) -> np.ndarray:
    """Return the places of the rows to fit: even steps through each table, in the order of tokens and then of the floor.

    The floor is that of the data sheet's peaks, to which all shares refer: a record can be fitted again when a ceiling becomes known.
    """
    machine = machine.but(clock=None, compute=machine.compute.but(matrix_flops_per_s_fp16_accumulate=None))
    tables = np.repeat([group.origin.get("table", "") for group in groups], [len(group) for group in groups])
    tokens, floors = (row_values(column, groups) for column in ([g.op.rows for g in groups], [g.floor(machine).time_s for g in groups]))
    chosen = []
    for table in np.unique(tables):
        rows = np.flatnonzero(tables == table)
        rows = rows[np.lexsort((floors[rows], tokens[rows]))]
        count = min(most, int(_MOST_FITTED * rows.size))
        chosen.append(rows[((np.arange(count) + 0.5) * rows.size / max(count, 1)).astype(int)])
    return np.sort(np.concatenate(chosen))


def _shapes(groups: Sequence[KernelGroup]) -> np.ndarray:
    """Return the number of the shape of every kernel: what its model and its split, not its step, decide."""
    names = sorted({name for group in groups for name in group.op.sizes})
    columns = [row_values([group.op.sizes.get(name, 0) for group in groups], groups) for name in names]
    numbers: np.ndarray = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].ravel()
    return numbers


def _seconds(groups: Sequence[KernelGroup]) -> np.ndarray:
    return np.concatenate([group.seconds for group in groups]) if groups else np.empty(0)


def _moved(group: KernelGroup) -> Any:
    op = group.op
    return op.link_bytes if op.kind == "collective" else op.compulsory_bytes + op.activation_bytes


def _sizes(groups: Sequence[KernelGroup]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the arguments that all groups share, and the sizes that differ, row by row; words that differ are those of the class."""
    first = groups[0].fixed
    same = {name: value for name, value in first.items() if all(group.fixed[name] == value for group in groups)}
    differ = [name for name in first if name not in same and not isinstance(first[name], str)]
    sizes = {name: np.concatenate([np.full(len(group), float(group.fixed[name])) for group in groups]) for name in differ}
    varying = {name: np.concatenate([np.asarray(group.sizes[name], dtype=float) for group in groups]) for name in groups[0].sizes}
    return same, {**varying, **sizes}
