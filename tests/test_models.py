"""Models against counts taken on the reference implementations: parameters, cache bytes and FLOP, exactly.

The counts come from `model.parameters()`, the tensors of the cache object and `FlopCounterMode` of Hugging Face's own code
(tests/data/truth). Here are the dense models; experts, latent attention and recurrent layers have modules of their own.
"""

import importlib
import json
import pickle
from collections import Counter
from pathlib import Path

import pytest

from reference_counts import NAMES, load_counts
from roofline import ConfigError, Model, Step, UnknownNameError, list_models, ops
from roofline.errors import InvalidValueError, RooflineError
from roofline.formats import Format
from roofline.forward import forward
from roofline.huggingface import supported_model_types
from roofline.model import Attention
from roofline.names import normalize_name
from roofline.visibility import visible_pairs

CONFIGS = {name: load_counts(name)["config"] for name in ("gpt2", "gemma-2-9b", "llama-2-70b")}

ENTRIES = [
    "bert-large",
    "bloom-7b1",
    "command-r-plus",
    "falcon-7b",
    "gemma-2-9b",
    "gemma-3-27b",
    "gemma-7b",
    "glm-4-9b",
    "gpt-j-6b",
    "gpt-neox-20b",
    "gpt2",
    "llama-2-70b",
    "llama-2-7b",
    "llama-3.1-405b",
    "llama-3.1-70b",
    "llama-3.1-8b",
    "mistral-7b-v0.3",
    "opt-6.7b",
    "phi-3-mini-4k",
    "phi-4",
    "qwen2.5-7b",
    "qwen3-8b",
    "seed-oss-36b",
    "smollm3-3b",
    "stablelm-2-1.6b",
    "starcoder2-15b",
    "starcoderbase-1b",
]
"""The dense models of the reference counts."""

Q, K, V, OUT = (f"self_attn.{x}_proj" for x in "qkvo")
GATE, UP, DOWN = (f"mlp.{x}_proj" for x in ("gate", "up", "down"))
MODULES = {
    # what each family calls its modules, in the words of ours; a name that is not here means the same there and here
    "attn.c_attn": (Q, K, V),
    "attn.c_proj": (OUT,),
    "mlp.c_fc": (UP,),
    "mlp.c_proj": (DOWN,),
    "ln_1": ("input_layernorm",),
    "ln_2": ("post_attention_layernorm",),
    "attn.q_proj": (Q,),
    "attn.k_proj": (K,),
    "attn.v_proj": (V,),
    "attn.out_proj": (OUT,),
    "mlp.fc_in": (UP,),
    "mlp.fc_out": (DOWN,),
    "attention.query_key_value": (Q, K, V),
    "attention.dense": (OUT,),
    "self_attention.query_key_value": (Q, K, V),
    "self_attention.dense": (OUT,),
    "mlp.dense_h_to_4h": (UP,),
    "mlp.dense_4h_to_h": (DOWN,),
    "self_attn.qkv_proj": (Q, K, V),
    "mlp.gate_up_proj": (GATE, UP),
    "self_attn.out_proj": (OUT,),
    "fc1": (UP,),
    "fc2": (DOWN,),
    "attention.self.query": (Q,),
    "attention.self.key": (K,),
    "attention.self.value": (V,),
    "attention.output.dense": (OUT,),
    "attention.output.LayerNorm": ("attention_layernorm",),
    "intermediate.dense": (UP,),
    "output.dense": (DOWN,),
    "output.LayerNorm": ("output_layernorm",),
}
OF_OPT = {"self_attn_layer_norm": ("input_layernorm",), "final_layer_norm": ("post_attention_layernorm",)}
OUTSIDE = {
    # the last words of what stands outside the layers
    "wpe.weight": "embed_positions",
    "position_embeddings.weight": "embed_positions",
    "embed_positions.weight": "embed_positions",
    "token_type_embeddings.weight": "embed_token_types",
    "embeddings.LayerNorm": "embed_norm",
    "word_embeddings_layernorm": "embed_norm",
    "transform.dense": "head_transform",
    "transform.LayerNorm": "head_norm",
    "ln_f": "norm",
    "final_layer_norm": "norm",
    "model.norm": "norm",
    "predictions.bias": "lm_head",
    "lm_head.bias": "lm_head",
}
OPERATOR = {Q: "qkv", K: "qkv", V: "qkv", OUT: "o", GATE: "wide", UP: "wide", DOWN: "down"}
OPERATOR |= {"self_attn.qkv_proj": "qkv", "mlp.gate_up_proj": "wide"}


