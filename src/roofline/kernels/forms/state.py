"""Recurrent state: linear attention, delta rules and state-space models, token by token or chunk by chunk."""

from roofline.arithmetic import Number
from roofline.kernels.forms.family import Constant, Family, Values, combine
from roofline.ops import Op


def features(op: Op) -> dict[str, Number]:
    """Return what the time of a state update depends on."""
    return {"flops": op.flops, "state_bytes": op.state_bytes, "row_bytes": op.activation_bytes, "excess": op.rows - op.sequences}


def seconds(x: Values, c: Values, *, peak_flops_per_s: Number, bandwidth: Number) -> Number:
    r"""Return the time of a state update [s].

    :math:`t = \left[(t_0 + z t_1)^p + \left(\frac{F}{a P}\right)^p + \left(\frac{(1 + z r) S + B}{b W}\right)^p\right]^{1/p}`
    with :math:`z = e/(e + 1)`, which is 0 when every sequence has one token and nearly 1 for prompts: these run in chunks, by
    several kernels, which move intermediate states as well.

    The length of a sequence is left out, although a single long prompt takes longer than the same tokens in several prompts (up to
    three times as long in one engine): with a mean length the time would fall when a sequence joins.

    Examples
    --------
    >>> c = {"compute_share": 0.1, "bandwidth_share": 0.5, "fixed_s": 4e-6, "chunk_s": 2e-5, "chunk_states": 1, "sharpness": 1}
    >>> decode = {"flops": 0, "state_bytes": 1e6, "row_bytes": 0, "excess": 0}
    >>> round(seconds(decode, c, peak_flops_per_s=1e15, bandwidth=1e12), 9)
    6e-06
    """
    prompt = x["excess"] / (x["excess"] + 1)
    moved = x["state_bytes"] * (1 + c["chunk_states"] * prompt) + x["row_bytes"]
    compute = x["flops"] / (c["compute_share"] * peak_flops_per_s)
    work = combine(compute, moved / (c["bandwidth_share"] * bandwidth), c["sharpness"])
    return combine(c["fixed_s"] + c["chunk_s"] * prompt, work, c["sharpness"])


STATE = Family(
    "state",
    (
        Constant("compute_share", "-", 0.001, 1, 0.1, "share of the peak that chunks reach"),
        Constant("bandwidth_share", "-", 0.01, 1, 0.9, "share of the bandwidth at which states are moved"),
        Constant("fixed_s", "s", 1e-7, 1e-3, 4e-6, "time of the smallest decode"),
        Constant("chunk_s", "s", 1e-8, 1e-2, 1.5e-5, "additional time of the smallest prompt"),
        Constant("chunk_states", "-", 0.01, 16, 1, "additional times that a prompt's state is moved, besides one read and one write"),
        Constant("sharpness", "-", 1, 16, 2, "overlap of start-up, compute and memory: 1 is none"),
    ),
    features,
    seconds,
)
"""The form of state updates."""
