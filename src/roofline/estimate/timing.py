"""The sum of a step's kernels and overheads, for many steps at once and without result objects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from roofline.arithmetic import Number, maximum
from roofline.engines import Engine
from roofline.errors import InvalidValueError
from roofline.estimate.constants import STEPS, Chosen, Residuals, choose
from roofline.estimate.overheads import Overheads, engine_of, overheads_of, shared_within
from roofline.forward import Program
from roofline.frozen import FrozenDict, freeze
from roofline.hardware import Hardware
from roofline.kernels.stacks import Stack, stack_kernels
from roofline.model import Model
from roofline.model.feed_forward import SHARED
from roofline.records import CalibrationRecord, FittedConstant
from roofline.units import show_time

Hook = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]
"""Takes a family's features and seconds, each n kernels × steps, and returns other seconds of that shape."""

_SAME_SIGN = 0.4
"""How errors of generic constants correlate, of different kernels of one family on a machine that was left out of their fit [-]."""

_BLOCK = 2**14  # kernels times steps that are timed at once: their features stay in the processor's cache


class Timed:
    """The kernels of some steps, each with its time. Sums are numbers for one step, else arrays with one element for each step.

    Parameters
    ----------
    timing : Timing
        The kernels and overheads of the deployment [-].
    values : tuple
        The steps' aggregates, as the program orders them [-].
    shape : tuple of int
        Shape of the steps; () for one [-].
    """

    __slots__ = ("_parts", "_shape", "_sums", "_timing", "_values")

    def __init__(self, timing: "Timing", values: tuple[Number, ...], shape: tuple[int, ...]) -> None:
        self._timing, self._values, self._shape = timing, values, shape
        self._parts: Parts | None = None
        self._sums: tuple[Number, Number]
        if shape or timing.hooks:  # hooks take arrays
            kernels_s = np.asarray(sum(seconds.sum(axis=0) for _, _, seconds in self.parts))
            launches = np.asarray(sum((stack.counts * (seconds > 0)).sum(axis=0) for stack, _, seconds in self.parts)).astype(int)
            self._sums = freeze(kernels_s), freeze(launches)
        else:
            self._sums = timing.single.sums(values)

    @property
    def timing(self) -> "Timing":
        """The kernels and overheads of the deployment [-]."""
        return self._timing

    @property
    def overheads(self) -> Overheads:
        """What a step takes outside kernels [-]."""
        return self._timing.overheads

    @property
    def kernels_s(self) -> Number:
        """All kernels, one after another [s]."""
        return self._sums[0]

    @property
    def launches(self) -> Number:
        """How many kernels run: those that have rows [-]."""
        return self._sums[1]

    @property
    def parts(self) -> "Parts":
        """Kernels by family, their constants, and the time of each, n × steps [s]."""
        if self._parts is None:
            self._parts = self._timing.parts(self._columns())
        return self._parts

    @property
    def residuals(self) -> tuple[Residuals, ...]:
        """What estimates of the kernels leave, by family [-]."""
        columns = self._columns()
        return tuple(kernel_residuals(stack, chosen, columns) for stack, chosen in self._timing.kernels)

    def _columns(self) -> np.ndarray:
        return np.stack([np.broadcast_to(np.asarray(value, dtype=float), self._shape).ravel() for value in self._values])

    @property
    def overhead_s(self) -> Number:
        """The step's own time, and the host's where it launches more slowly than kernels run [s]."""
        own = self.overheads
        seconds: Number = own.step.value
        if own.sequence_s:
            seconds = seconds + own.sequence_s * self._amount("sequences")
        return seconds if own.cuda_graph and not own.layers_s else seconds + self.behind_s

    @property
    def behind_s(self) -> Number:
        """By what launching kernels, or layers of an eager step, takes longer than running them [s]."""
        own = self.overheads
        launching: Number = 0.0 if own.cuda_graph else self.launches * own.launch.value
        if own.layers_s:
            tokens = self._amount("tokens")
            # a step has prompts where nothing is sampled from some rows; a prompt of which all are sampled passes as a verification of drafts
            eager = (tokens > self._amount("sampled")) & (tokens > own.graph_tokens) if own.cuda_graph else tokens > 0
            launching = maximum(launching, own.layers_s * eager)
        return maximum(launching - self.kernels_s, 0.0)

    def _amount(self, name: str) -> Number:
        """Return one of the steps' aggregates, 0 if the program has none of that name."""
        place = self.overheads.places.get(name)
        if place is None:
            return 0
        value = self._values[place]
        return np.broadcast_to(np.asarray(value, dtype=float), self._shape).ravel() if self._shape else value

    def deviation(self, level: float) -> np.ndarray:
        """Return how far the time may lie from the expected one, at one level of probability [s].

        Kernels that are the same, those of all layers and those of several operators, are all too slow or all too fast together. Errors of
        different ones are independent where the machine was measured; those of generic constants have a part in common in each family.
        """
        parts = [same_kernels(*part, residuals) for part, residuals in zip(self.parts, self.residuals, strict=True)]
        return sum_deviation(parts, level, _spread(self.overheads.step, level))


