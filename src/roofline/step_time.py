"""The time of many steps of one deployment, as a simulator or a planner asks for it: raw arrays in, seconds out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from roofline.arithmetic import Number, maximum
from roofline.bounds import floor_roofs, roofline_times
from roofline.calls import checks_methods
from roofline.deployment import Deployment
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.options import ALL
from roofline.deployment.spelling import checks_keywords
from roofline.engines import Engine
from roofline.errors import InvalidValueError, quoted
from roofline.estimate.constants import (
    describe_record,
    find_record,
    generic_mark,
    record_input,
    record_notes,
    record_of_engine,
    whose_constants,
)
from roofline.estimate.timing import Hook, Timed, Timing, timing_of
from roofline.forward import Work
from roofline.frozen import Frozen, FrozenDict
from roofline.kernels import FAMILIES
from roofline.names import unknown_name
from roofline.records import CalibrationRecord
from roofline.results import Question, Result, show_notes, show_span
from roofline.step import Sequences, Step
from roofline.step.beyond import STEP, amounts_of, beyond_s
from roofline.step.grouped import GroupedSteps
from roofline.step.step import lone_step
from roofline.units import check_broadcast, check_count, check_flag, check_points, check_unmasked, is_masked, show_time, whole_number

__all__ = ["StepTable", "StepTime"]

_PLAIN = (int, float)
_MOST = 1e100  # what is larger can only be a mistake
_BASES = ("floor", "roofline", "estimate")


@checks_methods
class StepTime(Frozen):
    r"""Seconds of many steps of one deployment, without result objects and without checks of every call.

    Parameters
    ----------
    deployment : Deployment
        What runs the steps [-].
    basis : {"estimate", "roofline", "floor"}, optional
        Which time: the one to expect, operators one after another at their roofs, or the floor [-].
    quantile : float, optional
        Of an estimate, the level of probability whose time is given, 0.01 … 0.99; the time to expect if not given [-].
    calibration : CalibrationRecord, str or Path, optional
        What an estimate rests on, as in :func:`roofline.step_estimate` [-].
    cuda_graph : bool, optional
        Whether an estimate's kernels are launched as one graph [-].
    replace : mapping of str to callable, optional
        Other seconds for a family of kernels, by its name in ``roofline.kernels.FAMILIES``: a function of the family's features and
        seconds, each n kernels × steps, that returns seconds of that shape. It has to be a module's function for `StepTime` to be
        pickled [-].
    graph_tokens : int, optional
        Most tokens of a step with prompts whose layers the engine's host launches as a graph; what the profile of the record's engine says if not given [token].
    engine : Engine, optional
        A profile of one's own, whose host times an estimate takes if its record was measured with that engine: without `calibration` it is, where
        the machine has such a record. The shipped profile if not given [-].
    beyond : mapping of str to float, optional
        Constants of an engine that steps take beyond these times, none of them negative: ``step_s`` for each step, ``sequence_s`` for each
        sequence, ``context_s`` for each token in the cache of those that decode, ``token_s`` for each token of prompts, ``pair_s`` for each
        pair of such a token and a position that it sees; :func:`roofline.serving.fit_service` finds them [-].

    Raises
    ------
    RooflineError
        If the basis, a family or a constant is not known, the deployment has no machine, or there is no calibration.

    Notes
    -----
    Arrays of steps may hold fractions: counts of at least 0, at least one new token, nothing negative or infinite. A group of sequences with
    count 0 costs nothing, and a step without sequences takes 0 s, so that steps with different numbers of groups go into one array.

    With data-parallel attention each rank has a batch of its own. ``ranks=True`` takes them apart: the step takes as long as the slowest
    rank, whose experts serve the tokens of all ranks. Otherwise sequences are dealt out evenly, as in floors.

    Constants beyond the times take a sequence for one that decodes if all its new tokens are `sampled`, as one or a verified draft is.
    Of several ranks, the one to which they add most counts.

    Examples
    --------
    Two steps: 8 decodes at a context of 1000 with a prefill of 512 tokens beside them, and the decodes alone.

    >>> time = StepTime(Deployment("llama-3-8b", "h100-sxm"))
    >>> mixed, alone = time([[8, 1], [8, 0]], [[1, 512], [1, 1]], [[1000, 0], [1000, 0]])
    >>> bool(mixed > alone), round(float(alone / time.decode(8, 8 * 1000)), 9)
    (True, 1.0)
    """

    __slots__ = ("_arguments", "basis", "beyond", "deployment", "quantile", "timing")

    @checks_keywords
    def __init__(
        self,
        deployment: Deployment,
        basis: Literal["estimate", "roofline", "floor"] = "estimate",
        *,
        quantile: float | None = None,
        calibration: CalibrationRecord | str | Path | None = None,
        cuda_graph: bool = True,
        replace: Mapping[str, Hook] | None = None,
        graph_tokens: int | None = None,
        engine: Engine | None = None,
        beyond: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(deployment, Deployment):
            raise InvalidValueError(f"a StepTime is of a Deployment, not of {quoted(deployment)}: Deployment(model, hardware, ...).")
        if not isinstance(basis, str) or basis not in _BASES:
            raise InvalidValueError(f"basis is {quoted(basis)}; it must be one of {', '.join(_BASES)}.")
        if not isinstance(replace, Mapping | None):
            raise InvalidValueError(f"replace is {quoted(replace)}; it is a mapping of families of kernels to functions.")
        for family, function in (replace or {}).items():
            if family not in FAMILIES:
                raise unknown_name("family of kernels", str(family), FAMILIES)
            if not callable(function):
                raise InvalidValueError(f"replace[{quoted(family)}] is {quoted(function)}; it is a function of features and seconds.")
        given = {"quantile": quantile, "calibration": calibration, "replace": replace, "graph_tokens": graph_tokens, "engine": engine}
        unused = [name for name, value in given.items() if value is not None]
        if basis != "estimate" and unused:
            raise InvalidValueError(f"{', '.join(unused)} cannot be given with basis {basis!r}: only an estimate has them.")
        if not isinstance(engine, Engine | None):
            raise InvalidValueError(f"engine is {quoted(engine)}; it is a profile of one's own, such as load_engine('vllm').but(host=...).")
        if quantile is not None and (not isinstance(quantile, (float, np.floating)) or not 0.01 <= quantile <= 0.99):
            raise InvalidValueError(f"quantile is {quoted(quantile)}; it is a probability in 0.01 … 0.99, such as 0.9.")
        cuda_graph, constants = check_flag("cuda_graph", cuda_graph), _constants(beyond)
        if graph_tokens is not None:
            given["graph_tokens"] = graph_tokens = whole_number("graph_tokens", graph_tokens)
            if not cuda_graph:
                raise InvalidValueError(f"graph_tokens is {graph_tokens:,}, but with cuda_graph=False no step runs from a graph.")
        machine = deployment.machine
        timing: Timing | None = None
        if basis == "estimate":
            if deployment.model.is_anonymous:
                raise InvalidValueError(f"{deployment.model.name}: a number of parameters has a floor, but no kernels to be timed.")
            if calibration is None and engine is not None:
                given["calibration"] = calibration = record_of_engine(machine, engine.id)
            record = find_record(calibration, machine)
            how: dict[str, Any] = {"cuda_graph": cuda_graph, "hooks": dict(replace or {}), "graph_tokens": graph_tokens, "profile": engine}
            timing = timing_of(deployment.model, deployment.program, record, machine, **how)
        arguments = {**given, "cuda_graph": cuda_graph, "beyond": constants}
        for name, value in zip(self.__slots__, (arguments, basis, constants, deployment, quantile, timing), strict=True):
            object.__setattr__(self, name, value)

    # set by __init__, once
    deployment: Deployment
    basis: Literal["estimate", "roofline", "floor"]
    beyond: Mapping[str, float]  # constants that are not zero
    quantile: float | None
    _arguments: dict[str, Any]
    timing: Timing | None  # kernels and host times of an estimate; None for another basis

    def __call__(self, count: Any, new: Any, cached: Any, *, sampled: Any = 1, ranks: bool = False) -> np.ndarray:
        """Return the time of each step of groups of alike sequences.

        Parameters
        ----------
        count : array_like
            Sequences in each group, steps × groups; with `ranks`, steps × ranks × groups [-].
        new, cached : array_like
            Tokens of each sequence to process, and already in the cache; broadcast with `count` [token].
        sampled : array_like, optional
            Rows of each sequence that reach the LM head: 0 for a chunk that does not end its prompt [-].
        ranks : bool, optional
            Whether the axis before the last tells the data-parallel ranks apart [-].

        Returns
        -------
        numpy.ndarray
            One time for each step [s].
        """
        one = None if check_flag("ranks", ranks) else one_step(count, new, cached, sampled)
        if one is not None:
            groups, leading = one
            return np.full(leading, self._whole(Step(groups)) if groups else 0.0)
        count, new, cached, sampled = (
            _amounts(name, value) for name, value in (("count", count), ("new", new), ("cached", cached), ("sampled", sampled))
        )
        check_broadcast(count=count, new=new, cached=cached, sampled=sampled)
        if new.size and new.min() < 1 and np.any((new < 1) & (count > 0)):
            raise InvalidValueError(f"new contains {new.min():g}; a sequence of a step has at least one new token.")
        step, data = GroupedSteps.rows(count, new, cached, sampled), self.deployment.parallel.data
        shape = step.groups[0].count.shape
        if len(shape) < 1 + ranks:
            raise InvalidValueError(f"count, new and cached have shape {shape}; their last axis is that of the groups of a step.")
        if ranks and shape[-2] != data:
            raise InvalidValueError(f"there are {shape[-2]} ranks in the arrays, but data_parallel is {data}.")
        program = self.deployment.program
        if ranks:
            step = GroupedSteps(step.groups, GroupedSteps.rows(*(_of_all_ranks(field, shape) for field in step.groups[0])))
        values = program.rank_values(step) if ranks else program.values(step)
        busy = step.tokens > 0
        seconds = self._of(step, values) * busy
        if ranks:
            seconds, busy = seconds.max(axis=-1), busy.any(axis=-1)
        return np.asarray(seconds + self._added(step, ranks=ranks) * busy)

    def decode(self, batch: Any, total_context: Any) -> np.ndarray:
        """Return the time of decode steps of which only the sum of all contexts is known.

        Parameters
        ----------
        batch : array_like
            Sequences of each step [-].
        total_context : array_like
            Tokens in the cache of all sequences of a step together, not of each as in :meth:`table` [token].

        Returns
        -------
        numpy.ndarray
            One time for each step, of the shape that the two broadcast to [s].

        Notes
        -----
        Exact where a decode step is linear in the contexts, as with causal attention. For windows, sparse selections and compressed
        entries every sequence is taken to have the mean context, which for sequences of different lengths is an upper bound.
        """
        if type(batch) in _PLAIN and type(total_context) in _PLAIN and 0 <= batch < _MOST and 0 <= total_context < _MOST:
            return np.asarray(self._whole(lone_step(Sequences(batch, 1, total_context / batch, 1))) if batch > 0 else 0.0)
        batch, total_context = _amounts("batch", batch), _amounts("total_context", total_context)
        check_broadcast(batch=batch, total_context=total_context)
        batch, total_context = np.broadcast_arrays(batch, total_context)
        mean = np.divide(total_context, batch, out=np.zeros(batch.shape), where=batch > 0)
        return self(batch[..., None], 1, mean[..., None])

    def _whole(self, step: Step) -> Number:
        """Return the time of a step, constants beyond it included [s]."""
        return self._of(step) + self._added(step)

    def _added(self, step: Step, *, ranks: bool = False) -> Number:
        """Return what constants add to steps: to the rank to which they add most [s]."""
        if not self.beyond:
            return 0.0
        data = self.deployment.parallel.data
        added = beyond_s(*amounts_of(step if ranks or data == 1 else step.share(data)), **self.beyond)
        return added.max(axis=-1) if ranks else added

    def _of(self, step: Step, values: tuple[Number, ...] = ()) -> Number:
        """Return the time of a step, of many steps, or of the ranks of steps, whose aggregates may be known [s]."""
        machine = self.deployment.machine
        work = Work(self.deployment.program, step, values)
        floor = floor_roofs(work, machine).time_s
        if self.basis == "floor":
            return floor
        if self.timing is None:
            return sum(row.time_s for row in roofline_times(work, machine))
        timed = Timed(self.timing, values or work.values, work.shape)
        floor = np.broadcast_to(floor, work.shape).ravel() if work.shape else floor
        seconds = maximum(timed.kernels_s + timed.overhead_s, floor)
        if self.quantile is not None:
            seconds = maximum(seconds + timed.deviation(self.quantile), floor)
        return np.reshape(seconds, work.shape) if isinstance(seconds, np.ndarray) else seconds

    def table(self, *, batch: Any, context: Any) -> "StepTable":
        """Return decode times on a grid, to be looked up elsewhere or written to a file.

        Parameters
        ----------
        batch : int or array_like
            Sequences, first axis [-].
        context : int or array_like
            Tokens of each sequence in the cache, second axis; not their sum as in :meth:`decode` [token].

        Returns
        -------
        StepTable
            Times of shape (batches, contexts) [-].
        """
        sizes = {"batch": check_count("batch", batch, minimum=1), "context": check_count("context", context)}
        axes = [np.atleast_1d(np.asarray(size, dtype=float)) for size in sizes.values()]
        if any(axis.ndim != 1 for axis in axes):
            raise InvalidValueError("batch and context are the axes of a table: one-dimensional each.")
        check_points((axes[0].size, axes[1].size), "the table")
        return StepTable(self, axes[0], axes[1], self.decode(axes[0][:, None], axes[0][:, None] * axes[1]))

    @property
    def calibration(self) -> CalibrationRecord | None:
        """The record that an estimate rests on; None for another basis."""
        return None if self.timing is None else find_record(self._arguments["calibration"], self.deployment.machine)

    @property
    def cuda_graph(self) -> bool:
        """Whether an estimate's kernels are launched as one graph [-]."""
        return bool(self._arguments["cuda_graph"])

    @property
    def graph_tokens(self) -> int | None:
        """Most tokens of a step with prompts that runs from a graph, if another number than the profile's was given [token]."""
        found: int | None = self._arguments["graph_tokens"]
        return found

    @property
    def engine(self) -> Engine | None:
        """The profile of one's own whose host times count, if one was given [-]."""
        found: Engine | None = self._arguments["engine"]
        return found

    @property
    def replaced(self) -> tuple[str, ...]:
        """Families of kernels whose seconds are given by functions of the caller [-]."""
        return tuple(self._arguments["replace"] or ())

    @property
    def constants(self) -> str:
        """Whose the constants of an estimate are: ``"own"``, ``"generic"``, or ``"borrowed: ..."``; empty for another basis."""
        record = self.calibration
        if record is None or self.timing is None:
            return ""
        return whose_constants(record, self.timing.borrowed(record))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its times must know: of the record, and of kernels that have other constants or do other work than their own; empty for another basis."""
        record = self.calibration
        if record is None or self.timing is None:
            return ()
        return (*record_notes(record, self.deployment.machine), *self.timing.stand_ins, *self.timing.fused)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(StepTime, self.deployment, self.basis, **self._arguments), ()

    def __repr__(self) -> str:
        level = "" if self.quantile is None else f" at {self.quantile:g}"
        beyond = ", ".join(self.beyond)
        return f"<StepTime: {self.basis}{level}{' + ' * bool(beyond)}{beyond} of {self.deployment!r}>"


def _constants(beyond: Any) -> Mapping[str, float]:
    """Return the constants that are not zero, or raise."""
    if not isinstance(beyond, Mapping | None):
        raise InvalidValueError(f"beyond is {quoted(beyond)}; it is a mapping of constants to seconds, such as {{'step_s': 0.003}}.")
    for name, value in (beyond or {}).items():
        if name not in STEP:
            raise unknown_name("constant of a step", str(name), STEP)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < _MOST:
            raise InvalidValueError(f"beyond[{name!r}] is {quoted(value)}; it must be a number of at least 0 [{STEP[name]}].")
    return FrozenDict({name: float(value) for name, value in (beyond or {}).items() if value})


def _of_all_ranks(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return what steps × ranks × groups hold as steps × 1 × (groups of all ranks)."""
    return field.reshape((*shape[:-2], 1, shape[-2] * shape[-1]))


