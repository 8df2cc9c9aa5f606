"""What every parameter of a module costs a token, and where the module's layers are: two runs of different lengths, side by side."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import groupby

from roofline.errors import UnsupportedModelError
from roofline.torch_modules.events import Call, Contraction, Product, Record, Routed
from roofline.torch_modules.kept import Kept, kept
from roofline.torch_modules.required import torch
from roofline.visibility import CAUSAL, Visibility

_FORMATS = dict.fromkeys((torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz), "fp8_a16")
_FORMATS |= dict.fromkeys((torch.int8, torch.uint8), "int8_a16") | {torch.int32: "fp32_a16"}
"""Formats with as many bits as what a module holds weights in to compute with 16 of them, of several in one element those of the element."""

FLOATS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
"""Formats that a module computes in."""


@dataclass
class Weight:
    """A parameter, and what a token multiplies with it in one place."""

    name: str  # the first of its names
    shape: tuple[int, ...]  # its dimensions
    path: str = ""  # the module that multiplies with it
    inputs: int = 0  # what is summed over, 0 where nothing is multiplied with it
    token_flops: Fraction = Fraction(0)  # FLOP of a token
    once_flops: Fraction = Fraction(0)  # FLOP however many tokens there are
    depthwise: bool = False  # whether it is a convolution of every channel by itself
    format: str = ""  # that of its elements where it is not the module's own

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Outputs of the matrix, 0 where it is none."""
        return self.size // self.inputs if self.inputs and self.size % self.inputs == 0 else 0

    @property
    def uses(self) -> int:
        """How often a token passes all of it, 0 where that is not a whole number of times."""
        times = self.token_flops / (2 * self.size) if self.size else Fraction(0)
        return 0 if times.denominator > 1 or self.depthwise or not self.outputs else int(times)

    @property
    def part(self) -> "Weight | None":
        """The rows of a matrix that a token passes, where it passes some of them once and never the others."""
        if len(self.shape) != 2 or self.depthwise or not self.outputs:
            return None
        rows = self.token_flops / (2 * self.inputs)
        return replace(self, shape=(int(rows), self.inputs)) if 0 < rows < self.outputs and rows.denominator == 1 else None

    @property
    def last_only(self) -> bool:
        """Whether one row of a sequence passes all of it, however many tokens there are: a head on the last."""
        return not self.token_flops and self.once_flops == 2 * self.size > 0 and bool(self.outputs)

    @property
    def leaf(self) -> str:
        """Its name without the word that all weights end with."""
        return self.name.removesuffix(".weight")


@dataclass
class Cost:
    """FLOP with one parameter in one module, in the shorter and in the longer run."""

    inputs: int
    depthwise: bool
    flops: list[Fraction]


@dataclass
class Tally:
    """A module's two runs."""

    module: torch.nn.Module
    shapes: dict[str, tuple[int, ...]]  # every parameter by the first of its names
    aliases: dict[str, str]  # the first name of every name
    costs: dict[str, dict[str, Cost]]  # of every parameter that is multiplied with, by the module that does
    lengths: tuple[int, int]  # tokens of the two runs
    events: list[Product | Call | Routed]  # what the longer run did, in order, attention of its own put together
    kept: tuple[Kept, ...]
    runs: Counter[str]  # how often each module ran
    used: set[str]
    embeddings: set[str]
    placed: set[str]  # those of them whose rows depend on positions alone
    layers: list[str] = field(default_factory=list)  # paths of the layers, first to last
    ranks: set[str] = field(default_factory=set)  # modules that ask which of several are the largest
    relative: list[str] = field(default_factory=list)  # parameters that distances between positions are multiplied with, not tokens
    assumed: list[str] = field(default_factory=list)  # modules whose masks do not say what a token sees
    attention: tuple[int, ...] = ()  # of both runs, FLOP of attention with all keys, whatever masks hide
    left: tuple[list[Contraction], ...] = ()  # of both runs, products of activations outside attention
    usual: torch.dtype | None = None  # that of most matrices; None where parameters of 16 bits and of 32 are not told apart

    def layer_of(self, path: str) -> str | None:
        """Return the layer that a module is in, None where it is in none."""
        return next((layer for layer in self.layers if inside(path, layer)), None)

    def weight(self, name: str, within: str = "", times: int = 1) -> Weight:
        """Return a parameter with what a token multiplies with it inside a module, which runs so many times."""
        dtype = self.module.get_parameter(name).dtype
        other = FLOATS.get(dtype, "") if self.usual not in (None, dtype) else ""
        weight = Weight(name, self.shapes[name], format=_FORMATS.get(dtype, other))
        for path, cost in self.costs.get(name, {}).items():
            if inside(path, within):
                slope = (cost.flops[1] - cost.flops[0]) / (self.lengths[1] - self.lengths[0])
                weight.token_flops += slope / times
                weight.once_flops += (cost.flops[1] - slope * self.lengths[1]) / times
                weight.path, weight.inputs, weight.depthwise = path, cost.inputs, cost.depthwise
        return weight


