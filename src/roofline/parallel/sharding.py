"""One device's share of a model is a model: fewer heads, narrower blocks, fewer experts, fewer layers.

What engines replicate stays whole: norms, routers, the latent cache of MLA; key-value heads fewer than devices are copied.
"""

from collections.abc import Callable
from typing import Any

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, UnsupportedModelError, quoted
from roofline.model import (
    RGLRU,
    AnonymousCache,
    AnonymousWeights,
    Attention,
    BlockSparseAttention,
    CompressedAttention,
    CountedMixer,
    CrossAttention,
    DenseFeedForward,
    Experts,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    LayerGroup,
    LightningAttention,
    Mamba1,
    Mamba2,
    Model,
    Norm,
    Part,
    Projection,
    Projections,
    ShortConvolution,
)
from roofline.parallel.degrees import Parallel


def _split(what: str, whole: int, ways: int) -> int:
    if whole % ways:
        raise InvalidValueError(
            f"{whole} {what} cannot be split {ways} ways evenly, as engines require; use a degree that divides {whole}."
        )
    return whole // ways


def _split_or_copy(what: str, whole: int, ways: int) -> int:
    """Split `whole` over devices; if there are fewer of them than devices, each device keeps one."""
    if ways % whole == 0:
        return 1
    return _split(what, whole, ways)


def _narrower_norm(norm: Norm | None, heads: int, share: int, width: int) -> Norm | None:
    """Shrink a norm that spans, or has scales for, all heads."""
    if norm is None:
        return None
    whole = heads * width
    changed = {
        "width": share * width if norm.width == whole else norm.width,
        "parameters": norm.parameters * share // heads if norm.parameters % whole == 0 else norm.parameters,
    }
    return norm.but(**changed)


def _attention(part: Any, p: Parallel) -> Any:
    heads, kv = _split("attention heads", part.heads, p.tensor), _split_or_copy("key-value heads", part.kv_heads, p.tensor)
    return part.but(
        heads=heads,
        kv_heads=kv,
        query_norm=_narrower_norm(part.query_norm, part.heads, heads, part.head_dim),
        key_norm=_narrower_norm(part.key_norm, part.kv_heads, kv, part.head_dim),
    )


def _cross(part: CrossAttention, p: Parallel) -> CrossAttention:
    share: CrossAttention = _attention(part, p)
    return share.but(own=part.own and _attention(part.own, p))


def _block_sparse(part: BlockSparseAttention, p: Parallel) -> BlockSparseAttention:
    heads, kv = _split("attention heads", part.heads, p.tensor), _split_or_copy("key-value heads", part.kv_heads, p.tensor)
    return part.but(heads=heads, kv_heads=kv, index_heads=_split_or_copy("index heads", part.index_heads, p.tensor))


def _latent(part: LatentAttention, p: Parallel) -> LatentAttention:
    return part.but(heads=_split("attention heads", part.heads, p.tensor))


def _compressed(part: CompressedAttention, p: Parallel) -> CompressedAttention:
    return part.but(
        heads=_split("attention heads", part.heads, p.tensor), o_groups=_split("groups of the output projection", part.o_groups, p.tensor)
    )


def _dense(part: DenseFeedForward, p: Parallel) -> DenseFeedForward:
    return part.but(intermediate=_split("feed-forward channels", part.intermediate, p.tensor))


def _experts(part: Experts, p: Parallel) -> Experts:
    return part.but(
        intermediate=_split("expert channels", part.intermediate, p.expert_tensor),
        ranks=p.expert,
        gathered=p.data,
        shared=part.shared and _dense(part.shared, p),
        parallel=part.parallel and _dense(part.parallel, p),
    )


def _fields(**names: str) -> Callable[[Any, Parallel], Any]:
    """Return the rule of a part whose fields of these names are split over tensor-parallel devices."""

    def rule(part: Any, p: Parallel) -> Any:
        return part.but(**{name: _split(what, getattr(part, name), p.tensor) for name, what in names.items()})

    return rule


def _mamba2(part: Mamba2, p: Parallel) -> Mamba2:
    heads = _split("state-space heads", part.heads, p.tensor)
    return part.but(heads=heads, groups=_split_or_copy("groups of heads", part.groups, p.tensor))


def _counted(part: CountedMixer, p: Parallel) -> CountedMixer:
    if p.tensor > 1:
        raise InvalidValueError(
            f"a mixer that was read from code as a whole cannot be split over {p.tensor} devices: what engines divide of it, and what they "
            "keep on every device, is not known."
        )
    return part


def _whole(part: Any, p: Parallel) -> Any:
    return part


