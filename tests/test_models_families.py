"""Families whose counts are taken from transformers' classes here and now: parameters, FLOP of linear maps, cache and state.

Small configurations are built on the meta device and run once, so that torch counts the FLOP and the cache object holds its tensors.
The published ones (tests/data/cases) have their counts in the table there.
"""

import csv
import json
import math
import re
from pathlib import Path

import pytest

from roofline import ConfigError, Model, Step
from roofline.errors import InvalidValueError
from roofline.forward import forward
from roofline.huggingface import read_json
from roofline.parallel import Parallel, shard_model
from roofline.parallel.sharding import stages
from test_models_resaved import NOT_MODELLED, assert_same_when_written_again

CASES = Path(__file__).parent / "data" / "cases"
RIGHT = [
    (row["file"], row["quantity"], float(row["value"]))
    for row in csv.DictReader((CASES / "right.csv").read_text(encoding="utf-8").splitlines())
]
TOKENS = 64

SMALL = {
    "hidden_size": 96,
    "intermediate_size": 208,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_hidden_layers": 4,
    "vocab_size": 512,
    "head_dim": 24,
    "max_position_embeddings": 4096,
}
SPLIT = {key: value for key, value in SMALL.items() if key != "head_dim"}  # families that split the hidden size among heads
MAMBA = {"mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 24, "mamba_n_groups": 2, "mamba_d_conv": 4, "mamba_expand": 2}
LOCAL = {"num_local_experts": 5, "num_experts_per_tok": 2}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 72}
CONVOLVED = {"layer_types": ["conv", "full_attention", "conv", "conv"]}
PER_LAYER = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 500, "sliding_window": 32, "num_hidden_layers": 12}
BIASES = {"attention_bias": True, "mlp_bias": True}

ROUTED = {"n_routed_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 72, "n_shared_experts": 2}
LATENT = {"q_lora_rank": 32, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "num_key_value_heads": 6}
ROTARY = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}}
HALF_ROTARY = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
CLIP, SIGLIP = ({"model_type": f"{name}_vision_model", "num_hidden_layers": 1} for name in ("clip", "siglip"))


def _wrapped(kind, text, vision, **outer):
    return {"model_type": kind, "text_config": {"pad_token_id": 0} | text, "vision_config": vision} | outer