def names(module, entry):
    return (OF_OPT if entry["model_type"] == "opt" else {}).get(module) or MODULES.get(module, (module,))


@pytest.fixture(scope="module", params=ENTRIES)
def entry(request):
    """One reference entry with its configuration."""
    return load_counts(request.param)


@pytest.fixture(scope="module")
def model(entry):
    return Model.load(entry["config"])


def layer_numbers(text):
    """Turn "0-4,6" into [0, 1, 2, 3, 4, 6]."""
    ends = [part.split("-") for part in str(text).split(",")]
    return [i for first, *last in ends for i in range(int(first), int((last or [first])[0]) + 1)]


def mixers(model):
    """The mixer of every layer, first to last."""
    return [group.mixer for group in model.layers for _ in range(group.count)]


# -------------------------------------------------------------------------------------------------------------- parameters


def test_parameters(entry, model):
    truth = entry["params"]
    assert model.parameters == truth["total"]
    assert sum(model.by_component().values()) == truth["total"]
    assert model.active_parameters == truth["active_per_token"]
    assert model.embedding_parameters == truth["embedding"]
    assert model.head.tied == truth["tied_word_embeddings"]
    assert model.by_component().get("lm_head", 0) == truth["lm_head"] + truth["lm_head_bias"]
    assert model.num_layers == sum(group["count"] for group in truth["layer_groups"])


def test_parameters_of_every_component(entry, model):
    expected, ours = Counter(), model.by_component()
    for group in entry["params"]["layer_groups"]:
        for module, parameters in group["components"].items():
            expected[names(module, entry)] += group["count"] * parameters
    for parts, parameters in expected.items():
        assert sum(ours.get(part, 0) for part in parts) == parameters, parts
    outside = Counter({("embed_tokens",): entry["params"]["embedding"], ("lm_head",): entry["params"]["lm_head"]})
    for module, parameters in entry["params"]["outside_layers"].items():
        (name,) = {ours_ for theirs, ours_ in OUTSIDE.items() if theirs in module}
        outside[(name,)] += parameters
    for (name,), parameters in outside.items():
        assert ours.get(name, 0) == parameters, name
    assert set(ours) == {part for parts, n in (expected + outside).items() if n for part in parts}  # and nothing else


def test_biases(entry, model):
    matrices = [(g.count, m) for g in model.layers for m in g.matrices(model.hidden_size)]
    matrices += [(1, m) for m in model.head.matrices(model.hidden_size)]
    shifts = [(g.count, n) for g in model.layers for n in g.norms]
    shifts += [(1, n) for n in (model.final_norm, model.embedding.norm, model.head.norm(model.hidden_size)) if n is not None]
    biases = sum(count * m.bias * m.copies for count, m in matrices) + sum(count * (n.parameters - n.width) for count, n in shifts)
    assert biases == entry["params"]["bias_elements"]


def test_matrices_of_a_prefill_are_each_multiplied_once(entry, model):
    work = forward(model, Step.prefill(1, logits="all"), weights="bf16")
    contractions = sum(op.flops for op in work.ops if op.kind == "contraction" and "attention" not in op.name)
    assert contractions == 2 * entry["params"]["active_matmul_weights"]


# ------------------------------------------------------------------------------------------------------------------- cache


def test_cache_bytes_per_token(entry, model):
    cache = entry.get("kv_cache") or {"bytes_per_token": 0, "layer_groups": []}
    assert model.kv_bytes_per_token() == cache.get("bytes_per_token_logical", cache["bytes_per_token"])
    assert model.kv_bytes_per_token("fp8") * 2 == model.kv_bytes_per_token("bf16")
    assert model.state_bytes_per_sequence == cache.get("fixed_state_bytes_per_sequence", 0)
    for group in cache["layer_groups"]:
        for i in layer_numbers(group["layers"]):
            mixer = mixers(model)[i]
            assert 2 * mixer.cache_elements_per_token == group["bytes_per_token"]
            assert (mixer.span if mixer.visible == "window" else None) == group["window"]


