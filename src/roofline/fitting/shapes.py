"""Constants of single shapes: those of a class of kernels, fitted again to the rows of each shape and held near the class's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from roofline.fitting.selection import residual_fields
from roofline.fitting.solve import SCALE
from roofline.kernel_tables.table import KernelGroup
from roofline.kernels import Family
from roofline.kernels.near import shape_weights
from roofline.records import Shapes

_MOST_DEVICES, _MOST_RANKS = 16, 64  # that share a mixture in rows that are fitted; the latter where experts are spread whole
_MODEL = ("hidden", "count")  # sizes of a group of kernels that tell models apart, on however many devices they run
_ORDER = ("link_bytes", "rows")  # amounts by which the rows of a shape are in order, the last one first
_FEWEST = 10  # rows of a shape that are fitted, at least; what they leave open stays near the class's
_RUNS = {"matmul": 2}  # neighbours that are fitted or held out together: tables have products of 512 and 513 rows, 768 and 769, …
_HELD = 1.0  # how far, in natural logarithms, a constant may well lie from the class's
_DECODE = 256  # tokens of a decode step, at most
_ROUNDS = 15
_STEP = 1.0  # of a logarithm, at most, in one round
_NUDGE = 1e-4  # for derivatives
_DIGITS = 3  # of a constant: half a percent at most is lost


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a class with what a fit needs of them, and the shape of each."""

    x: Mapping[str, np.ndarray]  # features
    seconds: np.ndarray  # measured times [s]
    rates: Mapping[str, np.ndarray]  # what shares refer to, by the names of :attr:`Family.seconds`
    shape: np.ndarray  # number of the shape of each
    sizes: np.ndarray  # sizes of the shapes, shapes × sizes
    model: np.ndarray  # number of the model of each shape
    weight: np.ndarray  # how much each row counts, 1 on average in every shape

    def take(self, some: np.ndarray) -> "Rows":
        """Return some of the rows."""
        x, rates = ({n: c[some] for n, c in columns.items()} for columns in (self.x, self.rates))
        return Rows(x, self.seconds[some], rates, self.shape[some], self.sizes, self.model, self.weight[some])


def shape_rows(family: Family, groups: Sequence[KernelGroup]) -> np.ndarray:
    """Mark the rows that constants of single shapes are fitted to: of each shape every second one, in the order of tokens, of products two of four.

    Of shapes with too few rows, and of degrees of parallelism beyond those that deployments have, none is marked.
    """
    shape = _numbers(family, groups)[0]
    order = np.lexsort((*(row_values([getattr(g.op, amount) for g in groups], groups) for amount in _ORDER), shape))
    first = np.searchsorted(shape[order], shape[order])
    marked = np.zeros(shape.size, bool)
    marked[order] = (np.arange(shape.size) - first) // _RUNS.get(family.name, 1) % 2 == 0
    counts = np.bincount(shape[marked], minlength=shape.max(initial=0) + 1)
    tensor, expert = (row_values([g.fixed.get(name, 1) for g in groups], groups) for name in ("tp", "ep"))
    usual = tensor * expert <= np.where(tensor == 1, _MOST_RANKS, _MOST_DEVICES)
    found: np.ndarray = marked & usual & (counts[shape] >= _FEWEST)
    return found


def fit_shapes(
    family: Family,
    groups: Sequence[KernelGroup],
    x: Mapping[str, np.ndarray],
    seconds: np.ndarray,
    constants: Mapping[str, float],
    rates: Mapping[str, Any],
) -> tuple[Shapes, dict[str, Any]] | None:
    """Return the constants of single shapes, and the fields of a class that the residuals of all rows fill if their own shape is not known.

    None where no shape has enough rows. Shapes that are not alike say nothing of others, and fill no fields of the class.
    """
    shape, sizes, model = _numbers(family, groups)
    decode = decode_rows(groups)
    marked = shape_rows(family, groups)
    kept = np.unique(shape[marked])
    if kept.size < 2:
        return None
    some = np.isin(shape, kept)
    every = Rows(
        x, seconds, {n: np.broadcast_to(rate, seconds.shape) for n, rate in rates.items()}, shape, sizes, model, np.ones(shape.size)
    )
    rows = replace(every.take(some), shape=np.searchsorted(kept, shape[some]), sizes=sizes[kept], model=model[kept])
    fitted = rows.take(marked[some])
    fitted = replace(fitted, weight=_weights(family, fitted, decode[some][marked[some]]))
    logs = _fit(family, fitted, np.log([constants[c.name] for c in family.constants]))
    values = np.array([[float(f"{v:.{_DIGITS}g}") for v in row] for row in np.exp(logs)])
    logs = np.log(np.clip(values, [c.least for c in family.constants], [c.most for c in family.constants]))
    unseen = _residuals(family, rows, logs)[~marked[some]]
    others = {name: column[some][~marked[some]] for name, column in x.items()}
    found = Shapes(
        sizes={name: tuple(column.tolist()) for name, column in zip(family.shape, rows.sizes.T, strict=True)},
        constants={c.name: tuple(column.tolist()) for c, column in zip(family.constants, values.T, strict=True)},
        near=family.alike,
        **residual_fields(family, others, unseen, decode[some][~marked[some]]),
    )
    if not family.alike:
        return found, {}
    return found, residual_fields(family, x, _residuals(family, every, _by_others(every, kept, logs)), decode)


