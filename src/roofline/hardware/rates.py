"""The rates that shares of kernels refer to: one rule for fits and estimates."""

import math
from collections.abc import Iterable

from roofline.hardware.datasheet import Datasheet
from roofline.records import Rates


def reference_rates(
    operand: str, roof: str, *, machine: Datasheet | None = None, rates: Rates | None = None, outside: float = 0.0
) -> tuple[float, float]:
    """Return the peak and the bandwidth that the shares of a kernel refer to; infinite if unknown [FLOP/s], [B/s].

    Both are the machine's, or the record's where these are lower: a machine made of a record states no rate below what a data sheet may.
    The bandwidth is that of main memory, or with `roof` ``"link"`` the rate at which a collective's bytes leave the device, of which
    the part `outside` leaves its scale-up domain.
    """
    peak = bandwidth = math.inf
    if machine is not None:
        peak, (link, beyond) = machine.peak(operand).value, machine.link_rates
        bandwidth = min(link, beyond / outside if outside else math.inf) if roof == "link" else machine.memory_bandwidth
    if rates is not None and rates.origin != "fraction":
        known = rates.link_bandwidth if roof == "link" else rates.memory_bandwidth
        peak, bandwidth = min(peak, rates.peak_flops_per_s.get(operand, math.inf)), min(bandwidth, known or math.inf)
    return peak, bandwidth


def datasheet_rates(machine: Datasheet, operands: Iterable[str]) -> Rates:
    """Return a machine's rates as a record keeps them."""
    peaks = {operand: reference_rates(operand, "memory", machine=machine)[0] for operand in operands}
    return Rates(
        peak_flops_per_s={operand: peak for operand, peak in peaks.items() if math.isfinite(peak)},
        memory_bandwidth=machine.memory_bandwidth,
        link_bandwidth=machine.link_ceiling.value if machine.link_ceiling else None,
        origin="datasheet",
    )
