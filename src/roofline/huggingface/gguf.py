"""GGUF files: the configuration that their metadata describe, in the words of config.json, and what they call the components.

References
----------
ggml, ``docs/gguf.md``, and llama.cpp, ``gguf-py/gguf/constants.py`` (keys and names of tensors) and ``convert_hf_to_gguf.py`` (what they are
made from).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from roofline.checkpoints import Checkpoint, StoredTensor
from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.huggingface.gguf_layers import LAYERED, SHAPES
from roofline.huggingface.stored import Files
from roofline.names import nearest_names

_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "v_head_dim",
    "attention.sliding_window": "sliding_window",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "leading_dense_block_count": "first_k_dense_replace",
    "nextn_predict_layers": "num_nextn_predict_layers",
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "attention.key_length_mla": "key_length_mla",
    "attention.value_length_mla": "value_length_mla",
    "vocab_size": "vocab_size",
    "full_attention_interval": "full_attention_interval",
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "ssm.state_size": "linear_key_head_dim",
    "ssm.group_count": "linear_num_key_heads",
    "ssm.time_step_rank": "linear_num_value_heads",
    "ssm.inner_size": "linear_value_head_dim",
    "shortconv.l_cache": "conv_L_cache",
    "kda.head_dim": "kda_head_dim",
    "moe_latent_size": "moe_latent_size",
    "attention.key_length_swa": "key_length_swa",
    "attention.value_length_swa": "value_length_swa",
    "attention.shared_kv_layers": "num_kv_shared_layers",
    "embedding_length_per_layer_input": "hidden_size_per_layer_input",
    "altup.num_inputs": "altup_num_inputs",
}
"""Keys behind the name of the architecture, and what config.json calls them."""

_FREE = re.compile(
    r"rope\.|attention\.(layer_norm|scale$|causal$|clamp|temperature|output_scale)|expert_(weights|gating|group)|.*logit|.*softcapping|"
    r"tensor_data_layout|residual_scale|embedding_scale|decoder_start|pooling_type|n_deepstack_layers|altup\.active|activation_sparsity|"
    r"xielu\."
)
"""Keys of an architecture about positions, scales and constants of norms, which change no cost."""


class _Family(NamedTuple):
    model_type: str
    fixed: Mapping[str, Any] = {}  # what a configuration would say and a GGUF file leaves to its architecture
    experts: str = ""  # the model_type if there are experts


_FAMILIES = {
    "llama": _Family("llama", experts="mixtral"),
    "mistral3": _Family("ministral3"),
    "qwen2": _Family("qwen2"),
    "qwen2moe": _Family("qwen2_moe"),
    "qwen3": _Family("qwen3"),
    "qwen3moe": _Family("qwen3_moe"),
    "qwen3vl": _Family("qwen3_vl_text"),
    "qwen3vlmoe": _Family("qwen3_vl_moe_text"),
    "qwen3next": _Family("qwen3_next"),
    "qwen35": _Family("qwen3_5_text"),
    "qwen35moe": _Family("qwen3_5_moe_text"),
    "gemma": _Family("gemma"),
    "gemma2": _Family("gemma2"),
    "gemma3": _Family("gemma3_text"),
    "phi3": _Family("phi3"),
    "gpt-oss": _Family("gpt_oss"),
    "deepseek2": _Family("deepseek_v2"),
    "glm4": _Family("glm4"),
    "glm4moe": _Family("glm4_moe"),
    "granite": _Family("granite"),
    "olmo2": _Family("olmo2"),
    "olmoe": _Family("olmoe"),
    "seed_oss": _Family("seed_oss"),
    "smollm3": _Family("smollm3"),
    "starcoder2": _Family("starcoder2"),
    "command-r": _Family("cohere"),
    "minimax-m2": _Family("minimax_m2"),
    "apertus": _Family("apertus"),
    "arcee": _Family("arcee"),
    "bailingmoe2": _Family("bailing_moe_v2", {"use_qk_norm": True}),
    "cohere2": _Family("cohere2"),
    "dots1": _Family("dots1"),
    "ernie4_5": _Family("ernie4_5"),
    "exaone": _Family("exaone"),
    "exaone4": _Family("exaone4"),
    "gemma3n": _Family("gemma3n_text"),
    "gemma4": _Family("gemma4_text"),
    "granitehybrid": _Family("granitemoehybrid"),
    "granitemoe": _Family("granitemoeshared"),
    "hunyuan-dense": _Family("hunyuan_v1_dense"),
    "internlm2": _Family("internlm2"),
    "kimi-linear": _Family("kimi_linear"),
    "lfm2": _Family("lfm2"),
    "lfm2moe": _Family("lfm2_moe"),
    "minicpm": _Family("minicpm"),
    "nemotron": _Family("nemotron"),
    "nemotron_h": _Family("nemotron_h"),
    "nemotron_h_moe": _Family("nemotron_h"),
    "olmo": _Family("olmo"),
    "stablelm": _Family("stablelm"),
}
"""Architectures of GGUF files that are read, with the `model_type` of the reader."""

_COMPONENTS: dict[str, tuple[str, ...]] = {
    "self_attn.q_proj": ("attn_q", "attn_qkv"),
    "self_attn.k_proj": ("attn_k", "attn_qkv"),
    "self_attn.v_proj": ("attn_v", "attn_qkv"),
    "self_attn.o_proj": ("attn_output",),
    "self_attn.q_norm": ("attn_q_norm",),
    "self_attn.k_norm": ("attn_k_norm",),
    "self_attn.sinks": ("attn_sinks",),
    "self_attn.q_a_proj": ("attn_q_a",),
    "self_attn.q_b_proj": ("attn_q_b",),
    "self_attn.kv_a_proj_with_mqa": ("attn_kv_a_mqa",),
    "self_attn.kv_b_proj": ("attn_kv_b", "attn_k_b+attn_v_b"),
    "self_attn.q_a_layernorm": ("attn_q_a_norm",),
    "self_attn.kv_a_layernorm": ("attn_kv_a_norm",),
    "mlp.gate_proj": ("ffn_gate", "ffn_up"),  # Phi-3 has both in one
    "mlp.up_proj": ("ffn_up",),
    "mlp.down_proj": ("ffn_down",),
    "mlp.gate": ("ffn_gate_inp",),
    "mlp.experts.gate_proj": ("ffn_gate_exps", "ffn_gate_up_exps"),
    "mlp.experts.up_proj": ("ffn_up_exps", "ffn_gate_up_exps"),
    "mlp.experts.down_proj": ("ffn_down_exps",),
    "mlp.shared_experts.gate_proj": ("ffn_gate_shexp",),
    "mlp.shared_experts.up_proj": ("ffn_up_shexp",),
    "mlp.shared_experts.down_proj": ("ffn_down_shexp",),
    "mlp.shared_expert_gate": ("ffn_gate_inp_shexp",),
    "linear_attn.in_proj_qkvz": ("attn_qkv+attn_gate", "ssm_in"),
    "linear_attn.in_proj_qkv": ("attn_qkv",),
    "linear_attn.in_proj_z": ("attn_gate",),
    "linear_attn.in_proj_ba": ("ssm_ba",),
    "linear_attn.in_proj_b": ("ssm_beta",),
    "linear_attn.in_proj_a": ("ssm_alpha",),
    "linear_attn.out_proj": ("ssm_out",),
    "linear_attn.conv1d": ("ssm_conv1d",),
    "linear_attn.A_log": ("ssm_a",),
    "linear_attn.dt_bias": ("ssm_dt",),
    "linear_attn.norm": ("ssm_norm",),
    "input_layernorm": ("attn_norm",),
    "post_attention_layernorm": ("ffn_norm", "post_attention_norm"),
    "post_feedforward_layernorm": ("post_ffw_norm",),
    "post_self_attn_layernorm": ("post_attention_norm",),
    "post_mlp_layernorm": ("post_ffw_norm",),
    "eh_proj": ("nextn.eh_proj",),
    "fc": ("nextn.eh_proj",),
    "enorm": ("nextn.enorm",),
    "hnorm": ("nextn.hnorm",),
    "shared_head.norm": ("nextn.shared_head_norm",),
}
_SANDWICH = {"post_attention_layernorm": ("post_attention_norm",), "pre_feedforward_layernorm": ("ffn_norm",)}
"""Gemma's norms on both sides of each block."""


