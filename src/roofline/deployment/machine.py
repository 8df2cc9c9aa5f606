"""The machine of a deployment: named, from a file, or bare rates."""

from functools import lru_cache
from numbers import Real
from pathlib import Path

from roofline.calls import checks_call
from roofline.catalog import is_known_model
from roofline.errors import InvalidValueError, SpecError, UnknownNameError, quoted
from roofline.hardware import Hardware
from roofline.hardware.sections import check_capacity

Machine = Hardware | str | Path | None


@lru_cache(maxsize=256)
def _bare(memory_bandwidth: float | str, peak_flops_per_s: float | str | None, memory_capacity: float | str | None) -> Hardware:
    return Hardware.from_rates(memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)


def find_machine(
    hardware: Machine = None,
    *,
    memory_bandwidth: float | str | None = None,
    peak_flops_per_s: float | str | None = None,
    memory_capacity: float | str | None = None,
) -> Hardware | None:
    """Return the machine meant by a name, a spec file, or bare rates; None where none is, but perhaps a memory capacity."""
    rates = {"memory_bandwidth": memory_bandwidth, "peak_flops_per_s": peak_flops_per_s, "memory_capacity": memory_capacity}
    given = [name for name, rate in rates.items() if rate is not None]
    if hardware is not None:
        if given:
            named = hardware.id if isinstance(hardware, Hardware) else hardware
            raise InvalidValueError(f"give either a machine ({quoted(named)}) or bare rates ({', '.join(given)}), not both.")
        return hardware if isinstance(hardware, Hardware) else named_machine(hardware)
    for name in given:
        if not isinstance(rates[name], (Real, str)):
            raise InvalidValueError(f"{name} is {quoted(rates[name])}; bare rates are single numbers: call once for each machine.")
    if memory_bandwidth is None:
        if peak_flops_per_s is not None:
            raise no_machine(given)
        if memory_capacity is not None:
            check_capacity("memory_capacity", memory_capacity)
        return None
    return _bare(memory_bandwidth, peak_flops_per_s, memory_capacity)


def named_machine(name: str | Path) -> Hardware:
    """Return the machine of a name or a spec file; of a model's name, say that it is one."""
    try:
        return Hardware.load(name)
    except (UnknownNameError, SpecError):
        if isinstance(name, str) and is_known_model(name):
            raise UnknownNameError(f"{quoted(name)} is a model, not a machine: the model is given first, then the machine.") from None
        raise


def no_machine(given: list[str]) -> InvalidValueError:
    """Return the error for a question about time without a machine."""
    return InvalidValueError(
        "no machine: name one (see Hardware.list()), give the path of a spec file, or memory_bandwidth in B/s"
        + (f" beside {', '.join(given)}." if given else ".")
    )


@checks_call
def machine(
    hardware: Machine = None,
    *,
    memory_bandwidth: float | str | None = None,
    peak_flops_per_s: float | str | None = None,
    memory_capacity: float | str | None = None,
) -> Hardware:
    """Return the machine meant by a name, a spec file, or bare rates.

    Parameters
    ----------
    hardware : Hardware, str or Path, optional
        A machine, its name, or the path of its spec file [-].
    memory_bandwidth : float or str, optional
        W, if no `hardware` is named [B/s].
    peak_flops_per_s : float or str, optional
        P for every format; without it arithmetic never binds, and the result says so [FLOP/s].
    memory_capacity : float or str, optional
        M; without it nothing is said about what fits [B].

    Returns
    -------
    Hardware
        The machine [-].

    Raises
    ------
    InvalidValueError
        If both or neither are given, or a rate is not plausible in SI units.
    UnknownNameError
        If the name is not known.
    """
    rates = {"memory_bandwidth": memory_bandwidth, "peak_flops_per_s": peak_flops_per_s, "memory_capacity": memory_capacity}
    found = find_machine(hardware, **rates)
    if found is None:
        raise no_machine([name for name, rate in rates.items() if rate is not None])
    return found


def scale_up_domain(hardware: Hardware | None) -> int:
    """Return how many devices reach each other over scale-up links; without any, they meet over the host's, however many there are.

    Examples
    --------
    >>> scale_up_domain(Hardware.load("h100-sxm"))
    8
    """
    links = None if hardware is None else hardware.scale_up
    return _UNLIMITED if links is None else links.domain_size or _UNLIMITED


_UNLIMITED = 2**40
