"""Which number format every tensor of a model is stored, multiplied and streamed in."""

from collections.abc import Mapping
from dataclasses import dataclass

from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.model import LayerGroup, Matrix, Model
from roofline.names import unknown_name

__all__ = ["Precision", "WeightFormats"]

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
        Format of everything no quantization touches: embedding, head, norms [-].
    stream : Format
        Format of activations in memory [-].
    kv : Format
        Format of the cache [-].
    """

    weights: Format | None
    components: tuple[tuple[str, Format], ...]
    activations: Format | None
    base: Format
    stream: Format
    kv: Format

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
            One format for the quantizable matrices (embedding, head, router and norms stay), or a mapping of component
            name to format, ``"*"`` standing for the quantizable ones [-].
        activations : str, Format or None, optional
            Format that rows are multiplied in [-].
        kv : str, Format or None, optional
            Format of the cache; that of the activations in memory if not given [-].

        Returns
        -------
        Precision
            The resolved formats [-].

        Raises
        ------
        UnknownNameError
            If a format or a component is not known.
        """
        components: dict[str, str] = {}
        if isinstance(weights, Mapping):
            components = dict(weights)
            weights = components.pop("*", None)
            known = [*model.by_component(), "lm_head"]
            for name in components:
                if name not in known:
                    raise unknown_name(
                        f"component of {model.name}", str(name), known, hint="`weights` maps component names, or '*', to formats"
                    )
        chosen = None if weights is None else Format.load(weights)
        rows = None if activations is None else Format.load(activations)
        plain = [f for f in (chosen, rows) if f is not None and f.bits >= 16 and f.operand == f.name]
        if model.dtype is None and not plain:
            raise InvalidValueError(
                f"{model.name}: its configuration names no dtype, and nothing is guessed; say weights='bf16' (or fp16, fp32), "
                "or activations= beside a quantized weights=."
            )
        base = plain[0] if plain and (plain[0] is chosen or model.dtype is None) else Format.load(str(model.dtype))
        stream = (rows if rows in plain else None) or base
        formats = tuple((name, Format.load(f)) for name, f in components.items())
        return cls(chosen, formats, rows, base, stream, stream if kv is None else Format.load(kv))

    def stored(self, matrix: Matrix, group: LayerGroup | None) -> Format:
        """Return the format that a matrix is stored in.

        Parameters
        ----------
        matrix : Matrix
            The matrix [-].
        group : LayerGroup or None
            Its layer; None outside the layers [-].

        Returns
        -------
        Format
            A component's own choice, else the override, else what the checkpoint stores [-].
        """
        for name, format in self.components:
            if name == matrix.name:
                return format
        if self.weights is not None and group is not None and matrix.quantizable:
            return self.weights
        return Format.load(group.formats[matrix.name]) if group is not None and matrix.name in group.formats else self.base

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
