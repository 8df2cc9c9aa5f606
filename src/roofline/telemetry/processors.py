"""Watching the host's processors: how much of them other processes use."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from roofline.records import Condition, Flag
from roofline.telemetry.reading import Property, Reading
from roofline.telemetry.samples import DeviceSample

T = TypeVar("T")

_OTHERS_SHARE = 0.1  # of the processors' time, used by other processes while a sample ran
_STEAL_SHARE = 0.02
_LOAD_PER_CORE = 0.5
_SHORTEST_S = 0.2  # /proc/stat counts hundredths of a second, too coarse for shorter samples


class CpuTelemeter:
    """Watches the host's processors through ``/proc``; on systems without it there is hardly anything to read."""

    def __init__(self) -> None:
        info = _cpu_info(_read("cpuinfo"))
        load, cores = _load(), os.cpu_count() or 1
        self.software: dict[str, str] = {}
        self.properties: dict[str, Property] = {**info, "cores": cores, "load_average_at_start": load}
        busy = load is not None and load > _LOAD_PER_CORE * cores
        text = f"cpu busy: load {load:.2f} on {cores} cores before the first sample" if busy else ""
        self.conditions: tuple[Condition, ...] = (Condition(code="device busy", text=text),) if busy else ()

    def watch(self, work: Callable[[], T]) -> tuple[T, Reading]:
        """Do the work, and read how much of the processors others used meanwhile."""
        began, before, own = time.monotonic(), _Times.read(), sum(os.times()[:4])
        result = work()
        after, spent = _Times.read(), sum(os.times()[:4]) - own
        if before is None or after is None or time.monotonic() - began < _SHORTEST_S:
            return result, Reading()
        total = max(after.total - before.total, 1e-9)
        others = (after.busy - before.busy - spent) / total
        steal = (after.steal - before.steal) / total
        details = [f"others used {others:.0%} of it"] if others > _OTHERS_SHARE else []
        details += [f"{steal:.0%} of it was given to other guests"] if steal > _STEAL_SHARE else []
        return result, Reading(flags=tuple(Flag(code="cpu shared", detail=detail) for detail in details))

    def close(self) -> None:
        """Do nothing."""


class CpuSampler:
    """Reads the host's processors, all cores together."""

    device = "cpu"

    def __init__(self) -> None:
        model = _cpu_info(_read("cpuinfo"))["cpu_model"]
        self.name = None if model is None else str(model)
        self._before, self._taken_at = _Times.read(), time.monotonic()

    def sample(self) -> DeviceSample:
        """Return what the processors show now; a sample too soon after the one before waits, as ticks are coarse."""
        time.sleep(max(self._taken_at + _SHORTEST_S - time.monotonic(), 0))
        before, now = self._before, _Times.read()
        self._before, self._taken_at = now, time.monotonic()
        total, free = (_memory_info(_read("meminfo")).get(name) for name in ("MemTotal", "MemAvailable"))
        found = {
            "busy": min((now.busy - before.busy) / max(now.total - before.total, 1e-9), 1.0) if before and now else None,  # sums round
            "clock_hz": _cpu_info(_read("cpuinfo"))["cpu_clock_hz"],
            "memory_total_bytes": total,
            "memory_used_bytes": None if total is None or free is None else total - free,
        }
        missing = {name: "/proc does not tell it" for name, value in found.items() if value is None}
        return DeviceSample("cpu", "cpu", self.name, time.time(), **found, missing=missing)  # type: ignore[arg-type] # a clock is a number

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds since the start of the system, all cores together: in use, given to other guests, and in all."""

    busy: float
    steal: float
    total: float

    @classmethod
    def read(cls) -> "_Times | None":
        """Parse the first line of /proc/stat: user nice system idle iowait irq softirq steal, in ticks."""
        fields = _read("stat").partition("\n")[0].split()
        if len(fields) < 9 or fields[0] != "cpu":
            return None
        user, nice, system, idle, waiting, irq, soft, steal = (float(f) / os.sysconf("SC_CLK_TCK") for f in fields[1:9])
        busy = user + nice + system + irq + soft
        return cls(busy, steal, busy + idle + waiting + steal)


def _read(name: str) -> str:
    try:
        return (Path("/proc") / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return None


def _cpu_info(text: str) -> dict[str, Property]:
    """Return model and mean clock from /proc/cpuinfo; what is not there is None."""
    lines = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in text.splitlines())]
    models = [value for key, value in lines if key == "model name"]
    clocks = [float(value) * 1e6 for key, value in lines if key == "cpu MHz" and value.replace(".", "", 1).isdigit()]
    return {"cpu_model": models[0] if models else None, "cpu_clock_hz": fmean(clocks) if clocks else None}


def _memory_info(text: str) -> dict[str, float]:
    """Return the amounts of /proc/meminfo, whose kB are 1024 B each [B]."""
    lines = [line.replace(":", " ").split() for line in text.splitlines()]
    return {words[0]: float(words[1]) * 1024 for words in lines if len(words) == 3 and words[1].isdigit() and words[2] == "kB"}
