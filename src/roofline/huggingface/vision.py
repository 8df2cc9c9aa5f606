"""Vision towers of one kind, CLIP and SigLIP, and the projectors of the models around them."""

from collections.abc import Callable
from typing import Any

from roofline.errors import UnsupportedModelError, quoted
from roofline.huggingface.build import norm
from roofline.huggingface.config import Config
from roofline.huggingface.encoders import bidirectional
from roofline.huggingface.towers import tower
from roofline.model import Attention, DenseFeedForward, LayerGroup, Norm, Projection, Tower

_FREE = "is_composition layer_norm_eps initializer_factor hidden_act projection_dim vocab_size"


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True, norms: tuple[Norm, ...] = ()) -> LayerGroup:
    """Return a matrix as a layer of its own, after norms."""
    matrix = Projection(name=name, inputs=inputs, outputs=outputs, bias=outputs * bias)
    return LayerGroup(count=1, mixer=None, feed_forward=matrix, norms=norms)


def norms(*each: Norm) -> LayerGroup:
    """Return norms as a layer of their own."""
    return LayerGroup(count=1, mixer=None, feed_forward=None, norms=each)


def layer_norm(name: str, width: int) -> Norm:
    """Return a LayerNorm, with scale and shift."""
    return norm(name, width, bias=True)


def block(mixer: Attention, feed_forward: DenseFeedForward, hidden: int, count: int, *, bias: bool = True) -> LayerGroup:
    """Return so many layers of a transformer with a norm before attention and one before its feed-forward."""
    around = (norm("layer_norm1", hidden, bias=bias), norm("layer_norm2", hidden, bias=bias))
    return LayerGroup(count=count, mixer=mixer, feed_forward=feed_forward, norms=around)


def side(config: Config, key: str, default: int) -> int:
    """Return the side of a square, given as a number or as two equal ones [-]."""
    value = config.data.get(key)
    if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]:
        config.free(key)
        return int(value[0])
    return config.size(key, default=default)


def used_layers(outer: Config, layers: int, default: int) -> int:
    """Return how many layers come before what is passed on, the last of several if `vision_feature_layer` lists them."""
    value = outer.data.get("vision_feature_layer", default)
    value = default if value is None else value
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    if not several or not all(type(v) is int and -layers - 1 <= v <= layers for v in several):
        raise UnsupportedModelError(f"{outer.where}: 'vision_feature_layer' is {quoted(value)}, of {layers} layers.")
    return max(v + layers + 1 if v < 0 else v for v in several)


# ------------------------------------------------------------------------------------------------- encoders, by their own model_type

_Used = Callable[[int], int]