FAMILIES = {
    # what it is: a small configuration
    "apertus": SPLIT | {"model_type": "apertus"},
    "apertus, biases": SPLIT | {"model_type": "apertus", "attention_bias": True},
    "arcee": SMALL | {"model_type": "arcee"},
    "arcee, biases": SMALL | BIASES | {"model_type": "arcee", "tie_word_embeddings": True},
    "exaone": SMALL | BIASES | {"model_type": "exaone"},
    "falcon_h1": SMALL | MAMBA | {"model_type": "falcon_h1", "mamba_d_ssm": 192},
    "falcon_h1, norm and biases": SMALL
    | MAMBA
    | BIASES
    | {"model_type": "falcon_h1", "mamba_d_ssm": None, "mamba_rms_norm": True, "mamba_proj_bias": True, "projectors_bias": True},
    "gemma3n": SMALL | PER_LAYER | {"model_type": "gemma3n_text", "num_kv_shared_layers": 4, "num_hidden_layers": 10},
    "gemma3n, widths": SMALL
    | PER_LAYER
    | {"model_type": "gemma3n_text", "num_kv_shared_layers": 4, "num_hidden_layers": 10, "laurel_rank": 12, "altup_num_inputs": 3}
    | {"intermediate_size": [208] * 5 + [304] * 5},
    "gemma4, E2B": SMALL
    | PER_LAYER
    | {"model_type": "gemma4_text", "global_head_dim": 40, "num_kv_shared_layers": 6, "use_double_wide_mlp": True},
    "gemma4, E4B": SMALL | PER_LAYER | {"model_type": "gemma4_text", "global_head_dim": 40, "num_kv_shared_layers": 5},
    "granitemoehybrid": SPLIT
    | MAMBA
    | LOCAL
    | {"model_type": "granitemoehybrid", "shared_intermediate_size": 56, "layer_types": ["mamba", "attention", "mamba", "mamba"]}
    | {"attention_bias": True, "mamba_proj_bias": True},
    "granitemoehybrid, dense": SPLIT
    | MAMBA
    | {"model_type": "granitemoehybrid", "num_local_experts": 0, "shared_intermediate_size": 56, "layer_types": ["attention"] * 4},
    "helium": SMALL | BIASES | {"model_type": "helium", "head_dim": 16},
    "hunyuan_v1_dense": SMALL | {"model_type": "hunyuan_v1_dense", "attention_bias": True},
    "lfm2": SPLIT | CONVOLVED | {"model_type": "lfm2", "conv_bias": True},
    "lfm2, as published": SPLIT
    | {"model_type": "lfm2", "full_attn_idxs": [2], "block_auto_adjust_ff_dim": False, "tie_embedding": False, "block_dim": 96},
    "lfm2_moe": SPLIT | CONVOLVED | EXPERTS | {"model_type": "lfm2_moe", "num_dense_layers": 1},
    "mpt": {"model_type": "mpt", "d_model": 96, "n_heads": 6, "n_layers": 4, "vocab_size": 512},
    "nemotron": SMALL | {"model_type": "nemotron"},
    "nemotron, biases": SMALL | BIASES | {"model_type": "nemotron"},
    "olmo": SPLIT | {"model_type": "olmo", "attention_bias": True},
    "phi": SPLIT | {"model_type": "phi"},
    "afmoe": SMALL | EXPERTS | {"model_type": "afmoe", "num_shared_experts": 2, "sliding_window": 32},
    "dbrx": {"model_type": "dbrx", "d_model": 96, "n_heads": 6, "n_layers": 4, "vocab_size": 512}
    | {"attn_config": {"kv_n_heads": 2, "rope_theta": 5e5, "clip_qkv": 8}}
    | {"ffn_config": {"ffn_hidden_size": 72, "moe_num_experts": 5, "moe_top_k": 2}},
    "dots1": SMALL | ROUTED | {"model_type": "dots1", "first_k_dense_replace": 1, "attention_bias": True},
    "exaone_moe": SMALL | EXPERTS | {"model_type": "exaone_moe", "num_shared_experts": 2, "sliding_window": 32},
    "glm4_moe_lite": SPLIT | ROUTED | LATENT | {"model_type": "glm4_moe_lite"},
    "glm4v": _wrapped("glm4v", SPLIT | ROTARY | {"model_type": "glm4v_text"}, {"depth": 1}),
    "glm4v_moe": _wrapped("glm4v_moe", SPLIT | ROUTED | {"model_type": "glm4v_moe_text"} | HALF_ROTARY, {"depth": 1}),
    "hunyuan_v1_moe": SMALL | {"model_type": "hunyuan_v1_moe", "num_experts": 5, "moe_topk": 2, "attention_bias": True},
    "laguna": SMALL
    | EXPERTS
    | {"model_type": "laguna", "shared_expert_intermediate_size": 80, "sliding_window": 32, "attention_bias": True}
    | {"num_attention_heads_per_layer": [6, 8, 6, 8], "layer_types": ["full_attention", "sliding_attention"] * 2},
    "laguna, gate per element": SMALL | EXPERTS | {"model_type": "laguna", "shared_expert_intermediate_size": 80, "gating": "per-element"},
    "minicpm3": SPLIT | LATENT | {"model_type": "minicpm3"},
    "mistral4": _wrapped(
        "mistral3",
        SPLIT | ROUTED | LATENT | {"model_type": "mistral4", "first_k_dense_replace": 1},
        {"num_hidden_layers": 1},
        tie_word_embeddings=False,
    ),
    "olmo_hybrid": SPLIT
    | {"model_type": "olmo_hybrid", "pad_token_id": 0, "linear_num_key_heads": 3, "linear_key_head_dim": 16, "linear_value_head_dim": 24},
    "olmo_hybrid, as usual": SPLIT | {"model_type": "olmo_hybrid", "pad_token_id": 0},
    "qwen2_vl": _wrapped("qwen2_vl", SPLIT | ROTARY | {"tie_word_embeddings": True}, {"depth": 1, "hidden_size": 96}),
    "qwen2_5_vl": _wrapped("qwen2_5_vl", SPLIT | ROTARY, {"depth": 1, "out_hidden_size": 96}, tie_word_embeddings=True),
    "qwen2_5_omni": _wrapped("qwen2_5_omni_thinker", SPLIT | ROTARY, {"depth": 1}, audio_config={"encoder_layers": 1}),
    "qwen3_omni_moe": _wrapped("qwen3_omni_moe_thinker", SMALL | EXPERTS, {"depth": 1}, audio_config={"encoder_layers": 1}),
    "solar_open": SMALL | ROUTED | {"model_type": "solar_open"},
    "bitnet": SPLIT | {"model_type": "bitnet"},
    "codegen": {"model_type": "codegen", "n_embd": 96, "n_head": 6, "n_layer": 4, "vocab_size": 512, "n_positions": 128, "rotary_dim": 8},
    "cwm": SMALL | {"model_type": "cwm", "sliding_window": 32},
    "flex_olmo": SPLIT | {"model_type": "flex_olmo", "num_experts": 5, "num_experts_per_tok": 2, "pad_token_id": 0},
    "gpt-sw3": {"model_type": "gpt-sw3", "n_embd": 96, "n_head": 6, "n_layer": 4, "vocab_size": 512, "n_positions": 128},
    "gpt_neo": {"model_type": "gpt_neo", "hidden_size": 96, "num_heads": 6, "num_layers": 4, "vocab_size": 512, "window_size": 128}
    | {"attention_types": [[["global", "local"], 2]]},
    "granitemoeshared": SPLIT | LOCAL | {"model_type": "granitemoeshared", "shared_intermediate_size": 72, "attention_bias": True},
    "hy_v3": SMALL | EXPERTS | {"model_type": "hy_v3", "num_shared_experts": 2},
    "hyperclovax": SMALL | {"model_type": "hyperclovax"},
    "hyperclovax, no norms after": SMALL | BIASES | {"model_type": "hyperclovax", "use_post_norm": False},
    "internlm3": SMALL | BIASES | {"model_type": "internlm3"},
    "jais2": SMALL | {"model_type": "jais2"},
    "persimmon": {key: value for key, value in SPLIT.items() if key != "num_key_value_heads"} | {"model_type": "persimmon"},
    "sarvam_mla": {key: value for key, value in (SPLIT | ROUTED | LATENT).items() if key != "q_lora_rank"} | {"model_type": "sarvam_mla"},
    "sarvam_moe": SMALL | ROUTED | {"model_type": "sarvam_moe"},
    "sarvam_moe, biases": SMALL | ROUTED | {"model_type": "sarvam_moe", "attention_bias": True, "use_qk_norm": False},
    "vaultgemma": SMALL | {"model_type": "vaultgemma", "sliding_window": 32},
    "youtu": SPLIT | LATENT | {"model_type": "youtu"},
    "phi, norms": SPLIT | {"model_type": "phi", "qk_layernorm": True},
}

