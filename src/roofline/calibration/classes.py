"""From samples to classes of kernels with fitted constants, to rates, and to the overheads that lie outside kernels."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.calibration.products import OPERANDS
from roofline.calibration.selection import fitted_fields
from roofline.errors import CalibrationError
from roofline.kernels import FAMILIES, Family, count_op
from roofline.ops import Op
from roofline.records import SLOWEST, FittedConstant, KernelClass, Rates, Samples, Telemetry
from roofline.units import show_rate

WRONG = "result wrong"
"""The flag of a sample whose result was not the right one, which makes its time meaningless [-]."""

Size = str | int | float | bool

_MANY_CACHES = 4  # a working set of so many caches leaves nothing of itself behind for the next run
_OVERHEADS = {"launch": "launch_s", "graph_launch": "graph_launch_s", "step_sync": "sync_s"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of a plan, measured.

    Parameters
    ----------
    family, stored, operand : str
        Its class: family of kernels, format read, format multiplied in [-].
    sizes : mapping of str to float
        What the kernel was asked to do [-].
    fixed : mapping of str to (str, int or float)
        Arguments that all points of its class share [-].
    seconds, low_s, high_s : float
        Median time, 10 % and 90 % quantile of the repetitions [s].
    moved_bytes : float
        Bytes that it was counted to move [B].
    flags : tuple of str, optional
        Why it is doubtful [-].
    telemetry : Telemetry, optional
        What the device said beside it [-].
    """

    family: str
    stored: str
    operand: str
    sizes: Mapping[str, float]
    fixed: Mapping[str, Size]
    seconds: float
    low_s: float
    high_s: float
    moved_bytes: float
    flags: tuple[str, ...] = ()
    telemetry: Telemetry | None = None

    @property
    def class_key(self) -> tuple[Any, ...]:
        """What it shares with the other samples of its class [-]."""
        return (self.family, self.stored, self.operand, tuple(sorted(self.fixed.items())))

    @property
    def key(self) -> tuple[Any, ...]:
        """What it shares with the point of the plan that it is a sample of [-]."""
        return (*self.class_key, tuple(sorted((name, float(size)) for name, size in self.sizes.items())))

    @property
    def usable(self) -> bool:
        """Whether a fit may rest on it: its result was right [-]."""
        return not any(WRONG in flag for flag in self.flags)


def kernel_op(family: str, stored: str, operand: str, arguments: Mapping[str, Any]) -> Op:
    """Return what a point of a plan costs: what the same row of a table of measured kernels does.

    Examples
    --------
    >>> kernel_op("matmul", "bf16", "bf16", {"m": 1, "n": 1024, "k": 1024}).weight_bytes
    2097152
    """
    if family not in _KINDS:
        raise CalibrationError(f"kernels of the family {family!r} have no form to be fitted; those of {', '.join(_KINDS)} have.")
    kind, formats = _KINDS[family]
    sizes: dict[str, Any] = {_SIZES.get(name, name): int(size) for name, size in arguments.items() if name != "kernel"}
    if "kernel" in arguments:
        sizes |= _ROWWISE[arguments["kernel"]]
    return count_op(kind, **formats(stored, operand), **sizes)


_KINDS: dict[str, tuple[str, Callable[[str, str], dict[str, str]]]] = {
    "matmul": ("matmul", lambda stored, operand: {"format": operand, "weights": stored, "output": OPERANDS[operand].result}),
    "attention": ("attention", lambda stored, operand: {"kv": stored, "activations": operand}),
    "rowwise": ("rowwise", lambda stored, operand: {"activations": stored}),
    "all_reduce": ("collective", lambda stored, operand: {"op": "all_reduce"}),
}
"""Family of points → the kind of table rows that counts it, and what its formats are called there."""

_SIZES = {"bytes": "size"}
"""Sizes of points that rows of tables call otherwise; every other is called alike."""

