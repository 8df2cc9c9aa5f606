"""In which format the files of a checkpoint store each component, from the names, types and shapes of their tensors."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import ceil
from typing import NamedTuple

from roofline.checkpoints import Checkpoint, StoredTensor
from roofline.errors import UnsupportedModelError, quoted
from roofline.formats import Format, named_format
from roofline.huggingface.module_names import Naming, without_outer
from roofline.model import LayerGroup, Matrix, Model
from roofline.model.ends import EMBEDDING, HEAD
from roofline.model.storage import Tensor, tensors
from roofline.units import show_bytes

_FEWEST = 0.5  # of the described weights that must be found, or the names of the family are taken to be unknown
_NEAR = 0.01  # scales of rows, indices and codebooks add so much to the bits of a format
_SHOWN = 5

_PLAIN = {"f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}
_GGML = {"mxfp4": "mxfp4_aint8", "nvfp4": "nvfp4_aint8"}  # ggml multiplies them by rows in 8 bits, like all its types

_WEIGHTS = {"weight", "qweight", "q_weight", "weight_packed", "W_q", "blocks", "trellis", "codes"}
_SCALES = {"weight_scale", "weight_scale_inv", "scales", "scale", "weight.absmax", "q_scale"}
_ZEROS = {"qzeros", "weight_zero_point", "biases", "zero"}
_ROLES = (
    _WEIGHTS
    | _SCALES
    | _ZEROS
    | {"bias", "g_idx", "codebooks", "meta", "SCB", "suh", "svh", "su", "sv", "k_scale", "v_scale", "q_perm", "q_invperm", "q_groups"}
    | {"q_group_map", "q_scale_max", "input_scale", "input_global_scale"}
)
_SUFFIX = re.compile(r"(.+proj)_(blocks|scales|bias)")
_EXPERT = re.compile(r"\.experts\.\d+\.")

_OUTSIDE: dict[str, tuple[str, ...]] = {
    "embed_tokens": ("embed_tokens", "wte", "word_embeddings", "embeddings", "embed_in", "tok_embeddings", "token_embd"),
    "embed_positions": ("wpe", "embed_positions"),
    "lm_head": ("lm_head", "embed_out", "output", "head"),
    "embed_norm": ("word_embeddings_layernorm",),
    "norm": ("norm", "ln_f", "final_layernorm", "norm_f", "final_layer_norm", "output_norm"),
}
"""What the modules outside the layers are called."""

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
    "mlp.gate.e_score_correction_bias": ("mlp.moe_statics.e_score_correction_bias",),
    "input_layernorm": ("ln_1", "ln_attn", "self_attn_layer_norm"),
    "post_attention_layernorm": ("ln_2", "ln_mlp", "final_layer_norm"),
}
"""What older families call the modules inside a layer."""

_IDLE = re.compile(r"rope_|blk\.\d+\.(attn_rot_embd|rope_|exp_probs_b|nextn\.)")
"""Tensors of GGUF files without a product: factors of rotation, corrections of a router's scores, copies that draft layers have."""


class Row(NamedTuple):
    """What the files hold of one component, all layers together."""

    described: int  # parameters by the description
    weights: int | None  # parameters in the files, None where the packing does not say how many there are
    bytes: float
    formats: tuple[str, ...]


