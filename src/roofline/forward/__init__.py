"""From a model and a step to the operators of one forward pass."""

from roofline.forward import (  # noqa: F401  (they register how each part becomes operators)
    block_sparse_attention,
    compressed_attention,
    counted,
    cross_attention,
    feed_forward,
    latent_attention,
    mixers,
    recurrent,
)
from roofline.forward.program import Program, compile_model
from roofline.forward.work import Work, forward

__all__ = ["Program", "Work", "compile_model", "forward"]
