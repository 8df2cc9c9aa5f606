"""A transformer as data: an embedding, a run-length list of layers, a head. What it costs is computed elsewhere."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any

from roofline.calls import checks_methods
from roofline.description import NOT_EMPTY
from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.model.anonymous import AnonymousCache
from roofline.model.components import Norm, Part, Size
from roofline.model.cross_attention import CrossAttention
from roofline.model.encoder import Encoder
from roofline.model.ends import HEAD, Embedding, Head
from roofline.model.feed_forward import AnonymousWeights, Experts, Projection
from roofline.model.held import CACHE, STREAM
from roofline.model.layers import LayerGroup
from roofline.model.memo import Memo
from roofline.model.printed import in_words
from roofline.model.storage import bytes_by_component, format_as_stored, stored_dtype, tensors
from roofline.model.tower import OF_TOWERS, Tower, encoding
from roofline.units import GIGA, check_flag, show_bytes, whole_number

OF_SOURCE = "another length of the source"
"""How what is left out says that the positions of cross-attention are assumed."""

_FEWEST = 10**6  # parameters of a transformer; what is less was meant in billions


@checks_methods
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
    encoder : Encoder, optional
        What makes the positions that cross-attention sees, where that is a stack of layers of its own [-].
    max_positions : int, optional
        Longest sequence the model was made for [token].
    mtp : tuple of LayerGroup, optional
        Multi-token-prediction layers: stored beside the model, run only when a step asks for them [-].
    formats : tuple of (str, str), optional
        Stored format of components outside the layers that are not in `dtype`, by name: ``lm_head``, ``embed_tokens``; a bias is
        ``lm_head.bias`` [-].
    kv_format : str, optional
        Format that the checkpoint wants its key-value cache in; that of the activations if not given [-].
    static_scales : bool, optional
        Whether the checkpoint stores the scales that rows are quantized with, so that no kernel computes them; None where it does not
        say, or rows are not quantized [-].
    towers : tuple of Tower, optional
        Vision and audio towers with their projectors: in memory beside the model, outside `parameters`; their work is counted where
        :meth:`with_encoded` says of what [-].
    unknown_towers : tuple of str, optional
        Towers that are not understood, by what they are and their `model_type` [-].
    not_modelled : tuple of str, optional
        What the configuration names and this description leaves out [-].
    alias_note : str, optional
        What the id that was asked for is read as, where it is a variant of this model; every result repeats it [-].

    Examples
    --------
    >>> Model.anonymous("70B").parameters
    70000000000
    """

    name: str
    source: str
    hidden_size: Size
    dtype: str | None
    layers: Annotated[tuple[LayerGroup, ...], NOT_EMPTY]
    embedding: Embedding | None = None
    final_norm: Norm | None = None
    head: Head | None = None
    encoder: Encoder | None = None
    max_positions: Size | None = None
    mtp: tuple[LayerGroup, ...] = ()
    formats: tuple[tuple[str, str], ...] = ()
    kv_format: str | None = None
    static_scales: bool | None = None
    towers: tuple[Tower, ...] = ()
    unknown_towers: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    alias_note: str = ""

    @classmethod
    def load(cls, source: Any, *, read: str = "auto") -> "Model":
        """Return the model that `source` names, points at or describes. The network is never asked.

        Parameters
        ----------
        source : str, os.PathLike, mapping, object, int, float or Model
            A catalogue name, a path to a config.json or its folder, or to a GGUF file, an id of the Hugging Face Hub, the dict or config
            object of a configuration, a number of parameters (``"70B"``, ``70e9``) for an anonymous dense transformer, or a model [-].
        read : {"auto", "code"}, optional
            How a configuration is read: key by key, or from the code that transformers builds of it on torch's meta device [-].

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
        MissingDependencyError
            If it is to be read from code, and torch or transformers is not installed.

        Notes
        -----
        Where safetensors files are beside a config.json, the formats in their headers go before what it says of them. A GGUF file is
        described by its own header. No weight is read.

        An id, ``owner/name``, is read from the local cache of the Hub where it holds its configuration. Else its owner, what the model
        was tuned for (``Instruct``, ``chat``, ``it``), dates and versions are left out until a name of the catalogue remains, and
        `alias_note` says so.

        Examples
        --------
        >>> Model.load("70B").parameters
        70000000000
        >>> Model.load("Qwen/Qwen3-30B-A3B-Instruct-2507").alias_note
        "'Qwen/Qwen3-30B-A3B-Instruct-2507' is read as qwen3-30b-a3b, whose architecture and formats it is taken to have"
        """
        if isinstance(source, Model):
            return source
        from roofline.catalog import load_model  # a constructor by name has to reach up to the readers

        return load_model(source, read)

    @classmethod
    def from_module(cls, module: Any, *, inputs: Any = None, name: str = "", visible: str | None = None) -> "Model":
        """Return the model that a torch module is, read from what it does on torch's meta device: no weight is copied, nothing is computed.

        Parameters
        ----------
        module : torch.nn.Module
            The module, on any device; its first argument, or `input_ids`, takes ids of tokens [-].
        inputs : callable or mapping, optional
            A function of the number of tokens that returns all arguments of its forward; or arguments beside the token ids [-].
        name : str, optional
            What to call the model, its class if not given [-].
        visible : {"causal", "bidirectional"}, optional
            Which positions a token attends to where the values of masks, which may depend on tokens, do not say it [-].

        Returns
        -------
        Model
            The model [-].

        Raises
        ------
        MissingDependencyError
            If torch is not installed.
        InvalidValueError
            If it is no module.
        UnsupportedModelError
            If it does not run on the meta device, or has neither attention nor a state.

        Notes
        -----
        Parameters equal those of the module. Keys and values are those that its cache holds, or without a cache those of its attention. What
        fits no part of a model exactly is counted as a :class:`roofline.model.CountedMixer`, and what cannot be attributed is in `not_modelled`.
        """
        from roofline.torch_modules.read import read_module  # knows torch, which nothing here may load

        return read_module(module, inputs=inputs, name=name, visible=visible)

    @classmethod
    def anonymous(cls, parameters: str | float, *, kv_bytes_per_token: int | None = None) -> "Model":
        """Return a dense transformer of which only the number of parameters is known, and perhaps the size of its cache.

        Parameters
        ----------
        parameters : str, int or float
            A count, or text such as ``"70B"`` or ``"350M"`` [-].
        kv_bytes_per_token : int, optional
            Bytes that one token adds to the KV cache, all layers together; no cache if not given [B].

        Returns
        -------
        Model
            A model without head or activation traffic [-].

        Raises
        ------
        InvalidValueError
            If either is not a whole positive number.

        Examples
        --------
        >>> Model.anonymous("70B", kv_bytes_per_token=327_680).kv_bytes_per_token()
        327680
        """
        text = parameters.strip() if isinstance(parameters, str) else ""
        factor = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}.get(text[-1:].lower(), 1)
        number: Any = parameters
        if text:
            try:
                number = float(text[:-1] if factor > 1 else text) * factor
            except ValueError:
                number = parameters
            else:
                number = round(number) if math.isfinite(number) else parameters
        count = whole_number("parameters", number, minimum=1)
        if count < _FEWEST and factor == 1:
            meant = (
                f'did you mean "{count}B" or {count}e9?'
                if count < 10_000
                else 'no transformer has so few; text such as "70k" says that it is meant.'
            )
            raise InvalidValueError(f"parameters is {count}, the number of them all: {meant}")
        label = text if isinstance(parameters, str) else f"{count / GIGA:g}B"
        weights = LayerGroup(count=1, mixer=None, feed_forward=AnonymousWeights(parameters=int(count)))
        model = cls(
            name=f"{label} parameters",
            source="a bare parameter count",
            hidden_size=1,
            dtype="bf16",
            layers=(weights,),
            not_modelled=("everything but its weights: KV cache, attention, LM head, activations",),
        )
        return model if kv_bytes_per_token is None else model.with_cache(kv_bytes_per_token)

    def with_cache(self, kv_bytes_per_token: int) -> "Model":
        """Return a model of which only the number of parameters is known with a KV cache.

        Parameters
        ----------
        kv_bytes_per_token : int
            Bytes that one token adds to it, all layers together [B].

        Returns
        -------
        Model
            The model with such a cache [-].

        Raises
        ------
        InvalidValueError
            If more is known of the model, or the size is no whole positive number.
        """
        size = whole_number("kv_bytes_per_token", kv_bytes_per_token, minimum=1)
        if not self.is_anonymous:
            raise InvalidValueError(
                f"{self.name} has a KV cache of {show_bytes(self.kv_bytes_per_token())} per token at 16 bits, which kv= makes narrower; "
                "kv_bytes_per_token is for a model given by its number of parameters."
            )
        (weights,) = self.layers
        return self.but(
            layers=(weights.but(mixer=AnonymousCache(bytes_per_token=size)),),
            not_modelled=("everything but its weights and KV cache: products of attention, LM head, activations",),
        )

    def with_source(self, positions: int) -> "Model":
        """Return a model whose cross-attention sees so many positions: the tokens of a text, the frames or patches of what is encoded.

        Parameters
        ----------
        positions : int
            How many [token].

        Returns
        -------
        Model
            The model with such a source [-].

        Raises
        ------
        InvalidValueError
            If the model has no cross-attention, its encoder has fewer positions, or the number is no whole positive one.

        Examples
        --------
        >>> whisper = Model.load("whisper-large-v3")
        >>> whisper.source_positions, whisper.with_source(750).source_positions
        (1500, 750)
        """
        size = whole_number("positions", positions, minimum=1)
        if not self.source_positions:
            raise InvalidValueError(f"{self.name} has no cross-attention, so it sees no source.")
        if self.encoder is not None and 0 < self.encoder.positions < size:
            raise InvalidValueError(f"positions is {size}, but the encoder of {self.name} has a table of {self.encoder.positions}.")
        layers = (
            group.but(mixer=group.mixer.but(source=size)) if isinstance(group.mixer, CrossAttention) else group for group in self.layers
        )
        return self.but(layers=tuple(layers), not_modelled=tuple(note for note in self.not_modelled if not note.startswith(OF_SOURCE)))

    def with_encoded(self, positions: int | None = None, *, times: int = 1, senses: str | None = None) -> "Model":
        """Return a model whose prefills include what a tower does: the work of encoding what each prompt shows or plays.

        Parameters
        ----------
        positions : int, optional
            Patches of each image, or frames of each stretch of sound, that the tower's layers see; the tower's own number if not given [token].
        times : int, optional
            Images or stretches of sound of each prompt [-].
        senses : {"vision", "audio"}, optional
            Which tower, where there are several [-].

        Returns
        -------
        Model
            The model; of its prompts the encoded rows are part as any other tokens [-].

        Raises
        ------
        InvalidValueError
            If there is no such tower, several, one whose images have different numbers of patches, or one that has fewer positions.

        Examples
        --------
        >>> gemma = Model.load("gemma-3-4b")
        >>> tower = gemma.with_encoded(times=2).towers[0]
        >>> tower.encoded, tower.times, tower.rows
        (4096, 2, 256)
        """
        towers, note = encoding(self, positions, times, senses)
        return self.but(towers=towers, not_modelled=tuple(n for n in self.not_modelled if n != note))

    def without_towers(self) -> "Model":
        """Return the model as an engine holds it that serves text alone and loads no tower, such as vLLM with ``--language-model-only``.

        Returns
        -------
        Model
            The text model [-].

        Examples
        --------
        >>> Model.load("gemma-3-4b").without_towers().tower_parameters
        0
        """
        notes = tuple(note for note in self.not_modelled if not OF_TOWERS.search(note))
        return self.but(towers=(), unknown_towers=(), not_modelled=notes)

    @property
    def tower_parameters(self) -> int | None:
        """Parameters of vision and audio towers with their projectors, which `parameters` leaves out; None where one is not understood [-]."""
        return None if self.unknown_towers else sum(tower.parameters for tower in self.towers)

    @property
    def tower_bytes(self) -> int | float | None:
        """Bytes of the towers and projectors as they are stored, which `stored_bytes` leaves out; None where one is not understood [B]."""
        if self.unknown_towers:
            return None
        formats = (Format.load(tower.dtype) if tower.dtype else stored_dtype(self) for tower in self.towers)
        return sum(tower.parameters * each.bytes_per_element for tower, each in zip(self.towers, formats, strict=True))

    @property
    def encodes(self) -> bool:
        """Whether steps with new sequences run something for them besides the layers: an encoder, or a tower whose work is counted."""
        return self.source_positions > 0 or any(tower.encoded for tower in self.towers)

    @property
    def source_positions(self) -> int:
        """Positions that cross-attention sees, 0 where there is none [token]."""
        return max((group.mixer.source for group in self.layers if isinstance(group.mixer, CrossAttention)), default=0)

    def __str__(self) -> str:
        return in_words(self)

    @cached_property
    def memo(self) -> Memo:
        """Programs compiled from this model, and what else is computed once for it."""
        return Memo()

    def __hash__(self) -> int:
        return hash((self.name, self.hidden_size, self.layers))

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out what is computed: it is computed again where it is needed."""
        return {name: self.__dict__[name] for name in self._fields}

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
        plain, mtp = stored_dtype(self), check_flag("mtp", mtp)
        every = tensors(self, self.mtp if mtp else ())
        return bytes_by_component(every, lambda tensor, group: format_as_stored(self, tensor.name, group) or plain)

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
        for group in (*self.layers, *(self.encoder.layers if self.encoder else ())):
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
        return self.by_component().get(HEAD, 0)

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
        kept = [(g.count, held) for g in self.layers if g.mixer is not None for held in g.mixer.keeps()]
        sizes = [Format.load(kv if held.stored in (CACHE, STREAM) else held.stored).bytes_per_element for _, held in kept]
        return sum(size * count * held.cache_elements_per_token for size, (count, held) in zip(sizes, kept, strict=True))

    def source_bytes_per_sequence(self, kv: str = "bf16") -> int | float:
        """Return the bytes of keys and values of its source that every sequence holds: written once, read by every step.

        Parameters
        ----------
        kv : str, optional
            Number format of the cache [-].

        Returns
        -------
        int or float
            Bytes per sequence, 0 without cross-attention [B].

        References
        ----------
        Whisper-large-v3 in bf16: 2 · 32 layers · 1500 positions · 1280 · 2 B = 245,760,000 B.
        """
        kept = ((g.count * h.rows.span, h) for g in self.layers if g.mixer for h in g.mixer.keeps() if h.rows.kind == "source")
        return Format.load(kv).bytes_per_element * sum(rows * held.elements for rows, held in kept)

    @property
    def state_bytes_per_sequence(self) -> int:
        """Bytes of recurrent state that every sequence holds, whatever its length; convolution states in 16 bit [B]."""
        kept = ((g.count * h.elements, h.stored) for g in self.layers if g.mixer for h in g.mixer.keeps() if h.rows.kind == "state")
        return sum(n * int(Format.load("bf16" if stored == STREAM else stored).bytes_per_element) for n, stored in kept)
