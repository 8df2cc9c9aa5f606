"""Which constants of a form are fitted to a few samples: as many as lower the error on held-out samples."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, TypedDict

import numpy as np

from roofline.errors import CalibrationError
from roofline.fitting.solve import LEAST_PER_CONSTANT, Fit, fit_family
from roofline.kernels import Family
from roofline.kernels.forms.family import Size
from roofline.records import FittedConstant, SizeQuantiles
from roofline.records.schema import PERCENTILES

_FOLDS = 5
MANY_SHAPES = 2 * _FOLDS
"""Shapes in a class, from which on whole ones are held out: two in each part [-]."""
_FEWEST_FREE = 2  # a rate and a fixed time
_ONE_BY_ONE = 6  # numbers of constants up to this one are all tried, larger ones every second
_ENOUGH = 40  # points of a kind of step, from which on it has quantiles of its own
_OF_A_SIZE = 30  # points of a size in a kind of step, from which on it has quantiles of its own
_PLENTY = 8  # points per constant from which on all constants are fitted

FEWEST = next(n for n in count() if n - -(-n // _FOLDS) >= LEAST_PER_CONSTANT * _FEWEST_FREE)
"""Fewest points that are fitted: with any fold held out, enough are left for the fewest constants [-]."""


class _Rates(TypedDict):
    peak_flops_per_s: float
    bandwidth: np.ndarray


@dataclass(frozen=True, slots=True)
class Selected:
    """A fit, and how it was chosen."""

    fit: Fit  # constants found from all points
    unseen: np.ndarray | None  # log(measured / fitted) of every point by a fit that has not seen it; None where there are too few points
    held: tuple[str, ...]  # constants that were not fitted but held where they have no effect, or at their usual values


def fitted_fields(
    family: Family,
    features: Mapping[str, np.ndarray],
    seconds: np.ndarray,
    *,
    peak_flops_per_s: float,
    bandwidth: np.ndarray,
    shapes: np.ndarray | None = None,
    decode: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the fields of a class of kernels that a fit fills: constants, residuals of held-out points, error, note.

    With the number of the shape of every point, whole shapes are held out, if there are enough of them. `decode` marks the points of
    decode steps.
    """
    if len(seconds) < FEWEST:
        raise CalibrationError(f"{len(seconds)} samples of {family.name} are too few; at least {FEWEST} are needed.")
    found = select_fit(family, features, seconds, peak_flops_per_s=peak_flops_per_s, bandwidth=bandwidth, fold=_folds(len(seconds), shapes))
    if found.unseen is None:  # without a held-out error the interval would be far too narrow
        raise CalibrationError(
            f"too few of the {len(seconds)} samples of {family.name} differ in size: none can be held out to judge the fit."
        )
    units = {c.name: c.unit for c in family.constants}
    return {
        "constants": {n: FittedConstant(value=v, low=low, high=high, unit=units[n]) for n, (v, low, high) in found.fit.constants.items()},
        **residual_fields(family, features, found.unseen, decode),
        "note": f"{len(seconds)} samples do not determine {', '.join(found.held)}" if found.held else "",
    }