_ROWWISE = {"norm": {"inputs": 1, "vectors": 1}, "residual": {"inputs": 2}}
"""What goes into one row that comes out, by the name of the kernel."""


def _op(sample: Sample) -> Op:
    return kernel_op(sample.family, sample.stored, sample.operand, {**sample.fixed, **sample.sizes})


def group_samples(samples: Iterable[Sample]) -> tuple[KernelClass, ...]:
    """Return samples by class, not fitted.

    Examples
    --------
    >>> samples = [Sample("matmul", "bf16", "bf16", {"m": m, "n": 64, "k": 64}, {}, 1e-6, 1e-6, 1e-6, 0.0) for m in (1, 2)]
    >>> group_samples(samples)[0].samples.sizes["m"]
    (1.0, 2.0)
    """
    classes: dict[tuple[Any, ...], list[Sample]] = {}
    for sample in samples:
        classes.setdefault(sample.class_key, []).append(sample)
    return tuple(
        KernelClass(
            family=first.family,
            stored=first.stored,
            operand=first.operand,
            fixed_sizes=dict(first.fixed),
            samples=Samples(
                sizes={name: tuple(float(s.sizes[name]) for s in group) for name in first.sizes},
                seconds=tuple(s.seconds for s in group),
                low_s=tuple(s.low_s for s in group),
                high_s=tuple(s.high_s for s in group),
                moved_bytes=tuple(s.moved_bytes for s in group),
                flags={i: "; ".join(s.flags) for i, s in enumerate(group) if s.flags},
                telemetry=tuple(s.telemetry for s in group),
            ),
        )
        for first, group in ((group[0], group) for group in classes.values())
    )


def list_samples(classes: Iterable[KernelClass]) -> list[Sample]:
    """Return the samples of classes one by one: the inverse of :func:`group_samples`."""
    found = []
    for c in classes:
        s = c.samples
        for i, seconds in enumerate(s.seconds):
            found.append(
                Sample(
                    c.family,
                    c.stored,
                    c.operand,
                    {name: column[i] for name, column in s.sizes.items()},
                    c.fixed_sizes,
                    seconds,
                    s.low_s[i] if s.low_s else seconds,
                    s.high_s[i] if s.high_s else seconds,
                    s.moved_bytes[i] if s.moved_bytes else 0.0,
                    tuple(s.flags[i].split("; ")) if i in s.flags else (),
                    s.telemetry[i] if s.telemetry else None,
                )
            )
    return found


def fit_classes(classes: Sequence[KernelClass], rates: Rates) -> tuple[KernelClass, ...]:
    """Return classes of kernels with the constants that their samples show, as far as they show any.

    Classes of one family and the same formats share a fit, unless they name different kernels: a norm is no sum. The error and the residuals are those of samples that the fit has
    not seen, see ``select_fit``, which also finds how many constants they can tell.

    Parameters
    ----------
    classes : sequence of KernelClass
        With samples [-].
    rates : Rates
        What shares refer to [-].

    Returns
    -------
    tuple of KernelClass
        The same, fitted, or with a note why one is not [-].

    Raises
    ------
    MissingDependencyError
        If scipy is not installed.
    """
    pools: dict[tuple[str, ...], list[KernelClass]] = {}
    for kernels in classes:
        pools.setdefault(_pool(kernels), []).append(kernels)
    fits = {key: _fit(pool[0].family, pool[0].operand, list_samples(pool), rates) for key, pool in pools.items()}
    return tuple(c.model_copy(update=fits[_pool(c)]) for c in classes)


def _pool(kernels: KernelClass) -> tuple[str, ...]:
    return (kernels.family, kernels.stored, kernels.operand, str(kernels.fixed_sizes.get("kernel", "")))