def describe_gguf(checkpoint: Checkpoint) -> tuple[dict[str, Any], Files]:
    """Return the configuration that a GGUF file describes, and its tensors by component.

    Parameters
    ----------
    checkpoint : Checkpoint
        What its header says [-].

    Returns
    -------
    tuple
        The content of a config.json, and the tensors [-].

    Raises
    ------
    UnsupportedModelError
        If its architecture, or a key that might change the cost, is not understood.
    ConfigError
        If a key that is needed is missing, or differs from layer to layer.
    """
    where, data = checkpoint.where, checkpoint.metadata
    name = data.get("general.architecture")
    if not isinstance(name, str):
        raise ConfigError(f"{where} lacks 'general.architecture'.")
    if name not in _FAMILIES:
        near = nearest_names(name, _FAMILIES)
        raise UnsupportedModelError(
            f"{where}: the architecture {quoted(name)} of GGUF files is not read; "
            f"{'nearest' if near else 'read are'}: {', '.join(near or _FAMILIES)}. "
            "The config.json that it was made from may be: name its format as weights=."
        )
    family, (config, varying) = _FAMILIES[name], _translated(where, name, data)
    config |= {"model_type": family.model_type, **family.fixed}
    tensors = {tensor.name: tensor for tensor in checkpoint.tensors}
    _from_tensors(where, config, tensors)
    if config.get("num_experts") and family.experts:
        config["model_type"] = family.experts
    if name == "deepseek2":
        _latent(config, data.get(f"{name}.rope.dimension_count"), tensors)
    _simplified(config)
    if name in LAYERED:
        LAYERED[name](where, config, varying, tensors)
    names = (
        _COMPONENTS
        | SHAPES.get(name, {})
        | (_SANDWICH if "blk.0.post_ffw_norm.weight" in tensors and "blk.0.ffn_norm.weight" in tensors else {})
    )
    if family.model_type == "glm4":
        names = dict(_COMPONENTS)
    embedding = tensors["token_embd.weight"].kind
    first = config["num_hidden_layers"] - config.get("num_kv_shared_layers", 0)
    idle = {f"blk.{i}.attn_{key}.weight" for i in range(first, config["num_hidden_layers"]) for key in ("k", "v", "k_norm")}
    return config, Files(checkpoint, names, "bf16" if embedding == "bf16" else "fp16", idle)


