"""Which positions a token attends to: read from mask functions of indices, from the values of masks, and from what was laid over scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from roofline.torch_modules.notes import address_of, noted
from roofline.torch_modules.required import torch
from roofline.torch_modules.values import Values
from roofline.visibility import BIDIRECTIONAL, CAUSAL, Visibility

_LOW = -1e4
"""What is added to scores, or written over them, hides a key from here on down [-]."""


def pattern(seen: torch.Tensor) -> Visibility | None:
    """Return which positions a token attends to by a mask of (…, queries, keys) that is true where it does, None where it is none of the known."""
    rows = seen.shape[-1]
    if seen.ndim > 1 and seen.shape[-2] not in (1, rows):  # of a source and of the sequence at once
        return None
    seen = seen.expand(*seen.shape[:-2], rows, rows) if seen.ndim > 1 else seen.expand(rows, rows)
    seen = seen.reshape(-1, rows, rows)
    if len(seen) > 1 and not bool((seen[1:] == seen[:1]).all()):
        return None
    seen = seen[0]
    chunk = max(int(seen[:, 0].int().argmin()), 1)  # the first that no longer sees position 0
    ahead, width = int(seen[0].sum()), int(seen[-1].sum())
    if ahead == rows == width:
        found = BIDIRECTIONAL
    elif ahead > 1:
        found = (
            Visibility("block", ahead) if chunk == ahead and not bool(seen[ahead, :ahead].any()) else Visibility("bidirectional", ahead - 1)
        )
    elif width == rows:
        found = CAUSAL
    else:
        alone = chunk > 1 and int(seen[chunk].sum()) == 1
        found = Visibility("chunk", chunk) if alone else Visibility("window", width)
    return found if torch.equal(seen, _mask(found, rows)) else None


@lru_cache(maxsize=4)
def _mask(visible: Visibility, rows: int) -> torch.Tensor:
    """Return the mask of (queries, keys) that is true where a token attends."""
    ones = torch.ones((rows, rows), dtype=torch.bool, device="cpu")
    if visible == BIDIRECTIONAL:
        return ones
    if visible == CAUSAL:
        return ones.tril_()
    if visible.kind == "window":
        return ones.tril_().triu_(1 - visible.span)
    if visible.kind == "bidirectional":
        return ones.tril_(visible.span).triu_(-visible.span)
    at = torch.arange(rows, device="cpu") // visible.span
    blocks = at[:, None] == at[None, :]
    return blocks.tril_() if visible.kind == "chunk" else blocks


def of_mask(value: torch.Tensor) -> Visibility | None:
    """Return which positions a mask of attention leaves: one of truth values, or one that is added."""
    return pattern(value if value.dtype is torch.bool else value > _LOW)


_WEIGHS = frozenset(
    ("_softmax", "_safe_softmax", "_log_softmax", "exp", "exp2", "sigmoid", "relu", "leaky_relu", "tanh", "silu", "gelu", "elu", "softplus")
)
"""Operators that make of scores what no sum over the keys can be taken out of: a softmax, its exponential, or what stands in its place."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What was laid over scores, the products of queries and keys."""

    hidden: torch.Tensor | None = None  # the keys that masks of known values hide from a query
    said: Visibility | None = None  # what a mask says that a function of indices made
    unknown: bool = False  # whether something of unknown values was laid over them
    cut: bool = False  # whether something of unknown values chose among them
    weighed: bool = False  # whether they passed a softmax, or another function that is not linear

    @property
    def visible(self) -> Visibility | None:
        """Which positions a token attends to, None where that is not known."""
        if self.said is not None:
            return self.said
        if self.hidden is not None and (not self.unknown or bool(self.hidden.any())):
            return pattern(~self.hidden)
        return None if self.unknown else BIDIRECTIONAL

    def under(self, name: str, args: Sequence[Any], values: Values, keys: int, said: Callable[[Any], Visibility | None]) -> "Scores":
        """Return what lies over the scores after an operator that is given them among its arguments."""
        places = [i for i, arg in enumerate(args) if scores_of(arg) is self]
        others = [arg for arg in args if isinstance(arg, torch.Tensor) and scores_of(arg) is not self]
        if name in ("tril", "triu") and places == [0]:
            ones = torch.ones(args[0].shape[-2:], dtype=torch.bool, device="cpu")
            return self._hiding(~getattr(torch, name)(ones, *args[1:]))
        if name in ("index_put", "copy", "masked_scatter", "scatter"):
            return replace(self, unknown=True, cut=True)
        if name == "masked_fill" and places == [0]:
            return self._filled(values.of(args[1]), values.number(args[2]))
        if name == "where" and len(args) == 3 and places in ([1], [2]):
            chosen = values.of(args[0])
            hides = chosen if chosen is None or places == [2] else ~chosen
            return self._filled(hides, values.number(args[3 - places[0]]))
        over = self
        if name in ("add", "sub", "rsub", "mul", "minimum", "baddbmm"):
            for other in others:
                if other.ndim and other.shape[-1] == keys:
                    over = over._under_one(name, other, values.of(other), said(other), left=places == [0])
        return over

    def passed(self, name: str) -> "Scores":
        """Return what lies over the scores after an operator that is given them alone."""
        return replace(self, weighed=True) if name in _WEIGHS else self

    def _under_one(self, name: str, other: torch.Tensor, value: torch.Tensor | None, said: Visibility | None, *, left: bool) -> "Scores":
        beside = scores_of(other)
        if said is not None:
            return replace(self, said=said)
        if beside is not None:
            both = replace(self, said=self.said or beside.said, unknown=self.unknown or beside.unknown, cut=self.cut or beside.cut)
            both = replace(both, weighed=self.weighed or beside.weighed)
            return both if beside.hidden is None else both._hiding(beside.hidden)
        if value is None:
            return replace(self, unknown=True)
        if name == "mul":
            return self._hiding(value == 0)
        return self._hiding(value >= -_LOW if name == "sub" and left else value <= _LOW)

    def _filled(self, hides: torch.Tensor | None, fill: float | None) -> "Scores":
        if hides is None or fill is None or not (fill <= _LOW or fill == 0):
            return replace(self, unknown=True, cut=True)
        return self._hiding(hides)

    def _hiding(self, hidden: torch.Tensor) -> "Scores":
        if not bool(hidden.any()) and self.hidden is None:
            return replace(self, hidden=hidden)
        return replace(self, hidden=hidden if self.hidden is None else hidden | self.hidden)


