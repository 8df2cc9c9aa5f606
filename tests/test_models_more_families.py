"""Further families, beside those of test_models_families: the same counts of transformers' classes on the meta device."""

import pytest

from roofline import Model, Step
from roofline.forward import forward
from roofline.parallel import Parallel, shard_model
from test_models_families import EXPERTS, LATENT, LOCAL, ROUTED, SMALL, SPLIT, assert_equal_to_class, class_parameters
from test_models_resaved import assert_same_when_written_again

GPT = {"n_embd": 96, "n_head": 6, "n_layer": 4, "vocab_size": 512, "n_positions": 128}
WINDOW = {"sliding_window": 32}
ROUTED_ONLY = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 24}
LARGE = SPLIT | ROUTED | {"model_type": "mistral_large4_text", "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8}
LARGE |= {"v_head_dim": 16, "num_key_value_heads": 6, "index_n_heads": 3, "index_head_dim": 16, "index_topk": 32, "num_hidden_layers": 6}

FAMILIES = {
    "apertus1p5_text": SPLIT | {"model_type": "apertus1p5_text"},
    "axk1": SPLIT | ROUTED | LATENT | {"model_type": "axk1", "n_group": 1, "topk_group": 1},
    "bailing_hybrid": SPLIT
    | EXPERTS
    | LATENT
    | {"model_type": "bailing_hybrid", "num_shared_experts": 2, "layer_group_size": 3, "head_dim": 24, "short_conv_kernel_size": 4}
    | {"first_k_dense_replace": 1, "pad_token_id": 0, "num_expert_group": 1, "topk_group": 1},
    "cohere2_moe": SMALL
    | WINDOW
    | {"model_type": "cohere2_moe", "num_experts": 5, "num_experts_per_tok": 2, "first_k_dense_replace": 1}
    | {"prefix_dense_intermediate_size": 112, "num_shared_experts": 2},
    "ctrl": GPT | {"model_type": "ctrl", "dff": 208},
    "flint": SMALL | EXPERTS | WINDOW | {"model_type": "flint", "shared_expert_intermediate_size": 80, "attention_bias": True},
    "gpt_neox_japanese": {"model_type": "gpt_neox_japanese", "hidden_size": 96, "num_attention_heads": 6, "num_hidden_layers": 4}
    | {"intermediate_multiple_size": 3, "vocab_size": 512},
    "granite_swa": SPLIT | WINDOW | {"model_type": "granite_swa", "attention_bias": True},
    "granitemoe_swa": SPLIT | LOCAL | WINDOW | {"model_type": "granitemoe_swa", "shared_intermediate_size": 56},
    "iquestcoder": SMALL | {"model_type": "iquestcoder"},
    "kolibri1": ROUTED_ONLY | EXPERTS | WINDOW | {"model_type": "kolibri1", "num_hidden_layers": 6, "shared_expert_intermediate_size": 80},
    "lara_mini": ROUTED_ONLY | EXPERTS | WINDOW | DELTA | {"model_type": "lara_mini", "shared_expert_intermediate_size": 80},
    "lfm3": SMALL | WINDOW | {"model_type": "lfm3", "conv_bias": True, "num_hidden_layers": 6, "pad_token_id": 0},
    "lfm3, plain": SMALL
    | WINDOW
    | {"model_type": "lfm3", "use_sandwich_norm": False, "use_attention_gate": False, "pad_token_id": 0, "attention_bias": True},
    **{
        f"mistral_large4, indexers every {every}": {
            "model_type": "mistral_large4",
            "text_config": LARGE | {"index_topk_freq": every},
            "vision_config": {"model_type": "pixtral", "num_hidden_layers": 1},
            "tie_word_embeddings": False,
        }
        for every in (1, 2)
    },
    "mellum": SMALL
    | EXPERTS
    | WINDOW
    | {"model_type": "mellum", "layer_types": ["full_attention", "sliding_attention"] * 2}
    | {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "nanochat": SPLIT | {"model_type": "nanochat", "attention_bias": True, "bos_token_id": 0, "eos_token_id": 1},
    "xglm": {"model_type": "xglm", "d_model": 96, "attention_heads": 6, "num_layers": 4, "ffn_dim": 208, "vocab_size": 512},
}

COUNTED_ONLY = {
    # classes that do not run without data, keep no cache object, or multiply by heads what torch then counts with attention
    "biogpt": {key: value for key, value in SPLIT.items() if key != "num_key_value_heads"} | {"model_type": "biogpt"},
    "jetmoe": {"model_type": "jetmoe", "hidden_size": 96, "num_hidden_layers": 4, "num_key_value_heads": 3, "kv_channels": 24}
    | {"intermediate_size": 81, "vocab_size": 512, "num_local_experts": 5, "num_experts_per_tok": 2},
    "openai-gpt": GPT | {"model_type": "openai-gpt"},
    "zamba": SPLIT | {"model_type": "zamba", "num_key_value_heads": 6, "num_hidden_layers": 9, "mamba_d_state": 8, "mamba_dt_rank": 5},
    "zamba, untied": SPLIT | {"model_type": "zamba", "num_key_value_heads": 6, "num_hidden_layers": 9, "tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_products_and_caches_are_those_of_the_class(name):
    assert_equal_to_class(FAMILIES[name])


@pytest.mark.parametrize("name", COUNTED_ONLY)
def test_parameters_are_those_of_the_class(name):
    assert Model.load(COUNTED_ONLY[name]).parameters == class_parameters(COUNTED_ONLY[name])


@pytest.mark.parametrize("name", FAMILIES | COUNTED_ONLY)
def test_a_configuration_written_again_reads_to_the_same_model(name, tmp_path):
    assert_same_when_written_again((FAMILIES | COUNTED_ONLY)[name], tmp_path)


def test_jetmoe_has_its_published_size():
    """JetMoE-8B, arXiv 2404.07413: 8B parameters, 2.2B of them for each token."""
    size = {"hidden_size": 2048, "num_hidden_layers": 24, "num_key_value_heads": 16, "kv_channels": 128, "intermediate_size": 5632}
    model = Model.load(size | {"model_type": "jetmoe", "vocab_size": 32_000, "num_local_experts": 8, "num_experts_per_tok": 2})
    assert model.parameters == pytest.approx(8.5e9, rel=0.01)
    assert model.active_parameters - model.embedding_parameters == pytest.approx(2.2e9, rel=0.04)


def test_mistral_large_4_has_its_published_size():
    """Mistral-Large-4-1T-A52B, with the sizes of its class of transformers."""
    transformers = pytest.importorskip("transformers")
    model = Model.load(transformers.CONFIG_MAPPING["mistral_large4"]())
    assert model.parameters == pytest.approx(1.05e12, rel=0.002)
    assert model.active_parameters == pytest.approx(52e9, rel=0.03)  # embedding and head included
    assert model.kv_bytes_per_token("bf16") == 2 * (54 * (512 + 64 + 128) + 18 * (512 + 128))


def test_queries_of_experts_share_one_cache():
    """JetMoE: every visited expert makes a query for each key head; its products are those of six dense matrices of that width and their router."""
    config = COUNTED_ONLY["jetmoe"]
    model, columns = Model.load(config), 3 * 24
    assert model.kv_bytes_per_token() == 4 * 2 * 2 * columns
    step = forward(model, Step.prefill(64), weights="bf16")
    by_name = {op.name: op.flops for op in step.ops}
    pairs = 64 * 65 // 2
    assert by_name["self_attn.attention"] == 4 * pairs * 4 * (2 * columns)  # layers · pairs · two products · columns of two experts
    routed = sum(op.flops for op in step.ops if ".experts." in op.name)
    assert routed == 4 * 64 * 2 * 2 * 96 * (2 * columns + 3 * 81)  # layers · tokens · experts · FLOP of a weight · hidden · widths
    third = shard_model(model, Parallel(tensor=3))
    assert third.kv_bytes_per_token() * 3 == model.kv_bytes_per_token()
