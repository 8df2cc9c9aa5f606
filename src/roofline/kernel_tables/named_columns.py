"""Tables in no particular layout: columns found by their usual names, times with the unit in the name."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from roofline.errors import InvalidValueError, UnknownNameError
from roofline.formats import Format
from roofline.kernel_tables.columns import Columns, number_values, rows_by_value, text_values
from roofline.kernel_tables.labels import EXPERTS, MATMULS, read_format, read_label
from roofline.kernels import KINDS
from roofline.kernels.kind import Kind, Size
from roofline.kernels.kinds import COLLECTIVES
from roofline.names import nearest_names, normalize_name, unknown_name
from roofline.ops import PowerLaw
from roofline.ops.routing import parse_routing

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Units of time that a table may be in [s]."""

_UNIT_NAMES = {
    name: unit
    for unit, names in {
        "s": "s sec secs second seconds",
        "ms": "ms msec millis millisecond milliseconds",
        "us": "us µs μs usec micros microsecond microseconds",
        "ns": "ns nsec nanos nanosecond nanoseconds",
    }.items()
    for name in names.split()
}
_TIMES = {"time", "latency", "duration", "elapsed", "runtime", "t"}
_QUALIFIERS = {"median", "mean", "avg", "average", "min", "p50", "measured", "kernel", "gpu", "cuda", "cpu", "device", "wall", "in"}
_WORD = re.compile(r"[^\W_]+")

_TEXT_COLUMNS: dict[str, tuple[str, ...]] = {
    "format": ("format", "dtype", "gemm_dtype", "moe_dtype", "attn_dtype", "mla_dtype", "precision", "label"),
    "weights": ("weights", "weight_dtype", "weights_dtype", "weight_format", "w_dtype"),
    "activations": ("activations", "activation_dtype", "activations_dtype", "activation_format", "a_dtype", "input_dtype"),
    "kv": ("kv", "kv_dtype", "kv_cache_dtype", "kv_format", "cache_dtype"),
    "op": ("op", "op_name", "collective"),
    "routing": ("routing",),
    "visible": ("visible",),
    "state": ("state", "state_dtype", "state_format", "ssm_dtype"),
    "stream": ("stream",),
    "output": ("output", "output_dtype", "output_format", "out_dtype"),
}
"""What a column of text says → the names that it goes by."""

_VISIBLE = ("causal", "window", "chunk", "bidirectional")

_DISTINCTIVE = {"latent_attention": "rank", "convolution": "channels"}
"""Kinds whose other required sizes are those of another kind too: they are guessed only from tables that have this size."""

_USUAL = {"size": "bytes", "count": "experts"}
"""Sizes that people call by another name than the argument's."""


