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

from roofline import Model, Step
from roofline.forward import forward
from test_models_resaved import NOT_MODELLED

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
    "phi, norms": SPLIT | {"model_type": "phi", "qk_layernorm": True},
}

BESIDE = re.compile("vision|visual|image|audio|multi_modal|projector")
"""What belongs to another part than the text model, by name."""


@pytest.fixture(scope="module", params=FAMILIES)
def built(request):
    """A configuration, transformers' model of it on the meta device, and what its run counts and keeps."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    config = FAMILIES[request.param]
    kind = config["model_type"]
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    read = transformers.CONFIG_MAPPING[kind].from_dict(json.loads(json.dumps(config)))
    automatic = transformers.AutoModelForImageTextToText if "vision_config" in config else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = automatic.from_config(read).to(torch.bfloat16).eval()
    model.tie_weights()
    parameters = sum(p.numel() for name, p in model.named_parameters() if not BESIDE.search(name))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = model(input_ids=torch.zeros(1, TOKENS, dtype=torch.long, device="meta"), use_cache=True)
    products = {str(op).rpartition(".")[2]: count for op, count in counter.get_flop_counts()["Global"].items()}
    return config, parameters, products.get("mm", 0) + products.get("addmm", 0), _kept(torch, result.past_key_values)


def _kept(torch, cache):
    """Elements of keys and values, of recurrent states and of convolutions' columns that a cache object holds."""
    sizes = {"keys": 0, "values": 0, "recurrent_states": 0, "conv_states": 0}
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
        if op.kind == "contraction" and "attention" not in op.name and ".experts." not in op.name and "state" not in op.name
    )


def test_parameters_products_and_caches_are_those_of_the_class(built):
    config, parameters, linear, kept = built
    model = Model.load(config)
    assert model.parameters == parameters
    assert _linear(model) == linear
    state = sum(g.count * h.elements for g in model.layers if g.mixer for h in g.mixer.keeps() if h.rows.kind == "state")
    assert state == kept["recurrent_states"] + kept["conv_states"]
    grown = [(g.count, h) for g in model.layers if g.mixer for h in g.mixer.keeps() if h.rows.kind != "state"]
    assert sum(count * held.elements * held.rows.after(TOKENS) for count, held in grown) == kept["keys"] + kept["values"]


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
