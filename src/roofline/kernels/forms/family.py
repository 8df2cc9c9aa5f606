"""A family of kernels: the features that its time depends on, the form of its time, and the constants that a fit finds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from roofline.arithmetic import Number, maximum, minimum
from roofline.ops import Op

Values = Mapping[str, Number]
"""Numbers or arrays by name."""

UNIT_PEAK = 1e15
"""Peak for which a record for any machine holds the constants that grow with it [FLOP/s]."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant of a form.

    Parameters
    ----------
    name : str
        Its name, which ends in the unit if it has one [-].
    unit : str
        ``"s"``, ``"-"`` for a share of a machine's peak, or what it counts [-].
    least, most : float
        Its bounds; a share of a peak is at most 1, so that no kernel is faster than its floor [unit].
    start : float
        A usual value, where a fit starts [unit].
    meaning : str
        A short description [-].
    neutral : float, optional
        The value at which it has no effect, so that a fit to few samples can leave it out; None if it is always fitted [unit].
    grows : bool, optional
        Whether it is in proportion to a machine's peak, as the number of its cores is; a record for any machine holds it for a peak
        of 1 PFLOP/s [-].
    """

    name: str
    unit: str
    least: float
    most: float
    start: float
    meaning: str
    neutral: float | None = None
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """By what kernels of a family are small or large, where forms describe these better than those.

    Parameters
    ----------
    name : str
        Its name, as records have it [-].
    of : callable
        Features → size, of arrays that broadcast [unit].
    border : float
        From where on a fit counts kernels as large [unit].
    """

    name: str
    of: Callable[[Values], Number]
    border: float


@dataclass(frozen=True, slots=True)
class Family:
    """Kernels whose time has the same form.

    Parameters
    ----------
    name : str
        Its name, as in ``Op.family`` [-].
    constants : tuple of Constant
        The constants of the form, which a fit finds [-].
    features : callable
        Operator with the amounts of one kernel → features by name. Linear in the amounts, so that it works with symbols too: a model is
        compiled to features once [-].
    seconds : callable
        ``seconds(features, constants, peak_flops_per_s=…, bandwidth=…)`` → time of one kernel, of arrays that broadcast.
        Of Python numbers it is a Python number, for a single step. Continuous, non-decreasing in every amount, and never below the
        kernel's own roofline [s].
    roof : {"memory", "link"}, optional
        What `bandwidth` is: that of main memory, or, for collectives, the rate at which bytes leave the device, which is that of its
        links, or less if some of the bytes leave the scale-up domain [-].
    shape : tuple of str, optional
        The sizes of an operator, all positive, that make its shape, where engines choose kernels by it: a record may have constants of its
        own for each [-].
    alike : bool, optional
        Whether near shapes have like constants, so that a fit may give one without its own means over the others; else it has those of its
        class [-].
    size : Size, optional
        By what small kernels are told from large ones, each of which have an interval of their own; None if all have one [-].
    """

    name: str
    constants: tuple[Constant, ...]
    features: Callable[[Op], dict[str, Number]]
    seconds: Callable[..., Number]
    roof: Literal["memory", "link"] = "memory"
    shape: tuple[str, ...] = ()
    alike: bool = False
    size: Size | None = None

    def scale(self, constants: Values, peak_flops_per_s: Number) -> dict[str, Number]:
        """Return the constants of a record for any machine as they are on a machine of some peak.

        Parameters
        ----------
        constants : mapping of str to float or numpy.ndarray
            Constants for a peak of 1 PFLOP/s [unit].
        peak_flops_per_s : float or numpy.ndarray
            The machine's peak [FLOP/s].

        Returns
        -------
        dict of str to float or numpy.ndarray
            The constants that grow, in proportion to the peak, and all others as they are [unit].
        """
        grow = {c.name for c in self.constants if c.grows}
        return {name: value * (peak_flops_per_s / UNIT_PEAK) if name in grow else value for name, value in constants.items()}

    def of_any_machine(self) -> "Family":
        """Return the family with constants that hold for any machine, to fit machines of different peaks together [-].

        Returns
        -------
        Family
            Its `seconds` scale the constants to the peak first [-].
        """

        def seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
            return self.seconds(x, self.scale(c, peak_flops_per_s), peak_flops_per_s=peak_flops_per_s, bandwidth=bandwidth)

        return replace(self, seconds=seconds)


def combine(compute_s: Number, memory_s: Number, sharpness: Number) -> Number:
    r"""Return the time of two parts that overlap imperfectly: :math:`(C^p + M^p)^{1/p}`.

    Parameters
    ----------
    compute_s, memory_s : float or numpy.ndarray
        C and M, the time of each alone [s].
    sharpness : float or numpy.ndarray
        p: 1 for no overlap, the sum of the two; the larger, the closer to the longer of the two [-].

    Returns
    -------
    float or numpy.ndarray
        Time, at least the longer of the two [s].

    Examples
    --------
    >>> combine(3.0, 4.0, 2)
    5.0
    """
    longer, shorter = maximum(compute_s, memory_s), minimum(compute_s, memory_s)
    ratio = shorter / maximum(longer, 1e-300)  # at most 1, so that no power overflows
    return longer * (1 + ratio**sharpness) ** (1 / sharpness)