def _translated(where: str, name: str, data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return the keys of the architecture in the words of config.json, and those whose values differ from layer to layer."""
    config: dict[str, Any] = {}
    varying: dict[str, list[Any]] = {}
    for key, value in data.items():
        if not key.startswith(f"{name}."):
            continue
        inner = key[len(name) + 1 :]
        if inner in _KEYS:
            if isinstance(value, list):
                if len(set(value)) != 1:
                    if name not in LAYERED:
                        raise UnsupportedModelError(f"{where}: {key!r} differs from layer to layer, which is not read.")
                    varying[inner] = value
                    continue
                value = value[0]
            config[_KEYS[inner]] = value
        elif inner == "attention.sliding_window_pattern":
            config["layer_types"] = value
        elif not _FREE.match(inner) and value not in (0, False, ""):
            raise UnsupportedModelError(f"{where}: the key {quoted(key)} = {quoted(value)} is not understood; it might change the cost.")
    return config, varying


def _from_tensors(where: str, config: dict[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    """Add what the shapes and names of tensors say: the vocabulary, the width of heads, biases, whether the head is tied."""
    try:
        config["vocab_size"] = tensors["token_embd.weight"].shape[1]
        key = tensors.get("blk.0.attn_k.weight")
        if key is not None and "head_dim" not in config:
            config["head_dim"] = key.shape[1] // config.get("num_key_value_heads", config["num_attention_heads"])
    except (KeyError, IndexError, ZeroDivisionError):
        raise ConfigError(f"{where} lacks the embedding, or the number of heads, so it describes no decoder.") from None
    config["tie_word_embeddings"] = "output.weight" not in tensors
    if config["model_type"] in ("cohere", "glm4_moe"):
        config["use_qk_norm"] = "blk.0.attn_q_norm.weight" in tensors
    if ("blk.0.attn_q.bias" in tensors or "blk.0.attn_qkv.bias" in tensors) and config["model_type"] != "qwen2":
        config[_BIASES.get(config["model_type"], "attention_bias")] = True


_BIASES = {"qwen2_moe": "qkv_bias", "stablelm": "use_qkv_bias", "starcoder2": "use_bias"}
"""What families call the switch for biases of attention, where not `attention_bias`."""


def _latent(config: dict[str, Any], rotated: Any, tensors: Mapping[str, StoredTensor]) -> None:
    """Turn the widths of latent attention into the words of DeepSeek: llama.cpp stores it as one head, or as all of them."""
    wide, values = config.pop("head_dim", 0), config.pop("v_head_dim", 0)
    wide, values = config.pop("key_length_mla", wide), config.pop("value_length_mla", values)
    config |= {"qk_rope_head_dim": rotated, "qk_nope_head_dim": wide - (rotated or 0), "v_head_dim": values}
    config |= {"num_key_value_heads": config["num_attention_heads"], "q_lora_rank": config.get("q_lora_rank")}
    if any(name.endswith("exp_probs_b.bias") for name in tensors):
        config["model_type"] = "deepseek_v3"


def _simplified(config: dict[str, Any]) -> None:
    """Leave out what says nothing: values as wide as keys, experts of which there are none, widths that no layer has."""
    if config.get("v_head_dim") == config.get("head_dim"):
        config.pop("v_head_dim", None)
    if not config.get("num_experts"):
        for key in ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts"):
            config.pop(key, None)
    elif config["model_type"] in ("mixtral", "gpt_oss", "olmoe", "minimax_m2"):
        config["intermediate_size"] = config.pop("moe_intermediate_size", config.get("intermediate_size"))
    if inner := config.get("linear_value_head_dim"):  # of all heads together
        config["linear_value_head_dim"] = inner // config.get("linear_num_value_heads", 1)
    if drafts := config.get("num_nextn_predict_layers"):
        config["num_hidden_layers"] -= drafts
    if isinstance(config.get("layer_types"), list):
        config["layer_types"] = ["sliding_attention" if windowed else "full_attention" for windowed in config["layer_types"]]
    elif "layer_types" in config:
        config["sliding_window_pattern"] = config.pop("layer_types")
