"""torch, or a sentence that says how to get it."""

from roofline.errors import MissingDependencyError, install

try:
    import torch as torch  # those who import it from here get it or the sentence
    import torch.utils.flop_counter as _  # noqa: F401, which torch does not import by itself
except ImportError:
    raise MissingDependencyError(f"reading a model from its code needs torch: {install('models')}.") from None
