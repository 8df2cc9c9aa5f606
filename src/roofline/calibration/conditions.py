"""What is doubtful about the samples and fits of a record, in words that every result repeats."""

from collections import Counter
from collections.abc import Mapping, Sequence

from roofline.calibration.classes import Sample, kernel_op, name_class
from roofline.records import KernelClass, Rates
from roofline.units import show_rate

LOST = "device lost"
"""How a condition begins that names the point at which the device stopped computing."""

STRANGER = "not recognized"
"""How a condition begins that says that the device does not bear the machine's name."""

_FASTER = "faster than the datasheet"

RENEWED = (
    *("unfinished plan", "skipped", "flagged", "no working set", "too slow for a rate", "most samples", "poor fit"),
    *(_FASTER, STRANGER, LOST),
)
"""How conditions begin that are found anew whenever a record is written; others, such as a busy device, stay as they were seen."""

_POOR = 0.5  # mean error: the generic constants, fitted to no machine in particular, err by less, so that such a fit is worse than none
_ROUNDED = 1.01  # rates that differ by less are the same figure, rounded
_STREAMS = ("read", "copy", "matmul", "attention")  # their arrays come from memory


def list_doubts(samples: Sequence[Sample], classes: Sequence[KernelClass]) -> tuple[str, ...]:
    """Return what is doubtful about a record as a whole: a busy machine, fits that say little.

    Examples
    --------
    >>> list_doubts([Sample("read", "", "", {}, {}, 1.0, 1.0, 1.0, 0.0, ("cpu shared: others used 30% of it",))], ())
    ('most samples are doubtful, 1 of 1: measure again on a quiet machine',)
    """
    # clocks that the power limit lowers are a large product's own doing, on however quiet a machine
    count = sum(any(not flag.startswith("throttled") for flag in sample.flags) for sample in samples)
    busy = (f"most samples are doubtful, {count} of {len(samples)}: measure again on a quiet machine",) if 2 * count > len(samples) else ()
    errors = {name_class(c): c.error for c in classes if c.constants and c.error is not None and c.error > _POOR}
    return (*busy, *(f"poor fit: {name}, mean error {error:.0%} on samples held out" for name, error in errors.items()))


def list_beaten(rows: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """Return which classes were fitted to rows that no kernel can have: a unit, a label or a machine is wrong.

    One such row is enough. The floor allows for whatever a cache may hold, and of the rows that the shipped records were made from, which
    published defects have been taken out of, not one is faster.

    Examples
    --------
    >>> list_beaten({"matmul bf16": (2, 250), "matmul fp8": (0, 250)})
    ('2 of 250 rows of matmul bf16 are faster than their floor: see check_table',)
    """
    return tuple(
        f"{some} of {total} rows of {name} are faster than their floor: see check_table" for name, (some, total) in rows.items() if some
    )


def list_flags(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return for every kind of flag how many samples carry it; kinds differ in what stands before the colon.

    Examples
    --------
    >>> list_flags([Sample("read", "", "", {}, {}, 1.0, 1.0, 1.0, 0.0, ("did not settle",))])
    ('flagged: 1 of 1 samples did not settle',)
    """
    kinds = Counter(flag.partition(":")[0] for sample in samples for flag in dict.fromkeys(sample.flags))
    whys: dict[str, list[str]] = {}
    for flag in (flag for sample in samples for flag in sample.flags):
        whys.setdefault(flag.partition(":")[0], []).append(flag.partition(":")[2].strip())
    return tuple(
        f"flagged: {count} of {len(samples)} samples {kind}" + (f" ({why})" if (why := Counter(whys[kind]).most_common(1)[0][0]) else "")
        for kind, count in kinds.items()
    )


def list_contradictions(samples: Sequence[Sample], rates: Rates, *, cache_bytes: float, machine: str) -> tuple[str, ...]:
    """Return which rates of a datasheet the samples are above, which no kernel can be: measurement, units or spec are wrong.

    A sample counts if nine of ten of its repetitions were faster than the datasheet allows, and if its result was right. Of the bytes
    that it moved, as many as the last-level cache holds may not have come from memory.

    Examples
    --------
    >>> read = Sample("read", "fp32", "fp32", {"bytes": 4e9}, {}, 1.0, 1.0, 1.0, 4e9)
    >>> list_contradictions([read], Rates(origin="datasheet", memory_bandwidth=2e9), cache_bytes=0, machine="box")
    ('faster than the datasheet: memory at 4 GB/s, 2 times the 2 GB/s of box: an error of measurement, units or spec',)
    """
    if rates.origin != "datasheet":
        return ()
    fastest: dict[str, tuple[float, float, str]] = {}
    for sample in (s for s in samples if s.usable):
        for name, (amount, rate, unit) in _demands(sample, rates, cache_bytes).items():
            if rate is not None and amount / sample.high_s > _ROUNDED * rate:
                fastest[name] = max(fastest.get(name, (0.0, rate, unit)), (amount / sample.seconds, rate, unit))
    return tuple(
        f"{_FASTER}: {name} at {show_rate(reached, unit)}, {reached / rate:.3g} times the {show_rate(rate, unit)} of {machine}: "
        "an error of measurement, units or spec"
        for name, (reached, rate, unit) in fastest.items()
    )


def _demands(sample: Sample, rates: Rates, cache_bytes: float) -> dict[str, tuple[float, float | None, str]]:
    """Return by what it uses how much of it a sample cannot do without, the datasheet's rate, and its unit."""
    found: dict[str, tuple[float, float | None, str]] = {}
    if sample.family in ("matmul", "attention", "all_reduce"):
        op = kernel_op(sample.family, sample.stored, sample.operand, {**sample.fixed, **sample.sizes})
        found[f"{sample.operand} products"] = (float(op.flops), rates.peak_flops_per_s.get(sample.operand), "FLOP/s")
        found["links"] = (float(op.link_bytes), rates.link_bandwidth, "B/s")
    if sample.family in _STREAMS:
        found["memory"] = (sample.moved_bytes - cache_bytes, rates.memory_bandwidth, "B/s")
    return found
