"""Configurations of every family that the installed transformers runs: the default of its class, and a small varied one."""

import copy
import json
from collections.abc import Iterator
from typing import Any

MAPPINGS = {
    # name here: table of transformers, class that builds from it
    "causal": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "AutoModelForCausalLM"),
    "image-text": ("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "AutoModelForImageTextToText"),
    "seq2seq": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "AutoModelForSeq2SeqLM"),
    "speech": ("MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES", "AutoModelForSpeechSeq2Seq"),
    "masked": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "AutoModelForMaskedLM"),
}
LAYERS, ENCODER_LAYERS = 8, 3
HIDDEN, HEADS, HEAD = 96, 6, 24

_SIZES: dict[str, tuple[tuple[str, ...], int]] = {
    "hidden": (
        ("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim", "dim", "embedding_dim", "lru_width", "word_embed_proj_dim"),
        HIDDEN,
    ),
    "heads": (
        (
            *("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"),
            *("num_decoder_attention_heads", "swa_num_attention_heads", "mamba_n_heads", "mamba_num_heads", "n_mamba_heads"),
            "linear_num_heads",
        ),
        HEADS,
    ),
    "kv heads": (("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "kv_n_heads", "num_global_key_value_heads"), 2),
    "head width": (("head_dim", "d_kv", "d_head", "dim_head", "global_head_dim", "swa_head_dim"), HEAD),
    "state width": (("mamba_d_head", "mamba_head_dim", "mamba_headdim", "attention_head_dim", "linear_head_dim"), 2 * HIDDEN // HEADS),
    "state groups": (("n_groups", "mamba_n_groups", "mamba_ngroups"), 2),
    "feed-forward": (
        (
            *("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim"),
            *("dim_ff", "d_inner", "intermediate_size_mlp", "moe_shared_expert_intermediate_size", "shared_intermediate_size"),
            "shared_expert_intermediate_size",
        ),
        208,
    ),
    "expert width": (("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"), 72),
    "experts": (("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 5),
    "experts per token": (
        ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_k", "top_k_experts", "moe_top_k"),
        2,
    ),
    "expert groups": (("n_group", "topk_group", "num_expert_group"), 1),
    "dense layers": (("first_k_dense_replace", "num_dense_layers"), 2),
    "shared caches": (("num_kv_shared_layers",), 2),
    "latents": (("q_lora_rank", "kv_lora_rank"), 40),
    "latent widths": (("qk_nope_head_dim", "v_head_dim", "swa_v_head_dim"), HEAD),
    "rotary width": (("qk_rope_head_dim", "rotary_dim"), 16),
    "window": (("sliding_window", "attention_chunk_size", "local_attention", "attention_window_size"), 64),
    "vocabulary": (("vocab_size", "n_vocab", "vocab_size_per_layer_input"), 512),
    "encoder layers": (("encoder_layers", "num_encoder_layers", "depth"), ENCODER_LAYERS),
}
"""What a small configuration makes small: the keys that families have for it, and how small."""

_COMPLETED: dict[str, dict[str, Any]] = {
    # what the default of a class lacks, though the class needs it: mostly as a published model has it
    "aya_vision": {"vision_config": {"num_attention_heads": 16, "num_hidden_layers": 27}},
    "bamba": {"attn_layer_indices": [3, 18, 27]},
    "chameleon": {"vocabulary_map": {"<image>": 8711, "IMGIMGA": 4}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {"attn_config": {"kv_n_heads": 8, "clip_qkv": 8.0, "rope_theta": 5e5}, "max_seq_len": 32768, "num_key_value_heads": 8},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense"] + ["sparse"] * 31, "num_experts_per_tok": 6}},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "diffusion_gemma": {"text_config": {"num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704}},
    "dots1": {"n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2, "first_k_dense_replace": 1},
    "emu3": {"vocabulary_map": {"<image>": 151851, "<|extra_200|>": 151846, "<|visual token 000000|>": 151854}},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "gemma4_assistant": {
        "text_config": {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0},
    },
    "glm4v_moe_text": {"head_dim": 128},
    "granite4_vision": {
        "deepstack_layer_map": [[-19, 9], [-13, 6], [-7, 3], [-1, 0]],
        "downsample_rate": "4/8",
        "spatial_target_layers": [12, 15, 18, 21],
    },
    "granitemoehybrid": {"layer_types": (["mamba"] * 3 + ["attention"]) * 8},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl": {
        "text_config": {
            "head_dim": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [16, 16, 16, 16]},
        }
    },
    "lfm2_moe": {"layer_types": (["conv"] * 3 + ["full_attention"]) * 8},
    "ministral": {"head_dim": 128},
    "moonshine_streaming": {"num_key_value_heads": 8},
    "nemotron": {"num_key_value_heads": 8},
    "step3p5": {"sliding_window": 512},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 256,
        "indexer_budget": 2048,
        "indexer_compress_ratio": 16,
    },
    "xmod": {"default_language": "en_XX"},
}
_FOURTH_IS_FULL = (["sliding_attention"] * 3 + ["full_attention"]) * (LAYERS // 4)
_FOURTH_IS_WIDE = {str(layer): {"head_dim": 2 * HEAD} for layer in range(3, LAYERS, 4)}
_FITTING: dict[str, dict[str, Any]] = {
    # what follows from the other sizes of a small configuration, in the words of one family
    "codegen": {"rotary_dim": 8},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 6},
    "deepseek_v4": {"num_key_value_heads": 1},
    "dia_decoder": {"cross_hidden_size": HIDDEN},
    "dory": {"n_input_layers": 3, "n_recurrent_layers": 2, "n_output_layers": 3},
    "dots3_note": {"swa_head_dim": 40},
    "dots3_note_text": {"swa_head_dim": 40},
    "diffusion_gemma_text": {"layer_types": _FOURTH_IS_FULL, "per_layer_config": _FOURTH_IS_WIDE},
    "gemma4_text": {"layer_types": _FOURTH_IS_FULL, "per_layer_config": _FOURTH_IS_WIDE},
    "gemma4_unified_text": {"layer_types": _FOURTH_IS_FULL, "per_layer_config": _FOURTH_IS_WIDE},
    "glm4v_moe_text": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [2, 2, 2]}
    },
    "gptj": {"rotary_dim": 8},
    "hunyuan_vl_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 3, 3]}},
    "inkling2_loop_text": {"n_layers_per_attn_res_block": 2, "loop_layer_index_start": 2, "loop_layer_index_end": 6},
    "mamba2": {"head_dim": 2 * HIDDEN // HEADS},
    "mllama_text_model": {"cross_attention_layers": [1, 5]},
    "moonshine_streaming": {"num_key_value_heads": HEADS},
    "pix2struct_text_model": {"hidden_size": 768, "encoder_hidden_size": 768},  # the width of its encoder, which is not made small
    "recurrent_gemma": {"head_dim": HIDDEN // HEADS},
    "rwkv": {"attention_hidden_size": HIDDEN},
    "whisper": {"max_source_positions": 24},  # of which the class takes no fewer
    "zamba": {"attention_hidden_size": 2 * HIDDEN},
    "zamba2": {"attention_hidden_size": 2 * HIDDEN, "kv_channels": HIDDEN // HEADS},
}
_SWITCHES = (
    *(
        "attention_bias",
        "mlp_bias",
        "use_bias",
        "qkv_bias",
        "use_qkv_bias",
        "tie_word_embeddings",
        "norm_topk_prob",
        "use_qk_norm",
        "add_bias",
    ),
    *("attention_out_bias", "use_mlp_bias", "bias"),
)
_COUNTS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "decoder_layers",
    "num_decoder_layers",
    "encoder_layers",
    "num_encoder_layers",
    "depth",
)
_TOKENS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "sep_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "mask_token_id",
    "unk_token_id",
)
_OF_TEXT = ("out_hidden_size", "text_hidden_size", "llm_hidden_size", "output_hidden_size")
_TOWERS = ("vision", "audio", "image", "speech", "qformer", "projector", "adapter", "code2wav", "talker", "token2wav")


def families(mapping: str) -> tuple[str, ...]:
    """Return every `model_type` of a mapping."""
    from transformers.models.auto import modeling_auto

    return tuple(sorted(getattr(modeling_auto, MAPPINGS[mapping][0])))


def default(model_type: str, mapping: str) -> dict[str, Any]:
    """Return what the configuration class of a family writes if nobody tells it anything but that a causal model is a decoder."""
    from transformers import CONFIG_MAPPING

    levels = {key: value for key, value in _COMPLETED.get(model_type, {}).items() if isinstance(value, dict) and "model_type" in value}
    config = as_written(CONFIG_MAPPING[model_type](**levels))
    alone = {"is_decoder": True, "is_encoder_decoder": False} if mapping == "causal" else {}
    return _completed(config | {key: value for key, value in alone.items() if key in config})


def _completed(level: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with what its class needs and its defaults leave out, in every level."""
    inner = {key: _completed(value) for key, value in level.items() if isinstance(value, dict) and "model_type" in value}
    return _with(level | inner, _COMPLETED.get(level["model_type"], {}))


def _with(level: dict[str, Any], further: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with further keys, those of its inner levels inside them."""
    return level | {
        key: _with(level[key], value) if isinstance(value, dict) and "model_type" in (level.get(key) or {}) else value
        for key, value in further.items()
    }


def as_written(config: Any) -> dict[str, Any]:
    """Return the content of the file that a configuration of transformers would be, every key of it."""
    return json.loads(
        config.to_json_string(use_diff=False), object_hook=lambda found: float(found["__float__"]) if "__float__" in found else found
    )


def as_read(config: dict[str, Any]) -> Any:
    """Return a file's content as the configuration of transformers that it is."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))


def varied(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield small configurations of a family, each with less that differs from the default than the one before.

    Few layers and narrow ones, every switch turned: what is not possible in a family is for its class to say, so the first that it
    builds and runs is the one to take.
    """
    kinds = {*_SIZES, "switches"}
    likely = ("switches", "head width", "window", "dense layers", "encoder layers", "kv heads", "latent widths")
    for left_out in (
        *[()],
        *((kind,) for kind in likely),
        ("switches", "head width"),
        ("switches", "kv heads"),
        ("switches", "head width", "kv heads"),
    ):
        yield _small(config, kinds - set(left_out))
    for left_out in kinds - set(likely):
        yield _small(config, kinds - {left_out})
    yield _small(config, {"hidden", "heads", "vocabulary", "feed-forward"})
    yield _small(config, {"vocabulary", "feed-forward"})
    yield _small(config, set())


def _small(level: dict[str, Any], kinds: set[str], *, tower: bool = False) -> dict[str, Any]:
    layers = ENCODER_LAYERS if tower else LAYERS
    made = {key: _few(key, value, layers) for key, value in level.items()}
    for key, value in made.items():
        if isinstance(value, dict) and ("model_type" in value or key in ("attn_config", "ffn_config")):
            made[key] = _small(value, kinds, tower=tower or any(word in key for word in _TOWERS))
    before = next((level[key] for key in _COUNTS if isinstance(level.get(key), int)), 0)
    if level.get("num_kv_shared_layers") == before:
        made["num_kv_shared_layers"], kinds = layers, kinds - {"shared caches"}
    made |= {key: value[:layers] for key, value in made.items() if isinstance(value, list) and len(value) == before > layers}
    if tower:
        return made | ({key: HIDDEN for key in _OF_TEXT if isinstance(made.get(key), int)} if "hidden" in kinds else {})
    for kind in kinds & set(_SIZES):
        keys, size = _SIZES[kind]
        made |= {key: size for key in keys if isinstance(made.get(key), int) and not isinstance(made[key], bool)}
    if {"hidden", "heads"} <= kinds:
        if "head width" not in kinds:
            made |= {key: HIDDEN // HEADS for key in _SIZES["head width"][0] if isinstance(made.get(key), int)}
        if isinstance(made.get("kv_lora_rank"), int):
            made |= {"num_key_value_heads": made["num_attention_heads"], "head_dim": made.get("qk_rope_head_dim")}
            made |= {"qk_head_dim": made["qk_nope_head_dim"] + made["qk_rope_head_dim"]} if made.get("qk_head_dim") else {}
        made |= _FITTING.get(made.get("model_type", ""), {})
    if "vocabulary" in kinds:
        made |= {key: i % 3 for i, key in enumerate(_TOKENS) if isinstance(made.get(key), (int, list))}
    if "switches" in kinds:
        made |= {key: not made[key] for key in _SWITCHES if isinstance(made.get(key), bool)}
    return made


def _few(key: str, value: Any, layers: int) -> Any:
    """Return a value that speaks of layers as one that speaks of fewer."""
    if key in _COUNTS and isinstance(value, int):
        return min(layers, value)
    if key == "per_layer_config" and isinstance(value, dict):
        return {layer: changes for layer, changes in value.items() if int(layer) < layers}
    if isinstance(value, list) and value and "layer" in key and all(isinstance(item, int) for item in value) and max(value) >= layers:
        return sorted({item for item in value if item < layers}) or [1, layers - 1]
    return value