def _role(name: str) -> tuple[str, str]:
    """Return the module of a tensor, and what of it the tensor is."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        if parts[i] in _ROLES or parts[i].startswith("weight_"):
            return ".".join(parts[:i]), ".".join(parts[i:])
    match = _SUFFIX.fullmatch(name)
    return (match[1], match[2]) if match else (name, "weight")


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
    """

    def __init__(self, checkpoint: Checkpoint, names: Mapping[str, tuple[str, ...]] | None = None, dtype: str | None = None) -> None:
        self.checkpoint, self.names, self.dtype = checkpoint, names, dtype
        self.modules: dict[str, list[tuple[str, StoredTensor]]] = {}
        for tensor in checkpoint.tensors:
            module, role = _role(tensor.name if names else without_outer(tensor.name))
            self.modules.setdefault(_EXPERT.sub(".experts.0.", module), []).append((role, tensor))
        self.rows: dict[str, Row] = {}
        self.taken: set[str] = set()
        self._notes: Counter[tuple[str, str]] = Counter()

    def settle(self, model: Model, naming: Naming) -> Model:
        """Return a model with the formats that the files store it in; where they say something else than its configuration, a note says so."""
        if not self.checkpoint.tensors:
            return self._compared(model)
        said, base = (model.dtype if self.names is None else None), self.base or model.dtype
        layers = self._groups(model, model.layers, naming, base, ())
        drafts: list[LayerGroup] = []
        for depth, module in enumerate(model.mtp_modules):
            number = model.num_layers + depth
            aliases = (f"mtp.layers.{depth}", f"mtp.{depth}", "mtp")
            places = tuple(f"{place}." for place in (f"{naming.stem}{number}", f"blk.{number}", *aliases))
            if any(name.startswith(places) for name in self.modules):
                drafts += self._groups(model, module, naming, base, aliases, number)
        outside = tuple(tensor for tensor, group, _ in tensors(model) if group is None)
        around = self._outer(outside, dict(model.formats), said, base, naming)
        if model.head is not None and model.head.tied:  # one tensor, stored as an embedding is
            around = tuple((n, f) for n, f in around if n != HEAD) + tuple((HEAD, f) for n, f in around if n == EMBEDDING)
        if sum(row.described for row in self.rows.values()) < _FEWEST * model.parameters:
            self.rows.clear()
            self.taken.clear()
            note = "the formats in the files: the names of their tensors are not those that are known of this family"
            return model.but(not_modelled=(*model.not_modelled, note))
        if self.names is not None:
            self._must_agree(model.name)
        notes = (*model.not_modelled, *self._said(said, base))
        if model.mtp and not drafts:
            notes = (*notes, "the multi-token-prediction layers, of which the files have no tensors")
        return model.but(dtype=base, layers=tuple(layers), mtp=tuple(drafts), formats=around, not_modelled=notes)

    def _groups(
        self, model: Model, groups: Iterable[LayerGroup], naming: Naming, base: str | None, aliases: tuple[str, ...], first: int = 0
    ) -> list[LayerGroup]:
        """Return runs of layers that are alike, formats included."""
        alike: list[LayerGroup] = []
        said = None if self.names is not None else model.dtype
        number = first
        for group in groups:
            parts: tuple[Tensor, ...] = (*group.matrices(model.hidden_size), *group.vectors())
            for offset in range(group.count):
                prefixes = [f"{naming.stem}{number}", *(aliases or (f"h.{number}", f"layers.{number}"))]
                number += not aliases
                if offset >= group.stored:
                    continue  # the weights of an earlier layer
                formats = self._layer(parts, dict(group.formats), said, base, naming, prefixes, number - (not aliases))
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

    def _must_agree(self, name: str) -> None:
        """Refuse a description that is made of the file itself and does not have all that the file has, and no more."""
        for component, text in self._notes:
            raise UnsupportedModelError(
                f"{name}: {component}: {text}; a file with other tensors than its architecture has here is not read."
            )
        for tensor in self.beside:
            if not _IDLE.match(tensor.name):
                raise UnsupportedModelError(f"{name}: the tensor {quoted(tensor.name)} has no place in what is known of its architecture.")

    def _compared(self, model: Model) -> Model:
        """Return the model with a note if an index alone says that it has another size."""
        size = None if model.dtype is None else model.stored_bytes(mtp=True)
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
                if role == "weight" and tensor.kind in _PLAIN:
                    return _PLAIN[tensor.kind]
        sizes: Counter[str] = Counter()
        for tensor in self.checkpoint.tensors:
            if tensor.kind in _PLAIN and not tensor.name.endswith(("scale", "scales", "scale_inv")):
                sizes[_PLAIN[tensor.kind]] += tensor.bytes
        return sizes.most_common(1)[0][0] if sizes else None

    def _layer(
        self,
        tensors: tuple[Tensor, ...],
        claimed: dict[str, str],
        dtype: str | None,
        base: str | None,
        naming: Naming,
        prefixes: list[str],
        number: int,
    ) -> tuple[tuple[str, str], ...]:
        if self.names is not None:
            spelled = [self.names.get(t.name, ()) for t in tensors]
            prefixes = [f"blk.{number}"]
        else:
            kind = naming.kind(tuple(t.name for t in tensors))
            names = zip(kind.components, kind.own, kind.other, strict=True)
            spelled = [(own, *other, *_INSIDE.get(component, ())) for component, own, other in names]
        candidates = [[tuple(f"{p}.{n}" for n in name.split("+")) for p in prefixes for name in names] for names in spelled]
        return self._formats(tensors, candidates, claimed, dtype, base)

    def _outer(
        self, tensors: tuple[Tensor, ...], claimed: Mapping[str, str], dtype: str | None, base: str | None, naming: Naming
    ) -> tuple[tuple[str, str], ...]:
        kind = naming.kind(tuple(t.name for t in tensors))
        own = [(name,) for name in kind.own]
        candidates = [[*((n,) for n in _OUTSIDE.get(t.name, ())), o] for t, o in zip(tensors, own, strict=True)]
        return self._formats(tensors, candidates, claimed, dtype, base)

    def _formats(
        self,
        tensors: tuple[Tensor, ...],
        candidates: Sequence[Iterable[tuple[str, ...]]],
        claimed: Mapping[str, str],
        dtype: str | None,
        base: str | None,
    ) -> tuple[tuple[str, str], ...]:
        """Return the format of each of some components that is not in `base`."""
        sharing: dict[tuple[str, ...], list[Tensor]] = {}  # modules that implementations make of several components
        for tensor, options in zip(tensors, candidates, strict=True):
            if not tensor.parameters:
                continue
            found = next((o for o in options if all(module in self.modules for module in o)), None)
            if found is not None:
                sharing.setdefault(found, []).append(tensor)
            elif isinstance(tensor, Matrix) or tensor.name in _OUTSIDE:
                self._notes[(tensor.name, "no tensor of it is in the files")] += 1
        formats: dict[str, str] = {}
        for modules, parts in sharing.items():
            held = [pair for module in modules for pair in self.modules[module]]
            self.taken.update(tensor.name for _, tensor in held)
            self._settle(parts, held, claimed, dtype, base, formats)
        return tuple((name, formats[name]) for t in tensors for name in (t.name, f"{t.name}.bias") if name in formats)

    def _settle(
        self,
        parts: list[Tensor],
        held: list[tuple[str, StoredTensor]],
        claimed: Mapping[str, str],
        dtype: str | None,
        base: str | None,
        formats: dict[str, str],
    ) -> None:
        """Settle the format of components that share a module, and note what the configuration says otherwise."""
        vector = not isinstance(parts[0], Matrix)  # of whose shifts no format is said apart
        bias = [tensor for role, tensor in held if role == "bias" and not vector]
        main = [("weight" if vector else role, tensor) for role, tensor in held if tensor not in bias]
        count = sum(_weights(part) for part in parts)
        said = claimed.get(parts[0].name) or dtype
        format, weights = _format_of(main, count, said)
        share = sum(tensor.bytes for _, tensor in main) / count if count else 0
        for part in parts:
            size = share * _weights(part) + sum(t.bytes for t in bias) / len(parts)
            own = None if weights is None else weights * _weights(part) // count + sum(t.elements for t in bias) // len(parts)
            self._add(part, own, size, format or said)
            if format and format != base:
                formats[part.name] = format
            for tensor in bias:
                if _PLAIN.get(tensor.kind, base) != base:
                    formats[f"{part.name}.bias"] = _PLAIN[tensor.kind]
            if not isinstance(part, Matrix) and part.name not in _OUTSIDE:
                continue
            if format is None:
                self._notes[(part.name, f"{share * 8:.4g} bits for each weight in the files are no known format")] += 1
            elif (
                format != said
                and said is not None
                and (said, format) != (dtype, base)
                and (not isinstance(part, Matrix) or part.quantizable)
            ):
                self._notes[(part.name, f"{said} by the configuration, but {format} in the files, which is taken")] += 1
        if weights is not None and weights != count:
            names = " and ".join(part.name for part in parts)
            self._notes[(names, f"{count:,} weights by the description, but {weights:,} in the files")] += 1

    def _add(self, part: Tensor, weights: int | None, size: float, format: str | None) -> None:
        before = self.rows.get(part.name, Row(0, 0, 0, ()))
        total = None if weights is None or before.weights is None else before.weights + weights
        formats = before.formats if format is None or format in before.formats else (*before.formats, format)
        self.rows[part.name] = Row(before.described + part.parameters, total, before.bytes + size, formats)

    def _said(self, dtype: str | None, base: str | None) -> tuple[str, ...]:
        notes = [f"{name}: {text}" + (f" ({n} layers)" if n > 1 else "") for (name, text), n in self._notes.items()]
        if len(notes) > _SHOWN:
            notes = [
                *notes[:_SHOWN],
                f"{len(notes) - _SHOWN} further components of which the files say something else than the configuration",
            ]
        if dtype is not None and base is not None and dtype != base and not self.dtype:
            notes.insert(0, f"the dtype by the configuration, {dtype}: the files are in {base}, which is taken")
        return tuple(notes)

    @property
    def beside(self) -> list[StoredTensor]:
        """Tensors of the files that belong to no component of the description."""
        return [tensor for tensor in self.checkpoint.tensors if tensor.name not in self.taken]


