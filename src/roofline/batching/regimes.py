"""The regimes that decode passes through as the batch grows."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack

import numpy as np

from roofline.batching.critical import CriticalBatch, critical_batch
from roofline.batching.lines import refine, whole_numbers
from roofline.batching.rows import FreeRows, free_rows
from roofline.calls import checks_methods
from roofline.deployment.deployment import deploy
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.machine import Machine
from roofline.deployment.options import STEP, StepOptions, asks
from roofline.errors import InvalidValueError
from roofline.floors import Floor, decode_floor
from roofline.results import Question, Result, Told, show_ceilings, show_notes, whole
from roofline.units import check_count, show_time


@checks_methods
class Regime(NamedTuple):
    """A range of batches over which the same roof binds.

    Parameters
    ----------
    bound : str
        ``"memory"``, ``"compute"``, ``"network"`` or ``"capacity"`` [-].
    first_batch : int
        The first batch of the range [-].
    last_batch : int or None
        The last; None if the range does not end [-].
    """

    bound: str
    first_batch: int
    last_batch: int | None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Journey(Result):
    """What binds decode as the batch grows.

    Parameters
    ----------
    floor : Floor
        The decode floor at every batch of the curves [-].
    batch : numpy.ndarray
        The batches of the curves [-].
    tokens : int
        Context of every sequence [token].
    regimes : tuple of Regime
        Which roof binds over which batches, in order [-].
    critical : CriticalBatch
        The smallest batch at which decode is compute-bound, even if it does not fit [-].
    free : FreeRows
        Rows of drafts or prefill chunks that each batch has spare arithmetic for [token].
    """

    floor: Floor
    batch: np.ndarray
    tokens: int
    regimes: tuple[Regime, ...]
    critical: CriticalBatch
    free: FreeRows

    @property
    def max_batch(self) -> int | None:
        """The largest batch that fits; None if the capacity is unknown or sequences take no memory [-]."""
        last = self.regimes[-1]
        return last.first_batch - 1 if last.bound == "capacity" else None

    @property
    def time_s(self) -> np.ndarray:
        """The floor at every batch [s]."""
        return np.asarray(self.floor.time_s)

    @property
    def intensity(self) -> np.ndarray:
        """FLOP per compulsory byte at every batch [FLOP/B]."""
        return np.asarray(self.floor.intensity)

    @property
    def bound(self) -> np.ndarray:
        """What binds at every batch [-]."""
        return np.asarray(self.floor.bound)

    def question(self) -> Question:
        """Return the question that this answers; a table has one row for each of its `batches`, in the column ``batch`` [-]."""
        asked = deployment_inputs(self.floor.deployment, STEP, context=self.tokens, batches=Told(None, self.batch))
        return Question("journey", asked)

    def values(self) -> dict[str, Any]:
        """Return the curves by name [SI]."""
        names = "time_s intensity ridge bound fits tokens_per_s resident_bytes"
        curves = {"batch": whole(self.batch), "context": self.tokens} | {name: getattr(self.floor, name) for name in names.split()}
        return curves | {"free_drafts": self.free.drafts, "free_chunk": self.free.chunk}

    def context(self) -> dict[str, Any]:
        """Return the regimes, their borders and the assumptions [-]."""
        return self.floor.context() | {
            "kind": "batch journey",
            "regimes": [regime._asdict() for regime in self.regimes],
            "critical_batch": self.critical.first_batch,
            "critical_batch_reason": self.critical.reason,
            "max_batch": self.max_batch,
        }

    def summary(self) -> list[str]:
        """Return the journey in words [-]."""
        f, critical = self.floor, self.critical
        route = " → ".join(dict.fromkeys(regime.bound for regime in self.regimes))
        lines = [f"batch journey of {f.model.name} on {f.hardware.name} at context {self.tokens}: {route}"]
        for bound, first, last in self.regimes:
            end = "and above" if last is None else f"to {last}" if last > first else "only"
            words = {
                "memory": "memory traffic takes longest; one more sequence costs little",
                "compute": "arithmetic takes longest; one more sequence costs its full share",
                "network": "the links take longest",
                "capacity": "weights and cache do not fit",
            }[bound]
            lines.append(f"  {bound}: batch {first} {end}: {words}")
        seen = "" if self._reached else " (does not fit)"
        found = f"{critical.first_batch}{seen}" if critical.exists else "none"
        lines.append(f"  critical batch: {found} (weights only {critical.weights_only:.4g}); {critical.reason}")
        at = int(np.argmin(np.where(self.batch >= 1, self.batch, np.inf)))
        drafts, chunk = np.ravel(self.free.drafts)[at], np.ravel(self.free.chunk)[at]
        plain, verify, with_chunk = (show_time(float(np.ravel(t)[at])) for t in (self.free.time_s, self.free.verify_s, self.free.chunk_s))
        if np.isfinite(drafts):
            lines.append(
                f"  free arithmetic at batch {self.batch[at]:.0f} ({plain} alone): {drafts:.0f} drafts per sequence ({verify} with them)"
                f" or {chunk:.0f} prefill tokens ({with_chunk}) in the same step"
            )
        lines.append(f"  ceilings: {show_ceilings(f.ceilings)}")
        return [*lines, *show_notes(f.deployment.notes)]

    @property
    def _reached(self) -> bool:
        return self.max_batch is None or bool(self.critical.first_batch <= self.max_batch)

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


@asks(STEP)
def journey(model: Any, hardware: Machine = None, *, context: int = 0, batches: Any = None, **options: Unpack[StepOptions]) -> Journey:
    """Return what binds decode as the batch grows: the regimes with their borders, and the curves.

    Parameters
    ----------
    {model}
    context : int, optional
        Tokens of every sequence already in the cache [token].
    batches : array_like, optional
        The batches of the curves; default: evenly on a logarithmic axis from 1 to beyond the last border [-].
    {options}

    Returns
    -------
    Journey
        Regimes, critical batch, largest batch that fits, free rows, and curves of the shape of `batches` [-].

    Raises
    ------
    InvalidValueError
        If `context` is not one whole number, or `batches` are not whole numbers of at least 1.

    Notes
    -----
    Borders are exact. Every batch up to 16,384 is evaluated; beyond it a regime narrower than 0.2 % of its batch could be missed. If the
    last-level cache holds the weights, a compute-bound regime can precede the memory-bound one.

    Examples
    --------
    >>> [tuple(regime) for regime in journey("llama-3-8b", "h100-sxm", context=128).regimes]
    [('memory', 1, 493), ('compute', 494, 4108), ('capacity', 4109, None)]
    """
    deployment = deploy("journey", STEP, model, hardware, options)
    context = check_count("context", context)
    if np.ndim(context):
        raise InvalidValueError(f"context has shape {np.shape(context)}; a journey has one context: call journey once per context.")

    def bound(batch: np.ndarray) -> np.ndarray:
        return np.asarray(decode_floor(deployment, batch=batch, context=context).bound)

    grid = whole_numbers(1, 2**14, 512)
    points, bounds = refine(grid, bound(grid).astype("<U8"), bound)
    starts = np.concatenate([[0], np.flatnonzero(bounds[1:] != bounds[:-1]) + 1])
    firsts = [int(points[start]) for start in starts]
    regimes = tuple(
        Regime(str(bounds[start]), first, following)
        for start, first, following in zip(starts, firsts, [*(f - 1 for f in firsts[1:]), None], strict=True)
    )
    if batches is None:
        batches = np.unique(np.round(np.geomspace(1, max(2 * firsts[-1], 512), 129)).astype(int))
    batch = np.atleast_1d(check_count("batches", batches, minimum=1)).astype(float)
    if batch.ndim > 1:
        raise InvalidValueError(f"batches has shape {batch.shape}; the curves of a journey are over batches in one dimension.")
    floor = decode_floor(deployment, batch=batch, context=context)
    free = free_rows(deployment, batch=batch, context=context)
    return Journey(floor, batch, context, regimes, critical_batch(deployment, context=context), free)