def _anonymous(part: AnonymousWeights, p: Parallel) -> AnonymousWeights:
    return part.but(parameters=-(-part.parameters // p.tensor))


def _anonymous_cache(part: AnonymousCache, p: Parallel) -> AnonymousCache:
    return part.but(bytes_per_token=-(-part.bytes_per_token // p.tensor))


_RULES: dict[type[Part], Callable[[Any, Parallel], Any]] = {
    Attention: _attention,
    BlockSparseAttention: _block_sparse,
    LatentAttention: _latent,
    CompressedAttention: _compressed,
    CrossAttention: _cross,
    Mamba1: _fields(inner="state-space channels"),
    Mamba2: _mamba2,
    GatedDeltaNet: _fields(key_heads="key heads", value_heads="value heads"),
    KimiDeltaAttention: _fields(heads="heads"),
    LightningAttention: _fields(heads="heads"),
    RGLRU: _fields(width="recurrent channels", heads="blocks of the gates"),
    ShortConvolution: _fields(width="channels of the convolution"),
    DenseFeedForward: _dense,
    Experts: _experts,
    Projection: _whole,
    Projections: _whole,
    AnonymousWeights: _anonymous,
    AnonymousCache: _anonymous_cache,
    CountedMixer: _counted,
}


def _part(part: Any, p: Parallel) -> Any:
    rule = _RULES.get(type(part))
    if rule is None:
        raise UnsupportedModelError(f"{type(part).__name__} cannot be split over devices: roofline.parallel.sharding has no rule for it.")
    return rule(part, p)


def _layer(group: LayerGroup, p: Parallel) -> LayerGroup:
    mixer, feed_forward = (part and _part(part, p) for part in (group.mixer, group.feed_forward))
    return group.but(mixer=mixer, feed_forward=feed_forward)


@checks_call
def shard_model(model: Model, parallel: Parallel) -> Model:
    """Return the share of a model that one device holds and runs, all pipeline stages together.

    Parameters
    ----------
    model : Model
        The whole model [-].
    parallel : Parallel
        Degrees [-].

    Returns
    -------
    Model
        The busiest device's share [-].

    Raises
    ------
    InvalidValueError
        If heads, channels or groups cannot be split evenly; the message says which and into how many.

    Examples
    --------
    >>> share = shard_model(Model.load("llama-3-70b"), Parallel(tensor=16))
    >>> share.layers[0].mixer.heads, share.layers[0].mixer.kv_heads
    (4, 1)
    """
    if not isinstance(model, Model) or not isinstance(parallel, Parallel):
        raise InvalidValueError(f"a Model is shared by a Parallel, not {quoted(model)} by {quoted(parallel)}.")
    if parallel.expert > 1 and not any(isinstance(g.feed_forward, Experts) for g in model.layers):
        raise InvalidValueError(f"expert_parallel is {parallel.expert}, but {model.name} has no experts.")
    if parallel.expert_tensor == parallel.tensor == parallel.data == 1:
        return model
    try:
        layers = tuple(_layer(group, parallel) for group in model.layers)
        mtp = tuple(_layer(group, parallel) for group in model.mtp)
        encoder = model.encoder and model.encoder.but(layers=tuple(_layer(group, parallel) for group in model.encoder.layers))
    except InvalidValueError as error:
        raise InvalidValueError(f"{model.name}: {error}") from None
    t = parallel.tensor
    ends: dict[str, Any] = {}
    if model.embedding is not None:
        ends["embedding"] = model.embedding.but(
            width=_split("hidden channels", model.embedding.width, t),
            layer_width=_split("channels of the embeddings per layer", model.embedding.layer_width, t),
            projections=tuple(part.but(outputs=-(-part.outputs // t)) for part in model.embedding.projections),
        )
    if model.head is not None:
        ends["head"] = model.head.but(outputs=-(-model.head.outputs // t))  # the vocabulary is padded
    towers = tuple(tower.but(ways=t) for tower in model.towers)  # whether engines cut each layer or give each device some of the images
    return model.but(layers=layers, mtp=mtp, encoder=encoder, towers=towers, **ends)


def _check_caches(model: Model, layers: tuple[LayerGroup, ...], count: int) -> None:
    """Refuse a stage whose layers read the caches of layers that another stage has."""
    kept = set()
    for mixer in (group.mixer for group in layers if isinstance(group.mixer, Attention)):
        if not mixer.shared_cache:
            kept.add(mixer.visibility)
        elif mixer.visibility not in kept:
            raise InvalidValueError(
                f"pipeline_parallel is {count}, but then layers of {model.name} are on another device than the caches they share with earlier layers."
            )


def stages(model: Model, count: int) -> tuple[Model, ...]:
    """Cut a model into pipeline stages of as equal numbers of layers as can be, as engines do unless told otherwise.

    This is one cut of many. Embedding and head make the outer stages fuller in parameters; a cut that evens that out gives the inner
    stages more layers and so more cache. Which of the two needs less memory depends on the sequences, so that the fullest stage of
    this cut is no bound for all cuts.

    Examples
    --------
    >>> [stage.num_layers for stage in stages(Model.load("llama-3-8b"), 3)]
    [11, 11, 10]
    """
    if count == 1:
        return (model,)
    if model.encoder is not None:
        raise InvalidValueError(
            f"pipeline_parallel is {count}, but {model.name} has an encoder: how engines cut it into stages is not modelled."
        )
    if count > model.num_layers:
        raise InvalidValueError(f"pipeline_parallel is {count}, but {model.name} has {model.num_layers} layers.")
    flat = [group.but(count=1, distinct=_first_use(group, i)) for group in model.layers for i in range(group.count)]
    size, longer = divmod(len(flat), count)
    cut = []
    start = 0
    for stage in range(count):
        end = start + size + (stage < longer)
        first, last = stage == 0, stage == count - 1
        keep: dict[str, Any] = {"layers": tuple(flat[start:end])}
        _check_caches(model, keep["layers"], count)
        if not first:
            keep |= {"embedding": None, "towers": ()}
        if not last:
            keep |= {"head": None, "final_norm": None, "mtp": ()}
        elif model.head is not None:
            keep["head"] = model.head.but(tied=False)  # the last stage needs its own copy of a tied table
        cut.append(model.but(**keep))
        start = end
    return tuple(cut)


def _first_use(group: LayerGroup, index: int) -> int | None:
    """Whether the layer at this place of a group brings weights of its own."""
    return None if group.distinct is None else int(index < group.distinct)
