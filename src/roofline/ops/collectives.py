"""Collectives: what has to pass through one device's links, in one direction. Floors, not algorithms.

`link_bytes` are counted whatever link they take; `nic_bytes` are those among them that must leave the scale-up domain.
"""

from roofline.arithmetic import Number
from roofline.ops.op import Op


def all_reduce(name: str, size: Number, *, ranks: int, domain: int) -> Op:
    r"""Return the floor of adding up `size` bytes over `ranks` devices: every device sends its part, :math:`B` bytes.

    A ring sends :math:`2(t-1)/t \cdot B`; with reduction in the switch little more than :math:`B` is needed, and never less.
    Across domains of g devices each sends its share, :math:`B/g`, once to another domain.

    Parameters
    ----------
    name : str
        What to call it [-].
    size : int, float or numpy.ndarray
        B, bytes to add up, as every device has them [B].
    ranks : int
        t, devices that take part [-].
    domain : int
        g, devices that reach each other over scale-up links [-].

    Returns
    -------
    Op
        A collective; nothing at all for a single device [-].

    References
    ----------
    Patarasuk, Yuan, "Bandwidth optimal all-reduce algorithms", JPDC 69(2), 2009, doi:10.1016/j.jpdc.2008.09.002.

    Examples
    --------
    >>> all_reduce("all_reduce", 8192, ranks=8, domain=8).link_bytes
    8192
    """
    if ranks == 1:
        return Op(name, "collective")
    across = size / domain if ranks > domain else 0
    sizes = {"ranks": ranks, "domain": domain}
    return Op(name, "collective", link_bytes=size, nic_bytes=across, hops=1, family="all_reduce", sizes=sizes)


def exchange(name: str, size: Number, *, ranks: int, visits: float, domain: int, share: float | None = None) -> Op:
    r"""Return the floor of taking tokens to the devices of their experts, or back: each token once to each other device.

    Of `visits` uniformly chosen experts a token's expected number of other devices is
    :math:`(e - 1) (1 - (1 - 1/e)^k)`, which is less than the :math:`k (e-1)/e` of sending it once per expert. A device that gets a
    `share` s of all visits takes in :math:`1 - (1 - s)^k` of the tokens of each of the others.

    Parameters
    ----------
    name : str
        What to call it [-].
    size : int, float or numpy.ndarray
        Bytes of the tokens that a device has [B].
    ranks : int
        e, devices that the experts are spread over [-].
    visits : float
        k, experts that a token visits; 0 if all are assumed to be on its own device [-].
    domain : int
        g, devices that reach each other over scale-up links [-].
    share : float, optional
        s, what the busiest device gets of all visits; 1/e if not given [-].

    Returns
    -------
    Op
        A collective; nothing at all for a single device [-].

    Examples
    --------
    >>> round(exchange("dispatch", 1024, ranks=8, visits=8, domain=8).link_bytes)
    4705
    """
    if ranks == 1 or visits == 0:
        return Op(name, "collective")
    reached = 1 - (1 - (1 / ranks if share is None else share)) ** visits
    outside = max(0, ranks - domain)
    return Op(
        name,
        "collective",
        link_bytes=size * (ranks - 1) * reached,
        nic_bytes=size * outside * reached,
        hops=1,
        family="exchange",
        sizes={"ranks": ranks, "domain": domain},
    )


def all_gather(name: str, size: Number, *, ranks: int, domain: int) -> Op:
    r"""Return the floor of collecting `size` bytes on every one of `ranks` devices, which have a part of them each: :math:`(t-1)/t \cdot B`.

    What other domains have must reach each domain of g devices once, over all their NICs: :math:`(t-g)/t \cdot B/g`. Adding up and
    scattering (a reduce-scatter) moves as much the other way.

    Parameters
    ----------
    name : str
        What to call it [-].
    size : int, float or numpy.ndarray
        B, bytes that every device ends up with [B].
    ranks : int
        t, devices that take part [-].
    domain : int
        g, devices that reach each other over scale-up links [-].

    Returns
    -------
    Op
        A collective; nothing at all for a single device [-].

    Examples
    --------
    >>> op = all_gather("all_gather", 8192, ranks=16, domain=8)
    >>> op.link_bytes, op.nic_bytes
    (7680.0, 512.0)
    """
    if ranks == 1:
        return Op(name, "collective")
    return Op(
        name,
        "collective",
        link_bytes=size * (ranks - 1) / ranks,
        nic_bytes=size * max(0, ranks - domain) / ranks / domain,
        hops=1,
        family="exchange",
        sizes={"ranks": ranks, "domain": domain},
    )


def send(name: str, size: Number, *, outside: bool) -> Op:
    """Return the cost of sending bytes to one other device.

    Parameters
    ----------
    name : str
        What to call it [-].
    size : int, float or numpy.ndarray
        Bytes [B].
    outside : bool
        Whether the other device is in another scale-up domain [-].

    Returns
    -------
    Op
        A collective [-].

    Examples
    --------
    >>> send("to the next stage", 1024, outside=True).nic_bytes
    1024
    """
    sizes = {"ranks": 2, "domain": 1 if outside else 2}
    return Op(name, "collective", link_bytes=size, nic_bytes=size if outside else 0, hops=1, family="send", sizes=sizes)
