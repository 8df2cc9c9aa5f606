"""`Datasheet`: the figures of one machine, and the ceilings that follow from them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Literal

from roofline.calls import checks_call
from roofline.description import NOT_EMPTY, Description, Number
from roofline.formats import OPERANDS
from roofline.frozen import FrozenDict
from roofline.hardware.peaks import find_ceilings, find_peaks, find_vector_ceiling, find_vector_peak
from roofline.hardware.sections import (
    Cache,
    Clock,
    Compute,
    HostLink,
    Memory,
    Power,
    ScaleOut,
    ScaleUp,
    Units,
)
from roofline.names import unknown_name
from roofline.provenance import Ceiling
from roofline.shipped import Table

Words = tuple[str, ...]

_NODE = 8  # devices of one server, in the usual designs


class Datasheet(Description):
    """What a spec file holds: a machine's figures in SI units, each group with its source, and its ceilings.

    Parameters
    ----------
    schema_version : int
        Version of the file format, 1 [-].
    id : str
        The machine's id: lower-case words joined by hyphens [-].
    name : str
        The official name [-].
    vendor, architecture : str, optional
        Who makes it, and which design it is [-].
    year : int, optional
        Year of first availability [-].
    unit : str, optional
        What the figures are for, where a package holds several devices [-].
    aliases : tuple of str, optional
        Other names it goes by, unique among all specs [-].
    nodes : tuple of str, optional
        Servers and cloud instances of it, each with its number of devices in front: ``"8x p5.48xlarge"`` [-].
    notes : tuple of str, optional
        Caveats a reader must know [-].
    compute : Compute, optional
        Dense compute peaks [-].
    memory : Memory
        Main memory [-].
    cache : Cache, optional
        Caches shared by all units [-].
    units : Units, optional
        Compute units and clocks [-].
    clock : Clock, optional
        The highest clock that the part is sold to run at [-].
    scale_up : ScaleUp, optional
        Links within a domain of devices [-].
    scale_out : ScaleOut, optional
        Network between servers [-].
    host_link : HostLink, optional
        Link to the host [-].
    power : Power, optional
        Power limit [-].
    """

    schema_version: Literal[1]
    id: Annotated[str, NOT_EMPTY]
    name: Annotated[str, NOT_EMPTY]
    vendor: str = ""
    architecture: str = ""
    year: Annotated[int, Number(1990, 2100)] | None = None
    unit: str = "one accelerator"
    aliases: Words = ()
    nodes: Words = ()
    notes: Words = ()
    compute: Compute = Compute()
    memory: Memory
    cache: Cache | None = None
    units: Units | None = None
    clock: Clock | None = None
    scale_up: ScaleUp | None = None
    scale_out: ScaleOut | None = None
    host_link: HostLink | None = None
    power: Power | None = None

    @cached_property
    def memory_bandwidth(self) -> float:
        """Main-memory bandwidth [B/s]."""
        return self.memory.bandwidth_bytes_per_s

    @cached_property
    def memory_capacity(self) -> float | None:
        """Main-memory capacity: visible bytes if known, else labelled ones, else None for unknown [B]."""
        return self.memory.labelled_bytes if self.memory.capacity_bytes is None else self.memory.capacity_bytes

    @cached_property
    def last_level_cache(self) -> float:
        """Bytes of the largest cache shared by all units, 0 if none is known [B]."""
        return float(self.cache.last_level_bytes or self.cache.l2_bytes or 0) if self.cache else 0.0

    @cached_property
    def memory_ceiling(self) -> Ceiling:
        """Main-memory bandwidth with its source [B/s]."""
        return self.memory.ceiling("memory bandwidth", self.memory_bandwidth, "B/s")

    @cached_property
    def capacity_ceiling(self) -> Ceiling | None:
        """Main-memory capacity with its source, None if unknown [B]."""
        if self.memory_capacity is None:
            return None
        note = "as labelled: visible bytes not known" if self.memory.capacity_bytes is None else ""
        return self.memory.ceiling("memory capacity", self.memory_capacity, "B", note)

    @cached_property
    def cache_ceiling(self) -> Ceiling:
        """Last-level cache capacity with its source [B]."""
        note = "" if self.last_level_cache else "no cache known"
        return (self.cache or Table()).ceiling("last-level cache", self.last_level_cache, "B", note)

    @cached_property
    def link_ceiling(self) -> Ceiling | None:
        """What one device sends to its peers in one direction, None if unknown [B/s].

        A machine without scale-up links talks over its host link, and the note says so.
        """
        if self.scale_up is not None:
            rate = self.scale_up.bandwidth_bytes_per_s
            return None if rate is None else self.scale_up.ceiling("scale-up link", rate, "B/s")
        if self.host_ceiling is None or self.host_link is None:
            return None
        return replace(self.host_ceiling, note=f"no scale-up link: peers are reached over {self.host_link.link or 'the host'}")

    @cached_property
    def network_ceiling(self) -> Ceiling | None:
        """Network per device in one direction, None if unknown [B/s]."""
        net = self.scale_out
        return None if net is None else net.ceiling("network", net.bandwidth_bytes_per_s, "B/s", net.note)

    @cached_property
    def host_ceiling(self) -> Ceiling | None:
        """Link to the host in one direction, None if unknown [B/s]."""
        link = self.host_link
        return None if link is None else link.ceiling(link.link or "host link", link.bandwidth_bytes_per_s, "B/s", link.note)

    @cached_property
    def exit_ceilings(self) -> tuple[Ceiling | None, Ceiling | None]:
        """Ceilings of the bytes that leave a device: within its scale-up domain, and beyond it; None where one is not known [B/s]."""
        beyond, host = self.network_ceiling, self.host_ceiling
        bridged = self.scale_up is not None and (self.scale_up.domain_size or _NODE) < _NODE
        if bridged and host is not None and (beyond is None or host.value > beyond.value):
            beyond = host  # a bridge joins few devices; the others of the server are reached over the host link
        return self.link_ceiling, beyond

    @cached_property
    def link_rates(self) -> tuple[float, float]:
        """Rates at which bytes leave a device: within its scale-up domain, and beyond it; infinite if unknown [B/s]."""
        link, beyond = (ceiling.value if ceiling else 0.0 for ceiling in self.exit_ceilings)
        return link or math.inf, beyond or math.inf

    @cached_property
    def vector_peak(self) -> Ceiling:
        """fp32 peak of the general units with its source; infinite if unknown [FLOP/s]."""
        return find_vector_peak(self.compute)

    @cached_property
    def vector_ceiling(self) -> Ceiling:
        """What the general units do not exceed in fp32: their peak at the highest clock; infinite if unknown [FLOP/s]."""
        return find_vector_ceiling(self.compute, self.units or Units(), self.clock)

    @cached_property
    def ceilings(self) -> Mapping[str, Ceiling]:
        """What :meth:`ceiling` returns, by operand format [FLOP/s]."""
        return FrozenDict(find_ceilings(self.compute, self.units or Units(), self.clock))

    @checks_call
    def ceiling(self, operand: str) -> Ceiling:
        """Return the rate that no matrix product in an operand format exceeds: what a floor divides by.

        It is the peak of the data sheet with the faster of its sums, times the highest clock that the part is sold to run at over the
        clock of that peak; :func:`roofline.hardware.peaks.find_ceilings` has the rules.

        Parameters
        ----------
        operand : str
            One of :data:`roofline.formats.OPERANDS` [-].

        Returns
        -------
        Ceiling
            Rate; infinite if the machine gives none at all. Its note says how it differs from the data sheet's peak, or that it
            is not proven because no source gives the clock [FLOP/s].

        Raises
        ------
        UnknownNameError
            If there is no such operand format.

        Examples
        --------
        >>> from roofline.hardware import Hardware
        >>> rtx = Hardware.load("RTX 4090")
        >>> rtx.peak("bf16").value / 1e12, round(rtx.ceiling("bf16").value / 1e12, 1)
        (165.2, 207.5)
        """
        return _find(self.ceilings, operand)

    @checks_call
    def peak(self, operand: str) -> Ceiling:
        """Return the dense peak of matrix products in an operand format, as the data sheet has it: what shares and MFU refer to.

        A machine without that mode converts, and the note of the ceiling says to what;
        :func:`roofline.hardware.peaks.find_peaks` has the rules.

        Parameters
        ----------
        operand : str
            One of :data:`roofline.formats.OPERANDS` [-].

        Returns
        -------
        Ceiling
            Peak; infinite if the machine gives none at all [FLOP/s].

        Raises
        ------
        UnknownNameError
            If there is no such operand format.

        Examples
        --------
        >>> from roofline.hardware import Hardware
        >>> print(Hardware.load("a100").peak("fp8"))
        bf16 matrix peak 312 TFLOP/s [V] (no fp8 mode: computed in bf16)
        """
        return _find(self._peaks, operand)

    @checks_call
    def ridge(self, operand: str = "bf16") -> float:
        """Return the intensity at which compute and memory take equally long: ceiling / bandwidth.

        Parameters
        ----------
        operand : str, optional
            One of :data:`roofline.formats.OPERANDS` [-].

        Returns
        -------
        float
            Ridge point [FLOP/B].

        Examples
        --------
        >>> from roofline.hardware import Hardware
        >>> round(Hardware.load("h100-sxm").ridge("bf16"))
        319
        """
        return self.ceiling(operand).value / self.memory_bandwidth

    @cached_property
    def _peaks(self) -> dict[str, Ceiling]:
        return find_peaks(self.compute)


def _find(rates: Mapping[str, Ceiling], operand: str) -> Ceiling:
    try:
        return rates[operand]
    except (KeyError, TypeError):
        raise unknown_name("operand format", str(operand), OPERANDS) from None
