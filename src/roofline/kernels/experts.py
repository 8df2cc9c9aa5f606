"""Mixtures of experts: one fused kernel, or a few that run back to back, over all experts of a device."""

from collections.abc import Sequence
from dataclasses import replace

from roofline.arithmetic import Number
from roofline.errors import InvalidValueError
from roofline.kernels.family import Constant, Family, Values, combine
from roofline.ops import Op


def merge(ops: Sequence[Op]) -> Op:
    """Return the operators of one mixture as the one kernel that engines run for them.

    Examples
    --------
    >>> up = Op("experts.up", "contraction", flops=2, rows=1, family="experts", sizes={"hidden": 8})
    >>> op = merge([up, Op("experts.down", "contraction", flops=1, family="experts", sizes={"hidden": 8})])
    >>> op.name, op.flops, op.rows
    ('experts', 3, 1)
    """
    first = ops[0] if ops else None
    if first is None or any(op.family != "experts" or op.count != first.count or dict(op.sizes) != dict(first.sizes) for op in ops):
        raise InvalidValueError(
            f"{', '.join(op.name for op in ops) or 'nothing'}: only operators of one mixture of experts merge into one kernel."
        )
    words = [op.name.split(".") for op in ops]
    alike = [column[0] for column in zip(*words, strict=False) if len(set(column)) == 1]
    amounts = {name: sum((getattr(op, name) for op in ops[1:]), start=form) for name, form in first.amounts().items()}
    return replace(first, name=".".join(alike) or first.name, **amounts)


def features(op: Op) -> dict[str, Number]:
    r"""Return what the time of a mixture of experts depends on [B]."""
    hidden, intermediate, matrices = op.sizes["hidden"], op.sizes["intermediate"], op.sizes["matrices"]
    row_flops = 2 * matrices * hidden * intermediate
    return {
        "flops": op.flops,
        "spare_flops": op.weight_bytes * (row_flops / op.sizes["expert_bytes"]),
        "weight_bytes": op.weight_bytes,
        "elements": op.rows * (op.sizes["ranks"] * (2 * hidden + matrices * intermediate)),
        "intermediate": intermediate,
    }


def seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of a mixture of experts [s].

    :math:`t = t_0 + \left[\left(\frac{(F + m_0 F_1)(1 + I_0 / I)}{a P}\right)^p + \left(\frac{B + e A}{b W}\right)^p\right]^{1/p}`

    F is the FLOP of the visits here and :math:`F_1` that of one row for each expert touched, so that :math:`m_0` rows of each
    expert and :math:`I_0` columns are multiplied in vain; B the weights of the experts touched, A the elements of rows in and out.

    Notes
    -----
    Which experts are touched, and how many visits the busiest device gets, is not fitted: it is in the amounts.
    """
    padded = (x["flops"] + c["pad_rows"] * x["spare_flops"]) * (1 + c["pad_columns"] / x["intermediate"])
    moved = x["weight_bytes"] + c["element_bytes"] * x["elements"]
    compute = padded / (c["compute_share"] * peak_flops_per_s)
    return c["fixed_s"] + combine(compute, moved / (c["bandwidth_share"] * bandwidth), c["sharpness"])


EXPERTS = Family(
    "experts",
    (
        Constant("compute_share", "-", 0.01, 1, 0.6, "share of the peak that many tokens per expert reach"),
        Constant("bandwidth_share", "-", 0.01, 1, 0.85, "share of the bandwidth at which weights are read"),
        Constant("fixed_s", "s", 1e-7, 1e-3, 3e-5, "what the smallest mixture takes: sorting visits, and several launches"),
        Constant("sharpness", "-", 1, 16, 1.5, "how well arithmetic and traffic overlap: 1 not at all"),
        Constant("pad_rows", "row", 1e-3, 4096, 16, "rows of every expert touched that are multiplied in vain", 1e-3),
        Constant("pad_columns", "column", 1e-3, 8192, 50, "columns of an expert that are multiplied in vain", 1e-3),
        Constant(
            "element_bytes", "B", 1e-3, 256, 3, "traffic of a row's element, all devices' visits counted, in and out of an expert", 1e-3
        ),
    ),
    features,
    seconds,
)
"""The form of mixtures of experts. Rows of all devices' visits count in the traffic: kernels sort, permute and add up over all."""
