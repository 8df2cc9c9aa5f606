"""Row-wise kernels: norms, activation functions, gates, look-ups, short convolutions."""

from roofline.arithmetic import Number
from roofline.kernels.forms.family import Constant, Family, Values, combine
from roofline.ops import Op


def features(op: Op) -> dict[str, Number]:
    """Return what the time of a row-wise kernel depends on [B]."""
    return {"bytes": op.compulsory_bytes + op.activation_bytes}


def seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of a row-wise kernel: :math:`t = \left[t_0^p + \left(\frac{B}{b W}\right)^p\right]^{1/p}`.

    Its arithmetic runs on the general units, far from their peak. Start-up and memory traffic overlap, unlike in a matrix product.

    Examples
    --------
    >>> c = {"bandwidth_share": 0.8, "fixed_s": 3e-6, "sharpness": 1}
    >>> round(seconds({"bytes": 8e6}, c, peak_flops_per_s=0, bandwidth=1e12), 9)
    1.3e-05
    """
    return combine(c["fixed_s"], x["bytes"] / (c["bandwidth_share"] * bandwidth), c["sharpness"])


ROWWISE = Family(
    "rowwise",
    (
        Constant("bandwidth_share", "-", 0.01, 1, 0.8, "share of the bandwidth at which rows are moved"),
        Constant("fixed_s", "s", 1e-7, 1e-3, 3e-6, "time of the smallest kernel"),
        Constant("sharpness", "-", 1, 16, 1.5, "overlap of start-up and memory: 1 is none"),
    ),
    features,
    seconds,
)
"""The form of row-wise kernels."""
