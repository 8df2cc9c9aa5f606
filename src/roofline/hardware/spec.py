"""`Hardware`: one machine, loaded by name, from a file or from bare rates."""

import builtins
import math
import os
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from roofline.errors import InvalidValueError
from roofline.formats import OPERANDS
from roofline.hardware.load import find_spec, looks_like_path, name_keys, namesakes, read_spec, spec_error, spec_files
from roofline.hardware.peaks import find_peaks, find_vector_peak
from roofline.hardware.schema import describe_schema
from roofline.hardware.sections import (
    Cache,
    Ceiling,
    Compute,
    FormatRates,
    HostLink,
    Memory,
    Power,
    ScaleOut,
    ScaleUp,
    Table,
    Units,
    check_bandwidth,
    check_capacity,
    check_peak,
)
from roofline.names import unknown_name
from roofline.units import show_bytes, show_rate

__all__ = ["Hardware"]

Words = tuple[str, ...]


class Hardware(BaseModel):
    """What one machine can do at most: a frozen record of datasheet figures in SI units, each group with its source.

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
    scale_up : ScaleUp, optional
        Links within a domain of devices [-].
    scale_out : ScaleOut, optional
        Network between servers [-].
    host_link : HostLink, optional
        Link to the host [-].
    power : Power, optional
        Power limit [-].

    Notes
    -----
    An absent value is an unknown value. Measured values never stand here: a calibrated machine is this record plus a
    calibration record.

    Examples
    --------
    >>> h100 = Hardware.load("h100-sxm")
    >>> h100.peak("bf16").value, h100.memory_bandwidth
    (989400000000000.0, 3352000000000.0)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    schema_version: Literal[1]
    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    vendor: str = ""
    architecture: str = ""
    year: int | None = Field(default=None, ge=1990, le=2100)
    unit: str = "one accelerator"
    aliases: Words = Field(default=(), strict=False)
    notes: Words = Field(default=(), strict=False)
    compute: Compute = Compute()
    memory: Memory
    cache: Cache | None = None
    units: Units | None = None
    scale_up: ScaleUp | None = None
    scale_out: ScaleOut | None = None
    host_link: HostLink | None = None
    power: Power | None = None

    _requested: str | None = PrivateAttr(default=None)

    @classmethod
    def load(cls, source: "str | os.PathLike[str] | Hardware") -> "Hardware":
        """Return a machine by name, from a spec file, or as it is.

        Parameters
        ----------
        source : str, path or Hardware
            An id, name or alias in any case and punctuation; a path to a TOML or JSON spec file (text counts as a path if
            it ends with ``.toml`` or ``.json`` or contains a separator); or a machine [-].

        Returns
        -------
        Hardware
            The machine; repeated loads of one name give one object [-].

        Raises
        ------
        UnknownNameError
            If no machine has that name; the message lists the nearest.
        SpecError
            If the file cannot be read or does not validate; the message names file, key, value and what is allowed.
        InvalidValueError
            If `source` is none of these.

        Examples
        --------
        >>> Hardware.load("RTX 4090").id
        'rtx-4090'
        """
        if isinstance(source, Hardware):
            return source
        if isinstance(source, str) and not looks_like_path(source):
            return _named(source)
        if isinstance(source, (str, os.PathLike)):
            return _read(Path(source).expanduser())
        raise InvalidValueError(
            f"a machine is a name, a path to a spec file or a Hardware, not {source!r}; for bare rates use Hardware.from_rates(...)."
        )

    @classmethod
    def list(cls) -> builtins.list[str]:
        """Return the ids of the shipped machines.

        Returns
        -------
        list of str
            Sorted ids [-].

        Examples
        --------
        >>> "h100-sxm" in Hardware.list()
        True
        """
        return builtins.list(spec_files())

    @classmethod
    def from_rates(
        cls,
        *,
        memory_bandwidth: float,
        peak_flops_per_s: float | None = None,
        memory_capacity: float | None = None,
        name: str = "custom",
    ) -> "Hardware":
        """Return a machine of which only bare rates are known.

        Parameters
        ----------
        memory_bandwidth : float
            Main-memory bandwidth [B/s].
        peak_flops_per_s : float, optional
            One dense compute peak for every operand format; without it nothing is compute-bound [FLOP/s].
        memory_capacity : float, optional
            Main-memory capacity, rounded down to whole bytes [B].
        name : str, optional
            What to call it [-].

        Returns
        -------
        Hardware
            A machine without caches or links [-].

        Raises
        ------
        InvalidValueError
            If a rate is not a positive number, or surely in another unit.

        Examples
        --------
        >>> Hardware.from_rates(memory_bandwidth=3e12, peak_flops_per_s=1e15).ridge("bf16")
        333.3333333333333
        """
        if not isinstance(name, str) or not name:
            raise InvalidValueError(f"name is {name!r}; a machine needs a text of at least one character.")
        origin = "given by the caller"
        peak = None if peak_flops_per_s is None else check_peak("peak_flops_per_s", peak_flops_per_s)
        return cls(
            schema_version=1,
            id=name,
            name=name,
            compute=Compute(source=origin, matrix_flops_per_s=FormatRates(any=peak)),
            memory=Memory(
                source=origin,
                bandwidth_bytes_per_s=check_bandwidth("memory_bandwidth", memory_bandwidth),
                capacity_bytes=None if memory_capacity is None else check_capacity("memory_capacity", memory_capacity),
            ),
        )

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema of a spec file, for editors that complete and check TOML.

        Returns
        -------
        dict
            The schema; keys are described with the words of the docstrings [-].
        """
        return describe_schema(cls)

    @property
    def requested(self) -> str | None:
        """The name the caller used, when it is neither the id nor the official name."""
        return self._requested

    @property
    def alias_note(self) -> str:
        """One sentence if the caller used an alias that other machines could claim too, else empty."""
        asked = name_keys(self._requested or "")
        alias = next((a for a in self.aliases if name_keys(a)[0] in asked), None)
        others = namesakes(alias, self.id) if alias else []
        if not others:
            return ""
        return f'"{self._requested}" is read as {self.id} ({self.name}); others of this family: {", ".join(others)}'

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
    def vector_peak(self) -> Ceiling:
        """fp32 peak of the general units with its source; infinite if unknown [FLOP/s]."""
        return find_vector_peak(self.compute)

    def peak(self, operand: str) -> Ceiling:
        """Return the dense peak of matrix products in an operand format.

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
        >>> print(Hardware.load("a100").peak("fp8"))
        bf16 matrix peak 312 TFLOP/s [V] (no fp8 mode: computed in bf16)
        """
        try:
            return self._peaks[operand]
        except (KeyError, TypeError):
            raise unknown_name("operand format", str(operand), OPERANDS) from None

    def ridge(self, operand: str = "bf16") -> float:
        """Return the intensity at which compute and memory take equally long: peak / bandwidth.

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
        >>> round(Hardware.load("h100-sxm").ridge("bf16"))
        295
        """
        return self.peak(operand).value / self.memory_bandwidth

    @cached_property
    def _peaks(self) -> dict[str, Ceiling]:
        return find_peaks(self.compute)

    def __eq__(self, other: object) -> bool:
        # Two loads of one machine under different names are the same machine.
        if self is other:
            return True
        return isinstance(other, Hardware) and all(getattr(self, f) == getattr(other, f) for f in Hardware.model_fields)

    def __hash__(self) -> int:
        return hash((self.id, self.name))

    def __repr__(self) -> str:
        return f"<Hardware {self.id}>"

    def __str__(self) -> str:
        peak = self.peak("bf16")
        parts = [show_rate(self.memory_bandwidth, "B/s")]
        parts += [show_bytes(self.memory_capacity)] if self.memory_capacity is not None else []
        parts += [f"{show_rate(peak.value, 'FLOP/s')} {peak.name.split()[0]}"] if math.isfinite(peak.value) else []
        return f"{self.name} ({self.id}): {', '.join(parts)}"


@lru_cache(maxsize=512)
def _named(name: str) -> Hardware:
    machine = find_spec(name)
    found = _shipped(machine)
    if {name_keys(machine)[0], name_keys(found.name)[0]} & set(name_keys(name)):
        return found
    asked = found.model_copy()
    asked._requested = name
    return asked


@cache
def _shipped(machine: str) -> Hardware:
    file = spec_files()[machine]
    return _validated(file.name, read_spec(file))


def _read(path: Path) -> Hardware:
    return _validated(str(path), read_spec(path))


def _validated(where: str, data: dict[str, Any]) -> Hardware:
    try:
        return Hardware.model_validate(data)
    except ValidationError as error:
        raise spec_error(where, error, Hardware) from None
