"""Running a module on torch's meta device and noting what it multiplies: parameters by name, attention as it is called, experts as they are routed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from roofline.errors import UnsupportedModelError
from roofline.torch_modules.events import Product, Record
from roofline.torch_modules.interfaces import interfaces
from roofline.torch_modules.masks import of_mask, seen_of
from roofline.torch_modules.notes import address_of, note
from roofline.torch_modules.operators import Operators
from roofline.torch_modules.required import torch
from roofline.torch_modules.values import Values
from roofline.visibility import BIDIRECTIONAL, CAUSAL, Visibility


class _Functions(torch.overrides.TorchFunctionMode):
    """Notes calls of torch's own fused attention, and answers for it."""

    def __init__(self, record: Record, where: list[str], values: Values) -> None:
        super().__init__()
        self.record, self.where, self.values = record, where, values
        # keys and values that were read, and after how many products
        self.read: dict[tuple[int, int], tuple[int, torch.Tensor, torch.Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.repeat_interleave, torch.Tensor.repeat_interleave):
            return _repeated(func, args, kwargs or {})
        if func in (torch.tensor, torch.as_tensor):
            return self._made(func, args, kwargs or {})
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | (kwargs or {})
        query, key, value = given["query"], given["key"], given["value"]
        self._once(key, value)
        mask = given.get("attn_mask")
        visible: Visibility | None = CAUSAL if given.get("is_causal") else BIDIRECTIONAL
        if mask is not None:
            visible = seen_of(mask)
            held = self.values.of(mask)
            if held is not None:
                self.record.masked = True
                with torch._C._DisableTorchDispatch():
                    visible = of_mask(held)
                if visible is None:
                    self.record.strange.add(self.where[-1])
        call = self.record.attention_call(self.where[-1], query, key, value, visible)
        self.record.called(call, [call])
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    def _once(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Refuse keys and values that a later layer reads again, for it is not told how many of them are kept."""
        products = [event for event in self.record.events if isinstance(event, Product)]
        before, *_ = self.read.setdefault((address_of(key), address_of(value)), (len(products), key, value))
        if products and before != len(products):
            raise UnsupportedModelError(
                f"attention after {products[-1].path or 'the module'} reads keys and values that an earlier layer made: "
                "layers that share them are read only where they are in a cache of transformers."
            )

    def _made(self, func: Any, args: Any, given: dict[str, Any]) -> Any:
        """Return a tensor made of numbers, with their value."""
        made = func(*args, **given)
        if made.device.type == "meta" and not isinstance(args[0] if args else given["data"], torch.Tensor):
            with torch._C._DisableTorchDispatch():
                note(made, value=func(*args, **given | {"device": "cpu"}))
        return made


def _repeated(func: Any, args: Any, given: dict[str, Any]) -> Any:
    """Return elements that are each repeated so many times, without asking a tensor how often."""
    named: dict[str, Any] = dict(zip(("input", "repeats", "dim"), args, strict=False)) | given
    tensor, repeats, dim = named.get("input"), named.get("repeats"), named.get("dim")
    if not isinstance(tensor, torch.Tensor) or not isinstance(repeats, int) or not isinstance(dim, int):
        return func(*args, **given)
    at = dim % tensor.ndim
    return tensor.unsqueeze(at + 1).expand(*tensor.shape[: at + 1], repeats, *tensor.shape[at + 1 :]).flatten(at, at + 1)


@contextmanager
def _paths(module: torch.nn.Module, record: Record, where: list[str]) -> Iterator[None]:
    """Keep the path of the module that runs at the end of `where`."""
    handles = []

    names: dict[int, list[str]] = {}
    for path, inner in module.named_modules(remove_duplicate=False):
        names.setdefault(id(inner), []).append(path)

    def enter(inner: torch.nn.Module, *_: Any) -> None:
        """Of a module that is in several places, take the place that is inside the module that runs."""
        paths, outer = names[id(inner)], where[-1]
        path = next((path for path in paths if path.startswith(f"{outer}.")), paths[0]) if outer else paths[0]
        where.append(path)
        record.runs[path] += 1

    def leave(*_: Any) -> None:
        where.pop()

    try:
        for inner in module.modules():
            handles.append(inner.register_forward_pre_hook(enter, prepend=True))
            handles.append(inner.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def watch(
    module: torch.nn.Module,
    named: dict[int, tuple[str, ...]],
    buffers: dict[int, tuple[str, bool]],
    positional: tuple[Any, ...],
    inputs: dict[str, Any],
    lengths: tuple[int, ...],
) -> Record:
    """Run a module once on the meta device, and return what it did.

    Parameters
    ----------
    module : torch.nn.Module
        The module, its parameters on the meta device.
    named : dict
        Names of parameters by the address of their storage.
    buffers : dict
        Names of buffers, likewise, and whether they are large enough to be weights.
    positional, inputs : tuple and dict
        Arguments of its forward.
    lengths : tuple of int
        Tokens that they hold, and positions of a source beside them.

    Returns
    -------
    Record
        What it did.
    """
    record, where = Record(), [""]
    with ExitStack() as stack:
        sizes = {path: held.numel() for path, held in (*module.named_parameters(), *module.named_buffers())}
        operators = Operators(named, buffers, record, where, lengths, sizes)
        stack.enter_context(torch.no_grad())
        stack.enter_context(interfaces(record, where, module, operators))
        stack.enter_context(_paths(module, record, where))
        stack.enter_context(_Functions(record, where, operators.values))
        stack.enter_context(operators)
        try:
            record.outputs = module(*positional, **inputs)
        except KeyError as error:
            if "device='meta'" not in str(error):
                raise
            raise UnsupportedModelError(
                "which of its modules its code runs depends on values, and experts in a dictionary are not read."
            ) from None
        operators.routed()
    for path, inner in module.named_modules():
        for name, held in {**vars(inner), **inner._buffers}.items():
            several = held if isinstance(held, (tuple, list)) else (held,)
            for i, one in enumerate(several if "state" in name else ()):
                if isinstance(one, torch.Tensor) and address_of(one) in record.made:
                    record.states[f"{path}.{name}[{i}]"] = one
    return record