def take(
    module: torch.nn.Module,
    records: tuple[Record, Record],
    lengths: tuple[int, int],
    visible: Visibility | None,
    further: tuple[Record, int] | None,
    source: int = 0,
) -> Tally:
    """Return what two runs of a module tell; `visible` is taken where a mask does not say what a token sees, `further` is a longer run.

    `source` are the other rows that attention of the longer run may have, where it has two stacks.
    """
    aliases: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    first: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        aliases[name] = first.setdefault(id(parameter), name)
        shapes.setdefault(aliases[name], tuple(parameter.shape))
    routing = next((path for path in sorted(records[1].by_data) if any(_multiplies(event, path) for event in records[1].events)), None)
    if routing is not None:
        raise UnsupportedModelError(
            f"which rows {routing} multiplies with which matrices depends on their values, and transformers is not asked to route them."
        )
    costs: dict[str, dict[str, Cost]] = {}
    for run, record in enumerate(records):
        for event in record.events:
            if isinstance(event, Product):
                _charge(costs, event, shapes, run)
    tally = Tally(
        module,
        shapes,
        aliases,
        costs,
        lengths,
        [],
        kept(module, records, lengths),
        records[1].runs,
        records[1].used,
        records[1].embeddings,
        records[1].placed,
    )
    tally.ranks = records[1].ranks
    tally.relative = _relative(tally)
    _check_same(tally, records)
    fixed, growing = ({held.path for held in tally.kept if bool(held.row) is grows} for grows in (False, True))
    states = frozenset() if source else frozenset(fixed - growing)  # beside a source, keys that do not grow are its own
    attended = [
        _attended(record, (length, source) if source else (length,), states) for record, length in zip(records, lengths, strict=True)
    ]
    tally.events, tally.left = attended[1][0], tuple(left for _, left in attended)
    tally.attention = tuple(sum(event.flops for event in events if isinstance(event, Call)) for events, _ in attended)
    if not source and own_code(module):
        _check_memories(attended[0][0], attended[1][0])
    if further is not None:
        tally.events = _longer(tally.events, states, *further)
    strange = records[1].strange | (further[0].strange if further is not None else set())
    tally.events = _whole(_told(tally, visible, records[1], strange))
    tally.layers = _layers(tally)
    tally.events = _placed(tally)
    tally.kept = _spread(tally)
    return tally


def _check_memories(short: list[Product | Call | Routed], long: list[Product | Call | Routed]) -> None:
    """Refuse attention of all tokens over rows whose number is given, which are no tokens of the sequence."""
    calls = ([event for event in events if isinstance(event, Call)] for events in (short, long))
    for before, after in zip(*calls, strict=False):
        more = after.queries - before.queries
        if more > 0 and after.keys - before.keys not in (0, more):
            raise UnsupportedModelError(
                f"attention in {after.path or 'the module'} of {before.queries} and {after.queries} tokens reads {before.keys} and {after.keys} rows, "
                "not one for each token, which is read only where a cache of transformers keeps them."
            )
        if before.keys == after.keys and more > 0:
            raise UnsupportedModelError(
                f"attention in {after.path or 'the module'} reads {after.keys} rows however many tokens there are: "
                "a memory beside the sequence, as in cross-attention, is read only of encoder–decoders of transformers."
            )