def kernel_residuals(stack: Stack, chosen: Chosen, values: np.ndarray) -> Residuals:
    """Return what estimates of the kernels of a family leave, given the steps' aggregates, (1 + aggregates) × steps."""
    sized = stack.family.size is not None and np.isfinite(chosen.border).any()
    return chosen.residuals(stack.family, dict(zip(stack.names, stack.coefficients[1:] @ values, strict=True)) if sized else {})


def same_kernels(stack: Stack, chosen: Chosen, seconds: np.ndarray, residuals: Residuals) -> tuple[np.ndarray, Residuals, np.ndarray]:
    """Return the kernels of a family that differ: the seconds of each, all operators that launch it together, its residuals, and whether it is generic."""
    return stack.alike @ seconds, residuals.take(stack.first), chosen.generic[stack.first]


def sum_deviation(parts: Sequence[tuple[np.ndarray, Residuals, np.ndarray]], level: float, step: float = 0.0) -> np.ndarray:
    """Return how far a sum of kernels may lie from the expected one, at one level of probability [s].

    The parts are the seconds of different kernels × steps, their residuals, and whether their constants are generic.
    """
    variance = np.asarray(step**2)
    for seconds, residuals, generic in parts:
        each = seconds * np.expm1(residuals.at(level))
        together = np.where(generic, _SAME_SIGN, 0.0)[:, None]
        variance = variance + ((1 - together) * each**2).sum(axis=0) + (np.sqrt(together) * each).sum(axis=0) ** 2
    return np.asarray((1.0 if level > 0.5 else -1.0) * np.sqrt(variance))


def _spread(constant: FittedConstant, level: float) -> float:
    """Return how far a constant may lie from its value at one level of probability, as far as its 80 % interval tells."""
    end = constant.high if level > 0.5 else constant.low
    return (end - constant.value) * abs(NormalDist().inv_cdf(level)) / NormalDist().inv_cdf(0.9)


class Single:
    """The kernels of one step as Python numbers: numpy would take most of the time of the few numbers of a family.

    Parameters
    ----------
    kernels : tuple of (Stack, Chosen)
        Kernels by family, and their constants; alike ones are evaluated once [-].
    """

    __slots__ = ("_alike", "_matrix")

    def __init__(self, kernels: "Kernels") -> None:
        found: dict[Any, list[Any]] = {}
        rows: list[np.ndarray] = []
        for stack, chosen in kernels:
            for i, count in enumerate(stack.counts[:, 0].astype(int).tolist()):
                block = stack.coefficients[:, i]
                constants = {name: column[i, 0].item() for name, column in chosen.constants.items()}
                rates = chosen.peak_flops_per_s[i, 0].item(), chosen.bandwidth[i, 0].item()
                key = (stack.family.name, block.tobytes(), *constants.values(), *rates)
                if key in found:
                    found[key][-1] += count
                else:
                    found[key] = [sum(map(len, rows)), stack.names, stack.family.seconds, constants, *rates, count]
                    rows.append(block)
        self._matrix = np.concatenate(rows)
        self._alike = tuple(map(tuple, found.values()))

    def sums(self, values: tuple[Number, ...]) -> tuple[float, int]:
        """Return the time of all kernels of a step, one after another, and how many run: those that have rows [s]."""
        amounts = self._matrix.dot(np.array(values, dtype=float)).tolist()
        total, launches = 0.0, 0
        for at, names, form, constants, peak, bandwidth, count in self._alike:
            if amounts[at] > 0:
                features = dict(zip(names, amounts[at + 1 : at + 1 + len(names)], strict=True))
                total += count * form(features, constants, peak_flops_per_s=peak, bandwidth=bandwidth)
                launches += count
        return total, launches


