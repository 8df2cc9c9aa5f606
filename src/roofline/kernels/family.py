"""What a family of kernels is: what its time depends on, the form of that dependence, and the constants a fit finds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from roofline.arithmetic import Number
from roofline.ops import Op

Values = Mapping[str, Number]
"""Numbers or arrays by name."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant of a form.

    Parameters
    ----------
    name : str
        Its name, with the unit where there is one [-].
    unit : str
        ``"s"``, ``"-"`` for a share of a machine's peak, or what it counts [-].
    least, most : float
        Between which it must lie; a share of a peak ends at 1, so that no kernel is faster than its floor [unit].
    start : float
        Where a fit begins: a usual value [unit].
    meaning : str
        What it is, in a few words [-].
    neutral : float, optional
        Where it has no effect, so that a fit to few points can do without; None if it cannot be left out [unit].
    """

    name: str
    unit: str
    least: float
    most: float
    start: float
    meaning: str
    neutral: float | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """Kernels of one kind.

    Parameters
    ----------
    name : str
        Its name, as in ``Op.family`` [-].
    constants : tuple of Constant
        What a fit finds [-].
    features : callable
        Operator with the amounts of one kernel → what its time depends on. Linear in the operator's amounts, so that it can be
        taken of symbols as well: a model is compiled to features once [-].
    seconds : callable
        ``seconds(features, constants, peak_flops_per_s=…, bandwidth=…)`` → time of one kernel, of arrays that broadcast.
        Continuous; never falls when an amount grows, and never under the kernel's own roofline [s].
    roof : {"memory", "link"}, optional
        What `bandwidth` is: that of main memory, or, for collectives, the rate at which bytes leave the device: its links', or less
        where some of the bytes must leave the scale-up domain [-].
    """

    name: str
    constants: tuple[Constant, ...]
    features: Callable[[Op], dict[str, Number]]
    seconds: Callable[..., Number]
    roof: Literal["memory", "link"] = "memory"


def combine(compute_s: Number, memory_s: Number, sharpness: Number) -> Number:
    r"""Return the time of arithmetic and traffic that overlap imperfectly: :math:`(C^p + M^p)^{1/p}`.

    Parameters
    ----------
    compute_s, memory_s : float or numpy.ndarray
        C and M, what each would take alone [s].
    sharpness : float or numpy.ndarray
        p: 1 adds them up, as if nothing overlapped; the larger, the nearer to the longer of the two [-].

    Returns
    -------
    float or numpy.ndarray
        Time, at least the longer of the two [s].

    Examples
    --------
    >>> float(combine(3.0, 4.0, 2))
    5.0
    """
    longer, shorter = np.maximum(compute_s, memory_s), np.minimum(compute_s, memory_s)
    ratio = shorter / np.maximum(longer, 1e-300)  # at most 1, so that no power overflows
    return longer * (1 + ratio**sharpness) ** (1 / sharpness)
