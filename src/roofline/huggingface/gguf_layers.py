"""GGUF files whose layers differ: which have caches, states or experts, told by lists of sizes, of which 0 means none, and by tensors.

References
----------
llama.cpp, ``convert_hf_to_gguf.py`` (LFM2Model, GraniteHybridModel, NemotronHModel, KimiLinearModel, Gemma3NModel, Gemma4Model).
"""

from collections.abc import Callable, Mapping
from typing import Any

from roofline.checkpoints import StoredTensor
from roofline.errors import ConfigError, UnsupportedModelError

_Tensors = Mapping[str, StoredTensor]
_Lists = dict[str, list[Any]]
_KV, _WIDTH = "attention.head_count_kv", "feed_forward_length"


def _list(where: str, lists: _Lists, inner: str, count: int) -> list[Any]:
    """Return a size of every layer."""
    found = lists.pop(inner, None)
    if found is None or len(found) != count:
        raise ConfigError(f"{where}: {inner!r} must hold a size for each of {count} layers.")
    return found


def _uniform(where: str, config: dict[str, Any], lists: _Lists, inner: str, ours: str) -> list[bool]:
    """Return which layers have a size that is 0 in the others, and set it; all have it where it is no list."""
    count = int(config["num_hidden_layers"])
    if inner not in lists:
        return [bool(config.get(ours))] * count
    values = _list(where, lists, inner, count)
    sizes = set(values) - {0}
    if len(sizes) > 1:
        raise UnsupportedModelError(f"{where}: {inner!r} has several sizes, of which this architecture has one.")
    config[ours] = sizes.pop() if sizes else 0
    return [bool(value) for value in values]


def _all_read(where: str, lists: _Lists) -> None:
    """Refuse sizes that differ from layer to layer where that is not understood."""
    if lists:
        raise UnsupportedModelError(f"{where}: {next(iter(lists))!r} differs from layer to layer, which is not read.")


def _head_width(config: dict[str, Any], attends: list[bool], tensors: _Tensors) -> None:
    """Set the width of a head from the first layer that has keys."""
    key = tensors.get(f"blk.{attends.index(True)}.attn_k.weight") if any(attends) else None
    if key is not None and "head_dim" not in config:
        config["head_dim"] = key.shape[1] // config["num_key_value_heads"]


def _lfm2(where: str, config: dict[str, Any], lists: _Lists, tensors: _Tensors) -> None:
    attends = _uniform(where, config, lists, _KV, "num_key_value_heads")
    _all_read(where, lists)
    config["layer_types"] = ["full_attention" if here else "conv" for here in attends]
    _head_width(config, attends, tensors)
    config["conv_bias"] = any(name.endswith("shortconv.conv.bias") for name in tensors)
    if config["model_type"] == "lfm2":
        config["block_auto_adjust_ff_dim"] = False  # the width is what follows from it
    else:
        config["num_dense_layers"] = config.pop("first_k_dense_replace", 0)


def _mamba(config: dict[str, Any], tensors: _Tensors) -> dict[str, Any]:
    """Take what is said of Mamba-2 out of the keys that gated delta nets share with it."""
    own = {
        "state": config.pop("linear_key_head_dim", 0),
        "taps": config.pop("linear_conv_kernel_dim", 0),
        "groups": config.pop("linear_num_key_heads", 0),
        "heads": config.pop("linear_num_value_heads", 0),
    }
    own["inner"] = config.pop("linear_value_head_dim", 0) * (own["heads"] or 1)
    return own | {"bias": any(name.endswith("ssm_conv1d.bias") for name in tensors)}