WRAPPERS = {
    # what stands around a text model: that text model, and the other part
    "aya_vision": ("cohere2", SPLIT, SIGLIP),
    "cohere2_vision": ("cohere2", SPLIT, SIGLIP),
    "deepseek_vl": ("llama", SPLIT, SIGLIP),
    "fast_vlm": ("qwen2", SPLIT, SIGLIP),
    "glm46v": ("glm4v_text", SPLIT, {"depth": 1}),
    "got_ocr2": ("qwen2", SPLIT, {"num_hidden_layers": 1}),
    "idefics2": ("mistral", SMALL | {"sliding_window": None}, {"num_hidden_layers": 1}),
    "idefics3": ("llama", SPLIT, {"num_hidden_layers": 1}),
    "internvl": ("qwen2", SPLIT, {"num_hidden_layers": 1}),
    "lfm2_vl": ("lfm2", SPLIT, {"num_hidden_layers": 1}),
    "llava": ("llama", SPLIT, CLIP),
    "llava_next": ("mistral", SMALL | {"sliding_window": None}, CLIP),
    "llava_next_video": ("llama", SPLIT, CLIP),
    "llava_onevision": ("qwen2", SPLIT, SIGLIP),
    "paligemma": ("gemma2", SPLIT, SIGLIP),
    "smolvlm": ("llama", SPLIT, {"num_hidden_layers": 1}),
    "video_llava": ("llama", SPLIT, CLIP),
    "vipllava": ("llama", SPLIT, CLIP),
}
LEVELS = [(outer, inner) for outer in (False, True) for inner in (False, True)]
BESIDE = re.compile("vision|visual|image|video|audio|multi_modal|projector|connector|aligner")
"""What belongs to another part than the text model, by name."""


