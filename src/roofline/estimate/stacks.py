"""A compiled model as kernels: operators of one family stacked, so that a step's kernels are timed in a handful of array operations."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from roofline.arithmetic import LinearForm, Number
from roofline.forward import Program
from roofline.kernels import FAMILIES, Family
from roofline.kernels.experts import merge
from roofline.ops import Op


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """All operators of one family in a compiled model.

    Parameters
    ----------
    family : Family
        The family [-].
    ops : tuple of Op
        n operators, with the amounts of one kernel [-].
    counts : numpy.ndarray
        Kernels of each, n × 1 [-].
    names : tuple of str
        Its k features [-].
    coefficients : numpy.ndarray
        Of the rows that pass through (a kernel without any does not run) and of every feature, (1 + k) × n × (1 + aggregates) [-].
    """

    family: Family
    ops: tuple[Op, ...]
    counts: np.ndarray
    names: tuple[str, ...]
    coefficients: np.ndarray


def stack_kernels(program: Program) -> tuple[Stack, ...]:
    """Return a compiled model's operators by family."""
    index: dict[object, int] = {symbol: i for i, symbol in enumerate((1, *program.aggregates))}
    families: dict[str, list[Op]] = {}
    for op in _as_launched(program.ops):
        if op.family:
            families.setdefault(op.family, []).append(op)
    return tuple(_stack(FAMILIES[name], ops, index) for name, ops in families.items())


def _stack(family: Family, ops: list[Op], index: dict[object, int]) -> Stack:
    single = tuple(_one_kernel(op) for op in ops)
    features = [family.features(op) for op in single]
    names = tuple(features[0])
    rows = _matrix([op.rows if LinearForm.coerce(op.rows).terms else 1 for op in single], index)
    counts = np.array([[op.count] for op in ops], dtype=float)
    return Stack(family, single, counts, names, np.stack([rows, *(_matrix([x[name] for x in features], index) for name in names)]))


def _matrix(forms: list[Number], index: dict[object, int]) -> np.ndarray:
    matrix = np.zeros((len(forms), len(index)))
    for i, form in enumerate(forms):
        for symbol, coefficient in LinearForm.coerce(form).terms.items():
            matrix[i, index[symbol]] = coefficient
    return matrix


def _one_kernel(op: Op) -> Op:
    amounts = {name: _share(form, op.count) for name, form in op.amounts().items()}
    return replace(op, **amounts)


def _share(form: Number, count: int) -> Number:
    return form / count if isinstance(form, LinearForm) or form else form


def _as_launched(ops: tuple[Op, ...]) -> Iterator[Op]:
    """Yield operators as engines launch them: a mixture of experts in one go, a residual with the norm after it."""
    yield from _with_residuals([op for run in _mixtures(ops) for op in run])


def _mixtures(ops: tuple[Op, ...]) -> Iterator[list[Op]]:
    """Yield the operators of each mixture of experts as one, everything else as it is."""
    for key, alike in groupby(ops, key=lambda op: op.family == "experts" and (op.count, tuple(op.sizes.items()))):
        run = list(alike)
        yield [merge(run)] if key else run


def _with_residuals(ops: list[Op]) -> Iterator[Op]:
    residuals = [op for op in ops if op.family == "rowwise" and op.name.endswith("residual")]
    waiting = list(residuals)
    for op in ops:
        if any(op is residual for residual in residuals):
            continue
        mate = next((r for r in waiting if r.count == op.count), None) if op.family == "rowwise" and op.kind == "normalization" else None
        if mate is not None:
            waiting = [r for r in waiting if r is not mate]
            yield _added(op, mate)
        else:
            yield op
    yield from waiting


def _added(op: Op, other: Op) -> Op:
    amounts = {name: form + getattr(other, name) for name, form in op.amounts().items() if name != "rows"}
    return replace(op, name=f"{op.name} + {other.name}", **amounts)
