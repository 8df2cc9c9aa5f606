"""The model room: what a transformer consists of, and its exact parameter counts."""

from roofline.model.components import Matrix, Norm, Part, Vector
from roofline.model.feed_forward import AnonymousWeights, DenseFeedForward, FeedForward
from roofline.model.mixers import Attention, Mixer
from roofline.model.spec import Embedding, Head, LayerGroup, Model

__all__ = [
    "AnonymousWeights",
    "Attention",
    "DenseFeedForward",
    "Embedding",
    "FeedForward",
    "Head",
    "LayerGroup",
    "Matrix",
    "Mixer",
    "Model",
    "Norm",
    "Part",
    "Vector",
]
