"""Vision and audio models around a text model that another reader knows: Llava and its kin, InternVL, Idefics, Kimi-VL."""

from roofline.errors import ConfigError
from roofline.huggingface.build import text_level
from roofline.huggingface.config import Config
from roofline.huggingface.registry import read_as, reads
from roofline.model import Model

_LEVELS = ("text_config", "llm_config", "language_config")


@reads(
    *(
        "aya_vision",
        "cohere2_vision",
        "deepseek_vl",
        "fast_vlm",
        "glm46v",
        "got_ocr2",
        "idefics2",
        "idefics3",
        "internvl",
        "internvl_chat",
        "kimi_vl",
        "lfm2_vl",
        "llava",
        "llava_next",
    ),
    *("llava_next_video", "llava_onevision", "paligemma", "smolvlm", "video_llava", "vipllava"),
)
def wrapper(config: Config) -> Model:
    """Llava and its kin, InternVL, Idefics, PaliGemma, Kimi-VL: whatever text model stands inside."""
    outer = config.text("model_type", default="")
    _bookkeeping(config)
    return around(config, tied_by="" if outer in _REMOTE else "either" if outer in _EITHER else "wrapper")


def around(config: Config, *, tied_by: str) -> Model:
    """Return the text model that stands inside; its reader is that of its own `model_type`."""
    key = next((key for key in _LEVELS if key in config), None)
    if key is None:
        raise ConfigError(f"{config.where} lacks 'text_config' or 'llm_config', the object that describes its text model.")
    text, left_out = text_level(config, key=key, tied_by=tied_by)
    model_type = text.text("model_type", default="")
    outer = config.text("model_type", default="")
    if outer == "voxtral":
        text.assume(head_dim=128)  # VoxtralConfig
    if outer == "paligemma" and text.flag("use_bidirectional_attention", default=False):  # as transformers 5 writes
        text.data = {**text.data, "use_bidirectional_attention": False}
        left_out = (*left_out, "attention of a prompt's positions to later ones")
    if model_type in _DEFAULTS:
        text.assume(**_DEFAULTS[model_type])
    model = read_as(model_type, text)
    return model.but(not_modelled=(*model.not_modelled, *left_out))


_REMOTE, _EITHER = {"internvl_chat", "kimi_vl"}, {"fast_vlm", "llava", "llava_next_video", "llava_onevision"}
"""Families whose code is published with the checkpoint; and those of which either level may tie embedding and head, as their configuration classes do."""

_DEFAULTS = {
    # Llava 1.5 and 1.6 leave out what is the default of LlamaConfig and MistralConfig
    "llama": {"hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32_000},
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "opt": {"max_position_embeddings": 2048},
    # so does Qwen2-Audio with those of Qwen2Config
    "qwen2": {"hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 151_936},
}


def _bookkeeping(config: Config) -> None:
    """Pass over what describes how images become tokens; adapters that are not merged are refused."""
    for key in ("use_backbone_lora", "use_llm_lora"):
        config.only(key, 0, False, means="adapters beside the weights")
    config.free("downsample_ratio", "downsample_factor", "dynamic_image_size", "force_image_size", "max_dynamic_patch", "min_dynamic_patch")
    config.free("ps_version", "select_layer", "template", "system_message", "use_thumbnail", "pad2square", "scale_factor", "hidden_size")
    config.free("vocab_size", "adapter_layer_norm_eps")  # the text model has its own; of the projector
    config.free("projection_dim", "patch_size", "do_image_splitting", "min_image_tokens", "max_image_tokens", "encoder_patch_size")
    config.free(
        "use_image_special_tokens", "max_num_patches", "max_tiles", "min_tiles", "tile_size", "use_thumbnail", "max_pixels_tolerance"
    )
    config.free(
        "use_image_newline_parameter", "spatial_pool_mode", "spatial_pool_stride", "alignment_intermediate_size", "perceiver_config"
    )
