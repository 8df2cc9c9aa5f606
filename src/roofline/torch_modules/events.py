"""What a run of a module did: products with parameters, calls of attention, products of activations, calls of experts."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from roofline.errors import UnsupportedModelError
from roofline.torch_modules.notes import Identity, address_of, noted
from roofline.torch_modules.required import torch
from roofline.visibility import Visibility


@dataclass(frozen=True, slots=True)
class Product:
    """A product of activations with a parameter: a linear map, or a convolution."""

    path: str  # the module that computes it
    parameters: tuple[str, ...]  # the parameters that the operand is made of
    inputs: int  # what is summed over
    flops: int  # multiplications and additions of the call [FLOP]
    depthwise: bool = False  # whether it is a convolution of every channel by itself
    elements: int = 0  # of the matrix, which parameters that several weights are packed into have fewer of; 0 for a convolution


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
    held: tuple[Identity, ...] = ()  # what its keys and its values are made of
    weighed: bool = True  # whether a softmax, or another function that is not linear, stands between its two products

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
    held: Identity | None = None  # what the second operand is made of
    weighed: bool = True  # where the first operand are scores, whether they passed a softmax or another function that is not linear

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
    flops: Counter[str] = field(default_factory=Counter)  # FLOP of all products, by the module that computes them, whatever is made of them
    aside: Counter[str] = field(
        default_factory=Counter
    )  # FLOP of those that are no work of a model: of tables of positions, outer products
    runs: Counter[str] = field(default_factory=Counter)  # how often each module ran
    embeddings: set[str] = field(default_factory=set)  # parameters that rows are looked up in
    placed: set[str] = field(default_factory=set)  # those of them whose rows depend on positions alone
    used: set[str] = field(default_factory=set)  # parameters that any operator read
    by_data: set[str] = field(default_factory=set)  # modules that ask which elements are not zero
    ranks: set[str] = field(default_factory=set)  # modules that ask which of several are the largest
    masked: bool = False  # whether masks were read by their values
    assumed: set[str] = field(default_factory=set)  # modules whose mask depends on more than indices
    strange: set[str] = field(default_factory=set)  # modules whose mask has values that are known, and of no kind that is
    made: dict[int, str] = field(default_factory=dict)  # the module that made a tensor, by the address of its storage
    outputs: Any = None  # what the module returned
    storages: dict[int, int] = field(default_factory=dict)  # which of the run's storages is at an address
    serial: Iterator[int] = field(default_factory=count)  # numbers of storages, of which addresses are used again
    states: dict[str, torch.Tensor] = field(default_factory=dict)  # what modules hold as attributes that are called states
    steps: Counter[str] = field(default_factory=Counter)  # how many operators of a module compute activations
    running: set[str] = field(default_factory=set)  # modules with an operator that runs over the tokens, as a cumulative sum does
    before: set[str] = field(default_factory=set)  # modules that read a fixed number of rows before a token, by a convolution or a shift

    def identity(self, tensor: torch.Tensor) -> Identity:
        """Return what tensors have in common that are the same elements, or made of the same elements one by one."""
        address = address_of(tensor)
        found: Identity | None = noted(tensor, "origin")
        return found or (self.storages.get(address, address), int(tensor.storage_offset()), tuple(tensor.shape))

    def attention_call(
        self, path: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: Visibility | None, *, sinks: bool = False
    ) -> Call:
        """Return the call of attention on tensors of (…, heads, rows, width)."""
        heads, kv_heads = (tensor.shape[-3] if tensor.ndim > 3 else tensor.shape[0] for tensor in (query, key))
        if max(heads, kv_heads) % max(min(heads, kv_heads), 1):
            raise UnsupportedModelError(
                f"{heads} attention heads of {path or 'the module'} are not a multiple of {kv_heads} key-value heads."
            )
        kv_heads = max(
            kv_heads // max(noted(tensor, "copies", 1) for tensor in (key, value)), 1
        )  # keys may be rotated after they are repeated
        held = (self.identity(key), self.identity(value))
        return Call(path, heads, kv_heads, query.shape[-1], value.shape[-1], query.shape[-2], key.shape[-2], visible, sinks, held)

    def called(self, call: Call, events: list[Product | Call | Contraction | Routed]) -> None:
        """Note a call of attention that is answered for, so that no operator of it is seen, as what it was."""
        self.events += events
        self.flops[call.path] += call.flops


def of_each(call: Call, names: tuple[str, ...]) -> list[Product | Call | Contraction | Routed]:
    """Return the products of a call of attention that each token makes for itself over a few vectors of its own; queries may be parameters."""
    scores = Contraction(call.path, call.heads, call.queries, call.qk_dim, call.keys)
    values = Contraction(call.path, call.heads, call.queries, call.keys, call.v_dim)
    return [Product(call.path, names, call.qk_dim, scores.flops) if names else scores, values]
