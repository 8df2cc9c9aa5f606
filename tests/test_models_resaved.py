"""Configurations as other programs write them: resaved by transformers, with switches that are off, with bookkeeping of trainers.

The counts are those of the transformers classes on the meta device. A file ``resaved_…`` is a published configuration that
transformers 5.24 loaded and wrote again (tests/data/cases).
"""

import csv
import json
from importlib import resources
from pathlib import Path

import pytest

from reference_counts import NAMES, load_counts
from roofline import ConfigError, Model, UnsupportedModelError
from roofline.huggingface import read_json, supported_model_types

CASES = Path(__file__).parent / "data" / "cases"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("phi-4-mini-instruct", 3_836_021_760),
        ("smollm2-135m", 134_515_008),
        ("falcon-40b", 41_303_293_952),
        ("llama8b-unsloth-bnb-4bit", 8_030_261_248),
        ("resaved_falcon-7b", 6_921_720_704),
        ("resaved_falcon-40b", 41_303_293_952),
        ("resaved_kimi-linear-48b-a3b", 49_122_675_072),
        ("resaved_opt-6.7b", 6_658_473_984),
        ("resaved_phi-4-mini", 3_836_021_760),
        ("resaved_qwen1.5-moe-a2.7b", 14_315_784_192),
        ("resaved_kimi-k2.5", 1_026_408_209_408),
        ("resaved_qwen3-vl-30b-a3b-instruct", 30_532_122_624),  # the wrapper says that the head is its own, and rules
    ],
)
def test_parameters_are_those_of_the_class(name, parameters):
    assert Model.load(CASES / f"{name}.json").parameters == parameters


def test_a_cache_and_a_checkpoint_have_their_published_sizes():
    assert Model.load(CASES / "phi-4-mini-instruct.json").kv_bytes_per_token("bf16") == 131_072
    # nf4 with nested scales in 224 matrices of 6,979,321,856 weights; embedding, head and norms in 16 bits
    assert Model.load(CASES / "llama8b-unsloth-bnb-4bit.json").stored_bytes() == pytest.approx(5.702e9, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "changed", "named"),
    [
        # each key that is passed over is passed over for the value that costs nothing
        ("phi-4-mini-instruct", {"full_attn_mod": 2}, "full_attn_mod"),
        ("phi-4-mini-instruct", {"interpolate_factor": 4}, "interpolate_factor"),
        ("phi-4-mini-instruct", {"mlp_bias": True}, "mlp_bias"),
        ("smollm2-135m", {"is_llama_config": "gpt2"}, "is_llama_config"),
        ("resaved_falcon-7b", {"activation": "swiglu"}, "activation"),
        ("resaved_kimi-linear-48b-a3b", {"linear_head_dim": 64}, "linear_head_dim"),
        ("resaved_kimi-linear-48b-a3b", {"linear_num_heads": 16}, "linear_num_heads"),
        ("resaved_kimi-linear-48b-a3b", {"linear_conv_kernel_dim": 3}, "linear_conv_kernel_dim"),
        ("resaved_kimi-linear-48b-a3b", {"qk_head_dim": 128}, "qk_head_dim"),
        ("resaved_kimi-linear-48b-a3b", {"moe_layer_freq": 2}, "moe_layer_freq"),
        ("resaved_qwen1.5-moe-a2.7b", {"layer_types": ["full_attention"] * 23 + ["sliding_attention"]}, "layer_types"),
        ("resaved_qwen1.5-moe-a2.7b", {"layer_types": ["full_attention"] * 23}, "layer_types"),
        ("resaved_opt-6.7b", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine"),
    ],
)
def test_another_value_of_a_free_key_is_refused(name, changed, named):
    with pytest.raises(ConfigError, match=named):
        Model.load(read_json(CASES / f"{name}.json") | changed)


