"""The critical batch, from which decode is compute-bound, and the context from which no batch is."""

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from roofline.arithmetic import Number, quotient
from roofline.batching.lines import FAR, MANY, Gap, refine, roof_lines, roof_times, search, whole_numbers
from roofline.deployment.deployment import Deployment, deploy
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.machine import Machine
from roofline.deployment.options import STEP, StepOptions, asks
from roofline.floors import decode_floor
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.results import Question, Result, show_notes, show_span, whole
from roofline.units import check_count


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class CriticalBatch(Result):
    """The smallest batch at which decode is compute-bound, and why there may be none. Numbers have the shape of `context`.

    Parameters
    ----------
    deployment : Deployment
        What decodes [-].
    tokens : int or numpy.ndarray
        Context of every sequence [token].
    batch : float or numpy.ndarray
        Where arithmetic takes as long as the longest other roof: infinite if it is always shorter, 0 if it is always longer [-].
    first_batch : int, float or numpy.ndarray
        The smallest whole batch from which decode is compute-bound; infinite if there is none [-].
    flops_per_sequence : float or numpy.ndarray
        FLOP that one more sequence adds [FLOP].
    bytes_per_sequence : float or numpy.ndarray
        Bytes that one more sequence adds, once all weights are read: its cache, its state, its embedding row [B].
    weights_only : float
        The critical batch without context, from weight bytes alone: I*·(bytes per weight)/2 [-].
    ridge : float or numpy.ndarray
        I*, for this mix of formats [FLOP/B].
    limit : str or numpy.ndarray of str
        The roof, other than compute, that one more sequence loads most: ``"memory"`` or ``"network"`` [-].
    closed_form : bool
        Whether `batch` has a closed form; with distinct experts, which are not linear in the batch, it is solved numerically [-].
    """

    deployment: Deployment
    tokens: Number
    batch: Number
    first_batch: Number
    flops_per_sequence: Number
    bytes_per_sequence: Number
    weights_only: float
    ridge: Number
    limit: Number
    closed_form: bool

    @property
    def model(self) -> Model:
        """The model."""
        return self.deployment.model

    @property
    def hardware(self) -> Hardware:
        """The machine."""
        return self.deployment.machine

    @property
    def exists(self) -> Number:
        """Whether a critical batch exists; an array for arrays [-]."""
        found = np.isfinite(self.batch)
        return found if found.ndim else bool(found)

    @property
    def intensity_limit(self) -> Number:
        """I∞, the limit of the intensity as the batch grows; infinite if sequences add no bytes [FLOP/B]."""
        return quotient(self.flops_per_sequence, self.bytes_per_sequence)

    @property
    def reason(self) -> str:
        """Why a critical batch exists or not, in words."""
        ridge, limit = show_span(self.ridge, "{:.4g}".format), show_span(self.intensity_limit, "{:.4g}".format)
        if np.all(self.exists):
            return f"intensity rises to {limit} FLOP/B as the batch grows, and the ridge is at {ridge} FLOP/B"
        if not np.all(np.isfinite(self.ridge)):
            return "no compute peak is known, so arithmetic never binds"
        some = "" if not np.any(self.exists) else " at some of these contexts"
        if np.any((np.asarray(self.limit) == "network") & ~np.asarray(self.exists)):
            return f"each further sequence takes at least as long on the links as in compute{some}"
        return f"intensity saturates at {limit} FLOP/B, not above the ridge at {ridge} FLOP/B{some}: every sequence brings its own cache"

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        return Question("critical_batch", deployment_inputs(self.deployment, STEP, context=self.tokens))

    def values(self) -> dict[str, Any]:
        """Return every number by name [SI]."""
        names = "batch first_batch flops_per_sequence bytes_per_sequence intensity_limit ridge weights_only closed_form"
        return {"context": whole(self.tokens)} | {name: getattr(self, name) for name in names.split()}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        return {
            "kind": "critical batch",
            "model": self.model.name,
            "hardware": self.hardware.id,
            "reason": self.reason,
            "notes": self.deployment.notes,
        }

    def summary(self) -> list[str]:
        """Return the short text [-]."""
        found = "none" if not np.any(self.exists) else show_span(self.first_batch, "{:.6g}".format)
        how = "closed form" if self.closed_form else "solved numerically: bytes (distinct experts) are not linear in the batch"
        return [
            f"critical batch of {self.model.name} on {self.hardware.name} at context {show_span(self.tokens, '{:.0f}'.format)}: {found}",
            f"  why: {self.reason}",
            f"  weights only: {self.weights_only:.5g}",
            f"  how: {how}",
            *show_notes(self.deployment.notes),
        ]

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


