"""A question about capacity, checked: which device, which share of the model, which sequences."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roofline.arithmetic import Number
from roofline.capacity.share import Share, activation_peak, device_shares
from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.forward import WeightFormats
from roofline.hardware import Hardware
from roofline.hardware.sections import check_capacity
from roofline.model import Model
from roofline.parallel import Parallel
from roofline.units import check_broadcast, check_count


def pick(condition: Any, yes: Number, no: Number) -> Number:
    """Choose between two numbers, element by element where the condition is an array; Python numbers stay exact.

    Examples
    --------
    >>> pick(True, 2**70, 0) == 2**70
    True
    """
    if isinstance(condition, np.ndarray):
        return np.where(condition, yes, no)
    return yes if condition else no


def whole_number(name: str, value: Any, *, minimum: int = 0) -> int:
    """Return a single whole number, or raise.

    Examples
    --------
    >>> whole_number("page", 16)
    16
    """
    number = check_count(name, value, minimum=minimum)
    if np.ndim(number):
        raise InvalidValueError(f"{name} is {value!r}; it is a single whole number: call once for each.")
    return int(number)


def memory_of(hardware: Hardware | str | Path | None, memory_capacity: float | None, *, needed: bool) -> tuple[str, int | None]:
    """Return the name and memory of one device [B].

    Examples
    --------
    >>> memory_of(None, 80e9, needed=True)
    ('80 GB', 80000000000)
    """
    if hardware is not None and memory_capacity is not None:
        raise InvalidValueError(f"give either a machine ({hardware!r}) or memory_capacity, not both.")
    if hardware is not None:
        machine = hardware if isinstance(hardware, Hardware) else Hardware.load(hardware)
        if machine.memory_capacity is None and needed:
            raise InvalidValueError(
                f"the memory capacity of {machine.name} is not known; give memory_capacity in B instead of the machine."
            )
        return machine.name, None if machine.memory_capacity is None else int(machine.memory_capacity)
    if memory_capacity is not None:
        capacity = check_capacity("memory_capacity", memory_capacity)
        return f"{capacity / 10**9:g} GB", capacity
    if needed:
        raise InvalidValueError("no machine: name one (see Hardware.list()), give the path of a spec file, or memory_capacity in B.")
    return "a device of unknown memory", None


@dataclass(frozen=True, slots=True)
class Case:
    """A checked question: the share of every stage, how its memory is used, and the sequences.

    Parameters
    ----------
    model : Model
        The model [-].
    parallel : Parallel
        Degrees [-].
    shares : tuple of Share
        One device of every pipeline stage [-].
    page : int
        Positions of a page [token].
    prefix : int or numpy.ndarray
        Tokens that all sequences share, in whole pages [token].
    reserve : int
        Bytes set aside [B].
    activations : tuple of (int or float)
        Peak activations of every stage [B].
    """

    model: Model
    parallel: Parallel
    shares: tuple[Share, ...]
    page: int
    prefix: Number
    reserve: int
    activations: tuple[Number, ...]

    @classmethod
    def of(
        cls,
        model: Any,
        parallel: Parallel,
        *,
        weights: WeightFormats,
        activations: str | Format | None,
        kv: str | Format | None,
        mtp: int,
        page: int,
        shared_prefix: Any,
        activation_tokens: int,
        reserve: float,
    ) -> "Case":
        """Check a question and compile the shares it is about."""
        loaded = model if type(model) is Model else Model.load(model)
        page, tokens = whole_number("page", page, minimum=1), whole_number("activation_tokens", activation_tokens)
        common = check_count("shared_prefix", shared_prefix)
        shares = device_shares(loaded, parallel, weights=weights, activations=activations, kv=kv, mtp=mtp)
        unit = page * parallel.context  # only pages that are full everywhere are shared
        peaks = tuple(activation_peak(share, tokens) for share in shares)
        return cls(loaded, parallel, shares, page, common // unit * unit, whole_number("reserve", reserve), peaks)

    def in_memory(self, batch: Number) -> Number:
        """Return the sequences whose cache a device holds: its group's part of a step, for every step in flight."""
        return -(-batch // self.parallel.data) * self.parallel.pipeline

    def fixed(self, stage: int) -> Number:
        """Return what a device holds whatever its sequences: parameters, peak activations, reserve [B]."""
        return self.shares[stage].weight_bytes + self.activations[stage] + self.reserve

    def sequences(self, stage: int, context: Any, *, cache: bool, growing: bool = True) -> tuple[Number, Number]:
        """Return the bytes of cache or state of one sequence (or one mix of them), and those of their common prefix [B]."""
        share = self.shares[stage]
        if not isinstance(context, Mapping):
            return share.sequence_bytes(context, self.prefix, self.page, cache=cache, growing=growing)
        lengths, counts = np.array(list(context)), np.array(list(context.values()))
        prefix = self.prefix[..., np.newaxis] if np.ndim(self.prefix) else self.prefix
        own, once = share.sequence_bytes(lengths.astype(float), prefix, self.page, cache=cache, growing=growing)
        own, once = (own * counts).sum(axis=-1), np.max(once + 0 * own, axis=-1)
        return (own, once) if np.ndim(own) else tuple(int(v) if v == int(v) else float(v) for v in (own, once))  # type: ignore[return-value]

    def check_context(self, context: Any, shared_prefix: Any) -> Any:
        """Return lengths, or a mix of lengths, if they can be some [token]."""
        if isinstance(context, Mapping):
            if not context:
                raise InvalidValueError("context is an empty mix; it needs at least one length with its number of sequences.")
            checked: Any = {
                whole_number("length", k): whole_number(f"number of sequences of {k} tokens", v, minimum=1) for k, v in context.items()
            }
            shortest: Any = min(checked)
        else:
            checked = shortest = check_count("context", context)
        common = check_count("shared_prefix", shared_prefix)
        check_broadcast(context=shortest, shared_prefix=common)
        if np.any(np.asarray(common) > np.asarray(shortest)):
            raise InvalidValueError(f"shared_prefix is {shared_prefix} but context is {context}: every sequence holds the whole prefix.")
        return checked
