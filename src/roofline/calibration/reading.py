"""What is seen beside one sample, and what sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from roofline.records import Telemetry

T = TypeVar("T")
Property = str | int | float | bool | None
"""What a device may tell of itself."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was seen beside one sample.

    Parameters
    ----------
    telemetry : Telemetry, optional
        Clocks, power and the like; None where the device tells nothing [-].
    flags : tuple of str
        Why the sample is doubtful: throttled, device shared [-].
    """

    telemetry: Telemetry | None = None
    flags: tuple[str, ...] = ()


class Telemeter(Protocol):
    """Watches a device while something runs on it.

    ``software`` and ``properties`` are what it tells of itself, ``conditions`` what every result must say of it [-].
    """

    software: dict[str, str]
    properties: dict[str, Property]
    conditions: tuple[str, ...]

    def beside(self, work: Callable[[], T]) -> tuple[T, Reading]:
        """Do the work and watch the device meanwhile."""
        ...

    def close(self) -> None:
        """Stop watching."""
        ...


class SilentTelemeter:
    """Stands in where a device cannot be watched.

    Parameters
    ----------
    reason : str
        Why not [-].
    """

    def __init__(self, reason: str) -> None:
        self.software: dict[str, str] = {}
        self.properties: dict[str, Property] = {}
        self.conditions: tuple[str, ...] = (f"no telemetry: {reason}",)

    def beside(self, work: Callable[[], T]) -> tuple[T, Reading]:
        """Do the work and see nothing."""
        return work(), Reading()

    def close(self) -> None:
        """Do nothing."""
