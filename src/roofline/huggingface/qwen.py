"""Qwen with softmax attention: 2, 2.5, 3, their mixtures of experts, and the text models of the vision models."""

from collections.abc import Mapping
from typing import Any

from roofline.errors import ConfigError, quoted
from roofline.huggingface.build import Layer, attention, build_model, dense, text_level
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of
from roofline.huggingface.patterns import FULL, SLIDING, layer_kinds, layer_norms, mixers_of, patterned
from roofline.huggingface.registry import reads
from roofline.model import DenseFeedForward, Experts, Model

_BESIDE_VISION = "model.language_model.layers.{layer}.{component}"


@reads("qwen2")
def qwen2(config: Config) -> Model:
    """Qwen2 and 2.5: biases on queries, keys and values; windows, if switched on, from layer `max_window_layers`."""
    return _dense(config, qkv_bias=True)


@reads("qwen3")
def qwen3(config: Config) -> Model:
    """Qwen3: norms on query and key heads."""
    bias = config.flag("attention_bias", default=False)
    return _dense(config, qkv_bias=bias, output_bias=bias, qk_norm=True)


@reads("qwen2_vl", "qwen2_5_vl", "qwen2_vl_text", "qwen2_5_vl_text")
def qwen2_vl(config: Config) -> Model:
    """Qwen2-VL and 2.5-VL: the text model is Qwen2."""
    text, left_out = text_level(config, tied_by="either")  # Qwen2_5_VLConfig ties if one level says so
    return _dense(text, {"path": _BESIDE_VISION, "not_modelled": left_out}, qkv_bias=True)


@reads("qwen2_5_omni", "qwen2_5_omni_thinker", "qwen2_5_omni_text")
def qwen2_5_omni(config: Config) -> Model:
    """Qwen2.5-Omni: the text model of the thinker is Qwen2."""
    text, left_out = _thinker(config)
    return _dense(text, {"path": _THINKER, "not_modelled": left_out}, qkv_bias=True)


_THINKER = "thinker.model.layers.{layer}.{component}"


def _thinker(config: Config) -> tuple[Config, tuple[str, ...]]:
    """Return the level of the thinker's text model, and what stands beside it."""
    thinker = config.nested("thinker_config")
    (thinker or config).free("init_std", "position_id_per_seconds", "seconds_per_chunk")
    if thinker is None:
        return text_level(config, tied_by="wrapper")
    config.free("talker_config", "code2wav_config", "token2wav_config", "enable_audio_output", "enable_talker", "tie_word_embeddings")
    text, left_out = text_level(thinker, tied_by="wrapper")
    talks = "talker_config" in config or "code2wav_config" in config or "token2wav_config" in config
    return text, (*left_out, *(("the talker and what makes sound of its codes",) if talks else ()))


def _dense(config: Config, build: Mapping[str, Any] | None = None, **options: bool) -> Model:
    count = config.size("num_hidden_layers")
    window = config.size("sliding_window", default=0, least=0) if config.flag("use_sliding_window", default=False) else 0
    config.free("sliding_window")  # says nothing while its switch is off
    first = config.size("max_window_layers", default=count, least=0)
    kinds = layer_kinds(config, [SLIDING if window and i >= first else FULL for i in range(count)])
    layers = patterned(config, kinds, mixers_of(config, window, **options), layer_norms(config), dense(config))
    return build_model(config, layers, tied=False, **build or {})


@reads("qwen3_vl", "qwen3_vl_text")
def qwen3_vl(config: Config) -> Model:
    """Qwen3-VL: the text model is Qwen3 without windows."""
    text, left_out = text_level(config, tied_by="wrapper")
    bias = text.flag("attention_bias", default=False)
    layer = Layer(attention(text, qk_norm=True, qkv_bias=bias, output_bias=bias), dense(text), layer_norms(text))
    return build_model(text, [layer] * text.size("num_hidden_layers"), tied=False, path=_BESIDE_VISION, not_modelled=left_out)


def sparse_steps(config: Config, count: int) -> list[bool]:
    """Return which layers are mixtures: every ``decoder_sparse_step``-th, but for those in ``mlp_only_layers``."""
    step = config.size("decoder_sparse_step", default=1)
    without = config.items("mlp_only_layers") or []
    if any(isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < count for i in without):
        raise ConfigError(f"{config.where}: 'mlp_only_layers' is {quoted(without)}; it must hold numbers of 0 … {count - 1}.")
    return [(i + 1) % step == 0 and i not in without for i in range(count)]


def _sparse(config: Config, experts: Experts, build: Mapping[str, Any], **options: bool) -> Model:
    config.only("use_sliding_window", False, means="sliding windows on some layers")
    config.free("sliding_window", "max_window_layers")  # say nothing while their switch is off
    count = config.size("num_hidden_layers")
    layer_kinds(config, [FULL] * count, known=(FULL,))
    config.free("intermediate_size")  # of the dense layers, if there are any
    mixer, norms, sparse = attention(config, **options), layer_norms(config), sparse_steps(config, count)
    layers = [Layer(mixer, experts if mixture else dense(config), norms) for mixture in sparse]
    return build_model(config, layers, tied=False, **build)


@reads("qwen2_moe")
def qwen2_moe(config: Config) -> Model:
    """Qwen1.5-MoE and Qwen2-MoE: a shared expert of a width of its own, behind a scalar gate."""
    shared = DenseFeedForward(intermediate=config.size("shared_expert_intermediate_size"))
    experts = experts_of(config, shared=shared, shared_gate=True)
    bias = config.flag("qkv_bias", default=True)
    return _sparse(config, experts, {"renames": {"mlp.shared_experts.": "mlp.shared_expert."}}, qkv_bias=bias)


@reads("qwen3_moe")
def qwen3_moe(config: Config) -> Model:
    """Qwen3-MoE: norms on query and key heads, no shared expert."""
    return _qwen3_moe(config, {})


def _qwen3_moe(config: Config, build: Mapping[str, Any]) -> Model:
    config.only("shared_expert_intermediate_size", 0, means="a shared expert")
    config.only("qkv_bias", False, means="biases on queries, keys and values")
    config.only("use_qk_norm", True, means="no norms on query and key heads")
    bias = config.flag("attention_bias", default=False)
    return _sparse(config, experts_of(config), build, qk_norm=True, qkv_bias=bias, output_bias=bias)


@reads("qwen3_omni_moe", "qwen3_omni_moe_thinker", "qwen3_omni_moe_text")
def qwen3_omni_moe(config: Config) -> Model:
    """Qwen3-Omni: the text model of the thinker is Qwen3-MoE."""
    text, left_out = _thinker(config)
    return _qwen3_moe(text, {"path": _THINKER, "not_modelled": left_out})


@reads("qwen3_vl_moe", "qwen3_vl_moe_text")
def qwen3_vl_moe(config: Config) -> Model:
    """Qwen3-VL with experts: the text model is Qwen3-MoE."""
    text, left_out = text_level(config, tied_by="wrapper")
    return _qwen3_moe(text, {"path": _BESIDE_VISION, "not_modelled": left_out})
