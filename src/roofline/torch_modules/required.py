"""torch, or a sentence that says how to get it."""

from roofline.errors import MissingDependencyError, install

try:
    import torch
except ImportError:
    raise MissingDependencyError(f"reading a model from its code needs torch: {install('models')}.") from None

__all__ = ["torch"]
