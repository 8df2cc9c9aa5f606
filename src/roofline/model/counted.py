"""A mixer of which no more is known than what it multiplies and what it keeps: as read from a program, not from a description."""

from typing import Literal

from roofline.errors import InvalidValueError, quoted
from roofline.model.components import Count, Matrix, Vector
from roofline.model.feed_forward import Projection
from roofline.model.held import STREAM, Held, MixerPart
from roofline.step.rows import Rows
from roofline.visibility import Visibility


class CountedMixer(MixerPart):
    """Matrices, attention if there is any, and what a sequence keeps, without a name for the whole.

    Parameters
    ----------
    projections : tuple of Projection
        Its matrices [-].
    further : int, optional
        Parameters outside matrices that every token reads [-].
    idle : int, optional
        Parameters that no token reads [-].
    heads : int, optional
        Heads of queries, 0 without attention [-].
    qk_dim, v_dim : int, optional
        Width of a query or key head, and of a value head [-].
    visible : {"causal", "window", "chunk", "selected", "bidirectional"}, optional
        Which positions a token attends to [-].
    span : int, optional
        Window or chunk length, or number of positions that are selected [token].
    row : int, optional
        Elements kept for every position that a later token may attend to [-].
    state : int, optional
        Elements of a state that does not grow [-].
    state_format : str, optional
        Format that the state is kept in [-].
    columns : int, optional
        Elements of a state in the format of activations, such as the columns of a convolution [-].
    token_flops : int, optional
        FLOP of a token beside matrices, attention and state [FLOP].
    sampled : bool, optional
        Whether only rows of which logits are asked pass its matrices, as those of a second head; it is nothing but matrices then [-].
    """

    kind: Literal["counted"] = "counted"
    projections: tuple[Projection, ...]
    further: Count = 0
    idle: Count = 0
    heads: Count = 0
    qk_dim: Count = 0
    v_dim: Count = 0
    visible: Literal["causal", "window", "chunk", "selected", "bidirectional"] = "causal"
    span: Count = 0
    row: Count = 0
    state: Count = 0
    state_format: str = "fp32"
    columns: Count = 0
    token_flops: Count = 0
    sampled: bool = False

    def _check(self) -> None:
        if self.sampled and self.but(projections=(), sampled=False) != CountedMixer(projections=()):
            raise InvalidValueError("CountedMixer: what only rows of which logits are asked pass is nothing but matrices.")
        if self.visible == "bidirectional" and self.row:
            raise InvalidValueError("CountedMixer: what is seen from both sides keeps no rows.")
        if (self.visible in ("window", "chunk", "selected")) != (self.span > 0) and self.visible != "bidirectional":
            raise InvalidValueError(f"CountedMixer: visible is {quoted(self.visible)} with a span of {self.span}.")

    @property
    def visibility(self) -> Visibility:
        """Which positions a token attends to [-]."""
        return Visibility(self.visible, self.span)

    def keeps(self) -> tuple[Held, ...]:
        """Return the rows, the state and the columns, whichever there are [-]."""
        once = Rows("state", cached=False)
        rows = (Held(Rows.seen(self.visibility), self.row),) if self.row else ()
        state = (Held(once, self.state, self.state_format),) if self.state else ()
        return (*rows, *state, *((Held(once, self.columns, STREAM),) if self.columns else ()))

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the matrices, whose widths are their own [-]."""
        return tuple(matrix for part in self.projections for matrix in part.matrices(hidden))

    def vectors(self) -> tuple[Vector, ...]:
        """Return the parameters outside matrices, read or not [-]."""
        return tuple(Vector(name, size) for name, size in (("further", self.further), ("idle", self.idle)) if size)
