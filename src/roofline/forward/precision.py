"""The number formats that tensors are stored, multiplied and streamed in."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from roofline.errors import InvalidValueError
from roofline.formats import OPERANDS, Format, named_format
from roofline.huggingface.module_names import FUSED, without_outer
from roofline.model import LayerGroup, Matrix, Model, Vector
from roofline.model.storage import format_as_stored, tensors
from roofline.names import normalize_name, unknown_name

WeightFormats = str | Format | Mapping[str, str | Format] | None
"""What `weights=` takes: one format for the quantizable matrices, or a mapping of component or module to format."""


def as_chosen(given: Any, *, by_component: bool = False) -> Any:
    """Return a choice of formats as it is always written: by name where there is one, and None for what is left to the checkpoint.

    Formats of weights may be given by component.

    Examples
    --------
    >>> as_chosen("FP8"), as_chosen({"*": Format.load("fp8")}, by_component=True), as_chosen("auto")
    ('fp8', 'fp8', None)
    """
    if by_component and isinstance(given, Mapping):
        chosen = {name: format for name, each in given.items() if (format := as_chosen(each)) is not None}
        return chosen.get("*") if chosen.keys() <= {"*"} else chosen
    if given is None or (isinstance(given, str) and normalize_name(given) == "auto"):
        return None
    format = Format.load(given)
    return format.name if named_format(format.name) == format else format


def as_dtype(given: Any) -> str | None:
    """Return the format that a model is in where it is not quantized, checked.

    Examples
    --------
    >>> as_dtype("torch.float16")
    'fp16'
    """
    chosen = as_chosen(given)
    if chosen is not None and chosen not in _DTYPES:
        raise InvalidValueError(
            f"dtype is {given!r}; it is the format of what is not quantized: {', '.join(_DTYPES)}. Quantized weights are chosen by weights=."
        )
    return None if chosen is None else str(chosen)


_DTYPES = ("bf16", "fp16", "fp32")


@dataclass(frozen=True, slots=True)
class Precision:
    """The number formats of one evaluation, as the user chose them or the model stores them."""

    weights: Format | None  # format of every quantizable matrix; None keeps the stored ones
    components: tuple[tuple[str, Format], ...]  # formats of single components, which win over everything else
    activations: Format | None  # format that rows are multiplied in; None follows the weights
    base: Format  # format of everything that quantization leaves alone: embedding, head, norms
    stream: Format  # format of activations in memory
    kv: Format  # format of the cache
    model: Model  # the model, for what its checkpoint stores

    @classmethod
    def of(
        cls, model: Model, *, weights: WeightFormats = None, activations: str | Format | None = None, kv: str | Format | None = None
    ) -> "Precision":
        """Resolve what the user asked for against what the model stores.

        One format of weights is for the quantizable matrices of the layers, whatever they are stored in; one of 16 bits or more, or that of
        a whole GGUF file, is for everything. A mapping is by component or module, ``"*"`` standing for one format as above.
        """
        weights, activations, kv = as_chosen(weights, by_component=True), as_chosen(activations), as_chosen(kv)
        components: dict[str, Any] = {}
        if isinstance(weights, Mapping):
            components = dict(weights)
            weights = components.pop("*", None)
        chosen = None if weights is None else Format.load(weights)
        rows = None if activations is None else _rows(activations)
        if chosen is not None and _is_plain(chosen):
            base = chosen
        elif model.dtype is None:
            raise InvalidValueError(
                f"{model.name}: its configuration names no dtype, and nothing is guessed; say dtype='bf16' (or fp16, fp32), the format of "
                "what is not quantized, or weights='bf16' for all of it."
            )
        else:
            base = Format.load(model.dtype)
        stream = rows if rows is not None and _is_plain(rows) else base
        if chosen is not None and chosen.whole_file:
            base = chosen
        cache = stream if kv is None and model.kv_format is None else Format.load(model.kv_format) if kv is None else cache_format(kv)
        return cls(chosen, _chosen(model, components), rows, base, stream, cache, model)

    def stored(self, tensor: Matrix | Vector, group: LayerGroup | None) -> Format:
        """Return the format that a tensor is stored in: its own choice, else the override, else what the checkpoint says."""
        for name, format in self.components:
            if name == tensor.name:
                return format
        if self.weights is not None:
            quantizable = group is not None and isinstance(tensor, Matrix) and tensor.quantizable
            if quantizable or self.weights == self.base:
                return self.weights
        return format_as_stored(self.model, tensor.name, group) or self.base

    def multiplied(self, stored: Format) -> Format:
        """Return the format in which rows meet a matrix: the chosen activations for a quantized one, or what goes with its format."""
        if stored.bits >= 16:
            return self.stream
        if self.activations is not None:
            return self.activations
        return self.stream if stored.activations == "bf16" else Format.load(stored.activations)


def _is_plain(format: Format) -> bool:
    """Whether a format is that of a model before it is quantized."""
    return format.bits >= 16 and format.operand == format.name


def _rows(activations: Any) -> Format:
    """Return the format that rows are multiplied in."""
    format = Format.load(activations)
    if format.bits < OPERANDS[format.operand] or format.whole_file or format.name.startswith("nf4"):
        raise InvalidValueError(
            f"activations is {format.name!r}, a format of weights only; rows are multiplied in one such as int8, fp8 or bf16."
        )
    return format


def cache_format(kv: Any) -> Format:
    """Return the format of a cache, which is quantized row by row as it is written.

    References
    ----------
    llama.cpp, ``common/arg.cpp``, ``kv_cache_types``: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1, and no other type of a file.

    Examples
    --------
    >>> cache_format("q8_0").bits
    Fraction(17, 2)
    """
    format = Format.load(kv)
    if format.whole_file or (_OF_FILES.match(format.name) and format.name != "iq4_nl"):
        raise InvalidValueError(
            f"kv is {format.name!r}, a format of weights only; a cache is kept in one such as fp8, int8, bf16, or q8_0 and q4_0 of llama.cpp."
        )
    return format


_OF_FILES = re.compile(r"q\d_k|iq\d_|aqlm|exl|gguf|ternary|nf4")


def _chosen(model: Model, wanted: Mapping[str, Any]) -> tuple[tuple[str, Format], ...]:
    """Return the formats of single components: those of a module first, which those of its components replace."""
    if not wanted:
        return ()
    known: dict[str, bool] = {}  # whether quantization usually converts it
    for tensor, group, _ in tensors(model, model.mtp):
        if isinstance(tensor, Matrix) or tensor.name in _OUTSIDE:
            usual = group is not None and isinstance(tensor, Matrix) and tensor.quantizable
            known[tensor.name] = known.get(tensor.name, False) or usual
    modules = dict.fromkeys(name[:end] for name in known for end, letter in enumerate(name) if letter == "." and name[:end] not in known)
    formats: dict[str, Format] = {}
    meant = {name: _meant(str(name), known, modules) for name in wanted}
    for name in sorted(wanted, key=lambda name: (meant[name][0], -len(meant[name][1]))):
        themselves, named = meant[name]
        if not named:
            raise unknown_name(
                f"component of {model.name}",
                str(name),
                [*modules, *known],
                hint="`weights` maps names of matrices or of modules, or '*', to formats",
            )
        format = Format.load(wanted[name])
        formats |= dict.fromkeys([c for c in named if themselves or known[c] or _is_plain(format)], format)
    if model.head is not None and model.head.tied and (tied := {formats[n] for n in _OUTSIDE if n in formats}):
        if len(tied) > 1:
            raise InvalidValueError(f"{model.name}: {' and '.join(_OUTSIDE)} are one tensor, so they cannot have two formats.")
        formats |= dict.fromkeys(_OUTSIDE, tied.pop())
    return tuple(formats.items())


def _meant(name: str, known: Iterable[str], modules: Iterable[str]) -> tuple[bool, list[str]]:
    """Return the components that a name means, and whether it names them or a module with all that is in it.

    Understood are our own names, their last parts, and those with the modules around a layer (``model.layers.*.mlp``) or of the matrices
    that engines fuse.

    Examples
    --------
    >>> layer = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.experts.up_proj"]
    >>> _meant("qkv_proj", layer, ["self_attn", "mlp", "mlp.experts"])
    (True, ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'])
    >>> _meant("model.layers.*.experts", layer, ["self_attn", "mlp", "mlp.experts"])
    (False, ['mlp.experts.up_proj'])
    """
    short = without_outer(name).removeprefix("layers.*.")
    if short in known:
        return True, [short]
    if short in modules:
        return False, [c for c in known if c.startswith(f"{short}.")]
    last = [c for c in known if any(f".{spelled}".endswith(f".{short}") for spelled in _spelled(c))]
    return bool(last), last or [c for c in known if f".{short}." in f".{c}."]


def _spelled(component: str) -> list[str]:
    """Return the names of a component: its own, and those of what engines make of it and others."""
    parent, dot, last = component.rpartition(".")
    return [component, *(f"{parent}{dot}{fused}" for fused in FUSED.get(last, ()))]


_OUTSIDE = ("embed_tokens", "lm_head")
