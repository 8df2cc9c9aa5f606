"""Several devices: degrees of parallelism, and what one device's share of a model is."""

from roofline.parallel.degrees import SINGLE, Parallel
from roofline.parallel.sharding import shard_model

__all__ = ["SINGLE", "Parallel", "shard_model"]
