"""What a device shows at one moment, whatever vendor's library told it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from roofline.frozen import freeze

Kind = Literal["nvidia", "amd", "cpu"]
Query = tuple[tuple[str, ...], Callable[..., Any]]
"""Quantities, and the call that returns them: one value, or a tuple of as many."""


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """The counters of one device at one moment; None where it does not tell, and ``missing`` says why.

    Parameters
    ----------
    device : str
        Its name in this monitor: ``"gpu0"``, ``"gpu0/mig1"`` for a slice, ``"cpu"`` [-].
    kind : {"nvidia", "amd", "cpu"}
        Whose counters they are [-].
    name : str, optional
        What the device calls itself [-].
    time_s : float, optional
        When, since 1970 [s].
    busy : float, optional
        Share of the time in which anything ran at all: NVIDIA's GPU-Util, AMD's gfx_activity, a host's cores. Never an efficiency: a kernel that
        uses one core of a GPU counts as much as one that uses all [-].
    memory_busy : float, optional
        Share of the time in which memory was read or written at all: utilization.memory, umc_activity. Never a bandwidth [-].
    sm_active : float, optional
        Mean share of the multiprocessors that had work [-].
    sm_occupancy : float, optional
        Warps that are resident, of those that the multiprocessors could hold [-].
    tensor_active : float, optional
        Share of the time in which tensor cores worked; at the clock of the data sheet, MFU is not above it [-].
    dram_active : float, optional
        Bandwidth of the memory over its theoretical maximum [-].
    memory_used_bytes, memory_total_bytes : float, optional
        Of the device's memory [B].
    power_w, temperature_c : float, optional
        Power drawn, and temperature [W], [degC].
    clock_hz, memory_clock_hz : float, optional
        Of what computes, and of the memory [Hz].
    pcie_in_bytes_per_s, pcie_out_bytes_per_s, link_in_bytes_per_s, link_out_bytes_per_s : float, optional
        Traffic with the host, and with other devices over NVLink [B/s].
    throttle_reasons : tuple of str, optional
        Why clocks are lower than they might be, by NVML's names [-].
    missing : mapping of str to str
        Why a quantity is None [-].
    """

    device: str
    kind: Kind
    name: str | None = None
    time_s: float | None = None
    busy: float | None = None
    memory_busy: float | None = None
    sm_active: float | None = None
    sm_occupancy: float | None = None
    tensor_active: float | None = None
    dram_active: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    clock_hz: float | None = None
    memory_clock_hz: float | None = None
    pcie_in_bytes_per_s: float | None = None
    pcie_out_bytes_per_s: float | None = None
    link_in_bytes_per_s: float | None = None
    link_out_bytes_per_s: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "missing", freeze(dict(self.missing)))

    @property
    def silent(self) -> bool:
        """Whether nothing at all could be read [-]."""
        return all(getattr(self, name) is None for name in QUANTITIES)


QUANTITIES = tuple(
    name for name in DeviceSample.__dataclass_fields__ if name not in ("device", "kind", "name", "time_s", "throttle_reasons", "missing")
)
"""The numbers of a sample, by name."""


LARGEST_SHARE = 1.5
"""A share of use above is none, but a number in another unit; counters of real devices exceed 1 by little [-]."""
_SHARES = ("busy", "memory_busy", "sm_active", "sm_occupancy", "tensor_active", "dram_active")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_quantity(name: str, value: Any) -> bool:
    """Return whether a value can be that quantity: finite and, but for temperatures, not negative; shares not far above 1."""
    return is_number(value) and (name == "temperature_c" or value >= 0) and (name not in _SHARES or value <= LARGEST_SHARE)


class Sampler(Protocol):
    """Reads one device whenever it is asked."""

    device: str
    name: str | None

    def sample(self) -> DeviceSample:
        """Return what the device shows now."""
        ...

    def close(self) -> None:
        """Give back what reading took."""
        ...


def ask_each(queries: Iterable[Query], errors: tuple[type[Exception], ...], *of: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what queries answer by quantity, and why others have no answer: one that fails costs no other its answer."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for names, query in queries:
        try:
            answer = query(*of)
        except errors as error:
            missing |= dict.fromkeys(names, reason_of(error))
            continue
        values = answer if len(names) > 1 else (answer,)
        found |= {name: value for name, value in zip(names, values, strict=True) if value is not None}
        missing |= {name: "not told" for name, value in zip(names, values, strict=True) if value is None}
    return found, missing


def reason_of(error: Exception) -> str:
    """Return why a query has no answer, in one line."""
    if isinstance(error, AttributeError):
        return "the library is older than the query"
    return " ".join(str(error).split()) or type(error).__name__