Kernels = tuple[tuple[Stack, Chosen], ...]
Parts = tuple[tuple[Stack, Chosen, np.ndarray], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """Everything about the time of a deployment's steps that does not depend on the step."""

    kernels: Kernels  # kernels by family, and their constants
    single: Single  # the same for a single step
    overheads: Overheads  # what a step takes besides
    hooks: Mapping[str, Hook]  # what replaces a family's seconds
    shared_within: str = ""  # the engine that computes the shared expert in the kernel of the routed ones, if any does

    def borrowed(self, record: CalibrationRecord) -> tuple[str, ...]:
        """Return which constants are not those of the record's own classes, and whose they are instead."""
        own = self.overheads
        times = {"step": own.step.value} | ({} if own.cuda_graph else {"launch": own.launch.value})
        overheads = []
        for name, seconds in times.items():
            whose = own.borrowed.get(name, record.id)
            if own.engine and whose == own.engine.id:
                each = {name: seconds, "sequence": own.sequence_s}
                said = " and ".join(f"{show_time(value)} of overhead per {what}" for what, value in each.items() if value)
                before = f" before {own.engine.host.before}" if own.engine.host.before else ""
                overheads += [f"{said} are of the profile of {own.engine.name}{before}"] if said else []
            elif whose != record.id:
                overheads.append(f"{show_time(seconds)} of overhead per {name} is the {whose} record's")
        return (*self.stand_ins, *overheads)

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """Which constants of kernels are not those of the record's own classes."""
        return tuple(dict.fromkeys(note for _, chosen in self.kernels for note in chosen.notes))

    @property
    def fused(self) -> tuple[str, ...]:
        """Which operators an engine computes in the kernels of others."""
        return (f"{self.shared_within} computes the shared expert in the kernel of the routed ones",) if self.shared_within else ()

    def parts(self, values: np.ndarray) -> Parts:
        """Return the time of every kernel from the steps' aggregates, (1 + aggregates) × steps."""
        return tuple((stack, chosen, freeze(self._seconds(stack, chosen, values))) for stack, chosen in self.kernels)

    def _seconds(self, stack: Stack, chosen: Chosen, values: np.ndarray) -> np.ndarray:
        columns = max(1, _BLOCK // len(stack.ops))
        if values.shape[1] > columns:
            blocks = [values[:, i : i + columns] for i in range(0, values.shape[1], columns)]
            return np.concatenate([self._seconds(stack, chosen, block) for block in blocks], axis=1)
        rows, *features = stack.coefficients @ values
        named = dict(zip(stack.names, features, strict=True))
        seconds: np.ndarray = stack.family.seconds(
            named, chosen.constants, peak_flops_per_s=chosen.peak_flops_per_s, bandwidth=chosen.bandwidth
        )
        hook = self.hooks.get(stack.family.name)
        if hook is not None:
            replaced = hook(named, seconds)
            if not isinstance(replaced, np.ndarray) or replaced.shape != seconds.shape:
                got = f"an array of shape {np.shape(replaced)}" if isinstance(replaced, np.ndarray) else repr(replaced)
                raise InvalidValueError(
                    f"what replaces {stack.family.name} returned {got}; it must return seconds of shape {seconds.shape}, kernels × steps."
                )
            seconds = replaced
        together: np.ndarray = seconds * stack.counts * (rows > 0)
        return together


def timing_of(
    model: Model,
    program: Program,
    record: CalibrationRecord,
    hardware: Hardware,
    *,
    cuda_graph: bool,
    steps: frozenset[str] = STEPS,
    hooks: Mapping[str, Hook] | None = None,
    graph_tokens: int | None = None,
    profile: Engine | None = None,
) -> Timing:
    """Return the timing of a compiled model in some kinds of step; the last few are remembered in the model's memo, so that a second estimate does not look for constants."""
    engine = engine_of(record, profile)
    within = shared_within(engine, model)
    key = ("estimate", id(program), id(record), id(hardware), steps, within)
    remembered = model.memo.find(key)  # it holds what the key names, so that no id is given to another meanwhile
    if remembered is None:
        static = bool(model.static_scales)
        stacks = stack_kernels(program, shared_within=within)
        kernels = tuple((stack, choose(stack.family, stack.ops, record, hardware, steps=steps, static=static)) for stack in stacks)
        single = Single(kernels)
        apart = any(SHARED in op.name for stack in stacks for op in stack.ops)
        by = engine.name if engine is not None and within and not apart else ""
        timings = {
            graph: Timing(kernels, single, overheads_of(record, model, program, cuda_graph=graph), FrozenDict(), by)
            for graph in (True, False)
        }
        remembered = model.memo.keep(key, (timings, program, record, hardware))
    timing: Timing = remembered[0][cuda_graph]
    if profile is not None:
        timing = replace(timing, overheads=overheads_of(record, model, program, cuda_graph=cuda_graph, profile=profile))
    if graph_tokens is not None:
        timing = replace(timing, overheads=replace(timing.overheads, graph_tokens=graph_tokens))
    return replace(timing, hooks=FrozenDict(hooks)) if hooks else timing
