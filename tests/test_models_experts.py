"""Windowed decoders and mixtures of experts against counts taken on the reference implementations, exactly.

The counts are the reference data's where it has the model; otherwise the reference implementation itself, a model of few layers
without weights. Both count what a checkpoint means, not how it is quantized: `quantization_config` is left out here.
"""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

from reference_counts import load_counts
from roofline import ConfigError, Model, Step, UnsupportedModelError
from roofline.forward import forward
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, sparse_layers
from roofline.model import Experts
from roofline.visibility import visible_pairs

ENTRIES = (
    *("ernie-4.5-21b-a3b", "gemma-4-26b-a4b", "glm-4.5", "gpt-oss-120b", "llama-4-scout", "mimo-v2-flash", "mixtral-8x7b"),
    *("olmoe-1b-7b", "phi-3.5-moe", "qwen1.5-moe-a2.7b", "qwen3-30b-a3b"),
)

WORDS = (
    # what families call their modules, in the words of ours, tried in this order
    ("feed_forward.shared_expert.", "mlp.shared_experts."),
    ("feed_forward.router", "mlp.gate"),
    ("feed_forward.", "mlp."),
    ("block_sparse_moe.router", "mlp.gate"),
    ("block_sparse_moe.", "mlp."),
    ("mlp.shared_expert.", "mlp.shared_experts."),
    ("mlp.gate.moe_statics.", "mlp.gate."),
    ("mlp.router", "mlp.gate"),
    ("router.proj", "mlp.gate"),
    ("router.scale", "mlp.gate.scales"),
    ("router.per_expert_scale", "mlp.gate.scales"),
    ("experts.", "mlp.experts."),
)


def names(module):
    """Our names for a module of a reference implementation: several where it is one matrix there."""
    module = module.removesuffix("_bias") if module.endswith("_proj_bias") else module
    for theirs, ours in WORDS:
        if module.startswith(theirs):
            module = ours + module.removeprefix(theirs)
            break
    if module.endswith("gate_up_proj"):
        prefix = module.removesuffix("gate_up_proj")
        return (f"{prefix}gate_proj", f"{prefix}up_proj")
    return (module,)


def layers_of(model):
    return [group for group in model.layers for _ in range(group.count)]


def components(model, layer):
    counts = Counter()
    for part in (*layer.matrices(model.hidden_size), *layer.vectors()):
        counts[part.name] += part.parameters
    return +counts


def assert_same_components(theirs, ours, where):
    """Every module has the parameters it should, and there is nothing else."""
    expected = Counter()
    for module, parameters in theirs.items():
        expected[names(module)] += parameters
    for parts, parameters in expected.items():
        assert sum(ours.get(part, 0) for part in parts) == parameters, (where, parts)
    assert set(ours) == {part for parts, n in expected.items() if n for part in parts}, where


def layer_numbers(text):
    ends = [part.split("-") for part in str(text).split(",")]
    return [i for first, *last in ends for i in range(int(first), int((last or [first])[0]) + 1)]


# ------------------------------------------------------------------------------------------------------ the reference data


@pytest.fixture(scope="module", params=ENTRIES)
def entry(request):
    counts = load_counts(request.param)
    return counts | {"config": _unquantized(counts["config"])}


def _unquantized(config):
    return {key: value for key, value in config.items() if key != "quantization_config"}


@pytest.fixture(scope="module")
def model(entry):
    return Model.load(entry["config"])


def test_parameters(entry, model):
    truth = entry["params"]
    assert model.parameters == sum(model.by_component().values()) == truth["total"]
    assert model.active_parameters == truth["active_per_token"]
    assert model.embedding_parameters == truth["embedding"]
    assert model.head.tied == truth["tied_word_embeddings"]
    assert model.head_parameters == truth["lm_head"] + truth["lm_head_bias"]
    assert model.final_norm.parameters == sum(n for name, n in truth["outside_layers"].items() if ".norm." in name)
    assert model.num_layers == sum(group["count"] for group in truth["layer_groups"])


def test_parameters_of_every_component_of_every_layer(entry, model):
    for group in entry["params"]["layer_groups"]:
        for i in layer_numbers(group["layers"]):
            layer = layers_of(model)[i]
            assert layer.parameters(model.hidden_size) == group["params_per_layer"]
            assert_same_components(group["components"], components(model, layer), i)