def _granite(where: str, config: dict[str, Any], lists: _Lists, tensors: _Tensors) -> None:
    attends = _uniform(where, config, lists, _KV, "num_key_value_heads")
    _all_read(where, lists)
    _head_width(config, attends, tensors)
    config["layer_types"] = ["attention" if here else "mamba" for here in attends]
    own = _mamba(config, tensors)
    if not all(attends):
        hidden, heads = config["hidden_size"], own["heads"]
        if not heads or own["inner"] % hidden or own["inner"] % heads:
            raise ConfigError(f"{where}: its state-space layers have {own['inner']} channels, no multiple of the width or of their heads.")
        config |= {"mamba_n_heads": heads, "mamba_d_head": own["inner"] // heads, "mamba_expand": own["inner"] // hidden}
        config |= {"mamba_d_state": own["state"], "mamba_d_conv": own["taps"], "mamba_n_groups": own["groups"]}
        config |= {"mamba_conv_bias": own["bias"], "position_embedding_type": "nope"}
    shared = config.pop("shared_expert_intermediate_size", None)
    if config.get("num_experts"):
        config["shared_intermediate_size"] = shared
        config["num_local_experts"] = config.pop("num_experts")
    else:
        config |= {"num_local_experts": 0, "shared_intermediate_size": config["intermediate_size"]}
        config.pop("num_experts", None)


def _granite_moe(where: str, config: dict[str, Any], lists: _Lists, tensors: _Tensors) -> None:
    _all_read(where, lists)
    config["shared_intermediate_size"] = config.pop("shared_expert_intermediate_size", 0)


def _nemotron_h(where: str, config: dict[str, Any], lists: _Lists, tensors: _Tensors) -> None:
    attends = _uniform(where, config, lists, _KV, "num_key_value_heads")
    wide = _uniform(where, config, lists, _WIDTH, "intermediate_size")
    _all_read(where, lists)
    letters = []
    for i, (attention, block) in enumerate(zip(attends, wide, strict=True)):
        experts = f"blk.{i}.ffn_gate_inp.weight" in tensors
        mlp = f"blk.{i}.ffn_up.weight" in tensors
        letters.append("E" if experts else "*" if attention else "-" if block and mlp else "M")
    config["hybrid_override_pattern"] = "".join(letters)
    own = _mamba(config, tensors)
    if own["heads"]:
        config |= {"mamba_num_heads": own["heads"], "mamba_head_dim": own["inner"] // own["heads"], "ssm_state_size": own["state"]}
        config |= {"n_groups": own["groups"], "conv_kernel": own["taps"], "use_conv_bias": own["bias"]}
    if "num_experts" in config:
        config["n_routed_experts"] = config.pop("num_experts")
        config["moe_shared_expert_intermediate_size"] = config.pop("shared_expert_intermediate_size", 0)
        if "-" not in letters:
            config.pop("intermediate_size", None)


def _kimi(where: str, config: dict[str, Any], lists: _Lists, tensors: _Tensors) -> None:
    heads = config["num_attention_heads"]
    full = _uniform(where, config, lists, _KV, "num_key_value_heads")
    _all_read(where, lists)
    config |= {"layer_types": ["full_attention" if here else "linear_attention" for here in full], "num_key_value_heads": heads}
    config |= {"linear_num_heads": heads, "linear_head_dim": config.pop("kda_head_dim")}
    config["linear_conv_kernel_dim"] = config.pop("linear_conv_kernel_dim", 4)
    key = next((tensors[f"blk.{i}.attn_kv_a_mqa.weight"] for i, here in enumerate(full) if here), None)
    latent, values = config["kv_lora_rank"], config.pop("v_head_dim", 0)
    wide = config.pop("head_dim", 0)
    rope = (key.shape[1] if key is not None else latent) - latent
    config |= {"qk_rope_head_dim": rope, "qk_nope_head_dim": config.pop("key_length_mla", wide) - rope}
    config["v_head_dim"] = config.pop("value_length_mla", values)


def _per_layer(config: dict[str, Any], tensors: _Tensors) -> None:
    table = tensors.get("per_layer_token_embd.weight")
    if table is not None:
        config["vocab_size_per_layer_input"] = table.shape[1]


def _gemma3n(where: str, config: dict[str, Any], lists: _Lists, tensors: _Tensors) -> None:
    if _WIDTH in lists:
        config["intermediate_size"] = _list(where, lists, _WIDTH, config["num_hidden_layers"])
    _all_read(where, lists)
    _per_layer(config, tensors)
    config["laurel_rank"] = tensors["blk.0.laurel_l.weight"].shape[1]


def _gemma4(where: str, config: dict[str, Any], lists: _Lists, tensors: _Tensors) -> None:
    count = config["num_hidden_layers"]
    _per_layer(config, tensors)
    kinds = config.get("layer_types")
    if not isinstance(kinds, list):
        raise ConfigError(f"{where} lacks 'gemma4.attention.sliding_window_pattern', which says of every layer whether it has a window.")
    if _KV in lists:
        heads = dict(zip(kinds, _list(where, lists, _KV, count), strict=True))
        config["num_key_value_heads"] = heads.get("sliding_attention", heads["full_attention"])
        config["num_global_key_value_heads"] = heads["full_attention"]
    if _WIDTH in lists:
        widths = _list(where, lists, _WIDTH, count)
        config |= {"intermediate_size": widths[0], "use_double_wide_mlp": widths[-1] == 2 * widths[0]}
    _all_read(where, lists)
    config["global_head_dim"] = config["head_dim"]
    config["head_dim"] = config.pop("key_length_swa", config["head_dim"])
    for key in ("v_head_dim", "value_length_swa"):
        config.pop(key, None)
    config.setdefault("hidden_size_per_layer_input", 0)
    full = kinds.index("full_attention") if "full_attention" in kinds else 0
    config["attention_k_eq_v"] = f"blk.{full}.attn_v.weight" not in tensors
    config["enable_moe_block"] = bool(config.get("num_experts"))
    if config["enable_moe_block"] and "moe_intermediate_size" not in config:
        raise ConfigError(f"{where} lacks 'gemma4.expert_feed_forward_length'.")


LAYERED: dict[str, Callable[[str, dict[str, Any], _Lists, _Tensors], None]] = {
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "granitehybrid": _granite,
    "granitemoe": _granite_moe,
    "kimi-linear": _kimi,
    "lfm2": _lfm2,
    "lfm2moe": _lfm2,
    "nemotron_h": _nemotron_h,
    "nemotron_h_moe": _nemotron_h,
}
"""How architectures whose layers differ become words of config.json."""

_STATE_SPACE = {"in_proj": "ssm_in", "out_proj": "ssm_out", "conv1d": "ssm_conv1d", "dt_bias": "ssm_dt", "A_log": "ssm_a", "D": "ssm_d"}
_DELTA = {
    **{f"{name}_proj": f"ssm_{name}" for name in ("f_a", "f_b", "g_a", "g_b")},
    "b_proj": "ssm_beta",
    "A_log": "ssm_a",
    "dt_bias": "ssm_dt",
    "o_norm": "ssm_norm",
    "conv1d": "ssm_conv1d_q+ssm_conv1d_k+ssm_conv1d_v",
}
_EMBEDDED: dict[str, tuple[str, ...]] = {
    "per_layer_input_gate": ("inp_gate",),
    "per_layer_projection": ("proj",),
    "post_per_layer_input_norm": ("post_norm",),
}


def _named(prefix: str, names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {f"{prefix}.{ours}": (theirs,) for ours, theirs in names.items()}


SHAPES: dict[str, dict[str, tuple[str, ...]]] = {
    "apertus": {"attention_layernorm": ("attn_norm",), "feedforward_layernorm": ("ffn_norm",)},
    "gemma3n": _EMBEDDED
    | {
        "laurel.linear_left": ("laurel_l",),
        "laurel.linear_right": ("laurel_r",),
        "laurel.post_laurel_norm": ("laurel_post_norm",),
        "altup.modality_router": ("altup_router",),
        "altup.router_norm": ("altup_router_norm",),
        "altup.prediction_coefs": ("altup_predict_coef",),
        "altup.correction_coefs": ("altup_correct_coef",),
        "altup.correct_output_scale": ("altup_correct_scale",),
    },
    "gemma4": _EMBEDDED
    | {
        "post_feedforward_layernorm_1": ("post_ffw_norm_1",),
        "pre_feedforward_layernorm_2": ("pre_ffw_norm_2",),
        "post_feedforward_layernorm_2": ("post_ffw_norm_2",),
    },
    "granitehybrid": _named("mamba", _STATE_SPACE | {"norm": "ssm_norm"}),
    "kimi-linear": _named("self_attn", _DELTA),
    "lfm2": _named("conv", {"in_proj": "shortconv.in_proj", "out_proj": "shortconv.out_proj", "conv1d": "shortconv.conv"})
    | {"operator_norm": ("attn_norm",), "ffn_norm": ("ffn_norm",)},
    "nemotron_h": _named("mixer", _STATE_SPACE | {"norm": "ssm_norm"})
    | {"mlp.fc1_latent_proj": ("ffn_latent_down",), "mlp.fc2_latent_proj": ("ffn_latent_up",)},
}
"""What GGUF files call components of these architectures inside a layer."""
SHAPES |= {"lfm2moe": SHAPES["lfm2"], "nemotron_h_moe": SHAPES["nemotron_h"]}
