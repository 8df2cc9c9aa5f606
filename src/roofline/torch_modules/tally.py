"""What every parameter of a module costs a token, and where the module's layers are: two runs of different lengths, side by side."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from roofline.torch_modules.kept import Kept, kept
from roofline.torch_modules.required import torch
from roofline.torch_modules.watch import Call, Contraction, Product, Record, Routed


@dataclass
class Weight:
    """A parameter, and what a token multiplies with it."""

    name: str  # the first of its names
    shape: tuple[int, ...]  # its dimensions
    path: str = ""  # the module that multiplies with it
    inputs: int = 0  # what is summed over, 0 where nothing is multiplied with it
    token_flops: float = 0  # FLOP of a token
    once_flops: float = 0  # FLOP however many tokens there are
    depthwise: bool = False  # whether it is a convolution of every channel by itself

    @property
    def size(self) -> int:
        """Elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def outputs(self) -> int:
        """Outputs of the matrix, 0 where it is none."""
        return self.size // self.inputs if self.inputs and self.size % self.inputs == 0 else 0

    @property
    def uses(self) -> int:
        """How often a token passes all of it, 0 where that is not a whole number of times."""
        times, rest = divmod(self.token_flops, 2 * self.size)
        return 0 if rest or self.depthwise or not self.outputs else int(times)

    @property
    def leaf(self) -> str:
        """Its name without the word that all weights end with."""
        return self.name.removesuffix(".weight")


@dataclass
class Tally:
    """A module's two runs."""

    module: torch.nn.Module
    weights: dict[str, Weight]  # every parameter by the first of its names
    aliases: dict[str, str]  # the first name of every name
    events: list[Product | Call | Routed]  # what the longer run did, in order, attention of its own put together
    kept: tuple[Kept, ...]
    runs: Counter[str]  # how often each module ran
    used: set[str]
    embeddings: set[str]
    layers: list[str] = field(default_factory=list)  # paths of the layers, first to last


def take(module: torch.nn.Module, records: tuple[Record, Record], lengths: tuple[int, int], keeps: bool) -> Tally:
    """Return what two runs of a module tell, of `keeps` whether a cache was asked for."""
    aliases: dict[str, str] = {}
    weights: dict[str, Weight] = {}
    first: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        aliases[name] = first.setdefault(id(parameter), name)
        weights.setdefault(aliases[name], Weight(aliases[name], tuple(parameter.shape)))
    short, long = (_by_parameter(record, weights) for record in records)
    for name, (flops, path, inputs, depthwise) in long.items():
        weight, before = weights[name], short.get(name, (0.0, "", 0, False))[0]
        weight.token_flops = (flops - before) / (lengths[1] - lengths[0])
        weight.once_flops = flops - weight.token_flops * lengths[1]
        weight.path, weight.inputs, weight.depthwise = path, inputs, depthwise
    found = kept(records, lengths)
    tally = Tally(module, weights, aliases, [], found, records[1].runs, records[1].used, records[1].embeddings)
    tally.events = _attended(records[1], lengths[1], keeps)
    tally.layers = _layers(tally)
    return tally


def _by_parameter(record: Record, weights: dict[str, Weight]) -> dict[str, tuple[float, str, int, bool]]:
    """Return FLOP, module and width of every parameter that a run multiplied with."""
    found: dict[str, tuple[float, str, int, bool]] = {}
    for event in record.events:
        if not isinstance(event, Product):
            continue
        whole = sum(weights[name].size for name in event.parameters)
        for name in event.parameters:
            before = found.get(name, (0.0, event.path, event.inputs, event.depthwise))
            found[name] = (before[0] + event.flops * weights[name].size / whole, *before[1:])
    return found


def _attended(record: Record, length: int, keeps: bool) -> list[Product | Call | Routed]:
    """Return a run's events with its own attention, a product for scores and one with values, as a call."""
    events: list[Product | Call | Routed] = []
    scores: dict[str, tuple[int, int, int]] = {}
    for event in record.events:
        if not isinstance(event, Contraction):
            events.append(event)
        elif event.columns == length and (event.batch * event.rows) % length == 0 and event.inner != length:
            scores[event.path] = (event.batch * event.rows // length, event.batch, event.inner)
        elif event.inner == length and event.path in scores:
            heads, kv_heads, width = scores.pop(event.path)
            if heads == event.batch * event.rows // length:
                events.append(Call(event.path, heads, kv_heads, width, event.columns, length, length, None))
    return events


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
        listed = (isinstance(module, torch.nn.ModuleList) or alike) and not any(inside(path, stack) for stack in stacks)
        if listed and any(inside(mixed, path) for mixed in mixes):
            stacks.append(path)
    found = [f"{stack}.{name}" for stack in stacks for name, _ in tally.module.get_submodule(stack).named_children()]
    layers = [path for path in found if any(inside(worked, path) for worked in works)]
    return layers + [path for path in dict.fromkeys(mixes) if not any(inside(path, layer) for layer in layers)]


def grouped(events: list[Product | Call | Routed]) -> dict[str, list[Product | Call | Routed]]:
    """Return events by the module that they are of."""
    by_path: dict[str, list[Product | Call | Routed]] = defaultdict(list)
    for event in events:
        by_path[event.path].append(event)
    return by_path
