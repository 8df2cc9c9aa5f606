"""What a telemeter reads while one sample runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from roofline.records import Condition, Flag, Telemetry

T = TypeVar("T")
Property = str | int | float | bool | None
"""What a device may report about itself."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read while one sample ran."""

    telemetry: Telemetry | None = None  # clocks, power and the like; None where the device reports nothing
    flags: tuple[Flag, ...] = ()  # why the sample is doubtful: throttled, device shared


class Telemeter(Protocol):
    """Watches a device while something runs on it.

    ``software`` and ``properties`` describe the device, ``conditions`` are what every result must repeat [-].
    """

    software: dict[str, str]
    properties: dict[str, Property]
    conditions: tuple[Condition, ...]

    def watch(self, work: Callable[[], T]) -> tuple[T, Reading]:
        """Do the work and watch the device meanwhile."""
        ...

    def close(self) -> None:
        """Stop watching."""
        ...


class SilentTelemeter:
    """Replaces the telemeter of a device that cannot be watched.

    Parameters
    ----------
    reason : str
        Why it cannot be watched [-].
    """

    def __init__(self, reason: str) -> None:
        self.software: dict[str, str] = {}
        self.properties: dict[str, Property] = {}
        self.conditions: tuple[Condition, ...] = (Condition(code="no telemetry", text=f"no telemetry: {reason}"),)

    def watch(self, work: Callable[[], T]) -> tuple[T, Reading]:
        """Do the work and read nothing."""
        return work(), Reading()

    def close(self) -> None:
        """Do nothing."""