def class_parameters(config):
    """Return the parameters of the text model of transformers' class."""
    return _class_of(config)[2]


def _class_of(config):
    """Transformers' model of a configuration on the meta device, and the parameters of its text model."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind = config["model_type"]
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    read = transformers.CONFIG_MAPPING[kind].from_dict(json.loads(json.dumps(config)))
    automatic = transformers.AutoModelForCausalLM
    if "vision_config" in config:
        automatic = transformers.AutoModelForMultimodalLM if "audio_config" in config else transformers.AutoModelForImageTextToText
    with torch.device("meta"):
        model = automatic.from_config(read).to(torch.bfloat16).eval()
    model.tie_weights()
    return torch, model, sum(p.numel() for name, p in model.named_parameters() if not BESIDE.search(name))


DATA_DEPENDENT = {"dbrx"}


def run_class(config):
    """Return the parameters of transformers' class, and what a run of it counts and keeps."""
    torch, model, parameters = _class_of(config)
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = model(input_ids=torch.zeros(1, TOKENS, dtype=torch.long, device="meta"), use_cache=True)
    products = {str(op).rpartition(".")[2]: count for op, count in counter.get_flop_counts()["Global"].items()}
    return parameters, products.get("mm", 0) + products.get("addmm", 0), _kept(torch, result.past_key_values)


def _kept(torch, cache):
    """Elements of keys and values, of recurrent states and of convolutions' columns that a cache object holds."""
    sizes = {"keys": 0, "values": 0, "indexer_keys": 0, "recurrent_states": 0, "conv_states": 0}
    for layer in cache.layers:
        for name in sizes:
            held = getattr(layer, name, None)
            tensors = held.values() if isinstance(held, dict) else held if isinstance(held, (list, tuple)) else [held]
            sizes[name] += sum(math.prod(t.shape) for t in tensors if torch.is_tensor(t))
    return sizes


def _linear(model):
    """FLOP of all matrices outside the experts: torch does not count grouped products."""
    ops = forward(model, Step.prefill(TOKENS, logits="all"), weights="bf16").ops
    return sum(
        op.flops
        for op in ops
        if op.kind == "contraction"
        and op.name != "self_attn.indexer"
        and "attention" not in op.name
        and ".experts." not in op.name
        and "state" not in op.name
    )


@pytest.mark.parametrize("name", [name for name, config in FAMILIES.items() if config["model_type"] not in DATA_DEPENDENT])
def test_parameters_products_and_caches_are_those_of_the_class(name):
    assert_equal_to_class(FAMILIES[name])


def assert_equal_to_class(config):
    parameters, linear, kept = run_class(config)
    model = Model.load(config)
    assert model.parameters == parameters
    assert _linear(model) == linear
    state = sum(g.count * h.elements for g in model.layers if g.mixer for h in g.mixer.keeps() if h.rows.kind == "state")
    assert state == kept["recurrent_states"] + kept["conv_states"]
    grown = [(g.count, h) for g in model.layers if g.mixer for h in g.mixer.keeps() if h.rows.kind != "state"]
    assert (
        sum(count * held.elements * held.rows.after(TOKENS) for count, held in grown)
        == kept["keys"] + kept["values"] + kept["indexer_keys"]
    )


@pytest.mark.parametrize("name", [name for name, config in FAMILIES.items() if config["model_type"] in DATA_DEPENDENT])
def test_parameters_are_those_of_the_class(name):
    assert Model.load(FAMILIES[name]).parameters == _class_of(FAMILIES[name])[2]