def test_experts(entry, model):
    truth = entry["params"]["moe"]
    sparse = {i: layer.feed_forward for i, layer in enumerate(layers_of(model)) if isinstance(layer.feed_forward, Experts)}
    assert sorted(sparse) == layer_numbers(truth["moe_layers"])
    assert {(part.count, part.top_k) for part in sparse.values()} == {(truth["num_experts"], truth["top_k"])}
    part = next(iter(sparse.values()))
    routed = part.expert_matrices(model.hidden_size)
    assert sum(m.parameters // m.copies for m in routed) == truth["params_per_expert_per_layer"]
    assert len(sparse) * sum(m.bias * m.copies for m in routed) == truth["expert_biases"]
    assert len(sparse) * sum(m.parameters for m in routed) == truth["routed_experts_total"]


def test_cache(entry, model):
    cache = entry["kv_cache"]
    assert model.kv_bytes_per_token("bf16") == cache["bytes_per_token"]
    assert model.state_bytes_per_sequence == cache["fixed_state_bytes_per_sequence"] == 0
    for group in cache["layer_groups"]:
        for i in layer_numbers(group["layers"]):
            mixer = layers_of(model)[i].mixer
            assert 2 * mixer.cache_elements_per_token == group["bytes_per_token"]
            assert (mixer.span or None) == group["window"]


def test_cache_held_after_a_step(entry, model):
    for point, held in entry["cache_bytes_measured"].items():
        batch, tokens = (int(part.lstrip("btokens")) for part in point.split("_"))
        if any(layer.mixer.visible == "chunk" and tokens > layer.mixer.span for layer in layers_of(model)):
            continue  # the reference implementation keeps the last `span` tokens, not those of the chunk
        assert forward(model, Step.prefill(tokens, batch=batch), weights="bf16").held_bytes == held, point


def work_of(model, point, logits="all"):
    new, cached = point["new_tokens_per_sequence"], point["cached_tokens_before"]
    return forward(model, Step.prefill(new + cached, cached=cached, batch=point["batch"], logits=logits), weights="bf16")


def category(op):
    if op.kind != "contraction":
        return "other"
    if op.name.startswith("self_attn.attention"):
        return "attention_unmasked"
    return "lm_head" if op.name == "lm_head" else "linear_layers"


def test_flops_at_every_point(entry, model):
    assert len(entry["flops"]) >= 4
    for name, point in entry["flops"].items():
        ours = Counter()
        for op in work_of(model, point).ops:
            ours[category(op)] += op.flops
        expected = {key: point[key] for key in ("linear_layers", "lm_head", "attention_unmasked")}
        assert point["linear_outside_layers"] == 0
        assert ours == expected | {"other": 0}, name
        assert work_of(model, point).total("flops") == sum(expected.values())
        (last,) = (op.flops for op in work_of(model, point, "last").ops if op.name == "lm_head")
        assert last == point["lm_head_last_position_only"], name


def test_attention_of_every_layer(entry, model):
    for name, point in entry["flops"].items():
        for call in point["attention_calls"]:
            for i in layer_numbers(call["layers"]):
                mixer = layers_of(model)[i].mixer
                assert (mixer.heads, mixer.head_dim, mixer.value_dim) == (call["q_heads"], call["qk_dim"], call["v_dim"]), (name, i)
                pairs = point["batch"] * visible_pairs(point["new_tokens_per_sequence"], point["cached_tokens_before"], mixer.visibility)
                assert pairs == call["unmasked_pairs_whole_batch"], (name, i)


def test_a_decode_of_one_token_reads_the_experts_it_visits(model):
    """All weights but the embedding table and the experts not chosen, and no more."""
    work = forward(model, Step.decode(context=1), weights="bf16", routing="best")
    table = 0 if model.head.tied else model.embedding_parameters
    assert work.total("weight_bytes") == 2 * (model.active_parameters - table + model.hidden_size)


# ------------------------------------------------------------------------- the reference implementations, few layers each

SMALL = {
    "hidden_size": 96,
    "intermediate_size": 208,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_hidden_layers": 8,
    "vocab_size": 512,
    "head_dim": 24,
    "max_position_embeddings": 4096,
}
WITHOUT_HEAD_DIM = {key: value for key, value in SMALL.items() if key != "head_dim"}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 72}
LOCAL = {"num_local_experts": 5, "num_experts_per_tok": 2}

