"""Samples one by one, and by class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roofline.records.conditions import WRONG, Flag
from roofline.records.schema import KernelClass, Samples, Telemetry

Size = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured kernel."""

    family: str  # its class: family of kernels, format read, format multiplied in
    stored: str
    operand: str
    sizes: Mapping[str, float]  # what the kernel was asked to do
    fixed: Mapping[str, Size]  # arguments that all samples of its class share
    seconds: float  # median time, 10 % and 90 % quantile of the repetitions [s]
    low_s: float
    high_s: float
    moved_bytes: float  # bytes that it was counted to move [B]
    flags: tuple[Flag, ...] = ()  # why it is doubtful
    telemetry: Telemetry | None = None  # what the device reported meanwhile

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
        """Whether its result was right, so that a fit may use its time [-]."""
        return WRONG not in self.flags


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
                flags={i: s.flags for i, s in enumerate(group) if s.flags},
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
                    s.flags.get(i, ()),
                    s.telemetry[i] if s.telemetry else None,
                )
            )
    return found


def stream_rates(samples: Sequence[Sample]) -> list[tuple[str, float]]:
    """Return the best rate of reading and of copying, of arrays at least half as long as the longest [B/s]."""
    ways = {name: [s for s in samples if s.family == name and s.usable] for name in ("read", "copy")}
    return [
        (name, max(s.moved_bytes / s.seconds for s in found if s.moved_bytes >= max(f.moved_bytes for f in found) / 2))
        for name, found in ways.items()
        if found
    ]
