"""The sum of a step's kernels and overheads, for many steps at once and without result objects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from roofline.estimate.constants import GENERIC, Chosen, choose, generic_record, residual_quantile
from roofline.forward import Program
from roofline.hardware import Hardware
from roofline.kernels.stacks import Stack, stack_kernels
from roofline.records import CalibrationRecord, FittedConstant

Hook = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]
"""Takes a family's features and seconds, each n kernels × steps, and returns other seconds of that shape."""

_REMEMBERED = 32  # combinations of degrees, record and machine for each model
_COLUMNS = 8192  # steps timed at once: their features stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Overheads:
    """What a step takes outside kernels.

    Parameters
    ----------
    step : FittedConstant
        Sampling, synchronization and the host's turn between two steps [s].
    launch : FittedConstant
        What the host needs to launch one kernel [s].
    cuda_graph : bool
        Whether the host launches a step as a whole, so that `launch` does not count [-].
    borrowed : mapping of str to str
        Which of the two are another record's, and whose [-].
    """

    step: FittedConstant
    launch: FittedConstant
    cuda_graph: bool
    borrowed: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """The kernels of some steps, each with its time. Sums are arrays with one element for each step.

    Parameters
    ----------
    parts : tuple of (Stack, Chosen, numpy.ndarray)
        Kernels by family, their constants, and the time of each, n × steps [s].
    overheads : Overheads
        What a step takes besides [-].
    """

    parts: tuple[tuple[Stack, Chosen, np.ndarray], ...]
    overheads: Overheads

    @property
    def kernels_s(self) -> np.ndarray:
        """All kernels, one after another [s]."""
        return np.asarray(sum(seconds.sum(axis=0) for _, _, seconds in self.parts))

    @property
    def launches(self) -> np.ndarray:
        """How many kernels run: those that have rows [-]."""
        return np.asarray(sum((stack.counts * (seconds > 0)).sum(axis=0) for stack, _, seconds in self.parts)).astype(int)

    @property
    def overhead_s(self) -> Any:
        """The step's own time, and the host's where it launches more slowly than kernels run [s]."""
        if self.overheads.cuda_graph:
            return self.overheads.step.value
        return self.overheads.step.value + np.maximum(self.launches * self.overheads.launch.value - self.kernels_s, 0.0)

    def deviation(self, level: float) -> np.ndarray:
        """Return how far the time may lie from the expected one, at one level of probability [s].

        The kernels of one operator are all too slow or all too fast together. Those of different operators are independent where
        the machine was measured. Generic constants are all wrong in the same direction.
        """
        apart = [seconds * np.expm1(residual_quantile(chosen.quantiles, level))[:, None] for _, chosen, seconds in self.parts]
        every, generic = np.concatenate(apart), np.concatenate([chosen.generic for _, chosen, _ in self.parts])
        own, step = every[~generic], _spread(self.overheads.step, level)
        sign = 1.0 if level > 0.5 else -1.0
        return np.asarray(every[generic].sum(axis=0) + sign * np.sqrt((own**2).sum(axis=0) + step**2))


def _spread(constant: FittedConstant, level: float) -> float:
    """Return how far a constant may lie from its value at one level of probability, as far as its 80 % interval tells."""
    end = constant.high if level > 0.5 else constant.low
    return (end - constant.value) * abs(NormalDist().inv_cdf(level)) / NormalDist().inv_cdf(0.9)


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """Everything about the time of a deployment's steps that does not depend on the step.

    Parameters
    ----------
    kernels : tuple of (Stack, Chosen)
        Kernels by family, and their constants [-].
    overheads : Overheads
        What a step takes besides [-].
    hooks : mapping of str to callable
        What replaces a family's seconds [-].
    """

    kernels: tuple[tuple[Stack, Chosen], ...]
    overheads: Overheads
    hooks: Mapping[str, Hook]

    def times(self, values: np.ndarray) -> Timed:
        """Return the time of every kernel from the steps' aggregates, (1 + aggregates) × steps."""
        return Timed(tuple((stack, chosen, self._seconds(stack, chosen, values)) for stack, chosen in self.kernels), self.overheads)

    def _seconds(self, stack: Stack, chosen: Chosen, values: np.ndarray) -> np.ndarray:
        if values.shape[1] > _COLUMNS:
            blocks = [values[:, i : i + _COLUMNS] for i in range(0, values.shape[1], _COLUMNS)]
            return np.concatenate([self._seconds(stack, chosen, block) for block in blocks], axis=1)
        rows, *features = stack.coefficients @ values
        named = dict(zip(stack.names, features, strict=True))
        seconds: np.ndarray = stack.family.seconds(
            named, chosen.constants, peak_flops_per_s=chosen.peak_flops_per_s, bandwidth=chosen.bandwidth
        )
        hook = self.hooks.get(stack.family.name)
        if hook is not None:
            seconds = hook(named, seconds)
        together: np.ndarray = seconds * stack.counts * (rows > 0)
        return together


def timing_of(
    memo: dict[Any, Any],
    program: Program,
    record: CalibrationRecord,
    hardware: Hardware,
    *,
    cuda_graph: bool,
    hooks: Mapping[str, Hook] | None = None,
) -> Timing:
    """Return the timing of a compiled model; the last few are remembered in the model's memo, so that a second estimate does not look for constants."""
    memory: dict[Any, Any] = memo.setdefault("estimate", {})
    key = (id(program), id(record), id(hardware))
    remembered = memory.get(key)  # it holds what the key names, so that no id is given to another meanwhile
    if remembered is None:
        while len(memory) >= _REMEMBERED:
            memory.pop(next(iter(memory)), None)
        kernels = tuple((stack, choose(stack.family, stack.ops, record, hardware)) for stack in stack_kernels(program))
        remembered = memory[key] = (program, record, hardware, kernels, {True: _overheads(record, True), False: _overheads(record, False)})
    return Timing(remembered[3], remembered[4][cuda_graph], hooks or {})


def _overheads(record: CalibrationRecord, cuda_graph: bool) -> Overheads:
    own, generic = record.overheads, generic_record().overheads
    names = {"step": "step_s", "launch": "launch_s"}
    step, launch = (own.get(name) or generic[name] for name in names.values())
    return Overheads(step, launch, cuda_graph, {part: GENERIC for part, name in names.items() if name not in own})
