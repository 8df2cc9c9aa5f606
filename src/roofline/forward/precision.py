"""The number formats that tensors are stored, multiplied and streamed in."""

from collections.abc import Mapping
from dataclasses import dataclass

from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.model import LayerGroup, Matrix, Model, Vector
from roofline.model.storage import format_as_stored, tensors
from roofline.names import unknown_name

WeightFormats = str | Format | Mapping[str, str] | None
"""What `weights=` takes: one format for the quantizable matrices, or a mapping of component name to format."""


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
        a whole GGUF file, is for everything. A mapping is by component, ``"*"`` standing for one format as above.
        """
        components: dict[str, str] = {}
        if isinstance(weights, Mapping):
            components = dict(weights)
            weights = components.pop("*", None)
        chosen = None if weights is None else Format.load(weights)
        rows = None if activations is None else Format.load(activations)
        plain = [f for f in (chosen, rows) if f is not None and f.bits >= 16 and f.operand == f.name]
        if model.dtype is None and not plain:
            raise InvalidValueError(
                f"{model.name}: its configuration names no dtype, and nothing is guessed; say weights='bf16' (or fp16, fp32), "
                "or activations= beside quantized weights, whether given by weights= or stored in the checkpoint."
            )
        base = plain[0] if plain and (plain[0] is chosen or model.dtype is None) else Format.load(str(model.dtype))
        stream = (rows if rows in plain else None) or base
        if chosen is not None and chosen.whole_file:
            base = chosen
        cache = stream if kv is None and model.kv_format is None else Format.load(str(model.kv_format) if kv is None else kv)
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


def _chosen(model: Model, wanted: Mapping[str, str]) -> tuple[tuple[str, Format], ...]:
    """Return the formats of single components, of a tied tensor under both its names."""
    if not wanted:
        return ()
    known = dict.fromkeys(t.name for t, _, _ in tensors(model, model.mtp) if isinstance(t, Matrix) or t.name in _OUTSIDE)
    for name in wanted:
        if name not in known:
            raise unknown_name(
                f"component of {model.name}", str(name), [*known], hint="`weights` maps names of matrices, or '*', to formats"
            )
    formats = {name: Format.load(f) for name, f in wanted.items()}
    if model.head is not None and model.head.tied and (tied := {formats[n] for n in _OUTSIDE if n in formats}):
        if len(tied) > 1:
            raise InvalidValueError(f"{model.name}: {' and '.join(_OUTSIDE)} are one tensor, so they cannot have two formats.")
        formats |= dict.fromkeys(_OUTSIDE, tied.pop())
    return tuple(formats.items())


_OUTSIDE = ("embed_tokens", "lm_head")
