"""What a fit leaves, as quantiles, and the constants of single shapes of one class of kernels."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from roofline.errors import InvalidValueError
from roofline.names import unknown_name
from roofline.records.part import EMPTY, FROZEN, NotNegative, Part

PERCENTILES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
"""Percentiles at which a class keeps the quantiles of its residuals [%]."""

STEP_KINDS = ("decode", "prefill")
"""Kinds of step that a class may keep quantiles of its own for."""

_FARTHEST = 20.0  # times beyond e^20 of the fitted ones are no deviation but another quantity


def values(count: int) -> str:
    """Return how many values there are, in words.

    Examples
    --------
    >>> values(1), values(2)
    ('1 value', '2 values')
    """
    return f"{count} value{'' if count == 1 else 's'}"


def _check_quantiles(quantiles: tuple[float, ...]) -> tuple[float, ...]:
    if len(quantiles) not in (0, len(PERCENTILES)):
        raise InvalidValueError(
            f"residual_quantiles has {values(len(quantiles))}; it must have {len(PERCENTILES)}, for the percentiles "
            f"{', '.join(map(str, PERCENTILES))}"
        )
    if any(abs(q) > _FARTHEST for q in quantiles):
        raise InvalidValueError(
            f"residual_quantiles has {max(quantiles, key=abs):g}; logarithms of measured / fitted lie within ±{_FARTHEST}"
        )
    for place, (left, right) in enumerate(pairwise(quantiles)):
        if left > right:
            raise InvalidValueError(f"residual_quantiles falls from {left:g} to {right:g} at place {place + 1}; it must be sorted")
    return quantiles


Quantiles = Annotated[tuple[float, ...], AfterValidator(_check_quantiles)]
"""log(measured / fitted) at :data:`PERCENTILES`, or none."""


def _check_kinds(kinds: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    for kind, quantiles in kinds.items():
        if kind not in STEP_KINDS:
            raise InvalidValueError(f"step_quantiles has an {unknown_name('kind of step', kind, STEP_KINDS)}")
        if not quantiles:
            raise InvalidValueError(f"step_quantiles.{kind} is empty; it has {len(PERCENTILES)} values, or is left out")
    return kinds


KindQuantiles = Annotated[dict[str, Quantiles], AfterValidator(_check_kinds), FROZEN]
"""The same of the rows of decode steps, and of prompts, where there are enough of both."""


class SizeQuantiles(Part):
    """The quantiles of small and of large kernels, for those kinds of step that have enough of both.

    Parameters
    ----------
    size : str
        By what they are small or large: a name of the family of kernels, such as ``weights_per_row`` or ``cache_bytes`` [-].
    border : float
        From where on they are large [unit].
    small, large : mapping of str to tuple of float
        log(measured / fitted) by kind of step, as in :class:`KernelClass` [-].
    """

    size: Annotated[str, Field(min_length=1)]
    border: Annotated[float, Field(gt=0)]
    small: KindQuantiles
    large: KindQuantiles

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.small or set(self.small) != set(self.large):
            raise InvalidValueError("size_quantiles needs small and large, of the same kinds of step")
        return self


class Shapes(Part):
    """Constants of a class that were fitted again for single shapes of its kernels, column by column.

    Parameters
    ----------
    sizes : mapping of str to tuple of float
        The sizes of each shape, by the names in the family's ``shape`` [-].
    constants : mapping of str to tuple of float
        Every constant of the form, for each shape [unit].
    near : bool, optional
        Whether other shapes have means over near ones of these, rather than the constants of the class; None in records from before this was
        decided class by class: as the form has it [-].
    residual_quantiles : tuple of float
        log(measured / fitted) of rows that the fit of their shape has not seen, as in :class:`KernelClass` [-].
    step_quantiles : mapping of str to tuple of float
        The same by kind of step, as in :class:`KernelClass` [-].
    size_quantiles : SizeQuantiles, optional
        The same of small kernels and of large ones, as in :class:`KernelClass` [-].
    error : float
        Mean absolute error on the same rows [-].
    """

    sizes: Annotated[dict[str, tuple[float, ...]], FROZEN]
    constants: Annotated[dict[str, tuple[float, ...]], FROZEN]
    near: bool | None = None
    residual_quantiles: Quantiles
    step_quantiles: KindQuantiles = EMPTY
    size_quantiles: SizeQuantiles | None = None
    error: NotNegative

    @model_validator(mode="after")
    def _check(self) -> Self:
        columns = {f"{kind}.{name}": column for kind in ("sizes", "constants") for name, column in getattr(self, kind).items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if not (self.sizes and self.constants and self.residual_quantiles and len(set(lengths.values())) == 1):
            found = ", ".join(f"{name} has {values(length)}" for name, length in lengths.items())
            raise InvalidValueError(f"shapes need sizes, constants and residual_quantiles, and in every column one value for each: {found}")
        for name, column in columns.items():
            bad = next((v for v in column if v <= 0 or (v > 1 and name.endswith("share"))), None)
            if bad is not None:
                raise InvalidValueError(f"{name} has {bad:g}; sizes and constants are positive, and shares at most 1")
        return self
