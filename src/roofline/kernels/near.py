"""Shapes near one another: how much the kernels of each known shape say about those of a wanted one."""

import numpy as np

_REACH = 0.35  # a shape farther away by this difference of logarithms weighs less by a factor of e


def shape_weights(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the weight of each known shape (n × sizes) for one wanted: all on the same shape, else the more the nearer; they add up to 1.

    Examples
    --------
    >>> known = np.array([[4096, 128], [4096, 64], [2048, 8]])
    >>> shape_weights(known, np.array([4096, 64]))
    array([0., 1., 0.])
    >>> shape_weights(known, np.array([4096, 256])).round(2)
    array([0.88, 0.12, 0.  ])
    """
    apart = np.sqrt((np.log(known / wanted) ** 2).sum(axis=-1))
    weights = np.exp((apart.min() - apart) / _REACH) * ((apart == 0) | (apart.min() > 0))
    shares: np.ndarray = weights / weights.sum()
    return shares
