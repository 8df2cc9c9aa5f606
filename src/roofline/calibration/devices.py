"""The device that is measured: its name, its operand formats, and its free memory."""

import os
import platform
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roofline.calibration.products import OPERANDS, try_product
from roofline.errors import CalibrationError, MissingDependencyError, install, quoted

_UNKNOWN_CACHE = 64 * 2**20
_CAPABILITY = {"fp32": (0, 0), "fp16": (7, 0), "int8": (7, 5), "bf16": (8, 0), "tf32": (8, 0), "fp8": (8, 9)}
"""Least compute capability whose tensor cores multiply a format (CUDA C++ Programming Guide, table of compute capabilities)."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that kernels run on."""

    kind: str  # its kind in torch
    name: str  # its own name
    index: int  # its index among the devices of its kind
    properties: Mapping[str, str | int | float]  # what else it and torch report: cores, threads, memory, capability, versions
    operands: tuple[str, ...]  # operand formats in which a test product ran on it
    native: tuple[str, ...]  # those of them with hardware support; the others are emulated and slow
    cache_bytes: int  # all last-level caches together [B]
    memory_bytes: int  # memory it has [B]

    @property
    def label(self) -> str:
        """Its name in torch, e.g. ``"cuda:0"``."""
        return "cpu" if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def free_bytes(self) -> int:
        """Memory that is free now, including what torch's allocator holds unused [B]."""
        if self.kind == "cpu":
            return _cpu_memory()[1]
        torch = load_torch()
        free = torch.cuda.mem_get_info(self.index)[0]
        return int(free + torch.cuda.memory_reserved(self.index) - torch.cuda.memory_allocated(self.index))

    def synchronize(self) -> None:
        """Wait until all launched work is done."""
        if self.kind == "cuda":
            load_torch().cuda.synchronize(self.index)

    def current(self) -> Any:
        """Return a context that makes it torch's current device."""
        return load_torch().cuda.device(self.index) if self.kind == "cuda" else nullcontext()


def responds(device: Device) -> bool:
    """Return whether a device still computes: after an illegal access it fails for the rest of the process."""
    try:
        return float(load_torch().ones(8, device=device.label).sum()) == 8
    except RuntimeError:
        return False


def load_torch() -> Any:
    """Return torch, or raise MissingDependencyError."""
    try:
        import torch
    except ImportError:
        raise MissingDependencyError(f"measuring a device needs torch: {install('calibrate')}.") from None
    return torch


def open_device(name: str = "cpu") -> Device:
    """Return a device by its name in torch.

    Examples
    --------
    >>> open_device("cpu").label
    'cpu'
    """
    match = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", name) if isinstance(name, str) else None
    if match is None or name.startswith("cpu:"):
        raise CalibrationError(f"device is {quoted(name)}; it must be cpu, cuda, or one GPU of several, such as cuda:1.")
    return _cpu() if match[1] == "cpu" else _cuda(name, int(match[2] or 0))


def _cpu() -> Device:
    torch = load_torch()
    total, _ = _cpu_memory()
    cache = cpu_cache_bytes()
    properties: dict[str, str | int | float] = {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1),
        "threads": int(torch.get_num_threads()),
        "instructions": str(torch.backends.cpu.get_cpu_capability()),
        "memory_bytes": total,
        "cache_bytes": cache,
    }
    operands = tuple(o for o in OPERANDS if o != "tf32" and try_product(torch, o, "cpu"))
    native = _native_on_cpu(torch)
    return Device("cpu", _cpu_name(), 0, properties, operands, tuple(o for o in operands if o in native), cache, total)


def _cuda(name: str, index: int) -> Device:
    torch = load_torch()
    if not torch.cuda.is_available():
        built = "this build of torch has no CUDA" if not (torch.version.cuda or torch.version.hip) else "torch finds no GPU or no driver"
        raise CalibrationError(f"there is no device {name}: {built}; allowed here: cpu.")
    count = torch.cuda.device_count()
    if index >= count:
        raise CalibrationError(f"there is no device {name}; this machine has {', '.join(f'cuda:{i}' for i in range(count))} and cpu.")
    found = torch.cuda.get_device_properties(index)
    capability = (int(found.major), int(found.minor))
    cache = int(getattr(found, "L2_cache_size", 0)) or _UNKNOWN_CACHE
    properties: dict[str, str | int | float] = {
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda or torch.version.hip),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "capability": f"{capability[0]}.{capability[1]}",
        "multiprocessors": int(found.multi_processor_count),
        "memory_bytes": int(found.total_memory),
        "cache_bytes": cache,
    }
    with torch.cuda.device(index):
        able = [o for o in OPERANDS if o != "tf32" or capability >= _CAPABILITY["tf32"]]  # older GPUs compute fp32 instead
        operands = tuple(o for o in able if try_product(torch, o, f"cuda:{index}"))
        torch.cuda.empty_cache()
    native = tuple(o for o in operands if capability >= _CAPABILITY[o])
    return Device("cuda", str(found.name), index, properties, operands, native, cache, int(found.total_memory))


def _native_on_cpu(torch: Any) -> set[str]:
    def has(*tests: str) -> bool:
        return any(bool(getattr(torch.cpu, test, bool)()) for test in tests)

    wide = {
        "bf16": has("_is_avx512_bf16_supported", "_is_amx_tile_supported"),
        "fp16": has("_is_amx_fp16_supported"),
        "int8": has("_is_vnni_supported", "_is_amx_tile_supported"),
    }
    if platform.machine() in ("aarch64", "arm64"):
        flags = _first_line(Path("/proc/cpuinfo"), "Features").split()
        wide = {"bf16": "bf16" in flags, "fp16": "asimdhp" in flags, "int8": "i8mm" in flags}
    return {"fp32"} | {operand for operand, yes in wide.items() if yes}


def _cpu_name() -> str:
    return _first_line(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine() or "CPU"


def _first_line(path: Path, key: str) -> str:
    """Return the text after the colon in the first line that begins with `key`; empty if there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def cpu_cache_bytes(root: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return the size of the last-level caches that this process may use [B].

    Examples
    --------
    >>> cpu_cache_bytes(Path("/nowhere")) == 64 * 2**20
    True
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    caches: dict[tuple[int, str], int] = {}
    for folder in root.glob("cpu[0-9]*/cache/index[0-9]*"):
        processor = int(folder.parts[-3].removeprefix("cpu"))
        if allowed is not None and processor not in allowed:
            continue
        try:
            level, kind, size, shared = ((folder / f).read_text().strip() for f in ("level", "type", "size", "shared_cpu_list"))
        except OSError:
            continue
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind != "Instruction" and match and level.isdigit():
            caches[int(level), shared] = int(match[1]) * 1024 ** " KMG".index(match[2] or " ")
    highest = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == highest) or _UNKNOWN_CACHE


def _cpu_memory() -> tuple[int, int]:
    """Return total and free memory [B]: the machine's, or its cgroup's if that is less."""
    kilobytes = {key: _first_line(Path("/proc/meminfo"), key).split() for key in ("MemTotal", "MemAvailable")}
    if all(kilobytes.values()):
        total, free = (int(kilobytes[key][0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    else:
        try:
            total = free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            total = free = 4 * 2**30  # nothing is known: less than any machine that runs torch has
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            bound, taken = ((Path("/sys/fs/cgroup") / name).read_text().strip() for name in (limit, used))
        except OSError:
            continue
        if bound.isdigit() and taken.isdigit() and int(bound) < total:
            total, free = int(bound), min(free, int(bound) - int(taken))
    return total, max(free, 0)
