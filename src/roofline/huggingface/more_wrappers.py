"""Further vision and audio models around a text model: Qwen2-Audio, Voxtral, Granite Speech, Janus, Ovis2, BLIP-2, Aria, MiniCPM-V and others."""

from collections.abc import Mapping
from typing import Any

from roofline.errors import UnsupportedModelError, quoted
from roofline.huggingface.build import BESIDE, Layer, attention, build_model, dense
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, sparse_layers
from roofline.huggingface.patterns import layer_norms, whole_norms
from roofline.huggingface.registry import read_as, reads
from roofline.huggingface.wrappers import around
from roofline.model import CountedMixer, DenseFeedForward, LayerGroup, Model, Norm

_NEVER = ("audioflamingo3", "molmo2", "musicflamingo", "nemotron_h_omni", "omniasr", "qwen2_audio", "vibevoice_asr", "voxtral")
"""Families whose head is always its own."""

_BY_TEXT = ("blip-2", "instructblip", "instructblipvideo")
"""Families whose text level says whether embedding and head are tied."""

_BY_EITHER = ("glm_ocr", "hunyuan_vl", "paddleocr_vl", "shieldgemma2", "video_llama_3")
"""Families that tie them if either level says so."""

_BY_WRAPPER = """
    apertus1p5 aria cosmos3_omni deepseek_vl_hybrid emu3 ernie4_5_vl_moe exaone4_5 florence2 fun_asr_nano fuyu glmasr glmga granite4_vision
    granite_docling granite_speech granite_speech_plus hyperclovax_vision_v2 janus lfm3_vl lighton_ocr minicpm_ocr minicpmv4_6 minicpmv4_7
    moss_transcribe_diarize ovis2 perception_lm pp_chart2table qianfan_ocr qwen3_asr voxtral_realtime
"""
"""Families whose wrapper says it."""

_TIED_BY = dict.fromkeys(_BY_TEXT, "text") | dict.fromkeys(_BY_EITHER, "either")

_AUDIO = BESIDE["audio_config"]
_BESIDE = {
    "encoder_config": _AUDIO,
    "acoustic_tokenizer_encoder_config": _AUDIO,
    "vq_config": "the tokenizer of images, and what makes images",
    "high_res_vision_config": "the vision tower of high resolution",
}
"""What stands beside the text model, by keys that only these families have."""

_FREE = """
    acoustic_tokenizer_chunk_size adapter_config adaptor_config audio_length_per_tok audio_token_offset deepstack_layer_map default_num_delay_tokens
    density_router_hidden_size density_router_loss_weight density_router_threshold downsample_factor downsample_mode downsample_rate
    downsample_ratio force_image_size head_dim im_end_id im_newline_id im_start_id image_token_offset initializer_factor insert_layer_id
    max_position_embeddings max_value_projector_patch_to_query_dict max_value_projector_tokens_per_image merge_kernel_size merger_times
    num_channels num_query_tokens patch_size projector_config projector_patch_to_query_dict qformer_config semantic_tokenizer_encoder_config
    spatial_merge_size spatial_stride spatial_target_layers spatial_vision_layer use_decoder_only_language_model vocabulary_map window_size
"""
"""Keys of towers and projectors."""


@reads(*_NEVER, *_BY_TEXT, *_BY_EITHER, *_BY_WRAPPER.split())
def beside(config: Config) -> Model:
    """Return whatever text model stands beside the towers."""
    family = config.text("model_type", default="")
    config.free(*_FREE.split())
    text = config.data.get("text_config")
    levels = [level for level in (config.data, text) if isinstance(level, Mapping)]
    if family == "florence2" and any(level.get("tie_word_embeddings") is False for level in levels):
        raise UnsupportedModelError(
            f"{config.where}: 'tie_word_embeddings' is False, which means token tables of their own for some of both stacks and the head; that is not modelled."
        )
    if family in _NEVER:
        config.data = {**config.data, "tie_word_embeddings": False}
    model = around(config, tied_by=_TIED_BY.get(family, "wrapper"))
    _same_head(config, model)
    left_out = [what for key, what in _BESIDE.items() if key in config]
    config.free(*_BESIDE)
    if family == "fuyu":
        left_out.append("the projection of image patches")
    if config.flag("has_lora_adapter", default=False):
        left_out.append("the adapter that audio switches on")
    return _without(model, *dict.fromkeys(left_out))


def _without(model: Model, *parts: str) -> Model:
    """Return a model that says which further parts, of unknown size, it does not describe; towers are counted where all of them are."""
    unknown = (part for part in parts if part not in BESIDE.values())
    return model.but(not_modelled=(*model.not_modelled, *parts), unknown_towers=(*model.unknown_towers, *unknown))


def _same_head(config: Config, model: Model) -> None:
    """Refuse another width or vocabulary of the wrapper, of which a head of its own would be made (Ovis2ForConditionalGeneration)."""
    if model.head is not None and not model.head.tied:
        config.only("hidden_size", model.hidden_size, means="a head of another width than the text model's")
        config.only("vocab_size", model.head.outputs, means="a head of another vocabulary than the text model's")
    config.free("hidden_size", "vocab_size")


@reads("granite4_vision_text", "granite_docling_text")
def granite(config: Config) -> Model:
    """Granite beside a vision tower."""
    return read_as("granite", config)


