"""A question about capacity, checked: which device, which share of the model, which sequences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.arithmetic import Number
from roofline.capacity.share import Share, activation_peak, device_shares
from roofline.deployment import Deployment
from roofline.errors import InvalidValueError
from roofline.units import check_broadcast, check_count, whole_number


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


def device_name(deployment: Deployment) -> str:
    """Return what to call one device of a deployment."""
    if deployment.hardware is not None and "memory_bandwidth" not in deployment.options:
        return deployment.hardware.name
    capacity = deployment.memory_capacity
    return "a device of unknown memory" if capacity is None else f"{capacity / 10**9:g} GB"


def usable_memory(deployment: Deployment) -> int:
    """Return the memory that may be used of one device, or raise [B]."""
    if deployment.usable_bytes is not None:
        return deployment.usable_bytes
    if deployment.hardware is None:
        raise InvalidValueError("no machine: name one (see Hardware.list()), give the path of a spec file, or memory_capacity in B.")
    raise InvalidValueError(
        f"the memory capacity of {deployment.hardware.name} is not known; give memory_capacity in B instead of the machine."
    )


def shares_of(deployment: Deployment) -> tuple[Share, ...]:
    """Return what one device of every pipeline stage of a deployment holds."""
    formats = {name: deployment.options.get(name) for name in ("weights", "activations", "kv")}
    return device_shares(deployment.model, deployment.parallel, **formats, mtp=deployment.mtp)


@dataclass(frozen=True, slots=True)
class Case:
    """A checked question: the share of every stage, how its memory is used, and the sequences."""

    deployment: Deployment  # what is asked about
    shares: tuple[Share, ...]  # one device of every pipeline stage
    prefix: Number  # tokens that all sequences share, in whole pages [token]
    activations: tuple[Number, ...]  # peak activations of every stage [B]

    @classmethod
    def of(cls, deployment: Deployment, shared_prefix: Any) -> "Case":
        """Check a question and compile the shares it is about."""
        common = check_count("shared_prefix", shared_prefix)
        shares = shares_of(deployment)
        unit = deployment.page * deployment.parallel.context  # only pages that are full everywhere are shared
        peaks = tuple(activation_peak(share, deployment.activation_tokens) for share in shares)
        return cls(deployment, shares, common // unit * unit, peaks)

    @property
    def page(self) -> int:
        """Positions of a page [token]."""
        return self.deployment.page

    def in_memory(self, batch: Number) -> Number:
        """Return the sequences whose cache a device holds: its group's part of a step, for every step in flight."""
        parallel = self.deployment.parallel
        return -(-batch // parallel.data) * parallel.pipeline

    def fixed(self, stage: int) -> Number:
        """Return what a device holds whatever its sequences: parameters, peak activations, reserve [B]."""
        return self.shares[stage].weight_bytes + self.activations[stage] + self.deployment.reserve

    def sequences(self, stage: int, context: Any, *, cache: bool) -> tuple[Number, Number]:
        """Return the bytes of cache or state of one sequence (or one mix of them), and those of their common prefix [B]."""
        share, ahead = self.shares[stage], self.deployment.in_flight_tokens
        if not isinstance(context, Mapping):
            return share.sequence_bytes(context, self.prefix, self.page, cache=cache, in_flight=ahead)
        lengths, counts = np.array(list(context)), np.array(list(context.values()))
        prefix = self.prefix[..., np.newaxis] if np.ndim(self.prefix) else self.prefix
        own, once = share.sequence_bytes(lengths.astype(float), prefix, self.page, cache=cache, in_flight=ahead)
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