def test_cache_held_after_a_step(entry, model):
    """Bytes of the tensors in the cache object: of a windowed layer it keeps window-1 tokens."""
    for point, held in entry["cache_bytes_measured"].items():
        batch, tokens = (int(part.lstrip("btokens")) for part in point.split("_"))
        assert forward(model, Step.prefill(tokens, batch=batch), weights="bf16").held_bytes == held, point


# -------------------------------------------------------------------------------------------------------------------- FLOP


def work_of(model, point, logits="all"):
    new, cached, batch = point["new_tokens_per_sequence"], point["cached_tokens_before"], point["batch"]
    step = Step.prefill(new + cached, cached=cached, batch=batch, logits=logits)
    return forward(model, step, weights="bf16")


def category(op):
    if op.kind != "contraction":
        return "other"
    if op.name == "lm_head":
        return "lm_head"
    if op.name.startswith("self_attn.attention"):
        return "attention_unmasked"
    return "linear_layers" if op.name.partition(".")[0] in ("self_attn", "mlp") else "linear_outside_layers"


def test_flops_at_every_point(entry, model):
    assert entry["flops"]
    for name, point in entry["flops"].items():
        ours = Counter()
        for op in work_of(model, point).ops:
            ours[category(op)] += op.flops
        for key in ("linear_layers", "linear_outside_layers", "lm_head", "attention_unmasked"):
            assert ours[key] == point[key], (name, key)
        assert ours["other"] == 0, name
        dense = point["flop_counter_total"] - point["attention_dense"] + point["attention_unmasked"]
        assert work_of(model, point).total("flops") == dense, name
        (last,) = (op.flops for op in work_of(model, point, "last").ops if op.name == "lm_head")
        assert last == point["lm_head_last_position_only"], name


def test_flops_of_every_module(entry, model):
    for name, point in entry["flops"].items():
        ours, theirs = Counter(), Counter()
        for op in work_of(model, point).ops:
            if category(op) == "linear_layers":
                ours[OPERATOR.get(op.name, op.name)] += op.flops
        for module, flops in point["linear_by_module"].items():
            (operator,) = {OPERATOR.get(part, part) for part in names(module, entry)}
            theirs[operator] += flops
        assert ours == theirs, name


def test_attention_calls(entry, model):
    """Heads, widths and allowed pairs of every layer; the counter's own figure is the full rectangle of each call."""
    for name, point in entry["flops"].items():
        dense = 0
        for call in point.get("attention_calls", ()):
            for i in layer_numbers(call["layers"]):
                mixer = mixers(model)[i]
                assert (mixer.heads, mixer.head_dim, mixer.value_dim) == (call["q_heads"], call["qk_dim"], call["v_dim"]), name
                pairs = point["batch"] * visible_pairs(point["new_tokens_per_sequence"], point["cached_tokens_before"], mixer.visibility)
                assert pairs == call["unmasked_pairs_whole_batch"], (name, i)
                rectangle = ops.attention(
                    "attention",
                    pairs=point["batch"] * call["q_len"] * call["kv_len"],
                    tokens=1,
                    read=0,
                    written=0,
                    heads=mixer.heads,
                    kv_heads=mixer.kv_heads,
                    qk_dim=mixer.head_dim,
                    v_dim=mixer.value_dim,
                    kv=Format.load("bf16"),
                    stream=Format.load("bf16"),
                )
                dense += rectangle.flops
        assert dense == point["attention_dense"] or "attention_calls" not in point, name


# ------------------------------------------------------------------------------------------------- every family is counted

