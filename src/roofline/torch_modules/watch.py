"""Running a module on torch's meta device and noting what it multiplies: parameters by name, attention as it is called, experts as they are routed."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from roofline.errors import UnsupportedModelError
from roofline.torch_modules.masks import Scores, added, of_function, of_mask, scores_of
from roofline.torch_modules.required import torch
from roofline.torch_modules.values import Values
from roofline.visibility import BIDIRECTIONAL, CAUSAL, Visibility

OWN = "roofline"
"""Name under which transformers knows the functions of this module while it watches [-]."""

_PRODUCTS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "mv": (0, 1), "dot": (0, 1), "addmv": (1, 2)}
"""Where the two operands of a product stand among an operator's arguments."""

_SMALL = 1 << 10
"""Elements of the largest mask of transformers that is computed beside the run [-]."""

_NEW = ("new_", "empty_like", "zeros_like", "ones_like", "full_like", "rand")
"""Operators that begin so take the shape of what they are given, and nothing of what it holds."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product of activations with a parameter: a linear map, or a convolution."""

    path: str  # the module that computes it
    parameters: tuple[str, ...]  # the parameters that the operand is made of
    inputs: int  # what is summed over
    flops: int  # multiplications and additions of the call [FLOP]
    depthwise: bool = False  # whether it is a convolution of every channel by itself


@dataclass(frozen=True, slots=True)
class Call:
    """A call of attention."""

    path: str  # the module that computes it
    heads: int  # query heads
    kv_heads: int  # key-value heads
    qk_dim: int  # width of a query or key head
    v_dim: int  # width of a value head
    queries: int  # rows of queries
    keys: int  # rows of keys
    visible: Visibility | None  # which positions a token attends to, None where the call does not say
    sinks: bool = False  # whether heads have learned sinks

    @property
    def flops(self) -> int:
        """FLOP of both products with all keys [FLOP]."""
        return 2 * self.heads * (self.qk_dim + self.v_dim) * self.queries * self.keys


@dataclass(frozen=True, slots=True)
class Contraction:
    """A product of activations with activations."""

    path: str  # the module that computes it
    batch: int  # independent products
    rows: int  # rows of the result
    inner: int  # what is summed over
    columns: int  # columns of the result
    copies: int = 1  # how often each element of the second operand was repeated
    visible: Visibility | None = None  # which positions a token attends to where the first operand are scores, None where it is not known

    @property
    def flops(self) -> int:
        """FLOP [FLOP]."""
        return 2 * self.batch * self.rows * self.inner * self.columns


@dataclass(frozen=True, slots=True)
class Routed:
    """A call of stacked experts."""

    path: str  # the module that holds them
    rows: int  # tokens that come in
    top_k: int  # experts that one of them visits
    width: int  # elements of a token
    stacks: tuple[str, ...] = ()  # the parameters that experts are taken of, empty for all of the module's
    choices: int = 0  # among how many it chose, which may be more than there are experts; 0 where that was not seen


@dataclass
class Record:
    """What one run did."""

    events: list[Product | Call | Contraction | Routed] = field(default_factory=list)  # in the order in which they came
    runs: Counter[str] = field(default_factory=Counter)  # how often each module ran
    embeddings: set[str] = field(default_factory=set)  # parameters that rows are looked up in
    placed: set[str] = field(default_factory=set)  # those of them whose rows depend on positions alone
    used: set[str] = field(default_factory=set)  # parameters that any operator read
    by_data: set[str] = field(default_factory=set)  # modules that ask which elements are not zero
    masked: bool = False  # whether masks were read by their values
    assumed: set[str] = field(default_factory=set)  # modules whose mask depends on more than indices
    made: dict[int, str] = field(default_factory=dict)  # the module that made a tensor, by the address of its storage
    outputs: Any = None  # what the module returned
    states: dict[str, torch.Tensor] = field(default_factory=dict)  # what modules hold as attributes that are called states


