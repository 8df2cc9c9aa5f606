"""Time under each roof as a line in the batch, and searches over whole numbers, many at once."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from roofline.arithmetic import Number, quotient
from roofline.deployment import Deployment
from roofline.floors import Floor, decode_floor

FAR = 2**24
"""A batch so large that every routing has touched all its experts; beyond it bytes are linear in the batch [-]."""
MANY = 2**40
"""Upper end of searches: more sequences, rows or tokens than any machine holds [-]."""
Gap = Callable[[Any], Any]
"""A function of whole numbers, elementwise [-]."""


def roof_times(floor: Floor) -> np.ndarray:
    """Return the time under each roof; that of memory is negative if the last-level cache holds more than the step reads [s]."""
    h = floor.hardware
    memory = (np.asarray(floor.total_bytes, dtype=float) - floor.surviving_bytes) / h.memory_bandwidth
    return np.stack(np.broadcast_arrays(np.asarray(floor.compute_s, dtype=float), memory, floor.network_s))


def refine(points: np.ndarray, marks: np.ndarray, mark: Gap) -> tuple[np.ndarray, np.ndarray]:
    """Add points between neighbours whose marks differ until every change is between consecutive whole numbers.

    Examples
    --------
    >>> points = np.array([0, 10])
    >>> refine(points, points >= 7, lambda p: p >= 7)[0].tolist()
    [0, 5, 6, 7, 10]
    """
    while True:
        gaps = np.flatnonzero((marks[:-1] != marks[1:]) & (np.diff(points) > 1))
        if not gaps.size:
            return points, marks
        middle = (points[gaps] + points[gaps + 1]) // 2
        points, marks = np.insert(points, gaps + 1, middle), np.insert(marks, gaps + 1, mark(middle))


def whole_numbers(start: int, dense: int, per_octave: int) -> np.ndarray:
    """Return every whole number from `start` below `dense`, then so many per octave up to :data:`MANY`."""
    octaves = math.log2(MANY / dense)
    sparse = np.round(np.geomspace(dense, MANY, round(octaves * per_octave) + 1))
    return np.concatenate([np.arange(start, dense, dtype=float), np.unique(sparse)])


class Lines(NamedTuple):
    """Time under each roof as a linear function of the batch, valid once all experts are touched. Rows: compute, memory, network."""

    slope: np.ndarray  # time that one more sequence adds [s]
    start: np.ndarray  # time at batch 0: under the memory roof, that of the weights less what the last-level cache may keep [s]
    linear: bool  # whether the lines hold at every batch
    flops: Number  # FLOP and bytes that one more sequence adds [FLOP], [B]
    moved: Number

    @property
    def gap(self) -> np.ndarray:
        """By how much one more sequence loads arithmetic more than each other roof [s]."""
        return np.asarray(self.slope[0] - self.slope[1:])

    @property
    def crossing(self) -> np.ndarray:
        """Where arithmetic and the last of the other roofs cross for good; infinite where they do not [-]."""
        cross = quotient(self.start[1:] - self.start[0], self.gap)
        return np.asarray(np.where(self.gap > 0, np.maximum(cross, 0), np.inf).max(axis=0))


def roof_lines(deployment: Deployment, context: Any) -> Lines:
    """Return the lines of decode at a context, from floors at a few batches."""

    def at(batch: int) -> Floor:
        return decode_floor(deployment, batch=batch, context=context)

    far, farther = at(FAR), at(2 * FAR)
    slope = (roof_times(farther) - roof_times(far)) / FAR
    near = {batch: roof_times(at(batch)) for batch in (1, 2, 3, 64)}
    start = near[1] - slope
    linear = all(np.allclose(times, start + slope * batch, rtol=1e-9, atol=0) for batch, times in near.items())
    if not linear:
        start = roof_times(far) - slope * FAR
    flops, moved = ((getattr(farther, name) - getattr(far, name)) / FAR for name in ("flops", "total_bytes"))
    return Lines(slope, start, linear, flops, moved)


def search(gap: Gap, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the least whole number whose gap is positive, by bisection of all elements at once.

    Examples
    --------
    >>> search(lambda n: n - np.array([3.5, 100]), np.zeros(2), np.full(2, 1000.0)).tolist()
    [4.0, 101.0]
    """
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        over = gap(np.maximum(middle, 1)) > 0
        low, high = np.where(over & (middle > low), low, middle), np.where(over & (middle > low), middle, high)
    return high
