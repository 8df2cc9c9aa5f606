"""What to measure, ordered so that the first points are already useful."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any

from roofline.calibration.devices import Device
from roofline.calibration.products import OPERANDS
from roofline.errors import InvalidValueError, quoted
from roofline.units import check_count

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Point:
    """One kernel to measure."""

    # a key of :data:`roofline.kernels.FAMILIES`, or one of launch, graph_launch, step_sync, host_to_device, device_to_host, copy, read
    family: str
    stored: str  # format of the weights, the cache or the array
    operand: str  # operand format of the product
    sizes: dict[str, int]  # arguments of the function that counts it: m, n, k; batch, context, new; rows, width; bytes; batch, vocabulary
    # arguments that all points of the class share: heads, kv_heads, head_dim; kernel
    fixed: dict[str, str | int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The point in one line, the same in every run, by which a resumed run recognizes it [-]."""
        words = (f"{name}={value}" for name, value in chain(sorted(self.sizes.items()), sorted(self.fixed.items())))
        return " ".join((self.family, f"{self.stored}/{self.operand}", *words))


@dataclass(frozen=True, slots=True)
class Plan:
    """Points to measure within a time limit."""

    points: Callable[[Device], tuple[Point, ...]]  # device → points to measure on it, in order
    limit_s: float  # time limit of all points together [s]


def quick_plan(device: Device) -> tuple[Point, ...]:
    """Return points that are measured within a minute.

    Enough for a fit of products and attention in the device's main format; of the other formats the rate of one large product.

    Examples
    --------
    >>> from roofline.calibration.devices import open_device
    >>> {point.family for point in quick_plan(open_device("cpu"))} >= {"matmul", "attention", "read", "copy", "launch"}
    True
    """
    return _interleave(*(_cpu_quick(device) if device.kind == "cpu" else _cuda_quick(device)))


def thorough_plan(device: Device) -> tuple[Point, ...]:
    """Return points that are measured within ten minutes: the quick plan's first, then several times as many of every class."""
    quick = quick_plan(device)
    known = {point.key for point in quick}
    more = _interleave(*(_cpu_thorough(device) if device.kind == "cpu" else _cuda_thorough(device)))
    return quick + tuple(point for point in more if point.key not in known)


def check_ranks(ranks: Any) -> int:
    """Return the number of ranks, if it is a count."""
    count = check_count("ranks", ranks, minimum=1)
    if not isinstance(count, int):
        raise InvalidValueError(f"ranks is {quoted(ranks)}; it must be one whole number of at least 1.")
    return count


def _interleave(*groups: Iterable[Point]) -> tuple[Point, ...]:
    return tuple(point for turn in zip_longest(*groups) for point in turn if point is not None)


def _products(operand: str, shapes: Iterable[tuple[int, int, int]], *, cuda: bool) -> Iterator[Point]:
    product = OPERANDS[operand]
    for m, n, k in shapes:
        if not cuda or m >= product.least_rows:
            yield Point("matmul", product.stored, operand, {"m": m, "n": n, "k": k})


def _attention(kv: str, shapes: Iterable[tuple[int, int, int]], *, heads: int = 32, kv_heads: int = 8) -> list[Point]:
    """Return attention with Llama-3-8B's heads, or fewer as on one of several devices."""
    fixed: dict[str, str | int] = {"heads": heads, "kv_heads": kv_heads, "head_dim": 128}
    return [Point("attention", kv, kv, {"batch": b, "context": c, "new": n}, fixed) for b, c, n in shapes]


def _rowwise(stored: str, kernel: str, shapes: Iterable[tuple[int, int]]) -> list[Point]:
    return [Point("rowwise", stored, "fp32", {"rows": rows, "width": width}, {"kernel": kernel}) for rows, width in shapes]


def _memory(family: str, sizes: Iterable[int]) -> list[Point]:
    return [Point(family, "fp32", "fp32", {"bytes": size}) for size in sizes]


