"""Headers of GGUF files, made with the writer of the package gguf: metadata and tensors as llama.cpp's converter and quantizer lay them out.

Dimensions are those of the published models. Which tensors have which type follows llama.cpp, ``src/llama-quant.cpp``; the counts of tensors by
type that llama.cpp prints when it loads the published files are asserted beside them.
"""

from collections import Counter
from math import prod

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")


def write_header(path, architecture, metadata, tensors, parts=1):
    """Write a file, or several parts, that end behind the header; `tensors` maps names to dimensions and type."""
    named = list(tensors.items())
    size = -(-len(named) // parts)
    for part in range(parts):
        file = path if parts == 1 else path.with_name(f"{path.stem}-{part + 1:05}-of-{parts:05}.gguf")
        writer = gguf.GGUFWriter(file, architecture)
        if parts > 1:
            writer.add_uint16("split.no", part)
            writer.add_uint16("split.count", parts)
        for key, value in metadata.items() if part == 0 else ():
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
            add[type(value)](key if "." in key and key.startswith("tokenizer") else f"{architecture}.{key}", value)
        for name, (shape, kind) in named[part * size : (part + 1) * size]:
            number = gguf.GGMLQuantizationType[kind]
            elements, width = gguf.GGML_QUANT_SIZES[number]
            writer.add_tensor_info(name, shape[::-1], np.dtype(np.float32), prod(shape) // elements * width, raw_dtype=number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
    return path if parts == 1 else path.with_name(f"{path.stem}-00001-of-{parts:05}.gguf")


def counts(tensors):
    return dict(Counter(kind for _, kind in tensors.values()))


def decoder(
    layers, hidden, heads, kv_heads, width, intermediate, vocabulary, kind, *, ends=("Q4_K", "Q6_K"), inside=lambda name, layer: None
):
    """Return the tensors of a plain decoder: all matrices of one type, but those that `inside` or `ends` (embedding, head) name."""
    tensors = {"token_embd.weight": ((hidden, vocabulary), ends[0]), "output_norm.weight": ((hidden,), "F32")}
    if ends[1]:
        tensors["output.weight"] = ((hidden, vocabulary), ends[1])
    shapes = {
        "attn_q": (hidden, heads * width),
        "attn_k": (hidden, kv_heads * width),
        "attn_v": (hidden, kv_heads * width),
        "attn_output": (heads * width, hidden),
        "ffn_gate": (hidden, intermediate),
        "ffn_up": (hidden, intermediate),
        "ffn_down": (intermediate, hidden),
    }
    for i in range(layers):
        for name, shape in shapes.items():
            tensors[f"blk.{i}.{name}.weight"] = (shape, inside(name, i) or kind)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{i}.{name}.weight"] = ((hidden,), "F32")
    return tensors


def more_bits(layer, layers):
    """Whether Q4_K_M gives a layer's values and down-projection 6 bits: the first and last eighth, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def q4_k_m(layers, down="ffn_down"):
    return lambda name, layer: "Q6_K" if name in ("attn_v", down) and more_bits(layer, layers) else None


def sizes(layers, context, hidden, heads, kv_heads, intermediate, **others):
    return {
        "block_count": layers,
        "context_length": context,
        "embedding_length": hidden,
        "feed_forward_length": intermediate,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        **others,
    }


def llama_2_7b():
    return sizes(32, 4096, 4096, 32, 32, 11008), decoder(32, 4096, 32, 32, 128, 11008, 32_000, "Q4_0", ends=("Q4_0", "Q6_K"))


def llama_3_1_8b():
    tensors = decoder(32, 4096, 32, 8, 128, 14336, 128_256, "Q4_K", inside=q4_k_m(32))
    tensors["rope_freqs.weight"] = ((64,), "F32")
    return sizes(32, 131_072, 4096, 32, 8, 14336, **{"rope.dimension_count": 128, "vocab_size": 128_256}), tensors


def _mixture(tensors, layers, hidden, experts, width, inside, kind):
    for i in range(layers):
        for name in ("gate", "up", "down"):
            del tensors[f"blk.{i}.ffn_{name}.weight"]
            shape = (width, hidden) if name == "down" else (hidden, width)
            tensors[f"blk.{i}.ffn_{name}_exps.weight"] = ((*shape, experts), inside(f"ffn_{name}_exps", i) or kind)
        tensors[f"blk.{i}.ffn_gate_inp.weight"] = ((hidden, experts), "F32")


def qwen3_30b_a3b():
    rule = q4_k_m(48, "ffn_down_exps")
    tensors = decoder(48, 2048, 32, 4, 128, 6144, 151_936, "Q4_K", inside=rule)
    _mixture(tensors, 48, 2048, 128, 768, rule, "Q4_K")
    tensors |= {f"blk.{i}.attn_{n}_norm.weight": ((128,), "F32") for i in range(48) for n in "qk"}
    more = {"attention.key_length": 128, "attention.value_length": 128, "expert_count": 128, "expert_used_count": 8}
    return sizes(48, 40_960, 2048, 32, 4, 6144, **more, expert_feed_forward_length=768), tensors


def gpt_oss_120b(layers=36, experts=128):
    tensors = decoder(layers, 2880, 64, 8, 64, 2880, 201_088, "Q8_0", ends=("Q8_0", "Q8_0"))
    _mixture(tensors, layers, 2880, experts, 2880, lambda name, layer: None, "MXFP4")
    for i in range(layers):
        tensors[f"blk.{i}.post_attention_norm.weight"] = tensors.pop(f"blk.{i}.ffn_norm.weight")
        tensors[f"blk.{i}.attn_sinks.weight"] = ((64,), "F32")
        for name, size in {"attn_q": 4096, "attn_k": 512, "attn_v": 512, "attn_output": 2880, "ffn_gate_inp": experts}.items():
            tensors[f"blk.{i}.{name}.bias"] = ((size,), "F32")
        for name in ("gate", "up", "down"):
            tensors[f"blk.{i}.ffn_{name}_exps.bias"] = ((2880, experts), "F32")
    more = {"expert_count": experts, "expert_used_count": 4, "expert_feed_forward_length": 2880, "attention.sliding_window": 128}
    return sizes(layers, 131_072, 2880, 64, 8, 2880, **more, **{"attention.key_length": 64, "attention.value_length": 64}), tensors


def gpt_oss_20b():
    return gpt_oss_120b(24, 32)


KEYS = {
    # what convert_hf_to_gguf.py makes of the keys of config.json
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
    "num_nextn_predict_layers": "nextn_predict_layers",
    "q_lora_rank": "attention.q_lora_rank",
    "kv_lora_rank": "attention.kv_lora_rank",
    "qk_rope_head_dim": "rope.dimension_count",
    "full_attention_interval": "full_attention_interval",
    "linear_conv_kernel_dim": "ssm.conv_kernel",
    "linear_key_head_dim": "ssm.state_size",
    "linear_num_key_heads": "ssm.group_count",
    "linear_num_value_heads": "ssm.time_step_rank",
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), "expert_count"),
}
LINEAR = {
    # convert_hf_to_gguf.py, Qwen3NextModel and those after it: the one projection becomes two
    "in_proj_qkv": "attn_qkv.weight",
    "in_proj_z": "attn_gate.weight",
    "in_proj_ba": "ssm_ba.weight",
    "in_proj_b": "ssm_beta.weight",
    "in_proj_a": "ssm_alpha.weight",
    "out_proj": "ssm_out.weight",
    "conv1d": "ssm_conv1d.weight",
    "A_log": "ssm_a",
    "dt_bias": "ssm_dt.bias",
    "norm": "ssm_norm.weight",
}
WINDOWED = ("gemma2", "gemma3", "phi3")
QKV = {"attn_qkv": ("q_proj", "k_proj", "v_proj")}
TOGETHER = {"bailingmoe2": QKV, "phi3": QKV | {"ffn_up": ("gate_proj", "up_proj")}}
NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def metadata_of(config, architecture):
    """Return what the converter writes of a configuration: latent attention as one head of the latent's width."""
    data = {theirs: config[ours] for ours, theirs in KEYS.items() if config.get(ours) is not None}
    data |= {"rope.freq_base": 10000.0, "attention.layer_norm_rms_epsilon": 1e-6}
    if architecture == "glm4moe":
        data["block_count"] += data["nextn_predict_layers"]
    else:
        data.pop("nextn_predict_layers", None)
    if architecture in WINDOWED and config.get("sliding_window"):
        data["attention.sliding_window"] = config["sliding_window"]
    if heads := config.get("linear_num_value_heads"):
        data["ssm.inner_size"] = heads * config["linear_value_head_dim"]
    if latent := config.get("kv_lora_rank"):
        rope = config["qk_rope_head_dim"]
        widths = {"key_length": latent + rope, "value_length": latent}
        widths |= {"key_length_mla": config["qk_nope_head_dim"] + rope, "value_length_mla": config["v_head_dim"]}
        data |= {f"attention.{name}": width for name, width in widths.items()} | {"attention.head_count_kv": 1, "expert_gating_func": 2}
    return data


def tensors_of(model, architecture):
    """Return the tensors of a model under the names that the package gguf has for those of Hugging Face, matrices in 16 bits."""
    kind = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names, hidden = gguf.get_tensor_name_map(kind, model.num_layers + 2), model.hidden_size
    sandwich = any(n.name == "pre_feedforward_layernorm" for n in model.layers[0].norms)
    tensors = {"token_embd.weight": ((hidden, model.embedding.vocabulary), "F16")}
    if not model.head.tied:
        tensors["output.weight"] = ((hidden, model.head.outputs), "F16")

    def vector(name, parameters, width):
        tensors[f"{name}.weight"] = ((width,), "F32")
        if parameters == 2 * width:
            tensors[f"{name}.bias"] = ((width,), "F32")

    vector("output_norm", model.final_norm.parameters, hidden)
    drafts = model.mtp if architecture == "glm4moe" else ()
    number = 0
    for group in (*model.layers, *drafts):
        for _ in range(group.count):
            block = f"blk.{number}."
            if group.mixer is None:
                tensors[f"{block}nextn.eh_proj.weight"] = ((2 * hidden, hidden), "F16")
                for name in ("enorm", "hnorm", "shared_head_norm"):
                    vector(f"{block}nextn.{name}", hidden, hidden)
                continue
            number += 1
            together = {part: whole for whole, parts in TOGETHER.get(architecture, {}).items() for part in parts}
            for matrix in group.matrices(hidden):
                linear, _, last = matrix.name.rpartition(".")
                if last == "in_proj_qkvz":
                    values = group.mixer.value_heads * group.mixer.value_dim
                    tensors[f"{block}attn_qkv.weight"] = ((hidden, matrix.outputs - values), "F16")
                    tensors[f"{block}attn_gate.weight"] = ((hidden, values), "F16")
                    continue
                if linear == "linear_attn":
                    tensors[block + LINEAR[last]] = ((matrix.inputs, matrix.outputs), "F16")
                    continue
                if matrix.name == "self_attn.kv_b_proj":  # the half of the keys is turned around
                    nope = matrix.outputs // group.mixer.heads - group.mixer.v_head_dim
                    tensors[f"{block}attn_k_b.weight"] = ((nope, matrix.inputs, group.mixer.heads), "F16")
                    tensors[f"{block}attn_v_b.weight"] = ((matrix.inputs, group.mixer.v_head_dim, group.mixer.heads), "F16")
                    continue
                whole = together.get(matrix.name.rpartition(".")[2])
                name = block + whole if whole else names.get_name(f"model.layers.{number - 1}.{matrix.name}")
                before = tensors.get(f"{name}.weight", ((0, 0), ""))[0][1]
                shape = (matrix.inputs, before + matrix.outputs) + ((matrix.copies,) if matrix.copies > 1 else ())
                tensors[f"{name}.weight"] = (shape, "F32" if matrix.name == "mlp.gate" else "F16")
                if matrix.bias:
                    tensors[f"{name}.bias"] = ((matrix.bias,), "F32")
            for part in group.vectors():
                linear, _, last = part.name.rpartition(".")
                if linear == "linear_attn":
                    tensors[block + LINEAR[last]] = ((part.parameters,), "F32")
                    continue
                own = NORMS.get(part.name) if sandwich else None
                name = block + own if own else names.get_name(f"model.layers.{number - 1}.{part.name}")
                vector(name, part.parameters, hidden if part.parameters == 2 * hidden else part.parameters)
    return tensors