def _placed(tally: Tally) -> list[Product | Call | Routed]:
    """Return the events with attention that the code around the layers calls in the layer that multiplied with parameters last before it."""
    placed: list[Product | Call | Routed] = []
    last = ""
    for event in tally.events:
        within = tally.layer_of(event.path) or ""
        if isinstance(event, Product):
            last = within
        placed.append(replace(event, path=last) if isinstance(event, Call) and not within and last else event)
    return placed


def _multiplies(event: object, path: str) -> bool:
    """Return whether an event is a product with a parameter inside a module."""
    return isinstance(event, Product) and bool(path) and inside(event.path, path)


def _charge(costs: dict[str, dict[str, Cost]], event: Product, shapes: dict[str, tuple[int, ...]], run: int) -> None:
    """Charge a product to the parameters that its operand is made of, by their elements."""
    whole = sum(math.prod(shapes[name]) for name in event.parameters)
    if event.elements > whole and event.elements % whole:
        raise UnsupportedModelError(
            f"{event.path or 'the module'} multiplies with {event.elements:,} elements made of {event.parameters[0]}, "
            f"which has {whole:,}: not as many of each."
        )
    for name in event.parameters:
        size, inputs = math.prod(shapes[name]), event.inputs
        if size % inputs and size * inputs % whole == 0:  # one of several that are joined along what is summed over
            inputs = size * inputs // whole
        cost = costs.setdefault(name, {}).setdefault(event.path, Cost(inputs, event.depthwise, [Fraction(0), Fraction(0)]))
        cost.flops[run] += Fraction(event.flops * size, whole)


def _generates(module: torch.nn.Module) -> bool:
    """Return whether a class of transformers makes text from left to right, by its name, and has no switch for it."""
    switch = getattr(getattr(module, "config", None), "is_decoder", None)
    return switch is None and type(module).__name__.endswith(("ForCausalLM", "LMHeadModel"))


def _relative(tally: Tally) -> list[str]:
    """Return the matrices that every distance between two positions passes, 2L − 1 of L, and take them as used by no token: sequences share the result."""
    weights = [weight for weight in map(tally.weight, tally.costs) if weight.outputs and len(weight.shape) == 2]
    found = [w.name for w in weights if w.token_flops == -2 * w.once_flops == 4 * w.size]
    for name in found:
        del tally.costs[name]
    return found


def _check_same(tally: Tally, records: tuple[Record, Record]) -> None:
    """Refuse a module that does other things with more tokens, or works on positions of no fixed number for each token."""
    short, long = ({(event.path, event.parameters) for event in record.events if isinstance(event, Product)} for record in records)
    other = sorted(path for path, _ in short ^ long)
    cost = {name: tally.weight(name) for name in tally.costs}
    less = [weight.path for weight in cost.values() if weight.once_flops < 0 and len(weight.shape) == 2]
    if different := (*other, *less):
        raise UnsupportedModelError(
            f"what {different[0] or 'the module'} multiplies with its parameters is not the same for {tally.lengths[0]} and for {tally.lengths[1]} tokens: "
            "its code depends on their number."
        )
    partly = [
        weight
        for name, weight in cost.items()
        if (weight.token_flops / (2 * max(weight.size, 1))).denominator > 1
        and weight.part is None
        and not weight.once_flops
        and _cut(records[1], name)
    ]
    if partly:
        raise UnsupportedModelError(
            f"{partly[0].path or 'the module'} multiplies with a part of {partly[0].name}, which is not read from code."
        )
    fewer = [
        w.path
        for w in cost.values()
        if len(w.shape) == 2 and w.token_flops and w.once_flops and (w.token_flops / (2 * w.size)).denominator > 1
    ]
    if fewer:
        raise UnsupportedModelError(
            f"{fewer[0]} does not work on so many positions for each token: its code shortens the sequence or works on positions of its own."
        )


