"""A transformer as data: an embedding, a run-length list of layers, a head. What it costs is computed elsewhere."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from roofline.formats import Format
from roofline.model.components import Matrix, Norm, Part, Size, Vector
from roofline.model.feed_forward import AnonymousWeights, Experts, FeedForward, Projection
from roofline.model.hyper_connections import hyper_connection, stream_collapse
from roofline.model.mixers import Mixer
from roofline.model.recurrent import RecurrentMixer
from roofline.model.storage import bytes_by_component, format_as_stored, stored_dtype, tensors
from roofline.units import check_count

__all__ = ["Embedding", "Head", "LayerGroup", "Model"]

_EMBEDDING, _HEAD = "embed_tokens", "lm_head"


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
    """

    vocabulary: Size
    width: Size
    positions: Annotated[int, Field(ge=0)] = 0
    token_types: Annotated[int, Field(ge=0)] = 0
    norm: Norm | None = None

    @property
    def tables(self) -> tuple[Vector, ...]:
        """The tables, by name and elements [-]."""
        rows = (("embed_positions", self.positions), ("embed_token_types", self.token_types))
        return (Vector(_EMBEDDING, self.vocabulary * self.width), *(Vector(n, r * self.width) for n, r in rows if r))


class Head(Part):
    """The language-model head: hidden states to logits over the vocabulary.

    Parameters
    ----------
    outputs : int
        Logits per row [-].
    tied : bool
        Whether it shares the token table's weights: stored once, read by both [-].
    bias : bool, optional
        Whether the logits have a bias [-].
    transform : bool, optional
        Whether a square dense layer with bias and a LayerNorm come first, as in BERT [-].
    streams : int, optional
        Residual streams that become one first, 1 for a plain residual [-].
    """

    outputs: Size
    tied: bool
    bias: bool = False
    transform: bool = False
    streams: Size = 1

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return the matrices of the head; the last is the projection to logits [-].

        Parameters
        ----------
        hidden : int
            Width of the residual stream [-].

        Returns
        -------
        tuple of Matrix
            (collapse,) (transform,) projection [-].
        """
        collapse = (stream_collapse("hc_head", hidden, self.streams),) if self.streams > 1 else ()
        transform = (Matrix("head_transform", hidden, hidden, hidden),) if self.transform else ()
        return (*collapse, *transform, Matrix(_HEAD, hidden, self.outputs, self.outputs * self.bias))

    def norm(self, hidden: int) -> Norm | None:
        """Return the norm inside the transform, if there is one.

        Parameters
        ----------
        hidden : int
            Width of the residual stream [-].

        Returns
        -------
        Norm or None
            The norm [-].
        """
        return Norm(name="head_norm", width=hidden, parameters=2 * hidden) if self.transform else None


class LayerGroup(Part):
    """So many identical layers.

    Parameters
    ----------
    count : int
        How many [-].
    distinct : int, optional
        How many of them have weights of their own, where layers share them; all if not given, 0 if all weights are an earlier layer's [-].
    mixer : Mixer or None
        The part that mixes tokens, if the layer has one [-].
    feed_forward : FeedForward or None
        The part that works token by token, if the layer has one [-].
    norms : tuple of Norm, optional
        The norms on the residual stream [-].
    formats : tuple of (str, str), optional
        Stored format of the components that are not in the model's `dtype`, by name [-].
    streams : int, optional
        Residual streams, which hyper-connections collapse before each block and mix after it; 1 for a plain residual [-].
    """

    count: Annotated[int, Field(gt=0, le=100_000)]
    mixer: Mixer | None
    feed_forward: FeedForward | None
    norms: tuple[Norm, ...] = ()
    formats: tuple[tuple[str, str], ...] = ()
    distinct: Annotated[int, Field(ge=0)] | None = None
    streams: Size = 1

    @property
    def stored(self) -> int:
        """Layers with weights of their own [-]."""
        return self.count if self.distinct is None else self.distinct

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Return every matrix of one layer.

        Parameters
        ----------
        hidden : int
            Width of the residual stream [-].

        Returns
        -------
        tuple of Matrix
            The mixer's, then the feed-forward's, then the hyper-connections' [-].
        """
        own = tuple(m for part in (self.mixer, self.feed_forward) if part is not None for m in part.matrices(hidden))
        return (*own, *(m for m in self.connections(hidden) if m is not None))

    def connections(self, hidden: int) -> tuple[Matrix | None, Matrix | None]:
        """Return the hyper-connections around the mixer and around the feed-forward.

        Parameters
        ----------
        hidden : int
            Width of one residual stream [-].

        Returns
        -------
        tuple of (Matrix or None)
            None where there is no such block, or only one stream [-].
        """
        mixer, feed_forward = (
            hyper_connection(name, hidden, self.streams) if part is not None and self.streams > 1 else None
            for name, part in (("attn_hc", self.mixer), ("ffn_hc", self.feed_forward))
        )
        return mixer, feed_forward

    def parameters(self, hidden: int) -> int:
        """Return the parameters of one layer.

        Parameters
        ----------
        hidden : int
            Width of the residual stream [-].

        Returns
        -------
        int
            Matrices and vectors [-].
        """
        return sum(m.parameters for m in self.matrices(hidden)) + sum(v.parameters for v in self.vectors())

    def vectors(self) -> tuple[Vector, ...]:
        """Return every parameter of one layer that is in no matrix [-]."""
        inner = tuple(v for part in (self.mixer, self.feed_forward) if part is not None for v in part.vectors())
        return (*inner, *(Vector(n.name, n.parameters) for n in self.norms))


