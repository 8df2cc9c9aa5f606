"""The kernels of steps by what their time depends on: a step's tokens, the rows sampled, the tokens of all ranks, or the contexts too."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import compress
from typing import Literal

import numpy as np

from roofline.arithmetic import Number
from roofline.bounds import compute_time, memory_time, network_time, roofline_times, surviving_bytes
from roofline.estimate.constants import Chosen
from roofline.estimate.timing import Timed, Timing
from roofline.forward import Work
from roofline.kernels.stacks import Stack
from roofline.step import Aggregate, Visibility
from roofline.step.grouped import GroupedSteps
from roofline.step_time import StepTime

Part = Literal["tokens", "sampled", "all ranks", "contexts"]
PARTS: tuple[Part, ...] = ("tokens", "sampled", "all ranks", "contexts")

_ROUTED = {"gathered tokens", "distinct experts"}
_SAMPLED = {"sampled", "any sampled", "drafting sequences"}


class StepParts:
    """Seconds of steps, part by part: their sum is the time of a step's kernels, or of each roof of a floor.

    Parameters
    ----------
    time : StepTime
        What gives the times [-].

    Attributes
    ----------
    spans : numpy.ndarray
        Contexts from which on some layers see no more of them: windows and selections, the new token left out [token].
    chunk : int
        The longest chunk of chunked attention, 0 if there is none [token].
    """

    def __init__(self, time: StepTime) -> None:
        self.time, self.program, self.machine = time, time.deployment.program, time.deployment.machine
        self.ranks = time.deployment.parallel.data
        aggregates = self.program.aggregates
        seen = [v for aggregate in aggregates for v in aggregate.arguments if isinstance(v, Visibility)]
        self.chunk = max((v.span for v in seen if v.kind == "chunk"), default=0)
        self.spans = np.array(sorted({v.span - 1.0 for v in seen if v.kind in ("window", "selected") and v.span > 1}))
        self._part_of = [self._part([aggregate]) for aggregate in aggregates]
        self._ops = [
            self._part(symbol for form in op.amounts().values() for symbol in getattr(form, "terms", ()) if isinstance(symbol, Aggregate))
            for op in self.program.ops
        ]
        self._kernels = {} if time.timing is None else {part: [*self._kernels_of(part, time.timing)] for part in PARTS}

    def _kernels_of(self, part: Part, timing: Timing) -> Iterator[tuple[Stack, Chosen, np.ndarray]]:
        """Yield the kernels of a part by family, and which of them count: all, but where a caller's function takes the whole family."""
        aggregates = self.program.aggregates
        for stack, chosen in timing.kernels:
            used = np.any(stack.coefficients[:, :, 1:] != 0, axis=0).tolist()
            mask = np.array([self._part(compress(aggregates, row)) == part for row in used])
            if not mask.any():
                continue
            if stack.family.name in timing.hooks:
                yield stack, chosen, mask
                continue
            columns = {"peak_flops_per_s": chosen.peak_flops_per_s[mask], "bandwidth": chosen.bandwidth[mask]}
            constants = {name: column[mask] for name, column in chosen.constants.items()}
            few = replace(stack, ops=tuple(compress(stack.ops, mask)), counts=stack.counts[mask], coefficients=stack.coefficients[:, mask])
            yield few, replace(chosen, constants=constants, **columns), np.ones(len(few.ops), dtype=bool)

    def _part(self, aggregates: Iterable[Aggregate]) -> Part:
        """Return what an amount depends on that is linear in some aggregates."""
        names = {aggregate.name for aggregate in aggregates}
        if names <= ({"tokens"} if self.ranks > 1 else {"tokens", *_ROUTED}):
            return "tokens"
        if names <= _SAMPLED:
            return "sampled"
        return "all ranks" if names <= {"tokens", *_ROUTED} else "contexts"

    def seconds(self, part: Part, steps: GroupedSteps) -> np.ndarray:
        """Return what a part takes, roofs × steps: one roof, but several of a floor [s]."""
        values = self.program.rank_values(steps)
        shape = steps.shape
        if self.time.timing is not None:
            columns = np.stack([np.broadcast_to(np.asarray(value, dtype=float), shape).ravel() for value in values])
            kernels = self._kernels[part]
            parts = replace(self.time.timing, kernels=tuple((stack, chosen) for stack, chosen, _ in kernels)).parts(columns)
            total = sum((seconds[mask].sum(axis=0) for (*_, seconds), (*_, mask) in zip(parts, kernels, strict=True)), np.zeros(1))
            return np.broadcast_to(total, columns.shape[1:]).reshape((1, *shape))
        if self.time.basis == "roofline":
            rows = roofline_times(Work(self.program, steps, values), self.machine)
            found = [row.time_s for row, of in zip(rows, self._ops, strict=True) if of == part]
            return np.broadcast_to(np.asarray(sum(found)), shape)[None]
        own = (1 if part == "tokens" else 0, *(v if of == part else 0 for v, of in zip(values[1:], self._part_of, strict=True)))
        return np.stack([np.broadcast_to(np.asarray(roof), shape) for roof in self._roofs(part, Work(self.program, steps, own))])

    def _roofs(self, part: Part, work: Work) -> tuple[Number, ...]:
        """Return the share of a part in each roof of a floor: arithmetic and memory, and among devices links, network cards and latency."""
        machine, total = self.machine, work.total
        compute = compute_time(work.flops_by_operand.items(), machine)
        saved = surviving_bytes(work, machine)
        if part != "tokens":
            saved = saved - machine.last_level_cache * self.program.parallel.pipeline  # once is enough
        memory = memory_time(work.compulsory_bytes - saved, bandwidth=machine.memory_bandwidth)
        if self.program.parallel.devices == 1:
            return compute, memory
        link, nic = network_time(total("link_bytes"), 0, machine), network_time(0, total("nic_bytes"), machine)
        return compute, memory, link, nic, network_time(0, 0, machine, hops=total("hops"))

    def deviation(self, steps: GroupedSteps) -> np.ndarray:
        """Return by how much the quantile asked for lies above the time to expect [s]."""
        if self.time.quantile is None or self.time.timing is None:
            return np.zeros(steps.shape)
        return Timed(self.time.timing, self.program.rank_values(steps), steps.shape).deviation(self.time.quantile).reshape(steps.shape)