def _amounts(name: str, value: Any) -> np.ndarray:
    """Return an array of finite numbers that are at least 0, or raise."""
    check_unmasked(name, value)
    try:
        array = np.asarray(value)
        known = array.dtype.kind in "iuf"
        array = array.astype(float, copy=False) if known else array
    except (TypeError, ValueError, OverflowError):
        known, array = False, np.zeros(0)
    if not known:
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be a number, or an array of numbers.")
    if array.size and not (array.min() >= 0 and array.max() < _MOST):
        wrong = array[~((array >= 0) & (array < _MOST))].flat[0]
        raise InvalidValueError(f"{name} contains {wrong:g}; it must be a finite number of at least 0 everywhere.")
    return array


def one_step(*fields: Any) -> tuple[tuple[Sequences, ...], tuple[int, ...]] | None:
    """Return the groups of arrays of a single step as Python numbers, without empty ones, and the arrays' leading axes; None for others.

    None too where a number cannot be, which arrays are checked for.

    Examples
    --------
    >>> one_step([[8, 0]], 1, [[1000, 77]], 1)
    ((Sequences(count=8.0, new=1.0, cached=1000.0, sampled=1.0),), (1,))
    >>> one_step([8, -1], 1, 0, 1) is None
    True
    """
    if any(map(is_masked, fields)):
        return None
    try:
        arrays = [np.asarray(field) for field in fields]
    except ValueError:  # rows of different lengths
        return None
    axes, groups = max([a.ndim for a in arrays]), max([a.size for a in arrays])
    if not axes or any(a.dtype.kind not in "iuf" or (a.size != 1 and (a.size != groups or a.shape[-1] != groups)) for a in arrays):
        return None
    columns = [a.ravel().tolist() if a.size == groups else [a.item()] * groups for a in arrays]
    rows = [(float(count), float(new), float(cached), float(sampled)) for count, new, cached, sampled in zip(*columns, strict=True)]
    if not all(0 <= c < _MOST and (1 <= n < _MOST or c == 0 <= n) and 0 <= k < _MOST and 0 <= s < _MOST for c, n, k, s in rows):
        return None
    return tuple([Sequences(*row) for row in rows if row[0] > 0]), (1,) * (axes - 1)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StepTable(Result):
    """Decode times on a grid of batches and contexts.

    Parameters
    ----------
    source : StepTime
        What gave the times [-].
    batch, tokens : numpy.ndarray
        Sequences, first axis, and context of each, second axis [-], [token].
    time_s : numpy.ndarray
        The times, batches × contexts [s].
    """

    source: StepTime
    batch: np.ndarray
    tokens: np.ndarray
    time_s: np.ndarray

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        source, record = self.source, self.source.calibration
        own: dict[str, Any] = {"batch": self.batch, "context": self.tokens, "basis": source.basis}
        if record is not None:
            own |= {"calibration": record_input(record), "cuda_graph": source.cuda_graph}
        own |= {} if source.quantile is None else {"quantile": source.quantile}
        own |= {} if source.graph_tokens is None else {"graph_tokens": source.graph_tokens}
        own |= {} if source.engine is None else {"engine": source.engine.to_dict()}
        own |= {"replace": list(source.replaced)} if source.replaced else {}
        own |= {"beyond": dict(source.beyond)} if source.beyond else {}
        return Question("StepTime.table", deployment_inputs(source.deployment, ALL, **own))

    def basis(self) -> dict[str, Any]:
        """Return the id of the calibration record that an estimate rests on, and whose its constants are [-]."""
        record = self.source.calibration
        return {} if record is None else {"calibration": record.id, "constants": self.source.constants}

    def values(self) -> dict[str, Any]:
        """Return both axes and the times by name [SI]."""
        return {"batch": self.batch.astype(int)[:, None], "context": self.tokens.astype(int), "time_s": self.time_s}

    def context(self) -> dict[str, Any]:
        """Return what the times are of [-]."""
        asked, record = self.source.deployment, self.source.calibration
        return {
            "kind": f"decode times, {self.source.basis}",
            "model": asked.model.name,
            "hardware": asked.machine.id,
            "options": {name: value if isinstance(value, (int, float)) else str(value) for name, value in asked.options.items()},
            "quantile": self.source.quantile,
            **({"beyond": dict(self.source.beyond)} if self.source.beyond else {}),
            "notes": self._notes,
            **({} if record is None else {"calibration": describe_record(record) | {"constants": self.source.constants}}),
        }

    def summary(self) -> list[str]:
        """Return the short text [-]."""
        asked = self.source.deployment
        grid = f"{self.batch.size} batches × {self.tokens.size} contexts"
        times = show_span(self.time_s, show_time)
        mark = "" if self.source.calibration is None else generic_mark(self.source.calibration)
        return [
            f"decode times ({self.source.basis}{mark}{' and constants' * bool(self.source.beyond)}) of {asked.model.name} on {asked.machine.name}: {grid}, {times}",
            *show_notes(self._notes),
        ]

    @property
    def _notes(self) -> tuple[str, ...]:
        return (*self.source.deployment.notes, *self.source.notes)

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"
