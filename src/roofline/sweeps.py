"""Floors of decode over machines, tensor-parallel degrees, batches and contexts at once."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from roofline.deployment import Deployment
from roofline.deployment.deployment import check_options, deploy
from roofline.deployment.inputs import machine_input, model_input, option_input
from roofline.deployment.options import STEP, SweepOptions, asks
from roofline.errors import InvalidValueError
from roofline.floors import decode_floor
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.parallel import Parallel
from roofline.results import Question, Result, Told, several, show_notes, show_span
from roofline.tasks import check_executor, run_tasks
from roofline.units import check_count, check_points, show_time

__all__ = ["Sweep", "sweep"]

_BOUNDS = ("memory", "compute", "network", "capacity")
_COLUMNS = ("time_s", "compute_s", "memory_s", "network_s", "intensity", "resident_bytes", "tokens_per_s")
_Task = tuple[Deployment, np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Sweep(Result):
    """Decode floors on a grid: machines × tensor-parallel degrees × batches × contexts, as arrays with these four axes.

    Parameters
    ----------
    model : Model
        The model [-].
    machines : tuple of Hardware
        First axis [-].
    tensor_parallel : tuple of int
        Second axis: devices that share every layer [-].
    batch : numpy.ndarray
        Third axis: sequences [-].
    tokens : numpy.ndarray
        Fourth axis: context of each sequence [token].
    columns : mapping of str to numpy.ndarray
        Every amount of :class:`~roofline.floors.Floor` that was kept, each of the grid's shape [SI].
    bound_codes : numpy.ndarray of int
        What binds: 0 memory, 1 compute, 2 network, 3 capacity [-].
    options : mapping
        What else the floors were given [-].
    """

    model: Model
    machines: tuple[Hardware, ...]
    tensor_parallel: tuple[int, ...]
    batch: np.ndarray
    tokens: np.ndarray
    columns: Mapping[str, np.ndarray]
    bound_codes: np.ndarray
    options: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Machines, degrees, batches, contexts [-]."""
        return self.bound_codes.shape

    @property
    def time_s(self) -> np.ndarray:
        """The floor: no implementation is faster [s]."""
        return self.columns["time_s"]

    @property
    def tokens_per_s(self) -> np.ndarray:
        """Tokens per second at the floor, all devices together; not a number where the step does not fit [token/s]."""
        return self.columns["tokens_per_s"]

    @property
    def bound(self) -> np.ndarray:
        """What binds: the roof, or ``"capacity"`` where the step does not fit [-]."""
        return np.asarray(np.asarray(_BOUNDS)[self.bound_codes])

    @property
    def fits(self) -> np.ndarray:
        """Whether weights and cache fit; None (in an array of objects) for machines whose capacity is not known [-]."""
        fits = np.asarray(self.bound_codes != _BOUNDS.index("capacity"))
        unknown = np.asarray([h.memory_capacity is None for h in self.machines])
        if not unknown.any():
            return fits
        said: np.ndarray = fits.astype(object)
        said[unknown] = None
        return said

    @property
    def notes(self) -> tuple[str, ...]:
        """What the names are read as, and what a batch is in a pipeline."""
        in_flight = Parallel(pipeline=self.options.get("pipeline_parallel", 1)).in_flight_note
        return tuple(note for note in (self.model.alias_note, *(h.alias_note for h in self.machines), in_flight) if note)

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        axes = {"tensor_parallel": list(self.tensor_parallel), "batch": self.batch, "context": self.tokens}
        options = {name: option_input(value) for name, value in self.options.items()}
        return Question("sweep", {"model": model_input(self.model)} | self._named() | axes | options)

    def _named(self) -> dict[str, Told]:
        """Return the machines as an input, unless they are bare rates."""
        return {} if "memory_bandwidth" in self.options else {"hardware": several(list(map(machine_input, self.machines)))}

    def values(self) -> dict[str, Any]:
        """Return the four axes and every column by name; all broadcast to the grid's shape [SI]."""
        axes = {name: np.asarray(told.cell).reshape(-1, 1, 1, 1) for name, told in self._named().items()} | {
            "tensor_parallel": np.asarray(self.tensor_parallel).reshape(-1, 1, 1),
            "batch": self.batch.astype(int).reshape(-1, 1),
            "context": self.tokens.astype(int),
        }
        return axes | dict(self.columns) | {"bound": self.bound, "fits": self.fits}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on [-]."""
        options = {name: value if isinstance(value, (int, float)) else str(value) for name, value in self.options.items()}
        return {
            "kind": "decode sweep",
            "model": self.model.name,
            "model_source": self.model.source,
            "options": options,
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Return the short text: the extent, and for every machine and degree the most tokens per second [-]."""
        lines = [
            f"decode sweep of {self.model.name}: {' × '.join(map(str, self.shape))} points (machines × tensor parallel × batches × contexts),"
            f" floors {show_span(self.time_s, show_time)}"
        ]
        for (i, h), (j, degree) in product(enumerate(self.machines), enumerate(self.tensor_parallel)):
            rates = self.tokens_per_s[i, j]
            if np.isnan(rates).all():
                lines.append(f"  {h.name}, tensor parallel {degree}: nothing fits")
                continue
            b, c = np.unravel_index(int(np.nanargmax(rates)), rates.shape)
            lines.append(
                f"  {h.name}, tensor parallel {degree}: at most {rates[b, c]:.5g} tokens/s, at batch {self.batch[b]:.0f} and context"
                f" {self.tokens[c]:.0f}, {_BOUNDS[self.bound_codes[i, j, b, c]]}-bound; {np.isnan(rates).mean():.0%} does not fit"
            )
        return [*lines, *show_notes(self.notes)]


