"""An encoder–decoder as a `Model`: what a token of the target costs, and what a position of the source does, told apart by varying each alone."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

from roofline.errors import UnsupportedModelError
from roofline.model import Attention, CrossAttention, Encoder, LayerGroup, Model, Norm, Projection
from roofline.model.spec import OF_SOURCE
from roofline.torch_modules.attention import counted, qk_norms
from roofline.torch_modules.complete import check_parameters, in_modules
from roofline.torch_modules.ends import common_widths, ends_of, named_towers, towers_of, width_of
from roofline.torch_modules.events import Call, Record
from roofline.torch_modules.layers import Layer, alike, groups, of_layer, split_layers
from roofline.torch_modules.pieces import Pieces, norms_of
from roofline.torch_modules.required import torch
from roofline.torch_modules.sources import TOKENS, Run, Source, arguments, source_of
from roofline.torch_modules.tally import Cost, Tally, Weight, inside, shown, take
from roofline.visibility import CAUSAL

_LONGEST = ("max_source_positions", "max_encoder_position_embeddings", "n_positions", "max_position_embeddings")
"""What configurations call the longest source."""

_UNSAID = 512
"""Positions of a source where nothing says how many there are [token]."""


_EDGE = 4
"""Positions by whose work a convolution may differ at the two ends of a source, where it is not padded [token]."""


def read_two_stacks(module: torch.nn.Module, run: Run, name: str, dtype: str | None) -> Model:
    """Return the model that a module with an encoder and a decoder is; `run` runs it on arguments of stated lengths."""
    source = source_of(module, run, name)
    short, long = (_run(module, run, source, 1, tokens) for tokens in TOKENS)
    target = take(module, (short, long), TOKENS, None, None, source.positions[1])
    if source.fixed:
        beside = _of_one_size(target, source.positions[1])
    else:
        less = _run(module, run, source, 0, TOKENS[1])
        beside = take(module, (less, long), source.positions, None, None, TOKENS[1])
    for name in (*target.relative, *beside.relative):
        target.costs.pop(name, None)
        beside.costs.pop(name, None)
    _check_kept(target, beside)
    _as_kept(target)
    return _Stacks(target, beside, source).model(name, dtype, long)


def _run(module: torch.nn.Module, run: Run, source: Source, which: int, tokens: int) -> Record:
    """Return a run on one of two sources and so many tokens; a cache is asked for where that is not also asked of the encoder."""
    lengths = (tokens, source.positions[which])
    given = arguments(module, source, which, tokens)
    try:
        return run({**given, "use_cache": True}, lengths)
    except UnsupportedModelError:
        return run(given, lengths)


def _of_one_size(target: Tally, positions: int) -> Tally:
    """Return what a position of a source costs that has one size alone: an equal part of all that does not grow with the target."""
    costs: dict[str, dict[str, Cost]] = {}
    for name, places in target.costs.items():
        for path, cost in places.items():
            slope = (cost.flops[1] - cost.flops[0]) / (TOKENS[1] - TOKENS[0])
            whole = [Fraction(0), cost.flops[1] - slope * TOKENS[1]]
            costs.setdefault(name, {})[path] = Cost(cost.inputs, cost.depthwise, whole)
    kept = tuple(replace(held, row=0 if held.row else held.elements // positions, elements=0) for held in target.kept)
    return replace(target, costs=costs, lengths=(0, positions), kept=kept)


def _as_kept(target: Tally) -> None:
    """Take attention whose keys are kept for tokens to come as causal, where the code leaves the mask out beside a cache."""
    growing = {held.path for held in target.kept if held.row}
    calls = [event for event in target.events if isinstance(event, Call) and event.path in growing and event.keys == TOKENS[1]]
    ahead = [call for call in calls if call.visible is not None and call.visible.looks_ahead]
    target.events = [replace(event, visible=CAUSAL) if event in ahead else event for event in target.events]
    target.assumed = sorted({*target.assumed, *(event.path for event in ahead)})


def _check_kept(target: Tally, source: Tally) -> None:
    """Refuse what grows with both lengths."""
    growing = {held.path for held in target.kept if held.row}
    for held in source.kept:
        if held.row and held.path in growing:
            own = [one for one in target.kept if one.path == held.path and one.row]
            other = [one for one in source.kept if one.path == held.path and one.row]
            if len(own) + len(other) > sum(one.path == held.path for one in target.kept):
                raise UnsupportedModelError(f"what {held.path} keeps grows with the source and with the tokens at once.")


class _Stacks:
    """The two stacks of a module."""

    def __init__(self, target: Tally, source: Tally, given: Source) -> None:
        self.target, self.source, self.given = target, source, given
        layers, self.outside = split_layers(target)
        beside, _ = split_layers(source)
        self.decoder: list[Layer] = []
        self.encoder: list[Layer] = []
        by_path = {layer.path: layer for layer in beside}
        for layer in layers:
            generates = any(held.row for held in layer.kept) or any(weight.token_flops for weight in (*layer.own, *layer.borrowed))
            (self.decoder if generates else self.encoder).append(layer if generates else by_path[layer.path])
        if not self.encoder or not self.decoder:
            which, lengths = ("decoder", "tokens") if self.encoder else ("encoder", "source")
            raise UnsupportedModelError(
                f"the layers of the {which} were not found: what they multiply does not grow with the {lengths}, as where that is padded to blocks."
            )
        self.stem = _stem(target.module, [layer.path for layer in self.encoder])

    def model(self, name: str, dtype: str | None, record: Any) -> Model:
        """Return the model."""
        shared = self._tables(decoder=True)
        table = max(shared, key=lambda weight: weight.size, default=None)
        hidden = width_of(common_widths(self.decoder), table)
        encoder_hidden = width_of(common_widths(self.encoder), None)
        if encoder_hidden != hidden and not any(hidden in (w.inputs, w.outputs) for layer in self.encoder for w in layer.own):
            raise UnsupportedModelError(
                f"{name}: {self.stem} is {encoder_hidden} wide and the decoder {hidden}; stacks of two widths are not modelled."
            )
        towers = towers_of(self.target, self.outside) if _sees(self.target.module) else {}
        outside = [weight for weight in self.outside if not any(inside(weight.name, path) for path in towers)]
        mine = {weight.name for weight in outside if self._of_encoder(weight)} - {weight.name for weight in shared}
        view = replace(self.target, embeddings=self.target.embeddings | self._positions(outside, hidden))
        ends, further, notes = ends_of(view, [weight for weight in outside if weight.name not in mine], table, hidden, record)
        encoder = self._encoder([self.source.weight(weight.name) for weight in outside if weight.name in mine], hidden)
        longest = self._longest(encoder)
        parts = alike(group for layer in self.decoder for group in self._decoding(layer, hidden, longest))
        once = [weight.name for weight in self._rows_once()]
        notes = tuple(note for note in notes if "a sequence needs once" not in note)
        notes += (f"the FLOP of products of activations in {in_modules(self.target.left[1])}",) if self.target.left[1] else ()
        notes += (f"the FLOP of products that a sequence needs once: {', '.join(once)}",) if once else ()
        relative = sorted({*self.target.relative, *self.source.relative})
        notes += (
            (f"the FLOP of products of distances between positions, which all sequences share, with {shown(relative)}",) if relative else ()
        )
        notes += () if self.given.fixed else (f"{OF_SOURCE} than {longest} positions, the longest; Model.with_source says another",)
        notes += named_towers(towers)
        model = Model(
            name=name,
            source=f"read from code: {type(self.target.module).__name__}",
            hidden_size=hidden,
            dtype=dtype,
            layers=(*parts, *further),
            encoder=encoder,
            not_modelled=notes,
            unknown_towers=tuple(towers),
            **ends,
        )
        check_parameters(model, self.target, towers)
        if not model.source_positions:
            raise UnsupportedModelError(f"{name}: no attention of the decoder to what {self.stem} makes was found.")
        self._check_once(name)
        return model

    # ------------------------------------------------------------------------------------------------------- decoder

    def _decoding(self, layer: Layer, hidden: int, longest: int) -> Iterator[LayerGroup]:
        """Yield a layer of the decoder as groups, attention to the source with what the layer has beside it."""
        whole = TOKENS[1] + self.given.positions[1]
        if both := next((call.path for call in layer.events if isinstance(call, Call) and call.keys == whole), ""):
            raise UnsupportedModelError(f"{both} attends to the source and to its own sequence at once, which is not modelled.")
        crossing = list(dict.fromkeys(layer.child(call.path) for call in layer.events if isinstance(call, Call) and self._crosses(call)))
        parts: list[CrossAttention] = []
        norms: list[Norm] = []
        for child in crossing:
            outer = f"{layer.path}.{child}"
            if not child or any(isinstance(e, Call) and inside(e.path, outer) and not self._crosses(e) for e in layer.events):
                raise UnsupportedModelError(
                    f"{outer.rstrip('.')} attends to the source and to its own sequence in one module, which is not modelled."
                )
            own = [weight for weight in layer.own if inside(weight.name, outer)]
            (call,) = layer.calls(child)
            part, rest = self._cross(own, call, hidden, outer, longest)
            parts.append(part)
            norms += rest
            layer = replace(
                layer,
                own=[weight for weight in layer.own if weight not in own],
                events=[event for event in layer.events if not inside(event.path, outer)],
                kept=[held for held in layer.kept if not inside(held.path, outer)],
            )
        mixed = of_layer(self.target, layer, hidden, cached=True)
        first = next((group for group in mixed if isinstance(group.mixer, Attention)), None)
        if len(parts) == 1 and first is not None:
            joined = first.but(mixer=parts[0].but(own=first.mixer), norms=(*first.norms, *norms))
            yield from (joined if group is first else group for group in mixed)
            return
        yield from mixed
        yield from (LayerGroup(count=1, mixer=part, feed_forward=None, norms=tuple(norms) if part is parts[0] else ()) for part in parts)

    def _crosses(self, call: Call) -> bool:
        return call.queries == TOKENS[1] and call.keys == self.given.positions[1]

    def _cross(self, own: list[Weight], call: Call, hidden: int, path: str, longest: int) -> tuple[CrossAttention, tuple[Norm, ...]]:
        """Return attention to the source by its four matrices: two that a token passes, two that a position of the source does."""
        beside = {weight.name: self.source.weight(weight.name, path) for weight in own}
        made = [beside[weight.name] for weight in own if beside[weight.name].uses]
        pieces = Pieces(own, matrices=[weight for weight in own if beside[weight.name].uses])
        own_way = [weight for weight in pieces.matrices if weight.uses]
        q, k = call.heads * call.qk_dim, call.kv_heads * call.qk_dim
        fits = (
            len(own_way) == len(made) == 2
            and call.qk_dim == call.v_dim
            and call.heads % call.kv_heads == 0
            and [(w.inputs, w.outputs, w.uses) for w in own_way] == [(hidden, q, 1), (q, hidden, 1)]
            and all((w.inputs, w.outputs, w.uses) == (hidden, k, 1) for w in made)
            and not pieces.others
        )
        kept = sum(held.row for held in self.source.kept if inside(held.path, path))
        if rows := next((weight.uses for weight in own_way if weight.uses > 1), 0):
            raise UnsupportedModelError(f"{path} attends to the source with {rows} rows for each token, which is not modelled.")
        if not fits or kept not in (0, 2 * k):
            raise UnsupportedModelError(f"{path} attends to the source, and its sizes are not those of queries, keys, values and output.")
        queries, keys, norms = qk_norms(pieces, call, path)
        names = ("query_bias", "output_bias", "key_bias", "value_bias")
        letters = sorted(made, key=lambda weight: not re.search(r"(^|[._])k", weight.leaf.rsplit(".", 1)[-1]))
        biases: dict[str, Any] = {name: bool(pieces.bias(weight)) for name, weight in zip(names, (*own_way, *letters), strict=True)}
        found = CrossAttention(
            source=longest,
            heads=call.heads,
            kv_heads=call.kv_heads,
            head_dim=call.qk_dim,
            query_norm=queries,
            key_norm=keys,
            **biases,
        )
        whole = sum(weight.size + pieces.bias(weight) for weight in pieces.matrices)
        if sum(matrix.parameters for matrix in found.cross_matrices(hidden)) != whole:
            raise UnsupportedModelError(f"{path} attends to the source with biases that are only a part of one.")
        return found, norms

    # ------------------------------------------------------------------------------------------------------- encoder

    def _of_encoder(self, weight: Weight) -> bool:
        """Return whether a weight outside the layers works for the source alone."""
        if weight.name not in self.target.used:
            return False
        names = [alias for alias, first in self.target.aliases.items() if first == weight.name]
        stem = self.stem and all(inside(name, self.stem) for name in names)
        leaf = weight.name.rpartition(".")[0]
        alone = [
            self.source.weight(name).token_flops > 0 == weight.token_flops for name in self.source.costs if name.rpartition(".")[0] == leaf
        ]
        return bool(stem) or any(alone)

    def _tables(self, *, decoder: bool) -> list[Weight]:
        """Return the tables that ids of one side are looked up in."""
        found = {
            first
            for alias, first in self.target.aliases.items()
            if first in self.target.embeddings and inside(alias, self.stem or " ") != decoder and len(self.target.shapes[first]) == 2
        }
        return [self.target.weight(name) for name in self.target.shapes if name in found and not _placed(name)]

    def _positions(self, outside: Iterable[Weight], hidden: int) -> set[str]:
        """Return tables that are added to rows by their place: as wide as those, never multiplied with."""
        wide = [weight for weight in outside if len(weight.shape) == 2 and weight.shape[1] == hidden and _placed(weight.name)]
        return {weight.name for weight in wide if weight.name in self.target.used}

    def _encoder(self, outside: list[Weight], hidden: int) -> Encoder:
        """Return the encoder: its layers, what stands before them, and its tables and norms."""
        once = [weight for weight in outside if weight.last_only]
        tables = [weight for weight in outside if len(weight.shape) == 2 and not weight.token_flops and weight not in once]
        places = [weight for weight in tables if weight.shape[1] == hidden and _placed(weight.name)]
        rows = [weight for weight in tables if weight.shape[1] == hidden and weight.name in self.target.embeddings and weight not in places]
        pieces = Pieces([weight for weight in outside if weight not in (*places, *rows, *once)])
        before = list(_before(pieces, self.stem))
        if once:
            part = counted(Pieces([]), (), (), self.stem, cached=False).but(further=sum(weight.size for weight in once))
            before.append(LayerGroup(count=1, mixer=part, feed_forward=None))
        norms = norms_of(pieces.vectors, self.stem)
        if len(norms) > 2:  # which of them the rows pass is not known
            before.append(LayerGroup(count=1, mixer=counted(Pieces(pieces.vectors), (), (), self.stem, cached=False), feed_forward=None))
            norms = ()
        first = next((norm for norm in norms if "emb" in norm.name), norms[0] if len(norms) == 2 else None)
        last = next((norm for norm in norms if norm is not first), None)
        return Encoder(
            layers=(*before, *groups(replace(self.source, kept=()), self.encoder, hidden)),
            tokens=self.given.name == "input_ids",
            rows=sum(weight.shape[0] for weight in rows),
            positions=sum(weight.shape[0] for weight in places),
            norm=first,
            final_norm=last,
        )

    def _longest(self, encoder: Encoder) -> int:
        """Return the longest source that the configuration speaks of, no longer than a table of positions."""
        if self.given.fixed:
            return self.given.positions[1]
        config: Any = self.target.module.config
        levels = [config, *(level for name in ("encoder", "text_config", "encoder_config") if (level := getattr(config, name, None)))]
        said = [size for key in _LONGEST for level in levels if isinstance(size := getattr(level, key, None), int) and size > 0]
        found = said[0] if said else _UNSAID
        return min(found, encoder.positions) if encoder.positions else found

    def _once(self, weight: Weight, beside: Weight) -> bool:
        """Return whether one row of a sequence passes a matrix, whatever the two lengths are, such as a pooler's."""
        return weight.last_only and not beside.token_flops and self._of_encoder(weight)

    def _rows_once(self) -> list[Weight]:
        """Return the matrices that one row of a sequence passes."""
        pairs = [(self.target.weight(name), self.source.weight(name)) for name in self.target.costs]
        return [weight for weight, beside in pairs if self._once(weight, beside)]

    def _check_once(self, name: str) -> None:
        """Refuse products that neither a token nor a position of the source accounts for."""
        for parameter in self.target.costs:
            weight, beside = self.target.weight(parameter), self.source.weight(parameter)
            per = weight.token_flops * self.target.lengths[1] + beside.token_flops * self.source.lengths[1]
            whole = weight.token_flops * self.target.lengths[1] + weight.once_flops
            edges = _EDGE * beside.token_flops if len(weight.shape) > 2 else 0
            if abs(per - whole) > edges and not self._once(weight, beside):
                raise UnsupportedModelError(
                    f"{name}: what {weight.path} multiplies with {parameter} grows neither with the source nor with the tokens alone."
                )


