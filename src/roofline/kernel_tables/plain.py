"""Tables that people write: columns by their usual names, times with the unit in the name."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from roofline.errors import InvalidValueError, UnknownNameError
from roofline.formats import Format
from roofline.kernel_tables.columns import Columns, kinds, numbers, texts
from roofline.kernel_tables.kind import Column, Kind
from roofline.kernel_tables.labels import EXPERTS, MATMULS, read_format, read_label
from roofline.kernel_tables.operators import COLLECTIVES, KINDS
from roofline.names import nearest_names, normalize_name, unknown_name

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Units of time that a table may be in [s]."""

_UNIT_NAMES = {
    "s": "s",
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "ms": "ms",
    "msec": "ms",
    "millis": "ms",
    "millisecond": "ms",
    "milliseconds": "ms",
    "us": "us",
    "µs": "us",
    "μs": "us",
    "usec": "us",
    "micros": "us",
    "microsecond": "us",
    "microseconds": "us",
    "ns": "ns",
    "nsec": "ns",
    "nanos": "ns",
    "nanosecond": "ns",
    "nanoseconds": "ns",
}
_TIMES = {"time", "latency", "duration", "elapsed", "runtime", "t"}
_QUALIFIERS = {"median", "mean", "avg", "average", "min", "p50", "measured", "kernel", "gpu", "cuda", "cpu", "device", "wall", "in"}
_WORD = re.compile(r"[^\W_]+")

