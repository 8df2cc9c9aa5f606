"""Collectives: all-reduce, all-to-all and the like, point-to-point."""

import math

import numpy as np

from roofline.arithmetic import Number, maximum, minimum
from roofline.kernels.forms.family import Constant, Family, Values, combine
from roofline.ops import Op


def features(op: Op) -> dict[str, Number]:
    """Return what the time of a collective depends on [B]."""
    return {"bytes": op.link_bytes, "ranks": op.sizes["ranks"]}


def reduce_seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of an all-reduce [s].

    :math:`t = \left[(t_0 + h (n - 1) + z t_2)^p + \left(\left(\frac{2 (n - 1)}{n}\right)^r \frac{B}{b L}
    + g \log_2(n) \sqrt{B}\right)^p\right]^{1/p}` with :math:`z = \min(1, \max(0, 1 + \log_2 \frac{n B}{B_2}))`

    A ring moves 2 (n − 1)/n times as much as a reduction in the switch: r interpolates between them. The root stands for the
    protocols between the smallest and the largest messages. Kernels send small messages to all at once, and larger ones in two stages, which
    takes :math:`t_2` longer. In vLLM's ``custom_all_reduce.cuh`` that begins at 512 KiB among four ranks and 256 KiB among eight, where
    n B is 2 MiB.

    Examples
    --------
    >>> c = {"fixed_s": 3e-6, "rank_s": 1e-6, "bandwidth_share": 0.5, "ring": 1, "root": 0, "sharpness": 1}
    >>> c |= {"stage_s": 4e-6, "stage_bytes": 2e6}
    >>> for size in (2e5, 1e6):
    ...     print(round(reduce_seconds({"bytes": size, "ranks": 4}, c, peak_flops_per_s=0, bandwidth=1e12), 9))
    6.6e-06
    1.3e-05
    """
    others = x["ranks"] - 1
    ring = (2 * others / x["ranks"]) ** c["ring"]
    moving = x["bytes"] * ring / (c["bandwidth_share"] * bandwidth) + c["root"] * _log2(x["ranks"]) * x["bytes"] ** 0.5
    staged = minimum(maximum(1 + _log2(maximum(x["ranks"] * x["bytes"], 1e-300) / c["stage_bytes"]), 0), 1)
    return combine(c["fixed_s"] + c["rank_s"] * others + c["stage_s"] * staged, moving, c["sharpness"])


def _log2(value: Number) -> Number:
    return np.log2(value) if isinstance(value, np.ndarray) else math.log2(value)


def exchange_seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of an all-to-all: :math:`t = t_0 + h (n - 1) + \frac{B}{b L} + g \sqrt{B}` [s].

    Examples
    --------
    >>> c = {"fixed_s": 3e-6, "rank_s": 1e-6, "bandwidth_share": 0.5, "root": 1e-9}
    >>> round(exchange_seconds({"bytes": 1e6, "ranks": 4}, c, peak_flops_per_s=0, bandwidth=1e12), 9)
    9e-06
    """
    moving = x["bytes"] / (c["bandwidth_share"] * bandwidth) + c["root"] * x["bytes"] ** 0.5
    return c["fixed_s"] + c["rank_s"] * (x["ranks"] - 1) + moving


def send_seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of a message to one other device: :math:`t = t_0 + \frac{B}{b L}` [s].

    Examples
    --------
    >>> send_seconds({"bytes": 1e6}, {"fixed_s": 1e-6, "bandwidth_share": 0.5}, peak_flops_per_s=0, bandwidth=1e12)
    3e-06
    """
    return c["fixed_s"] + x["bytes"] / (c["bandwidth_share"] * bandwidth)


_SHARE = Constant("bandwidth_share", "-", 0.01, 1, 0.7, "share of the links' rate that large messages reach")
_RANK = Constant("rank_s", "s", 1e-9, 1e-4, 2e-7, "additional time per rank beyond the first")

ALL_REDUCE = Family(
    "all_reduce",
    (
        _SHARE,
        Constant("fixed_s", "s", 1e-7, 1e-3, 4e-6, "time of the smallest message, before `rank_s`"),
        _RANK,
        Constant("ring", "-", 1e-3, 1, 0.3, "from 0, reduction in the switch, to 1, a ring"),
        Constant("root", "s/√B", 1e-12, 1e-6, 4e-9, "additional time of messages of medium size, per root of a byte"),
        Constant("sharpness", "-", 1, 16, 2, "overlap of latency and transfer: 1 is none"),
        Constant("stage_s", "s", 1e-9, 1e-3, 3e-6, "additional time of messages that are sent in two stages", 1e-9),
        Constant("stage_bytes", "B", 1e4, 1e12, 2e6, "bytes of a message times ranks, from which on it is sent in two stages", 1e12),
    ),
    features,
    reduce_seconds,
    "link",
    shape=("ranks",),
)
"""The form of all-reduces. One set of constants serves any number of ranks; engines choose kernels by it, so that measured ones have their own."""

EXCHANGE = Family(
    "exchange",
    (
        _SHARE,
        Constant("fixed_s", "s", 1e-7, 1e-3, 6e-6, "time of the smallest message, before `rank_s`"),
        _RANK,
        Constant("root", "s/√B", 1e-12, 1e-6, 2e-9, "additional time of messages of medium size, per root of a byte"),
    ),
    features,
    exchange_seconds,
    "link",
)
"""The form of all-to-alls, all-gathers and reduce-scatters."""

SEND = Family(
    "send",
    (_SHARE, Constant("fixed_s", "s", 1e-7, 1e-3, 6e-6, "time of the smallest message")),
    features,
    send_seconds,
    "link",
)
"""The form of messages from one device to another."""
