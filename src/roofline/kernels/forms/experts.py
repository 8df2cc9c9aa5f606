"""Mixtures of experts: one fused kernel, or a few that run back to back, over all experts of a device."""

from roofline.arithmetic import Number, maximum
from roofline.kernels.forms.family import Constant, Family, Values, combine
from roofline.ops import Op


def features(op: Op) -> dict[str, Number]:
    r"""Return what the time of a mixture of experts depends on [B]."""
    hidden, intermediate, matrices = op.sizes["hidden"], op.sizes["intermediate"], op.sizes["matrices"]
    row_flops = 2 * matrices * hidden * intermediate
    return {
        "flops": op.flops,
        "spare_flops": op.weight_bytes * (row_flops / op.sizes["expert_bytes"]),
        "weight_bytes": op.weight_bytes,
        "elements": op.rows * (op.sizes["senders"] * (2 * hidden + matrices * intermediate)),
        "intermediate": intermediate,
    }


def seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of a mixture of experts [s].

    :math:`t = t_0 + \left[\left(\frac{E (1 + I_0 / I)}{a P}\right)^p + \left(\frac{B + e A}{b W}\right)^p\right]^{1/p}`,
    :math:`E = F + m_0 F_1 + \frac{F \, m_1 F_1}{F + m_1 F_1}`

    F is the FLOP of the visits here and :math:`F_1` that of one row for each expert touched, so that :math:`m_0` rows of each
    expert and :math:`I_0` columns are padding, and as many rows again as there are, at most :math:`m_1`: tiles grow with the rows. B is the
    weights of the experts touched, A the elements of rows in and out.

    Notes
    -----
    The experts touched and the visits of the busiest device are amounts, not constants of the fit.
    """
    again = c["tile_rows"] * x["spare_flops"]
    again = again * (x["flops"] / maximum(x["flops"] + again, 1e-300))
    padded = (x["flops"] + c["pad_rows"] * x["spare_flops"] + again) * (1 + c["pad_columns"] / x["intermediate"])
    moved = x["weight_bytes"] + c["element_bytes"] * x["elements"]
    compute = padded / (c["compute_share"] * peak_flops_per_s)
    return c["fixed_s"] + combine(compute, moved / (c["bandwidth_share"] * bandwidth), c["sharpness"])


EXPERTS = Family(
    "experts",
    (
        Constant("compute_share", "-", 0.01, 1, 0.6, "share of the peak that many tokens per expert reach"),
        Constant("bandwidth_share", "-", 0.01, 1, 0.85, "share of the bandwidth at which weights are read"),
        Constant("fixed_s", "s", 1e-7, 1e-3, 3e-5, "time of the smallest mixture: sorting visits, and several launches"),
        Constant("sharpness", "-", 1, 16, 1.5, "overlap of compute and memory: 1 is none"),
        Constant("pad_rows", "row", 1e-3, 4096, 16, "padding: rows per expert touched", 1e-3, grows=True),
        Constant("pad_columns", "column", 1e-3, 8192, 50, "padding: columns per expert", 1e-3),
        Constant("tile_rows", "row", 1e-3, 4096, 16, "padding: at most as many rows again per expert, where there are as many", 1e-3),
        Constant("element_bytes", "B", 1e-3, 256, 3, "bytes moved per element of a row, the visits of all devices counted", 1e-3),
    ),
    features,
    seconds,
    shape=("hidden", "intermediate", "matrices", "count", "ranks"),
    alike=True,
)
"""The form of mixtures of experts. The visits of all devices count as traffic: kernels sort, permute and sum over all of them, or over those
that arrive where an all-to-all dispatches tokens. Engines tune these kernels for the width and the number of experts on a device, so that
neighbours may differ by a factor of two."""
