"""Multi-head latent attention: one form for both ways to compute it, and for steps that mix decode and prefill."""

from roofline.arithmetic import Number
from roofline.kernels.forms.attention import overlapped
from roofline.kernels.forms.family import Constant, Family, Values
from roofline.ops import SOFTMAX_FLOPS, Op


def features(op: Op) -> dict[str, Number]:
    """Return what the time of latent attention depends on.

    Examples
    --------
    >>> from roofline.kernels import count_op
    >>> x = features(count_op("latent_attention", heads=16, batch=8, new=1000, kv="bf16", activations="bf16"))
    >>> x["absorbed_flops"] / x["flops"], x["head_rows"], x["sequences"]
    (3.4, 128000, 8)
    """
    heads, rank, rope_dim = op.sizes["heads"], op.sizes["rank"], op.sizes["rope_dim"]
    return {
        "flops": op.flops,
        "absorbed_flops": op.vector_flops * (2 * (2 * rank + rope_dim) / SOFTMAX_FLOPS),  # pairs, from the softmax over their scores
        "head_rows": op.rows * heads,
        "sequences": op.sequences,
        "cache_bytes": op.kv_read_bytes + op.kv_write_bytes,
        "activation_bytes": op.activation_bytes,
    }


def seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of latent attention: compute, cache reads and per-sequence overhead overlap; activations are moved before and after [s].

    :math:`C = \frac{(1 - s) F + s F_a}{a P} + t_r R`,
    :math:`t = t_0 + \sqrt{(C + \sqrt{t_C C})^2 + \left(\frac{B}{b W}\right)^2 + (t_s S)^2} + n \frac{A}{W}`

    with the features F and F_a [FLOP], R (rows times heads), S (sequences), B and A [B].

    Notes
    -----
    s is 1 for an engine that absorbs queries in prefill as well, and 0 for one that always takes the cheaper way. Values between also
    stand for a prefill that is less efficient than decode.
    """
    flops = (1 - c["absorbed_share"]) * x["flops"] + c["absorbed_share"] * x["absorbed_flops"]
    compute = flops / (c["compute_share"] * peak_flops_per_s) + c["head_row_s"] * x["head_rows"]
    memory = x["cache_bytes"] / (c["bandwidth_share"] * bandwidth)
    kernel = overlapped(compute + (c["ramp_s"] * compute) ** 0.5, memory, c["sequence_s"] * x["sequences"])
    return c["fixed_s"] + kernel + c["passes"] * x["activation_bytes"] / bandwidth


LATENT_ATTENTION = Family(
    "latent_attention",
    (
        Constant("compute_share", "-", 0.01, 1, 0.7, "share of the peak that long prompts, and decode with many heads, reach"),
        Constant("bandwidth_share", "-", 0.05, 1, 0.85, "share of the bandwidth at which latents are read"),
        Constant("fixed_s", "s", 1e-7, 1e-3, 1.3e-5, "time of the smallest kernel"),
        Constant("sequence_s", "s", 1e-11, 1e-5, 4e-8, "least time per sequence", 1e-11),
        Constant("ramp_s", "s", 1e-9, 1e-3, 1.5e-5, "ramp-up r: compute time C becomes C + √(r C) while not all SMs have work", 1e-9),
        Constant("passes", "-", 1, 30, 3, "times that queries, new latents and results pass through memory", 1),
        Constant("head_row_s", "s", 1e-14, 1e-8, 8e-11, "time per query head and token, however few the pairs", 1e-14),
        Constant("absorbed_share", "-", 1e-3, 1, 0.25, "share of the extra cost of absorbed prefill that is paid"),
    ),
    features,
    seconds,
)
"""The form of latent attention, dense or of selected positions, without the projections around it."""
