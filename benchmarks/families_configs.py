"""Configurations of every family that the installed transformers runs: the default of its class, and a small varied one."""

import copy
import itertools
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

_WIDTHS = {
    "hidden": (("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim", "dim", "embedding_dim"), 96),
    "heads": (
        (
            "num_attention_heads",
            "n_head",
            "n_heads",
            "num_heads",
            "encoder_attention_heads",
            "decoder_attention_heads",
            "num_decoder_attention_heads",
        ),
        6,
    ),
    "kv heads": (("num_key_value_heads", "num_kv_heads"), 2),
    "head width": (("head_dim", "d_kv", "d_head", "dim_head", "global_head_dim", "swa_head_dim"), 24),
    "feed-forward": (
        (
            "intermediate_size",
            "ffn_dim",
            "n_inner",
            "d_ff",
            "ffn_hidden_size",
            "hidden_dim",
            "encoder_ffn_dim",
            "decoder_ffn_dim",
            "dim_ff",
            "d_inner",
        )
        + ("intermediate_size_mlp", "moe_shared_expert_intermediate_size", "shared_intermediate_size", "shared_expert_intermediate_size"),
        208,
    ),
    "expert width": (("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"), 72),
    "experts": (("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 5),
    "experts per token": (("num_experts_per_tok", "experts_per_token", "moe_topk", "moe_k", "top_k_experts", "moe_top_k"), 2),
    "expert groups": (("n_group", "topk_group", "num_expert_group"), 1),
    "dense layers": (("first_k_dense_replace", "num_dense_layers"), 2),
    "latents": (("q_lora_rank", "kv_lora_rank"), 40),
    "latent widths": (("qk_nope_head_dim", "v_head_dim"), 24),
    "rotary width": (("qk_rope_head_dim",), 16),
    "window": (("sliding_window", "attention_chunk_size", "local_attention", "attention_window_size"), 64),
    "vocabulary": (("vocab_size", "n_vocab", "vocab_size_per_layer_input"), 512),
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
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers")
_ENCODER_COUNTS = ("encoder_layers", "num_encoder_layers", "depth")
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
_TOWERS = ("vision", "audio", "image", "speech", "qformer", "projector", "code2wav", "talker", "token2wav")
_WHOLE_PATTERN = ("layer_types", "layers_block_type", "mlp_layer_types", "layer_block_types")


def families(mapping: str) -> tuple[str, ...]:
    """Return every `model_type` of a mapping."""
    from transformers.models.auto import modeling_auto

    return tuple(sorted(getattr(modeling_auto, MAPPINGS[mapping][0])))


def default(model_type: str, mapping: str) -> dict[str, Any]:
    """Return what the configuration class of a family writes if nobody tells it anything but that a causal model is a decoder."""
    from transformers import CONFIG_MAPPING

    config = as_written(CONFIG_MAPPING[model_type]())
    alone = {"is_decoder": True, "is_encoder_decoder": False} if mapping == "causal" else {}
    return config | {key: value for key, value in alone.items() if key in config}


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
    kinds = (*_WIDTHS, "switches")
    for left_out in itertools.chain(
        [()], ([kind] for kind in reversed(kinds)), itertools.combinations(("switches", "head width", "kv heads", "latent widths"), 2)
    ):
        yield _small(config, set(kinds) - set(left_out))
    yield _small(config, {"hidden", "heads", "vocabulary", "feed-forward"})
    yield _small(config, {"vocabulary", "feed-forward"})
    yield _small(config, set())


def _small(level: dict[str, Any], kinds: set[str], tower: bool = False) -> dict[str, Any]:
    made = dict(level)
    layers = ENCODER_LAYERS if tower else LAYERS
    before = next((level[key] for key in _COUNTS if isinstance(level.get(key), int)), 0)
    for key in made:
        if key in _COUNTS and isinstance(made[key], int):
            made[key] = min(layers, made[key])
        elif key in _ENCODER_COUNTS and isinstance(made[key], int):
            made[key] = min(ENCODER_LAYERS, made[key])
        elif isinstance(made[key], list) and before and len(made[key]) == before > layers:
            made[key] = made[key][:layers]
        elif isinstance(made[key], dict) and "model_type" in made[key]:
            made[key] = _small(made[key], kinds, tower or any(word in key for word in _TOWERS))
        elif (
            isinstance(made[key], list)
            and made[key]
            and all(isinstance(item, int) and item >= layers for item in made[key])
            and "layer" in key
        ):
            made[key] = [1, layers - 1]
    if tower:
        return made
    for kind in kinds & set(_WIDTHS):
        keys, size = _WIDTHS[kind]
        made |= {key: size for key in keys if isinstance(made.get(key), int) and not isinstance(made[key], bool)}
    if isinstance(made.get("kv_lora_rank"), int) and "heads" in kinds:
        made |= {"num_key_value_heads": made["num_attention_heads"], "head_dim": made.get("qk_rope_head_dim")}
        if made.get("qk_head_dim"):
            made["qk_head_dim"] = made["qk_nope_head_dim"] + made["qk_rope_head_dim"]
    if "vocabulary" in kinds:
        made |= {key: i % 3 for i, key in enumerate(_TOKENS) if isinstance(made.get(key), (int, list))}
    if "switches" in kinds:
        made |= {key: not made[key] for key in _SWITCHES if isinstance(made.get(key), bool)}
    return made
