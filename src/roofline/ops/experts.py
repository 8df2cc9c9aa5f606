"""Mixtures of experts: which weights a step touches, and what one fused kernel over them costs."""

from roofline.arithmetic import Number, minimum
from roofline.formats import Format
from roofline.ops.linear import linear
from roofline.ops.op import Op
from roofline.ops.popularity import busiest_popularity, shared_experts, visited
from roofline.ops.routing import PowerLaw, Routing


def distinct_experts(tokens: Number, *, count: int, top_k: float, routing: Routing = "uniform") -> Number:
    r"""Return how many distinct experts `tokens` touch in one layer: expected, or at least.

    Uniform and independent routing touches :math:`E (1 - (1 - k/E)^T)` on average; a popularity :math:`q_i`, the probability
    that a token visits expert i, :math:`\sum_i 1 - (1 - q_i)^T`; a power law, where every expert gets its share of the visits,
    :math:`\sum_i \min(1, T q_i)` (:func:`busiest_popularity`). In the best case all tokens agree on k.

    Parameters
    ----------
    tokens : int or numpy.ndarray
        T, tokens routed [token].
    count : int
        E, routed experts [-].
    top_k : int or float
        k, experts that a token visits [-].
    routing : str, PowerLaw or tuple of float, optional
        What ``parse_routing`` returns; of popularities E that add up to k or to 1 [-].

    Returns
    -------
    int, float or numpy.ndarray
        Distinct experts, of the shape of `tokens` [-].

    Raises
    ------
    InvalidValueError
        If the popularities are not E numbers of 0 … 1 that add up to k or 1.

    Examples
    --------
    >>> distinct_experts(1, count=8, top_k=2), round(distinct_experts(8, count=8, top_k=2), 2)
    (2.0, 7.2)
    >>> distinct_experts(64, count=128, top_k=8, routing="best")
    8
    """
    if routing == "best":
        return minimum(top_k, count)
    if routing == "uniform":
        return count * (1 - (1 - min(top_k / count, 1)) ** tokens)
    if isinstance(routing, PowerLaw):
        return shared_experts(tokens, busiest_popularity(routing.exponent, count=count, visits=top_k))
    visits = visited(routing, count, top_k)
    return sum((1 - (1 - q) ** tokens for q in visits), start=0.0 * tokens)


def expert_sizes(
    *, hidden: int, intermediate: int, matrices: int, expert_bytes: Number, count: int, ranks: int = 1, senders: int | None = None
) -> dict[str, Number]:
    """Return the sizes that the time of a fused kernel over experts depends on: what ``Op.sizes`` holds.

    The kernel sorts the visits of as many average devices as there are `senders`: of all `ranks`, unless only rows for this device arrive.
    """
    return {
        "hidden": hidden,
        "intermediate": intermediate,
        "matrices": matrices,
        "expert_bytes": expert_bytes,
        "count": count,
        "ranks": ranks,
        "senders": ranks if senders is None else senders,
    }


def fused_experts(
    name: str,
    *,
    visits: Number,
    touched: Number,
    hidden: int,
    intermediate: int,
    count: int,
    weights: Format,
    activations: Format,
    stream: Format,
    gated: bool = True,
    ranks: int = 1,
    routed: Number | None = None,
) -> Op:
    """Return the cost of one fused kernel over the routed experts of a device, every visit's row read and written once.

    Parameters
    ----------
    name : str
        What to call it [-].
    visits : int, float or numpy.ndarray
        Visits that experts of this device get [-].
    touched : int, float or numpy.ndarray
        Distinct experts that they touch, whose weights are read [-].
    hidden, intermediate : int
        Width of the rows, and inside one expert on this device [-].
    count : int
        Experts on this device [-].
    weights, activations, stream : Format
        As in :func:`roofline.ops.linear` [-].
    gated : bool, optional
        Three matrices per expert instead of two [-].
    ranks : int, optional
        Devices that share the experts, whole ones each [-].
    routed : int, float or numpy.ndarray, optional
        Visits on all of them together, a multiple of `visits` if not given [-].

    Returns
    -------
    Op
        A contraction of the family ``"experts"``; its `rows` are an average device's share of `routed` [-].

    Examples
    --------
    >>> bf16 = Format.load("bf16")
    >>> sizes = {"hidden": 4096, "intermediate": 14336, "count": 8}
    >>> op = fused_experts("experts", visits=2, touched=2, **sizes, weights=bf16, activations=bf16, stream=bf16)
    >>> op.flops == op.weight_bytes == 2 * 2 * 3 * 4096 * 14336
    True
    """
    wide, down = (
        linear(label, visits, inputs=k, outputs=n, weights=weights, activations=activations, stream=stream, reads=touched)
        for label, k, n in (("up", hidden, intermediate * (1 + gated)), ("down", intermediate, hidden))
    )
    one = (2 + gated) * hidden * intermediate * weights.bytes_per_element
    return Op(
        name,
        "contraction",
        wide.operand,
        flops=wide.flops + down.flops,
        weight_bytes=wide.weight_bytes + down.weight_bytes,
        input_bytes=wide.input_bytes,
        output_bytes=down.output_bytes,
        rows=visits if routed is None else routed / ranks,
        family="experts",
        stored=weights.name,
        sizes=expert_sizes(hidden=hidden, intermediate=intermediate, matrices=2 + gated, expert_bytes=one, count=count, ranks=ranks),
    )