COUNTED_BY_CLASS = {
    # model types that a test compares with transformers' own class on a small configuration, or with published figures, by test module;
    # beside them all small configurations in REFERENCES of test_models_experts
    "test_models_experts": {"gemma4_text", "llama4_text", "mimo", "nemotron-nas", "step3p5"},
    "test_models_latent": {"deepseek_v3", "deepseek_v4", "glm_moe_dsa", "kimi_k25", "longcat_flash", "minimax_m3"},
    "test_models_wrappers": {"apertus1p5", "florence2", "nemotron_h_omni"},
    "test_torch_encoder_decoders": {"voxtral_realtime"},
    "test_models_recurrent": {"kimi_k3", "mamba", "mamba2", "qwen3_5", "qwen3_5_moe_text", "qwen3_5_text"},
}
SAME_LAYERS = {
    # other names of a counted type: the text part of a multimodal configuration, the whole around it, or a renamed copy
    "deepseek_ref": "deepseek_v4",
    "gemma3_text": "gemma3",
    "gemma3n": "gemma3n_text",
    "bailing_moe_v2": "bailing_moe",
    "internlm2": "internlm3",
    "kimi_k2": "deepseek_v3",
    "minimax_m3_vl": "minimax_m3",
    "qwen2_5_omni": "qwen2_5_omni_thinker",
    "qwen2_5_omni_text": "qwen2_5_omni_thinker",
    "qwen2_5_vl_text": "qwen2_5_vl",
    "qwen2_vl_text": "qwen2_vl",
    "qwen3_omni_moe": "qwen3_omni_moe_thinker",
    "qwen3_omni_moe_text": "qwen3_omni_moe_thinker",
    "minimax_m3_vl_text": "minimax_m3",
    "mistral_large4_text": "mistral_large4",
    "mllama": "mllama_text_model",
    "phi4mm": "phi4_multimodal",
    # their classes need packages for towers that are not installed; their text models are those of other families
    "granite4_vision": "granite_docling",
    "granite4_vision_text": "granite_docling_text",
    "perception_lm": "llama",
    "qwen3_vl_moe_text": "qwen3_vl_moe",
    "voxtral_realtime_text": "voxtral_realtime",
    "qwen3_vl_text": "qwen3_vl",
}


def test_every_model_type_is_compared_with_a_reference():
    counted = {load_counts(name)["config"]["model_type"] for name in NAMES}.union(*COUNTED_BY_CLASS.values())
    counted |= {config["model_type"] for config in importlib.import_module("test_models_experts").REFERENCES.values()}
    families = importlib.import_module("test_models_families")
    counted |= {level["model_type"] for c in families.FAMILIES.values() for level in (c, c.get("text_config", {})) if "model_type" in level}
    counted |= families.WRAPPERS.keys() | families.PUBLISHED_CODE
    more, wrappers = importlib.import_module("test_models_more_families"), importlib.import_module("test_models_wrappers")
    counted |= {config["model_type"] for config in (*more.FAMILIES.values(), *more.COUNTED_ONLY.values())}
    counted |= wrappers.FLAT.keys() | wrappers.WRAPPERS.keys() | {text for text, *_ in wrappers.WRAPPERS.values()}
    encoders = importlib.import_module("test_models_encoders")
    counted |= {
        config["model_type"] for config in (*encoders.ENCODERS.values(), *encoders.DECODERS.values(), encoders.NLLB_MOE, encoders.SWITCH)
    }
    assert set(SAME_LAYERS.values()) <= counted
    missing = set(supported_model_types()) - counted - set(SAME_LAYERS)
    assert not missing, "add tests/data/truth/<model>.json, or a small configuration to REFERENCES of test_models_experts"
    for module, types in COUNTED_BY_CLASS.items():
        text = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
        assert [name for name in types if f'"{name}"' not in text] == [], module


def test_every_reference_count_is_compared():
    """Each file of tests/data/truth is an entry of one of the four modules."""
    modules = [Path(__file__).with_name(f"test_models{suffix}.py").read_text() for suffix in ("", "_experts", "_latent", "_recurrent")]
    assert [name for name in NAMES if not any(f'"{name}"' in text for text in modules)] == []


# --------------------------------------------------------------------------------------------------------------- catalogue


@pytest.mark.parametrize("name", sorted(set(ENTRIES) & set(list_models())))
def test_catalogue_entries_are_the_reference_configurations(name):
    reference = Model.load(load_counts(name)["config"])
    named = {"name": "", "source": "", "max_positions": None, "dtype": None}
    assert Model.load(name).but(**named) == reference.but(**named)


