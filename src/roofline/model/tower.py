"""A vision or audio tower: an encoder of its own width, and what makes rows of the text model of its output."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from roofline.description import NOT_EMPTY
from roofline.errors import InvalidValueError, quoted
from roofline.model.components import Count, Part, Size
from roofline.model.layers import LayerGroup
from roofline.model.storage import Placed, of_groups, parameters_of
from roofline.units import whole_number

if TYPE_CHECKING:
    from roofline.model.spec import Model


class Tower(Part):
    """Layers that turn an image or a stretch of sound into rows that stand between the embedded tokens of a prompt.

    Parameters
    ----------
    senses : {"vision", "audio"}
        What it encodes [-].
    model_type : str
        What its configuration calls it [-].
    hidden_size : int
        Width of its residual stream [-].
    layers : tuple of LayerGroup
        What every position passes, first to last: norms and layers [-].
    embedding : tuple of LayerGroup, optional
        What makes the rows of patches or frames [-].
    projector : tuple of LayerGroup, optional
        What passes rows on to the text model, each made of `merged` positions [-].
    idle : tuple of LayerGroup, optional
        What is stored and never run: layers after the one whose output is passed on, a head that pools [-].
    positions : int, optional
        Positions of one image or stretch of sound; 0 where images have different numbers of them [token].
    merged : int, optional
        Positions that become one row of the projector [-].
    window : int, optional
        Positions that one use of `embedding` makes; of a part of a window its work is left out [token].
    added : int, optional
        Positions that are no patches, such as that of a class [token].
    dropped : int, optional
        Positions that never reach the projector [token].
    tables : tuple of (str, int), optional
        Parameters outside layers, by name and elements: positions, the vector of a class [-].
    dtype : str, optional
        Format that it is stored in, where that is not the model's [-].
    encoded : int, optional
        Positions of each image or stretch of sound whose work is counted in a prefill; 0 leaves the work out [token].
    times : int, optional
        How many of them each prompt has [-].
    ways : int, optional
        Devices that share its weights and its work evenly [-].
    """

    senses: Literal["vision", "audio"]
    model_type: str
    hidden_size: Size
    layers: Annotated[tuple[LayerGroup, ...], NOT_EMPTY]
    embedding: tuple[LayerGroup, ...] = ()
    projector: tuple[LayerGroup, ...] = ()
    idle: tuple[LayerGroup, ...] = ()
    positions: Count = 0
    merged: Size = 1
    window: Size = 1
    added: Count = 0
    dropped: Count = 0
    tables: tuple[tuple[str, int], ...] = ()
    dtype: str | None = None
    encoded: Count = 0
    times: Size = 1
    ways: Size = 1

    @property
    def parameters(self) -> int:
        """Parameters in all, projector included [-]."""
        return sum(self.by_component().values())

    def by_component(self) -> dict[str, int]:
        """Return the parameters of every component, summed over layers.

        Returns
        -------
        dict of str to int
            Parameters by component name; they add up to `parameters` [-].
        """
        return parameters_of(self.tensors())

    def tensors(self) -> Iterator[Placed]:
        """Yield every tensor that is stored, with its layer (None outside the layers) and how often it is [-]."""
        return of_groups((*self.embedding, *self.layers, *self.projector, *self.idle), self.hidden_size, self.tables)

    @property
    def rows(self) -> int:
        """Rows of the projector for one image or stretch of sound whose work is counted [token]."""
        return max(self.encoded - self.dropped, 0) // self.merged


OF_TOWERS = re.compile(r"\bthe (vision|audio) tower and its projector\b")
"""How what is left out speaks of towers."""


def left_out(senses: str) -> str:
    """Say that the work of a tower is not counted, though its memory is."""
    return f"the work of the {senses} tower and its projector; Model.with_encoded adds it"


def encoding(model: "Model", positions: int | None, times: int, senses: str | None) -> tuple[tuple[Tower, ...], str]:
    """Return the towers of a model, one of which encodes something, and what had been said of its work."""
    meant = [tower for tower in model.towers if senses in (None, tower.senses)]
    if len(meant) != 1:
        known = " and ".join(repr(tower.senses) for tower in model.towers) or "none that is understood"
        raise InvalidValueError(
            f"{model.name} has towers {known}; " + (f"senses is {quoted(senses)}." if senses else "senses says which is meant.")
            if model.towers
            else f"{model.name} has no vision or audio tower that is understood, so nothing is encoded."
        )
    (tower,) = meant
    if positions is None and not tower.positions:
        raise InvalidValueError(
            f"positions is needed: images have different numbers of patches in the {tower.senses} tower of {model.name}."
        )
    count = tower.positions if positions is None else whole_number("positions", positions, minimum=1)
    if tower.positions and count > tower.positions:
        raise InvalidValueError(
            f"positions is {quoted(positions)}; the {tower.senses} tower of {model.name} has {tower.positions:,} at most, and times= says how many of "
            "them a prompt has."
        )
    changed = tower.but(encoded=count, times=whole_number("times", times, minimum=1))
    return tuple(changed if each is tower else each for each in model.towers), left_out(tower.senses)
