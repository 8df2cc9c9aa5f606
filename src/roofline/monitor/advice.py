"""What would help against what binds: the levers of the step that runs, or what usually helps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roofline.deployment import Deployment
from roofline.monitor.bottleneck import Bottleneck, Verdict
from roofline.optimizations import Levers, levers
from roofline.results import Result

# The rows "compute", "memory" and "overhead" of the table in docs/concepts.md.
_USUAL: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "compute_bound": (
        ("a machine with more FLOP/s", "narrower products (fp8, int8)", "fused attention"),
        ("larger batch", "bandwidth", "weight-only quantization"),
    ),
    "memory_bound": (
        (
            "batching",
            "narrower weights",
            "a smaller cache (narrower, grouped or latent heads, shared prefixes)",
            "bandwidth",
            "speculative decoding",
        ),
        ("more FLOP/s",),
    ),
    "underutilized": (("CUDA graphs", "fusion", "asynchronous scheduling", "a larger batch"), ("more FLOP/s", "bandwidth")),
}
_BOUND = {"compute_bound": "compute", "memory_bound": "memory"}
_BALANCED = "arithmetic and bandwidth are both in use: what relieves one alone gains little"
_UNKNOWN = "the counters do not tell what binds; a measured time per token beside its floor does"
_MOST = 5


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Recommendation(Result):
    """What would help a device, and what would not.

    Parameters
    ----------
    bottleneck : str
        What binds it [-].
    reason : str
        What says so [-].
    helps, does_not_help : tuple of str
        In the order of their gain where levers were evaluated [-].
    found : Levers, optional
        The levers of the step that runs; None where no deployment is named [-].
    notes : tuple of str
        What a reader must know [-].
    """

    bottleneck: Bottleneck
    reason: str
    helps: tuple[str, ...]
    does_not_help: tuple[str, ...]
    found: Levers | None = None
    notes: tuple[str, ...] = ()

    def context(self) -> dict[str, Any]:
        """Return everything; there are no numbers but the levers' own [-]."""
        own = {name: getattr(self, name) for name in ("bottleneck", "reason", "helps", "does_not_help", "notes")}
        return own | ({} if self.found is None else {"levers": self.found.to_dict()})

    def summary(self) -> list[str]:
        """Return the short text: what binds and why, what helps, what does not [-]."""
        lines = [f"{self.bottleneck.replace('_', '-')}: {self.reason}"]
        lines += [f"  helps: {'; '.join(self.helps)}"] if self.helps else []
        lines += [f"  does not help: {'; '.join(self.does_not_help)}"] if self.does_not_help else []
        return [*lines, *(f"  note: {note}" for note in self.notes)]


def recommend(verdict: Verdict, deployment: Deployment | None, *, batch: int, context: int, prompt: int | None) -> Recommendation:
    """Return what would help a device that is bound so and runs such steps."""
    if deployment is None:
        helps, not_ = _USUAL.get(verdict.bottleneck, ((), ()))
        notes = {"balanced": (_BALANCED,), "unknown": (_UNKNOWN,)}.get(verdict.bottleneck, ())
        return Recommendation(verdict.bottleneck, verdict.reason, helps, not_, None, notes)
    if prompt is None:
        found = levers(deployment, step="decode", batch=batch, context=context)
    else:
        found = levers(deployment, step="prefill", batch=batch, prompt=prompt)
    return Recommendation(verdict.bottleneck, verdict.reason, *_ranked(verdict, found), found, tuple(_notes(verdict, found)))


def _ranked(verdict: Verdict, found: Levers) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the levers that gain most and those that gain nothing; on a device that waits, what keeps it busy goes first."""
    first = _USUAL["underutilized"][0][:3] if verdict.bottleneck == "underutilized" else ()
    helping = [f"{row.name} ({max(row.gain, row.roofline_gain):.2f}×)" for row in found.rows if row.helps]
    idle = [row.name for row in found.rows if row.applicable and not row.helps and row.fits is not False]
    return (*first, *helping[:_MOST]), tuple(idle[:_MOST])


def _notes(verdict: Verdict, found: Levers) -> list[str]:
    bound = found.base.bound
    seen = _BOUND.get(verdict.bottleneck)
    if verdict.bottleneck == "underutilized":
        return ["the device waits, so gains of the floor show only once it is busy: look at the host, the batch and gaps between kernels"]
    if verdict.bottleneck == "balanced":
        return [_BALANCED]
    if seen is None:
        return [f"{_UNKNOWN}; the floor of this step is {bound}-bound"]
    if seen != bound:
        other = "other phases run as well, or another batch or context, or its kernels are far from their roof"
        return [f"the counters say {seen}, the floor of this step is {bound}-bound: {other}"]
    return []