def grid(level: Config, image: int, patch: int) -> int:
    """Return how many patches a square image has [token]."""
    return (side(level, "image_size", image) // patch) ** 2


def _vit(
    level: Config, *, hidden: int = 768, heads: int = 12, layers: int = 12, wide: int = 3072, gated: bool = False, bias: bool = True
) -> tuple[int, LayerGroup]:
    """Return the width and the layers of a ViT by the keys that are common, with the defaults of its class."""
    level.free(*_FREE.split())
    width = level.size("hidden_size", default=hidden)
    mixer = bidirectional(level, width, level.size("num_attention_heads", "attention_heads", default=heads), bias=bias, rotary=gated)
    level.only("head_dim", mixer.head_dim, means="heads of another width")
    feed_forward = DenseFeedForward(intermediate=level.size("intermediate_size", default=wide), gated=gated, bias=bias)
    return width, block(mixer, feed_forward, width, level.size("num_hidden_layers", default=layers), bias=bias)


def cut(layers: LayerGroup, used: int) -> tuple[tuple[LayerGroup, ...], tuple[LayerGroup, ...]]:
    """Return layers as those that are run and those after them."""
    counts = (used, layers.count - used)
    run, idle = (((layers.but(count=n),) if n else ()) for n in counts)
    return run, idle


def patches(level: Config, width: int, patch: int, *, bias: bool) -> LayerGroup:
    """Return the convolution that makes a row of every patch."""
    return linear("patch_embedding", level.size("num_channels", default=3) * patch * patch, width, bias=bias)


def _clip(level: Config, used: _Used) -> Tower:
    """CLIP: a class token, and a norm before the first layer; the last norm is for the class alone."""
    (width, layers), patch = _vit(level), side(level, "patch_size", 32)
    run, idle = cut(layers, used(layers.count))
    each = grid(level, 224, patch) + 1
    return vision_tower(
        width,
        (patches(level, width, patch, bias=False), norms(layer_norm("pre_layrnorm", width)), *run),
        idle=(*idle, norms(layer_norm("post_layernorm", width))),
        tables=(("class_embedding", width), ("embed_positions", each * width)),
        positions=each,
        added=1,
        dropped=1,
    )


def _siglip(
    level: Config, used: _Used, *, head: bool = True, hidden: int = 768, heads: int = 12, image: int = 224, square: int = 16, rows: int = 0
) -> Tower:
    """SigLIP: no class token; a pooling head, which no projector reads, where it is not left out. A table of `rows` is for images of any shape."""
    (width, layers), patch = _vit(level, hidden=hidden, heads=heads), side(level, "patch_size", square)
    run, idle = cut(layers, used(layers.count))
    each = 0 if rows else grid(level, image, patch)
    tables: tuple[tuple[str, int], ...] = (("embed_positions", (rows or each) * width),)
    last = (norms(layer_norm("post_layernorm", width)),)
    run, idle = (run, (*idle, *last)) if idle else ((*run, *last), ())
    if level.flag("vision_use_head", default=head):
        idle += (layers.but(count=1, norms=(layer_norm("head_norm", width),)),)
        tables += (("head_probe", width),)
    return vision_tower(width, (patches(level, width, patch, bias=True), *run), idle=idle, tables=tables, positions=each)


def _siglip2(level: Config, used: _Used) -> Tower:
    """SigLIP 2 with images of any shape."""
    level.free("image_size")
    return _siglip(level, used, rows=level.size("num_patches", default=256))


def _idefics(level: Config, used: _Used) -> Tower:
    """Idefics 3 and SmolVLM: a SigLIP without a head."""
    level.free("size", "max_image_size", "use_base_siglip")
    return _siglip(level, used, head=False, hidden=1152, heads=16, square=32)


def _pixtral(level: Config, used: _Used) -> Tower:
    """Pixtral: rotary positions, gated blocks, RMS norms and no biases; images of any shape."""
    (width, layers), patch = _vit(level, hidden=1024, heads=16, layers=24, wide=4096, gated=True, bias=False), side(level, "patch_size", 16)
    run, idle = cut(layers, used(layers.count))
    level.free("image_size")
    return vision_tower(width, (patches(level, width, patch, bias=False), norms(norm("ln_pre", width)), *run), idle=idle)


def _internvit(level: Config, used: _Used) -> Tower:
    """InternViT: a class token, scales of every block's result, and no norm at the end unless the class is read."""
    published = level.text("model_type", default="") != "internvl_vision"
    if published:  # its code is published with the checkpoint, so its defaults are those of a file
        level.size("hidden_size"), level.size("num_hidden_layers"), level.size("intermediate_size"), level.size("num_attention_heads")
    (width, layers), patch = _vit(level, hidden=1024, heads=16, layers=24, wide=4096), side(level, "patch_size", 14)
    bias = level.flag("qkv_bias", "attention_bias", default=published)
    normed = level.flag("qk_normalization", "use_qk_norm", default=False)
    kind = level.text("norm_type", default="layer_norm")
    around = tuple(norm(f"layernorm_{place}", width, bias=kind == "layer_norm") for place in ("before", "after"))
    inside = {"query_norm": norm("self_attn.q_norm", width), "key_norm": norm("self_attn.k_norm", width)} if normed else {}
    mixer = layers.mixer.but(query_bias=bias, key_bias=bias, value_bias=bias, **inside)  # type: ignore[union-attr]
    layers = layers.but(mixer=mixer, norms=around)
    level.only("use_mask_token", False, means="a token for masked patches")
    level.free("drop_path_rate", "use_flash_attn", "use_fa3", "layer_scale_init_value", "projection_dropout", "num_channels")
    run, idle = cut(layers, used(layers.count))
    each = grid(level, 448, patch) + 1
    positions = each * width * level.flag("use_absolute_position_embeddings", default=True)
    last = () if level.flag("use_mean_pooling", default=True) else (norms(layer_norm("layernorm", width)),)
    tables = (("class_embedding", width), ("embed_positions", positions), ("layer_scale", 2 * layers.count * width))
    return vision_tower(
        width, (patches(level, width, patch, bias=True), *run, *last), idle=idle, tables=tables, positions=each, added=1, dropped=1
    )


def vision_tower(width: int, layers: tuple[LayerGroup, ...], **fields: Any) -> Tower:
    """Return a vision tower of what embeds patches and the layers after it, to be named by whoever asked for it."""
    return Tower(senses="vision", model_type="", hidden_size=width, embedding=layers[:1], layers=layers[1:], **fields)


_ENCODERS: dict[str, Callable[[Config, _Used], Tower]] = {
    "clip_vision_model": _clip,
    "idefics3": _idefics,
    "idefics3_vision": _idefics,
    "intern_vit_6b": _internvit,
    "internvl_vision": _internvit,
    "pixtral": _pixtral,
    "siglip2_vision_model": _siglip2,
    "siglip_vision_model": _siglip,
    "smolvlm_vision": _idefics,
}


def encoder(outer: Config, level: Config, *, last: int = -1, otherwise: str = "") -> Tower:
    """Return the tower of a configuration by its own `model_type`, without a projector; `last` is the layer read unless the model says another."""
    name = level.text("model_type", default=otherwise)
    reader = _ENCODERS.get(name)
    if reader is None:
        raise UnsupportedModelError(f"{level.where}: a vision tower {quoted(name)} is not modelled.")
    return reader(level, lambda layers: used_layers(outer, layers, last))


# ------------------------------------------------------------------------------------------- projectors, by the model around them


@tower("vision", "llava", "llava_next", "llava_next_video", "video_llava", "vipllava")
def llava(outer: Config, level: Config, hidden: int) -> Tower:
    """Two matrices on every patch; the first position, of a class in CLIP, is dropped unless `vision_feature_select_strategy` is "full"."""
    family = outer.text("model_type", default="")
    vip = family == "vipllava"
    if vip:
        outer.assume(vision_feature_layer=outer.data.get("vision_feature_layers", [-2, -5, -8, -11, 6]))
    read = outer.data.get("vision_feature_layer", -2)
    several = len(read) if isinstance(read, (list, tuple)) else 1
    made = encoder(outer, level, last=-2)
    wide = made.hidden_size * several
    bias = outer.flag("multimodal_projector_bias", default=True)
    before = (layer_norm("projector_layernorm", wide),) if vip else ()
    tables = made.tables + ((("image_newline", hidden),) if family in ("llava_next", "llava_next_video") else ())
    projector = (linear("linear_1", wide, hidden, bias=bias, norms=before), linear("linear_2", hidden, hidden, bias=bias))
    if family == "video_llava":  # a second tower of the same shape is for videos
        made = made.but(idle=(*made.idle, *made.embedding, *made.layers, *made.idle), tables=2 * made.tables)
        tables = made.tables
    keeps_first = outer.text("vision_feature_select_strategy", default="default") == "full"
    return made.but(projector=projector, tables=tables, dropped=int(not keeps_first))


@tower("vision", "llava_onevision")
def llava_onevision(outer: Config, level: Config, hidden: int) -> Tower:
    """LLaVA-OneVision: as Llava, of a SigLIP, whose last layer is read, with the vector of a new line."""
    made = encoder(outer, level, last=-1)
    bias = outer.flag("multimodal_projector_bias", default=True)
    projector = (linear("linear_1", made.hidden_size, hidden, bias=bias), linear("linear_2", hidden, hidden, bias=bias))
    return made.but(projector=projector, tables=(*made.tables, ("image_newline", hidden)))


@tower("vision", "deepseek_vl", "paligemma")
def straight(outer: Config, level: Config, hidden: int) -> Tower:
    """PaliGemma and DeepSeek-VL: one matrix, or two, on every patch of a SigLIP."""
    made = encoder(outer, level)
    two = outer.text("model_type", default="") == "deepseek_vl"
    further = (linear("linear2", hidden, hidden),) if two else ()
    width = hidden if two else outer.size("projection_dim", default=2048)  # PaliGemmaConfig; a model that runs has the text's width there
    return made.but(projector=(linear("linear1", made.hidden_size, width), *further))


@tower("vision", "gemma3", "shieldgemma2")
def gemma3(outer: Config, level: Config, hidden: int) -> Tower:
    """Gemma 3 and ShieldGemma 2: patches of a SigLIP are averaged over squares, normed, and pass one matrix."""
    made = encoder(outer, level, otherwise="siglip_vision_model")
    tokens = outer.size("mm_tokens_per_image", default=256)
    projector = linear("mm_input_projection", made.hidden_size, hidden, bias=False, norms=(norm("mm_soft_emb_norm", made.hidden_size),))
    return made.but(projector=(projector,), merged=max(made.positions // tokens, 1))


@tower("vision", "lighton_ocr", "mistral3")
def mistral3(outer: Config, level: Config, hidden: int) -> Tower:
    """Mistral 3: four patches of a Pixtral are merged into a row of its width, which passes two matrices."""
    made = encoder(outer, level, otherwise="pixtral")
    width, merged = made.hidden_size, outer.size("spatial_merge_size", default=2) ** 2
    bias = outer.flag("multimodal_projector_bias", default=False)
    matrices = (linear("linear_1", width, hidden, bias=bias), linear("linear_2", hidden, hidden, bias=bias))
    merger = linear("patch_merger.merging_layer", merged * width, width, bias=False)
    return made.but(layers=(*made.layers, norms(norm("projector_norm", width))), projector=(merger, *matrices), merged=merged)


@tower("vision", "aya_vision", "cohere2_vision")
def cohere(outer: Config, level: Config, hidden: int) -> Tower:
    """Aya Vision and Command A Vision: squares of patches of a SigLIP pass a gated block."""
    made, family = encoder(outer, level), outer.text("model_type", default="")
    merged = outer.size("downsample_factor", default=2) ** 2
    wide = outer.size("alignment_intermediate_size", default=hidden if family == "aya_vision" else 36_864)
    before = (layer_norm("projector_norm", merged * made.hidden_size),) if family == "aya_vision" else ()
    matrices = (linear("linear_1", merged * made.hidden_size, wide, norms=before), linear("linear_2", wide // 2, hidden))
    return made.but(projector=matrices, merged=merged)


@tower("vision", "lfm2_vl")
def lfm2_vl(outer: Config, level: Config, hidden: int) -> Tower:
    """LFM2-VL: squares of patches of a SigLIP 2 pass two matrices."""
    made = encoder(outer, level, otherwise="siglip2_vision_model")
    merged = outer.size("downsample_factor", default=2) ** 2
    wide, bias = outer.size("projector_hidden_size", default=2560), outer.flag("projector_bias", default=True)
    normed = outer.flag("projector_use_layernorm", default=True)
    before = (layer_norm("projector_norm", merged * made.hidden_size),) if normed else ()
    first = linear("linear_1", merged * made.hidden_size, wide, bias=bias, norms=before)
    return made.but(projector=(first, linear("linear_2", wide, hidden, bias=bias)), merged=merged)


@tower("vision", "idefics3", "smolvlm")
def idefics3(outer: Config, level: Config, hidden: int) -> Tower:
    """Idefics 3 and SmolVLM: squares of patches pass one matrix."""
    made = encoder(outer, level, otherwise="idefics3")
    merged = outer.size("scale_factor", default=2) ** 2
    return made.but(projector=(linear("modality_projection", merged * made.hidden_size, hidden, bias=False),), merged=merged)


@tower("vision", "internvl", "internvl_chat")
def internvl(outer: Config, level: Config, hidden: int) -> Tower:
    """InternVL: four patches of an InternViT are normed and pass two matrices."""
    published = outer.text("model_type", default="") == "internvl_chat"
    outer.assume(vision_feature_layer=outer.data.get("select_layer", -1))
    made = encoder(outer, level, otherwise="intern_vit_6b" if published else "internvl_vision")
    ratio = outer.data.get("downsample_ratio", 0.5)
    if ratio not in (0.5, 1, 1.0):
        raise UnsupportedModelError(f"{outer.where}: 'downsample_ratio' is {quoted(ratio)}; 0.5 and 1 are modelled.")
    merged = round(1 / ratio) ** 2
    wide = merged * made.hidden_size
    first = linear("linear_1", wide, hidden, norms=(layer_norm("layer_norm", wide),))
    return made.but(projector=(first, linear("linear_2", hidden, hidden)), merged=merged)
