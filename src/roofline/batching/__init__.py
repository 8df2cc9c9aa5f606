"""The journey of a batch: where decode turns from memory-bound to compute-bound, and where memory is full.

Batching decodes multiplies the arithmetic by the batch but reads the weights once, so intensity climbs towards the ridge; the cache
of every sequence bends the climb, and may end it below the ridge: then no batch is ever compute-bound.
"""

from roofline.batching.critical import CriticalBatch, context_without_compute, critical_batch
from roofline.batching.regimes import Journey, Regime, journey
from roofline.batching.rows import FreeRows, free_rows

__all__ = ["CriticalBatch", "FreeRows", "Journey", "Regime", "context_without_compute", "critical_batch", "free_rows", "journey"]