@pytest.mark.parametrize(
    ("name", "quantity", "value"), [r for r in RIGHT if (CASES / f"{r[0]}.json").exists() and r[0] not in NOT_MODELLED]
)
def test_published_models_have_their_counts(name, quantity, value):
    model = Model.load(CASES / f"{name}.json")
    found = {
        "parameters": lambda: model.parameters,
        "kv_bytes_per_token": lambda: model.kv_bytes_per_token("bf16"),
        "stored_bytes": model.stored_bytes,
    }[quantity]()
    assert found == pytest.approx(value, rel=1e-3 if quantity == "stored_bytes" else 0)


@pytest.mark.parametrize(("outer", "inner"), LEVELS)
@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapper_is_its_text_model_and_ties_as_its_class_does(kind, outer, inner):
    model_type, text, vision = WRAPPERS[kind]
    config = _wrapped(kind, text | {"model_type": model_type, "tie_word_embeddings": inner}, vision, tie_word_embeddings=outer)
    model = Model.load(config)
    assert "the vision tower and its projector" in " ".join(model.not_modelled)
    assert model.parameters == _class_of(config)[2]


PUBLISHED_CODE = {"bailing_moe", "internvl_chat", "kimi_vl", "minicpm"}
"""Families whose code is published with the checkpoints, so that no class of transformers counts them."""

CASES_READ = {p.stem: p for p in sorted(CASES.glob("*.json")) if p.stem not in NOT_MODELLED and not p.stem.startswith("resaved_")}
WRITTEN = (
    FAMILIES
    | {
        kind: _wrapped(kind, text | {"model_type": inner}, vision, tie_word_embeddings=False)
        for kind, (inner, text, vision) in WRAPPERS.items()
    }
    | {f"{name}, published": read_json(path) for name, path in CASES_READ.items() if "unsloth" not in name}
)


@pytest.mark.parametrize("name", [name for name, config in WRITTEN.items() if config["model_type"] not in PUBLISHED_CODE])
def test_a_configuration_written_again_reads_to_the_same_model(name, tmp_path):
    assert_same_when_written_again(WRITTEN[name], tmp_path)


@pytest.mark.parametrize(
    ("name", "total", "active", "cache"),
    [
        # billions, as the cards of the models say; a cache by hand: 2 · layers · key-value heads · head size · 2 B
        ("ling-mini-2.0", 16.26, 1.43, 2 * 20 * 4 * 128 * 2),  # 16B in all, 1.4B active
        ("kimi-vl-a3b", 16, 2.8, 27 * (512 + 64) * 2),  # "16B-A2.8B"; a latent row and a rotated key per layer
        ("internvl3-8b", 7.61, 7.61, 2 * 28 * 4 * 128 * 2),  # Qwen2.5-7B with another vocabulary
    ],
)
def test_models_of_published_code_have_their_published_sizes(name, total, active, cache):
    model = Model.load(CASES / f"{name}.json")
    assert model.parameters == pytest.approx(total * 1e9, rel=0.01)
    assert model.active_parameters == pytest.approx(active * 1e9, rel=0.05)
    assert model.kv_bytes_per_token("bf16") == cache


