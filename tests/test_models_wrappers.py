"""Vision and audio models around a text model, beside those of test_models_families: the text model is that of transformers' class.

Which of the two levels ties embedding and head is told by a configuration in which they disagree, once either way.
"""

import json
import re

import pytest

from roofline import ConfigError, Model, UnsupportedModelError
from test_models_families import SMALL, SPLIT, assert_equal_to_class
from test_models_more_families import DELTA, WINDOW
from test_models_resaved import assert_same_when_written_again

ONE, DEEP = {"num_hidden_layers": 1}, {"depth": 1}
OPT = {"hidden_size": 96, "ffn_dim": 208, "num_attention_heads": 6, "num_hidden_layers": 4, "vocab_size": 512, "word_embed_proj_dim": 96}
PERSIMMON = {key: value for key, value in SPLIT.items() if key != "num_key_value_heads"}
AUDIO, VISION = {"audio_config": ONE}, {"vision_config": ONE}
BLIP = VISION | {"qformer_config": ONE}
ARIA = {"moe_num_experts": 5, "moe_topk": 2, "moe_num_shared_experts": 2}
ERNIE = {"moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": [72, 36], "moe_num_shared_experts": 2} | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]}
}

WRAPPERS = {
    # what stands around a text model: that text model, a small configuration of it, and of the other parts
    "aria": ("aria_text", SPLIT | ARIA, VISION),
    "audioflamingo3": ("qwen2", SPLIT, AUDIO),
    "blip-2": ("opt", OPT, BLIP),
    "cosmos3_omni": ("qwen3_vl_text", SMALL, {"vision_config": DEEP}),
    "deepseek_vl_hybrid": ("llama", SPLIT, {"vision_config": ONE | {"model_type": "siglip_vision_model"}}),
    "emu3": ("emu3_text_model", SPLIT, {"vocabulary_map": {"<image>": 1}}),
    "ernie4_5_vl_moe": ("ernie4_5_vl_moe_text", SPLIT | ERNIE, {"vision_config": DEEP}),
    "exaone4_5": ("exaone4", SPLIT | WINDOW, {"vision_config": DEEP}),
    "fun_asr_nano": ("qwen3", SMALL, AUDIO | {"adaptor_config": {"hidden_size": 96, "intermediate_size": 24}}),
    "fuyu": ("persimmon", PERSIMMON, {}),
    "gemma4_unified": ("gemma4_unified_text", SMALL | WINDOW | {"num_hidden_layers": 6}, {}),
    "glm_ocr": ("glm_ocr_text", SPLIT, {"vision_config": DEEP}),
    "glmasr": ("llama", SPLIT, AUDIO),
    "glmga": ("glm4v_text", SPLIT, {"vision_config": DEEP}),
    "granite_docling": ("granite_docling_text", SPLIT, {"vision_config": {"out_hidden_size": 96}}),
    "granite_speech": ("granite", SPLIT, {"has_lora_adapter": False, "encoder_config": {"num_layers": 1}}),
    "granite_speech_plus": ("granite", SPLIT, {"has_lora_adapter": False, "encoder_config": {"num_layers": 1}}),
    "hunyuan_vl": ("hunyuan_vl_text", SMALL, VISION),
    "hyperclovax_vision_v2": ("hyperclovax", SMALL, {"vision_config": DEEP}),
    "instructblip": ("opt", OPT, BLIP),
    "instructblipvideo": ("opt", OPT, BLIP),
    "janus": ("llama", SPLIT, VISION),
    "lfm3_vl": ("lfm3", SMALL | WINDOW, VISION),
    "lighton_ocr": ("qwen3", SMALL, VISION),
    "minicpm_ocr": ("qwen3_5_text", SMALL | DELTA, VISION),
    "minicpmv4_6": ("qwen3_5_text", SMALL | DELTA, VISION),
    "minicpmv4_7": ("qwen3_5_text", SMALL | DELTA, VISION),
    "molmo2": ("molmo2_text", SMALL | {"qk_norm_type": "olmo", "attention_bias": True}, {}),
    "moss_transcribe_diarize": ("qwen3", SMALL, AUDIO),
    "musicflamingo": ("qwen2", SPLIT, {"audio_config": ONE | {"model_type": "audioflamingo3_encoder"}}),
    "omniasr": ("llama", SPLIT, AUDIO),
    "ovis2": ("qwen2", SPLIT, VISION | {"hidden_size": 96, "vocab_size": 512}),
    "paddleocr_vl": ("paddleocr_vl_text", SMALL, VISION),
    "pp_chart2table": ("qwen2", SPLIT, VISION),
    "qianfan_ocr": ("qwen3", SMALL, VISION),
    "qwen2_audio": ("qwen2", SPLIT, {"audio_config": {"encoder_layers": 1}}),
    "qwen3_asr": ("qwen3", SMALL, {"audio_config": {"encoder_layers": 1}}),
    "shieldgemma2": ("gemma3_text", SMALL | WINDOW, {"vision_config": ONE | {"model_type": "siglip_vision_model"}}),
    "vibevoice_asr": ("qwen2", SPLIT, {}),
    "video_llama_3": ("qwen2", SPLIT, VISION),
    "voxtral": ("llama", SPLIT, AUDIO),
}
FLAT = {
    # families whose text model stands at the level of the other parts
    "chameleon": SPLIT | {"vocabulary_map": {"<image>": 1}, "attention_bias": True, "mlp_bias": True},
    "phi4_multimodal": SPLIT | {"pad_token_id": 0, "audio_config": {"num_blocks": 1}, "vision_config": {"num_hidden_layers": 2}},
}
BESIDE = re.compile(
    r"vision|visual|image|video|audio|speech|multi_modal|projector|connector|aligner|qformer|query_tokens|language_projection|generation_"
    r"|encoder\.(input_linear|layers\.\d+\.(attn|conv|ff\d|post_norm)|out|out_mid)\b|tokenizer|vqmodel|resampler|adapt|merger|high_res|embed_tokens_extend|mlp1|sound"
)
"""What belongs to another part than the text model, by name."""


