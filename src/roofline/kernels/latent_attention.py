"""Multi-head latent attention: one form for both ways to compute it, and for steps that mix decode and prefill."""

import numpy as np

from roofline.arithmetic import Number
from roofline.kernels.attention import overlapped
from roofline.kernels.family import Constant, Family, Values
from roofline.ops import SOFTMAX_FLOPS, Op


def features(op: Op) -> dict[str, Number]:
    """Return what the time of latent attention depends on.

    Examples
    --------
    >>> from roofline import latent_attention_floor
    >>> x = features(latent_attention_floor("h100-sxm", heads=16, batch=8, new=1000).op)
    >>> x["absorbed_flops"] / x["flops"], x["head_rows"], x["sequences"]
    (3.4, 128000, 8)
    """
    heads, rank, rope_dim = op.sizes["heads"], op.sizes["rank"], op.sizes["rope_dim"]
    return {
        "flops": op.flops,
        "absorbed_flops": op.vector_flops * (2 * (2 * rank + rope_dim) / SOFTMAX_FLOPS),  # the scores tell the pairs
        "head_rows": op.rows * heads,
        "sequences": op.sequences,
        "cache_bytes": op.kv_read_bytes + op.kv_write_bytes,
        "activation_bytes": op.activation_bytes,
    }


def seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of latent attention: arithmetic, cache and bookkeeping overlap, activations pass before and after [s].

    :math:`C = \frac{(1 - s) F + s F_a}{a P} + t_r R`,
    :math:`t = t_0 + \sqrt{(C + \sqrt{t_C C})^2 + \left(\frac{B}{b W}\right)^2 + (t_s S)^2} + n \frac{A}{W}`

    with the features F and F_a [FLOP], R (rows times heads), S (sequences), B and A [B].

    Notes
    -----
    An engine that absorbs queries in prefill as well has s = 1. One that takes the cheaper way everywhere has s = 0; what its
    prefill wastes beyond what its decode does lies between.
    """
    flops = (1 - c["absorbed_share"]) * x["flops"] + c["absorbed_share"] * x["absorbed_flops"]
    compute = flops / (c["compute_share"] * peak_flops_per_s) + c["head_row_s"] * x["head_rows"]
    memory = x["cache_bytes"] / (c["bandwidth_share"] * bandwidth)
    kernel = overlapped(compute + np.sqrt(c["ramp_s"] * compute), memory, c["sequence_s"] * x["sequences"])
    return c["fixed_s"] + kernel + c["passes"] * x["activation_bytes"] / bandwidth


LATENT_ATTENTION = Family(
    "latent_attention",
    (
        Constant("compute_share", "-", 0.01, 1, 0.7, "share of the peak that decode with many heads, and long prompts, reach"),
        Constant("bandwidth_share", "-", 0.05, 1, 0.85, "share of the bandwidth at which latents are read"),
        Constant("fixed_s", "s", 1e-7, 1e-3, 1.3e-5, "what the smallest kernel takes"),
        Constant("sequence_s", "s", 1e-11, 1e-5, 4e-8, "what every sequence takes at least", 1e-11),
        Constant(
            "ramp_s", "s", 1e-9, 1e-3, 1.5e-5, "how slowly work fills the processors: it takes the root of this times itself more", 1e-9
        ),
        Constant("passes", "-", 1, 30, 3, "how often queries, new latents and results pass through memory", 1),
        Constant("head_row_s", "s", 1e-14, 1e-8, 8e-11, "what every query head of every token takes, however few the pairs", 1e-14),
        Constant("absorbed_share", "-", 1e-3, 1, 0.25, "how much of what absorbing costs more in prefill is paid"),
    ),
    features,
    seconds,
)
"""The form of latent attention, dense or of selected positions; the projections around it are matrix products of their own."""