def _before(pieces: Pieces, stem: str) -> Iterator[LayerGroup]:
    """Yield what a position of the source passes before the layers, a matrix each; what is no matrix is counted."""
    for weight in pieces.matrices:
        name = weight.leaf.removeprefix(f"{stem}.")
        made = Projection(name=name, inputs=weight.inputs, outputs=weight.outputs, bias=pieces.bias(weight))
        yield LayerGroup(count=weight.uses, distinct=1, mixer=None, feed_forward=made)
    loose = [vector for vector in pieces.vectors if vector.token_flops]
    if loose:
        pieces.vectors = [vector for vector in pieces.vectors if vector not in loose]
        yield LayerGroup(count=1, mixer=counted(Pieces(loose), (), (), stem, cached=False), feed_forward=None)


def _placed(name: str) -> bool:
    """Return whether a name is that of a table of positions."""
    return "position" in name or "pos_emb" in name


def _sees(module: torch.nn.Module) -> bool:
    """Return whether a configuration has a tower beside the two stacks."""
    config: Any = module.config
    return any(getattr(level, "vision_config", None) is not None for level in (config, getattr(config, "encoder", None)))


def _stem(module: Any, paths: list[str]) -> str:
    """Return the path of the encoder, which holds all of these layers: as the class says it, or what their paths begin with, without the list."""
    said = module.get_encoder() if hasattr(module, "get_encoder") else None
    path = next((path for path, inner in module.named_modules() if inner is said and path), "")
    if path and all(inside(layer, path) for layer in paths):
        return path
    parts = [path.split(".")[:-2] for path in paths]
    shared = [names[0] for names in zip(*parts, strict=False) if len(set(names)) == 1]
    return ".".join(shared)
