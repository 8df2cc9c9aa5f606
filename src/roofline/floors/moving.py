"""Floors of single kernels without products: collectives, and kernels that work row by row."""

from pathlib import Path
from typing import Any

from roofline.deployment import machine
from roofline.deployment.machine import scale_up_domain
from roofline.deployment.spelling import checks_keywords
from roofline.floors.kernel_result import Cache, KernelFloor, keeps_question
from roofline.floors.kernels import counted_floor
from roofline.formats import Format
from roofline.hardware import Hardware
from roofline.kernels.counting import count_collective, count_rowwise
from roofline.kernels.kinds import COLLECTIVES
from roofline.names import normalize_name, unknown_name
from roofline.units import check_count, whole_number


@checks_keywords
@keeps_question
def collective_floor(op: str, size: Any, hardware: Hardware | str | Path, *, devices: int) -> KernelFloor:
    r"""Return the floor of one collective: :math:`\max(B_{link}/L, B_{nic}/N, \lambda)`, the fewest bytes that any algorithm moves.

    Parameters
    ----------
    op : {"all_reduce", "all_gather", "reduce_scatter", "all_to_all"}
        What is done, in any case and punctuation [-].
    size : int or array_like
        Bytes in all, as nccl-tests has them: what every device ends up with (all-gather) or starts from (the other three) [B].
    hardware : Hardware, str or Path
        One device: a machine, its name, or its spec file [-].
    devices : int
        Devices that take part; those beyond the scale-up domain are reached over the network [-].

    Returns
    -------
    KernelFloor
        Numbers of the shape of `size` [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown or impossible.

    Examples
    --------
    >>> floor = collective_floor("all_reduce", 450_000_000, "h100-sxm", devices=8)  # 450 GB/s in one direction
    >>> floor.bound, floor.time_s
    ('network', 0.001)
    """
    names = {normalize_name(name): name for name in COLLECTIVES}
    known = names.get(normalize_name(op).removeprefix("nccl")) if isinstance(op, str) else None
    if known is None:
        raise unknown_name("collective", str(op), COLLECTIVES)
    target, ranks = machine(hardware), whole_number("devices", devices, minimum=1)
    domain = min(ranks, scale_up_domain(target))
    return counted_floor(count_collective(size=check_count("size", size, minimum=1), ranks=ranks, op=known, domain=domain), target)


@checks_keywords
@keeps_question
def rowwise_floor(
    rows: Any,
    width: Any,
    hardware: Hardware | str | Path | None = None,
    *,
    format: str | Format,
    inputs: int = 1,
    output: str | Format | None = None,
    cache: Cache = "warm",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> KernelFloor:
    r"""Return the floor of one element-wise or row-wise kernel, a norm, an activation, a sum: :math:`\max(0, B - C)/W`.

    Its arithmetic runs on the general units and is not counted.

    Parameters
    ----------
    rows, width : int or array_like
        Rows, and elements of each [-].
    {hardware}
    format : str or Format
        Format of the rows that are read [-].
    inputs : int, optional
        Rows read for one row written: 2 for a residual or a gated activation [-].
    output : str or Format, optional
        Format of the rows that are written; `format` if not given [-].
    {rest}

    Returns
    -------
    KernelFloor
        Numbers of the shape that rows and width broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown or impossible.

    Examples
    --------
    >>> floor = rowwise_floor(8192, 8192, "h100-sxm", format="bf16", inputs=2, cache="cold")
    >>> floor.total_bytes == 3 * 2 * 8192 * 8192, round(floor.time_s * 1e6)
    (True, 120)
    """
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    return counted_floor(
        count_rowwise(rows=rows, width=width, inputs=inputs, activations=format, output=output or format), target, cache=cache
    )
