"""A module's layers as groups of the parts that a model consists of."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from roofline.errors import UnsupportedModelError
from roofline.model import CountedMixer, Experts, FeedForward, LayerGroup, Mixer, Norm
from roofline.torch_modules.attention import counted, mixer
from roofline.torch_modules.events import Call, Product, Routed
from roofline.torch_modules.feed_forward import dense, mixture
from roofline.torch_modules.kept import Kept
from roofline.torch_modules.pieces import Pieces, norms_of
from roofline.torch_modules.required import torch
from roofline.torch_modules.tally import Tally, Weight, inside


@dataclass
class Layer:
    """One layer: its weights, what happens in it, and what it keeps."""

    path: str
    times: int  # how often it runs
    own: list[Weight]  # weights that no earlier layer has
    borrowed: list[Weight]  # weights of an earlier layer
    events: list[Product | Call | Routed]
    kept: list[Kept]
    lists: frozenset[str] = frozenset()  # modules that only hold others, by path

    def child(self, path: str) -> str:
        """Return which of the layer's modules a path is in, empty for the layer itself."""
        names = path.removeprefix(self.path).removeprefix(".").split(".")
        return ".".join(names[: 2 if f"{self.path}.{names[0]}" in self.lists else 1])

    @property
    def mixing(self) -> list[str]:
        """Which of its modules mix tokens, only the empty one where the layer does so itself."""
        paths = [event.path for event in self.events if isinstance(event, Call)] + [held.path for held in self.kept]
        found = dict.fromkeys(map(self.child, paths))
        return [""] if "" in found else list(found)

    def calls(self, child: str) -> list[Call]:
        """Return the calls of attention in one of its modules, those of one run."""
        found = [event for event in self.events if isinstance(event, Call) and (not child or self.child(event.path) == child)]
        return found[: len(found) // self.times]

    def keeps(self, child: str) -> list[Kept]:
        """Return what one of its modules keeps, of one run."""
        found = [held for held in self.kept if not child or self.child(held.path) == child]
        return found[: -(-len(found) // self.times)]


def split_layers(tally: Tally) -> tuple[list[Layer], list[Weight]]:
    """Return the layers with their weights, each weight in the first layer that has it, and the weights outside all layers."""
    owner: dict[str, str] = {}
    lists = frozenset(path for path, module in tally.module.named_modules() if isinstance(module, torch.nn.ModuleList))
    layers = []
    for path in tally.layers:
        names = [name for alias, name in tally.aliases.items() if inside(alias, path)]
        names = list(dict.fromkeys([*names, *(name for name, costs in tally.costs.items() if any(inside(at, path) for at in costs))]))
        times = max(tally.runs.get(path, 1), 1)
        weights = [tally.weight(name, path, times) for name in names]
        own = [weight for weight in weights if owner.setdefault(weight.name, path) == path]
        borrowed = [weight for weight in weights if weight not in own]
        seldom = {
            weight.name: tally.runs[weight.path] for weight in own if weight.path and not weight.uses and tally.runs[weight.path] < times
        }
        own = [weight for weight in own if weight.name not in seldom]
        events = [event for event in tally.events if inside(event.path, path)]
        layers.append(Layer(path, times, own, borrowed, events, [held for held in tally.kept if inside(held.path, path)], lists))
        for runs in dict.fromkeys(seldom.values()):  # what some of the layer's runs leave out
            some = [tally.weight(name, path, runs) for name in seldom if seldom[name] == runs]
            layers.append(Layer(path, runs, some, [], [], []))
    return layers, [tally.weight(name) for name in tally.shapes if name not in owner]


def groups(tally: Tally, layers: Sequence[Layer], hidden: int) -> tuple[LayerGroup, ...]:
    """Return the layers as groups, equal neighbours as one."""
    cached = any(held.row for held in tally.kept)
    return alike(group for layer in layers for group in of_layer(tally, layer, hidden, cached=cached))


def alike(groups: Iterable[LayerGroup]) -> tuple[LayerGroup, ...]:
    """Return groups with equal neighbours as one."""
    made: list[LayerGroup] = []
    for group in groups:
        before = made[-1] if made else None
        if before is not None and before.distinct == group.distinct is None and before.but(count=group.count) == group:
            made[-1] = before.but(count=before.count + group.count)
        else:
            made.append(group)
    return tuple(made)


def of_layer(tally: Tally, layer: Layer, hidden: int, *, cached: bool) -> list[LayerGroup]:
    """Return a layer as groups, one where it has one mixer and one block."""
    return _joined(list(_of_layer(tally, layer, hidden, cached=cached)))


def _joined(groups: list[LayerGroup]) -> list[LayerGroup]:
    """Return the groups of a layer with its last mixer and its first block as one, where both are its own or an earlier layer's."""
    mixers = [group for group in groups if group.mixer is not None]
    blocks = [group for group in groups if group.mixer is None]
    if not mixers or not blocks or mixers[-1].distinct != blocks[0].distinct:
        return groups
    last, first = mixers[-1], blocks[0]
    whole = last.but(feed_forward=first.feed_forward, norms=(*last.norms, *first.norms), formats=(*last.formats, *first.formats))
    return [*mixers[:-1], whole, *blocks[1:]]


def _of_layer(tally: Tally, layer: Layer, hidden: int, *, cached: bool) -> Iterator[LayerGroup]:
    """Yield a layer as groups: one for each of its modules that mixes tokens, the last with what works token by token."""
    done: set[str] = set()
    for child in layer.mixing:
        own, borrowed = (_mixing_weights(layer, [w for w in some if w.name not in done], child) for some in (layer.own, layer.borrowed))
        done |= {weight.name for weight in (*own, *borrowed)}
        prefix = f"{layer.path}.{child}" if child else layer.path
        idle = sum(weight.size for weight in own if weight.name not in tally.used)
        read = [weight for weight in (own if own and not borrowed else borrowed or own) if weight.name in tally.used]
        pieces = Pieces(read)
        part, norms = mixer(pieces, layer.calls(child), layer.keeps(child), hidden, prefix, cached=cached)
        yield _group(layer, part, None, norms, reused=bool(borrowed)).but(formats=pieces.formats(prefix))
        beside = [weight for weight in own if weight.name in tally.used] if borrowed else []
        idle += 0 if borrowed else pieces.idle
        if beside or idle:
            pieces = Pieces(beside)
            idle += pieces.idle
            yield _group(layer, counted(pieces, (), (), prefix, cached=False).but(idle=idle), None).but(formats=pieces.formats(prefix))
    for weights, reused in ((layer.borrowed, True), (layer.own, False)):
        left = [weight for weight in weights if weight.name not in done]
        idle = 0 if reused else sum(weight.size for weight in left if weight.name not in tally.used)
        yield from _token_by_token(tally, layer, [weight for weight in left if weight.name in tally.used], idle, hidden, reused=reused)


def _group(layer: Layer, part: Mixer | None, block: FeedForward | None, norms: Sequence[Norm] = (), *, reused: bool = False) -> LayerGroup:
    distinct = 0 if reused else 1 if layer.times > 1 else None
    return LayerGroup(count=layer.times, mixer=part, feed_forward=block, norms=tuple(norms), distinct=distinct)


def _mixing_weights(layer: Layer, rest: list[Weight], child: str) -> list[Weight]:
    """Return the weights of a module that mixes tokens; of a layer that does so itself, what it multiplies with before, and once after."""
    if child:
        outer = f"{layer.path}.{child}"
        return [weight for weight in rest if inside(weight.name, outer) or (weight.path and inside(weight.path, outer))]
    if not any(isinstance(event, Call) for event in layer.events):
        return rest
    last = max((i for i, event in enumerate(layer.events) if isinstance(event, Call)), default=-1)
    names: list[str] = []
    after = 0
    for i, event in enumerate(layer.events):
        if isinstance(event, Product) and (i < last or not after):
            names += event.parameters
            after += i > last
    stems = {name.rsplit(".", 1)[0] for name in names}
    return [weight for weight in rest if weight.name.rsplit(".", 1)[0] in stems]


def _token_by_token(tally: Tally, layer: Layer, rest: list[Weight], idle: int, hidden: int, *, reused: bool) -> Iterator[LayerGroup]:
    """Yield what works token by token: mixtures of experts, a dense block, and what is counted where it fits neither."""
    blocks: list[FeedForward] = []
    formats: dict[str, str] = {}
    routed = [event for event in layer.events if isinstance(event, Routed)]
    for call in routed[: len(routed) // layer.times]:
        stacked = [weight for weight in rest if (weight.name in call.stacks if call.stacks else inside(weight.name, call.path))]
        if stacked:
            mixed, taken, beside = _experts(tally, layer, call, stacked, rest, hidden)
            blocks.append(mixed)
            formats |= _formats_of(mixed, stacked, call.path, hidden)
            formats |= _formats_beside(mixed, [weight for weight in rest if weight.name in taken and weight not in stacked], hidden)
            rest = [*(weight for weight in rest if weight.name not in taken), *beside]
    pieces = Pieces(rest)
    idle += 0 if reused else pieces.idle
    block = None if pieces.others else dense(pieces.matrices, pieces, hidden)
    if block is not None:
        blocks.append(block)
    elif pieces.matrices or pieces.others:
        part = counted(pieces, (), (), layer.path, cached=False).but(idle=idle)
        yield _group(layer, part, None, reused=reused).but(formats=pieces.formats(layer.path))
        pieces.vectors, idle = [], 0
    norms = norms_of(pieces.vectors, layer.path)
    if idle:
        yield _group(layer, CountedMixer(projections=(), idle=idle), None)
    alone: list[FeedForward | None] = [None] if norms else []
    for one in blocks or alone:
        own = tuple((name, format) for name, format in formats.items() if isinstance(one, Experts))
        yield _group(layer, None, one, norms, reused=reused).but(formats=own)
        norms = ()


def _formats_of(mixed: Experts, stacked: list[Weight], path: str, hidden: int) -> dict[str, str]:
    """Return the formats of the matrices of experts where their stacks have one of their own."""
    kinds = {weight.format for weight in stacked if len(weight.shape) == 3}
    if len(kinds) > 1:
        raise UnsupportedModelError(f"the stacks of experts of {path} are in several formats.")
    names = [matrix.name for matrix in mixed.matrices(hidden) if ".experts." in matrix.name]
    return {name: format for format in kinds if format for name in names}


def _formats_beside(mixed: Experts, taken: list[Weight], hidden: int) -> dict[str, str]:
    """Return the formats of the matrices of a mixture beside its experts where they have one of their own."""
    places = {(m.inputs, m.outputs): m.name for m in (*mixed.token_matrices(hidden), mixed.router(hidden))}
    return {places[weight.inputs, weight.outputs]: weight.format for weight in taken if weight.format and weight.uses}


def _experts(
    tally: Tally, layer: Layer, call: Routed, stacked: list[Weight], rest: list[Weight], hidden: int
) -> tuple[Experts, set[str], list[Weight]]:
    """Return a mixture of experts, the names of the weights that are part of it, and what of its router weighs no expert."""
    child = layer.child(call.path)
    others = [weight for weight in rest if weight not in stacked]
    near = [weight for weight in others if layer.child(weight.name) == child]
    pieces = Pieces(near if any(weight.uses for weight in near) else others)
    if pieces.matrices and not any(weight.uses for weight in near):  # experts and router are the layer's own modules
        pieces.vectors = [weight for weight in pieces.vectors if weight in near]
    found, taken, beside = mixture(call, tally.module.get_submodule(call.path), pieces, stacked, hidden)
    names = {weight.name for weight in (*stacked, *taken)}
    return found, names | {pieces.bias_of[weight.name] for weight in taken if weight.name in pieces.bias_of}, beside
