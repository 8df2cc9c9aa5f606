"""What one forward pass is asked to do, and what follows from it for the counting."""

from roofline.step.grouped import GroupedSteps
from roofline.step.step import Aggregate, Sequences, Step
from roofline.visibility import (
    BIDIRECTIONAL,
    CAUSAL,
    Visibility,
    cached_positions,
    visible_pairs,
    written_positions,
)

__all__ = [
    "BIDIRECTIONAL",
    "CAUSAL",
    "Aggregate",
    "GroupedSteps",
    "Sequences",
    "Step",
    "Visibility",
    "cached_positions",
    "visible_pairs",
    "written_positions",
]
