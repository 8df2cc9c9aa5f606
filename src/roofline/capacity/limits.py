"""How many sequences fit, how long they may be, and how many devices they need: exact, by the same sums as `resident`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from math import inf
from operator import and_
from typing import Any, Unpack

import numpy as np

from roofline.arithmetic import Number, maximum, minimum, quotient
from roofline.capacity.case import Case, pick, usable_memory
from roofline.capacity.memory import Resident, resident
from roofline.deployment import Deployment
from roofline.deployment.deployment import check_options, deploy
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.machine import Machine
from roofline.deployment.options import CAPACITY, CapacityOptions, asks
from roofline.errors import InvalidValueError
from roofline.model import Model
from roofline.results import Question, Result, show_span
from roofline.units import check_broadcast, check_count, whole_number

_LONGEST = 2**50
"""A length that no memory holds if anything grows with it: half a byte for every token would be 0.5 PB [token]."""


def _sequence(case: Case, stage: int, context: Any) -> tuple[Number, Number]:
    """Bytes of cache and state for each sequence, and those of the common prefix [B]."""
    own, once = case.sequences(stage, context, cache=True)
    return own + case.sequences(stage, context, cache=False)[0], once


def _fit(case: Case, batch: Number, context: Any, allowed: int) -> Any:
    """Whether so many sequences, at least one, fit on the devices of all stages."""
    here = case.in_memory(batch)
    parts = [(case.fixed(stage), *_sequence(case, stage, context)) for stage in range(len(case.shares))]
    return reduce(and_, [fixed + once + here * own <= allowed for fixed, own, once in parts])


def _most(room: Number, own: Number) -> Number:
    """Return the largest whole n with n · own ≤ room; 0 where room is negative, infinite where own is 0 [-]."""
    if isinstance(room, int) and isinstance(own, int):
        return 0 if room < 0 else room // own if own else inf
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.floor_divide(room, own)
        n = n + ((n + 1) * own <= room)  # a quotient of floats may be one off
        n = n - (n * own > room)
    n = np.where(np.greater_equal(room, 0), np.where(np.equal(own, 0), inf, np.maximum(n, 0)), 0)
    return n if n.ndim else int(n) if np.isfinite(n) else inf


def _whole(n: Number) -> Number:
    """Return counts as whole numbers; an array in which one is infinite stays one of floats."""
    return n.astype(np.int64) if isinstance(n, np.ndarray) and np.isfinite(n).all() else n


@asks(CAPACITY)
def max_batch(
    model: Any, hardware: Machine = None, *, context: Any = None, shared_prefix: Any = 0, **options: Unpack[CapacityOptions]
) -> Number:
    r"""Return the most sequences that fit: :math:`\lfloor (u M - W - A - R - prefix) / (KV + state\ of\ one) \rfloor`, over all stages.

    Parameters
    ----------
    {model}
    context : int, array_like or mapping
        Tokens of each sequence in the cache; or a mix, ``{length: how many}``, of which whole mixes are counted [token].
    shared_prefix : int or array_like, optional
        Tokens at the start of all sequences that are in memory once, down to whole pages [token].
    {options}

    Returns
    -------
    int, float or numpy.ndarray
        Sequences of one step, in all data-parallel groups together, as many in each; 0 where not one fits, infinite where sequences need no
        memory [-].

    Raises
    ------
    InvalidValueError
        If the memory is not known, or an argument cannot be.

    Warns
    -----
    UserWarning
        If the machine's name stands for several devices, and no degree says that more than one is used.

    Examples
    --------
    Llama-3-8B in bf16 on 80 GB: (80e9 − 16.06e9) / (8192 · 131,072 B) = 59.5.

    >>> max_batch("llama-3-8b", memory_capacity=80e9, context=8192)
    59
    """
    deployment = deploy("max_batch", CAPACITY, model, hardware, options)
    deployment.warn_of_one_device()
    return _largest_batch(deployment, context, shared_prefix)


def _largest_batch(deployment: Deployment, context: Any, shared_prefix: Any) -> Number:
    """Return :func:`max_batch` of a deployment, without a warning."""
    allowed, parallel = usable_memory(deployment), deployment.parallel
    case = Case.of(deployment, shared_prefix)
    context = case.check_context(context, shared_prefix)
    most: Number = inf
    for stage in range(len(case.shares)):
        own, once = _sequence(case, stage, context)
        most = minimum(most, _most(allowed - case.fixed(stage) - once, own))
    if parallel.pipeline > 1:
        most = most // parallel.pipeline if isinstance(most, int) else np.floor(quotient(most, parallel.pipeline))
    return _whole(most * parallel.data)


@asks(CAPACITY)
def max_context(
    model: Any, hardware: Machine = None, *, batch: Any = 1, shared_prefix: Any = 0, **options: Unpack[CapacityOptions]
) -> Number:
    """Return the longest context that so many sequences can have at once, by bisection of what they hold.

    Parameters
    ----------
    {model}
    batch : int or array_like, optional
        Sequences of one step, all of one length, in all data-parallel groups together [-].
    shared_prefix : int or array_like, optional
        Tokens at the start of all sequences that are in memory once, down to whole pages [token].
    {options}

    Returns
    -------
    int, float or numpy.ndarray
        Tokens of each sequence, the prefix included; 0 where not even the prefix, or one token, fits; infinite where memory
        sets no limit, because no cache grows. What the model was made for may be less [token].

    Raises
    ------
    InvalidValueError
        If the memory is not known, or an argument cannot be.

    Warns
    -----
    UserWarning
        If the machine's name stands for several devices, and no degree says that more than one is used.

    Examples
    --------
    >>> max_context("llama-3-8b", memory_capacity=80e9, batch=59)
    8256
    >>> max_context("falcon-mamba-7b", memory_capacity=80e9, batch=59)
    inf
    """
    deployment = deploy("max_context", CAPACITY, model, hardware, options)
    deployment.warn_of_one_device()
    return _longest_context(deployment, batch, shared_prefix)


def _longest_context(deployment: Deployment, batch: Any, shared_prefix: Any) -> Number:
    """Return :func:`max_context` of a deployment, without a warning."""
    allowed, case = usable_memory(deployment), Case.of(deployment, shared_prefix)
    batch, first = check_count("batch", batch, minimum=1), maximum(check_count("shared_prefix", shared_prefix), 1)
    check_broadcast(batch=batch, shared_prefix=first)
    # what a sequence holds never shrinks with its length: double it until it does not fit, then halve the interval
    low: Number = first + 0 * batch
    high, enough = 2 * low, _fit(case, batch, low, allowed)
    while np.any(good := _fit(case, batch, high, allowed) & (high < _LONGEST)):
        low, high = pick(good, high, low), pick(good, 2 * high, high)
    endless = high >= _LONGEST
    while np.any(high - low > 1):
        middle = (low + high) // 2
        good = _fit(case, batch, middle, allowed)
        low, high = pick(good, middle, low), pick(good, high, middle)
    return _whole(pick(enough, pick(endless, inf, low), 0))


def _degrees(model: Model, at_most: int) -> Iterator[int]:
    """Yield powers of two and what divides all heads of some layer, in order [-]."""
    heads = {heads for group in model.layers if isinstance(heads := getattr(group.mixer, "heads", None), int)}
    powers = {2**i for i in range(at_most.bit_length())}
    yield from sorted(d for d in range(1, at_most + 1) if d in powers or any(h % d == 0 for h in heads))


def _every_degree(model: Any, hardware: Machine, options: Mapping[str, Any], at_most: int) -> Iterator[Deployment | InvalidValueError]:
    """Yield a deployment for every tensor-parallel degree, the largest first, or the error that says why there is none."""
    loaded = model.model if isinstance(model, Deployment) else Model.load(model)
    for degree in reversed(list(_degrees(loaded, at_most))):
        try:
            if isinstance(model, Deployment):
                yield deploy("fewest_devices", CAPACITY, model.but(tensor_parallel=degree), hardware, options)
            else:
                yield deploy("fewest_devices", CAPACITY, loaded, hardware, {**options, "tensor_parallel": degree})
        except InvalidValueError as error:
            yield error


_GIVEN = tuple(name for name in CAPACITY if name != "tensor_parallel")


@asks(_GIVEN)
def fewest_devices(
    model: Any,
    hardware: Machine = None,
    *,
    batch: Any = 1,
    context: Any = 0,
    shared_prefix: Any = 0,
    at_most: int = 1024,
    **options: Unpack[CapacityOptions],
) -> Number:
    """Return the fewest devices that hold model and sequences: the smallest tensor-parallel degree that splits the model evenly.

    The tensor-parallel degree of a deployment is not used. Degrees tried are the powers of two and what divides the heads; more of them than key-value heads only copy the cache.

    Parameters
    ----------
    {model}
    batch : int or array_like, optional
        Sequences of one step; of a mix, how many mixes [-].
    context : int, array_like or mapping, optional
        Tokens of each sequence in the cache; or a mix, ``{length: how many}`` [token].
    shared_prefix : int or array_like, optional
        Tokens at the start of all sequences that are in memory once, down to whole pages [token].
    at_most : int, optional
        Largest tensor-parallel degree tried [-].
    {options}

    Returns
    -------
    int, float or numpy.ndarray
        Devices in all, the tensor-parallel degree times the others; infinite where no degree tried is enough [-].

    Raises
    ------
    InvalidValueError
        If the memory is not known, no degree splits the model evenly, or an argument cannot be.

    Examples
    --------
    141 GB of bf16 weights and 32 · 8192 · 327,680 B = 86 GB of cache: 227 GB on devices of 80 GB.

    >>> fewest_devices("llama-3-70b", memory_capacity=80e9, batch=32, context=8192)
    4
    """
    check_options("fewest_devices", _GIVEN, options)
    batch, fewest = check_count("batch", batch, minimum=1), inf
    split, failure = False, InvalidValueError(f"at_most is {at_most}: no degree was tried.")
    for deployment in _every_degree(model, hardware, options, whole_number("at_most", at_most, minimum=1)):
        if isinstance(deployment, InvalidValueError):
            failure = deployment
            continue
        allowed, case = usable_memory(deployment), Case.of(deployment, shared_prefix)
        lengths = case.check_context(context, shared_prefix)
        fewest = pick(_fit(case, batch, lengths, allowed), deployment.devices, fewest)
        split = True
    if not split:
        raise failure
    return _whole(fewest)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class MemoryLimits(Result):
    """What is in memory, and how many sequences, tokens and devices that allows; each limit None where the memory of a device is not known.

    Parameters
    ----------
    memory : Resident
        What is in memory [-].
    at_most : int
        Largest tensor-parallel degree tried [-].
    max_batch : int, float, numpy.ndarray or None
        Most sequences of that context [-].
    max_context : int, float, numpy.ndarray or None
        Longest context of that batch; None for a mix of lengths [token].
    fewest_devices : int, float, numpy.ndarray or None
        Fewest devices for that batch and context [-].
    """

    memory: Resident
    at_most: int
    max_batch: Number | None = None
    max_context: Number | None = None
    fewest_devices: Number | None = None

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        return Question("memory_limits", deployment_inputs(self.memory.deployment, CAPACITY, **self.memory.asked, at_most=self.at_most))

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        return self.memory.values() | {name: getattr(self, name) for name in ("max_batch", "max_context", "fewest_devices")}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: names, degrees, page [-]."""
        return self.memory.context() | {"kind": "memory limits"}

    def summary(self) -> list[str]:
        """Return the short text: what is in memory, then the limits [-]."""
        lines = self.memory.summary()
        if self.max_batch is None:
            return [*lines, "  limits: unknown without the memory of a device; name a machine or give memory_capacity"]
        asked, unlimited = self.memory.asked, self._why_unlimited()
        batch = show_span(asked["batch"], "{:.0f}".format)
        of = "of this mix" if isinstance(asked["context"], Mapping) else f"at context {show_span(asked['context'], '{:.0f}'.format)}"
        lines.append(f"  largest batch {of}: {_count(self.max_batch, unlimited)}")
        if self.max_context is not None:
            positions = self.memory.deployment.model.max_positions
            beyond = np.isfinite(self.max_context) & np.greater(self.max_context, positions or inf)
            made_for = f"; the model was made for {positions:,}" if np.any(beyond) else ""
            lines.append(f"  longest context at batch {batch}: {_count(self.max_context, unlimited, ' tokens')}{made_for}")
        return [*lines, f"  fewest devices for batch {batch} {of}: {_count(self.fewest_devices, f'more than {self.at_most:,}')}"]

    def _why_unlimited(self) -> str:
        model = self.memory.deployment.model
        if model.is_anonymous and not model.kv_bytes_per_token():
            return "not known: a number of parameters has no cache unless kv_bytes_per_token is given"
        empty = "with an empty context nothing is in the cache; context= says how long they are"
        return f"no limit: {'nothing grows' if np.any(self.memory.asked['context']) else empty}"

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


