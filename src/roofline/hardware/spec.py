"""`Hardware`: one machine, loaded by name, from a file or from bare rates."""

import builtins
import copy
import math
import os
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofline.calls import checks_methods
from roofline.errors import InvalidValueError, quoted
from roofline.hardware.datasheet import Datasheet
from roofline.hardware.load import find_spec, known_name, looks_like_path, name_keys, namesakes, read_spec, spec_files, without_memory
from roofline.hardware.nodes import find_node
from roofline.hardware.sections import (
    Compute,
    FormatRates,
    Memory,
    check_bandwidth,
    check_capacity,
    check_peak,
)
from roofline.names import local_path
from roofline.units import check_flag, show_bytes, show_rate

if TYPE_CHECKING:  # a machine without a calibration needs no records
    from collections.abc import Mapping

    from roofline.records import CalibrationRecord


@checks_methods
class Hardware(Datasheet):
    """What one machine can do at most: a frozen record of datasheet figures in SI units, each group with its source.

    Its figures are the fields of :class:`Datasheet`, and so are the ceilings that follow from them.

    Notes
    -----
    An absent value is an unknown value. Measurements never overwrite a datasheet figure: a calibrated machine is this record
    plus a calibration record beside it (:meth:`calibrated`). Only a machine without a datasheet is made of measured rates, with
    evidence ``"M"`` (:meth:`from_record`).

    Examples
    --------
    >>> h100 = Hardware.load("h100-sxm")
    >>> h100.peak("bf16").value, h100.memory_bandwidth
    (989400000000000.0, 3352000000000.0)
    """

    _requested: str | None = None
    _calibration: "CalibrationRecord | None" = None

    @classmethod
    def load(cls, source: "str | os.PathLike[str] | Hardware") -> "Hardware":
        """Return a machine by name, from a spec file, or as it is.

        Parameters
        ----------
        source : str, path or Hardware
            An id, name or alias in any case and punctuation, or several devices (``"8xH100"``, ``"p5.48xlarge"``); a path to a TOML or JSON spec file (text counts as a path if
            it ends with ``.toml`` or ``.json`` or contains a separator); or a machine [-].

        Returns
        -------
        Hardware
            The machine, always one device: of a name for several, :attr:`alias_note` says how many. Repeated loads of one name give
            one object [-].

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
        if isinstance(source, str) and (not looks_like_path(source) or _is_name_with_slash(source)):
            return _named(source)
        if isinstance(source, (str, os.PathLike)):
            return _read(local_path(source))
        raise InvalidValueError(
            f"a machine is a name, a path to a spec file or a Hardware, not {quoted(source)}; for bare rates use Hardware.from_rates(...)."
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
        memory_bandwidth: float | str,
        peak_flops_per_s: float | str | None = None,
        memory_capacity: float | str | None = None,
        name: str = "custom",
    ) -> "Hardware":
        """Return a machine of which only bare rates are known.

        Parameters
        ----------
        memory_bandwidth : float or str
            Main-memory bandwidth [B/s].
        peak_flops_per_s : float or str, optional
            One dense compute peak for every operand format; without it nothing is compute-bound [FLOP/s].
        memory_capacity : float or str, optional
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
            raise InvalidValueError(f"name is {quoted(name)}; a machine needs a text of at least one character.")
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
    def from_record(cls, record: "str | os.PathLike[str] | Mapping[str, Any] | CalibrationRecord") -> "Hardware":
        """Return a machine without a spec, made of the rates that a calibration measured, with that calibration.

        Parameters
        ----------
        record : CalibrationRecord, path, mapping or str
            What :func:`roofline.records.load_record` takes; its rates must be measured ones [-].

        Returns
        -------
        Hardware
            A machine named by the record's id, every ceiling of evidence ``"M"``. Its memory capacity and last-level cache are the
            properties ``memory_bytes`` and ``cache_bytes`` of the record's environment, where they are known [-].

        Raises
        ------
        CalibrationError
            If the record cannot be read, or its rates are a datasheet's or hold for any machine.
        SpecError
            If a measured rate cannot be one.
        """
        from roofline.hardware.measured import describe_machine
        from roofline.records import load_record

        loaded = load_record(record)
        return _checked(f"calibration record {loaded.id}", describe_machine(loaded))._with(_calibration=loaded)

    def calibrated(
        self, record: "str | os.PathLike[str] | Mapping[str, Any] | CalibrationRecord | None" = None, *, sister: bool = False
    ) -> "Hardware":
        """Return this machine with a calibration beside its datasheet figures, which stay as they are.

        Parameters
        ----------
        record : CalibrationRecord, path, mapping or str, optional
            What :func:`roofline.records.load_record` takes, or the engine of a shipped record, like ``"vllm"``; by default the
            preferred shipped record of this machine [-].
        sister : bool, optional
            Whether the record may be that of a sister chip, which has the same architecture: its shares then refer to the peaks and
            bandwidths of this machine, and every result says so. Without a record of this machine, that of a sister is looked for [-].

        Returns
        -------
        Hardware
            A copy that carries the record as :attr:`calibration` [-].

        Raises
        ------
        CalibrationError
            If the record cannot be read or is another machine's, or none is given and none is shipped for this machine.
        InvalidValueError
            If `sister` is neither True nor False.
        UnknownNameError
            If no shipped record has that id.

        Examples
        --------
        >>> Hardware.load("h800-sxm").calibrated("vllm", sister=True)
        <Hardware h800-sxm, calibrated by h100-sxm-vllm-0.24.0>
        """
        from roofline.hardware.measured import check_machine, record_for, sister_record

        loaded = sister_record(self, record, Hardware.load) if check_flag("sister", sister) else record_for(self.id, record)
        check_machine(loaded, self, Hardware.load)
        return self._with(_calibration=loaded)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema of a spec file, for editors that complete and check TOML.

        Returns
        -------
        dict
            The schema; keys are described with the words of the docstrings [-].
        """
        from roofline.hardware.schema import describe_schema

        return describe_schema(cls)

    def _with(self, **beside: Any) -> "Hardware":
        """Return the same figures with something else beside them."""
        other = copy.copy(self)
        other.__dict__.update(beside)
        return other

    @property
    def calibration(self) -> "CalibrationRecord | None":
        """The calibration record that goes with this machine, None without one."""
        return self._calibration

    @property
    def requested(self) -> str | None:
        """The name the caller used, when it is neither the id nor the official name."""
        return self._requested

    @property
    def measured_notes(self) -> tuple[str, ...]:
        """What a bound on a machine made of measured rates must say: that it is none for certain, and what was doubtful when they were measured."""
        if self.memory_ceiling.evidence != "M":
            return ()
        return ("the rates are the best that were measured, no proven bound", *self.notes)

    @property
    def _node(self) -> tuple[str, str, int] | None:
        """What :func:`find_node` says of the name that the caller used, where it is none of one device."""
        return find_node(self._requested) if self._requested and known_name(self._requested) is None else None

    @property
    def named_devices(self) -> int:
        """How many devices the name stands for that the caller used; 1 for most names [-]."""
        return self._node[2] if self._node else 1

    @property
    def alias_note(self) -> str:
        """One sentence if the caller used an alias that other machines could claim too, or a name for several devices; else empty."""
        requested = self._requested or ""
        node = self._node
        asked = name_keys(without_memory(node[1] if node else requested)[0])
        alias = next((a for a in self.aliases if name_keys(a)[0] in asked), None)
        others = namesakes(alias, self.id) if alias else []
        if not others and not node:
            return ""
        count = f"{node[2]} × {self.id}" if node else self.id
        family = f"; others of this family: {', '.join(others)}" if others else ""
        whole = f"; results are for one device unless degrees are given: tensor_parallel={node[2]} uses all" if node and node[2] > 1 else ""
        return f'"{requested}" is read as {count} ({self.name}){family}{whole}'

    def __eq__(self, other: object) -> bool:
        # Two loads of one machine under different names are the same machine; with another calibration it is another.
        if self is other:
            return True
        if not isinstance(other, Hardware) or self._values() != other._values():
            return False
        return self._calibration is other._calibration or self._calibration == other._calibration

    def __hash__(self) -> int:
        return hash((self.id, self.name))

    def __repr__(self) -> str:
        return f"<Hardware {self.id}{self._calibrated_by}>"

    def __str__(self) -> str:
        peak = self.peak("bf16")
        parts = [show_rate(self.memory_bandwidth, "B/s")]
        parts += [show_bytes(self.memory_capacity)] if self.memory_capacity is not None else []
        parts += [f"{show_rate(peak.value, 'FLOP/s')} {peak.name.split()[0]}"] if math.isfinite(peak.value) else []
        return f"{self.name} ({self.id}): {', '.join(parts)}{self._calibrated_by}"

    @property
    def _calibrated_by(self) -> str:
        return "" if self._calibration is None else f", calibrated by {self._calibration.id}"


@lru_cache(maxsize=512)
def _named(name: str) -> Hardware:
    node = find_node(name) if known_name(name) is None else None
    if node is not None:
        return _shipped(node[0])._with(_requested=name)
    machine = find_spec(name)
    found = _shipped(machine)
    if {name_keys(machine)[0], name_keys(found.name)[0]} & set(name_keys(name)):
        return found
    return found._with(_requested=name)


def _is_name_with_slash(text: str) -> bool:
    """Return whether a text with a slash is a name nevertheless, such as "RYZEN AI MAX+ 395 w/ Radeon 8060S"."""
    return not text.lower().endswith((".toml", ".json")) and known_name(text) is not None


@cache
def _shipped(machine: str) -> Hardware:
    return Hardware.from_dict(read_spec(spec_files()[machine]))


def _read(path: Path) -> Hardware:
    return _checked(str(path), read_spec(path))


def _checked(where: str, data: dict[str, Any]) -> Hardware:
    """Return the machine of a file that nobody has checked before."""
    from roofline.hardware.schema import check_spec

    check_spec(where, data, Hardware)
    return Hardware.from_dict(data)
