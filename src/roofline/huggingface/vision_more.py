"""Vision towers with shapes of their own: Llama 4, Llama 3.2, Gemma 4, Step 3.7."""

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.huggingface.build import norm
from roofline.huggingface.config import Config
from roofline.huggingface.encoders import bidirectional
from roofline.huggingface.towers import tower
from roofline.huggingface.vision import block, grid, layer_norm, linear, norms, patches, side, vision_tower
from roofline.model import DenseFeedForward, LayerGroup, Projection, Tower

_FREE = "hidden_act hidden_activation norm_eps rms_norm_eps layer_norm_eps rope_parameters"


def _heads(level: Config) -> int:
    return level.size("num_attention_heads", "attention_heads", "num_heads", default=16)


def _block(level: Config, *, wide: int) -> DenseFeedForward:
    level.free(*_FREE.split())
    return DenseFeedForward(intermediate=level.size("intermediate_size", default=wide), gated=False, bias=True)


@tower("vision", "llama4")
def llama4(outer: Config, level: Config, hidden: int) -> Tower:
    """Llama 4: a class token that is dropped; four patches are merged and pass three matrices."""
    width, count = level.size("hidden_size", default=768), level.size("num_hidden_layers", default=34)
    wide = _block(level, wide=5632)
    layers = block(bidirectional(level, width, _heads(level), rotary=True), wide, width, count)
    ratio = level.data.get("pixel_shuffle_ratio", 0.5)
    level.free("pixel_shuffle_ratio", "projector_dropout", "vision_feature_layer", "multi_modal_projector_bias")
    level.only("vision_feature_select_strategy", "default", means="other patches that are passed on")
    if ratio not in (0.5, 1, 1.0):
        raise UnsupportedModelError(f"{level.where}: 'pixel_shuffle_ratio' is {quoted(ratio)}; 0.5 and 1 are modelled.")
    inner, between = level.size("projector_input_dim", default=4096), level.size("projector_output_dim", default=4096)
    outputs, patch = level.size("vision_output_dim", default=7680), side(level, "patch_size", 14)
    each = grid(level, 448, patch) + 1
    return vision_tower(
        width,
        (patches(level, width, patch, bias=False), *_ends(width, layers)),
        projector=(
            linear("vision_adapter.fc1", wide.intermediate, inner, bias=False),
            linear("vision_adapter.fc2", between, between, bias=False),
            linear("linear_1", outputs, hidden, bias=False),
        ),
        tables=(("class_embedding", width), ("embed_positions", each * width)),
        positions=each,
        added=1,
        dropped=1,
        merged=round(1 / ratio) ** 2,
    )


def _ends(width: int, *layers: LayerGroup) -> tuple[LayerGroup, ...]:
    """Return layers between a norm before the first and one after the last."""
    return (norms(layer_norm("layernorm_pre", width)), *layers, norms(layer_norm("layernorm_post", width)))


@tower("vision", "mllama")
def mllama(outer: Config, level: Config, hidden: int) -> Tower:
    """Llama 3.2 Vision: the tiles of an image see each other; layers between are passed on beside the last, and one matrix makes rows of all."""
    width, wide = level.size("hidden_size", default=1280), _block(level, wide=5120)
    count, further = level.size("num_hidden_layers", default=32), level.size("num_global_layers", default=8)
    mixer = bidirectional(level, width, _heads(level), bias=False)
    layers = block(mixer, wide, width, count)
    tiles, patch = level.size("max_num_tiles", default=4), side(level, "patch_size", 14)
    each, shapes = grid(level, 448, patch) + 1, level.items("supported_aspect_ratios")
    shaped = (8 if shapes is None else len(shapes)) + 1
    read = level.items("intermediate_layers_indices")
    outputs = level.size("vision_output_dim", default=width * (1 + (5 if read is None else len(read))))
    level.free("return_dict", "max_aspect_ratio_id", "is_hf_gated")
    tables = (
        ("class_embedding", width),
        ("embed_positions", each * width + 1),  # and a gate
        ("embed_tiles", shaped * tiles * each * width),
        ("embed_tiles_pre", shaped * tiles * width + 1),
        ("embed_tiles_post", shaped * tiles * width + 1),
        ("gates", 2 * further),
    )
    runs = (layers, *((layers.but(count=further),) if further else ()))
    return vision_tower(
        width,
        (patches(level, width, patch, bias=False), *_ends(width, *runs)),
        projector=(linear("multi_modal_projector", outputs, hidden),),
        tables=tables,
        positions=tiles * each,
        added=tiles,
    )