def test_multi_query_says_nothing_of_the_new_falcon_architecture():
    """FalconAttention: key-value heads are `num_kv_heads` if new or not multi-query, else one."""
    old = read_json(CASES / "resaved_falcon-7b.json")
    assert Model.load(old).kv_bytes_per_token() == 2 * 2 * 32 * 64  # keys and values, 2 bytes, 32 layers, one head of 64
    assert Model.load(old | {"multi_query": False}).kv_bytes_per_token() == 71 * 2 * 2 * 32 * 64
    new = read_json(CASES / "falcon-40b.json")
    assert Model.load(new).kv_bytes_per_token() == 2 * 2 * 60 * 8 * 64
    assert Model.load(new | {"multi_query": False}).kv_bytes_per_token() == 2 * 2 * 60 * 8 * 64


# ---------------------------------------------------------------------------------------------- tied embeddings, said twice

WRAPPED = {
    "qwen3_vl": {"model_type": "qwen3_vl", "vision_config": {}},
    "mistral3": {"model_type": "mistral3", "vision_config": {}},
    "kimi_k25": {"model_type": "kimi_k25", "vision_config": {}},
}
TEXT = {
    "qwen3_vl": read_json(CASES / "smollm2-135m.json") | {"model_type": "qwen3_vl_text", "is_llama_config": None},
    "mistral3": read_json(CASES / "smollm2-135m.json") | {"model_type": "mistral", "is_llama_config": None},
    "kimi_k25": read_json(CASES / "resaved_kimi-k2.5.json")["text_config"],
}


def _tied(family, wrapper, text):
    said = WRAPPED[family] | ({} if wrapper is None else {"tie_word_embeddings": wrapper})
    inner = TEXT[family] | {"tie_word_embeddings": text}
    return Model.load(said | {"text_config": inner}).head.tied


@pytest.mark.parametrize(
    ("family", "wrapper", "text", "tied"),
    [
        # Qwen3VLForConditionalGeneration ties by the outer key, whatever the inner one says
        ("qwen3_vl", False, True, False),
        ("qwen3_vl", True, False, True),
        # Mistral Small 3.1 has a head of its own, though Mistral3Config, resaved, says otherwise outside
        ("mistral3", True, False, False),
        ("mistral3", False, True, True),
        # where one level is silent, the other one says it
        ("qwen3_vl", None, True, True),
        ("mistral3", None, False, False),
        ("kimi_k25", None, False, False),
        ("kimi_k25", False, False, False),
    ],
)
def test_the_family_decides_which_level_ties(family, wrapper, text, tied):
    assert _tied(family, wrapper, text) is tied


def test_levels_that_disagree_are_refused_where_the_family_is_not_known_to_decide():
    with pytest.raises(UnsupportedModelError, match="'tie_word_embeddings' is True, but False in 'text_config'"):
        _tied("kimi_k25", True, False)


# ------------------------------------------------------------------------------------------------------ loaded and written again

CATALOGUE = {
    file.name.removesuffix(".json"): json.loads(file.read_text(encoding="utf-8"))["config"]
    for file in (resources.files("roofline") / "_models").iterdir()
    if file.name.endswith(".json")
}
PUBLISHED = {f"reference {name}": load_counts(name)["config"] for name in NAMES} | dict(sorted(CATALOGUE.items()))
NO_CLASS = {"bailing_moe", "deepseek_ref", "internlm2", "internvl_chat", "kimi_k2", "kimi_k3", "kimi_vl", "mimo", "minimax_m3", "nemotron-nas"}
"""Families that transformers has under another name, or whose code is published with the checkpoint."""