def scores_of(tensor: Any) -> Scores | None:
    """Return what lies over a tensor that holds scores, None where it holds none."""
    found: Scores | None = noted(tensor, "scores")
    return found


SEEN: dict[int, tuple[torch.Tensor, Visibility | None]] = {}
"""What masks that transformers made by the mask function of `interfaces` let a token see, by the address of their storage [-]."""


def seen_of(mask: Any) -> Visibility | None:
    """Return what a mask lets a token see, where it is one that the mask function of `interfaces` made."""
    found = SEEN.get(address_of(mask)) if isinstance(mask, torch.Tensor) else None
    return None if found is None else found[1]


def of_function(function: Callable[..., Any]) -> Visibility | None:
    """Return which positions a mask function of indices lets a token see, None where it depends on more than indices."""
    far = 1 << 17
    first: list[int] = []
    for query in (far, far + 1000):
        keys = torch.arange(query + 2, device="cpu")
        at = torch.tensor(query, device="cpu")
        zero = torch.tensor(0, device="cpu")
        try:
            row = torch.as_tensor(function(zero, zero, at, keys), device="cpu").expand(keys.shape)
            if row.device.type != "cpu":
                return None
        except (RuntimeError, IndexError, NotImplementedError):
            return None
        seen = row.nonzero().flatten()
        if not len(seen) or len(seen) != int(seen[-1] - seen[0]) + 1:
            return None
        if int(seen[-1]) > query:  # it sees what comes after it
            span = query - int(seen[0])
            return Visibility("bidirectional", 0 if int(seen[0]) == 0 else span)
        first.append(query - int(seen[0]) + 1)
    if first[0] == far + 1:
        return CAUSAL
    if first[0] == first[1]:
        return Visibility("window", first[0])
    return _chunk(function)


def _chunk(function: Callable[..., Any]) -> Visibility | None:
    """Return the chunk that a mask function cuts the sequence into: its second position after 0 that no longer sees it."""
    positions, zero = torch.arange(1 << 17, device="cpu"), torch.tensor(0, device="cpu")
    hidden = (~torch.as_tensor(function(zero, zero, positions, zero), device="cpu")).nonzero().flatten()
    return Visibility("chunk", int(hidden[0])) if len(hidden) else None


def added(function: Callable[..., Any], queries: int, keys: int, dtype: torch.dtype) -> torch.Tensor | None:
    """Return the mask to add to scores that a mask function of indices makes, None where it depends on more than indices."""
    zero = torch.tensor(0, device="cpu")
    at, of = torch.arange(keys - queries, keys, device="cpu")[:, None], torch.arange(keys, device="cpu")[None, :]
    try:
        seen = torch.as_tensor(function(zero, zero, at, of), device="cpu").expand(queries, keys)
    except (RuntimeError, IndexError, NotImplementedError):
        return None
    return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)[None, None] if seen.device.type == "cpu" else None
