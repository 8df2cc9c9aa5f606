"""The encoder of an encoder-decoder: layers of its own, which every sequence passes once."""

from typing import Annotated

from roofline.description import NOT_EMPTY
from roofline.model.components import Count, Norm, Part, Vector
from roofline.model.layers import LayerGroup


class Encoder(Part):
    """Layers that turn the source of a sequence into what cross-attention sees, as wide as the model's own.

    Parameters
    ----------
    layers : tuple of LayerGroup
        Runs of identical layers, first to last [-].
    tokens : bool, optional
        Whether the source is text, whose tokens are looked up in a table [-].
    rows : int, optional
        Rows of a token table of its own, 0 if the model's serves it as well [-].
    positions : int, optional
        Rows of a table of positions, 0 for none [-].
    norm : Norm, optional
        A norm on what enters the layers [-].
    final_norm : Norm or None, optional
        The norm after the last layer [-].
    """

    layers: Annotated[tuple[LayerGroup, ...], NOT_EMPTY]
    tokens: bool = True
    rows: Count = 0
    positions: Count = 0
    norm: Norm | None = None
    final_norm: Norm | None = None

    @property
    def num_layers(self) -> int:
        """Layers that have a mixer [-]."""
        return sum(group.count for group in self.layers if group.mixer is not None)

    def vectors(self, hidden: int) -> tuple[Vector, ...]:
        """Return the parameters outside the layers, without a token table that is the model's.

        Parameters
        ----------
        hidden : int
            Width of the residual stream [-].

        Returns
        -------
        tuple of Vector
            The tables of tokens and of positions, and norms [-].
        """
        tables = (("encoder.embed_tokens", self.rows), ("encoder.embed_positions", self.positions))
        norms = tuple(Vector(f"encoder.{n.name}", n.parameters) for n in (self.norm, self.final_norm) if n is not None)
        return tuple(Vector(name, rows * hidden) for name, rows in tables if rows) + norms
