"""Softmax attention over a cache: one form for decode, for prefill, and for steps that mix them."""

from roofline.arithmetic import Number
from roofline.kernels.forms.family import Constant, Family, Size, Values
from roofline.ops import Op


def features(op: Op) -> dict[str, Number]:
    """Return what the time of attention depends on.

    Examples
    --------
    >>> from roofline.kernels import count_op
    >>> sizes = {"heads": 32, "kv_heads": 8, "head_dim": 128, "batch": 4, "context": 99}
    >>> x = features(count_op("attention", **sizes, kv="bf16", activations="bf16"))
    >>> x["flops"] / x["row_flops"], x["head_rows"], x["head_sequences"], x["ungrouped_sequences"]
    (4.0, 128, 32, 0)
    """
    heads, kv_heads, width = op.sizes["heads"], op.sizes["kv_heads"], op.sizes["qk_dim"] + op.sizes["v_dim"]
    positions = op.kv_read_bytes / op.sizes["position_bytes"] + op.rows
    return {
        "flops": op.flops,
        "row_flops": positions * (2 * width * kv_heads),
        "width": width / 2,
        "head_rows": op.rows * heads,
        "head_sequences": op.sequences * (kv_heads if heads > kv_heads else 0),
        "ungrouped_sequences": op.sequences * (kv_heads if heads == kv_heads else 0),
        "cache_bytes": op.kv_read_bytes + op.kv_write_bytes,
        "activation_bytes": op.activation_bytes,
    }


def seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of attention: compute, cache reads and per-head overhead overlap; activations are moved before and after [s].

    :math:`C = \frac{(F + r (1 + d/d_2) F_1)(1 + w/d)}{a P} + t_r R`,
    :math:`t = t_0 + \sqrt{(C + \sqrt{t_C C})^2 + \left(\frac{B}{b W}\right)^2 + (t_h (S + u S_1))^2} + n \frac{A}{W}`

    with the features F and F₁ [FLOP], d, R (rows times heads), S and S₁ (sequences times key-value heads, of several query heads and
    of one), B and A [B].

    Notes
    -----
    A decode kernel multiplies few query rows with every position, in tiles that are mostly padding: r. Wide heads leave room for
    fewer positions in a tile: d₂. The softmax costs each pair the same, whatever the width: w. Engines have a separate kernel, without
    tiles, for heads that share no keys and values: u. The square root of C is the ramp-up, while not every SM has a tile; with the
    time of a tile instead, more sequences of fewer tokens would seem to be faster.
    """
    padding = c["pad_rows"] * (1 + x["width"] / c["double_width"]) * x["row_flops"]
    flops = (x["flops"] + padding) * (1 + c["softmax_width"] / x["width"])
    compute = flops / (c["compute_share"] * peak_flops_per_s) + c["head_row_s"] * x["head_rows"]
    memory = x["cache_bytes"] / (c["bandwidth_share"] * bandwidth)
    sequences = x["head_sequences"] + c["ungrouped"] * x["ungrouped_sequences"]
    kernel = overlapped(compute + (c["ramp_s"] * compute) ** 0.5, memory, c["head_sequence_s"] * sequences)
    return c["fixed_s"] + kernel + c["passes"] * x["activation_bytes"] / bandwidth


def cache_bytes(x: Values) -> Number:
    """Return what is read of the cache [B]."""
    return x["cache_bytes"]


def overlapped(compute_s: Number, memory_s: Number, overhead_s: Number) -> Number:
    r"""Return the time of three parts that overlap: :math:`\sqrt{C^2 + M^2 + O^2}` [s].

    Examples
    --------
    >>> overlapped(2.0, 3.0, 6.0)
    7.0
    """
    return (compute_s**2 + memory_s**2 + overhead_s**2) ** 0.5


ATTENTION = Family(
    "attention",
    (
        Constant("compute_share", "-", 0.01, 1, 0.65, "share of the peak that long prompts reach"),
        Constant("bandwidth_share", "-", 0.05, 1, 0.9, "share of the bandwidth at which the cache is read"),
        Constant("fixed_s", "s", 1e-7, 1e-3, 1.1e-5, "time of the smallest kernel"),
        Constant("head_sequence_s", "s", 1e-11, 1e-5, 2e-8, "least time per key-value head and sequence", 1e-11),
        Constant("ramp_s", "s", 1e-9, 1e-3, 1.5e-5, "ramp-up r: compute time C becomes C + √(r C) while not all SMs have work", 1e-9),
        Constant("pad_rows", "row", 1e-3, 512, 60, "padding: query rows of a key-value head multiplied besides the real ones", 1e-3),
        Constant("passes", "-", 1, 30, 2, "times that queries, new keys and values, and results pass through memory", 1),
        Constant("head_row_s", "s", 1e-14, 1e-8, 1e-10, "time per query head and token, however few the pairs", 1e-14),
        Constant("softmax_width", "-", 0.01, 256, 20, "cost of the softmax, as additional head width", 0.01),
        Constant("double_width", "-", 1, 1e6, 500, "head width at which padding costs twice as much as in narrow heads", 1e6),
        Constant("ungrouped", "-", 0.01, 100, 1, "time of a key-value head with one query head, relative to one with several", 1),
    ),
    features,
    seconds,
    shape=("heads", "kv_heads", "qk_dim", "v_dim"),
    size=Size("cache_bytes", cache_bytes, 1e8),
)
"""The form of attention with separate keys and values, and of indexers and compressed rows. The time per sequence and head is the cost of
short contexts and large batches."""
