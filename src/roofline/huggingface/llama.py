"""Dense decoders with the keys of the Llama family: norms before (or around) attention and a gated feed-forward."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, build_model, dense, norm, window_of
from roofline.huggingface.config import Config
from roofline.huggingface.registry import reads
from roofline.model import Model, Norm

__all__: list[str] = []

PRE_NORMS = ("input_layernorm", "post_attention_layernorm")
SANDWICH_NORMS = (*PRE_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


def layer_norms(config: Config, names: tuple[str, ...] = PRE_NORMS, *, bias: bool = False) -> tuple[Norm, ...]:
    """Return norms over the residual stream, one per name [-]."""
    hidden = config.size("hidden_size")
    return tuple(norm(name, hidden, bias=bias) for name in names)


@reads("llama")
def llama(config: Config) -> Model:
    """Llama 1–3 and everything published under its name."""
    bias = config.flag("attention_bias", default=False)
    layer = Layer(
        attention(config, qkv_bias=bias, output_bias=bias),
        dense(config, bias=config.flag("mlp_bias", default=False)),
        layer_norms(config),
    )
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False)


@reads("mistral", "phi3")
def mistral(config: Config) -> Model:
    """Mistral and Phi-3/4: Llama, with a sliding window on every layer if `sliding_window` is set."""
    config.only("attention_bias", False, means="biases on the projections")
    layer = Layer(attention(config, window=window_of(config)), dense(config), layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False)


@reads("qwen2")
def qwen2(config: Config) -> Model:
    """Qwen2 and 2.5: biases on queries, keys and values; windows, if switched on, from layer `max_window_layers`."""
    return _qwen(config, qkv_bias=True, output_bias=False, qk_norm=False)


@reads("qwen3")
def qwen3(config: Config) -> Model:
    """Qwen3: norms on query and key heads."""
    bias = config.flag("attention_bias", default=False)
    return _qwen(config, qkv_bias=bias, output_bias=bias, qk_norm=True)


def _qwen(config: Config, *, qkv_bias: bool, output_bias: bool, qk_norm: bool) -> Model:
    count = config.size("num_hidden_layers")
    norms, block = layer_norms(config), dense(config)
    window = config.size("sliding_window", default=0, least=0) if config.flag("use_sliding_window", default=False) else 0
    config.free("sliding_window")
    first = config.size("max_window_layers", default=count, least=0)
    kinds = config.items("layer_types", length=count) or [
        "sliding_attention" if window and i >= first else "full_attention" for i in range(count)
    ]
    return build_model(
        config, _patterned(config, kinds, window, norms, block, qkv_bias=qkv_bias, output_bias=output_bias, qk_norm=qk_norm), tied=False
    )


def _patterned(config: Config, kinds: list[str], window: int, norms: tuple[Norm, ...], block: object, **options: bool) -> list[Layer]:
    """Return layers of full and sliding attention as `layer_types` names them."""
    unknown = sorted(set(map(str, kinds)) - {"full_attention", "sliding_attention"})
    if unknown or ("sliding_attention" in kinds and not window):
        raise ConfigError(
            f"{config.where}: 'layer_types' names {', '.join(unknown) or 'sliding_attention without sliding_window'}; known: full_attention, sliding_attention."
        )
    mixers = {kind: attention(config, window=window if kind == "sliding_attention" else 0, **options) for kind in set(kinds)}
    return [Layer(mixers[kind], block, norms) for kind in kinds]  # type: ignore[arg-type]


@reads("smollm3")
def smollm3(config: Config) -> Model:
    """SmolLM3: Llama without rotation on every fourth layer."""
    bias = config.flag("attention_bias", default=False)
    count = config.size("num_hidden_layers")
    window = window_of(config)
    kinds = config.items("layer_types", length=count) or ["full_attention"] * count
    block = dense(config, bias=config.flag("mlp_bias", default=False))
    return build_model(config, _patterned(config, kinds, window, layer_norms(config), block, qkv_bias=bias, output_bias=bias), tied=True)


@reads("seed_oss")
def seed_oss(config: Config) -> Model:
    """Seed-OSS: biases on queries, keys and values, and a switch of its own for the output's."""
    layer = Layer(
        attention(
            config, qkv_bias=config.flag("attention_bias", default=True), output_bias=config.flag("attention_out_bias", default=False)
        ),
        dense(config, bias=config.flag("mlp_bias", default=False)),
        layer_norms(config),
    )
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False)


