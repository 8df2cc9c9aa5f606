"""Constants of single shapes: those of an operator's own shape, or means over shapes near it."""

from dataclasses import dataclass, replace

import numpy as np

from roofline.errors import CalibrationError
from roofline.kernels import Family
from roofline.kernels.near import shape_weights
from roofline.ops import Op
from roofline.records import KernelClass, Shapes

ROUNDED = 1e-6
"""By how much a constant may pass its bounds: written and read again [-]."""


def has_shape(family: Family, op: Op, shapes: Shapes) -> bool:
    """Return whether shapes have constants for an operator's own."""
    wanted = tuple(op.sizes.get(name) for name in family.shape)
    return wanted in zip(*(shapes.sizes.get(name, ()) for name in family.shape), strict=False)


def takes_near(family: Family, shapes: Shapes) -> bool:
    """Return whether shapes without constants of their own have means over those that have."""
    return family.alike if shapes.near is None else shapes.near


@dataclass(frozen=True, slots=True, eq=False)
class ShapeTable:
    """Constants of single shapes as arrays."""

    sizes: np.ndarray  # shapes × sizes
    logs: np.ndarray  # natural logarithms of the constants, in the order of the form, shapes × constants


def shape_table(family: Family, shapes: Shapes, where: str) -> ShapeTable:
    """Return constants of single shapes after checking them against the form; those that were not known when they were fitted have no effect."""
    needed = {c.name for c in family.constants if c.neutral is None}
    if set(shapes.sizes) != set(family.shape) or not needed <= set(shapes.constants) <= {c.name for c in family.constants}:
        names = ", ".join((*family.shape, *(c.name for c in family.constants)))
        raise CalibrationError(f"{where}: shapes has other sizes or constants than {names}. Fit it again with this version.")
    sizes = np.array([shapes.sizes[name] for name in family.shape]).T
    columns = np.array([shapes.constants.get(c.name, (c.neutral,) * len(sizes)) for c in family.constants]).T
    for c, least, most in zip(family.constants, columns.min(axis=0), columns.max(axis=0), strict=True):
        if not (least >= c.least * (1 - ROUNDED) and most <= c.most * (1 + ROUNDED)):
            raise CalibrationError(f"{where}: {c.name} of shapes must lie in {c.least:g} … {c.most:g} {c.unit}.")
    return ShapeTable(sizes, np.log(columns))


def shape_values(
    family: Family, found: KernelClass, shapes: Shapes, op: Op, table: ShapeTable
) -> tuple[dict[str, float], KernelClass | Shapes]:
    """Return an operator's constants from those of single shapes; residuals are narrow only if its own was measured in this format."""
    wanted = np.array([float(op.sizes[name]) for name in family.shape])
    values = np.exp(shape_weights(table.sizes, wanted) @ table.logs).tolist()
    bounded = {c.name: min(max(value, c.least), c.most) for c, value in zip(family.constants, values, strict=True)}
    own = (table.sizes == wanted).all(axis=1).any() and (found.stored, found.operand) == (op.stored, op.operand)
    return bounded, shapes if own else found


def each_shape(family: Family, op: Op, shape: tuple[int, ...]) -> tuple[list[Op], np.ndarray]:
    """Return an operator for each shape by which a record may have constants, and which one every kernel is; one for all where they agree."""
    if not any(np.ndim(op.sizes[name]) for name in family.shape):
        return [op], np.array([0])
    sizes = np.stack([np.broadcast_to(np.asarray(op.sizes[name], dtype=float), shape).ravel() for name in family.shape], axis=1)
    each, place = np.unique(sizes, axis=0, return_inverse=True)
    named = (dict(zip(family.shape, row, strict=True)) for row in each.tolist())
    return [replace(op, sizes={**op.sizes, **own}) for own in named], place.ravel()