@pytest.mark.parametrize("name", list_models())
def test_every_catalogue_entry_loads_round_trips_and_is_run_length(name):
    model = Model.load(name)
    assert model.name == name
    assert len(model.source) > 10
    assert Model.load(model) is model
    assert Model.from_dict(json.loads(json.dumps(model.to_dict()))) == model
    assert all(a.but(count=1) != b.but(count=1) for a, b in zip(model.layers, model.layers[1:], strict=False))
    kinds, shared = {g.mixer.kind for g in model.layers if g.mixer}, any(getattr(g.mixer, "shared_cache", False) for g in model.layers)
    if kinds <= {"attention", "latent_attention"} and not shared and model.kv_bytes_per_token():
        work = forward(model, Step.decode(context=10), weights="bf16", kv="bf16")  # ten positions fill no window
        assert work.total("kv_read_bytes") == 10 * model.kv_bytes_per_token("bf16")


@pytest.mark.parametrize(
    ("name", "total", "without_tables", "rel"),
    [
        ("gpt-neox-20b", 20_554_567_680, None, 0),  # arXiv 2204.06745, table 1
        ("bloom-7b1", 7_069_016_064, 7_069_016_064 - 1_027_604_480, 0),  # bigscience/bloom-7b1 model card
        ("qwen2.5-7b", 7.61e9, 6.53e9, 0.001),  # Qwen2.5 model cards: parameters, and without embedding
        ("qwen3-8b", 8.2e9, 6.95e9, 0.002),  # Qwen3 model cards: likewise
    ],
)
def test_published_sizes(name, total, without_tables, rel):
    model = Model.load(name)
    tables = model.embedding_parameters * (1 if model.head.tied else 2)
    assert model.parameters == pytest.approx(total, rel=rel)
    if without_tables:
        assert model.parameters - tables == pytest.approx(without_tables, rel=rel)


# ----------------------------------------------------------------------------------------------------------------- loading

LLAMA = CONFIGS["llama-2-70b"]


def test_load_takes_a_path_a_folder_and_a_dict(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA))
    models = [Model.load(s) for s in (file, str(file), tmp_path, f"{tmp_path}/", LLAMA)]
    assert {m.parameters for m in models} == {68_976_648_192}
    assert models[0].source == str(file)
    assert models[0].layers == models[4].layers


def test_a_changed_file_is_read_again(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA))
    before = Model.load(file)
    file.write_text(json.dumps(LLAMA | {"num_hidden_layers": 9}))
    assert (before.num_layers, Model.load(file).num_layers) == (80, 9)


def test_load_does_not_change_the_dict():
    config = json.loads(json.dumps(LLAMA))
    Model.load(config)
    assert config == LLAMA


@pytest.mark.parametrize("name", ["llama-2-70b", "Llama-2-70B", "LLAMA 2 70b", "llama_2_70b", "meta-llama/Llama-2-70b-hf"])
def test_names_in_any_case_and_punctuation(name):
    assert Model.load(name).parameters == 68_976_648_192


def test_load_takes_a_config_object():
    transformers = pytest.importorskip("transformers")
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    config = transformers.LlamaConfig(**{key: LLAMA[key] for key in keys}, tie_word_embeddings=False, dtype="float16")
    model = Model.load(config)
    assert model.parameters == load_counts("llama-2-70b")["params"]["total"]
    assert model.dtype == "fp16"


@pytest.mark.parametrize(
    ("count", "parameters"),
    [
        ("70B", 70 * 10**9),
        ("70b", 70 * 10**9),
        (70e9, 70 * 10**9),
        (7 * 10**6, 7 * 10**6),
        ("350M", 350 * 10**6),
        ("1.5B", 1_500_000_000),
        ("1T", 10**12),
        ("12k", 12_000),
    ],
)
def test_a_number_of_parameters_is_a_model(count, parameters):
    model = Model.load(count)
    assert model.parameters == model.active_parameters == parameters
    assert model.is_anonymous
    assert model.kv_bytes_per_token() == 0
    assert any("KV cache" in note for note in model.not_modelled)


@pytest.mark.parametrize(("count", "meant"), [(7, '"7B" or 7e9'), (70.0, '"70B" or 70e9'), (999_999, "no transformer has so few")])
def test_billions_without_their_zeros_are_refused(count, meant):
    with pytest.raises(InvalidValueError, match=meant):
        Model.load(count)


@pytest.mark.parametrize("count", [0, -7e9, float("nan"), float("inf"), 0.5, "0B", "0.3"])
def test_invalid_number_of_parameters_raises(count):
    with pytest.raises(InvalidValueError, match="parameters"):
        Model.load(count)