_WORDS: dict[str, tuple[str, ...]] = {
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
_VISIBLE = ("causal", "window", "chunk", "bidirectional")
_ROUTING = ("best", "uniform")


def _find(names: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return those of a table's columns that go by one of some names."""
    keys = {normalize_name(name) for name in wanted}
    return [name for name in names if normalize_name(name) in keys]


def _one(names: Iterable[str], column: str, wanted: Iterable[str]) -> str | None:
    found = _find(names, wanted)
    if len(found) > 1:
        raise InvalidValueError(f"columns {', '.join(map(repr, found))} could all be {column!r}; keep one of them.")
    return found[0] if found else None


def _needed(kind: Kind) -> list[Column]:
    return [column for column in kind.columns if column.default is None]


def find_kind(names: Iterable[str], kind: str | None = None) -> Kind:
    """Return what kind of kernels a table is about, by the columns that it has.

    Examples
    --------
    >>> find_kind(["m", "n", "k", "dtype", "time_us"]).name
    'matmul'
    """
    names = list(names)
    if kind is not None:
        if kind not in KINDS:
            raise unknown_name("kind of kernels", str(kind), KINDS)
        best = KINDS[kind]
    else:
        latent = _find(names, ("rank", "kv_lora_rank", "latent_dim"))
        possible = [k for k in KINDS.values() if (k.name == "latent_attention") == bool(latent)] if latent else list(KINDS.values())
        possible = [k for k in possible if latent or k.name != "latent_attention"]  # what it needs, all attention has
        if not _find(names, ("channels", "conv_channels")):
            possible = [k for k in possible if k.name != "convolution"]  # of two columns, its batch alone says nothing
        share = {k.name: sum(bool(_find(names, (c.name, *c.aliases))) for c in _needed(k)) / len(_needed(k)) for k in possible}
        best = KINDS[max(share, key=lambda name: share[name])]
        if share[best.name] < 0.5:
            needs = "; ".join(f"{k.name}: {', '.join(map(_usual, _needed(k)))}" for k in KINDS.values())
            raise InvalidValueError(
                f"the columns ({', '.join(names[:12])}) do not tell what was measured. A table of each kind needs – {needs}."
            )
    for column in _needed(best):
        if not _find(names, (column.name, *column.aliases)):
            near = nearest_names(_usual(column), _unread(names, best), most=2)
            others = [name for name in column.aliases if name != _usual(column)]
            raise InvalidValueError(
                f"the table of {best.name} kernels has no column {_usual(column)!r}"
                + (f" (also called {', '.join(others)})" if others else "")
                + f"; {'nearest' if near else 'it has'}: {', '.join(near or names[:12])}."
            )
    return best


def _usual(column: Column) -> str:
    """Return what people call a column of sizes, where the argument that it becomes has a name of its own."""
    return {"size": "bytes", "count": "experts"}.get(column.name, column.name)


def _unread(names: Iterable[str], kind: Kind) -> list[str]:
    """Return the columns that mean nothing yet, one of which may be another's name mistyped."""
    return [name for name in names if not any(_find([name], (c.name, *c.aliases)) for c in kind.columns)]


def _unit_of(name: str) -> str | None:
    """Return the unit in a time column's name, ``""`` if it names a time without one, None if it is no column of times."""
    words = _WORD.findall(name.lower())
    unit = _UNIT_NAMES.get(words[-1]) if words else None
    rest = words[:-1] if unit else words
    if any(word not in _TIMES | _QUALIFIERS for word in rest):
        return None
    if unit:
        return unit
    return "" if _TIMES & set(rest) or words == ["median"] or words == ["mean"] else None


def read_seconds(columns: Columns, *, unit: str | None = None, time: str | None = None) -> np.ndarray:
    """Return the measured times of a table [s].

    Examples
    --------
    >>> read_seconds({"latency_ms": np.array([1.5])})
    array([0.0015])
    """
    if unit is not None and unit not in (*UNITS, "µs", "μs"):
        raise InvalidValueError(f"unit is {unit!r}; times are in one of {', '.join(UNITS)}.")
    units = {name: known for name in columns if (known := _unit_of(name)) is not None}
    if time is not None:
        if time not in columns:
            near = nearest_names(time, columns, most=2)
            raise InvalidValueError(f"the table has no column {time!r}; {'nearest' if near else 'it has'}: {', '.join(near or columns)}.")
        units = {time: units.get(time, "")}
    named = {name: known for name, known in units.items() if known} or units
    if not named:
        raise InvalidValueError(
            f"the table has no column of times, such as seconds, latency_ms or time_us; it has: {', '.join(list(columns)[:12])}."
        )
    if len(named) > 1:
        raise InvalidValueError(
            f"columns {', '.join(map(repr, named))} could all be the measured time; say which: time={next(iter(named))!r}."
        )
    ((name, known),) = named.items()
    known = _UNIT_NAMES[unit] if unit else known
    if not known:
        raise InvalidValueError(
            f"in which unit is column {name!r}? Say it in the name, {name}_ms, or with unit='ms'; one of {', '.join(UNITS)}."
        )
    return numbers(name, columns[name]) * UNITS[known]


def read_sizes(columns: Columns, kind: Kind) -> dict[str, np.ndarray]:
    """Return what each row asks for, by argument name."""
    found: dict[str, np.ndarray] = {}
    for column in kind.columns:
        name = _one(columns, column.name, (column.name, *column.aliases))
        if name is not None:
            found[column.name] = numbers(name, columns[name], least=column.least)
    return found | _read_words(columns, kind)


def _read_words(columns: Columns, kind: Kind) -> dict[str, np.ndarray]:
    """Read the formats of every row, and other words, each combination once."""
    named = {word: name for word, names in _WORDS.items() if (name := _one(columns, word, names)) is not None}
    if "op" in kind.words and "op" not in named:
        raise InvalidValueError(f"the table of collectives has no column 'op', which says for each row one of {', '.join(COLLECTIVES)}.")
    if "op" not in kind.words and not {"format", "weights", "activations", *({"kv", "state", "stream"} & set(kind.words))} & set(named):
        unread = _unread(columns, kind)
        likely = nearest_names("format", unread, most=1) + nearest_names("dtype", unread, most=1)
        hint = f"; nearest: {', '.join(dict.fromkeys(likely))}" if likely else ""
        raise InvalidValueError(f"the table has no column of formats: format or dtype for both operands, or weights and activations{hint}.")
    written = {word: np.array(texts(columns[name]), dtype=object) for word, name in named.items()}
    read = {word: np.empty(len(next(iter(columns.values()))), dtype=object) for word in kind.words}
    if not written:
        return {}
    for labels, rows in kinds(written, list(written)):
        try:
            meaning = _meaning(kind, {word: label for word, label in labels.items() if label})
        except (UnknownNameError, InvalidValueError) as error:
            raise type(error)(f"row {rows[0] + 1}: {error}") from None
        for word in kind.words:
            read[word][rows] = meaning[word]
    return read


def _meaning(kind: Kind, labels: Mapping[str, str]) -> dict[str, str]:
    words = dict(kind.words)
    if "op" in words:
        return {"op": _choice("collective", labels.get("op", ""), COLLECTIVES)}
    if "visible" in words and "visible" in labels:
        words["visible"] = _choice("visible", labels["visible"], _VISIBLE)
    if "routing" in words and "routing" in labels:
        words["routing"] = _choice("routing", labels["routing"], _ROUTING)
    if "kv" in words:
        return words | _cache_formats(labels)
    if not {"format", "weights"} & set(words):
        return words | _row_formats(labels, kind)
    return words | _product_formats(labels, EXPERTS if "routing" in words else MATMULS)


def _choice(what: str, given: str, allowed: tuple[str, ...]) -> str:
    for name in allowed:
        if normalize_name(name) == normalize_name(given):
            return name
    raise unknown_name(what, given, allowed)


def _product_formats(labels: Mapping[str, str], known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Read the formats of rows and weights from what a row says of them."""
    weights, rows = labels.get("weights"), labels.get("activations")
    if weights is None and rows is None:
        if "format" not in labels:
            raise InvalidValueError("no format stands there: neither of both operands, nor of weights or activations.")
        return read_label(labels["format"], known)
    if weights is None:
        weights = labels.get("format", rows)
    elif rows is None:
        rows = labels.get("format") or Format.load(read_format(weights)).activations
    return {"format": read_format(str(rows)), "weights": read_format(str(weights))}


def _cache_formats(labels: Mapping[str, str]) -> dict[str, str]:
    """Read the formats of cache and queries; queries of a narrower cache have 16 bits unless a row says otherwise."""
    rows, kv = labels.get("activations", labels.get("format")), labels.get("kv")
    if kv is None and rows is None:
        raise InvalidValueError("no format stands there: neither of the cache nor of the queries.")
    cache = Format.load(read_format(str(kv if kv is not None else rows)))
    queries = read_format(rows) if rows is not None else cache.name if cache.bits >= 16 else "bf16"
    return {"kv": cache.name, "activations": queries}


def _row_formats(labels: Mapping[str, str], kind: Kind) -> dict[str, str]:
    """Read the formats of kernels without weights or cache: of their rows, of what comes out, of a state."""
    rows = labels.get("activations", labels.get("stream", labels.get("format")))
    if rows is None and not ("state" in labels and "state" in kind.words):
        raise InvalidValueError("no format stands there: none of the rows.")
    found = {word: labels[word] for word in ("state", "output") if word in kind.words and word in labels}
    if rows is not None:
        found["stream" if "stream" in kind.words else "activations"] = rows
    found = {word: read_format(label) for word, label in found.items()}
    return found if "output" not in kind.words else {"output": found["activations"], **found}
