"""The two ends of a model: the embedding before the layers, and the head after them."""

from roofline.model.components import Count, Matrix, Norm, Part, Size, Vector, WeightedPart
from roofline.model.feed_forward import Projection
from roofline.model.hyper_connections import stream_collapse

EMBEDDING, HEAD = "embed_tokens", "lm_head"
"""Component names of the token table and of the projection to logits."""


class Embedding(Part):
    """The input embedding: tables of which a step reads one row per token.

    Parameters
    ----------
    vocabulary : int
        Rows of the token table [-].
    width : int
        Elements of a row [-].
    positions : int, optional
        Rows of a learned position table, 0 for none [-].
    token_types : int, optional
        Rows of a token-type table, 0 for none [-].
    norm : Norm, optional
        A norm on the embedded rows [-].
    layer_rows, layer_width : int, optional
        Rows of a second token table, and elements of a row, which has a part for every layer; 0 for none [-].
    projections : tuple of Projection, optional
        Matrices that every embedded row passes besides those of the layers [-].
    projection_norm : Norm, optional
        A norm on what they make [-].
    """

    vocabulary: Size
    width: Size
    positions: Count = 0
    token_types: Count = 0
    norm: Norm | None = None
    layer_rows: Count = 0
    layer_width: Count = 0
    projections: tuple[Projection, ...] = ()
    projection_norm: Norm | None = None

    @property
    def tables(self) -> tuple[Vector, ...]:
        """The tables whose rows are added, by name and elements [-]."""
        rows = (("embed_positions", self.positions), ("embed_token_types", self.token_types))
        return (Vector(EMBEDDING, self.vocabulary * self.width), *(Vector(n, r * self.width) for n, r in rows if r))

    @property
    def layer_tables(self) -> tuple[Vector, ...]:
        """The table of which a row has a part for every layer, if there is one [-]."""
        return (Vector("embed_tokens_per_layer", self.layer_rows * self.layer_width),) if self.layer_rows else ()


class Head(WeightedPart):
    """The language-model head: hidden states to logits over the vocabulary; or the pooler of an encoder, to one vector of a sequence.

    Parameters
    ----------
    outputs : int
        Logits per row [-].
    tied : bool
        Whether it shares the token table's weights: stored once, read by both [-].
    bias : bool, optional
        Whether the logits have a bias [-].
    transform : bool, optional
        Whether a dense layer and a LayerNorm come first, as in BERT [-].
    transform_bias, norm_bias : bool, optional
        Whether the one and the other has a bias [-].
    inner : int, optional
        Width of the rows after them, if not the residual stream's [-].
    streams : int, optional
        Residual streams that become one first, 1 for a plain residual [-].
    name : str, optional
        Component name of the projection [-].
    """

    outputs: Size
    tied: bool
    bias: bool = False
    transform: bool = False
    transform_bias: bool = True
    norm_bias: bool = True
    inner: Size | None = None
    streams: Size = 1
    name: str = HEAD

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the matrices of the head: (collapse,) (transform,) projection to logits [-]."""
        collapse = (stream_collapse("hc_head", hidden, self.streams),) if self.streams > 1 else ()
        wide = self.inner or hidden
        transform = (Matrix("head_transform", hidden, wide, wide * self.transform_bias),) if self.transform else ()
        return (*collapse, *transform, Matrix(self.name, wide, self.outputs, self.outputs * self.bias))

    def norm(self, hidden: int) -> Norm | None:
        """Return the norm inside the transform, if there is one [-]."""
        wide = self.inner or hidden
        return Norm(name="head_norm", width=wide, parameters=wide * (1 + self.norm_bias)) if self.transform else None