def _find(names: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return the columns of a table that go by one of the wanted names."""
    keys = {normalize_name(name) for name in wanted}
    return [name for name in names if normalize_name(name) in keys]


def _find_one(names: Iterable[str], column: str, wanted: Iterable[str]) -> str | None:
    found = _find(names, wanted)
    if len(found) > 1:
        raise InvalidValueError(f"columns {', '.join(map(repr, found))} could all be {column!r}; keep one of them.")
    return found[0] if found else None


def _usual(size: Size) -> str:
    return _USUAL.get(size.name, size.name)


def _unread(names: Iterable[str], kind: Kind) -> list[str]:
    """Return the columns that are no size of a kind: one of them may be a misspelt name."""
    return [name for name in names if not any(_find([name], size.names) for size in kind.sizes)]


def find_kind(names: Iterable[str], kind: str | None = None) -> Kind:
    """Return the kind of kernels in a table, by its columns unless it is given.

    Examples
    --------
    >>> find_kind(["m", "n", "k", "dtype", "time_us"]).name
    'matmul'
    """
    names = list(names)
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of kernels", str(kind), KINDS)
    found = _guess_kind(names) if kind is None else KINDS[kind]
    _check_required(names, found)
    return found


def _guess_kind(names: list[str]) -> Kind:
    """Return the kind of which a table has the largest share of the required sizes, at least half of them."""
    shares = {kind.name: np.mean([bool(_find(names, size.names)) for size in kind.required]) for kind in KINDS.values()}
    for kind, distinctive in _DISTINCTIVE.items():
        if not any(_find(names, size.names) for size in KINDS[kind].sizes if size.name == distinctive):
            del shares[kind]
    best = max(shares, key=lambda kind: shares[kind])
    if shares[best] < 0.5:
        needs = "; ".join(f"{kind.name}: {', '.join(map(_usual, kind.required))}" for kind in KINDS.values())
        raise InvalidValueError(
            f"the columns ({', '.join(names[:12])}) do not tell what was measured. A table of each kind needs – {needs}."
        )
    return KINDS[best]


def _check_required(names: list[str], kind: Kind) -> None:
    """Raise InvalidValueError if a table lacks a size that its kind requires."""
    for size in kind.required:
        if not _find(names, size.names):
            near = nearest_names(_usual(size), _unread(names, kind), most=2)
            others = [name for name in size.aliases if name != _usual(size)]
            raise InvalidValueError(
                f"the table of {kind.name} kernels has no column {_usual(size)!r}"
                + (f" (also called {', '.join(others)})" if others else "")
                + f"; {'nearest' if near else 'it has'}: {', '.join(near or names[:12])}."
            )


def _time_unit(name: str) -> str | None:
    """Return the unit in the name of a column of times, ``""`` if it names none, None if it is no column of times."""
    words = _WORD.findall(name.lower())
    unit = _UNIT_NAMES.get(words[-1]) if words else None
    rest = words[:-1] if unit else words
    if any(word not in _TIMES | _QUALIFIERS for word in rest):
        return None
    if unit:
        return unit
    return "" if _TIMES & set(rest) or words in (["median"], ["mean"]) else None


def read_seconds(columns: Columns, *, unit: str | None = None, time: str | None = None) -> np.ndarray:
    """Return the measured times of a table [s].

    Examples
    --------
    >>> read_seconds({"latency_ms": np.array([1.5])})
    array([0.0015])
    """
    if unit is not None and unit not in (*UNITS, "µs", "μs"):
        raise InvalidValueError(f"unit is {unit!r}; it must be one of {', '.join(UNITS)}.")
    name, named_unit = _find_times(columns, time)
    unit = _UNIT_NAMES[unit] if unit else named_unit
    if not unit:
        raise InvalidValueError(f"column {name!r} has no unit: call it {name}_ms or give unit='ms'; units are {', '.join(UNITS)}.")
    return number_values(name, columns[name]) * UNITS[unit]


def _find_times(columns: Columns, time: str | None) -> tuple[str, str]:
    """Return the column of times and the unit in its name, empty if it has none."""
    if time is not None:
        if time not in columns:
            near = nearest_names(time, columns, most=2)
            raise InvalidValueError(f"the table has no column {time!r}; {'nearest' if near else 'it has'}: {', '.join(near or columns)}.")
        return time, _time_unit(time) or ""
    units = {name: unit for name in columns if (unit := _time_unit(name)) is not None}
    named = {name: unit for name, unit in units.items() if unit} or units
    if not named:
        raise InvalidValueError(
            f"the table has no column of times, such as seconds, latency_ms or time_us; it has: {', '.join(list(columns)[:12])}."
        )
    if len(named) > 1:
        raise InvalidValueError(
            f"columns {', '.join(map(repr, named))} could all be the measured time; choose one with time={next(iter(named))!r}."
        )
    return next(iter(named.items()))


def read_sizes(columns: Columns, kind: Kind) -> dict[str, np.ndarray]:
    """Return the sizes and options of every row, by argument name."""
    found: dict[str, np.ndarray] = {}
    for size in kind.sizes:
        name = _find_one(columns, size.name, size.names)
        if name is not None:
            found[size.name] = number_values(name, columns[name], least=size.least)
    return found | _read_options(columns, kind)


def _read_options(columns: Columns, kind: Kind) -> dict[str, np.ndarray]:
    """Read the formats and other options of every row, each combination of texts once."""
    named = {option: name for option, names in _TEXT_COLUMNS.items() if (name := _find_one(columns, option, names)) is not None}
    _check_option_columns(columns, kind, set(named))
    if not named:
        return {}
    written = {option: np.array(text_values(columns[name]), dtype=object) for option, name in named.items()}
    read = {option: np.empty(len(next(iter(columns.values()))), dtype=object) for option in kind.options}
    for texts, rows in rows_by_value(written, list(written)):
        try:
            options = _options_of_row(kind, {option: text for option, text in texts.items() if text})
        except (UnknownNameError, InvalidValueError) as error:
            raise type(error)(f"row {rows[0] + 1}: {error}") from None
        for option in kind.options:
            read[option][rows] = options[option]
    return read


def _check_option_columns(columns: Columns, kind: Kind, named: set[str]) -> None:
    """Raise InvalidValueError if a table of collectives does not name them, or any other has no formats."""
    if "op" in kind.options:
        if "op" not in named:
            raise InvalidValueError(f"the table of collectives has no column 'op', one of {', '.join(COLLECTIVES)} in each row.")
        return
    if not named & {"format", "weights", "activations", *({"kv", "state", "stream"} & set(kind.options))}:
        unread = _unread(columns, kind)
        likely = nearest_names("format", unread, most=1) + nearest_names("dtype", unread, most=1)
        hint = f"; nearest: {', '.join(dict.fromkeys(likely))}" if likely else ""
        raise InvalidValueError(f"the table has no column of formats: format or dtype for both operands, or weights and activations{hint}.")


def _options_of_row(kind: Kind, texts: Mapping[str, str]) -> dict[str, str]:
    """Return the options of a row from the texts of its columns."""
    options = dict(kind.options)
    if "op" in options:
        return {"op": _choose("collective", texts.get("op", ""), COLLECTIVES)}
    if "visible" in options and "visible" in texts:
        options["visible"] = _choose("visible", texts["visible"], _VISIBLE)
    if "routing" in options and "routing" in texts:
        options["routing"] = _read_routing(texts["routing"])
    if "kv" in options:
        return options | _cache_formats(texts)
    if not {"format", "weights"} & set(options):
        return options | _row_formats(texts, kind)
    return options | _product_formats(texts, EXPERTS if "routing" in options else MATMULS)


def _choose(what: str, given: str, allowed: tuple[str, ...]) -> str:
    for name in allowed:
        if normalize_name(name) == normalize_name(given):
            return name
    raise unknown_name(what, given, allowed)


def _read_routing(text: str) -> str:
    routing = parse_routing(text.lower())
    if isinstance(routing, PowerLaw):
        raise InvalidValueError(f"routing {text!r} gives no bound for measured experts: give 'best' or 'uniform'.")
    return str(routing)


def _product_formats(texts: Mapping[str, str], known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Read the formats of rows and weights."""
    weights, rows = texts.get("weights"), texts.get("activations")
    if weights is None and rows is None:
        if "format" not in texts:
            raise InvalidValueError("no format is given: neither one for both operands, nor that of weights or activations.")
        return read_label(texts["format"], known)
    if weights is None:
        weights = texts.get("format", rows)
    elif rows is None:
        rows = texts.get("format") or Format.load(read_format(weights)).activations
    return {"format": read_format(str(rows)), "weights": read_format(str(weights))}


def _cache_formats(texts: Mapping[str, str]) -> dict[str, str]:
    """Read the formats of cache and queries; unless given, queries have the cache's format, or bf16 if that has fewer than 16 bits."""
    rows, kv = texts.get("activations", texts.get("format")), texts.get("kv")
    if kv is None and rows is None:
        raise InvalidValueError("no format is given, neither of the cache nor of the queries.")
    cache = Format.load(read_format(str(kv if kv is not None else rows)))
    queries = read_format(rows) if rows is not None else cache.name if cache.bits >= 16 else "bf16"
    return {"kv": cache.name, "activations": queries}


def _row_formats(texts: Mapping[str, str], kind: Kind) -> dict[str, str]:
    """Read the formats of kernels without weights or cache: of rows, output and state."""
    rows = texts.get("activations", texts.get("stream", texts.get("format")))
    if rows is None and not ("state" in texts and "state" in kind.options):
        raise InvalidValueError("no format of the rows is given.")
    found = {option: texts[option] for option in ("state", "output") if option in kind.options and option in texts}
    if rows is not None:
        found["stream" if "stream" in kind.options else "activations"] = rows
    found = {option: read_format(text) for option, text in found.items()}
    return found if "output" not in kind.options else {"output": found["activations"], **found}
