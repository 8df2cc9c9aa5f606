"""What lies between a floor and a measured time, part by part, each as far as something tells it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from roofline.estimate import Estimate
from roofline.floors import Floor
from roofline.ops import Op

GROUPS = {
    "matmul": "matrices",
    "experts": "matrices",
    "attention": "cache",
    "latent_attention": "cache",
    "state": "cache",
    "all_reduce": "collectives",
    "exchange": "collectives",
    "send": "collectives",
    "rowwise": "small kernels",
}
"""Families of kernels → the part of a gap that they are."""

AT_MOST = "estimated, at most: "
"""How a part begins that is not known, but cannot be more than it says."""
_REFUTED = 1.25  # estimate at this load over the measured time, from which the estimate tells no parts

_WORDS = {
    "matrices": "matrix products: weights below full bandwidth, or products below the peak",
    "cache": "attention: the cache below full bandwidth",
    "collectives": "between devices",
    "small kernels": "norms, rotations, activations and other small kernels",
}

OF_REQUEST = "estimated: of the request and of its step"
"""How the host's part of a time to the first token is known: what a request goes through before and in its step."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the distance between a floor and a measured time.

    Parameters
    ----------
    name : str
        ``"matrices"``, ``"cache"``, ``"collectives"``, ``"small kernels"``, ``"host"``, ``"prompts of others"``, ``"queue"`` or ``"not explained"`` [-].
    expected_s : float
        What is taken for it; all parts add up to the distance [s].
    low_s, high_s : float
        What it is at least and at most, by what is known [s].
    how : str
        How it is known [-].
    """

    name: str
    expected_s: float
    low_s: float
    high_s: float
    how: str


def of_a_token(parts: Iterable[Part], tokens: float) -> tuple[Part, ...]:
    """Return the parts of a step's gap for one of the tokens that the step yields."""
    return tuple(Part(part.name, part.expected_s / tokens, part.low_s / tokens, part.high_s / tokens, part.how) for part in parts)


def kernel_parts(estimate: Estimate) -> list[Part]:
    """Return by what the kernels of an estimate exceed its floor, and what comes on top of kernels.

    A kernel's share of the floor is what it contributes to the roof that binds: its bytes over the bandwidth, or its products over their peak.
    """
    floor = estimate.floor
    share = _shares(floor)
    expected: dict[str, list[float]] = {}
    for row in estimate.by_op():
        sums = expected.setdefault(GROUPS[row.family], [0.0, 0.0, 0.0])
        for i, seconds in enumerate((row.time_s, row.low_s, row.high_s)):
            sums[i] += float(seconds)
    owed: dict[str, float] = {}
    for op in floor.work.ops:
        group = GROUPS.get(op.family, "small kernels")
        owed[group] = owed.get(group, 0.0) + share(op)
    total = sum(owed.values())
    saved = total - float(floor.time_s)  # what a cache saves, and what overlaps
    parts = []
    for group, (time, low, high) in expected.items():
        own = owed.get(group, 0.0)
        own -= saved * own / total if total else 0.0
        parts.append(Part(group, time - own, max(low - own, 0.0), high - own, f"estimated: {_WORDS[group]}"))
    overhead = float(estimate.overhead_s)
    beyond = float(estimate.time_s) - float(estimate.kernels_s) - overhead  # where the floor is the longer one
    parts.append(Part("host", overhead + beyond, 0.0, max(overhead + beyond, 0.0), "estimated: launching kernels and preparing the step"))
    return parts


def _shares(floor: Floor) -> Callable[[Op], float]:
    """Return the function that says what an operator contributes to the roof that binds a floor."""
    machine = floor.hardware
    if floor.roof == "compute":
        return lambda op: float(op.flops) / machine.ceiling(op.operand).value if op.flops else 0.0
    if floor.roof == "network":
        total = float(floor.link_bytes)
        return lambda op: float(op.link_bytes) / total * float(floor.time_s) if total else 0.0
    return lambda op: float(op.compulsory_bytes) / machine.memory_bandwidth


def prompts_part(measured_s: float | None, estimated_s: float | None) -> Part | None:
    """Return what prompts of other requests add to a step: what is measured, else what the estimate of the service says.

    Measured is the mean time per token less the median gap between tokens, in which there is mostly no prompt.
    """
    known = [value for value in (measured_s, estimated_s) if value is not None]
    if not known:
        return None
    how = "measured: time per token less the median gap" if measured_s is not None else "estimated: of the service at this load"
    return Part("prompts of others", known[0], min(known), max(known), how)


def unless_refuted(distance_s: float, kernels: Iterable[Part], of_service: Iterable[Part], over_measured: float) -> list[Part]:
    """Return the parts that the estimate of a service says; where the measured time refutes it, only what kernels leave room for at most.

    `over_measured` is the estimate over the measured time.
    """
    of_service = list(of_service)
    left = max(distance_s - sum(part.expected_s for part in kernels), 0.0)
    if over_measured <= _REFUTED or sum(part.expected_s for part in of_service) <= left:
        return of_service
    how = f"{AT_MOST}the estimate at this load is {over_measured:.2g} × the measured time, so how the rest divides is not known"
    return [Part(part.name, 0.0, 0.0, min(left, part.high_s), how) for part in of_service]


def remainder(distance_s: float, parts: Iterable[Part]) -> list[Part]:
    """Return the parts, none of them larger than the whole distance, and what they leave of it."""
    known = [_within(part, distance_s) for part in parts if part.high_s > 0 or part.expected_s]
    low, expected, high = (sum(getattr(part, name) for part in known) for name in ("low_s", "expected_s", "high_s"))
    rest = Part(
        "not explained", distance_s - expected, distance_s - high, distance_s - low, "what is left; below 0 if it ran faster than estimated"
    )
    return [*known, rest]


def _within(part: Part, distance_s: float) -> Part:
    expected, low, high = (min(value, distance_s) for value in (part.expected_s, part.low_s, part.high_s))
    cut = (
        f"; {part.expected_s / distance_s:.2g} × what lies above the floor, so it is cut to that"
        if part.expected_s > distance_s > 0
        else ""
    )
    return Part(part.name, expected, low, high, f"{part.how}{cut}")


def largest(parts: Iterable[Part], most: int = 3) -> list[Part]:
    """Return the largest parts."""
    return sorted((part for part in parts if part.expected_s > 0), key=lambda part: -part.expected_s)[:most]


def as_rows(parts: Iterable[Part], **of: object) -> list[Mapping[str, object]]:
    """Return parts as rows of a table."""
    return [{**of, **{name: getattr(part, name) for name in Part.__slots__}} for part in parts]