class Model(Part):
    """A transformer's architecture, with exact parameter counts.

    Parameters
    ----------
    name : str
        What to call it [-].
    source : str
        Where the description comes from [-].
    hidden_size : int
        Width of the residual stream [-].
    dtype : str or None
        Format of whatever is not said to have another; None where the configuration does not say [-].
    layers : tuple of LayerGroup
        Runs of identical layers, first to last [-].
    embedding : Embedding or None
        The input embedding [-].
    final_norm : Norm or None
        The norm after the last layer [-].
    head : Head or None
        The head [-].
    max_positions : int, optional
        Longest sequence the model was made for [token].
    mtp : tuple of LayerGroup, optional
        Multi-token-prediction layers: stored beside the model, run only when a step asks for them [-].
    formats : tuple of (str, str), optional
        Stored format of components outside the layers that are not in `dtype`, by name: ``lm_head``, ``embed_tokens`` [-].
    kv_format : str, optional
        Format that the checkpoint wants its key-value cache in; that of the activations if not given [-].
    not_modelled : tuple of str, optional
        What the configuration names and this description leaves out [-].

    Examples
    --------
    >>> Model.anonymous("70B").parameters
    70000000000
    """

    name: str
    source: str
    hidden_size: Size
    dtype: str | None
    layers: Annotated[tuple[LayerGroup, ...], Field(min_length=1)]
    embedding: Embedding | None = None
    final_norm: Norm | None = None
    head: Head | None = None
    max_positions: Annotated[int, Field(gt=0)] | None = None
    mtp: tuple[LayerGroup, ...] = ()
    formats: tuple[tuple[str, str], ...] = ()
    kv_format: str | None = None
    not_modelled: tuple[str, ...] = ()

    @classmethod
    def load(cls, source: Any) -> "Model":
        """Return the model that `source` names, points at or describes. The network is never asked.

        Parameters
        ----------
        source : str, os.PathLike, mapping, object, int, float or Model
            A catalogue name, a path to a config.json or its folder, the dict or config object of one, a number of
            parameters (``"70B"``, ``70e9``) for an anonymous dense transformer, or a model [-].

        Returns
        -------
        Model
            The model [-].

        Raises
        ------
        UnknownNameError
            If it is a name that is neither in the catalogue nor a path; the message lists the nearest.
        ConfigError
            If the configuration is malformed or incomplete.
        UnsupportedModelError
            If its architecture, or a key that changes the cost, is not understood.

        Examples
        --------
        >>> Model.load("70B").parameters
        70000000000
        """
        if isinstance(source, Model):
            return source
        from roofline.catalog import load_model  # a constructor by name has to reach up to the readers

        return load_model(source)

    @classmethod
    def anonymous(cls, parameters: str | float) -> "Model":
        """Return a dense transformer of which only the number of parameters is known.

        Parameters
        ----------
        parameters : str, int or float
            A count, or text such as ``"70B"`` or ``"350M"`` [-].

        Returns
        -------
        Model
            A model without cache, head or activation traffic [-].

        Raises
        ------
        InvalidValueError
            If it is not a whole positive number.
        """
        text = str(parameters).strip()
        factor = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}.get(text[-1:].lower(), 1)
        number: Any = parameters
        if isinstance(parameters, str):
            try:
                number = float(text[:-1] if factor > 1 else text) * factor
            except ValueError:
                number = parameters
            else:
                number = round(number) if math.isfinite(number) else number
        count = check_count("parameters", number, minimum=1)
        label = text if isinstance(parameters, str) else f"{count / 1e9:g}B"
        weights = LayerGroup(count=1, mixer=None, feed_forward=AnonymousWeights(parameters=int(count)))
        return cls(
            name=f"{label} parameters",
            source="a bare parameter count",
            hidden_size=1,
            dtype="bf16",
            layers=(weights,),
            not_modelled=("everything but its weights: KV cache, attention, LM head, activations",),
        )

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """What the forward room has compiled from this model, so that it is done once."""
        return {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and all(getattr(self, f) == getattr(other, f) for f in type(self).model_fields)

    def __hash__(self) -> int:
        return hash((self.name, self.hidden_size, self.layers))

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out what is computed: it is computed again where it is needed."""
        state = super().__getstate__()
        return {**state, "__dict__": {f: state["__dict__"][f] for f in type(self).model_fields}}

    @property
    def is_anonymous(self) -> bool:
        """Whether only the number of parameters is known."""
        return isinstance(self.layers[0].feed_forward, AnonymousWeights)

    @property
    def num_layers(self) -> int:
        """Layers in all [-]."""
        return sum(group.count for group in self.layers)

    def _components(self) -> Iterator[tuple[str, int]]:
        for tensor, _, times in tensors(self):
            yield tensor.name, times * tensor.parameters

    def by_component(self) -> dict[str, int]:
        """Return the parameters of every component, summed over layers; tied tensors once.

        Returns
        -------
        dict of str to int
            Parameters by component name; they add up to `parameters` [-].
        """
        totals: dict[str, int] = {}
        for name, parameters in self._components():
            totals[name] = totals.get(name, 0) + parameters
        return {name: parameters for name, parameters in totals.items() if parameters}

    def bytes_by_component(self, *, mtp: bool = False) -> dict[str, int | float]:
        """Return the bytes of every component as the checkpoint stores it, block scales included, summed over layers.

        Parameters
        ----------
        mtp : bool, optional
            Whether to count the multi-token-prediction layers as well [-].

        Returns
        -------
        dict of str to int or float
            Bytes by component name; they add up to :meth:`stored_bytes` [B].

        Raises
        ------
        InvalidValueError
            If the configuration names no dtype.
        """
        plain = stored_dtype(self)
        return bytes_by_component(
            self, lambda tensor, group: format_as_stored(self, tensor.name, group) or plain, plain, self.mtp if mtp else ()
        )

    def stored_bytes(self, *, mtp: bool = False) -> int | float:
        """Return the bytes of all parameters as the checkpoint stores them, tied tensors once: its size on disk.

        Parameters
        ----------
        mtp : bool, optional
            Whether to count the multi-token-prediction layers as well [-].

        Returns
        -------
        int or float
            Bytes [B].

        Raises
        ------
        InvalidValueError
            If the configuration names no dtype.

        Examples
        --------
        >>> Model.anonymous("70B").stored_bytes()
        140000000000
        """
        return sum(self.bytes_by_component(mtp=mtp).values())

    @cached_property
    def parameters(self) -> int:
        """Parameters in all, tied tensors once [-]."""
        return sum(parameters for _, parameters in self._components())

    @cached_property
    def active_parameters(self) -> int:
        """Parameters that one token passes through: all but the experts not chosen [-]."""
        idle = 0
        for group in self.layers:
            part = group.feed_forward
            if isinstance(part, Experts):
                one = sum(m.parameters // m.copies for m in part.expert_matrices(self.hidden_size))
                idle += group.stored * (part.count - min(part.top_k, part.count)) * one
        return self.parameters - idle

    @property
    def mtp_modules(self) -> tuple[tuple[LayerGroup, ...], ...]:
        """The multi-token-prediction modules, each of joining matrices and the layers after them."""
        modules: list[tuple[LayerGroup, ...]] = []
        for group in self.mtp:
            joins = isinstance(group.feed_forward, Projection)
            if not modules or (joins and not isinstance(modules[-1][-1].feed_forward, Projection)):
                modules.append((group,))
            else:
                modules[-1] = (*modules[-1], group)
        return tuple(modules)

    @property
    def mtp_parameters(self) -> int:
        """Parameters of the multi-token-prediction layers, which `parameters` leaves out [-]."""
        return sum(g.stored * g.parameters(self.hidden_size) for g in self.mtp)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token table [-]."""
        return 0 if self.embedding is None else self.embedding.tables[0].parameters

    @property
    def head_parameters(self) -> int:
        """Parameters of the projection to logits; of a tied one only its bias [-]."""
        return self.by_component().get(_HEAD, 0)

    def kv_bytes_per_token(self, kv: str = "bf16") -> int | float:
        """Return the bytes by which one more token makes the KV cache grow, all layers together.

        Windowed layers count too, as long as their window is not full.

        Parameters
        ----------
        kv : str, optional
            Number format of the cache [-].

        Returns
        -------
        int or float
            Bytes per token [B].

        References
        ----------
        Llama-3-70B in bf16: 2 · 80 layers · 8 heads · 128 · 2 B = 327,680 B.
        """
        size = Format.load(kv).bytes_per_element
        return size * sum(g.count * g.mixer.cache_elements_per_token for g in self.layers if g.mixer is not None)

    @property
    def state_bytes_per_sequence(self) -> int:
        """Bytes of recurrent state that every sequence holds, whatever its length; convolution states in 16 bit [B]."""
        total = 0
        for group in self.layers:
            if isinstance(group.mixer, RecurrentMixer):
                state = group.mixer.state_elements * int(Format.load(group.mixer.state_format).bytes_per_element)
                total += group.count * (state + 2 * group.mixer.conv_state_elements)
        return total