def _cell(task: _Task) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Compute one machine at one degree: all batches and contexts at once."""
    deployment, batch, context = task
    floor = decode_floor(deployment, batch=batch[:, None], context=context)
    shape = (batch.size, context.size)
    columns = {name: np.broadcast_to(getattr(floor, name), shape) for name in _COLUMNS}
    compute, memory, network = (columns[name] for name in ("compute_s", "memory_s", "network_s"))
    codes = (compute > memory).astype(np.int8)  # what Floor.bound says, without a million words
    codes[network > np.maximum(compute, memory)] = _BOUNDS.index("network")
    fits = floor.fits
    if fits is not None:
        codes[~np.broadcast_to(fits, shape)] = _BOUNDS.index("capacity")
    return columns, codes


def _cell_of(base: Deployment | None, model: Any, hardware: Hardware | None, options: Mapping[str, Any]) -> Deployment:
    if base is None:
        return deploy("sweep", STEP, model, hardware, options)
    return base.but(**options) if hardware is None else base.but(hardware=hardware, **options)


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, (str, Path, Hardware)) else [value]


_GIVEN = tuple(name for name in STEP if name != "tensor_parallel")


@asks(_GIVEN)
def sweep(
    model: Any,
    hardware: Any = None,
    *,
    batch: Any = 1,
    context: Any = 0,
    tensor_parallel: Any = None,
    executor: Executor | None = None,
    **options: Unpack[SweepOptions],
) -> Sweep:
    """Return the decode floors of a model on a grid of machines, tensor-parallel degrees, batches and contexts.

    Parameters
    ----------
    model : str, Path, mapping, object, int, float, Model or Deployment
        What :meth:`Model.load` takes, or a deployment, whose machine and degree are then the default [-].
    hardware : Hardware, str, Path or iterable of these, optional
        The machines, first axis; None for bare rates or the machine of a deployment [-].
    batch, context : int or array_like, optional
        Sequences, third axis, and tokens of each in the cache, fourth axis; one-dimensional [-], [token].
    tensor_parallel : int or iterable of int, optional
        Degrees, second axis; 1 if not given, or that of a deployment [-].
    executor : concurrent.futures.Executor, optional
        Where to compute, one task for every machine and degree: a process pool, the client of a cluster; here if not given [-].
    {options}

    Returns
    -------
    Sweep
        Arrays of shape (machines, degrees, batches, contexts) [-].

    Raises
    ------
    InvalidValueError
        If an axis is empty or has more than one dimension, or a degree cannot divide the model.
    UnknownNameError
        If a name is not known.

    Examples
    --------
    >>> result = sweep("llama-3-8b", ["h100-sxm", "a100-sxm-80gb"], batch=[1, 64], context=[1024, 8192])
    >>> result.bound[:, 0, 1].tolist()
    [['memory', 'memory'], ['memory', 'memory']]
    >>> result.shape, len(result.to_records())
    ((2, 1, 2, 2), 8)
    """
    check_options("sweep", _GIVEN, options)
    check_executor(executor)
    base = deploy("sweep", STEP, model, None, options) if isinstance(model, Deployment) else None
    machines = (None,) if hardware is None else tuple(Hardware.load(h) for h in _several(hardware))
    if tensor_parallel is None:
        tensor_parallel = 1 if base is None else base.parallel.tensor
    degrees = tuple(check_count("tensor_parallel", t, minimum=1) for t in _several(tensor_parallel))
    axes = {"batch": check_count("batch", batch, minimum=1), "context": check_count("context", context)}
    batch, context = (np.atleast_1d(axis).astype(float) for axis in axes.values())
    for name, size, dimensions in (
        ("hardware", len(machines), 1),
        ("tensor_parallel", len(degrees), 1),
        ("batch", batch.size, batch.ndim),
        ("context", context.size, context.ndim),
    ):
        if not size or dimensions != 1:
            raise InvalidValueError(
                f"{name} has {size} values in {dimensions} dimensions; an axis of a sweep is one-dimensional and not empty."
            )
    shape = (len(machines), len(degrees), batch.size, context.size)
    check_points(shape, "the sweep")
    cells_of = [_cell_of(base, model, h, {**options, "tensor_parallel": t}) for h, t in product(machines, degrees)]
    tasks: list[_Task] = [(deployment, batch, context) for deployment in cells_of]
    cells = run_tasks(_cell, tasks, executor)
    columns = {name: np.stack([cell[name] for cell, _ in cells]).reshape(shape) for name in _COLUMNS}
    codes = np.stack([codes for _, codes in cells]).reshape(shape)
    used = tuple(deployment.machine for deployment in cells_of[:: len(degrees)])
    return Sweep(
        cells_of[0].asked_model,
        used,
        degrees,
        batch,
        context,
        columns,
        codes,
        {n: v for n, v in (options if base is None else base.options).items() if n in _GIVEN},
    )
