"""Fitting the constants of a form to measured kernels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.errors import CalibrationError, MissingDependencyError, install
from roofline.kernels import Family, Values

LEAST_PER_CONSTANT = 2
"""Points that a fit needs for every constant that it finds [-]."""

SCALE = 0.05
"""Deviation of a logarithm beyond which a point weighs less than its square [-]."""

_Z80 = 1.2816  # a normal variable lies within this many standard deviations in 80 of 100 cases


def optimizers() -> Any:
    """Return ``scipy.optimize``, which is imported when something is fitted."""
    try:
        from scipy import optimize
    except ImportError:
        raise MissingDependencyError(f"fitting needs scipy: {install('calibrate')}.") from None
    return optimize


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted constants, and their residuals on the fitted points."""

    constants: Mapping[str, tuple[float, float, float]]  # value, and the ends of its 80 % confidence interval [unit]
    residuals: np.ndarray  # log(measured / fitted) of every point, in the order given


def fit_family(
    family: Family,
    features: Values,
    seconds: np.ndarray,
    *,
    peak_flops_per_s: float | np.ndarray,
    bandwidth: float | np.ndarray,
    fixed: Mapping[str, float] | None = None,
    starts: int = 3,
) -> Fit:
    r"""Return the constants that minimize :math:`\sum \rho(\log t_{measured} - \log t_{form})`, :math:`\rho` being soft-L1.

    Rates and features are one for all points or one for each; the best of up to three starting points of the search counts.
    """
    least_squares = optimizers().least_squares
    known = dict(fixed or {})
    free = [c for c in family.constants if c.name not in known]
    t = np.asarray(seconds, dtype=float)
    x = {name: np.broadcast_to(np.asarray(v, dtype=float), t.shape) for name, v in features.items()}
    _check(family, x, t, len(free))
    least = np.log([c.least for c in free])
    most = np.log([c.most for c in free])

    def values(logs: np.ndarray) -> dict[str, float]:
        return known | {c.name: float(v) for c, v in zip(free, np.exp(logs), strict=True)}

    def residuals(logs: np.ndarray) -> np.ndarray:
        logs_of: np.ndarray = np.log(t / family.seconds(x, values(logs), peak_flops_per_s=peak_flops_per_s, bandwidth=bandwidth))
        return logs_of

    start = np.clip(np.log([c.start for c in free]), least, most)
    found = min(
        (
            least_squares(residuals, np.clip(start + shift, least, most), bounds=(least, most), loss="soft_l1", f_scale=SCALE, x_scale=1.0)
            for shift in (0.0, -0.7, 0.7)[:starts]
        ),
        key=lambda result: result.cost,
    )
    rest = residuals(found.x)
    # a constant that the points do not determine has a singular value near zero, and an interval as wide as its bounds
    _, singular, rotation = np.linalg.svd(found.jac, full_matrices=False)
    spread = 1.4826 * np.median(np.abs(rest - np.median(rest)))
    variance = ((rotation / np.maximum(singular, 1e-9)[:, None]) ** 2).sum(axis=0) * spread**2
    half = _Z80 * np.sqrt(variance)
    low, high = np.exp(np.maximum(found.x - half, least)), np.exp(np.minimum(found.x + half, most))
    value = np.exp(found.x)
    constants = {c.name: (float(v), float(a), float(b)) for c, v, a, b in zip(free, value, low, high, strict=True)}
    return Fit({name: constants.get(name, (known.get(name, 0.0),) * 3) for name in (c.name for c in family.constants)}, rest)


def _check(family: Family, x: Mapping[str, np.ndarray], t: np.ndarray, free: int) -> None:
    bad = np.flatnonzero(~(np.isfinite(t) & (t > 0)))
    if bad.size:
        raise CalibrationError(
            f"{bad.size} of {t.size} {family.name} times are not positive numbers; the first is point {bad[0]}: {t[bad[0]]}."
        )
    for name, column in x.items():
        if not np.isfinite(column).all():
            raise CalibrationError(f"{name} of point {int(np.flatnonzero(~np.isfinite(column))[0])} is not a finite number.")
    if t.size < LEAST_PER_CONSTANT * free:
        raise CalibrationError(
            f"{t.size} points are too few for the {free} constants of {family.name}; at least {LEAST_PER_CONSTANT * free} are needed."
        )
    if all(np.ptp(column) == 0 for column in x.values()):
        raise CalibrationError(f"all {t.size} points of {family.name} have the same sizes; a fit needs several.")