def _count(value: Any, endless: str, unit: str = "") -> str:
    return show_span(value, lambda n: f"{n:,.0f}{unit}" if np.isfinite(n) else endless)


@asks(CAPACITY)
def memory_limits(
    model: Any,
    hardware: Machine = None,
    *,
    batch: Any = 1,
    context: Any = 0,
    shared_prefix: Any = 0,
    at_most: int = 1024,
    **options: Unpack[CapacityOptions],
) -> MemoryLimits:
    """Return what is in memory, the largest batch, the longest context and the fewest devices, as one result that can be saved.

    Parameters
    ----------
    {model}
    batch : int or array_like, optional
        Sequences of one step; of a mix, how many mixes [-].
    context : int, array_like or mapping, optional
        Tokens of each sequence in the cache; or a mix of sequences, ``{length: how many}`` [token].
    shared_prefix : int or array_like, optional
        Tokens at the start of all sequences that are in memory once, down to whole pages [token].
    at_most : int, optional
        Largest tensor-parallel degree tried for the fewest devices [-].
    {options}

    Returns
    -------
    MemoryLimits
        :func:`resident`, :func:`max_batch` at `context`, :func:`max_context` of `batch`, and :func:`fewest_devices` for both [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> memory_limits("llama-3-8b", memory_capacity=80e9, batch=59, context=8192).max_batch
    59
    """
    deployment = deploy("memory_limits", CAPACITY, model, hardware, options)
    memory = resident(deployment, batch=batch, context=context, shared_prefix=shared_prefix)
    if deployment.usable_bytes is None:
        return MemoryLimits(memory, at_most)
    asked = memory.asked
    return MemoryLimits(
        memory,
        at_most,
        _largest_batch(deployment, asked["context"], shared_prefix),
        None if isinstance(asked["context"], Mapping) else _longest_context(deployment, asked["batch"], shared_prefix),
        fewest_devices(deployment, **asked, at_most=at_most),
    )
