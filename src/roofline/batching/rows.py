"""Spare arithmetic of a memory-bound decode step, in rows: drafts of speculative decoding, tokens of a chunked prefill."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from roofline.arithmetic import Number
from roofline.batching.lines import FAR, search
from roofline.deployment.deployment import deploy
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.machine import Machine
from roofline.deployment.options import STEP, StepOptions, asks
from roofline.floors import Floor, decode_floor, step_floor
from roofline.results import Question, Result, show_notes, show_span, whole
from roofline.step import Step
from roofline.units import show_time


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class FreeRows(Result):
    """Rows that a decode step can add before arithmetic makes it longer. Numbers have the shape of batch and context.

    Parameters
    ----------
    floor : Floor
        The decode step without them [-].
    batch, tokens : int or numpy.ndarray
        Sequences, and context of each [-], [token].
    drafts : int, float or numpy.ndarray
        Draft tokens per sequence that a verification can add for free; infinite if no compute peak is known [token].
    chunk : int, float or numpy.ndarray
        Prefill tokens of one further sequence, its first chunk, that are free; infinite if no compute peak is known [token].
    verify_s, chunk_s : float or numpy.ndarray
        Floor of the step with that many drafts, and with that chunk; NaN where these are infinite [s].
    """

    floor: Floor
    batch: Number
    tokens: Number
    drafts: Number
    chunk: Number
    verify_s: Number
    chunk_s: Number

    @property
    def time_s(self) -> Number:
        """Floor of the decode step alone [s]."""
        return self.floor.time_s

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        return Question("free_rows", deployment_inputs(self.floor.deployment, STEP, batch=self.batch, context=self.tokens))

    def values(self) -> dict[str, Any]:
        """Return every number by name [SI]."""
        names = "drafts chunk time_s verify_s chunk_s"
        return {"batch": whole(self.batch), "context": whole(self.tokens)} | {name: getattr(self, name) for name in names.split()}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        note = "free: the arithmetic of all rows fits into the time of the decode step alone; the bytes of the added rows may still lengthen it"
        return self.floor.context() | {"kind": "free rows", "assumptions": (note, *self.floor.assumptions)}

    def summary(self) -> list[str]:
        """Return the short text [-]."""
        return [
            f"free rows of {self.floor.model.name} on {self.floor.hardware.name}: {show_span(self.drafts, '{:.0f}'.format)} drafts per sequence,"
            f" or a prefill chunk of {show_span(self.chunk, '{:.0f}'.format)} tokens",
            f"  time: {show_span(self.time_s, show_time)} without, {show_span(self.verify_s, show_time)} with the drafts,"
            f" {show_span(self.chunk_s, show_time)} with the chunk",
            *show_notes(self.floor.deployment.notes),
        ]

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


@asks(STEP)
def free_rows(model: Any, hardware: Machine = None, *, batch: Any = 1, context: Any = 0, **options: Unpack[StepOptions]) -> FreeRows:
    """Return how many rows a memory-bound decode step can add for free: drafts to verify, or prefill tokens.

    A row is free while the arithmetic of all rows fits into the floor of the decode step alone. The bytes of the row (embedding, cache, experts
    that no other row touches) may still lengthen the step: compare the times.

    Parameters
    ----------
    {model}
    batch : int or array_like, optional
        Sequences that decode [-].
    context : int or array_like, optional
        Tokens of each already in the cache [token].
    {options}

    Returns
    -------
    FreeRows
        Numbers of the shape that `batch` and `context` broadcast to [-].

    Examples
    --------
    >>> rates = {"memory_bandwidth": 3.35e12, "peak_flops_per_s": 989.4e12}
    >>> rows = free_rows("70B", batch=8, **rates)
    >>> rows.drafts, rows.chunk
    (35, 287)
    """
    deployment = deploy("free_rows", STEP, model, hardware, options)
    plain = decode_floor(deployment, batch=batch, context=context)
    decode = plain.work.step
    (group,) = decode.groups

    def with_drafts(rows: Any) -> Step:
        return Step.verify(rows, batch=group.count, context=group.cached)

    def with_chunk(rows: Any) -> Step:
        return decode + Step.chunk(np.maximum(rows, 1))

    def most(build: Callable[[Any], Step]) -> tuple[Number, Number]:
        def over(rows: np.ndarray) -> np.ndarray:
            return np.asarray(step_floor(deployment, build(rows)).compute_s - plain.time_s * (1 + 1e-12))

        limit = np.full(decode.shape, float(FAR))
        endless = over(limit) <= 0
        rows = search(over, np.zeros(decode.shape), limit) - 1
        time = np.where(rows > 0, step_floor(deployment, build(np.asarray(rows))).time_s, plain.time_s)
        found = np.where(endless, np.inf, rows)
        return (found if found.ndim or endless else int(found)), np.where(endless, np.nan, time)[()]

    (drafts, verify_s), (chunk, chunk_s) = most(with_drafts), most(with_chunk)
    return FreeRows(plain, group.count, group.cached, drafts, chunk, verify_s, chunk_s)
