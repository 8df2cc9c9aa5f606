"""GGUF files of architectures whose layers differ, made with the names of the package gguf.

Metadata are those that llama.cpp's ``convert_hf_to_gguf.py`` writes (class named beside each), shapes those of the model that it was made from.
"""

from pathlib import Path

import pytest

from roofline import ConfigError, Model, UnsupportedModelError
from roofline.huggingface import read_json
from test_models_families import EXPERTS, LOCAL, ROUTED, SMALL, SPLIT

CASES = Path(__file__).parent / "data" / "cases"


def _kinds(model):
    """Return the mixer of every layer, one for each."""
    return [group.mixer for group in model.layers for _ in range(group.count)]


def _attends(model):
    return [mixer is not None and "attention" in mixer.kind and "delta" not in mixer.kind for mixer in _kinds(model)]


def _lfm2(config, model):  # LFM2Model: zero key-value heads where there is a convolution
    kv = [config["num_key_value_heads"] * here for here in _attends(model)]
    return {"attention.head_count_kv": kv, "shortconv.l_cache": config["conv_L_cache"]}


def _lfm2_dense(config, model):  # the width of the feed-forward is the adjusted one
    return _lfm2(config, model) | {"feed_forward_length": model.layers[0].feed_forward.intermediate}


def _lfm2_moe(config, model):  # LFM2MoeModel
    return _lfm2(config, model) | {
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "leading_dense_block_count": config["num_dense_layers"],
    }


def _state_space(mixer):
    return {
        "ssm.conv_kernel": mixer.conv_kernel,
        "ssm.state_size": mixer.state,
        "ssm.group_count": mixer.groups,
        "ssm.inner_size": mixer.heads * mixer.head_dim,
        "ssm.time_step_rank": mixer.heads,
    }


def _granite(config, model):  # GraniteHybridModel
    mamba = next(mixer for mixer in _kinds(model) if mixer.kind == "mamba2")
    kv = [config["num_key_value_heads"] * here for here in _attends(model)]
    more = {"expert_shared_feed_forward_length": config["shared_intermediate_size"]} if config.get("num_local_experts") else {}
    return _state_space(mamba) | more | {"attention.head_count_kv": kv, "rope.scaling.finetuned": False}


def _nemotron_h(config, model):  # NemotronHModel
    mamba = next(mixer for mixer in _kinds(model) if mixer is not None and mixer.kind == "mamba2")
    attention = next(mixer for mixer in _kinds(model) if mixer is not None and mixer.kind == "attention")
    blocks = [group.feed_forward for group in model.layers for _ in range(group.count)]
    data = _state_space(mamba) | {"attention.head_count_kv": [attention.kv_heads * here for here in _attends(model)]}
    data |= {"attention.key_length": attention.head_dim, "attention.value_length": attention.head_dim}
    data["feed_forward_length"] = [0 if block is None else block.intermediate for block in blocks]
    experts = next((block for block in blocks if block is not None and block.kind == "experts"), None)
    if experts is not None:
        data |= {"expert_shared_feed_forward_length": experts.shared.intermediate, "expert_shared_count": 1}
        data |= {"expert_feed_forward_length": experts.intermediate, "expert_group_count": 1, "expert_weights_norm": True}
        data |= {"moe_latent_size": experts.latent} if experts.latent else {}
    return data


def _kimi(config, model):  # KimiLinearModel: latent attention as one head of the latent's width
    linear = config["linear_attn_config"]
    rope, latent = config["qk_rope_head_dim"], config["kv_lora_rank"]
    return {
        "attention.head_count_kv": [int(here) for here in _attends(model)],
        "ssm.conv_kernel": linear["short_conv_kernel_size"],
        "kda.head_dim": linear["head_dim"],
        "attention.key_length": latent + rope,
        "attention.value_length": latent,
        "attention.key_length_mla": config["qk_nope_head_dim"] + rope,
        "attention.value_length_mla": config["v_head_dim"],
        "rope.dimension_count": rope,
        "expert_used_count": config["num_experts_per_token"],
        "expert_shared_count": config["num_shared_experts"],
        "leading_dense_block_count": config["first_k_dense_replace"],
    }


def _per_layer(config, model):
    windows = [mixer.visible == "window" for mixer in _kinds(model)]
    return {
        "attention.sliding_window_pattern": windows,
        "attention.sliding_window": config["sliding_window"],
        "attention.shared_kv_layers": config.get("num_kv_shared_layers", 0),
        "embedding_length_per_layer_input": config.get("hidden_size_per_layer_input") or 0,
    }


