"""Vision towers that take images of any shape as they come, and merge four patches into one row: Qwen-VL, GLM-4V, Kimi, MiniMax."""

from roofline.huggingface.build import norm
from roofline.huggingface.config import Config
from roofline.huggingface.encoders import bidirectional
from roofline.huggingface.towers import tower
from roofline.huggingface.vision import block, grid, layer_norm, linear, norms, patches, side, vision_tower
from roofline.model import DenseFeedForward, LayerGroup, Tower

_FREE = "tokens_per_second hidden_act in_chans spatial_patch_size layer_norm_eps rope_parameters"


def _patches(level: Config, hidden: int, *, size: int = 14, frames: int = 0, bias: bool = False) -> LayerGroup:
    """Return the embedding of patches of two frames."""
    patch, frames = side(level, "patch_size", size), frames or side(level, "temporal_patch_size", 2)
    level.free(*_FREE.split())
    return linear(
        "patch_embed", level.size("in_channels", "in_chans", "num_channels", default=3) * frames * patch * patch, hidden, bias=bias
    )


def _merger(
    width: int, merged: int, outputs: int, *, name: str = "merger", after: bool = False, rms: bool = False
) -> tuple[LayerGroup, ...]:
    """Return a norm of patches, or `after` they are merged, and the two matrices that make a row of them."""
    wide = width * merged
    before = norm(f"{name}.norm", wide if after else width, bias=not rms)
    return (norms(before), linear(f"{name}.linear_fc1", wide, wide), linear(f"{name}.linear_fc2", wide, outputs))


def _heads(level: Config) -> int:
    return level.size("num_heads", "num_attention_heads", default=16)


def _square(level: Config) -> int:
    return level.size("spatial_merge_size", default=2) ** 2


@tower("vision", "qwen2_vl")
def qwen2_vl(outer: Config, level: Config, hidden: int) -> Tower:
    """Qwen2-VL: a ViT with rotary positions, whose patches all see each other."""
    width, count = level.size("embed_dim", default=1280), level.size("depth", "num_hidden_layers", default=32)
    mixer = bidirectional(level, width, _heads(level), rotary=True)
    ratio = level.size("mlp_ratio", default=4)
    layers = block(mixer, DenseFeedForward(intermediate=ratio * width, gated=False, bias=True), width, count)
    projector = _merger(width, merged := _square(level), level.size("hidden_size", default=3584))
    return vision_tower(width, (_patches(level, width), layers), projector=projector, merged=merged)