def address_of(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage, which views share."""
    return int(tensor.untyped_storage()._cdata)


class _Operators(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that reads a parameter, and every product."""

    def __init__(
        self, named: dict[int, tuple[str, ...]], buffers: dict[int, tuple[str, bool]], record: Record, where: list[str], tokens: int
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.named, self.record, self.where, self.tokens = dict(named), record, where, tokens
        self.named |= {address: (name,) for address, (name, _) in buffers.items() if address not in named}
        self.buffers = {name for name, _ in buffers.values()}
        self.wide = {name for name, wide in buffers.values() if wide}
        self.values = Values()
        self.of_all: set[int] = set()  # addresses of what says whether all of something is true
        self.alive: list[torch.Tensor] = []  # no storage that is noted may be freed, or another takes its address
        self.chosen: dict[str, list[str]] = {}  # parameters that a module takes rows of by data
        self.choices = 0  # among how many the last choice of the largest was
        self.taken: dict[str, int] = {}  # how many rows each of these modules takes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _BY_MASK:
            args = self._places(args)
        out = self._answered(func, args) if func in _BY_DATA else func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        inputs = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        results = [leaf for leaf in torch.utils._pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        addresses = [address_of(tensor) for tensor in inputs]
        of = [self.named.get(address, ()) for address in addresses]
        if any(of) and not func.is_view and (not results or any(tensor.numel() for tensor in results)):
            self.record.used.update(*of)
        if name in _PRODUCTS:
            self._product(name, args, out)
        elif name == "convolution":
            self._convolution(args, out)
        elif name == "topk":
            self.choices = args[0].shape[-1]
        elif name in ("embedding", "embedding_bag"):
            self.record.embeddings.update(of[0])
            if self.values.of(args[1]) is not None:
                self.record.placed.update(of[0])
        elif name in ("index", "index_select", "gather") and of[0] and not all(of):
            self._gathered(of[0], args[0], inputs[1:], out)
        if func not in _BY_DATA:
            self.values.follow(func, args, kwargs, inputs, results)
        for tensor in results:
            address = address_of(tensor)
            self._laid(name, args, inputs, tensor)
            if address in addresses:
                continue
            self.record.made[address] = self.where[-1]
            (self.of_all.add if name in ("all", "_is_all_true") else self.of_all.discard)(address)
            if inputs and all(of) and name not in _PRODUCTS and not name.startswith(_NEW):  # a copy, a cast, a scale: still the parameter
                self.named[address] = tuple(dict.fromkeys(name for names in of for name in names))
                self.alive.append(tensor)
            elif name not in _PRODUCTS or not all(of):
                self.named.pop(address, None)
        return out

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

    def _places(self, args: Any) -> Any:
        """Return the arguments of an operator with masks of known values as the places where they are true."""
        given: list[torch.Tensor | None] = []
        for index in args[1]:
            masks = isinstance(index, torch.Tensor) and index.dtype is torch.bool and index.device.type == "meta"
            value = self.values.of(index) if masks else None
            if value is None:
                given.append(index)
                continue
            with torch._C._DisableTorchDispatch():
                places = value.nonzero(as_tuple=True)
            for place in places:
                made = torch.empty(place.shape, dtype=place.dtype, device="meta")
                made._roofline_value = place  # type: ignore[attr-defined]
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
            and result.shape[-1] != self.tokens
            and result.numel() == inputs[0].numel()
        ):
            result._roofline_scores = over  # type: ignore[attr-defined]
        elif over is not None and result.ndim and result.shape[-1] == self.tokens:
            laid = over.under(name, args, self.values, self.tokens, seen_of)
            self.record.masked |= laid.hidden is not None
            result._roofline_scores = laid  # type: ignore[attr-defined]
        if len(inputs) != 1 or not result.numel() or result is inputs[0]:
            return
        (source,) = inputs
        repeats = result.numel() // source.numel() if name in ("expand", "repeat") and source.numel() else 1
        copies = repeats * _copies(source)
        if copies > 1 and result.numel() == repeats * source.numel():
            result._roofline_copies = copies  # type: ignore[attr-defined]
        if getattr(source, "_roofline_chosen", False):
            result._roofline_chosen = True  # type: ignore[attr-defined]

    def _gathered(self, names: tuple[str, ...], table: torch.Tensor, indices: list[torch.Tensor], out: torch.Tensor) -> None:
        """Note that data chooses rows of a parameter: those of a table, or experts of a stack."""
        names = tuple(name for name in names if name not in self.buffers)
        if not names or any(self.values.of(index) is not None for index in indices):
            return
        if table.ndim > 2:
            self.taken.setdefault(self.where[-1], out.numel() // (table.numel() // table.shape[0]))
            out._roofline_chosen = True  # type: ignore[attr-defined]
        elif self.where[-1] not in self.taken:
            self.record.embeddings.update(names)
        self.chosen.setdefault(self.where[-1], []).extend(names)

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
        names = [self.named.get(address_of(operand), ()) for operand in (left, right)]
        made_of = tuple(name for some in names for name in some if name not in self.buffers)
        if made_of:
            self.record.events.append(Product(self.where[-1], made_of, inner, 2 * rows * inner * columns))
            if all(names):  # a product of parameters: still a parameter
                self.named[address_of(out)] = made_of
                self.alive.append(out)
            return
        held = [name for some in names for name in some]
        if held and not all(names) and any(self.values.of(operand) is None for operand in (left, right)):
            wide = [name for name in held if name in self.wide]
            if wide:
                raise UnsupportedModelError(
                    f"{self.where[-1] or 'the module'} multiplies with {wide[0]}, a buffer: weights that are no parameters are not counted."
                )
        if any(names):
            return
        if any(getattr(operand, "_roofline_chosen", False) for operand in (left, right)):
            return  # with the experts that data chose
        over = scores_of(left) or scores_of(right)
        if columns == self.tokens and inner != self.tokens:
            made = Scores()
            if name == "baddbmm":
                marker = torch.empty((), device="meta")
                marker._roofline_scores = made  # type: ignore[attr-defined]
                made = made.under(name, (marker, args[0]), self.values, self.tokens, seen_of)
            self.record.masked |= made.hidden is not None
            out._roofline_scores = made  # type: ignore[attr-defined]
        visible = over.visible if over is not None else None
        if over is not None and over.cut and visible is not None:
            self.record.assumed.add(self.where[-1])
        self.record.events.append(Contraction(self.where[-1], batch, rows // batch, inner, columns, _copies(right), visible))

    def _convolution(self, args: Any, out: torch.Tensor) -> None:
        weight, groups, transposed = args[1], args[8], args[6]
        per = weight.numel() // weight.shape[0]
        flops = 2 * (args[0].numel() if transposed else out.numel()) * per
        names = self.named.get(address_of(weight), ())
        if names:
            self.record.events.append(Product(self.where[-1], names, per, flops, depthwise=groups > 1 and groups == args[0].shape[1]))


_BY_DATA = (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)

_BY_MASK = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default)


def _copies(tensor: torch.Tensor) -> int:
    """Return how often a tensor holds every element of what it was made of."""
    return getattr(tensor, "_roofline_copies", 1)


class _Functions(torch.overrides.TorchFunctionMode):
    """Notes calls of torch's own fused attention, and answers for it."""

    def __init__(self, record: Record, where: list[str], values: Values) -> None:
        super().__init__()
        self.record, self.where, self.values = record, where, values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.repeat_interleave, torch.Tensor.repeat_interleave):
            return _repeated(func, args, kwargs or {})
        if func in (torch.tensor, torch.as_tensor):
            return self._made(func, args, kwargs or {})
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | (kwargs or {})
        query, key, value = given["query"], given["key"], given["value"]
        mask = given.get("attn_mask")
        visible: Visibility | None = CAUSAL if given.get("is_causal") else BIDIRECTIONAL
        if mask is not None:
            visible = seen_of(mask)
            held = self.values.of(mask)
            if held is not None:
                self.record.masked = True
                with torch._C._DisableTorchDispatch():
                    visible = of_mask(held)
        self.record.events.append(attention_call(self.where[-1], query, key, value, visible))
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    def _made(self, func: Any, args: Any, given: dict[str, Any]) -> Any:
        """Return a tensor made of numbers, with their value."""
        made = func(*args, **given)
        if made.device.type == "meta" and not isinstance(args[0] if args else given["data"], torch.Tensor):
            with torch._C._DisableTorchDispatch():
                made._roofline_value = func(*args, **given | {"device": "cpu"})
        return made


def _repeated(func: Any, args: Any, given: dict[str, Any]) -> Any:
    """Return elements that are each repeated so many times, without asking a tensor how often."""
    named: dict[str, Any] = dict(zip(("input", "repeats", "dim"), args, strict=False)) | given
    tensor, repeats, dim = named.get("input"), named.get("repeats"), named.get("dim")
    if not isinstance(tensor, torch.Tensor) or not isinstance(repeats, int) or not isinstance(dim, int):
        return func(*args, **given)
    at = dim % tensor.ndim
    return tensor.unsqueeze(at + 1).expand(*tensor.shape[: at + 1], repeats, *tensor.shape[at + 1 :]).flatten(at, at + 1)


def attention_call(
    path: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: Visibility | None, sinks: bool = False
) -> Call:
    """Return the call of attention on tensors of (…, heads, rows, width)."""
    heads, kv_heads = (tensor.shape[-3] if tensor.ndim > 3 else tensor.shape[0] for tensor in (query, key))
    kv_heads = max(kv_heads // _copies(key), 1)
    return Call(path, heads, kv_heads, query.shape[-1], value.shape[-1], query.shape[-2], key.shape[-2], visible, sinks)


def _of_each(call: Call, names: tuple[str, ...]) -> list[Product | Call | Contraction | Routed]:
    """Return the products of a call of attention that each token makes for itself over a few vectors of its own; queries may be parameters."""
    scores = Contraction(call.path, call.heads, call.queries, call.qk_dim, call.keys)
    values = Contraction(call.path, call.heads, call.queries, call.keys, call.v_dim)
    return [Product(call.path, names, call.qk_dim, scores.flops) if names else scores, values]


_SEEN: dict[int, tuple[torch.Tensor, Visibility | None]] = {}


def seen_of(mask: Any) -> Visibility | None:
    """Return what a mask lets a token see, where it is one that the mask function of this module made."""
    found = _SEEN.get(address_of(mask)) if isinstance(mask, torch.Tensor) else None
    return None if found is None else found[1]


@contextmanager
def _transformers(record: Record, where: list[str], module: torch.nn.Module, operators: _Operators) -> Iterator[None]:
    """Have transformers call this module's functions for attention, masks and experts."""
    configs = {id(c): c for m in module.modules() if (c := getattr(m, "config", None)) is not None and hasattr(c, "_attn_implementation")}
    if not configs:
        yield
        return
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(owner: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        causal = kwargs.get("is_causal")
        causal = getattr(owner, "is_causal", True) if causal is None else causal
        visible = seen_of(attention_mask)
        if visible is None and isinstance(attention_mask, torch.Tensor):
            held = operators.values.of(attention_mask)
            with torch._C._DisableTorchDispatch():
                visible = None if held is None else of_mask(held)
            if visible is None:
                record.assumed.add(where[-1])
        if visible is None:
            visible = CAUSAL if causal else Visibility("bidirectional")
        window = kwargs.get("sliding_window")
        if isinstance(window, int) and visible == CAUSAL:
            visible = Visibility("window", window)
        sinks = any(kwargs.get(name) is not None for name in ("s_aux", "sinks"))
        record.used.update(
            name for value in kwargs.values() if isinstance(value, torch.Tensor) for name in operators.named.get(address_of(value), ())
        )
        call = attention_call(where[-1], query, key, value, visible, sinks)
        each = call.queries % operators.tokens and call.heads % operators.tokens == 0
        record.events += _of_each(call, operators.named.get(address_of(query), ())) if each else [call]
        return query.new_empty((query.shape[0], query.shape[2], query.shape[1], value.shape[-1])), None

    def mask(batch_size: int, q_length: int, kv_length: int, mask_function: Any = None, dtype: Any = torch.float32, **kwargs: Any) -> Any:
        made = torch.empty((batch_size, 1, q_length, kv_length), dtype=dtype, device="meta")
        with torch._C._DisableTorchDispatch():
            _SEEN[address_of(made)] = (made, of_function(mask_function) if mask_function is not None else CAUSAL)
            if q_length * kv_length <= _SMALL and made.is_floating_point() and mask_function is not None:
                value = added(mask_function, q_length, kv_length, dtype)
                if value is not None:
                    made._roofline_value = value  # type: ignore[attr-defined]
        return made

    def experts(owner: Any, hidden_states: Any, top_k_index: Any, top_k_weights: Any = None, *args: Any, **kwargs: Any) -> Any:
        rows = hidden_states.numel() // hidden_states.shape[-1]
        record.used.update(name for held in owner.parameters() for name in operators.named.get(address_of(held), ()))
        record.events.append(Routed(where[-1], rows, top_k_index.numel() // max(rows, 1), hidden_states.shape[-1], (), operators.choices))
        return torch.empty_like(hidden_states)

    tables: tuple[tuple[Any, Callable[..., Any]], ...] = (
        (ALL_ATTENTION_FUNCTIONS, attention),
        (ALL_MASK_ATTENTION_FUNCTIONS, mask),
        (ALL_EXPERTS_FUNCTIONS, experts),
    )
    before = [(c, c._attn_implementation, getattr(c, "_experts_implementation", None)) for c in configs.values()]
    try:
        for table, function in tables:
            table._global_mapping[OWN] = function
        for config in configs.values():
            config._attn_implementation_internal = OWN
            config._experts_implementation_internal = OWN
        yield
    finally:
        for config, attn, routed in before:
            config._attn_implementation_internal, config._experts_implementation_internal = attn, routed
        for table, _ in tables:
            table._global_mapping.pop(OWN, None)
        _SEEN.clear()


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
    tokens: int,
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
    tokens : int
        Tokens that they hold.

    Returns
    -------
    Record
        What it did.
    """
    record, where = Record(), [""]
    with ExitStack() as stack:
        operators = _Operators(named, buffers, record, where, tokens)
        stack.enter_context(torch.no_grad())
        stack.enter_context(_transformers(record, where, module, operators))
        stack.enter_context(_paths(module, record, where))
        stack.enter_context(_Functions(record, where, operators.values))
        stack.enter_context(operators)
        record.outputs = module(*positional, **inputs)
        operators.routed()
    for path, inner in module.named_modules():
        for name, held in {**vars(inner), **inner._buffers}.items():
            if "state" in name and isinstance(held, torch.Tensor) and address_of(held) in record.made:
                record.states[f"{path}.{name}"] = held
    return record
