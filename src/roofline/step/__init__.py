"""One forward pass over groups of sequences: its sums, which positions a token sees, and what a sequence keeps."""

from roofline.step.grouped import GroupedSteps
from roofline.step.rows import Rows
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
    "Rows",
    "Sequences",
    "Step",
    "Visibility",
    "cached_positions",
    "visible_pairs",
    "written_positions",
]