@pytest.mark.parametrize("source", [None, True, [LLAMA], b"llama", object()])
def test_values_that_are_no_model_raise(source):
    with pytest.raises(ConfigError, match="a model is a name"):
        Model.load(source)


@pytest.mark.parametrize(
    ("typo", "near"), [("llama-3-80b", "llama-3-8b"), ("lama-2-7b", "llama-2-7b"), ("gtp2", "gpt2"), ("qwen3", "qwen3-8b")]
)
def test_an_unknown_name_lists_the_nearest(typo, near):
    with pytest.raises(UnknownNameError, match=f"unknown model '{typo}'; nearest: ") as caught:
        Model.load(typo)
    assert normalize_name(near) in {normalize_name(n) for n in str(caught.value).split("nearest: ")[1].split(". ")[0].split(", ")}
    assert isinstance(caught.value, LookupError)


def test_an_empty_name():
    with pytest.raises(UnknownNameError):
        Model.load("")


# ----------------------------------------------------------------------------------------------------------------- objects


def test_model_copy_does_not_share_cached_values():
    model = Model.load(LLAMA)
    step = Step.decode(context=100)
    before = model.parameters, forward(model, step).total("flops")  # fills what is remembered on the model
    group = model.layers[0]
    half = model.but(layers=(group.but(count=40),))
    assert half.num_layers == 40
    per_layer = load_counts("llama-2-70b")["params"]["layer_groups"][0]["params_per_layer"]
    assert half.parameters == before[0] - 40 * per_layer
    assert forward(half, step).total("flops") < 0.6 * before[1]
    assert (model.parameters, forward(model, step).total("flops")) == before


def test_a_copy_is_validated():
    with pytest.raises(ValueError, match="hidden_size"):
        Model.load(LLAMA).but(hidden_size=-1)


def test_models_are_frozen_compare_by_content_and_pickle():
    model = Model.load(LLAMA)
    with pytest.raises(AttributeError, match="frozen"):
        model.hidden_size = 1
    forward(model, Step.decode())
    assert Model.load(dict(LLAMA)) == model
    assert pickle.loads(pickle.dumps(model)) == model
    assert Model.load(LLAMA | {"num_hidden_layers": 79}) != model


def test_models_can_be_put_into_sets():
    assert len({Model.load(LLAMA), Model.load(dict(LLAMA)), Model.load("gpt2")}) == 2


def test_layers_are_run_length():
    assert [g.count for g in Model.load(LLAMA).layers] == [80]
    gemma = Model.load(CONFIGS["gemma-2-9b"])  # windowed and full layers alternate
    assert [g.count for g in gemma.layers] == [1] * 42
    assert [g.mixer.span for g in gemma.layers[:4]] == [4096, 0, 4096, 0]
    assert len(Model.load("gemma-3-27b").layers) == 21  # 10 × (5 windowed, 1 full), 2 windowed


def test_window_of_zero_positions_raises():
    with pytest.raises((RooflineError, ValueError)):
        Attention(heads=1, kv_heads=1, head_dim=1, visible="window", span=0)


def test_a_model_prints_its_layers_in_a_few_lines():
    text = str(Model.load("deepseek-v3.2"))
    assert len(text.splitlines()) < 10
    # 671B parameters with 37B active for a token: arXiv 2412.19437, abstract; the indexer of V3.2 and the rest from its config.json
    assert text.startswith("deepseek-v3.2: 671.9 billion parameters, 38.4 billion active for a token\n")
    assert "\n  58 layers: latent attention (heads 128, q_lora_rank 1536, kv_lora_rank 512," in text
    assert "indexer (heads 64, head_dim 128, top_k 2048)" in text
    assert "experts (count 256, top_k 8, intermediate 2048, shared dense (intermediate 2048))" in text
    assert str(Model.anonymous("70B")).startswith("70B parameters: 70 billion parameters\n")


@pytest.mark.parametrize("name", list_models())
def test_every_model_can_be_printed(name):
    model = Model.load(name)
    lines = str(model).splitlines()
    assert sum(int(line.split()[0]) for line in lines if line.split()[1] in ("layer:", "layers:")) == model.num_layers
    assert lines[-1] == f"  source: {model.source}"
