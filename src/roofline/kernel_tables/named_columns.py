"""Tables in no particular layout: columns found by their usual names, and an account of how each was read."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.formats import Format
from roofline.kernel_tables.columns import Columns, find_holes, number_values, select, show_names, text_values
from roofline.kernel_tables.guess import find_kind, show_default, usual_name
from roofline.kernel_tables.leftovers import check_ignored, check_leftovers
from roofline.kernel_tables.lengths import ANY, COUNTS, PHASE, STEP, WHOLE, Lengths, length_columns, read_lengths, read_phases
from roofline.kernel_tables.lookup import Names
from roofline.kernel_tables.options import check_options, find_unlabelled, library_columns, option_columns, read_options
from roofline.kernel_tables.surroundings import SPARSITY, calls_column, check_dense, machine_column
from roofline.kernel_tables.table import TableReading
from roofline.kernel_tables.times import UNITS, find_times, is_total
from roofline.kernels.kind import Kind, Size
from roofline.names import nearest_names, normalize_name

_NEED_LENGTHS = ("attention", "latent_attention")
"""Kinds whose cost is nothing without a length; states and convolutions of one new token need none."""


@dataclass(frozen=True, slots=True)
class NamedRows:
    """The rows of a table that could be read."""

    kind: Kind
    sizes: dict[str, np.ndarray]  # sizes and options, by argument name
    seconds: np.ndarray
    places: np.ndarray  # of the rows in the table
    reading: TableReading
    machines: np.ndarray | None  # what each ran on, if the table says so
    unsaid: tuple[str, ...]  # sizes that have their defaults
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """Which column of a table holds what."""

    kind: Kind
    time: str
    unit: str
    sizes: dict[str, str]  # by argument name, lengths apart
    lengths: dict[str, str]  # by what they count
    options: dict[str, str]
    phase: str | None
    calls: str | None
    machine: str | None
    sparsity: str | None

    @property
    def meanings(self) -> dict[str, str]:
        """What every column that is read was read as, by its name."""
        means = {self.time: f"time in {self.unit}{' of all calls' if self.calls else ''}"} | {
            name: usual_name(size) for size, name in self.sizes.items()
        }
        means |= {name: COUNTS[what] for what, name in self.lengths.items()} | {name: what for what, name in self.options.items()}
        others = {self.phase: "phase", self.calls: "calls", self.machine: "machine", self.sparsity: "dense"}
        return means | {name: what for name, what in others.items() if name is not None}


def read_named(
    columns: Columns,
    *,
    unit: str | None = None,
    kind: str | None = None,
    time: str | None = None,
    ignore: Any = (),
    meaning: Any = None,
) -> NamedRows:
    """Return the rows of a table whose columns have their usual names.

    Examples
    --------
    >>> read_named({name: np.array([8]) for name in "mnk"} | {"dtype": np.array(["bf16"]), "us": np.array([3.0])}).seconds
    array([3.e-06])
    """
    ignored, renamed = check_ignored(columns, ignore), _check_meaning(columns, {} if meaning is None else meaning)
    table = {renamed.get(name, name): column for name, column in columns.items() if name not in ignored}
    empty = [name for name, column in table.items() if find_holes(column).all()]
    table = {name: column for name, column in table.items() if name not in empty}
    found = _find(table, unit=unit, kind=kind, time=renamed.get(time, time) if isinstance(time, str) else time)
    left = [name for name in table if name not in found.meanings]
    check_leftovers(table, left, found.kind, _known(found.kind))
    _check_batch(table, found, renamed)
    holes = _holes(table, found)
    whole = ~np.any(list(holes.values()), axis=0)
    if not whole.any():
        raise InvalidValueError(f"no row of the table is whole: {_describe_holes(holes)}.")
    sizes, read, assumed = _read(table, found, whole)
    theirs = {ours: name for name, ours in renamed.items()}
    reading = TableReading(
        read={theirs.get(name, name): what for name, what in found.meanings.items()},
        unit=found.unit,
        ignored=(*ignored, *empty, *left),
        assumed=tuple(assumed),
        as_steps=theirs.get(read.as_steps, read.as_steps),
    )
    if found.sparsity is not None:
        check_dense(found.sparsity, table[found.sparsity], whole)
    gone = int((~whole).sum())
    skipped = (f"{gone} of {whole.size} rows have holes: {_describe_holes(holes)}",) if gone else ()
    places = np.flatnonzero(whole)
    machines = None if found.machine is None else np.array(text_values(table[found.machine]), dtype=object)[places]
    unsaid = tuple(size.name for size in _unsaid(found) if size.fixed)
    return NamedRows(found.kind, sizes, _seconds(table, found, whole), places, reading, machines, unsaid, skipped)


def _seconds(table: Columns, found: _Found, whole: np.ndarray) -> np.ndarray:
    """Return the time of one call in every whole row [s]."""
    seconds = number_values(found.time, table[found.time], rows=whole) / UNITS[found.unit]
    return seconds if found.calls is None else seconds / number_values(found.calls, table[found.calls], least=1, rows=whole)


def _check_meaning(columns: Columns, meaning: Any) -> dict[str, str]:
    """Return what columns are to be read as, by their names."""
    if not isinstance(meaning, Mapping) or not all(isinstance(x, str) for pair in meaning.items() for x in pair):
        raise InvalidValueError(f"columns is {quoted(meaning)}; it must be a mapping of names of columns to what they are.")
    for name, what in meaning.items():
        if name not in columns:
            near = nearest_names(name, columns, most=2)
            raise InvalidValueError(
                f"columns names {quoted(name)}, and the table has no such column; "
                f"{'nearest' if near else 'it has'}: {show_names(near or list(columns))}."
            )
        if what != name and (what in columns or list(meaning.values()).count(what) > 1):
            raise InvalidValueError(f"columns reads {quoted(name)} as {quoted(what)}, which another column is as well.")
    return dict(meaning)


def _find(table: Columns, *, unit: str | None, kind: str | None, time: str | None) -> _Found:
    """Return which column of a table holds what."""
    named = find_kind(table, kind)
    timed, unit = find_times(table, unit=unit, time=time)
    library = library_columns(table, named)
    names = Names(name for name in table if name not in (timed, *library.values()))
    sizes = {size.name: name for size in named.sizes if (name := names.find_one(size.name, size.names)) is not None}
    if not _has_lengths(named):
        lengths, phases = {}, []
    else:
        lengths, phases = length_columns(names, sizes.pop("new", None), sizes.pop("context", None)), names.find(PHASE)
    if named.name in _NEED_LENGTHS and not lengths:
        raise InvalidValueError(
            f"the table of {named.name.replace('_', ' ')} kernels has no column of lengths: context (tokens in the cache), "
            f"new (new tokens), kv_len (both) or seq_len; it has: {show_names(list(table), most=12)}."
        )
    options = library or option_columns(names, named)
    check_options(table, named, set(options))
    read = {*sizes.values(), *lengths.values(), *options.values(), *phases[:1]}
    rest = Names(name for name in names if name not in read)
    others = calls_column(rest, timed), machine_column(rest, table), rest.find_one("sparsity", SPARSITY)
    return _Found(named, timed, unit, sizes, lengths, options, phases[0] if phases else None, *others)


def _has_lengths(kind: Kind) -> bool:
    return any(size.name == "new" for size in kind.sizes)


def _known(kind: Kind) -> dict[str, str]:
    """Return all that sizes of a kind are called, each with the usual name of that size."""
    known = {name: usual_name(size.name) for size in kind.sizes for name in size.names}
    lengths = dict.fromkeys(WHOLE, "kv_len") | dict.fromkeys((*ANY, *STEP), "seq_len")
    return known | lengths if _has_lengths(kind) else known


def _check_batch(table: Columns, found: _Found, renamed: Mapping[str, str]) -> None:
    """Raise InvalidValueError if the batch of a product is the number of its rows, told twice."""
    name, kind = found.sizes.get("batch"), found.kind
    if kind.name != "matmul" or name is None or name in renamed.values() or normalize_name(name) == "batchcount":
        return
    batch, rows = (text_values(table[column]) for column in (name, found.sizes["m"]))
    if batch == rows and set(batch) - {""} != {"1"}:
        raise InvalidValueError(
            f"column {quoted(name)} equals {quoted(found.sizes['m'])} in every row: if it is the number of rows again, say "
            f"ignore=[{quoted(name)}]; if as many products are in one batch, columns={{{quoted(name)}: 'batch_count'}}."
        )


def _holes(table: Columns, found: _Found) -> dict[str, np.ndarray]:
    """Return which rows lack a value, by the column that is empty; an empty window is none."""
    needed = (found.time, *filter(None, [found.calls]), *found.sizes.values(), *found.lengths.values())
    holes = {name: find_holes(table[name]) for name in needed if name != found.sizes.get("window")}
    return holes | {"a format": find_unlabelled(table, found.options)}


def _describe_holes(holes: Mapping[str, np.ndarray]) -> str:
    """Write the first rows with holes, counted from 1, and what is empty there."""
    places = np.flatnonzero(np.any(list(holes.values()), axis=0))
    shown = []
    for place in places[:3].tolist():
        columns = [name for name, marked in holes.items() if marked[place]]
        what = "empty" if len(columns) == len(holes) else ", ".join(columns[:3]) + (", …" if len(columns) > 3 else "")
        shown.append(f"row {place + 1} ({what})")
    return ", ".join(shown) + (f" and {places.size - 3} more" if places.size > 3 else "")


def _read(table: Columns, found: _Found, whole: np.ndarray) -> tuple[dict[str, np.ndarray], Lengths, list[str]]:
    """Return the sizes and options of every whole row, how lengths were read, and what was assumed."""
    places = np.flatnonzero(whole)
    sizes = {
        size.name: number_values(name, table[name], least=size.least, rows=whole)
        for size in found.kind.sizes
        if (name := found.sizes.get(size.name)) is not None and size.name != "window"
    }
    if "window" in found.sizes:
        sizes["window"] = _windows(found.sizes["window"], table[found.sizes["window"]], whole)
    read = Lengths({})
    if _has_lengths(found.kind):
        prompts = read_phases(text_values(table[found.phase][places])) if found.phase else None
        values = {
            what: number_values(name, table[name], least=0 if what in ("context", "step") else 1, rows=whole)
            for what, name in found.lengths.items()
        }
        read = read_lengths(found.lengths, values, prompts, places)
        sizes |= read.sizes
    texts = select({name: table[name] for name in found.options.values()}, places)
    sizes |= read_options(texts, found.kind, found.options, places)
    return sizes, read, [*read.assumed, *_assumptions(found, sizes), *_count_as_causal(sizes)]


def _windows(name: str, column: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return windows, 0 for none: -1 is none, and one that is counted to the left leaves out the token itself."""
    filled = np.where(find_holes(column), "-1", column.astype(str)).astype(object)
    values = number_values(name, filled, least=-1, rows=whole)
    return values + 1 if normalize_name(name).endswith("left") else np.maximum(values, 0)