def test_minicpm_is_llama():
    """MiniCPM-2B, by hand: 40 layers of 2304 with 36 heads of 64 and 5760, a tied table of 122,753 rows; "2.4B" without it."""
    size = {"hidden_size": 2304, "intermediate_size": 5760, "num_attention_heads": 36, "num_hidden_layers": 40, "vocab_size": 122_753}
    model = Model.load(size | {"model_type": "minicpm", "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256})
    assert model.parameters - model.embedding_parameters == 40 * (4 * 2304**2 + 3 * 2304 * 5760 + 2 * 2304) + 2304


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (FAMILIES["dots1"] | {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "windows on some layers"),
        (FAMILIES["hunyuan_v1_moe"] | {"moe_topk": [2, 2, 2, 1]}, "'moe_topk'"),
        (FAMILIES["hunyuan_v1_moe"] | {"use_cla": True}, "share their keys and values"),
        (FAMILIES["laguna"] | {"num_attention_heads_per_layer": [6, 7, 6, 8]}, "multiples of 2"),
        (FAMILIES["laguna, gate per element"] | {"attention_bias": True}, "attention_bias"),
        (FAMILIES["gemma3n"] | {"num_kv_shared_layers": 7}, "no layer before them keeps one of their kind"),
        (FAMILIES["falcon_h1"] | {"projectors_bias": True}, "projectors_bias"),
        (FAMILIES["lfm2"] | {"block_ffn_dim_multiplier": "1.5"}, "block_ffn_dim_multiplier"),
        (FAMILIES["gpt_neo"] | {"attention_types": [[["global", "distant"], 2]]}, "'global' and 'local'"),
        (FAMILIES["gpt_neo"] | {"attention_types": [[["global", "local"], 3]]}, "names 6 layers, not 4"),
        (FAMILIES["mpt"] | {"attn_config": {"qk_ln": True}}, "qk_ln"),
        ({"model_type": "llava", "vision_config": {}}, "lacks 'text_config' or 'llm_config'"),
        (_wrapped("llava", SPLIT | {"model_type": "mamba9"}, CLIP), "the text model is a 'mamba9', which is not modelled"),
        (
            _wrapped("kimi_vl", SPLIT | {"model_type": "llama", "tie_word_embeddings": True}, CLIP, tie_word_embeddings=False),
            "which of the two",
        ),
        ({"model_type": "minicpm", "sparse_config": {"topk": 64}} | SPLIT, "sparse_config"),
        (read_json(CASES / "dbrx.json"), "lacks 'attn_config' or 'ffn_config'"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(config, match):
    with pytest.raises(ConfigError, match=match):
        Model.load(config)


def test_hunyuan_writes_sizes_once_for_every_layer():
    listed = {"moe_topk": [2] * 4, "num_shared_expert": [1] * 4, "moe_intermediate_size": [208] * 4}
    assert Model.load(FAMILIES["hunyuan_v1_moe"] | listed).layers == Model.load(FAMILIES["hunyuan_v1_moe"]).layers


def test_a_shared_cache_is_read_once_more_but_neither_kept_nor_written():
    """Gemma 3n E4B at 10,000 tokens: 7 of 35 layers see everything, of which the last 3 read what the fourth keeps; 2 · 2 · 256 elements."""
    model = Model.load(CASES / "gemma-3n-e4b.json")
    step = forward(model, Step.decode(context=10_000), weights="bf16")
    row = 2 * 2 * 256 * 2
    assert step.total("kv_read_bytes") == row * (7 * 10_000 + 28 * 511)
    assert step.total("kv_write_bytes") == row * 20
    assert step.held_bytes == row * (4 * 10_001 + 16 * 511)


def test_of_an_embedding_per_layer_a_token_reads_one_row():
    model = Model.load(CASES / "gemma-3n-e4b.json")
    (table,) = (op for op in forward(model, Step.decode(context=100), weights="bf16").ops if op.name == "embed_tokens_per_layer")
    assert table.weight_bytes == 35 * 256 * 2


@pytest.mark.parametrize("name", ["gemma3n", "lfm2", "falcon_h1"])
def test_new_parts_are_shared_by_tensor_parallel_devices(name):
    model = Model.load(FAMILIES[name])
    share = shard_model(model, Parallel(tensor=2))
    whole, half = (forward(m, Step.decode(context=100), weights="bf16") for m in (model, share))
    assert whole.total("flops") / 2 <= half.total("flops") < whole.total("flops")
    assert model.parameters / 2 <= share.parameters < model.parameters


def test_a_pipeline_keeps_layers_with_the_caches_they_share():
    """Gemma 3n E4B: layers 20 … 34 read the caches of layers 18 and 19, which the second of two stages has, but no third one."""
    model = Model.load(CASES / "gemma-3n-e4b.json")
    assert [stage.num_layers for stage in stages(model, 2)] == [18, 17]
    assert [stage.kv_bytes_per_token() for stage in stages(model, 2)] == [18 * 2048, 2 * 2048]
    with pytest.raises(InvalidValueError, match="caches they share"):
        stages(model, 3)