def _weights(part: Tensor) -> int:
    return part.inputs * part.outputs * part.copies if isinstance(part, Matrix) else part.parameters


def _format_of(held: list[tuple[str, StoredTensor]], count: int, said: str | None) -> tuple[str | None, int | None]:
    """Return the format of the tensors of a module and the number of its weights; None for either that they do not tell."""
    weights = [tensor for role, tensor in held if role in _WEIGHTS]
    size, stored = sum(tensor.bytes for _, tensor in held), sum(tensor.elements for tensor in weights)
    kinds = {tensor.kind for tensor in weights}
    known = {_PLAIN.get(kind) or _GGML.get(kind) or kind for kind in kinds}
    if len(kinds) == 1 and not kinds & _PACKED:
        (name,) = known
        return (name if named_format(name) else None), stored
    claim = None if said is None else named_format(said)
    near = claim is not None and abs(size - count * claim.bytes_per_element) <= _NEAR * size
    payload = 8 * sum(tensor.bytes for tensor in weights) / count
    bits = round(payload)
    whole = bits >= 1 and abs(payload - bits) < _NEAR * payload
    found = round(8 * sum(tensor.bytes for tensor in weights) / bits) if whole else None
    if near:
        return said, found
    if said is not None and said.startswith(("aqlm", "exl2", "exl3")):  # averages: the exact one of this module
        return f"{said[:4]}_{8 * size / count:.6g}", found
    return (_inferred(held, weights, count, bits) if whole else None), found


