"""The journey of a batch: where decode turns from memory-bound to compute-bound, and where memory is full.

Batching multiplies the arithmetic of decode by the batch and still reads the weights once, so intensity rises towards the ridge. The KV cache
that every sequence reads limits the rise: if the limit lies below the ridge, no batch is compute-bound.
"""

from roofline.batching.critical import CriticalBatch, context_without_compute, critical_batch
from roofline.batching.regimes import Journey, Regime, journey
from roofline.batching.rows import FreeRows, free_rows

__all__ = ["CriticalBatch", "FreeRows", "Journey", "Regime", "context_without_compute", "critical_batch", "free_rows", "journey"]