def _cut(record: Record, name: str) -> bool:
    """Return whether a product has fewer elements of a parameter than it has."""
    return any(isinstance(event, Product) and event.elements and name in event.parameters for event in record.events)


def own_code(module: torch.nn.Module) -> bool:
    """Return whether a module is not made of transformers' classes, which say whether they look ahead."""
    return not any(hasattr(getattr(inner, "config", None), "_attn_implementation") for inner in module.modules())


def _told(tally: Tally, visible: Visibility | None, record: Record, strange: set[str]) -> list[Product | Call | Routed]:
    """Return the events with what is taken of attention whose mask does not say what a token sees."""
    unknown = [event for event in tally.events if isinstance(event, Call) and event.visible is None]
    tally.assumed = sorted(record.assumed)
    if not unknown:
        return tally.events
    if visible is None and own_code(tally.module) and not tally.kept:
        why = "depends on data, on a parameter, or on a buffer of the meta device"
        if unknown[0].path in strange:
            why = (
                "lets a token see neither all that came before, nor a window or a chunk of it, nor everything "
                "(a prefix, sinks beside a window, strides), which is not modelled"
            )
        raise UnsupportedModelError(
            f'the mask of {unknown[0].path or "the module"} {why}; visible= says what to take it for: "causal" or "bidirectional".'
        )
    if visible is None:
        tally.assumed = sorted({*record.assumed, *(event.path for event in unknown)})
        visible = CAUSAL if not tally.kept and _generates(tally.module) else None
    return [replace(event, visible=visible) if event in unknown else event for event in tally.events]


def _longer(events: list[Product | Call | Routed], states: frozenset[str], further: Record, length: int) -> list[Product | Call | Routed]:
    """Return the events of a run, with what a token sees in a longer run of the same module."""
    seen = iter([event for event in _attended(further, (length,), states)[0] if isinstance(event, Call)])
    return [replace(event, visible=next(seen).visible) if isinstance(event, Call) else event for event in events]