def name_class(kernels: KernelClass) -> str:
    """Write for people what classes with the same fit have in common.

    Examples
    --------
    >>> name_class(KernelClass(family="rowwise", stored="fp32", operand="fp32", fixed_sizes={"kernel": "norm"}, samples=Samples()))
    'rowwise norm fp32'
    """
    family, stored, operand, kernel = _pool(kernels)
    return " ".join(word for word in (family, kernel, f"{stored} in {operand}" if stored and stored != operand else operand) if word)


def _fit(family_name: str, operand: str, samples: Sequence[Sample], rates: Rates) -> dict[str, Any]:
    """Return the fields of a class that its fit fills."""
    family = FAMILIES.get(family_name)
    if family is None or family_name not in _KINDS:
        return {}
    samples = [s for s in samples if s.usable]
    peak = rates.peak_flops_per_s.get(operand, math.inf)
    bandwidth = (rates.memory_bandwidth if family.roof == "memory" else rates.link_bandwidth) or math.inf
    try:
        features, seconds = _columns(family, samples), np.array([s.seconds for s in samples])
        return fitted_fields(family, features, seconds, peak_flops_per_s=peak, bandwidth=bandwidth)
    except CalibrationError as error:
        return {"note": f"not fitted: {error}"}


def _columns(family: Family, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    rows = [family.features(_op(s)) for s in samples]
    return {name: np.array([float(row[name]) for row in rows]) for name in (rows[0] if rows else ())}


def measured_rates(samples: Sequence[Sample], *, cache_bytes: float) -> tuple[Rates, tuple[str, ...]]:
    """Return the best rates that were reached, which stand in for a datasheet.

    A rate is taken from the 10 % quantile of the repetitions of the best sample. That of memory comes only from working sets of
    at least four caches, of which nothing survives in the cache from one run to the next. What no record takes for a rate is left out.

    Examples
    --------
    >>> read = [Sample("read", "fp32", "", {"bytes": b}, {}, b / 1e10, b / 1e10, b / 1e10, b) for b in (4e6, 4e9)]
    >>> measured_rates(read, cache_bytes=1e8)[0].memory_bandwidth
    10000000000.0
    """
    good = [s for s in samples if s.usable]
    peaks: dict[str, float] = {}
    for sample in (s for s in good if s.family in ("matmul", "attention")):
        peaks[sample.operand] = max(peaks.get(sample.operand, 0.0), float(_op(sample).flops) / sample.low_s)
    streams = [s for s in good if s.family in ("read", "copy", "matmul", "attention") and s.moved_bytes > 0]
    large = [s for s in streams if s.moved_bytes >= _MANY_CACHES * cache_bytes]
    notes: tuple[str, ...] = ()
    if streams and not large:
        largest = max(s.moved_bytes for s in streams)
        large = [s for s in streams if s.moved_bytes == largest]
        notes = ("no working set was several times the cache: the memory bandwidth may be the cache's",)
    bandwidth = max((s.moved_bytes / s.low_s for s in large), default=None)
    link = max((float(_op(s).link_bytes) / s.low_s for s in good if s.family == "all_reduce"), default=None)
    reached = {f"{operand} products": (peak, "FLOP/s") for operand, peak in peaks.items()}
    reached |= {name: (rate, "B/s") for name, rate in (("memory", bandwidth), ("links", link)) if rate is not None}
    slow = {name: (rate, unit) for name, (rate, unit) in reached.items() if rate < SLOWEST}
    notes += tuple(
        f"too slow for a rate: {name} at {show_rate(rate, unit)}, below {show_rate(SLOWEST, unit)}, left out"
        for name, (rate, unit) in slow.items()
    )
    return Rates(
        peak_flops_per_s={operand: peak for operand, peak in peaks.items() if f"{operand} products" not in slow},
        memory_bandwidth=None if "memory" in slow else bandwidth,
        link_bandwidth=None if "links" in slow else link,
        origin="measured",
    ), notes


def overheads(samples: Iterable[Sample]) -> dict[str, FittedConstant]:
    """Return the times outside kernels: a launch from the host, a launch in a graph, the end of a step [s].

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