@reads("glm")
def glm(config: Config) -> Model:
    """GLM-4 9B: biases on queries, keys and values only."""
    layer = Layer(attention(config, qkv_bias=config.flag("attention_bias", default=True)), dense(config), layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False)


@reads("stablelm")
def stablelm(config: Config) -> Model:
    """StableLM: LayerNorm with shifts."""
    config.only("qk_layernorm", False, means="norms on query and key heads")
    config.only("use_parallel_residual", False, means="attention and feed-forward side by side, with one norm")
    layer = Layer(
        attention(config, qkv_bias=config.flag("use_qkv_bias", default=False)),
        dense(config),
        layer_norms(config, bias=True),
    )
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, norm_bias=True)


@reads("starcoder2")
def starcoder2(config: Config) -> Model:
    """StarCoder2: LayerNorm with shifts, biases everywhere, no gate, a sliding window."""
    config.only("mlp_type", "default", means="a gated feed-forward")
    config.only("norm_type", "layer_norm", means="norms without shifts")
    bias = config.flag("use_bias", default=True)
    layer = Layer(
        attention(config, window=window_of(config), qkv_bias=bias, output_bias=bias),
        dense(config, bias=bias, gated=False),
        layer_norms(config, bias=True),
    )
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=True, norm_bias=True)


@reads("cohere")
def cohere(config: Config) -> Model:
    """Command R: attention and feed-forward side by side behind one norm; optionally norms over whole projections."""
    bias = config.flag("attention_bias", default=False)
    mixer = attention(config, qkv_bias=bias, output_bias=bias)
    if config.flag("use_qk_norm", default=False):
        norms = {
            f"{which}_norm": Norm(name=f"self_attn.{which[0]}_norm", width=mixer.head_dim, parameters=heads * mixer.head_dim)
            for which, heads in (("query", mixer.heads), ("key", mixer.kv_heads))
        }
        mixer = mixer.model_copy(update=norms)
    layer = Layer(mixer, dense(config), layer_norms(config, ("input_layernorm",)))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=True)


@reads("gemma")
def gemma(config: Config) -> Model:
    """Gemma 1: wide heads, tied embeddings."""
    config.only("use_bidirectional_attention", False, means="attention to later positions")
    bias = config.flag("attention_bias", default=False)
    layer = Layer(attention(config, qkv_bias=bias, output_bias=bias), dense(config), layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=True)


@reads("gemma2")
def gemma2(config: Config) -> Model:
    """Gemma 2: norms on both sides of each block; layers 0, 2, 4 … see a window."""
    bias = config.flag("attention_bias", default=False)
    window = config.size("sliding_window", default=4096)
    config.free("sliding_window_size", "use_bidirectional_attention")
    count = config.size("num_hidden_layers")
    kinds = config.items("layer_types", length=count) or ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
    layers = _patterned(config, kinds, window, layer_norms(config, SANDWICH_NORMS), dense(config), qkv_bias=bias, output_bias=bias)
    return build_model(config, layers, tied=True)


@reads("gemma3_text", "gemma3")
def gemma3(config: Config) -> Model:
    """Gemma 3: Gemma 2 with norms on query and key heads; every sixth layer sees everything, the others a window."""
    text = config.nested("text_config") or config
    text.assume(**_GEMMA3_DEFAULTS)
    bias = text.flag("attention_bias", default=False)
    count = text.size("num_hidden_layers")
    every = text.size("sliding_window_pattern", "_sliding_window_pattern", default=6)
    kinds = text.items("layer_types", length=count) or ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    text.only("use_bidirectional_attention", False, means="attention to later positions")
    window = text.size("sliding_window")
    layers = _patterned(text, kinds, window, layer_norms(text, SANDWICH_NORMS), dense(text), qkv_bias=bias, output_bias=bias, qk_norm=True)
    left_out = ["the vision tower and its projector"] if "vision_config" in config else []
    return build_model(text, layers, tied=True, not_modelled=left_out)


_GEMMA3_DEFAULTS = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
    "max_position_embeddings": 131_072,
}
"""What published Gemma-3 files leave to the class defaults of transformers 4.50–5 (`Gemma3TextConfig`)."""
