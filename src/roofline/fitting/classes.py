"""From samples to classes of kernels with fitted constants, to rates, and to the overheads that lie outside kernels."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from roofline.errors import CalibrationError, quoted
from roofline.fitting.selection import fitted_fields
from roofline.hardware import Hardware
from roofline.hardware.rates import reference_rates
from roofline.kernels import FAMILIES, Family, count_op
from roofline.ops import Op, all_reduce, exchange
from roofline.records import Condition, FittedConstant, KernelClass, Rates
from roofline.records.samples import Sample, list_samples
from roofline.records.schema import SLOWEST
from roofline.units import show_rate

_MANY_CACHES = 4  # of a working set this many times the cache nothing is left in the cache for the next run
_OVERHEADS = {"launch": "launch_s", "graph_launch": "graph_launch_s", "step_sync": "sync_s"}


def kernel_op(family: str, stored: str, operand: str, arguments: Mapping[str, Any]) -> Op:
    """Return the operator of a measured kernel, counted like the same row of a table of measured kernels.

    Examples
    --------
    >>> kernel_op("matmul", "bf16", "bf16", {"m": 1, "n": 1024, "k": 1024}).weight_bytes
    2097152
    """
    if family not in _KINDS:
        raise CalibrationError(f"kernels of the family {quoted(family)} have no form to be fitted; those of {', '.join(_KINDS)} have.")
    kind, formats = _KINDS[family]
    sizes: dict[str, Any] = {_SIZES.get(name, name): int(size) for name, size in arguments.items() if name != "kernel"}
    if "kernel" in arguments:
        sizes |= _ROWWISE[arguments["kernel"]]
    return count_op(kind, **formats(stored, operand), **sizes)


_RESULTS: dict[str, str] = {"fp8": "bf16", "int8": "fp32", "tf32": "fp32"}
"""Formats of results that differ from their operands', by as many bytes as an element has: int8 adds up in int32."""

_KINDS: dict[str, tuple[str, Callable[[str, str], dict[str, str]]]] = {
    "matmul": ("matmul", lambda stored, operand: {"format": operand, "weights": stored, "output": _RESULTS.get(operand, operand)}),
    "attention": ("attention", lambda stored, operand: {"kv": stored, "activations": operand}),
    "rowwise": ("rowwise", lambda stored, operand: {"activations": stored}),
    "all_reduce": ("collective", lambda stored, operand: {"op": "all_reduce"}),
}
"""Family of points → the kind of table rows that counts it, and the names of its formats there."""

_SIZES = {"bytes": "size"}
"""Sizes of points with another name in table rows."""

_ROWWISE = {"norm": {"inputs": 1, "vectors": 1}, "residual": {"inputs": 2}}
"""Inputs per output row, by the name of the kernel."""


def sample_op(sample: Sample) -> Op:
    """Return the operator of a sample."""
    return kernel_op(sample.family, sample.stored, sample.operand, {**sample.fixed, **sample.sizes})


def fit_classes(classes: Sequence[KernelClass], rates: Rates, *, hardware: Hardware | None = None) -> tuple[KernelClass, ...]:
    """Return classes of kernels with the constants that their samples determine.

    Classes of one family and the same formats share a fit, unless they name different kernels: a norm is not a residual addition. The error
    and the residuals are those of held-out samples, which also decide how many constants are fitted.
    """
    pools: dict[tuple[str, ...], list[KernelClass]] = {}
    for kernels in classes:
        pools.setdefault(_pool(kernels), []).append(kernels)
    fits = {key: _fit(pool, rates, hardware) for key, pool in pools.items()}
    return tuple(c.model_copy(update=fits[_pool(c)]) for c in classes)


def _pool(kernels: KernelClass) -> tuple[str, ...]:
    return (kernels.family, kernels.stored, kernels.operand, str(kernels.fixed_sizes.get("kernel", "")))


def name_class(kernels: KernelClass) -> str:
    """Return a readable name for the classes that share a fit, and what tells one from another of the same formats.

    Examples
    --------
    >>> name_class(KernelClass(family="rowwise", stored="fp32", operand="fp32", fixed_sizes={"kernel": "norm"}))
    'rowwise norm fp32'
    """
    family, stored, operand, kernel = _pool(kernels)
    which = "with stored scales" if kernels.static_scales else "over host links" if kernels.fixed_sizes.get("links") else ""
    return " ".join(word for word in (family, kernel, f"{stored} in {operand}" if stored and stored != operand else operand, which) if word)


def _fit(pool: Sequence[KernelClass], rates: Rates, hardware: Hardware | None) -> dict[str, Any]:
    """Return the fields of a class that its fit fills."""
    family, operand = FAMILIES.get(pool[0].family), pool[0].operand
    if family is None or family.name not in _KINDS:
        return {}
    samples = [s for s in list_samples(pool) if s.usable]
    try:
        features, seconds = _columns(family, samples), np.array([s.seconds for s in samples])
        peak, bandwidth = class_rates(family, operand, map(sample_op, samples), rates=rates, machine=hardware)
        return fitted_fields(family, features, seconds, peak_flops_per_s=peak, bandwidth=bandwidth)
    except CalibrationError as error:
        return {"note": f"not fitted: {error}"}


