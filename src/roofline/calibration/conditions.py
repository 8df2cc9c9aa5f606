"""What is doubtful about the samples and fits of a record, in words that every result repeats."""

from collections import Counter
from collections.abc import Sequence

from roofline.calibration.classes import Sample, name_class
from roofline.records import KernelClass

__all__ = ["LOST", "RENEWED", "list_doubts", "list_flags"]

LOST = "device lost"
"""How a condition begins that names the point at which the device stopped computing."""

RENEWED = ("unfinished plan", "skipped", "flagged", "no working set", "most samples", "poor fit", LOST)
"""How conditions begin that are found anew whenever a record is written; others, such as a busy device, stay as they were seen."""

_POOR = 0.5  # mean error beyond which a fit is no better than a guess


def list_doubts(samples: Sequence[Sample], classes: Sequence[KernelClass]) -> tuple[str, ...]:
    """Return what is doubtful about a record as a whole: a busy machine, fits that say little.

    Parameters
    ----------
    samples : sequence of Sample
        All that were measured [-].
    classes : sequence of KernelClass
        What was fitted to them [-].

    Returns
    -------
    tuple of str
        Conditions [-].

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


def list_flags(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return for every kind of flag how many samples carry it; kinds differ in what stands before the colon.

    Parameters
    ----------
    samples : sequence of Sample
        All that were measured [-].

    Returns
    -------
    tuple of str
        Conditions [-].

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
