"""One forward pass over groups of sequences: its sums, which positions a token sees, and what a sequence keeps."""

from roofline.step.aggregate import Aggregate
from roofline.step.rows import Rows
from roofline.step.sequences import Sequences
from roofline.step.speculation import expected_tokens
from roofline.step.step import Step
from roofline.visibility import BIDIRECTIONAL, CAUSAL, Visibility

__all__ = [
    "BIDIRECTIONAL",
    "CAUSAL",
    "Aggregate",
    "Rows",
    "Sequences",
    "Step",
    "Visibility",
    "expected_tokens",
]
