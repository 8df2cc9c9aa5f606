"""Dense decoders with the keys of the Llama family: norms before (or around) attention and a gated feed-forward."""

from typing import Any

from roofline.huggingface.build import Layer, attention, build_model, dense, text_level, window_of
from roofline.huggingface.config import Config
from roofline.huggingface.patterns import FULL, POST_NORMS, SLIDING, layer_kinds, layer_norms, mixers_of, patterned, whole_norms
from roofline.huggingface.registry import read_as, reads
from roofline.model import Model, Norm


@reads("iquestcoder", "llama")
def llama(config: Config) -> Model:
    """Llama 1–3 and everything published under its name; IQuest-Coder."""
    bias = config.flag("attention_bias", default=False)
    config.only("is_llama_config", True, means="another architecture than Llama's")
    layer = Layer(
        attention(config, qkv_bias=bias, output_bias=bias),
        dense(config, bias=config.flag("mlp_bias", default=False)),
        layer_norms(config),
    )
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False)


@reads("mistral", "phi3", "ministral3")
def mistral(config: Config) -> Model:
    """Mistral, Ministral 3 and Phi-3/4: Llama, with a sliding window on every layer if `sliding_window` is set."""
    # Phi-4-mini names two switches of Phi-3-small, neither of which its model has
    config.only("full_attn_mod", 1, means="full attention in every so many layers only")
    config.only("interpolate_factor", 1, means="positions that are interpolated")
    return _mistral(config)


@reads("mistral3")
def mistral3(config: Config) -> Model:
    """Mistral Small 3.1 and later: a Mistral or Ministral 3 beside a vision tower."""
    text, left_out = text_level(config, tied_by="text")
    text.only("model_type", "mistral", "ministral3", "mistral4", means="another text model")
    config.free("spatial_merge_size")  # of the vision tower
    if text.text("model_type", default="") == "mistral4":
        return read_as("mistral4", text).but(not_modelled=left_out)
    # Mistral3Config ties unless told otherwise; but Mistral Small 3.1, whose file says nothing, has a head of its own
    return _mistral(text, path="language_model.model.layers.{layer}.{component}", not_modelled=left_out)


def _mistral(config: Config, **options: Any) -> Model:
    config.only("attention_bias", False, means="biases on the projections")
    layer = Layer(attention(config, window=window_of(config)), dense(config), layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, **options)


@reads("ministral")
def ministral(config: Config) -> Model:
    """Ministral 8B: Mistral with windows on the layers that `layer_types` names, all of them unless told otherwise."""
    count, window = config.size("num_hidden_layers"), window_of(config)
    kinds = layer_kinds(config, [SLIDING if window else FULL] * count)
    layers = patterned(config, kinds, mixers_of(config, window), layer_norms(config), dense(config))
    return build_model(config, layers, tied=False)


@reads("smollm3")
def smollm3(config: Config) -> Model:
    """SmolLM3: Llama without rotation on every fourth layer."""
    bias = config.flag("attention_bias", default=False)
    count = config.size("num_hidden_layers")
    mixers = mixers_of(config, window_of(config), qkv_bias=bias, output_bias=bias)
    block = dense(config, bias=config.flag("mlp_bias", default=False))
    layers = patterned(config, layer_kinds(config, [FULL] * count), mixers, layer_norms(config), block)
    return build_model(config, layers, tied=True)


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


@reads("glm4")
def glm4(config: Config) -> Model:
    """GLM-4 0414: GLM-4 with norms on both sides of each block."""
    return _glm4(config)


def _glm4(config: Config, **build: Any) -> Model:
    names = ("input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm")
    layer = Layer(attention(config, qkv_bias=config.flag("attention_bias", default=True)), dense(config), layer_norms(config, names))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, **build)


@reads("glm4v", "glm4v_text")
def glm4v(config: Config) -> Model:
    """GLM-4.1V: the text model is GLM-4 0414."""
    text, left_out = text_level(config, tied_by="wrapper")
    path = "model.language_model.layers.{layer}.{component}"
    return _glm4(text, path=path, not_modelled=left_out)


@reads("granite")
def granite(config: Config) -> Model:
    """Granite 3: Llama with scales on embedding, residuals, attention and logits."""
    return llama(config)


@reads("ernie4_5")
def ernie(config: Config) -> Model:
    """ERNIE 4.5, dense: Llama with one switch for all biases of the layers."""
    bias = config.flag("use_bias", default=False)
    config.assume(head_dim=128)  # Ernie4_5Config
    layer = Layer(attention(config, qkv_bias=bias, output_bias=bias), dense(config, bias=bias), layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=True)


@reads("olmo2")
def olmo2(config: Config) -> Model:
    """OLMo 2: norms after each block instead of before, and over whole queries and keys."""
    bias = config.flag("attention_bias", default=False)
    mixer = whole_norms(attention(config, qkv_bias=bias, output_bias=bias))
    layer = Layer(mixer, dense(config), layer_norms(config, POST_NORMS))
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
        mixer = mixer.but(**norms)
    layer = Layer(mixer, dense(config), layer_norms(config, ("input_layernorm",)), side_by_side=True)
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=True)
