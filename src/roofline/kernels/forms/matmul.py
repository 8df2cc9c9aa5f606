"""Matrix products, from GEMV to GEMM."""

from roofline.arithmetic import Number, maximum, minimum
from roofline.kernels.forms.family import Constant, Family, Size, Values, combine
from roofline.ops import Op

_LARGE = 2e8
"""Elements of a matrix from which products were measured to become slower; fitting this constant improved no fit."""


def features(op: Op) -> dict[str, Number]:
    """Return what the time of a matrix product depends on [B]."""
    n, k = op.sizes["outputs"], op.sizes["inputs"]
    return {"m": op.rows, "n": n, "k": k, "bytes": op.weight_bytes + op.input_bytes + op.output_bytes}


def seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of a matrix product; small ones do not fill the device [s].

    :math:`t = t_0 + \tau d + q \frac{m k}{W} + \left[\left(\frac{2 E}{a P}\right)^p + \left(\frac{B}{b W}\right)^p\right]^{1/p}`
    with :math:`E = \left[\left((m + m_0 [m > 1]) n (k + k_0) (1 + n k / N)^g\right)^s + (A_0 d_0)^s\right]^{1/s}`,
    :math:`d = \frac{k K}{k + K}`, and :math:`d_0` the same of :math:`k + k_0`

    A single row has a kernel without tiles (GEMV); several rows are padded by :math:`m_0`. :math:`A_0` outputs occupy all SMs
    once, and fewer take as long, one step along the inner dimension after the other; d is how many steps run one after another, since
    deep products are split (split-K). :math:`k_0` is the depth lost in prologue and epilogue, q a pass over the rows before the product,
    such as scaling them to 8 bits; g is the slowdown of large matrices. Tiles and waves are not modelled: kernels choose them, and any
    fixed choice makes the estimate worse.

    Examples
    --------
    >>> c = {"compute_share": 0.5, "bandwidth_share": 0.5, "fixed_s": 1e-6, "sharpness": 1, "least_area": 0, "extra_depth": 0}
    >>> c |= {"spare_rows": 0, "row_bytes": 0, "filling": 1, "split_depth": 1, "depth_s": 0, "large": 0}
    >>> x = {"m": 100, "n": 1000, "k": 1000, "bytes": 3e6}
    >>> round(seconds(x, c, peak_flops_per_s=1e14, bandwidth=1e12), 9)
    1.1e-05
    """
    m, n, k = x["m"], x["n"], x["k"]
    rows = m + c["spare_rows"] * minimum(maximum(m - 1, 0), 1)  # continuous between one row and two
    deep = k + c["extra_depth"]
    slower = (1 + n * k / _LARGE) ** c["large"]
    work = combine(rows * n * deep * slower, c["least_area"] * _split(deep, c["split_depth"]), c["filling"])
    compute = 2 * work / (c["compute_share"] * peak_flops_per_s)
    product = combine(compute, x["bytes"] / (c["bandwidth_share"] * bandwidth), c["sharpness"])
    return c["fixed_s"] + c["depth_s"] * _split(k, c["split_depth"]) + c["row_bytes"] * m * k / bandwidth + product


def weights_per_row(x: Values) -> Number:
    """Return elements of the matrix over rows [-]."""
    return x["n"] * x["k"] / maximum(x["m"], 1)


def _split(depth: Number, split_depth: Number) -> Number:
    """Return how many steps along the inner dimension run one after another; the rest is split off and runs in parallel."""
    return depth * split_depth / (depth + split_depth)


MATMUL = Family(
    "matmul",
    (
        Constant("compute_share", "-", 0.01, 1, 0.8, "share of the peak that large products reach"),
        Constant("bandwidth_share", "-", 0.01, 1, 0.85, "share of the bandwidth at which weights are read"),
        Constant("fixed_s", "s", 1e-7, 1e-3, 3e-6, "time of the smallest kernel"),
        Constant("spare_rows", "row", 1e-3, 1024, 8, "padding: rows computed besides the real ones, if there are several", 1e-3),
        Constant("least_area", "-", 100, 5e7, 5e5, "outputs that occupy all SMs once", 100, grows=True),
        Constant("sharpness", "-", 1, 16, 3, "overlap of compute and memory: 1 is none"),
        Constant("extra_depth", "-", 1e-3, 8192, 100, "inner dimension lost in prologue and epilogue", 1e-3),
        Constant("row_bytes", "B", 1e-4, 100, 0.1, "bytes moved per element of the rows before the product: quantization", 1e-4),
        Constant("filling", "-", 0.3, 16, 2, "how sharply time begins to grow beyond `least_area`"),
        Constant("depth_s", "s", 1e-13, 1e-7, 1e-10, "latency of each step along the inner dimension", 1e-13),
        Constant("split_depth", "-", 2048, 1e6, 8192, "inner dimension at which half of it is split off (split-K)"),
        Constant("large", "-", 1e-4, 3, 0.03, "slowdown of large matrices: an exponent of their size", 1e-4),
    ),
    features,
    seconds,
    shape=("outputs", "inputs"),
    alike=True,
    size=Size("weights_per_row", weights_per_row, 1e6),
)
"""The form of matrix products, the constants that matter most first. Libraries choose tiles and splits by the matrix."""