REFERENCES = {
    "cohere2": WITHOUT_HEAD_DIM | {"sliding_window": 64, "model_type": "cohere2"},
    "cohere2, biases": WITHOUT_HEAD_DIM | {"sliding_window": 64, "attention_bias": True, "model_type": "cohere2"},
    "ernie4_5": SMALL | {"use_bias": True, "model_type": "ernie4_5", "tie_word_embeddings": False},
    "ernie4_5, no head_dim": WITHOUT_HEAD_DIM | {"model_type": "ernie4_5"},
    "ernie4_5_moe": WITHOUT_HEAD_DIM
    | {"moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 72, "moe_num_shared_experts": 2, "model_type": "ernie4_5_moe"}
    | {"moe_layer_start_index": 2, "moe_layer_end_index": 6, "moe_layer_interval": 2},
    "ernie4_5_moe, experts to the end": WITHOUT_HEAD_DIM
    | {"moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 72, "model_type": "ernie4_5_moe", "moe_layer_end_index": 27},
    "exaone4": WITHOUT_HEAD_DIM | {"sliding_window": 64, "sliding_window_pattern": 4, "model_type": "exaone4"},
    "exaone4, full": WITHOUT_HEAD_DIM | {"sliding_window": None, "layer_types": ["full_attention"] * 8, "model_type": "exaone4"},
    "gemma4": SMALL | {"hidden_size_per_layer_input": 0, "global_head_dim": 40, "model_type": "gemma4_text"},
    "gemma4, experts": SMALL
    | {"hidden_size_per_layer_input": 0, "global_head_dim": 40, "num_global_key_value_heads": 1, "attention_k_eq_v": True}
    | {"enable_moe_block": True, "num_experts": 5, "top_k_experts": 2, "moe_intermediate_size": 72, "model_type": "gemma4_text"},
    "glm4": SMALL | {"model_type": "glm4", "pad_token_id": 0},
    "glm4_moe": SMALL
    | EXPERTS
    | {"n_shared_experts": 2, "model_type": "glm4_moe", "first_k_dense_replace": 2, "num_experts": None}
    | {"n_routed_experts": 5},
    "gpt_oss": SMALL | LOCAL | {"model_type": "gpt_oss", "sliding_window": 32},
    "granite": WITHOUT_HEAD_DIM | {"mlp_bias": True, "attention_bias": True, "model_type": "granite"},
    "granitemoe": WITHOUT_HEAD_DIM | LOCAL | {"model_type": "granitemoe"},
    "llama4": {
        "model_type": "llama4_text",
        **SMALL,
        **LOCAL,
        "interleave_moe_layer_step": 2,
        "intermediate_size_mlp": 320,
        "attention_chunk_size": 64,
    },
    "mimo_v2_flash": SMALL
    | EXPERTS
    | {
        "num_attention_heads": 8,
        "num_experts": None,
        "n_routed_experts": 5,
        "v_head_dim": 16,
        "sliding_window": 33,
        "model_type": "mimo_v2_flash",
    },
    "minimax_m2": SMALL | LOCAL | {"model_type": "minimax_m2"},
    "ministral": SMALL | {"sliding_window": 64, "model_type": "ministral"},
    "ministral3": SMALL | {"model_type": "ministral3"},
    "olmo2": WITHOUT_HEAD_DIM | {"model_type": "olmo2", "attention_bias": True},
    "olmo3": WITHOUT_HEAD_DIM | {"model_type": "olmo3", "sliding_window": 64},
    "olmoe": WITHOUT_HEAD_DIM | EXPERTS | {"moe_intermediate_size": None, "model_type": "olmoe"},
    "phimoe": WITHOUT_HEAD_DIM | LOCAL | {"attention_bias": True, "lm_head_bias": True, "model_type": "phimoe"},
    "qwen2_moe": WITHOUT_HEAD_DIM
    | EXPERTS
    | {"shared_expert_intermediate_size": 88, "decoder_sparse_step": 2, "mlp_only_layers": [3], "model_type": "qwen2_moe"},
    "qwen3_moe": SMALL | EXPERTS | {"attention_bias": True, "mlp_only_layers": [0, 7], "model_type": "qwen3_moe"},
}
REFERENCES |= {
    "qwen3_vl": {"model_type": "qwen3_vl", "text_config": SMALL, "vision_config": {"depth": 1}, "tie_word_embeddings": True},
    "qwen3_vl_moe": {"model_type": "qwen3_vl_moe", "text_config": SMALL | EXPERTS, "vision_config": {"depth": 1}},
    "mistral3": {
        "model_type": "mistral3",
        "tie_word_embeddings": False,
        "text_config": SMALL | {"model_type": "mistral"},
        "vision_config": {"num_hidden_layers": 1},
    },
    "mistral3, tied": {
        "model_type": "mistral3",
        "tie_word_embeddings": True,
        "text_config": SMALL | {"model_type": "ministral3"},
        "vision_config": {"model_type": "pixtral", "num_hidden_layers": 1},
    },
    "step3p7": {
        "model_type": "step3p7",
        "text_config": SMALL
        | {"n_routed_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 72, "share_expert_dim": 88, "sliding_window": 32}
        | {"attention_other_setting": {"attention_type": "sliding_attention", "num_attention_heads": 10}}
        | {"layer_types": ["full_attention", "sliding_attention"] * 5, "num_nextn_predict_layers": 2, "moe_layers_enum": "2,3,5"},
        "vision_config": {"num_hidden_layers": 1},
    },
}


def _reference(config):
    """Parameters of the reference implementation by name, of the text model alone, and whether its head is tied."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind = config["model_type"]
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    read = transformers.CONFIG_MAPPING[kind].from_dict(json.loads(json.dumps(config)))
    automatic = transformers.AutoModelForImageTextToText if "text_config" in config else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        built = automatic.from_config(read)
    built.tie_weights()
    text = {n: p for n, p in built.named_parameters() if not any(w in n for w in ("vision", "visual", "multi_modal", "audio"))}
    return {name: p.numel() for name, p in text.items()}


def _by_layer(parameters):
    """Parameters by module, of each layer and of what stands outside."""
    inside, outside = {}, Counter()
    for name, count in parameters.items():
        _, _, rest = name.partition("layers.")
        if not rest:
            outside[name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]] += count
            continue
        number, _, module = rest.partition(".")
        inside.setdefault(int(number), Counter())[module.removesuffix(".weight").removesuffix(".bias")] += count
    return [inside[i] for i in sorted(inside)], outside


def assert_like_reference(config):
    model = Model.load(config)
    reference = _reference(config)
    inside, outside = _by_layer(reference)
    assert model.parameters == sum(reference.values())
    assert model.num_layers == len(inside)
    for i, (layer, theirs) in enumerate(zip(layers_of(model), inside, strict=True)):
        assert_same_components(theirs, components(model, layer), i)
    counts = {"embed_tokens": model.embedding_parameters, "norm": model.final_norm.parameters, "lm_head": model.head_parameters}
    assert outside == +Counter(counts)


@pytest.mark.parametrize("name", REFERENCES)
def test_small_configuration_equals_transformers_class(name):
    assert_like_reference(REFERENCES[name])


def _published():
    """Configurations of a package of the test group, by name."""
    if importlib.util.find_spec("aiconfigurator_core") is None:
        return {}
    folder = Path(importlib.util.find_spec("aiconfigurator_core").origin).parent / "model_configs"
    files = (f for f in sorted(folder.glob("*_config.json")) if "hf_quant" not in f.name)
    configs = {f.name.removesuffix("_config.json"): _unquantized(json.loads(f.read_text())) for f in files}
    return {name: config for name, config in configs.items() if config["model_type"] in FAMILIES}


FAMILIES = {
    *("gemma4", "gpt_oss", "llama", "llama4", "mimo", "mimo_v2_flash", "minimax_m2", "mixtral", "nemotron-nas"),
    *("qwen3", "qwen3_moe", "qwen3_vl", "qwen3_vl_moe", "step3p7"),
}
PUBLISHED = _published()


def _few_layers(config, count):
    """Cut a configuration down to its first layers: lists with one item per layer, too."""
    level = config.get("text_config", config)
    layers = level["num_hidden_layers"]
    short = {k: v[:count] if isinstance(v, list) and len(v) == layers else v for k, v in level.items()} | {"num_hidden_layers": count}
    if "vision_config" not in config:
        return short
    one = {"depth", "num_hidden_layers"} & set(config["vision_config"])
    return config | {
        "text_config": short,
        "vision_config": config["vision_config"] | dict.fromkeys(one, 1) | {"deepstack_visual_indexes": [0]},
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_load(name):
    model = Model.load(PUBLISHED[name])
    text = PUBLISHED[name].get("text_config", PUBLISHED[name])
    assert model.num_layers == text["num_hidden_layers"]
    assert forward(model, Step.decode(context=100), weights="bf16").total("flops") > 0


@pytest.mark.parametrize("name", [n for n, c in PUBLISHED.items() if "NVFP4" not in n and "FP8" not in n and c["model_type"] != "llama"])
def test_published_configurations_are_like_the_reference_implementation(name):
    config = _few_layers(PUBLISHED[name], 7)
    if config["model_type"] in ("mimo", "nemotron-nas"):
        pytest.skip("not in transformers")
    if config["model_type"] == "step3p7":  # flat there, nested in transformers
        extra = {"n_routed_experts": config["num_experts"]}
        config = {"model_type": "step3p7", "text_config": {k: v for k, v in config.items() if k != "num_experts"} | extra}
    assert_like_reference(config)


@pytest.mark.parametrize(
    ("name", "total", "active", "rel"),
    [
        # model cards on huggingface.co
        ("Qwen--Qwen3-235B-A22B", 235e9, 22e9, 0.01),
        ("Qwen--Qwen3-Coder-480B-A35B-Instruct", 480e9, 35e9, 0.02),
        ("MiniMaxAI--MiniMax-M2.5", 229e9, 10e9, 0.11),
        ("XiaomiMiMo--MiMo-V2-Flash", 309e9, 15e9, 0.03),
        ("meta-llama--Llama-4-Maverick-17B-128E-Instruct", 400e9, 17e9, 0.02),
        ("openai--gpt-oss-20b", 20.9e9, 3.6e9 + 0.58e9, 0.01),  # the card's 3.6B active leave the embedding table out
        ("nvidia--Llama-3_3-Nemotron-Super-49B-v1", 49.9e9, 49.9e9, 0.001),
        ("stepfun-ai--Step-3.7-Flash", 196e9, 11e9, 0.02),
    ],
)
def test_published_sizes(name, total, active, rel):
    if name not in PUBLISHED:
        pytest.skip("aiconfigurator-core is not installed")
    model = Model.load(PUBLISHED[name])
    assert model.parameters == pytest.approx(total, rel=rel)
    assert model.active_parameters == pytest.approx(active, rel=rel)


# ------------------------------------------------------------------------------------------------- what no reference covers

MIMO = WITHOUT_HEAD_DIM | {"model_type": "mimo", "num_nextn_predict_layers": 2}
FLASH = REFERENCES["mimo_v2_flash"]


def test_mimo_is_qwen2_with_layers_for_drafting():
    model = Model.load(MIMO)
    qwen = Model.load({k: v for k, v in MIMO.items() if k != "num_nextn_predict_layers"} | {"model_type": "qwen2"})
    assert model.but(mtp=()) == qwen.but(name=model.name, source=model.source)
    hidden, layer = model.hidden_size, model.layers[0].parameters(model.hidden_size)
    assert model.mtp_parameters == 2 * (layer + 2 * hidden * hidden + 3 * hidden)


def test_glm_drafts_with_a_mixture():
    config = REFERENCES["glm4_moe"] | {"num_nextn_predict_layers": 1}
    model = Model.load(config)
    hidden = model.hidden_size
    assert model.parameters == Model.load(REFERENCES["glm4_moe"]).parameters
    assert model.mtp_parameters == model.layers[-1].parameters(hidden) + 2 * hidden * hidden + 3 * hidden


def test_ernie_drafts_with_a_dense_layer():
    model = Model.load(REFERENCES["ernie4_5_moe"] | {"num_nextn_predict_layers": 1})
    hidden = model.hidden_size
    assert model.mtp_parameters == model.layers[0].parameters(hidden) + 2 * hidden * hidden + 2 * hidden


def test_minimax_drafts_only_if_it_says_so():
    config = REFERENCES["minimax_m2"] | {"num_mtp_modules": 3, "mtp_transformer_layers": 1}
    hidden, layer = 96, Model.load(config).layers[0].parameters(96)
    assert Model.load(config).mtp_parameters == 0
    assert Model.load(config | {"use_mtp": True}).mtp_parameters == 3 * (layer + 2 * hidden * hidden + 3 * hidden)


def test_layers_for_drafting_may_differ():
    config = REFERENCES["step3p7"]["text_config"] | {"model_type": "step3p5"}
    joining, first, again, second = Model.load(config).mtp
    assert joining == again
    assert [g.mixer.visible for g in (first, second)] == ["causal", "window"]
    assert first.feed_forward.intermediate == second.feed_forward.intermediate == 208
    unpadded = Model.load(config | {"layer_types": config["layer_types"][:8]})
    assert [g.mixer.visible for g in unpadded.mtp if g.mixer] == ["window", "window"]


def test_mimo_flash_drafts_with_windowed_dense_layers():
    model = Model.load(FLASH | {"num_nextn_predict_layers": 1})
    block = model.mtp[-1]
    assert (block.mixer, block.feed_forward) == (model.layers[1].mixer, model.layers[0].feed_forward)


def test_windows_of_mimo_in_both_spellings():
    def spans(config):
        return [layer.mixer.span for layer in layers_of(Model.load(config))]

    pattern = {"hybrid_layer_pattern": [0, 1, 1, 0, 1, 1, 1, 0]}
    assert spans(FLASH) == [0, 33, 33, 33, 33, 0, 33, 33]
    assert spans(FLASH | pattern | {"sliding_window": 128, "sliding_window_size": 128}) == [0, 129, 129, 0, 129, 129, 129, 0]


def test_windowed_layers_of_mimo_have_sizes_of_their_own():
    sizes = {"swa_num_attention_heads": 12, "swa_num_key_value_heads": 4, "swa_head_dim": 32, "swa_v_head_dim": 20}
    whole, window = (layer.mixer for layer in layers_of(Model.load(FLASH | sizes))[:2])
    assert (whole.heads, whole.kv_heads, whole.head_dim, whole.value_dim, whole.sinks) == (8, 2, 24, 16, False)
    assert (window.heads, window.kv_heads, window.head_dim, window.value_dim, window.sinks) == (12, 4, 32, 20, True)


def test_llama_4_chunks():
    config = REFERENCES["llama4"]
    assert [layer.mixer.visible for layer in layers_of(Model.load(config))] == (["chunk"] * 3 + ["causal"]) * 2
    assert [layer.mixer.rotary for layer in layers_of(Model.load(config))] == ([True] * 3 + [False]) * 2
    assert Model.load(config | {"no_rope_layers": [1, 1, 1, 0] * 2}).layers == Model.load(config).layers
    listed = {"layer_types": ["full_attention", "chunked_attention"] * 4}
    assert [layer.mixer.visible for layer in layers_of(Model.load(config | listed))] == ["causal", "chunk"] * 4
    assert {layer.mixer.visible for layer in layers_of(Model.load(config | {"attention_chunk_size": None}))} == {"causal"}
    assert [isinstance(layer.feed_forward, Experts) for layer in layers_of(Model.load(config | {"moe_layers": [1, 6]}))] == [
        i in (1, 6) for i in range(8)
    ]


NAS = {
    "model_type": "nemotron-nas",
    "hidden_size": 128,
    "num_attention_heads": 8,
    "num_hidden_layers": 3,
    "num_key_value_heads": None,
    "intermediate_size": None,
    "vocab_size": 512,
    "block_configs": [
        {"attention": {"n_heads_in_group": 4, "no_op": False}, "ffn": {"ffn_mult": 2.625, "no_op": False}},
        {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {"ffn_mult": 6.0, "no_op": False}},
        {"attention": {"n_heads_in_group": 8, "no_op": False}, "ffn": {"ffn_mult": None, "no_op": True}},
    ],
}


def test_a_searched_architecture_has_layers_without_attention_or_feed_forward():
    model = Model.load(NAS)
    first, second, third = layers_of(model)
    assert (first.mixer.kv_heads, first.feed_forward.intermediate, len(first.norms)) == (2, 256, 2)  # 2 · 2.625 · 128 / 3 = 224
    assert (second.mixer, second.feed_forward.intermediate, len(second.norms)) == (None, 512, 1)
    assert (third.mixer.kv_heads, third.feed_forward, len(third.norms)) == (1, None, 1)
    assert model.kv_bytes_per_token("bf16") == 2 * 2 * 16 * (2 + 1)


def _nas(part, **changes):
    blocks = json.loads(json.dumps(NAS["block_configs"]))
    blocks[0][part].update(changes)
    return NAS | {"block_configs": blocks}


def test_a_gate_per_head_is_one_column_each():
    text = REFERENCES["step3p7"]["text_config"]
    model = Model.load(REFERENCES["step3p7"])
    gates = [next(m for m in layer.matrices(96) if m.name == "self_attn.g_proj").outputs for layer in layers_of(model)]
    assert gates == [6, 10] * 4
    (tower,) = model.not_modelled
    assert tower.startswith("the work of the vision tower and its projector")
    name, _tower = Model.load({"model_type": "step3p7", **text, "attention_other_setting": None}).not_modelled
    assert "num_attention_heads" in name  # the number of heads is a guess there, and says so


# ---------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        (REFERENCES["qwen3_moe"] | {"shared_expert_intermediate_size": 64}, UnsupportedModelError, "shared expert"),
        (REFERENCES["qwen3_moe"] | {"use_qk_norm": False}, UnsupportedModelError, "use_qk_norm"),
        (REFERENCES["qwen3_moe"] | {"n_shared_experts": 1, "zero_expert_num": 4}, UnsupportedModelError, "zero_expert_num"),
        (REFERENCES["qwen3_moe"] | {"use_sliding_window": True}, UnsupportedModelError, "use_sliding_window"),
        (REFERENCES["qwen3_moe"] | {"mlp_only_layers": [8]}, ConfigError, "mlp_only_layers"),
        (REFERENCES["qwen3_moe"] | {"mlp_only_layers": ["1"]}, ConfigError, "mlp_only_layers"),
        (REFERENCES["qwen3_moe"] | {"num_experts": None}, ConfigError, "num_experts"),
        (REFERENCES["qwen3_moe"] | {"num_experts_per_tok": 6}, ConfigError, "experts"),
        (REFERENCES["qwen3_moe"] | {"num_local_experts": 4}, ConfigError, "synonym"),
        (REFERENCES["gpt_oss"] | {"experts_per_token": 4}, ConfigError, "synonym"),
        (REFERENCES["gpt_oss"] | {"layer_types": ["linear_attention"] * 8}, ConfigError, "linear_attention"),
        (REFERENCES["gpt_oss"] | {"layer_types": ["full_attention"] * 7}, ConfigError, "7 items for 8 layers"),
        (REFERENCES["gemma4"] | {"num_kv_shared_layers": 7}, ConfigError, "no layer before them keeps one of their kind"),
        (REFERENCES["gemma4"] | {"use_bidirectional_attention": "all"}, UnsupportedModelError, "later positions"),
        (REFERENCES["gemma4, experts"] | {"num_global_key_value_heads": 4}, ConfigError, "not a multiple"),
        (REFERENCES["minimax_m2"] | {"attn_type_list": [1, 0] * 4}, UnsupportedModelError, "attn_type_list"),
        (REFERENCES["minimax_m2"] | {"shared_intermediate_size": 64}, UnsupportedModelError, "shared expert"),
        (REFERENCES["minimax_m2"] | {"qk_norm_type": "per_head"}, UnsupportedModelError, "qk_norm_type"),
        (REFERENCES["ernie4_5_moe"] | {"use_bias": True}, UnsupportedModelError, "biases everywhere"),
        (REFERENCES["cohere2"] | {"use_qk_norm": True}, UnsupportedModelError, "use_qk_norm"),
        (REFERENCES["exaone4"] | {"sliding_window_pattern": "LGLG"}, UnsupportedModelError, "sliding_window_pattern"),
        (REFERENCES["ministral"] | {"sliding_window": None, "layer_types": ["sliding_attention"] * 8}, ConfigError, "no window"),
        (FLASH | {"hybrid_layer_pattern": [0, 2] * 4}, ConfigError, "hybrid_layer_pattern"),
        (FLASH | {"swa_num_key_value_heads": 3}, ConfigError, "not a multiple"),
        (FLASH | {"moe_layer_freq": [0, 1]}, ConfigError, "moe_layer_freq"),
        (MIMO | {"use_sliding_window": True}, UnsupportedModelError, "use_sliding_window"),
        (REFERENCES["mistral3"] | {"text_config": SMALL | {"model_type": "mixtral"}}, UnsupportedModelError, "mixtral"),
        (REFERENCES["step3p7"]["text_config"] | {"model_type": "step3p5", "moe_layers_enum": "a"}, ConfigError, "moe_layers_enum"),
        (REFERENCES["step3p7"]["text_config"] | {"model_type": "step3p5", "sink": True}, UnsupportedModelError, "sink"),
        (FLASH | {"moe_layer_freq": [0, 1] * 4, "mlp_layer_types": ["dense"] * 8}, ConfigError, "different layers"),
        (NAS | {"block_configs": None}, ConfigError, "block_configs"),
        (NAS | {"block_configs": [1, 2, 3]}, ConfigError, "block_configs"),
        (NAS | {"block_configs": [{"attention": {"no_op": True}}] * 3}, ConfigError, "'attention' or 'ffn'"),
        (_nas("attention", replace_with_linear=True), UnsupportedModelError, "layer 0 of 'block_configs', 'attention': key 'replace_with"),
        (_nas("attention", num_sink_tokens=4), UnsupportedModelError, "num_sink_tokens"),
        (_nas("attention", n_heads_in_group=3), ConfigError, "groups of 3"),
        (_nas("ffn", ffn_mult=0), ConfigError, "ffn_mult"),
        (_nas("ffn", ffn_mult="4"), ConfigError, "ffn_mult"),
        (_nas("ffn", sparsify="2:4"), UnsupportedModelError, "sparsify"),
    ],
)
def test_unsupported_configuration_raises_naming_the_key(config, error, match):
    with pytest.raises(error, match=match):
        Model.load(config)


def test_shared_experts_are_one_block():
    part = experts_of(Config({**EXPERTS, "n_shared_experts": 3}, "c"), gated=False)
    assert (part.shared.intermediate, part.shared.gated, part.count, part.top_k) == (216, False, 5, 2)
    assert experts_of(Config(EXPERTS, "c")).shared is None


@pytest.mark.parametrize(
    ("config", "sparse"),
    [
        ({}, "xxxxxx"),
        ({"first_k_dense_replace": 2}, "..xxxx"),
        ({"first_k_dense_replace": 1, "moe_layer_freq": 2}, "..x.x."),
        ({"moe_layer_freq": [0, 1, 1, 0, 1, 1]}, ".xx.xx"),
        ({"mlp_layer_types": ["dense", "sparse"] * 3}, ".x.x.x"),
        ({"first_k_dense_replace": 1, "mlp_layer_types": ["dense"] + ["sparse"] * 5}, ".xxxxx"),
    ],
)
def test_which_layers_are_mixtures(config, sparse):
    assert "".join("x" if flag else "." for flag in sparse_layers(Config(config, "c"), 6)) == sparse


@pytest.mark.parametrize(
    "config",
    [
        {"first_k_dense_replace": 2, "moe_layer_freq": [0, 1, 1, 1, 1, 1]},
        {"moe_layer_freq": [0, 1, 1, 1, 1, 1], "mlp_layer_types": ["sparse"] * 6},
        {"moe_layer_freq": [0, 1, 1, 1, 1, 2]},
        {"mlp_layer_types": ["dense"] * 5},
    ],
)
def test_invalid_moe_layer_lists_raise(config):
    with pytest.raises(ConfigError):
        sparse_layers(Config(config, "c"), 6)
