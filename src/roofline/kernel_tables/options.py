"""What rows of a table say in words: number formats, the collective, the routing, which positions are seen."""

from collections.abc import Iterable, Mapping

import numpy as np

from roofline.errors import InvalidValueError, UnknownNameError, quoted
from roofline.formats import Format
from roofline.kernel_tables.columns import Columns, rows_by_value, text_values
from roofline.kernel_tables.labels import EXPERTS, MATMULS, read_format, read_label
from roofline.kernel_tables.lookup import Names
from roofline.kernels.kind import Kind, words
from roofline.kernels.kinds import COLLECTIVES
from roofline.names import nearest_names, normalize_name, unknown_name
from roofline.ops import PowerLaw
from roofline.ops.routing import parse_routing

_NAMES: dict[str, tuple[str, ...]] = {
    option: words(names)
    for option, names in {
        "format": "format dtype data_type datatype type gemm_dtype moe_dtype attn_dtype mla_dtype precision label quant quantization",
        "weights": "weights weight_dtype weights_dtype weight_format weight_type w_dtype b_type b_dtype dtype_b",
        "activations": "activations activation_dtype activations_dtype activation_format a_dtype a_type dtype_a input_dtype in_dtype q_dtype",
        "kv": "kv kv_dtype kv_cache_dtype kv_format kv_data_type cache_dtype",
        "op": "op op_name collective coll",
        "routing": "routing",
        "visible": "visible causal is_causal mask mask_type",
        "state": "state state_dtype state_format ssm_dtype",
        "stream": "stream",
        "output": "output output_dtype output_format output_type out_dtype",
    }.items()
}
"""What a column of text says → the names that it goes by."""

_LIBRARIES = (
    ({"A": "activations", "B": "weights", "D": "output"}, ":"),
    ({"a_type": "activations", "b_type": "weights", "d_type": "output"}, "_r"),
)
"""Operands of products as libraries print them, and what all of these cells have in common: CUTLASS (``f16:column``) and hipBLASLt
(``bf16_r``)."""

_CAUSAL = {
    **dict.fromkeys(("causal", "true", "1", "yes"), "causal"),
    **dict.fromkeys(("bidirectional", "full", "false", "0", "no"), "bidirectional"),
    **{name: name for name in ("window", "chunk")},
}
"""What tables say of the positions that a token sees → the name of it here."""


def library_columns(columns: Columns, kind: Kind) -> dict[str, str]:
    """Return the columns of formats in the printed results of a library, by what they say; none in any other table.

    Examples
    --------
    >>> from roofline.kernels import KINDS
    >>> library_columns({name: np.array(["f16:row"]) for name in "ABCD"}, KINDS["matmul"])
    {'activations': 'A', 'weights': 'B', 'output': 'D'}
    """
    for named, mark in _LIBRARIES if kind.name == "matmul" else ():
        if named.keys() <= columns.keys() and all(mark in text for name in named for text in text_values(columns[name][:1])):
            return {option: name for name, option in named.items()}
    return {}


def option_columns(names: Names, kind: Kind) -> dict[str, str]:
    """Return the columns of text that a kind of kernels needs, by what they say."""
    wanted = {*kind.options, "format", "weights", "activations"} - ({"kv"} if "kv" not in kind.options else set())
    if "op" in kind.options:
        wanted = {"op"}
    return {option: name for option in _NAMES if option in wanted and (name := names.find_one(option, _NAMES[option])) is not None}


def check_options(columns: Iterable[str], kind: Kind, named: set[str]) -> None:
    """Raise InvalidValueError if a table of collectives does not name them, or any other has no formats."""
    if "op" in kind.options:
        if "op" not in named:
            raise InvalidValueError(f"the table of collectives has no column 'op', one of {', '.join(COLLECTIVES)} in each row.")
        return
    if not named & {"format", "weights", "activations", *({"kv", "state", "stream"} & set(kind.options))}:
        sizes = {normalize_name(name) for size in kind.sizes for name in size.names}
        unread = [name for name in columns if normalize_name(name) not in sizes]
        likely = nearest_names("format", unread, most=1) + nearest_names("dtype", unread, most=1)
        hint = f"; nearest: {', '.join(dict.fromkeys(likely))}" if likely else ""
        raise InvalidValueError(f"the table has no column of formats: format or dtype for both operands, or weights and activations{hint}.")


def find_unlabelled(columns: Columns, named: Mapping[str, str]) -> np.ndarray:
    """Mark the rows in which no column says what they are: neither a format nor the collective."""
    says = [name for option, name in named.items() if option not in ("routing", "visible", "output")]
    texts = np.array([[text != "" for text in text_values(columns[name])] for name in says], dtype=bool)
    return np.asarray(~texts.any(axis=0))


def read_options(columns: Columns, kind: Kind, named: Mapping[str, str], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Read the formats and other options of every row, each combination of texts once."""
    written = {option: np.array(text_values(columns[name]), dtype=object) for option, name in named.items()}
    read = {option: np.empty(len(rows), dtype=object) for option in kind.options}
    for texts, places in rows_by_value(written, list(written)):
        try:
            options = _options_of_row(kind, {option: text for option, text in texts.items() if text})
        except (UnknownNameError, InvalidValueError) as error:
            raise type(error)(f"row {rows[places[0]] + 1}: {error}") from None
        for option in kind.options:
            read[option][places] = options[option]
    return read


def _options_of_row(kind: Kind, texts: Mapping[str, str]) -> dict[str, str]:
    """Return the options of a row from the texts of its columns."""
    options = dict(kind.options)
    if "op" in options:
        return {"op": _choose("collective", texts.get("op", ""), {name: name for name in COLLECTIVES})}
    if "visible" in options and "visible" in texts:
        options["visible"] = _choose("visible", texts["visible"], _CAUSAL)
    if "routing" in options and "routing" in texts:
        options["routing"] = _read_routing(texts["routing"])
    if "kv" in options:
        return options | _cache_formats(texts)
    if not {"format", "weights"} & set(options):
        return options | _row_formats(texts, kind)
    if "output" in options and "output" in texts:
        options["output"] = read_format(texts["output"])
    return options | _product_formats(texts, EXPERTS if "routing" in options else MATMULS)


def _choose(what: str, given: str, allowed: Mapping[str, str]) -> str:
    for name, meaning in allowed.items():
        if normalize_name(name) == normalize_name(given):
            return meaning
    raise unknown_name(what, given, allowed)


def _read_routing(text: str) -> str:
    routing = parse_routing(text.lower())
    if isinstance(routing, PowerLaw):
        raise InvalidValueError(f"routing {quoted(text)} gives no bound for measured experts: give 'best' or 'uniform'.")
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
    if kv is not None and normalize_name(kv) == "auto" and rows is not None:  # as engines say it: like the queries
        kv = rows
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