_PACKED = frozenset(
    [
        "bool",
        "u8",
        "u16",
        "u32",
        "u64",
        "i8",
        "i16",
        "i32",
        "i64",
        "f8_e4m3",
        "f8_e5m2",
        "f8_e8m0",
        "f8_e4m3fnuz",
        "f8_e5m2fnuz",
        "f4",
        "f6_e2m3",
        "f6_e3m2",
    ]
)
"""Types of safetensors that are no format by themselves: they have scales beside them, or hold several weights in one element."""


def _inferred(held: list[tuple[str, StoredTensor]], weights: list[StoredTensor], count: int, bits: int) -> str | None:
    """Return the format that packed weights of so many bits have, by the number and the type of their scales."""
    scales = [tensor for role, tensor in held if role in _SCALES]
    many = sum(tensor.elements for tensor in scales)
    kind = weights[0].kind
    if kind.startswith("f8"):
        rows, columns = _block(weights[0], scales[0]) if scales else (0, 0)
        if rows * columns <= 1 or rows >= weights[0].shape[0] or columns >= weights[0].shape[-1]:
            return "fp8"
        wide = 8 * scales[0].bytes // scales[0].elements
        if rows == 1:
            return "mxfp8" if (wide, columns) == (8, 32) else Format.grouped("fp8", group=columns, scale_bits=wide).name
        return Format.blocks(rows, columns, scale_bits=8 if wide == 8 else 32).name
    if kind == "i8" and bits == 8:
        return "int8"
    if not many or not 2 <= bits <= 8:
        return None
    group, wide = round(count / many), round(8 * sum(tensor.bytes for tensor in scales) / many)
    if (bits, wide, group) in _FP4 and scales[0].kind != "f16":
        return _FP4[bits, wide, group]
    zero = round(8 * sum(tensor.bytes for role, tensor in held if role in _ZEROS) / many)
    if group >= weights[0].shape[-1] and group > 256:
        return {4: "int4_channel", 8: "int8_a16"}.get(bits)
    return Format.grouped(f"int{bits}", group=group, scale_bits=wide, zero_bits=zero).name


_FP4 = {(4, 8, 16): "nvfp4", (4, 8, 32): "mxfp4"}


def _block(weight: StoredTensor, scale: StoredTensor) -> tuple[int, int]:
    """Return the rows and columns of a block with one scale."""
    if len(weight.shape) < 2 or len(scale.shape) < 2:
        return 0, 0
    rows, columns = (1 << (ceil(n / s) - 1).bit_length() if s else 0 for n, s in zip(weight.shape[-2:], scale.shape[-2:], strict=True))
    return rows, columns