def _written_again(config, folder):
    transformers = pytest.importorskip("transformers")
    classes = transformers.CONFIG_MAPPING
    model_type = config["model_type"]
    if model_type in NO_CLASS:
        pytest.skip(f"transformers has no class for {model_type}")
    if model_type == "step3p7" and "text_config" not in config:
        model_type = "step3p5"  # published flat; transformers nests it
    loaded = classes[model_type].from_dict(dict(config))
    loaded.save_pretrained(folder)
    return {
        "saved": read_json(folder / "config.json"),
        "whole": json.loads(loaded.to_json_string(use_diff=False)),
        "object": loaded,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_configuration_written_again_reads_to_the_same_model(name, tmp_path):
    assert_same_when_written_again(PUBLISHED[name], tmp_path)


def assert_same_when_written_again(config, folder):
    published = Model.load(config)
    for how, again in _written_again(config, folder).items():
        model = Model.load(again)
        # where the published file says little or nothing of a tower, its class has one by default
        towers = set() if published.towers and not published.unknown_towers else {"towers", "unknown_towers"}
        model = model.but(towers=tuple(a.but(model_type=b.model_type) for a, b in zip(model.towers, published.towers, strict=False)))
        for field in sorted(set(Model._fields) - {"name", "source", "max_positions", "not_modelled"} - towers):
            assert getattr(model, field) == getattr(published, field), (how, field)
        # written by default where the published file is silent
        assert model.max_positions == published.max_positions or published.max_positions is None


NOT_BY_DEFAULT = {
    # families whose class has defaults that describe no model
    "deepseek_v2": "no number of experts that a token visits",
    "dots1": "no number of experts",
    **dict.fromkeys(("glm4_moe", "glm4v_moe", "glm4v_moe_text"), "96 heads do not divide its hidden size"),
    **dict.fromkeys(("qwen3_omni_moe", "qwen3_omni_moe_text", "qwen3_omni_moe_thinker"), "28 heads do not divide its hidden size"),
    "kimi_k25": "its levels disagree on the head, and the code is published with the checkpoint",
}


@pytest.mark.parametrize("model_type", [t for t in supported_model_types() if t not in NOT_BY_DEFAULT])
def test_every_family_is_read_as_its_class_writes_it(model_type, tmp_path):
    """What a class writes of its defaults: with and without what it has in common with every class."""
    transformers = pytest.importorskip("transformers")
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers has no class for {model_type}")
    default = transformers.CONFIG_MAPPING[model_type]()
    default.save_pretrained(tmp_path)
    saved = Model.load(read_json(tmp_path / "config.json"))
    whole = Model.load(json.loads(default.to_json_string(use_diff=False)) | {"model_type": model_type})
    for field in sorted(set(Model._fields) - {"name", "source"}):
        assert getattr(saved, field) == getattr(whole, field), field


# ---------------------------------------------------------------------------------------------------- what is not modelled yet


NOT_MODELLED = {
    "falcon-h1-34b": "32 Mamba heads of 128 are not the 10240 channels",
    "whisper-large-v3": "lacks 'decoder_attention_heads'",
    "dbrx": "lacks 'attn_config' or 'ffn_config'",
    "mistral-params-json": "no 'model_type'.*looks like the params.json of Mistral's or Meta's own: the config.json that is published beside it is read",
    "hf-llama-no-modeltype": "no 'model_type'.*'architectures' names LlamaForCausalLM: add \"model_type\": \"llama\" if it is one",
}


@pytest.mark.parametrize("name", NOT_MODELLED)
def test_a_family_that_is_not_modelled_is_refused_in_a_sentence(name):
    with pytest.raises(ConfigError, match=NOT_MODELLED[name]) as caught:
        Model.load(CASES / f"{name}.json")
    assert len(str(caught.value)) < 500


def test_every_configuration_of_the_folder_is_tested():
    counted = {row["file"] for row in csv.DictReader((CASES / "right.csv").read_text(encoding="utf-8").splitlines())}
    unknown = {"gemma-4-e2b", "kimi-vl-a3b"}  # dimensions that are not those of a published model: read all the same
    names = {file.stem for file in CASES.glob("*.json")}
    assert {name for name in names if not name.startswith("resaved_")} - counted <= unknown | set(NOT_MODELLED)
    for name in unknown - set(NOT_MODELLED):
        assert Model.load(CASES / f"{name}.json").parameters > 0


def test_a_text_model_beside_another_part_is_read_by_itself():
    """InternVL3-8B's text model has Qwen2.5-7B's dimensions; 57,344 bytes of cache per token in bf16."""
    text = read_json(CASES / "internvl3-8b.json")["llm_config"]
    assert Model.load(text).kv_bytes_per_token("bf16") == 57_344
