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
    """The number formats of one evaluation, as the user chose them or the model stores them.

    Parameters
    ----------
    weights : Format or None
        Format of every quantizable matrix; None keeps the stored ones [-].
    components : tuple of (str, Format)
        Formats of single components, which win over everything else [-].
    activations : Format or None
        Format that rows are multiplied in; None follows the weights [-].
    base : Format
        Format of everything that quantization leaves alone: embedding, head, norms [-].
    stream : Format
        Format of activations in memory [-].
    kv : Format
        Format of the cache [-].
    model : Model
        The model, for what its checkpoint stores [-].
    """

    weights: Format | None
    components: tuple[tuple[str, Format], ...]
    activations: Format | None
    base: Format
    stream: Format
    kv: Format
    model: Model

    @classmethod
    def of(
        cls, model: Model, *, weights: WeightFormats = None, activations: str | Format | None = None, kv: str | Format | None = None
    ) -> "Precision":
        """Resolve what the user asked for against what the model stores.

        Parameters
        ----------
        model : Model
            The model [-].
        weights : str, Format, mapping or None, optional
            One format for the quantizable matrices of the layers, whatever they are stored in; embedding, head, router and norms
            stay as stored. A format of 16 bits or more, or that of a whole GGUF file, is for everything. Or a mapping of component
            name to format, ``"*"`` standing for one format as above [-].
        activations : str, Format or None, optional
            Format that rows are multiplied in where they meet a quantized matrix [-].
        kv : str, Format or None, optional
            Format of the cache; if not given the one that the checkpoint names, else that of the activations in memory [-].

        Returns
        -------
        Precision
            The resolved formats [-].

        Raises
        ------
        UnknownNameError
            If a format or a component is not known.
        InvalidValueError
            If the format of unquantized tensors is not known, or a tied tensor is given two formats.
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
        """Return the format that a matrix or an embedding table is stored in.

        Parameters
        ----------
        tensor : Matrix or Vector
            The matrix or table [-].
        group : LayerGroup or None
            Its layer; None outside the layers [-].

        Returns
        -------
        Format
            A component's own choice, else the override, else what the checkpoint stores [-].
        """
        for name, format in self.components:
            if name == tensor.name:
                return format
        if self.weights is not None:
            quantizable = group is not None and isinstance(tensor, Matrix) and tensor.quantizable
            if quantizable or self.weights == self.base:
                return self.weights
        return format_as_stored(self.model, tensor.name, group) or self.base

    def multiplied(self, stored: Format) -> Format:
        """Return the format in which rows meet a matrix stored in `stored`.

        Parameters
        ----------
        stored : Format
            The matrix's format [-].

        Returns
        -------
        Format
            The chosen activations for a quantized matrix, or what goes with its format [-].
        """
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