@tower("vision", "qwen2_5_omni", "qwen2_5_omni_thinker", "qwen2_5_vl")
def qwen2_5_vl(outer: Config, level: Config, hidden: int) -> Tower:
    """Qwen2.5-VL: gated blocks, RMS norms, and attention within windows but in some layers; windows are counted as full."""
    width, count = level.size("hidden_size", default=3584), level.size("depth", "num_hidden_layers", default=32)
    full = bidirectional(level, width, _heads(level), rotary=True)
    patch, merge = side(level, "patch_size", 14), level.size("spatial_merge_size", default=2)
    window = (level.size("window_size", default=112) // merge // patch * merge) ** 2
    wide = DenseFeedForward(intermediate=level.size("intermediate_size", default=3420), bias=True)
    given = level.items("fullatt_block_indexes")
    everywhere = sorted({i for i in (given if given is not None else (7, 15, 23, 31)) if 0 <= i < count})
    runs, at = list[LayerGroup](), 0
    for place in (*everywhere, count):
        if place > at:
            runs.append(block(full.but(visible="block", span=window), wide, width, place - at, bias=False))
        if place < count:
            runs.append(block(full, wide, width, 1, bias=False))
        at = place + 1
    outputs = level.size("out_hidden_size", default=3584)
    projector = _merger(width, merge**2, outputs, rms=True)
    return vision_tower(width, (_patches(level, width), *runs), projector=projector, merged=merge**2)


@tower("vision", "cosmos3_omni", "qwen3_5", "qwen3_5_moe", "qwen3_omni_moe", "qwen3_omni_moe_thinker", "qwen3_vl", "qwen3_vl_moe")
def qwen3_vl(outer: Config, level: Config, hidden: int) -> Tower:
    """Qwen3-VL, Qwen3-Omni and Qwen3.5: learned and rotary positions; the first two also pass on what layers in between make."""
    width, count = level.size("hidden_size", default=1152), level.size("depth", "num_hidden_layers", default=27)
    mixer = bidirectional(level, width, _heads(level), rotary=True)
    wide = DenseFeedForward(intermediate=level.size("intermediate_size", default=4304), gated=False, bias=True)
    passed = "qwen3_5" not in outer.text("model_type", default="")
    given = level.items("deepstack_visual_indexes")
    deep = (given if given is not None else [8, 16, 24]) if passed else []
    outputs, merged = level.size("out_hidden_size", default=3584), _square(level)
    projector = _merger(width, merged, outputs)
    for number in range(len(deep)):
        projector += _merger(width, merged, outputs, name=f"deepstack.{number}", after=True)
    tables = (("embed_positions", level.size("num_position_embeddings", default=2304) * width),)
    layers = (_patches(level, width, size=16, bias=True), block(mixer, wide, width, count))
    return vision_tower(width, layers, projector=projector, merged=merged, tables=tables)


@tower("vision", "glm46v", "glm4v", "glm4v_moe")
def glm4v(outer: Config, level: Config, hidden: int) -> Tower:
    """GLM-4V: gated blocks and RMS norms; a convolution merges four patches, and a gated block follows it."""
    width, count = level.size("hidden_size", default=1536), level.size("depth", "num_hidden_layers", default=24)
    outputs, bias = level.size("out_hidden_size", default=4096), level.flag("attention_bias", default=False)
    mixer = bidirectional(level, width, level.size("num_heads", "num_attention_heads", default=12), bias=bias, rotary=True)
    level.free("rms_norm_eps")
    layers = block(mixer.but(output_bias=False), DenseFeedForward(intermediate=outputs), width, count, bias=False)
    merged, wide = _square(level), level.size("intermediate_size", default=13_696)
    projector = (
        linear("downsample", merged * width, outputs),
        linear("merger.proj", outputs, outputs, bias=False),
        linear("merger.gate_proj", outputs, wide, bias=False, norms=(layer_norm("merger.norm", outputs),)),
        linear("merger.up_proj", outputs, wide, bias=False),
        linear("merger.down_proj", wide, outputs, bias=False),
    )
    tables = (("embed_positions", grid(level, 336, side(level, "patch_size", 14)) * width),)
    ends = tuple(norms(norm(name, width)) for name in ("post_conv_layernorm", "post_layernorm"))
    return vision_tower(
        width, (_patches(level, width, bias=True), ends[0], layers, ends[1]), projector=projector, merged=merged, tables=tables
    )


@tower("vision", "kimi_k25", "kimi_vl")
def moonvit(outer: Config, level: Config, hidden: int) -> Tower:
    """MoonViT of Kimi-VL and Kimi K2.5: learned positions of patches and rotary ones; four patches are normed and pass two matrices."""
    width = level.size("hidden_size", "vt_hidden_size", default=1152)
    heads = level.size("num_attention_heads", "vt_num_attention_heads", default=16)
    count = level.size("num_hidden_layers", "vt_num_hidden_layers", default=27)
    wide = level.size("intermediate_size", "vt_intermediate_size", default=4304)
    high, across = (level.size(f"pos_emb_{way}", f"init_pos_emb_{way}", default=64) for way in ("height", "width"))
    level.free("pos_emb_time", "init_pos_emb_time", "hidden_act", "rope_parameters", "mm_hidden_size", "text_hidden_size")
    level.free("merge_type", "pos_emb_type", "projector_hidden_act", "projector_ln_eps", "video_attn_type", "mm_projector_type")
    patch = side(level, "patch_size", 14)
    merged = side(level, "merge_kernel_size", 2) ** 2
    layers = block(
        bidirectional(level, width, heads, rotary=True), DenseFeedForward(intermediate=wide, gated=False, bias=True), width, count
    )
    return vision_tower(
        width,
        (patches(level, width, patch, bias=True), layers, norms(layer_norm("final_layernorm", width))),
        projector=_merger(width, merged, hidden),
        merged=merged,
        tables=(("embed_positions", high * across * width),),
    )


@tower("vision", "minimax_m3_vl")
def minimax_m3(outer: Config, level: Config, hidden: int) -> Tower:
    """MiniMax M3: every patch passes two matrices, four of them are merged, and two more follow."""
    width, count = level.size("hidden_size", default=1280), level.size("num_hidden_layers", default=32)
    wide = DenseFeedForward(intermediate=level.size("intermediate_size", default=5120), gated=False, bias=True)
    layers = block(bidirectional(level, width, _heads(level), rotary=True), wide, width, count)
    shapes = level.nested("img_token_compression_config") or level  # as published
    shapes.free("image_token_compression_method")
    inner, merged = outer.size("projector_hidden_size", default=6144), _square(shapes)
    level.free("image_size", "vocab_size", "initializer_factor", "projection_dim", "rope_mode", "vision_segment_max_frames")
    level.only("position_embedding_type", "rope", means="learned positions")
    embedding = _patches(level, width, frames=side(shapes, "temporal_patch_size", 2))
    each = (linear("linear_1", width, inner), linear("linear_2", inner, hidden))
    return vision_tower(
        width,
        (embedding, norms(layer_norm("pre_layrnorm", width)), layers, *each),
        projector=(linear("merge_linear_1", merged * hidden, inner), linear("merge_linear_2", inner, hidden)),
        merged=merged,
    )