@tower("vision", "gemma4")
def gemma4(outer: Config, level: Config, hidden: int) -> Tower:
    """Gemma 4: norms before and after each block, and on queries, keys and values; patches are averaged over squares and pass one matrix."""
    width, heads = level.size("hidden_size", default=768), level.size("num_attention_heads", default=12)
    head, kv = level.size("head_dim", default=64), level.size("num_key_value_heads", default=heads)
    level.only("attention_bias", False, means="biases of attention")
    level.free(*_FREE.split(), "use_clipped_linears", "standardize", "max_position_embeddings", "default_output_length", "global_head_dim")
    level.free("image_seq_length", "video_seq_length")
    mixer = bidirectional(level, heads, heads, bias=False, rotary=True).but(
        head_dim=head, kv_heads=kv, query_norm=norm("self_attn.q_norm", head), key_norm=norm("self_attn.k_norm", head)
    )
    names = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    layers = LayerGroup(
        count=level.size("num_hidden_layers", default=16),
        mixer=mixer,
        feed_forward=DenseFeedForward(intermediate=level.size("intermediate_size", default=3072)),
        norms=tuple(norm(name, width) for name in names),
    )
    patch = level.size("patch_size", default=16)
    return vision_tower(
        width,
        (linear("patch_embedding", 3 * patch * patch, width, bias=False), layers),
        projector=(linear("embedding_projection", width, hidden, bias=False),),
        tables=(("embed_positions", 2 * level.size("position_embedding_size", default=10 * 1024) * width),),
        merged=level.size("pooling_kernel_size", default=3) ** 2,
    )


@tower("vision", "step3p7")
def step3p7(outer: Config, level: Config, hidden: int) -> Tower:
    """Step 3.7: scales of every block's result; two convolutions with strides of two make a row of sixteen patches, and one matrix follows."""
    width, count = level.size("width", "hidden_size", default=1536), level.size("layers", "num_hidden_layers", default=47)
    ratio = level.data.get("mlp_ratio", 8960 / 1536)
    if not isinstance(ratio, (int, float)) or not 0 < ratio < 100:
        raise ConfigError(f"{level.where}: 'mlp_ratio' is {quoted(ratio)}; it must be a number of 0 … 100.")
    level.free(*_FREE.split(), "intermediate_size", "mlp_ratio", "layer_scale_init_value", "ls_init_value", "max_position_embeddings")
    wide = DenseFeedForward(intermediate=int(width * ratio), gated=False, bias=True)
    heads = level.size("heads", "num_attention_heads", default=16)
    layers = block(bidirectional(level, width, heads, rotary=True), wide, width, count)
    patch, taps = side(level, "patch_size", 14), 9
    each = grid(level, 728, patch)
    first = Projection(name="downsampler1", inputs=taps * width, outputs=2 * width, bias=2 * width)
    return vision_tower(
        width,
        (patches(level, width, patch, bias=False), norms(layer_norm("pre_layernorm", width)), layers),
        projector=(
            LayerGroup(count=4, distinct=1, mixer=None, feed_forward=first),  # four rows of every one that follows
            linear("downsampler2", taps * 2 * width, 4 * width),
            linear("multi_modal_projector", 4 * width, hidden, bias=outer.flag("projector_bias", default=False)),
        ),
        tables=(("embed_positions", each * width), ("layer_scale", 2 * count * width)),
        positions=each,
        merged=16,
    )