def _fits(device: Device, shapes: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return the shapes of attention whose cache in 16 bits takes at most an eighth of the memory, and that 32-bit offsets can address.

    Offsets end at 2³¹ elements, which are 2²¹ positions of the 8 heads of 128 here.
    """
    return [shape for shape in shapes if shape[0] * shape[1] * 4096 < device.memory_bytes / 8 and shape[0] * (shape[1] + shape[2]) < 2**21]


def _spread(device: Device, most: float, shares: Iterable[float]) -> list[int]:
    """Return array sizes as shares of the last-level cache, in whole MiB and at most a share `most` of the device's memory [B]."""
    limit = int(device.memory_bytes * most)
    return list(dict.fromkeys(max(_MIB, min(int(device.cache_bytes * share), limit) // _MIB * _MIB) for share in shares))


def _others(device: Device, main: Iterable[str], shape: tuple[int, int, int]) -> Iterator[Point]:
    """Yield one large product in every other format with hardware support."""
    for operand in device.native:
        if operand not in main:
            yield from _products(operand, [shape], cuda=device.kind == "cuda")


# --- CPU: fp32 is the main format, others only with hardware support ---

_CPU_QUICK = (
    *((2048, 2048, 2048), (1, 4096, 4096), (8, 4096, 4096), (64, 2048, 2048), (256, 2048, 8192), (1, 2048, 2048), (16, 2048, 8192)),
    *((4, 8192, 2048), (1, 512, 2048), (32, 4096, 4096), (128, 8192, 2048), (2, 2048, 2048), (8, 512, 2048), (256, 512, 2048)),
    *((1, 8192, 2048), (8, 2048, 8192), (256, 2048, 2048), (1, 16384, 2048), (8, 16384, 2048), (512, 4096, 4096), (2, 2048, 8192)),
)


_CPU_NARROW = (
    *((1, 4096, 4096), (256, 2048, 2048), (8, 2048, 8192), (64, 4096, 4096), (1, 8192, 2048), (16, 2048, 2048)),
    *((1, 2048, 2048), (1024, 2048, 2048), (128, 8192, 2048), (4, 4096, 4096), (32, 2048, 8192)),
)
"""Products in bf16, where the processor has instructions for it."""


# as many norms and residuals as the fit of each needs. On a CPU a norm allocates several arrays of the rows' size; beyond
# 32 MiB the system maps and clears new pages for each of them in every call, which takes tens of times as long
_CPU_ROWS = ((8, 2048), (256, 2048), (1024, 4096), (1, 4096), (64, 2048))
_CPU_NORMS = (*_CPU_ROWS, (1024, 2048))
_CPU_RESIDUALS = (*_CPU_ROWS, (4096, 4096))


def _cpu_quick(device: Device) -> list[Iterable[Point]]:
    # a virtual machine's share of the memory bus changes by the second: long arrays are measured repeatedly, and the best counts
    far = _spread(device, 0.02, (8, 0.25, 6, 0.03, 7, 1, 5, 4))
    products = list(_products("fp32", _CPU_QUICK, cuda=False))
    return [
        [*products[::2], *_others(device, ("fp32",), (512, 4096, 4096))],
        products[1::2],
        _products("bf16", _CPU_NARROW, cuda=False) if "bf16" in device.native else (),
        _attention("fp32", [(1, 1023, 1), (8, 511, 1), (1, 8191, 1), (8, 2047, 1), (1, 255, 1), (2, 2047, 1), (8, 127, 1), (32, 255, 1)]),
        _attention("fp32", [(1, 0, 256), (1, 0, 1024), (4, 0, 256), (1, 0, 64), (1, 0, 512), (16, 0, 32)]),
        _attention("fp32", [(8, 255, 1), (1, 0, 256), (1, 2047, 1), (4, 0, 512)], heads=16, kv_heads=4),
        _memory("read", far),
        _memory("copy", far),
        [Point("launch", "fp32", "fp32", {"elements": 1})],
        _rowwise("fp32", "norm", _CPU_NORMS),
        _rowwise("fp32", "residual", _CPU_RESIDUALS),
    ]


def _cpu_thorough(device: Device) -> list[Iterable[Point]]:
    rows = (1, 2, 4, 8, 16, 24, 48, 96, 192, 256)
    shapes = [(m, n, k) for n, k in ((2048, 2048), (1024, 4096), (8192, 2048), (2048, 8192), (4096, 4096), (512, 1024)) for m in rows]
    large = [(512, 2048, 2048), (1024, 4096, 4096), (768, 8192, 2048), (2048, 1024, 1024), (1024, 512, 2048)]
    some = [*shapes[::3], *large]
    sizes = _spread(device, 0.05, (0.01, 0.06, 0.12, 0.5, 2, 3, 6, 16))
    narrow = [_products(o, some if o in ("bf16", "fp16") else [*shapes[::6], *large], cuda=False) for o in device.native if o != "fp32"]
    return [
        _products("fp32", [*shapes, *large], cuda=False),
        *narrow,
        _attention("fp32", [(b, c - 1, 1) for b in (1, 2, 4, 8, 16) for c in (128, 512, 2048, 8192) if b * c <= 32768]),
        _attention("fp32", [(b, 0, s) for s in (16, 48, 96, 192, 384, 768, 1536) for b in (1, 4) if b * s <= 2048]),
        _attention("fp32", [(b, c - 1, 1) for b in (1, 4, 32) for c in (128, 1024)] + [(2, 0, 128), (2, 0, 768)], heads=8, kv_heads=8),
        _memory("read", sizes[::-1]),
        _memory("copy", sizes[::-1]),
        _rowwise("fp32", "norm", [(r, w) for w in (1024, 2048, 4096) for r in (1, 4, 32, 128, 512, 1024)]),
        _rowwise("fp32", "residual", [(r, w) for w in (2048, 8192) for r in (1, 4, 32, 128, 512, 1024)]),
    ]


# --- CUDA: bf16 is the main format (fp16 where the device has no bf16), fp8 the second ---

_CUDA_QUICK = (
    *((8192, 8192, 8192), (1, 4096, 4096), (16, 14336, 4096), (256, 4096, 4096), (4096, 4096, 4096), (1, 28672, 4096), (64, 4096, 14336)),
    *((1024, 1024, 4096), (8, 6144, 4096), (2048, 28672, 4096), (1, 1024, 1024), (32, 8192, 8192), (128, 4096, 4096), (512, 14336, 4096)),
    *((4, 4096, 14336), (4096, 6144, 4096), (1024, 8192, 1024), (2, 8192, 8192), (256, 1024, 8192), (16384, 4096, 4096)),
)
_FP8_QUICK = (0, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 15, 16, 18)
_CUDA_ROWS = ((8, 4096), (8192, 8192), (512, 8192), (1, 8192), (2048, 8192), (128, 4096))


def _cuda_main(device: Device) -> str:
    return next((operand for operand in ("bf16", "fp16") if operand in device.native), "fp32")


def _cuda_quick(device: Device) -> list[Iterable[Point]]:
    main = _cuda_main(device)
    products = list(_products(main, _CUDA_QUICK, cuda=True))
    second = _products("fp8", [_CUDA_QUICK[i] for i in _FP8_QUICK], cuda=True) if "fp8" in device.native else ()
    far = _spread(device, 0.1, (0.1, 0.5, 2, 8, 24))
    decode = [(64, 2047, 1), (1, 8191, 1), (16, 1023, 1), (128, 1023, 1), (1, 1023, 1), (32, 8191, 1), (8, 4095, 1), (1, 65535, 1)]
    return [
        [*products[::2], *_others(device, (main, "fp8"), (4096, 4096, 4096))],
        products[1::2],
        second,
        _attention(main, _fits(device, decode)),
        _attention(main, [(1, 0, 4096), (8, 0, 1024), (1, 0, 1024), (1, 0, 16384), (32, 0, 256), (1, 0, 256)]),
        _attention(main, [(64, 1023, 1), (1, 0, 2048), (8, 8191, 1), (4, 0, 1024)], heads=8, kv_heads=1),
        _memory("read", far[::-1]),
        _memory("copy", far[::-1]),
        [
            Point("launch", "fp32", "fp32", {"elements": 1}),
            Point("graph_launch", "fp32", "fp32", {"elements": 1}),
            Point("step_sync", "fp32", "fp32", {"batch": 64, "vocabulary": 128256}),
            Point("step_sync", "fp32", "fp32", {"batch": 1, "vocabulary": 128256}),
            *_memory("host_to_device", [256 * _MIB, 4096]),
            *_memory("device_to_host", [256 * _MIB, 4096]),
        ],
        _rowwise(main, "norm", _CUDA_ROWS),
        _rowwise(main, "residual", _CUDA_ROWS),
    ]


def _cuda_thorough(device: Device) -> list[Iterable[Point]]:
    main = _cuda_main(device)
    rows = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)
    weights = ((4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336), (1024, 4096), (8192, 8192), (1024, 1024), (8192, 1024))
    shapes = [(m, n, k) for m in rows for n, k in weights]
    groups: list[Iterable[Point]] = [_products(main, shapes, cuda=True)]
    groups += [
        _products(o, shapes if o == "fp8" else [s for s in shapes[::3] if o not in ("fp32", "tf32") or s[0] <= 2048], cuda=True)
        for o in device.native
        if o != main
    ]
    decode = [(b, c - 1, 1) for c in (128, 512, 1024, 4096, 16384) for b in (1, 4, 16, 32, 64, 128, 256)]
    sizes = _spread(device, 0.1, (0.02, 0.06, 0.25, 0.75, 1, 1.5, 4, 16, 64))
    return [
        *groups,
        _attention(main, _fits(device, decode)),
        _attention(main, [(b, 0, s) for s in (64, 128, 512, 2048, 8192, 32768) for b in (1, 4, 16) if b * s <= 32768]),
        _attention(main, [(b, c - 1, 1) for b in (1, 16, 128) for c in (512, 4096)] + [(2, 0, 512), (2, 0, 4096)], heads=8, kv_heads=1),
        _memory("read", sizes[::-1]),
        _memory("copy", sizes[::-1]),
        _rowwise(main, "norm", [(r, w) for w in (2048, 4096, 8192) for r in (1, 32, 128, 1024, 4096)]),
        _rowwise(main, "residual", [(r, w) for w in (4096, 14336) for r in (1, 32, 128, 1024, 4096)]),
        [Point("step_sync", "fp32", "fp32", {"batch": b, "vocabulary": 128256}) for b in (8, 256)],
        _memory("host_to_device", [2**16, _MIB, 16 * _MIB]),
        _memory("device_to_host", [2**16, _MIB, 16 * _MIB]),
    ]


PLANS: dict[str, Plan] = {"quick": Plan(quick_plan, 45.0), "thorough": Plan(thorough_plan, 510.0)}
"""Plans by name; the limits leave time for the start and the fit within the minute and the ten minutes."""