def class_rates(
    family: Family, operand: str, ops: Iterable[Op], *, rates: Rates | None = None, machine: Hardware | None = None
) -> tuple[float, np.ndarray]:
    """Return the peak that the shares of a class of kernels refer to, and the bandwidth for each of its operators [FLOP/s], [B/s]."""
    if family.roof == "memory":
        peak, bandwidth = reference_rates(operand, "memory", rates=rates, machine=machine)
        return peak, np.array([bandwidth])
    found = [reference_rates(operand, "link", rates=rates, machine=machine, outside=_outside(op, machine)) for op in ops]
    return found[0][0] if found else math.inf, np.array([bandwidth for _, bandwidth in found])


def _outside(op: Op, machine: Hardware | None) -> float:
    """Return which part of a collective's bytes leaves the scale-up domain of a machine."""
    ranks = int(op.sizes["ranks"])
    domain = (machine.scale_up.domain_size if machine and machine.scale_up else None) or ranks
    sent = (all_reduce if op.family == "all_reduce" else partial(exchange, visits=1))(op.name, 1.0, ranks=ranks, domain=domain)
    return float(sent.nic_bytes) / float(sent.link_bytes or 1)


def _columns(family: Family, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    rows = [family.features(sample_op(s)) for s in samples]
    return {name: np.array([float(row[name]) for row in rows]) for name in (rows[0] if rows else ())}


def measured_rates(samples: Sequence[Sample], *, cache_bytes: float) -> tuple[Rates, tuple[Condition, ...]]:
    """Return the best measured rates, which stand in for a datasheet, and what is doubtful about them.

    A rate is taken from the 10 % quantile of the repetitions of the best sample. The memory bandwidth comes only from working sets of
    at least four caches, none of which is left in the cache from one run to the next. A rate that no record accepts is left out.

    Examples
    --------
    >>> read = [Sample("read", "fp32", "", {"bytes": b}, {}, b / 1e10, b / 1e10, b / 1e10, b) for b in (4e6, 4e9)]
    >>> measured_rates(read, cache_bytes=1e8)[0].memory_bandwidth
    10000000000.0
    """
    good = [s for s in samples if s.usable]
    peaks: dict[str, float] = {}
    for sample in (s for s in good if s.family in ("matmul", "attention")):
        peaks[sample.operand] = max(peaks.get(sample.operand, 0.0), float(sample_op(sample).flops) / sample.low_s)
    streams = [s for s in good if s.family in ("read", "copy", "matmul", "attention") and s.moved_bytes > 0]
    large = [s for s in streams if s.moved_bytes >= _MANY_CACHES * cache_bytes]
    doubts: tuple[Condition, ...] = ()
    if streams and not large:
        largest = max(s.moved_bytes for s in streams)
        large = [s for s in streams if s.moved_bytes == largest]
        text = "no working set was several times the cache: the memory bandwidth may be the cache's"
        doubts = (Condition(code="cache bandwidth", text=text),)
    bandwidth = max((s.moved_bytes / s.low_s for s in large), default=None)
    link = max((float(sample_op(s).link_bytes) / s.low_s for s in good if s.family == "all_reduce"), default=None)
    reached = {f"{operand} products": (peak, "FLOP/s") for operand, peak in peaks.items()}
    reached |= {name: (rate, "B/s") for name, rate in (("memory", bandwidth), ("links", link)) if rate is not None}
    slow = {name: (rate, unit) for name, (rate, unit) in reached.items() if rate < SLOWEST}
    doubts += tuple(
        Condition(
            code="rate too low", text=f"too slow for a rate: {name} at {show_rate(rate, unit)}, below {show_rate(SLOWEST, unit)}, left out"
        )
        for name, (rate, unit) in slow.items()
    )
    return Rates(
        peak_flops_per_s={operand: peak for operand, peak in peaks.items() if f"{operand} products" not in slow},
        memory_bandwidth=None if "memory" in slow else bandwidth,
        link_bandwidth=None if "links" in slow else link,
        origin="measured",
    ), doubts


def overheads(samples: Iterable[Sample]) -> dict[str, FittedConstant]:
    """Return the times outside kernels: a launch from the host, a launch in a CUDA graph, sampling and copying at the end of a step [s].

    Examples
    --------
    >>> overheads([Sample("launch", "", "", {}, {}, 5e-6, 4e-6, 7e-6, 0.0)])["launch_s"].high
    7e-06
    """
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.family in _OVERHEADS and sample.usable:
            groups.setdefault(_OVERHEADS[sample.family], []).append(sample)
    return {
        name: FittedConstant(
            value=float(np.median([s.seconds for s in group])),
            low=float(np.median([s.low_s for s in group])),
            high=float(np.median([s.high_s for s in group])),
            unit="s",
        )
        for name, group in groups.items()
    }
