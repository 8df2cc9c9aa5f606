"""A module's layers as groups of the parts that a model consists of."""

from collections.abc import Iterator
from dataclasses import dataclass

from roofline.model import CountedMixer, Experts, LayerGroup, Norm
from roofline.torch_modules.attention import Pieces, counted, mixer, norm
from roofline.torch_modules.feed_forward import dense, mixture
from roofline.torch_modules.kept import Kept
from roofline.torch_modules.tally import Tally, Weight, inside
from roofline.torch_modules.watch import Call, Product, Routed


@dataclass
class Layer:
    """One layer: its weights, what happens in it, and what it keeps."""

    path: str
    weights: list[Weight]
    events: list[Product | Call | Routed]
    kept: list[Kept]
    reused: bool  # whether its weights are an earlier layer's

    def child(self, path: str) -> str:
        """Return which of the layer's modules a path is in, empty for the layer itself."""
        return path.removeprefix(self.path).removeprefix(".").split(".")[0]


def split_layers(tally: Tally) -> tuple[list[Layer], list[Weight]]:
    """Return the layers with their weights, each weight in the first layer that has it, and the weights outside all layers."""
    owner: dict[str, str] = {}
    for alias, name in tally.aliases.items():
        layer = next((path for path in tally.layers if inside(alias, path)), None)
        if layer is not None:
            owner.setdefault(name, layer)
    layers = []
    for path in tally.layers:
        names = dict.fromkeys(name for alias, name in tally.aliases.items() if inside(alias, path))
        own = [tally.weights[name] for name in names if owner[name] == path]
        events = [event for event in tally.events if inside(event.path, path)]
        held = [held for held in tally.kept if inside(held.path, path)]
        layers.append(Layer(path, own, events, held, reused=bool(names) and not own))
    outside = [weight for name, weight in tally.weights.items() if name not in owner]
    return layers, outside


def groups(tally: Tally, layers: list[Layer], hidden: int) -> tuple[LayerGroup, ...]:
    """Return the layers as groups, equal neighbours as one."""
    cached = bool(tally.kept)
    made: list[LayerGroup] = []
    for layer in layers:
        for group in _of_layer(tally, layer, hidden, cached=cached):
            before = made[-1] if made else None
            if (
                before is not None
                and before.but(count=1, distinct=group.distinct) == group
                and before.distinct is None
                and group.distinct is None
            ):
                made[-1] = before.but(count=before.count + group.count)
            else:
                made.append(group)
    return tuple(made)


def _of_layer(tally: Tally, layer: Layer, hidden: int, *, cached: bool) -> Iterator[LayerGroup]:
    """Yield a layer as groups of one: one for each of its modules that mixes tokens, the last with what works token by token."""
    mixing = list(dict.fromkeys(layer.child(event.path) for event in layer.events if isinstance(event, Call)))
    mixing = list(dict.fromkeys([*mixing, *(layer.child(held.path) for held in layer.kept)]))
    if "" in mixing:
        mixing = [""]
    rest = list(layer.weights)
    idle = sum(weight.size for weight in rest if weight.name not in tally.used)
    rest = [weight for weight in rest if weight.name in tally.used]
    norms: list[Norm] = []
    groups: list[LayerGroup] = []
    for child in mixing:
        own = _mixing_weights(layer, rest, child)
        rest = [weight for weight in rest if weight not in own]
        calls = [event for event in layer.events if isinstance(event, Call) and (not child or layer.child(event.path) == child)]
        held = [held for held in layer.kept if not child or layer.child(held.path) == child]
        prefix = f"{layer.path}.{child}" if child else layer.path
        part, further = mixer(Pieces(own), calls, held, hidden, prefix, cached=cached)
        norms += further
        groups.append(LayerGroup(count=1, mixer=part, feed_forward=None))
    block, vectors, left = _feed_forward(tally, layer, rest, hidden)
    norms += [norm(vector) for vector in vectors]
    if left is not None:
        groups.append(LayerGroup(count=1, mixer=left, feed_forward=None))
    if idle:
        groups.append(LayerGroup(count=1, mixer=CountedMixer(projections=(), idle=idle), feed_forward=None))
    if block is not None and not (groups and left is None and not idle):
        groups.append(LayerGroup(count=1, mixer=None, feed_forward=block))
    elif block is not None:
        groups[-1] = groups[-1].but(feed_forward=block)
    if not groups:
        groups.append(LayerGroup(count=1, mixer=None, feed_forward=None))
    groups[0] = groups[0].but(norms=tuple(norms))
    times = tally.runs.get(layer.path, 1) or 1
    for group in groups:
        if times > 1:
            yield group.but(count=times, distinct=1)
        else:
            yield group


def _mixing_weights(layer: Layer, rest: list[Weight], child: str) -> list[Weight]:
    """Return the weights of a module that mixes tokens; of a layer that does so itself, what it multiplies with before, and once after."""
    if child:
        return [weight for weight in rest if inside(weight.name, f"{layer.path}.{child}") or inside(weight.path, f"{layer.path}.{child}")]
    last = max((i for i, event in enumerate(layer.events) if isinstance(event, Call)), default=-1)
    names: list[str] = []
    after = 0
    for i, event in enumerate(layer.events):
        if isinstance(event, Product) and (i < last or not after):
            names += event.parameters
            after += i > last
    stems = {name.rsplit(".", 1)[0] for name in names}
    return [weight for weight in rest if weight.name.rsplit(".", 1)[0] in stems]


def _feed_forward(
    tally: Tally, layer: Layer, rest: list[Weight], hidden: int
) -> tuple["Experts | None", list[Weight], CountedMixer | None]:
    """Return the block that works token by token, the vectors that are left, and what is counted of it where it fits no block."""
    routed = [event for event in layer.events if isinstance(event, Routed)]
    pieces = Pieces(rest)
    if routed:
        (call, *_) = routed
        stacked = [weight for weight in rest if inside(weight.name, call.path)]
        child = layer.child(call.path)
        near = [w for w in rest if w not in stacked and (layer.child(w.name) == child or w.uses)]
        aside = [w for w in rest if w not in stacked and w not in near]
        own = Pieces([*near, *(w for w in aside if w.leaf.endswith("bias"))])
        loose = [w for w in own.vectors if w in aside]
        own.vectors = [w for w in own.vectors if w in near]
        found = mixture(call, tally.module.get_submodule(call.path), own, stacked, hidden) if len(routed) == 1 else None
        if found is not None:
            return found, [*loose, *(w for w in aside if w not in loose and w.name not in own.taken)], None
    if not pieces.matrices and not pieces.others:
        return None, pieces.vectors, None
    block = dense(pieces.matrices, pieces, hidden) if not pieces.others else None
    if block is not None:
        return block, pieces.vectors, None
    return None, [], counted(pieces, (), (), layer.path, cached=False)
