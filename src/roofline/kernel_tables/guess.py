"""What kind of kernels a table holds, by its columns."""

from collections.abc import Iterable

import numpy as np

from roofline.errors import InvalidValueError
from roofline.kernel_tables.columns import show_names
from roofline.kernel_tables.lookup import Names
from roofline.kernels import KINDS
from roofline.kernels.kind import Kind, Size
from roofline.names import nearest_names, unknown_name

_DISTINCTIVE = {"latent_attention": "rank", "convolution": "channels"}
"""Kinds whose other required sizes are those of another kind too: they are guessed only from tables that have this size."""

_USUAL = {"size": "bytes", "count": "experts"}
"""Sizes that people call by another name than the argument's."""


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
    """Return the kind that has at least half of its required sizes in a table, and most of its sizes."""
    lookup = Names(names)

    def has(size: Size) -> bool:
        return bool(lookup.find(size.names))

    scores = {}
    for kind in KINDS.values():
        share = float(np.mean([has(size) for size in kind.required]))
        distinctive = _DISTINCTIVE.get(kind.name)
        if share >= 0.5 and all(has(size) for size in kind.sizes if size.name == distinctive):
            scores[kind.name] = (sum(map(has, kind.sizes)), share)
    if not scores:
        needs = "; ".join(f"{kind.name}: {', '.join(usual_name(size.name) for size in kind.required)}" for kind in KINDS.values())
        raise InvalidValueError(
            f"the columns ({show_names(names, most=12)}) do not tell what was measured. A table of each kind needs – {needs}."
        )
    return KINDS[max(scores, key=lambda kind: scores[kind])]


def usual_name(size: str) -> str:
    """Return what people call a size, given the argument's name."""
    return _USUAL.get(size, size)


def show_default(size: Size) -> str:
    """Write what a size is taken for where no column says it.

    Examples
    --------
    >>> show_default(KINDS["attention"].sizes[4])
    'kv_heads equal to heads'
    """
    return f"{usual_name(size.name)} {'equal to ' if isinstance(size.default, str) else ''}{size.default}"


def _check_required(names: list[str], kind: Kind) -> None:
    """Raise InvalidValueError if a table lacks a size that its kind requires."""
    lookup = Names(names)
    for size in kind.required:
        if not lookup.find(size.names):
            unread = [name for name in names if not any(Names([name]).find(s.names) for s in kind.sizes)]
            near = nearest_names(usual_name(size.name), unread, most=2)
            others = [name for name in size.aliases if name != usual_name(size.name)][:4]
            raise InvalidValueError(
                f"the table of {kind.name} kernels has no column {usual_name(size.name)!r}"
                + (f" (also called {', '.join(others)})" if others else "")
                + f"; {'nearest' if near else 'it has'}: {show_names(near or names)}."
            )