def _attended(record: Record, lengths: tuple[int, ...], states: frozenset[str]) -> tuple[list[Product | Call | Routed], list[Contraction]]:
    """Return a run's events with its own attention, a product for scores and one with values in one module or in two of the same, as a call.

    And other products of activations, those of modules that keep a state instead of keys among them: they attend to a part of the context at most.
    """
    events: list[Product | Call | Routed] = []
    scores: dict[str, tuple[int, int, Contraction]] = {}
    beside: dict[str, str] = {}  # the module that made scores, by what holds it
    left: list[Contraction] = []
    for event in record.events:
        if not isinstance(event, Contraction):
            events.append(event)
            continue
        if event.path in states:
            left.append(event)
            continue
        rows = event.batch * event.rows
        length = next((n for n in lengths if event.rows == n), next((n for n in lengths if rows % n == 0), 0))
        made = event.path if event.path in scores else beside.get(event.path.rpartition(".")[0])
        if event.columns in lengths and length and event.inner not in lengths:
            left += [scores[event.path][-1]] if event.path in scores else []
            scores[event.path] = (rows // length, length, event)
            beside[event.path.rpartition(".")[0]] = event.path
            continue
        heads, length, before = scores.get(made or "", (0, 0, event))
        if event.inner in lengths and heads and heads * length == rows:
            del scores[before.path]
            kv_heads = max(before.batch // max(before.copies, event.copies), 1)
            held = () if before.held is None or event.held is None else (before.held, event.held)
            call = Call(
                before.path,
                heads,
                kv_heads,
                before.inner,
                event.columns,
                length,
                event.inner,
                event.visible,
                held=held,
                weighed=event.weighed,
            )
            events.append(call)
        else:
            left.append(event)
    return events, [*left, *(product for *_, product in scores.values())]


def shown(names: list[str]) -> str:
    """Return some names in words: the first two, and how many more."""
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _whole(events: list[Product | Call | Routed]) -> list[Product | Call | Routed]:
    """Return the events with calls of attention that follow each other in one module, some of them on the same keys and values, as one."""
    found: list[Product | Call | Routed] = []
    for alike, some in groupby(events, lambda event: replace(event, kv_heads=1, heads=1, held=()) if isinstance(event, Call) else None):
        several = list(some)
        calls = [event for event in several if isinstance(event, Call)]
        heads: dict[object, int] = {event.held: event.kv_heads for event in calls}
        apart = [len({event.held[place] for event in calls if event.held}) for place in (0, 1)]
        if alike is None or len(heads) == len(calls) or apart != [len(heads)] * 2:
            found += several
        else:
            found.append(replace(calls[0], heads=sum(event.heads for event in calls), kv_heads=sum(heads.values()), held=()))
    return found


def inside(path: str, outer: str) -> bool:
    """Return whether a path is a module's own, or that of something inside it."""
    return not outer or path == outer or path.startswith(f"{outer}.")


def _layers(tally: Tally) -> list[str]:
    """Return the paths of the layers: what the outermost lists of modules hold, as far as it mixes tokens or multiplies; else what mixes tokens."""
    mixes = [event.path for event in tally.events if isinstance(event, Call)] + [held.path for held in tally.kept]
    works = mixes + [event.path for event in tally.events]
    stacks: list[str] = []
    for path, module in tally.module.named_modules():
        alike = isinstance(module, torch.nn.Sequential) and len(module) > 1 and len({type(child) for child in module}) == 1
        if (isinstance(module, torch.nn.ModuleList) or alike) and not any(inside(path, stack) for stack in stacks):
            stacks.append(path)
    mixing = [stack for stack in stacks if any(inside(mixed, stack) for mixed in mixes)]
    if not mixing:  # what is kept was made outside: of the list that multiplies most
        mixing = sorted(stacks, key=lambda stack: -sum(inside(work, stack) for work in works))[:1]
    found = [f"{stack}.{name}" for stack in mixing for name, _ in tally.module.get_submodule(stack).named_children()]
    layers = [path for path in found if any(inside(worked, path) for worked in works)]
    beside = [path for path in dict.fromkeys(mixes) if not any(inside(path, layer) or inside(layer, path) for layer in layers)]
    return layers + [path for path in beside if not layers or not isinstance(tally.module.get_submodule(path), torch.nn.Embedding)]


def _spread(tally: Tally) -> tuple[Kept, ...]:
    """Return what is kept with what was made around the layers divided among them, evenly."""
    around = [held for held in tally.kept if tally.layer_of(held.path) is None]
    if not around:
        return tally.kept
    number, found = len(tally.layers), [held for held in tally.kept if held not in around]
    rows_of_table = [held for held in around if held.path and isinstance(tally.module.get_submodule(held.path), torch.nn.Embedding)]
    found += [replace(held, path=tally.layers[0]) for held in rows_of_table]  # what the first layer reads
    around = [held for held in around if held not in rows_of_table]
    rows, elements = sum(held.row for held in around), sum(held.elements for held in around)
    if rows % number or any(
        sum(held.elements for held in around if held.dtype == dtype) % number for dtype in {held.dtype for held in around}
    ):
        raise UnsupportedModelError(f"{rows + elements:,} elements are kept outside the {number} layers, and cannot be divided among them.")
    for dtype in dict.fromkeys(held.dtype for held in around):
        alike = [held for held in around if held.dtype == dtype]
        row, size = sum(held.row for held in alike) // number, sum(held.elements for held in alike) // number
        found += [Kept(layer, "state", row, size, dtype, alike[0].usual, 0, 0) for layer in tally.layers]
    return tuple(found)
