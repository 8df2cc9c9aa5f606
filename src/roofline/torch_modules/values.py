"""What tensors hold that depends on shapes alone, such as masks made of ranges: computed on the CPU beside the run on the meta device."""

from typing import Any

from roofline.torch_modules.notes import address_of, note, noted
from roofline.torch_modules.required import torch

_LARGEST = 1 << 25
"""Elements of the largest tensor that is computed [-]."""

_OF_SHAPE = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
"""Operators whose result depends on the shape of what they are given, not on its values."""

_leaves = torch.utils._pytree.tree_leaves


def give(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Let a tensor of the meta device have a value that no run may change."""
    note(tensor, value=value, given=True)


class Values:
    """The values that are known in a run."""

    def __init__(self) -> None:
        self.spoilt: dict[int, torch.Tensor] = {}  # what something unknown was written into, by the address of its storage

    def of(self, tensor: Any) -> torch.Tensor | None:
        """Return the value of a tensor, None where it depends on a parameter or on a token."""
        value = tensor if tensor.device.type == "cpu" else noted(tensor, "value")
        return None if value is None or address_of(value) in self.spoilt else value

    def number(self, given: Any) -> float | None:
        """Return a number that is given as one or as a tensor of one element, None where it is not known."""
        if isinstance(given, torch.Tensor):
            value = self.of(given)
            return None if value is None or value.numel() != 1 else float(value)
        return float(given)

    def follow(self, func: Any, args: Any, kwargs: Any, inputs: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """Compute the results of an operator where all that it reads is known."""
        name = func._schema.name.removeprefix("aten::")
        if not results or results[0].device.type != "meta" or name in ("empty", "empty_strided", "new_empty", "empty_like"):
            return
        writes = func._schema.is_mutable
        known = name in _OF_SHAPE or all(self.of(tensor) is not None for tensor in inputs)
        known = known and torch.Tag.nondeterministic_seeded not in func.tags
        if known and writes:
            known = not any(noted(tensor, "given") for tensor in inputs[:1])
        if known and all(result.numel() <= _LARGEST for result in results):
            values = self._computed(func, args, kwargs)
            if len(values) == len(results):
                kept = {address_of(value) for t in inputs if noted(t, "given") and (value := self.of(t)) is not None}
                for result, computed in zip(results, values, strict=True):
                    note(result, value=computed, given=address_of(computed) in kept)
                return
        if writes and inputs and (value := self.of(inputs[0])) is not None:
            self.spoilt[address_of(value)] = value

    def _computed(self, func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
        """Return what an operator makes of the values of what it is given, nothing where it cannot."""

        def real(leaf: Any) -> Any:
            if isinstance(leaf, torch.device):
                return torch.device("cpu")
            if not isinstance(leaf, torch.Tensor):
                return leaf
            value = self.of(leaf)
            return torch.empty(leaf.shape, dtype=leaf.dtype, device="cpu") if value is None else value

        args, kwargs = torch.utils._pytree.tree_map(real, (args, kwargs or {}))
        try:
            return [leaf for leaf in _leaves(func(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]
        except (RuntimeError, IndexError, TypeError):  # what an operator cannot do on the CPU
            return []