@reads("emu3_text_model")
def emu3(config: Config) -> Model:
    """Emu3: Llama, whose vocabulary has images, too."""
    return read_as("llama", config)


@reads("chameleon")
def chameleon(config: Config) -> Model:
    """Chameleon: Llama with a LayerNorm of its own for every query and key head; images are tokens."""
    config.free(
        "model_parallel_size", "vocabulary_map", "vq_config", "swin_norm"
    )  # the third makes tokens; the last says where norms stand
    bias = config.flag("attention_bias", default=False)
    mixer = attention(config, qkv_bias=bias, output_bias=bias)
    norms = {
        f"{which}_norm": Norm(name=f"self_attn.{which[0]}_norm", width=mixer.head_dim, parameters=2 * heads * mixer.head_dim)
        for which, heads in (("query", mixer.heads), ("key", mixer.kv_heads))
    }
    block = dense(config, bias=config.flag("mlp_bias", default=False))
    layer = Layer(mixer.but(**norms), block, layer_norms(config))
    return _without(build_model(config, [layer] * config.size("num_hidden_layers"), tied=False), _BESIDE["vq_config"])


@reads("phi4_multimodal", "phi4mm")
def phi4_multimodal(config: Config) -> Model:
    """Phi-4 Multimodal: Phi-4 mini, with towers and, for each, low-rank adapters of the layers."""
    config.free("vision_config", "audio_config", "embd_layer", "img_processor", "audio_processor", "vision_lora", "speech_lora")
    towers, adapters = "the vision and audio towers and their projectors", "the adapters that images and audio switch on"
    return _without(read_as("phi3", config), towers, adapters)


@reads("voxtral_realtime_text")
def voxtral_realtime(config: Config) -> Model:
    """Voxtral Realtime: Mistral, of which two matrices in each layer make the scale of its rows from the delay, once for a step."""
    model = read_as("mistral", config)
    delay = CountedMixer(projections=(), further=2 * 32 * model.hidden_size)  # 32 in its class, whatever the configuration says
    scales = LayerGroup(count=model.num_layers, mixer=delay, feed_forward=None)
    return _without(model.but(layers=(*model.layers, scales)), "the FLOP of the scales that each layer makes from the delay")


@reads("hunyuan_vl_text")
def hunyuan(config: Config) -> Model:
    """HunyuanVL: the text model is Hunyuan, dense."""
    return read_as("hunyuan_v1_dense", config)


@reads("paddleocr_vl_text")
def paddleocr(config: Config) -> Model:
    """PaddleOCR-VL: the text model is ERNIE 4.5."""
    return read_as("ernie4_5", config)


@reads("glm_ocr_text")
def glm_ocr(config: Config) -> Model:
    """GLM-OCR: the text model is GLM-4 0414 without biases."""
    config.only("attention_bias", False, means="biases on the projections")
    config.assume(attention_bias=False)
    return read_as("glm4", config)


@reads("aria_text")
def aria(config: Config) -> Model:
    """Aria: experts in every layer beside shared ones."""
    bias = config.flag("attention_bias", default=False)
    config.only("mlp_bias", False, means="biases on the feed-forward")
    config.assume(moe_num_shared_experts=2)  # AriaTextConfig
    experts = experts_of(config, intermediate=config.size("intermediate_size"))
    layer = Layer(attention(config, qkv_bias=bias, output_bias=bias), experts, layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, renames={"mlp.gate": "mlp.router"})


@reads("molmo2_text")
def molmo2(config: Config) -> Model:
    """Molmo 2: Qwen3 or OLMo 2, with rows of the embedding that no logit belongs to."""
    config.only("norm_after", False, means="norms after each block")
    config.free("rope_scaling_layers")
    kind = config.text("qk_norm_type", default="qwen3")
    if kind not in ("qwen3", "olmo"):
        raise UnsupportedModelError(f"{config.where}: 'qk_norm_type' is {quoted(kind)}; known: qwen3, olmo.")
    bias = config.flag("attention_bias", "qkv_bias", default=False)
    mixer = attention(config, qk_norm=kind == "qwen3", qkv_bias=bias)
    layer = Layer(whole_norms(mixer) if kind == "olmo" else mixer, dense(config), layer_norms(config))
    spare_rows = config.size("additional_vocab_size", default=128, least=0)
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, spare_rows=spare_rows)


@reads("ernie4_5_vl_moe_text")
def ernie_vl(config: Config) -> Model:
    """ERNIE 4.5 VL: the experts of text, after the first layer, beside shared ones; those of images stand beside them."""
    config.only("use_bias", False, means="biases everywhere")
    widths: list[Any] = config.items("moe_intermediate_size", length=2) or [1536, 512]  # of text, of images
    width = Config({"moe_intermediate_size": widths[0]}, config.where).size("moe_intermediate_size")
    shared = DenseFeedForward(intermediate=width * config.size("moe_num_shared_experts", default=2, least=0))
    experts = experts_of(config, intermediate=width, correction_bias=True, shared=shared)
    if "mlp_layer_types" not in config:
        config.assume(first_k_dense_replace=1)  # Ernie4_5_VLMoeTextConfig
    mixer, norms, block = attention(config), layer_norms(config), dense(config)
    layers = [Layer(mixer, experts if here else block, norms) for here in sparse_layers(config, config.size("num_hidden_layers"))]
    return _without(build_model(config, layers, tied=True), "the experts that images use")