@asks(STEP)
def critical_batch(model: Any, hardware: Machine = None, *, context: Any = 0, **options: Unpack[StepOptions]) -> CriticalBatch:
    r"""Return the smallest batch at which decode is compute-bound: :math:`B^* = w / (a - k)`.

    Every sequence adds the time a under the compute roof and the time k under the memory roof (its cache bytes over W). The weights, less what
    the last-level cache may keep, take w once. If :math:`a \le k`, intensity stays below the ridge and no batch is compute-bound.

    Parameters
    ----------
    {model}
    context : int or array_like, optional
        Tokens of each sequence already in the cache [token].
    {options}

    Returns
    -------
    CriticalBatch
        Numbers of the shape of `context` [-].

    Notes
    -----
    The number of distinct experts that a mixture touches is not linear in the batch, so the critical batch is found by bisection.
    On several devices compute is compared with the slower of memory and network.

    Examples
    --------
    >>> rates = {"memory_bandwidth": 3.35e12, "peak_flops_per_s": 989.4e12}
    >>> round(critical_batch("70B", **rates).batch)
    295
    """
    deployment = deploy("critical_batch", STEP, model, hardware, options)
    context = check_count("context", context)
    lines = roof_lines(deployment, context)
    bare = lines if not np.any(context) else roof_lines(deployment, 0)
    crossing = lines.crossing

    def gap(batch: np.ndarray) -> np.ndarray:
        compute, memory, network = roof_times(decode_floor(deployment, batch=batch, context=context))
        return np.asarray(compute - np.maximum(memory, network))

    first = np.where(np.isfinite(crossing), crossing, 0.0)  # any finite start: the result is overwritten below
    if lines.linear:
        slack = 1 + 1e-8 * first
        first = search(gap, np.maximum(np.floor(first - slack), 0), np.floor(first + slack) + 1)
    else:
        first = _last_rise(gap, 2 * np.ceil(first) + 1, context)
        before, after = gap(np.maximum(first - 1, 1)), gap(first)
        between = np.where(first > 1, first - quotient(after, after - before), 0.0)
        crossing = np.where(np.isfinite(crossing), between, np.inf)
    first = np.where(np.isfinite(crossing), first, np.inf)
    h = deployment.machine.memory_bandwidth
    compute = lines.slope[0]
    ridge = quotient(lines.flops, compute * h)
    weights_only = float(np.ravel(quotient(bare.start[1] + decode_floor(deployment).surviving_bytes / h, np.ravel(bare.slope[0])[0]))[0])
    limit = np.where(lines.gap[0] <= lines.gap[1], "memory", "network")
    whole = int(first) if not first.ndim and np.isfinite(first) else first[()]
    return CriticalBatch(
        deployment,
        context,
        crossing[()],
        whole,
        lines.flops,
        lines.moved,
        weights_only,
        ridge,
        limit if limit.ndim else str(limit),
        lines.linear,
    )


@asks(STEP)
def context_without_compute(model: Any, hardware: Machine = None, **options: Unpack[StepOptions]) -> int | None:
    r"""Return the context from which no batch makes decode compute-bound: intensity stays at or below the ridge.

    Parameters
    ----------
    {model}
    {options}

    Returns
    -------
    int or None
        The smallest such context; 0 if decode is never compute-bound, None if a large batch is compute-bound at every context [token].

    Warns
    -----
    UserWarning
        If the machine's name stands for several devices, and no degree says that more than one is used.

    Notes
    -----
    With chunked or compressed attention the bytes of a sequence rise and fall with its context. The result is the context after the last
    one with a compute-bound batch.

    Examples
    --------
    >>> context_without_compute("llama-3-8b", memory_bandwidth=3.35e12, peak_flops_per_s=989.4e12)
    392
    >>> context_without_compute("70B", memory_bandwidth=3.35e12, peak_flops_per_s=989.4e12) is None
    True
    """
    deployment = deploy("context_without_compute", STEP, model, hardware, options)
    deployment.warn_of_one_device()

    def reachable(context: np.ndarray) -> np.ndarray:
        few, many = (roof_times(decode_floor(deployment, batch=b, context=context)) for b in (FAR, 2 * FAR))
        slope = np.broadcast_to(many - few, (3, *context.shape))
        return np.asarray(slope[0] > slope[1:].max(axis=0))

    window = np.arange(2**17, dtype=float)
    if reachable(MANY + window).any():
        return None
    grid = whole_numbers(0, 2**12, 64)
    points, reached = refine(grid, reachable(grid), reachable)
    first = int(points[np.flatnonzero(reached)[-1]]) + 1 if reached.any() else 0
    while (further := reachable(first + window)).any():  # chunked attention may be compute-bound again a little later
        first += int(np.flatnonzero(further)[-1]) + 1
    return first


def _last_rise(gap: Gap, high: np.ndarray, context: Any) -> np.ndarray:
    """Return the smallest batch from which the gap stays positive, for bytes concave in the batch; `high` must lie above it."""
    shares = np.linspace(0, 1, 512).reshape(-1, *(1,) * np.ndim(context))
    grid = np.floor(high**shares)
    below = gap(grid) <= 0
    last = len(grid) - 1 - np.argmax(below[::-1], axis=0)
    low = np.where(below.any(axis=0), np.take_along_axis(grid, last[None], axis=0)[0], 0)
    above = np.take_along_axis(grid, np.minimum(last + 1, len(grid) - 1)[None], axis=0)[0]
    return search(gap, low, np.where(below.any(axis=0), np.maximum(above, low + 1), 1))
