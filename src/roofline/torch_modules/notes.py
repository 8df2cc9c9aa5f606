"""What is noted on tensors while a module runs: of their storage by its address, of one tensor on itself."""

from typing import Any

from roofline.torch_modules.required import torch

Identity = tuple[int, int, tuple[int, ...]]
"""A storage of a run, where a tensor begins in it, and its shape."""


def note(tensor: torch.Tensor, **what: Any) -> None:
    """Note something on a tensor: its `value`, whether that was `given`, its `scores`, its `copies`, whether data has `chosen` or `picked` it, its `origin`."""
    for name, value in what.items():
        setattr(tensor, f"_roofline_{name}", value)


def noted(tensor: Any, name: str, otherwise: Any = None) -> Any:
    """Return what is noted on a tensor by this name."""
    return getattr(tensor, f"_roofline_{name}", otherwise)


def address_of(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage, which views share."""
    return int(tensor.untyped_storage()._cdata)