def decode_rows(groups: Sequence[KernelGroup]) -> np.ndarray:
    """Mark the rows of decode steps: with one new token of each sequence or, where nothing says so, of few tokens."""
    tokens = (g.sizes.get("new", g.sizes.get("tokens", g.op.rows)) for g in groups)
    marked: np.ndarray = row_values(list(tokens), groups) <= row_values([1 if "new" in g.sizes else _DECODE for g in groups], groups)
    return marked


def row_values(values: Sequence[Any], groups: Sequence[KernelGroup]) -> np.ndarray:
    """Return one value of every row, given those of each group."""
    return np.concatenate([np.broadcast_to(np.asarray(v, dtype=float), (len(g),)) for v, g in zip(values, groups, strict=True)])


def _numbers(family: Family, groups: Sequence[KernelGroup]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the number of the shape of every row, the sizes of each shape, and the number of the model of each."""
    own = np.stack([row_values([g.op.sizes[name] for g in groups], groups) for name in family.shape], axis=1)
    sizes, first, numbers = np.unique(own, axis=0, return_index=True, return_inverse=True)
    whole = np.stack([row_values([g.fixed.get(name, 0) for g in groups], groups) for name in _MODEL], axis=1)
    model = np.unique(whole, axis=0, return_inverse=True)[1].ravel()
    return numbers.ravel(), sizes, model[first]


def _by_others(rows: Rows, kept: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Return for every shape the constants that it has from others, given those of the shapes that were fitted.

    A shape that was fitted is taken as if its model, or if there is but one, itself, were not measured.
    """
    model, several = rows.model[kept], len(np.unique(rows.model[kept])) > 1
    found = np.empty((len(rows.sizes), logs.shape[1]))
    for i, wanted in enumerate(rows.sizes):
        others = (kept != i) if i not in kept or not several else (model != rows.model[i])
        found[i] = shape_weights(rows.sizes[kept[others]], wanted) @ logs[others]
    return found


def _residuals(family: Family, rows: Rows, logs: np.ndarray) -> np.ndarray:
    """Return log(measured / estimated) of every row by the constants of its shape."""
    own = np.exp(logs)[rows.shape]
    named = {c.name: own[:, i] for i, c in enumerate(family.constants)}
    rest: np.ndarray = np.log(rows.seconds / family.seconds(rows.x, named, **rows.rates))
    return rest


def _weights(family: Family, rows: Rows, decode: np.ndarray) -> np.ndarray:
    """Return the weight of every row: in every shape, kinds of step weigh the same together, and in each of these small and large kernels."""
    if family.size is None:
        return rows.weight
    size = np.asarray(family.size.of(rows.x)) >= family.size.border
    groups = np.unique(np.stack([rows.shape, decode, size & decode]), axis=1, return_inverse=True)[1].ravel()
    weight = 1 / np.bincount(groups)[groups]
    total, count = np.bincount(rows.shape, weight), np.bincount(rows.shape)
    found: np.ndarray = weight * (count / total)[rows.shape]
    return found


def _fit(family: Family, rows: Rows, start: np.ndarray) -> np.ndarray:
    """Return the logarithms of the constants of every shape, shapes × constants: all shapes at once, by damped least squares.

    The loss is that of :func:`~roofline.fitting.solve.fit_family`, to which every constant adds the square of its distance from `start`.
    """
    rows = rows.take(np.argsort(rows.shape, kind="stable"))
    edges = np.flatnonzero(np.diff(rows.shape, prepend=-1))
    shapes, k = len(edges), start.size
    least, most = (np.log([getattr(c, end) for c in family.constants]) for end in ("least", "most"))
    logs, damping = np.tile(start, (shapes, 1)), np.full(shapes, 1e-2)

    def judge(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest = _residuals(family, rows, logs)
        loss = np.add.reduceat(rows.weight * 2 * (np.sqrt(1 + (rest / SCALE) ** 2) - 1), edges)
        return rest, loss + (((logs - start) / _HELD) ** 2).sum(axis=1)

    rest, loss = judge(logs)
    for _ in range(_ROUNDS):
        slopes = np.stack([(rest - _residuals(family, rows, logs + _NUDGE * one)) / _NUDGE for one in np.eye(k)], axis=1)
        weights = rows.weight / np.sqrt(1 + (rest / SCALE) ** 2) / SCALE**2
        matrix = np.add.reduceat(slopes[:, :, None] * slopes[:, None, :] * weights[:, None, None], edges) + np.eye(k) / _HELD**2
        right = np.add.reduceat(slopes * (weights * rest)[:, None], edges) - (logs - start) / _HELD**2
        free = ~(((logs <= least) & (right < 0)) | ((logs >= most) & (right > 0)))  # a constant at its bound that would pass it stays
        damped = matrix * (free[:, :, None] & free[:, None, :]) * (1 + damping[:, None, None] * np.eye(k)) + np.eye(k) * ~free[:, None, :]
        step = np.linalg.solve(damped, (right * free)[:, :, None])[:, :, 0]
        moved = np.clip(logs + np.clip(step, -_STEP, _STEP), least, most)
        better = judge(moved)[1] < loss
        logs = np.where(better[:, None], moved, logs)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-6, 1e6)
        rest, loss = judge(logs)
    return logs
