"""Where a figure comes from: a limit of a machine with its source, and what the letter beside it means."""

from dataclasses import dataclass

from roofline.calls import checks_methods
from roofline.frozen import FrozenDict, sealed
from roofline.units import show_rate

__all__ = ["EVIDENCE", "Ceiling"]

EVIDENCE: dict[str, str] = {
    "P": "vendor documentation page that was read",
    "V": "repository owned by the vendor that was read, not the datasheet itself",
    "S": "third-party page or table that was read",
    "R": "recalled from the datasheet named, which could not be opened: to be confirmed",
    "M": "measured on such a machine: the source names the calibration record",
    "U": "given by the user of the library",
}
"""What the evidence letter beside a group of figures means."""
EVIDENCE = FrozenDict(EVIDENCE)


def weakest(*letters: str) -> str:
    """Return the evidence letter of a figure that follows from several: that of the least certain.

    Examples
    --------
    >>> weakest("P", "S")
    'S'
    """
    return max(letters, key=list(EVIDENCE).index)


@checks_methods
@sealed
@dataclass(frozen=True, slots=True)
class Ceiling:
    """One limit of a machine, with its provenance.

    Parameters
    ----------
    name : str
        What is limited, e.g. ``"bf16 matrix peak"`` [-].
    value : float
        The limit; infinite where the machine gives none [unit].
    unit : str
        ``"FLOP/s"``, ``"B/s"`` or ``"B"`` [-].
    source : str
        Where the figure was read [-].
    evidence : str
        A letter of :data:`EVIDENCE` [-].
    note : str, optional
        What a reader must know, e.g. that another format's peak stands in [-].
    proven : bool, optional
        Whether a faster rate is excluded; not so for a peak of which no source gives the highest clock [-].
    """

    name: str
    value: float
    unit: str
    source: str
    evidence: str
    note: str = ""
    proven: bool = True

    def __str__(self) -> str:
        return f"{self.name} {show_rate(self.value, self.unit)} [{self.evidence}]" + (f" ({self.note})" if self.note else "")
