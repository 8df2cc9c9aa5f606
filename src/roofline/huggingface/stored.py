"""In which format the files of a checkpoint store each component, from the names, types and shapes of their tensors."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from roofline.checkpoints import Checkpoint, StoredTensor
from roofline.errors import UnsupportedModelError, quoted
from roofline.huggingface.module_names import Naming, without_outer
from roofline.huggingface.packed import PLAIN, format_of, role_of
from roofline.model import LayerGroup, Matrix, Model, Tower
from roofline.model.ends import EMBEDDING, HEAD
from roofline.model.storage import Tensor, tensors
from roofline.units import show_bytes

_FEWEST = 0.5  # of the described weights that must be found, or the names of the family are taken to be unknown
_NEAR = 0.01  # so far the size of all files may be from that of the description
_SHOWN = 5
_OTHER_DTYPE = "the dtype by the configuration, {}: the files are in {}, which is taken"
_EXPERT = re.compile(r"\.experts\.\d+\.")

_OUTSIDE: dict[str, tuple[str, ...]] = {
    "embed_tokens": ("embed_tokens", "wte", "word_embeddings", "embeddings", "embed_in", "tok_embeddings", "token_embd"),
    "embed_positions": ("wpe", "embed_positions"),
    "lm_head": ("lm_head", "embed_out", "output", "head"),
    "embed_norm": ("word_embeddings_layernorm",),
    "norm": ("norm", "ln_f", "final_layernorm", "norm_f", "final_layer_norm", "output_norm", "embedding_norm", "token_embd_norm"),
    "embed_tokens_per_layer": ("per_layer_token_embd",),
    "per_layer_model_projection": ("per_layer_model_proj",),
    "per_layer_projection_norm": ("per_layer_proj_norm",),
    "altup_projections": ("altup_proj",),
    "altup_unembed_projections": ("altup_unembd_proj",),
}
"""What the modules outside the layers are called."""

_TABLES = ("embed_tokens", "embed_positions")

_INSIDE: dict[str, tuple[str, ...]] = {
    "self_attn.q_proj": ("attn.c_attn", "attention.query_key_value", "self_attention.query_key_value", "attn.q_proj"),
    "self_attn.k_proj": ("attn.c_attn", "attention.query_key_value", "self_attention.query_key_value", "attn.k_proj"),
    "self_attn.v_proj": ("attn.c_attn", "attention.query_key_value", "self_attention.query_key_value", "attn.v_proj"),
    "self_attn.o_proj": ("attn.c_proj", "attention.dense", "self_attention.dense", "attn.out_proj", "self_attn.out_proj"),
    "mlp.up_proj": ("mlp.c_fc", "mlp.dense_h_to_4h", "mlp.fc1", "mlp.fc_in", "fc1"),
    "mlp.down_proj": ("mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "mlp.fc_out", "fc2"),
    "mlp.experts.gate_proj": ("block_sparse_moe.input_linear",),
    "mlp.experts.up_proj": ("block_sparse_moe.input_linear",),
    "mlp.experts.down_proj": ("block_sparse_moe.output_linear",),
    **dict.fromkeys(("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"), ("shared_mlp.input_linear",)),
    "mlp.shared_experts.down_proj": ("shared_mlp.output_linear",),
    "mlp.act_fn": ("mlp.act_fn.alpha_p+mlp.act_fn.alpha_n",),
    "self_attn.q_norm": ("self_attn.q_layernorm", "self_attn.query_layernorm"),
    "self_attn.k_norm": ("self_attn.k_layernorm", "self_attn.key_layernorm"),
    "conv.conv1d": ("conv.conv",),
    "mlp.gate.e_score_correction_bias": ("mlp.moe_statics.e_score_correction_bias",),
    "input_layernorm": ("ln_1", "ln_attn", "self_attn_layer_norm"),
    "post_attention_layernorm": ("ln_2", "ln_mlp", "final_layer_norm"),
}
"""What older families call the modules inside a layer."""

_IDLE = re.compile(r"rope_|blk\.\d+\.(attn_rot_embd|rope_|exp_probs_b|nextn\.|layer_output_scale)")
"""Tensors of GGUF files without a product: factors of rotation, corrections of a router's scores, copies that draft layers have."""


