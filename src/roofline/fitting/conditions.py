"""What is doubtful about the samples and fits of a record, as conditions that every result repeats."""

from collections import Counter
from collections.abc import Mapping, Sequence

from roofline.fitting.classes import name_class, sample_op
from roofline.records import Condition, KernelClass, Rates
from roofline.records.samples import Sample
from roofline.units import show_rate

_POOR = 0.5  # mean error above that of the generic constants, which are fitted to no machine in particular: such a fit is worse than none
_ROUNDED = 1.01  # rates that differ by less are the same figure, rounded
_STREAMS = ("read", "copy", "matmul", "attention")  # their arrays come from memory


def check_fits(samples: Sequence[Sample], classes: Sequence[KernelClass]) -> tuple[Condition, ...]:
    """Return what is doubtful about a record as a whole: a busy machine, fits with a large error.

    Examples
    --------
    >>> from roofline.records import Flag
    >>> shared = Flag(code="cpu shared", detail="others used 30% of it")
    >>> print(*check_fits([Sample("read", "", "", {}, {}, 1.0, 1.0, 1.0, 0.0, (shared,))], ()))
    most samples are doubtful, 1 of 1: measure again on a quiet machine
    """
    # the power limit throttles a large product on however quiet a machine
    count = sum(any(flag.code != "throttled" for flag in sample.flags) for sample in samples)
    found = []
    if 2 * count > len(samples):
        text = f"most samples are doubtful, {count} of {len(samples)}: measure again on a quiet machine"
        found.append(Condition(code="mostly flagged", text=text))
    errors = {name_class(c): c.error for c in classes if c.constants and c.error is not None and c.error > _POOR}
    texts = (f"poor fit: {name}, mean error {error:.0%} on samples held out" for name, error in errors.items())
    return (*found, *(Condition(code="poor fit", text=text) for text in texts))


def check_rows(rows: Mapping[str, tuple[int, int]]) -> tuple[Condition, ...]:
    """Return which classes were fitted to rows faster than their floor, given for each class (such rows, all rows).

    One such row is enough, for a unit, a label or the machine must be wrong: the floor allows for whatever a cache may hold, and no
    row of the tables behind the shipped records is faster, once published defects are taken out.

    Examples
    --------
    >>> print(*check_rows({"matmul bf16": (2, 250), "matmul fp8": (0, 250)}))
    2 of 250 rows of matmul bf16 are faster than their floor: see check_table
    """
    texts = (
        f"{some} of {total} rows of {name} are faster than their floor: see check_table" for name, (some, total) in rows.items() if some
    )
    return tuple(Condition(code="faster than floor", text=text) for text in texts)


def count_flags(samples: Sequence[Sample]) -> tuple[Condition, ...]:
    """Return for every flag how many samples carry it, with its most common detail.

    Examples
    --------
    >>> from roofline.records import Flag
    >>> print(*count_flags([Sample("read", "", "", {}, {}, 1.0, 1.0, 1.0, 0.0, (Flag(code="did not settle"),))]))
    flagged: 1 of 1 samples did not settle
    """
    found = []
    counts = Counter(code for sample in samples for code in dict.fromkeys(flag.code for flag in sample.flags))
    for code, count in counts.items():
        details = Counter(flag.detail for sample in samples for flag in sample.flags if flag.code == code)
        detail = details.most_common(1)[0][0]
        text = f"flagged: {count} of {len(samples)} samples {code}" + (f" ({detail})" if detail else "")
        found.append(Condition(code="flagged", text=text))
    return tuple(found)


def check_rates(samples: Sequence[Sample], rates: Rates, *, cache_bytes: float, machine: str) -> tuple[Condition, ...]:
    """Return which rates of a datasheet the samples exceed, which no kernel can: the measurement, a unit or the spec is wrong.

    A sample counts if its result was right and nine of ten of its repetitions were faster than the datasheet allows. Of the bytes
    that it moved, as many as the last-level cache holds need not have come from memory.

    Examples
    --------
    >>> read = Sample("read", "fp32", "fp32", {"bytes": 4e9}, {}, 1.0, 1.0, 1.0, 4e9)
    >>> print(*check_rates([read], Rates(origin="datasheet", memory_bandwidth=2e9), cache_bytes=0, machine="box"))
    faster than the datasheet: memory at 4 GB/s, 2 times the 2 GB/s of box: an error of measurement, units or spec
    """
    if rates.origin != "datasheet":
        return ()
    fastest: dict[str, tuple[float, float, str]] = {}
    for sample in (s for s in samples if s.usable):
        for name, (amount, rate, unit) in _used_rates(sample, rates, cache_bytes).items():
            if rate is not None and amount / sample.high_s > _ROUNDED * rate:
                fastest[name] = max(fastest.get(name, (0.0, rate, unit)), (amount / sample.seconds, rate, unit))
    texts = (
        f"faster than the datasheet: {name} at {show_rate(reached, unit)}, {reached / rate:.3g} times the {show_rate(rate, unit)} of {machine}: "
        "an error of measurement, units or spec"
        for name, (reached, rate, unit) in fastest.items()
    )
    return tuple(Condition(code="faster than datasheet", text=text) for text in texts)


def _used_rates(sample: Sample, rates: Rates, cache_bytes: float) -> dict[str, tuple[float, float | None, str]]:
    """Return by resource the least amount of it that a sample needs, its rate by the datasheet, and their unit."""
    found: dict[str, tuple[float, float | None, str]] = {}
    if sample.family in ("matmul", "attention", "all_reduce"):
        op = sample_op(sample)
        found[f"{sample.operand} products"] = (float(op.flops), rates.peak_flops_per_s.get(sample.operand), "FLOP/s")
        found["links"] = (float(op.link_bytes), rates.link_bandwidth, "B/s")
    if sample.family in _STREAMS:
        found["memory"] = (sample.moved_bytes - cache_bytes, rates.memory_bandwidth, "B/s")
    return found
