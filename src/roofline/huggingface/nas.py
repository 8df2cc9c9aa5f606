"""Models whose layers an architecture search has thinned out, each in its own way."""

import math

from roofline.errors import ConfigError, quoted
from roofline.huggingface.build import Layer, attention, build_model
from roofline.huggingface.config import Config
from roofline.huggingface.patterns import layer_norms
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Model, Norm


@reads("nemotron-nas")
def nemotron_nas(config: Config) -> Model:
    """Llama-Nemotron Super and Ultra (DeciLM): per layer its own attention and feed-forward, or none of either."""
    blocks = config.items("block_configs", length=config.size("num_hidden_layers"))
    if blocks is None or not all(isinstance(block, dict) for block in blocks):
        raise ConfigError(f"{config.where} lacks 'block_configs', an object per layer.")
    config.free("num_key_value_heads", "intermediate_size")  # null: the blocks say both
    levels = [Config(block, f"{config.where}, layer {i} of 'block_configs'", config) for i, block in enumerate(blocks)]
    config.inner.extend(levels)
    return build_model(config, [_layer(config, level) for level in levels], tied=False)


def _layer(config: Config, block: Config) -> Layer:
    attending, feeding = block.nested("attention"), block.nested("ffn")
    if attending is None or feeding is None:
        raise ConfigError(f"{block.where} lacks 'attention' or 'ffn'.")
    mixer = None if attending.flag("no_op", default=False) else _mixer(config, attending)
    wide = None if feeding.flag("no_op", default=False) else _feed_forward(config, feeding)
    attending.free("n_heads_in_group")
    feeding.free("ffn_mult")
    before, after = layer_norms(config)
    norms: tuple[Norm, ...] = (*((before,) if mixer else ()), *((after,) if wide else ()))
    return Layer(mixer, wide, norms)


def _mixer(config: Config, block: Config) -> Attention:
    heads, grouped = config.size("num_attention_heads"), block.size("n_heads_in_group")
    if heads % grouped:
        raise ConfigError(f"{block.where}: {heads} attention heads do not make groups of {grouped}.")
    bias = config.flag("attention_bias", default=False)
    window = block.size("window_length", default=0)
    return attention(config, window=window, qkv_bias=bias, output_bias=bias).but(kv_heads=heads // grouped)


def _feed_forward(config: Config, block: Config) -> DenseFeedForward:
    """Two thirds of `ffn_mult` times the width, rounded up to a multiple of 256: modeling_decilm.py of the checkpoints."""
    times = block.data.get("ffn_mult")
    block.free("ffn_mult")
    if isinstance(times, bool) or not isinstance(times, (int, float)) or not 0 < times < 1000:
        raise ConfigError(f"{block.where}: 'ffn_mult' is {quoted(times)}; it must be a positive number.")
    wide = int(2 * times * config.size("hidden_size") / 3)
    return DenseFeedForward(intermediate=256 * math.ceil(wide / 256), bias=config.flag("mlp_bias", default=False))