def _gemma3n(config, model):  # Gemma3NModel
    width = config["head_dim"]
    wide = config["intermediate_size"]
    return _per_layer(config, model) | {
        "attention.key_length": width,
        "attention.value_length": width,
        "feed_forward_length": wide if isinstance(wide, list) else [wide] * model.num_layers,
        "altup.active_idx": 0,
        "altup.num_inputs": 4,
        "activation_sparsity_scale": [1.0] * 10 + [0.5] * (model.num_layers - 10),
    }


def _gemma4(config, model):  # Gemma4Model
    full = config["global_head_dim"]
    data = _per_layer(config, model) | {"attention.key_length": full, "attention.value_length": full}
    data |= {"attention.key_length_swa": config["head_dim"], "attention.value_length_swa": config["head_dim"]}
    if config.get("top_k_experts"):
        data["expert_used_count"] = config["top_k_experts"]
    if config.get("num_global_key_value_heads"):
        data["attention.head_count_kv"] = [mixer.kv_heads for mixer in _kinds(model)]
    if config.get("use_double_wide_mlp"):
        data["feed_forward_length"] = [g.feed_forward.intermediate for g in model.layers for _ in range(g.count)]
    return data


_CONVERTED = {
    # component: what the converter calls it where the package's table has no name of transformers for it
    "dt_bias": "ssm_dt.bias",
    "conv.conv1d": "shortconv.conv.weight",
    "mlp.gate.scales": "ffn_gate_inp.scale",
}
SMALL_GEMMA = {
    "model_type": "gemma4_text",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SMALL_GEMMA |= {"num_hidden_layers": 12, "vocab_size": 1024, "head_dim": 32, "global_head_dim": 64, "sliding_window": 128}

FILES = {
    # name: its configuration, the architecture, what the converter adds
    "granite-4.0-h-small": ("granite-4.0-h-small", "granitehybrid", _granite),
    "lfm2-8b-a1b": ("lfm2-8b-a1b", "lfm2moe", _lfm2_moe),
    "lfm2, dense": (
        {"model_type": "lfm2", "hidden_size": 1024, "intermediate_size": 6656, "num_hidden_layers": 4, "num_attention_heads": 16}
        | {"num_key_value_heads": 8, "vocab_size": 65_536, "conv_L_cache": 3, "layer_types": ["conv", "conv", "full_attention", "conv"]},
        "lfm2",
        _lfm2_dense,
    ),
    "gemma-3n-e4b": ("gemma-3n-e4b", "gemma3n", _gemma3n),
    "gemma-4-26b-a4b": ("gemma-4-26b-a4b", "gemma4", _gemma4),
    "gemma-4, E2B": (
        SMALL_GEMMA
        | {"hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 1000, "num_kv_shared_layers": 6}
        | {"use_double_wide_mlp": True},
        "gemma4",
        _gemma4,
    ),
    "kimi-linear-48b-a3b": ("kimi-linear-48b-a3b", "kimi-linear", _kimi),
    "nemotron-h-56b": ("nemotron-h-56b", "nemotron_h", _nemotron_h),
    "nemotron-3-nano-30b-a3b-bf16": ("nemotron-3-nano-30b-a3b-bf16", "nemotron_h_moe", _nemotron_h),
    "nemotron-3-super-120b-a12b-fp8": ("nemotron-3-super-120b-a12b-fp8", "nemotron_h_moe", _nemotron_h),
}


def _described(name, repository):
    """Return the configuration of a file, and the model that it describes, in 16 bits and without layers for drafts."""
    said = FILES[name][0]
    if isinstance(said, str):
        case = CASES / f"{said}.json"
        said = read_json(case) if case.exists() else read_json(repository / "src" / "roofline" / "_models" / f"{said}.json")["config"]
    if name.startswith("granite"):
        said = said | {"position_embedding_type": "nope"}  # as published
    model = Model.load({key: value for key, value in said.items() if key != "quantization_config"}).but(mtp=())
    return said.get("text_config", said), model


def _tensors(model, architecture, gguf):
    """Return the tensors of a model under the names that the package gguf has for those of transformers, matrices in 16 bits."""
    kind = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names, hidden = gguf.get_tensor_name_map(kind, model.num_layers), model.hidden_size
    final = "token_embd_norm" if architecture.startswith("lfm2") else "output_norm"
    tensors = {"token_embd.weight": ((hidden, model.embedding.vocabulary), "F16"), f"{final}.weight": ((hidden,), "F32")}
    if not model.head.tied:
        tensors["output.weight"] = ((hidden, model.head.outputs), "F16")
    if model.embedding.layer_rows:
        tensors["per_layer_token_embd.weight"] = ((model.embedding.layer_width, model.embedding.layer_rows), "F16")
        tensors["per_layer_proj_norm.weight"] = ((model.embedding.projection_norm.width,), "F32")
    for part in model.embedding.projections:
        streams = part.outputs // hidden if part.name.startswith("altup") else 1
        shape = (part.inputs, hidden, streams) if streams > 1 else (part.inputs, part.outputs)
        tensors[f"{names.get_name(f'model.{part.name}')}.weight"] = (shape, "F16")

    def named(number, component):
        for ours, theirs in _CONVERTED.items():
            if component.endswith(ours):
                return f"blk.{number}.{theirs}"
        for stem in ("model.layers", "backbone.layers", "model.layers.{}.block_sparse_moe"):
            prefix = stem.format(number) if "{}" in stem else f"{stem}.{number}"
            if found := names.get_name(f"{prefix}.{component}"):
                return f"{found}.weight"
        raise KeyError(component)

    for number, group in enumerate(run for run in model.layers for _ in range(run.count)):
        for matrix in group.matrices(hidden):
            shape = (matrix.inputs, matrix.outputs) + ((matrix.copies,) if matrix.copies > 1 else ())
            last = matrix.name.rpartition(".")[2]
            if architecture == "gemma4" and matrix.name in ("mlp.experts.gate_proj", "mlp.experts.up_proj"):
                if last == "up_proj":
                    tensors[f"blk.{number}.ffn_gate_up_exps.weight"] = ((matrix.inputs, 2 * matrix.outputs, matrix.copies), "F16")
                continue
            if last == "kv_b_proj":
                nope = matrix.outputs // group.mixer.heads - group.mixer.v_head_dim
                tensors[f"blk.{number}.attn_k_b.weight"] = ((nope, matrix.inputs, group.mixer.heads), "F16")
                tensors[f"blk.{number}.attn_v_b.weight"] = ((matrix.inputs, group.mixer.v_head_dim, group.mixer.heads), "F16")
                continue
            own = {"fc1_latent_proj": "ffn_latent_down", "fc2_latent_proj": "ffn_latent_up"}.get(last)
            tensors[f"blk.{number}.{own}.weight" if own else named(number, matrix.name)] = (shape, "F32" if last == "gate" else "F16")
        for part in group.vectors():
            if part.name == "self_attn.conv1d":
                wide = group.mixer.inner
                tensors |= {f"blk.{number}.ssm_conv1d_{which}.weight": ((group.mixer.conv_kernel, wide), "F32") for which in "qkv"}
            elif part.name.endswith("conv1d"):
                mixer = group.mixer
                name = named(number, part.name)
                tensors[name] = ((mixer.conv_kernel, mixer.conv_channels), "F32")
                if mixer.conv_bias:
                    tensors[name.replace("weight", "bias")] = ((mixer.conv_channels,), "F32")
            else:
                tensors[named(number, part.name)] = ((part.parameters,), "F32")
    return tensors


@pytest.fixture
def written(tmp_path, repository):
    headers = pytest.importorskip("gguf_headers", reason="headers are made with the package gguf")

    def write(name, change=None, drop=(), add=None):
        config, model = _described(name, repository)
        _, architecture, special = FILES[name]
        metadata = headers.metadata_of({k: v for k, v in config.items() if not isinstance(v, (list, dict))}, architecture)
        for key in ("attention.key_length", "leading_dense_block_count"):
            metadata.pop(key, None)
        metadata |= special(config, model) | (change or {})
        tensors = {n: t for n, t in _tensors(model, architecture, headers.gguf).items() if not n.startswith(tuple(drop) or ("\0",))}
        return model, headers.write_header(tmp_path / "x.gguf", architecture, metadata, tensors | (add or {}))

    return write


@pytest.mark.parametrize("name", FILES)
def test_a_gguf_file_and_the_configuration_that_it_was_made_from_are_one_model(written, name):
    model, path = written(name)
    read = Model.load(path)
    assert read.by_component() == model.by_component()
    assert read.active_parameters == model.active_parameters
    assert _kinds(read) == _kinds(model)
    assert read.kv_bytes_per_token("bf16") == model.kv_bytes_per_token("bf16")


def test_matrices_of_layers_that_use_an_earlier_cache_are_named(written):
    """The converter keeps the keys' and values' projections of Gemma 3n's last 15 layers, which the model does not use."""
    extra = {f"blk.{i}.attn_{which}.weight": ((2048, 512), "F16") for i in range(20, 35) for which in "kv"}
    model, path = written("gemma-3n-e4b", add=extra)
    read = Model.load(path)
    assert read.parameters == model.parameters
    assert "62.91 MB of keys' and values' matrices in layers that use an earlier one's cache" in read.not_modelled


PLAIN = {
    # architectures whose layers do not differ: a small configuration, and what metadata the converter adds
    "apertus": (SPLIT | {"model_type": "apertus"}, {"xielu.alpha_p": [0.8] * 4}),
    "arcee": (SMALL | {"model_type": "arcee"}, {}),
    "bailingmoe2": (
        SMALL | EXPERTS | {"model_type": "bailing_moe_v2", "use_qk_norm": True, "num_shared_experts": 1, "first_k_dense_replace": 1},
        {"expert_shared_count": 1},
    ),
    "cohere2": (SMALL | {"model_type": "cohere2", "sliding_window": 32}, {"attention.sliding_window": 32, "logit_scale": 0.25}),
    "dots1": (SMALL | ROUTED | {"model_type": "dots1", "first_k_dense_replace": 1}, {}),
    "ernie4_5": (SMALL | {"model_type": "ernie4_5"}, {}),
    "exaone": (SMALL | {"model_type": "exaone"}, {}),
    "exaone4": (
        SMALL | {"model_type": "exaone4", "sliding_window": 32},
        {"attention.sliding_window": 32, "attention.sliding_window_pattern": [True, True, True, False]},
    ),
    "granitemoe": (
        SPLIT | LOCAL | {"model_type": "granitemoeshared", "shared_intermediate_size": 56},
        {"expert_shared_feed_forward_length": 56},
    ),
    "hunyuan-dense": (SMALL | {"model_type": "hunyuan_v1_dense"}, {}),
    "internlm2": (SMALL | {"model_type": "internlm2"}, {}),
    "minicpm": (SPLIT | {"model_type": "minicpm"}, {}),
    "nemotron": (SMALL | {"model_type": "nemotron"}, {}),
    "olmo": (SPLIT | {"model_type": "olmo"}, {}),
    "stablelm": (SPLIT | {"model_type": "stablelm", "use_qkv_bias": True}, {}),
}
NO_TENSOR = {"apertus": ("None",), "olmo": ("None", "output_norm")}
"""Parameters that the converter writes as metadata, and norms that have none."""


@pytest.mark.parametrize("architecture", PLAIN)
def test_a_gguf_file_of_equal_layers_and_its_configuration_are_one_model(tmp_path, architecture):
    headers = pytest.importorskip("gguf_headers", reason="headers are made with the package gguf")
    config, more = PLAIN[architecture]
    model = Model.load(config)
    metadata = headers.metadata_of(config, architecture) | more
    tensors = {n: t for n, t in headers.tensors_of(model, architecture).items() if not n.startswith(NO_TENSOR.get(architecture, ("\0",)))}
    read = Model.load(headers.write_header(tmp_path / "x.gguf", architecture, metadata, tensors))
    assert read.by_component() == model.by_component()
    assert read.active_parameters == model.active_parameters
    assert _kinds(read) == _kinds(model)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("granite-4.0-h-small", {"attention.head_count_kv": [0] * 35 + [8] * 5}, "mamba.in_proj: no tensor of it is in the files"),
        ("granite-4.0-h-small", {"attention.head_count_kv": [0] * 35 + [8, 4, 8, 8, 8]}, "several sizes"),
        ("lfm2-8b-a1b", {"attention.head_count_kv": [0, 8]}, "a size for each of 24 layers"),
        ("nemotron-h-56b", {"ssm.state_size": 128}, "mixer"),
        ("gemma-3n-e4b", {"attention.head_count": [8] * 34 + [4]}, "differs from layer to layer"),
    ],
)
def test_a_file_that_its_lists_do_not_fit_is_refused(written, name, change, said):
    _, path = written(name, change)
    with pytest.raises((ConfigError, UnsupportedModelError), match=said):
        Model.load(path)
