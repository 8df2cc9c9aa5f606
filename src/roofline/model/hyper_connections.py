"""Hyper-connections: a residual stream kept several times over, collapsed before each block and mixed after it."""

from roofline.model.components import Matrix


def hyper_connection(name: str, hidden: int, streams: int) -> Matrix:
    """Return the matrix that computes, from all streams, how a block reads them, writes to them and mixes them.

    References
    ----------
    arXiv 2409.19606 (hyper-connections), section 2; `DeepseekV4HyperConnection` of transformers 5.23.
    """
    weights = (2 + streams) * streams
    return Matrix(name, streams * hidden, weights, bias=weights + 3, quantizable=False)


def stream_collapse(name: str, hidden: int, streams: int) -> Matrix:
    """Return the matrix that computes, from all streams, the weights with which they become one before the head.

    References
    ----------
    `DeepseekV4HyperHead` of transformers 5.23.
    """
    return Matrix(name, streams * hidden, streams, bias=streams + 1, quantizable=False)
