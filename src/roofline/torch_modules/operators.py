"""Every operator of a run on torch's meta device: the parameters that it reads, what it multiplies, what it lays over scores."""

import re
from typing import Any

from roofline.errors import UnsupportedModelError
from roofline.torch_modules.events import Contraction, Product, Record, Routed
from roofline.torch_modules.masks import Scores, scores_of, seen_of
from roofline.torch_modules.notes import address_of, note, noted
from roofline.torch_modules.required import torch
from roofline.torch_modules.values import Values

_PRODUCTS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "mv": (0, 1), "dot": (0, 1), "addmv": (1, 2)}
"""Where the two operands of a product stand among an operator's arguments."""

_GROUPED = "_grouped_mm"
"""Products of rows with one matrix of a stack each, which offsets say."""

_JOINS = ("cat", "stack", *_PRODUCTS)
"""Operators that make one matrix of several."""

_CHOICES = ("embedding", "index", "index_select", "gather", "take")
"""Operators whose first operand holds what others choose of."""

_RANKS = ("topk", "argmax", "sort", "argsort", "kthvalue")
"""Operators that say which of several are the largest."""

_FUSED = re.compile(r"(mm|linear|cdist)(_|$)")
"""Names of operators that multiply matrices, the plain products among them."""

_RUNNING = ("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
"""Operators of which a result depends on all that came before it along a dimension."""

_TRANSFORMS = ("_fft_r2c", "_fft_c2c", "_fft_c2r")
"""Operators that mix everything along a dimension with everything."""

_OWN = ("aten", "prim", "prims", "profiler")
"""Where torch's own operators come from, of which it is known what they do."""

_NEW = ("new_", "empty_like", "zeros_like", "ones_like", "full_like", "rand")
"""Operators that begin so take the shape of what they are given, and nothing of what it holds."""


class Operators(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that reads a parameter, and every product."""

    def __init__(
        self,
        named: dict[int, tuple[str, ...]],
        buffers: dict[int, tuple[str, bool]],
        record: Record,
        where: list[str],
        lengths: tuple[int, ...],
        sizes: dict[str, int],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.named, self.record, self.where, self.lengths = dict(named), record, where, lengths
        self.tokens = lengths[0]
        self.named |= {address: (name,) for address, (name, _) in buffers.items() if address not in named}
        self.main = dict(self.named)  # of what is computed of parameters alone, those that are the matrix, not its scales
        self.sizes = sizes
        self.buffers = {name for name, _ in buffers.values()}
        self.wide = {name for name, wide in buffers.values() if wide}
        self.values = Values()
        self.of_all: set[int] = set()  # addresses of what says whether all of something is true
        self.alive: list[torch.Tensor] = []  # no storage that is noted may be freed, or another takes its address
        self.chosen: dict[str, list[str]] = {}  # parameters that a module takes rows of by data
        self.choices = 0  # among how many the last choice of the largest was
        self.taken: dict[str, int] = {}  # how many rows each of these modules takes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace not in _OWN:
            raise UnsupportedModelError(
                f"{self.where[-1] or 'the module'} calls {func.namespace}::{func._opname}, an operator that is not torch's own, whose work is not known."
            )
        if func in _BY_MASK:
            args = self._places(args, every=func is torch.ops.aten.index.Tensor)
        out = self._answered(func, args) if func in _BY_DATA else func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        inputs = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        results = [leaf for leaf in torch.utils._pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        addresses = [address_of(tensor) for tensor in inputs]
        of = [self.named.get(address, ()) for address in addresses]
        if any(of) and not func.is_view and (not results or any(tensor.numel() for tensor in results)):
            self.record.used.update(*of)
        self._count(func, name, args, kwargs or {}, out)
        if name in _PRODUCTS:
            self._product(name, args, out)
        elif name == _GROUPED:
            self._grouped(args, kwargs or {}, out)
        elif name == "convolution":
            self._convolution(args, out)
        elif _FUSED.search(name):
            raise UnsupportedModelError(f"{self.where[-1] or 'the module'} calls aten::{name}, a product that is not read from code.")
        elif name in _RANKS:
            self.choices = args[0].shape[-1] if name == "topk" else self.choices
            self.record.ranks.add(self.where[-1])
        elif name in ("embedding", "embedding_bag"):
            self.record.embeddings.update(of[0])
            if self.values.of(args[1]) is not None:
                self.record.placed.update(of[0])
        elif name in ("index", "index_select", "gather") and of[0] and not all(of):
            self._gathered(self.main[addresses[0]], args[0], inputs[1:], out)
        if func not in _BY_DATA:
            self.values.follow(func, args, kwargs, inputs, results)
        if not all(of) and not name.startswith(_NEW):
            self._mixed(func, name, args, inputs, results)
        for tensor in results:
            address = address_of(tensor)
            self._laid(name, args, inputs, tensor)
            if not name.startswith(_NEW) and any(noted(given, "picked") for given in inputs):
                note(tensor, picked=True)
            if address in addresses:
                continue
            self.record.made[address] = self.where[-1]
            self.record.storages[address] = next(self.record.serial)
            (self.of_all.add if name in ("all", "_is_all_true") else self.of_all.discard)(address)
            if inputs and all(of) and name not in _PRODUCTS and not name.startswith(_NEW):  # a copy, a cast, a scale: still the parameter
                self._computed(name, tensor, addresses)
            elif name not in _PRODUCTS or not all(of):
                self.named.pop(address, None)
        return out

    def _computed(self, name: str, result: torch.Tensor, addresses: list[int]) -> None:
        """Note what is made of parameters alone, and which of them it holds: all that are joined, else those of the operand with the most elements."""
        address, held = address_of(result), [self.main[operand] for operand in addresses]
        self.named[address] = tuple(dict.fromkeys(made_of for operand in addresses for made_of in self.named[operand]))
        if name not in _JOINS:
            held = held[:1] if name in _CHOICES else [max(held, key=self._stored)]
        self.main[address] = tuple(dict.fromkeys(part for parts in held for part in parts))
        self.alive.append(result)

    def _stored(self, names: tuple[str, ...]) -> tuple[int, bool]:
        """Return how many elements these parameters or buffers have, and whether they are parameters."""
        return sum(self.sizes[name] for name in names), self.buffers.isdisjoint(names)

    def _count(self, func: Any, name: str, args: Any, kwargs: Any, out: Any) -> None:
        """Count the FLOP of any product by torch's own formulas, those of a matrix with a vector by ours."""
        formula = torch.utils.flop_counter.flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.record.flops[self.where[-1]] += int(formula(*args, **kwargs, out_val=out))
        elif name in _PRODUCTS:
            self.record.flops[self.where[-1]] += 2 * args[_PRODUCTS[name][0]].numel()
        elif name == _GROUPED:
            self.record.flops[self.where[-1]] += 2 * args[0].numel() * args[1].shape[-1]

    def _mixed(self, func: Any, name: str, args: Any, inputs: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """Count an operator that computes activations, and note whether one of their rows depends on others there."""
        if not any(tensor.is_floating_point() and self.values.of(tensor) is None for tensor in inputs):
            return
        path, given = self.where[-1], inputs[0]
        if not func.is_view and any(result.is_floating_point() or result.is_complex() for result in results):
            self.record.steps[path] += 1
        if name in _TRANSFORMS or (name in _RUNNING and given.shape[args[1]] in self.lengths):
            self.record.running.add(path)
        elif name in ("constant_pad_nd", "cat", "roll") and self._shifts(name, inputs, results[0], args):
            self.record.before.add(path)

    def _shifts(self, name: str, inputs: list[torch.Tensor], result: torch.Tensor, args: Any) -> bool:
        """Return whether an operator puts something before all tokens but the last, so that a token gets the row of another."""
        if name == "roll":
            return any(result.shape[dim] in self.lengths for dim in args[2:3] and args[2])
        if name == "constant_pad_nd":
            edges = {result.ndim - 1 - i: args[1][2 * i : 2 * i + 2] for i in range(len(args[1]) // 2)}
            return any(result.shape[dim] in self.lengths and before > 0 for dim, (before, _) in edges.items())
        dim = args[1] if len(args) > 1 else 0
        return result.shape[dim] in self.lengths and any(tensor.shape[dim] == result.shape[dim] - 1 for tensor in inputs[-1:])

    def _answered(self, func: Any, args: Any) -> Any:
        """Return an answer where the right one depends on data: everything is found, all of something is true, and any of it is not."""
        tensor = args[0]
        values = [self.values.of(arg) for arg in args if isinstance(arg, torch.Tensor)]
        if all(value is not None for value in values):
            answer = func(*values)
            return answer.to(tensor.device) if isinstance(answer, torch.Tensor) else answer
        if func is torch.ops.aten.nonzero.default:
            self.record.by_data.add(self.where[-1])
            return tensor.new_empty((tensor.numel(), tensor.ndim), dtype=torch.int64)
        if tensor.dtype is torch.bool or func is torch.ops.aten.equal.default:
            return address_of(tensor) in self.of_all
        return 0

    def _places(self, args: Any, *, every: bool) -> Any:
        """Return the arguments of an operator with masks as the places where they are true: everywhere, if `every`, where they depend on data."""
        given: list[torch.Tensor | None] = []
        for index in args[1]:
            masks = isinstance(index, torch.Tensor) and index.dtype is torch.bool and index.device.type == "meta"
            value = self.values.of(index) if masks else None
            if value is None and masks and every:
                everywhere = torch.empty(index.numel(), dtype=torch.int64, device="meta")
                note(everywhere, picked=True)
                given += [everywhere] * index.ndim
                continue
            if value is None:
                given.append(index)
                continue
            with torch._C._DisableTorchDispatch():
                places = value.nonzero(as_tuple=True)
            for place in places:
                made = torch.empty(place.shape, dtype=place.dtype, device="meta")
                note(made, value=place)
                given.append(made)
        return (args[0], given, *args[2:])

    def _laid(self, name: str, args: Any, inputs: list[torch.Tensor], result: torch.Tensor) -> None:
        """Note what lies over scores, how often a tensor repeats what it is made of, and what is made of experts that data chose."""
        if name in _PRODUCTS:
            return
        over = next((scores for tensor in inputs if (scores := scores_of(tensor)) is not None), None)
        if (
            over is not None
            and result.ndim
            and len(inputs) == 1
            and result.shape[-1] not in self.lengths
            and result.numel() == inputs[0].numel()
        ):
            note(result, scores=over.passed(name))
        elif over is not None and result.ndim and result.shape[-1] in self.lengths:
            laid = over.under(name, args, self.values, result.shape[-1], seen_of).passed(name)
            self.record.masked |= laid.hidden is not None
            note(result, scores=laid)
        if not inputs or not result.numel() or result is inputs[0]:
            return
        source = inputs[0]
        repeats = self._repeats(name, args, inputs, result)
        if repeats is None:
            return
        copies = repeats * noted(source, "copies", 1)
        if copies > 1 and result.numel() == repeats * source.numel():
            note(result, copies=copies)
        if result.numel() == source.numel():
            note(result, origin=self.record.identity(source))
        if noted(source, "chosen"):
            note(result, chosen=True)

    def _repeats(self, name: str, args: Any, inputs: list[torch.Tensor], result: torch.Tensor) -> int | None:
        """Return how often a result repeats every element of the one tensor that it is made of, None where it is made of several."""
        if name in ("index", "index_select"):
            given = args[1] if name == "index" else args[2:]
            chosen = [value for index in given if index is not None and (value := self.values.of(index)) is not None]
            if len(chosen) != 1 or len(inputs) != 2:
                return None
            with torch._C._DisableTorchDispatch():
                often = torch.unique(chosen[0], return_counts=True)[1]
                return int(often[0]) if bool((often == often[0]).all()) else None
        if name in ("cat", "stack") and len({self.record.identity(tensor) for tensor in inputs}) == 1:
            return len(inputs)
        if len(inputs) != 1:
            return None
        return result.numel() // inputs[0].numel() if name in ("expand", "repeat") and inputs[0].numel() else 1

    def _gathered(self, names: tuple[str, ...], table: torch.Tensor, indices: list[torch.Tensor], out: torch.Tensor) -> None:
        """Note that data chooses rows of a parameter: those of a table, or experts of a stack."""
        names = tuple(name for name in names if name not in self.buffers)
        if not names or any(self.values.of(index) is not None for index in indices):
            return
        if table.ndim > 2:
            self.taken.setdefault(self.where[-1], out.numel() // (table.numel() // table.shape[0]))
            note(out, chosen=True)
        elif self.where[-1] not in self.taken:
            self.record.embeddings.update(names)
        self.chosen.setdefault(self.where[-1], []).extend(names)

    def _grouped(self, args: Any, given: Any, out: torch.Tensor) -> None:
        """Note a product of rows with one expert of a stack each: of sorted rows, or of as many for every expert."""
        rows, stack = args[:2]
        offsets = args[2] if len(args) > 2 else given.get("offs")
        path = self.where[-1]
        if offsets is None and rows.ndim == stack.ndim == 3:
            self._product("bmm", args, out)
            return
        names = tuple(name for name in self.main.get(address_of(stack), ()) if name not in self.buffers)
        if rows.ndim != 2 or stack.ndim != 3 or address_of(stack) not in self.named or not names:
            raise UnsupportedModelError(f"{path or 'the module'} calls a grouped product that is not of rows with a stack of parameters.")
        self._check_rows(names[0], rows)
        if self.taken.setdefault(path, rows.shape[0]) != rows.shape[0]:
            raise UnsupportedModelError(f"{path or 'the module'} multiplies other numbers of rows with its stacks of matrices.")
        self.chosen.setdefault(path, []).extend(names)

    def _check_rows(self, name: str, *operands: torch.Tensor) -> None:
        """Refuse a product with a parameter of rows that data picked."""
        if any(noted(operand, "picked") for operand in operands):
            raise UnsupportedModelError(f"which rows {self.where[-1] or 'the module'} multiplies with {name} depends on their values.")

    def routed(self) -> None:
        """Note the calls of experts of which data chose as many for every token."""
        for path, rows in self.taken.items():
            if rows % self.tokens:
                raise UnsupportedModelError(
                    f"{path or 'the module'} takes {rows} matrices of its stacks for {self.tokens} tokens, not as many for each."
                )
            self.record.events.append(Routed(path, self.tokens, rows // self.tokens, 0, tuple(dict.fromkeys(self.chosen[path]))))

    def _product(self, name: str, args: Any, out: torch.Tensor) -> None:
        left, right = (args[place] for place in _PRODUCTS[name])
        inner, rows = left.shape[-1], left.numel() // max(left.shape[-1], 1)
        columns = right.shape[-1] if right.ndim > 1 else 1
        batch = left.shape[0] if left.ndim == 3 else 1
        names = [self.main.get(address, ()) if (address := address_of(operand)) in self.named else () for operand in (left, right)]
        held = [name for some in names for name in some]
        made_of = tuple(name for name in held if name not in self.buffers)
        if made_of:
            self._check_rows(made_of[0], left, right)
        if made_of:
            sizes = {operand.numel() // noted(operand, "copies", 1) for operand, some in zip((left, right), names, strict=True) if some}
            self.record.events.append(Product(self.where[-1], made_of, inner, 2 * rows * inner * columns, elements=max(sizes)))
            if all(names):  # a product of parameters: still a parameter
                self._computed(name, out, [address_of(left), address_of(right)])
            return
        if held and not all(names) and any(self.values.of(operand) is None for operand in (left, right)):
            wide = [name for name in held if name in self.wide]
            if wide:
                raise UnsupportedModelError(
                    f"{self.where[-1] or 'the module'} multiplies with {wide[0]}, a buffer: weights that are no parameters are not counted."
                )
        if any(names) or inner == 1:
            self.record.aside[self.where[-1]] += 2 * rows * inner * columns
            return
        if any(noted(operand, "chosen") for operand in (left, right)):
            return  # with the experts that data chose
        over = scores_of(left) or scores_of(right)
        if columns in self.lengths and inner not in self.lengths:
            made = Scores()
            if name == "baddbmm":
                marker = torch.empty((), device="meta")
                note(marker, scores=made)
                made = made.under(name, (marker, args[0]), self.values, columns, seen_of)
            self.record.masked |= made.hidden is not None
            note(out, scores=made)
        visible = over.visible if over is not None else None
        if over is not None and over.hidden is not None and visible is None and not over.cut:
            self.record.strange.add(self.where[-1])
        if over is not None and over.cut and visible is not None:
            self.record.assumed.add(self.where[-1])
        self.record.events.append(
            Contraction(
                self.where[-1],
                batch,
                rows // batch,
                inner,
                columns,
                noted(right, "copies", 1),
                visible,
                self.record.identity(right),
                over is None or over.weighed,
            )
        )

    def _convolution(self, args: Any, out: torch.Tensor) -> None:
        weight, groups, transposed = args[1], args[8], args[6]
        per = weight.numel() // weight.shape[0]
        flops = 2 * (args[0].numel() if transposed else out.numel()) * per
        names = self.named.get(address_of(weight), ())
        if weight.shape[-1] > 1 and args[0].ndim == 3:
            self.record.before.add(self.where[-1])
        if names:
            self.record.events.append(Product(self.where[-1], names, per, flops, depthwise=groups > 1 and groups == args[0].shape[1]))


_BY_DATA = (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)

_BY_MASK = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default)
