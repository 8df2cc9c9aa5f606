"""What tensors hold that depends on shapes alone, such as masks made of ranges: computed on the CPU beside the run on the meta device."""

from typing import Any

from roofline.torch_modules.required import torch

_LARGEST = 1 << 25
"""Elements of the largest tensor that is computed [-]."""

_OF_SHAPE = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
"""Operators whose result depends on the shape of what they are given, not on its values."""

_leaves = torch.utils._pytree.tree_leaves


def give(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Let a tensor of the meta device have a value that no run may change."""
    tensor._roofline_value, tensor._roofline_given = value, True  # type: ignore[attr-defined]


class Values:
    """The values that are known in a run."""

    def __init__(self) -> None:
        self.spoilt: dict[int, torch.Tensor] = {}  # what something unknown was written into, by the address of its storage

    def of(self, tensor: Any) -> torch.Tensor | None:
        """Return the value of a tensor, None where it depends on a parameter or on a token."""
        value = tensor if tensor.device.type == "cpu" else getattr(tensor, "_roofline_value", None)
        return None if value is None or value.untyped_storage()._cdata in self.spoilt else value

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
            known = not any(getattr(tensor, "_roofline_given", False) for tensor in inputs[:1])
        if known and all(result.numel() <= _LARGEST for result in results):
            values = self._computed(func, args, kwargs)
            if len(values) == len(results):
                kept = {self.of(t).untyped_storage()._cdata for t in inputs if getattr(t, "_roofline_given", False)}  # type: ignore[union-attr]
                for result, computed in zip(results, values, strict=True):
                    result._roofline_value = computed  # type: ignore[attr-defined]
                    result._roofline_given = computed.untyped_storage()._cdata in kept  # type: ignore[attr-defined]
                return
        if writes and inputs and (value := self.of(inputs[0])) is not None:
            self.spoilt[value.untyped_storage()._cdata] = value

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