def text_parameters(config):
    """Return the parameters of the text model in transformers' class of a configuration, on the meta device."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from transformers.models.auto import modeling_auto as automatic

    kind = config["model_type"]
    tables = ("MULTIMODAL_LM", "IMAGE_TEXT_TO_TEXT", "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM")
    names = [getattr(automatic, f"MODEL_FOR_{table}_MAPPING_NAMES", {}).get(kind) for table in tables]
    name = next((name for name in names if name), None)
    if name is None:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    read = transformers.CONFIG_MAPPING[kind].from_dict(json.loads(json.dumps(config)))
    with torch.device("meta"):
        model = getattr(transformers, name if isinstance(name, str) else name[0])._from_config(read)
    model.tie_weights()
    return sum(p.numel() for name, p in model.named_parameters() if not BESIDE.search(name))


def _wrapped(kind, *, outer, inner):
    model_type, text, others = WRAPPERS[kind]
    text = {"pad_token_id": 0} | text | {"model_type": model_type, "tie_word_embeddings": inner}
    return {"model_type": kind, "text_config": text, "tie_word_embeddings": outer} | others


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapper_is_its_text_model_and_ties_as_its_class_does(kind, outer, tmp_path):
    config = _wrapped(kind, outer=outer, inner=not outer)
    assert Model.load(config).parameters == text_parameters(config)
    assert_same_when_written_again(config, tmp_path)


BART = {"d_model": 96, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 6, "decoder_attention_heads": 6}
BART |= {"encoder_ffn_dim": 208, "decoder_ffn_dim": 112, "vocab_size": 512, "max_position_embeddings": 128, "model_type": "bart"}
BART |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2}


def test_florence_2_is_bart_beside_a_vision_tower(tmp_path):
    config = {"model_type": "florence2", "text_config": BART | {"tie_word_embeddings": True}, "vision_config": {"depths": [1, 1, 1, 1]}}
    config["tie_word_embeddings"] = True
    assert Model.load(config).parameters == text_parameters(config)
    assert_same_when_written_again(config, tmp_path)
    with pytest.raises(UnsupportedModelError, match="token tables of their own"):
        Model.load(config | {"tie_word_embeddings": False})


@pytest.mark.parametrize("kind", FLAT)
def test_a_text_model_at_the_level_of_the_other_parts_is_read(kind, tmp_path):
    config = FLAT[kind] | {"model_type": kind}
    model = Model.load(config)
    assert model.parameters == text_parameters(config)
    assert model.not_modelled
    assert_same_when_written_again(config, tmp_path)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["apertus1p5", "nemotron_h_omni"])
def test_a_wrapper_of_default_sizes_is_its_text_model(kind, tied):
    """Families whose small configurations their classes do not accept, or whose text model has sizes of many kinds of layers."""
    transformers = pytest.importorskip("transformers")
    default = transformers.CONFIG_MAPPING[kind](tie_word_embeddings=tied)
    assert Model.load(default).parameters == text_parameters({"model_type": kind, "tie_word_embeddings": tied})


@pytest.mark.parametrize("kind", ["gemma4_unified_text"])
def test_a_text_model_by_itself_is_that_of_its_class(kind):
    assert_equal_to_class(SMALL | WINDOW | {"model_type": kind, "num_hidden_layers": 6})


def test_qwen2_audio_leaves_out_what_qwen2_has_by_default():
    """Its published text_config names neither width nor layers; 8.2B parameters with a tower of 0.6B, 7.75B in the text model."""
    text = {"model_type": "qwen2", "intermediate_size": 11_008, "max_position_embeddings": 8192, "vocab_size": 156_032}
    model = Model.load({"model_type": "qwen2_audio", "audio_config": {"model_type": "qwen2_audio_encoder"}, "text_config": text})
    assert model.parameters == pytest.approx(7.75e9, rel=0.005)
    assert model.not_modelled == ("the audio tower and its projector: 'qwen2_audio_encoder' is not modelled",)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (_wrapped("ovis2", outer=False, inner=False) | {"hidden_size": 64}, "a head of another width"),
        (_wrapped("granite_speech", outer=True, inner=True) | {"has_lora_adapters": 2}, "has_lora_adapters"),
        ({"model_type": "qwen2_audio", "audio_config": {}}, "lacks 'text_config' or 'llm_config'"),
        (
            {"model_type": "florence2", "text_config": BART | {"tie_word_embeddings": False}},
            "token tables of their own for some of both stacks",
        ),
        (
            _wrapped("ernie4_5_vl_moe", outer=True, inner=True)
            | {"text_config": SPLIT | ERNIE | {"model_type": "ernie4_5_vl_moe_text", "use_bias": True}},
            "use_bias",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(config, match):
    with pytest.raises(ConfigError, match=match):
        Model.load(config)


def test_adapters_that_audio_switches_on_are_named():
    config = _wrapped("granite_speech", outer=True, inner=True) | {"has_lora_adapter": True}
    model = Model.load(config)
    tower, adapter = model.not_modelled
    assert (tower.partition(":")[0], adapter) == ("the audio tower and its projector", "the adapter that audio switches on")
    assert model.unknown_towers == ("the adapter that audio switches on", "the audio tower 'granite_speech'")