_OF_TOWER = {
    "audio": re.compile(r"audio|speech"),
    "vision": re.compile(r"visi|visual|image|video|vit\b|multi_modal|projector|connector|aligner|merger|mlp1"),
}
"""How the names of tensors of towers and projectors are told from those of the text model."""


class Row(NamedTuple):
    """What the files hold of one component, all layers together."""

    described: int  # parameters by the description
    weights: int | None  # parameters in the files, None where the packing does not say how many there are
    bytes: float
    formats: tuple[str, ...]


class _Case(NamedTuple):
    """What is asked of the files."""

    model: Model
    naming: Naming
    said: str | None  # the format of what is not quantized by the configuration; None where the file is its own
    base: str | None  # the same by the files
    parts: int  # layers of the description that are one in the files


class Files:
    """The tensors of a checkpoint by module, and what a description has found among them.

    Parameters
    ----------
    checkpoint : Checkpoint
        What the headers say [-].
    names : mapping of str to tuple of str, optional
        Of a GGUF file, what it calls each component inside a layer; several modules of one component are joined by ``+`` [-].
    dtype : str, optional
        The format of activations, where no tensor says it [-].
    idle : collection of str, optional
        Tensors that no product uses [-].
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: Mapping[str, tuple[str, ...]] | None = None,
        dtype: str | None = None,
        idle: Collection[str] = (),
    ) -> None:
        self.checkpoint, self.names, self.dtype, self.idle = checkpoint, names, dtype, idle
        self.modules: dict[str, list[tuple[str, StoredTensor]]] = {}
        for tensor in checkpoint.tensors:
            module, role = role_of(tensor.name if names else without_outer(tensor.name))
            self.modules.setdefault(_EXPERT.sub(".experts.0.", module), []).append((role, tensor))
        self.naming = Naming("model.layers.{layer}.{component}", ())
        self.parts = 1
        self.rows: dict[str, Row] = {}
        self.taken: set[str] = set()
        self._notes: Counter[tuple[str, str]] = Counter()
        self._upright: Counter[tuple[str, bool]] = Counter()  # plain matrices of a component, by whether their rows are its outputs

    @property
    def transposed(self) -> Counter[str]:
        """Matrices of each component that are stored with rows and columns exchanged, where most of the others are not [-]."""
        both: Counter[bool] = Counter()
        for (_, upright), number in self._upright.items():
            both[upright] += number
        seldom = min(both, key=both.__getitem__) if len(set(both.values())) > 1 else None
        return Counter({name: number for (name, upright), number in self._upright.items() if upright is seldom})

    def named_by(self, path: str, renames: Mapping[str, str], parts: int) -> None:
        """Take what the checkpoints of the family call their modules, as its reader says, and how many layers of a description are one of theirs."""
        self.naming, self.parts = Naming(path, tuple(renames.items())), parts

    def settle(self, model: Model) -> Model:
        """Return a model with the formats that the files store it in; where they say something else than its configuration, a note says so."""
        if not self.checkpoint.tensors:
            return self._compared(model)
        if model.encoder is not None:  # whose modules have the names of the decoder's
            return self.unnamed(model)
        naming, said = self.naming, model.dtype if self.names is None else None
        case = _Case(model, naming, said, self.base or model.dtype, self.parts)
        layers = self._groups(case, model.layers)
        drafts: list[LayerGroup] = []
        for depth, module in enumerate(model.mtp_modules):
            number = model.num_layers + depth
            aliases = (f"mtp.layers.{depth}", f"mtp.{depth}", "mtp")
            places = tuple(f"{place}." for place in (f"{naming.stem}{number}", f"blk.{number}", *aliases))
            if any(name.startswith(places) for name in self.modules):
                drafts += self._groups(case, module, aliases, number)
        outside = tuple(tensor for tensor, group, _ in tensors(model) if group is None)
        around = self._outer(case, outside)
        if model.head is not None and model.head.tied:  # one tensor, stored as an embedding is
            around = tuple((n, f) for n, f in around if n != HEAD) + tuple((HEAD, f) for n, f in around if n == EMBEDDING)
        if sum(times * part.parameters for part, _, times in tensors(model) if part.name in self.rows) < _FEWEST * model.parameters:
            if self.names is None:
                return self.unnamed(model)
            raise UnsupportedModelError(f"{model.name}: most of its weights are not in the tensors that its architecture has.")
        if self.names is not None:
            self._must_agree(model.name)
        self._further_layers(case)
        notes = (*model.not_modelled, *self._said(case))
        if unused := sum(tensor.bytes for tensor in self.beside if tensor.name in self.idle):
            notes = (*notes, f"{show_bytes(unused)} of keys' and values' matrices in layers that use an earlier one's cache")
        if model.mtp and not drafts:
            notes = (*notes, "the multi-token-prediction layers, of which the files have no tensors")
        towers = tuple(self._tower(tower, case.base) for tower in model.towers)
        return model.but(dtype=case.base, layers=tuple(layers), mtp=tuple(drafts), formats=around, towers=towers, not_modelled=notes)

    def _tower(self, tower: Tower, base: str | None) -> Tower:
        """Return a tower in the type that most of its weights have in the files, whose tensors are told apart by their names alone."""
        held = [t for t in self.beside if _OF_TOWER[tower.senses].search(t.name) and t.kind != "i64"]  # positions kept as a buffer
        if not held:
            return tower
        self.taken.update(tensor.name for tensor in held)
        sizes: Counter[str] = Counter()
        for tensor in held:
            sizes[tensor.kind] += tensor.bytes
        plain = all(kind in PLAIN for kind in sizes)
        weights = sum(tensor.elements for tensor in held) if plain else None
        most = PLAIN.get(sizes.most_common(1)[0][0])
        formats = tuple(PLAIN.get(kind, kind) for kind in sizes)
        self.rows[f"{tower.senses} tower"] = Row(tower.parameters, weights, sum(sizes.values()), formats)
        return tower if most in (None, base) else tower.but(dtype=most)

    def _groups(self, case: _Case, groups: Iterable[LayerGroup], aliases: tuple[str, ...] = (), first: int = 0) -> list[LayerGroup]:
        """Return runs of layers that are alike, formats included."""
        alike: list[LayerGroup] = []
        number = first
        for group in groups:
            parts: tuple[Tensor, ...] = (*group.matrices(case.model.hidden_size), *group.vectors())
            for offset in range(group.count):
                here, number = number // case.parts, number + (not aliases)
                if offset >= group.stored:
                    continue  # the weights of an earlier layer
                formats = self._layer(case, parts, group, here, aliases)
                one = group.but(count=1, distinct=None, formats=formats)
                if group.stored != group.count:
                    one = group.but(formats=formats)
                    if offset:
                        continue
                elif alike and alike[-1].but(count=1) == one:
                    one = one.but(count=alike.pop().count + 1)
                alike.append(one)
            if not group.stored:
                alike.append(group)
        return alike

    def unnamed(self, model: Model) -> Model:
        """Return the model as its configuration describes it, in the one type that all tensors have, or with a note that they have several."""
        self.rows.clear()
        self.taken.clear()
        kinds = {tensor.kind for tensor in self.checkpoint.tensors} - {"i64"}  # positions kept as a buffer
        quantized = model.formats or any(group.formats for group in model.layers)
        if len(kinds) == 1 and not quantized and (base := PLAIN.get(kinds.pop())):
            notes = () if model.dtype in (None, base) else (_OTHER_DTYPE.format(model.dtype, base),)
            return model.but(dtype=base, not_modelled=(*model.not_modelled, *notes))
        note = "the formats in the files: the names of their tensors are not those that are known of this family"
        return model.but(not_modelled=(*model.not_modelled, note))

    def _further_layers(self, case: _Case) -> None:
        """Note layers of the files beyond those of the description and its drafts, each as a component of its own."""
        numbered = re.compile(rf"(?:{re.escape(case.naming.stem)}|h\.|layers\.)(\d+)\.")
        described = case.model.num_layers // case.parts + len(case.model.mtp_modules)
        layers: dict[int, list[StoredTensor]] = {}
        for name, held in self.modules.items():
            match = numbered.match(name)
            if match and int(match[1]) >= described:
                layers.setdefault(int(match[1]), []).extend(tensor for _, tensor in held if tensor.name not in self.taken)
        for number, layer in sorted(layers.items()):
            if size := sum(tensor.bytes for tensor in layer):
                formats = tuple(dict.fromkeys(PLAIN.get(tensor.kind) or tensor.kind for tensor in layer))
                self.rows[f"layer {number}"] = Row(0, sum(tensor.elements for tensor in layer), size, formats)
                self._notes[(f"layer {number}", f"{show_bytes(size)} in the files, of which the description has no such layer")] += 1

    def _must_agree(self, name: str) -> None:
        """Refuse a description that is made of the file itself and does not have all that the file has, and no more."""
        for component, text in self._notes:
            raise UnsupportedModelError(
                f"{name}: {component}: {text}; a file with other tensors than its architecture has here is not read."
            )
        for component, row in self.rows.items():
            if row.weights not in (None, row.described):
                raise UnsupportedModelError(
                    f"{name}: {component} has {row.weights:,} weights in the file, and {row.described:,} in its architecture."
                )
        for tensor in self.beside:
            if not _IDLE.match(tensor.name) and tensor.name not in self.idle:
                raise UnsupportedModelError(f"{name}: the tensor {quoted(tensor.name)} has no place in what is known of its architecture.")

    def _compared(self, model: Model) -> Model:
        """Return the model with a note if an index alone says that it has another size."""
        if missing := self.checkpoint.missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            note = f"what the files say of each tensor: of those that the index names there is no {missing[0]}{more}"
            model = model.but(not_modelled=(*model.not_modelled, note))
        size = None if model.dtype is None else model.stored_bytes(mtp=True) + (model.tower_bytes or 0)
        total = self.checkpoint.total_bytes
        if size is None or abs(size - total) <= _NEAR * total:
            return model
        note = f"what the files hold besides: {show_bytes(total)} by their index, {show_bytes(size)} by the configuration"
        return model.but(not_modelled=(*model.not_modelled, note))

    @cached_property
    def base(self) -> str | None:
        """Return the format of what is not quantized: that of the embedding, else of most other plain tensors."""
        if self.dtype:
            return self.dtype
        for name in _OUTSIDE["embed_tokens"]:
            for role, tensor in self.modules.get(name, ()):
                if role == "weight" and tensor.kind in PLAIN:
                    return PLAIN[tensor.kind]
        sizes: Counter[str] = Counter()
        for tensor in self.checkpoint.tensors:
            if tensor.kind in PLAIN and not tensor.name.endswith(("scale", "scales", "scale_inv")):
                sizes[PLAIN[tensor.kind]] += tensor.bytes
        return sizes.most_common(1)[0][0] if sizes else None

    def _layer(
        self, case: _Case, tensors: tuple[Tensor, ...], group: LayerGroup, number: int, aliases: tuple[str, ...]
    ) -> tuple[tuple[str, str], ...]:
        if self.names is not None:
            spelled = [self.names.get(t.name, ()) for t in tensors]
            prefixes = [f"blk.{number}"]
        else:
            prefixes = [f"{case.naming.stem}{number}", *(aliases or (f"h.{number}", f"layers.{number}"))]
            kind = case.naming.kind(tuple(t.name for t in tensors))
            names = zip(kind.components, kind.own, kind.other, strict=True)
            spelled = [(own, *other, *_INSIDE.get(component, ())) for component, own, other in names]
        candidates = [[tuple(f"{p}.{n}" for n in name.split("+")) for p in prefixes for name in names] for names in spelled]
        return self._formats(case, tensors, candidates, dict(group.formats))

    def _outer(self, case: _Case, tensors: tuple[Tensor, ...]) -> tuple[tuple[str, str], ...]:
        kind = case.naming.kind(tuple(t.name for t in tensors))
        own = [(name,) for name in kind.own]
        candidates = [[*((n,) for n in _OUTSIDE.get(t.name, ())), o] for t, o in zip(tensors, own, strict=True)]
        return self._formats(case, tensors, candidates, dict(case.model.formats))

    def _formats(
        self, case: _Case, tensors: tuple[Tensor, ...], candidates: Sequence[Iterable[tuple[str, ...]]], claimed: Mapping[str, str]
    ) -> tuple[tuple[str, str], ...]:
        """Return the format of each of some components that is not in `base`."""
        sharing: dict[tuple[str, ...], list[Tensor]] = {}  # modules that implementations make of several components
        for tensor, options in zip(tensors, candidates, strict=True):
            if not tensor.parameters:
                continue
            found = next((o for o in options if all(module in self.modules for module in o)), None)
            if found is not None:
                sharing.setdefault(found, []).append(tensor)
            elif isinstance(tensor, Matrix) or tensor.name in _TABLES:
                self._notes[(tensor.name, "no tensor of it is in the files")] += 1
        formats: dict[str, str] = {}
        for modules, parts in sharing.items():
            held = [pair for module in modules for pair in self.modules[module]]
            self.taken.update(tensor.name for _, tensor in held)
            said = claimed.get(parts[0].name) or case.said
            formats |= self._together(case, parts, held, said)
        return tuple((name, formats[name]) for t in tensors for name in (t.name, f"{t.name}.bias") if name in formats)

    def _together(self, case: _Case, parts: list[Tensor], held: list[tuple[str, StoredTensor]], said: str | None) -> dict[str, str]:
        """Return the formats of components that share a module, and note what the configuration says otherwise."""
        formats: dict[str, str] = {}
        vector = not isinstance(parts[0], Matrix)  # of whose shifts no format is said apart
        bias = [tensor for role, tensor in held if role == "bias" and not vector]
        main = [("weight" if vector else role, tensor) for role, tensor in held if tensor not in bias]
        if len(parts) == len(main) == 1 and isinstance(part := parts[0], Matrix) and main[0][1].kind in PLAIN:
            shape, rows = main[0][1].shape, (part.outputs, part.inputs)
            if part.inputs != part.outputs and shape in (rows, rows[::-1]):
                self._upright[(part.name, shape == rows)] += 1
        count = sum(_weights(part) for part in parts)
        format, weights = format_of(main, count, said)
        share = sum(tensor.bytes for _, tensor in main) / count if count else 0
        for part in parts:
            size = share * _weights(part) + sum(t.bytes for t in bias) / len(parts)
            own = None if weights is None else weights * _weights(part) // count + sum(t.elements for t in bias) // len(parts)
            self._add(part, own, size, format or said)
            if format and format != case.base:
                formats[part.name] = format
            for tensor in bias:
                if PLAIN.get(tensor.kind, case.base) != case.base:
                    formats[f"{part.name}.bias"] = PLAIN[tensor.kind]
            self._compare(case, part, said, format, share)
        if weights is not None and weights != count:
            names = " and ".join(part.name for part in parts)
            self._notes[(names, f"{count:,} weights by the description, but {weights:,} in the files")] += 1
        return formats

    def _compare(self, case: _Case, part: Tensor, said: str | None, format: str | None, share: float) -> None:
        """Note a format that is not known, or that is another than the configuration says of what quantization usually converts."""
        if part.name not in _TABLES and not (isinstance(part, Matrix) and part.quantizable):
            return
        if format is None:
            self._notes[(part.name, f"{share * 8:.4g} bits for each weight in the files are no known format")] += 1
        elif said not in (None, format) and (said, format) != (case.said, case.base):
            self._notes[(part.name, f"{said} by the configuration, but {format} in the files, which is taken")] += 1

    def _add(self, part: Tensor, weights: int | None, size: float, format: str | None) -> None:
        before = self.rows.get(part.name, Row(0, 0, 0, ()))
        total = None if weights is None or before.weights is None else before.weights + weights
        formats = before.formats if format is None or format in before.formats else (*before.formats, format)
        self.rows[part.name] = Row(before.described + part.parameters, total, before.bytes + size, formats)

    def _said(self, case: _Case) -> tuple[str, ...]:
        turned = {(name, "rows and columns are exchanged in the files"): number for name, number in self.transposed.items()}
        notes = [f"{name}: {text}" + (f" ({n} layers)" if n > 1 else "") for (name, text), n in (turned | self._notes).items()]
        if len(notes) > _SHOWN:
            notes = [
                *notes[:_SHOWN],
                f"{len(notes) - _SHOWN} further components of which the files say something else than the configuration",
            ]
        if case.said not in (None, case.base):
            notes.insert(0, _OTHER_DTYPE.format(case.said, case.base))
        return tuple(notes)

    @property
    def beside(self) -> list[StoredTensor]:
        """Tensors of the files that belong to no component of the description."""
        return [tensor for tensor in self.checkpoint.tensors if tensor.name not in self.taken]


def _weights(part: Tensor) -> int:
    return part.inputs * part.outputs * part.copies if isinstance(part, Matrix) else part.parameters
