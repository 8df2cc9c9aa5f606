"""Columns that nobody asked for: which are no size of a kernel, and which may be one that is not understood."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.kernel_tables.columns import Columns, as_numbers, find_holes, show_names
from roofline.kernel_tables.guess import usual_name
from roofline.kernel_tables.times import ends_in_unit, time_unit
from roofline.kernels.kind import Kind, words
from roofline.names import nearest_names, normalize_name

_NO_SIZE = frozenset(
    words(
        # rates and other results
        "tflops gflops flops flop tflop gflop tops gops gbps tbps gb tb mb kb gib mib bandwidth bw algbw busbw throughput util utilization "
        "mfu mbu pct percent ratio speedup efficiency bytes memory mem std stdev stddev var cv p90 p95 p99 atol rtol tol err error errors diff "
        "wrong power watt watts temp temperature energy clock mhz ghz "
        # which run, and where
        "id idx index row run runs trial trials rep reps repeat repeats iter iters iteration iterations warmup warmups seed case config problem "
        "version date timestamp pid line port gpu device sm sms cc arch capability driver calls instances samples "
        # how a kernel is tuned
        "cta ctas tile tiles block blocks warp warps stage stages split splits splitk cluster swizzle stride lda ldb ldc ldd thread threads "
        "grid wave waves regs registers smem occupancy unroll vec pipeline raster algo tactic solution inst mt mi page pages workspace offset "
        "padding align alignment alpha beta scale scales rotating flush graph pdl sparsity"
    )
)
"""Words that a column's name has if it holds no size of a kernel: a rate, a counter of runs, a tile."""

_SIZE = frozenset(
    words(
        "seq seqs seqlen seqlens sequence sequences len lens length lengths ctx context isl osl head heads nhead nheads batch "
        "batches bs dim dims hdim headdim hidden token tokens expert experts topk window rank ranks gpus devices nodes layers "
        "groups group channels width depth rows cols columns features vocab beam positions"
    )
)
"""Words that a column's name has if it holds a size."""

_UNNAMED = re.compile(r"Unnamed: \d+|")
"""A column without a name, as pandas writes and reads its index."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+\d*|\d+")


def check_ignored(columns: Columns, ignore: object) -> list[str]:
    """Return the columns that are to be ignored, by their names or patterns of names."""
    patterns = [ignore] if isinstance(ignore, str) else ignore
    if not isinstance(patterns, (list, tuple, set, frozenset)) or not all(isinstance(p, str) for p in patterns):
        raise InvalidValueError(f"ignore is {quoted(ignore)}; it must be names of columns, or patterns like 'tile_*'.")
    found: list[str] = []
    for pattern in patterns:
        matching = [name for name in columns if name == pattern or fnmatchcase(name, pattern)]
        if not matching:
            near = nearest_names(pattern, columns, most=2)
            raise InvalidValueError(
                f"ignore names {quoted(pattern)}, and the table has no such column; "
                f"{'nearest' if near else 'it has'}: {show_names(near or list(columns))}."
            )
        found += matching
    return list(dict.fromkeys(found))


def check_leftovers(columns: Columns, left: Sequence[str], kind: Kind, known: Mapping[str, str]) -> None:
    """Raise InvalidValueError if a column that was not read may hold a size.

    Parameters
    ----------
    columns : mapping of str to numpy.ndarray
        The table.
    left : sequence of str
        Names of the columns that were not read.
    kind : Kind
        The kind of kernels.
    known : mapping of str to str
        What sizes of this kind are called → the usual name of each.
    """
    odd = [name for name in left if _may_be_size(name, columns[name])]
    if not odd:
        return
    near = list(dict.fromkeys(known[name] for name in nearest_names(odd[0], known, most=4))) if len(odd[0]) > 2 else []
    several = len(odd) > 1
    hint = f" (nearest{' to the first' if several else ''}: {', '.join(near)})" if near else ""
    raise InvalidValueError(
        f"column{'s' if several else ''} {show_names(odd)} look{'' if several else 's'} like {'sizes' if several else 'a size'} of the "
        f"{kind.name.replace('_', ' ')} kernels and {'are' if several else 'is'} not understood{hint}; say what it is, as in "
        f"columns={{{quoted(odd[0])}: '{near[0] if near else usual_name(kind.sizes[0].name)}'}}, or that it is no size with ignore=[{quoted(odd[0])}]."
    )


def _may_be_size(name: str, column: np.ndarray) -> bool:
    """Return whether a column may be a size: whole numbers above 1, or any numbers under the name of a size."""
    if time_unit(name) is not None or ends_in_unit(name) or _UNNAMED.fullmatch(name):
        return False
    holes = find_holes(column)
    if holes.all() or column.dtype.kind == "b":
        return False
    words = {word.lower() for word in _WORDS.findall(name)} | set(re.split(r"[^a-z0-9]+", name.lower())) | {normalize_name(name)}
    if words & _NO_SIZE:
        return False
    named = bool({word.rstrip("0123456789") for word in words} & _SIZE)
    numbers = as_numbers(column)[~holes]
    if np.isnan(numbers).all():  # text: lists of lengths, perhaps
        return named and any(any(map(str.isdigit, str(cell))) for cell in column[~holes].tolist())
    numbers = numbers[~np.isnan(numbers)]
    whole = bool((numbers == np.floor(numbers)).all())
    return bool((numbers > 1).any() and whole) or (named and not whole)