def _unsaid(found: _Found) -> Iterator[Size]:
    """Yield the sizes that have their defaults because no column says them, where it matters."""
    for size in found.kind.sizes:
        known = size.name in found.sizes or size.name in ("new", "context", "batch", "exponent", "v_head_dim")
        if not known and size.default not in (None, 0):
            yield size


def _assumptions(found: _Found, sizes: Mapping[str, np.ndarray]) -> Iterable[str]:
    """Yield what was taken for granted where a table has no column of it, and where it matters."""
    yield from map(show_default, _unsaid(found))
    if found.calls is None and is_total(found.time):
        yield f"{found.time} is the time of one call"
    options = found.kind.options
    unsaid = "weights" in options and "output" in options and "output" not in found.options
    if unsaid and any(Format.load(name).bits < 16 for name in set(sizes["format"].tolist())):
        yield "results in bf16"
    if "routing" in options and "routing" not in found.options:
        yield "a routing that reads the fewest experts"
    if "visible" in options and "visible" not in found.options and (np.asarray(sizes.get("new", 1)) > 1).any():
        yield "causal"


def _count_as_causal(sizes: dict[str, np.ndarray]) -> list[str]:
    """Count new tokens that see all of a cache as causal, which is fewer products, and say so."""
    if "visible" not in sizes or "context" not in sizes:
        return []
    cached = (sizes["visible"] == "bidirectional") & (sizes["context"] > 0)
    sizes["visible"][cached] = "causal"
    several = int((cached & (np.asarray(sizes.get("new", 1)) > 1)).sum())
    rows = f"{several} row{'s' if several > 1 else ''}"
    return [f"causal products in {rows} whose new tokens see a whole cache: fewer than there are"] if several else []