def residual_fields(
    family: Family, features: Mapping[str, np.ndarray], unseen: np.ndarray, decode: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the fields that log(measured / fitted) of points that a fit has not seen fills: their quantiles, and the mean error.

    Quantiles by kind of step as well, where `decode` says which points are of decode steps and there are enough of both kinds; and of the
    small and the large ones of a kind, where there are enough of both.
    """
    kinds = {} if decode is None else {"decode": decode, "prefill": ~decode}
    if any(np.count_nonzero(some) < _ENOUGH for some in kinds.values()):
        kinds = {}
    return {
        "residual_quantiles": _quantiles(unseen),
        "step_quantiles": {kind: _quantiles(unseen[some]) for kind, some in kinds.items()},
        "size_quantiles": _by_size(family.size, features, unseen, kinds) if family.size else None,
        "error": float(np.mean(np.abs(np.expm1(-unseen)))),
    }


def _by_size(size: Size, features: Mapping[str, np.ndarray], unseen: np.ndarray, kinds: Mapping[str, np.ndarray]) -> SizeQuantiles | None:
    """Return the quantiles of small and of large kernels."""
    large = np.asarray(size.of(features)) >= size.border
    sides = {kind: (some & ~large, some & large) for kind, some in kinds.items()}
    found = {kind: [_quantiles(unseen[s]) for s in both] for kind, both in sides.items() if min(map(np.count_nonzero, both)) >= _OF_A_SIZE}
    small, over = ({kind: both[i] for kind, both in found.items()} for i in (0, 1))
    return SizeQuantiles(size=size.name, border=size.border, small=small, large=over) if found else None


def _quantiles(residuals: np.ndarray) -> tuple[float, ...]:
    return tuple(np.percentile(residuals, PERCENTILES).tolist())


def _folds(points: int, shapes: np.ndarray | None) -> np.ndarray:
    """Return which of five parts every point belongs to: those of one shape to the same, where there are shapes for every part."""
    if shapes is not None and np.unique(shapes).size >= MANY_SHAPES:
        folds: np.ndarray = np.unique(shapes, return_inverse=True)[1].ravel() % _FOLDS
        return folds
    return np.arange(points) % _FOLDS


def select_fit(
    family: Family,
    features: Mapping[str, np.ndarray],
    seconds: np.ndarray,
    *,
    peak_flops_per_s: float,
    bandwidth: np.ndarray,
    fold: np.ndarray | None = None,
) -> Selected:
    """Return the fit with the number of constants that does best on held-out points.

    A form lists its constants by importance. The first ones are fitted; the others are held at values where they have no effect, or
    at their usual ones. Each of five parts is held out in turn: `fold`, by default every fifth point.
    """
    fold = _folds(len(seconds), None) if fold is None else fold
    rates = _Rates(peak_flops_per_s=peak_flops_per_s, bandwidth=np.broadcast_to(bandwidth, seconds.shape))
    best: tuple[float, dict[str, float], np.ndarray | None] | None = None
    for held in _choices(family, len(seconds)):
        unseen = _unseen(family, features, seconds, held, rates, fold)
        if unseen is not None and (best is None or np.mean(np.abs(unseen)) < best[0]):
            best = (float(np.mean(np.abs(unseen))), held, unseen)
    if best is None:
        held = _without(family, _FEWEST_FREE)
        return Selected(fit_family(family, features, seconds, **rates, fixed=held), None, tuple(held))
    _, held, unseen = best
    return Selected(fit_family(family, features, seconds, **rates, fixed=held), unseen, tuple(held))


def _choices(family: Family, points: int) -> Iterator[dict[str, float]]:
    """Yield the constants that are not fitted, with their values."""
    every = len(family.constants)
    if points >= _PLENTY * every:
        yield {}
        return
    for free in sorted({*range(_FEWEST_FREE, min(every, _ONE_BY_ONE) + 1), *range(_ONE_BY_ONE, every, 2), every}):
        yield _without(family, free)
        usual = {c.name: c.start for c in family.constants[free:]}
        if usual != _without(family, free):
            yield usual


def _without(family: Family, free: int) -> dict[str, float]:
    return {c.name: c.start if c.neutral is None else c.neutral for c in family.constants[free:]}


def _unseen(
    family: Family, x: Mapping[str, np.ndarray], t: np.ndarray, held: Mapping[str, float], rates: _Rates, fold: np.ndarray
) -> np.ndarray | None:
    """Return log(measured / fitted) of every point by a fit that has not seen it; None where a fold leaves too few points."""
    residuals = np.empty(t.size)
    for out in (fold == i for i in range(_FOLDS)):
        seen, unseen = (_Rates(peak_flops_per_s=rates["peak_flops_per_s"], bandwidth=rates["bandwidth"][rows]) for rows in (~out, out))
        try:
            fit = fit_family(family, {n: c[~out] for n, c in x.items()}, t[~out], **seen, fixed=held, starts=1)
        except CalibrationError:
            return None
        constants = {n: value for n, (value, _, _) in fit.constants.items()}
        residuals[out] = np.log(t[out] / family.seconds({n: c[out] for n, c in x.items()}, constants, **unseen))
    return residuals
